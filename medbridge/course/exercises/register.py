"""The register of exercise checks, and the steps that they share. [ours]

A check calls the reader's function and compares what it gives with the right value and with typical mistakes (:func:`judge`),
each of which has its hint. The checks of notebook NN are in ``medbridge/course/exercises/nbNN.py``; the notebook says what each
exercise asks for.
"""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import Tensor

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


def judge(
    answer: Answer, inputs: tuple, want: Any, mistakes: Iterable[tuple[Any, str]] = (), otherwise: str = "", case: str = "",
    give: str = "one number", kind: type = object, **tolerance: float,
) -> Any:
    """What the reader's function gives for ``inputs`` (:func:`ask`), once it is known to be ``want`` (:func:`compare`)."""
    got = ask(answer, *inputs, shape=np.shape(want), give=give, kind=kind)
    compare(got, want, mistakes, otherwise, case, **tolerance)
    return got


def ask(answer: Answer, *inputs: Any, shape: tuple[int, ...] = (), give: str = "one number", kind: type = object) -> Any:
    """What the reader's function gives for copies of ``inputs``, as :func:`shaped` has it."""
    with np.errstate(all="ignore"):
        return shaped(answer(*copy.deepcopy(inputs)), shape, give, kind)


def shaped(got: Any, shape: tuple[int, ...], give: str, kind: type = object) -> Any:
    """``got`` as float64 of ``shape``, a number where that is ``()``; else AnswerError, which asks to give ``give``."""
    if got is None:
        raise AnswerError(f"your function returns nothing; give {give}")
    if not isinstance(got, kind):
        raise AnswerError(f"return a torch tensor, not {type(got).__name__}; give {give}")
    if isinstance(got, tuple) and len(shape) > 1:
        raise AnswerError("your function returns a tuple; return the tensor alone (t.max(dim) gives two things: take .values)")
    if tuple(np.shape(got)) != shape:
        raise AnswerError(f"your result has shape {tuple(np.shape(got))}; give {give}")
    return _numbers(got)[()]


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, Tensor) else value, dtype=np.float64)


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether two numbers, arrays or tensors have one shape and, up to the tolerance, the same values; NaN equals NaN."""
    a, b = _numbers(a), _numbers(b)
    return a.shape == b.shape and np.allclose(a, b, rtol, atol, equal_nan=True)


def refuse(*mistakes: tuple[Any, str]) -> None:
    """AnswerError with the hint of the first ``(whether it was made, hint)`` that holds."""
    for made, hint in mistakes:
        if made:
            raise AnswerError(hint)


def compare(
    got: Any, want: Any, mistakes: Iterable[tuple[Any, str]] = (), otherwise: str = "", case: str = "", **tolerance: float
) -> None:
    """Nothing where ``got`` is ``want``; else AnswerError with the hint of the first mistake that fits, else ``otherwise``.

    Args:
        mistakes: ``(wrong value, hint)``, or ``(whether it was made, hint)`` with a bool.
        case: names the inputs; up to six numbers of ``want`` and ``got`` stand behind it, before the hint.
        tolerance: ``rtol`` and ``atol`` of :func:`close`.
    """
    if close(got, want, **tolerance):
        return
    fits = (hint for wrong, hint in mistakes
            if (wrong if isinstance(wrong, bool | np.bool_) else close(got, wrong, **tolerance)))
    values = f"{_show(want)} is right, you give {_show(got)}" if _numbers(want).size <= 6 else ""
    raise AnswerError("; ".join(filter(None, (": ".join(filter(None, (case, values))), next(fits, otherwise)))))


def _show(value: Any) -> str:
    return ", ".join(f"{v:.10g}" if float(v).is_integer() else f"{v:.4g}" for v in _numbers(value).ravel())
