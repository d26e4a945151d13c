"""Films whose features are made when they are asked for, against the same films from the cache."""

import numpy as np
import pytest
import torch

from medbridge import train as train_module
from medbridge.errors import CacheError
from medbridge.features import stream
from medbridge.features.batch import collate
from medbridge.features.cache import FeatureCache
from medbridge.features.films import Kept
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.predict import predict
from medbridge.train import TrainConfig, fit

SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def _model(experts, squares, **options):
    return MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, **options)


def _parts(model, squares, folder, features, fresh=False):
    cache = FeatureCache(folder, progress=False, features=features, fresh=fresh)
    return cache.of(model, squares.split("train"), training=True), cache.of(model, squares.split("val"))


def _fit(experts, squares, folder, features, run_dir=None, fresh=False, **options):
    model = _model(experts, squares, **options)
    config = TrainConfig(epochs=3, batch_size=8, lr=3e-3)
    return model, fit(model, *_parts(model, squares, folder, features, fresh), config, run_dir, False, save_steps=1)


def test_a_batch_is_the_one_from_the_cache(experts, squares, folder):
    model = _model(experts, squares)
    (cached, _), (made, _) = (_parts(model, squares, folder, kind) for kind in ("cache", "stream"))
    assert cached.keys == made.keys and cached.parts == made.parts and cached.prints == made.prints
    for seed in (None, 3):
        batches = []
        for films in (cached, made):
            rngs = [None if seed is None else np.random.default_rng([seed, i]) for i in range(6)]
            batches.append(collate([films[i].draw(rng, 2) for i, rng in enumerate(rngs)], np.ones((6, 2))).to("cpu"))
        want, got = batches
        assert torch.equal(got.boxes, want.boxes) and torch.equal(got.targets, want.targets)
        for a, b in zip((m for maps in got.maps for m in maps), (m for maps in want.maps for m in maps), strict=True):
            assert a.dtype == b.dtype == torch.int8 and (a.int() - b.int()).abs().max() <= 1  # rounded alike but for a tie
        for a, b in zip(got.summary, want.summary, strict=True):
            torch.testing.assert_close(a, b, atol=2e-3, rtol=2e-3)
    for key, k, views in (("summary", 0, "all"), ("summary", 1, "whole"), ("embed", 1, "all")):
        np.testing.assert_allclose(made.pooled(key, k, views), cached.pooled(key, k, views), atol=2e-3)


@pytest.mark.parametrize("options", [{}, {"members": 3, "readout": True}])
def test_training_gives_the_losses_and_scores_of_the_cache(experts, squares, folder, options):
    (cached, first), (made, second) = (_fit(experts, squares, folder, kind, **options) for kind in ("cache", "stream"))
    for name in ("loss", "val_loss"):
        assert [r[name] for r in second.rows] == pytest.approx([r[name] for r in first.rows], abs=1e-3)
    np.testing.assert_allclose(second.val_scores, first.val_scores, atol=1e-3)
    test = squares.split("test")
    p, q = (predict(m, FeatureCache(folder, progress=False, features=kind).of(m, test), progress=False).probabilities
            for m, kind in ((cached, "cache"), (made, "stream")))
    np.testing.assert_allclose(q, p, atol=1e-3)


def test_windows_are_new_in_every_epoch_and_nothing_is_written(experts, squares, tmp_path):
    model = _model(experts, squares)
    films, val = _parts(model, squares, tmp_path, "stream", fresh=True)
    drawn = [films[2].draw(np.random.default_rng(seed), 2).boxes for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all() and drawn[0].shape == (3, 4) and (drawn[0][0] == films.boxes[2][0]).all()
    assert not (drawn[0][1:] == drawn[2][1:]).any()
    assert len(films.boxes[2]) == films.fixed[2]
    fit(model, films, val, TrainConfig(epochs=2, batch_size=8), progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"bases", "films.jsonl"}
    cached = FeatureCache(tmp_path / "other", progress=False).of(model, squares.split("train"), training=True)
    assert not set(cached.keys) & set(films.keys)  # a checkpoint of the one is none of the other


def test_an_interrupted_run_goes_on_to_the_same_result(experts, squares, folder, tmp_path, monkeypatch):
    whole, history = _fit(experts, squares, folder, "stream", tmp_path / "whole", fresh=True)
    plain, calls = train_module.Loop._backward, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == 7:  # within the second epoch of four steps
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(train_module.Loop, "_backward", stop)
    with pytest.raises(KeyboardInterrupt):
        _fit(experts, squares, folder, "stream", tmp_path / "cut", fresh=True)
    resumed, again = _fit(experts, squares, folder, "stream", tmp_path / "cut", fresh=True)
    assert len(calls) == 7 + 6
    assert [r["loss"] for r in again.rows] == [r["loss"] for r in history.rows]
    assert all(torch.equal(p, resumed.trainable()[k]) for k, p in whole.trainable().items())


def test_films_that_judge_are_seen_once_as_far_as_they_fit(experts, squares, folder, monkeypatch):
    seen, plain = [], stream.encode_films
    monkeypatch.setattr(stream, "encode_films", lambda model, films, **options: seen.append(len(films)) or plain(
        model, films, **options))
    _, first = _fit(experts, squares, folder, "stream")
    assert sum(seen) == 3 * 32 + 12  # three epochs, and the validation films once
    seen.clear()
    monkeypatch.setattr(Kept, "left", 0)
    _, second = _fit(experts, squares, folder, "stream")
    assert sum(seen) == 3 * 32 + 4 * 12  # after each epoch, and of the epoch that was kept
    assert [r["val_loss"] for r in first.rows] == [r["val_loss"] for r in second.rows]


def test_bad_settings_say_so(experts, squares, folder):
    with pytest.raises(ValueError, match="features='tape' is unknown; use one of cache, stream"):
        FeatureCache(folder, features="tape")
    films, _ = _parts(_model(experts, squares), squares, folder, "stream")
    with pytest.raises(CacheError, match="expert 0 gives no 'words'"):
        films.pooled("words", 0)
