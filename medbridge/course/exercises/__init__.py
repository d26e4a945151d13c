"""Checks of the course's exercises, one module per notebook; here are their register and the steps that they share.

A check asks the reader's function for its values, and compares them with the right ones and with those of typical mistakes. Each
mistake has a name, under which ``hints.yaml`` holds what the reader is told; the notebook says what each exercise asks for.
"""

import copy
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import yaml
from torch import Tensor

CHECKS: dict[str, Callable[[Any], None]] = {}
_HINTS = yaml.safe_load(Path(__file__).with_name("hints.yaml").read_text(encoding="utf-8"))


class AnswerError(Exception):
    """An answer that is not right yet; the message says what to look at."""


class Answer:
    """What the reader gave, mostly a function, and the hints of the exercise by the mistake's name.

    The hint ``give`` says what the function returns (default: one number), ``otherwise`` what to do where no mistake fits.
    """

    def __init__(self, given: Any, hints: Mapping[str, str]) -> None:
        self.given, self.hints = given, {"give": "one number", "otherwise": ""} | hints

    def __call__(self, *inputs: Any) -> Any:
        """What the reader's function gives for copies of ``inputs``."""
        with np.errstate(all="ignore"):
            return self.given(*copy.deepcopy(inputs))

    def ask(self, *inputs: Any, shape: tuple[int, ...] = (), kind: type = object) -> Any:
        """What the reader's function gives, as float64 of ``shape``, a number where that is ``()``; else AnswerError."""
        got, give = self(*inputs), self.hints["give"]
        if got is None:
            raise AnswerError(f"your function returns nothing; give {give}")
        if not isinstance(got, kind):
            raise AnswerError(f"return a torch tensor, not {type(got).__name__}; give {give}")
        if isinstance(got, tuple) and len(shape) > 1:
            raise AnswerError("your function returns a tuple; give the tensor alone (t.max(dim) gives two things: take .values)")
        if tuple(np.shape(got)) != shape:
            raise AnswerError(f"your result has shape {tuple(np.shape(got))}; give {give}")
        return _numbers(got)[()]

    def judge(self, inputs: tuple, want: Any, *case: Any, kind: type = object, **comparison: Any) -> None:
        """:meth:`ask` for what ``inputs`` give, and :meth:`compare` it with ``want``."""
        self.compare(self.ask(*inputs, shape=np.shape(want), kind=kind), want, *case, **comparison)

    def refuse(self, values: Mapping[str, Any] | None = None, /, **made: Any) -> None:
        """AnswerError with the hint of the first mistake that was ``made``; ``values`` fill the hint's braces."""
        for name, was_made in made.items():
            hint = self.hints[name]
            if was_made:
                raise AnswerError(hint.format(**values or {}))

    def compare(
        self, got: Any, want: Any, case: str = "", values: Mapping[str, Any] | None = None, *, otherwise: str = "otherwise",
        rtol: float = 1e-5, atol: float = 1e-8, **mistakes: Any,
    ) -> None:
        """Nothing where ``got`` is ``want``; else AnswerError with the hint of the first mistake that fits, or ``otherwise``.

        Args:
            case: names the inputs; up to six numbers of ``want`` and ``got`` stand behind it, before the hint.
            values: fill the hint's braces.
            otherwise: the name of the hint where no mistake fits.
            mistakes: by name the value that each gives, or a bool: whether it was made.
        """
        hints = {name: self.hints[name] for name in (*mistakes, otherwise)}
        if close(got, want, rtol, atol):
            return
        fits = (name for name, wrong in mistakes.items()
                if (wrong if isinstance(wrong, bool | np.bool_) else close(got, wrong, rtol, atol)))
        hint = hints[next(fits, otherwise)].format(**values or {})
        numbers = f"{_show(want)} is right, you give {_show(got)}" if _numbers(want).size <= 6 else ""
        raise AnswerError("; ".join(filter(None, (": ".join(filter(None, (case, numbers))), hint))))


def exercise(number: str, hints: Mapping[str, str] | None = None) -> Callable[[Callable[[Answer], None]], Callable]:
    """Register the decorated function as the check of exercise ``number``, such as '3.1'; by default with its ``hints.yaml``."""

    def register(test: Callable[[Answer], None]) -> Callable[[Answer], None]:
        CHECKS[number] = lambda given: test(Answer(given, _HINTS[number] if hints is None else hints))
        return test

    return register


def close(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Whether two numbers, arrays or tensors have one shape and, up to the tolerance, the same values; NaN equals NaN."""
    a, b = _numbers(a), _numbers(b)
    return a.shape == b.shape and np.allclose(a, b, rtol, atol, equal_nan=True)


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value.detach() if isinstance(value, Tensor) else value, dtype=np.float64)


def _show(value: Any) -> str:
    return ", ".join(f"{v:.10g}" if float(v).is_integer() else f"{v:.4g}" for v in _numbers(value).ravel())


for _module in sorted(m.name for m in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
