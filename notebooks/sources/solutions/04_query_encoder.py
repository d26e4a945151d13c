# %% [markdown]
# # 04 Query Encoder: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [04 Query Encoder](../04_query_encoder.ipynb). Others are as good, as long as the check
# says "right".

# %%
# {{SETUP}}

# %%
import torch
from torch.utils.flop_counter import FlopCounterMode

from medbridge.course import check, seed_everything

rng = seed_everything(0)

# %% [markdown]
# ### Exercise 4.1: one softmax, not two
# Keys of both kinds stand one below the other, so one row of scores holds both, and one softmax shares the attention out.

# %%
def joint_attention(q, k_own, v_own, k_map, v_map):
    keys, values = torch.cat([k_own, k_map]), torch.cat([v_own, v_map])
    a = (q @ keys.T / q.shape[-1] ** 0.5).softmax(-1)
    return a @ values


check("4.1", joint_attention)

# %% [markdown]
# ### Exercise 4.2: fold the values
# For one query $\sum_p a_p (W x_p + b) = W \sum_p a_p x_p + b \sum_p a_p$. The weight comes out of the sum, and the bias
# counts as often as the row sums to.

# %%
def folded_values(a, x, weight, bias):
    return (a @ x) @ weight.T + a.sum(-1, keepdim=True) * bias


check("4.2", folded_values)

# %% [markdown]
# What does it save for a map of ViT-B/16 (197 tokens of width 768), eight queries, one head of width 32?

# %%
a, x, weight, bias = torch.rand(8, 197), torch.rand(197, 768), torch.rand(32, 768), torch.rand(32)
for name, f in (("values formed", lambda: a @ (x @ weight.T + bias)), ("folded", lambda: folded_values(a, x, weight, bias))):
    with FlopCounterMode(display=False) as counter:
        f()
    print(f"{name:<13} {counter.get_total_flops() // 2:>9,} multiplications")

# %% [markdown]
# ### Exercise 4.3: pool padded views
# Minus infinity loses against every number. Zero would win against negative ones.

# %%
def pool_views(tokens, view_mask):
    return tokens.masked_fill(~view_mask[:, :, None, None], -torch.inf).amax(dim=1)


check("4.3", pool_views)
