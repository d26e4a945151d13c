"""Why did the model say so? One film's views, where the queries looked, and which expert was trusted. [ours]

Attention shows where information was read, not that it was the cause of a score; it is a picture to think with, no proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from medbridge.crossview import view_share
from medbridge.features.batch import collate
from medbridge.model import MedBridge
from medbridge.predict import film_features

__all__ = ["Explanation", "explain"]


@dataclass
class Explanation:
    """One film, seen by N views, K experts, Q queries, C labels.

    Attributes:
        film: float32 ``(H, W)``.
        boxes: float32 ``(N, 4)`` in pixels; view 0 is the whole film.
        labels: C names. experts: K names.
        probabilities: ``(C,)``.
        expert_probabilities: ``(K, C)``, each expert alone.
        weights: ``(K, C)``, the router's.
        layers: per expert and query layer ``(N, Q, rows, columns)``: attention over the patches, mean over heads; a query's sums
            to at most 1, as it also attends to the other queries.
        mix: per expert ``(C, Q + 1)``: how much each label reads each query, the frozen token last.
        share: per expert ``(N,)``: share of the pooled numbers that each view gave; for the pool 'max', that it won.
        tokens: per expert ``(Q + 1, w)``: the pooled queries, the frozen token last.
    """

    film: np.ndarray
    boxes: np.ndarray
    labels: tuple[str, ...]
    experts: list[str]
    probabilities: np.ndarray
    expert_probabilities: np.ndarray
    weights: np.ndarray
    layers: list[list[np.ndarray]]
    mix: list[np.ndarray]
    share: list[np.ndarray]
    tokens: list[np.ndarray]

    @property
    def attention(self) -> list[np.ndarray]:
        """The last query layer's, per expert."""
        return [of_expert[-1] for of_expert in self.layers]

    def heatmap(self, label: str, side: int = 256) -> np.ndarray:
        """Where the queries of a label looked, as a density over the film: float32 ``(rows, columns)``, maximum 1.

        Attention of the queries, weighted by how much the label reads each of them, by what each view contributed to the
        pool, and by the router; ``side`` is the number of cells on the longer side.

        Raises:
            ValueError: an unknown label.
        """
        if label not in self.labels:
            raise ValueError(f"label {label!r} is unknown; this model has {', '.join(self.labels)}")
        c = self.labels.index(label)
        return self.density([mix[c, :-1] for mix in self.mix], self.weights[:, c], side)

    def density(self, reads: Sequence[np.ndarray], trust: np.ndarray, side: int = 256) -> np.ndarray:
        """The same for any mixture of queries.

        Args:
            reads: per expert ``(Q,)``: how much each query counts. trust: ``(K,)``: how much each expert counts.
            side: number of cells on the longer side.
        """
        height, width = self.film.shape
        scale = side / max(height, width)
        rows, columns = round(height * scale), round(width * scale)
        heat = torch.zeros(rows, columns)
        for k, attention in enumerate(self.attention):
            queries = torch.as_tensor(reads[k], dtype=torch.float32)
            for n, box in enumerate(np.rint(self.boxes * scale).astype(int)):
                x0, y0, x1, y1 = box
                tile = torch.einsum("q,qrs->rs", queries, torch.from_numpy(attention[n]))
                tile = F.interpolate(tile[None, None], (y1 - y0, x1 - x0), mode="bilinear")[0, 0]
                # a density: the same mass on a smaller box is brighter
                tile = tile / tile.sum().clamp(min=1e-12) * float(queries @ torch.from_numpy(attention[n]).sum((1, 2)))
                inside = tile[max(-y0, 0) : rows - y0, max(-x0, 0) : columns - x0]
                top, left = max(y0, 0), max(x0, 0)
                weight = float(trust[k] * self.share[k][n])
                heat[top : top + inside.shape[0], left : left + inside.shape[1]] += weight * inside
        return (heat / heat.max().clamp(min=1e-12)).numpy()


def explain(model: MedBridge, film: np.ndarray) -> Explanation:
    """Run one decoded film ``(H, W)`` in [0, 1] and keep what happened on the way."""
    features, boxes = film_features(model, film)
    seen: list[list[torch.Tensor]] = [[] for _ in model.branches]
    handles = [layer.register_forward_hook(lambda _, __, out, kept=kept: kept.append(out[1].mean(dim=1)))
               for kept, branch in zip(seen, model.branches, strict=True) for layer in branch.encoder.layers]
    model.eval()
    try:
        with torch.inference_mode():
            output = model(collate([features]).to(model.device))
    finally:
        for handle in handles:
            handle.remove()
    layers, mix, share = [], [], []
    for k, (expert, branch) in enumerate(zip(model.experts, model.branches, strict=True)):
        layers.append([a[:, :, expert.prefix :].unflatten(-1, expert.grids[depth - 1]).float().cpu().numpy()
                       for a, depth in zip(seen[k], branch.encoder.depths, strict=True)])
        mix.append(branch.scores.mix.softmax(dim=-1).detach().cpu().numpy())
        share.append(view_share(output.winners[k], len(boxes))[0].double().cpu().numpy())
    return Explanation(
        film, boxes, model.labels, [e.name for e in model.experts], output.logits[0].sigmoid().double().cpu().numpy(),
        output.expert_logits[0].sigmoid().double().cpu().numpy(), output.weights[0].double().cpu().numpy(),
        layers, mix, share, [t[0].float().cpu().numpy() for t in output.tokens])
