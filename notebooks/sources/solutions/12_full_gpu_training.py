# %% [markdown]
# # Solutions of notebook 12
#
# {{COLAB}}
#
# One way to solve each exercise of [12 Full training on a GPU](../12_full_gpu_training.ipynb). Others are as good, as long as the
# check says "right".

# %%
# {{SETUP}}

# %%
import copy

import numpy as np

from medbridge.course import check

# %% [markdown]
# ### Exercise 12.1: the size of a cache
# Two bytes per number, and every view of every film has the maps of all depths.

# %%
def cache_gigabytes(films, views, maps):
    return 2 * films * views * sum(tokens * width for tokens, width in maps) / 1e9


check("12.1", cache_gigabytes)

# %% [markdown]
# NIH ChestX-ray14 with ten views and two depths of a ViT-S/14, tokens as they are. Compact maps have 64 patches beside the class token,
# 128 components, and half the bytes per number:

# %%
print(f"{cache_gigabytes(112_120, 10, [(257, 384)] * 2):.0f} GB as they are, "
      f"{cache_gigabytes(112_120, 10, [(65, 128)] * 2) / 2:.0f} GB compact")

# %% [markdown]
# ### Exercise 12.2: the weights of the parts
# A masked mean counts every known label alike, so a part counts as many as it holds. Without a known label in the step, the loss and all
# weights are zero.

# %%
def part_weights(mask, parts):
    known = mask[np.concatenate(parts)].sum()
    return [mask[part].sum() / max(known, 1) for part in parts]


check("12.2", part_weights)

# %% [markdown]
# ### Exercise 12.3: a snapshot that forgets nothing
# Weights alone are not enough: without the momentum the next step is another, without the step's number the rate is another, and
# without the generator's state dropout hits other weights. The copy matters because `advance` changes arrays in place.

# %%
def save(walk):
    return copy.deepcopy({"weights": walk.weights, "momentum": walk.momentum, "step": walk.step,
                          "rng": walk.rng.bit_generator.state})


def load(walk, state):
    state = copy.deepcopy(state)
    walk.weights, walk.momentum, walk.step = state["weights"], state["momentum"], state["step"]
    walk.rng.bit_generator.state = state["rng"]


check("12.3", (save, load))
