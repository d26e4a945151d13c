"""Checks of notebook 01, "Vision-language models and zero-shot"."""

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from torch import Tensor

from medbridge.course.exercises import Answer, exercise
from medbridge.prompts import ClassPrompts


def _directions(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@exercise("1.1")
def info_nce_repeats(answer: Answer) -> None:
    images, texts, scale, pairs = _directions(6, 8, 1), _directions(6, 8, 2), 5.0, torch.arange(6)

    def loss(texts: Tensor, same: Tensor) -> float:
        got = answer.ask(images, texts, scale, same, kind=Tensor)
        answer.refuse(infinite=not np.isfinite(got))
        return got

    def clip(texts: Tensor, scale: float = scale) -> float:
        return float(ClipLoss()(images, texts, torch.tensor(scale)))

    alone, plain = torch.eye(6, dtype=torch.bool), clip(texts)
    answer.compare(loss(texts, alone), plain, "without repeated captions it must equal open_clip's ClipLoss", atol=1e-4,
                   rows=F.cross_entropy(scale * images @ texts.T, pairs), no_scale=clip(texts, 1.0), both=2 * plain,
                   columns=F.cross_entropy(scale * texts @ images.T, pairs), summed=6 * plain)
    codes = torch.tensor([0, 1, 2, 3, 1, 0])
    texts, same = texts[codes], codes[:, None] == codes[None, :]
    logits = (scale * images @ texts.T).masked_fill(same & ~alone, float("-inf"))
    answer.compare(loss(texts, same), (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2,
                   "with two captions that come twice", atol=1e-4, repeats_count=clip(texts))


@exercise("1.2")
def all_prompts_score(answer: Answer) -> None:
    images, positive, negative, scale = _directions(5, 8, 3), _directions(4, 8, 4), _directions(2, 8, 5), 10.0
    up, down = (scale * images @ side.T for side in (positive, negative))
    ratio = up.exp().mean(1) / (up.exp().mean(1) + down.exp().mean(1))
    unscaled = [(images @ side.T).exp().mean(1) for side in (positive, negative)]
    got = answer.ask(images, positive, negative, scale, shape=(5,), kind=Tensor)
    answer.compare(got, ratio, "for the first films", atol=1e-5, negative_side=1 - ratio,
                   summed=torch.cat([up, down], dim=1).softmax(dim=1)[:, :4].sum(dim=1),
                   no_scale=unscaled[0] / (unscaled[0] + unscaled[1]), mean_of_logits=torch.sigmoid(up.mean(1) - down.mean(1)),
                   no_probabilities=not ((got >= 0) & (got <= 1)).all())


@exercise("1.3")
def better_prompts(answer: Answer) -> None:
    given = answer.given
    answer.refuse({"kind": type(given).__name__}, no_prompts=not isinstance(given, ClassPrompts))
    sides = [{" ".join(text.lower().split()) for text in side} for side in (given.positive, given.negative)]
    on_both = sorted(sides[0] & sides[1])
    answer.refuse({"texts": on_both}, on_both_sides=on_both, single=min(map(len, sides)) < 2)
