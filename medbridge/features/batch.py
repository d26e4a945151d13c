"""Films with different numbers of views become one padded batch.

Training draws its views here: the whole film, and as many local views as inference uses, at random from the film's pool of
sliding and random windows; where films are streamed, anew in each epoch. [summary] Random or sliding regions. [ours] Random
ones in training, sliding ones at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medbridge.features.encode import encode_views
from medbridge.features.films import FilmFeatures, Reader
from medbridge.support.processes import ranks


@dataclass
class Batch:
    """B films, N views, K experts.

    Attributes:
        maps: per expert and query layer: ``(B, N, P, d)``, float16, or int8 in a basis.
        summary: per expert: ``(B, N, image_dim)`` float16.
        boxes: float32 ``(B, N, 4)``, units of the whole view.
        view_mask: bool ``(B, N)``, False for padding.
        targets: float32 ``(B, C)``, or ``None`` at inference.
        mask: bool ``(B, C)``, False where the label is unknown, or ``None`` at inference.
    """

    maps: list[list[Tensor]]
    summary: list[Tensor]
    boxes: Tensor
    view_mask: Tensor
    targets: Tensor | None = None
    mask: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        return self._each(move)

    def take(self, rows: Tensor) -> Batch:
        """The films of these numbers, int64 ``(n,)``."""
        return self._each(lambda x: None if x is None else x[rows])

    def _each(self, change: Callable[[Tensor | None], Tensor | None]) -> Batch:
        return Batch([[change(m) for m in maps] for maps in self.maps], [change(s) for s in self.summary],
                     change(self.boxes), change(self.view_mask), change(self.targets), change(self.mask))


def _stack(parts: list[Tensor], views: int) -> Tensor:
    out = parts[0].new_zeros(len(parts), views, *parts[0].shape[1:])
    for i, part in enumerate(parts):
        out[i, : len(part)] = part
    return out


def collate(films: Sequence[Any], targets: np.ndarray | None = None, mask: np.ndarray | None = None) -> Any:
    """Pad B films of the same experts to the same number of views; ``targets`` and ``mask`` are ``(B, C)``.

    Where films are streamed, they are decoded now, and become a :class:`Batch` when they are moved to a device, by ``to``.
    """
    if (streamed := next((f for f in films if not isinstance(f, FilmFeatures)), None)) is not None:
        return streamed.decode(films, partial(collate, targets=targets, mask=mask))
    counts = torch.tensor([len(f.boxes) for f in films])
    views = int(counts.max())
    return Batch(
        [[_stack([f.maps[k][layer] for f in films], views) for layer in range(len(films[0].maps[k]))]
         for k in range(len(films[0].maps))],
        [_stack([f.summary[k] for f in films], views) for k in range(len(films[0].summary))],
        _stack([f.boxes for f in films], views),
        torch.arange(views)[None, :] < counts[:, None],
        None if targets is None else torch.as_tensor(targets, dtype=torch.float32),
        None if mask is None else torch.as_tensor(mask, dtype=torch.bool),
    )


def encode_films(
    model: Reader, films: Sequence[tuple[np.ndarray, dict[tuple[int, str], Tensor]]], keep_device: bool = False,
) -> list[FilmFeatures]:
    """Frozen features of films for a model, each given by its boxes ``(N, 4)`` in units of the film and its views by kind."""
    bases = model.bases if model.bases is not None else [None] * len(model.depths)
    outs = [encode_views(e, torch.cat([views[e.view_kind] for _, views in films]), depths, keep_device=keep_device, basis=basis)
            for e, depths, basis in zip(model.experts, model.depths, bases, strict=True)]
    features, start = [], 0
    for boxes, _ in films:
        rows = slice(start, start + len(boxes))
        start = rows.stop
        maps = [[o.maps[d][rows] for d in depths] for o, depths in zip(outs, model.depths, strict=True)]
        features.append(FilmFeatures(maps, [o.summary[rows] for o in outs], torch.from_numpy(boxes), len(boxes)))
    return features


@dataclass
class Pass:
    """One process's share of a pass over a step's films, or over a part of them.

    Attributes:
        batch: its films; the first ``count`` of them count.
        targets, mask: of the films of all processes, ``(n, C)``, one process after the other.
        known, films: the part's share of the step's known labels and of its films.
        last: whether the step ends here.
    """

    batch: Any
    count: int
    targets: Tensor
    mask: Tensor
    known: float
    films: float
    last: bool


def passes(
    batch: Callable[[list[int]], Any], targets: np.ndarray, mask: np.ndarray, order: np.ndarray, batch_size: int,
    accumulate: int = 1, first: int = 0,
) -> Iterator[Pass]:
    """What this process computes of an epoch, from step ``first`` on.

    A step's films may be divided into ``accumulate`` passes and dealt out to processes. Each part's loss is weighted by its share
    of the step's known labels, so that the sum is the loss of the undivided step. ``batch``: film numbers -> what the model is
    fed; ``targets``, ``mask``: of all films, ``(n, C)``; ``order``: of the films in this epoch.
    """
    rank, world = ranks()
    for start in range(first * batch_size, len(order), batch_size):
        step = order[start : start + batch_size]
        known = mask[step].sum()
        parts = [p for p in np.array_split(step, accumulate) if len(p)]
        for n, part in enumerate(parts):
            mine = part[rank::world]
            rows = np.concatenate([part[r::world] for r in range(world)])
            # a process that has no film left computes one that does not count, since all must go through the model
            yield Pass(batch((mine if len(mine) else part[:1]).tolist()), len(mine), torch.from_numpy(targets[rows]),
                       torch.from_numpy(mask[rows]), float(mask[part].sum() / known) if known else 1 / len(parts),
                       len(part) / len(step), n == len(parts) - 1)
