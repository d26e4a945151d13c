"""Every error that MedBridge raises on purpose.

Each message names the file, row or argument at fault and how to mend it; the command line prints it without a traceback.
"""


class MedBridgeError(Exception):
    """Base class of all documented MedBridge errors."""


class ImageError(MedBridgeError, ValueError):
    """A film that is missing, unreadable, corrupt or unsafe to decode; the message names the file."""


class BenchmarkError(MedBridgeError, ValueError):
    """A benchmark whose table or folder is wrong; the message names file, row and column."""


class BenchmarkWarning(UserWarning):
    """A benchmark that loads, but not whole: the message counts what is missing and names the first of it."""


class ExpertError(MedBridgeError, ValueError):
    """An unknown expert, or one whose weights are not here; the message says which file to put where."""


class AdapterError(MedBridgeError, ValueError):
    """A saved adapter that is corrupt or belongs to other experts; the message names the difference."""


class EvaluationError(MedBridgeError, ValueError):
    """Scores and targets that do not fit together; the message names the argument."""


class CacheError(MedBridgeError, RuntimeError):
    """Features that do not fit on the disk or in the limit, or that were deleted while they are read."""
