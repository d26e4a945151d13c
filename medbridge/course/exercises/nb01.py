"""Checks of notebook 01, "Vision-language models and zero-shot". [ours]"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from medbridge.course.exercises.register import AnswerError, exercise
from medbridge.prompts import ClassPrompts

__all__ = ["all_prompts_score", "better_prompts", "info_nce_repeats"]


def _directions(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@exercise("1.1")
def info_nce_repeats(answer: Callable[[Tensor, Tensor, float, Tensor], Tensor]) -> None:
    """``answer(image, text, scale, same)``: symmetric InfoNCE that ignores other rows with the same caption."""
    images, texts, scale = _directions(6, 8, 1), _directions(6, 8, 2), 5.0
    alone = torch.eye(6, dtype=torch.bool)
    plain = float(ClipLoss()(images, texts, torch.tensor(scale)))
    got = _loss(answer, images, texts, scale, alone)
    one_way = [float(F.cross_entropy(scale * a @ b.T, torch.arange(6))) for a, b in ((images, texts), (texts, images))]
    if any(abs(got - half) < 1e-4 for half in one_way):
        raise AnswerError("this is one direction; take the mean of image -> text (rows) and text -> image (columns)")
    if abs(got - float(ClipLoss()(images, texts, torch.tensor(1.0)))) < 1e-4:
        raise AnswerError("the cosines are not multiplied by scale")
    if abs(got - 2 * plain) < 1e-4:
        raise AnswerError("this is the sum of both directions; take their mean")
    if abs(got - 6 * plain) < 1e-3:
        raise AnswerError("this is a sum over the pairs; take the mean")
    if abs(got - plain) > 1e-4:
        raise AnswerError(f"without repeated captions it must equal open_clip's ClipLoss, {plain:.4f}; yours gives {got:.4f}")

    texts = texts[[0, 1, 2, 3, 1, 0]]
    codes = torch.tensor([0, 1, 2, 3, 1, 0])
    same = codes[:, None] == codes[None, :]
    got = _loss(answer, images, texts, scale, same)
    if abs(got - float(ClipLoss()(images, texts, torch.tensor(scale)))) < 1e-4:
        raise AnswerError("a repeated caption still counts as a wrong answer; set those logits to -inf")
    logits = (scale * images @ texts.T).masked_fill(same & ~alone, float("-inf"))
    expected = float((F.cross_entropy(logits, torch.arange(6)) + F.cross_entropy(logits.T, torch.arange(6))) / 2)
    if abs(got - expected) > 1e-4:
        raise AnswerError(f"with two captions that come twice it should be {expected:.4f}; yours gives {got:.4f}")


def _loss(answer: Callable, images: Tensor, texts: Tensor, scale: float, same: Tensor) -> float:
    given = answer(images.clone(), texts.clone(), scale, same.clone())
    if given is None:
        raise AnswerError("your function returns nothing; end it with `return ...`")
    if not isinstance(given, Tensor) or given.numel() != 1:
        raise AnswerError("return one number as a torch tensor: the mean loss of the batch")
    if not torch.isfinite(given):
        raise AnswerError("the loss is not finite: the diagonal (a pair itself) must stay; "
                          "leave out same captions *off* the diagonal")
    return float(given)


@exercise("1.2")
def all_prompts_score(answer: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> None:
    """``answer(image, positive, negative, scale)``: probabilities ``(n,)`` with every prompt a class of its own."""
    images, scale = _directions(5, 8, 3), 10.0
    positive, negative = _directions(4, 8, 4), _directions(2, 8, 5)
    given = answer(images.clone(), positive.clone(), negative.clone(), scale)
    if not isinstance(given, Tensor) or given.shape != (5,):
        told = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise AnswerError(f"return a tensor of shape (n,), one probability a film; got {told}")
    up, down = (scale * images @ side.T for side in (positive, negative))
    ratio = up.exp().mean(1) / (up.exp().mean(1) + down.exp().mean(1))
    if torch.allclose(given, ratio, atol=1e-5):
        return
    if torch.allclose(given, 1 - ratio, atol=1e-5):
        raise AnswerError("this is the probability of the negative side")
    if torch.allclose(given, torch.cat([up, down], dim=1).softmax(dim=1)[:, :4].sum(dim=1), atol=1e-5):
        raise AnswerError("the side with more prompts wins by number alone: take the mean of each side, not the sum")
    unscaled = [(images @ side.T).exp().mean(1) for side in (positive, negative)]
    if torch.allclose(given, unscaled[0] / (unscaled[0] + unscaled[1]), atol=1e-5):
        raise AnswerError("the cosines are not multiplied by scale")
    if torch.allclose(given, torch.sigmoid(up.mean(1) - down.mean(1)), atol=1e-5):
        raise AnswerError("this averages the logits, inside the exponential; average exp(logit) of each side")
    if not ((given >= 0) & (given <= 1)).all():
        raise AnswerError("these are no probabilities; divide the positive side by the sum of both sides")
    raise AnswerError(f"for the first film it should be {ratio[0]:.4f}, yours gives {given[0]:.4f}")


@exercise("1.3")
def better_prompts(answer: ClassPrompts) -> None:
    """A :class:`ClassPrompts` whose two sides say different things."""
    if not isinstance(answer, ClassPrompts):
        raise AnswerError(f"give a ClassPrompts(positive=(...), negative=(...)), not {type(answer).__name__}")
    sides = [{" ".join(t.lower().split()) for t in side} for side in (answer.positive, answer.negative)]
    if both := sides[0] & sides[1]:
        raise AnswerError(f"{sorted(both)[0]!r} stands on both sides; a prompt must speak for one of them")
    if min(len(side) for side in sides) < 2:
        raise AnswerError("one side is a single sentence; an ensemble has at least two different ones on each side")
