"""Which files below a folder are films. Endings are no proof: PACS exports have none, and a Mac leaves ``._film.png``."""

import mimetypes
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medbridge.data.images import probe_film
from medbridge.errors import ImageError

FILM_SUFFIXES = (".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".dcm", ".dicom")
_SYSTEM = ("dicomdir", "thumbs.db", ".ds_store")  # a PACS, Windows and macOS leave them beside films


@dataclass
class FolderFiles:
    """What lies below a folder, each list by name."""

    films: list[Path] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # text, tables, archives ...: certainly no film
    faults: list[str] = field(default_factory=list)  # messages: what cannot be opened, or may be a damaged film


def find_films(folder: str | Path, wanted: Callable[[Path], bool] = lambda path: True) -> FolderFiles:
    """All films below ``folder``; links are followed, but not to a folder above it, nor twice to one.

    A file with the ending of a film is one, any other where its header says so; ``wanted`` tells which are looked at.
    """
    found, seen = FolderFiles(), set(map(str, Path(folder).resolve().parents))
    for here, folders, files in os.walk(folder, followlinks=True, onerror=lambda error: found.faults.append(
            f"{error.filename}: cannot be opened ({error.strerror}); check its permissions")):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for path in filter(wanted, (Path(here, name) for name in files)):
            if path.suffix.lower() in FILM_SUFFIXES and not path.name.startswith("._"):
                found.films.append(path)  # unopened: a million of them cost nothing here
            else:
                _judge(path, found)
    for part in vars(found).values():
        part.sort()
    return found


def _judge(path: Path, found: FolderFiles) -> None:
    try:
        probe_film(path)
        found.films.append(path)
    except ImageError as error:
        kind, head = mimetypes.guess_type(path.name)[0] or "image/unknown", b""
        if path.is_file() and os.access(path, os.R_OK):
            with open(path, "rb") as file:
                head = file.read(132)
        text = head.startswith(b"\0\5\x16\7") or (b"\0" not in head and head)  # the first is what macOS keeps beside a file
        if head and (text or path.name.lower() in _SYSTEM or not kind.startswith("image/")):
            found.others.append(str(path))
        else:
            found.faults.append(str(error))
