import pytest
from samples import perturbed

from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge


@pytest.fixture(scope="session")
def scored(squares, experts, tmp_path_factory):
    """A trained-like model, and the cached films of each split."""
    model = perturbed(MedBridge(experts, squares.labels, width=32, queries=4, sampler=FocalSampler(local=False)))
    cache = FeatureCache(tmp_path_factory.mktemp("cache"), progress=False)
    return model, {split: cache.of(model, squares.split(split)) for split in ("train", "val", "test")}
