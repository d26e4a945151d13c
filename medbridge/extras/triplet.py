"""A loss over triplets of films, beside the one over labels. [ours]"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.features.batch import Pass
from medbridge.model import Output
from medbridge.support.processes import join
from medbridge.train import Network


def label_overlap(targets: Tensor, mask: Tensor) -> Tensor:
    """How alike the findings of two films are: ``(B, C)`` -> ``(B, B)`` in [0, 1], the Jaccard index over labels known of both.

    Two films without any finding are wholly alike (1). NaN where the two films share no known label. [ours]
    """
    y, m = (targets * mask).float(), mask.float()
    both = y @ y.T
    either = y @ m.T + m @ y.T - both
    overlap = torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))
    return overlap.masked_fill(m @ m.T == 0, float("nan"))


def triplet_loss(vectors: Tensor, targets: Tensor, mask: Tensor, margin: float = 0.5) -> Tensor:
    r"""Films that share more findings should lie nearer; scalar.

        mean over (a, p, n) with s_ap > s_an of  max(0, margin (s_ap - s_an) + cos(v_a, v_n) - cos(v_a, v_p))

    Only triplets that still cost something enter the mean. After MedTrim ("Meta-Entity Driven Triplet Mining for Aligning Medical
    Vision-Language Models", arXiv 2504.15929), which scores what two studies share by classes and by entities of the reports,
    across images and texts. Ours: labels and images alone, all triplets of a batch, a margin that grows with the overlap.

    Args:
        vectors: ``(B, w)``, one per film. targets, mask: ``(B, C)``, as for :func:`masked_bce`.
        margin: by how much cosines must differ between a film of the same and one of quite other findings.
    """
    v = F.normalize(vectors, dim=1)
    cosine, overlap = v @ v.T, label_overlap(targets, mask)
    overlap.fill_diagonal_(float("nan"))  # a film is no pair with itself
    ahead = overlap.unsqueeze(2) - overlap.unsqueeze(1)  # (a, p, n)
    cost = (margin * ahead + cosine.unsqueeze(1) - cosine.unsqueeze(2)).relu()
    active = (ahead > 0) & (cost > 0)  # NaN is never above 0
    return torch.where(active, cost, 0.0).sum() / active.sum().clamp(min=1)


class TripletNetwork(Network):
    """MedBridge as a trainee whose loss has ``weight`` times the mean of the experts' :func:`triplet_loss` on pooled queries as
    well: ``fit(..., network=partial(TripletNetwork, weight=0.5))``. ValueError: a negative weight."""

    def __init__(self, *of_network: Any, weight: float) -> None:
        super().__init__(*of_network)
        if weight < 0:
            raise ValueError(f"weight={weight} must be at least 0")
        self.weight = weight

    def member_loss(self, output: Output, part: Pass) -> Tensor:
        pooled = [join(q.float(), part.count) for q in output.pooled]
        triplets = torch.stack([triplet_loss(q, part.targets, part.mask) for q in pooled]).mean()
        return super().member_loss(output, part) + part.known * self.weight * triplets
