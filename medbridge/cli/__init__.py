"""The command line: one thin file a command; :mod:`medbridge.cli.app` dispatches."""

from medbridge.cli.app import main

__all__ = ["main"]
