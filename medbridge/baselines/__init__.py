"""Every method by name, MedBridge and what it is compared with: ``create_method("CoOp", experts, labels)``."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from medbridge.baselines.clip_adapter import CLIPAdapter
from medbridge.baselines.cocoop import CoCoOp
from medbridge.baselines.coop import CoOp
from medbridge.baselines.densenet import DenseNet
from medbridge.baselines.fine_tune import FineTune
from medbridge.baselines.knn import KNN
from medbridge.baselines.linear_probe import LinearProbe
from medbridge.baselines.lora import LoRA
from medbridge.baselines.maple import MaPLe
from medbridge.baselines.method import TRIES, MedBridgeMethod, Method
from medbridge.baselines.mvfa import MVFA
from medbridge.baselines.tip_adapter import TipAdapter, TipAdapterF
from medbridge.baselines.vpt import VPT
from medbridge.baselines.zero_shot import ZeroShot
from medbridge.experts import Expert
from medbridge.support.text import did_you_mean

__all__ = ["MVFA", "TRIES", "DenseNet", "LinearProbe", "ZeroShot", "create_method", "list_methods", "method_class"]

_METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (
    ZeroShot, LinearProbe, KNN, CoOp, CoCoOp, CLIPAdapter, TipAdapter, TipAdapterF, VPT, MaPLe, LoRA, MVFA, FineTune, DenseNet,
    MedBridgeMethod)}


def list_methods() -> list[str]:
    """Names of all methods: frozen features first, then what changes the tower, MedBridge last."""
    return list(_METHODS)


def method_class(name: str) -> type[Method]:
    """The class of a method, whatever the case, blanks or hyphens of its name; ValueError for an unknown one."""
    letters = partial(re.sub, r"[\W_]", "")
    known = {letters(own).lower(): cls for own, cls in _METHODS.items()} | {"mvfa": MVFA, "finetune": FineTune}
    if letters(name).lower() not in known:
        raise ValueError(f"unknown method {name!r}; {did_you_mean(name, _METHODS)}known: {', '.join(_METHODS)}")
    return known[letters(name).lower()]


def create_method(name: str, experts: Sequence[Expert], labels: Sequence[str], **options: Any) -> Method:
    """One of :func:`list_methods`; arguments as :class:`medbridge.baselines.base.Baseline` (``tries``: default :data:`TRIES`) and
    what the method's class adds. ValueError: an unknown name. ExpertError: no expert that the method can use."""
    return method_class(name)(experts, labels, **{"tries": TRIES, **options})
