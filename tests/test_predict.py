import numpy as np
import pytest
import torch
from samples import with_bases

from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.predict import film_features, outputs, predict, predict_film


@pytest.fixture(scope="module")
def model(experts, squares):
    sampler = FocalSampler(crop=0.6, overlap=0.0, extra=2)
    return with_bases(MedBridge(experts, squares.labels, sampler=sampler, width=32, queries=4)).train()


@pytest.fixture(scope="module")
def cached(model, squares, tmp_path_factory):
    return FeatureCache(tmp_path_factory.mktemp("cache"), progress=False).of(model, squares.split("test").take(range(5)))


def test_a_film_alone_scores_as_among_others(model, cached):
    together = predict(model, cached, progress=False)
    assert together.probabilities.shape == (5, 2) and together.probabilities.dtype == np.float64
    np.testing.assert_allclose(predict_film(model, cached.benchmark.read(2)), together.probabilities[2], atol=2e-3)
    np.testing.assert_allclose(together.weights.sum(1), 1, rtol=1e-5)
    logits = (together.weights * together.expert_logits).sum(1)
    np.testing.assert_allclose(together.probabilities, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def test_batches_of_any_size_give_the_same_scores_in_the_order_of_the_films(model, cached):
    whole = predict(model, cached, progress=False).probabilities
    np.testing.assert_allclose(predict(model, cached, 2, progress=False).probabilities, whole, atol=1e-6)
    some = torch.cat([o.logits for o in outputs(model, cached, 2, rows=[4, 0, 1])]).sigmoid().numpy()
    np.testing.assert_allclose(some, whole[[4, 0, 1]], atol=1e-6)


def test_scoring_leaves_the_mode_of_the_model_alone(model, cached):
    model.train()
    predict(model, cached, progress=False)
    assert model.training and not any(e.training for e in model.experts)
    model.eval()
    predict(model, cached, progress=False)
    assert not model.training


def test_a_selection_of_labels(model, cached):
    scores = predict(model, cached, progress=False)
    one = scores.select([1])
    assert one.probabilities.shape == (5, 1) and one.weights.shape == one.expert_logits.shape == (5, 2, 1)
    assert np.array_equal(one.probabilities[:, 0], scores.probabilities[:, 1])


def test_no_film_no_scores(model, cached, squares, tmp_path):
    none = FeatureCache(tmp_path, progress=False).of(model, cached.benchmark.take(range(0)))
    scores = predict(model, none, progress=False)
    assert scores.probabilities.shape == (0, 2) and scores.weights.shape == (0, 2, 2)


def test_features_of_a_film_are_those_of_the_cache(model, cached):
    features, boxes = film_features(model, cached.benchmark.read(1))
    np.testing.assert_array_equal(boxes, cached.boxes[1])
    stored = cached[1]
    assert features.fixed == stored.fixed
    torch.testing.assert_close(features.summary[1].float(), stored.summary[1].float(), atol=2e-3, rtol=2e-3)
