"""Checks of notebook 00, "Start here". [ours]"""

import torch
from torch import Tensor, nn

from medbridge.course.exercises.register import Answer, exercise, judge


@exercise("0.1")
def numbers_per_film(answer: Answer) -> None:
    views, rows, columns, prefix, width, depths = inputs = 10, 8, 6, 1, 16, 2
    tokens = rows * columns + prefix
    judge(answer, inputs, views * tokens * width * depths, [
        (views * rows * columns * width * depths, "tokens before the patches (CLS) are maps too: add prefix to rows x columns"),
        (views * tokens * width, "maps of more than one depth are kept: the number of depths is missing"),
        (tokens * width * depths, "this is one view; a film has N views"),
        (views * tokens * depths, "this counts tokens; each token is a vector of `width` numbers"),
    ], case=f"{views} views of {rows} x {columns} patches, {prefix} further token, width {width}, {depths} depths", rtol=0)


@exercise("0.2")
def two_expert_mixture(answer: Answer) -> None:
    logits = torch.tensor([[[2.0, -3.0, 0.5], [-1.0, 1.0, 4.0]], [[0.0, -2.0, 3.0], [-4.0, 2.5, 1.0]]])
    weights = torch.tensor([[[0.9, 0.3, 0.5], [0.1, 0.7, 0.5]], [[0.2, 0.6, 0.7], [0.8, 0.4, 0.3]]])
    mixed = (weights * logits).sum(dim=1)
    judge(answer, (logits, weights), mixed.sigmoid(), [
        (mixed, "these are logits; a probability is their sigmoid"),
        ((weights * logits.sigmoid()).sum(dim=1), "this mixes probabilities; MedBridge mixes logits, and takes the sigmoid last"),
        (logits.mean(dim=1).sigmoid(), "this trusts all experts alike; use the router's weights"),
        (mixed.softmax(dim=-1), "a softmax lets one label win; a film may have several findings: use a sigmoid for each label"),
    ], "shapes fit, numbers do not: sigmoid of the sum over experts of weight times logit",
        give="(B, C), here (2, 3): sum over the experts, dimension 1", kind=Tensor, atol=1e-5)


@exercise("0.3")
def trainable_share(answer: Answer) -> None:
    model = nn.Sequential(nn.Linear(10, 10).requires_grad_(False), nn.Linear(10, 2))
    trained, total = 22, 132
    judge(answer, (model,), trained / total, [
        (trained, "this is the number of trainable parameters; divide it by the number of all parameters"),
        (100 * trained / total, "this is in per cent; give a share between 0 and 1"),
        (1 - trained / total, "this is the frozen share; requires_grad is True for what is trained"),
        (trained / (total - trained), "divide by all parameters, not by the frozen ones"),
        (2 / 4, "this counts tensors; count the numbers in them with p.numel()"),
        (1.0, "this counts everything as trained; look at p.requires_grad"),
    ], case=f"a model with {trained} trainable of {total} parameters", rtol=0, atol=1e-6)
