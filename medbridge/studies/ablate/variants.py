"""One thing at a time: the variants of a base, by factor. [ours]

A variant differs from the base in one factor alone. Two factors need care to be one. The **number of views** N is changed by the
overlap of the sliding windows, whose size stays; the **crop size** is changed together with the overlap, so that N stays (on
square films). With a single expert left, a ``top_k`` above 1 means nothing and is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medbridge.crossview import POOLS
from medbridge.experts import Expert
from medbridge.focal import FocalSampler, grid_boxes
from medbridge.losses import LOSSES
from medbridge.model import AdapterConfig
from medbridge.moe import ROUTERS
from medbridge.qencoder import KINDS
from medbridge.train import TrainConfig

__all__ = ["BASE", "FACTORS", "Base", "Variant", "plan"]

BASE = "default"


@dataclass(frozen=True)
class Base:
    """What the variants differ from: K experts, and the settings of model, views and training."""

    experts: Sequence[Expert]
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    sampler: FocalSampler = field(default_factory=FocalSampler)
    config: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Variant:
    """One row of the ablation.

    Attributes:
        factor: one of :data:`FACTORS`, or :data:`BASE`.
        name: what is different, unique within the factor.
        experts: those that are used.
        adapter, sampler, config: settings.
        probe: 'whole' or 'all': a linear probe of these views in the place of MedBridge.
    """

    factor: str
    name: str
    experts: tuple[Expert, ...]
    adapter: AdapterConfig
    sampler: FocalSampler
    config: TrainConfig
    probe: str | None = None

    @property
    def key(self) -> str:
        """Name of its files."""
        return re.sub(r"[^\w.-]+", "_", f"{self.factor}-{self.name}")


def _options(name: str, values: Callable[[Base], Sequence[Any]], part: str, text: str) -> Callable[[Base], dict[str, dict]]:
    """Variants that change one field of one of the settings, to each value that is not the base's."""
    def changes(base: Base) -> dict[str, dict]:
        own = getattr(getattr(base, part), name)
        return {text.format(value): {part: {name: value}} for value in values(base) if value != own}

    return changes


def _overlap(crop: float, side: int) -> float:
    """Overlap with which windows of this size stand evenly, ``side`` a row; below 0 where they would leave gaps."""
    return 1 - (1 - crop) / (crop * (side - 1))


def _side(sampler: FocalSampler) -> int:
    return round(len(grid_boxes(1000, 1000, sampler.crop, sampler.overlap)) ** 0.5)


def _views(base: Base) -> dict[str, dict]:
    if not base.sampler.local:
        return {"with local views": {"sampler": {"local": True}}}
    crop, side = base.sampler.crop, _side(base.sampler)
    found = {"whole film only (N=1)": {"sampler": {"local": False}}}
    for count in (side - 1, side + 1):
        if count > 1 and (overlap := _overlap(crop, count)) > -1e-9:
            found[f"N={1 + count**2}"] = {"sampler": {"overlap": max(overlap, 0.0)}}
    return found


def _crop(base: Base) -> dict[str, dict]:
    side = _side(base.sampler)
    if not base.sampler.local or side < 2:
        return {}
    return {f"crop={crop}": {"sampler": {"crop": crop, "overlap": _overlap(crop, side)}}
            for crop in (0.35, 0.5, 0.7) if crop != base.sampler.crop and _overlap(crop, side) > 0}


def _router(base: Base) -> dict[str, dict]:
    if len(base.experts) == 1:
        return {}
    found = {f"router={kind}": {"adapter": {"router": kind}} for kind in ROUTERS if kind != base.adapter.router}
    if base.adapter.router != "uniform":
        tops = [k for k in (*range(1, len(base.experts)), None) if k != (base.adapter.top_k or None)]
        found |= {"top_k=none" if k is None else f"top_k={k}": {"adapter": {"top_k": k}} for k in tops}
    return found


def _experts(base: Base) -> dict[str, dict]:
    return {} if len(base.experts) == 1 else {f"{e.name} alone": {"experts": (e,)} for e in base.experts}


def _probe(base: Base) -> dict[str, dict]:
    return {"linear probe, all views": {"probe": "all"}, "linear probe, whole film": {"probe": "whole"}}


FACTORS: Mapping[str, Callable[[Base], dict[str, dict]]] = {
    "views": _views,
    "crop": _crop,
    "queries": _options("queries", lambda b: (1, 4, 8, 16), "adapter", "Q={}"),
    "layers": _options(
        "query_layers", lambda b: tuple(n for n in (b.adapter.query_layers - 1, b.adapter.query_layers + 1) if n), "adapter",
        "T2={}"),
    "kind": _options("query_kind", lambda b: KINDS, "adapter", "{}"),
    "cross-view": _options("cross_view", lambda b: (False, True), "adapter", "attention={}"),
    "pool": _options("pool", lambda b: POOLS, "adapter", "{}"),
    "router": _router,
    "loss": _options("loss", lambda b: tuple(LOSSES), "config", "{}"),
    "experts": _experts,
    "probe": _probe,
}
"""Factor -> its variants, each a name and what it changes in the base."""


def plan(base: Base, only: Sequence[str] | None = None) -> list[Variant]:
    """The base first, then every variant of the factors ``only`` (default all), in the order of :data:`FACTORS`.

    Raises:
        ValueError: an unknown factor.
    """
    if unknown := sorted(set(only or ()) - set(FACTORS)):
        raise ValueError(f"unknown factor {', '.join(unknown)}; known: {', '.join(FACTORS)}")
    variants = [Variant(BASE, BASE, tuple(base.experts), base.adapter, base.sampler, base.config)]
    for factor, changes in FACTORS.items():
        if only and factor not in only:
            continue
        for name, change in changes(base).items():
            adapter, experts = replace(base.adapter, **change.get("adapter", {})), change.get("experts", tuple(base.experts))
            if len(experts) == 1:
                adapter = replace(adapter, top_k=None)
            variants.append(Variant(
                factor, name, experts, adapter, replace(base.sampler, **change.get("sampler", {})),
                replace(base.config, **change.get("config", {})), change.get("probe")))
    return variants
