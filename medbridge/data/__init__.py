"""Benchmarks by name: each loader turns files as their owners distribute them into one :class:`Benchmark`."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from medbridge.data.base import Benchmark
from medbridge.data.files import CARDS
from medbridge.data.table import SPLITS, assign_splits, validate
from medbridge.errors import BenchmarkError
from medbridge.support.text import did_you_mean

__all__ = ["SPLITS", "Benchmark", "assign_splits", "known_name", "label_names", "list_benchmarks", "load_benchmark", "validate"]
_MODULES = {"phantom": "phantom.benchmark", "chestmnist": "medmnist", "pneumoniamnist": "medmnist"}


def list_benchmarks() -> list[str]:
    """The names that :func:`load_benchmark` knows."""
    return list(CARDS)


def known_name(name: str) -> str:
    """The benchmark's name in its own spelling, whatever the case. BenchmarkError, with the nearest name, for an unknown one."""
    own = {known.lower(): known for known in CARDS}.get(str(name).lower())
    if own is None:
        raise BenchmarkError(f"unknown benchmark {name!r}: {did_you_mean(name, CARDS)}known names are {', '.join(CARDS)}")
    return own


def label_names() -> dict[str, tuple[str, ...]]:
    """Benchmark -> its labels by its owner's names; 'folder' has no names of its own."""
    return {name: tuple(card["labels"]) for name, card in CARDS.items() if "labels" in card and not name.startswith("phantom-")}


def load_benchmark(name: str, root: str | Path | None = None, **options: Any) -> Benchmark:
    """Load a benchmark by name (:func:`list_benchmarks`, in upper or lower case); ``root`` is the folder that holds it.

    ``options`` go to the loader, e.g. ``n_films=200`` (phantom) or ``split_seed=0`` (folder). Published data sets take
    files='present' (the films on this disk) or 'all' (every row), and where they have no validation split ``val_share``, the
    share of the training patients drawn for it, and ``seed``. BenchmarkError: unknown name, no root, a fault in the files.
    """
    name = known_name(name)
    if root is None and "holds" in CARDS[name]:
        raise BenchmarkError(f"benchmark {name!r} needs root=: the folder that holds {CARDS[name]['holds']}")
    own = name.partition("-")[0] if name.startswith("phantom") else name.replace("-", "_")
    module = import_module("medbridge.data." + _MODULES.get(own, own))
    load = getattr(module, f"load_{own}")
    if not name.startswith("phantom-"):
        return load(root, **options)
    if "hospitals" in options:
        raise BenchmarkError(f"benchmark {name!r} already sets hospitals; use 'phantom' to choose it yourself")
    # one loader for three hospitals; a table that compares them must tell them apart
    return replace(load(root, hospitals=name[-1], **options), name=f"PhantomCXR-{name[-1]} (synthetic)")
