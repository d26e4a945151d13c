"""The command line: one file per command, called by :mod:`medbridge.cli.app`."""

from medbridge.cli.app import main

__all__ = ["main"]
