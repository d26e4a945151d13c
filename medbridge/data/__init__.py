"""Benchmarks by name: each loader turns files as their owners distribute them into one :class:`Benchmark`."""

from __future__ import annotations

import difflib
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from medbridge.data.base import SPLITS, Benchmark, assign_splits, validate
from medbridge.errors import BenchmarkError

__all__ = ["SPLITS", "Benchmark", "assign_splits", "label_names", "list_benchmarks", "load_benchmark", "validate"]

# name -> (module, loader, options fixed by the name, what root holds; None where root may be left out). Imported
# when asked for, so that a loader's needs stay its own.
_LOADERS: dict[str, tuple[str, str, dict[str, Any], str | None]] = {
    "phantom": ("medbridge.data.phantom.benchmark", "load_phantom", {}, None),
    "phantom-A": ("medbridge.data.phantom.benchmark", "load_phantom", {"hospitals": "A"}, None),
    "phantom-B": ("medbridge.data.phantom.benchmark", "load_phantom", {"hospitals": "B"}, None),
    "phantom-C": ("medbridge.data.phantom.benchmark", "load_phantom", {"hospitals": "C"}, None),
    "folder": ("medbridge.data.folder", "load_folder", {}, "labels.csv and images/"),
    "nih": ("medbridge.data.nih", "load_nih", {}, "Data_Entry_2017_v2020.csv and images_001/ ... images_012/"),
    "chexpert": ("medbridge.data.chexpert", "load_chexpert", {}, "train.csv, valid.csv, train/ and valid/"),
    "chexpert-plus": ("medbridge.data.chexpert_plus", "load_chexpert_plus", {},
                      "df_chexpert_plus_240401.csv and its label files and image folders"),
    "mimic": ("medbridge.data.mimic", "load_mimic", {}, "mimic-cxr-2.0.0-*.csv.gz and files/"),
    "rsna": ("medbridge.data.rsna", "load_rsna", {}, "stage_2_train_labels.csv and stage_2_train_images/"),
    "covidx": ("medbridge.data.covidx", "load_covidx", {}, "train.txt, val.txt, test.txt, train/, val/ and test/"),
}


def list_benchmarks() -> list[str]:
    """The names that :func:`load_benchmark` knows."""
    return list(_LOADERS)


def label_names() -> dict[str, tuple[str, ...]]:
    """Benchmark -> its labels by its owner's names, ``LABELS`` of each loader's module; 'folder' has no names of its own."""
    modules = {name: entry[0] for name, entry in _LOADERS.items() if not entry[2] and name != "folder"}
    return {name: tuple(import_module(module).LABELS) for name, module in modules.items()}


def load_benchmark(name: str, root: str | Path | None = None, **options: Any) -> Benchmark:
    """Load a benchmark by name.

    Args:
        name: one of :func:`list_benchmarks`, in upper or lower case.
        root: the folder that holds it; the synthetic phantom may do without.
        options: passed to the loader, e.g. ``n=200, seed=0`` (phantom) or ``split_seed=0`` (folder).

    Raises:
        BenchmarkError: unknown name (with the nearest known one), no root where one is needed, or a fault in
        the files.
    """
    known = {entry.lower(): entry for entry in _LOADERS}
    if str(name).lower() not in known:
        near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {known[near[0]]!r}? " if near else ""
        raise BenchmarkError(f"unknown benchmark {name!r}: {hint}known names are {', '.join(_LOADERS)}")
    name = known[str(name).lower()]
    module, loader, fixed, holds = _LOADERS[name]
    clash = sorted(fixed.keys() & options.keys())
    if clash:
        raise BenchmarkError(
            f"benchmark {name!r} already sets {', '.join(clash)}; use 'phantom' to choose it yourself"
        )
    if holds and root is None:
        raise BenchmarkError(f"benchmark {name!r} needs root=: the folder that holds {holds}")
    benchmark = getattr(import_module(module), loader)(root, **fixed, **options)
    if name.startswith("phantom-"):  # one loader for three hospitals; a table that compares them must tell them apart
        return replace(benchmark, name=f"PhantomCXR-{name.removeprefix('phantom-')} (synthetic)")
    return benchmark
