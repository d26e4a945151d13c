"""What each process computes in each step of an epoch: films, their views, and how much they count. [ours]

A step's films may be divided into passes (gradient accumulation) and dealt out to processes. Each part's loss is weighted by its
share of the step's known labels, so that the sum is the loss of the undivided step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medbridge.features.batch import Batch, collate, draw_views
from medbridge.features.cache import CachedFilms, FilmFeatures
from medbridge.support.processes import ranks

__all__ = ["DrawnFilms", "Pass"]


@dataclass
class Pass:
    """One process's share of a pass over a step's films, or over a part of them.

    Attributes:
        batch: its films; the first ``count`` of them count.
        targets, mask: of the films of all processes, ``(n, C)``, one process after the other.
        known, films: the part's share of the step's known labels and of its films.
        last: whether the step ends here.
    """

    batch: Batch
    count: int
    targets: Tensor
    mask: Tensor
    known: float
    films: float
    last: bool


class DrawnFilms:
    """A film with the views of this epoch: the same for a seed, an epoch and a film, whatever was done before."""

    def __init__(self, films: CachedFilms, seed: int, epoch: int) -> None:
        self.films, self.seed, self.epoch = films, seed, epoch
        self.targets, self.mask = films.benchmark.targets()

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, i: int) -> FilmFeatures:
        return draw_views(self.films[i], np.random.default_rng([self.seed, self.epoch, i]))

    def passes(self, batch_size: int, accumulate: int, first: int) -> Iterator[Pass]:
        """What this process computes of this epoch, from step ``first`` on."""
        rank, world = ranks()
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        for start in range(first * batch_size, len(order), batch_size):
            step = order[start : start + batch_size]
            known = self.mask[step].sum()
            parts = [p for p in np.array_split(step, accumulate) if len(p)]
            for n, part in enumerate(parts):
                mine = part[rank::world]
                # a process that has no film left computes one that does not count, since all must go through the model
                batch = collate([self[i] for i in (mine if len(mine) else part[:1]).tolist()])
                rows = np.concatenate([part[r::world] for r in range(world)])
                yield Pass(batch, len(mine), torch.from_numpy(self.targets[rows]), torch.from_numpy(self.mask[rows]),
                            float(self.mask[part].sum() / known) if known else 1 / len(parts), len(part) / len(step),
                            n == len(parts) - 1)
