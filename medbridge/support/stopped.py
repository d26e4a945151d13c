"""Ctrl-C in the seconds in which the command line is still being imported: one line and status 130, no traceback."""

import sys
from pathlib import Path

STOPPED = "\nstopped; what was finished is kept, the same command goes on from there"

if Path(sys.argv[0]).stem in ("-m", "medbridge"):  # the program is the command line, not a notebook or a script
    sys.excepthook = lambda kind, *error: (print(STOPPED, file=sys.stderr) if issubclass(kind, KeyboardInterrupt) else
                                           sys.__excepthook__(kind, *error))
