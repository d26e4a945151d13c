"""Cases of the exercises of notebook 12."""

import copy

NAMES = {"12.1": "cache_gigabytes", "12.2": "part_weights", "12.3": ("save", "load")}


def _sum(maps):
    return sum(t * w for t, w in maps)


def _save(walk, skip=(), alias=()):
    state = {"weights": walk.weights, "momentum": walk.momentum, "step": walk.step, "rng": walk.rng.bit_generator.state}
    return {k: v if k in alias else copy.deepcopy(v) for k, v in state.items() if k not in skip}


def _load(walk, state):
    for name in ("weights", "momentum", "step"):
        if name in state:
            setattr(walk, name, copy.copy(state[name]))
    if "rng" in state:
        walk.rng.bit_generator.state = state["rng"]


def _walk(skip=(), alias=()):
    return lambda walk: _save(walk, skip, alias), _load


WRONG = [
    ("12.1", lambda n, v, m: 4 * n * v * _sum(m) / 1e9, "float16 takes two bytes"),
    ("12.1", lambda n, v, m: n * v * _sum(m) / 1e9, "half of what it takes"),
    ("12.1", lambda n, v, m: 2 * n * v * _sum(m), "that is bytes"),
    ("12.1", lambda n, v, m: 2 * n * v * _sum(m) / 1e6, "megabytes"),
    ("12.1", lambda n, v, m: 2 * n * v * _sum(m) / 2**30, "GiB"),
    ("12.1", lambda n, v, m: 2 * n * _sum(m) / 1e9, "views are missing"),
    ("12.1", lambda n, v, m: 2 * n * v * m[0][0] * m[0][1] / 1e9, "only the first depth"),
    ("12.1", lambda n, v, m: 3.0, "you give 3"),
    ("12.1", lambda n, v, m: None, "not yet right"),
    ("12.2", lambda mask, parts: [1 / len(parts)] * len(parts), "equal weights"),
    ("12.2", lambda mask, parts: [len(p) / len(mask) for p in parts], "shares of the films"),
    ("12.2", lambda mask, parts: [float(mask[p].sum()) for p in parts], "add up to"),
    ("12.2", lambda mask, parts: [1.0, 0.0, 0.0][: len(parts)], "not the mean over all known labels"),
    ("12.2", lambda mask, parts: [mask[p].sum() / mask.sum() for p in parts], "divide by zero"),
    ("12.2", lambda mask, parts: 1.0, "one weight for each part"),
    ("12.3", _walk(skip=["momentum"]), "momentum is missing"),
    ("12.3", _walk(skip=["rng"]), "rng.bit_generator.state"),
    ("12.3", _walk(skip=["step"]), "at step 0"),
    ("12.3", _walk(alias=["weights"]), "save a copy"),
    ("12.3", _walk(alias=["momentum"]), "momentum is not that of the moment"),
    ("12.3", (lambda walk: walk, lambda walk, state: walk.__dict__.update(state.__dict__)), "copy what changes in place"),
    ("12.3", _save, "two functions"),
    ("12.3", (lambda walk: None, _load), "returns nothing"),
]

RIGHT = [("12.3", _walk())]
