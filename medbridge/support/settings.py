"""Settings from a file or a command line, checked by pydantic; what is wrong becomes one plain sentence that names the fix."""

import argparse
import functools
import reprlib
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator, create_model, model_validator

from medbridge.support.text import did_you_mean

T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]  # a list with at least one entry
_A_LIST = "{value}: write a list with at least one entry"
_REASONS = {  # what is wrong and the fix, by the first word of pydantic's name of the error
    "int": "{value}: write a whole number", "float": "{value}: write a number", "finite": "{value}: write a finite number",
    "string": "{value}: write a text", "bool": "{value}: write true or false", "dict": "{value}: write it as name: value",
    "list": _A_LIST, "tuple": _A_LIST, "too": _A_LIST, "greater": "{value}: write at least {ge:g}",
    "literal": "{value} is unknown; write {expected}", "value": "{error}",
}


class Settings(BaseModel):
    """Base of what a file holds: no other keys, no conversions but of whole numbers to floats, nothing infinite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, given: Any) -> Any:
        known = {field.alias or name: field for name, field in cls.model_fields.items()}
        if not isinstance(given, dict):
            raise ValueError(f"{reprlib.repr(given)}: write it as key: value, with {', '.join(known)}")
        for key in given:
            if key not in known:
                raise ValueError(f"unknown key {key!r}; {did_you_mean(key, known)}known: {', '.join(known)}")
        for key, field in known.items():
            if field.is_required() and key not in given:
                raise ValueError(f"key {key!r} is missing")
        return given


@functools.cache
def as_settings(cls: type, start: Any = None) -> Any:
    """The type of a field that holds the stdlib dataclass ``cls``, made from a mapping of its own fields; the others are those of
    ``start``, by default the defaults of the class."""
    hints = typing.get_type_hints(cls)
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    mirror = create_model(cls.__name__, __base__=Settings,
                          **{f.name: (hints[f.name], ... if f.name in needed else None) for f in fields(cls)})

    def build(given: Any, check: Callable[[Any], Any]) -> Any:
        if isinstance(given, cls):
            return given
        check(given)
        return cls(**given) if start is None else replace(start, **given)

    return Annotated[mirror, WrapValidator(build)]


def check_settings(cls: type[T], given: Any) -> T:
    """A mapping of its fields as an instance of ``cls``, Settings or a stdlib dataclass. ValueError: an unknown, missing or
    repeated key, a value of another type, or what ``cls`` itself refuses."""
    try:
        return TypeAdapter(cls if issubclass(cls, BaseModel) else as_settings(cls)).validate_python(given)
    except ValidationError as error:
        raise ValueError(_sentence(error)) from None


def read_text(kind: Any, text: str) -> Any:
    """The value of type ``kind`` that an option of a command line writes. argparse.ArgumentTypeError says what to write."""
    try:
        return TypeAdapter(Annotated[kind, None], config=ConfigDict(allow_inf_nan=False)).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(_sentence(error)) from None


def distinct(values: Sequence[T]) -> Sequence[T]:
    """The same values. ValueError where two of them are the same text, whatever the case."""
    texts = [str(value).lower() for value in values]
    if twice := [value for value, text in zip(values, texts, strict=True) if texts.count(text) > 1]:
        raise ValueError(f"{twice[0]!r} is named twice")
    return values


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    parts = [part for part in first["loc"] if part != "[key]"]  # the key itself stands before it
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    reason = _REASONS.get(first["type"].split("_")[0], "{value}: {message}")
    reason = reason.format(value=reprlib.repr(first["input"]), message=first["msg"], **first.get("ctx", {}))
    return f"{place}: {reason}" if place else reason
