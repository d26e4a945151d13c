# %% [markdown]
# # 07 Evaluation done right
#
# {{COLAB}}
#
# **What you will build:** every number that a result needs, from scratch, each checked against the package: AUC by ranks, average
# precision, bootstrap intervals, paired differences, DeLong's test, thresholds, calibration, subgroups. And you measure how the usual
# mistakes inflate results: intervals by film, thresholds chosen on the test films, the best of many runs.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (AUC by pairs, a first bootstrap) and
#   [06](06_assembling_and_training.ipynb) (what is evaluated here); a first course in statistics: mean, standard deviation, interval.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores when films and features are not there
#   yet, half a minute afterwards. On a Colab T4 about the same (an estimate): little of it runs on a GPU.
# - **Modules:** `medbridge/metrics/evaluate.py`, `medbridge/metrics/thresholds.py` ·
#   **tests:** `tests/metrics/test_evaluate.py`, `tests/metrics/test_thresholds.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). **[abstract]** It reports AUC. **[ours]** Intervals, paired tests, thresholds, calibration
#   and subgroups.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**, and so are all simulated scores.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from medbridge import FeatureCache, load_adapter, load_benchmark, paired_difference
from medbridge.course import check, full_profile, seed_everything
from medbridge.metrics.bootstrap import bootstrap_aucs
from medbridge.metrics.calibration import brier, ece, fit_temperature, reliability
from medbridge.metrics.delong import delong_auc, delong_difference
from medbridge.metrics.evaluate import auc, bootstrap_auc, evaluate
from medbridge.metrics.subgroups import subgroup_table
from medbridge.metrics.thresholds import f1_at, f1_thresholds, operating_points, sensitivity_at_specificity
from medbridge.predict import predict
from medbridge.viz import plots, widgets

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. A model to judge
#
# The adapter that the repository ships scores the validation and test films of the synthetic benchmark. It is a single member (notebook 06): its
# training patients are in neither split. Where a statement has to hold for sure, we use **simulated** scores besides: there the truth is known.

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 600)
val, test = benchmark.split("val"), benchmark.split("test")
cache = FeatureCache(progress=False)
scored = {name: predict(model, cache.of(model, part), progress=False) for name, part in (("val", val), ("test", test))}
(y_val, mask_val), (y, mask) = val.targets(), test.targets()
y_val, y = y_val.astype(np.float64), y.astype(np.float64)
p_val, p = scored["val"].probabilities, scored["test"].probabilities
patients, LABELS = test.table["patient_id"].to_numpy(), list(test.labels)
print(f"{test.name}: {len(val)} validation films, {len(test)} test films of {len(set(patients))} patients")
print(evaluate(y, p, mask, patients, LABELS).table())

# %% [markdown]
# This table is where most papers end. Each of its columns is a section here.
#
# ## 2. AUC: do positives rank above negatives?
#
# Notebook 02 counted pairs: AUC is the probability that a random positive film has a higher score than a random negative one, ties
# counting half. Counting all $n_+ n_-$ pairs is slow for large sets. **Ranks** do it with one sort. Let $r_i$ be the rank of
# film $i$ among all scores, equal scores sharing the mean of their ranks. The sum of the positives' ranks counts every film that they beat,
# and the positives among themselves make up $n_+(n_+ + 1)/2$ of it:
#
# $$\mathrm{AUC} = \Pr(s_+ > s_-) + \tfrac12 \Pr(s_+ = s_-) = \frac{\sum_{i: y_i = 1} r_i - n_+(n_+ + 1)/2}{n_+\, n_-}$$

# %%
def my_ranks(scores):
    ordered = np.sort(scores)
    # with ties, film i takes the places after all that are below, up to the last that is equal: the mean of both
    return (np.searchsorted(ordered, scores, "left") + 1 + np.searchsorted(ordered, scores, "right")) / 2


def my_auc(truth, scores):
    positive = truth == 1
    n1, n0 = positive.sum(), (~positive).sum()
    if n1 == 0 or n0 == 0:
        return np.nan
    return (my_ranks(scores)[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)


def by_pairs(truth, scores):
    gap = scores[truth == 1][:, None] - scores[truth == 0][None, :]
    return (gap > 0).mean() + 0.5 * (gap == 0).mean()


for seed in range(20):
    draw = np.random.default_rng(seed)
    truth = (draw.random(80) < 0.3).astype(float)
    scores = np.round(draw.normal(truth, 1), 1)  # rounding makes ties
    assert len(np.unique(scores)) < len(scores)
    np.testing.assert_allclose([my_auc(truth, scores)] * 3, [by_pairs(truth, scores), roc_auc_score(truth, scores), auc(truth, scores)[0]])
np.testing.assert_allclose([my_auc(y[mask[:, c], c], p[mask[:, c], c]) for c in range(len(LABELS))], auc(y, p, mask))
print("ranks = pairs = scikit-learn = medbridge.metrics.evaluate, with ties and masks")

# %% [markdown]
# AUC sees order alone. Any rising function of the scores leaves it as it is, so it says nothing about whether a probability of 0.3 means
# three in ten. That is section 7.
#
# ### When there is no AUC
#
# A label with one class among its known films has no pairs, hence no AUC. Some programs put in 0.5, "chance". That is an invented
# result: it pulls the mean towards 0.5, for a good and a bad model alike. The package gives NaN, shows "undefined", and says how many
# labels are in the mean.

# %%
small = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], dtype=float)
guess = np.array([[0.9, 0.2, 0.1], [0.2, 0.4, 0.8], [0.7, 0.1, 0.3], [0.4, 0.3, 0.9]])
result = evaluate(small, guess, labels=["a", "nobody has it", "b"], n_boot=0)
print(result.table())
assert np.isnan(result.per_label["auc"][1]) and result.macro["auc"] == 1.0 and result.macro["n_defined"] == 2

# %% [markdown]
# In the bootstrap the same happens by chance: a resample without a positive has no AUC. Such resamples are left out, and the column
# `resamples` of `per_label` counts the rest.
#
# ### Exercise 7.1: the mean that may be reported
# ★☆☆, 10 minutes. Write `macro_auc(y, scores, mask)`: arrays `(n, C)`; return the mean AUC over the labels whose *known* films hold both
# classes, and how many labels these are. If there is none: NaN and 0. You may use `roc_auc_score`.
#
# <details><summary>Hint</summary>
# Go label by label; take the known films; ask whether both classes are there before you call anything.
# </details>

# %%
def macro_auc(y, scores, mask):
    raise NotImplementedError


check("7.1", macro_auc)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/07_evaluation.ipynb](solutions/07_evaluation.ipynb).
#
# ```python
# def macro_auc(y, scores, mask):
#     found = []
#     for c in range(y.shape[1]):
#         known = mask[:, c]
#         if len(np.unique(y[known, c])) == 2:
#             found.append(roc_auc_score(y[known, c], scores[known, c]))
#     return (np.mean(found), len(found)) if found else (np.nan, 0)
# ```
# </details>

# %% [markdown]
# ## 3. Rare findings: accuracy, and average precision
#
# Most findings are rare. A program that says "no" to every film is then right almost always:

# %%
truth = np.zeros(1000)
truth[:30] = 1  # a finding of 3 %
says_no = np.zeros(1000)
print(f"a program that always says no: accuracy {accuracy_score(truth, says_no):.2f}, sensitivity 0.00, AUC {auc(truth, says_no)[0]:.2f}")

# %% [markdown]
# Accuracy adds up two kinds of right answers, and the frequent kind drowns the other. It also depends on a threshold, and changes with the
# share of patients who are ill. AUC does not. But AUC may flatter where positives are rare: it does not ask how many *false* alarms come
# with each true one. **Precision** does: of the films that are called positive, the share that is. **Average precision** (AP) is the mean
# precision over the thresholds at which one more positive is found:
#
# $$\mathrm{AP} = \sum_{t} \big(\mathrm{recall}_t - \mathrm{recall}_{t-1}\big)\, \mathrm{precision}_t, \qquad \mathrm{precision}_t = \frac{\mathrm{TP}_t}{\mathrm{TP}_t + \mathrm{FP}_t}, \quad
# \mathrm{recall}_t = \frac{\mathrm{TP}_t}{n_+}$$

# %%
def my_average_precision(truth, scores):
    total, before = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:  # from strict to lenient; tied films come in together
        called = scores >= threshold
        precision, recall = truth[called].mean(), truth[called].sum() / truth.sum()
        total, before = total + (recall - before) * precision, recall
    return total


for seed in range(10):
    draw = np.random.default_rng(seed)
    truth = (draw.random(80) < 0.2).astype(float)
    scores = np.round(draw.normal(truth, 1), 1)
    np.testing.assert_allclose(my_average_precision(truth, scores), average_precision_score(truth, scores))
mine = [my_average_precision(y[mask[:, c], c], p[mask[:, c], c]) for c in range(len(LABELS))]
np.testing.assert_allclose(mine, evaluate(y, p, mask, n_boot=0).per_label["ap"])

rows = []
draw = np.random.default_rng(0)
for prevalence in (0.5, 0.1, 0.01):
    truth = (np.arange(40_000) < 40_000 * prevalence).astype(float)
    scores = draw.normal(1.2 * truth, 1)  # the same model: only the share of ill patients changes
    rows.append({"prevalence": prevalence, "AUC": auc(truth, scores)[0], "average precision": average_precision_score(truth, scores)})
table = pd.DataFrame(rows)
print(table.round(2).to_string(index=False))
assert np.ptp(table["AUC"]) < 0.03 and table["average precision"].is_monotonic_decreasing

# %% [markdown]
# **What to see.** The same model, three hospitals: AUC stays, AP falls with the prevalence, because a useless score has AP = prevalence.
# So an AP without its prevalence cannot be read, and APs of benchmarks with other prevalences cannot be compared. Which is right?
# AUC for "does it order films well", AP for "what would an alarm be worth *here*".
#
# ## 4. Intervals: draw patients
#
# Another set of test patients would give another AUC. The **bootstrap** imitates that: draw as many patients as there are, with
# replacement, take all their films, compute the AUC; repeat; the middle 95 % is the interval. The package sorts once and then only
# counts (`medbridge/metrics/bootstrap.py`). By hand it is a plain loop, and both give the same numbers on the same draws:

# %%
def my_bootstrap(truth, scores, groups, n_boot, seed):
    number, names = pd.factorize(groups)  # patients in the order in which they appear, as the package numbers them
    films_of = [np.flatnonzero(number == g) for g in range(len(names))]
    found = []
    for drawn in np.random.default_rng(seed).integers(len(names), size=(n_boot, len(names))):
        rows = np.concatenate([films_of[g] for g in drawn])  # a patient drawn twice brings all films twice
        found.append(my_auc(truth[rows], scores[rows]))
    return np.array(found)


def study(n_patients, per_patient, seed, strength=1.0, person=0.9, film=0.5):
    """A pretended study: a film's score is the truth, plus something of the patient, plus noise."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_patients), per_patient)
    truth = (np.arange(n_patients) % 2)[group].astype(float)
    return truth, strength * truth + draw.normal(0, person, n_patients)[group] + draw.normal(0, film, len(group)), group


truth, scores, group = study(30, 4, seed=1)
np.testing.assert_allclose(my_bootstrap(truth, scores, group, 60, seed=3), bootstrap_auc(truth, scores, groups=group, n_boot=60, seed=3)[:, 0])
print("loop = package, resample by resample")

# %% [markdown]
# Why patients? Films of one patient are alike. Ten films of one patient are not ten independent pieces of evidence. Notebook 02 showed that
# intervals by film miss the truth too often. Here is the size of it: 40 patients, more and more films of each.

# %%
def widths(per_patient, n_boot=300, studies=8):
    by = {"film": [], "patient": []}
    for seed in range(studies):
        truth, scores, group = study(40, per_patient, seed)
        for how, groups in (("film", None), ("patient", group)):
            by[how].append(np.ptp(np.nanpercentile(bootstrap_auc(truth, scores, groups=groups, n_boot=n_boot, seed=seed), (2.5, 97.5))))
    return {how: float(np.mean(found)) for how, found in by.items()}


films_each = [1, 2, 4, 8]
width = pd.DataFrame([widths(m) for m in films_each], index=pd.Index(films_each, name="films per patient"))
width["too narrow by"] = width["patient"] / width["film"]
print(width.round(2).to_string())
assert width.loc[1, "too narrow by"] == 1.0  # one film per patient: the same draws
assert width["too narrow by"].is_monotonic_increasing and width.loc[8, "too narrow by"] > 1.7

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(6, 3), layout="constrained")
ax = fig.subplots()
for how, style in (("film", "o--"), ("patient", "s-")):
    ax.plot(films_each, width[how], style, label=f"drawn by {how}")
ax.set(xlabel="films of each of 40 patients", ylabel="mean length of the 95 % interval", ylim=(0, None), title="Simulated studies")
ax.set_xticks(films_each)
ax.legend(frameon=False)
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **What to see.** By film the interval shrinks as films are added, as if they were new patients. By patient it shrinks little: the
# number of *patients* is what limits our knowledge. On the test films of section 1, with one to three films per patient:

# %% tags=["nbval-ignore-output"]
for how, groups in (("film", None), ("patient", patients)):
    macro = evaluate(y, p, mask, groups, LABELS).macro
    print(f"mean AUC {macro['auc']:.3f}, interval by {how:<7} [{macro['lo']:.3f}, {macro['hi']:.3f}]")

# %% [markdown]
# ## 5. Is A better than B? Pair them
#
# Two models are scored on the *same* films. A film that is hard is hard for both, so both AUCs rise and fall together from resample to
# resample. The variance of a difference is
#
# $$\operatorname{Var}(\mathrm{AUC}_1 - \mathrm{AUC}_2) = \operatorname{Var}(\mathrm{AUC}_1) + \operatorname{Var}(\mathrm{AUC}_2) - 2\operatorname{Cov}(\mathrm{AUC}_1, \mathrm{AUC}_2)$$
#
# and comparing two intervals by eye drops the last term. In each resample of **patients** both AUCs are computed, and
# their difference is taken:

# %%
def two_models(seed, n=300, gap=0.25):
    """Scores of A and B on the same films, which share their difficulty; A is better by construction."""
    draw = np.random.default_rng(seed)
    truth = (np.arange(n) % 3 == 0).astype(float)
    hard = draw.normal(0, 1, n)
    return truth, (1.0 + gap) * truth + hard + draw.normal(0, 0.25, n), truth + hard + draw.normal(0, 0.25, n)


truth, a, b = two_models(2)
draws = bootstrap_aucs(truth[:, None], [a[:, None], b[:, None]], np.ones((len(truth), 1), dtype=bool), np.arange(len(truth)), 2000, 0)[:, :, 0]
alone = np.percentile(draws, (2.5, 97.5), axis=1).T
paired = np.percentile(draws[0] - draws[1], (2.5, 97.5))
package = paired_difference(truth, a, b, seed=0)
np.testing.assert_allclose([package.lo, package.hi], paired)
np.testing.assert_allclose(package.diff, my_auc(truth, a) - my_auc(truth, b))
print(f"A alone: {my_auc(truth, a):.3f} [{alone[0, 0]:.3f}, {alone[0, 1]:.3f}]")
print(f"B alone: {my_auc(truth, b):.3f} [{alone[1, 0]:.3f}, {alone[1, 1]:.3f}]   the two intervals overlap")
print(f"A - B:   {package.diff:+.3f} [{paired[0]:+.3f}, {paired[1]:+.3f}]   and yet A is better on these films")
assert alone[1, 1] > alone[0, 0] and paired[0] > 0
together = np.corrcoef(draws)[0, 1]
print(f"correlation of the two AUCs over the resamples: {together:.2f}")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(9, 3), layout="constrained")
left, right = fig.subplots(1, 2)
left.plot(draws[1, :400], draws[0, :400], ".", markersize=4, alpha=0.5)
span = [draws.min(), draws.max()]
left.plot(span, span, color="black", linewidth=0.8, label="equal")
left.set(xlabel="AUC of B", ylabel="AUC of A", title="400 resamples: both rise and fall together", aspect="equal")
left.legend(frameon=False)
right.hist(draws[0] - draws[1], 40, color="C0")
right.axvline(0, color="black", linestyle="--", label="no difference")
right.set(xlabel="AUC of A minus AUC of B", title="their difference (simulated scores)")
right.legend(frameon=False)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# And the mixture against each of its experts alone, on the test films? The printed sentence is the result, whatever one hoped:

# %% tags=["nbval-ignore-output"]
for k, expert in enumerate(model.experts):
    alone_k = expit(scored["test"].expert_logits[:, k])
    print(f"mixture minus {expert.name:<19}", paired_difference(y, p, alone_k, mask, patients, labels=LABELS).verdict.split(": ", 1)[1])

# %% [markdown]
# ### DeLong, as a check
#
# There is also a formula (DeLong, DeLong, Clarke-Pearson, 1988). How much of the AUC belongs to one film? For a positive film
# $i$, the share of negatives that it beats, $V^+_i$; for a negative film $j$, the share of positives that beat it, $V^-_j$. AUC is the mean of either,
# and its variance is
#
# $$\widehat{\operatorname{Var}} = \frac{\operatorname{var}(V^+)}{n_+} + \frac{\operatorname{var}(V^-)}{n_-}$$

# %%
def my_delong(truth, scores):
    gap = scores[truth == 1][:, None] - scores[truth == 0][None, :]
    won = (gap > 0) + 0.5 * (gap == 0)
    v, w = won.mean(axis=1), won.mean(axis=0)
    return won.mean(), np.sqrt(v.var(ddof=1) / len(v) + w.var(ddof=1) / len(w))


row = delong_auc(truth, a).iloc[0]
np.testing.assert_allclose(my_delong(truth, a), [row["auc"], row["se"]])
print(f"one film per patient:    standard error {row['se']:.3f} by DeLong, {draws[0].std():.3f} by bootstrap")
assert abs(row["se"] / draws[0].std() - 1) < 0.1
difference = delong_difference(truth, a, b).iloc[0]
print(f"A - B: DeLong [{difference['lo']:+.3f}, {difference['hi']:+.3f}], bootstrap [{paired[0]:+.3f}, {paired[1]:+.3f}]")
assert np.allclose([difference["lo"], difference["hi"]], paired, atol=0.006)

t8, s8, g8 = study(40, 8, seed=0)
by_patient = np.nanstd(bootstrap_auc(t8, s8, groups=g8, n_boot=1000, seed=0))
print(f"eight films per patient: {my_delong(t8, s8)[1]:.3f} by DeLong, {by_patient:.3f} by bootstrap over patients")
assert my_delong(t8, s8)[1] < 0.7 * by_patient

# %% [markdown]
# **What to see.** Where films are independent, two very different ways give the same number; that is worth a check in any project. Where
# patients have several films, the formula is too sure, for the same reason as the bootstrap by film.
#
# ## 6. From scores to decisions
#
# A department needs a yes or a no. At a **threshold** each film becomes one of four:
#
# | | predicted positive | predicted negative |
# |---|---|---|
# | **with the finding** | true positive, TP | false negative, FN |
# | **without** | false positive, FP | true negative, TN |
#
# Sensitivity = TP / (TP + FN): of those who have it, how many are found. Specificity = TN / (TN + FP): of those who do not,
# how many are left alone. F1 = 2 TP / (2 TP + FP + FN) balances precision and sensitivity.

# %%
def my_operating_point(truth, scores, threshold):
    called = scores >= threshold
    tp, fp = (called & (truth == 1)).sum(), (called & (truth == 0)).sum()
    fn, tn = (~called & (truth == 1)).sum(), (~called & (truth == 0)).sum()
    return {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "f1": 2 * tp / (2 * tp + fp + fn)}


def my_sensitivity_at(truth, scores, specificity):
    points = [my_operating_point(truth, scores, t) for t in [*np.unique(scores), np.inf]]
    return max(point["sensitivity"] for point in points if point["specificity"] >= specificity - 1e-12)


shown = LABELS.index("Pneumonia")
known = mask[:, shown]
t, s = y[known, shown], p[known, shown]
for threshold in (0.1, 0.3):
    mine, theirs = my_operating_point(t, s, threshold), operating_points(t, s, threshold).iloc[0]
    assert all(np.isclose(mine[name], theirs[name]) for name in mine)
    np.testing.assert_allclose(mine["f1"], f1_score(t, s >= threshold))
np.testing.assert_allclose(my_sensitivity_at(t, s, 0.9), sensitivity_at_specificity(t, s, specificity=0.9)[0])
print("by hand = package = scikit-learn")

# %% [markdown]
# **Try it** (needs a running kernel): move the threshold. Which threshold finds 9 of 10? What does it cost?

# %% tags=["nbval-ignore-output"]
widgets.explore_threshold(y, p, LABELS, mask, "PhantomCXR (synthetic), test films")

# %% [markdown]
# The same for readers without a kernel, at two thresholds:

# %% tags=["nbval-ignore-output"]
plots.threshold_view(t, s, 0.05, title="Pneumonia, synthetic test films: a low threshold")

# %% tags=["nbval-ignore-output"]
plots.threshold_view(t, s, 0.5, title="Pneumonia, synthetic test films: a high threshold")

# %% [markdown]
# **What to see.** A threshold is a place on the ROC curve. Lower it, and you walk up and to the right: sensitivity, the vertical axis, grows, and so do false
# alarms, the horizontal axis, which is one minus specificity. 0.5 is no
# natural threshold. For a rare finding nearly all probabilities lie below it, and rightly so.
#
# ### Exercise 7.2: a threshold that keeps its promise
# ★★☆, 15 minutes. A department accepts one false alarm in ten. Write `threshold_for(y, scores, specificity)` for one label on
# *validation* films: the **lowest** of the observed scores that, used as a threshold (`scores >= threshold` is predicted positive), reaches at least this
# specificity. If even the highest score is too low, return `np.inf`: nobody is predicted positive.
#
# <details><summary>Hint</summary>
# Specificity rises with the threshold. Try the observed scores from low to high and stop at the first that is good enough. A quantile that
# interpolates between scores is not an observed score.
# </details>

# %%
def threshold_for(y, scores, specificity):
    raise NotImplementedError


check("7.2", threshold_for)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/07_evaluation.ipynb](solutions/07_evaluation.ipynb).
#
# ```python
# def threshold_for(y, scores, specificity):
#     negatives = scores[y == 0]
#     for threshold in np.unique(scores):  # sorted
#         if (negatives < threshold).mean() >= specificity - 1e-12:
#             return threshold
#     return np.inf
# ```
# </details>

# %% [markdown]
# ### Who chooses the threshold?
#
# F1 asks for a threshold. Chosen on the test films, it is the best of many tries *on the films that then judge it*. Simulate: the same
# model, many pretended hospitals with 60 validation and 60 test films each. A threshold is chosen on the one or on the other, and F1 is
# reported on the test films. The truth is the F1 of the same threshold on very many films.

# %%
def hospital(n, draw):
    truth = (np.arange(n) < 0.2 * n).astype(float)
    return truth, expit(draw.normal(1.3 * truth - 1.5, 1))


draw = np.random.default_rng(0)
many_y, many_p = hospital(20_000, draw)
rows = []
for _ in range(300):
    (yv, pv), (yt, pt) = hospital(60, draw), hospital(60, draw)
    for chosen, (yc, pc) in {"validation": (yv, pv), "test": (yt, pt)}.items():
        threshold = f1_thresholds(yc, pc)
        rows.append((chosen, f1_at(yt, pt, threshold)[0], f1_at(many_y, many_p, threshold)[0]))
chosen = pd.DataFrame(rows, columns=["threshold chosen on", "F1 reported", "F1 in truth"]).groupby("threshold chosen on").mean()
print(chosen.round(2).to_string())
assert abs(chosen.loc["validation"].diff().iloc[1]) < 0.02
assert chosen.loc["test", "F1 reported"] - chosen.loc["test", "F1 in truth"] > 0.05

# %% [markdown]
# **What to see.** In truth the two thresholds are equally good. Only the report differs: chosen on test, F1 is too good, by luck that does
# not come again. So every threshold, and everything else that is chosen, comes from the validation films. This needs a model that has *not learned* from
# them. The shipped adapter has only chosen its epoch by them. Cross-fitted members (notebook 06) learn from validation films too. Their
# thresholds belong on the scores of the members that did not, which `fit` returns as `history.val_scores`. On our test films:

# %% tags=["nbval-ignore-output"]
thresholds = f1_thresholds(y_val, p_val, mask_val)
decided = pd.DataFrame({
    "sensitivity at 90 % specificity": sensitivity_at_specificity(y, p, mask, 0.9), "threshold (validation)": thresholds,
    "F1": f1_at(y, p, thresholds, mask), "F1 if chosen on test": f1_at(y, p, f1_thresholds(y, p, mask), mask),
}, index=LABELS)
decided.round(2)

# %%
np.testing.assert_allclose(decided["F1"], [f1_score(y[mask[:, c], c], p[mask[:, c], c] >= thresholds[c]) for c in range(len(LABELS))])
assert (decided["F1 if chosen on test"] >= decided["F1"] - 1e-12).all()  # by construction, whatever the model

# %% [markdown]
# "Sensitivity at 90 % specificity" reads its threshold off the test films too. It describes a point of the ROC curve, by custom; it is not what
# a department gets with a threshold that was fixed beforehand (Exercise 7.2).
#
# ## 7. Can the probabilities be believed?
#
# Of the films that are given 0.3, three in ten should have the finding: that is **calibration**. Two numbers:
#
# $$\mathrm{Brier} = \frac1n \sum_i (p_i - y_i)^2, \qquad \mathrm{ECE} = \sum_{b} \frac{n_b}{n}\, \big|\bar p_b - \bar y_b\big|$$
#
# The Brier score is a squared error: it punishes bad order and bad calibration alike. The **expected calibration error** cuts [0, 1] into bins $b$
# and compares the mean probability of each bin with the share of positives in it.

# %%
def my_ece(truth, given, bins=15):
    total = 0.0
    for low in range(bins):
        inside = (np.minimum((given * bins).astype(int), bins - 1) == low)
        if inside.any():
            total += inside.mean() * abs(given[inside].mean() - truth[inside].mean())
    return total


np.testing.assert_allclose(my_ece(y[mask], p[mask]), ece(y, p, mask))
np.testing.assert_allclose(((p - y)[mask] ** 2).mean(), brier(y, p, mask))
table = reliability(y, p, mask)
np.testing.assert_allclose((table["n"] / table["n"].sum() * (table["predicted"] - table["observed"]).abs()).sum(), ece(y, p, mask))
print("by hand = package; the reliability table adds up to ECE")

# %% [markdown]
# A Brier score alone says little. For a finding of 10 % it is 0.09 for a model that gives every film "10 %", and ECE is then zero, although
# nothing was learned. Put that guess beside it:

# %% tags=["nbval-ignore-output"]
share = np.broadcast_to([y_val[mask_val[:, c], c].mean() for c in range(len(LABELS))], y.shape)
plots.reliability_plot(y, {"MedBridge": p, "prevalence of the validation films": share}, mask, title="Synthetic test films, all labels together")

# %% [markdown]
# ### Temperature
#
# Trained networks tend to be too sure. The mildest cure is one number, the **temperature** $\vartheta$ (Guo et al., ICML 2017): give
# $\sigma(s / \vartheta)$ for the logit $s$, with the $\vartheta$ that has the least cross-entropy on the **validation** films. $\vartheta > 1$ makes probabilities less
# sure. The order of films stays, so AUC stays, to the last digit.

# %%
def my_temperature(truth, logits):
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 1000))
    cooled = logits[None, :] / grid[:, None]
    losses = (np.logaddexp(0, cooled) - truth * cooled).mean(axis=1)
    return grid[losses.argmin()]


draw = np.random.default_rng(0)
true_logits = draw.normal(-1, 1.5, (2, 1500))  # validation and test
truth = (draw.random((2, 1500)) < expit(true_logits)).astype(float)
too_sure = 2.5 * true_logits
T = fit_temperature(truth[0], too_sure[0])
np.testing.assert_allclose(my_temperature(truth[0], too_sure[0]), T, rtol=0.01)
before, after = expit(too_sure[1]), expit(too_sure[1] / T)
print(f"simulated: T = {T:.1f} (2.5 in truth); on test films ECE {ece(truth[1], before):.2f} -> {ece(truth[1], after):.2f}, "
      f"Brier {brier(truth[1], before):.2f} -> {brier(truth[1], after):.2f}")
assert ece(truth[1], after) < 0.5 * ece(truth[1], before) and brier(truth[1], after) < brier(truth[1], before)
assert auc(truth[1], before)[0] == auc(truth[1], after)[0]

# %% tags=["nbval-ignore-output"]
logits_val, logits = (np.log(q) - np.log1p(-q) for q in (p_val, p))
T_model = fit_temperature(y_val, logits_val, mask_val)
cooled = expit(logits / T_model)
print(f"the shipped adapter: T = {T_model:.2f} on {len(val)} validation films")
plots.reliability_plot(y, {"as trained": p, f"temperature {T_model:.2f}": cooled}, mask, title="Synthetic test films")

# %% [markdown]
# **How to read it.** A temperature near 1 says that the model was not far off to begin with; then little changes, and on few films the change
# may go either way. One $\vartheta$ for all findings and films cannot mend a hospital where a finding is more frequent than in training: that moves
# the bias of a label, not its slope.
#
# ## 8. As good for everyone?
#
# One mean may hide a group for whom the model fails. `subgroup_table` gives the mean AUC of each sex, age band, view position and hospital that the
# benchmark knows, and the **gap** to all other films, with an interval over patients:

# %% tags=["nbval-ignore-output"]
groups = subgroup_table(test, p, n_boot=500)
groups.round(2)

# %%
women = (test.table["sex"] == "F").to_numpy()
row = groups.query("column == 'sex' and group == 'F'").iloc[0]
np.testing.assert_allclose(np.nanmean(auc(y[women], p[women], mask[women])), row["auc"])
assert row["films"] == women.sum() and row["patients"] == len(set(patients[women]))
assert groups.query("column == 'hospital'")["films"].sum() == len(test)
print("by hand = package, for one group; the groups of a column are all films")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(7, 0.7 + 0.3 * len(groups)), layout="constrained")
ax = fig.subplots()
at = np.arange(len(groups))
ax.hlines(at, groups["gap_lo"], groups["gap_hi"], color="C0")
ax.plot(groups["gap"], at, "o", color="C0")
ax.axvline(0, color="black", linestyle="--", linewidth=0.8)
ax.set_yticks(at, [f"{r.column} {r.group} ({r.films} films)" for r in groups.itertuples()], fontsize=9)
ax.invert_yaxis()
ax.set(xlabel="mean AUC of the group minus that of the other films", title="Gaps with 95 % intervals, synthetic test films")
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **How to read it.** Small groups have long intervals: "no gap is shown" is not "there is no gap". A gap that is shown does not say why: a group
# may have harder films, other machines, or rarer findings. An interval that leaves zero out is a reason to look closer, on other films. And
# these are about ten comparisons at once, which leads to the next section.
#
# ## 9. Many looks
#
# ### Many comparisons
#
# A 95 % interval leaves the truth out one time in twenty. Look at eight findings, and something will look "significant" often, even if nothing
# is there. Simulate two models that are **equally good** on eight findings, many times:

# %%
def eight_p_values(draw, n=120, labels=8):
    truth = (draw.random((n, labels)) < 0.3).astype(float)
    hard = draw.normal(0, 1, (n, labels))
    a, b = (truth + hard + draw.normal(0, 0.7, (n, labels)) for _ in range(2))  # no true difference
    return delong_difference(truth, a, b)["p_value"].to_numpy()


def my_bonferroni(p_values):
    return np.minimum(1, len(p_values) * p_values)


draw = np.random.default_rng(0)
found = np.array([eight_p_values(draw) for _ in range(250)])
plain = (found < 0.05).any(axis=1).mean()
corrected = (np.apply_along_axis(my_bonferroni, 1, found) < 0.05).any(axis=1).mean()
print(f"studies that 'find' a difference on at least one of 8 findings: {plain:.0%} as they are, {corrected:.0%} after Bonferroni")
print(f"expected for independent findings: {1 - 0.95**8:.0%} and about 5 %")
assert plain > 0.2 and corrected < 0.1

# %% [markdown]
# ### Exercise 7.3: Holm's correction
# ★★★, 15 minutes. Bonferroni multiplies each of $J$ p-values by $J$. **Holm** (1979) is never worse and gives the same guarantee: sort
# the p-values upwards, $p_{(1)} \le \dots \le p_{(J)}$; multiply the smallest by $J$, the next by $J - 1$, and so on; no adjusted value may
# be smaller than the one before it, and none above 1:
#
# $$\tilde p_{(j)} = \min\Big(1, \max_{i \le j}\, (J - i + 1)\, p_{(i)}\Big)$$
#
# Write `holm(p_values)`: return the adjusted values in the order in which they came.
#
# <details><summary>Hint</summary>
# <code>np.argsort</code> gives the order; <code>np.maximum.accumulate</code> is the running maximum; assign back with
# <code>out[order] = ...</code>.
# </details>

# %%
def holm(p_values):
    raise NotImplementedError


check("7.3", holm)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/07_evaluation.ipynb](solutions/07_evaluation.ipynb).
#
# ```python
# def holm(p_values):
#     p_values = np.asarray(p_values, dtype=float)
#     order = np.argsort(p_values)
#     steps = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
#     adjusted = np.empty_like(p_values)
#     adjusted[order] = np.minimum(1, steps)
#     return adjusted
# ```
# </details>

# %% [markdown]
# ### Many seeds
#
# Train ten times with ten seeds, and report the best: on *test*. All ten are equally good; only luck with these test films differs. What is
# reported, against what is true ($\Phi(\delta / \sqrt{2\sigma^2})$ for normal scores of spread $\sigma$)?

# %%
def runs_of_one_model(draw, runs, n=150, shared=0.8, own=0.6, strength=0.75):
    """Validation and test AUC of equally good runs; runs of one model find the same films hard."""
    out = []
    for _ in range(2):
        truth = (np.arange(n) < 0.2 * n).astype(float)
        hard = draw.normal(0, shared, n)
        out.append([my_auc(truth, strength * truth + hard + draw.normal(0, own, n)) for _ in range(runs)])
    return np.array(out)


draw = np.random.default_rng(0)
true_auc = norm.cdf(0.75 / np.sqrt(2 * (0.8**2 + 0.6**2)))
many = np.array([runs_of_one_model(draw, 20) for _ in range(300)])  # (studies, val or test, runs)
ks = [1, 2, 5, 10, 20]
reported = pd.DataFrame({
    "best on test": [many[:, 1, :k].max(axis=1).mean() for k in ks],
    "chosen on validation": [np.take_along_axis(many[:, 1], many[:, 0, :k].argmax(axis=1)[:, None], 1).mean() for k in ks],
    "mean of the runs": [many[:, 1, :k].mean() for k in ks],
}, index=pd.Index(ks, name="runs"))
print(f"mean AUC that is reported; the true AUC of every run is {true_auc:.2f}")
print(reported.round(2).to_string())
assert reported["best on test"].is_monotonic_increasing and reported.loc[10, "best on test"] - true_auc > 0.03
assert (reported[["chosen on validation", "mean of the runs"]] - true_auc).abs().to_numpy().max() < 0.01

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(6, 3), layout="constrained")
ax = fig.subplots()
for column, style in zip(reported, ("o-", "s--", "^:"), strict=True):
    ax.plot(ks, reported[column], style, label=column)
ax.axhline(true_auc, color="black", linewidth=0.8, label="truth")
ax.set(xlabel="runs that were tried", ylabel="AUC reported", title="Equally good runs (simulated)")
ax.set_xticks(ks)
ax.legend(frameon=False, fontsize=9)
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **What to see.** The best of twenty grows with every try, and nothing became better. The same happens with settings, prompts, experts and
# baselines: whatever was tried more often looks better. Hence the habits of this course: choose on validation; look at the test films once;
# report the mean over seeds, and their spread; give each baseline as many tries as the method.
#
# `medbridge adapt` writes all of this in its report: AUC with intervals and the paired difference, average precision, sensitivity at
# a fixed specificity, F1 at a threshold from validation, Brier score and ECE with the reliability plot, and the subgroups.
#
# ## 10. Who is missed? Bias at one threshold
#
# A mean AUC ranks films inside a group. A patient is predicted positive or negative by **one threshold for all**, and there two groups can fare
# differently though each is ranked equally well. The number to look at is the **miss rate** (false negative rate) of each group $G$ at the
# threshold $t$:
#
# $$\mathrm{miss}(G) = \frac{|\{i \in G : y_i = 1,\ p_i < t\}|}{|\{i \in G : y_i = 1\}|}$$
#
# Sick patients who are called healthy are the harm of under-diagnosis; Seyyed-Kalantari et al.
# ([2021](https://doi.org/10.1038/s41591-021-01595-0)) found it unevenly spread over sex, age and insurance on real films. Simulated: two
# hospitals, ranked equally well, the second with darker films and lower scores:

# %%
draw = np.random.default_rng(0)
truth = (draw.random(4000) < 0.3).astype(float)
site = np.where(np.arange(4000) < 2000, "North", "South")
shifted = expit(2 * truth - 1 + draw.normal(0, 1, 4000) - 1.2 * (site == "South"))
for name in ("North", "South"):
    here = site == name
    missed = (shifted[here & (truth == 1)] < 0.5).mean()
    print(f"{name} (simulated): AUC {my_auc(truth[here], shifted[here]):.2f}, missed at 0.5: {missed:.0%}")

# %% [markdown]
# The same AUC, and several times as many sick patients missed. A threshold for each group would even this out on these films, at the
# price of treating two patients with the same score differently; whether that is right is no question for a metric.
#
# ### Exercise 7.4: the miss rate of every group
# ★★☆, 15 minutes. Write `miss_rates(y, p, mask, group, threshold)` for one finding; all arrays have shape `(n,)`. Return a dictionary: each
# group's name with its miss rate over the films whose label is **known**; NaN for a group without a known positive film. A film is predicted
# positive where `p >= threshold`.
#
# <details><summary>Hint</summary>
# For each of <code>np.unique(group)</code>: the films that are in the group, known and positive; then the mean of "predicted negative" over them. The
# mean of nothing is not zero.
# </details>

# %%
def miss_rates(y, p, mask, group, threshold):
    raise NotImplementedError


check("7.4", miss_rates)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/07_evaluation.ipynb](solutions/07_evaluation.ipynb).
#
# ```python
# def miss_rates(y, p, mask, group, threshold):
#     rates = {}
#     for name in np.unique(group):
#         sick = (group == name) & mask & (y == 1)
#         rates[name] = float((p[sick] < threshold).mean()) if sick.any() else float("nan")
#     return rates
# ```
# </details>
#
# Then try it on `test`: `miss_rates(y[:, c], p[:, c], mask[:, c], test.table["hospital"].to_numpy(), 0.25)`. How many positive films stand
# behind each rate, and what does that say about the difference?
#
# **Limits.** The phantom's groups are what its author drew: a bias that is found here was put in, and one that is missing may be there on
# real films, from who is imaged, how labels were read, and who is in no table at all.
#
# ## Summary
#
# - AUC is the share of ordered pairs, by ranks, per label over known films. One class alone: undefined, never 0.5.
# - Accuracy misleads where findings are rare; average precision needs its prevalence beside it.
# - Intervals draw patients. Differences are paired. DeLong is a check where films are independent.
# - Thresholds and temperatures come from validation. Chosen on test, a number is too good by luck that does not come again.
# - Count how often you looked: findings, groups, seeds.
# - Equal AUC is not equal care: at one threshold a group may be missed more often. Report miss rates by group, with their counts.
#
# Next: what MedBridge is compared with, [08 Baselines](08_baselines.ipynb)
