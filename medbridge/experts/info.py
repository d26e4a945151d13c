"""What is known of an expert before it is loaded: licence, size, input resolution, depth, width, and whether it is here."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import open_clip
import timm
import torch
from torch import nn

from medbridge.experts import create_expert, tiny_experts_folder
from medbridge.experts.base import Expert
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.hf_vision import empty_tower
from medbridge.experts.registry import ExpertName
from medbridge.experts.timm_vision import TimmExpert
from medbridge.experts.weights import explained, find_weights, hub_folder, weight_files


@dataclass(frozen=True)
class ExpertInfo:
    """An expert's card."""

    name: str
    target: str  # what the name stands for
    licence: str  # of the registry, as the note; empty for a written-out name
    note: str
    size: int | None  # input resolution; None, as the next three, where it is not known yet
    depth: int | None
    width: int | None  # of the deepest map
    parameters: int | None  # of the vision tower
    here: Path | None  # file or folder of its weights
    bytes: int | None  # of that file or folder
    wanted: str  # name in the weights folder under which they are looked for


def expert_info(name: str) -> ExpertInfo:
    """The card of an expert, without reading its weights. ExpertError for a name that ``create_expert`` does not take."""
    expert = ExpertName.of(name)
    alias, (candidates, build) = expert.alias, _known(name, expert)
    own_file, paths, state = alias is not None and alias.own_file, [], None
    files = expert.own_files + ([] if own_file else candidates)
    here = tiny_experts_folder() / expert.model if expert.kind == "tiny" else find_weights(files)
    size, depth, width = alias.shape if alias and alias.shape else (None, None, None)
    if expert.kind == "hf" and here is not None:
        tower = empty_tower(here)
        size, depth = int(getattr(tower.config, "image_size", 0)) or 448, int(tower.config.num_hidden_layers)
        width, state = int(getattr(tower.config, "embed_dim", None) or tower.config.hidden_size), tower.state_dict()
    elif build is not None:
        with torch.device("meta"):  # shapes without numbers: nothing is computed and no memory is taken
            built = build()
        size, depth, width, state = built.size, built.depth, built.widths[-1], built.vision_state()
    if here is not None:
        paths = [here] if here.is_file() else [path for path in here.rglob("*") if path.is_file()]
    return ExpertInfo(
        name=name, target=expert.target, licence=alias.licence if alias else "", note=alias.note if alias else "",
        size=expert.size or expert.default_size or size, depth=depth, width=width,
        parameters=sum(tensor.numel() for tensor in state.values()) if state else None,
        here=here, bytes=sum(path.stat().st_size for path in paths) if here else None,
        wanted=(alias.file or files[0]) if own_file else candidates[0])


def _known(name: str, expert: ExpertName) -> tuple[list[str], Callable[[], Expert] | None]:
    """Names of the files, and how to build the expert without weights where that needs no file."""
    kind, model = expert.kind, expert.model
    model_name, _, tag = model.partition("/")
    if kind == "tiny":
        return [model], partial(_open_clip, f"local-dir:{tiny_experts_folder() / model}")
    if kind == "open_clip" and model.startswith("hf-hub:"):
        folder = hub_folder(model.removeprefix("hf-hub:"))
        here = find_weights([folder])
        return [folder], partial(_open_clip, f"local-dir:{here}") if here else None
    if kind == "unimed" or (kind == "open_clip" and tag in open_clip.list_pretrained_tags_by_model(model_name)):
        return weight_files(f"{model_name}-{tag}"), partial(_open_clip, model_name)
    if kind == "timm" and timm.is_model(model.split(".")[0]):
        return weight_files(model), partial(_timm, model)
    if kind == "hf" and "/" in model:
        return [hub_folder(model), model.split("/")[-1]], None
    return [create_expert(name).name], None  # raises the error that names the nearest known ones


def _open_clip(model_name: str) -> Expert:
    # the text tower is not asked about, and some need a configuration from a hub
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    kept = {"embed_cls": True} if "multimodal_cfg" in open_clip.get_model_config(model_name) else {}
    with explained(f"{model_name}: open_clip cannot build this model"):
        model = open_clip.create_model(model_name, load_weights=False, pretrained_text=False, device="meta", text_cfg=text | kept)
    return OpenClipExpert(model_name, model, lambda _: torch.zeros(1, 8, dtype=torch.long))


def _timm(model_name: str) -> Expert:
    trunk, text = timm.create_model(model_name, num_classes=0), nn.Identity()
    text.text_dim = 1
    return TimmExpert(model_name, trunk, text, trunk.pretrained_cfg["input_size"][-1])
