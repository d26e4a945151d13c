"""Shards: the frozen features of many films in one file that is written once, memory-mapped and checked.

A shard is a safetensors file: ``keys`` (one a film), ``starts`` (first row of each film), and for each *part* (``map.004`` of
depth 4, ``summary``, ``embed``) the views of all its films as rows, float16. A training step maps the file and copies the rows
that it needs; the file is closed again at once, so that memory does not grow with the films that were read.

What is served is whole: a shard is written under a temporary name, synced to the disk and renamed; its name ends in its CRC-32,
which is compared before the shard is first used, and again where its size or time of change is no longer what it was. A shard
that differs is deleted, and its films are computed again. Any number of processes may fill one folder: at worst, work is done
twice.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from medbridge.errors import CacheError
from medbridge.support.files import write_atomic

KEY_BYTES = 20
SHARD_BYTES = 128 * 2**20
SHARD_SECONDS = 30.0
_TRUSTED = "verified.txt"


@dataclass
class FeatureIndex:
    """Where the features of n films are.

    Attributes:
        shards: files.
        at: part -> int64 ``(n, 3)``: index of the shard (-1: nowhere), first row, row after the last.
    """

    shards: list[Path]
    at: dict[str, np.ndarray]

    def has(self, part: str) -> np.ndarray:
        """bool ``(n,)``: which films have this part."""
        return self.at[part][:, 0] >= 0

    def file(self, part: str, i: int) -> Path:
        """The shard that holds a part of film i."""
        return self.shards[self.at[part][i, 0]]

    def read(self, part: str, i: int, rows: int | None = None) -> Tensor:
        """A part of film i, its first ``rows`` views or all: float16 ``(V, ...)``, mapped and not yet read. CacheError: it is not
        there, or was deleted meanwhile."""
        _, start, stop = self.at[part][i]
        if not self.has(part)[i]:
            raise CacheError(f"film {i} has no {part!r} in this cache; FeatureCache.films adds it")
        path = self.file(part, i)
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_slice(part)[start : stop if rows is None else min(stop, start + rows)]
        except (FileNotFoundError, SafetensorError) as error:
            raise CacheError(f"{path}: gone or changed since it was opened ({error}); run the same call again") from None


class FeatureStore:
    """The shards of one expert, in one folder."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def shards(self) -> list[Path]:
        """Its files, by name, sound or not."""
        return sorted(self.folder.glob("[!.]*.safetensors"))  # a dot: being written

    def unfinished(self) -> list[Path]:
        """What writers left that were killed, or are still at work on."""
        return sorted([*self.folder.glob(".*.part.safetensors"), *self.folder.glob("*.part")])

    def find(self, keys: Sequence[bytes], parts: Iterable[str]) -> FeatureIndex:
        """Where the parts of these films are. Shards that fail their check are deleted and hold nothing."""
        shards = self.sound()
        index = FeatureIndex(shards, {part: np.full((len(keys), 3), (-1, 0, 0), dtype=np.int64) for part in parts})
        rows = {key: i for i, key in enumerate(keys)}
        twins = len(rows) < len(keys)  # the same film listed twice
        for s, path in enumerate(shards):
            try:
                with safe_open(path, framework="pt") as file:
                    held = file.get_tensor("keys").numpy().tobytes()
                    starts = file.get_tensor("starts").numpy()
                    here = [index.at[p] for p in file.keys() if p in index.at]  # noqa: SIM118
            except (FileNotFoundError, SafetensorError):  # another process cleans
                continue
            for n in range(len(starts) - 1):
                i = rows.get(held[n * KEY_BYTES : (n + 1) * KEY_BYTES])
                if i is not None:
                    for at in here:
                        if at[i, 0] < 0:
                            at[i] = s, starts[n], starts[n + 1]
        if twins:
            first = np.array([rows[key] for key in keys])
            index.at = {part: at[first] for part, at in index.at.items()}
        return index

    def sound(self) -> list[Path]:
        """The shards that pass their check."""
        shards, trusted = self.shards(), self._trusted()
        doubted = [p for p in shards if _identity(p) not in trusted]
        if not doubted:
            return shards
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            good = dict(zip(doubted, pool.map(is_sound, doubted), strict=True))
        for path, fine in good.items():
            if fine:
                self.trust(path)
            else:
                path.unlink(missing_ok=True)
        return [p for p in shards if good.get(p, True)]

    def trust(self, path: Path) -> None:
        """Remember that this file passed its check as it is now; one short line, so that processes may append at once."""
        with suppress(OSError), open(self.folder / _TRUSTED, "a", encoding="utf-8") as file:
            file.write(_identity(path) + "\n")

    def _trusted(self) -> set[str]:
        with suppress(FileNotFoundError):
            return set((self.folder / _TRUSTED).read_text(encoding="utf-8", errors="replace").splitlines())
        return set()


class ShardWriter:
    """Collects the films of one expert and writes a shard when it is large or old enough.

    Films are lost by a kill for at most ``SHARD_SECONDS``; :meth:`flush` writes what is left.
    """

    def __init__(self, store: FeatureStore, least_bytes: int = SHARD_BYTES, seconds: float = SHARD_SECONDS) -> None:
        self.store, self.least_bytes, self.seconds = store, least_bytes, seconds
        store.folder.mkdir(parents=True, exist_ok=True)
        self._films: dict[tuple[str, ...], list[tuple[bytes, dict[str, Tensor]]]] = {}
        self._bytes, self._since = 0, time.monotonic()

    def add(self, key: bytes, parts: dict[str, Tensor]) -> None:
        """One film: part -> its views as rows ``(V, ...)``."""
        if not self._films:
            self._since = time.monotonic()
        self._films.setdefault(tuple(sorted(parts)), []).append((key, parts))
        self._bytes += sum(t.nbytes for t in parts.values())
        if self._bytes >= self.least_bytes or time.monotonic() - self._since >= self.seconds:
            self.flush()

    def flush(self) -> None:
        """Write what was collected: one shard for each set of parts."""
        films, self._films, self._bytes = self._films, {}, 0
        for names, group in films.items():
            self._write(names, group)

    def _write(self, names: tuple[str, ...], group: list[tuple[bytes, dict[str, Tensor]]]) -> None:
        keys = b"".join(key for key, _ in group)
        views = [len(parts[names[0]]) for _, parts in group]
        data = save({
            "keys": torch.frombuffer(bytearray(keys), dtype=torch.uint8).view(-1, KEY_BYTES),
            "starts": torch.tensor(np.concatenate([[0], np.cumsum(views)]), dtype=torch.int64),
            **{name: torch.cat([parts[name] for _, parts in group]).contiguous() for name in names}})
        what = hashlib.sha256(keys + "\0".join(names).encode()).hexdigest()[:24]
        path = self.store.folder / f"{what}-{zlib.crc32(data):08x}.safetensors"
        write_atomic(path, data)
        self.store.trust(path)


def is_sound(path: Path) -> bool:
    """Whether a shard's bytes still have the checksum in its name."""
    crc = 0
    try:
        with open(path, "rb") as file:
            while block := file.read(2**22):
                crc = zlib.crc32(block, crc)
    except OSError:
        return False
    return path.stem.rpartition("-")[2] == f"{crc:08x}"


def _identity(path: Path) -> str:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ""
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"
