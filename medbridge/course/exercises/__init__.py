"""Checks of the course's exercises, one module a notebook."""

from importlib import import_module
from pkgutil import iter_modules

from medbridge.course.exercises.register import CHECKS, Answer, AnswerError, exercise

__all__ = ["CHECKS", "Answer", "AnswerError", "exercise"]

for _module in sorted(m.name for m in iter_modules(__path__) if m.name.startswith("nb")):
    import_module(f"{__name__}.{_module}")
