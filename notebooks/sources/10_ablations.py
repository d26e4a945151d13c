# %% [markdown]
# # 10 Ablations: does each part earn its place?
#
# {{COLAB}}
#
# **What you will build:** an ablation study, from one pair of trainings to a table of variants. You take one
# part away and compare with a paired interval, look for an interaction, see how the best of many variants is
# the luckiest, weigh AUC against bytes, and read a stored study of twenty-two variants of an earlier form of
# MedBridge.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (AUC with intervals),
#   [03](03_focal_sampling.ipynb) (Focal Sampling) and [09](09_adaptation_tasks.ipynb); a little pandas.
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores
#   (more the first time). On a Colab T4 about one minute (an estimate). The full profile takes many hours on
#   a CPU (nobody has timed it).
# - **Module:** `medbridge/studies/ablation.py` · **test:** `tests/studies/test_ablation.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), whose own ablation we could not read.
#   Nearly all that varies here is our choice: **[ours]**.
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
from sklearn.metrics import roc_auc_score

from medbridge import AdapterConfig, FeatureCache, FocalSampler, MedBridge, TrainConfig, create_expert, load_benchmark, predict
from medbridge.course import check, full_profile, seed_everything
from medbridge.metrics.bootstrap import bootstrap_aucs, defined_mean, group_codes
from medbridge.metrics.evaluate import auc, paired_difference
from medbridge.train import fit

rng = seed_everything(0)
folder = Path(tempfile.mkdtemp()) if not full_profile() else Path("runs/ablate_live")

# %% [markdown]
# ## 1. Why: take a part away
#
# MedBridge has many parts: views, compact maps, queries, layers, attention across views, a pool, a router,
# members, a read-out. Whether the whole beats a linear probe says nothing about any *one* part. A part may do
# the work, do nothing, or do harm that another part makes up for. An **ablation** asks: *train again without
# this part, and with everything else as it was; what do we lose?*
#
# $$\Delta_v = \overline{\mathrm{AUC}}(\text{variant } v) - \overline{\mathrm{AUC}}(\text{default})$$
#
# "Everything else" means the **same films** and seeds, the **same budget** of epochs, and for each variant
# its **own** best epoch, chosen on validation. We do not tune the variants. We once chose the learning rate
# for the default, so ablations are a little unfair to variants. A variant that needs twice as many epochs
# looks bad here, and that is a finding about the budget.
#
# The package lists its factors, and what each varies:

# %%
from medbridge.studies.ablation import FACTORS, plan, run_ablation
from medbridge.studies.cells import MethodSettings

base = MethodSettings([create_expert("tiny-resnet"), create_expert("tiny-resnet-scenes")])
for factor in FACTORS:
    print(f"{factor:<11}", ", ".join(v.name for v in plan(base, [factor])[1:]))

# %% [markdown]
# Eight of them are about parts of notebooks [04](04_query_encoder.ipynb) and
# [06](06_assembling_and_training.ipynb). `maps`: do the queries read compact maps, or the towers' tokens as
# they are? `components`, `patches`, `bits` and `whiten` are the shape of a compact map. `depths`: how many
# blocks lie between the maps? `members`: how many networks do we cross-fit and average? `readout`: do we add
# a linear read-out of the summaries?
#
# A factor must be one thing. A smaller **crop** needs more windows to cover the film, and then sharpness
# *and* the number of views change. So with the crop the package changes the overlap, and keeps the number of
# views:

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
# We take the local views away. The live study is small: few films, one expert, few epochs, one member without
# a read-out. Its numbers will be noisy, and that is part of the lesson.

# %% tags=["nbval-ignore-output"]
films, epochs, seeds = (1800, 12, (0, 1, 2)) if full_profile() else (150, 4, (0, 1))
benchmark = load_benchmark("phantom", n_films=films)
live = MethodSettings([create_expert("tiny-resnet")], AdapterConfig(queries=8), FocalSampler(crop=0.6, overlap=0.0, extra=0),
                      TrainConfig(epochs=epochs, batch_size=8, lr=3e-3, ema=0.9))  # few steps: larger ones
val, test = benchmark.split("val"), benchmark.split("test")
y, known = test.targets()
print({s: len(benchmark.split(s)) for s in ("train", "val", "test")}, "films;", test.table["patient_id"].nunique(), "test patients")

# %%
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


# %% tags=["nbval-ignore-output"]
on = [train_once(True, 8, seed) for seed in seeds]
off = [train_once(False, 8, seed) for seed in seeds]
assert np.isclose(auc(y, on[0], known)[0], roc_auc_score(y[:, 0], on[0][:, 0]))
for name, runs in (("with local views", on), ("without", off)):
    print(f"test AUC, seed by seed, {name:<17}", [f"{mean_auc(p):.3f}" for p in runs])

# %% [markdown]
# With few films, two seeds of one variant differ by as much as two variants do. So one training per variant
# shows nothing: **average over seeds**, the same on both sides.
#
# How sure is the difference? We draw *patients* with replacement and take the difference on each draw (the
# interval runs from its 2.5 to its 97.5 percentile):
#
# $$\Delta^* = \operatorname{mean}_{\text{seeds } s} \Big[ \overline{\mathrm{AUC}}_w(\text{off}, s)
#   - \overline{\mathrm{AUC}}_w(\text{on}, s) \Big]$$
#
# with $w$ how often each patient was drawn.

# %%
def my_difference(a, b, n_boot=300, seed=0):
    """Mean AUC of runs a minus runs b, with its interval over patients."""
    patients = group_codes(test.table["patient_id"], len(test))
    films_of = [np.flatnonzero(patients == p) for p in range(patients.max() + 1)]
    draw, drawn = np.random.default_rng(seed), []
    for _ in range(n_boot):
        rows = np.concatenate([films_of[i] for i in draw.integers(len(films_of), size=len(films_of))])
        of_a, of_b = (np.mean([defined_mean(auc(y[rows], p[rows], known[rows])) for p in runs]) for runs in (a, b))
        drawn.append(of_a - of_b)
    point = np.mean([mean_auc(p) for p in a]) - np.mean([mean_auc(p) for p in b])
    return point, *np.percentile(drawn, [2.5, 97.5])


# %%
mine = my_difference(off, on)
package = paired_difference(y, off, on, known, test.table["patient_id"], n_boot=300)
assert np.allclose(mine, (package.diff, package.lo, package.hi))
print("by hand and by the package: the same")

# %% tags=["nbval-ignore-output"]
print(f"without local views minus with them: {mine[0]:+.3f} [{mine[1]:+.3f}, {mine[2]:+.3f}]")

# %% [markdown]
# The interval is wide and mostly holds zero. That does *not* say "local views do nothing". It says "38 films
# cannot tell". A narrow interval around zero would be a result: *whatever the part does, it is small*. Read
# the width first.
#
# What does pairing buy? Without it, easy and hard draws would not cancel:

# %% tags=["nbval-ignore-output"]
codes = group_codes(test.table["patient_id"], len(test))
draws = defined_mean(bootstrap_aucs(np.nan_to_num(y), [*on, *off], known, codes, 1000, 0))
a, b = draws[len(on):].mean(axis=0), draws[: len(on)].mean(axis=0)
print(f"standard deviation of the difference over draws: paired {np.std(a - b):.3f}, "
      f"unpaired {np.std(a - rng.permutation(b)):.3f}")

# %% [markdown]
# ## 3. One factor at a time
#
# `medbridge ablate` does this for every factor. Here for two: the views, and the number of queries $Q$.

# %% tags=["nbval-ignore-output"]
cache = FeatureCache(progress=False)
study = run_ablation(benchmark, live, folder / "study", cache, only=["views", "queries"], seeds=seeds)
study.table[["factor", "variant", "views", "val_auc", "val_diff", "test_auc", "test_diff", "test_lo", "test_hi", "seconds"]].round(3)

# %%
rows = study.table.set_index("variant")
assert np.isclose(rows.loc["default", "test_auc"], np.mean([mean_auc(p) for p in on]))
assert np.isclose(rows.loc["whole film only (N=1)", "test_diff"], mine[0])
assert run_ablation(benchmark, live, folder / "study", cache, only=["views"], seeds=seeds).table.shape[0] == 3
print("the study's rows are what we trained by hand; what is finished is not trained again")

# %% alt="forest plots, validation left and test right: mean AUC of each variant minus the default with 95 % paired intervals, small study on synthetic films; a line marks zero" tags=["nbval-ignore-output"]
from medbridge.viz.studies import cost_plot, forest_plot

forest_plot(study.table, study.caption)

# %% [markdown]
# **What to see.** In a **forest plot** each variant's interval lies against the line of no difference. The
# left half is for choosing, the right half for reporting: whoever chooses by the test column has no test
# column left. All rows are differences from *one* default, so they share its luck.
#
# ### Exercise 10.1: how many trainings?
# ★☆☆, 5 minutes. `levels` holds the number of levels of each factor, the default's own among them, such as
# `[3, 2]`. Write `trainings(levels, seeds)`: return how many trainings the study one factor at a time takes,
# and how many the **full factorial** with every combination.
#
# <details><summary>Hint</summary>
# One factor at a time, all factors share <i>one</i> default. In a factorial, levels multiply
# (<code>math.prod</code>).
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
# ### The best of many is the luckiest
#
# A table of 20 variants is 20 comparisons. If *no* variant made a difference, each 95 % interval would still
# leave zero out with probability 0.05, and for $J$ independent ones
#
# $$\Pr(\text{any}) = 1 - 0.95^{J}$$
#
# And if we *choose* the best, its estimate is too good: the luck that made it best is in it. Simulate 20
# variants that are all the same as the default, measured once on validation and once on test, with a noise of
# 0.010 AUC:

# %%
variants, noise, repeats = 20, 0.010, 4000
validation, tested = noise * rng.standard_normal((2, repeats, variants))
best = validation.argmax(axis=1)
chosen = {"validation": validation[np.arange(repeats), best], "test": tested[np.arange(repeats), best]}
any_clear = np.mean((np.abs(validation) > 1.96 * noise).any(axis=1))
print(f"P(any of {variants}) = {1 - 0.95**variants:.2f}; simulated {any_clear:.2f}")
print(f"the best of {variants} on validation: {chosen['validation'].mean():+.3f} there, {chosen['test'].mean():+.3f} on test")
assert abs(any_clear - (1 - 0.95**variants)) < 0.03  # the formula holds

# %% alt="histograms over simulated studies: the best of 20 equal variants lies above zero on validation, the same variant lies around zero on test" tags=["nbval-ignore-output"]
from medbridge.viz.drawing import chart, errors

fig, ax = chart(6, 2.8, "Simulation: the winner's curse")
bins = np.linspace(-0.04, 0.05, 46)
ax.hist(chosen["test"], bins, color="0.75", label="the same variant on test")
ax.hist(chosen["validation"], bins, histtype="step", linewidth=1.8, label="best of 20 on validation")
ax.axvline(0, color="0.3", linestyle="--")
ax.set(xlabel="AUC minus the default's (no variant differs in truth)", ylabel="simulated studies")
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# So **"this variant is better" needs a corrected p-value**, and **we read the gain from films that did not
# choose**. For a question that was asked *before* ("do local views help?") the plain interval stands. For
# "which of these 20 is best?" it does not.
#
# ### Exercise 10.2: Holm's correction
# ★★☆, 15 minutes. Of $J$ p-values, Holm (1979) multiplies the smallest by $J$, the next by $J - 1$, ..., the
# largest by 1; no later one may be below an earlier one, and none above 1. Whoever then claims what is below
# 0.05 makes *any* false claim with a probability of at most 0.05. Write `holm_adjusted(p)`: the adjusted
# p-values **in the order given**.
#
# <details><summary>Hint</summary>
# <code>order = np.argsort(p)</code>; <code>np.maximum.accumulate</code> is the running maximum;
# <code>adjusted[order] = ...</code> puts each back.
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

# %%
from medbridge.studies.tables import holm

p = np.array([0.001, 0.012, 0.02, 0.04, 0.3])
print("plain:", (p < 0.05).sum(), "below 0.05; Holm:", (holm(p) < 0.05).sum(), "of", len(p), "->", np.round(holm(p), 3).tolist())

# %% [markdown]
# ## 4. Two factors together
#
# With one view a single query may do, with five views it may not. That is an **interaction**. With
# $\mathrm{AUC}_{ij}$ the AUC with the first factor at level $i$ and the second at $j$ (0: off, 1: on, the
# default):
#
# $$I = (\mathrm{AUC}_{11} - \mathrm{AUC}_{01}) - (\mathrm{AUC}_{10} - \mathrm{AUC}_{00})$$
#
# One factor at a time never measures $\mathrm{AUC}_{00}$. Two parts that replace each other ($I < 0$) then
# both look useless: take either away, and the other does its work. So we train the missing corner:

# %% tags=["nbval-ignore-output"]
from medbridge.data.tasks import label_budget, make_targets
from medbridge.studies.cells import Cell, ResultStore

corner = [train_once(False, 1, seed) for seed in seeds]
target, one_query = make_targets(benchmark, [benchmark])[0], replace(live, adapter=replace(live.adapter, queries=1))
kept = ResultStore(folder / "study")  # finds what the study trained by all that it depends on
single = [kept.scores(Cell("MedBridge", benchmark, [target], one_query, seed), target) for seed in seeds]
grid = pd.DataFrame({q: {name: np.mean([mean_auc(p) for p in runs]) for name, runs in rows.items()} for q, rows in {
    "Q = 1": {"local views off": corner, "local views on": single}, "Q = 8": {"local views off": off, "local views on": on}}.items()})
grid.round(3)

# %% alt="test mean AUC at one query and at eight, one line with local views and one without, synthetic films; parallel lines would mean no interaction" tags=["nbval-ignore-output"]
fig, ax = chart(4.6, 3.0, "Two factors (synthetic films): parallel lines, no interaction")
for style, (name, row) in zip(("o--", "s-"), grid.iterrows(), strict=True):
    ax.plot(grid.columns, row, style, label=name)
ax.set(xlim=(-0.3, 1.3), ylabel="test mean AUC")
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# Lines that are not parallel *in the picture* prove nothing yet. With independent corners of standard
# deviation $\sigma$, a difference has $\sqrt 2\,\sigma$ and an interaction $2\,\sigma$: **it needs four times
# the films** of a corner's own AUC for the same width.
#
# ### Exercise 10.3: an interaction with its interval
# ★★★, 25 minutes. `scores` is an array $(2, 2, n)$: `scores[i, j]` are the scores of the model with the first
# factor at $i$ and the second at $j$, for one label `y` of the $n$ films of `patients`. Write
# `interaction(y, scores, patients, n_boot, rng)`: return $I$, and both ends of its 95 % percentile interval
# over `n_boot` resamples of **patients**. Leave out resamples with one class alone.
#
# <details><summary>Hint</summary>
# Write a function <code>effect(rows)</code> that scores all four models on the same rows, and call it for
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
#
# The interaction of our four corners. Its interval covers which *patients* we scored, not what two other
# seeds would have learned: one that leaves zero out does not prove it yet.

# %% tags=["nbval-ignore-output"]
order = [*corner, *single, *off, *on]
draws = defined_mean(bootstrap_aucs(np.nan_to_num(y), order, known, codes, 1000, 0))
a00, a10, a01, a11 = draws.reshape(4, len(seeds), -1).mean(axis=1)
low, high = np.percentile((a11 - a01) - (a10 - a00), [2.5, 97.5])
by_views = grid.loc["local views on"] - grid.loc["local views off"]
print(f"interaction of local views and Q: {by_views['Q = 8'] - by_views['Q = 1']:+.3f} [{low:+.3f}, {high:+.3f}]")

# %% [markdown]
# ## 5. Cost, and a whole study
#
# Some factors change a cost that we can count. The queries read compact maps: of each depth $l$ at most
# `patches` patches $P_l$ and `components` components $r_l$, each number in `bits` bits. The $s$ numbers of
# the summary and of the embedding stay in float16. So of each view the queries need
#
# $$\text{bytes} = \frac{\text{bits}}{8} \sum_l P_l\, r_l + 2 s .$$

# %%
from medbridge.features.encode import view_bytes
from medbridge.model import map_reader


def needed_bytes(expert, depths, basis):
    """What the queries read of a view. The cache keeps 128 components even where fewer are read: a study needs one fill."""
    if basis is None:
        return view_bytes(expert, depths, basis)
    unread = sum((basis.prefix + math.prod(basis.grids[d - 1])) * (basis.stored[d - 1] - basis.widths[d - 1]) for d in depths)
    return view_bytes(expert, depths, basis) - unread * (basis.form.bits // 8)


# %%
STORAGE = ["maps", "components", "patches", "bits"]
kilobytes = {}
for v in plan(live, STORAGE):
    reader = map_reader(v.settings.experts, v.settings.adapter, v.settings.sampler)  # which depths, in which bases
    kilobytes[v.name] = sum(map(needed_bytes, reader.experts, reader.depths, reader.bases or [None])) / 1000
print(pd.Series(kilobytes, name="kB per view").round(1).to_string())

# %%
expert = live.experts[0]
grids, widths = [(8, 8), (4, 4)], [128, 128]  # the compact maps of its last two depths: squares of 8 x 8 patches stay as they are
by_hand = sum(r * c * w for (r, c), w in zip(grids, widths, strict=True)) + 2 * (expert.image_dim + expert.text_dim)
assert by_hand == 1000 * kilobytes["default"]

# %% [markdown]
# The same small study with these factors. One variant tests the study itself: this expert's maps have at most
# 64 patches, so allowing 256 must make a difference of exactly zero.

# %% tags=["nbval-ignore-output"]
stored = run_ablation(benchmark, live, folder / "study", cache, only=STORAGE, seeds=seeds).table
stored["kB per view"] = stored["variant"].map(kilobytes)
stored[["factor", "variant", "kB per view", "val_auc", "val_diff", "val_lo", "val_hi", "val_seed_sd"]].round(3)

# %%
same = stored.set_index("variant").loc["P<=256"]
assert same["val_diff"] == same["val_lo"] == same["val_hi"] == same["test_diff"] == 0
print("what changes nothing makes no difference")

# %% alt="mean validation AUC of the default and five variants of the stored maps against kilobytes per view on a logarithmic axis, with 95 % paired intervals around the difference from the default, small study on synthetic films; a dashed line marks the default" tags=["nbval-ignore-output"]
default, shown = stored.iloc[0], stored[stored["variant"].isin(kilobytes) & (stored["variant"] != "P<=256")]
fig, ax = chart(7, 3.4, f"{len(val)} synthetic validation films, {len(seeds)} seeds; bars: 95 % interval of the difference")
ax.axhline(default["val_auc"], color="0.6", linestyle="--", linewidth=0.9)
for marker, (_, row) in zip("osDv^P", shown.iterrows(), strict=True):
    reach = np.nan_to_num(errors(row["val_diff"], row["val_lo"], row["val_hi"]))[:, None]
    ax.errorbar(row["kB per view"], row["val_auc"], reach, fmt=marker, capsize=2, label=row["variant"])
ax.set(xscale="log", xlabel="kilobytes per view", ylabel="validation mean AUC")
ax.set_xticks([4, 6, 12, 22, 50], ["4", "6", "12", "22", "50"])
ax.minorticks_off()
fig.legend(loc="outside right upper", frameon=False, fontsize=8)
fig

# %% [markdown]
# **What to see.** The horizontal axis is exact: tokens as they are take more than four times the default's
# bytes, r=32 a third of them. The vertical axis is not: the intervals are wide and hold zero, so this picture
# chooses nothing.
#
# ### A whole study, of the earlier form
#
# > **All numbers from here on belong to the earlier form of MedBridge** (commit 83a3a09 and before): one
# > network of width 128 that read the towers' tokens as they are, without members and without a read-out.
# > They say nothing about what the parts are worth today. The study stays because its size shows how to read
# > one. More of that time: [docs/earlier_results.md](../docs/earlier_results.md).

# %%
STORED = Path("../bench/results/ablation_phantom.csv")
header = [line.removeprefix("# ").rstrip() for line in STORED.read_text().splitlines() if line.startswith("#")]
print("\n".join(header))
table = pd.read_csv(STORED, comment="#")
caption = "EARLIER FORM of MedBridge; " + next(line for line in header if line.startswith("PhantomCXR"))

# %% tags=["nbval-ignore-output"]
if full_profile():  # the study of today's form
    films_of_study = label_budget(load_benchmark("phantom", n_films=3600), 0.25, 0)
    whole = run_ablation(films_of_study, replace(base, config=TrainConfig(epochs=12)), "runs/ablate-phantom", seeds=(0, 1))
    table, caption = whole.table, whole.caption
show = ["factor", "variant", "views", "val_auc", "val_diff", "val_lo", "val_hi", "val_holm", "test_diff", "test_lo", "test_hi", "seconds"]
table[show].round(3)

# %% alt="forest plots, validation left and test right: mean AUC of all variants minus the default with 95 % paired intervals, whole study of the earlier form on synthetic films; a line marks zero" tags=["nbval-ignore-output"]
forest_plot(table, caption)

# %% [markdown]
# **How to read it.**
#
# - **No variant was better than the default** on validation, so the defaults of that time stayed. Four
#   queries were as good there, in two thirds of the time.
# - **Views carried most.** The whole film alone lost 0.02 on validation and 0.04 on test. Seventeen views
#   brought nothing more for nearly twice the time. Windows of 0.35 lost as much as no windows at all.
# - **One query or one layer lost.** More than the default gained nothing at this number of films.
# - **Attention across views** was not clear on validation, and clear on test. The left column chooses: ask a
#   third seed.
# - **The router did nothing here.** Uniform weights were as good: two experts of one architecture agree about
#   most films. Against its better expert alone the mixture was ahead by 0.01, and the interval held zero.
# - `kind` is missing: ResNets have no transformer blocks whose layers could be copied.
# - **The linear probe on all views was level** (0.001 on validation, 0.008 on test; both intervals held zero)
#   for two seconds of training. With 1,800 synthetic films MedBridge was ahead of it, and on real films it
#   was not. Such rows are why we changed the method: notebook [08](08_baselines.ipynb) tells the story.
#
# A part that gains little may be right where it costs nothing:

# %% alt="mean validation AUC of each variant of the earlier form against its training time (left) and its trained parameters (right), a marker per factor, synthetic films; a ring marks the default" tags=["nbval-ignore-output"]
cost_plot(table, caption)

# %% [markdown]
# Choose one factor and see its lines alone (needs a running kernel):

# %% tags=["nbval-ignore-output"]
from medbridge.viz import widgets

widgets.explore_ablation(table, caption)

# %% [markdown]
# The intervals cover *which patients* we scored. They cover neither the seeds, nor the training films, nor
# another benchmark. Where `val_seed_sd` is as large as the difference, a third seed may turn its sign:

# %%
rows = table.iloc[1:]
seeds_matter = (rows["val_seed_sd"] > rows["val_diff"].abs()).sum()
print(f"{seeds_matter} of {len(rows)} differences on validation are smaller than their spread over seeds")
agree = (np.sign(rows["val_diff"]) == np.sign(rows["test_diff"])).mean()
print(f"validation and test agree about the sign of {100 * agree:.0f} % of the differences")

# %% [markdown]
# On films of your own, this writes `ablation.md`, `ablation.csv` and both figures. You may stop it, and it
# goes on:
#
# ```
# medbridge ablate --benchmark folder --root films --expert clip-vitb16 --only views --only pool --seeds 3
# ```
#
# ## Summary
#
# - An ablation trains again with one part changed. It says what the part is worth *beside all others, under
#   this budget*.
# - One factor at a time costs a sum of trainings, a factorial a product; only the factorial sees
#   interactions.
# - Differences are paired by patient. Read the width of an interval before its star.
# - The best of many variants is the luckiest: correct, choose on validation, report test once.
# - Put the cost beside the gain. A variant that changes nothing must make a difference of exactly zero.
# - A study belongs to the form of the method that it ran on. Intervals over patients do not cover training
#   seeds.
#
# Next: {{NEXT}}
