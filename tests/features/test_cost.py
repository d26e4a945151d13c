"""What an expert costs on this machine."""


import pytest
import torch

from medbridge.experts import create_expert
from medbridge.features.cost import cost_table, expert_cost, machine


def test_cost_counts_what_the_cache_keeps_and_names_the_machine(vit, resnet):
    cost = expert_cost(vit, depths=[2, 3], views=2, repeats=1)
    per_view = 2 * 17 * 32 + 2 * (vit.image_dim + vit.text_dim)  # a byte a number of compact maps
    assert (cost.cached, cost.depths, cost.size) == (per_view, (2, 3), 32)
    assert cost.seconds > 0 and (cost.peak is None or cost.peak >= 0)
    assert cost.weights == sum(t.nbytes for t in vit.vision_state().values())
    table = cost_table([cost, expert_cost(resnet, views=1, repeats=1)])
    assert machine(torch.device("cpu")) in table and "small-vit" in table and "small-resnet" in table
    with pytest.raises(ValueError, match="views=0"):
        expert_cost(vit, views=0)


def test_a_larger_batch_needs_a_larger_peak():
    expert = create_expert("tiny-resnet")
    small, large = (expert_cost(expert, views=n, repeats=1).peak for n in (1, 32))
    if small is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert large > small + 32 * 3 * 128 * 128
