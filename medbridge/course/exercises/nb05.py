"""Checks of notebook 05: the best weight of two experts, the gradient that reaches an expert, dropping an expert. [ours]"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medbridge.course.exercises.register import AnswerError, exercise


@exercise("5.1")
def best_weight(answer: Callable[[float, float, float], float]) -> None:
    """``answer(s1, s2, rho)``: weight of expert 1 in [0, 1] that makes the error of the weighted mean least."""
    # equal experts first: there, every careful formula says one half
    for s1, s2, rho in ((1.0, 1.0, 0.3), (1.0, 2.0, 0.0), (2.0, 1.0, 0.25), (1.0, 1.2, 0.5), (1.0, 2.0, 0.9), (3.0, 1.0, 0.8)):
        got = answer(s1, s2, rho)
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number: the weight of the first expert")
        got = float(got)
        exact = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
        want = min(1.0, max(0.0, exact))
        if math.isclose(got, want, abs_tol=1e-6):
            continue
        wrong = (
            (exact, "a softmax gives no weight outside [0, 1]; where the formula does, the nearer end is best"),
            (1 - want, "this is the weight of the second expert"),
            (1 - exact, "this is the weight of the second expert, and it is not held within [0, 1]"),
            (s2**2 / (s1**2 + s2**2), "the correlation is left out; it counts where the experts differ"),
            (s2 / (s1 + s2), "weigh by variances, the squares of s1 and s2, and use the correlation"),
            (0.5, "one half is best only where both experts err alike"),
        )
        hint = next((h for value, h in wrong if math.isclose(got, value, abs_tol=1e-6)),
                    "write the variance of g e1 + (1 - g) e2, set its derivative by g to zero")
        raise AnswerError(f"s1={s1:g}, s2={s2:g}, rho={rho:g}: the best weight is {want:.3f} and you give {got:.3f}; {hint}")


@exercise("5.2")
def expert_gradient(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``answer(expert_logits, weights, targets)``: gradient of the mixture's mean BCE by each expert's logits, (B, K, C)."""
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, generator=rng)
    weights = torch.randn(3, 2, 4, generator=rng).softmax(1)
    targets = (torch.rand(3, 4, generator=rng) < 0.5).float()
    got = answer(logits.clone(), weights.clone(), targets.clone())
    if got is None or tuple(torch.as_tensor(got).shape) != (3, 2, 4):
        shape = "nothing" if got is None else tuple(torch.as_tensor(got).shape)
        raise AnswerError(f"the result is {shape}; give a tensor (B, K, C): one number for each logit of each expert")
    got = torch.as_tensor(got).detach().float()
    leaf = logits.clone().requires_grad_()
    F.binary_cross_entropy_with_logits((weights * leaf).sum(1), targets).backward()
    want = leaf.grad
    if torch.allclose(got, want, rtol=1e-4, atol=1e-6):
        return
    error = ((weights * logits).sum(1).sigmoid() - targets)[:, None].expand(-1, 2, -1)
    own = weights * (logits.sigmoid() - targets[:, None])
    wrong = (
        (-want, "the sign is turned: where the mixture says too much, p - y is positive"),
        (weights * error, "the loss is a mean over B C numbers; divide by them"),
        (weights * error / 3, "the loss is a mean over films and classes; divide by B C, not by B alone"),
        (weights * error / 4, "the loss is a mean over films and classes; divide by B C, not by C alone"),
        (error / 12, "the router's weight is missing: an expert with little weight gets little gradient"),
        (own / 12, "the error is that of the mixture, not of the expert alone: sum over the experts before the sigmoid"),
        (own, "the error is that of the mixture, not of the expert alone; and the loss is a mean: divide by B C"),
    )
    raise AnswerError(next((h for value, h in wrong if torch.allclose(got, value, rtol=1e-4, atol=1e-6)),
                           "chain rule: d loss / d s_k = d loss / d s times d s / d s_k, and s is the weighted sum"))


@exercise("5.3")
def drop(answer: Callable[[Tensor, int], Tensor]) -> None:
    """``answer(weights, k)``: weights of the remaining experts, (B, K, C) -> (B, K - 1, C); each column sums to 1."""
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3, 4, generator=rng).softmax(1)
    for k in (1, 0, 2):
        rest = torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1)
        got = answer(weights.clone(), k)
        if got is None:
            raise AnswerError("the function returns nothing; return the weights of the remaining experts")
        got = torch.as_tensor(got).float()
        if tuple(got.shape) != (2, 2, 4):
            hint = "; the expert is to go, not to get weight 0" if got.shape == weights.shape else ""
            raise AnswerError(f"the result has shape {tuple(got.shape)} and should have {(2, 2, 4)}{hint}")
        if torch.allclose(got, rest / rest.sum(1, keepdim=True), atol=1e-5):
            continue
        others = [torch.cat([weights[:, :j], weights[:, j + 1 :]], dim=1) for j in range(3) if j != k]
        if torch.allclose(got, rest, atol=1e-5):
            hint = "they no longer sum to 1 over the experts"
        elif torch.allclose(got, rest.softmax(1), atol=1e-5):
            hint = "a second softmax flattens them; divide by what is left"
        elif torch.allclose(got, rest / rest.sum(), atol=1e-5):
            hint = "divide by the sum over the experts, for each film and class apart"
        elif any(torch.allclose(got, o / o.sum(1, keepdim=True), atol=1e-5) for o in others):
            hint = f"another expert than number {k} was dropped"
        else:
            hint = "the remaining weights keep their proportions, and sum to 1 over the experts"
        raise AnswerError(f"without expert {k}, the first film's weights for the first class are "
                          f"{(rest / rest.sum(1, keepdim=True))[0, :, 0].tolist()}, not {got[0, :, 0].tolist()}; {hint}")
    alone = torch.zeros(1, 3, 2)
    alone[:, 1] = 1.0
    got = answer(alone.clone(), 1)
    if not torch.allclose(torch.as_tensor(got).float(), torch.full((1, 2, 2), 0.5), atol=1e-5):
        raise AnswerError(
            "where the dropped expert had all the weight (top_k=1 does that), nothing is left to divide by; "
            "give the others 1 / (K - 1)")
