# %% [markdown]
# # 09 The adaptation tasks: cross-domain, in-domain, label budgets: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [09 The adaptation tasks](../09_adaptation_tasks.ipynb). Others are as
# good, as long as the check says "right".

# %%
# {{SETUP}}

# %%
import numpy as np
from sklearn.metrics import roc_auc_score

from medbridge.course import check

# %% [markdown]
# ### Exercise 9.1: pair the labels
# Look up *both* names: whichever side has the unusual one, the finding is what is compared. The names that
# are returned are the benchmarks' own, because these are the columns of the model and of the test table.

# %%
def shared_pairs(train, test, same):
    own_name = {same.get(name, name): name for name in test}
    return [(name, own_name[same.get(name, name)]) for name in train if same.get(name, name) in own_name]


check("9.1", shared_pairs)

# %% [markdown]
# ### Exercise 9.2: how many patients does a rare finding ask for?
# All $n$ patients lack the finding with probability $(1 - p)^n$. This must be at most $1 - c$:
#
# $$(1 - p)^n \le 1 - c \iff n \ge \frac{\log(1 - c)}{\log(1 - p)}$$
#
# The inequality turns because $\log(1 - p)$ is negative.

# %%
def patients_needed(prevalence, sure):
    exact = np.log(1 - sure) / np.log(1 - prevalence)
    return int(np.ceil(exact - 1e-9))  # 1e-9: 2.0000000001 patients are 2


check("9.2", patients_needed)

# %% [markdown]
# For findings as common as some of NIH ChestX-ray14's, from common to rare:

# %%
for prevalence in (0.1, 0.05, 0.01, 0.002):
    print(f"{100 * prevalence:4.1f} % of the patients: {patients_needed(prevalence, 0.95):5d} patients, to be 95 % sure of one positive")

# %% [markdown]
# ### Exercise 9.3: a paired gap
# One draw of patients serves both models. A patient that is drawn twice brings its films twice. A draw in
# which all films are of one class has no AUC, so it says nothing.

# %%
def paired_gap(y, home, away, patients, n_boot, rng):
    films_of = [np.flatnonzero(patients == p) for p in np.unique(patients)]
    gaps = []
    for _ in range(n_boot):
        rows = np.concatenate([films_of[i] for i in rng.integers(len(films_of), size=len(films_of))])
        if 0 < y[rows].sum() < len(rows):
            gaps.append(roc_auc_score(y[rows], home[rows]) - roc_auc_score(y[rows], away[rows]))
    low, high = np.percentile(gaps, [2.5, 97.5])
    return roc_auc_score(y, home) - roc_auc_score(y, away), low, high


check("9.3", paired_gap)
