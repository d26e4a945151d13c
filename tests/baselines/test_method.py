"""MedBridge among the methods: one registry, one interface, and a budget of learning rates."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medbridge.baselines import create_method, list_methods, method_class
from medbridge.baselines.method import TRIES, MedBridgeMethod, Method
from medbridge.errors import BenchmarkError
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.predict import predict
from medbridge.train import TrainConfig, fit

SHAPE = {"adapter": AdapterConfig(width=32, queries=4), "sampler": FocalSampler(crop=0.6, overlap=0.0, extra=2)}
CONFIG = TrainConfig(epochs=2, batch_size=8, lr=2e-3)


@pytest.fixture(scope="module")
def features(squares, experts, tmp_path_factory):
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)
    reader = MedBridgeMethod(experts, squares.labels, **SHAPE).model
    return {s: cache.of(reader, squares.split(s), s == "train") for s in ("train", "val", "test")}


def _method(experts, squares, **options):
    return create_method("medbridge", experts, squares.labels, progress=False, **{"config": CONFIG, **SHAPE, **options})


def test_one_rate_is_the_fit_of_the_network(features, experts, squares):
    method = _method(experts, squares, tries=1)
    assert isinstance(method, MedBridgeMethod) and method.fit(features["train"], features["val"]) is method
    model = MedBridge(experts, squares.labels, *SHAPE.values())
    history = fit(model, features["train"], features["val"], CONFIG, progress=False)
    assert history.best_auc == method.history.best_auc
    assert np.array_equal(method.predict_proba(features["test"]), predict(model, features["test"], 8, False).probabilities)
    assert method.trainable_parameters == sum(p.numel() for p in model.trainable().values())


def test_of_several_rates_the_best_on_validation_is_kept_and_a_folder_each_resumes(features, experts, squares, tmp_path):
    method = _method(experts, squares, out=tmp_path).fit(features["train"], features["val"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rate0.0003", "rate0.001", "rate0.003"] and TRIES == 3
    alone = []
    for rate in MedBridgeMethod.rates:
        one = _method(experts, squares, tries=1, config=replace(CONFIG, lr=rate), out=tmp_path / f"rate{rate:g}")
        alone.append(one.fit(features["train"], features["val"]).history)  # read from the checkpoint
    assert method.history == max(alone, key=lambda h: h.best_auc)
    again = _method(experts, squares, out=tmp_path).fit(features["train"], features["val"])
    assert all(torch.equal(p, again.model.trainable()[k]) for k, p in method.model.trainable().items())


def test_the_registry_knows_every_method_by_its_own_name():
    assert list_methods()[0] == "zero-shot" and list_methods()[-1] == "MedBridge" and len(list_methods()) == 15
    for name in list_methods():
        assert issubclass(method_class(name), Method) and method_class(name.upper().replace("-", " ")).name == name
    assert [n for n in list_methods() if not method_class(n).seeded] == ["zero-shot", "linear probe", "k-NN", "Tip-Adapter"]
    assert [n for n in list_methods() if not method_class(n).learns] == ["zero-shot"]


def test_what_does_not_fit_says_so(features, experts, squares, films):
    with pytest.raises(ValueError, match="tries=0"):
        _method(experts, squares, tries=0)
    with pytest.raises(ValueError, match="hold maps at the depths"):
        _method(experts, squares, tries=1).fit(films["train"], films["val"])
    with pytest.raises(BenchmarkError, match="labels=benchmark.labels"):
        create_method("MedBridge", experts, ["bright"], **SHAPE).fit(features["train"], features["val"])
