"""The cores: link, network, DI-QKD and keys.  Pure: no clock, no chance, no input or output."""
