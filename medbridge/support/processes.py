"""One process or many: what Accelerate started, asked in one place.

Under ``accelerate launch`` or ``torchrun`` every process runs the whole program. Films are shared out by their number and results
gathered in their order, so that the outcome is that of one process; so are whole trainings that do not depend on each other.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object, pad_across_processes, parse_flag_from_env
from torch import Tensor

Unit, Result = TypeVar("Unit"), TypeVar("Result")

_PATIENCE = timedelta(hours=6)  # for the others: reading or filling may take one of them longer than the ten minutes of NCCL
_alone = False  # at work on a unit that no other process works on


def ranks() -> tuple[int, int]:
    """``(this process, number of processes)``; ``(0, 1)`` where nothing was launched, or at work :func:`alone`.

    RuntimeError: several processes were launched, and Accelerate did not join them: each would do all the work.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched < 2 or _alone:
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


@contextmanager
def alone() -> Iterator[None]:
    """For what this process does by itself: meanwhile :func:`ranks` says that it is the only one."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def share_of_rank(units: Sequence[Unit]) -> Iterator[Unit]:
    """Every W-th unit of independent work in one of W processes, done :func:`alone`; at the end all wait for each other."""
    barrier()  # nobody still looks for what is missing while another one writes
    rank, world = ranks()
    for unit in units[rank::world]:
        with alone():
            yield unit
    barrier()


def unordered(work: Callable[[Unit], Result], units: Sequence[Unit], workers: int, chunk: int) -> Iterator[Result]:
    """``map(work, units)`` in any order by a pool of ``workers`` processes, ``chunk`` units at a time; 1: in this process."""
    # A child started by spawn runs an unguarded script again; there it must not start a pool of its own.
    if workers == 1 or len(units) < 4 or multiprocessing.parent_process() is not None:
        yield from map(work, units)
        return
    # Forked workers need no importable __main__ (notebooks, scripts without a guard). Off Linux fork is unsafe.
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    # Ctrl-C is for the parent, which ends the workers; they would print a traceback each.
    with context.Pool(min(workers, len(units)), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap_unordered(work, units, chunk)


def gather_each(mine: Result) -> list[Result]:
    """What each process holds, in the order of their ranks; all of them must call it."""
    return gather_object([mine]) if ranks()[1] > 1 else [mine]


def gather_rows(mine: np.ndarray) -> np.ndarray:
    """Rows of process r are those numbered r, r + W, r + 2 W ... -> all rows in order, in every process."""
    parts = gather_each(mine)
    out = np.empty((sum(map(len, parts)), *mine.shape[1:]), mine.dtype)
    for rank, part in enumerate(parts):
        out[rank :: len(parts)] = part
    return out


def join(mine: Tensor, count: int) -> Tensor:
    """The first ``count`` rows of every process's ``(n, ...)``, one process after the other; gradients flow to this one's alone.

    So a loss over the joined rows has, summed over the processes, the gradient of the same loss in one process.
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
