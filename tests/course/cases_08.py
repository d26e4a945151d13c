"""Cases of the exercises of notebook 08."""

import numpy as np
import torch

NAMES = {"8.1": "tip_logits", "8.2": "lora_parameters", "8.3": "leaking", "8.4": "honest_score"}


def _tip(f, keys, y, mask, zero, alpha, beta, known=True, share="each", sides=True, safe=True, power=-1, add=True, loud=True,
         sign=1):
    m = mask.float() if known else torch.ones_like(y)
    present, absent = y * m, (1 - y) * m * sides
    low = 1 if safe else 0
    if share == "each":
        values = present / present.sum(0).clamp(min=low) - absent / absent.sum(0).clamp(min=low)
    else:
        values = (present - absent) / (m.sum(0) if share == "all" else 1)
    affinity = torch.exp(power * beta * (1 - f @ keys.T)) if power else f @ keys.T
    return zero * add + sign * (alpha if loud else 1) * affinity @ values


def _tip_with(**kw):
    return lambda *a: _tip(*a, **kw)


WRONG = [
    ("8.1", _tip_with(add=False), "zero-shot scores are missing"),
    ("8.1", _tip_with(loud=False), "alpha weighs the cache"),
    ("8.1", _tip_with(share="none"), "a rare label is always predicted absent"),
    ("8.1", _tip_with(share="all"), "not both by all known"),
    ("8.1", _tip_with(sides=False), "absent films speak against the label"),
    ("8.1", _tip_with(known=False), "unknown label counts as absent"),
    ("8.1", _tip_with(power=1), "sign in the exponent"),
    ("8.1", _tip_with(power=0), "not the similarity"),
    ("8.1", _tip_with(sign=-1), "sign of the cache"),
    ("8.1", _tip_with(safe=False), "gives NaN"),
    ("8.1", lambda *a: _tip(*a).T, "give logits of shape (5, 3)"),
    ("8.1", lambda *a: None, "returns nothing"),
    ("8.1", lambda *a: 2 * _tip(*a), "the first logit is"),
    ("8.2", lambda s, r: int(np.prod(s)), "the frozen weight itself"),
    ("8.2", lambda s, r: r * int(np.prod(s)), "A and B are thin"),
    ("8.2", lambda s, r: r * s[0], "B alone"),
    ("8.2", lambda s, r: r * s[1], "A alone"),
    ("8.2", lambda s, r: int(np.prod(s)) + r * (s[0] + int(np.prod(s[1:]))), "count A and B alone"),
    ("8.2", lambda s, r: r * r * (s[0] + int(np.prod(s[1:]))), "once each"),
    ("8.2", lambda s, r: r * (s[0] + s[1]), "looks at the whole window"),
    ("8.2", lambda s, r: int(np.prod(s[2:])) * r * (s[0] + s[1]), "B after it is 1 x 1"),
    ("8.2", lambda s, r: None, "one whole number"),
    ("8.3", {"B", "E", "G"}, "before any training"),
    ("8.3", {"D", "E", "G"}, "epoch by epoch"),
    ("8.3", {"B", "D", "G"}, "in a table of results"),
    ("8.3", {"B", "D", "E"}, "by who is on the films"),
    ("8.3", {"B", "D", "E", "F", "G"}, "unfair to the others"),
    ("8.3", {"A"}, "looks at test once"),
    ("8.3", {"C"}, "before any film is seen"),
    ("8.3", "BDEGH", "an interval chooses nothing"),
    ("8.3", {"X"}, "none of the procedures"),
    ("8.3", 5, "give a set of letters"),
    ("8.4", lambda v, t: t.max(axis=1).mean(), "the test films chose the setting"),
    ("8.4", lambda v, t: t.mean(axis=0).max(), "the test films chose it"),
    ("8.4", lambda v, t: t.max(), "choose by val"),
    ("8.4", lambda v, t: t.mean(), "the mean over all settings"),
    ("8.4", lambda v, t: t[:, v.mean(axis=0).argmax()].mean(), "each seed chooses its own"),
    ("8.4", lambda v, t: v.max(axis=1).mean(), "too good"),
    ("8.4", lambda v, t: t[range(3), v.argmin(axis=1)].mean(), "the worst setting"),
    ("8.4", lambda v, t: t[range(3), 2 - v[:, ::-1].argmax(axis=1)].mean(), "keep the first"),
    ("8.4", lambda v, t: np.where(v == v.max(axis=1, keepdims=True), t, 0).max(axis=1).mean(), "whatever test says"),
    ("8.4", lambda v, t: t[range(3), v.argmax(axis=1)], "give one number"),
    ("8.4", lambda v, t: 0.5, "in each row take the column"),
]

RIGHT = [
    ("8.3", ["g", "e", "d", "b"]),
    ("8.4", lambda v, t: sum(row[np.argmax(score)] for score, row in zip(v, t, strict=True)) / len(v)),
]
