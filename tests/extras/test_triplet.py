from functools import partial

import pytest
import torch
import torch.nn.functional as F

from medbridge.extras.triplet import TripletNetwork, label_overlap, triplet_loss
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.train import TrainConfig, fit


def test_overlap_is_jaccard_over_labels_that_both_films_know():
    y = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    m = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 0, 0]]).bool()
    got = label_overlap(y, m)
    assert got[0, 1] == 0.5 and got[0, 2] == 0 and got[2, 2] == 1 and torch.isnan(got[3]).all()
    m[1, 1] = False  # unknown is not absent
    assert label_overlap(y, m)[0, 1] == 1


def test_triplets_are_those_of_a_triple_loop_and_never_nan():
    torch.manual_seed(0)
    v, y, m = torch.randn(7, 4, requires_grad=True), torch.randint(2, (7, 3)).float(), torch.rand(7, 3) > 0.2
    m[6] = False
    unit, s = F.normalize(v, dim=1), label_overlap(y, m)
    costs = []
    for a in range(7):
        for p in range(7):
            for n in range(7):
                if len({a, p, n}) == 3 and s[a, p] > s[a, n]:
                    costs.append(0.5 * (s[a, p] - s[a, n]) + unit[a] @ unit[n] - unit[a] @ unit[p])
    want = torch.stack([c for c in costs if c > 0]).mean()
    got = triplet_loss(v, y, m)
    torch.testing.assert_close(got, want)
    (grad,) = torch.autograd.grad(got, v)
    assert torch.isfinite(grad).all() and (grad[6] == 0).all() and grad.abs().sum() > 0
    assert triplet_loss(v, y, torch.zeros_like(m)) == 0


def test_descent_on_triplets_sorts_films_by_their_findings():
    torch.manual_seed(0)
    y, m = torch.eye(2).repeat(6, 1), torch.ones(12, 2, dtype=torch.bool)
    v = torch.randn(12, 8, requires_grad=True)
    optimiser = torch.optim.Adam([v], 0.1)
    for _ in range(100):
        optimiser.zero_grad()
        triplet_loss(v, y, m).backward()
        optimiser.step()
    unit = F.normalize(v, dim=1)
    cosine = (unit @ unit.T)[label_overlap(y, m) == 0]
    assert triplet_loss(v, y, m) == 0 and cosine.max() < 0.5


def test_the_triplet_term_is_added_where_it_is_asked_for(squares, vit, tmp_path):
    losses, cache = [], FeatureCache(tmp_path, progress=False)
    for network in (None, partial(TripletNetwork, weight=0.0), partial(TripletNetwork, weight=5.0)):
        model = MedBridge([vit], squares.labels, queries=2, query_layers=1, width=16, sampler=FocalSampler(local=False))
        films = cache.of(model, squares.split("train"), training=True), cache.of(model, squares.split("val"))
        losses.append(fit(model, *films, TrainConfig(epochs=1), progress=False, network=network).rows[0]["loss"])
    assert losses[0] == losses[1] < losses[2] - 0.1
    with pytest.raises(ValueError, match="weight=-1"):
        fit(model, *films, network=partial(TripletNetwork, weight=-1))
