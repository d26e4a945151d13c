"""``adapter.json``: read and checked before anything is built from it. [ours]

An adapter may come from anybody. It holds settings and numbers, never code: JSON and safetensors. What is checked here keeps a
damaged or hostile file from more than an error: every value has its type, and no setting asks for more memory than the
weights beside it account for.
"""

from __future__ import annotations

import json
import math
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medbridge.errors import AdapterError
from medbridge.experts.base import PRECISIONS

__all__ = ["FORMAT", "read_adapter_json"]

FORMAT = "medbridge-adapter/1"
_PARTS = {"labels": list, "experts": list, "config": dict, "sampler": dict, "prompts": dict, "card": dict}


def read_adapter_json(folder: Path, config: type, sampler: type) -> dict[str, Any]:
    """The content of ``folder/adapter.json``.

    Args:
        folder: also holds ``adapter.safetensors``, of which the header alone is read.
        config, sampler: the dataclasses that the parts of these names are made for.

    Raises:
        AdapterError: a file is missing or damaged, or a value is not what :meth:`medbridge.MedBridge.save` writes.
    """
    path = folder / "adapter.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; give the folder that MedBridge.save or `medbridge adapt` wrote") from None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no JSON
        raise AdapterError(f"{path}: not readable as JSON ({error}); copy it again, or train again") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        found = saved.get("format") if isinstance(saved, dict) else type(saved).__name__
        raise AdapterError(f"{path}: format is {found!r}, expected {FORMAT!r}; train again with this version")
    missing = set(_PARTS) - set(saved)
    if missing:
        raise AdapterError(f"{path}: lacks {', '.join(sorted(missing))}; copy it again, or train again")
    fault = _fault(saved, config, sampler)
    if fault is None:
        fault = _too_large(saved["config"], folder / "adapter.safetensors")
    if fault is not None:
        raise AdapterError(f"{path}: not an adapter of this version ({fault}); copy it again, or train again")
    return saved


def _fault(saved: dict[str, Any], config: type, sampler: type) -> str | None:
    for part, kind in _PARTS.items():
        if not isinstance(saved[part], kind):
            return f"{part} is no {kind.__name__}"
    labels = saved["labels"]
    if not labels or not _texts(labels) or len(set(labels)) < len(labels):
        return "labels are no distinct names"
    if not saved["experts"] or not all(
            isinstance(e, dict) and _texts([e.get("name"), e.get("fingerprint")]) for e in saved["experts"]):
        return "experts need a name and a fingerprint each"
    if odd := [e["precision"] for e in saved["experts"] if e.get("precision", "float32") not in PRECISIONS]:
        return f"an expert has the precision {odd[0]!r}"
    if set(saved["prompts"]) != set(labels) or not all(
            isinstance(p, dict) and set(p) == {"positive", "negative"} and all(isinstance(t, list) and t and _texts(t)
                                                                              for t in p.values())
            for p in saved["prompts"].values()):
        return "prompts need positive and negative sentences for each label"
    return _settings_fault("config", saved["config"], config) or _settings_fault("sampler", saved["sampler"], sampler)


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _settings_fault(part: str, values: dict[str, Any], cls: type) -> str | None:
    hints = typing.get_type_hints(cls)
    unknown = set(values) - {f.name for f in fields(cls)}
    if unknown:
        return f"{part} has an unknown {min(unknown)!r}"
    for name, value in values.items():
        kinds = typing.get_args(hints[name]) if isinstance(hints[name], types.UnionType) else (hints[name],)
        plain = float if isinstance(value, int) and not isinstance(value, bool) and float in kinds else type(value)
        if plain not in kinds or (isinstance(value, float) and not math.isfinite(value)):
            return f"{part}: {name} is {value!r}"
    return None


def _too_large(config: dict[str, Any], path: Path) -> str | None:
    """A size in the settings that the weights cannot account for: building it would only fill the memory."""
    try:
        with safe_open(path, framework="pt") as file:
            held = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except FileNotFoundError:
        raise AdapterError(f"{path}: missing; an adapter is adapter.json and adapter.safetensors together") from None
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: damaged ({error}); copy it again, or train again") from error
    size = {name: max(config.get(name, 1), 1) for name in ("queries", "query_layers", "width", "heads", "rank")}
    size["width"] = size["width"] if config.get("query_kind") == "cross" else 1
    size["rank"] = size["rank"] if config.get("query_kind") == "lora" else 1
    for names in (("queries", "width"), ("query_layers", "width", "width"), ("query_layers", "rank"), ("heads",)):
        if math.prod(size[name] for name in names) > held:
            return f"{' x '.join(names)} is more than the {held:,} numbers of adapter.safetensors"
    return None
