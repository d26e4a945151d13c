"""Filling the cache: what each expert has still to say, said in groups of views, and written behind by a thread. [ours]"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch

from medbridge.experts import Expert, FrozenMaps
from medbridge.features.encode import Views, encode_views, to_cpu
from medbridge.features.shards import FeatureStore, ShardWriter

__all__ = ["Job", "WriteBehind", "map_part"]


def map_part(depth: int) -> str:
    """Name of the maps of one depth in a shard."""
    return f"map.{depth:03d}"


class Job:
    """What one expert has still to say: of which films which parts.

    Args:
        expert: who.
        depths: of its maps.
        keys: per film: its address.
        gaps: for the summary and then for each depth, bool ``(n,)``: which films lack it.
    """

    def __init__(self, expert: Expert, depths: list[int], keys: list[bytes], gaps: list[np.ndarray]) -> None:
        self.expert, self.depths, self.keys = expert, depths, keys
        self.parts = ["summary", *map(map_part, depths)]
        self.gaps = np.array(gaps)

    def encode(self, group: list[Views]) -> tuple[list[tuple[bytes, list[str], slice]], FrozenMaps] | None:
        """What the expert says of the films of a group that lack something; ``None`` where none does.

        Returns:
            Per film its key, the parts that are missing and its rows; and the output for all rows, on the expert's device.
        """
        kind = self.expert.view_kind
        group = [(row, views[kind]) for row, views in group if self.gaps[:, row].any()]
        if not group:
            return None
        together = torch.cat([views for _, views in group])
        if self.expert.mean.device.type == "cuda":
            together = together.pin_memory()
        films, start = [], 0
        for row, views in group:
            films.append((self.keys[row], self._missing(row), slice(start, start + len(views))))
            start += len(views)
        return films, encode_views(self.expert, together, self.depths, keep_device=True)

    def _missing(self, row: int) -> list[str]:
        names = [part for part, gap in zip(self.parts, self.gaps[:, row], strict=True) if gap]
        return [*names, "embed"] if "summary" in names else names


class WriteBehind:
    """One thread that copies results off the device and writes them; a fault there stops the caller at its next call."""

    def __init__(self, stores: Sequence[FeatureStore]) -> None:
        self.writers = [ShardWriter(store) for store in stores]
        self.pool = ThreadPoolExecutor(1, "medbridge-write")
        self.pending: deque[Future] = deque()

    def add(self, k: int, films: list[tuple[bytes, list[str], slice]], out: FrozenMaps) -> None:
        """What expert k said, as :meth:`Job.encode` gives it."""
        self.pending.append(self.pool.submit(self._write, self.writers[k], films, out))
        while len(self.pending) > 2 * len(self.writers):  # results wait in memory; a slow disk holds the experts up
            self.pending.popleft().result()

    @staticmethod
    def _write(writer: ShardWriter, films: list[tuple[bytes, list[str], slice]], out: FrozenMaps) -> None:
        out = to_cpu(out)
        parts = {"summary": out.summary, **{map_part(d): m for d, m in out.maps.items()}}
        if out.embed is not None:
            parts["embed"] = out.embed
        for key, names, rows in films:
            writer.add(key, {name: parts[name][rows] for name in names if name in parts})

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:  # what is finished is kept, whatever happened to the rest
            stack.callback(self.pool.shutdown)
            for writer in self.writers:
                stack.callback(writer.flush)
            for future in self.pending:
                stack.callback(future.result)
