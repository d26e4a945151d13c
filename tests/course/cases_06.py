"""Cases of the exercises of notebook 06."""

import math

import numpy as np

NAMES = {"6.1": "loss_gradient", "6.2": "rate", "6.3": "early_stopping"}


def _p(z):
    return 1 / (1 + np.exp(-z))


def _gradient(z, y, m, over=None):
    return np.where(m, _p(z) - y, 0) / (max(1, m.sum()) if over is None else over)


def _rate(t, s, u, first=1, floor=0.01, late=True):
    r = max(1, int(u * s))
    if t < r:
        return (t + first) / r
    along = (t - r) / max(1, s - r) if late else t / s
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * along))


def _stop(aucs, patience, better=lambda a, b: a > b, extra=0, last=False, total=0):
    best = 0
    for epoch, value in enumerate(aucs):
        best = epoch if better(value, aucs[best]) else best
        if epoch - best >= patience + extra:
            break
    return (epoch if last else best), epoch + 1 + total


WRONG = [
    ("6.1", lambda z, y, m: -_gradient(z, y, m), "the sign is turned"),
    ("6.1", lambda z, y, m: (_p(z) - y) / m.sum(), "it must contribute nothing"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, m.size), "not by that of all"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, len(z)), "not by that of films"),
    ("6.1", lambda z, y, m: _gradient(z, y, m, 1), "the loss is a mean"),
    ("6.1", lambda z, y, m: np.where(m, z - y, 0) / m.sum(), "not the logit itself"),
    ("6.1", lambda z, y, m: _gradient(z, y, m) * _p(z) * (1 - _p(z)), "factor p (1 - p)"),
    ("6.1", lambda z, y, m: np.where(m, _p(z) - y, np.nan), "set those of unknown labels to 0"),
    ("6.1", lambda z, y, m: np.where(m, _p(z) - y, 0.0) / np.float64(m.sum()), "do not divide by 0"),
    ("6.1", lambda z, y, m: _gradient(z, y, m) + 0.1 * m, "you give"),
    ("6.1", lambda z, y, m: 0.0, "one derivative for each logit"),
    ("6.2", lambda t, s, u: _rate(t, s, u, first=0), "be wasted"),
    ("6.2", lambda t, s, u: _rate(t, s, 0, late=False) if t else 1.0, "the warm-up is missing"),
    ("6.2", lambda t, s, u: _rate(t, s, u, floor=0), "ends near 0.01"),
    ("6.2", lambda t, s, u: _rate(t, s, u, late=False), "begins after the warm-up"),
    ("6.2", lambda t, s, u: 2 * _rate(t, s, u), "compare with the equation"),
    ("6.2", lambda t, s, u: None, "give one number"),
    ("6.3", lambda a, p: (int(np.argmax(a)), _stop(a, p)[1]), "never trained"),
    ("6.3", lambda a, p: _stop(a, p, last=True), "you keep the last epoch"),
    ("6.3", lambda a, p: _stop(a, p, better=lambda x, b: x >= b), "first is kept"),
    ("6.3", lambda a, p: _stop(a, p, extra=1), "one epoch too long"),
    ("6.3", lambda a, p: _stop(a, p, total=-1), "the last one included"),
    ("6.3", lambda a, p: (_stop(a, p)[0], len(a)), "it never stops"),
    ("6.3", lambda a, p: 3, "give two whole numbers"),
]
