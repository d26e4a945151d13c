"""bench/gpu_check.py in miniature on a processor: the steps that a machine with a GPU runs at full size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def test_every_part_runs_in_miniature(tmp_path):
    command = [sys.executable, str(BENCH / "gpu_check.py"), "--device", "cpu", "--toy", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    rows = {row["what"]: row for row in result["rows"]}
    assert result["passed"] and result["toy"] and result["device"] == "cpu"
    assert rows["killed in the middle of a training"]["value"] == "status -9"
    assert rows["the same bit by bit"]["value"] == "yes"
    speeds = ("tower in float32", "tower in bfloat16", "filling the compact cache, its basis included", "compact cache",
              "an epoch from the cache", "an epoch streamed, films decoded and encoded again", "the adapter's step of 16 films",
              "peak memory of the process")
    assert all(rows[what]["value"] > 0 for what in speeds)
    assert rows["its loss beside the one from the cache"]["value"] < 1e-3
    table = (tmp_path / "out" / "gpu_check.md").read_text()
    assert all(f"| {what} |" in table for what in rows) and "toy size, which says nothing about speed" in table


def test_a_part_that_fails_or_has_no_time_is_said_and_the_others_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    gpu_check = pytest.importorskip("gpu_check")

    def broken(check):
        raise RuntimeError("out of\nmemory")

    check = gpu_check.Check("cpu", False, 1.0, tmp_path / "out", tmp_path)
    check.part("one", broken, least=0)
    check.part("two", lambda check: check.note("speed", 3.0, "views/s"), least=0)
    check.part("three", lambda check: check.note("never", 1.0), least=600)
    assert not check.write()
    table = (tmp_path / "out" / "gpu_check.md").read_text()
    assert "| one | RuntimeError: out of memory | FAILED |" in table and "| speed | 3 views/s |  |" in table
    assert "| three | not run: fewer than 600 s were left | FAILED |" in table and "never" not in table
