"""Films -> views -> what a frozen expert says of them, in half precision: the work between decoding and the cache. [ours]"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medbridge.experts import Expert, FrozenMaps
from medbridge.focal import extract_views

__all__ = ["Views", "encode_views", "film_views", "to_cpu", "view_bytes", "view_groups"]

_FP16_MAX = torch.finfo(torch.float16).max
Views = tuple[Any, dict[tuple[int, str], Tensor]]
"""A film (its number, say), and its views by kind: size and interpolation."""


def _half(x: Tensor) -> Tensor:
    # some towers have a few activations beyond float16's range; infinities would poison every query
    return x.float().clamp(-_FP16_MAX, _FP16_MAX).half().contiguous()


def encode_views(expert: Expert, views: Tensor, depths: Sequence[int], batch: int = 128, keep_device: bool = False) -> FrozenMaps:
    """Grayscale views ``(V, R, R)`` in [0, 1] -> float16 maps, summary and embedding, ``batch`` at a time.

    Args:
        keep_device: leave the result on the expert's device, so that its copy can wait in another thread; else on the CPU.
    """
    parts = []
    device = expert.mean.device
    kind = getattr(torch, expert.precision)
    for start in range(0, len(views), batch):
        x = expert.preprocess(views[start : start + batch].to(device, non_blocking=True))
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            out = expert.encode_maps(x, depths)
        maps = {d: _half(m) for d, m in out.maps.items()}
        parts.append(FrozenMaps(maps, _half(out.summary), None if out.embed is None else _half(out.embed)))
    embed = None if parts[0].embed is None else torch.cat([p.embed for p in parts])
    found = FrozenMaps(
        {d: torch.cat([p.maps[d] for p in parts]) for d in parts[0].maps}, torch.cat([p.summary for p in parts]), embed)
    return found if keep_device else to_cpu(found)


def to_cpu(out: FrozenMaps) -> FrozenMaps:
    return FrozenMaps(
        {d: m.cpu() for d, m in out.maps.items()}, out.summary.cpu(), None if out.embed is None else out.embed.cpu())


def view_bytes(expert: Expert, depths: Sequence[int]) -> int:
    """Bytes that one view takes in the cache: maps at ``depths``, summary and embedding, float16."""
    maps = sum((expert.prefix + rows * columns) * width
               for d in depths for (rows, columns), width in [(expert.grids[d - 1], expert.widths[d - 1])])
    return 2 * (maps + expert.image_dim + (expert.text_dim if expert.aligned else 0))


def film_views(
    read: Callable[[], np.ndarray], boxes: np.ndarray, kinds: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], Tensor]:
    """Decode a film (``read()`` gives it) and cut its views, for each kind: the work that threads do ahead."""
    film = read()
    return {kind: extract_views(film, boxes, *kind) for kind in kinds}


def view_groups(films: Iterable[Views], least: int = 64) -> Iterator[list[Views]]:
    """Films together until they hold ``least`` views: one film alone leaves a GPU idle."""
    group, count = [], 0
    for row, views in films:
        group.append((row, views))
        count += max(map(len, views.values()), default=0)
        if count >= least:
            yield group
            group, count = [], 0
    if group:
        yield group
