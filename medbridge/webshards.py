"""Benchmarks beyond the local disk: films in WebDataset tar files, streamed once through the frozen experts. [ours]

The features stay, the films go: a part of the films is unpacked, encoded into the cache and deleted again, so that the disk
holds the features and a few films. A stream that breaks off starts again at the first shard, and films whose features are there
are not computed again. Reading and writing tar files is the webdataset library's (``pip install "medbridge[shards]"``).
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from types import ModuleType

import pandas as pd

from medbridge.benchmarks import Benchmark
from medbridge.cache import CachedFilms, compute_features
from medbridge.errors import BenchmarkError
from medbridge.experts import Expert
from medbridge.focal import FocalSampler
from medbridge.shards import Located

__all__ = ["features_of_shards", "write_shards"]


def _webdataset() -> ModuleType:
    try:
        import webdataset
    except ImportError as error:
        raise BenchmarkError('tar shards need the webdataset package: pip install "medbridge[shards]"') from error
    return webdataset


def write_shards(benchmark: Benchmark, folder: str | Path, films: int = 1000) -> list[Path]:
    """Pack a benchmark's film files and its table, ``films`` a tar file.

    Returns:
        The tar files, in order.

    Raises:
        BenchmarkError: webdataset is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _webdataset().ShardWriter(str(folder / "films-%06d.tar"), maxcount=films, verbose=0) as sink:
        for i, (path, row) in enumerate(zip(benchmark.paths(), benchmark.table.to_dict("records"), strict=True)):
            told = {"image": row["image"], "patient_id": row["patient_id"], "split": row["split"],
                    "labels": {c: None if pd.isna(row[c]) else float(row[c]) for c in benchmark.labels},
                    "benchmark": benchmark.name, "synthetic": benchmark.synthetic}
            # two members a film: its bytes, whatever their format, and its row
            sink.write({"__key__": f"{i:09d}", "film": path.read_bytes(), "json": json.dumps(told).encode()})
    return sorted(folder.glob("films-*.tar"))


def features_of_shards(
    shards: Sequence[str | Path], experts: Sequence[Expert], depths: Sequence[Sequence[int]], sampler: FocalSampler,
    training: bool = False, split: str | None = None, folder: str | Path | None = None, workers: int | None = None,
    progress: bool = True, part: int = 512,
) -> CachedFilms:
    """Frozen features of the films of tar files, ``part`` films on the disk at a time.

    Under ``accelerate launch`` every process reads all shards and encodes its share.

    Args:
        shards: files, or whatever addresses webdataset opens (``https:``, ``pipe:aws s3 cp ... -``).
        split: films of this split alone.
        experts, depths, sampler, training, folder, workers, progress: as in :func:`medbridge.cache.compute_features`.

    Returns:
        Features like those of a benchmark on disk; ``benchmark.read`` has no film to read any more.

    Raises:
        BenchmarkError: webdataset is not installed, a member lacks its film or row, shards of several benchmarks, or no film.
        ImageError: a film cannot be read.
    """
    found: list[CachedFilms] = []
    samples = _samples(shards, split)
    while group := list(itertools.islice(samples, part)):
        with tempfile.TemporaryDirectory(prefix="medbridge-films-") as place:
            films = _unpack(group, Path(place))
            if found and (films.labels, films.name) != (found[0].benchmark.labels, found[0].benchmark.name):
                raise BenchmarkError(
                    f"shards of {found[0].benchmark.name!r} and of {films.name!r} together; read one benchmark at a time")
            found.append(compute_features(
                films, experts, depths, sampler, training, folder, workers, progress, remember=False))
    if not found:
        raise BenchmarkError(f"{len(shards)} shards hold no film" + ("" if split is None else f" of split {split!r}"))
    first = found[0].benchmark
    table = pd.concat([f.benchmark.table for f in found], ignore_index=True)
    whole = Benchmark(first.name, Path("streamed"), first.labels, table, first.synthetic)
    keys, boxes, sizes, fixed = ([x for f in found for x in getattr(f, name)] for name in ("keys", "boxes", "sizes", "fixed"))
    located = [Located.join([f.located[k] for f in found]) for k in range(len(experts))]
    return CachedFilms(whole, keys, located, found[0].depths, boxes, sizes, fixed)


def _samples(shards: Sequence[str | Path], split: str | None) -> Iterator[dict]:
    webdataset = _webdataset()
    for sample in webdataset.WebDataset([str(s) for s in shards], shardshuffle=False, nodesplitter=lambda urls: urls):
        if not {"film", "json"} <= set(sample):
            raise BenchmarkError(f"{sample['__url__']}: {sample['__key__']} lacks its .film or .json member; see write_shards")
        row = json.loads(sample["json"])
        if split is None or row["split"] == split:
            yield {"bytes": sample["film"], **row}


def _unpack(group: Iterable[dict], place: Path) -> Benchmark:
    rows = []
    for sample in group:
        name = PurePosixPath(sample["image"])
        if name.is_absolute() or ".." in name.parts:  # a tar file is somebody else's; nothing is written outside
            raise BenchmarkError(f"film {str(name)!r} would be unpacked outside of its folder; pack it with write_shards")
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(sample["bytes"])
        rows.append({"image": str(name), "patient_id": sample["patient_id"], "split": sample["split"], **sample["labels"]})
    labels = tuple(sample["labels"])
    table = pd.DataFrame(rows)
    table[list(labels)] = table[list(labels)].astype(float)
    return Benchmark(sample["benchmark"], place, labels, table, sample["synthetic"])
