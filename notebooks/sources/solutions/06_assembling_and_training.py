# %% [markdown]
# # 06 Assembling and training: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [06 Assembling and training](../06_assembling_and_training.ipynb). Others are as good, as long as the
# check says "right".

# %%
# {{SETUP}}

# %%
import math

import numpy as np
import torch

from medbridge.course import check
from medbridge.losses import masked_bce

# %% [markdown]
# ### Exercise 6.1: the gradient by hand
# With $p = \sigma(z)$ we have $\partial p / \partial z = p (1 - p)$, so
#
# $$\frac{\partial \ell}{\partial z} = \left(-\frac{y}{p} + \frac{1 - y}{1 - p}\right) p (1 - p) = p - y,
# \qquad \frac{\partial L}{\partial z_{ic}} = \frac{m_{ic}\,(p_{ic} - y_{ic})}{\sum m}$$

# %%
def loss_gradient(z, y, mask):
    p = 1 / (1 + np.exp(-z))
    return np.where(mask, p - y, 0.0) / max(1, mask.sum())


check("6.1", loss_gradient)

# %% [markdown]
# PyTorch says the same:

# %%
rng = np.random.default_rng(0)
z, y, mask = rng.standard_normal((5, 3)), (rng.random((5, 3)) < 0.5).astype(float), rng.random((5, 3)) < 0.7
logits = torch.tensor(z, requires_grad=True)
masked_bce(logits, torch.tensor(y), torch.tensor(mask)).backward()
np.testing.assert_allclose(loss_gradient(z, y, mask), logits.grad.numpy())

# %% [markdown]
# ### Exercise 6.2: the schedule
# $(t + 1)/r$, not $t/r$: a first step at rate zero would change nothing.

# %%
def rate(t, steps, u):
    r = max(1, int(u * steps))
    if t < r:
        return (t + 1) / r
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (t - r) / max(1, steps - r)))


check("6.2", rate)

# %% [markdown]
# ### Exercise 6.3: early stopping
# The loop may only know what has happened so far. `max(aucs)` would look into a future that is never trained.

# %%
def early_stopping(aucs, patience):
    best = 0
    for epoch, value in enumerate(aucs):
        if value > aucs[best]:
            best = epoch
        if epoch - best >= patience:
            break
    return best, epoch + 1


check("6.3", early_stopping)
