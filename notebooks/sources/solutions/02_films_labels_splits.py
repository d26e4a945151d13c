# %% [markdown]
# # 02 Chest films, labels, patients and splits: solutions
#
# {{COLAB}}
#
# One way to solve each exercise of [02 Chest films, labels, patients and splits](../02_films_labels_splits.ipynb). Others are as
# good, as long as the check says "right".

# %%
# {{SETUP}}

# %%
import numpy as np

from medbridge.course import check

# %% [markdown]
# ### Exercise 2.1: masked prevalence
# Positives over known films, label by label. `where=` leaves a label of which nothing is known at NaN.

# %%
def masked_prevalence(values):
    known = ~np.isnan(values)
    positive = np.where(known, values, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(positive, count, out=np.full(values.shape[1], np.nan), where=count > 0)


check("2.1", masked_prevalence)

# %% [markdown]
# ### Exercise 2.2: patients in two splits
# `nunique` counts different values, so two films in the same split count once.

# %%
def patients_in_two_splits(table):
    splits = table.groupby("patient_id")["split"].nunique()
    return sorted(splits.index[splits > 1])


check("2.2", patients_in_two_splits)

# %% [markdown]
# ### Exercise 2.3: AUC by pairs, with ties
# Broadcasting builds all pairs at once; that is $n_+ n_-$ numbers, which is fine for thousands of films. The package sorts
# instead, which needs $n \log n$ steps.

# %%
def auc_by_pairs(y, scores):
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return np.mean((difference > 0) + 0.5 * (difference == 0)) if difference.size else np.nan


check("2.3", auc_by_pairs)
