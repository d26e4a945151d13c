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
    """Mean binary cross-entropy over known labels; ``(B, C)`` each, mask bool. [ours]"""
    return _masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), mask)


def asymmetric_loss(logits: Tensor, targets: Tensor, mask: Tensor, gamma_negative: float = 4.0, gamma_positive: float = 0.0,
                    margin: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al., ICCV 2021, equations 4 to 7): easy negatives count less. [ours]

    With both gammas and the margin at zero it is :func:`masked_bce`.
    """
    p = logits.sigmoid()
    shifted = (p - margin).clamp(min=0.0)
    positive = targets * (1 - p).pow(gamma_positive) * F.logsigmoid(logits)
    negative = (1 - targets) * shifted.pow(gamma_negative) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return _masked_mean(-(positive + negative), mask)


LOSSES = {"bce": masked_bce, "asymmetric": asymmetric_loss}
