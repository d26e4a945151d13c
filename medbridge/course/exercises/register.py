"""The register of exercise checks: each check raises :class:`AnswerError` with a hint. [ours]

The checks of notebook NN are in ``medbridge/course/exercises/nbNN.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["CHECKS", "AnswerError", "exercise"]


class AnswerError(Exception):
    """An answer that is not right yet; the message says what to look at."""


CHECKS: dict[str, Callable[[Any], None]] = {}


def exercise(number: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as the check of exercise ``number``, such as '3.1'."""

    def register(test: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS[number] = test
        return test

    return register
