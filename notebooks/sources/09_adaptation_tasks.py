# %% [markdown]
# # 09 The adaptation tasks: cross-domain, in-domain, label budgets
#
# {{COLAB}}
#
# **What you will build:** the experiments of the paper at a size that fits a laptop. You pair the labels of
# two hospitals that name them differently, draw label budgets that lie inside each other, write a whole grid
# of training runs as one YAML file, run it, stop it and go on, and read its tables.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (labels, splits, AUC with intervals) and
#   [03](03_focal_sampling.ipynb); a little pandas.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores the
#   first time. On a Colab T4 about one minute (an estimate). The full profile trains on real benchmarks and
#   takes hours on a GPU (an estimate).
# - **Modules:** `medbridge/data/tasks.py`, `medbridge/studies/experiment.py` · **tests:**
#   `tests/data/test_tasks.py`, `tests/studies/test_experiment.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). **[abstract]** Five chest radiograph
#   benchmarks, three adaptation tasks, cross-domain and in-domain, with varying amounts of training data.
#   **[ours]** The names of the five, binary as the third task, and 1 %, 10 % and 100 %.
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
from sklearn.metrics import roc_auc_score

from medbridge import list_benchmarks
from medbridge.course import check, full_profile, real_films, seed_everything
from medbridge.data.labels import canonical, shared_labels
from medbridge.data.tasks import BenchmarkRef, label_budget, make_targets
from medbridge.errors import BenchmarkError
from medbridge.features.cache import FeatureCache
from medbridge.viz import plots
from medbridge.viz.charts import curves

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. Why: three questions that one AUC does not answer
#
# A model that learned and was tested in one hospital has one number. Whoever wants to use it asks for others:
#
# - **In-domain, multi-label:** all findings at once, on new patients of the *same* hospital.
# - **In-domain, binary:** *one* finding against the rest. Is a model for one finding alone better at it?
# - **Cross-domain:** the *other* hospital, where machines, patients and even the names of the findings
#   differ.
#
# And all three ask: **how many labelled patients does it take?** A radiologist's label costs minutes.
#
# The synthetic benchmark has three hospitals. Here is one chest, as each of them would take it:

# %% alt="one synthetic chest with an effusion as three hospitals would take it: other exposure, contrast and noise, and in one of them the patient lies in bed" tags=["nbval-ignore-output"]
from medbridge.data.phantom.benchmark import make_film

hospitals = {"A": "teaching", "B": "outpatient", "C": "intensive care"}
films = [make_film(21, h, findings=["Effusion"], patient_seed=4, subtlety=0).image / 255 for h in hospitals]
plots.film_grid(films, [f"hospital {h}: {kind}" for h, kind in hospitals.items()], columns=3,
                title="One chest with an effusion in three hospitals (synthetic films)")

# %% [markdown]
# **What to see.** Exposure, contrast and noise differ, and in one hospital the patient lies in bed. No film
# shows how *many* patients have each finding, and that differs too.
#
# Where `MEDBRIDGE_DATA` names a folder with a benchmark of real films ([data/README.md](../data/README.md)),
# see how far they are from all three:

# %% alt="three real films of the first benchmark in MEDBRIDGE_DATA, each under its findings" tags=["nbval-ignore-output"]
real = real_films()
print("MEDBRIDGE_DATA holds no real films" if real is None else f"real films, from {real.name}")
plots.film_grid([real.read(i) for i in range(3)], [", ".join(label for label in real.labels if real.table[label].iloc[i] == 1)
                                                   or "no finding" for i in range(3)], columns=3) if real else None

# %% [markdown]
# In the full profile (`MEDBRIDGE_PROFILE=full`) we load the real benchmarks that `MEDBRIDGE_DATA` holds
# instead, as long as they share findings:

# %%
def real_benchmarks():
    """Name -> benchmark, of those in MEDBRIDGE_DATA that share a finding with each other."""
    found = {}
    for name in (n for n in list_benchmarks() if not n.startswith("phantom")):
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


# %% tags=["nbval-ignore-output"]
if full_profile():
    benchmarks, entries = real_benchmarks(), {}
    experts, settings, sampler = ["clip-vitb16", "biomedclip"], {"epochs": 30}, {}
    fractions, seeds, adapter = [0.01, 0.1, 1.0], [0, 1, 2], {}
else:
    entries = {f"phantom-{h}": {"options": {"n_films": 75}} for h in hospitals}
    benchmarks = {name: BenchmarkRef.parse(name, entry["options"]).load() for name, entry in entries.items()}
    experts, settings, sampler = ["tiny-resnet"], {"epochs": 8, "batch_size": 4}, {"crop": 0.6, "overlap": 0.0, "extra": 0}
    fractions, seeds, adapter = [0.1, 1.0], [0], {"members": 2}  # two members instead of five, for time

# %% alt="bars: share of films with each shared label in every hospital, synthetic films" tags=["nbval-ignore-output"]
common = [label for label in next(iter(benchmarks.values())).labels if all(label in b.labels for b in benchmarks.values())]
mark = "synthetic films" if not full_profile() else None
plots.prevalence_bars({name: [b.table[label].mean() for label in common] for name, b in benchmarks.items()}, common, mark)

# %% [markdown]
# ## 2. Cross-domain: which labels can we compare?
#
# Two teams labelled NIH ChestX-ray14 and CheXpert from reports, with two lists. Names alone do not say which
# labels mean the same finding. "Effusion" and "Pleural Effusion" do; "Infiltration" has no partner; "Lung
# Opacity" *contains* pneumonia, so a pneumonia model must not be scored on it.

# %%
nih = ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax", "Consolidation",
       "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"]
chexpert = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
            "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"]
for pair in shared_labels(nih, chexpert):
    print(f"{pair.finding:<14} NIH: {pair.train:<14} CheXpert: {pair.test}")
print("NIH alone:", ", ".join(label for label in nih if canonical(label) not in map(canonical, chexpert)))

# %% [markdown]
# `canonical` maps a name to its finding. A model **learns all labels of its source** $\mathcal{C}_s$, and we
# **score it over the shared ones** **[ours]**: the other labels teach it something too. With
# $\mathrm{AUC}_\ell(s \to t)$ the AUC of finding $\ell$ on the test films of $t$, for a model of $s$:
#
# $$\overline{\mathrm{AUC}}(s \to t) = \frac{1}{|\mathcal{C}_s \cap \mathcal{C}_t|}
#   \sum_{\ell \in \mathcal{C}_s \cap \mathcal{C}_t} \mathrm{AUC}_\ell(s \to t)$$
#
# Where $t = s$ all labels are shared: that is the in-domain multi-label task. So $s \to t$ and $s \to s$ may
# be means over *different* labels. Compare them over the same ones.
#
# ### Exercise 9.1: pair the labels
# ★☆☆, 5 minutes. Write `shared_pairs(train, test, same)`: `same` maps unusual names to usual ones
# (`{"Pleural Effusion": "Effusion"}`); names that it lacks mean themselves. Return a list of pairs (training
# name, test name), one per shared finding, in the order of `train`.
#
# <details><summary>Hint</summary>
# Make a dictionary from the finding to the test benchmark's own name. <code>same.get(name, name)</code> is
# the finding of a name.
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
#
# A **target** is a test split over the shared labels, under the source's names:

# %%
source = next(iter(benchmarks.values()))
targets = make_targets(source, list(benchmarks.values()))
for target in targets:
    kind = "in-domain" if target.in_domain else "cross-domain"
    print(f"{source.name} -> {target.test.name}: {kind}, {len(target.shared)} shared labels, {len(target.test)} test films")

# %%
for target in targets:  # by hand: the columns of the scores that belong to the target's labels, in its order
    assert [source.labels[c] for c in target.columns] == [pair.train for pair in target.shared] == list(target.test.labels)
    assert set(target.test.table["split"]) == {"test"}

# %% [markdown]
# The package refuses a pair without a shared finding, and a test film that was trained on, **before** it
# trains anything:

# %%
try:
    shared_labels(["Pneumonia"], ["Fracture", "Support Devices"])
except BenchmarkError as error:
    print(str(error).split(";")[0])

# %% [markdown]
# One trap shows in no table: benchmarks are made from each other. RSNA's films come from NIH ChestX-ray14,
# and some of COVIDx from RSNA, under other names. `medbridge adapt` warns where this is known, and leaves out
# every test film that is a copy of a training film by its pixels.
#
# ## 3. Label budgets: one inside the next
#
# A budget draws *patients*: whoever labels a patient labels all the patient's films. All budgets of one seed
# are beginnings of **one** random order $\pi$ of the $J$ patients of a split, of training and of validation
# alike **[ours]**:
#
# $$\mathcal{B}_f = \{\pi_1, \dots, \pi_{\max(1, \mathrm{round}(f J))}\} \qquad\Rightarrow\qquad
#   \mathcal{B}_{0.01} \subseteq \mathcal{B}_{0.1} \subseteq \mathcal{B}_1$$
#
# So a larger budget only *adds* patients. With independent draws, 10 % might be worse than 1 % by bad luck.

# %%
def my_budget(table, split, fraction, seed):
    """The patients of a split whose labels a budget holds."""
    patients = sorted(set(table.loc[table["split"] == split, "patient_id"]))
    order = np.random.default_rng(seed).permutation(np.array(patients, dtype=object))
    return set(order[: max(1, round(fraction * len(order)))])


# %%
warnings.simplefilter("ignore", UserWarning)  # small budgets warn; we look at the warnings below
for fraction in (0.01, 0.1, 0.5, 1.0):
    thin = label_budget(source, fraction, 0)
    assert len(thin.split("test")) == len(source.split("test"))
    for split in ("train", "val"):
        mine = my_budget(source.table, split, fraction, 0)
        # real films may lack every label; the package does not draw such patients
        assert full_profile() or set(thin.split(split).table["patient_id"]) == mine
        assert mine >= my_budget(source.table, split, fraction / 2, 0)
print("by hand = package; nested, in train and in val; the test films are whole")

# %% [markdown]
# **Validation is thinned too.** Somebody had to read every film by which we choose an epoch or a setting.
# With all validation labels, "1 % of the labels" would be 1 % to *learn* from and many times as many to
# *choose* by.
#
# **Pixels are not held back.** A hospital has films without labels in plenty. They stay as `thin.unlabelled`,
# and the basis of the compact maps (notebook 04) is fitted to them.
#
# What does a small budget hold?

# %%
counted = {}
for fraction in (0.01, 0.1, 1.0):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train = label_budget(source, fraction, 0).split("train")
    counted[f"{100 * fraction:g} %"] = {"patients": train.table["patient_id"].nunique(), "films": len(train),
                                       **{label: int((train.table[label] == 1).sum()) for label in train.labels}}
    for w in caught:
        print("warning:", str(w.message).split(" cannot be learned")[0], "...")
print(pd.DataFrame(counted).to_string())

# %% [markdown]
# **What to see.** At 1 % of this small benchmark one patient is left. No label has both classes, so no method
# can learn, and every AUC is chance. The package warns, goes on, and writes the number of training positives
# beside every AUC.
#
# ### Exercise 9.2: how many patients does a rare finding ask for?
# ★★☆, 10 minutes. A share $p$ of the patients has a finding, and we draw patients independently (nearly true
# where few of many are drawn). Write `patients_needed(prevalence, sure)`: the smallest number $n$ of patients
# such that at least one of them has the finding with probability at least `sure`.
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
curves({"": {f"{100 * p:g} % of the patients have it": (n, 1 - (1 - p) ** n) for p in (0.1, 0.03, 0.01, 0.002)}}, size=(6, 3),
       level={"": 0.95}, xlabel="patients in the budget", ylabel="probability of at least one positive", ylim=(0, 1.02))

# %% [markdown]
# ## 4. The grid as a file
#
# Sources, targets, budgets, methods and seeds multiply. We write them down once, as YAML, and
# `medbridge experiment FILE.yaml` does the rest. In the notebook we make the same file in Python:

# %%
names = list(benchmarks)
with_pneumonia = [n for n, b in benchmarks.items() if "Pneumonia" in map(canonical, b.labels)]
given = {
    "name": "three tasks", "experts": experts, "benchmarks": entries, "methods": ["zero-shot", "linear probe", "MedBridge"],
    "label_fractions": fractions, "seeds": seeds, "adapter": adapter, "train": settings, "sampler": sampler,
    "tasks": [{"name": "cross-domain", "kind": "cross-domain", "train": names},
              {"name": "in-domain multi-label", "kind": "multi-label", "train": list(names)},
              {"name": "in-domain binary", "kind": "binary", "label": "Pneumonia", "train": with_pneumonia[:1]}],
}
print(yaml.safe_dump(given, sort_keys=False, default_flow_style=None, width=110))

# %% [markdown]
# A wrong file is refused before anything is loaded, with the key that is at fault:

# %%
from medbridge.studies.experiment import run_experiment, summary
from medbridge.studies.experiment_file import parse_experiment

for change in ({"label_fractions": [0.1, 10]}, {"methods": ["linear prob"]}, {"train": {"epoch": 8}}):
    try:
        parse_experiment(given | change)
    except ValueError as error:
        print(error)

# %% [markdown]
# **What do we train, and how often?** A model of source $s$ at budget $f$ is the same model, wherever we
# score it. So the runner names every run by *what it depends on*: method, settings, seed, the experts'
# weights, the training films and their labels. Tasks that need the same run share it. For MedBridge that is
# sources x budgets x seeds, and the binary models:

# %%
sources, budgets, repeats, binary = len(names), len(fractions), len(seeds), len(given["tasks"][2]["train"])
trainings = (sources + binary) * budgets * repeats
places = (sources * sources + sources + binary) * budgets * repeats * 3
print(f"{places} places of the grid in three tasks; MedBridge is trained {trainings} times")

# %% [markdown]
# ### Stop it, and go on
#
# A grid runs for hours; machines restart. The runner keeps every finished run, and goes on with a cut one
# from the checkpoint of its last epoch. We pull the plug after the first MedBridge run:

# %% tags=["nbval-ignore-output"]
from unittest.mock import patch

from medbridge.baselines.method import MedBridgeMethod

folder = Path(tempfile.mkdtemp()) if not full_profile() else Path("runs/three_tasks")
experiment, plain_fit, fitted = parse_experiment(given), MedBridgeMethod.fit, []


def unplugged(self, train, val):
    if fitted:
        raise KeyboardInterrupt
    fitted.append(train.benchmark.name)
    return plain_fit(self, train, val)


try:
    with patch.object(MedBridgeMethod, "fit", unplugged):
        run_experiment(experiment, folder, FeatureCache(progress=False))
except KeyboardInterrupt:
    print("interrupted after", len(fitted), "MedBridge run; finished so far:", len(list(folder.glob("cells/*/cell.json"))), "runs")

# %% tags=["nbval-ignore-output"]
found = run_experiment(experiment, folder, FeatureCache(progress=False))
print(f"the second call made {found.trained} of {found.cells} runs")

# %%
methods_of = [yaml.safe_load(path.read_text())["method"] for path in folder.glob("cells/*/cell.json")]
assert methods_of.count("MedBridge") == trainings
assert found.trained < found.cells == len(methods_of)  # what was there was not made again
assert run_experiment(experiment, folder, FeatureCache(progress=False)).trained == 0
print("a third call trains nothing")

# %% [markdown]
# ## 5. Reading the results
#
# The result is a **tidy table**: one row per task, source, target, label, budget, method and seed.

# %% tags=["nbval-ignore-output"]
columns = ["train", "test", "label", "label_fraction", "method", "auc", "lo", "hi", "n", "positives", "train_positives"]
found.results.query("task == 'cross-domain'")[columns].sample(6, random_state=1).round(2)

# %%
multi = found.results.query("kind == 'multi-label' and label != 'mean'")
assert (multi["positives"] <= multi["n"]).all()
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

# %%
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
from medbridge.viz import studies as figures

figures.budget_curves(found.averages, "in-domain multi-label")

# %% [markdown]
# **How to read it.** Zero-shot is flat: it uses no labels. With enough films the others rise. In the default
# profile, with 18 to 23 test films per panel, a line may as well fall: the intervals are as wide as
# everything that we would like to see.
#
# On real films ([docs/results.md](../docs/results.md)) we measured MedBridge minus the linear probe on the
# same views, paired by patient. On 812 NIH films: +0.028 [+0.011, +0.044] with all labels, +0.029 [+0.002,
# +0.056] with 10 %. On 480 paediatric films: +0.004 [-0.003, +0.011] with all labels, +0.018 [+0.001, +0.034]
# with 10 %.
#
# ### What does it cost to move?

# %% alt="tables of MedBridge's mean test AUC with intervals by training hospital (rows) and test hospital (columns), for 10 % and 100 % of the labels, synthetic films" tags=["nbval-ignore-output"]
figures.domain_matrix(found.averages, "cross-domain")

# %% [markdown]
# **How to read it.** A model comes from its row, and its films from its column. Go **down a column**: the
# films are the same. Along a row they differ, and a hospital may simply have easier films. A cell far below
# its column's diagonal is a price of moving.
#
# ### One finding against the rest

# %% tags=["nbval-ignore-output"]
home = given["tasks"][2]["train"][0]
both = found.results.query("train == @home and test == @home and label == 'Pneumonia' and kind != 'cross-domain'")
both.pivot_table(index=["method", "label_fraction"], columns="kind", values="auc").round(2)

# %% [markdown]
# The binary model spends all of its capacity on pneumonia. The multi-label model also learns what looks like
# pneumonia and is not. To decide, take a paired comparison and more films than these.
#
# ### Better or not?
#
# The command pairs every difference on the same resampled patients:

# %% tags=["nbval-ignore-output"]
print(summary(found.averages, found.differences))

# %% tags=["nbval-ignore-output"]
means = found.differences.query("label == 'mean' and baseline == 'linear probe'")
print(f"MedBridge minus linear probe: {len(means)} comparisons; the interval is above zero in {(means['lo'] > 0).sum()}, "
      f"below in {(means['hi'] < 0).sum()}, and holds zero in {means['holds_zero'].sum()}")

# %% [markdown]
# Two warnings. Of 20 comparisons without any true difference, one 95 % interval leaves zero out on average:
# **count the comparisons**. And these intervals cover the choice of *test patients*. How much the *training*
# varies shows over seeds only (`auc_min`, `auc_max`), and one seed shows nothing.
#
# ### Exercise 9.3: the price of moving, with an interval
# ★★★, 20 minutes. Two models score the same test films of one hospital: `home` learned there, `away`
# elsewhere. Write `paired_gap(y, home, away, patients, n_boot, rng)` for one label: return the AUC of home
# minus that of away, and both ends of its 95 % percentile interval over `n_boot` resamples of **patients**.
# The arrays hold the $n$ films. Leave out resamples with one class alone.
#
# <details><summary>Hint</summary>
# Draw patients with replacement, as many as there are; put the rows of their films together (twice, where a
# patient is drawn twice); compute <i>both</i> AUCs on these rows.
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
#
# ### From here to real benchmarks
#
# With a folder that holds `nih/` and `chexpert/` as their owners distribute them, only the names change:
#
# ```
# export MEDBRIDGE_DATA=/data
# medbridge adapt --train NIH --test CheXpert --label-fraction 0.01 --expert clip-vitb16 --expert biomedclip
# medbridge experiment my_tasks.yaml
# ```
#
# ## Summary
#
# - Three tasks: in-domain multi-label, in-domain binary, cross-domain. A model learns all labels of its
#   source; we score it over the shared ones, and pair only names of the very same finding.
# - A label budget draws patients of train and of val, each budget inside the next. A tiny one may hold one
#   class alone: count positives.
# - A grid is a file. Runs are named by what they depend on, so tasks share them, and none is made twice.
# - Read a cross-domain matrix down its columns, and count how often you looked.
#
# Next: {{NEXT}}
