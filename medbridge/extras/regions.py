"""Regions for a free text: where on the film is what the words say? A map, and boxes around its peaks. [ours]

After MedROV (Sheikh et al., WACV 2026, arXiv 2511.20650), a detector for free words trained on 600,000 detection samples,
and MedDAM (Xiao et al., arXiv 2505.05804), which describes a region that is pointed at. Theirs: detection and description by
models trained for regions. Ours: no box is ever trained on, and no sentence is written; a map is read off what a model without
boxes has, in one of two ways.

- :func:`prompt_attention`: the queries of a trained MedBridge whose tokens, in the expert's text space, resemble the words; the
  map is where these queries looked. Runs with every expert.
- :func:`prompt_similarity`: the cosine of each patch with the words, untrained, as in MaskCLIP (Zhou et al., ECCV 2022): in the
  last attention the values alone are projected. Runs with open_clip's own ViTs and ResNets.

Either may well be no better than chance: measure it (:func:`medbridge.metrics.localise.score_maps`).
To beat shifted maps is not enough:
compare with maps of *wrong* words. The shipped adapter's queries look at the same places whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from scipy import ndimage
from torch import Tensor

from medbridge.errors import ExpertError
from medbridge.experts import Expert, OpenClipExpert
from medbridge.explain.attention import Explanation, explain
from medbridge.features.text import TextCache
from medbridge.focal import extract_views, whole_box
from medbridge.model import MedBridge
from medbridge.prompts import ClassPrompts, class_prompts

__all__ = ["prompt_attention", "prompt_boxes", "prompt_direction", "prompt_maps", "prompt_similarity"]

SHARPNESS = 10.0
"""Factor before the cosines of queries and words, under a softmax over the queries: that with which class scores start."""


def prompt_direction(expert: Expert, texts: str | Sequence[str], against: Sequence[str] = ("a normal chest x-ray",)) -> Tensor:
    """The words as a unit vector of the expert's text space ``(text_dim,)``: mean of ``texts`` minus mean of ``against``.

    Raises:
        ValueError: an empty prompt.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(t.strip() for t in texts):
        raise ValueError("the prompt is empty; write what to look for, such as 'fluid in the pleural space'")
    cache = TextCache(expert)
    side = F.normalize(cache.encode(texts).mean(dim=0), dim=0)
    return F.normalize(side - F.normalize(cache.encode(list(against)).mean(dim=0), dim=0), dim=0) if against else side


def prompt_attention(
    model: MedBridge, seen: Explanation, texts: str | Sequence[str], against: Sequence[str] = ("a normal chest x-ray",),
    side: int = 256,
) -> np.ndarray:
    """Where the queries that mean these words looked: float32 ``(rows, columns)``, maximum 1.

    Args:
        model: trained. seen: of :func:`medbridge.explain.attention.explain`, which is asked once for any number of prompts.
        texts, against: as for :func:`prompt_direction`. side: cells on the longer side.
    """
    reads = []
    with torch.inference_mode():
        for expert, branch, tokens in zip(model.experts, model.branches, seen.tokens, strict=True):
            words = prompt_direction(expert, texts, against)
            scores = branch.scores
            z = F.normalize(scores.project(scores.norm(torch.from_numpy(tokens[:-1]).to(words.device))), dim=-1)
            reads.append((SHARPNESS * z @ words).softmax(dim=0).cpu().numpy())
    return seen.density(reads, seen.weights.mean(axis=1), side)


def prompt_similarity(
    expert: Expert, film: np.ndarray, texts: str | Sequence[str], against: Sequence[str] = ("a normal chest x-ray",),
    side: int = 256, boxes: np.ndarray | None = None,
) -> np.ndarray:
    """Cosine of each place of the film ``(H, W)`` with the words, scaled to [0, 1]: float32 ``(rows, columns)``.

    Args:
        expert: an open_clip model with a tower of open_clip's own. texts, against: as for :func:`prompt_direction`.
        side: cells on the longer side. boxes: views ``(N, 4)`` to look at, averaged where they overlap; default the whole film.

    Raises:
        ExpertError: a tower whose patches cannot be brought into the text space.
    """
    words = prompt_direction(expert, texts, against)
    boxes = whole_box(*film.shape)[None] if boxes is None else np.asarray(boxes)
    views = extract_views(film, boxes, *expert.view_kind)
    with torch.inference_mode():
        cosine = _dense(expert, expert.preprocess(views)) @ words  # (N, rows, columns)
    scale = side / max(film.shape)
    rows, columns = (round(n * scale) for n in film.shape)
    total, count = torch.zeros(rows, columns), torch.zeros(rows, columns)
    for tile, box in zip(cosine.cpu(), np.rint(boxes * scale).astype(int), strict=True):
        x0, y0, x1, y1 = box
        tile = F.interpolate(tile[None, None], (y1 - y0, x1 - x0), mode="bilinear")[0, 0]
        inside = tile[max(-y0, 0) : rows - y0, max(-x0, 0) : columns - x0]
        place = slice(max(y0, 0), max(y0, 0) + inside.shape[0]), slice(max(x0, 0), max(x0, 0) + inside.shape[1])
        total[place] += inside
        count[place] += 1
    heat = (total / count.clamp(min=1)).numpy()
    return (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-12)


def _dense(expert: Expert, x: Tensor) -> Tensor:
    """Unit embeddings of the places of views ``(N, 3, R, R)`` in the text space: ``(N, rows, columns, text_dim)``."""
    visual = expert.model.visual if isinstance(expert, OpenClipExpert) else None
    rows, columns = expert.grids[-1]
    if isinstance(visual, ModifiedResNet):
        tokens, pool = expert.encode_maps(x, [expert.depth]).maps[expert.depth], visual.attnpool
        out = pool.c_proj(pool.v_proj(tokens))
    elif isinstance(visual, VisionTransformer) and visual.proj is not None and visual.attn_pool is None:
        block = visual.transformer.resblocks[-1]
        tokens = expert.encode_maps(x, [expert.depth - 1]).maps[expert.depth - 1]
        width = tokens.shape[-1]
        attn = block.attn
        values = F.linear(block.ln_1(tokens), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
        out = visual.ln_post(attn.out_proj(values)[:, expert.prefix :]) @ visual.proj
    else:
        raise ExpertError(f"{expert.name}: patches of this tower cannot be compared with words; take an open_clip ViT or ResNet, "
                          f"or prompt_attention with a trained model")
    return F.normalize(out.float(), dim=-1).unflatten(1, (rows, columns))


def prompt_maps(
    source: MedBridge | Expert, prompts: dict[str, ClassPrompts] | None = None, side: int = 256
) -> Callable[[np.ndarray], Callable[[str], np.ndarray]]:
    """Maps by label for :func:`medbridge.metrics.localise.score_maps`: a trained model's attention, or an expert's similarity.

    Args:
        source: where the maps come from. prompts: label -> its words; default :func:`medbridge.prompts.class_prompts`.
    """
    def maps(film: np.ndarray) -> Callable[[str], np.ndarray]:
        seen = explain(source, film) if isinstance(source, MedBridge) else None

        def heat(label: str) -> np.ndarray:
            words = (prompts or {}).get(label) or class_prompts(label)
            if seen is not None:
                return prompt_attention(source, seen, words.positive, words.negative, side)
            return prompt_similarity(source, film, words.positive, words.negative, side)

        return heat

    return maps


def prompt_boxes(
    heat: np.ndarray, film: tuple[int, int], share: float = 0.5, most: int = 3, least: float = 0.001
) -> pd.DataFrame:
    """Boxes around the connected parts of a map that reach a share of its maximum.

    Args:
        heat: ``(rows, columns)``, not negative. film: ``(H, W)`` in pixels. share: of the maximum, in (0, 1].
        most: boxes kept, strongest first. least: smallest part, as a share of the cells.

    Returns:
        x0, y0, x1, y1 in pixels of the film, and score: the part's highest value over the map's maximum.

    Raises:
        ValueError: a share outside (0, 1], or a map that is not finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}; give a share of the maximum in (0, 1]")
    if not np.isfinite(heat).all():
        raise ValueError("a map must be finite")
    columns = ["x0", "y0", "x1", "y1", "score"]
    top = float(heat.max())
    if top <= 0:
        return pd.DataFrame(columns=columns, dtype=float)
    parts, count = ndimage.label(heat >= share * top)
    sizes = ndimage.sum_labels(np.ones_like(heat), parts, np.arange(1, count + 1))
    peaks = ndimage.maximum(heat, parts, np.arange(1, count + 1)) / top
    scale_y, scale_x = film[0] / heat.shape[0], film[1] / heat.shape[1]
    rows = [(s[1].start * scale_x, s[0].start * scale_y, s[1].stop * scale_x, s[0].stop * scale_y, peak)
            for s, size, peak in zip(ndimage.find_objects(parts), sizes, peaks, strict=True) if size >= least * heat.size]
    return pd.DataFrame(sorted(rows, key=lambda r: -r[4])[:most], columns=columns)
