"""The frozen features of a benchmark's films: one interface, whether they are read (:mod:`.cache`) or made (:mod:`.stream`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from medbridge.data import Benchmark
from medbridge.experts import Expert
from medbridge.features.compact import MapBasis
from medbridge.features.shards import FeatureIndex
from medbridge.focal import FocalSampler, relative_boxes


@dataclass(frozen=True)
class Reader:
    """What a model reads, and all that is asked of one here: which experts, of each which depths, of which views, in which bases;
    ``members``: how many of them score the films in turn."""

    experts: Iterable[Expert]
    depths: Sequence[Sequence[int]]
    sampler: FocalSampler
    bases: Sequence[MapBasis] | None
    members: Sized = (0,)


def drawn_views(pool: int, fixed: int, rng: np.random.Generator | None = None, most: int | None = None) -> np.ndarray:
    """Which of a film's ``pool`` of views one pass sees, int64: the whole film, and with ``rng`` as many random local views as
    there are windows, at most ``most``. Without ``rng``, or where all would be drawn: the ``fixed`` ones, whole film and windows.
    """
    count = fixed - 1 if most is None else min(most, fixed - 1)
    if rng is None or count == pool - 1:
        return np.arange(fixed)
    return np.concatenate([[0], 1 + np.sort(rng.permutation(pool - 1)[:count])])


@dataclass
class FilmFeatures:
    """What K frozen experts say about the V views of one film.

    Attributes:
        maps: per expert: maps of its depths, shallow to deep, each ``(V, P, d)``, float16, or int8 in a basis.
        summary: per expert: ``(V, image_dim)`` float16.
        boxes: float32 ``(V, 4)`` in units of the whole view; view 0 is the whole film.
        fixed: how many leading views are the whole film and the sliding windows; the others are random windows.
    """

    maps: list[list[Tensor]]
    summary: list[Tensor]
    boxes: Tensor
    fixed: int

    def draw(self, rng: np.random.Generator | None = None, most: int | None = None) -> Self:
        """The views that one pass sees, by :func:`drawn_views`."""
        at = torch.from_numpy(drawn_views(len(self.boxes), self.fixed, rng, most))
        return replace(self, maps=[[m[at] for m in maps] for maps in self.maps], summary=[s[at] for s in self.summary],
                       boxes=self.boxes[at])

    def to(self, device: torch.device | str) -> Self:
        """Maps and summaries on another device."""
        maps = [[m.to(device) for m in maps] for maps in self.maps]
        return replace(self, maps=maps, summary=[s.to(device) for s in self.summary])

    @property
    def nbytes(self) -> int:
        """Bytes of its maps and summaries."""
        return sum(t.nbytes for t in (*self.summary, *(m for maps in self.maps for m in maps)))


class Kept(dict[bytes, FilmFeatures]):
    """Features by address that are held in memory, of films that are scored in every epoch; ``left``: bytes that still fit."""

    left = 2**31


@dataclass(kw_only=True)
class FrozenFilms(Dataset):
    """The frozen features of a benchmark's films. ``films[i]`` is what a pass draws its views from (:meth:`FilmFeatures.draw`).

    Attributes:
        benchmark: the films, in this order.
        keys: per film: its address, 20 bytes.
        parts: per expert: the names of the maps that are read.
        depths: per expert: their depths.
        boxes: per film: float32 ``(V, 4)`` in pixels.
        sizes: per film: ``(height, width)`` in pixels.
        fixed: per film: number of leading views that inference uses.
        bases: per expert: the basis of its maps; None: maps as they are.
        prints: per film: what copies of it are known by (:mod:`medbridge.data.copies`).
        kept: where films that are made when they are asked for may be held; the cache has no use for it.
    """

    benchmark: Benchmark
    keys: list[bytes]
    parts: list[list[str]]
    depths: list[list[int]]
    boxes: list[np.ndarray]
    sizes: list[tuple[int, int]]
    fixed: list[int]
    bases: Sequence[MapBasis] | None = None
    prints: Sequence[bytes] = ()
    kept: Kept | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, i: int) -> Any:
        raise NotImplementedError

    def pooled(self, key: str, expert: int, views: str = "whole") -> np.ndarray:
        """One vector per film, for which no map is read: what the baselines are fitted to. ``key``: 'summary' or 'embed'.

        float32 ``(n, d)`` of the 'whole' film (view 0), or ``(n, 3 d)`` of 'all': view 0, mean and maximum of the fixed views.
        """
        raise NotImplementedError


@dataclass(kw_only=True)
class CachedFilms(FrozenFilms):
    """Features that are read from the cache, film by film. ``located``: per expert, where they are."""

    located: list[FeatureIndex]

    def __getitem__(self, i: int) -> FilmFeatures:
        views = len(self.boxes[i])  # more may be stored
        maps = [[at.read(part, i, views) for part in parts] for at, parts in zip(self.located, self.parts, strict=True)]
        summary = [at.read("summary", i, views) for at in self.located]
        return FilmFeatures(maps, summary, torch.from_numpy(relative_boxes(self.boxes[i], *self.sizes[i])), self.fixed[i])

    @property
    def files(self) -> list[list[Path]]:
        """Per expert: the shard of each film's summary."""
        return [[at.file("summary", i) for i in range(len(self))] for at in self.located]

    def pooled(self, key: str, expert: int, views: str = "whole") -> np.ndarray:
        rows = (self.located[expert].read(key, i, 1 if views == "whole" else fixed) for i, fixed in enumerate(self.fixed))
        return torch.stack([pool_views(x, views) for x in rows]).numpy()


def pool_views(x: Tensor, views: str) -> Tensor:
    """Vectors of a film's views ``(V, d)`` -> float32 ``(d,)`` of 'whole', view 0; ``(3 d,)`` of 'all': with mean and maximum."""
    x = x.float()
    return x[0] if views == "whole" else torch.cat([x[0], x.mean(0), x.max(0).values])
