"""The simulation: many nodes' cores in one process, in virtual time, repeatable by its seed."""
