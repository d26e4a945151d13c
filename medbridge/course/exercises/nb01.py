"""Checks of notebook 01, "Vision-language models and zero-shot". [ours]"""

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from medbridge.course.exercises.register import Answer, AnswerError, ask, compare, exercise, refuse
from medbridge.prompts import ClassPrompts


def _directions(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@exercise("1.1")
def info_nce_repeats(answer: Answer) -> None:
    images, texts, scale, pairs = _directions(6, 8, 1), _directions(6, 8, 2), 5.0, torch.arange(6)

    def loss(texts: Tensor, same: Tensor) -> float:
        got = ask(answer, images, texts, scale, same, kind=Tensor, give="one number, a tensor: the mean loss of the batch")
        refuse((not np.isfinite(got), "the loss is not finite: the diagonal (a pair itself) must stay, only others go"))
        return got

    def clip(texts: Tensor, scale: float = scale) -> float:
        return float(ClipLoss()(images, texts, torch.tensor(scale)))

    alone, plain = torch.eye(6, dtype=torch.bool), clip(texts)
    one_way = "this is one direction; take the mean of image -> text (rows) and text -> image (columns)"
    compare(loss(texts, alone), plain, [
        (F.cross_entropy(scale * images @ texts.T, pairs), one_way),
        (F.cross_entropy(scale * texts @ images.T, pairs), one_way),
        (clip(texts, 1.0), "the cosines are not multiplied by scale"),
        (2 * plain, "this is the sum of both directions; take their mean"),
        (6 * plain, "this is a sum over the pairs; take the mean"),
    ], case="without repeated captions it must equal open_clip's ClipLoss", atol=1e-4)
    codes = torch.tensor([0, 1, 2, 3, 1, 0])
    texts, same = texts[codes], codes[:, None] == codes[None, :]
    logits = (scale * images @ texts.T).masked_fill(same & ~alone, float("-inf"))
    compare(loss(texts, same), (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2,
            [(clip(texts), "a repeated caption still counts as a wrong answer; set those logits to -inf")],
            case="with two captions that come twice", atol=1e-4)


@exercise("1.2")
def all_prompts_score(answer: Answer) -> None:
    images, positive, negative, scale = _directions(5, 8, 3), _directions(4, 8, 4), _directions(2, 8, 5), 10.0
    up, down = (scale * images @ side.T for side in (positive, negative))
    ratio = up.exp().mean(1) / (up.exp().mean(1) + down.exp().mean(1))
    unscaled = [(images @ side.T).exp().mean(1) for side in (positive, negative)]
    got = ask(answer, images, positive, negative, scale, shape=(5,), kind=Tensor, give="a tensor of shape (n,), one per film")
    compare(got, ratio, [
        (1 - ratio, "this is the probability of the negative side"),
        (torch.cat([up, down], dim=1).softmax(dim=1)[:, :4].sum(dim=1),
         "the side with more prompts wins by number alone: take the mean of each side, not the sum"),
        (unscaled[0] / (unscaled[0] + unscaled[1]), "the cosines are not multiplied by scale"),
        (torch.sigmoid(up.mean(1) - down.mean(1)), "this averages the logits inside the exponential; average exp(logit)"),
        (not ((got >= 0) & (got <= 1)).all(), "these are no probabilities; divide the positive side by the sum of both sides"),
    ], case="for the first films", atol=1e-5)


@exercise("1.3")
def better_prompts(answer: ClassPrompts) -> None:
    if not isinstance(answer, ClassPrompts):
        raise AnswerError(f"give a ClassPrompts(positive=(...), negative=(...)), not {type(answer).__name__}")
    sides = [{" ".join(t.lower().split()) for t in side} for side in (answer.positive, answer.negative)]
    refuse(*((True, f"{text!r} stands on both sides; a prompt speaks for one of them") for text in sorted(sides[0] & sides[1])),
           (min(map(len, sides)) < 2, "one side is a single sentence; an ensemble has at least two different ones on each side"))
