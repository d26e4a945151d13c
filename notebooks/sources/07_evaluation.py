# %% [markdown]
# # 07 Evaluation done right
#
# {{COLAB}}
#
# **What you will build:** every number that a result needs, from scratch, each checked against the package:
# AUC by ranks, average precision, bootstrap intervals, paired differences, DeLong's test, thresholds,
# calibration, subgroups. And you measure how the usual mistakes inflate results.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (AUC by pairs, a first bootstrap) and
#   [06](06_assembling_and_training.ipynb) (what we evaluate here); mean, standard deviation, interval.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores
#   the first time, half a minute afterwards. On a Colab T4 about the same (an estimate).
# - **Modules:** `medbridge/metrics/evaluate.py`, `medbridge/metrics/thresholds.py` · **tests:**
#   `tests/metrics/test_evaluate.py`, `tests/metrics/test_thresholds.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698) reports AUC **[abstract]**. All else here
#   is **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**, and so are
# all simulated scores.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, roc_auc_score

from medbridge import FeatureCache, load_adapter, load_benchmark, paired_difference
from medbridge.course import check, full_profile, real_films, seed_everything
from medbridge.data.labels import shared_labels
from medbridge.metrics.evaluate import auc, bootstrap_auc, evaluate
from medbridge.predict import predict
from medbridge.viz import plots, widgets
from medbridge.viz.charts import curves, points
from medbridge.viz.drawing import chart

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. Ranking: AUC and average precision
#
# The shipped adapter scores the validation and test films of the synthetic benchmark. Its training patients
# are in neither split. Where we must know the truth, we **simulate** scores.

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 600)
val, test = benchmark.split("val"), benchmark.split("test")
cache = FeatureCache(progress=False)
scored = {name: predict(model, cache.of(model, part), progress=False) for name, part in (("val", val), ("test", test))}

# %% tags=["nbval-ignore-output"]
(y_val, mask_val), (y, mask) = ((t.astype(np.float64), known) for t, known in (val.targets(), test.targets()))
p_val, p = scored["val"].probabilities, scored["test"].probabilities
patients, LABELS = test.table["patient_id"].to_numpy(), list(test.labels)
known_of = [(y[mask[:, c], c], p[mask[:, c], c]) for c in range(len(LABELS))]  # per label: its known films
print(f"{test.name}: {len(val)} validation films, {len(test)} test films of {len(set(patients))} patients")
print(evaluate(y, p, mask, patients, LABELS).table())

# %% [markdown]
# The same on real films, of which this adapter has seen none, if `MEDBRIDGE_DATA` holds some:

# %% tags=["nbval-ignore-output"]
real = real_films()
if real is None:
    print("MEDBRIDGE_DATA holds no real films")
else:
    shared = shared_labels(LABELS, real.labels)
    part = real.split("test").select([pair.test for pair in shared])
    part = part.take(np.arange(len(part)) < 200)
    columns = [LABELS.index(pair.train) for pair in shared]
    p_real = predict(model, cache.of(model, part), progress=False).probabilities[:, columns]
    print(real.name)
    print(evaluate(part.targets()[0], p_real, part.targets()[1], part.table["patient_id"], part.labels).table())

# %% [markdown]
# **AUC** is the probability that a random positive film scores above a random negative one; ties count half.
# Notebook 02 counted all $n_+ n_-$ pairs. **Ranks** need one sort. Let $r_i$ be the rank of film $i$, equal
# scores sharing the mean of their ranks. The positives' ranks count every film that they beat, and the
# positives among themselves make up $n_+(n_+ + 1)/2$ of the sum:
#
# $$\mathrm{AUC} = \Pr(s_+ > s_-) + \tfrac12 \Pr(s_+ = s_-)
#   = \frac{\sum_{i: y_i = 1} r_i - n_+(n_+ + 1)/2}{n_+\, n_-}$$

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


# %%
def simulated(seed, share):
    """80 films with a share of positives; rounding makes ties."""
    draw = np.random.default_rng(seed)
    truth = (draw.random(80) < share).astype(float)
    return truth, np.round(draw.normal(truth, 1), 1)


for seed in range(20):
    truth, scores = simulated(seed, 0.3)
    np.testing.assert_allclose([my_auc(truth, scores)] * 2, [roc_auc_score(truth, scores), auc(truth, scores)[0]])
np.testing.assert_allclose([my_auc(*one) for one in known_of], auc(y, p, mask))
print("ranks = scikit-learn = medbridge.metrics.evaluate, with ties and masks")

# %% [markdown]
# AUC sees order alone: any rising function of the scores leaves it.
#
# ### When there is no AUC
#
# A label with one class among its known films has no pairs, hence no AUC. Some programs put in 0.5. That is
# an invented result, and it pulls the mean towards 0.5. The package gives NaN, and says how many labels are
# in the mean:

# %%
small = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], dtype=float)
guess = np.array([[0.9, 0.2, 0.1], [0.2, 0.4, 0.8], [0.7, 0.1, 0.3], [0.4, 0.3, 0.9]])
result = evaluate(small, guess, labels=["a", "nobody has it", "b"], n_boot=0)
print(result.table())
assert np.isnan(result.per_label["auc"][1]) and result.macro["auc"] == 1.0 and result.macro["n_defined"] == 2

# %% [markdown]
# ### Exercise 7.1: the mean that may be reported
# ★☆☆, 10 minutes. Write `macro_auc(y, scores, mask)` for arrays `(n, C)`. Return the mean AUC over the labels
# whose *known* films hold both classes, and how many labels these are. If there is none: NaN and 0. You may
# use `roc_auc_score`.
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
#
# ### Rare findings
#
# Most findings are rare. A program that says "no" to every film is then right almost always:

# %%
truth = (np.arange(1000) < 30).astype(float)  # a finding of 3 %
no = np.zeros(1000)
print(f"a program that always says no: accuracy {accuracy_score(truth, no):.2f}, sensitivity 0.00, AUC {auc(truth, no)[0]:.2f}")

# %% [markdown]
# Accuracy changes with the share of patients who are ill; AUC does not. But AUC does not ask how many *false*
# alarms come with each true one. **Precision** does. **Average precision** (AP) is the mean precision over
# the thresholds at which one more positive is found:
#
# $$\mathrm{AP} = \sum_{t} \big(\mathrm{recall}_t - \mathrm{recall}_{t-1}\big)\, \mathrm{precision}_t, \qquad
#   \mathrm{precision}_t = \frac{\mathrm{TP}_t}{\mathrm{TP}_t + \mathrm{FP}_t}, \quad
#   \mathrm{recall}_t = \frac{\mathrm{TP}_t}{n_+}$$

# %%
def my_average_precision(truth, scores):
    total, before = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:  # from strict to lenient; tied films come in together
        called = scores >= threshold
        precision, recall = truth[called].mean(), truth[called].sum() / truth.sum()
        total, before = total + (recall - before) * precision, recall
    return total


for seed in range(10):
    truth, scores = simulated(seed, 0.2)
    np.testing.assert_allclose(my_average_precision(truth, scores), average_precision_score(truth, scores))
np.testing.assert_allclose([my_average_precision(*one) for one in known_of], evaluate(y, p, mask, n_boot=0).per_label["ap"])

# %%
draw, rows = np.random.default_rng(0), []
for prevalence in (0.5, 0.1, 0.01):
    truth = (np.arange(40_000) < 40_000 * prevalence).astype(float)
    scores = draw.normal(1.2 * truth, 1)  # the same model: only the share of ill patients changes
    rows.append({"prevalence": prevalence, "AUC": auc(truth, scores)[0], "average precision": average_precision_score(truth, scores)})
table = pd.DataFrame(rows)
print(table.round(2).to_string(index=False))
assert np.ptp(table["AUC"]) < 0.03 and table["average precision"].is_monotonic_decreasing

# %% [markdown]
# **What to see.** AUC stays; AP falls with the prevalence, because a useless score has AP = prevalence. So an
# AP needs its prevalence beside it. AUC answers "does it order films well?", AP "what is an alarm worth
# *here*?".
#
# ## 2. Intervals and differences
#
# Another set of test patients would give another AUC. The **bootstrap** imitates that: draw as many patients
# as there are, with replacement; take all their films; compute the AUC; repeat. The middle 95 % is the
# interval.

# %%
def my_bootstrap(truth, scores, groups, n_boot, seed):
    number, names = pd.factorize(groups)  # patients in the order in which they appear, as the package numbers them
    films_of = [np.flatnonzero(number == g) for g in range(len(names))]
    found = []
    for drawn in np.random.default_rng(seed).integers(len(names), size=(n_boot, len(names))):
        rows = np.concatenate([films_of[g] for g in drawn])  # a patient drawn twice brings all films twice
        found.append(my_auc(truth[rows], scores[rows]))
    return np.array(found)


# %%
def study(n_patients, per_patient, seed):
    """A simulated study: a film's score is the truth, plus something of the patient, plus noise."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(n_patients), per_patient)
    truth = (np.arange(n_patients) % 2)[group].astype(float)
    return truth, truth + draw.normal(0, 0.9, n_patients)[group] + draw.normal(0, 0.5, len(group)), group


truth, scores, group = study(30, 4, seed=1)
package = bootstrap_auc(truth, scores, groups=group, n_boot=60, seed=3)[:, 0]
np.testing.assert_allclose(my_bootstrap(truth, scores, group, 60, seed=3), package)
print("loop = package, resample by resample")

# %% [markdown]
# Why patients? Films of one patient are alike: ten of them are not ten independent pieces of evidence. Take
# 40 patients, and more and more films of each:

# %%
def length(per_patient, seed, by_patient):
    truth, scores, group = study(40, per_patient, seed)
    draws = bootstrap_auc(truth, scores, groups=group if by_patient else None, n_boot=300, seed=seed)
    return np.ptp(np.nanpercentile(draws, (2.5, 97.5)))


films_each = [1, 2, 4, 8]
width = pd.DataFrame({by: [np.mean([length(m, seed, by == "patient") for seed in range(8)]) for m in films_each]
                      for by in ("film", "patient")}, index=pd.Index(films_each, name="films per patient"))
width["too narrow by"] = width["patient"] / width["film"]
print(width.round(2).to_string())
assert width["too narrow by"].is_monotonic_increasing and width.loc[8, "too narrow by"] > 1.7

# %% alt="mean length of the 95 % interval against films per patient, simulated studies of 40 patients: drawn by film it shrinks steeply, drawn by patient it hardly shrinks" tags=["nbval-ignore-output"]
curves({"Simulated studies of 40 patients": {f"drawn by {by}": width[by] for by in ("film", "patient")}}, size=(6, 3), marker="o",
       xlabel="films per patient", ylabel="length of the 95 % interval", ylim=(0, None), xticks=films_each)

# %% [markdown]
# **What to see.** By film the interval shrinks as if the films were new patients. By patient it shrinks
# little: the number of *patients* limits our knowledge. On our test films:

# %% tags=["nbval-ignore-output"]
for how, groups in (("film", None), ("patient", patients)):
    macro = evaluate(y, p, mask, groups, LABELS).macro
    print(f"mean AUC {macro['auc']:.3f}, interval by {how:<7} [{macro['lo']:.3f}, {macro['hi']:.3f}]")

# %% [markdown]
# ### Is A better than B? Pair them
#
# A film that is hard is hard for both models, so both AUCs rise and fall together from resample to resample:
#
# $$\operatorname{Var}(\mathrm{AUC}_1 - \mathrm{AUC}_2) = \operatorname{Var}(\mathrm{AUC}_1)
#   + \operatorname{Var}(\mathrm{AUC}_2) - 2\operatorname{Cov}(\mathrm{AUC}_1, \mathrm{AUC}_2)$$
#
# Whoever compares two intervals by eye drops the last term. So compute both AUCs on each resample of
# **patients**, and take their difference:

# %%
def two_models(seed, n=300, gap=0.25):
    """Scores of A and B on the same films, which share their difficulty; A is better by construction."""
    draw = np.random.default_rng(seed)
    truth = (np.arange(n) % 3 == 0).astype(float)
    hard = draw.normal(0, 1, n)
    return truth, (1.0 + gap) * truth + hard + draw.normal(0, 0.25, n), truth + hard + draw.normal(0, 0.25, n)


truth, a, b = two_models(2)
draws = np.array([bootstrap_auc(truth, scores, n_boot=2000, seed=0)[:, 0] for scores in (a, b)])  # one seed: the same films
paired = np.percentile(draws[0] - draws[1], (2.5, 97.5))
package = paired_difference(truth, a, b, seed=0)
np.testing.assert_allclose([package.diff, package.lo, package.hi], [my_auc(truth, a) - my_auc(truth, b), *paired])

# %%
alone = np.percentile(draws, (2.5, 97.5), axis=1).T
for name, scores, (lo, hi) in zip("AB", (a, b), alone, strict=True):
    print(f"{name} alone: {my_auc(truth, scores):.3f} [{lo:.3f}, {hi:.3f}]")
print(f"A - B:   {package.diff:+.3f} [{package.lo:+.3f}, {package.hi:+.3f}]")
print(f"correlation of the two AUCs over the resamples: {np.corrcoef(draws)[0, 1]:.2f}")
assert alone[1, 1] > alone[0, 0] and package.lo > 0

# %% alt="left: AUC of A against AUC of B on 400 resamples of simulated scores, a narrow rising cloud above the line of equality; right: histogram of their difference, nearly all above zero" tags=["nbval-ignore-output"]
fig, (left, right) = chart(9, 3, "Simulated scores: both AUCs rise and fall together", ncols=2)
left.plot(draws[1, :400], draws[0, :400], ".", markersize=4, alpha=0.5)
left.axline((draws.min(), draws.min()), slope=1, color="black", linewidth=0.8)
left.set(xlabel="AUC of B, 400 resamples", ylabel="AUC of A", aspect="equal")
right.hist(draws[0] - draws[1], 40)
right.axvline(0, color="black", linestyle="--")
right.set(xlabel="AUC of A minus AUC of B", ylabel="resamples")
fig

# %% [markdown]
# **What to see.** The intervals of A and B overlap, and yet A is better on these films. Now the mixture
# against each of its experts alone, on the test films:

# %% tags=["nbval-ignore-output"]
for k, expert in enumerate(model.experts):
    one = expit(scored["test"].expert_logits[:, k])
    print(f"mixture minus {expert.name:<19}", paired_difference(y, p, one, mask, patients, labels=LABELS).verdict.split(": ", 1)[1])

# %% [markdown]
# ### DeLong, as a check
#
# DeLong, DeLong and Clarke-Pearson (1988) give a formula. $V^+_i$ is the share of negatives that positive
# film $i$ beats, $V^-_j$ the share of positives that beat negative film $j$. AUC is the mean of either, and
#
# $$\widehat{\operatorname{Var}} = \frac{\operatorname{var}(V^+)}{n_+} + \frac{\operatorname{var}(V^-)}{n_-}$$

# %%
from medbridge.metrics.delong import delong_auc, delong_difference


def my_delong(truth, scores):
    gap = scores[truth == 1][:, None] - scores[truth == 0][None, :]
    won = (gap > 0) + 0.5 * (gap == 0)
    v, w = won.mean(axis=1), won.mean(axis=0)
    return won.mean(), np.sqrt(v.var(ddof=1) / len(v) + w.var(ddof=1) / len(w))


np.testing.assert_allclose(my_delong(truth, a), delong_auc(truth, a)[["auc", "se"]].iloc[0])
difference = delong_difference(truth, a, b).iloc[0]
assert np.allclose([difference["lo"], difference["hi"]], paired, atol=0.006)
print(f"A - B: DeLong [{difference['lo']:+.3f}, {difference['hi']:+.3f}], bootstrap [{paired[0]:+.3f}, {paired[1]:+.3f}]")

# %%
t8, s8, g8 = study(40, 8, seed=0)
by_patient = np.nanstd(bootstrap_auc(t8, s8, groups=g8, n_boot=1000, seed=0))
print(f"eight films per patient: {my_delong(t8, s8)[1]:.3f} by DeLong, {by_patient:.3f} by bootstrap over patients")
assert my_delong(t8, s8)[1] < 0.7 * by_patient

# %% [markdown]
# **What to see.** On independent films two very different ways agree. Where patients have several films, the
# formula is too sure, as the bootstrap by film is.
#
# ## 3. Decisions and probabilities
#
# A department needs a yes or a no. At a **threshold** each film is a true or false positive (TP, FP) or a
# true or false negative (TN, FN). Sensitivity = TP / (TP + FN): of those who have the finding, how many do we
# find? Specificity = TN / (TN + FP): of those who do not, how many do we leave alone? F1 = 2 TP / (2 TP + FP
# + FN) balances precision and sensitivity.

# %%
from medbridge.metrics.thresholds import f1_at, f1_thresholds, operating_points, sensitivity_at_specificity


def my_operating_point(truth, scores, threshold):
    called = scores >= threshold
    tp, fp = (called & (truth == 1)).sum(), (called & (truth == 0)).sum()
    fn, tn = (~called & (truth == 1)).sum(), (~called & (truth == 0)).sum()
    return {"sensitivity": tp / (tp + fn), "specificity": tn / (tn + fp), "f1": 2 * tp / (2 * tp + fp + fn)}


# %%
t, s = known_of[LABELS.index("Pneumonia")]
for threshold in (0.1, 0.3):
    mine, theirs = my_operating_point(t, s, threshold), operating_points(t, s, threshold).iloc[0]
    assert all(np.isclose(mine[name], theirs[name]) for name in mine)
reached = [my_operating_point(t, s, threshold) for threshold in [*np.unique(s), np.inf]]
best = max(point["sensitivity"] for point in reached if point["specificity"] >= 0.9)
np.testing.assert_allclose(best, sensitivity_at_specificity(t, s, specificity=0.9)[0])
print("by hand = package")

# %% [markdown]
# **Try it** (needs a running kernel): which threshold finds 9 of 10? What does it cost?

# %% tags=["nbval-ignore-output"]
widgets.explore_threshold(y, p, LABELS, mask, "PhantomCXR (synthetic), test films")

# %% alt="Pneumonia on synthetic test films at the low threshold 0.05: histogram of scores, the point high on the ROC curve, and the table of true and false answers" tags=["nbval-ignore-output"]
plots.threshold_view(t, s, 0.05, title="Pneumonia, synthetic test films: a low threshold")

# %% alt="Pneumonia on synthetic test films at the high threshold 0.5: the point lies low on the ROC curve, and most films with the finding are predicted negative" tags=["nbval-ignore-output"]
plots.threshold_view(t, s, 0.5, title="Pneumonia, synthetic test films: a high threshold")

# %% [markdown]
# **What to see.** A threshold is a place on the ROC curve. Lower it, and you walk up and to the right:
# sensitivity (the vertical axis) grows, and so do false alarms (the horizontal axis, one minus specificity).
# 0.5 is no natural threshold: for a rare finding nearly all probabilities lie below it, and rightly so.
#
# ### Exercise 7.2: a threshold that keeps its promise
# ★★☆, 15 minutes. A department accepts one false alarm in ten. Write `threshold_for(y, scores, specificity)`
# for one label on *validation* films: the **lowest** observed score that, used as a threshold
# (`scores >= threshold` is predicted positive), reaches at least this specificity. If even the highest score
# is too low, return `np.inf`.
#
# <details><summary>Hint</summary>
# Specificity rises with the threshold. Try the observed scores from low to high. A quantile that interpolates
# is no observed score.
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
#
# ### Who chooses the threshold?
#
# Simulate one model in many hospitals with 60 validation and 60 test films each. Choose the threshold on the
# one or on the other, and report F1 on the test films. The truth is the F1 of the same threshold on very many
# films.

# %%
def hospital(n, draw):
    truth = (np.arange(n) < 0.2 * n).astype(float)
    return truth, expit(draw.normal(1.3 * truth - 1.5, 1))


draw, rows = np.random.default_rng(0), []
many_y, many_p = hospital(20_000, draw)
for _ in range(300):
    (yv, pv), (yt, pt) = hospital(60, draw), hospital(60, draw)
    for chosen, (yc, pc) in {"validation": (yv, pv), "test": (yt, pt)}.items():
        threshold = f1_thresholds(yc, pc)
        rows.append((chosen, f1_at(yt, pt, threshold)[0], f1_at(many_y, many_p, threshold)[0]))
chosen = pd.DataFrame(rows, columns=["threshold chosen on", "F1 reported", "F1 in truth"]).groupby("threshold chosen on").mean()
print(chosen.round(2).to_string())
assert abs(chosen.loc["validation"].diff().iloc[1]) < 0.02 and -chosen.loc["test"].diff().iloc[1] > 0.05

# %% [markdown]
# **What to see.** In truth both thresholds are equally good. Chosen on test, the *report* is too good, by
# luck that does not come again. So we choose on validation films, with scores of a model that has *not
# learned* from them. For cross-fitted members these are the out-of-fold scores in `history.val_scores`. On
# our test films:

# %% tags=["nbval-ignore-output"]
thresholds = f1_thresholds(y_val, p_val, mask_val)
decided = pd.DataFrame({
    "sensitivity at 90 % specificity": sensitivity_at_specificity(y, p, mask, 0.9), "threshold (validation)": thresholds,
    "F1": f1_at(y, p, thresholds, mask), "F1 if chosen on test": f1_at(y, p, f1_thresholds(y, p, mask), mask),
}, index=LABELS)
decided.round(2)

# %%
np.testing.assert_allclose(decided["F1"], [f1_score(t, s >= cut) for (t, s), cut in zip(known_of, thresholds, strict=True)])
assert (decided["F1 if chosen on test"] >= decided["F1"] - 1e-12).all()  # by construction, whatever the model

# %% [markdown]
# ### Can you believe the probabilities?
#
# Of the films that get 0.3, three in ten should have the finding: that is **calibration**. The Brier score is
# a squared error. The **expected calibration error** cuts [0, 1] into bins $b$ and compares the mean
# probability of each with its share of positives:
#
# $$\mathrm{Brier} = \frac1n \sum_i (p_i - y_i)^2, \qquad
#   \mathrm{ECE} = \sum_{b} \frac{n_b}{n}\, \big|\bar p_b - \bar y_b\big|$$

# %%
from medbridge.metrics.calibration import brier, ece, fit_temperature


def my_ece(truth, given, bins=15):
    bin_of = np.minimum((given * bins).astype(int), bins - 1)
    inside = [bin_of == b for b in np.unique(bin_of)]
    return sum(i.mean() * abs(given[i].mean() - truth[i].mean()) for i in inside)


np.testing.assert_allclose(my_ece(y[mask], p[mask]), ece(y, p, mask))
np.testing.assert_allclose(((p - y)[mask] ** 2).mean(), brier(y, p, mask))
print("by hand = package")

# %% [markdown]
# A Brier score alone says little. For a finding of 10 %, a model that gives every film "10 %" gets 0.09, with
# an ECE of zero, and has learned nothing. So put that guess beside it:

# %% alt="reliability plots of MedBridge and of the validation films' prevalence given to every film: predicted probability against the share with the finding, synthetic test films" tags=["nbval-ignore-output"]
share = np.broadcast_to([y_val[mask_val[:, c], c].mean() for c in range(len(LABELS))], y.shape)
plots.reliability_plot(y, {"MedBridge": p, "prevalence of the validation films": share}, mask, title="Synthetic test films, all labels together")

# %% [markdown]
# Trained networks tend to be too sure. The mildest cure is a **temperature** $\vartheta$ (Guo et al., ICML
# 2017): give $\sigma(s / \vartheta)$ for the logit $s$, with the $\vartheta$ of least cross-entropy on the
# **validation** films. The order of films stays, so AUC stays.

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
theta = fit_temperature(truth[0], too_sure[0])
np.testing.assert_allclose(my_temperature(truth[0], too_sure[0]), theta, rtol=0.01)

# %%
before, after = expit(too_sure[1]), expit(too_sure[1] / theta)
print(f"simulated: temperature {theta:.1f} (2.5 in truth); ECE on test films {ece(truth[1], before):.2f} -> {ece(truth[1], after):.2f}")
assert ece(truth[1], after) < 0.5 * ece(truth[1], before) and auc(truth[1], before)[0] == auc(truth[1], after)[0]

# %% alt="reliability plots of the shipped adapter as trained and with its temperature: predicted probability against the share with the finding, synthetic test films" tags=["nbval-ignore-output"]
warm = fit_temperature(y_val, logit(p_val), mask_val)
print(f"the shipped adapter: temperature {warm:.2f} on {len(val)} validation films")
plots.reliability_plot(y, {"as trained": p, f"temperature {warm:.2f}": expit(logit(p) / warm)}, mask, title="Synthetic test films")

# %% [markdown]
# **How to read it.** A temperature near 1 says that the model was not far off. One $\vartheta$ cannot mend a
# hospital where a finding is more frequent than in training: that moves the bias of a label, not its slope.

# %% [markdown]
# ## 4. Many looks
#
# A 95 % interval leaves the truth out one time in twenty. Look at eight findings, and often something looks
# "significant" where nothing is. Simulate two models that are **equally good**, many times:

# %%
def eight_p_values(draw, n=120, labels=8):
    truth = (draw.random((n, labels)) < 0.3).astype(float)
    hard = draw.normal(0, 1, (n, labels))
    a, b = (truth + hard + draw.normal(0, 0.7, (n, labels)) for _ in range(2))  # no true difference
    return delong_difference(truth, a, b)["p_value"].to_numpy()


draw = np.random.default_rng(0)
found = np.array([eight_p_values(draw) for _ in range(250)])
plain, corrected = ((found * factor < 0.05).any(axis=1).mean() for factor in (1, 8))  # 8: Bonferroni
print(f"studies that 'find' a difference on at least one of 8 findings: {plain:.0%} as they are, {corrected:.0%} after Bonferroni")
print(f"expected for independent findings: {1 - 0.95**8:.0%} and about 5 %")
assert plain > 0.2 and corrected < 0.1

# %% [markdown]
# ### Exercise 7.3: Holm's correction
# ★★★, 15 minutes. Bonferroni multiplies each of $J$ p-values by $J$. **Holm** (1979) is never worse and gives
# the same guarantee: sort the p-values upwards, multiply the smallest by $J$, the next by $J - 1$, and so on.
# No adjusted value may be smaller than the one before it, and none above 1:
#
# $$\tilde p_{(j)} = \min\Big(1, \max_{i \le j}\, (J - i + 1)\, p_{(i)}\Big)$$
#
# Write `holm(p_values)`: return the adjusted values in the order in which they came.
#
# <details><summary>Hint</summary>
# <code>np.argsort</code> gives the order; <code>np.maximum.accumulate</code> is the running maximum; assign
# back with <code>out[order] = ...</code>.
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
#
# ### Many seeds
#
# Train with many seeds, and report the best: on *test*. All runs are equally good; only their luck with these
# films differs. We compare the report with the truth, $\Phi(\delta / \sqrt{2\sigma^2})$ for normal scores of
# spread $\sigma$:

# %%
def runs_of_one_model(draw, runs, n=150, shared=0.8, own=0.6, strength=0.75):
    """Validation and test AUC of equally good runs; runs of one model find the same films hard."""
    out = []
    for _ in range(2):
        truth = (np.arange(n) < 0.2 * n).astype(float)
        hard = draw.normal(0, shared, n)
        out.append([my_auc(truth, strength * truth + hard + draw.normal(0, own, n)) for _ in range(runs)])
    return np.array(out)


# %%
draw = np.random.default_rng(0)
true_auc = norm.cdf(0.75 / np.sqrt(2 * (0.8**2 + 0.6**2)))
on_val, on_test = np.array([runs_of_one_model(draw, 20) for _ in range(300)]).transpose(1, 0, 2)  # (studies, runs) each
ks = [1, 2, 5, 10, 20]
reported = pd.DataFrame({
    "best on test": [on_test[:, :k].max(axis=1).mean() for k in ks],
    "chosen on validation": [np.mean([t[v[:k].argmax()] for v, t in zip(on_val, on_test, strict=True)]) for k in ks],
    "mean of the runs": [on_test[:, :k].mean() for k in ks],
}, index=pd.Index(ks, name="runs"))
print(f"mean AUC that is reported; the true AUC of every run is {true_auc:.2f}")
print(reported.round(2).to_string())

# %%
assert reported["best on test"].is_monotonic_increasing and reported.loc[10, "best on test"] - true_auc > 0.03
assert (reported[["chosen on validation", "mean of the runs"]] - true_auc).abs().to_numpy().max() < 0.01

# %% alt="AUC reported against the number of equally good simulated runs: the best on test rises with every try above the true value; chosen on validation, and the mean of the runs, stay at it" tags=["nbval-ignore-output"]
curves({"Equally good runs (simulated)": dict(reported.items())}, size=(6, 3), marker="o", level={"truth": true_auc},
       xlabel="runs that were tried", ylabel="AUC reported", xticks=ks)

# %% [markdown]
# **What to see.** The best of twenty grows with every try, and nothing became better. So: choose on
# validation, look at the test films once, report the mean over seeds and their spread, and give each baseline
# as many tries as the method.

# %% [markdown]
# ## 5. As good for everyone?
#
# A mean may hide a group for whom the model fails. `subgroup_table` gives the mean AUC of each group, and the
# **gap** to all other films, with an interval over patients:

# %% tags=["nbval-ignore-output"]
from medbridge.metrics.subgroups import subgroup_table

groups = subgroup_table(test, p, n_boot=500)
groups.round(2)

# %%
women = (test.table["sex"] == "F").to_numpy()
row = groups.query("column == 'sex' and group == 'F'").iloc[0]
np.testing.assert_allclose(np.nanmean(auc(y[women], p[women], mask[women])), row["auc"])
assert row["films"] == women.sum() and row["patients"] == len(set(patients[women]))
print("by hand = package, for one group")

# %% alt="dots with 95 % intervals: mean AUC of each sex, age band, view position and hospital minus that of the other synthetic test films; a dashed line marks zero" tags=["nbval-ignore-output"]
names = groups["column"] + " " + groups["group"] + " (" + groups["films"].astype(str) + " films)"
points({"gap": groups.set_index(names)[["gap", "gap_lo", "gap_hi"]]}, "Gaps with 95 % intervals, synthetic test films", {"": 0},
       xlabel="mean AUC of the group minus that of the other films")

# %% [markdown]
# **How to read it.** Small groups have long intervals: "no gap is shown" is not "there is no gap". A gap that
# is shown does not say why. And these are eleven comparisons at once (section 4).
#
# ### Who is missed?
#
# AUC ranks films inside a group. **One threshold for all** decides about the patient, and there two groups
# can fare differently. Look at the **miss rate** of each group $G$ at the threshold $t$:
#
# $$\mathrm{miss}(G) = \frac{|\{i \in G : y_i = 1,\ p_i < t\}|}{|\{i \in G : y_i = 1\}|}$$
#
# Seyyed-Kalantari et al. ([2021](https://doi.org/10.1038/s41591-021-01595-0)) found it unevenly spread over
# sex, age and insurance on real films. We simulate two hospitals, the second with darker films and lower
# scores:

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
# The AUC is the same, and one hospital misses several times as many sick patients. A threshold per group
# would even this out, and treat two patients with the same score differently. Whether that is right is no
# question for a metric.
#
# ### Exercise 7.4: the miss rate of every group
# ★★☆, 15 minutes. Write `miss_rates(y, p, mask, group, threshold)` for one finding; all arrays have shape
# `(n,)`. Return a dictionary: each group's name with its miss rate over the films whose label is **known**;
# NaN for a group without a known positive film. `p >= threshold` is predicted positive.
#
# <details><summary>Hint</summary>
# For each of <code>np.unique(group)</code>: the films that are in the group, known and positive. The mean of
# nothing is not zero.
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
# **Limits.** The phantom's author drew its groups: a bias that we find here was put in, and one that is
# missing may be there on real films.
#
# ## Summary
#
# - AUC is the share of ordered pairs, per label over known films. One class alone: undefined, never 0.5.
# - Accuracy misleads where findings are rare; average precision needs its prevalence beside it.
# - Intervals draw patients. Differences are paired. DeLong is a check where films are independent.
# - Thresholds and temperatures come from validation films.
# - Count how often you looked: findings, groups, seeds.
# - Equal AUC is not equal care. Report miss rates by group, with their counts.
#
# Next: what MedBridge is compared with, [08 Baselines](08_baselines.ipynb)
