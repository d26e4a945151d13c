"""Atomic writes: a file is the old one or the new one, never half of either, whatever is killed or unplugged meanwhile."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write ``path`` (its folder is made) whole or not at all: temporary name beside it, fsync, rename; returns ``path``.

    ``content`` is bytes, text (UTF-8), or a function that writes to the path it is given, such as ``figure.savefig``. OSError
    with its name where the file cannot be written; the temporary one is removed.
    """
    path = Path(path)
    # the suffix stays last: savefig and numpy choose a format by it; the process id keeps two writers apart
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # of a full disk it comes without a name
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        with suppress(OSError):  # of a drive that is gone
            temporary.unlink(missing_ok=True)
    return path


def try_folder(folder: str | Path) -> None:
    """OSError before the work, not after it, where nothing can be written to ``folder``, which is made."""
    # an empty file fits on a full disk; another process may try at the same time
    write_atomic(Path(folder) / ".tried", bytes(2**16)).unlink(missing_ok=True)
