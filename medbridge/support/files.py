"""Atomic writes: a file is the old one or the new one, never half of either, whatever is killed or unplugged meanwhile."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write ``path`` whole or not at all: temporary name in the same folder, fsync, rename; returns ``path``.

    Args:
        path: the file; its folder is made where it is missing.
        content: bytes, text (UTF-8), or a function that writes to the path it is given, such as ``figure.savefig``.

    Raises:
        OSError: the file cannot be written; the temporary one is removed.
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
