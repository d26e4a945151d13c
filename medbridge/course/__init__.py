"""What the notebooks share: the profile, seeds, and the checker of exercises.

An exercise that was not begun is no failure, so that notebooks run from top to bottom.
"""

import os
from typing import Any

import numpy as np
import torch

from medbridge.course.exercises import CHECKS, AnswerError
from medbridge.course.progress import record
from medbridge.data import Benchmark, list_benchmarks
from medbridge.data.tasks import BenchmarkRef
from medbridge.errors import BenchmarkError


def full_profile() -> bool:
    """Whether ``MEDBRIDGE_PROFILE=full`` asks for the real sizes; "default" takes two minutes. ValueError: another value."""
    value = os.environ.get("MEDBRIDGE_PROFILE", "default")
    if value not in ("default", "full"):
        raise ValueError(f"MEDBRIDGE_PROFILE={value!r} is unknown; use 'default' or 'full'")
    return value == "full"


def seed_everything(seed: int = 0) -> np.random.Generator:
    """Seed torch and return a seeded numpy generator; NumPy's global generator is not used in the course."""
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def real_films() -> Benchmark | None:
    """The first benchmark of real films that the folder ``MEDBRIDGE_DATA`` holds; None where it holds none.

    BenchmarkError: it is there, and its files have a fault.
    """
    for name in (name for name in list_benchmarks() if not name.startswith("phantom")):
        try:
            found = BenchmarkRef.parse(name)
        except BenchmarkError:  # no folder of this name
            continue
        return found.load()
    return None


def check(exercise: str, answer: Any) -> None:
    """Check the answer to an exercise, such as '3.1', print the verdict, and keep it for ``medbridge course progress``."""
    if exercise not in CHECKS:
        raise ValueError(f"there is no exercise {exercise!r}; the exercises are {', '.join(CHECKS)}")
    verdict = "right"
    try:
        if answer is None or answer is ...:
            raise NotImplementedError
        CHECKS[exercise](answer)
    except NotImplementedError:
        verdict = "not begun yet"
    except AnswerError as error:
        verdict = f"not yet right: {error}"
    except Exception as error:  # the reader's code may raise anything; it is their answer that is at fault
        verdict = f"your code raised {type(error).__name__}: {error}"
    if verdict != "not begun yet":
        record(exercise, solved=verdict == "right")
    print(f"Exercise {exercise}: {verdict}")
