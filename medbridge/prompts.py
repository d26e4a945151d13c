r"""Class prompts: a label becomes sentences, and sentences become two directions in an expert's text space.

Paper, section 3: classes are scored against the VLM's own text embeddings of class prompts. For multi-label diagnosis
each label needs a positive and a negative side,

    t_c = normalise(t_c^+ - t_c^-),

where t^+ and t^- are means over an ensemble of prompts (Radford et al., CLIP, 2021, section 3.1.4). [ours] The ensemble crosses
templates with synonyms and adds a plain description of what is seen, because a general-domain expert has
never read the word "pneumothorax" but may know "a thin bright line".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.data.labels import canonical
from medbridge.experts import Expert
from medbridge.features.text import TextCache

__all__ = ["DESCRIPTIONS", "TEMPLATES", "ClassPrompts", "class_prompts", "encode_prompts", "similarity_table"]

TEMPLATES: tuple[tuple[str, str], ...] = (
    ("a chest x-ray showing {}", "a chest x-ray without {}"),
    ("{} is present", "no {}"),
    ("a radiograph with {}", "a normal radiograph"),
)
"""(positive, negative) sentence templates; ``{}`` takes the label or a synonym."""


@dataclass(frozen=True)
class Description:
    """Synonyms of a label, and what its presence and absence look like in plain words.

    A label that is itself a negation ("No Finding") does not go through the templates: ``whole``.
    """

    synonyms: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    whole: bool = False


DESCRIPTIONS: dict[str, Description] = {
    "atelectasis": Description(
        ("collapsed lung tissue", "volume loss"),
        ("a bright band across a dark area", "a bright wedge at the bottom"), ("a dark area without bands",)),
    "cardiomegaly": Description(
        ("an enlarged heart",), ("a large bright blob in the centre",), ("a small bright blob in the centre",)),
    "effusion": Description(
        ("pleural effusion", "fluid in the pleural space"),
        ("a large bright area at the bottom with a curved edge",), ("a dark area at the bottom with a sharp edge",)),
    "infiltration": Description(
        ("an interstitial infiltrate",), ("a fine bright texture of many thin lines",), ("a smooth dark area",)),
    "mass": Description(
        ("a lung mass", "a large lesion"), ("a large bright round blob",), ("a dark area without blobs",)),
    "nodule": Description(
        ("a pulmonary nodule", "a small lesion"), ("a small bright round spot",), ("a dark area without spots",)),
    "pneumonia": Description(
        ("lung consolidation", "an infection of the lung"),
        ("a blurry bright patch",), ("a clear dark area",)),
    "pneumothorax": Description(
        ("air in the pleural space", "a collapsed lung"),
        ("a thin bright line beside a smooth dark area",), ("a dark area with many fine lines",)),
    "bacterial pneumonia": Description(
        ("lobar pneumonia",), ("one dense bright patch on one side",), ("two clear dark areas",)),
    "viral pneumonia": Description(
        ("interstitial pneumonia",), ("a fine blurry texture on both sides",), ("two clear dark areas",)),
    "covid-19": Description(
        ("COVID-19 pneumonia",), ("blurry bright patches at both sides",), ("two clear dark areas",)),
    "consolidation": Description(
        ("airspace consolidation",), ("a dense bright patch",), ("a clear dark area",)),
    "edema": Description(
        ("pulmonary edema", "fluid in the lungs"), ("a blurry bright haze around the centre",), ("two clear dark areas",)),
    "emphysema": Description(("hyperinflated lungs",), ("very large dark areas",), ("grey areas",)),
    "fibrosis": Description(("pulmonary scarring",), ("a coarse net of bright lines",), ("a smooth dark area",)),
    "pleural thickening": Description(("a thick pleura",), ("a thick bright rim",), ("a thin rim",)),
    "hernia": Description(("a hiatal hernia",), ("a round shape behind the centre",), ("a plain centre",)),
    "enlarged cardiomediastinum": Description(
        ("widening of the mediastinum",), ("a broad bright band in the centre",), ("a narrow bright band in the centre",)),
    "fracture": Description(("broken ribs", "broken bones"), ("a bright line that breaks off",), ("whole bright lines",)),
    "lung lesion": Description(
        ("focal lung lesion",), ("a bright round shape in a dark area",), ("a dark area without shapes",)),
    "lung opacity": Description(
        ("opacity in the lung", "shadowing of the lung"), ("a bright patch in a dark area",), ("two clear dark areas",)),
    "pleural other": Description(
        ("other pleural disease",), ("an uneven bright rim",), ("a thin even rim",)),
    "support devices": Description(
        ("tubes, lines or pacemakers", "catheters"), ("thin bright wires and tubes",), ("a picture without wires",)),
    "no finding": Description(
        (), ("a normal chest x-ray", "a radiograph of healthy lungs", "no abnormality", "two clear dark areas"),
        ("an abnormal chest x-ray", "a radiograph of diseased lungs", "an abnormality is present", "a bright patch"), whole=True),
}
"""Finding of :mod:`medbridge.data.labels`, lower case -> its description. Other labels still get the templates. [ours]"""


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
        object.__setattr__(self, "positive", tuple(self.positive))
        object.__setattr__(self, "negative", tuple(self.negative))


def class_prompts(label: str) -> ClassPrompts:
    """The default ensemble of a label: templates crossed with its synonyms, then plain descriptions. [ours]"""
    found = DESCRIPTIONS.get((canonical(label) or label).strip().lower(), Description())
    if found.whole:
        return ClassPrompts(found.present, found.absent)
    names = (label.replace("_", " ").lower(), *found.synonyms)
    positive = [template.format(name) for name in names for template, _ in TEMPLATES]
    negative = [template.format(name) for name in names for _, template in TEMPLATES]
    return ClassPrompts(
        tuple(dict.fromkeys([*positive, *found.present])), tuple(dict.fromkeys([*negative, *found.absent])))


def encode_prompts(
    expert: Expert, labels: Sequence[str], prompts: Mapping[str, ClassPrompts] | None = None
) -> tuple[Tensor, Tensor]:
    """Mean text embeddings of both sides; what was encoded before is read from the cache (:mod:`medbridge.features.text`).

    Args:
        expert: whose text space.
        labels: C labels.
        prompts: label -> prompts; labels that are not in it get :func:`class_prompts`.

    Returns:
        positive and negative, float32 ``(C, text_dim)`` each, L2-normalised.

    Raises:
        ValueError: ``prompts`` names a label that is not in ``labels``.
    """
    prompts = prompts or {}
    unknown = sorted(set(prompts) - set(labels))
    if unknown:
        raise ValueError(f"prompts name {', '.join(unknown)}, which no label is; labels are {', '.join(labels)}")
    cache = TextCache(expert)
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for label in labels:
        ensemble = prompts.get(label) or class_prompts(label)
        for side, texts in zip(sides, (ensemble.positive, ensemble.negative), strict=True):
            side.append(F.normalize(cache.encode(texts).mean(dim=0), dim=0))
    return torch.stack(sides[0]), torch.stack(sides[1])


def similarity_table(labels: Sequence[str], positive: Tensor, negative: Tensor) -> str:
    """Cosine similarity of the labels' positive means, and in the last column of each label's two sides.

    Two labels that are nearly one here can only be told apart by what is learned; a label whose sides are nearly one gives
    zero-shot nothing to go by.
    """
    values = (positive @ positive.T).tolist()
    own = (positive * negative).sum(dim=1).tolist()
    first = max(map(len, labels))
    heads = [*labels, "own negative"]
    lines = ["  ".join([" " * first, *heads])]
    for label, row, opposite in zip(labels, values, own, strict=True):
        cells = [f"{value:>{len(head)}.3f}" for head, value in zip(heads, [*row, opposite], strict=True)]
        lines.append("  ".join([f"{label:<{first}}", *cells]))
    return "\n".join(lines)
