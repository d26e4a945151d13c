"""The number of threads changes how long a fill takes, and not one bit of it."""

import torch

from medbridge.features.cache import FeatureCache
from medbridge.features.text import TextCache
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge


def test_features_are_the_same_bits_with_any_number_of_threads(experts, squares, tmp_path):
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model = MedBridge(experts, squares.labels, sampler=FocalSampler(crop=0.6, overlap=0.0, extra=2))
            films = FeatureCache(tmp_path / str(threads), progress=False).of(model, squares.split("train"), training=True)
            assert torch.get_num_threads() == threads
            made.append([x for film in films for x in (*(m for maps in film.maps for m in maps), *film.summary)])
    finally:
        torch.set_num_threads(before)
    for others in made[1:]:
        assert len(others) == len(made[0]) and all(torch.equal(a, b) for a, b in zip(made[0], others, strict=True))


def test_text_features_are_the_same_bits_with_any_number_of_threads(tiny, tmp_path):
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made.append(TextCache(tiny, tmp_path / str(threads)).encode(["a chest film", "no effusion"]))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*made)
