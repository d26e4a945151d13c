"""Cases of the exercises of notebook 01."""

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from medbridge.prompts import ClassPrompts

NAMES = {"1.1": "info_nce", "1.2": "prompt_score", "1.3": "my_prompts"}


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


def _sides(u, p, m, s):
    return (s * u @ p.T).exp(), (s * u @ m.T).exp()


def _ratio(a, b):
    return a / (a + b)


WRONG = [
    ("1.1", _plain, "still counts as a wrong answer"),
    ("1.1", _half_masked, "two captions that come twice"),
    ("1.1", lambda u, v, s, same: F.cross_entropy(s * u @ v.T, torch.arange(len(u))), "one direction"),
    ("1.1", lambda u, v, s, same: F.cross_entropy(s * v @ u.T, torch.arange(len(u))), "one direction"),
    ("1.1", lambda u, v, s, same: _plain(u, v, 1.0, same), "not multiplied by scale"),
    ("1.1", lambda u, v, s, same: 2 * _plain(u, v, s, same), "sum of both directions"),
    ("1.1", lambda u, v, s, same: len(u) * _plain(u, v, s, same), "sum over the pairs"),
    ("1.1", lambda u, v, s, same: _masked(u, v, s, same), "must stay"),
    ("1.1", lambda u, v, s, same: _plain(u, v, s, same) + 0.5, "ClipLoss"),
    ("1.1", lambda u, v, s, same: (u @ v.T), "one number"),
    ("1.1", lambda *_: None, "returns nothing"),
    ("1.2", lambda u, p, m, s: _ratio(*(x.sum(1) for x in _sides(u, p, m, s))), "more prompts wins"),
    ("1.2", lambda u, p, m, s: _ratio(*(x.mean(1) for x in _sides(u, p, m, 1.0))), "not multiplied by scale"),
    ("1.2", lambda u, p, m, s: 1 - _ratio(*(x.mean(1) for x in _sides(u, p, m, s))), "negative side"),
    ("1.2", lambda u, p, m, s: torch.sigmoid((s * u @ p.T).mean(1) - (s * u @ m.T).mean(1)), "averages the logits"),
    ("1.2", lambda u, p, m, s: _sides(u, p, m, s)[0].mean(1), "no probabilities"),
    ("1.2", lambda u, p, m, s: _ratio(*_sides(u, p, p, s)), "shape (n,)"),
    ("1.2", lambda u, p, m, s: torch.full((len(u),), 0.5), "for the first film"),
    ("1.3", ("a", "b"), "not tuple"),
    ("1.3", ClassPrompts(("a bright disc", "a Bright  disc."), ("a bright disc", "a dark disc")), "stands on both sides"),
    ("1.3", ClassPrompts(("a bright disc",), ("a dark disc", "a dark spot")), "single sentence"),
    ("1.3", ClassPrompts(("a bright disc", "a  Bright disc"), ("a dark disc", "a dark spot")), "single sentence"),
]
