"""Real processes: a run that is killed at random steps, and one that two processes share."""

import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from medbridge import cli
from medbridge.support import processes as parallel

TESTS = Path(__file__).parents[1]
SCRIPT, GRIDS = str(TESTS / "training_run.py"), str(TESTS / "grid_run.py")
ENV = {**os.environ, "OMP_NUM_THREADS": "1",
       "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])}


def _main(module, arguments):
    importlib.import_module(module).main(*arguments)


@pytest.fixture(scope="module")
def start():
    """Starts a run in a process of its own, forked from a server that has imported everything once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_run", "grid_run"])

    def started(module, *arguments):
        process = context.Process(target=_main, args=(module, arguments))
        with pytest.MonkeyPatch.context() as patch:
            for name in ("OMP_NUM_THREADS", "PYTHONPATH"):  # the server starts with the first process, and keeps these
                patch.setenv(name, ENV[name])
            process.start()
        return process

    return started


@pytest.fixture(scope="module")
def place(squares, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    return lambda run: [str(squares.root), str(folder / "cache"), str(folder / run), str(folder / f"{run}.json")]


@pytest.fixture(scope="module")
def whole(place, start):
    """Result of an undisturbed run, with dropout and without."""
    results = {}
    for dropout in ("0.3", "0.0"):
        arguments = place(f"whole-{dropout}")
        process = start("training_run", *arguments, dropout)
        process.join(600)
        assert process.exitcode == 0
        results[dropout] = json.loads(Path(arguments[3]).read_text())
    return results


def _twice(*command):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), *command],
                   env=ENV, check=True, timeout=600)


def test_killed_at_random_steps_it_ends_as_if_it_had_not_been(place, start, whole):
    arguments = place("killed")
    checkpoint, rng = Path(arguments[2]) / "checkpoint.pt", random.Random(1)
    kills = 0
    for _ in range(12):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start("training_run", *arguments, "0.3")
        limit = time.monotonic() + 300
        # some checkpoints later, wherever the run then is: in a pass, in a write, in the validation
        while process.is_alive() and time.monotonic() < limit:
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                time.sleep(rng.uniform(0, 0.15))
                break
            time.sleep(0.001)
        if process.is_alive() and kills < 4:
            process.kill()
        process.join(300)
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break
    assert kills >= 2 and process.exitcode == 0
    assert json.loads(Path(arguments[3]).read_text()) == whole["0.3"]  # bit by bit: losses, AUC, scores, weights


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
@pytest.mark.parametrize("features", ["cache", "stream"])
def test_two_processes_agree_with_one(place, whole, features):
    """Films filled or streamed, trained on and scored by two processes with gloo; no dropout, which each draws for itself."""
    arguments = place(f"two-{features}")
    arguments[1] += f"-two-{features}"  # a cache that both fill
    _twice(SCRIPT, *arguments, "0.0", features)
    two, one = json.loads(Path(arguments[3]).read_text()), whole["0.0"]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        if features == "cache":
            assert b == pytest.approx(a, abs=1e-4)
        else:  # a tower's last bits depend on what stands beside a film, and two films of one AUC may change places
            assert [b["loss"], b["val_loss"]] == pytest.approx([a["loss"], a["val_loss"]], abs=1e-3)
    assert sum(two["test"], []) == pytest.approx(sum(one["test"], []), abs=1e-3)
    assert two["summaries"] == pytest.approx(one["summaries"], abs=1e-3)
    assert bool(list(Path(arguments[1]).glob("small*"))) == (features == "cache")


@pytest.mark.skipif(sys.platform == "win32", reason="gloo")
def test_two_processes_share_a_leaderboard_an_ablation_and_an_experiment(squares, start, tmp_path):
    films = tmp_path / "films"
    (films / "images").mkdir(parents=True)
    for path in squares.paths():
        shutil.copy2(path, films / "images")
    squares.table.to_csv(films / "labels.csv", index=False)
    one, two = tmp_path / "one", tmp_path / "two"
    alone = start("grid_run", str(films), str(tmp_path / "cache-one"), str(one))
    alone.join(600)
    assert alone.exitcode == 0
    _twice(GRIDS, str(films), str(tmp_path / "cache-two"), str(two))
    for name in ("board/leaderboard", "board/leaderboard_labels", "folds/leaderboard", "ablation/ablation", "experiment/results",
                 "experiment/averages", "experiment/differences"):
        a, b = (pd.read_csv(out / f"{name}.csv").drop(columns="seconds", errors="ignore") for out in (one, two))
        pd.testing.assert_frame_equal(a, b, atol=1e-4)
    assert sorted(p.relative_to(one) for p in one.rglob("*")) == sorted(p.relative_to(two) for p in two.rglob("*"))


def test_units_are_shared_out_and_each_is_met_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    waited = []
    state = SimpleNamespace(num_processes=2, process_index=1, wait_for_everyone=lambda: waited.append(1))
    monkeypatch.setattr(parallel, "PartialState", lambda **_: state)
    seen = []
    for unit in parallel.share_of_rank("abcde"):
        seen.append((unit, parallel.ranks(), parallel.is_main()))
        parallel.barrier()  # the others are elsewhere: nobody waits for them
    assert seen == [("b", (0, 1), True), ("d", (0, 1), True)]
    assert parallel.ranks() == (1, 2) and len(waited) == 2
    units = parallel.share_of_rank("abcde")
    next(units)
    units.close()  # as a fault in the loop's body does
    assert parallel.ranks() == (1, 2)
    assert cli.main(["predict", "--adapter", "none", "none.png"]) == 2


def test_processes_that_were_not_joined_are_noticed(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(parallel, "PartialState", lambda **_: SimpleNamespace(num_processes=1, process_index=0))
    with pytest.raises(RuntimeError, match="WORLD_SIZE=2 but Accelerate joined 1"):
        parallel.ranks()
