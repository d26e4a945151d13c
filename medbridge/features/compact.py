r"""Compact maps: what the queries read of a frozen tower, in a thirtieth of its tokens' bytes. [ours]

Patches are averaged over small squares; channels are standardised and turned to principal components, each divided by its own
deviation; each number is rounded to a byte:

    u = ((x - mean) / scale) V / deviation,     stored: round(32 u), clipped to [-127, 127].

A few common components drown the rest of raw tokens; here all weigh alike. The basis is fitted without labels, to tokens of
training films, and belongs to the adapter: films of another benchmark are read in the basis of the source.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbridge.experts import Expert

STEP = 1 / 32
"""What one step of a stored byte stands for, in deviations of its component."""

LEAST_STORED = 128
"""Components that are kept even where fewer are asked for, so that a study of their number needs one fill."""


@dataclass(frozen=True)
class MapFormat:
    """How frozen maps are stored.

    Attributes:
        components: most principal components that are read; ``LEAST_STORED`` or more are kept.
        patches: most patches of a map; a finer one is averaged over the smallest squares that reach it.
        bits: of a number, 8 or 16.
        whiten: divide every component by its own deviation; else all by that of the first.
    """

    components: int = 128
    patches: int = 64
    bits: int = 8
    whiten: bool = True

    def __post_init__(self) -> None:
        if self.components < 1 or self.patches < 1 or self.bits not in (8, 16):
            raise ValueError(f"components={self.components} and patches={self.patches} must be at least 1, bits={self.bits} "
                             "8 or 16")

    @property
    def stored(self) -> Self:
        """How the maps lie on disk, of which the first components are read."""
        return replace(self, components=max(self.components, LEAST_STORED))

    def side(self, rows: int, columns: int) -> int:
        """Side of the squares that a map of so many patches is averaged over."""
        return next(s for s in itertools.count(1) if math.ceil(rows / s) * math.ceil(columns / s) <= self.patches)


class MapBasis(nn.Module):
    """The basis in which one expert's maps are read; like the expert it says how deep, wide and fine they are.

    Args:
        expert: whose maps. depths: the depths that are read. form: how they are stored.

    Attributes:
        fitted: whether :meth:`fit` was called, or its numbers were loaded.
        widths, grids, depth, prefix: of the compact maps, as those of :class:`medbridge.experts.Expert`.
        stored: components of the map of each depth that are kept, of which the first ``widths`` are read.
    """

    fitted: Tensor
    summary_mean: Tensor
    summary_scale: Tensor

    def __init__(self, expert: Expert, depths: Sequence[int], form: MapFormat) -> None:
        super().__init__()
        self.form, self.depths, self.depth, self.prefix = form, list(depths), expert.depth, expert.prefix
        self.raw_grids = expert.grids
        self.widths = tuple(min(form.components, width) for width in expert.widths)
        self.stored = tuple(min(form.stored.components, width) for width in expert.widths)
        sides = [form.side(*grid) for grid in expert.grids]
        self.grids = tuple((math.ceil(r / s), math.ceil(c / s)) for (r, c), s in zip(expert.grids, sides, strict=True))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("summary_mean", torch.zeros(expert.image_dim))
        self.register_buffer("summary_scale", torch.ones(expert.image_dim))
        for d in self.depths:
            self.register_buffer(f"matrix_{d}", torch.zeros(expert.widths[d - 1], self.stored[d - 1]))
            self.register_buffer(f"shift_{d}", torch.zeros(self.stored[d - 1]))

    def fit(self, tokens: dict[int, Tensor], summary: Tensor) -> None:
        """Fit to tokens ``(n, d)`` by depth, and summaries ``(n, image_dim)``, of films whose labels nobody needs to know."""
        for d in self.depths:
            x = tokens[d].double()
            mean, scale = x.mean(0), _spread(x)
            z = (x - mean) / scale
            # eigenvalues rise; a vector's sign is free: its largest number is positive, on every machine
            variance, vectors = torch.linalg.eigh(z.T @ z / len(z))
            vectors = vectors.flip(1)[:, : self.stored[d - 1]]
            vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
            deviation = variance.flip(0)[: self.stored[d - 1]].clamp(min=1e-6 * float(variance[-1])).sqrt()
            if not self.form.whiten:
                deviation = deviation[:1].expand_as(deviation)
            matrix = (vectors / deviation / scale[:, None]).float()
            self.get_buffer(f"matrix_{d}").copy_(matrix)
            self.get_buffer(f"shift_{d}").copy_(-mean.float() @ matrix)
        self.summary_mean.copy_(summary.double().mean(0))
        self.summary_scale.copy_(_spread(summary.double()))
        self.fitted.fill_(True)

    def forward(self, tokens: Tensor, depth: int) -> Tensor:
        """Maps ``(V, P, d)`` of a depth -> compact ``(V, P', r)`` as they are stored, int8 or float16 by ``form.bits``.

        Raises:
            ValueError: the basis was not fitted.
        """
        if not self.fitted:
            raise ValueError("no basis for compact maps was fitted yet; get the features of the training films first, by "
                             "FeatureCache(...).of(model, train, training=True)")
        x = self.pool(tokens.float(), depth)
        u = x @ self.get_buffer(f"matrix_{depth}").to(x.device) + self.get_buffer(f"shift_{depth}").to(x.device)
        return (u / STEP).round().clamp(-127, 127).to(torch.int8) if self.form.bits == 8 else u.half()

    def pool(self, tokens: Tensor, depth: int) -> Tensor:
        """Patches ``(V, P, d)`` averaged over squares, prefix tokens as they are."""
        grid, prefix = self.raw_grids[depth - 1], self.prefix
        side = self.form.side(*grid)
        if side == 1:
            return tokens
        patches = tokens[:, prefix:].unflatten(1, grid).permute(0, 3, 1, 2)
        patches = F.avg_pool2d(patches, side, ceil_mode=True, count_include_pad=False).flatten(2).transpose(1, 2)
        return torch.cat([tokens[:, :prefix], patches], dim=1)

    def standardise(self, summary: Tensor) -> Tensor:
        """Summaries ``(..., image_dim)``, each number with mean 0 and deviation 1 over the films of the fit; float32."""
        return (summary.float() - self.summary_mean) / self.summary_scale

    def digest(self) -> str:
        """What tells this basis from others in the address of features."""
        numbers = b"".join(value.cpu().numpy().tobytes() for value in self.buffers())
        return hashlib.sha256(repr(self.form.stored).encode() + numbers).hexdigest()[:12]


def as_numbers(maps: Tensor) -> Tensor:
    """Stored maps as float32: bytes in deviations of their component, other kinds as they are."""
    return maps.float() * STEP if maps.dtype == torch.int8 else maps.float()


def _spread(x: Tensor) -> Tensor:
    """Standard deviation of columns, never too small to divide by."""
    spread = x.std(0)
    return spread.clamp(min=max(1e-6, 1e-4 * float(spread.max())))
