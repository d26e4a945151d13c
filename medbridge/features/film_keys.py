"""What a film file holds, whatever it is called: its SHA-256, its size in pixels and its print, read once.

The cache addresses features by content, so that films which were moved, copied or unpacked again are not computed again. Reading
every byte of a benchmark at every start would be slow; ``films.jsonl`` remembers the digest of a path for as long as the file has
the same length and times of change. A program can set the one of its content back (``cp -p``, ``os.utime``), not the one of its
entry, ctime; Windows keeps no such time. Where only that differs (a copy, another machine), the file is read once more, and the
digest finds the same features. Lines are appended, so that a kill or a second process costs a line at most.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from medbridge.data.copies import film_print
from medbridge.data.images import film_digest, film_file, probe_film, read_film
from medbridge.errors import ImageError
from medbridge.support.threads import ahead

_MEMORY = "films.jsonl"


@dataclass(frozen=True)
class FilmFile:
    """sha256 in hex; height and width in pixels; print (:mod:`medbridge.data.copies`), empty where nothing can be decoded."""

    digest: str
    height: int
    width: int
    print: bytes = b""


def film_files(paths: Sequence[Path], folder: Path | None, threads: int = 1, progress: bool = False) -> list[FilmFile]:
    """Digest, size and print of each film, read by so many ``threads`` and remembered in the ``folder`` of the cache (None:
    nowhere). ImageError: a file that is no film, by its header; the message names it."""
    known = {} if folder is None else _remembered(folder / _MEMORY)
    names = [os.path.abspath(p) for p in paths]
    stamps = [_stamp(p) for p in paths]
    new = [i for i, (name, stamp) in enumerate(zip(names, stamps, strict=True)) if known.get(name, (None,))[0] != stamp]
    bar = tqdm(ahead(lambda i: _read(paths[i]), new, threads), "reading film files", len(new), unit="film", leave=False,
               disable=not progress or len(new) < 100)
    lines = []
    try:
        for i, film in zip(new, bar, strict=True):
            known[names[i]] = (stamps[i], film)
            lines.append(json.dumps([names[i], *stamps[i], film.digest, film.height, film.width, film.print.hex()]) + "\n")
    finally:
        if lines and folder is not None:
            with suppress(OSError):  # a read-only cache costs time, not the result
                folder.mkdir(parents=True, exist_ok=True)
                with open(folder / _MEMORY, "a", encoding="utf-8") as file:
                    file.write("".join(lines))
    return [known[name][1] for name in names]


def film_key(film: FilmFile, boxes: np.ndarray) -> bytes:
    """Address of the features of these views ``(V, 4)`` of a film: 20 bytes."""
    return hashlib.sha256(bytes.fromhex(film.digest) + np.ascontiguousarray(boxes, dtype=np.float32).tobytes()).digest()[:20]


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = film_file(path).stat()
    except OSError:
        return (-1, -1, -1)  # probe_film says what is wrong
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> FilmFile:
    try:
        film = read_film(path)
        (height, width), trace = film.shape, film_print(film)
    except ImageError:  # whoever needs its pixels is told; here its header will do
        (height, width), trace = probe_film(path), b""
    return FilmFile(film_digest(path), height, width, trace)


def _remembered(path: Path) -> dict[str, tuple[tuple[int, int, int], FilmFile]]:
    known = {}
    with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with suppress(ValueError, TypeError):  # a torn line
                name, *stamp, digest, height, width, trace = json.loads(line)  # of an older version without a print: read again
                known[name] = (tuple(stamp), FilmFile(digest, height, width, bytes.fromhex(trace)))
    return known
