"""The cache on disk: torn and changed shards, kills, two processes at once, the limit, and the command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from samples import small_expert

from medbridge.errors import CacheError
from medbridge.features import shards
from medbridge.features.cache import FeatureCache, cache_limit
from medbridge.features.encode import view_bytes
from medbridge.features.shards import FeatureStore, ShardWriter, is_sound
from medbridge.focal import FocalSampler
from medbridge.support.threads import ahead, prefetch

DEPTHS = [[2, 3], [4, 5]]

FILL = """
import sys, torch
sys.path.insert(0, {tests!r})
from samples import small_expert
from pathlib import Path
from types import SimpleNamespace
import pandas as pd
from medbridge.data import Benchmark
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.features import shards
torch.set_num_threads(1)
shards.SHARD_BYTES = 200_000
shards.ShardWriter.__init__.__defaults__ = (200_000, 30.0)
names = sorted(p.name for p in Path({root!r}).glob("*.png"))
table = pd.DataFrame([dict(image=n, patient_id=n, split="train", bright=0.0, wide=1.0) for n in names])
films = Benchmark("squares (synthetic)", {root!r}, ("bright", "wide"), table, synthetic=True)
print("go", flush=True)
FeatureCache({folder!r}, progress=False).films(films, [small_expert("small-vit", 3)], [[2, 3]], FocalSampler())
print("done", flush=True)
"""


@pytest.fixture(scope="module")
def vit():
    """The expert that the processes of this module build, bit by bit, whatever other tests did to the shared one."""
    return small_expert("small-vit", 3)


@pytest.fixture(scope="module")
def experts(vit, resnet):
    return [vit, resnet]


def _compute(part, experts, folder, **options):
    return FeatureCache(folder, progress=False, **options).films(part, experts, DEPTHS, FocalSampler())


def _fill(root, folder):
    code = FILL.format(tests=str(Path(__file__).parents[1]), root=str(root), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def _same(a, b):
    return all(torch.equal(x, y) for i in range(len(a)) for x, y in zip(a[i].maps[0] + a[i].summary, b[i].maps[0] + b[i].summary,
                                                                        strict=True))


def _writer(folder, **options):
    return ShardWriter(FeatureStore(folder), **options)


def _film(n, seed):
    return {"summary": torch.full((n, 3), float(seed)).half(), "map.002": torch.full((n, 5, 4), seed + 0.5).half()}


def test_films_with_different_numbers_of_views_are_found_again(tmp_path):
    writer, keys = _writer(tmp_path, least_bytes=100), [bytes([i]) * 20 for i in range(5)]
    for i, key in enumerate(keys):
        writer.add(key, _film(i + 1, i))
    writer.flush()
    assert len(FeatureStore(tmp_path).shards()) > 1
    found = FeatureStore(tmp_path).find([keys[3], b"x" * 20, keys[0], keys[3]], ["summary", "map.002", "map.007"])
    assert found.has("summary").tolist() == [True, False, True, True] and not found.has("map.007").any()
    assert torch.equal(found.read("map.002", 0), _film(4, 3)["map.002"])
    assert torch.equal(found.read("summary", 3), _film(4, 3)["summary"])
    assert found.read("summary", 0, 2).shape == (2, 3) and found.read("summary", 2, 2).shape == (1, 3)
    with pytest.raises(CacheError, match="no 'summary'"):
        found.read("summary", 1)
    FeatureStore(tmp_path).shards()[0].unlink()
    for path in FeatureStore(tmp_path).shards():
        path.unlink()
    with pytest.raises(CacheError, match="gone or changed"):
        found.read("summary", 0)


@pytest.mark.parametrize("damage", ["cut", "flip", "zeros", "empty"])
def test_a_damaged_shard_is_never_served(squares, experts, tmp_path, damage):
    part = squares.take(range(2))
    whole = _compute(part, experts, tmp_path)
    before = [[m.clone() for m in whole[i].maps[0]] for i in range(2)]
    path = whole.files[0][1]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "zeros":
        data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes({"cut": data[:-100], "empty": b""}.get(damage, data))
    os.utime(path, ns=(time.time_ns(), time.time_ns() + 1))
    assert not is_sound(path)
    again = _compute(part, experts, tmp_path)
    assert all(is_sound(p) for files in again.files for p in files)
    assert all(torch.equal(a, b) for i in range(2) for a, b in zip(before[i], again[i].maps[0], strict=True))


def test_what_was_checked_is_not_read_again(squares, experts, tmp_path, monkeypatch):
    _compute(squares.take(range(2)), experts, tmp_path)
    monkeypatch.setattr(shards, "is_sound", lambda path: pytest.fail("checked again"))
    _compute(squares.take(range(2)), experts, tmp_path)


def test_a_fill_that_is_killed_goes_on_and_serves_nothing_torn(squares, vit, tmp_path):
    folder = tmp_path / "cache"
    process = _fill(squares.root, folder)
    assert process.stdout.readline() == "go\n"
    while not list(folder.rglob("[!.]*.safetensors")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = [p.name for p in folder.rglob("[!.]*.safetensors")]
    assert process.returncode == -signal.SIGKILL and kept
    assert all(is_sound(p) for p in folder.rglob("[!.]*.safetensors"))
    (folder / "films.jsonl").write_text((folder / "films.jsonl").read_text()[:-7])  # and a torn line of the memory
    options = (FocalSampler(), False)
    resumed = FeatureCache(folder, progress=False).films(squares, [vit], [[2, 3]], *options)
    fresh = FeatureCache(tmp_path / "fresh", progress=False).films(squares, [vit], [[2, 3]], *options)
    assert {p.name for p in resumed.files[0]} >= set(kept)
    for i in range(len(squares)):
        for a, b in zip(resumed[i].maps[0], fresh[i].maps[0], strict=True):
            torch.testing.assert_close(a.float(), b.float(), rtol=2e-3, atol=2e-3)


def test_two_processes_may_fill_one_folder(squares, vit, tmp_path):
    processes = [_fill(squares.root, tmp_path / "cache") for _ in range(2)]
    for process in processes:
        out, error = process.communicate(timeout=600)
        assert process.returncode == 0 and out == "go\ndone\n", error
    both = FeatureCache(tmp_path / "cache", progress=False).films(squares, [vit], [[2, 3]], FocalSampler())
    assert all(is_sound(p) for p in (tmp_path / "cache").rglob("[!.]*.safetensors")) and not list(tmp_path.rglob("*.part*"))
    alone = FeatureCache(tmp_path / "alone", progress=False).films(squares, [vit], [[2, 3]], FocalSampler())
    for i in (0, 31, 59):
        torch.testing.assert_close(both[i].maps[0][1].float(), alone[i].maps[0][1].float(), rtol=2e-3, atol=2e-3)


def test_the_estimate_is_what_is_written_and_the_limit_is_kept(squares, experts, tmp_path, monkeypatch):
    part = squares.take(range(8))
    estimate = sum(8 * 13 * view_bytes(e, d) for e, d in zip(experts, DEPTHS, strict=True))
    with pytest.raises(CacheError, match=r"beyond the limit of 0\.00 GB"):
        _compute(part, experts, tmp_path, limit=estimate - 1)
    assert not list(tmp_path.rglob("[!.]*.safetensors"))
    _compute(part, experts, tmp_path, limit=estimate)
    written = sum(p.stat().st_size for p in tmp_path.rglob("[!.]*.safetensors"))
    assert 0 <= written - estimate < 8000  # headers, keys and starts
    monkeypatch.setenv("MEDBRIDGE_CACHE_LIMIT", "1KB")
    _compute(part, experts, tmp_path)  # nothing is missing, so nothing is beyond the limit
    with pytest.raises(CacheError, match="MEDBRIDGE_CACHE_LIMIT"):
        _compute(squares, experts, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CacheError, match=r"the disk has 0\.0 GB left"):
        _compute(squares, experts, tmp_path, limit=10**12)


@pytest.mark.parametrize("text, size", [("2kb", 2000), ("1.5 GB", 1_500_000_000), ("7", 7), ("", None)])
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("MEDBRIDGE_CACHE_LIMIT", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "5 PB", "GB"])
def test_bad_sizes(monkeypatch, text):
    monkeypatch.setenv("MEDBRIDGE_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match="write it like 200GB"):
        cache_limit()


def test_threads_change_nothing(squares, experts, tmp_path):
    part = squares.take(range(6))
    one, many = (_compute(part, experts, tmp_path / str(n), workers=n) for n in (0, 3))
    assert _same(one, many)
    with pytest.raises(ValueError, match="workers=-1"):
        _compute(part, experts, tmp_path, workers=-1)


def test_a_full_disk_stops_the_fill_with_its_reason(squares, experts, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        _compute(squares.take(range(2)), experts, tmp_path)


def test_work_ahead_keeps_the_order_and_raises_in_its_place():
    def work(i):
        time.sleep(0.001 * (i % 3))
        if i == 7:
            raise KeyError(i)
        return i

    for threads in (0, 1, 4):
        seen = []
        with pytest.raises(KeyError):
            for x in prefetch(ahead(work, range(20), threads)):
                seen.append(x)
        assert seen == list(range(7))
    assert list(prefetch([])) == [] and list(prefetch(iter("abc"))) == list("abc")
    taken = []
    for x in prefetch(taken.append(i) or i for i in range(100)):
        if x == 3:
            break
    time.sleep(0.05)
    assert len(taken) <= 7 and np.array_equal(taken, range(len(taken)))
