"""Atomic writes: a file is the old one or the new one, never half of either, whatever is killed or unplugged meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write ``path`` (its folder is made) whole or not at all: temporary name beside it, fsync, rename; returns ``path``.

    ``content`` is bytes, text (UTF-8), or a function that writes to the path it is given, such as ``figure.savefig``. OSError
    where the file cannot be written; the temporary one is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: savefig and numpy choose a format by it; the process id keeps two writers apart
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
