# %% [markdown]
# # 13 Beyond the paper: solutions
#
# {{COLAB}}
#
# Solutions of the exercises in [13_beyond_the_paper.ipynb](../13_beyond_the_paper.ipynb), with comments. Try
# them yourself first.

# %%
# {{SETUP}}

# %%
import numpy as np

from medbridge.course import check

# %% [markdown]
# ### Exercise 13.1: how much do two films share?
# What is unknown of one film is left out for both. Absences do not count: nearly all findings are absent of
# nearly all films.

# %%
def overlap(a, b):
    known = ~np.isnan(a) & ~np.isnan(b)
    a, b = a[known], b[known]
    either = ((a + b) > 0).sum()
    return (a * b).sum() / either if either else 1.0


check("13.1", overlap)

# %% [markdown]
# ### Exercise 13.2: the nearest films of other patients
# Minus infinity keeps the row numbers those of the archive; deleting rows would shift them.

# %%
def nearest(query, patient, vectors, patients, k):
    cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    cosine[patients == patient] = -np.inf
    return np.argsort(-cosine)[:k]


check("13.2", nearest)

# %% [markdown]
# Why the rule about patients? Here films look like their patient (anatomy), and only a little like their
# finding. Without the rule the neighbour is nearly always the same patient, and since findings persist it
# seems to be good evidence:

# %%
rng = np.random.default_rng(0)
person = np.repeat(rng.normal(size=(100, 8)), 2, axis=0)  # 100 patients with two films each
finding = np.repeat(rng.random(100) < 0.3, 2)
vectors = person + 0.3 * rng.normal(size=(200, 8))
patients = np.repeat(np.arange(100), 2)
for name, own in (("own films allowed", np.arange(200)), ("own films left out", patients)):
    hits = [finding[nearest(vectors[i], own[i], vectors, own, 1)[0]] for i in np.flatnonzero(finding)]
    print(f"{name:<19} the nearest film has the finding too: {np.mean(hits):.2f}; chance {finding.mean():.2f}")

# %% [markdown]
# ### Exercise 13.3: choose the threshold
# Only the values of |d| matter: between two of them no answer changes.

# %%
def best_threshold(d, change):
    def mean_recall(t):
        answer = np.sign(d) * (np.abs(d) > t)
        return np.mean([(answer == c)[change == c].mean() for c in (-1, 0, 1)])

    tried = np.append(0.0, np.abs(d))
    return tried[np.argmax([mean_recall(t) for t in tried])]


check("13.3", best_threshold)
