# %% [markdown]
# # 11 What did it look at?: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [11 What did it look at?](../11_what_did_it_look_at.ipynb). Others are as
# good, as long as the check says "right".

# %%
# {{SETUP}}

# %%
import numpy as np

from medbridge.course import check

# %% [markdown]
# ### Exercise 11.1: how much of the heat is inside?
# Under a random circular shift, each cell's heat lands anywhere with equal probability, so the expected share
# inside is the boxes' share of the film: the same chance level as the pointing game's, and no threshold is
# needed.

# %%
def heat_inside(heat, inside):
    return heat[inside].sum() / heat.sum() if heat.sum() > 0 else np.nan


check("11.1", heat_inside)

# %% [markdown]
# ### Exercise 11.2: other patients' maps
# Two films of one patient show the same chest, so the second film's map is no stranger's. Were it left in,
# the comparison would be too strict.

# %%
def others_hits(heats, masks, patients):
    out = np.full(len(heats), np.nan)
    for i in range(len(heats)):
        strangers = np.flatnonzero(patients != patients[i])
        if len(strangers):
            out[i] = np.mean([masks[i][heats[j] == heats[j].max()].mean() for j in strangers])
    return out


check("11.2", others_hits)

# %% [markdown]
# ### Exercise 11.3: take an expert out
# Dropping row $k$ and scaling the rest is what a softmax over the remaining experts gives:
# $e^{r_j} / \sum_{i \neq k} e^{r_i} = g_j / (1 - g_k)$.

# %%
def without_expert(weights, logits, k):
    kept, left = np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)
    return (kept / kept.sum(axis=0) * left).sum(axis=0)


check("11.3", without_expert)
