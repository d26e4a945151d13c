# %% [markdown]
# # 10 Ablations: does each part earn its place?
#
# {{COLAB}}
#
# **What you will build:** an ablation study, from one pair of trainings to a table of more than twenty variants. You take one part
# away by hand and compare with a paired interval, count what a full factorial would cost, look for an interaction of two factors, see
# how easily the best of many variants is the luckiest, weigh AUC against the bytes that a view takes, and read a stored study of twenty-two
# variants of an earlier form of MedBridge.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (AUC with intervals), [03](03_focal_sampling.ipynb) (Focal
#   Sampling) and [09](09_adaptation_tasks.ipynb); queries, router and pooling are explained where they are used. Python, NumPy, a
#   little pandas.
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores (more the first time, when synthetic films
#   are drawn). On a Colab T4 about one minute (an estimate). The full profile trains the whole study of today's form, five members per
#   training: many hours on two CPU cores (nobody has timed it).
# - **Module:** `medbridge/studies/ablation.py` · **test:** `tests/studies/test_ablation.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), whose own ablation we could not read. Nearly all of what is varied here is our choice:
#   **[ours]**.
#
# For research and education, not for clinical use. Every film of the default profile is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import math
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from medbridge import AdapterConfig, FeatureCache, FocalSampler, MedBridge, TrainConfig, create_expert, load_benchmark, predict
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.tasks import label_budget, make_targets
from medbridge.features.encode import view_bytes
from medbridge.metrics.bootstrap import bootstrap_aucs, defined_mean, group_codes
from medbridge.metrics.evaluate import auc, paired_difference
from medbridge.model import map_reader
from medbridge.studies.ablation import FACTORS, plan, run_ablation
from medbridge.studies.cells import Cell, MethodSettings, ResultStore
from medbridge.studies.tables import holm
from medbridge.train import fit
from medbridge.viz import widgets
from medbridge.viz.studies import cost_plot, forest_plot

rng = seed_everything(0)
folder = Path(tempfile.mkdtemp()) if not full_profile() else Path("runs/ablate_live")

# %% [markdown]
# ## 1. Why: a part is innocent until it is taken away
#
# MedBridge has many parts: several views, compact maps, queries, query layers, attention across the views, a pool, a router, members and a
# linear read-out. Whether the whole is better than a linear probe is one question (notebook [09](09_adaptation_tasks.ipynb)). Even where it
# is, that says nothing about any *one* part. A part may do the work, do nothing, or do harm that another part makes up for. An **ablation** asks one thing: *train again without this part, and with everything else as it was; what is
# lost?*
#
# $$\Delta_v = \overline{\mathrm{AUC}}(\text{variant } v) - \overline{\mathrm{AUC}}(\text{default})$$
#
# What the answer means depends on what "everything else as it was" means:
#
# - the **same films** in training, validation and test, and the same seeds;
# - the **same budget** of epochs. A variant that would need twice as many epochs looks bad here, and that is a finding about the budget;
# - its **own** best epoch, chosen on validation, as the default has;
# - no **tuning**. The learning rate was once chosen for the default. A variant may want another: ablations are a little unfair to variants.
#
# And it depends on the *factor* being one thing. The package lists its factors, and what each varies around the default:

# %%
base = MethodSettings([create_expert("tiny-resnet"), create_expert("tiny-resnet-scenes")])
for factor in FACTORS:
    print(f"{factor:<11}", ", ".join(v.name for v in plan(base, [factor])[1:]))

# %% [markdown]
# Eight of these factors are about parts that notebooks [04](04_query_encoder.ipynb) and [06](06_assembling_and_training.ipynb) build.
# `maps`: whether the queries read compact maps or the towers' tokens as they are. `components`, `patches`, `bits` and `whiten`: the
# shape of a compact map. `depths`: how many blocks lie between the maps that are read. `members`: how many networks are cross-fitted and averaged. `readout`: whether a linear read-out of the summaries
# is added.
#
# Two factors take care to be one thing. A smaller **crop** needs more windows to cover the film: then both the sharpness *and*
# the number of views change. So the package keeps the number of views and changes the overlap with the crop. And the **number of
# views** is changed by the overlap alone, with windows of one size:

# %%
for v in plan(base, ["crop", "views"]):
    sampler = v.settings.sampler
    boxes = sampler.inference_boxes(1024, 1024)
    print(f"{v.name:<23} crop {sampler.crop:.2f}, overlap {sampler.overlap:.2f}: {len(boxes):>2} views")
windows = {v.name: len(v.settings.sampler.inference_boxes(1024, 1024)) for v in plan(base, ["crop"])}
assert set(windows.values()) == {10}

# %% [markdown]
# ## 2. One factor by hand
#
# We take the local views away: *focal views on or off*. The live study is small: few films, one expert, few epochs, and one member without
# a read-out. Its numbers will be noisy, and that is part of the lesson. In the full profile it has more films and epochs.

# %% tags=["nbval-ignore-output"]
films, epochs, seeds = (1800, 12, (0, 1, 2)) if full_profile() else (150, 4, (0, 1))
benchmark = load_benchmark("phantom", n_films=films)
live = MethodSettings([create_expert("tiny-resnet")], AdapterConfig(queries=8), FocalSampler(crop=0.6, overlap=0.0, extra=0),
                      TrainConfig(epochs=epochs, batch_size=8, lr=3e-3, ema=0.9))  # few steps: larger ones
val, test = benchmark.split("val"), benchmark.split("test")
print({s: len(benchmark.split(s)) for s in ("train", "val", "test")}, "films;", test.table["patient_id"].nunique(), "test patients")

# %% tags=["nbval-ignore-output"]
def train_once(local, queries, seed):
    """Test probabilities (n, C) of a MedBridge with or without local views."""
    sampler = replace(live.sampler, local=local)
    model = MedBridge(live.experts, benchmark.labels, replace(live.adapter, queries=queries), sampler, seed=seed)
    cache = FeatureCache(progress=False)
    fit(model, cache.of(model, benchmark.split("train"), training=True), cache.of(model, val), replace(live.config, seed=seed),
        progress=False)
    return predict(model, cache.of(model, test), progress=False).probabilities


def mean_auc(p):
    return float(defined_mean(auc(y, p, known)))


y, known = test.targets()
on = [train_once(True, 8, seed) for seed in seeds]
off = [train_once(False, 8, seed) for seed in seeds]
assert np.isclose(auc(y, on[0], known)[0], roc_auc_score(y[:, 0], on[0][:, 0]))
print("test AUC, seed by seed: with local views", [f"{mean_auc(p):.3f}" for p in on],
      "without", [f"{mean_auc(p):.3f}" for p in off])

# %% [markdown]
# Compare the spread of one line with the distance of the two: with few films, seeds of one variant easily differ by as much as variants
# do. So one training per variant shows nothing: **average over seeds**, with the same seeds on both sides.
#
# How sure is the difference? Both are scored on the same patients, so we draw *patients* with replacement and take the difference on
# each draw, as in notebook 02: with weights $w$ of how often each patient was drawn,
#
# $$\Delta^* = \operatorname{mean}_{\text{seeds } s} \Big[ \overline{\mathrm{AUC}}_w(\text{off}, s) - \overline{\mathrm{AUC}}_w(\text{on}, s) \Big]
# \qquad\text{interval: the 2.5 and 97.5 percentiles of } \Delta^*$$

# %%
def my_difference(a, b, n_boot=300, seed=0):
    """Mean AUC of runs a minus runs b, with its interval over patients."""
    patients = group_codes(test.table["patient_id"], len(test))
    films_of = [np.flatnonzero(patients == p) for p in range(patients.max() + 1)]
    draw, drawn = np.random.default_rng(seed), []
    for _ in range(n_boot):
        rows = np.concatenate([films_of[i] for i in draw.integers(len(films_of), size=len(films_of))])
        on_rows = [[defined_mean(auc(y[rows], p[rows], known[rows])) for p in runs] for runs in (a, b)]
        drawn.append(np.mean(on_rows[0]) - np.mean(on_rows[1]))
    point = np.mean([mean_auc(p) for p in a]) - np.mean([mean_auc(p) for p in b])
    return point, *np.percentile(drawn, [2.5, 97.5])


mine = my_difference(off, on)
package = paired_difference(y, off, on, known, test.table["patient_id"], n_boot=300)
assert np.allclose(mine, (package.diff, package.lo, package.hi))
print("by hand and by the package: the same")

# %% tags=["nbval-ignore-output"]
print(f"without local views minus with them: {mine[0]:+.3f} [{mine[1]:+.3f}, {mine[2]:+.3f}]")

# %% [markdown]
# In the default profile the interval is wide and mostly holds zero. That is *not* "local views do nothing". It is "38 films cannot tell".
# An interval that holds zero and reaches from a large loss to a large gain is not a result; one that holds zero and is narrow is one: *whatever
# the part does, it is small*. Read the width before the star.
#
# What pairing buys is seen by doing without it. If the two sides were scored on different draws, the easy and the hard draws would
# not cancel:

# %% tags=["nbval-ignore-output"]
codes = group_codes(test.table["patient_id"], len(test))
draws = defined_mean(bootstrap_aucs(np.nan_to_num(y), [*on, *off], known, codes, 1000, 0))
a, b = draws[len(on):].mean(axis=0), draws[: len(on)].mean(axis=0)
print(f"standard deviation of the difference over draws: paired {np.std(a - b):.3f}, "
      f"unpaired {np.std(a - rng.permutation(b)):.3f}")

# %% [markdown]
# ## 3. One factor at a time
#
# `medbridge ablate` does this for every factor. Here for two of them: the views, and the number of queries $Q$.

# %% tags=["nbval-ignore-output"]
cache = FeatureCache(progress=False)
study = run_ablation(benchmark, live, folder / "study", cache, only=["views", "queries"], seeds=seeds)
study.table[["factor", "variant", "views", "val_auc", "val_diff", "test_auc", "test_diff", "test_lo", "test_hi", "seconds"]].round(3)

# %%
rows = study.table.set_index("variant")
assert np.isclose(rows.loc["default", "test_auc"], np.mean([mean_auc(p) for p in on]))
assert np.isclose(rows.loc["whole film only (N=1)", "test_auc"], np.mean([mean_auc(p) for p in off]))
assert np.isclose(rows.loc["whole film only (N=1)", "test_diff"], mine[0])
assert run_ablation(benchmark, live, folder / "study", cache, only=["views"], seeds=seeds).table.shape[0] == 3
print("the study's rows are what we trained by hand; what is finished is not trained again")

# %% alt="forest plots, validation left and test right: mean AUC of each variant minus the default with 95 % paired intervals, small study on synthetic films; a line marks zero" tags=["nbval-ignore-output"]
forest_plot(study.table, study.caption)

# %% [markdown]
# A **forest plot**: one line per variant, its interval against the line of no difference. The left half is for choosing, the right half
# only for reporting. A study that chooses by the test column has no test column left.
#
# Look at the test AUC of the default itself: after four epochs on so few films it is not far from chance. All rows are differences from this
# *one* default, so they share its luck. Where the default has an unlucky draw, every variant looks better at once.
#
# ### Exercise 10.1: how many trainings?
# ★☆☆, 5 minutes. `levels` holds the number of levels of each factor, the default's own among them, such as `[3, 2]` for *views in
# {1, 5, 10}* and *attention on or off*. Write `trainings(levels, seeds)`: return two numbers, how many trainings the study one factor
# at a time takes, and how many the **full factorial** with every combination.
#
# <details><summary>Hint</summary>
# One factor at a time, all factors share <i>one</i> default. In a factorial, levels multiply (<code>math.prod</code>).
# </details>

# %%
def trainings(levels, seeds):
    raise NotImplementedError


check("10.1", trainings)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/10_ablations.ipynb](solutions/10_ablations.ipynb).
#
# ```python
# def trainings(levels, seeds):
#     return seeds * (1 + sum(n - 1 for n in levels)), seeds * math.prod(levels)
# ```
# </details>

# %%
levels = [1 + len(plan(base, [factor])[1:]) for factor in FACTORS if factor not in ("probe", "kind")]
print(f"our study, {len(levels)} factors: {sum(n - 1 for n in levels) + 1} cells one at a time, {math.prod(levels):,} in a factorial")

# %% [markdown]
# ## 4. What one at a time cannot see
#
# Queries and views might help each other: with one view a single query may do, with five views it may not. That is an **interaction**.
# With $\mathrm{AUC}_{ij}$ the AUC with the first factor at level $i$ and the second at $j$ (0: off, 1: on, the default):
#
# $$I = (\mathrm{AUC}_{11} - \mathrm{AUC}_{01}) - (\mathrm{AUC}_{10} - \mathrm{AUC}_{00})$$
#
# One factor at a time measures $\mathrm{AUC}_{11}$, $\mathrm{AUC}_{01}$ and $\mathrm{AUC}_{10}$, and never $\mathrm{AUC}_{00}$. It knows what a part is worth *beside all others*, and
# nothing else. Two parts that replace each other ($I < 0$) both look useless then: take either away, and the other does its work. Taking
# both away would cost a lot, but no row of the table says so. Let us train the missing corner:

# %% tags=["nbval-ignore-output"]
corner = [train_once(False, 1, seed) for seed in seeds]
target, one_query = make_targets(benchmark, [benchmark])[0], replace(live, adapter=replace(live.adapter, queries=1))
kept = ResultStore(folder / "study")  # finds what the study trained by all that it depends on
single = [kept.scores(Cell("MedBridge", benchmark, [target], one_query, seed), target) for seed in seeds]
cells = {("on", 8): on, ("off", 8): off, ("on", 1): single, ("off", 1): corner}
grid = pd.DataFrame({f"Q = {q}": {f"local views {v}": np.mean([mean_auc(p) for p in cells[v, q]]) for v in ("off", "on")}
                     for q in (1, 8)})
grid.round(3)

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(4.6, 3.0), layout="constrained")
ax = fig.subplots()
for style, (name, row) in zip(("o--", "s-"), grid.iterrows(), strict=True):
    ax.plot(range(2), row, style, label=name)
ax.set_xticks(range(2), grid.columns)
ax.set(xlim=(-0.3, 1.3), ylabel="test mean AUC", title="Two factors (synthetic films): parallel lines, no interaction")
ax.title.set_fontsize(9)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# Lines that are not parallel *in the picture* prove nothing yet: every corner is as noisy as before, and a difference of differences
# is noisier than a difference. With independent corners of standard deviation $\sigma$, a difference has $\sqrt 2\,\sigma$, an
# interaction $2\,\sigma$. That is the second reason why few people run factorials: **interactions need four times the films of a
# corner's own AUC** for the same width.
#
# ### Exercise 10.2: Holm's correction
# ★★☆, 15 minutes. Section 5 needs it. Given $J$ p-values, Holm (1979) adjusts them such that whoever calls different what is below
# 0.05 makes *any* false claim with a probability of at most 0.05. Sort them; multiply the smallest by $J$, the next by $J - 1$, ..., the
# largest by 1; no later one may be below an earlier one; none is above 1. Write `holm_adjusted(p)`: the adjusted p-values **in the order
# given**.
#
# <details><summary>Hint</summary>
# <code>order = np.argsort(p)</code>; <code>np.maximum.accumulate</code> is the running maximum; <code>adjusted[order] = ...</code> puts each
# back.
# </details>

# %%
def holm_adjusted(p):
    raise NotImplementedError


check("10.2", holm_adjusted)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/10_ablations.ipynb](solutions/10_ablations.ipynb).
#
# ```python
# def holm_adjusted(p):
#     order = np.argsort(p)
#     steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
#     adjusted = np.empty(len(p))
#     adjusted[order] = np.minimum(1.0, steps)
#     return adjusted
# ```
# </details>

# %% [markdown]
# ### Exercise 10.3: an interaction with its interval
# ★★★, 25 minutes. `scores` is an array $(2, 2, n)$: `scores[i, j]` are the scores of the model with the first factor at $i$ and the
# second at $j$, for one label `y` of the $n$ films of `patients`. Write `interaction(y, scores, patients, n_boot, rng)`: return $I$, and
# the lower and upper end of its 95 % percentile interval over `n_boot` resamples of **patients**. Leave out resamples in which only one
# class is drawn.
#
# <details><summary>Hint</summary>
# Write a function <code>effect(rows)</code> that scores all four models on the same rows (<code>roc_auc_score</code>), and call it for
# every draw and once for all films.
# </details>

# %%
def interaction(y, scores, patients, n_boot, rng):
    raise NotImplementedError


check("10.3", interaction)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/10_ablations.ipynb](solutions/10_ablations.ipynb).
#
# ```python
# def interaction(y, scores, patients, n_boot, rng):
#     def effect(rows):
#         a = [[roc_auc_score(y[rows], s[rows]) for s in row] for row in scores]
#         return (a[1][1] - a[0][1]) - (a[1][0] - a[0][0])
#
#     films_of = [np.flatnonzero(patients == p) for p in np.unique(patients)]
#     draws = []
#     for _ in range(n_boot):
#         rows = np.concatenate([films_of[i] for i in rng.integers(len(films_of), size=len(films_of))])
#         if 0 < y[rows].sum() < len(rows):
#             draws.append(effect(rows))
#     low, high = np.percentile(draws, [2.5, 97.5])
#     return effect(np.arange(len(y))), low, high
# ```
# </details>

# %% [markdown]
# The interaction of our own four corners, over the mean of the labels. The interval covers which *patients* were scored. It does not cover
# what two other seeds would have learned, so one that leaves zero out does not prove it yet:

# %% tags=["nbval-ignore-output"]
order = [cells["off", 1], cells["on", 1], cells["off", 8], cells["on", 8]]
draws = defined_mean(bootstrap_aucs(np.nan_to_num(y), [p for runs in order for p in runs], known, codes, 1000, 0))
a00, a10, a01, a11 = draws.reshape(4, len(seeds), -1).mean(axis=1)
low, high = np.percentile((a11 - a01) - (a10 - a00), [2.5, 97.5])
value = (grid.loc["local views on", "Q = 8"] - grid.loc["local views off", "Q = 8"]) - (
    grid.loc["local views on", "Q = 1"] - grid.loc["local views off", "Q = 1"])
print(f"interaction of local views and Q: {value:+.3f} [{low:+.3f}, {high:+.3f}]")

# %% [markdown]
# ## 5. Many comparisons: the best of many is the luckiest
#
# A table of 20 variants is 20 comparisons. If *no* variant made any difference, each interval of 95 % would still leave zero out with
# probability 0.05, and one of them nearly surely:
#
# $$\Pr(\text{any}) = 1 - 0.95^{J}$$
#
# (for independent comparisons; ours share the default, so they are not quite; `K` in the code). And if the best of them is *chosen*, its own
# estimate is too good, because the luck that made it best is in the estimate. A simulation of 20 variants that are all the same as
# the default, each measured once on validation and once on test, with a noise of 0.010 AUC:

# %%
K, noise, repeats = 20, 0.010, 4000
validation, tested = noise * rng.standard_normal((2, repeats, K))
best = validation.argmax(axis=1)
chosen = {"validation": validation[np.arange(repeats), best], "test": tested[np.arange(repeats), best]}
print(f"P(any of {K}) = {1 - 0.95**K:.2f}; simulated {np.mean((np.abs(validation) > 1.96 * noise).any(axis=1)):.2f}")
print(f"the best of {K} on validation: {chosen['validation'].mean():+.3f} there, {chosen['test'].mean():+.3f} on test")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(6, 2.8), layout="constrained")
ax = fig.subplots()
bins = np.linspace(-0.04, 0.05, 46)
ax.hist(chosen["test"], bins, color="0.75", label="the same variant on test")
ax.hist(chosen["validation"], bins, histtype="step", color="tab:blue", linewidth=1.8, label="best of 20 on validation")
ax.axvline(0, color="0.3", linestyle="--", linewidth=0.9)
ax.set(xlabel="AUC minus the default's (no variant differs in truth)", ylabel="simulated studies", title="Simulation: the winner's curse")
ax.title.set_fontsize(9)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# Two things follow. **A claim "this variant is better" needs a corrected p-value**, as of exercise 10.2; the table has both. And **the gain
# is read from films that did not choose**: the test column, once.
#
# Holm's is strict: it bounds the chance of *any* false claim. Whether to correct depends on the question. For one that was asked
# *before* ("do local views help?"), the plain interval stands. For "which of these 20 is best?", it does not.

# %%
p = np.array([0.001, 0.012, 0.02, 0.04, 0.3])
print("plain:", (p < 0.05).sum(), "below 0.05; Holm:", (holm(p) < 0.05).sum(), "of", len(p), "->", np.round(holm(p), 3).tolist())
few = np.minimum(1, (np.abs(rng.standard_normal((4000, K))) > 1.96).sum(axis=1))
assert abs(few.mean() - (1 - 0.95**K)) < 0.03  # the formula holds

# %% [markdown]
# ## 6. AUC against kilobytes
#
# Some factors change what a part *costs* in a way that needs no measurement. The queries read compact maps: of each depth $l$ at most
# `patches` patches $P_l$ and `components` components $r_l$, each number in `bits` bits. With the $s$ numbers of the summary and of the
# embedding, which stay in float16, the queries need of a view
#
# $$\text{bytes} = \frac{\text{bits}}{8} \sum_l P_l\, r_l + 2 s .$$

# %%
def needed_bytes(expert, depths, basis):
    """What the queries read of a view. The cache keeps 128 components even where fewer are read: a study needs one fill."""
    unread = 0 if basis is None else sum(
        (basis.prefix + math.prod(basis.grids[d - 1])) * (basis.stored[d - 1] - basis.widths[d - 1]) for d in depths)
    return view_bytes(expert, depths, basis) - unread * (0 if basis is None else basis.form.bits // 8)


STORAGE = ["maps", "components", "patches", "bits"]
kilobytes = {}
for v in plan(live, STORAGE):
    reader = map_reader(v.settings.experts, v.settings.adapter, v.settings.sampler)  # which depths, in which bases
    bases = reader.bases or [None]
    kilobytes[v.name] = sum(map(needed_bytes, reader.experts, reader.depths, bases)) / 1000
print(pd.Series(kilobytes, name="kB per view").round(1).to_string())

expert = live.experts[0]
grids, widths = [(8, 8), (4, 4)], [128, 128]  # the compact maps of its last two depths: squares of 8 x 8 patches stay as they are
by_hand = sum(r * c * w for (r, c), w in zip(grids, widths, strict=True)) + 2 * (expert.image_dim + expert.text_dim)
assert by_hand == 1000 * kilobytes["default"]

# %% [markdown]
# The same small study, with these factors. One variant is a test of the study itself: the maps of this expert have no more than 64 patches,
# so to allow 256 changes nothing, and the difference must be exactly zero.

# %% tags=["nbval-ignore-output"]
stored = run_ablation(benchmark, live, folder / "study", cache, only=STORAGE, seeds=seeds).table
stored["kB per view"] = stored["variant"].map(kilobytes)
stored[["factor", "variant", "kB per view", "val_auc", "val_diff", "val_lo", "val_hi", "val_seed_sd"]].round(3)

# %%
same = stored.set_index("variant").loc["P<=256"]
assert same["val_diff"] == same["val_lo"] == same["val_hi"] == same["test_diff"] == 0
print("what changes nothing makes no difference")

# %% alt="mean validation AUC of the default and five variants of the stored maps against kilobytes per view on a logarithmic axis, with 95 % paired intervals around the difference from the default, small study on synthetic films; a dashed line marks the default" tags=["nbval-ignore-output"]
fig = Figure(figsize=(7, 3.4), layout="constrained")
ax = fig.subplots()
default = stored.iloc[0]
ax.axhline(default["val_auc"], color="0.6", linestyle="--", linewidth=0.9)
ax.plot(default["kB per view"], default["val_auc"], "o", color="black", markersize=10, markerfacecolor="none", label="default: r=128, P<=64, 8 bits")
for marker, row in zip("sDv^P", stored[stored["variant"].isin(kilobytes) & ~stored["variant"].isin(["default", "P<=256"])].itertuples(),
                       strict=True):
    reach = [[row.val_diff - row.val_lo], [row.val_hi - row.val_diff]]
    ax.errorbar(kilobytes[row.variant], row.val_auc, reach, fmt=marker, capsize=2, label=row.variant)
ax.set(xscale="log", xlabel="kilobytes per view", ylabel="validation mean AUC",
       title=f"{len(val)} synthetic validation films, {len(seeds)} seeds")
ax.set_xticks([4, 6, 12, 22, 50], ["4", "6", "12", "22", "50"])
ax.minorticks_off()
ax.title.set_fontsize(9)
ax.spines[["top", "right"]].set_visible(False)
fig.legend(*ax.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8, title_fontsize=8,
           title="bars: 95 % interval of the\ndifference from the default")
fig

# %% [markdown]
# **What to see.** The horizontal axis is exact: tokens as they are take more than four times the bytes of the default, and
# r=32 takes a third of them. The vertical axis is not: the intervals are wide, they hold zero, and nothing is chosen by this picture. The
# narrowest is that of 16 bits, which changes no more than the rounding. The question for a study of real size is whether the dear
# variants on the right gain anything. Where they do not, the cheaper map is the better choice, and the same disk holds more views.
# `medbridge ablate --only maps --only components --only patches --only bits --only whiten` asks it on films of your own.
#
# ## 7. A whole study, of the earlier form
#
# The file `bench/results/ablation_phantom.csv` holds a study of 22 variants.
#
# > **All numbers of this section belong to the earlier form of MedBridge** (commit 83a3a09 and before): one network of width 128 that read
# > the towers' tokens as they are, without members and without a read-out. They say nothing about what the parts are worth today. Seven
# > factors are not in it: `members`, `readout`, `maps`, `components`, `patches`, `bits`, `whiten`. It stays here because a study of this
# > size shows how one is read; [docs/earlier_results.md](../docs/earlier_results.md) holds more of that time.
#
# The full profile runs the study of today's form with the default of the commands, and takes long.

# %%
STORED = Path("../bench/results/ablation_phantom.csv")
header = [line.removeprefix("# ").rstrip() for line in STORED.read_text().splitlines() if line.startswith("#")]
print("\n".join(header))
table = pd.read_csv(STORED, comment="#")
caption = "EARLIER FORM of MedBridge; " + next(line for line in header if line.startswith("PhantomCXR"))

# %% tags=["nbval-ignore-output"]
if full_profile():
    films_of_study = label_budget(load_benchmark("phantom", n_films=3600), 0.25, 0)
    whole = run_ablation(films_of_study, replace(base, config=TrainConfig(epochs=12)), "runs/ablate-phantom", seeds=(0, 1))
    table, caption = whole.table, whole.caption
show = ["factor", "variant", "views", "val_auc", "val_diff", "val_lo", "val_hi", "val_holm", "test_diff", "test_lo", "test_hi", "seconds"]
table[show].round(3)

# %% alt="forest plots, validation left and test right: mean AUC of all variants minus the default with 95 % paired intervals, whole study of the earlier form on synthetic films; a line marks zero" tags=["nbval-ignore-output"]
forest_plot(table, caption)

# %% [markdown]
# **How to read the stored study** of the earlier form:
#
# - **No variant was better than the default** on validation, with or without correction. So the defaults of that time stayed. Some were as
#   good and cheaper: a `uniform` router trained fewer numbers, four queries took two thirds of the time.
# - **Views carried most.** The whole film alone lost 0.02 on validation and 0.04 on test. Five views lost 0.02 on both; seventeen brought
#   nothing more for nearly twice the time. Windows that were too small (0.35) lost as much as no windows at all.
# - **Queries, layers:** one query or one layer lost; more than the default did not gain at this number of films.
# - **Attention across views** was not clear on validation, and clear on test. The left column chooses, so this was one for a third seed.
# - **The router did nothing here.** Uniform weights were as good: two experts of one architecture agree about most films. Against its
#   better expert alone the mixture was ahead by 0.01, and the interval held zero.
# - **With so few films the linear probe on all views was level** (0.001 on validation, 0.008 on test, both held zero) for two seconds
#   of training. With 1,800 synthetic films MedBridge was ahead of it, and on real films it was not
#   ([docs/earlier_results.md](../docs/earlier_results.md)). Rows like this one are why the method was changed.
# - `kind` is missing: ResNets have no transformer blocks whose layers could be copied.

# %% [markdown]
# ### What does it cost?
#
# A part that gains little may still be right where it costs nothing; one that gains a little more may be wrong where it doubles the bill.
# AUC against training time, and against trained parameters:

# %% alt="mean validation AUC of each variant of the earlier form against its training time (left) and its trained parameters (right), a marker per factor, synthetic films; a ring marks the default" tags=["nbval-ignore-output"]
cost_plot(table, caption)

# %% [markdown]
# Choose one factor and see its lines alone:

# %% tags=["nbval-ignore-output"]
widgets.explore_ablation(table, caption)

# %% [markdown]
# (A notebook that is not running shows no controls; the pictures above are the same.)
#
# ### What the intervals leave out
#
# The intervals cover *which patients* were scored. They do not cover the seeds, nor which films were trained on, nor another benchmark.
# `val_seed_sd` tells how far a difference moves from seed to seed. Where it is as large as the difference, a third seed may turn the
# sign, however narrow the interval is:

# %%
rows = table.iloc[1:]
seeds_matter = (rows["val_seed_sd"] > rows["val_diff"].abs()).sum()
print(f"{seeds_matter} of {len(rows)} differences on validation are smaller than their spread over seeds")
agree = (np.sign(rows["val_diff"]) == np.sign(rows["test_diff"])).mean()
print(f"validation and test agree about the sign of {100 * agree:.0f} % of the differences")

# %% [markdown]
# ## 8. On films of your own
#
# ```
# medbridge ablate --benchmark folder --root films --expert clip-vitb16 --expert biomedclip --only views --only pool --seeds 3
# ```
#
# writes `ablation.md`, `ablation.csv` and both figures; it may be stopped, and goes on where it was. Any setting can be the default
# that is varied around: `--queries 16 --pool mean`. The default here is five cross-fitted members and a read-out; `--members 1` is faster,
# and its scores are noisier.
#
# ## Summary
#
# - An ablation trains again with one part changed, on the same films, seeds and epochs. It says what the part is worth *beside all others,
#   under this budget*.
# - One factor at a time costs a sum of trainings, a factorial a product; only the factorial sees interactions, and they need many films.
# - Differences are paired by patient. Read the width of an interval before its star.
# - The best of many variants is the luckiest: correct for the number of comparisons, choose on validation, report test once.
# - Put the cost beside the gain. A variant that changes nothing must make a difference of exactly zero: it tests the study.
# - A study belongs to the form of the method that it was run on. When the method changes, its numbers are history.
# - Intervals over patients do not cover training seeds.
#
# Next: {{NEXT}}
