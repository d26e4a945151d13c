"""What all baselines share: the registry, the loop, the budget, what they leave alone, and what they say when they cannot run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from torch import nn

from medbridge.baselines import create_method, list_methods
from medbridge.baselines.base import film_embeddings
from medbridge.baselines.inputs import EmbeddingInputs, ViewInputs, score_module, train_module
from medbridge.baselines.method import Method
from medbridge.errors import BenchmarkError, ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler, extract_views
from medbridge.metrics.evaluate import auc, merit
from medbridge.train import TrainConfig

BASELINES = [name for name in list_methods() if name != "MedBridge"]
SHORT = {"config": TrainConfig(epochs=1), "tries": 1, "progress": False}


@pytest.fixture(scope="module")
def films(squares, experts, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)
    return {s: cache.films(squares.split(s), experts, [[], []], FocalSampler(0.6, 0.0, 1), s == "train")
            for s in ("train", "val", "test")}


@pytest.fixture(scope="module")
def few(squares, experts, tmp_path_factory):
    """Eight films a split: enough to go through every line of a method."""
    cache = FeatureCache(tmp_path_factory.mktemp("few"), progress=False)
    parts = {s: squares.split(s).take(range(8)) for s in ("train", "val", "test")}
    return {s: cache.films(part, experts, [[], []], FocalSampler(0.9, 0.0, 0), s == "train")
            for s, part in parts.items()}


def options(name):
    return SHORT | ({"size": 32} if name == "DenseNet-121" else {})


@pytest.mark.parametrize("name, views", [
    *((name, "whole") for name in BASELINES), ("k-NN", "all"), ("CoOp", "all"), ("VPT", "all"), ("MaPLe", "all"),
    ("MVFA-style adapters", "all"), ("DenseNet-121", "all")])
def test_every_baseline_by_name(name, views, few, experts, squares):
    before = [e.fingerprint() for e in experts]
    baseline = create_method(name, experts, squares.labels, views=views, **options(name))
    assert isinstance(baseline, Method) and baseline.fit(few["train"], few["val"]) is baseline
    p = baseline.predict_proba(few["test"])
    assert p.shape == (8, 2) and p.dtype == np.float64 and ((p >= 0) & (p <= 1)).all() and p.std(axis=0).min() > 0
    assert isinstance(baseline.trainable_parameters, int)
    assert (baseline.trainable_parameters == 0) == (name in ("zero-shot", "k-NN", "Tip-Adapter"))
    assert [e.fingerprint() for e in experts] == before, "an expert was changed"
    assert not any(p.requires_grad for e in experts for p in e.parameters())


@pytest.mark.parametrize("name", ["CoOp", "VPT"])
def test_the_same_seed_gives_the_same_result_whatever_was_drawn_before(name, few, experts, squares):
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)
        runs.append(create_method(name, experts, squares.labels, config=TrainConfig(epochs=1, seed=seed), tries=1,
                                    progress=False).fit(few["train"], few["val"]).predict_proba(few["test"]))
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_the_probabilities_of_the_experts_are_averaged(films, experts, squares):
    baseline = create_method("CLIP-Adapter", experts, squares.labels, **SHORT).fit(films["train"], films["val"])
    each = [score_module(m, baseline.inputs(films["test"], k), 16) for k, m in enumerate(baseline.modules)]
    np.testing.assert_allclose(baseline.predict_proba(films["test"]), (each[0] + each[1]) / 2)


def test_the_budget_is_a_number_of_settings_and_the_best_on_validation_is_kept(films, experts, squares):
    y, mask = films["val"].benchmark.targets()
    found = {}
    for tries in (1, 3):
        baseline = create_method("Tip-Adapter", experts[:1], squares.labels, tries=tries).fit(films["train"], films["val"])
        found[tries] = auc(y, baseline.predict_proba(films["val"]), mask).mean()
        assert baseline.chosen[0] in baseline.grid[:tries]
    assert found[3] >= found[1]
    with pytest.raises(ValueError, match="tries=0"):
        create_method("linear probe", experts, squares.labels, tries=0)


def test_a_loop_keeps_its_best_epoch_ignores_what_is_unknown_and_decays_weights_alone(films):
    """Logistic regression on one number; the hidden targets say the opposite and must not be heard."""
    x = torch.linspace(-1, 1, 32)[:, None]
    inputs = EmbeddingInputs(films["train"], x)
    inputs.targets = (x > 0).float().expand(-1, 2).numpy().copy()
    inputs.mask = np.ones((32, 2), dtype=bool)
    inputs.targets[:20, 1], inputs.mask[:20, 1] = 1 - inputs.targets[:20, 1], False
    inputs.mask[28:, 1], inputs.mask[:2, 1] = True, True
    inputs.targets[:2, 1] = 0.0
    torch.manual_seed(0)
    module = nn.Linear(1, 2)
    best = train_module(module, inputs, inputs, TrainConfig(epochs=30, batch_size=8), 0.1, progress=False)
    assert best == 1.0 and (module.weight > 0).all()
    assert merit(inputs.targets, score_module(module, inputs, 8), inputs.mask) == best
    still = nn.Linear(1, 2)
    start = {n: p.detach().clone() for n, p in still.named_parameters()}
    inputs.mask[:] = False  # nothing known: no gradient, decay alone moves anything
    train_module(still, inputs, inputs, TrainConfig(epochs=1, batch_size=32, warmup=0, weight_decay=0.2), 0.1, progress=False)
    torch.testing.assert_close(still.weight.detach(), start["weight"] * (1 - 0.1 * 0.2))
    assert torch.equal(still.bias, start["bias"])


@pytest.mark.parametrize("name", ["CoOp", "fine-tuning", "DenseNet-121"])
def test_what_learns_by_gradient_starts_at_the_prevalence(name, few, experts, squares):
    """A rate too small to move anything, and an epoch: the bias is still the log-odds of the training films."""
    option = {"size": 32} if name == "DenseNet-121" else {}
    baseline = create_method(name, experts, squares.labels, progress=False, tries=1, config=TrainConfig(epochs=1), **option)
    baseline.grid = ({"rate": 1e-12},)
    module = baseline.fit(few["train"], few["val"]).modules[0]
    y, mask = few["train"].benchmark.targets()
    share = torch.tensor([y[mask[:, c], c].mean() for c in range(2)], dtype=torch.float32).clamp(1e-3, 0.999)
    bias = module.classifier.bias if name == "DenseNet-121" else module.bias
    torch.testing.assert_close(bias.detach().sigmoid(), share)


def test_patience_ends_a_run_and_the_best_weights_come_back(films):
    inputs = EmbeddingInputs(films["train"], torch.randn(32, 3, generator=torch.Generator().manual_seed(0)))

    class Forgetful(nn.Linear):
        passes = 0

        def forward(self, x):
            self.passes += self.training
            # after the first epoch the scores turn around: no later epoch can be as good
            return super().forward(x) * (1 if self.passes <= 2 else -1)

    torch.manual_seed(1)
    module = Forgetful(3, 2)
    train_module(module, inputs, inputs, TrainConfig(epochs=50, patience=2, batch_size=16), 1e-6, progress=False)
    assert module.passes <= 2 * 6


def test_a_loss_that_is_not_finite_stops_the_run(films):
    inputs = EmbeddingInputs(films["train"], torch.full((32, 1), torch.inf))
    with pytest.raises(FloatingPointError, match=r"gadget: the loss is nan in epoch 0; lower the learning rate 0.1"):
        train_module(nn.Linear(1, 2), inputs, inputs, TrainConfig(epochs=1), 0.1, "gadget", progress=False)


@pytest.mark.parametrize("keep", [True, False])
def test_views_are_those_of_the_cached_features(films, keep, monkeypatch):
    if not keep:
        monkeypatch.setattr("medbridge.baselines.inputs._KEEP_BYTES", 0)
    part = films["val"]
    inputs = ViewInputs(part, 32, "all", progress=False)
    assert (inputs.kept is not None) == keep
    views, real = inputs.batch([4, 0, 2])
    assert real.sum(1).tolist() == [part.fixed[i] for i in (4, 0, 2)]
    want = extract_views(part.benchmark.read(4), part.boxes[4][: part.fixed[4]], 32)
    torch.testing.assert_close(views[0], want, atol=1e-3, rtol=0)
    y, known = part.benchmark.targets()
    assert np.array_equal(inputs.targets, y) and np.array_equal(inputs.mask, known)
    assert ViewInputs(part, 32, "whole", progress=False).batch([0])[0].shape == (1, 1, 32, 32)


def test_film_embeddings_are_unit_means_over_the_views(films):
    part = films["val"]
    stored = part.located[1].read("embed", 3, part.fixed[3]).float()
    for views, want in (("whole", stored[0]), ("all", stored.mean(0))):
        torch.testing.assert_close(film_embeddings(part, 1, views)[3], want / want.norm())


def test_a_tower_baseline_starts_from_the_same_embedding_as_the_cache(films, experts, squares):
    """Views, normalisation and pooling of the changed towers are those of the frozen features: at the start both agree."""
    from medbridge.baselines.towers import FilmScores, Tower

    for views in ("whole", "all"):
        for k, expert in enumerate(experts):
            film = FilmScores(Tower(expert), nn.Identity())
            pictures, real = ViewInputs(films["val"], expert.size, views, False).batch([0, 1, 2, 3])
            with torch.no_grad():
                torch.testing.assert_close(film(pictures, real), film_embeddings(films["val"], k, views)[:4], atol=2e-3, rtol=0)


def test_unknown_names_and_views(experts, squares):
    with pytest.raises(ValueError, match=r"unknown method 'clip adaptor'; did you mean 'CLIP-Adapter'\? known: zero-shot"):
        create_method("clip adaptor", experts, squares.labels)
    for spelling in ("clip-adapter", "CLIP Adapter", "clip_adapter"):
        assert create_method(spelling, experts, squares.labels).name == "CLIP-Adapter"
    with pytest.raises(ValueError, match="views='some'"):
        create_method("VPT", experts, squares.labels, views="some")


@pytest.mark.parametrize("name", [n for n in BASELINES if n not in ("zero-shot", "linear probe")])
def test_what_is_not_fitted_or_cannot_be(name, films, experts, squares):
    with pytest.raises(NotFittedError, match=r"call fit\(train, val\) first"):
        create_method(name, experts, squares.labels, **options(name)).predict_proba(films["test"])
    blank = films["val"].benchmark.table.assign(bright=np.nan, wide=np.nan)
    unknown = replace(films["val"], benchmark=replace(films["val"].benchmark, table=blank))
    with pytest.raises(BenchmarkError, match="no known label in val"):
        create_method(name, experts, squares.labels, **options(name)).fit(films["train"], unknown)


@pytest.mark.parametrize("name, words", [
    ("CoOp", "CoOp needs an expert with CLIP's text transformer"),
    ("CoCoOp", "CoCoOp needs an expert with CLIP's text transformer"),
    ("MaPLe", "MaPLe needs an expert with CLIP's text transformer and a ViT; small-resnet is none"),
    ("CLIP-Adapter", "CLIP-Adapter needs an expert whose images and texts share a space"),
    ("Tip-Adapter", "Tip-Adapter needs an expert whose images and texts share a space"),
])
def test_experts_that_a_method_cannot_use(name, words, resnet, squares, monkeypatch):
    if name in ("CoOp", "CoCoOp"):
        monkeypatch.setattr(resnet.model, "text_pool_type", "last")  # as SigLIP's
    elif name != "MaPLe":
        monkeypatch.setattr(resnet, "aligned", False)
    with pytest.raises(ExpertError, match=words):
        create_method(name, [resnet], squares.labels)


def test_maple_leaves_the_resnet_out(experts, squares):
    assert create_method("MaPLe", experts, squares.labels).used == [0]


@pytest.mark.parametrize("name, option, words", [
    ("CoOp", {"context": 0}, "context=0"), ("VPT", {"count": 0}, "count=0"), ("MaPLe", {"depth": 0}, "depth=0"),
    ("LoRA", {"rank": 0}, "rank=0"), ("fine-tuning", {"blocks": 0}, "blocks=0"),
    ("linear probe", {"strengths": (1, 0)}, r"strengths=\(1, 0\)"),
])
def test_options_out_of_range(name, option, words, experts, squares):
    with pytest.raises(ValueError, match=words):
        create_method(name, experts, squares.labels, **option)
