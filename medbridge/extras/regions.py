"""Regions for a free text: where on the film is what the words say? A map, and boxes around its peaks. [ours]

After MedROV (Sheikh et al., WACV 2026) and MedDAM (Xiao et al., arXiv 2505.05804), which are trained for regions; here no box is
trained on. A map may be no better than chance: measure it (:mod:`medbridge.explain.localisation`), also against *wrong* words.
"""

from collections.abc import Sequence
from functools import partial

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
from medbridge.explain.attention import Explanation, explain, lay_over
from medbridge.explain.localisation import Maps
from medbridge.features.text import TextCache
from medbridge.focal import extract_views, whole_box
from medbridge.model import MedBridge
from medbridge.prompts import ClassPrompts, class_prompts

NORMAL = ("a normal chest x-ray",)


def prompt_direction(expert: Expert, texts: str | Sequence[str], against: Sequence[str] = NORMAL) -> Tensor:
    """The words as a unit vector of the expert's text space ``(text_dim,)``: mean of ``texts`` minus mean of ``against``."""
    texts = [texts] if isinstance(texts, str) else list(texts)
    if not texts or not all(t.strip() for t in texts):
        raise ValueError("the prompt is empty; write what to look for, such as 'fluid in the pleural space'")
    cache = TextCache(expert)
    positive, negative = (F.normalize(cache.encode(list(words)).mean(dim=0), dim=0) for words in (texts, against))
    return F.normalize(positive - negative, dim=0)


def prompt_attention(
    model: MedBridge, seen: Explanation, texts: str | Sequence[str], against: Sequence[str] = NORMAL, side: int = 256
) -> np.ndarray:
    """Where those queries looked whose tokens resemble the words in the expert's text space: float32, maximum 1.

    ``seen`` explains the film, ``side`` is the number of cells on the longer side. Runs with every expert.
    """
    reads = []
    with torch.inference_mode():
        for k, (expert, tokens) in enumerate(zip(model.experts, seen.tokens, strict=True)):
            words = prompt_direction(expert, texts, against)
            by_member = torch.from_numpy(tokens[:-1]).to(words.device).chunk(len(model.members))
            spaces = [member.branches[k].scores for member in model.members]
            z = torch.cat([s.project(s.norm(queries)) for s, queries in zip(spaces, by_member, strict=True)])
            reads.append((10.0 * F.normalize(z, dim=-1) @ words).softmax(dim=0).cpu().numpy())  # as class scores start
    return seen.density(reads, seen.weights.mean(axis=1), side)


def prompt_similarity(
    expert: Expert, film: np.ndarray, texts: str | Sequence[str], against: Sequence[str] = NORMAL, side: int = 256
) -> np.ndarray:
    """Cosine of each place of the film ``(H, W)`` with the words, scaled to [0, 1]: float32 ``(rows, columns)``; untrained.

    As in MaskCLIP (Zhou et al., ECCV 2022), the values alone are projected in the last attention. Runs with open_clip's own ViTs
    and ResNets; another tower raises an :class:`ExpertError`.
    """
    box, scale = whole_box(*film.shape), side / max(film.shape)
    with torch.inference_mode():
        view = expert.preprocess(extract_views(film, box[None], *expert.view_kind))
        cosine = _dense(expert, view) @ prompt_direction(expert, texts, against)
    heat, box = torch.zeros(*(round(n * scale) for n in film.shape)), np.rint(box * scale).astype(int)
    tile = F.interpolate(cosine.cpu()[:, None], (box[3] - box[1], box[2] - box[0]), mode="bilinear")[0, 0]
    place, inside = lay_over(heat, tile, box)
    place += inside
    return ((heat - heat.min()) / (heat.max() - heat.min()).clamp(min=1e-12)).numpy()


def _dense(expert: Expert, x: Tensor) -> Tensor:
    """Unit embeddings of the places of views ``(N, 3, R, R)`` in the text space: ``(N, rows, columns, text_dim)``."""
    visual = expert.model.visual if isinstance(expert, OpenClipExpert) else None
    if isinstance(visual, ModifiedResNet):
        tokens, pool = expert.encode_maps(x, [expert.depth]).maps[expert.depth], visual.attnpool
        out = pool.c_proj(pool.v_proj(tokens))
    elif isinstance(visual, VisionTransformer) and visual.proj is not None and visual.attn_pool is None:
        block = visual.transformer.resblocks[-1]
        tokens = expert.encode_maps(x, [expert.depth - 1]).maps[expert.depth - 1]
        width, attn = tokens.shape[-1], block.attn
        values = F.linear(block.ln_1(tokens), attn.in_proj_weight[2 * width :], attn.in_proj_bias[2 * width :])
        out = visual.ln_post(attn.out_proj(values)[:, expert.prefix :]) @ visual.proj
    else:
        raise ExpertError(f"{expert.name}: patches of this tower cannot be compared with words; take an open_clip ViT or ResNet, "
                          f"or prompt_attention with a trained model")
    return F.normalize(out.float(), dim=-1).unflatten(1, expert.grids[-1])


def prompt_maps(source: MedBridge | Expert, prompts: dict[str, ClassPrompts] | None = None) -> Maps:
    """Maps by label: a trained model's attention, or an expert's similarity, for these words or those of its class prompts."""

    def heat(shown: np.ndarray | Explanation, label: str) -> np.ndarray:
        words = (prompts or {}).get(label) or class_prompts(label)
        draw = prompt_attention if isinstance(source, MedBridge) else prompt_similarity
        return draw(source, shown, words.positive, words.negative)

    return lambda film: partial(heat, explain(source, film) if isinstance(source, MedBridge) else film)


def prompt_boxes(heat: np.ndarray, film: tuple[int, int], share: float = 0.5, least: float = 0.001) -> pd.DataFrame:
    """Boxes around the three strongest connected parts of a map ``(rows, columns)``: cells that reach a share of its maximum.

    Columns: x0, y0, x1, y1 in pixels of a film ``(H, W)``, score (the part's maximum over the map's). A part holds at least
    ``least`` of all cells.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share={share}; give a share of the maximum in (0, 1]")
    if not np.isfinite(heat).all():
        raise ValueError("a map must be finite")
    top, scale, rows = float(heat.max()), np.divide(film, heat.shape), []
    parts, _ = ndimage.label((heat >= share * top) & (top > 0))
    for number, (down, across) in enumerate(ndimage.find_objects(parts), 1):
        part = heat[parts == number]
        if len(part) >= least * heat.size:
            x0, y0, x1, y1 = across.start * scale[1], down.start * scale[0], across.stop * scale[1], down.stop * scale[0]
            rows.append((x0, y0, x1, y1, part.max() / top))
    return pd.DataFrame(sorted(rows, key=lambda row: -row[4])[:3], columns=["x0", "y0", "x1", "y1", "score"], dtype=float)
