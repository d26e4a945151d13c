"""What is known of an expert before it is loaded: licence, size, input resolution, depth, width, and whether it is here."""

from dataclasses import dataclass
from pathlib import Path

import open_clip
import timm
import torch
from torch import nn

from medbridge.experts.base import Expert
from medbridge.experts.clip import OpenClipExpert
from medbridge.experts.hf_vision import empty_tower
from medbridge.experts.registry import ExpertName
from medbridge.experts.timm_vision import TimmExpert
from medbridge.experts.weights import explained


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
    alias, here, state = expert.alias, expert.find(), {}
    size, depth, width = alias.shape if alias and alias.shape else (None, None, None)
    if expert.kind == "hf" and here is not None:
        tower = empty_tower(here)
        size, depth = int(getattr(tower.config, "image_size", 0)) or 448, int(tower.config.num_hidden_layers)
        width, state = int(getattr(tower.config, "embed_dim", None) or tower.config.hidden_size), tower.state_dict()
    elif expert.repository is None or here is not None:
        with torch.device("meta"):  # shapes without numbers: nothing is computed and no memory is taken
            built = _blank(expert, here)
        size, depth, width, state = built.size, built.depth, built.widths[-1], built.vision_state()
    paths = [here, *here.rglob("*")] if here else []
    return ExpertInfo(
        name=name, target=expert.target, licence=alias.licence if alias else "", note=alias.note if alias else "",
        size=expert.size or expert.default_size or size, depth=depth, width=width,
        parameters=sum(tensor.numel() for tensor in state.values()) or None,
        here=here, bytes=sum(path.stat().st_size for path in paths if path.is_file()) if here else None, wanted=expert.wanted)


def _blank(expert: ExpertName, here: Path | None) -> Expert:
    """The expert without weights."""
    if expert.kind == "timm":
        trunk, text = timm.create_model(expert.model, num_classes=0), nn.Identity()
        text.text_dim = 1
        return TimmExpert(expert.model, trunk, text, trunk.pretrained_cfg["input_size"][-1])
    source = f"local-dir:{here}" if here and here.is_dir() else expert.model.partition("/")[0]
    # the text tower is not asked about, and some need a configuration from a hub
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    kept = {"embed_cls": True} if "multimodal_cfg" in open_clip.get_model_config(source) else {}
    with explained(f"{source}: open_clip cannot build this model"):
        model = open_clip.create_model(source, load_weights=False, pretrained_text=False, device="meta", text_cfg=text | kept)
    return OpenClipExpert(source, model, lambda _: torch.zeros(1, 8, dtype=torch.long))
