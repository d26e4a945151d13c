"""Cases of the exercises of notebook 04."""

import torch
import torch.nn.functional as F

NAMES = {"4.1": "joint_attention", "4.2": "folded_values", "4.3": "pool_views"}


def _joint(q, k_own, v_own, k_map, v_map, scale=2.0, dim=-1):
    return (q @ torch.cat([k_own, k_map]).T / scale).softmax(dim) @ torch.cat([v_own, v_map])


def _one_kind(q, k, v):
    return (q @ k.T / 2).softmax(-1) @ v


WRONG = [
    ("4.1", lambda q, ko, vo, km, vm: _one_kind(q, ko, vo) + _one_kind(q, km, vm), "two softmaxes, and each sums to 1"),
    ("4.1", lambda q, ko, vo, km, vm: (_one_kind(q, ko, vo) + _one_kind(q, km, vm)) / 2, "mean of two softmaxes"),
    ("4.1", lambda *a: _joint(*a, scale=1.0), "square root of the head's width before the softmax"),
    ("4.1", lambda *a: _joint(*a, scale=4.0), "not by the width"),
    ("4.1", lambda *a: _joint(*a, dim=0), "not over the queries"),
    ("4.1", lambda q, ko, vo, km, vm: _one_kind(q, km, vm), "own keys and values are left out"),
    ("4.1", lambda q, ko, vo, km, vm: _joint(q, ko, 0 * vo, km, vm), "their values are left out of the sum"),
    ("4.1", lambda q, ko, vo, km, vm: _joint(q, ko, vo, km, vm)[0], "shape (4,)"),
    ("4.1", lambda *a: None, "returns nothing"),
    ("4.2", lambda a, x, w, b: a @ (x @ w.T + b), "all 512 x 64 values were formed"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T, "bias is missing"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + b, "does not sum to 1"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + a.sum() * b, "sum each row of A apart"),
    ("4.2", lambda a, x, w, b: a @ x @ w.T + a.mean(-1, keepdim=True) * b, "a sum, not a mean"),
    ("4.3", lambda t, m: t.amax(1), "padding of the second film won"),
    ("4.3", lambda t, m: (t * m[:, :, None, None]).amax(1), "0 beats negative numbers"),
    ("4.3", lambda t, m: t.masked_fill(m[:, :, None, None], -torch.inf).amax(1), "wrong way round"),
    ("4.3", lambda t, m: (t * m[:, :, None, None]).sum(1) / m.sum(1)[:, None, None], "take the maximum"),
    ("4.3", lambda t, m: t.max(1), "take .values"),
]

RIGHT = [
    ("4.1", lambda q, ko, vo, km, vm: F.scaled_dot_product_attention(q, torch.cat([km, ko]), torch.cat([vm, vo]))),
    ("4.2", lambda a, x, w, b: F.linear(a @ x, w) + torch.outer(a.sum(1), b)),
    ("4.3", lambda tokens, mask: torch.stack([t[m].max(0).values for t, m in zip(tokens, mask, strict=True)])),
]
