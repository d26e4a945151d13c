"""Checks of notebook 04: one softmax over two kinds of tokens, values that are never formed, pooling of padded views."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from medbridge.course.exercises import Answer, exercise


@exercise("4.1")
def joint_attention(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(0)
    q, k_own, v_own = (torch.randn(3, 4, generator=rng) for _ in range(3))
    k_map, v_map = (torch.randn(5, 4, generator=rng) for _ in range(2))
    keys, values = torch.cat([k_own, k_map]), torch.cat([v_own, v_map])
    scores, own, mapped = q @ keys.T / 2, q @ k_own.T / 2, q @ k_map.T / 2
    two = own.softmax(-1) @ v_own + mapped.softmax(-1) @ v_map
    answer.judge((q, k_own, v_own, k_map, v_map), scores.softmax(-1) @ values, rtol=1e-4, atol=1e-5, two=two, mean_of_two=two / 2,
                 no_root=(q @ keys.T).softmax(-1) @ values, by_width=(q @ keys.T / 4).softmax(-1) @ values,
                 over_queries=scores.softmax(0) @ values, no_own=mapped.softmax(-1) @ v_map,
                 no_own_values=scores.softmax(-1)[:, 3:] @ v_map, no_frozen=own.softmax(-1) @ v_own, no_softmax=scores @ values)


@exercise("4.2")
def folded_values(answer: Answer) -> None:
    rng = torch.Generator().manual_seed(1)
    queries, tokens, dim, width = 4, 512, 32, 64
    a = 0.7 * torch.randn(queries, tokens, generator=rng).softmax(-1)  # the other queries got the rest
    x, weight, bias = (torch.randn(*s, generator=rng) for s in ((tokens, dim), (width, dim), (width,)))
    plain = a @ x @ weight.T
    answer.judge((a, x, weight, bias), a @ (x @ weight.T + bias), rtol=1e-4, atol=1e-5, no_bias=plain, whole_bias=plain + bias,
                 one_factor=plain + bias * a.sum(), mean_of_row=plain + bias * a.mean(-1, keepdim=True))
    with FlopCounterMode(display=False) as counter:
        answer.ask(a, x, weight, bias, shape=(queries, width))
    products = counter.get_total_flops() // 2
    answer.refuse({"products": products, "tokens": tokens, "width": width}, formed=products >= tokens * dim * width)


@exercise("4.3")
def pool_views(answer: Answer) -> None:
    tokens = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(2)) - 3.0  # nearly all negative
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    tokens[1, 2:] = 7.0  # what lies in padding must not matter
    real = mask[:, :, None, None]
    answer.judge((tokens, mask), tokens.masked_fill(~real, -torch.inf).amax(1), rtol=1e-4, atol=1e-5, padding=tokens.amax(1),
                 zeros=(tokens * real).amax(1), wrong_way=tokens.masked_fill(real, -torch.inf).amax(1),
                 mean=(tokens * real).sum(1) / real.sum(1), mean_of_all=tokens.mean(1))
