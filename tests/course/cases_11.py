"""Cases of the exercises of notebook 11."""

import numpy as np

NAMES = {"11.1": "heat_inside", "11.2": "others_hits", "11.3": "without_expert"}


def _inside(heat, inside, value):
    return value(heat, inside) if heat.sum() > 0 else np.nan


def _others(heats, masks, patients, keep, hit=None, swap=False, none=np.nan, total=False):
    hit = hit or (lambda heat, mask: mask[heat == heat.max()].mean())
    out = []
    for i in range(len(heats)):
        others = [j for j in range(len(heats)) if keep(i, j, patients)]
        found = [hit(heats[i], masks[j]) if swap else hit(heats[j], masks[i]) for j in others]
        out.append(np.sum(found) / (len(heats) if total else len(found)) if found else none)
    return np.array(out)


def _strangers(i, j, patients):
    return patients[i] != patients[j]


def _rest(weights, logits, k):
    return np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)


def _normalised(weights, logits, k, axis=0, keepdims=True):
    kept, said = _rest(weights, logits, k)
    return (kept / kept.sum(axis=axis, keepdims=keepdims) * said).sum(axis=0)


WRONG = [
    ("11.1", lambda h, m: None, "give one number"),
    ("11.1", lambda h, m: h[m], "give one number"),
    ("11.1", lambda h, m: _inside(h, m, lambda h, m: h[m].sum()), "divide it by all the heat"),
    ("11.1", lambda h, m: _inside(h, m, lambda h, m: h[m].sum() / h.max()), "not by its maximum"),
    ("11.1", lambda h, m: _inside(h, m, lambda h, m: h[m].mean()), "mean of the cells inside"),
    ("11.1", lambda h, m: m.mean(), "share of the cells"),
    ("11.1", lambda h, m: _inside(h, m, lambda h, m: h[~m].sum() / h.sum()), "share outside"),
    ("11.1", lambda h, m: _inside(h, m, lambda h, m: h[m].sum() / h.sum() if m.any() else np.nan), "the share is 0"),
    ("11.1", lambda h, m: h[m].sum() / max(h.sum(), 1e-9), "return NaN"),
    ("11.2", lambda h, m, p: _others(h, m, p, _strangers)[0], "one number per film"),
    ("11.2", lambda h, m, p: _others(h, m, p, lambda i, j, _: i == j), "film's own map; use the maps of other patients"),
    ("11.2", lambda h, m, p: _others(h, m, p, lambda *_: True), "own map is among those"),
    ("11.2", lambda h, m, p: _others(h, m, p, lambda i, j, _: i != j), "leave out all films of the patient"),
    ("11.2", lambda h, m, p: _others(h, m, p, _strangers, swap=True), "swap the two"),
    ("11.2", lambda h, m, p: _others(h, m, p, _strangers, lambda heat, mask: mask.ravel()[heat.argmax()]), "several maxima"),
    ("11.2", lambda h, m, p: _others(h, m, p, _strangers, total=True), "not by the number of films"),
    ("11.2", lambda h, m, p: _others(h, m, p, _strangers, none=0.0), "return NaN for each"),
    ("11.3", lambda w, s, k: w, "one logit per label"),
    ("11.3", lambda w, s, k: np.prod(_rest(w, s, k), axis=0).sum(axis=0), "no longer sum to one"),
    ("11.3", lambda w, s, k: (w * s).sum(axis=0), "leave expert k out"),
    ("11.3", lambda w, s, k: w[k] * s[k], "what expert k adds"),
    ("11.3", lambda w, s, k: (w * s).sum(axis=0) - _normalised(w, s, k), "this is the change"),
    ("11.3", lambda w, s, k: _rest(w, s, k)[1].mean(axis=0), "you made them equal"),
    ("11.3", lambda w, s, k: _normalised(w, s, k, None), "sum over axis 0 alone"),
    ("11.3", lambda w, s, k: _normalised(w, s, k, 1), "not over labels"),
    ("11.3", lambda w, s, k: _normalised(np.exp(w), s, k), "a softmax already"),
]
