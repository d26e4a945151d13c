"""The register of exercise checks, and the steps that they share. [ours]

A check calls the reader's function (:func:`ask`) and compares what it gives with the right value and with typical mistakes
(:func:`judge`), each of which has its hint. The checks of notebook NN are in ``medbridge/course/exercises/nbNN.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["CHECKS", "Answer", "AnswerError", "ask", "close", "exercise", "judge", "refuse", "shaped"]


Answer = Callable[..., Any]  # the function that an exercise asks for


class AnswerError(Exception):
    """An answer that is not right yet; the message says what to look at."""


CHECKS: dict[str, Callable[[Any], None]] = {}


def exercise(number: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as the check of exercise ``number``, such as '3.1'."""

    def register(test: Callable[[Any], None]) -> Callable[[Any], None]:
        CHECKS[number] = test
        return test

    return register


def ask(answer: Callable, *inputs: Any, shape: tuple[int, ...] = (), give: str = "one number", kind: type = object) -> Any:
    """What the reader's function gives for copies of ``inputs``, as :func:`shaped` has it."""
    with np.errstate(all="ignore"):
        return shaped(answer(*copy.deepcopy(inputs)), shape, give, kind)


def shaped(got: Any, shape: tuple[int, ...], give: str, kind: type = object) -> Any:
    """``got`` as float64 of ``shape``, a number where that is ``()``.

    Raises:
        AnswerError: nothing came, or another shape or kind; it ends in "give ``give``".
    """
    if got is None:
        raise AnswerError(f"your function returns nothing; give {give}")
    if not isinstance(got, kind):
        raise AnswerError(f"return a torch tensor, not {type(got).__name__}; give {give}")
    if isinstance(got, tuple) and len(shape) > 1:
        raise AnswerError("your function returns a tuple; return the tensor alone (t.max(dim) gives two things: take .values)")
    if tuple(np.shape(got)) != shape:
        raise AnswerError(f"your result has shape {tuple(np.shape(got))}; give {give}")
    return np.asarray(got.detach() if isinstance(got, Tensor) else got, dtype=np.float64)[()]


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether two numbers, arrays or tensors have one shape and, up to the tolerance, the same values; NaN equals NaN."""
    a, b = (np.asarray(v.detach() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (a, b))
    return a.shape == b.shape and np.allclose(a, b, rtol, atol, equal_nan=True)


def refuse(mistakes: Iterable[tuple[Any, str]]) -> None:
    """AnswerError with the hint of the first ``(whether it was made, hint)`` that holds."""
    for made, hint in mistakes:
        if made:
            raise AnswerError(hint)


def judge(
    got: Any, want: Any, mistakes: Iterable[tuple[Any, str]], otherwise: str, frame: str = "", rtol: float = 1e-5,
    atol: float = 1e-8,
) -> None:
    """Nothing where ``got`` is ``want``; else AnswerError with the hint of the first mistake that fits, else ``otherwise``.

    Args:
        mistakes: ``(wrong value, hint)``, or ``(whether it was made, hint)`` with a bool.
        frame: what comes before the hint, such as the inputs, ``want`` and ``got``.
        rtol, atol: as numpy's allclose takes them.
    """
    if close(got, want, rtol, atol):
        return
    fits = (hint for wrong, hint in mistakes
            if (wrong if isinstance(wrong, bool | np.bool_) else close(got, wrong, rtol, atol)))
    raise AnswerError("; ".join(filter(None, (frame, next(fits, otherwise)))))
