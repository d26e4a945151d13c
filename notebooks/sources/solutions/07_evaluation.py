# %% [markdown]
# # 07 Evaluation done right: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [07 Evaluation done right](../07_evaluation.ipynb). Others are as good, as
# long as the check says "right".

# %%
# {{SETUP}}

# %%
import numpy as np
from sklearn.metrics import roc_auc_score

from medbridge.course import check

# %% [markdown]
# ### Exercise 7.1: the mean that may be reported
# A label without both classes is left out, and the count says so.

# %%
def macro_auc(y, scores, mask):
    found = []
    for c in range(y.shape[1]):
        known = mask[:, c]
        if len(np.unique(y[known, c])) == 2:
            found.append(roc_auc_score(y[known, c], scores[known, c]))
    return (np.mean(found), len(found)) if found else (np.nan, 0)


check("7.1", macro_auc)

# %% [markdown]
# ### Exercise 7.2: a threshold that keeps its promise
# Specificity can only rise with the threshold, so the first that is good enough is the lowest. (1e-12: 0.9 is
# not exactly nine tenths in floating point.)

# %%
def threshold_for(y, scores, specificity):
    negatives = scores[y == 0]
    for threshold in np.unique(scores):  # sorted
        if (negatives < threshold).mean() >= specificity - 1e-12:
            return threshold
    return np.inf


check("7.2", threshold_for)

# %% [markdown]
# Does it keep its promise on other films? On average nearly, film by film not exactly: with $n$ negatives the
# specificity on new films has a standard deviation of about $\sqrt{0.9 \cdot 0.1 (1/n + 1/n')}$.

# %%
rng, kept = np.random.default_rng(0), []
for _ in range(400):
    y = (np.arange(200) < 40).astype(float)
    threshold = threshold_for(y, rng.normal(y, 1), 0.9)
    kept.append((rng.normal(y, 1)[y == 0] < threshold).mean())
print(f"specificity on new films: mean {np.mean(kept):.2f}, standard deviation {np.std(kept):.2f}")

# %% [markdown]
# ### Exercise 7.3: Holm's correction
# The running maximum keeps the order: a larger p-value may not become a smaller adjusted one.

# %%
def holm(p_values):
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    steps = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, steps)
    return adjusted


check("7.3", holm)

# %% [markdown]
# ### Exercise 7.4: the miss rate of every group
# Of the films that are known to be positive, those that are predicted negative. A group without any has no
# rate, and certainly not the rate 0.

# %%
def miss_rates(y, p, mask, group, threshold):
    rates = {}
    for name in np.unique(group):
        sick = (group == name) & mask & (y == 1)
        rates[name] = float((p[sick] < threshold).mean()) if sick.any() else float("nan")
    return rates


check("7.4", miss_rates)
