"""The checks of the exercises: right answers pass, typical mistakes get their own hint, stubs are not begun.

``cases_NN.py`` holds the cases of notebook NN: ``NAMES`` (exercise -> what its solution defines), ``WRONG`` (exercise, answer,
part of the hint), and where there are any ``RIGHT`` (exercise, another right answer).
"""

import copy
import math
import re
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from sklearn.metrics import roc_auc_score

from medbridge.course import check
from medbridge.course.exercises import CHECKS
from medbridge.prompts import ClassPrompts
from medbridge.studies.tables import holm

ROOT = Path(__file__).resolve().parents[2]
SOURCES, HINTS = ROOT / "notebooks" / "sources", ROOT / "medbridge" / "course" / "exercises" / "hints.yaml"
CASES = {path.stem[-2:]: import_module(path.stem) for path in sorted(Path(__file__).parent.glob("cases_[0-9][0-9].py"))}
NAMES = {number: name for cases in CASES.values() for number, name in cases.NAMES.items()}
WRONG = [case for cases in CASES.values() for case in cases.WRONG]
RIGHT = [case for cases in CASES.values() for case in getattr(cases, "RIGHT", [])]
NO_FUNCTIONS = {"1.3", "8.3", "12.3"}


@lru_cache
def _solutions(notebook):
    """The code of a notebook's folded solutions, and what it defines."""
    (source,) = SOURCES.glob(f"{notebook}_*.py")
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", source.read_text(encoding="utf-8"), re.S | re.M)
    codes = ["\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines()) for block in blocks]
    scope = {"np": np, "math": math, "torch": torch, "F": F, "copy": copy, "roc_auc_score": roc_auc_score,
             "ClassPrompts": ClassPrompts}
    for code in codes:
        exec(code, scope)
    return source, codes, scope


@pytest.mark.parametrize("notebook", CASES)
def test_printed_solutions_are_those_of_the_solution_notebook(notebook):
    source, codes, _ = _solutions(notebook)
    solved = (SOURCES / "solutions" / source.name).read_text(encoding="utf-8")
    assert len(codes) == len(CASES[notebook].NAMES)
    for code in codes:
        assert code.strip() in solved


def test_every_exercise_has_its_cases():
    assert set(NAMES) == set(CHECKS) == {number for number, *_ in WRONG}


@pytest.mark.parametrize("number", NAMES)
def test_printed_solution_is_right(number, capsys):
    scope, names = _solutions(f"{int(number.split('.')[0]):02d}")[2], NAMES[number]
    check(number, scope[names] if isinstance(names, str) else tuple(scope[name] for name in names))
    assert capsys.readouterr().out == f"Exercise {number}: right\n"


def test_holm_by_its_known_example():
    """Holm's own step-down, by which exercises 7.3 and 10.2 are judged."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("number", NAMES)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, None if number in NO_FUNCTIONS else stub)
    assert capsys.readouterr().out == f"Exercise {number}: not begun yet\n"


@pytest.mark.parametrize(("number", "answer"), RIGHT, ids=[f"{number}-{i}" for i, (number, _) in enumerate(RIGHT)])
def test_another_right_answer_passes(number, answer, capsys):
    check(number, answer)
    assert capsys.readouterr().out == f"Exercise {number}: right\n"


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG, ids=[f"{number}-{hint}" for number, _, hint in WRONG])
def test_a_typical_mistake_gets_its_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out.startswith(f"Exercise {number}: not yet right: ") and hint in out, out


def test_every_hint_is_named_by_a_check():
    """A mistake without a hint fails where its solution is checked; this finds a hint without a mistake."""
    code = "".join(path.read_text(encoding="utf-8") for path in sorted(HINTS.parent.glob("nb*.py")))
    names = {name for hints in yaml.safe_load(HINTS.read_text(encoding="utf-8")).values() for name in hints}
    assert {name for name in names - {"give", *"ABCDEFGH"} if not re.search(rf"\b{name}\b", code)} == set()
