"""What MedBridge is compared with, all behind ``fit(train, val)`` and ``predict_proba(films)``, by name.

``create_baseline("coop", experts, labels)``; the interface, and what all methods share, is in :mod:`medbridge.baselines.base`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from medbridge.baselines.base import TRIES, Baseline, TrainedBaseline
from medbridge.baselines.clip_adapter import CLIPAdapter
from medbridge.baselines.cocoop import CoCoOp
from medbridge.baselines.coop import CoOp
from medbridge.baselines.densenet import DenseNet
from medbridge.baselines.fine_tune import FineTune
from medbridge.baselines.knn import KNN
from medbridge.baselines.linear_probe import LinearProbe
from medbridge.baselines.lora import LoRA
from medbridge.baselines.maple import MaPLe
from medbridge.baselines.mvfa import MVFA
from medbridge.baselines.tip_adapter import TipAdapter, TipAdapterF
from medbridge.baselines.vpt import VPT
from medbridge.baselines.zero_shot import ZeroShot
from medbridge.experts import Expert

__all__ = [
    "MVFA", "TRIES", "VPT", "Baseline", "CLIPAdapter", "CoCoOp", "CoOp", "DenseNet", "FineTune", "KNN", "LinearProbe", "LoRA",
    "MaPLe", "TipAdapter", "TipAdapterF", "TrainedBaseline", "ZeroShot", "create_baseline", "list_baselines",
]


def _on_features(cls: type[Baseline]) -> Callable[..., Baseline]:
    """Methods that read the cached summaries alone: they need neither experts nor labels, and have no training loop."""
    def build(
        experts: Sequence[Expert], labels: Sequence[str], config: Any = None, progress: bool = True, prompts: Any = None,
        tries: int = TRIES, **options: Any,
    ) -> Baseline:
        return cls(tries=tries, **options)

    return build


def _zero_shot(
    experts: Sequence[Expert], labels: Sequence[str], config: Any = None, progress: bool = True, tries: int = TRIES,
    **options: Any,
) -> Baseline:
    return ZeroShot(experts, labels, **options)


_BASELINES: dict[str, Callable[..., Baseline]] = {
    "zero-shot": _zero_shot,
    "linear-probe": _on_features(LinearProbe),
    "k-nn": _on_features(KNN),
    "coop": CoOp,
    "cocoop": CoCoOp,
    "clip-adapter": CLIPAdapter,
    "tip-adapter": TipAdapter,
    "tip-adapter-f": TipAdapterF,
    "vpt": VPT,
    "maple": MaPLe,
    "lora": LoRA,
    "mvfa": MVFA,
    "fine-tune": FineTune,
    "densenet121": DenseNet,
}


def list_baselines() -> list[str]:
    """Names that :func:`create_baseline` takes: frozen features first, then what changes the tower."""
    return list(_BASELINES)


def create_baseline(name: str, experts: Sequence[Expert], labels: Sequence[str], **options: Any) -> Baseline:
    """A baseline by name.

    Args:
        name: one of :func:`list_baselines`.
        experts: K experts, the same as in the cached features. labels: C labels.
        options: ``views``, ``prompts``, ``config``, ``tries``, ``progress``, which every name takes (and leaves aside where they
            mean nothing to it), and what the class of the method adds.

    Raises:
        ValueError: an unknown name; the nearest known ones are named.
        ExpertError: no expert that the method can use.
    """
    if name not in _BASELINES:
        close = difflib.get_close_matches(name.lower().replace(" ", "-"), _BASELINES, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown baseline {name!r}; {hint}Known: {', '.join(_BASELINES)}")
    return _BASELINES[name](experts, labels, **options)
