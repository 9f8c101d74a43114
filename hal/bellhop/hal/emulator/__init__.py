"""The emulated nature, the process that serves it, and the client of any memory service."""
