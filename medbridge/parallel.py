"""One process or many: what Accelerate started, asked in one place. [ours]

Under ``accelerate launch`` or ``torchrun`` every process runs the whole program. Films are dealt out by their number, results are
gathered in their order, so that the outcome is that of one process.
"""

from __future__ import annotations

import os
from datetime import timedelta

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object, pad_across_processes, parse_flag_from_env
from torch import Tensor

__all__ = ["barrier", "gather_rows", "is_main", "join", "ranks"]

_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others: reading or filling may take one of them longer than the ten minutes of NCCL."""


def ranks() -> tuple[int, int]:
    """``(this process, number of processes)``; ``(0, 1)`` where nothing was launched.

    Raises:
        RuntimeError: several processes were launched, and Accelerate did not join them: each would do all the work.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched < 2:
        return 0, 1
    state = PartialState(cpu=not torch.cuda.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=_PATIENCE)
    if state.num_processes != launched:
        raise RuntimeError(f"WORLD_SIZE={launched} but Accelerate joined {state.num_processes} process(es); start with torchrun "
                           "or `accelerate launch`, on CPUs or NVIDIA GPUs")
    return state.process_index, state.num_processes


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return ranks()[0] == 0


def barrier() -> None:
    """Wait until every process is here."""
    if ranks()[1] > 1:
        PartialState().wait_for_everyone()


def gather_rows(mine: np.ndarray) -> np.ndarray:
    """Rows of process r are those numbered r, r + W, r + 2 W ... -> all rows in order, in every process."""
    world = ranks()[1]
    if world == 1:
        return mine
    parts = gather_object([mine])
    out = np.empty((sum(len(p) for p in parts), *mine.shape[1:]), mine.dtype)
    for rank, part in enumerate(parts):
        out[rank::world] = part
    return out


def join(mine: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of every process's ``(n, ...)``, one process after the other.

    Gradients flow to this process's rows alone: a loss over the joined rows has, summed over the processes, the gradient
    of the same loss in one process.
    """
    rank, world = ranks()
    if world == 1:
        return mine[:count]
    counts = gather(torch.tensor([count], device=mine.device)).tolist()
    padded = gather(pad_across_processes(mine.detach().contiguous(), dim=0))
    most = len(padded) // world
    parts = [padded[r * most : r * most + n] for r, n in enumerate(counts)]
    parts[rank] = mine[:count]
    return torch.cat(parts)
