"""Checks of notebook 00, "Start here"."""

import torch
from torch import Tensor, nn

from medbridge.course.exercises import Answer, exercise


@exercise("0.1")
def numbers_per_film(answer: Answer) -> None:
    views, rows, columns, prefix, width, depths = inputs = 10, 8, 6, 1, 16, 2
    tokens = rows * columns + prefix
    answer.judge(inputs, views * tokens * width * depths,
                 f"{views} views of {rows} x {columns} patches, {prefix} further token, width {width}, {depths} depths", rtol=0,
                 no_prefix=views * rows * columns * width * depths, no_depths=views * tokens * width,
                 no_views=tokens * width * depths, no_width=views * tokens * depths)


@exercise("0.2")
def two_expert_mixture(answer: Answer) -> None:
    logits = torch.tensor([[[2.0, -3.0, 0.5], [-1.0, 1.0, 4.0]], [[0.0, -2.0, 3.0], [-4.0, 2.5, 1.0]]])
    weights = torch.tensor([[[0.9, 0.3, 0.5], [0.1, 0.7, 0.5]], [[0.2, 0.6, 0.7], [0.8, 0.4, 0.3]]])
    mixed = (weights * logits).sum(dim=1)
    answer.judge((logits, weights), mixed.sigmoid(), kind=Tensor, atol=1e-5, logits=mixed, softmax=mixed.softmax(dim=-1),
                 mixed_probabilities=(weights * logits.sigmoid()).sum(dim=1), equal_weights=logits.mean(dim=1).sigmoid())


@exercise("0.3")
def trainable_share(answer: Answer) -> None:
    model = nn.Sequential(nn.Linear(10, 10).requires_grad_(False), nn.Linear(10, 2))
    trained, total = 22, 132
    answer.judge((model,), trained / total, f"a model with {trained} trainable of {total} parameters", rtol=0, atol=1e-6,
                 count=trained, per_cent=100 * trained / total, frozen_share=1 - trained / total,
                 of_frozen=trained / (total - trained), tensors=2 / 4, everything=1.0)
