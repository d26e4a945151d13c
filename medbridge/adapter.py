"""Adapters: what was trained, saved and loaded.

An adapter may come from anybody. It holds settings and numbers, never code: JSON and safetensors. What is checked here keeps a
damaged or hostile file from more than an error: every value has its type, and no setting asks for more memory than the weights
beside it account for. The experts themselves are named, not stored.
"""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from medbridge.errors import AdapterError
from medbridge.experts import Expert, create_expert
from medbridge.experts.base import PRECISIONS
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.moe import Router
from medbridge.prompts import ClassPrompts
from medbridge.support.files import write_atomic
from medbridge.support.settings import Listed, Settings, as_settings, check_settings

FORMAT, OLD_FORMAT = "medbridge-adapter/2", "medbridge-adapter/1"  # the old one: full maps


class _SavedExpert(Settings):
    name: str
    fingerprint: str
    precision: Literal[PRECISIONS] = "float32"


class _SavedPrompts(Settings):
    positive: Listed[str]
    negative: Listed[str]


class AdapterFile(Settings):
    """The content of ``adapter.json``."""

    format: Literal[FORMAT]
    labels: Listed[str]
    experts: Listed[_SavedExpert]
    config: as_settings(AdapterConfig)
    sampler: as_settings(FocalSampler)
    prompts: dict[str, _SavedPrompts]
    card: dict[str, Any]

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if len(set(self.labels)) < len(self.labels) or set(self.prompts) != set(self.labels):
            raise ValueError("labels need distinct names, and positive and negative prompts each")
        return self


def save_adapter(model: MedBridge, folder: str | Path) -> Path:
    """Write ``adapter.safetensors`` (what was trained, the bases of compact maps, what training films are known by) and
    ``adapter.json``; returns the folder. AdapterError: the model routes by a memory of films, which an adapter does not hold.
    """
    if not isinstance(model.router, Router):
        raise AdapterError("a memory of films is not stored in an adapter; save the model that with_memory was given, and "
                           "build the memory again after loading")
    folder = Path(folder)
    experts = [{"name": e.name, "fingerprint": e.fingerprint(), "precision": e.precision} for e in model.experts]
    config = {"format": FORMAT, "labels": list(model.labels), "experts": experts, "config": asdict(model.config),
              "sampler": asdict(model.sampler), "prompts": {label: asdict(p) for label, p in model.prompts.items()},
              "card": model.card}
    # as bytes, since save_file makes a file that its owner alone may read
    tensors = to_bytes({name: p.detach().cpu().contiguous() for name, p in model.state().items()})
    write_atomic(folder / "adapter.safetensors", tensors)
    write_atomic(folder / "adapter.json", json.dumps(config, indent=2))
    return folder


def load_adapter(folder: str | Path, experts: Sequence[Expert | str] | None = None, precision: str | None = None) -> MedBridge:
    """Rebuild a saved model from the ``folder`` that :func:`save_adapter` wrote.

    ``experts``: those of its training; created by their names when not given. ``precision``: of the frozen towers, where it shall
    be another than that of training: scores differ by rounding. AdapterError: a file is missing or damaged, or the adapter was
    made for other experts, weights or precision. ExpertError: an expert that it names cannot be created.
    """
    folder = Path(folder)
    saved = read_adapter(folder)
    names = [e.name for e in saved.experts]
    wanted = [precision or e.precision for e in saved.experts]
    given = [e if isinstance(e, str) else e.name for e in experts or names]
    if given != names:
        raise AdapterError(f"{folder}: this adapter was made for the experts {', '.join(names)}, not for {', '.join(given)}; "
                           "pass those, in that order")
    built = [create_expert(e, precision=p) if isinstance(e, str) else e for e, p in zip(experts or names, wanted, strict=True)]
    for expert, entry, kind in zip(built, saved.experts, wanted, strict=True):
        if expert.precision != kind:
            raise AdapterError(
                f"{folder}: expert {expert.name!r} computes in {expert.precision}, and {kind} is asked for; set "
                f"expert.precision = {kind!r}, or load with precision={expert.precision!r}")
        if expert.fingerprint() != entry.fingerprint:
            raise AdapterError(
                f"{folder}: expert {expert.name!r} has other weights than those that this adapter was trained on "
                f"(sha256 {entry.fingerprint[:12]}...); use the same weights file, or train again")
    prompts = {label: ClassPrompts(p.positive, p.negative) for label, p in saved.prompts.items()}
    try:
        model = MedBridge(built, saved.labels, saved.config, saved.sampler, prompts)
    except (KeyError, TypeError, ValueError) as error:
        raise AdapterError(f"{folder / 'adapter.json'}: not an adapter of this version ({error}); train again") from error
    model.card = saved.card
    path = folder / "adapter.safetensors"
    with _explained(path):
        tensors = load_file(path)
    if not any(name.startswith("members.") for name in tensors):  # the old format: one member
        tensors = {f"members.0.{name}": value for name, value in tensors.items()}
    model.trained_films = tensors.get("trained_films")  # adapters of older versions do not hold them
    own = model.state()
    if {k: tuple(v.shape) for k, v in tensors.items()} != {k: tuple(v.shape) for k, v in own.items()}:
        odd = sorted(set(tensors) ^ set(own)) or [k for k in own if own[k].shape != tensors[k].shape]
        raise AdapterError(f"{path}: does not fit adapter.json beside it (first difference: {odd[0]}); copy both again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])
    return model.eval()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """AdapterError for weights that are missing or damaged."""
    try:
        yield
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; an adapter is adapter.json and adapter.safetensors together") from None
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: damaged ({error}); copy it again, or train again") from error


def read_adapter(folder: str | Path) -> AdapterFile:
    """The checked content of ``folder/adapter.json``; of ``adapter.safetensors`` beside it the header alone is read.
    AdapterError: a file is missing or damaged, or a value is not what :func:`save_adapter` writes."""
    path = Path(folder) / "adapter.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; give the folder that save_adapter or `medbridge adapt` wrote") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON
        raise AdapterError(f"{path}: not readable as JSON ({error}); copy it again, or train again") from error
    if isinstance(given, dict) and given.get("format") == OLD_FORMAT and isinstance(given.get("config"), dict):
        given |= {"format": FORMAT, "config": {**given["config"], "maps": "full"}}
    if isinstance(given, dict) and given.get("format") != FORMAT:
        raise AdapterError(f"{path}: format is {given.get('format')!r}, expected {FORMAT!r}; train again with this version")
    try:
        saved = check_settings(AdapterFile, given)
        _check_size(saved.config, path.with_name("adapter.safetensors"))
    except AdapterError:
        raise
    except ValueError as error:
        raise AdapterError(f"{path}: not an adapter of this version ({error}); copy it again, or train again") from error
    return saved


def _check_size(config: AdapterConfig, path: Path) -> None:
    """ValueError for a size in the settings that the weights cannot account for: building it would only fill the memory."""
    with _explained(path), safe_open(path, framework="pt") as file:
        held = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    size = {name: max(getattr(config, name), 1) for name in ("queries", "query_layers", "width", "heads", "rank")}
    size["width"] = size["width"] if config.query_kind == "cross" else 1
    size["rank"] = size["rank"] if config.query_kind == "lora" else 1
    for names in (("queries", "width"), ("query_layers", "width", "width"), ("query_layers", "rank"), ("heads",)):
        if math.prod(size[name] for name in names) > held:
            raise ValueError(f"{' x '.join(names)} is more than the {held:,} numbers of adapter.safetensors")
