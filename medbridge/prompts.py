r"""Class prompts: a label becomes sentences, and sentences become two directions in an expert's text space.

[ours] Classes are scored against the VLM's own text embeddings of class prompts. Each label has two sides (not measured),

    t_c = normalise(t_c^+ - t_c^-),

where t^+ and t^- are means over an ensemble of prompts (Radford et al., CLIP, 2021, section 3.1.4). The ensemble crosses
templates with synonyms and adds plain descriptions: a general-domain expert may know "a thin bright line", not "pneumothorax".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.data.labels import FINDINGS, Finding, canonical
from medbridge.experts import Expert
from medbridge.features.text import TextCache

TEMPLATES: tuple[tuple[str, str], ...] = (
    ("a chest x-ray showing {}", "a chest x-ray without {}"),
    ("{} is present", "no {}"),
    ("a radiograph with {}", "a normal radiograph"),
)
"""(positive, negative) sentence templates; ``{}`` takes the label or a synonym."""


@dataclass(frozen=True)
class ClassPrompts:
    """The prompt ensemble of one label."""

    positive: tuple[str, ...]
    negative: tuple[str, ...]

    def __post_init__(self) -> None:
        for side in ("positive", "negative"):
            texts = getattr(self, side)
            if isinstance(texts, str) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
                raise ValueError(f"{side} prompts are {texts!r}; give at least one non-empty sentence")
            object.__setattr__(self, side, tuple(texts))


def class_prompts(label: str) -> ClassPrompts:
    """The default ensemble of a label: templates crossed with its synonyms, then plain descriptions."""
    words = FINDINGS.get(canonical(label) or label, Finding())
    if words.whole:
        return ClassPrompts(words.present, words.absent)
    names = (label.replace("_", " ").lower(), *words.synonyms)
    positive = [template.format(name) for name in names for template, _ in TEMPLATES]
    # "no enlarged heart", but "without an enlarged heart"
    negative = [t.format(re.sub("^an? ", "", name) if t == "no {}" else name) for name in names for _, t in TEMPLATES]
    return ClassPrompts(
        tuple(dict.fromkeys([*positive, *words.present])), tuple(dict.fromkeys([*negative, *words.absent])))


def encode_prompts(
    expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None = None) -> tuple[Tensor, Tensor]:
    """Mean text embeddings of both sides; what was encoded before is read from the cache (:mod:`medbridge.features.text`).

    Args:
        expert: whose text space. prompts: label -> prompts; labels that are not in it get :func:`class_prompts`.

    Returns:
        positive and negative, float32 ``(C, text_dim)`` each, L2-normalised.

    Raises:
        ValueError: ``prompts`` names a label that is not in ``labels``.
    """
    prompts = prompts or {}
    if unknown := sorted(set(prompts) - set(labels)):
        raise ValueError(f"prompts name {', '.join(unknown)}, which no label is; labels are {', '.join(labels)}")
    cache = TextCache(expert)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in labels:
        ensemble = prompts.get(label) or class_prompts(label)
        for side, texts in zip(sides, (ensemble.positive, ensemble.negative), strict=True):
            side.append(F.normalize(cache.encode(texts).mean(dim=0), dim=0))
    return torch.stack(sides[0]), torch.stack(sides[1])
