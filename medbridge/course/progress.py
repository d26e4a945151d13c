"""Which exercises of the course are solved, kept in one small file on this machine and nowhere else.

:func:`medbridge.course.check` calls :func:`record`; ``medbridge course progress`` prints :func:`summary`. The file is
``course/progress.json`` in the cache folder (``MEDBRIDGE_CACHE``). ``MEDBRIDGE_PROGRESS=off`` keeps nothing: runs that are no
student's (the build of the notebooks, ``pytest --nbval``, the solutions) set it.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medbridge.course.exercises import CHECKS
from medbridge.errors import MedBridgeError
from medbridge.features.cache import cache_folder
from medbridge.support.files import write_atomic

FORMAT = 1


def progress_file() -> Path:
    """Where the progress is kept."""
    return cache_folder() / "course" / "progress.json"


def read() -> dict[str, dict[str, Any]]:
    """Exercise number -> ``{"tries": int, "solved": ISO time or None}``; MedBridgeError where the file is of no such kind."""
    path = progress_file()
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
        entries = read()
        entry = entries.setdefault(exercise, {"tries": 0, "solved": None})
        entry["tries"] += 1
        if solved and entry["solved"] is None:
            entry["solved"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_atomic(progress_file(), json.dumps({"format": FORMAT, "exercises": entries}, indent=1))
    except (OSError, RuntimeError, MedBridgeError):  # RuntimeError: no home folder
        return


def summary() -> dict[str, dict[str, str]]:
    """Notebook, such as '03' -> exercise, such as '3.1' -> 'solved' (right once), 'tried' or 'open', all in order.

    MedBridgeError as :func:`read`.
    """
    entries, notebooks = read(), {}
    for number in sorted(CHECKS, key=lambda number: [int(part) for part in number.split(".")]):
        state = "open" if number not in entries else "solved" if entries[number]["solved"] else "tried"
        notebooks.setdefault(f"{int(number.split('.')[0]):02d}", {})[number] = state
    return notebooks
