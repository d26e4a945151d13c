"""Cases of the exercises of notebook 05."""

import torch
import torch.nn.functional as F

NAMES = {"5.1": "best_weight", "5.2": "expert_gradient", "5.3": "drop"}


def _rest(weights, k):
    return torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1)


def _mixed(z, w, y):
    return (w * z).sum(1).sigmoid() - y


def _clipped(g):
    return min(1.0, max(0.0, g))


def _by_autograd(expert_logits, weights, targets):
    leaf = expert_logits.requires_grad_()
    return torch.autograd.grad(F.binary_cross_entropy_with_logits((weights * leaf).sum(1), targets), leaf)[0]


WRONG = [
    ("5.1", lambda a, b, r: (b * b - r * a * b) / (a * a + b * b - 2 * r * a * b), "no weight outside [0, 1]"),
    ("5.1", lambda a, b, r: _clipped((a * a - r * a * b) / (a * a + b * b - 2 * r * a * b)), "weight of the second expert"),
    ("5.1", lambda a, b, r: b * b / (a * a + b * b), "correlation is left out"),
    ("5.1", lambda a, b, r: b / (a + b), "weigh by variances"),
    ("5.1", lambda a, b, r: 0.5, "one half is best only"),
    ("5.1", lambda a, b, r: (0.5, 0.5), "give one number"),
    ("5.2", lambda z, w, y: -w * _mixed(z, w, y)[:, None] / 12, "sign is turned"),
    ("5.2", lambda z, w, y: w * _mixed(z, w, y)[:, None], "divide by them"),
    ("5.2", lambda z, w, y: w * _mixed(z, w, y)[:, None] / 3, "not by B alone"),
    ("5.2", lambda z, w, y: (0 * w + 1) * _mixed(z, w, y)[:, None] / 12, "router's weight is missing"),
    ("5.2", lambda z, w, y: w * (z.sigmoid() - y[:, None]) / 12, "not of the expert alone"),
    ("5.2", lambda z, w, y: _mixed(z, w, y) / 12, "give a tensor (B, K, C)"),
    ("5.2", lambda z, w, y: None, "nothing"),
    ("5.3", _rest, "no longer sum to 1"),
    ("5.3", lambda w, k: _rest(w, k).softmax(1), "second softmax"),
    ("5.3", lambda w, k: _rest(w, k) / _rest(w, k).sum(), "for each film and class apart"),
    ("5.3", lambda w, k: _rest(w, 0) / _rest(w, 0).sum(1, keepdim=True), "another expert"),
    ("5.3", lambda w, k: w / w.sum(1, keepdim=True), "the expert is to go"),
    ("5.3", lambda w, k: _rest(w, k) / _rest(w, k).sum(1, keepdim=True), "give the others 1 / (K - 1)"),
    ("5.3", lambda w, k: None, "returns nothing"),
]

RIGHT = [("5.2", _by_autograd)]
