"""Ctrl-C in the seconds in which the command line is still being imported: one line and status 130, no traceback."""

import sys
from pathlib import Path
from types import TracebackType

STOPPED = "\nstopped; what was finished is kept, the same command goes on from there"


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print(STOPPED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if Path(sys.argv[0]).stem in ("-m", "medbridge"):  # the program is the command line, not a notebook or a script
    sys.excepthook = _hook
