"""Experts by name: ``create_expert("tiny-vit")``.

Names are short aliases (:func:`list_experts`), or written out: ``open_clip:MODEL/PRETRAINED``,
``open_clip:hf-hub:ORG/REPO``, ``timm:MODEL+TEXT``.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from medbridge.errors import ExpertError
from medbridge.experts.base import BlockWeights, Expert, FrozenMaps
from medbridge.experts.clip import OpenClipExpert, load_open_clip, load_open_clip_folder
from medbridge.experts.text import SENTENCE_ENCODERS, SentenceEncoder
from medbridge.experts.timm_vision import TimmExpert, load_timm

__all__ = [
    "ALIASES", "SENTENCE_ENCODERS", "BlockWeights", "Expert", "ExpertAlias", "FrozenMaps", "OpenClipExpert",
    "SentenceEncoder", "TimmExpert", "create_expert", "list_experts", "tiny_experts_folder",
]


@dataclass(frozen=True)
class ExpertAlias:
    """A short name, what it stands for, its licence, and one line on it."""

    target: str
    licence: str
    note: str


ALIASES: dict[str, ExpertAlias] = {
    "tiny-vit": ExpertAlias("tiny:tiny-vit", "MIT", "shipped ViT, pre-trained on synthetic captioned scenes"),
    "tiny-resnet": ExpertAlias("tiny:tiny-resnet", "MIT", "shipped ResNet, pre-trained on synthetic captioned textures"),
    "tiny-resnet-scenes": ExpertAlias("tiny:tiny-resnet-scenes", "MIT", "shipped ResNet, pre-trained on the ViT's scenes"),
    "dinov2-vits14+minilm": ExpertAlias(
        "timm:vit_small_patch14_dinov2.lvd142m+minilm", "Apache-2.0", "DINOv2 ViT-S/14 with the text space of MiniLM"),
    "clip-vitb32": ExpertAlias("open_clip:ViT-B-32/openai", "MIT", "the original CLIP ViT-B/32"),
    "clip-vitb16": ExpertAlias("open_clip:ViT-B-16/openai", "MIT", "the original CLIP ViT-B/16"),
    "siglip-vitb16": ExpertAlias("open_clip:ViT-B-16-SigLIP/webli", "Apache-2.0", "SigLIP ViT-B/16"),
    "biomedclip": ExpertAlias(
        "open_clip:hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT",
        "CLIP pre-trained on PubMed Central figures"),
}


def list_experts() -> list[str]:
    """Names of the aliases that :func:`create_expert` takes, shipped ones first."""
    return list(ALIASES)


def tiny_experts_folder() -> Path:
    """Folder of the shipped weights: in a checkout ``data/tiny_experts``, in an installed wheel beside the package.

    Raises:
        ExpertError: neither is there.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("MEDBRIDGE_TINY_EXPERTS"), here.parent / "data" / "tiny_experts", here / "_tiny_experts"):
        if folder and Path(folder).is_dir():
            return Path(folder)
    raise ExpertError(
        "the shipped tiny experts were not found; they lie in data/tiny_experts of the repository: "
        "install with `pip install -e .` from a clone, or set MEDBRIDGE_TINY_EXPERTS to that folder"
    )


def create_expert(name: str, device: str | torch.device = "cpu") -> Expert:
    """Build a frozen expert by name.

    Args:
        name: an alias of :func:`list_experts`, ``open_clip:MODEL/PRETRAINED``, ``open_clip:hf-hub:ORG/REPO`` or
            ``timm:MODEL+TEXT``.
        device: where to put it.

    Returns:
        The expert, in eval mode, with ``requires_grad`` off everywhere.

    Raises:
        ExpertError: unknown name (with the nearest known ones), or weights missing (with the file and its place).
    """
    target = ALIASES[name].target if name in ALIASES else name
    kind, _, rest = target.partition(":")
    if kind == "tiny":
        expert: Expert = load_open_clip_folder(name, tiny_experts_folder() / rest)
    elif kind == "open_clip" and rest:
        expert = load_open_clip(name, rest)
    elif kind == "timm" and "+" in rest:
        model_name, _, text = rest.partition("+")
        expert = load_timm(name, model_name, text)
    else:
        close = difflib.get_close_matches(name, ALIASES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise ExpertError(
            f"unknown expert {name!r}; {hint}Known: {', '.join(ALIASES)}; or write open_clip:MODEL/PRETRAINED, "
            f"open_clip:hf-hub:ORG/REPO or timm:MODEL+TEXT (TEXT one of {', '.join(SENTENCE_ENCODERS)})"
        )
    return expert.to(device)
