"""Checks of notebook 04: one softmax over two kinds of tokens, values that are never formed, pooling of padded views. [ours]"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from medbridge.course.exercises.register import Answer, ask, exercise, judge, refuse


@exercise("4.1")
def joint_attention(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k_own, v_own = (torch.randn(3, 4, generator=rng) for _ in range(3))
    k_map, v_map = (torch.randn(5, 4, generator=rng) for _ in range(2))
    keys, values = torch.cat([k_own, k_map]), torch.cat([v_own, v_map])
    scores, own, mapped = q @ keys.T / 2, q @ k_own.T / 2, q @ k_map.T / 2
    two = own.softmax(-1) @ v_own + mapped.softmax(-1) @ v_map
    judge(answer, (q, k_own, v_own, k_map, v_map), scores.softmax(-1) @ values, [
        (two, "these are two softmaxes, and each sums to 1; one softmax over all tokens lets a query choose between the kinds"),
        (two / 2, "this is the mean of two softmaxes; one softmax over all tokens lets a query choose between the kinds"),
        ((q @ keys.T).softmax(-1) @ values, "divide the scores by the square root of the head's width before the softmax"),
        ((q @ keys.T / 4).softmax(-1) @ values, "divide by the square root of the head's width, not by the width"),
        (scores.softmax(0) @ values, "the softmax runs over the tokens (the last dimension), not over the queries"),
        (mapped.softmax(-1) @ v_map, "the queries' own keys and values are left out"),
        (scores.softmax(-1)[:, 3:] @ v_map, "the own tokens are in the softmax, but their values are left out of the sum"),
        (own.softmax(-1) @ v_own, "the frozen tokens are left out"),
        (scores @ values, "the scores need a softmax before they weigh the values"),
    ], "the numbers differ; scores of all tokens side by side, one softmax, values in the same order",
        give="what each query gathers, a tensor (3, 4)", rtol=1e-4, atol=1e-5)


@exercise("4.2")
def folded_values(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(1)
    queries, tokens, dim, width = 4, 512, 32, 64
    a = 0.7 * torch.randn(queries, tokens, generator=rng).softmax(-1)  # the other queries got the rest
    x, weight, bias = (torch.randn(*s, generator=rng) for s in ((tokens, dim), (width, dim), (width,)))
    plain = a @ x @ weight.T
    judge(answer, (a, x, weight, bias), a @ (x @ weight.T + bias), [
        (plain, "the bias is missing"),
        (plain + bias, "the whole bias was added, but a row of A does not sum to 1: the other queries got the rest"),
        (plain + bias * a.sum(), "sum each row of A apart: one factor per query"),
        (plain + bias * a.mean(-1, keepdim=True), "the bias counts as often as the row of A sums to: a sum, not a mean"),
    ], "the numbers differ; gather the tokens first, A X; then the weight; then the bias times the row sums of A",
        give="what each query gathers, a tensor (4, 64)", rtol=1e-4, atol=1e-5)
    with FlopCounterMode(display=False) as counter:
        ask(answer, a, x, weight, bias, shape=(queries, width))
    products = counter.get_total_flops() // 2
    refuse((products >= tokens * dim * width, f"the numbers are right, but your products take {products:,} multiplications: "
            f"all {tokens} x {width} values were formed; multiply A and X first"))


@exercise("4.3")
def pool_views(answer: Answer) -> None:
    tokens = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(2)) - 3.0  # nearly all negative
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    tokens[1, 2:] = 7.0  # what lies in padding must not matter
    real = mask[:, :, None, None]
    judge(answer, (tokens, mask), tokens.masked_fill(~real, -torch.inf).amax(1), [
        (tokens.amax(1), "the padding of the second film won; it must never win"),
        ((tokens * real).amax(1), "padding was set to 0, and 0 beats negative numbers; it must lose against every number"),
        (tokens.masked_fill(real, -torch.inf).amax(1), "the mask is the wrong way round: True is a real view"),
        ((tokens * real).sum(1) / real.sum(1), "this is the mean over the real views; take the maximum"),
        (tokens.mean(1), "this is the mean over all views; take the maximum over the real ones"),
    ], "the numbers differ; set padding to minus infinity, then take the maximum over views",
        give="the pooled tokens, a tensor (2, 3, 5)", rtol=1e-4, atol=1e-5)
