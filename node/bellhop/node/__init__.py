"""The shells: the daemon, the simulation, the command line."""
