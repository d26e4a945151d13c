"""Checks of the exercises of notebook 12: right answers pass, typical mistakes get their own hint."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest

from medbridge.course import check

SOURCE = Path(__file__).resolve().parents[2] / "notebooks" / "sources" / "12_full_gpu_training.py"


def test_printed_solutions_are_right_and_those_of_the_solution_notebook(capsys):
    scope = {"np": np, "copy": copy}
    solved = (SOURCE.parent / "solutions" / SOURCE.name).read_text(encoding="utf-8")
    blocks = re.findall(r"^# ```python\n(.*?)^# ```$", SOURCE.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 3
    for block in blocks:
        block = "\n".join(line.removeprefix("#").removeprefix(" ") for line in block.splitlines())
        exec(block, scope)
        assert block in solved
    for number, answer in {"12.1": scope["cache_gigabytes"], "12.2": scope["part_weights"],
                           "12.3": (scope["save"], scope["load"])}.items():
        check(number, answer)
        assert capsys.readouterr().out == f"Exercise {number}: right\n"


def _verdict(number, answer, capsys):
    check(number, answer)
    return capsys.readouterr().out


def _sum(maps):
    return sum(t * w for t, w in maps)


@pytest.mark.parametrize("answer, hint", [
    (lambda n, v, m: 4 * n * v * _sum(m) / 1e9, "float16 takes two bytes"),
    (lambda n, v, m: n * v * _sum(m) / 1e9, "half of what it takes"),
    (lambda n, v, m: 2 * n * v * _sum(m), "that is bytes"),
    (lambda n, v, m: 2 * n * v * _sum(m) / 1e6, "megabytes"),
    (lambda n, v, m: 2 * n * v * _sum(m) / 2**30, "GiB"),
    (lambda n, v, m: 2 * n * _sum(m) / 1e9, "views are missing"),
    (lambda n, v, m: 2 * n * v * m[0][0] * m[0][1] / 1e9, "only the first depth"),
    (lambda n, v, m: 3.0, "you give 3"),
    (lambda n, v, m: None, "not yet right"),
])
def test_cache_size(answer, hint, capsys):
    assert hint in _verdict("12.1", answer, capsys)


@pytest.mark.parametrize("answer, hint", [
    (lambda mask, parts: [1 / len(parts)] * len(parts), "equal weights"),
    (lambda mask, parts: [len(p) / len(mask) for p in parts], "shares of the films"),
    (lambda mask, parts: [float(mask[p].sum()) for p in parts], "add up to"),
    (lambda mask, parts: [1.0, 0.0, 0.0][: len(parts)], "not the mean over all known labels"),
    (lambda mask, parts: [mask[p].sum() / mask.sum() for p in parts], "divide by zero"),
    (lambda mask, parts: 1.0, "one weight for each part"),
])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_part_weights(answer, hint, capsys):
    assert hint in _verdict("12.2", answer, capsys)


def _save(walk, skip=(), alias=()):
    state = {"weights": walk.weights, "momentum": walk.momentum, "step": walk.step, "rng": walk.rng.bit_generator.state}
    return {k: v if k in alias else copy.deepcopy(v) for k, v in state.items() if k not in skip}


def _load(walk, state):
    for name in ("weights", "momentum", "step"):
        if name in state:
            setattr(walk, name, copy.copy(state[name]))
    if "rng" in state:
        walk.rng.bit_generator.state = state["rng"]


@pytest.mark.parametrize("skip, alias, hint", [
    (["momentum"], [], "momentum is missing"), (["rng"], [], "rng.bit_generator.state"), (["step"], [], "at step 0"),
    ([], ["weights"], "save a copy"), ([], ["momentum"], "momentum is not that of the moment"), ([], [], "right"),
])
def test_snapshot(skip, alias, hint, capsys):
    assert hint in _verdict("12.3", (lambda walk: _save(walk, skip, alias), _load), capsys)


def test_snapshot_of_the_run_itself(capsys):
    assert "copy what changes in place" in _verdict(
        "12.3", (lambda walk: walk, lambda walk, state: walk.__dict__.update(state.__dict__)), capsys)
    assert "two functions" in _verdict("12.3", _save, capsys)
    assert "returns nothing" in _verdict("12.3", (lambda walk: None, _load), capsys)
