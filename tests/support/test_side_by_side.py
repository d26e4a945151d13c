"""Losses that go backward side by side."""

import pytest
import torch

from medbridge.support.threads import SideBySide


@pytest.mark.parametrize("threads", [1, 2])
def test_every_loss_goes_backward_and_a_fault_is_raised(threads):
    before, leaves = torch.get_num_threads(), [torch.ones(3, requires_grad=True) for _ in range(4)]
    with SideBySide(4, threads) as sides:
        assert torch.get_num_threads() == (before if threads == 1 else 1)
        for n, leaf in enumerate(leaves):
            sides.backward((n * leaf).sum())
        sides.wait()
        assert [leaf.grad.tolist() for leaf in leaves] == [[n] * 3 for n in range(4)]
        with pytest.raises(RuntimeError, match="does not require grad"):
            sides.backward(torch.zeros(()))
            sides.wait()
    assert torch.get_num_threads() == before
