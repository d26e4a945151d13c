"""Films streamed from tar shards, without a folder of films."""

import json
import tarfile

import pytest
import torch

from medbridge import webshards
from medbridge.cache import compute_features
from medbridge.errors import BenchmarkError
from medbridge.focal import FocalSampler
from medbridge.webshards import features_of_shards, write_shards

DEPTHS = [[2, 3], [4, 5]]
SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=2)


@pytest.fixture(scope="module")
def shards(squares, tmp_path_factory):
    pytest.importorskip("webdataset")
    return write_shards(squares, tmp_path_factory.mktemp("tars"), films=7)


def test_a_stream_gives_the_features_of_the_folder(squares, experts, shards, tmp_path):
    assert len(shards) == 9
    options = (experts, DEPTHS, SAMPLER, True)
    streamed = features_of_shards(shards, *options, "train", tmp_path / "a", progress=False, part=10)
    train = squares.split("train")
    direct = compute_features(train, *options, tmp_path / "b", progress=False)
    assert streamed.keys == direct.keys and streamed.benchmark.image_ids() == train.image_ids()
    for a, b in zip(streamed.benchmark.targets(), train.targets(), strict=True):
        assert (a == b).all() or ((a == b) | (a != a)).all()
    for i in (0, 11, 31):
        for k in range(2):
            torch.testing.assert_close(streamed[i].maps[k][1].float(), direct[i].maps[k][1].float(), atol=4e-3, rtol=4e-3)
    assert streamed.pooled("summary", 1).shape == direct.pooled("summary", 1).shape


def test_what_is_in_the_cache_is_not_computed_again(experts, shards, tmp_path, monkeypatch):
    options = (experts, DEPTHS, SAMPLER, False, "val", tmp_path)
    features_of_shards(shards, *options, progress=False)
    monkeypatch.setattr("medbridge.fill.encode_views", lambda *a, **k: pytest.fail("computed again"))
    again = features_of_shards(shards, *options, progress=False)
    assert len(again) == 12 and not list(tmp_path.rglob("*.png"))
    assert not (tmp_path / "films.jsonl").exists()  # films that are gone are not remembered


def test_bad_shards(experts, shards, squares, tmp_path, monkeypatch):
    options = (experts, DEPTHS, SAMPLER)
    with pytest.raises(BenchmarkError, match="hold no film of split 'test'"):
        features_of_shards(shards[:1], *options, split="test", folder=tmp_path, progress=False)
    told = {"image": "../x.png", "patient_id": "p", "split": "train", "labels": {"a": 1.0}, "benchmark": "b", "synthetic": True}
    for name, members, message in (("half", ["film"], "lacks its .film or .json"), ("out", ["film", "json"], "outside of its")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for member in members:
                (tmp_path / f"000.{member}").write_bytes(json.dumps(told).encode())
                tar.add(tmp_path / f"000.{member}", f"000.{member}")
        with pytest.raises(BenchmarkError, match=message):
            features_of_shards([tmp_path / f"{name}.tar"], *options, folder=tmp_path, progress=False)
    assert not (tmp_path.parent / "x.png").exists()


def test_the_missing_package_is_named(squares, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(BenchmarkError, match=r"medbridge\[shards\]"):
        webshards.write_shards(squares, tmp_path)
