"""What is known of an expert before it is loaded: licence, size, input resolution, depth, width, and whether it is here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts import create_expert, tiny_experts_folder
from medbridge.experts.base import Expert
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.clip_load import open_clip_files, quiet
from medbridge.experts.hf_vision import empty_tower
from medbridge.experts.registry import ALIASES, split_size
from medbridge.experts.timm_vision import TimmExpert, timm_files
from medbridge.experts.weights import alias_files, find_weights, hub_folder

__all__ = ["ExpertInfo", "expert_info"]


@dataclass(frozen=True)
class ExpertInfo:
    """An expert's card.

    Attributes:
        name, target: its name, and what it stands for.
        licence, note: of the registry; empty for a written-out name.
        size, depth, width: input resolution, number of blocks, width of the deepest map; ``None`` where not known yet.
        parameters: of the vision tower; ``None`` where not known yet.
        here: file or folder of its weights; ``None`` where they are not here.
        bytes: of that file or folder.
        wanted: name in the weights folder under which they are looked for.
    """

    name: str
    target: str
    licence: str
    note: str
    size: int | None
    depth: int | None
    width: int | None
    parameters: int | None
    here: Path | None
    bytes: int | None
    wanted: str


def expert_info(name: str) -> ExpertInfo:
    """The card of an expert, without reading its weights.

    Raises:
        ExpertError: the name is not one that :func:`medbridge.create_expert` takes.
    """
    plain, size = split_size(name)
    alias = ALIASES.get(plain)
    target, default = split_size(alias.target if alias else plain)
    kind, _, rest = target.partition(":")
    model = rest.partition("+")[0]
    candidates, build = _known(name, kind, model)
    own_file = alias is not None and alias.own_file
    files = (alias_files(plain, alias.file) if alias else []) + ([] if own_file else candidates)
    here = tiny_experts_folder() / model if kind == "tiny" else find_weights(files)
    shape = _shape(build)
    if kind == "hf" and here is not None:
        shape = _hf_shape(here)
    if shape[1] is None and alias and alias.shape:
        shape = (*alias.shape, None)
    return ExpertInfo(
        name, target, alias.licence if alias else "", alias.note if alias else "", size or default or shape[0], *shape[1:],
        here, _bytes(here), (alias.file or files[0]) if own_file else candidates[0])


def _known(name: str, kind: str, model: str) -> tuple[list[str], Callable[[], Expert] | None]:
    """Names of the files, and how to build the expert without weights where that needs no file."""
    if kind == "tiny":
        return [model], lambda: _open_clip(f"local-dir:{tiny_experts_folder() / model}")
    if kind == "open_clip" and model.startswith("hf-hub:"):
        folder = hub_folder(model.removeprefix("hf-hub:"))
        here = find_weights([folder])
        return [folder], (lambda: _open_clip(f"local-dir:{here}")) if here else None
    model_name, _, tag = model.partition("/")
    if kind == "unimed" or (kind == "open_clip" and tag in open_clip.list_pretrained_tags_by_model(model_name)):
        return open_clip_files(model_name, tag), lambda: _open_clip(model_name)
    if kind == "timm" and timm.is_model(model.split(".")[0]):
        return timm_files(model), lambda: _timm(model)
    if kind == "hf" and "/" in model:
        return [hub_folder(model), model.split("/")[-1]], None
    create_expert(name)  # raises the error that names the nearest known ones
    raise ExpertError(f"{name!r} is not the name of an expert")


def _shape(build: Callable[[], Expert] | None) -> tuple[int | None, int | None, int | None, int | None]:
    if build is None:
        return None, None, None, None
    with torch.device("meta"):  # shapes without numbers: nothing is computed and no memory is taken
        expert = build()
    return expert.size, expert.depth, expert.widths[-1], sum(t.numel() for t in expert.vision_state().values())


def _open_clip(model_name: str) -> Expert:
    config = open_clip.get_model_config(model_name)
    # the text tower is not asked about, and some need a configuration from a hub
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    kept = {"embed_cls": True} if "multimodal_cfg" in config else {}
    with quiet():
        model = open_clip.create_model(model_name, load_weights=False, pretrained_text=False, device="meta", text_cfg=text | kept)
    return OpenClipExpert(model_name, model, lambda _: torch.zeros(1, 8, dtype=torch.long))


def _timm(model_name: str) -> Expert:
    trunk = timm.create_model(model_name, num_classes=0)
    text = nn.Identity()
    text.text_dim = 1
    return TimmExpert(model_name, trunk, text, trunk.pretrained_cfg["input_size"][-1])


def _hf_shape(folder: Path) -> tuple[int | None, int | None, int | None, int | None]:
    tower = empty_tower(folder)
    config: Any = tower.config
    width = getattr(config, "embed_dim", None) or config.hidden_size
    parameters = sum(t.numel() for t in tower.state_dict().values())
    return int(getattr(config, "image_size", 0)) or 448, int(config.num_hidden_layers), int(width), parameters


def _bytes(path: Path | None) -> int | None:
    if path is None:
        return None
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
