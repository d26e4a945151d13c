# %% [markdown]
# # 09 The adaptation tasks: cross-domain, in-domain, label budgets
#
# {{COLAB}}
#
# **What you will build:** the experiments of the paper at a size that fits a laptop. You pair the labels of two hospitals that
# name them differently, draw label budgets that lie inside each other, write the whole grid of training runs as one YAML file, run
# it, stop it and go on, and read its tables: what does it cost to have few labels, and what does it cost to move to another
# hospital?
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (labels, splits, AUC with intervals) and
#   [03](03_focal_sampling.ipynb); Python, NumPy, a little pandas.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores the first time, seconds when the films and
#   features are there. On a Colab T4 about one minute (an estimate). The full profile trains on real benchmarks and takes hours
#   on a GPU (an estimate).
# - **Modules:** `medbridge/data/tasks.py`, `medbridge/studies/experiment.py` ·
#   **tests:** `tests/data/test_tasks.py`, `tests/studies/test_experiment.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), **[abstract]** Five chest radiograph benchmarks, three adaptation tasks, cross-domain and in-domain, with varying
#   amounts of training data. **[ours]** The names of the five, binary as the third task, and 1 %, 10 % and 100 %.
#
# For research and education, not for clinical use. Every film of the default profile is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from medbridge import list_benchmarks
from medbridge.baselines.method import MedBridgeMethod
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.labels import canonical, shared_labels
from medbridge.data.phantom.benchmark import make_film
from medbridge.data.tasks import BenchmarkRef, label_budget, make_targets
from medbridge.errors import BenchmarkError
from medbridge.features.cache import FeatureCache
from medbridge.studies.experiment import run_experiment, summary
from medbridge.studies.experiment_file import parse_experiment
from medbridge.viz import plots
from medbridge.viz import studies as figures

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. Why: three questions that one AUC does not answer
#
# A model that was trained and tested in one hospital has one number. Whoever wants to use it asks three others:
#
# - **In-domain, multi-label:** all findings at once, on new patients of the *same* hospital.
# - **In-domain, binary:** *one* finding against the rest, such as pneumonia. Is a model for one finding alone better at it?
# - **Cross-domain:** the *other* hospital, where machines, patients and even the names of the findings differ.
#
# And all three ask: **how many labelled patients does it take?** A radiologist's label costs minutes; 1 % of a large archive can
# be had in a week, 100 % never.
#
# The synthetic benchmark has three hospitals. The same chest, with the same findings, is drawn as each of them would take it:

# %% tags=["nbval-ignore-output"]
hospitals = {"A": "teaching", "B": "outpatient", "C": "intensive care"}
films = [make_film(21, h, findings=["Effusion"], patient_seed=4, subtlety=0).image / 255 for h in hospitals]
plots.film_grid(films, [f"hospital {h}: {kind}" for h, kind in hospitals.items()], columns=3,
                title="One chest with an effusion in three hospitals (synthetic films)")

# %% [markdown]
# **What to see.** Exposure, contrast and noise differ, and the patient lies in bed in one of them. What also differs cannot be
# seen in a film: how *many* patients have each finding. A model that has learned how common things are in A will be surprised in C.
#
# Now we load the benchmarks. In the full profile (`MEDBRIDGE_PROFILE=full`) these are the real ones that `MEDBRIDGE_DATA` holds, as
# long as each shares a finding with all the others.

# %% tags=["nbval-ignore-output"]
def real_benchmarks():
    """Name -> benchmark, of those in MEDBRIDGE_DATA that share a finding with each other."""
    found = {}
    for name in list_benchmarks():
        if name.startswith("phantom"):
            continue
        try:
            benchmark = BenchmarkRef.parse(name).load()
            for other in found.values():
                shared_labels(benchmark.labels, other.labels)
            found[name] = benchmark
        except BenchmarkError as error:
            print(f"without {name}: {error}")
    if len(found) < 2:
        raise BenchmarkError("the full profile needs MEDBRIDGE_DATA: a folder with two or more of nih/, chexpert/ ... in it")
    return found


if full_profile():
    benchmarks, entries = real_benchmarks(), {}
    experts, settings, sampler = ["clip-vitb16", "biomedclip"], {"epochs": 30}, {}
    fractions, seeds, adapter = [0.01, 0.1, 1.0], [0, 1, 2], {}
else:
    entries = {f"phantom-{h}": {"options": {"n_films": 75}} for h in hospitals}
    benchmarks = {name: BenchmarkRef.parse(name, entry["options"]).load() for name, entry in entries.items()}
    experts, settings, sampler = ["tiny-resnet"], {"epochs": 8, "batch_size": 4}, {"crop": 0.6, "overlap": 0.0, "extra": 0}
    fractions, seeds, adapter = [0.1, 1.0], [0], {"members": 2}  # two members instead of five, for time
prevalence = {name: [b.table[label].mean() for label in b.labels] for name, b in benchmarks.items()}

# %% alt="bars: share of films with each shared label in every hospital, synthetic films" tags=["nbval-ignore-output"]
common = [label for label in next(iter(benchmarks.values())).labels if all(label in b.labels for b in benchmarks.values())]
mark = "synthetic films" if not full_profile() else None
plots.prevalence_bars({name: [b.table[label].mean() for label in common] for name, b in benchmarks.items()}, common, mark)

# %% [markdown]
# **What to see.** The bars are short where a finding is rare. In the small default profile a bar may stand for two or three films.
#
# ## 2. Cross-domain: which labels can be compared at all?
#
# NIH ChestX-ray14 and CheXpert were labelled by two teams, from reports, with two lists. Which of their labels mean the
# same finding? Names alone do not say: "Effusion" and "Pleural Effusion" are one; "Infiltration" has no partner; "Lung Opacity"
# *contains* pneumonia, so scoring a pneumonia model on it would compare different things.

# %%
nih = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax", "Consolidation",
       "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"]
chexpert = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
            "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"]
for pair in shared_labels(nih, chexpert):
    print(f"{pair.finding:<14} NIH: {pair.train:<14} CheXpert: {pair.test}")
print("NIH alone:", ", ".join(label for label in nih if canonical(label) not in map(canonical, chexpert)))

# %% [markdown]
# `canonical` maps a name to the finding that it means, from one dictionary (`medbridge/data/labels.py`). A model is **trained over all
# labels of its source** $\mathcal{C}_s$ and **scored over the shared ones** **[ours]**: training on the shared labels alone would throw away what
# the other labels teach. With $\mathrm{AUC}_\ell(s \to t)$ the AUC of finding $\ell$ on the test films of $t$, for a model of $s$:
#
# $$\overline{\mathrm{AUC}}(s \to t) = \frac{1}{|\mathcal{C}_s \cap \mathcal{C}_t|} \sum_{\ell \in \mathcal{C}_s \cap \mathcal{C}_t} \mathrm{AUC}_\ell(s \to t)$$
#
# Where $t = s$ all labels are shared: that is the in-domain multi-label task. Note what follows: $s \to t$ and $s \to s$
# may be means over *different* labels. Compare them label by label, or over the same labels.
#
# ### Exercise 9.1: pair the labels
# ★☆☆, 5 minutes. Write `shared_pairs(train, test, same)`: `same` maps unusual names to usual ones (`{"Pleural Effusion":
# "Effusion"}`); names that it lacks mean themselves. Return a list of pairs (training name, test name), one per shared finding, in
# the order of `train`.
#
# <details><summary>Hint</summary>
# Make a dictionary from the finding to the test benchmark's own name. <code>same.get(name, name)</code> is the finding of a name.
# </details>

# %%
def shared_pairs(train, test, same):
    raise NotImplementedError


check("9.1", shared_pairs)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/09_adaptation_tasks.ipynb](solutions/09_adaptation_tasks.ipynb).
#
# ```python
# def shared_pairs(train, test, same):
#     own_name = {same.get(name, name): name for name in test}
#     return [(name, own_name[same.get(name, name)]) for name in train if same.get(name, name) in own_name]
# ```
# </details>

# %% [markdown]
# A **target** is a test split over the shared labels, under the source's names. Here is what the package makes of our hospitals:

# %%
source = next(iter(benchmarks.values()))
targets = make_targets(source, list(benchmarks.values()))
for target in targets:
    kind = "in-domain" if target.in_domain else "cross-domain"
    print(f"{source.name} -> {target.test.name}: {kind}, {len(target.shared)} shared labels, {len(target.test)} test films")

# the same by hand: the columns of the scores that belong to the target's labels, in its order
for target in targets:
    assert [source.labels[c] for c in target.columns] == [pair.train for pair in target.shared] == list(target.test.labels)
    assert set(target.test.table["split"]) == {"test"}

# %% [markdown]
# What is refused matters as much: no shared finding, and a test film that was trained on. Both are errors **before** anything
# is trained.

# %%
try:
    shared_labels(["Pneumonia"], ["Fracture", "Support Devices"])
except BenchmarkError as error:
    print(str(error).split(";")[0])

# %% [markdown]
# One trap that no table shows: benchmarks are made from each other. The films of the RSNA challenge were taken from NIH
# ChestX-ray14, and those of COVIDx partly from RSNA, under other names. "Trained on NIH, tested on RSNA" may then mean tested on
# training films. `medbridge adapt` says so where it is known, and leaves out of the test every film that is a copy of a training
# film by its pixels (`medbridge.data.copies`).
#
# ## 3. Label budgets: draw patients, one budget inside the next
#
# **[abstract]** The models are adapted with varying amounts of training data. **[ours]** We take 1 %, 10 % and 100 % of the labels. A budget draws *patients*: whoever labels a
# patient labels all the films of that patient. All budgets of one seed are beginnings of **one** random order $\pi$ of the
# $J$ patients of a split, of training and of validation alike:
#
# $$\mathcal{B}_f = \{\pi_1, \dots, \pi_{\max(1, \mathrm{round}(f J))}\} \qquad\Rightarrow\qquad \mathcal{B}_{0.01} \subseteq \mathcal{B}_{0.1} \subseteq \mathcal{B}_1$$
#
# So a larger budget differs from a smaller one only by patients that were *added*. With independent draws, 10 % might be worse than
# 1 % just by bad luck with who was drawn.

# %%
def my_budget(table, split, fraction, seed):
    """The patients of a split whose labels a budget holds."""
    patients = sorted(set(table.loc[table["split"] == split, "patient_id"]))
    order = np.random.default_rng(seed).permutation(np.array(patients, dtype=object))
    return set(order[: max(1, round(fraction * len(order)))])


fractions_tried = (0.01, 0.1, 0.5, 1.0)
for seed in (0, 1):
    for fraction in fractions_tried:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            thin = label_budget(source, fraction, seed)
        if not full_profile():  # real films may lack every label; the package does not draw such patients
            for split in ("train", "val"):
                assert set(thin.split(split).table["patient_id"]) == my_budget(source.table, split, fraction, seed)
        assert len(thin.split("test")) == len(source.split("test"))
        assert fraction == 1 or len(thin.unlabelled) == len(source.split("train"))
    for split in ("train", "val"):
        budgets = [my_budget(source.table, split, fraction, seed) for fraction in fractions_tried]
        assert budgets[0] <= budgets[1] <= budgets[2] <= budgets[3]
print("nested, in train and in val; the test films are whole")

# %% [markdown]
# **Validation is thinned too.** Somebody had to read every film by which an epoch or a setting is chosen. With all validation
# labels, "1 % of the labels" would mean 1 % to *learn* from and many times as many to *choose* by. So 1 % is 1 % of both splits. What a
# method makes of them is its own affair: MedBridge deals them into folds and learns from all of them (notebook 06).
#
# **Pixels are not held back.** A hospital has films without labels in plenty. The training films beyond the budget stay as
# `thin.unlabelled`; the basis of the compact maps (notebook 04) is fitted to them, without a label.
#
# What does a small budget hold? Count positives:

# %%
def positives(fraction):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train = label_budget(source, fraction, 0).split("train")
    return {"patients": train.table["patient_id"].nunique(), "films": len(train),
            **{label: int((train.table[label] == 1).sum()) for label in train.labels}}, [str(w.message) for w in caught]


counted = {f"{100 * f:g} %": positives(f) for f in (0.01, 0.1, 1.0)}
print(pd.DataFrame({name: column for name, (column, _) in counted.items()}).to_string())
for _, messages in counted.values():
    for line in messages:
        print("\nwarning:", line.split(" cannot be learned")[0], "...")

# %% [markdown]
# **What to see.** At 1 % of this small benchmark one patient is left. No label has both classes, so nothing can be learned: any AUC
# that is printed for it is chance, whichever method it stands beside. The package warns with a count, goes on, and writes the number
# of training positives beside every AUC (`train_positives`). With 86,524 films, as in NIH, 1 % is another matter, but not for
# *every* finding.
#
# ### Exercise 9.2: how many patients does a rare finding ask for?
# ★★☆, 10 minutes. A finding is present in a share $p$ of the patients. Patients are drawn independently (nearly true where
# few of many are drawn). Write `patients_needed(prevalence, sure)`: the smallest number $n$ of patients such that at least one of them
# has the finding with probability at least `sure`.
#
# <details><summary>Hint</summary>
# The opposite of "at least one" is "none". None of n has it with probability (1 - p)<sup>n</sup>.
# </details>

# %%
def patients_needed(prevalence, sure):
    raise NotImplementedError


check("9.2", patients_needed)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/09_adaptation_tasks.ipynb](solutions/09_adaptation_tasks.ipynb), with a table.
#
# ```python
# def patients_needed(prevalence, sure):
#     exact = np.log(1 - sure) / np.log(1 - prevalence)
#     return int(np.ceil(exact - 1e-9))  # 1e-9: 2.0000000001 patients are 2
# ```
# </details>

# %% alt="four curves, each of another line style: probability that a budget of patients holds at least one positive, against the number of patients, for findings of 10, 3, 1 and 0.2 %; a line at 95 %" tags=["nbval-ignore-output"]
n = np.arange(1, 400)
fig = Figure(figsize=(6, 3), layout="constrained")
ax = fig.subplots()
for p, line in zip((0.1, 0.03, 0.01, 0.002), ("-", "--", "-.", ":"), strict=True):
    ax.plot(n, 1 - (1 - p) ** n, line, label=f"{100 * p:g} % of the patients have it")
ax.axhline(0.95, color="0.6", linestyle="--", linewidth=0.8)
ax.set(xlabel="patients in the budget", ylabel="probability of at least one positive", ylim=(0, 1.02))
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# ## 4. The grid as a file
#
# Sources, targets, budgets, methods and seeds multiply. Nobody should start such runs by hand, so they are written down once, as
# YAML, and `medbridge experiment FILE.yaml` does the rest. In the notebook we write the same file from Python:

# %%
names = list(benchmarks)
given = {
    "name": "three tasks", "experts": experts, "benchmarks": entries, "methods": ["zero-shot", "linear probe", "MedBridge"],
    "label_fractions": fractions, "seeds": seeds, "adapter": adapter, "train": settings, "sampler": sampler,
    "tasks": [
        {"name": "cross-domain", "kind": "cross-domain", "train": names},
        {"name": "in-domain multi-label", "kind": "multi-label", "train": list(names)},
        {"name": "in-domain binary", "kind": "binary", "label": "Pneumonia",
         "train": [n for n, b in benchmarks.items() if "Pneumonia" in map(canonical, b.labels)][:1]},
    ],
}
print(yaml.safe_dump(given, sort_keys=False, default_flow_style=None, width=110))

# %% [markdown]
# A wrong file is refused before anything is loaded, with the key that is at fault:

# %%
for change in ({"label_fractions": [0.1, 10]}, {"methods": ["linear prob"]}, {"train": {"epoch": 8}}):
    try:
        parse_experiment(given | change)
    except ValueError as error:
        print(error)

# %% [markdown]
# **What is trained, and how often?** A model of source $s$ at budget $f$ is the same model whether it is scored at home or elsewhere.
# So the runner names every training run by *what it depends on*: method, settings, seed, the experts' weights, the training films
# and their labels. Tasks that need the same run share it. Count for MedBridge: sources x budgets x seeds for the
# multi-label models, which both other multi-label tasks use, and the binary ones. Each of these is two cross-fitted members with a
# linear read-out (notebook 06); the default is five. The linear probe has no seed of its own, and zero-shot does not even have training
# films:

# %%
S, F, R = len(names), len(fractions), len(seeds)
binary = len(given["tasks"][2]["train"])
by_hand = {"MedBridge": (S + binary) * F * R, "zero-shot": len({b.labels for b in benchmarks.values()}) + 1}
rows = S * S * F * R * 3 + S * F * R * 3 + binary * F * R * 3
print(f"{rows} places of the grid in three tasks; MedBridge is trained {by_hand['MedBridge']} times, "
      f"zero-shot is scored once for each list of labels: {by_hand['zero-shot']} times")

# %% [markdown]
# ### Stop it, and go on
#
# A grid runs for hours; machines restart. Every run is kept when it is finished, and a run that was cut off goes on from the
# checkpoint of its last epoch. Let us pull the plug after the first MedBridge run:

# %% tags=["nbval-ignore-output"]
folder = Path(tempfile.mkdtemp()) if not full_profile() else Path("runs/three_tasks")
experiment = parse_experiment(given)
warnings.simplefilter("ignore", UserWarning)  # the small budgets warn, as they did above
plain_fit, fitted = MedBridgeMethod.fit, []


def unplugged(self, train, val):
    if len(fitted) == 1:
        raise KeyboardInterrupt
    fitted.append(train.benchmark.name)
    return plain_fit(self, train, val)


MedBridgeMethod.fit = unplugged
try:
    run_experiment(experiment, folder, FeatureCache(progress=False))
except KeyboardInterrupt:
    print("interrupted after", len(fitted), "MedBridge run; finished so far:", len(list(folder.glob("cells/*/cell.json"))), "runs")
MedBridgeMethod.fit = plain_fit

# %% tags=["nbval-ignore-output"]
found = run_experiment(experiment, folder, FeatureCache(progress=False))
print(f"{found.trained} of {found.cells} runs were made by the second call")

# %%
methods_of = [yaml.safe_load(path.read_text())["method"] for path in folder.glob("cells/*/cell.json")]
assert methods_of.count("MedBridge") == by_hand["MedBridge"]
assert found.trained < found.cells == len(methods_of)  # what was there was not made again
assert run_experiment(experiment, folder, FeatureCache(progress=False)).trained == 0
print("a third call trains nothing")

# %% [markdown]
# ## 5. Reading the results
#
# The result is a **tidy table**: one row per task, source, target, label, budget, method and seed. Every question is then one line of
# pandas.

# %% tags=["nbval-ignore-output"]
columns = ["train", "test", "label", "label_fraction", "method", "auc", "lo", "hi", "n", "positives", "train_positives"]
found.results.query("task == 'cross-domain'")[columns].sample(6, random_state=1).round(2)

# %%
assert set(found.results["method"]) == set(given["methods"]) and set(found.results["task"]) == {t["name"] for t in given["tasks"]}
multi = found.results.query("kind == 'multi-label' and label != 'mean'")
assert (multi["positives"] <= multi["n"]).all() and len(multi) == sum(len(b.labels) for b in benchmarks.values()) * F * R * 3
print(f"{len(found.results)} rows, {len(found.results.columns)} columns:", ", ".join(found.results.columns))

# %% [markdown]
# Is the table right? One AUC by hand, from the scores that the grid keeps on disk:

# %%
for path in folder.glob("cells/*/cell.json"):
    facts = yaml.safe_load(path.read_text())
    if (facts["method"], facts["source"], len(facts["labels"])) == ("zero-shot", source.name, len(source.labels)):
        kept = [np.load(scores) for scores in path.parent.glob("scores-*.npz")]
test = source.split("test")
scores = next(k["scores"] for k in kept if k["images"].tolist() == test.image_ids())
y, mask = test.targets()
rows = multi.query("train == @names[0] and method == 'zero-shot'").drop_duplicates("label")
for c, value in enumerate(rows["auc"]):
    known = mask[:, c]
    if len(set(y[known, c])) == 2:
        assert abs(value - roc_auc_score(y[known, c], scores[known, c])) < 1e-9
    else:
        assert np.isnan(value)  # one class among the test films: no AUC, and not in the mean
print("the table says what scikit-learn says")

# %% [markdown]
# ### What do labels buy?

# %% alt="test AUC of each method against the share of the patients whose labels may be used, with intervals, synthetic films" tags=["nbval-ignore-output"]
figures.budget_curves(found.averages, "in-domain multi-label")

# %% [markdown]
# **How to read it.** Zero-shot is a flat line: it has no use for labels. With enough films the others rise to the right. In the
# default profile, with 18 to 23 test films per panel, a line may as well fall: the intervals are as wide as everything that one would
# like to see. That is not a fault of the drawing. It is the honest answer of so few films.
#
# ### What does it cost to move?

# %% alt="tables of MedBridge's mean test AUC with intervals by training hospital (rows) and test hospital (columns), for 10 % and 100 % of the labels, synthetic films" tags=["nbval-ignore-output"]
figures.domain_matrix(found.averages, "cross-domain")

# %% [markdown]
# **How to read it.** Rows are where a model comes from, columns where it is scored. Go **down a column**: the films are the same,
# only the models differ, so cells can be compared. Along a row the films differ too: a hospital may simply have easier films. The
# diagonal is in-domain; a cell far below its column's diagonal is a price of moving.
#
# ### One finding against the rest

# %% tags=["nbval-ignore-output"]
home = given["tasks"][2]["train"][0]
both = found.results.query("train == @home and test == @home and label == 'Pneumonia' and kind != 'cross-domain'")
both.pivot_table(index=["method", "label_fraction"], columns="kind", values="auc").round(2)

# %% [markdown]
# The binary model learns the labels of pneumonia alone. The multi-label model has to share its capacity, but it also learns everything
# that looks like pneumonia and is not. Which is better is a question for a paired comparison, and for more films than these.
#
# ### Better or not?
#
# Every difference is paired: MedBridge and the baseline on the same resampled patients (notebook 02). The command prints:

# %% tags=["nbval-ignore-output"]
print(summary(found.averages, found.differences))

# %% tags=["nbval-ignore-output"]
means = found.differences.query("label == 'mean' and baseline == 'linear probe'")
print(f"MedBridge minus linear probe: {len(means)} comparisons; the interval is above zero in {(means['lo'] > 0).sum()}, "
      f"below in {(means['hi'] < 0).sum()}, and holds zero in {means['holds_zero'].sum()}")

# %% [markdown]
# Two warnings for whoever writes a paper from such a table. Of 20 comparisons without any true difference, one interval of 95 % leaves
# zero out on average: **count the comparisons** before you pick one. And these intervals cover the choice of *test patients*.
# How much the *training* varies is seen over seeds only, in `auc_min` and `auc_max` of the averages, and one seed shows nothing.
#
# ### Exercise 9.3: the price of moving, with an interval
# ★★★, 20 minutes. Two models are scored on the same test films of one hospital: `home` was trained there, `away` elsewhere. Write
# `paired_gap(y, home, away, patients, n_boot, rng)` for one label: return the AUC of home minus that of away, and the lower and upper
# end of its 95 % percentile interval over `n_boot` resamples of **patients**. `y`, `home`, `away` and `patients` are arrays of the $n$
# films. Leave out resamples in which only one class is drawn.
#
# <details><summary>Hint</summary>
# Draw patients with replacement, as many as there are; put the rows of their films together (twice, where a patient is drawn twice);
# compute <i>both</i> AUCs on these rows. <code>np.percentile(gaps, [2.5, 97.5])</code> gives the ends.
# </details>

# %%
def paired_gap(y, home, away, patients, n_boot, rng):
    raise NotImplementedError


check("9.3", paired_gap)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/09_adaptation_tasks.ipynb](solutions/09_adaptation_tasks.ipynb).
#
# ```python
# def paired_gap(y, home, away, patients, n_boot, rng):
#     films_of = [np.flatnonzero(patients == p) for p in np.unique(patients)]
#     gaps = []
#     for _ in range(n_boot):
#         rows = np.concatenate([films_of[i] for i in rng.integers(len(films_of), size=len(films_of))])
#         if 0 < y[rows].sum() < len(rows):
#             gaps.append(roc_auc_score(y[rows], home[rows]) - roc_auc_score(y[rows], away[rows]))
#     low, high = np.percentile(gaps, [2.5, 97.5])
#     return roc_auc_score(y, home) - roc_auc_score(y, away), low, high
# ```
# </details>

# %% [markdown]
# ## 6. From here to real benchmarks
#
# Nothing changes but the names. With a folder that holds `nih/` and `chexpert/` as their owners distribute them:
#
# ```
# export MEDBRIDGE_DATA=/data
# medbridge adapt --train NIH --test CheXpert --label-fraction 0.01 --expert clip-vitb16 --expert biomedclip
# medbridge experiment my_tasks.yaml
# ```
#
# `bench/phantom_tasks.yaml` is a complete example on synthetic films.
#
# ## Summary
#
# - Three tasks: in-domain multi-label, in-domain binary, cross-domain. Trained over all labels of the source, scored over the
#   shared ones; only names of the very same finding are paired.
# - A label budget draws patients of train and of val, each budget inside the next: labels to choose by are labels too. A tiny one may
#   hold one class of a label only: count positives.
# - A grid is a file. Runs are named by what they depend on, so they are shared between tasks, and never made twice.
# - Read a cross-domain matrix down its columns; believe a difference only where its paired interval leaves zero out, and count how
#   often you looked.
#
# Next: {{NEXT}}
