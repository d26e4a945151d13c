import pytest
from test_model import _perturbed

from medbridge.features.cache import compute_features
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge


@pytest.fixture(scope="session")
def scored(squares, experts, tmp_path_factory):
    """A trained-like model, and the cached films of each split."""
    model = _perturbed(MedBridge(experts, squares.labels, width=32, queries=4, sampler=FocalSampler(local=False)))
    cache = tmp_path_factory.mktemp("cache")
    films = {s: compute_features(squares.split(s), list(model.experts), model.depths, model.sampler, False, cache, progress=False)
             for s in ("train", "val", "test")}
    return model, films
