"""Why did the model say so? The views of one film, where the queries looked, and which expert was trusted. [ours]

Attention shows where information was read, not that it was the cause of a score; it is a picture to think with, no proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.features.batch import collate
from medbridge.model import MedBridge
from medbridge.predict import film_features


@dataclass
class Explanation:
    """One film, seen by N views, K experts, Q queries (of all members), C labels; attention is the mean over heads."""

    film: np.ndarray  # float32 (H, W)
    boxes: np.ndarray  # float32 (N, 4) in pixels; view 0 is the whole film
    labels: tuple[str, ...]
    experts: list[str]
    probabilities: np.ndarray  # (C,)
    expert_probabilities: np.ndarray  # (K, C), each expert alone
    weights: np.ndarray  # (K, C), the router's
    layers: list[list[np.ndarray]]  # per expert and query layer (N, Q, rows, columns): attention; the rest of 1 is on queries
    mix: list[np.ndarray]  # per expert (C, Q + 1): how much each label reads each query, the frozen token last
    share: list[np.ndarray]  # per expert (N,): share of the pooled numbers that each view gave; for 'max', that it won
    tokens: list[np.ndarray]  # per expert (Q + 1, w): the pooled queries, the frozen token last

    @property
    def attention(self) -> list[np.ndarray]:
        """The last query layer's, per expert."""
        return [of_expert[-1] for of_expert in self.layers]

    def heatmap(self, label: str, side: int = 256) -> np.ndarray:
        """Where the queries of a label looked, as a density over the film: float32, ``side`` cells on the longer side, maximum 1.

        Attention is weighted by how much the label reads each query, by what each view gave to the pool, and by the router.
        """
        if label not in self.labels:
            raise ValueError(f"label {label!r} is unknown; this model has {', '.join(self.labels)}")
        c = self.labels.index(label)
        return self.density([mix[c, :-1] for mix in self.mix], self.weights[:, c], side)

    def density(self, reads: Sequence[np.ndarray], trust: np.ndarray, side: int = 256) -> np.ndarray:
        """The same for any mixture: how much each query counts, per expert ``(Q,)``, and how much each expert ``(K,)``."""
        scale = side / max(self.film.shape)
        heat = torch.zeros(*(round(n * scale) for n in self.film.shape))
        for k, attention in enumerate(map(torch.from_numpy, self.attention)):
            queries = torch.as_tensor(reads[k], dtype=torch.float32)
            for n, box in enumerate(np.rint(self.boxes * scale).astype(int)):
                tile = torch.einsum("q,qrs->rs", queries, attention[n])
                tile = F.interpolate(tile[None, None], (box[3] - box[1], box[2] - box[0]), mode="bilinear")[0, 0]
                # a density: the same mass on a smaller box is brighter
                tile = tile / tile.sum().clamp(min=1e-12) * float(queries @ attention[n].sum((1, 2)))
                place, inside = lay_over(heat, tile, box)
                place += float(trust[k] * self.share[k][n]) * inside
        return (heat / heat.max().clamp(min=1e-12)).numpy()


def lay_over(canvas: Tensor, tile: Tensor, box: np.ndarray) -> tuple[Tensor, Tensor]:
    """The cells of a canvas that a tile covers when it lies at ``box``, and the cells of the tile that are on the canvas."""
    x0, y0 = box[:2]
    inside = tile[max(-y0, 0) : canvas.shape[0] - y0, max(-x0, 0) : canvas.shape[1] - x0]
    top, left = max(y0, 0), max(x0, 0)
    return canvas[top : top + inside.shape[0], left : left + inside.shape[1]], inside


def explain(model: MedBridge, film: np.ndarray) -> Explanation:
    """Run one decoded film ``(H, W)`` in [0, 1] and keep what happened on the way."""
    features, boxes = film_features(model, film)
    seen = [[[] for _ in member.branches] for member in model.members]
    handles = [layer.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out[1].mean(dim=1)))
               for of_member, member in zip(seen, model.members, strict=True)
               for kept, branch in zip(of_member, member.branches, strict=True) for layer in branch.encoder.layers]
    model.eval()
    try:
        with torch.inference_mode():
            output = model(collate([features]).to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    layers, mix = [], []
    for k, (shapes, depths) in enumerate(zip(model.map_shapes, model.depths, strict=True)):
        each = [torch.cat(of_layer, dim=1) for of_layer in zip(*(of_member[k] for of_member in seen), strict=True)]
        layers.append([a[:, :, shapes.prefix :].unflatten(-1, shapes.grids[depth - 1]).float().cpu().numpy()
                       for a, depth in zip(each, depths, strict=True)])
        reads = [m.branches[k].scores.mix.softmax(dim=-1).detach().cpu().numpy() / len(model.members) for m in model.members]
        mix.append(np.concatenate([*(r[:, :-1] for r in reads), sum(r[:, -1:] for r in reads)], axis=1))
    share = [view_share(weights, len(boxes))[0].double().cpu().numpy() for weights in output.view_weights]
    chances, expert_chances = (z[0].sigmoid().double().cpu().numpy() for z in (output.logits, output.expert_logits))
    return Explanation(
        film, boxes, model.labels, [e.name for e in model.experts], chances, expert_chances,
        output.weights[0].double().cpu().numpy(), layers, mix, share, [t[0].float().cpu().numpy() for t in output.tokens])


def view_share(views_of: Tensor, views: int) -> Tensor:
    """Share of the pooled numbers that each of N views gave, by :class:`CrossView`'s second result: float32 ``(B, N)``."""
    if views_of.is_floating_point():
        return views_of.float().mean(dim=(2, 3))
    won = views_of.flatten(1)
    share = torch.zeros(len(won), views, device=won.device)
    return share.scatter_add_(1, won, torch.full_like(won, 1 / won.shape[1], dtype=share.dtype))
