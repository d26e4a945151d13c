"""Checks of the exercises of notebooks 04 and 05: right answers pass, typical mistakes get their hint, stubs are not begun."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from medbridge.course import check

SOURCES = Path(__file__).resolve().parents[2] / "notebooks" / "sources"
NAMES = {"4.1": "joint_attention", "4.2": "folded_values", "4.3": "pool_views", "5.1": "best_weight", "5.2": "expert_gradient",
         "5.3": "drop"}
BOOKS = {"4": "04_query_encoder.py", "5": "05_mixture_of_experts.py"}


def _printed(number):
    """The code of an exercise's folded solution in the main notebook."""
    text = (SOURCES / BOOKS[number[0]]).read_text(encoding="utf-8")
    section = text[text.index(f"### Exercise {number}:"):]
    block = re.search(r"^# ```python\n(.*?)^# ```$", section, re.S | re.M).group(1)
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines())


@pytest.mark.parametrize("number", NAMES)
def test_printed_solution_is_right_and_the_one_that_runs(number, capsys):
    code, space = _printed(number), {"torch": torch}
    exec(code, space)
    check(number, space[NAMES[number]])
    assert capsys.readouterr().out == f"Exercise {number}: right\n"
    assert code in (SOURCES / "solutions" / BOOKS[number[0]]).read_text(encoding="utf-8")


@pytest.mark.parametrize("number", NAMES)
def test_stub_is_not_begun(number, capsys):
    def stub(*_):
        raise NotImplementedError

    check(number, stub)
    assert capsys.readouterr().out == f"Exercise {number}: not begun yet\n"


def test_other_right_answers_pass(capsys):
    def by_sdpa(q, k_own, v_own, k_map, v_map):
        return F.scaled_dot_product_attention(q, torch.cat([k_map, k_own]), torch.cat([v_map, v_own]))

    def by_loop(tokens, view_mask):
        return torch.stack([t[m].max(0).values for t, m in zip(tokens, view_mask, strict=True)])

    def by_einsum(a, x, weight, bias):
        return F.linear(a @ x, weight) + torch.outer(a.sum(1), bias)

    def by_autograd(expert_logits, weights, targets):
        leaf = expert_logits.requires_grad_()
        loss = F.binary_cross_entropy_with_logits((weights * leaf).sum(1), targets)
        return torch.autograd.grad(loss, leaf)[0]

    for number, answer in (("4.1", by_sdpa), ("4.2", by_einsum), ("4.3", by_loop), ("5.2", by_autograd)):
        check(number, answer)
        assert capsys.readouterr().out == f"Exercise {number}: right\n"


def _joint(q, k_own, v_own, k_map, v_map, scale=2.0, dim=-1):
    return (q @ torch.cat([k_own, k_map]).T / scale).softmax(dim) @ torch.cat([v_own, v_map])


def _one_kind(q, k, v):
    return (q @ k.T / 2).softmax(-1) @ v


def _rest(weights, k):
    return torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1)


def _mixed(z, w, y):
    return (w * z).sum(1).sigmoid() - y


def _clipped(g):
    return min(1.0, max(0.0, g))


WRONG = [
    ("4.1", lambda q, ko, vo, km, vm: _one_kind(q, ko, vo) + _one_kind(q, km, vm), "two softmaxes, and each sums to 1"),
    ("4.1", lambda q, ko, vo, km, vm: (_one_kind(q, ko, vo) + _one_kind(q, km, vm)) / 2, "mean of two softmaxes"),
    ("4.1", lambda *a: _joint(*a, scale=1.0), "square root of the head's width before the softmax"),
    ("4.1", lambda *a: _joint(*a, scale=4.0), "not by the width"),
    ("4.1", lambda *a: _joint(*a, dim=0), "not over the queries"),
    ("4.1", lambda q, ko, vo, km, vm: _one_kind(q, km, vm), "own keys and values are left out"),
    ("4.1", lambda q, ko, vo, km, vm: _joint(q, ko, 0 * vo, km, vm), "their values are left out of the sum"),
    ("4.1", lambda q, ko, vo, km, vm: _joint(q, ko, vo, km, vm)[0], r"shape \(4,\)"),
    ("4.1", lambda *a: None, "returns nothing"),
    ("4.2", lambda a, x, w, b: a @ (x @ w.T + b), r"all 512 x 64 values were formed"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T, "bias is missing"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + b, "does not sum to 1"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + a.sum() * b, "sum each row of A apart"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + a.mean(-1, keepdim=True) * b, "a sum, not a mean"),
    ("4.3", lambda t, m: t.amax(1), "padding of the second film won"),
    ("4.3", lambda t, m: (t * m[:, :, None, None]).amax(1), "0 beats negative numbers"),
    ("4.3", lambda t, m: t.masked_fill(m[:, :, None, None], -torch.inf).amax(1), "wrong way round"),
    ("4.3", lambda t, m: (t * m[:, :, None, None]).sum(1) / m.sum(1)[:, None, None], "take the maximum"),
    ("4.3", lambda t, m: t.max(1), "take .values"),
    ("5.1", lambda a, b, r: (b * b - r * a * b) / (a * a + b * b - 2 * r * a * b), r"no weight outside \[0, 1\]"),
    ("5.1", lambda a, b, r: _clipped((a * a - r * a * b) / (a * a + b * b - 2 * r * a * b)), "weight of the second expert"),
    ("5.1", lambda a, b, r: b * b / (a * a + b * b), "correlation is left out"),
    ("5.1", lambda a, b, r: b / (a + b), "weigh by variances"),
    ("5.1", lambda a, b, r: 0.5, "one half is best only"),
    ("5.1", lambda a, b, r: (0.5, 0.5), "give one number"),
    ("5.2", lambda z, w, y: -w * _mixed(z, w, y)[:, None] / 12, "sign is turned"),
    ("5.2", lambda z, w, y: w * _mixed(z, w, y)[:, None], r"divide by them"),
    ("5.2", lambda z, w, y: w * _mixed(z, w, y)[:, None] / 3, "not by B alone"),
    ("5.2", lambda z, w, y: (0 * w + 1) * _mixed(z, w, y)[:, None] / 12, "router's weight is missing"),
    ("5.2", lambda z, w, y: w * (z.sigmoid() - y[:, None]) / 12, "not of the expert alone"),
    ("5.2", lambda z, w, y: _mixed(z, w, y) / 12, r"give a tensor \(B, K, C\)"),
    ("5.2", lambda z, w, y: None, "nothing"),
    ("5.3", _rest, "no longer sum to 1"),
    ("5.3", lambda w, k: _rest(w, k).softmax(1), "second softmax"),
    ("5.3", lambda w, k: _rest(w, k) / _rest(w, k).sum(), "for each film and class apart"),
    ("5.3", lambda w, k: _rest(w, 0) / _rest(w, 0).sum(1, keepdim=True), "another expert"),
    ("5.3", lambda w, k: w / w.sum(1, keepdim=True), "the expert is to go"),
    ("5.3", lambda w, k: _rest(w, k) / _rest(w, k).sum(1, keepdim=True), r"give the others 1 / \(K - 1\)"),
    ("5.3", lambda w, k: None, "returns nothing"),
]


@pytest.mark.parametrize(("number", "answer", "hint"), WRONG)
def test_typical_mistakes_get_their_hint(number, answer, hint, capsys):
    check(number, answer)
    out = capsys.readouterr().out
    assert out != f"Exercise {number}: right\n" and re.search(hint, out), out
