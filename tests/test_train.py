from dataclasses import replace

import numpy as np
import pytest
import torch

from medbridge import train as train_module
from medbridge.adapter import load_adapter, save_adapter
from medbridge.data.tasks import member_folds
from medbridge.errors import AdapterError, BenchmarkError, CacheError
from medbridge.explain.attention import explain
from medbridge.features.batch import collate
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import evaluate
from medbridge.model import MedBridge
from medbridge.predict import film_features, predict, predict_film
from medbridge.readout import pool_summary
from medbridge.train import TrainConfig, fit

SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)


def _model(experts, squares, seed=0):
    return MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, seed=seed)


def _features(model, squares, cache):
    return cache.of(model, squares.split("train"), training=True), cache.of(model, squares.split("val"))


def _fit(model, squares, cache, run_dir=None, save_steps=500, tensorboard=False, **settings):
    config = TrainConfig(**{"epochs": 4, "batch_size": 8, **settings})
    return fit(model, *_features(model, squares, cache), config, run_dir, False, save_steps, tensorboard)


def _auc(model, squares, cache, split="test"):
    part = squares.split(split)
    y, mask = part.targets()
    scores = predict(model, cache.of(model, part), progress=False).probabilities
    return evaluate(y, scores, mask, part.table["patient_id"], part.labels).macro["auc"]


def test_it_learns_what_random_experts_can_show(experts, squares, cache):
    model = _model(experts, squares)
    with pytest.raises(CacheError, match="no basis for compact maps yet"):
        cache.of(model, squares.split("test"))
    _features(model, squares, cache)
    chance = _auc(model, squares, cache)
    history = _fit(model, squares, cache, epochs=12, lr=3e-3)
    assert history.rows[-1]["loss"] < 0.8 * history.rows[0]["loss"]
    learned = _auc(model, squares, cache)
    assert learned > 0.8 and learned > chance


def test_the_same_seed_gives_the_same_model(experts, squares, cache):
    a, b, c = (_model(experts, squares) for _ in range(3))
    _fit(a, squares, cache, epochs=2)
    torch.rand(5)  # whatever else was drawn in between
    _fit(b, squares, cache, epochs=2)
    _fit(c, squares, cache, epochs=2, seed=1)
    assert all(torch.equal(p, b.trainable()[k]) for k, p in a.trainable().items())
    assert not all(torch.equal(p, c.trainable()[k]) for k, p in a.trainable().items())


def test_an_interrupted_run_goes_on_to_the_same_result(experts, squares, cache, tmp_path, monkeypatch):
    whole = _model(experts, squares)
    history = _fit(whole, squares, cache, tmp_path / "whole")
    plain, calls = train_module.Loop._epoch, []

    def stop(self, epoch):
        calls.append(epoch)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(self, epoch)

    monkeypatch.setattr(train_module.Loop, "_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        _fit(_model(experts, squares), squares, cache, tmp_path / "cut")
    resumed = _model(experts, squares)
    again = _fit(resumed, squares, cache, tmp_path / "cut")
    assert calls == [0, 1, 2, 2, 3]
    assert [r["loss"] for r in again.rows] == [r["loss"] for r in history.rows]
    assert all(torch.equal(p, resumed.trainable()[k]) for k, p in whole.trainable().items())
    # finished: nothing is trained again
    done = _model(experts, squares)
    _fit(done, squares, cache, tmp_path / "cut")
    assert len(calls) == 5
    assert all(torch.equal(p, done.trainable()[k]) for k, p in whole.trainable().items())


def test_a_checkpoint_of_another_run_is_refused(experts, squares, cache, tmp_path):
    _fit(_model(experts, squares), squares, cache, tmp_path, epochs=1)
    with pytest.raises(AdapterError, match="other data or settings"):
        _fit(_model(experts, squares), squares, cache, tmp_path, epochs=2)
    (tmp_path / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(AdapterError, match=r"checkpoint\.pt: damaged"):
        _fit(_model(experts, squares), squares, cache, tmp_path, epochs=1)


def test_the_best_epoch_is_kept(experts, squares, cache):
    model = _model(experts, squares)
    history = _fit(model, squares, cache, epochs=6, patience=2)
    values = [r["val_auc"] for r in history.rows]
    assert history.best_auc == max(values) and history.best_epoch == int(np.argmax(values))
    got = _auc(model, squares, cache, "val")
    assert got == pytest.approx(history.best_auc, abs=1e-6)


def test_the_test_split_is_not_looked_at(experts, squares, cache):
    blind = squares.table.copy()
    blind.loc[blind["split"] == "test", ["bright", "wide"]] = np.nan
    a, b = _model(experts, squares), _model(experts, squares)
    _fit(a, squares, cache, epochs=2)
    _fit(b, replace(squares, table=blind), cache, epochs=2)
    assert all(torch.equal(p, b.trainable()[k]) for k, p in a.trainable().items())


@pytest.mark.parametrize("settings", [{"loss": "asymmetric"}, {"ema": 0.0}])
def test_other_settings_train(experts, squares, cache, settings):
    history = _fit(_model(experts, squares), squares, cache, epochs=2, **settings)
    assert np.isfinite([r["loss"] for r in history.rows]).all()


def test_bad_settings_and_benchmarks(experts, squares, cache):
    for bad in ({"loss": "mse"}, {"epochs": 0}, {"ema": 1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            TrainConfig(**bad)
    with pytest.raises(BenchmarkError, match="labels=benchmark.labels"):
        _fit(MedBridge(experts, ["bright"]), squares, cache)
    with pytest.raises(BenchmarkError, match="'val' is empty"):
        _fit(_model(experts, squares), squares.split("train"), cache)
    blank = squares.table.assign(bright=np.nan, wide=np.nan)
    with pytest.raises(BenchmarkError, match="no known label"):
        _fit(_model(experts, squares), replace(squares, table=blank), cache)


def test_a_film_alone_scores_as_in_its_benchmark(experts, squares, cache):
    model = _model(experts, squares)
    with pytest.raises(ValueError, match="no basis for compact maps was fitted"):
        predict_film(model, squares.read(0))
    _features(model, squares, cache)
    part = squares.split("test").take(range(4))
    together = predict(model, cache.of(model, part), progress=False)
    np.testing.assert_allclose(predict_film(model, part.read(2)), together.probabilities[2], atol=2e-3)
    np.testing.assert_allclose(together.weights.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"maps": "full"}, {"members": 2, "readout": True, "patches": 4}])
def test_explanation(experts, squares, cache, options):
    model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, **options)
    _features(model, squares, cache)
    seen = explain(model, squares.read(0))
    boxes = SAMPLER.inference_boxes(96, 128)
    np.testing.assert_array_equal(seen.boxes, boxes)
    queries, grid = 4 * model.config.members, (2, 2) if "patches" in options else (4, 4)
    assert [a.shape for a in seen.attention] == [(len(boxes), queries, *grid), (len(boxes), queries, 2, 2)]
    # every layer over the map that it reads, the model's own last layer last, and no query looks more than once at all there is
    assert [[a.shape[2:] for a in layers] for layers in seen.layers] == [
        [e.grids[d - 1] for d in depths] for e, depths in zip(model.map_shapes, model.depths, strict=True)]
    output = model(collate([film_features(model, squares.read(0))[0]]))
    for k, expert in enumerate(model.experts):
        own = output.attention[k][0, :, :, expert.prefix :].detach().numpy()
        np.testing.assert_allclose(seen.attention[k].reshape(own.shape), own, atol=1e-6)
        assert all(a.sum((2, 3)).min() > 0 and a.sum((2, 3)).max() <= 1 for a in seen.layers[k])
    assert not any(layer._forward_hooks for m in model.members for b in m.branches for layer in b.encoder.layers)
    assert all(mix.sum(axis=1) == pytest.approx(1) for mix in seen.mix)
    assert all(s.sum() == pytest.approx(1) for s in seen.share)
    heat = seen.heatmap("wide", 64)
    assert heat.shape == (48, 64) and heat.max() == pytest.approx(1) and heat.min() >= 0
    with pytest.raises(ValueError, match="'narrow' is unknown"):
        seen.heatmap("narrow")


def _rows(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def test_a_step_in_parts_is_the_step(experts, squares, cache):
    """Gradient accumulation changes nothing but rounding, unknown labels and short last steps included."""
    found = []
    for accumulate in (1, 3, 8):
        model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, dropout=0.0)
        history = _fit(model, squares, cache, epochs=2, batch_size=9, accumulate=accumulate, balance=0.0)
        found.append((_rows(history), model.trainable()))
    for rows, weights in found[1:]:
        for a, b in zip(found[0][0], rows, strict=True):
            assert b == pytest.approx(a, abs=1e-5)
        assert all(torch.allclose(p, weights[k], atol=1e-3) for k, p in found[0][1].items())
    with pytest.raises(ValueError, match="accumulate=0"):
        TrainConfig(accumulate=0)


def test_a_stop_within_an_epoch_resumes_at_the_step(experts, squares, cache, tmp_path, monkeypatch):
    whole = _model(experts, squares)
    history = _fit(whole, squares, cache)
    plain, calls = train_module.Loop._backward, []

    def stop(self, part, epoch):
        calls.append(epoch)
        if len(calls) == 7:  # the third step of the second epoch
            raise KeyboardInterrupt
        return plain(self, part, epoch)

    def run(model):
        return _fit(model, squares, cache, tmp_path, save_steps=1)

    monkeypatch.setattr(train_module.Loop, "_backward", stop)
    with pytest.raises(KeyboardInterrupt):
        run(_model(experts, squares))
    resumed = _model(experts, squares)
    torch.rand(3)
    assert _rows(run(resumed)) == _rows(history)
    assert len(calls) == 7 + 2 + 4 + 4  # of 4 steps an epoch, only the one that was cut off is done again
    assert all(torch.equal(p, resumed.trainable()[k]) for k, p in whole.trainable().items())


def test_tensorboard_needs_its_package_and_a_folder(experts, squares, cache, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"medbridge\[log\]"):
        _fit(_model(experts, squares), squares, cache, tensorboard=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"medbridge\[log\]"):
        _fit(_model(experts, squares), squares, cache, tmp_path, tensorboard=True)


def test_tensorboard_shows_every_epoch(experts, squares, cache, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = _fit(_model(experts, squares), squares, cache, tmp_path, tensorboard=True, epochs=2)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([r["loss"] for r in history.rows])
    assert [e.step for e in events.Scalars("val_auc")] == [4, 8]


def test_folds_keep_patients_together_and_a_single_member_learns_from_train_alone(squares):
    train, val = squares.split("train"), squares.split("val")
    assert member_folds(train, val, 1).tolist() == [-1] * len(train) + [0] * len(val)
    fold = member_folds(train, val, 3)
    assert set(fold) == {0, 1, 2}
    patients = np.concatenate([part.table["patient_id"].to_numpy() for part in (train, val)])
    assert all(len(set(fold[patients == patient])) == 1 for patient in patients)
    assert (member_folds(train, val, 3, seed=1) != fold).any()


@pytest.mark.parametrize("batch_size", [8, 1])  # of one film, some member learns nothing in each step
def test_a_member_never_learns_from_its_own_fold(batch_size, experts, squares, cache):
    """The labels of fold 0 are turned round: member 0 stays as it was bit by bit, and the others do not."""
    train, val = squares.split("train"), squares.split("val")
    fold = member_folds(train, val, 3)

    def trained(turned):
        model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, members=3)
        films = _features(model, squares, cache)
        if turned:
            for part, rows in zip(films, np.split(fold, [len(train)]), strict=True):
                table = part.benchmark.table.copy()
                table.loc[rows == 0, list(squares.labels)] = 1 - table.loc[rows == 0, list(squares.labels)]
                part.benchmark = replace(part.benchmark, table=table)
        fit(model, *films, TrainConfig(epochs=1, batch_size=batch_size), progress=False)
        return [{k: p.clone() for k, p in m.named_parameters() if p.requires_grad} for m in model.members]

    plain, turned = trained(False), trained(True)
    same = [all(torch.equal(p, b[k]) for k, p in a.items()) for a, b in zip(plain, turned, strict=True)]
    assert same == [True, False, False]


def test_cross_fitted_members_with_a_read_out_learn_save_and_resume(experts, squares, cache, tmp_path):
    model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, members=3, readout=True)
    history = _fit(model, squares, cache, tmp_path / "run", epochs=6, lr=3e-3)
    assert _auc(model, squares, cache) > 0.8 and model.readout.weight.abs().sum() > 0
    again = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, members=3, readout=True)
    assert _fit(again, squares, cache, tmp_path / "run", epochs=6, lr=3e-3).rows == history.rows
    assert all(torch.equal(value, again.state()[name]) for name, value in model.state().items())
    loaded = load_adapter(save_adapter(model, tmp_path / "saved"), experts)
    film = squares.split("test").read(0)
    np.testing.assert_allclose(predict_film(loaded, film), predict_film(model, film), atol=1e-7)


@pytest.mark.parametrize(("films", "config", "epochs"), [
    (1000, TrainConfig(), 10), (100, TrainConfig(), 58), (5, TrainConfig(), 400), (5, TrainConfig(epochs=2), 2)])
def test_few_films_are_trained_on_for_more_epochs(films, config, epochs):
    assert config.most_epochs(films) == epochs


def test_patience_counts_steps_where_an_epoch_has_few():
    assert not TrainConfig().is_over(16, 10) and TrainConfig().is_over(16, 200)
    assert TrainConfig().is_over(1000, 10) and not TrainConfig().is_over(1000, 9)
    assert TrainConfig(epochs=30).is_over(16, 10)


@pytest.mark.parametrize("maps", ["compact", "full"])
def test_the_read_out_is_fitted_to_what_it_will_be_fed(experts, squares, cache, maps):
    model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, members=2, readout=True, maps=maps)
    films, _ = _features(model, squares, cache)
    batch = collate([films[i].draw() for i in range(len(films))])
    fed = pool_summary(model.summaries(batch.summary), batch.view_mask)
    np.testing.assert_allclose(train_module._pooled(model, films), fed.numpy(), atol=1e-3)  # rounding, in deviations


def test_the_number_of_threads_does_not_change_members_that_are_trained_side_by_side(experts, squares, cache):
    before, weights = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = MedBridge(experts, squares.labels, sampler=SAMPLER, width=32, queries=4, members=3)
            history = _fit(model, squares, cache, epochs=2)
            weights.append([history.rows[-1]["loss"], *(p.detach().clone() for p in model.trainable().values())])
    finally:
        torch.set_num_threads(before)
    for others in weights[1:]:
        assert others[0] == weights[0][0]
        assert all(torch.equal(a, b) for a, b in zip(weights[0][1:], others[1:], strict=True))
