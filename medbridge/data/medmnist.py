"""ChestMNIST and PneumoniaMNIST (Yang et al., MedMNIST v2, Scientific Data 2023), as MedMNIST distributes them on Zenodo.

One file holds all films of a size: ``chestmnist_224.npz`` (also _128, _64, and without a number 28 pixels). Its arrays are
compressed, which no program can map; they are unpacked once into a folder of the file's name beside it (``chestmnist_224/``,
5.6 GB), and from there films are mapped, not loaded. Then the .npz may be deleted.

MedMNIST names no patients, so every film counts as a patient of its own. In NIH ChestX-ray14 a patient has 3.6 films in the mean:
intervals on ChestMNIST are resampled over films and come out too narrow, and a label budget draws films. Whether the official
split keeps patients apart cannot be seen in these files.
"""

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS, Distribution
from medbridge.data.table import SPLITS, check_choice
from medbridge.errors import BenchmarkError
from medbridge.support.files import write_atomic

SIZES = {"224": "_224", "128": "_128", "64": "_64", "28": ""}  # pixels -> how the file's name ends
_ARRAYS = [f"{split}_{kind}.npy" for split in SPLITS for kind in ("images", "labels")]
_BLOCK = 2**22  # bytes


def load_chestmnist(root: str | Path, size: int | None = None) -> Benchmark:
    """The films of NIH ChestX-ray14 with its 14 labels; ``size`` in pixels is 224, 128, 64 or 28, by default the largest there.

    The split is MedMNIST's (not that of NIH), ``patient_id`` the film itself. BenchmarkError: no such file, a damaged one, arrays
    that are not as MedMNIST writes them, or no room to unpack.
    """
    return _load("chestmnist", root, size)


def load_pneumoniamnist(root: str | Path, size: int | None = None) -> Benchmark:
    """The films of children by Kermany et al. with the label Pneumonia; otherwise as :func:`load_chestmnist`."""
    return _load("pneumoniamnist", root, size)


def _load(name: str, root: str | Path, size: int | None) -> Benchmark:
    source = Distribution(name, root, **CARDS[name])
    if size is not None:
        check_choice("size", str(size), SIZES)
    wanted = [source.root / f"{name}{end}" for side, end in SIZES.items() if size is None or str(size) == side]
    folder = next((f for f in wanted if f.with_suffix(".npz").is_file() or missing_arrays(f) == []), None)
    if folder is None:
        files = " or ".join(f"{f.name}.npz" for f in wanted)
        raise BenchmarkError(f"{source.root}: holds no {files}; get it with `medbridge data get {name} --out {source.root}"
                             f"{'' if size is None else f' --size {size}'}`, or put it there")
    if missing := missing_arrays(folder):
        _unpack(folder, missing)
    source.where = folder
    table = pd.concat([_read(source, folder, split) for split in SPLITS], ignore_index=True)
    return source.benchmark(table, files="all")  # none can be missing


def missing_arrays(folder: Path) -> list[str]:
    """Which of the six arrays are not (yet) in the folder that they are unpacked into."""
    return [name for name in _ARRAYS if not (folder / name).is_file()]


def _unpack(folder: Path, names: list[str]) -> None:
    """Arrays of the .npz into the folder of its name, each whole or not at all."""
    path, room = folder.with_suffix(".npz"), ""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(archive.getinfo(name).file_size for name in names)
            room = f"; it takes {size / 1e9:.2g} GB on a disk that can be written"
            with tqdm(desc=f"unpacking {path.name}", total=size, unit="B", unit_scale=True, leave=False, disable=None) as bar:
                for name in names:
                    write_atomic(folder / name, partial(_copy, archive, name, bar))
    except Exception as error:  # zipfile raises anything at all on corrupt bytes
        raise BenchmarkError(f"{path}: cannot be unpacked into {folder.name}/ ({str(error) or type(error).__name__}){room}; if "
                             f"it is damaged, delete it and download it again") from error


def _copy(archive: zipfile.ZipFile, name: str, bar: tqdm, target: Path) -> None:
    with archive.open(name) as packed, open(target, "wb") as out:
        while block := packed.read(_BLOCK):
            bar.update(out.write(block))


def _read(source: Distribution, folder: Path, split: str) -> pd.DataFrame:
    """The rows of one split; of its films only the header is read."""
    try:
        films, labels = (np.load(folder / f"{split}_{kind}.npy", mmap_mode="r") for kind in ("images", "labels"))
    except (ValueError, OSError, EOFError) as error:
        raise BenchmarkError(f"{folder}: {split} cannot be read ({error}); delete the folder, and it is unpacked anew") from error
    side = int(folder.name.rpartition("_")[2]) if "_" in folder.name else 28
    if (films.dtype != np.uint8 or films.shape[1:] != (side, side) or labels.shape != (len(films), len(source.labels))
            or not np.isin(labels, (0, 1)).all()):
        raise BenchmarkError(f"{folder}: {split}_images {films.shape} of {films.dtype} and {split}_labels {labels.shape}; this "
                             f"loader reads {source.title}: (n, {side}, {side}) of uint8, (n, {len(source.labels)}) of 0 and 1")
    films_of = f"{folder.name}/{split}_images.npy"
    return pd.DataFrame({"image": [f"{films_of}/{i}" for i in range(len(films))],
                         "patient_id": [f"{split}-{i}" for i in range(len(films))], "split": split,
                         **dict(zip(source.labels, np.array(labels, dtype=np.float64).T, strict=True))})
