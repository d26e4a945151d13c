"""Settings from files: what is accepted, and the one sentence that says what to write instead."""

from argparse import ArgumentTypeError
from dataclasses import dataclass, field
from typing import Annotated

import pytest
from pydantic import Field, Strict

from medbridge.support.settings import Settings, as_settings, check_settings, distinct, read_text


@dataclass(frozen=True)
class Choice:
    size: int = 8
    rate: float = 0.5
    top: int | None = None
    name: str = "a"
    deep: bool = True

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size={self.size} must be at least 1")


@dataclass
class Needed:
    name: str
    sizes: list[int] = field(default_factory=list)


class File(Settings):
    title: str
    choice: as_settings(Choice) = Choice()
    shares: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Strict(False), Field(min_length=1)] = (1.0,)
    entries: dict[str, as_settings(Choice)] = Field({}, alias="given")


def test_values_are_taken_as_they_are_written():
    assert check_settings(Choice, {}) == Choice() and check_settings(Needed, {"name": "x"}) == Needed("x")
    assert check_settings(Choice, {"size": 3, "top": None, "deep": False}) == Choice(3, deep=False)
    whole = check_settings(Choice, {"rate": 1})
    assert whole.rate == 1 and type(whole.rate) is int  # settings are compared as text: 1 stays 1
    file = check_settings(File, {"title": "t", "choice": {"top": 2}, "shares": [0, 0.5], "given": {"x": {"name": "y"}}})
    assert file.choice == Choice(top=2) and file.shares == (0.0, 0.5) and file.entries == {"x": Choice(name="y")}
    assert check_settings(File, {"title": "t", "choice": Choice(9)}).choice.size == 9


@pytest.mark.parametrize(("cls", "given", "message"), [
    (Choice, 3, "3: write it as key: value, with size, rate, top, name, deep"),
    (Choice, {"sise": 3}, "unknown key 'sise'; did you mean 'size'? known: size, rate, top, name, deep"),
    (Choice, {1: 3}, "unknown key 1; known: size, rate, top, name, deep"),
    (Choice, {"size": "3"}, "size: '3': write a whole number"),
    (Choice, {"size": True}, "size: True: write a whole number"),
    (Choice, {"size": 3.0}, "size: 3.0: write a whole number"),
    (Choice, {"size": 0}, "size=0 must be at least 1"),
    (Choice, {"top": "x"}, "top: 'x': write a whole number"),
    (Choice, {"rate": True}, "rate: True: write a number"),
    (Choice, {"rate": float("nan")}, "rate: nan: write a finite number"),
    (Choice, {"rate": float("inf")}, "rate: inf: write a finite number"),
    (Choice, {"name": 3}, "name: 3: write a text"),
    (Choice, {"deep": 1}, "deep: 1: write true or false"),
    (Needed, {}, "key 'name' is missing"),
    (Needed, {"name": "x", "sizes": 3}, "sizes: 3: write a list with at least one entry"),
    (File, {}, "key 'title' is missing"),
    (File, {"title": "t", "shares": []}, "shares: []: write a list with at least one entry"),
    (File, {"title": "t", "shares": [1, -1.5]}, "shares[1]: -1.5: write at least 0"),
    (File, {"title": "t", "choice": {"size": 0}}, "choice: size=0 must be at least 1"),
    (File, {"title": "t", "given": {"x": {"size": "y"}}}, "given.x.size: 'y': write a whole number"),
    (File, {"title": "t", "given": {1: {}}}, "given[1]: 1: write a text"),
    (File, {"title": "t", "zzz": {}}, "unknown key 'zzz'; known: title, choice, shares, given"),
])
def test_what_is_wrong_is_one_sentence(cls, given, message):
    with pytest.raises(ValueError) as caught:
        check_settings(cls, given)
    assert str(caught.value) == message


def test_a_value_is_shown_in_short():
    with pytest.raises(ValueError, match=r"^size: 'x{5,}\.\.\.x+': write a whole number$"):
        check_settings(Choice, {"size": "x" * 100_000})


def test_text_of_a_command_line_is_converted():
    assert [read_text(kind, "3") for kind in (int, float, str, int | None)] == [3, 3.0, "3", 3]
    for kind, text, message in ((int, "x", "'x': write a whole number"), (float, "nan", "'nan': write a finite number")):
        with pytest.raises(ArgumentTypeError) as caught:
            read_text(kind, text)
        assert str(caught.value) == message


def test_names_are_distinct_whatever_their_case():
    assert distinct(["a", "b"]) == ["a", "b"]
    with pytest.raises(ValueError, match="'a' is named twice"):
        distinct(["a", "b", "A"])
