# %% [markdown]
# # 08 Baselines: what would you use instead?: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [08 Baselines](../08_baselines.ipynb). Others are as good, as long as the
# check says "right".

# %%
# {{SETUP}}

# %%
import numpy as np
import torch

from medbridge.course import check

# %% [markdown]
# ### Exercise 8.1: Tip-Adapter for many labels
# `clamp(min=1)` is safe: where a count is 0 there is nothing to divide, and elsewhere it is at least 1.

# %%
def tip_logits(f, keys, y, mask, zero_shot, alpha, beta):
    present, absent = y * mask, (1 - y) * mask
    values = present / present.sum(0).clamp(min=1) - absent / absent.sum(0).clamp(min=1)
    affinity = torch.exp(-beta * (1 - f @ keys.T))
    return zero_shot + alpha * affinity @ values


check("8.1", tip_logits)

# %% [markdown]
# ### Exercise 8.2: what does LoRA cost?
# $W_\text{down}$ has one row per direction of the rank and one column per input; $W_\text{up}$ has one row
# per output and one column per direction. A convolution is a linear layer whose inputs are the whole window.

# %%
def lora_parameters(shape, rank):
    outputs, inputs = shape[0], int(np.prod(shape[1:]))
    return rank * (inputs + outputs)


check("8.2", lora_parameters)

# %% [markdown]
# ### Exercise 8.3: which of these let test films in?
# - **B** and **E** choose by test AUC, one the epoch, one the setting.
# - **D** learns a mean and a deviation from test films. It is a small leak, and a leak.
# - **G** lets the model learn from patients on whom we test it.
# - **F** is *unfair*: 400 tries against three. But no test film is used. **A**, **C** and **H** are fair.

# %%
leaking = {"B", "D", "E", "G"}
check("8.3", leaking)

# %% [markdown]
# ### Exercise 8.4: the honest score

# %%
def honest_score(val, test):
    return float(test[np.arange(len(val)), val.argmax(axis=1)].mean())


check("8.4", honest_score)
