# %% [markdown]
# # Solutions of notebook 10
#
# {{COLAB}}
#
# One way to solve each exercise of [10 Ablations](../10_ablations.ipynb). Others are as good, as long as the
# check says "right".

# %%
# {{SETUP}}

# %%
import math

import numpy as np
from sklearn.metrics import roc_auc_score

from medbridge.course import check

# %% [markdown]
# ### Exercise 10.1: how many trainings?
# One factor at a time: one default, shared by all factors, and each level that is not the default's. A
# factorial: one cell for every combination. We train each cell once per seed. With $n_f$ levels of factor
# $f$:
#
# $$\text{one at a time} = \text{seeds} \cdot \Big(1 + \sum_f (n_f - 1)\Big), \qquad
#   \text{factorial} = \text{seeds} \cdot \prod_f n_f$$

# %%
def trainings(levels, seeds):
    return seeds * (1 + sum(n - 1 for n in levels)), seeds * math.prod(levels)


check("10.1", trainings)

# %% [markdown]
# ### Exercise 10.2: Holm's correction
# Compare the smallest of $J$ p-values with $\alpha / J$. If it passes, only $J - 1$ hypotheses are still
# open, so compare the next with $\alpha / (J - 1)$, and so on; at the first that fails, all others fail too.
# Turned around, this multiplies the $i$-th smallest by $J - i + 1$ and takes the running maximum.

# %%
def holm_adjusted(p):
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, steps)
    return adjusted


check("10.2", holm_adjusted)

# %% [markdown]
# ### Exercise 10.3: an interaction with its interval
# The value is a difference of differences. All four models are scored on the same draw of patients, so
# whatever makes a draw easy for all of them cancels.

# %%
def interaction(y, scores, patients, n_boot, rng):
    def effect(rows):
        a = [[roc_auc_score(y[rows], s[rows]) for s in row] for row in scores]
        return (a[1][1] - a[0][1]) - (a[1][0] - a[0][0])

    films_of = [np.flatnonzero(patients == p) for p in np.unique(patients)]
    draws = []
    for _ in range(n_boot):
        rows = np.concatenate([films_of[i] for i in rng.integers(len(films_of), size=len(films_of))])
        if 0 < y[rows].sum() < len(rows):
            draws.append(effect(rows))
    low, high = np.percentile(draws, [2.5, 97.5])
    return effect(np.arange(len(y))), low, high


check("10.3", interaction)
