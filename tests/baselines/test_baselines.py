import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medbridge.baselines import LinearProbe, ZeroShot, create_method
from medbridge.errors import ExpertError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.metrics.evaluate import auc
from medbridge.prompts import ClassPrompts, encode_prompts
from medbridge.support.logistic import fit_logistic


@pytest.fixture(scope="module")
def films(squares, experts, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)
    focal = FocalSampler(0.6, 0.0, 1)
    return {s: cache.films(squares.split(s), experts, [[], []], focal, s == "train")
            for s in ("train", "val", "test")}


@pytest.mark.parametrize("views", ["whole", "all"])
def test_the_probe_learns_and_is_scikit_learns_own(films, views):
    probe = LinearProbe(views=views).fit(films["train"], films["val"])
    p = probe.predict_proba(films["test"])
    y, mask = films["test"].benchmark.targets()
    assert p.shape == y.shape and auc(y, p, mask).mean() > 0.75
    x = {s: np.concatenate([films[s].pooled("summary", k, views) for k in range(2)], 1) for s in films}
    learn = np.concatenate([x["train"], x["val"]])  # val chose the strength, and is learned from as well
    target, known = (np.concatenate(both) for both in zip(*(films[s].benchmark.targets() for s in ("train", "val")), strict=True))
    scaler = StandardScaler().fit(learn[known[:, 0]])
    plain = LogisticRegression(C=probe.strength, max_iter=2000).fit(scaler.transform(learn[known[:, 0]]), target[known[:, 0], 0])
    np.testing.assert_allclose(p[:, 0], plain.predict_proba(scaler.transform(x["test"]))[:, 1], rtol=1e-3)


def test_its_strength_is_chosen_on_validation(films):
    chosen = LinearProbe(strengths=(1e-6, 1e-2)).fit(films["train"], films["val"])
    x = {s: np.concatenate([films[s].pooled("summary", k) for k in range(2)], 1) for s in ("train", "val")}
    y, mask = films["val"].benchmark.targets()
    merits = {}
    for c in (1e-6, 1e-2):
        weights, biases = fit_logistic(x["train"], *films["train"].benchmark.targets(), c)
        merits[c] = auc(y, x["val"] @ weights.T + biases, mask).mean()
    assert merits[chosen.strength] == max(merits.values())


def test_a_label_with_one_class(films):
    from dataclasses import replace

    flat = [replace(films[s], benchmark=replace(films[s].benchmark, table=films[s].benchmark.table.assign(wide=1.0)))
            for s in ("train", "val")]
    scores = LinearProbe().fit(*flat).predict_proba(films["test"])[:, 1]
    assert len(set(scores)) == 1 and scores[0] > 0.98


def test_zero_shot_is_the_softmax_of_positive_against_negative(films, experts, squares):
    prompts = {"bright": ClassPrompts(("a bright square",), ("nothing",))}
    p = ZeroShot(experts, squares.labels, prompts=prompts).predict_proba(films["test"])
    logits = []
    for k, expert in enumerate(experts):
        positive, negative = (t.numpy() for t in encode_prompts(expert, squares.labels, prompts))
        embed = films["test"].pooled("embed", k)
        logits.append(np.stack([100 * embed @ positive.T, 100 * embed @ negative.T]))
    mean = np.mean(logits, axis=0)
    want = np.exp(mean[0]) / np.exp(mean).sum(0)
    np.testing.assert_allclose(p, want, rtol=1e-4)


def test_zero_shot_sees_the_views_that_it_is_given(films, experts, squares):
    zero = create_method("zero-shot", experts[:1], squares.labels, views="all")
    direction = torch.sub(*encode_prompts(experts[0], squares.labels)).numpy()
    mean = films["test"].pooled("embed", 0, "all").reshape(len(squares.split("test")), 3, -1)[:, 1]
    want = 1 / (1 + np.exp(-100 * mean / np.linalg.norm(mean, axis=1, keepdims=True) @ direction.T))
    np.testing.assert_allclose(zero.predict_proba(films["test"]), want, rtol=1e-4)
    assert np.abs(ZeroShot(experts[:1], squares.labels).predict_proba(films["test"]) - want).max() > 1e-3
    with pytest.raises(ValueError, match="views='some'"):
        ZeroShot(experts, squares.labels, views="some")


def test_zero_shot_needs_a_shared_space(vit, squares, monkeypatch):
    monkeypatch.setattr(vit, "aligned", False)
    with pytest.raises(ExpertError, match="zero-shot needs an expert whose images and texts share a space; small-vit is none"):
        ZeroShot([vit], squares.labels)


def test_unknown_views():
    with pytest.raises(ValueError, match="views='some'"):
        LinearProbe(views="some")
