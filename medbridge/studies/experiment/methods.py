"""The methods that an experiment compares, by name: MedBridge, and every baseline of :mod:`medbridge.baselines`. [ours]"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from medbridge.baselines import create_baseline, list_baselines
from medbridge.experts import Expert
from medbridge.train import TrainConfig

__all__ = ["BASELINES", "MEDBRIDGE", "BaselineKind", "method_name"]

MEDBRIDGE = "MedBridge"


@dataclass(frozen=True)
class BaselineKind:
    """How a baseline is built, and what its scores depend on: whatever they do not, shares one run.

    Attributes:
        build: (experts, labels, training settings) -> an object with ``fit(train, val)`` and ``predict_proba(films)``.
        learns: from the training films (zero-shot does not: one run serves every label budget).
        seeded: by more than the films that the seed draws.
    """

    build: Callable[[Sequence[Expert], Sequence[str], TrainConfig], Any]
    learns: bool = True
    seeded: bool = True


def _by_name(name: str) -> BaselineKind:
    def build(experts: Sequence[Expert], labels: Sequence[str], config: TrainConfig) -> Any:
        return create_baseline(name, experts, labels, config=config, progress=False)

    return BaselineKind(build, learns=name != "zero-shot", seeded=name not in ("zero-shot", "linear-probe", "k-nn"))


# tables call the linear probe what it calls itself
BASELINES: dict[str, BaselineKind] = {
    "linear probe" if name == "linear-probe" else name: _by_name(name) for name in list_baselines()}


def method_name(given: str) -> str:
    """The name of a method, whatever the case, blanks or hyphens. ValueError names the known ones."""
    known = {_plain(name): name for name in (*BASELINES, MEDBRIDGE)}
    if _plain(given) not in known:
        near = difflib.get_close_matches(_plain(given), known, n=1)
        hint = f"did you mean {known[near[0]]!r}? " if near else ""
        raise ValueError(f"{given!r} is unknown; {hint}known: {', '.join(known.values())}")
    return known[_plain(given)]


def _plain(name: str) -> str:
    return name.lower().replace("-", " ")
