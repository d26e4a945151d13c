"""The cost of a run before it starts."""

import pytest

from medbridge.features.budget import GPUS, cost_of_run, run_cost_table, tower_flops
from medbridge.features.encode import view_bytes


def test_costs_add_up(experts):
    depths = [[2, 3], [4, 5]]
    one, ten = (cost_of_run(experts, depths, n, 5) for n in (1, 10))
    assert ten.cache == 10 * one.cache == 50 * sum(view_bytes(e, d) for e, d in zip(experts, depths, strict=True))
    assert ten.flops == pytest.approx(10 * one.flops) == pytest.approx(50 * sum(map(tower_flops, experts)))
    assert one.memory == ten.memory  # a batch is a batch
    assert one.seconds(1e12, 0.5) == pytest.approx(one.flops / 5e11)
    assert one.epoch == one.cache and cost_of_run(experts, depths, 10, 5, 2).epoch == ten.cache * 2 / 5
    table = run_cost_table(ten)
    assert f"to read {ten.cache / 1e9:.3f} GB" in table
    assert all(name in table for name in GPUS) and "estimated" in table and "does not fit" not in table
    with pytest.raises(ValueError, match="films=0"):
        cost_of_run(experts, depths, 0, 5)
    with pytest.raises(ValueError, match="drawn=6"):
        cost_of_run(experts, depths, 1, 5, 6)
