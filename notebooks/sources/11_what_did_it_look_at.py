# %% [markdown]
# # 11 What did it look at?
#
# {{COLAB}}
#
# **What you will build:** the picture that every talk about medical AI shows, a heat map over a film, from
# its four ingredients; and the tests that such pictures rarely get. Do the maps fall on the finding more
# often than chance, and than *another patient's* map? Does an untrained network point there too?
#
# - **Prerequisites:** notebooks [00](00_start_here.ipynb), [02](02_films_labels_splits.ipynb) (intervals) and
#   [03](03_focal_sampling.ipynb) (views); Query Encoder and mixture (notebooks 04 and 05) help.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores
#   the first time. On a Colab T4 about the same (an estimate).
# - **Modules:** `medbridge/explain/attention.py`, `medbridge/explain/localisation.py` · **test:**
#   `tests/explain/test_localisation.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), for the parts. All tests here are
#   **[ours]**, after the works that each section names.
#
# For research and education, not for clinical use. Every film of the default profile is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from scipy.special import expit
from scipy.stats import spearmanr

from medbridge import FeatureCache, MedBridge, load_adapter, load_benchmark, paired_difference
from medbridge.course import check, full_profile, seed_everything
from medbridge.explain.attention import explain
from medbridge.predict import predict
from medbridge.viz import plots, widgets
from medbridge.viz.charts import points
from medbridge.viz.drawing import true_boxes

rng = seed_everything(0)

# %% [markdown]
# ## 1. The heat map from scratch
#
# The shipped adapter has two tiny experts and learned from synthetic films. It is one network without a
# read-out, so its scores come from the queries alone. (A read-out has no attention to show.) We look at
# **test** films. The program that drew them knows where each finding is; the model has never seen a box.

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
films = load_benchmark("phantom", n_films=900 if full_profile() else 360).split("test")

# %%
assert films.synthetic and len(model.members) == 1 and model.readout is None
present = (films.table[list(films.labels)] == 1).sum()
print(f"{films.name}: {len(films)} test films of {films.table['patient_id'].nunique()} patients, {len(films.boxes)} boxes")
print(", ".join(f"{label} {count}" for label, count in present.items()))

# %%
LABEL = "Pneumonia"
chosen = int(np.flatnonzero(films.table[LABEL] == 1)[0])  # the first that has it, not the prettiest
e = explain(model, films.read(chosen))
print(f"film {chosen}: {len(e.boxes)} views, {len(e.experts)} experts, attention (N, Q, rows, columns) of the last layer:",
      " and ".join(str(a.shape) for a in e.attention))

# %% [markdown]
# MedBridge has no map of its own. It has $K$ experts, $N$ views, $Q$ queries, and after each query layer an
# attention $A_{knq}(p)$: the share of its softmax that query $q$ of expert $k$ puts on patch $p$ of view $n$.
# Three more numbers say what becomes of it:
#
# - $a_{kcq}$: how much label $c$ reads query $q$ (a softmax over the queries and the frozen token);
# - $s_{kn}$: the share of the pooled numbers that view $n$ won in the maximum over views;
# - $g_{kc}$: the router's weight of expert $k$ for label $c$.
#
# The map is their product, laid back over the film **[ours]**:
#
# $$h_c(x) \;\propto\; \sum_{k} g_{kc} \sum_{n:\,x \in \text{view } n} s_{kn}\; \frac{1}{|\text{view } n|}
#   \sum_q a_{kcq}\, A_{knq}\big(p_n(x)\big).$$
#
# $p_n(x)$ is the patch of view $n$ that shows the place $x$. The factor $1/|\text{view } n|$ makes it a
# *density*: the same attention on a window of a quarter of the film is four times as bright. Between patch
# centres we interpolate.

# %%
def my_heatmap(e, label, side=256):
    """For square films. (The package also handles the whole view of a film that is not square, which reaches past it.)"""
    c, heat = e.labels.index(label), np.zeros((side, side))
    for k in range(len(e.experts)):
        for n, (x0, y0, x1, y1) in enumerate(np.rint(e.boxes * side / max(e.film.shape)).astype(int)):
            patches = sum(e.mix[k][c, q] * e.layers[k][-1][n, q] for q in range(len(e.layers[k][-1][n])))
            tile = F.interpolate(torch.from_numpy(patches)[None, None], (y1 - y0, x1 - x0), mode="bilinear")[0, 0].numpy()
            density = tile / tile.sum() * patches.sum()
            heat[y0:y1, x0:x1] += e.weights[k, c] * e.share[k][n] * density
    return heat / heat.max()


for label in e.labels:
    np.testing.assert_allclose(my_heatmap(e, label), e.heatmap(label), atol=1e-5)
print("heat map from scratch equals Explanation.heatmap for all", len(e.labels), "labels")

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
plots.query_attention(e, LABEL, true_boxes(films, chosen, LABEL), f"synthetic film {chosen}: {LABEL}")

# %% [markdown]
# **What to see.** The last maps of these experts have 4 x 4 patches: one is 128 pixels wide in a window, 256
# in the whole view. Such a map cannot *outline* a nodule of 20 pixels, whatever the model knows. Its
# smoothness comes from the interpolation, its straight edges from the windows.
#
# **Try it** (needs a running kernel): the map is a sum over many small pictures. Do different queries look at
# different places?

# %% tags=["nbval-ignore-output"]
widgets.explore_attention(model, films.take(np.arange(6)))

# %% alt="one query of the first layer: the synthetic film with its view, the view as the expert gets it, and the query's attention over the view's patches" tags=["nbval-ignore-output"]
plots.attention_view(e, 0, 0, 5, 2, true_boxes(films, chosen, LABEL), f"synthetic film {chosen}, one query of the first layer")

# %% [markdown]
# ## 2. Two scores for a map, and what chance gives
#
# **Pointing game** (Zhang et al., IJCV 2018): a hit if the brightest cell lies in a true box. **IoU**: cells
# of at least half the maximum are *predicted*; intersection over union with the boxes' cells.
#
# A box that fills half of the film is easy to hit, so both need a **chance level**: the same map at a random
# place. All circular shifts $(u, v)$ are equally likely, and what leaves at one edge comes in at the other:
#
# $$\text{chance} = \operatorname{mean}_{u, v}\;
#   \text{score}\big(\operatorname{shift}_{u,v}(h),\,\text{boxes}\big).$$
#
# A small map made by hand, over a film of 40 x 80 pixels:

# %%
from medbridge.explain.localisation import box_mask, localisation_table, localise_film

hand = np.array([[0.2, 0.9, 0.1, 0.0], [0.3, 1.0, 0.6, 0.0], [0.0, 0.1, 0.1, 0.7], [0.0, 0.0, 0.0, 0.1]])
box, size = np.array([[20.0, 0.0, 60.0, 20.0]]), (40, 80)
truth = box_mask(box, size, hand.shape)  # a cell counts if its centre is in a box
print(truth.astype(int))

# %%
def score(heat, truth):
    predicted = heat >= 0.5 * heat.max()
    hit = truth[heat == heat.max()].mean()  # several maxima share
    return hit, (predicted & truth).sum() / (predicted | truth).sum()


mine = score(hand, truth)
by_chance = np.mean([score(np.roll(hand, (u, v), axis=(0, 1)), truth) for u in range(4) for v in range(4)], axis=0)
package = localise_film(hand, box, size)
np.testing.assert_allclose([*mine, *by_chance], [package[n] for n in ("hit", "iou", "hit_chance", "iou_chance")])
np.testing.assert_allclose(by_chance[0], truth.mean())  # a random point hits as often as the boxes are large
print(f"hit {mine[0]:.2f} (chance {by_chance[0]:.2f}), IoU {mine[1]:.2f} (chance {by_chance[1]:.2f}): equal to localise_film")

# %% alt="a map of 4 x 4 cells made by hand over a blank film with its box, as it is and at two of the sixteen shifts; titles give hit and IoU" tags=["nbval-ignore-output"]
shifted = [np.roll(hand, shift, axis=(0, 1)) for shift in ((0, 0), (1, 2), (2, 1))]
titles = ["hit {:.0f}, IoU {:.2f}".format(*score(heat, truth)) for heat in shifted]
plots.film_grid([np.zeros(size)] * 3, titles, 3, [box] * 3, title="A map made by hand, at three of its sixteen shifts", heats=shifted, alpha=1)

# %% [markdown]
# ### Exercise 11.1: how much of the heat is inside?
# ★☆☆, 5 minutes. A third score needs no threshold: the share of all heat that lies inside the boxes
# (Score-CAM's *energy-based pointing game*, Wang et al., 2020). Write `heat_inside(heat, inside)`: `heat`
# (rows, columns) is not negative, `inside` (rows, columns) is the boxes' mask. A map without any heat has no
# such share: return NaN. What is the chance level of this score?
#
# <details><summary>Hint</summary>
# Select with the mask, sum, and divide by the whole sum. Under a random shift every cell's heat is equally
# likely to be anywhere: chance is the boxes' share of the film, <code>inside.mean()</code>.
# </details>

# %%
def heat_inside(heat, inside):
    raise NotImplementedError


check("11.1", heat_inside)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/11_what_did_it_look_at.ipynb](solutions/11_what_did_it_look_at.ipynb).
#
# ```python
# def heat_inside(heat, inside):
#     return heat[inside].sum() / heat.sum() if heat.sum() > 0 else np.nan
# ```
# </details>
#
# ## 3. Do the maps fall on the finding?
#
# We score all test films that have boxes. `gain` is the score minus the chance level *of the same film*, with
# an interval over patients. If it holds zero, we have shown nothing for that label.

# %%
table = localisation_table(model, films, progress=False).set_index("label")

# %% tags=["nbval-ignore-output"]
def verdicts(table, name, gain="gain"):
    """Labels by whether the interval of the gain lies above zero, holds zero, or lies below."""
    lo, hi = table[f"{name}_{gain}_lo"], table[f"{name}_{gain}_hi"]
    for where, rows in (("above zero", lo > 0), ("holds zero", (lo <= 0) & (hi >= 0)), ("below zero", hi < 0)):
        print(f"  {name}: interval {where}: {', '.join(table.index[rows]) or 'no label'}")


print("gain over chance (random shifts of the same map)")
verdicts(table, "hit")
verdicts(table, "iou")

# %%
assert table.loc["Cardiomegaly", "hit_gain_lo"] > 0 and table.loc["Pneumonia", "hit_gain_lo"] > 0
assert table.loc["Nodule", "hit_gain_lo"] <= 0
print("pointing game: Cardiomegaly and Pneumonia are above chance, with intervals that leave zero out; Nodule is not")

# %% [markdown]
# Several labels are well above chance, and most talks stop here. Nodule has not one hit.
#
# ### A stricter comparison: another patient's map
#
# An enlarged heart is always where hearts are. A map that points at the middle of every film hits it without
# having looked. So ask again: how well does the map of **another patient** with the same label score on
# **this** patient's boxes? Only what goes beyond that is about this film.

# %% alt="dots by label with 95 % intervals: share of hits in the pointing game of the trained adapter's own maps, beside other patients' maps and chance, synthetic test films" tags=["nbval-ignore-output"]
points({"own map, 95 % interval": table[["hit", "hit_lo", "hit_hi"]], "other patients' maps": table[["hit_other"] * 3],
        "chance (random shifts)": table[["hit_chance"] * 3]}, f"trained adapter, {len(films)} synthetic test films",
       xlabel="pointing game: share of hits")

# %% alt="dots by label with 95 % intervals: IoU of the trained adapter's own maps, beside other patients' maps and chance, synthetic test films" tags=["nbval-ignore-output"]
points({"own map, 95 % interval": table[["iou", "iou_lo", "iou_hi"]], "other patients' maps": table[["iou_other"] * 3],
        "chance (random shifts)": table[["iou_chance"] * 3]}, f"trained adapter, {len(films)} synthetic test films", xlabel="IoU")

# %% tags=["nbval-ignore-output"]
print("gain over other patients' maps")
verdicts(table, "hit", "other_gain")
verdicts(table, "iou", "other_gain")

# %%
heart = table.loc["Cardiomegaly"]
assert heart["hit_other"] > 2 * heart["hit_chance"] and heart["hit_other_gain_lo"] <= 0 <= heart["hit_other_gain_hi"]
print("Cardiomegaly: other patients' maps hit this heart more than twice as often as chance; the gain over them holds zero")

# %% [markdown]
# **What to see.** For most labels a stranger's map does as well: what looked like localisation is mostly a
# habit of place. In the stored run Pneumonia stays above in both scores and Infiltration in IoU: there the
# map says something about *this* film. But these are sixteen looks.
#
# ### Exercise 11.2: other patients' maps
# ★★★, 20 minutes. Write that comparison for the pointing game: `others_hits(heats, masks, patients)`, with
# `heats` (n, rows, columns), the boxes' `masks` (n, rows, columns) and `patients` $(n,)$. Return $(n,)$: for
# each film, the mean hit of the maps of all *other patients* on its own boxes. Where a map has several
# maxima, its hit is the share of them that is inside. A film whose patient is the only one gets NaN.
#
# <details><summary>Hint</summary>
# Two loops are fine. The hit of map j on mask i is <code>masks[i][heats[j] == heats[j].max()].mean()</code>.
# Another film of the same patient is not another patient.
# </details>

# %%
def others_hits(heats, masks, patients):
    raise NotImplementedError


check("11.2", others_hits)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/11_what_did_it_look_at.ipynb](solutions/11_what_did_it_look_at.ipynb).
#
# ```python
# def others_hits(heats, masks, patients):
#     out = np.full(len(heats), np.nan)
#     for i in range(len(heats)):
#         strangers = np.flatnonzero(patients != patients[i])
#         if len(strangers):
#             out[i] = np.mean([masks[i][heats[j] == heats[j].max()].mean() for j in strangers])
#     return out
# ```
# </details>
#
# ## 4. Attention is not explanation
#
# ### A model that has learned nothing
#
# Adebayo et al. (*Sanity checks for saliency maps*, 2018) asked of many methods: does the picture change when
# the weights are random? For some it hardly did. We try adapters with random weights: five, because one may
# be lucky. The bases of the compact maps stay: no label went into them.

# %%
untrained = [MedBridge(list(model.experts), model.labels, model.config, model.sampler, seed=seed) for seed in range(5)]
for random_model in untrained:
    random_model.take_bases(model.bases)
CHECKED = ["Cardiomegaly", "Pneumonia"]
random_tables = [localisation_table(u, films, CHECKED, n_boot=200, progress=False).set_index("label") for u in untrained]

# %% alt="dots for hits and IoU of Cardiomegaly and Pneumonia: the trained adapter with its 95 % interval beside five random adapters with their range, synthetic test films" tags=["nbval-ignore-output"]
names = [(label, name) for label in CHECKED for name in ("hit", "iou")]
trained = [table.loc[label, [name, f"{name}_lo", f"{name}_hi"]].tolist() for label, name in names]
values = np.array([[t.loc[label, name] for t in random_tables] for label, name in names])
random = np.stack([values.mean(axis=1), values.min(axis=1), values.max(axis=1)], axis=1)
rows = [f"{label}, {name}" for label, name in names]
points({"trained adapter, 95 % interval": pd.DataFrame(trained, rows), "five random adapters, range": pd.DataFrame(random, rows)},
       f"trained and random adapters, {len(films)} synthetic test films", xlabel="share of hits, or IoU")

# %%
heart = [t.loc["Cardiomegaly"] for t in random_tables]
assert all(h["iou_gain_lo"] > 0 and h["iou"] > table.loc["Cardiomegaly", "iou_lo"] for h in heart)
assert max(h["hit"] for h in heart) > table.loc["Cardiomegaly", "hit_lo"]
assert all(max(t.loc["Pneumonia", name] for t in random_tables) < table.loc["Pneumonia", name] for name in ("hit", "iou"))
print("Cardiomegaly, IoU: every random adapter is above chance, and within the trained one's interval or above it")
print("Pneumonia: the trained adapter is above every random one in both scores")

# %% [markdown]
# **What to see.** Networks that know nothing "find" the enlarged heart: windows overlap in the middle of the
# film, and there the heart is. So section 3's high scores of Cardiomegaly are no evidence of learning.
# Pneumonia passes this check.
#
# How alike are two maps? We take the rank correlation (Spearman) over a 32 x 32 grid, and its mean over
# films:

# %%
def coarse(e, label):
    return e.heatmap(label).reshape(32, 8, 32, 8).mean(axis=(1, 3)).ravel()


def alike(pairs):
    return np.mean([spearmanr(a, b).statistic for a, b in pairs])


some = np.arange(len(films) if full_profile() else 40)
seen = [explain(model, films.read(i)) for i in some]
seen_random = [explain(untrained[0], films.read(i)) for i in some]
own, of_random = ([coarse(x, LABEL) for x in maps] for maps in (seen, seen_random))

# %%
alikeness = {
    "trained and random adapter, same film": alike(zip(own, of_random, strict=True)),
    "trained adapter, one film and the next": alike(pairwise(own)),
    "random adapter, one film and the next": alike(pairwise(of_random)),
    f"trained adapter, {LABEL} and Nodule on one film": alike((a, coarse(x, "Nodule")) for a, x in zip(own, seen, strict=True)),
}
_, films_apart, random_apart, labels_apart = alikeness.values()
assert random_apart > films_apart and labels_apart > films_apart

# %% tags=["nbval-ignore-output"]
pd.Series(alikeness, name="rank correlation").round(2).to_frame()

# %% [markdown]
# **What to see.** Training made the maps depend more on the film. But the maps "of Pneumonia" and "of Nodule"
# on one film are nearly the same picture: labels read much the same mixture of queries. "Where the model sees
# pneumonia" promises more than the map holds.
#
# ### Hide it
#
# Does the score *need* what the queries read? Only a changed film answers that (Samek et al., 2017). We hide
# the brightest tenth of the cells, and see how far the logit falls. Hiding anything moves a score, so we
# compare with as many cells of the same shapes hidden elsewhere:

# %%
from medbridge.explain.occlusion import film_logits, hide_cells, move_cells, occlusion_table, top_cells

film, c = films.read(chosen), model.labels.index(LABEL)
cells = top_cells(e.heatmap(LABEL), 0.1)
moved = move_cells(cells, np.random.default_rng(0))
assert cells.sum() == moved.sum() == round(0.1 * cells.size)
assert e.heatmap(LABEL)[cells].min() >= e.heatmap(LABEL)[~cells].max()

# %%
coarse_film = F.interpolate(torch.from_numpy(film)[None, None], (16, 16), mode="area")  # what a 16 x 16 grid sees
blurred = F.interpolate(coarse_film, film.shape, mode="bilinear")[0, 0].numpy()
pixels = np.kron(cells, np.ones((film.shape[0] // len(cells),) * 2, dtype=bool))  # each cell is 4 x 4 pixels
hidden = np.where(pixels, blurred, film)
np.testing.assert_allclose(hidden, hide_cells(film, cells), atol=1e-6)
print("hiding from scratch equals medbridge.explain.occlusion.hide_cells")

# %% alt="a synthetic film four times, as it is and with a tenth of its cells hidden: brightest blurred, elsewhere blurred, brightest grey; titles give the logit, the true box is drawn" tags=["nbval-ignore-output"]
changed = {"as it is": film, "brightest tenth blurred": hidden, "elsewhere blurred": hide_cells(film, moved),
           "brightest tenth grey": hide_cells(film, cells, "mean")}
logits = film_logits(model, list(changed.values()))[:, c]
plots.film_grid(list(changed.values()), [f"{name}: {value:+.1f}" for name, value in zip(changed, logits, strict=True)], 4,
                [true_boxes(films, chosen, LABEL)] * 4, title=f"synthetic film {chosen}: logit of {LABEL} (true box in orange)")

# %% [markdown]
# What do we put in the place of what is hidden? **Blur** keeps the coarse brightness. **Grey** (the film's
# mean) is denser than a lung and looks like a shadow there: it may *add* a finding. So try more than one
# film, and more than one filling:

# %%
# one place and one stranger's map to compare each film with; in the full profile two of each, and all labels
labels = None if full_profile() else ["Cardiomegaly", "Nodule", "Pneumonia"]
draws = 2 if full_profile() else 1
blur = occlusion_table(model, films, labels, draws=draws, progress=False).set_index("label")
grey = occlusion_table(model, films, labels and ["Pneumonia"], draws=draws, fill="mean", progress=False).set_index("label")

# %% tags=["nbval-ignore-output"]
def with_interval(table, name):
    return [f"{r[name]:+.1f} [{r[f'{name}_lo']:+.1f}, {r[f'{name}_hi']:+.1f}]" for _, r in table.iterrows()]


columns = {"logit falls by": "drop", "more than elsewhere": "gain_moved", "more than at a stranger's cells": "gain_other"}
pd.concat({fill: pd.DataFrame({title: with_interval(t, name) for title, name in columns.items()}, t.index)
           for fill, t in (("blur", blur), ("grey", grey.drop(index="all")))})

# %%
assert blur.loc["Cardiomegaly", "gain_moved_lo"] > 0 and blur.loc["Pneumonia", "gain_moved_lo"] > 0
assert grey.loc["Pneumonia", "drop"] < blur.loc["Pneumonia", "drop"]
print("blurred: Cardiomegaly and Pneumonia fall more than with cells hidden elsewhere, with intervals that leave zero out")
print("Pneumonia falls less, or rises, where the cells are made grey instead of blurred")

# %% [markdown]
# **What to see.** With blur, Cardiomegaly and Pneumonia depend on the bright cells. Nodule hardly moves: its
# score does not rest on what its map shows. Grey moves Pneumonia less: how much a place "matters" depends on
# the filling. A stranger's bright cells do as much for Cardiomegaly: its map knows *the usual place* of what
# matters. Pneumonia stays above zero.
#
# Attention maps are a fair picture of *where the bridge reads*, and a poor answer to *why it decided so*.
#
# ## 5. Views, failures, weights
#
# ### Which views won the pool?
#
# The pool over views takes a maximum for each number; $s_{kn}$ counts how many numbers view $n$ won. Does a
# window that shows the finding win more often? Windows in the middle might win anyway, so we subtract each
# window's usual share.

# %%
shares = np.array([np.mean(x.share, axis=0) for x in seen])  # (films, views), mean over experts
usual, rows = shares.mean(axis=0), []
for i, x in enumerate(seen):
    for x0, y0, x1, y1 in true_boxes(films, i):
        cx, cy, windows = (x0 + x1) / 2, (y0 + y1) / 2, x.boxes[1:]
        sees = (windows[:, 0] <= cx) & (cx < windows[:, 2]) & (windows[:, 1] <= cy) & (cy < windows[:, 3])
        gain = (shares[i] - usual)[1:]
        rows.append((films.table["patient_id"].iloc[i], gain[sees].mean() - gain[~sees].mean()))
won = pd.DataFrame(rows, columns=["patient", "gain"])

# %% tags=["nbval-ignore-output"]
from medbridge.metrics.bootstrap import bootstrap_means, group_codes, percentiles

lo, hi = percentiles(bootstrap_means(won[["gain"]].to_numpy(), group_codes(won["patient"], len(won)), 1000, 0), 0.95)
print(f"windows with a finding's centre minus the others, share of the pool: {100 * won['gain'].mean():+.2f} % "
      f"[{100 * lo[0]:+.2f}, {100 * hi[0]:+.2f}]")

# %% alt="dots with standard deviations: each expert's share of the pooled maximum by view, synthetic films; a dashed line marks equal shares" tags=["nbval-ignore-output"]
views, groups = ["whole film", *(f"window {i}" for i in range(1, shares.shape[1]))], {}
for k, expert in enumerate(model.experts):
    values = 100 * np.array([x.share[k] for x in seen])
    mean, sd = values.mean(axis=0), values.std(axis=0)
    groups[expert.name] = pd.DataFrame({"mean": mean, "lo": mean - sd, "hi": mean + sd}, views)
points(groups, f"{len(seen)} synthetic films: mean and standard deviation over films", {"equal shares": 100 / len(views)},
       xlabel="share of the pool (%)")

# %% [markdown]
# **What to see.** The whole view wins most. A window with a finding wins a little more than usual. This is no
# verdict on Focal Sampling: to measure that, leave views out (notebook 10).
#
# ### A gallery of failures
#
# A rule chooses the films. *Seen*: the score is above the median of all films. *Pointed*: the maximum lies in
# the box.

# %%
scores = predict(model, FeatureCache(progress=False).of(model, films), progress=False)
column = scores.probabilities[:, c]
kinds = {kind: [] for kind in ("seen, pointed", "seen, not pointed", "not seen, pointed", "not seen, not pointed")}
for i in np.flatnonzero(films.table[LABEL] == 1):
    x = explain(model, films.read(i))
    pointed = localise_film(x.heatmap(LABEL), true_boxes(films, i, LABEL), x.film.shape)["hit"] > 0.5
    seen_it = "seen" if column[i] > np.median(column) else "not seen"
    kinds[f"{seen_it}, {'pointed' if pointed else 'not pointed'}"].append((i, x))
assert sum(map(len, kinds.values())) == (films.table[LABEL] == 1).sum()

# %% alt="one synthetic film of each kind of verdict with the heat map and the true box of one label; titles give the kind and the probability" tags=["nbval-ignore-output"]
print(LABEL, {kind: len(found) for kind, found in kinds.items()})
shown = [(kind, *found[0]) for kind, found in kinds.items() if found]
plots.film_grid([x.film for _, _, x in shown], [f"{kind}\np = {column[i]:.2f}, film {i}" for kind, i, _ in shown],
                boxes=[true_boxes(films, i, LABEL) for _, i, _ in shown], heats=[x.heatmap(LABEL) for *_, x in shown], alpha=0.4,
                title=f"synthetic films with {LABEL} (true box in orange): the first of each kind", size=3.1)

# %% [markdown]
# **What to see.** *Seen, not pointed* is the kind to worry about: the model may be right for a wrong reason,
# such as a finding that often comes along. In the reverse case, to read at the right place is not to
# recognise.
#
# ### What a router weight means
#
# In the mixture $s_c = \sum_k g_{kc}\, s_{kc}$ a weight is a **factor on a logit**. It does *not* say that an
# expert is right: the router never sees an answer. It does not say that an expert decided: that is the
# product $g_{kc}\, s_{kc}$. And it does not say that an expert is better: logits have different scales, and a
# weight may undo that.
#
# **Try it** (needs a running kernel): find a film where the expert with the larger weight contributes less.

# %% tags=["nbval-ignore-output"]
widgets.explore_router(model, films.take(np.arange(6)))

# %% alt="one synthetic film: each expert's and the mixture's probability of every label, stars over those present; below, the router's weights as stacked bars" tags=["nbval-ignore-output"]
plots.router_film(e, films.table[list(model.labels)].iloc[chosen].to_numpy(dtype=float), f"synthetic film {chosen}")

# %%
contributions = scores.weights * scores.expert_logits  # (films, K, C)
np.testing.assert_allclose(expit(contributions.sum(axis=1)), scores.probabilities, atol=1e-5)
differ = (scores.weights.argmax(axis=1) != np.abs(contributions).argmax(axis=1)).mean()
assert 0 < differ < 1
print("the expert with the larger weight is not always the one with the larger contribution")

# %% [markdown]
# Does the router's choice help? We replace it by equal weights, $1/K$, and compare on the same films:

# %% tags=["nbval-ignore-output"]
print(f"larger weight and larger contribution differ in {100 * differ:.0f} % of all pairs of film and label")
y, mask = films.targets()
equal = expit(scores.expert_logits.mean(axis=1))
print(f"router (A) against equal weights (B), mean AUC on {len(films)} synthetic test films:")
print(paired_difference(y, scores.probabilities, equal, mask, films.table["patient_id"], labels=films.labels).verdict)

# %% [markdown]
# **What to see.** In the stored run the interval holds zero. The experts were trained with the router, so
# this does not prove that a mixture without one learns as well. But a picture of router weights is no
# evidence that routing helps.
#
# ### Exercise 11.3: take an expert out
# ★★☆, 10 minutes. What would the mixture score without expert $k$? The other weights keep their proportions
# and sum to one again. Write `without_expert(weights, logits, k)` for one film: `weights` and `logits` are
# $(K, C)$; return the logits $(C,)$ of the mixture that is left.
#
# <details><summary>Hint</summary>
# <code>np.delete(weights, k, axis=0)</code> drops a row. Weights sum to one over the experts, for each label
# apart.
# </details>

# %%
def without_expert(weights, logits, k):
    raise NotImplementedError


check("11.3", without_expert)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/11_what_did_it_look_at.ipynb](solutions/11_what_did_it_look_at.ipynb).
#
# ```python
# def without_expert(weights, logits, k):
#     kept, left = np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)
#     return (kept / kept.sum(axis=0) * left).sum(axis=0)
# ```
# </details>
#
# ### Real boxes: NIH ChestX-ray14
#
# NIH ships 984 boxes that radiologists drew, of the same eight findings. This cell runs on the real films if
# `MEDBRIDGE_DATA` names a folder that holds `nih/`. Otherwise it runs on a miniature with NIH's files and
# columns, but synthetic films and three invented boxes. For a meaningful table, train on NIH's own films
# first: this adapter has seen none.

# %%
import warnings

root = Path(os.environ.get("MEDBRIDGE_DATA", "/nowhere")) / "nih"
kind = "real films" if root.is_dir() else "NIH's miniature (synthetic films)"
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the miniature's sixteen films some labels cannot be learned
    nih = load_benchmark("nih", root if root.is_dir() else "../data/fixtures/nih")
boxed = nih.take(nih.table["image"].isin(nih.boxes["image"]).to_numpy())
few = boxed if full_profile() else boxed.take(np.arange(len(boxed))[:60])
nih_table = localisation_table(model, few, n_boot=1000 if root.is_dir() else 10, progress=False).set_index("label")
print(f"{kind}, {len(nih.boxes)} boxes: a row for {', '.join(nih_table.index)}")

# %% alt="one film in NIH's layout, real where it is there: the box of one finding, the focal views, and where the queries of that finding looked" tags=["nbval-ignore-output"]
if root.is_dir():
    print(nih_table[["films", "hit", "hit_chance", "hit_other", "iou", "iou_chance", "iou_other"]].round(2).to_string())
label = nih.boxes.loc[nih.boxes["image"] == boxed.table["image"].iloc[0], "label"].iloc[0]
plots.query_attention(explain(model, boxed.read(0)), label, true_boxes(boxed, 0, label), f"{kind}: {label}")

# %% [markdown]
# ## Summary
#
# - The heat map is attention, weighted by what a label reads, what a view won, and what the router gave.
# - Chance by random shifts is too easy: findings have habits of place. Compare with other patients' maps.
# - Random adapters pass for Cardiomegaly. Two labels' maps on one film are nearly the same picture.
# - Whether a score needs a place: hide it, beside the same film hidden elsewhere, with more than one filling.
# - A router weight is a factor on a logit. It is neither trust, nor contribution, nor proof that routing
#   helps.
#
# Next: {{NEXT}}
