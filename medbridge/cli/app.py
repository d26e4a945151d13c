"""``medbridge COMMAND``: finds the command's module, and turns errors into one line and an exit status."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module

from medbridge import __version__
from medbridge.cli.options import COMMANDS, NOTICE, add_command
from medbridge.errors import MedBridgeError
from medbridge.support.stopped import STOPPED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0; 1 where ``data check`` or ``cache info`` finds a fault; 2 for an error that names its fix; 130 when stopped by the user;
    141 when what reads the output, such as ``head``, has seen enough.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is written in escapes, not lost
                stream.reconfigure(errors="backslashreplace")
        args = _parse(sys.argv[1:] if argv is None else argv)
        with warnings.catch_warnings():  # a warning is one line, without file and line of this package
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
            status = args.run(args) or 0
        sys.stdout.flush()
        return status
    except (MedBridgeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        for stream in (1, 2):  # or Python would try again at exit, and complain
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; check that its disk is connected, has room and may be read and "
              f"written, or name another folder", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return 130


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="medbridge", description=f"MedBridge (arXiv 2505.21698). {NOTICE}")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    named = next((word for word in argv if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command["help"])
        if name == named:  # the modules of the other commands are not even imported
            add_command(own, command, import_module(f"medbridge.cli.{name}"))
    return parser.parse_args(argv)
