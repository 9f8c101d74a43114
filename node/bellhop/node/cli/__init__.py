"""The `bellhop` command."""

from bellhop.node.cli.main import main

__all__ = ["main"]
