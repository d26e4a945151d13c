"""Losses over multi-label scores, with a mask for what is not known.

A label that is blank or uncertain under the 'ignore' policy contributes nothing: neither to the loss, nor to its mean.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=1.0)


def masked_bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Mean binary cross-entropy over known labels; ``(B, C)`` each, mask bool. [ours: default]"""
    return _masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), mask)


def asymmetric_loss(logits: Tensor, targets: Tensor, mask: Tensor, gamma_negative: float = 4.0, gamma_positive: float = 0.0,
                    margin: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, equations 4 to 7): easy negatives count less. [ours: option]

    With both gammas and the margin at zero it is :func:`masked_bce`.
    """
    p = logits.sigmoid()
    shifted = (p - margin).clamp(min=0.0)
    positive = targets * (1 - p).pow(gamma_positive) * F.logsigmoid(logits)
    negative = (1 - targets) * shifted.pow(gamma_negative) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return _masked_mean(-(positive + negative), mask)


LOSSES = {"bce": masked_bce, "asymmetric": asymmetric_loss}


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
