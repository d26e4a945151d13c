"""Benchmarks by name: each loader turns files as their owners distribute them into one :class:`Benchmark`."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from medbridge.data.base import Benchmark
from medbridge.data.table import SPLITS, assign_splits, validate
from medbridge.errors import BenchmarkError
from medbridge.support.text import did_you_mean

__all__ = ["SPLITS", "Benchmark", "assign_splits", "known_name", "label_names", "list_benchmarks", "load_benchmark", "validate"]

# name -> module with load_<module>, and what root holds. Imported when asked for, so that a loader's needs stay its own.
_LOADERS = {
    **dict.fromkeys(("phantom", "phantom-A", "phantom-B", "phantom-C"), ("phantom.benchmark", "")),
    "folder": ("folder", "labels.csv and images/"),
    "nih": ("nih", "Data_Entry_2017_v2020.csv and images_001/ ... images_012/"),
    "chexpert": ("chexpert", "train.csv, valid.csv, train/ and valid/"),
    "chexpert-plus": ("chexpert_plus", "df_chexpert_plus_240401.csv and its label files and image folders"),
    "mimic": ("mimic", "mimic-cxr-2.0.0-*.csv.gz and files/"),
    "rsna": ("rsna", "stage_2_train_labels.csv and stage_2_train_images/"),
    "covidx": ("covidx", "train.txt, val.txt, test.txt, train/, val/ and test/"),
}


def list_benchmarks() -> list[str]:
    """The names that :func:`load_benchmark` knows."""
    return list(_LOADERS)


def known_name(name: str) -> str:
    """The benchmark's name in its own spelling, whatever the case. BenchmarkError, with the nearest name, for an unknown one."""
    own = {known.lower(): known for known in _LOADERS}.get(str(name).lower())
    if own is None:
        raise BenchmarkError(f"unknown benchmark {name!r}: {did_you_mean(name, _LOADERS)}known names are {', '.join(_LOADERS)}")
    return own


def label_names() -> dict[str, tuple[str, ...]]:
    """Benchmark -> its labels by its owner's names, ``LABELS`` of each loader's module; 'folder' has no names of its own."""
    return {name: tuple(import_module(f"medbridge.data.{module}").LABELS) for name, (module, _) in _LOADERS.items()
            if name != "folder" and not name.startswith("phantom-")}


def load_benchmark(name: str, root: str | Path | None = None, **options: Any) -> Benchmark:
    """Load a benchmark by name (:func:`list_benchmarks`, in upper or lower case); ``root`` is the folder that holds it.

    ``options`` go to the loader, e.g. ``n_films=200`` (phantom) or ``split_seed=0`` (folder). Published data sets take
    files='present' (the films that are on this disk) or 'all' (every row, without a look at the disk), and where they have no
    validation split ``val_share``, the share of the training patients that is drawn for it, and ``seed`` [ours]. BenchmarkError:
    unknown name (with the nearest known one), no root where one is needed, or a fault in the files.
    """
    name = known_name(name)
    module, holds = _LOADERS[name]
    if holds and root is None:
        raise BenchmarkError(f"benchmark {name!r} needs root=: the folder that holds {holds}")
    load = getattr(import_module(f"medbridge.data.{module}"), f"load_{module.partition('.')[0]}")
    if not name.startswith("phantom-"):
        return load(root, **options)
    if "hospitals" in options:
        raise BenchmarkError(f"benchmark {name!r} already sets hospitals; use 'phantom' to choose it yourself")
    # one loader for three hospitals; a table that compares them must tell them apart
    return replace(load(root, hospitals=name[-1], **options), name=f"PhantomCXR-{name[-1]} (synthetic)")
