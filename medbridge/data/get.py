"""``medbridge data get``: the open sets by their owners' links, the others by what to accept and the exact command.

Every step is done once: a file that has its name is whole, an archive is deleted when it is unpacked, and the next call goes on.
"""

import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import pandas as pd
import yaml
from tqdm import tqdm

from medbridge.data.files import draw_val
from medbridge.data.medmnist import SIZES, missing_arrays
from medbridge.errors import BenchmarkError
from medbridge.support.download import download
from medbridge.support.files import try_folder, write_atomic
from medbridge.support.text import did_you_mean

SOURCES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("downloads.yaml").read_text(encoding="utf-8"))
_KERMANY = re.compile(r"(NORMAL|BACTERIA|VIRUS)-(\d+)-\d+\.jpe?g")  # finding, patient, film


def get(name: str, out: str | Path, size: int | None = None, parts: Sequence[int] = (), progress: bool = True) -> Path:
    """Fetch a set into the folder ``out`` in the layout that its loader reads; returns the folder.

    ``size``: pixels of a MedMNIST set, by default 224; ``parts``: which of NIH's twelve archives, by default all. BenchmarkError:
    an unknown name or argument, what the owner wants accepted first (with the command), a download or an archive that is not
    whole, no room.
    """
    name, out = str(name).lower(), Path(out)
    if name not in SOURCES:
        raise BenchmarkError(f"data get {name}: {did_you_mean(name, SOURCES)}known are {', '.join(SOURCES)}")
    source, files = SOURCES[name], _chosen(name, size, parts)
    if "accept" in source and not ("kaggle" in source and shutil.which("kaggle")):
        raise BenchmarkError(_steps(name, out))
    try:
        try_folder(out)
        lacking = {file: entry for file, entry in files.items() if not _is_done(out, file, entry)}
        sizes = [entry.get("size", 0) for entry in lacking.values()]
        needed, free = sum(sizes) + max(sizes, default=0), shutil.disk_usage(out).free  # the last archive, and its films
        if free < needed:
            raise BenchmarkError(f"{out}: {needed / 1e9:.0f} GB are needed, {free / 1e9:.0f} GB are free; make room, or get a "
                                 f"part (--part 1)")
        for file, entry in lacking.items():
            if not (out / file).is_file():
                url = entry["url"].format(name=file, id=entry.get("id"))
                download(url, out / file, entry.get("checksum", ""), entry.get("size"), page=source["page"], progress=progress)
            if "into" in entry:
                _unpack(out / file, out / entry["into"], entry.get("strip", ""), progress)
        if "kaggle" in source:
            _from_kaggle(name, out, progress)
        if name == "kermany":
            _write_labels(out)
    except OSError as error:
        own = f"{error.filename}: {error.strerror}; make room, or name a folder that can be written (--out)"
        raise BenchmarkError(own if error.filename else str(error)) from error
    return out


def _chosen(name: str, size: int | None, parts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """The files that are asked for."""
    files, archives = SOURCES[name].get("files", {}), range(1, 13)
    if (size is not None and not name.endswith("mnist")) or (parts and name != "nih"):
        raise BenchmarkError(f"data get {name}: --size is for chestmnist and pneumoniamnist, --part for nih")
    if name.endswith("mnist"):
        if str(size or 224) not in SIZES:
            raise BenchmarkError(f"data get {name}: size={size}; choose from {', '.join(SIZES)}")
        return {file: entry for file, entry in files.items() if file == f"{name}{SIZES[str(size or 224)]}.npz"}
    if unknown := set(parts) - set(archives):
        raise BenchmarkError(f"data get {name}: no part {min(unknown)}; the archives are 1 to 12")
    left = {f"images_{i:03d}" for i in archives if parts and i not in parts}
    return {file: entry for file, entry in files.items() if entry.get("into") not in left}


def _is_done(out: Path, file: str, entry: dict[str, Any]) -> bool:
    """A file or what MedMNIST's loader unpacks from it; or the films of an archive, which is deleted last, with its mark."""
    if "into" in entry:
        return (out / entry["into"]).is_dir() and not (out / file).exists() and not _mark(out / file).exists()
    return (out / file).is_file() or not missing_arrays(out / file.partition(".")[0])


def _mark(archive: Path) -> Path:
    """A file that is there as long as not everything is unpacked."""
    return archive.with_name(f"{archive.name}.unpacking")


def _steps(name: str, out: Path) -> str:
    source = SOURCES[name]
    command = source.get("command", f'kaggle {source.get("kaggle")} -p "{{out}}"').format(out=out)
    then = "" if "kaggle" not in source else ("\n     (pip install kaggle; its token: https://www.kaggle.com/settings), or this "
                                              "command again, which calls it")
    return (f"{name}: its owner wants something accepted, which nobody can do for you:\n  1. {source['page']}: accept "
            f"{source['accept']}\n  2. {command}{then}\n  3. unpack what came, then: medbridge data check {name} {out}")


def _from_kaggle(name: str, out: Path, progress: bool) -> None:
    """By Kaggle's own command line, which goes on where it stopped and shows its own progress."""
    command = ["kaggle", *SOURCES[name]["kaggle"].split(), "-p", str(out)]
    archive = out / f"{command[-3].rpartition('/')[2]}.zip"
    if ((out / "train").is_dir() or (out / "stage_2_train_images").is_dir()) and not _mark(archive).exists():
        return
    if (status := subprocess.run(command).returncode) or not archive.is_file():
        raise BenchmarkError(f"`{' '.join(command)}` ended with status {status} and left no {archive.name}; what it said is "
                             f"above\n{_steps(name, out)}")
    _unpack(archive, out, "", progress)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file; links, devices and folders are passed over."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    with packed.open(info) as data:
                        yield info.filename, data
    else:
        with tarfile.open(archive) as packed:
            for member in packed:
                if member.isfile():
                    yield member.name, packed.extractfile(member)
            while packed.fileobj.read(2**20):  # to its end, where the checksum is
                pass


def _unpack(archive: Path, folder: Path, strip: str, progress: bool) -> None:
    """Each film whole or not at all; then the archive is deleted."""
    write_atomic(_mark(archive), "")
    try:
        for name, data in tqdm(_members(archive), f"unpacking {archive.name}", unit="file", disable=not progress):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name or PureWindowsPath(name).drive:
                raise BenchmarkError(f"{archive}: holds {name!r}, which leaves its folder; delete it, and tell its owner")
            if path.name.startswith(".") or "__MACOSX" in path.parts:  # what a Mac leaves
                continue
            path = path.relative_to(strip) if path.is_relative_to(strip) else path
            write_atomic(folder / path, data.read())
    except Exception as error:  # of corrupt archives, anything at all
        if isinstance(error, BenchmarkError) or getattr(error, "filename", None):  # the latter: of what is written
            raise
        fault = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchmarkError(f"{archive}: cannot be unpacked ({fault}); delete it, and the same command fetches it "
                             f"again") from error
    archive.unlink()
    _mark(archive).unlink()


def _write_labels(out: Path) -> None:
    """labels.csv of the Kermany set, for the loader ``folder``: the official test films, of the other patients a tenth as val. A
    film outside test whose patient is in test too is left out."""
    rows = []
    for path in sorted((out / "images").rglob("*.jp*g")):
        found = _KERMANY.fullmatch(path.name)
        if not found:
            raise BenchmarkError(f"{path}: not named FINDING-PATIENT-NUMBER.jpeg as in version 2 of the set; delete "
                                 f"{out / 'images'}, and fetch it again")
        kind, image = found[1], path.relative_to(out / "images").as_posix()
        rows.append((image, found[2], image.partition("/")[0], kind != "NORMAL", kind == "BACTERIA", kind == "VIRUS"))
    table = pd.DataFrame(rows, columns=["image", "patient_id", "split", "Pneumonia", "Bacterial Pneumonia", "Viral Pneumonia"])
    tested = table["patient_id"].isin(table.loc[table["split"] == "test", "patient_id"])
    table = draw_val(table[(table["split"] == "test") | ~tested], 0.1, seed=0).astype(dict.fromkeys(table.columns[3:], int))
    write_atomic(out / "labels.csv", table.to_csv(index=False, lineterminator="\n"))
