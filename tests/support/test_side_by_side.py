"""Pieces of arithmetic side by side."""

import threading

import pytest
import torch

from medbridge.support.threads import SideBySide


@pytest.mark.parametrize("threads", [1, 2])
def test_every_loss_goes_backward_and_a_fault_is_raised(threads):
    before, leaves = torch.get_num_threads(), [torch.ones(3, requires_grad=True) for _ in range(4)]
    with SideBySide(4, threads) as sides:
        assert torch.get_num_threads() == (before if threads == 1 else 1)
        for n, leaf in enumerate(leaves):
            sides.start((n * leaf).sum().backward)
        sides.wait()
        assert [leaf.grad.tolist() for leaf in leaves] == [[n] * 3 for n in range(4)]
        with pytest.raises(RuntimeError, match="does not require grad"):
            sides.start(torch.zeros(()).backward)
            sides.wait()
    assert torch.get_num_threads() == before


def test_cores_are_shared_out_and_pieces_overlap():
    together, cores = threading.Barrier(2), []

    def piece():
        together.wait(timeout=20)  # passes only where two are under way at once
        cores.append(torch.get_num_threads())

    with SideBySide(2, 5) as sides:
        for _ in range(4):
            sides.start(piece)
        sides.wait(left=2)
        sides.wait()
    assert cores == [2] * 4
