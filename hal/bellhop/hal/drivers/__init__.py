"""Drivers: a `Laboratory` over the controllers that laboratories already have."""
