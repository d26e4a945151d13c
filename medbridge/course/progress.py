"""Which exercises of the course are solved, kept in one small file on this machine and nowhere else. [ours]

:func:`medbridge.course.check` calls :func:`record`; ``medbridge course progress`` prints :func:`summary`. The file is
``course/progress.json`` in the cache folder (``MEDBRIDGE_CACHE``). ``MEDBRIDGE_PROGRESS=off`` keeps nothing: runs that are no
student's (the build of the notebooks, ``pytest --nbval``, the solutions) set it.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medbridge.course.exercises import CHECKS
from medbridge.errors import MedBridgeError
from medbridge.features.cache import cache_folder

__all__ = ["NotebookProgress", "progress_file", "read", "record", "summary"]

FORMAT = 1


@dataclass(frozen=True)
class NotebookProgress:
    """How far one notebook is.

    Attributes:
        notebook: its number, such as '03'.
        solved: exercises whose check has said "right" once, such as '3.1'.
        tried: those with a try and no right answer yet.
        open: those without a try.
    """

    notebook: str
    solved: tuple[str, ...]
    tried: tuple[str, ...]
    open: tuple[str, ...]


def progress_file() -> Path:
    """Where the progress is kept."""
    return cache_folder() / "course" / "progress.json"


def read(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """Exercise number -> ``{"tries": int, "solved": ISO time or None}``; empty where nothing was kept.

    Raises:
        MedBridgeError: the file is there and is no progress file of this version.
    """
    path = path or progress_file()
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"format {saved['format']!r}")
        return {str(number): {"tries": int(entry["tries"]), "solved": entry["solved"]}
                for number, entry in saved["exercises"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise MedBridgeError(f"{path}: is no progress file of this version ({error}); delete it to begin anew") from None


def record(exercise: str, solved: bool) -> None:
    """Count one try. What was solved stays solved. A folder that cannot be written or a damaged file is left as it is, silently:
    an exercise must never fail for it."""
    if os.environ.get("MEDBRIDGE_PROGRESS", "").lower() in ("off", "0", "no"):
        return
    try:
        path = progress_file()
        entries = read(path)
        entry = entries.setdefault(exercise, {"tries": 0, "solved": None})
        entry["tries"] += 1
        if solved and entry["solved"] is None:
            entry["solved"] = datetime.now(UTC).isoformat(timespec="seconds")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")  # renamed when whole: two notebooks may run at once
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "exercises": entries}, file, indent=1)
        os.replace(name, path)
    except (OSError, RuntimeError, MedBridgeError):  # RuntimeError: no home folder
        return


def summary() -> list[NotebookProgress]:
    """One entry a notebook that has exercises, in order. MedBridgeError as :func:`read`."""
    entries = read()
    notebooks: dict[int, list[str]] = {}
    for number in CHECKS:
        notebooks.setdefault(int(number.split(".")[0]), []).append(number)
    found = []
    for notebook, numbers in sorted(notebooks.items()):
        numbers.sort(key=lambda number: int(number.split(".")[1]))
        solved = tuple(n for n in numbers if entries.get(n, {}).get("solved"))
        tried = tuple(n for n in numbers if n in entries and n not in solved)
        found.append(NotebookProgress(f"{notebook:02d}", solved, tried, tuple(n for n in numbers if n not in (*solved, *tried))))
    return found
