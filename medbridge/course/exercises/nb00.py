"""Checks of notebook 00, "Start here". [ours]"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medbridge.course.exercises.register import AnswerError, exercise

__all__ = ["numbers_per_film", "trainable_share", "two_expert_mixture"]


@exercise("0.1")
def numbers_per_film(answer: Callable[[int, int, int, int, int, int], int]) -> None:
    """``answer(views, rows, columns, prefix, width, depths)``: how many numbers are in the maps of one film."""
    views, rows, columns, prefix, width, depths = 10, 8, 6, 1, 16, 2
    given = answer(views, rows, columns, prefix, width, depths)
    if given is None:
        raise AnswerError("your function returns nothing; end it with `return ...`")
    right = views * (rows * columns + prefix) * width * depths
    mistakes = {
        views * rows * columns * width * depths: "the tokens before the patches (CLS) are maps too: add prefix to rows x columns",
        views * (rows * columns + prefix) * width: "maps of more than one depth are kept: the number of depths is missing",
        (rows * columns + prefix) * width * depths: "this is one view; a film has N views",
        views * (rows * columns + prefix) * depths: "this counts tokens; each token is a vector of `width` numbers",
    }
    if given in mistakes:
        raise AnswerError(mistakes[given])
    if given != right:
        raise AnswerError(
            f"for {views} views of {rows} x {columns} patches, {prefix} further token, width {width} and {depths} depths "
            f"there are {right} numbers, your function says {given}")


@exercise("0.2")
def two_expert_mixture(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``answer(expert_logits, weights)``: the mixture's probabilities ``(B, C)`` from two ``(B, K, C)`` tensors."""
    logits = torch.tensor([[[2.0, -3.0, 0.5], [-1.0, 1.0, 4.0]], [[0.0, -2.0, 3.0], [-4.0, 2.5, 1.0]]])
    weights = torch.tensor([[[0.9, 0.3, 0.5], [0.1, 0.7, 0.5]], [[0.2, 0.6, 0.7], [0.8, 0.4, 0.3]]])
    given = answer(logits.clone(), weights.clone())
    if not isinstance(given, Tensor):
        raise AnswerError(f"return a torch tensor, not {type(given).__name__}")
    mixed = (weights * logits).sum(dim=1)
    if given.shape != mixed.shape:
        raise AnswerError(
            f"the result has shape {tuple(given.shape)}, expected {tuple(mixed.shape)}, (B, C): "
            "sum over the experts, dimension 1")
    if torch.allclose(given, mixed, atol=1e-5):
        raise AnswerError("these are logits; a probability is their sigmoid")
    if torch.allclose(given, (weights * logits.sigmoid()).sum(dim=1), atol=1e-5):
        raise AnswerError("this mixes probabilities; MedBridge mixes logits, and takes the sigmoid last")
    if torch.allclose(given, logits.mean(dim=1).sigmoid(), atol=1e-5):
        raise AnswerError("this trusts all experts alike; use the router's weights")
    if torch.allclose(given, mixed.softmax(dim=-1), atol=1e-5):
        raise AnswerError("a softmax lets one label win; a film may have several findings, so each label gets its own sigmoid")
    if not torch.allclose(given, mixed.sigmoid(), atol=1e-5):
        raise AnswerError("shapes fit, numbers do not: sigmoid of the sum over experts of weight times logit")


class _HalfFrozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.bridge = nn.Linear(10, 10), nn.Linear(10, 2)  # 110 and 22 numbers
        self.frozen.requires_grad_(False)


@exercise("0.3")
def trainable_share(answer: Callable[[nn.Module], float]) -> None:
    """``answer(model)``: trainable parameters as a share of all parameters, in [0, 1]."""
    given = answer(_HalfFrozen())
    if given is None:
        raise AnswerError("your function returns nothing; end it with `return ...`")
    given, trained, total = float(given), 22, 132
    tensors = 2 / 4
    mistakes = {
        trained: "this is the number of trainable parameters; divide it by the number of all parameters",
        100 * trained / total: "this is in per cent; give a share between 0 and 1",
        1 - trained / total: "this is the frozen share; requires_grad is True for what is trained",
        trained / (total - trained): "divide by all parameters, not by the frozen ones",
        tensors: "this counts tensors; count the numbers in them with p.numel()",
        1.0: "this counts everything as trained; look at p.requires_grad",
    }
    if abs(given - trained / total) < 1e-6:
        return
    for wrong, hint in mistakes.items():
        if abs(given - wrong) < 1e-6:
            raise AnswerError(hint)
    raise AnswerError(f"a model with {trained} trainable of {total} parameters gave {given:g}, expected {trained / total:.4f}")
