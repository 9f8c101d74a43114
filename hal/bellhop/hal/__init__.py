"""What a quantum memory can do, the emulated nature behind it, and drivers for real ones."""
