"""Laboratories to start from."""
