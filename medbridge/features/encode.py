"""Films -> views -> what a frozen expert says of them, in half precision -> shards: the work that fills the cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medbridge.data import Benchmark
from medbridge.experts import Expert, FrozenMaps
from medbridge.features.compact import MapBasis
from medbridge.features.shards import FeatureStore, ShardWriter
from medbridge.focal import extract_views
from medbridge.support.threads import SideBySide, ahead, cpu_threads, prefetch

_SIDE_BYTES = 2e9  # of activations, on a processor
_FP16_MAX = torch.finfo(torch.float16).max
Views = tuple[Any, dict[tuple[int, str], Tensor]]
"""A film (its number, say), and its views by kind: size and interpolation."""


def map_part(depth: int, basis: MapBasis | None = None) -> str:
    """Name of the maps of one depth in a shard: as they are, or in a basis."""
    return f"map.{depth:03d}" if basis is None else f"map.{depth:03d}.{basis.digest()}"


def view_bytes(expert: Expert, depths: Sequence[int], basis: MapBasis | None = None) -> int:
    """Bytes that one view takes in the cache: maps at ``depths``, as they are or in a basis, summary and embedding, float16."""
    shapes, widths = (expert, expert.widths) if basis is None else (basis, basis.stored)
    maps = sum((shapes.prefix + rows * columns) * width
               for d in depths for (rows, columns), width in [(shapes.grids[d - 1], widths[d - 1])])
    return maps * (2 if basis is None else basis.form.bits // 8) + 2 * (expert.image_dim + expert.text_dim * expert.aligned)


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


def groups_ahead(cut: Callable[[Any], Views], items: Iterable[Any], threads: int, least: int = 64) -> Iterator[list[Views]]:
    """:func:`view_groups` of ``cut(item)``, made ahead by ``threads``; 0: in the caller's."""
    groups = view_groups(ahead(cut, items, threads), least)
    return prefetch(groups) if threads else groups


def film_groups(
    benchmark: Benchmark, boxes: Sequence[np.ndarray], kinds: Iterable[tuple[int, str]], rows: Iterable[int], threads: int,
) -> Iterator[list[Views]]:
    """:func:`groups_ahead` of these films of a benchmark; ``boxes``: of every film."""
    return groups_ahead(lambda i: (i, film_views(partial(benchmark.read, i), boxes[i], kinds)), rows, threads)


def encode_views(
    expert: Expert, views: Tensor, depths: Sequence[int], batch: int = 128, keep_device: bool = False,
    basis: MapBasis | None = None,
) -> FrozenMaps:
    """Grayscale views ``(V, R, R)`` in [0, 1] -> float16 maps (compact with a ``basis``), summary and embedding, ``batch`` at a
    time; on the CPU, or with ``keep_device`` on the expert's, so that the copy can wait in another thread."""
    device, kind, parts = expert.mean.device, getattr(torch, expert.precision), []
    for start in range(0, len(views), batch):
        x = expert.preprocess(views[start : start + batch].to(device, non_blocking=True))
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            out = expert.encode_maps(x, depths)
        if basis is not None:
            out.maps = {d: basis(m, d) for d, m in out.maps.items()}
        parts.append(_each(out, _half))
    embed = None if parts[0].embed is None else torch.cat([p.embed for p in parts])
    out = FrozenMaps({d: torch.cat([p.maps[d] for p in parts]) for d in depths}, torch.cat([p.summary for p in parts]), embed)
    return out if keep_device else _each(out, Tensor.cpu)


def _half(x: Tensor) -> Tensor:
    if x.dtype == torch.int8:
        return x.contiguous()
    # some towers have a few activations beyond float16's range; infinities would poison every query
    return x.float().clamp(-_FP16_MAX, _FP16_MAX).half().contiguous()


def _each(out: FrozenMaps, change: Callable[[Tensor], Tensor]) -> FrozenMaps:
    return FrozenMaps({d: change(m) for d, m in out.maps.items()}, change(out.summary),
                      None if out.embed is None else change(out.embed))


def activation_bytes(expert: Expert, views: int = 64) -> float:
    """Bytes of a tower's activations for a group of views, roughly: a block holds at most ten times its tokens, in float32."""
    rows, columns = expert.grids[-1]
    return views * (expert.prefix + rows * columns) * max(expert.widths) * 4 * 10


def towers_side_by_side(experts: Sequence[Expert]) -> SideBySide:
    """On a processor groups of views go through towers side by side, as many as ``_SIDE_BYTES`` allow; on a GPU one by one."""
    pieces = max(1, int(_SIDE_BYTES // max(map(activation_bytes, experts))))
    return SideBySide(pieces, min(cpu_threads(e.mean.device) for e in experts))


class Filler:
    """Encodes what one expert has still to say, and leaves the copying and writing to a thread.

    A fault in that thread stops the caller at its next call; what is finished is kept when the ``with`` block ends. ``keys``: the
    address of each film; ``gaps``: bool ``(1 + depths, n)``, which films lack the summary, and the map of each depth.
    """

    def __init__(
        self, expert: Expert, depths: Sequence[int], store: FeatureStore, keys: list[bytes], gaps: np.ndarray,
        basis: MapBasis | None = None,
    ) -> None:
        self.expert, self.depths, self.keys, self.gaps, self.basis = expert, depths, keys, gaps, basis
        self.maps = {d: map_part(d, basis) for d in depths}
        self.parts, self.writer = np.array(["summary", *self.maps.values()]), ShardWriter(store)
        self.pool, self.pending = ThreadPoolExecutor(1, "medbridge-write"), deque[Future]()

    def add(self, group: list[Views]) -> None:
        """Encode the films of a group that lack something."""
        group = [(row, views[self.expert.view_kind]) for row, views in group if self.gaps[:, row].any()]
        if not group:
            return
        together = torch.cat([views for _, views in group])
        if self.expert.mean.device.type == "cuda":
            together = together.pin_memory()
        out = encode_views(self.expert, together, self.depths, keep_device=True, basis=self.basis)
        self.pending.append(self.pool.submit(self._write, [(row, len(views)) for row, views in group], out))
        while len(self.pending) > 2:  # results wait in memory; a slow disk holds the expert up
            self.pending.popleft().result()

    def _write(self, films: list[tuple[int, int]], out: FrozenMaps) -> None:
        out, start = _each(out, Tensor.cpu), 0
        parts = {"summary": out.summary, **{self.maps[d]: m for d, m in out.maps.items()}}
        for row, count in films:
            rows, names = slice(start, start + count), self.parts[self.gaps[:, row]].tolist()
            film = {name: parts[name][rows] for name in names}
            if "summary" in film and out.embed is not None:
                film["embed"] = out.embed[rows]
            self.writer.add(self.keys[row], film)
            start += count

    def __enter__(self) -> Filler:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            stack.callback(self.pool.shutdown)
            stack.callback(self.writer.flush)
            for future in self.pending:
                stack.callback(future.result)
