"""The checks of notebooks 00 and 01: right answers pass, typical mistakes get their own hint, stubs are not begun."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from medbridge.course import check
from medbridge.prompts import ClassPrompts

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "sources"
NAMES = {"0.1": "numbers_per_film", "0.2": "mixture", "0.3": "trainable_share", "1.1": "info_nce", "1.2": "prompt_score",
         "1.3": "my_prompts"}
BOOKS = {"0": "00_start_here.py", "1": "01_vlms_and_zero_shot.py"}


def _printed(solution: str) -> str:
    """The code of an exercise's folded solution in the main notebook."""
    text = (SOURCES / BOOKS[solution[0]]).read_text(encoding="utf-8")
    section = text[text.index(f"### Exercise {solution}:"):]
    code = re.search(r"# ```python\n(.*?)# ```\n", section, re.DOTALL).group(1)
    return textwrap.dedent("".join(line.removeprefix("#").removeprefix(" ") for line in code.splitlines(keepends=True)))


@pytest.mark.parametrize("number", NAMES)
def test_printed_solution_is_right_and_the_one_that_runs(number, capsys):
    code = _printed(number)
    space = {"torch": torch, "F": F, "np": np, "ClassPrompts": ClassPrompts}
    exec(code, space)
    check(number, space[NAMES[number]])
    assert capsys.readouterr().out == f"Exercise {number}: right\n"
    assert code.strip() in (SOURCES / "solutions" / BOOKS[number[0]]).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", NAMES)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, None if number == "1.3" else stub)
    assert capsys.readouterr().out.strip() == f"Exercise {number}: not begun yet"


def _told(capsys, number, answer):
    check(number, answer)
    out = capsys.readouterr().out
    assert out != f"Exercise {number}: right\n"
    return out


@pytest.mark.parametrize(("answer", "hint"), [
    (lambda v, r, c, p, w, d: v * r * c * w * d, "add prefix"),
    (lambda v, r, c, p, w, d: v * (r * c + p) * w, "number of depths is missing"),
    (lambda v, r, c, p, w, d: (r * c + p) * w * d, "a film has N views"),
    (lambda v, r, c, p, w, d: v * (r * c + p) * d, "counts tokens"),
    (lambda v, r, c, p, w, d: 5, "15680 numbers"),
    (lambda *_: None, "returns nothing"),
])
def test_numbers_per_film(answer, hint, capsys):
    assert hint in _told(capsys, "0.1", answer)


@pytest.mark.parametrize(("answer", "hint"), [
    (lambda s, g: (g * s).sum(1), "these are logits"),
    (lambda s, g: (g * s.sigmoid()).sum(1), "mixes probabilities"),
    (lambda s, g: s.mean(1).sigmoid(), "router's weights"),
    (lambda s, g: (g * s).sum(1).softmax(-1), "several findings"),
    (lambda s, g: (g * s).sum(2).sigmoid(), "dimension 1"),
    (lambda s, g: (g * s).sum(1).sigmoid().numpy(), "torch tensor"),
    (lambda s, g: s[:, 0].sigmoid(), "numbers do not"),
])
def test_mixture(answer, hint, capsys):
    assert hint in _told(capsys, "0.2", answer)


def _count(model, trained=None):
    return sum(p.numel() for p in model.parameters() if trained is None or p.requires_grad == trained)


@pytest.mark.parametrize(("answer", "hint"), [
    (lambda m: _count(m, True), "number of trainable parameters"),
    (lambda m: 100 * _count(m, True) / _count(m), "per cent"),
    (lambda m: _count(m, False) / _count(m), "frozen share"),
    (lambda m: _count(m, True) / _count(m, False), "not by the frozen ones"),
    (lambda m: sum(p.requires_grad for p in m.parameters()) / len(list(m.parameters())), "counts tensors"),
    (lambda m: 1.0, "everything as trained"),
    (lambda m: 0.3, "expected 0.1667"),
    (lambda m: None, "returns nothing"),
])
def test_trainable_share(answer, hint, capsys):
    assert hint in _told(capsys, "0.3", answer)


def _plain(u, v, scale, same):
    return ClipLoss()(u, v, torch.tensor(scale))


def _masked(u, v, scale, drop):
    logits = (scale * u @ v.T).masked_fill(drop, float("-inf"))
    pairs = torch.arange(len(u))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def _half_masked(u, v, scale, same):
    """Right without repeats; with them, only the rows leave them out."""
    pairs, others = torch.arange(len(u)), same & ~torch.eye(len(u), dtype=torch.bool)
    logits = scale * u @ v.T
    rows = F.cross_entropy(logits.masked_fill(others, float("-inf")), pairs)
    return (rows + F.cross_entropy(logits.T, pairs)) / 2


@pytest.mark.parametrize(("answer", "hint"), [
    (_plain, "still counts as a wrong answer"),
    (_half_masked, "two captions that come twice"),
    (lambda u, v, s, same: F.cross_entropy(s * u @ v.T, torch.arange(len(u))), "one direction"),
    (lambda u, v, s, same: F.cross_entropy(s * v @ u.T, torch.arange(len(u))), "one direction"),
    (lambda u, v, s, same: _plain(u, v, 1.0, same), "not multiplied by scale"),
    (lambda u, v, s, same: 2 * _plain(u, v, s, same), "sum of both directions"),
    (lambda u, v, s, same: len(u) * _plain(u, v, s, same), "sum over the pairs"),
    (lambda u, v, s, same: _masked(u, v, s, same), "must stay"),
    (lambda u, v, s, same: _plain(u, v, s, same) + 0.5, "ClipLoss"),
    (lambda u, v, s, same: (u @ v.T), "one number"),
    (lambda *_: None, "returns nothing"),
])
def test_info_nce(answer, hint, capsys):
    assert hint in _told(capsys, "1.1", answer)


def _sides(u, p, m, s):
    return (s * u @ p.T).exp(), (s * u @ m.T).exp()


def _ratio(a, b):
    return a / (a + b)


@pytest.mark.parametrize(("answer", "hint"), [
    (lambda u, p, m, s: _ratio(*(x.sum(1) for x in _sides(u, p, m, s))), "more prompts wins"),
    (lambda u, p, m, s: _ratio(*(x.mean(1) for x in _sides(u, p, m, 1.0))), "not multiplied by scale"),
    (lambda u, p, m, s: 1 - _ratio(*(x.mean(1) for x in _sides(u, p, m, s))), "negative side"),
    (lambda u, p, m, s: torch.sigmoid((s * u @ p.T).mean(1) - (s * u @ m.T).mean(1)), "averages the logits"),
    (lambda u, p, m, s: _sides(u, p, m, s)[0].mean(1), "no probabilities"),
    (lambda u, p, m, s: _ratio(*_sides(u, p, p, s)), "shape (n,)"),
    (lambda u, p, m, s: torch.full((len(u),), 0.5), "for the first film"),
])
def test_prompt_score(answer, hint, capsys):
    assert hint in _told(capsys, "1.2", answer)


@pytest.mark.parametrize(("answer", "hint"), [
    (("a", "b"), "not tuple"),
    (ClassPrompts(("a bright disc", "a Bright  disc."), ("a bright disc", "a dark disc")), "stands on both sides"),
    (ClassPrompts(("a bright disc",), ("a dark disc", "a dark spot")), "single sentence"),
    (ClassPrompts(("a bright disc", "a  Bright disc"), ("a dark disc", "a dark spot")), "single sentence"),
])
def test_better_prompts(answer, hint, capsys):
    assert hint in _told(capsys, "1.3", answer)
