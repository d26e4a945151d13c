# %% [markdown]
# # 11 What did it look at?
#
# {{COLAB}}
#
# **What you will build:** the picture that every talk about medical AI shows, a heat map over a film, from its four ingredients;
# and the tests that such pictures rarely get. Do the maps fall on the finding? More often than chance? More often than the map
# of *another patient*? Does a network that has learned nothing point at the same places? Does the score fall when the bright
# places are hidden? You also see which views won the pool, and what a router weight says and does not say.
#
# - **Prerequisites:** notebooks [00](00_start_here.ipynb), [02](02_films_labels_splits.ipynb) (intervals) and
#   [03](03_focal_sampling.ipynb) (views); Query Encoder and mixture (notebooks 04 and 05) help.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores when the synthetic films are not drawn yet.
#   On a Colab T4 about the same (an estimate). The full profile takes some ten minutes (an estimate).
# - **Modules:** `medbridge/explain/attention.py`, `medbridge/explain/localisation.py` · **test:** `tests/explain/test_localisation.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), for the parts that are looked into. All tests here are
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
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from medbridge import FeatureCache, MedBridge, load_adapter, load_benchmark, paired_difference
from medbridge.course import check, full_profile, seed_everything
from medbridge.explain.attention import explain
from medbridge.explain.localisation import box_mask, localisation_table, localise_film
from medbridge.explain.occlusion import film_logits, hide_cells, move_cells, occlusion_table, top_cells
from medbridge.metrics.bootstrap import bootstrap_means, group_codes, percentiles
from medbridge.predict import predict
from medbridge.viz import plots
from medbridge.viz.widgets import explore_attention, explore_router

rng = seed_everything(0)
COLOURS = sns.color_palette("colorblind")

# %% [markdown]
# ## 1. A trained model and films with true boxes
#
# The adapter is the one that the repository ships (`medbridge quickstart` made it): two tiny experts, trained on synthetic films
# of PhantomCXR. It is one network without a linear read-out (notebook [06](06_assembling_and_training.ipynb)), so the queries below are
# all that its scores come from. In a model of several members the queries of all members stand one after the other. A read-out has no
# attention: what it adds to a score is in no picture of this notebook.
#
# We look at **test** films only. The program that drew them knows where each finding is; the model has never seen a box, it was trained
# on labels alone.

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
films = load_benchmark("phantom", n_films=900 if full_profile() else 360).split("test")

# %%
assert films.synthetic and films.boxes is not None and model.card["synthetic"]
assert len(model.members) == 1 and model.readout is None
present = (films.table[list(films.labels)] == 1).sum()
print(f"{films.name}: {len(films)} test films of {films.table['patient_id'].nunique()} patients, {len(films.boxes)} boxes")
print(", ".join(f"{label} {count}" for label, count in present.items()))


def boxes_of(i, label):
    rows = films.boxes[(films.boxes["image"] == films.image_ids()[i]) & (films.boxes["label"] == label)]
    return rows[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float64)


chosen = int(np.flatnonzero(films.table["Pneumonia"] == 1)[0])  # the first that has it, not the prettiest
LABEL = "Pneumonia"
e = explain(model, films.read(chosen))
print(f"film {chosen}: {len(e.boxes)} views, {len(e.experts)} experts, attention (N, Q, rows, columns) of the last layer:",
      " and ".join(str(a.shape) for a in e.attention))

# %% [markdown]
# ## 2. The heat map from scratch
#
# MedBridge has no map of its own. It has $K$ experts, $N$ views, $Q$ queries, and after each query layer an attention
# $A_{knq}(p)$: the share of its softmax that query $q$ of expert $k$ puts on patch $p$ of view $n$. Three more numbers say what
# becomes of it:
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
# $p_n(x)$ is the patch of view $n$ that shows the place $x$. The factor $1/|\text{view } n|$ makes it a *density*: the same
# attention on a window of a quarter of the film is four times as bright. Between patch centres we interpolate.

# %%
def my_heatmap(e, label, side=256):
    """For square films. (The package also handles the whole view of a film that is not square, which reaches past it.)"""
    c, scale = e.labels.index(label), side / max(e.film.shape)
    heat = np.zeros((side, side))
    for k in range(len(e.experts)):
        for n, box in enumerate(np.rint(e.boxes * scale).astype(int)):
            x0, y0, x1, y1 = box
            patches = sum(e.mix[k][c, q] * e.layers[k][-1][n, q] for q in range(len(e.layers[k][-1][n])))
            tile = F.interpolate(torch.from_numpy(patches)[None, None], (y1 - y0, x1 - x0), mode="bilinear")[0, 0].numpy()
            density = tile / tile.sum() * patches.sum()
            heat[y0:y1, x0:x1] += e.weights[k, c] * e.share[k][n] * density
    return heat / heat.max()


for label in e.labels:
    np.testing.assert_allclose(my_heatmap(e, label), e.heatmap(label), atol=1e-5)
print("heat map from scratch equals Explanation.heatmap for all", len(e.labels), "labels")

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
plots.query_attention(e, LABEL, boxes_of(chosen, LABEL), f"synthetic film {chosen}: {LABEL}")

# %% [markdown]
# **How fine can it be?** The queries read compact maps of at most 64 patches (notebook [04](04_query_encoder.ipynb)), and the last map of
# these experts has 4 x 4 anyway. Of a window of 512 pixels, one patch is 128 pixels wide;
# of the whole view, 256. (`model.map_shapes` says how fine the maps are that the queries of each expert read.) A nodule of 20 pixels cannot be *outlined* by such a map, whatever the model knows. The smooth look
# comes from the interpolation, not from the model; straight edges are the borders of windows.
#
# ### One query at a time
#
# The map is a sum over many small pictures. **Try it** (needs a running kernel): choose expert, layer, view and query.
#
# - The first layer reads a finer map than the second, 8 x 8 patches against 4 x 4. Which one is sharper?
# - Do different queries of one layer look at different places?

# %% tags=["nbval-ignore-output"]
explore_attention(model, films.take(np.arange(6)))

# %% [markdown]
# The same for readers without a kernel, for one query:

# %% alt="one query of the first layer: the synthetic film with its view, the view as the expert gets it, and the query's attention over the view's patches" tags=["nbval-ignore-output"]
plots.attention_view(e, 0, 0, 5, 2, boxes_of(chosen, LABEL), f"synthetic film {chosen}, one query of the first layer")

# %% [markdown]
# ## 3. Two scores for a map, and what chance gives
#
# **Pointing game** (Zhang et al., *Top-down neural attention by excitation backprop*, IJCV 2018): a hit if the brightest cell
# lies in a true box. **IoU**: cells of at least half the maximum count as *predicted*; intersection over union with the boxes' cells.
#
# Neither means anything without its **chance level**, because a box that fills half of the film is easy to hit. Chance here is the very
# same map, laid over the film at a random place: all circular shifts $(u, v)$ are equally likely, and what leaves at one edge
# comes in at the other,
#
# $$\text{chance} = \operatorname{mean}_{u, v}\; \text{score}\big(\operatorname{shift}_{u,v}(h),\,\text{boxes}\big).$$
#
# A small map made by hand, over a film of 40 x 80 pixels:

# %%
hand = np.array([
    [0.2, 0.9, 0.1, 0.0],
    [0.3, 1.0, 0.6, 0.0],
    [0.0, 0.1, 0.1, 0.7],
    [0.0, 0.0, 0.0, 0.1],
])
box, size = np.array([[20.0, 0.0, 60.0, 20.0]]), (40, 80)
truth = box_mask(box, size, hand.shape)  # a cell counts if its centre is in a box
print(truth.astype(int))


def score(heat, truth):
    predicted = heat >= 0.5 * heat.max()
    hit = truth[heat == heat.max()].mean()  # several maxima share
    return hit, (predicted & truth).sum() / (predicted | truth).sum()


mine = score(hand, truth)
shifts = [score(np.roll(hand, (u, v), axis=(0, 1)), truth) for u in range(4) for v in range(4)]
by_chance = np.mean(shifts, axis=0)
package = localise_film(hand, box, size)
np.testing.assert_allclose([*mine, *by_chance], [package[n] for n in ("hit", "iou", "hit_chance", "iou_chance")])
np.testing.assert_allclose(by_chance[0], truth.mean())  # a random point hits as often as the boxes are large
print(f"hit {mine[0]:.2f} (chance {by_chance[0]:.2f}), IoU {mine[1]:.2f} (chance {by_chance[1]:.2f}): equal to localise_film")

# %% [markdown]
# The package takes all shifts at once, by a Fourier transform; the numbers are the same.

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(8.4, 2.6), layout="constrained")
for ax, (u, v) in zip(fig.subplots(1, 3), ((0, 0), (1, 2), (2, 1)), strict=True):
    heat = np.roll(hand, (u, v), axis=(0, 1))
    hit, iou = score(heat, truth)
    ax.imshow(heat, cmap="inferno", extent=(0, 80, 40, 0), aspect="auto")
    plots.draw_boxes(ax, box, colour="tab:cyan")
    for r, c in np.argwhere(heat >= 0.5 * heat.max()):
        ax.plot(20 * c + 10, 10 * r + 5, "+", color="tab:gray", markersize=9, markeredgewidth=2)
    ax.set_title(f"shift ({u}, {v}): hit {hit:.0f}, IoU {iou:.2f}", fontsize=9)
    ax.set_axis_off()
fig.suptitle("A map made by hand; blue: the box; +: predicted", fontsize=10)
fig

# %% [markdown]
# ### Exercise 11.1: how much of the heat is inside?
# ★☆☆, 5 minutes. The pointing game sees one cell, IoU needs a threshold. A third score needs neither: the share of all heat that
# lies inside the boxes (the *energy-based pointing game*, Wang et al., Score-CAM, 2020). Write `heat_inside(heat, inside)`: `heat`
# (rows, columns) is not negative, `inside` (rows, columns) is the boxes' mask. A map without any heat has no such share: return NaN.
#
# What is its chance level, over all shifts? (Think before you read the hint.)
#
# <details><summary>Hint</summary>
# Select with the mask, sum, and divide by the whole sum. Under a random shift every cell's heat is equally likely to be anywhere:
# chance is the boxes' share of the film, `inside.mean()`.
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

# %% [markdown]
# ## 4. Do the maps fall on the finding?
#
# All test films that have boxes. `gain` is the score minus the chance level *of the same film*; its interval comes from a bootstrap
# that draws patients. If it holds zero, we have shown nothing for that label.

# %%
table = localisation_table(model, films, progress=False).set_index("label")

# %% tags=["nbval-ignore-output"]
def verdicts(table, name, control):
    """Labels by whether the interval of the gain over a control lies above zero, holds zero, or lies below."""
    lo, hi = (table[f"{name}{'' if control == 'chance' else '_other'}_gain_{end}"] for end in ("lo", "hi"))
    for where, rows in (("above zero", lo > 0), ("holds zero", (lo <= 0) & (hi >= 0)), ("below zero", hi < 0)):
        print(f"  {name}: interval {where}: {', '.join(table.index[rows]) or 'no label'}")


print("gain over chance (random shifts of the same map)")
verdicts(table, "hit", "chance")
verdicts(table, "iou", "chance")
table[["films", "patients", "hit", "hit_chance", "hit_gain_lo", "hit_gain_hi", "iou", "iou_chance", "iou_gain_lo", "iou_gain_hi"]].round(2)

# %%
assert table.loc["Cardiomegaly", "hit_gain_lo"] > 0 and table.loc["Pneumonia", "hit_gain_lo"] > 0
assert table.loc["Nodule", "hit_gain_lo"] <= 0
print("pointing game: Cardiomegaly and Pneumonia are above chance, with intervals that leave zero out; Nodule is not")

# %% [markdown]
# Good news, it seems: several labels are well above chance. Most talks stop here. (Nodule's interval is a point: it has not one hit, and
# a bootstrap of nothing but zeros cannot tell how rare a hit may be. Read it as "not shown".)
#
# ### A stricter comparison: another patient's map
#
# An enlarged heart is always where hearts are. A map that points at the middle of every film hits it, without having looked at any
# film. Circular shifts do not notice that: they compare with a map that could be *anywhere*. So ask again: how well does the map of
# **another patient** with the same label score on **this** patient's boxes? Only what goes beyond that is about this film.
# `localisation_table` has it in the columns `hit_other` and `iou_other`.

# %% alt="dots by label with 95 % intervals: pointing game and IoU of the trained adapter's own maps, beside other patients' maps and chance, synthetic test films" tags=["nbval-ignore-output"]
def localisation_figure(table, title):
    fig = Figure(figsize=(10, 3.6), layout="constrained")
    for ax, name, text in zip(fig.subplots(1, 2), ("hit", "iou"), ("pointing game: share of hits", "IoU"), strict=True):
        at = np.arange(len(table))
        error = np.clip([table[name] - table[f"{name}_lo"], table[f"{name}_hi"] - table[name]], 0, None)
        ax.errorbar(at, table[name], error, fmt="o", color=COLOURS[0], label="own map, 95 % interval")
        ax.plot(at, table[f"{name}_other"], "D", color=COLOURS[1], mfc="none", label="other patients' maps")
        ax.plot(at, table[f"{name}_chance"], "_", color="black", markersize=14, label="chance (random shifts)")
        ax.set_xticks(at, table.index, rotation=30, ha="right", fontsize=8)
        ax.set_ylabel(text)
        ax.spines[["top", "right"]].set_visible(False)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9, title=title)
    return fig


localisation_figure(table, f"trained adapter, {len(films)} synthetic test films")

# %% tags=["nbval-ignore-output"]
print("gain over other patients' maps")
verdicts(table, "hit", "other")
verdicts(table, "iou", "other")
table[["films", "hit", "hit_other", "hit_other_gain_lo", "hit_other_gain_hi", "iou", "iou_other", "iou_other_gain_lo", "iou_other_gain_hi"]].round(2)

# %%
heart = table.loc["Cardiomegaly"]
assert heart["hit_other"] > 2 * heart["hit_chance"] and heart["hit_other_gain_lo"] <= 0 <= heart["hit_other_gain_hi"]
print("Cardiomegaly: other patients' maps hit this heart more than twice as often as chance; the gain over them holds zero")

# %% [markdown]
# **What to see.** For most labels the filled dot and the open diamond lie together: the map of a stranger does as well. What
# looked like localisation is mostly a habit of place. Where a label stays above (read the printed lines; in the stored run it is Pneumonia
# in both scores and Infiltration in IoU), the map says something about *this* film.
# Eight labels and two scores are sixteen looks: one of them may leave zero out by luck.

# %% [markdown]
# ### Exercise 11.2: other patients' maps
# ★★★, 20 minutes. Write that comparison for the pointing game: `others_hits(heats, masks, patients)`, with `heats` (n, rows, columns), the
# boxes' `masks` (n, rows, columns) and `patients` $(n,)$. Return $(n,)$: for each film, the mean hit of the maps of all *other patients* on its
# own boxes. Where a map has several maxima, its hit is the share of them that is inside. A film whose patient is the only one
# gets NaN.
#
# <details><summary>Hint</summary>
# Two loops are fine: for film i, the films j with another patient; the hit of map j on mask i is
# `masks[i][heats[j] == heats[j].max()].mean()`. Another film of the same patient is not another patient.
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

# %% [markdown]
# ## 5. Attention is not explanation
#
# ### A model that has learned nothing
#
# Adebayo et al. (*Sanity checks for saliency maps*, 2018) asked of many famous map methods: does the picture change when the network's
# weights are replaced by random ones? For some it hardly did: they were edge detectors. We do the same: adapters with random weights
# on the same frozen experts, several of them, because one random draw can be lucky. The bases of the compact maps stay: they were fitted
# without a label, and are a part of the frozen input here.

# %%
untrained = [MedBridge(list(model.experts), model.labels, model.config, model.sampler, seed=seed) for seed in range(5)]
for random_model in untrained:
    random_model.take_bases(model.bases)
CHECKED = ["Cardiomegaly", "Pneumonia"]
random_tables = [localisation_table(u, films, CHECKED, n_boot=200, progress=False).set_index("label") for u in untrained]

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(8.5, 3.2), layout="constrained")
for ax, name, text in zip(fig.subplots(1, 2), ("hit", "iou"), ("pointing game: share of hits", "IoU"), strict=True):
    for at, label in enumerate(CHECKED):
        row = table.loc[label]
        ax.errorbar(at - 0.15, row[name], [[max(row[name] - row[f"{name}_lo"], 0)], [max(row[f"{name}_hi"] - row[name], 0)]], fmt="o",
                    color=COLOURS[0], label="trained adapter, 95 % interval" if at == 0 else None)
        ax.plot([at + 0.15] * len(random_tables), [t.loc[label, name] for t in random_tables], "x", color=COLOURS[1],
                label="random adapters, one each" if at == 0 else None)
        ax.plot(at + 0.15, np.mean([t.loc[label, f"{name}_chance"] for t in random_tables]), "_", color="black", markersize=14,
                label="chance of the random adapters' maps" if at == 0 else None)
    ax.set_xticks(range(len(CHECKED)), CHECKED)
    ax.set(xlim=(-0.5, 1.5), ylabel=text)
    ax.spines[["top", "right"]].set_visible(False)
fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=8,
           title=f"trained and random adapters, {len(films)} synthetic test films")
fig

# %%
heart = [t.loc["Cardiomegaly"] for t in random_tables]
assert all(h["iou_gain_lo"] > 0 and h["iou"] > table.loc["Cardiomegaly", "iou_lo"] for h in heart)
assert max(h["hit"] for h in heart) > table.loc["Cardiomegaly", "hit_lo"]
assert all(max(t.loc["Pneumonia", name] for t in random_tables) < table.loc["Pneumonia", name] for name in ("hit", "iou"))
print("Cardiomegaly, IoU: every random adapter is above chance, and within the trained one's interval or above it")
print("Cardiomegaly, hits: so is the best of the random adapters")
print("Pneumonia: the trained adapter is above every random one in both scores")

# %% [markdown]
# Networks that know nothing "find" the enlarged heart. Windows overlap in the middle of the film, so heat piles up there, and that
# is where the heart is. So the high scores of Cardiomegaly in section 4 are not evidence that anything was learned. Pneumonia
# passes this check.
#
# How alike are maps, cell by cell? A rank correlation (Spearman) over a 32 x 32 grid, mean over films:

# %%
def coarse(e, label):
    return e.heatmap(label).reshape(32, 8, 32, 8).mean(axis=(1, 3)).ravel()


some = np.arange(len(films) if full_profile() else 40)
seen = [explain(model, films.read(i)) for i in some]
seen_random = [explain(untrained[0], films.read(i)) for i in some]


def alike(pairs):
    return np.mean([spearmanr(a, b).statistic for a, b in pairs])


own, random = ([coarse(x, LABEL) for x in maps] for maps in (seen, seen_random))
alikeness = {
    "trained and random adapter, same film": alike(zip(own, random, strict=True)),
    "trained adapter, one film and the next": alike(pairwise(own)),
    "random adapter, one film and the next": alike(pairwise(random)),
    f"trained adapter, {LABEL} and Nodule on one film": alike((a, coarse(x, "Nodule")) for a, x in zip(own, seen, strict=True)),
}

# %% tags=["nbval-ignore-output"]
pd.Series(alikeness, name="rank correlation").round(2).to_frame()

# %%
same_film, films_apart, random_apart, labels_apart = alikeness.values()
assert random_apart > films_apart and labels_apart > films_apart
print("a random adapter's maps differ less from film to film than a trained one's:", bool(random_apart > films_apart))
print("two labels on one film are more alike than one label on two films:", bool(labels_apart > films_apart))

# %% [markdown]
# **What to see.** Training made the maps depend more on the film. But the last line is sobering: the map "of Pneumonia" and the map
# "of Nodule" on one film are nearly the same picture. Labels read mixtures of the same queries, and the mixtures are alike. A
# title such as "where the model sees pneumonia" promises more than the map holds.
#
# ### Hide it
#
# Attention says where information was *read*. Whether the score *needs* it is another question, and only a changed film answers it
# (Samek et al., *Evaluating the visualization of what a deep neural network has learned*, 2017). Take the brightest tenth of the
# cells, hide them in the film, and see how far the logit falls. Hiding anything moves a score, so the same film is compared with
# itself, with as many cells of the same shapes hidden elsewhere. On one film, from scratch:

# %%
film, c = films.read(chosen), model.labels.index(LABEL)
cells = top_cells(e.heatmap(LABEL), 0.1)
moved = move_cells(cells, np.random.default_rng(0))
assert cells.sum() == moved.sum() == round(0.1 * cells.size)
assert e.heatmap(LABEL)[cells].min() >= e.heatmap(LABEL)[~cells].max()

coarse_film = F.interpolate(torch.from_numpy(film)[None, None], (16, 16), mode="area")  # what a 16 x 16 grid sees
blurred = F.interpolate(coarse_film, film.shape, mode="bilinear")[0, 0].numpy()
pixels = np.kron(cells, np.ones((film.shape[0] // len(cells),) * 2, dtype=bool))  # each cell is 4 x 4 pixels
hidden = np.where(pixels, blurred, film)
np.testing.assert_allclose(hidden, hide_cells(film, cells), atol=1e-6)
logits = film_logits(model, [film, hidden, hide_cells(film, moved), hide_cells(film, cells, "mean")])[:, c]
print("hiding from scratch equals medbridge.explain.occlusion.hide_cells")

# %% alt="a synthetic film four times, as it is and with a tenth of its cells hidden: brightest blurred, elsewhere blurred, brightest grey; titles give the logit, the true box is drawn" tags=["nbval-ignore-output"]
titles = [f"as it is: logit {logits[0]:+.1f}", f"brightest tenth blurred: {logits[1]:+.1f}", f"elsewhere blurred: {logits[2]:+.1f}",
          f"brightest tenth grey: {logits[3]:+.1f}"]
true_box = boxes_of(chosen, LABEL)
plots.film_grid([film, hidden, hide_cells(film, moved), hide_cells(film, cells, "mean")], titles, 4, [true_box] * 4,
                title=f"synthetic film {chosen}, {LABEL} (true box in orange)")

# %% [markdown]
# What does one put in the place of what is hidden? Here that is no detail. **Blur** keeps the coarse brightness. **Grey** (the
# film's mean) is denser than a lung, and a grey patch in a lung looks like a shadow: it may *add* a finding. So one looks at more
# than one film and more than one filling, before one believes a picture. Three labels, all their test films:

# %%
# one place and one stranger's map to compare each film with; the full profile takes two of each, and all labels
labels = None if full_profile() else ["Cardiomegaly", "Nodule", "Pneumonia"]
draws = 2 if full_profile() else 1
blur = occlusion_table(model, films, labels, draws=draws, progress=False).set_index("label")
grey = occlusion_table(model, films, labels and ["Pneumonia"], draws=draws, fill="mean", progress=False).set_index("label")

# %% tags=["nbval-ignore-output"]
def gain_text(row, kind):
    lo, hi = row[f"gain_{kind}_lo"], row[f"gain_{kind}_hi"]
    return f"{row[f'gain_{kind}']:+.1f} [{lo:+.1f}, {hi:+.1f}]" + (" holds zero" if lo <= 0 <= hi else "")


def occlusion_summary(table):
    return pd.DataFrame({
        "films": table["films"], "logit falls by": [f"{r['drop']:+.1f} [{r['drop_lo']:+.1f}, {r['drop_hi']:+.1f}]" for _, r in table.iterrows()],
        "more than elsewhere": [gain_text(r, "moved") for _, r in table.iterrows()],
        "more than at a stranger's cells": [gain_text(r, "other") for _, r in table.iterrows()],
    })


pd.concat({"blur": occlusion_summary(blur), "grey": occlusion_summary(grey.drop(index="all"))})

# %%
assert blur.loc["Cardiomegaly", "gain_moved_lo"] > 0 and blur.loc["Pneumonia", "gain_moved_lo"] > 0
assert grey.loc["Pneumonia", "drop"] < blur.loc["Pneumonia", "drop"]
print("blurred: Cardiomegaly and Pneumonia fall more than with cells hidden elsewhere, with intervals that leave zero out")
print("Pneumonia falls less, or rises, where the cells are made grey instead of blurred")

# %% [markdown]
# **What to see.** With blur, the scores of Cardiomegaly and Pneumonia do depend on the bright cells. Nodule's hardly moves: what the map shows
# is not what that score rests on. (A *negative* fall means that a score **rose** when the place was hidden.) Grey moves Pneumonia less than
# blur, so how much a place "matters" depends on what is put there. And the last column again compares with a stranger's bright cells:
# where it holds zero, as for Cardiomegaly, the map knows *the usual place* of what matters, not more. Pneumonia is above zero in the stored
# run, as it was above other patients' maps in section 4: there the map says something about this film.
#
# So: attention maps here are a fair picture of *where the bridge reads*, and a poor answer to *why it said so*.

# %% [markdown]
# ## 6. Which views won the pool?
#
# Pooling over views takes a maximum for each number. $s_{kn}$ counts how many numbers view $n$ won. If Focal Sampling works as
# hoped, a window that shows the finding wins more often than one that does not. Windows in the middle might win anyway, so we
# subtract each window's usual share (its mean over films) before we compare.

# %%
shares = np.array([np.mean(x.share, axis=0) for x in seen])  # (films, views), mean over experts
usual = shares.mean(axis=0)
rows = []
for i, x in enumerate(seen):
    for x0, y0, x1, y1 in films.boxes[films.boxes["image"] == films.image_ids()[i]][["x0", "y0", "x1", "y1"]].to_numpy():
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        windows = x.boxes[1:]
        sees = (windows[:, 0] <= cx) & (cx < windows[:, 2]) & (windows[:, 1] <= cy) & (cy < windows[:, 3])
        gain = (shares[i] - usual)[1:]
        rows.append((films.table["patient_id"].iloc[i], gain[sees].mean() - gain[~sees].mean()))
won = pd.DataFrame(rows, columns=["patient", "gain"])
lo, hi = percentiles(bootstrap_means(won[["gain"]].to_numpy(), group_codes(won["patient"], len(won)), 1000, 0), 0.95)

# %% alt="dots with standard deviations: each expert's share of the pooled maximum by view, synthetic films; a dashed line marks equal shares" tags=["nbval-ignore-output"]
print(f"a window that holds a finding's centre wins {100 * won['gain'].mean():+.2f} % of the pool more than its usual share, compared with "
      f"windows that do not: 95 % interval {100 * lo[0]:+.2f} % to {100 * hi[0]:+.2f} %"
      + (", which holds zero" if lo[0] <= 0 <= hi[0] else ""))
fig = Figure(figsize=(7.5, 2.8), layout="constrained")
ax = fig.subplots()
for k, name in enumerate(model.experts):
    values = np.array([x.share[k] for x in seen])
    ax.errorbar(np.arange(values.shape[1]) + 0.15 * (k - 0.5), 100 * values.mean(axis=0), 100 * values.std(axis=0), fmt="oD"[k], color=COLOURS[k],
                label=name.name)
ax.axhline(100 / shares.shape[1], color="0.5", linestyle="--", linewidth=1, label="equal shares")
ax.set_xticks(range(shares.shape[1]), ["whole", *(f"{i}" for i in range(1, shares.shape[1]))])
ax.set(xlabel="view (windows row by row)", ylabel="share of the pool (%)", title=f"{len(seen)} synthetic films: mean and standard deviation over films")
ax.title.set_fontsize(10)
ax.spines[["top", "right"]].set_visible(False)
fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
fig

# %% [markdown]
# The whole view wins most, the windows share the rest, and whether the window with the finding wins more than usual is what the
# interval says. A view can matter without winning often: one number of the pool may decide. So this is not a verdict on Focal
# Sampling. Whether views help is measured by leaving them out (notebook 10).

# %% [markdown]
# ## 7. A gallery of failures
#
# Films chosen by a rule, not by hand: for one label, the films that have it, sorted into four kinds. *Seen*: the score is above the
# median of all films. *Pointed*: the maximum of the map lies in the box.

# %%
scores = predict(model, FeatureCache(progress=False).of(model, films), progress=False)
column = scores.probabilities[:, c]
has = np.flatnonzero(films.table[LABEL] == 1)
kinds = {kind: [] for kind in ("seen, pointed", "seen, not pointed", "not seen, pointed", "not seen, not pointed")}
for i in has:
    x = explain(model, films.read(i))
    pointed = localise_film(x.heatmap(LABEL), boxes_of(i, LABEL), x.film.shape)["hit"] > 0.5
    high = column[i] > np.median(column)
    kinds[f"{'seen' if high else 'not seen'}, {'pointed' if pointed else 'not pointed'}"].append((i, x))
assert sum(map(len, kinds.values())) == len(has)

# %% alt="one synthetic film of each kind of verdict with the heat map and the true box of one label; titles give the kind and the probability" tags=["nbval-ignore-output"]
print(LABEL, {kind: len(found) for kind, found in kinds.items()})
shown = [(kind, *found[0]) for kind, found in kinds.items() if found]
fig = Figure(figsize=(3.1 * len(shown), 3.7), layout="constrained")
for ax, (kind, i, x) in zip(fig.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
    ax.imshow(x.film, cmap="gray", vmin=0, vmax=1)
    ax.imshow(x.heatmap(LABEL), cmap="inferno", alpha=0.45, extent=(0, x.film.shape[1], x.film.shape[0], 0), interpolation="bilinear")
    plots.draw_boxes(ax, boxes_of(i, LABEL), colour="tab:cyan")
    ax.set_title(f"{kind}\np = {column[i]:.2f}, film {i}", fontsize=9)
    ax.set_axis_off()
fig.suptitle(f"synthetic films with {LABEL}; blue: true box; the first of each kind", fontsize=10)
fig

# %% [markdown]
# **Seen, not pointed** is the kind to worry about: the score is high, and the map is elsewhere. The map may be wrong about the
# reason, or the model may be right for a wrong reason, such as a finding that often comes along. **Pointed, not seen** shows the reverse: to
# read at the right place is not to recognise.

# %% [markdown]
# ## 8. What a router weight means
#
# The mixture is $s_c = \sum_k g_{kc}\, s_{kc}$. So $g_{kc}$ is a **factor on a logit**. What it does *not* mean:
#
# - *"Expert 1 is right about this film."* The router never sees an answer; it sees queries.
# - *"Expert 1 decided."* What an expert contributes is the product $g_{kc}\, s_{kc}$. A weight of 0.9 on a logit of 0.1 moves less
#   than 0.1 on a logit of 5.
# - *"Expert 1 is the better model."* Experts' logits have different scales, and a weight may simply undo that.
#
# **Try it** (needs a running kernel): which expert decides which label, film by film? Find a film where the expert with the larger
# weight contributes less.

# %% tags=["nbval-ignore-output"]
explore_router(model, films.take(np.arange(6)))

# %% [markdown]
# The same for readers without a kernel:

# %% alt="one synthetic film: each expert's and the mixture's probability of every label, stars over those present; below, the router's weights as stacked bars" tags=["nbval-ignore-output"]
plots.router_film(e, films.table[list(model.labels)].iloc[chosen].to_numpy(dtype=float), f"synthetic film {chosen}")

# %%
contributions = scores.weights * scores.expert_logits  # (films, K, C)
np.testing.assert_allclose(1 / (1 + np.exp(-contributions.sum(axis=1))), scores.probabilities, atol=1e-5)
larger_weight, larger_share = scores.weights.argmax(axis=1), np.abs(contributions).argmax(axis=1)
differ = (larger_weight != larger_share).mean()
assert 0 < differ < 1
print("the expert with the larger weight is not always the one with the larger contribution:", bool(differ > 0))

# %% alt="table of the router's weights on synthetic test films, expert by label: mean and standard deviation over films" tags=["nbval-ignore-output"]
print(f"they differ in {100 * differ:.0f} % of all pairs of film and label")
plots.router_weights(scores.weights, [x.name for x in model.experts], model.labels,
                     f"{len(films)} synthetic test films: router weights, mean ± standard deviation over films")

# %% [markdown]
# Does the router's choice help at all? Replace it with equal weights, $1/K$, and compare on the same films:

# %%
y, mask = films.targets()
equal = 1 / (1 + np.exp(-scores.expert_logits.mean(axis=1)))
difference = paired_difference(y, scores.probabilities, equal, mask, films.table["patient_id"], labels=films.labels)

# %% tags=["nbval-ignore-output"]
print(f"router (A) against equal weights (B), mean AUC on {len(films)} synthetic test films:")
print(difference.verdict)

# %% [markdown]
# Read the line that was printed: in the stored run the interval holds zero, so no difference is shown in either direction. The two experts
# were trained together with the router, so this does not prove that a mixture without a router would have learned as well; that is a question
# for notebook 10. But a picture of router weights is not evidence that routing helps.
#
# ### Exercise 11.3: take an expert out
# ★★☆, 10 minutes. What would the mixture say without expert $k$? The other weights keep their proportions and are scaled to sum to
# one again. Write `without_expert(weights, logits, k)` for one film: `weights` and `logits` are $(K, C)$; return the logits $(C,)$ of the
# mixture that is left. (For two experts that is the other one alone; the check has three.)
#
# <details><summary>Hint</summary>
# `np.delete(weights, k, axis=0)` drops a row. Weights sum to one over the experts, for each label apart.
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
#     kept, said = np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)
#     return (kept / kept.sum(axis=0) * said).sum(axis=0)
# ```
# </details>

# %% [markdown]
# ## 9. Real boxes: NIH ChestX-ray14
#
# NIH ships 984 boxes that radiologists drew, of the same eight findings (`BBox_List_2017.csv`). `load_benchmark("nih", root)` reads
# them, and `localisation_table` is the same function. In the full profile, this cell runs on the real films if `MEDBRIDGE_DATA` names a
# folder that holds `nih/`. Otherwise it runs on the miniature in `data/fixtures`, which has NIH's files and columns, but synthetic films
# and three invented boxes: it shows that the code path works and nothing else.
#
# The adapter of this notebook has seen synthetic films only. For a meaningful table, train on NIH's own training films
# first (`medbridge adapt --train NIH ...`) and load that adapter in section 1.

# %%
real = Path(os.environ.get("MEDBRIDGE_DATA", "/nowhere")) / "nih"
if full_profile() and real.is_dir():
    nih = load_benchmark("nih", real)
    with_boxes = nih.take(nih.table["image"].isin(nih.boxes["image"]).to_numpy())
    nih_table = localisation_table(model, with_boxes).set_index("label")
    print(nih_table.round(3).T.to_string())
else:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sixteen films: some labels cannot be learned from them
        nih = load_benchmark("nih", "../data/fixtures/nih")
    nih_table = localisation_table(model, nih, n_boot=10, progress=False).set_index("label")
    print(f"NIH's miniature (synthetic films, {len(nih.boxes)} invented boxes): a row for {', '.join(nih_table.index)}")

# %% [markdown]
# ## Summary
#
# - The heat map is attention, weighted by what a label reads, what a view won, and what the router gave. You built it; it equals the
#   package's. Its grain is the expert's patch.
# - A localisation score needs a chance level, and chance by random shifts is too easy: findings have habits of place. Compare with
#   other patients' maps.
# - Random adapters pass for Cardiomegaly. Two labels' maps on one film are nearly the same picture.
# - Whether a score needs a place is found by hiding it, against the same film hidden elsewhere, with a paired interval, and with more
#   than one filling.
# - A router weight is a factor on a logit. It is neither trust, nor contribution, nor proof that routing helps.
#
# Next: {{NEXT}}
