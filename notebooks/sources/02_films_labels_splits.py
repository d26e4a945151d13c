# %% [markdown]
# # 02 Chest films, labels, patients and splits
#
# {{COLAB}}
#
# **What you will build:** a reader of chest films for three kinds of file, a split by patient, the AUC and
# its interval. You meet the eight findings of PhantomCXR, the synthetic benchmark of this course, learn what
# an unknown label is, and measure what goes wrong when you split films instead of patients.
#
# - **Prerequisites:** Python, NumPy, a little pandas. No medicine is assumed.
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores the
#   first time; a Colab T4 takes about as long (an estimate).
# - **Modules:** `medbridge/data/base.py`, `medbridge/data/uncertainty.py` · **tests:**
#   `tests/data/test_base.py`, `tests/data/test_uncertainty.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), the experiments' data sets, splits and
#   AUC.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import numpy as np
import pandas as pd
import seaborn as sns

from medbridge import load_benchmark, read_film
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.phantom.benchmark import LABELS, make_film
from medbridge.viz import plots
from medbridge.viz.drawing import COLOURS, chart, panels, show_film

rng = seed_everything(0)

# %% [markdown]
# ## 1. What a chest film shows
#
# A chest film is a shadow picture. X-rays cross the body and blacken the detector behind it. Dense tissue,
# such as bone, heart muscle or fluid, stops them and looks **white**. Air lets them through and looks
# **black**. Everything along one ray adds up in one pixel, so a rib lies over the lung.
#
# Two directions are usual for frontal films:
#
# - **PA** (posterior to anterior): the patient stands, and the rays enter from the back. The heart is near
#   the detector and has about its true size.
# - **AP** (anterior to posterior): the rays enter from the front, often in bed. The heart is further from the
#   detector, so its shadow is larger.
#
# You see the film as if the patient faced you: **the patient's right side is on the left of the picture**.

# %% alt="two synthetic films without a finding: hospital A, standing, with the names of eight parts; hospital C, in bed, with tubes and wires" tags=["nbval-ignore-output"]
standing = make_film(6, "A", findings=[])
in_bed = make_film(6, "C", findings=[])

PLACES = {  # name: (where it lies, where its name stands), in pixels
    "trachea": ((510, 130), (400, 40)),
    "clavicle": ((330, 170), (150, 60)),
    "right lung": ((300, 420), (60, 330)),
    "left lung": ((740, 420), (900, 330)),
    "heart": ((590, 620), (830, 560)),
    "diaphragm": ((300, 735), (120, 880)),
    "costophrenic angle": ((170, 780), (60, 980)),
    "spine": ((512, 860), (560, 980)),
}

fig, (left, right) = panels(2, 2, (4.75, 5), "Two synthetic films without a finding")
show_film(left, standing.image / 255, "hospital A: PA, standing", 10)
show_film(right, in_bed.image / 255, "hospital C: AP, in bed, with devices", 10)
for name, (place, text) in PLACES.items():
    left.annotate(name, place, text, color="gold", fontsize=8, ha="center",
                  arrowprops={"arrowstyle": "-", "color": "gold", "linewidth": 0.8})
fig

# %% [markdown]
# **What to see.** Find each name in the left film. The *costophrenic angle* is the sharp corner between ribs
# and diaphragm, the muscle under the lungs: fluid gathers there first. The film from the bed is flat and
# noisy, and tubes and wires lie over the chest. The organs are the same and the picture is not, which makes a
# model fail in another hospital.
#
# ### One film, three files
#
# A model wants a float array in [0, 1] where white means dense. Files disagree on nearly everything. We store
# the same synthetic film in three ways.
#
# | file | stored numbers | trap |
# |---|---|---|
# | 8-bit PNG | 0 to 255 | none |
# | 16-bit PNG | 12-bit numbers in 16-bit boxes | dividing by 65535 gives a black film |
# | DICOM, the hospital's format | 12-bit, `MONOCHROME1` | **high means black**, and a *window* says what to show |
#
# DICOM is the format that scanners write: pixels with a header of named fields (*tags*).

# %%
import tempfile
from pathlib import Path

from PIL import Image

film = standing.image
folder = Path(tempfile.mkdtemp())
Image.fromarray(film).save(folder / "film_8bit.png")
deep = np.rint(300 + 3000 * (film / 255)).astype(np.uint16)  # a detector that uses 12 of its 16 bits
Image.fromarray(deep).save(folder / "film_16bit.png")
exposure = np.rint(3000 - 2400 * (film / 255)).astype(np.uint16)  # MONOCHROME1: much radiation, high number, black

# %%
import pydicom

dicom = pydicom.Dataset()
dicom.file_meta = pydicom.dataset.FileMetaDataset()
dicom.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
dicom.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"  # digital X-ray image, for presentation
dicom.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["synthetic film"])
dicom.Rows, dicom.Columns = exposure.shape
dicom.SamplesPerPixel, dicom.BitsAllocated, dicom.BitsStored, dicom.HighBit, dicom.PixelRepresentation = 1, 16, 12, 11, 0
dicom.PhotometricInterpretation = "MONOCHROME1"
dicom.WindowCenter, dicom.WindowWidth = 1800, 2400
dicom.PixelData = exposure.tobytes()
dicom.save_as(folder / "film.dcm", enforce_file_format=True)

# %% tags=["nbval-ignore-output"]
for name, values in (("8-bit PNG", film), ("16-bit PNG", deep), ("DICOM", exposure)):
    print(f"{name:<10}  {values.dtype!s:<6}  stored from {values.min()} to {values.max()}")

# %% [markdown]
# **8 bits.** Divide by 255.

# %%
from_8bit = film.astype(np.float32) / 255

np.testing.assert_allclose(from_8bit, read_film(folder / "film_8bit.png"), atol=1e-6)

# %% [markdown]
# **More than 8 bits.** The file says how many bits it *has*, not how many it *uses*. So we look at the film
# itself. Its 0.5th percentile (low) becomes 0, its 99.5th (high) becomes 1, and the few pixels outside are
# clipped:
#
# $$x' = \operatorname{clip}\left(\frac{x - \text{low}}{\text{high} - \text{low}},\ 0,\ 1\right)$$

# %%
low, high = np.percentile(deep.astype(np.float32), (0.5, 99.5))
from_16bit = np.clip((deep.astype(np.float32) - low) / (high - low), 0, 1)

np.testing.assert_allclose(from_16bit, read_film(folder / "film_16bit.png"), atol=1e-5)
assert deep.max() / 65535 < 0.06  # divided by 65535, the whitest pixel is nearly black

# %% [markdown]
# **DICOM** takes two steps. First the *window*: of all stored values, show a band around its centre (the 0.5
# and 1 are the standard's: DICOM PS3.3, C.11.2.1.2):
#
# $$y = \operatorname{clip}\left(\frac{x - (\text{centre} - 0.5)}{\text{width} - 1} + 0.5,\ 0,\ 1\right)$$
#
# Then the *polarity*: in `MONOCHROME1` the highest value is black, so white-means-dense needs $1 - y$.

# %%
header = pydicom.dcmread(folder / "film.dcm")
stored = header.pixel_array.astype(np.float64)
center, width = float(header.WindowCenter), float(header.WindowWidth)

windowed = np.clip((stored - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
from_dicom = 1 - windowed if header.PhotometricInterpretation == "MONOCHROME1" else windowed

np.testing.assert_allclose(from_dicom, read_film(folder / "film.dcm"), atol=1e-5)
np.testing.assert_allclose(from_dicom, from_8bit, atol=0.01)  # the same film, but for rounding

# %% tags=["nbval-ignore-output"]
steps = {"16-bit PNG / 65535 (wrong)": deep / 65535, "16-bit PNG, percentiles": from_16bit, "DICOM / 4095 (wrong)": stored / 4095,
         "DICOM, windowed only (wrong)": windowed, "DICOM, windowed and inverted": from_dicom, "8-bit PNG / 255": from_8bit}
plots.film_grid(list(steps.values()), list(steps), columns=3, title="One synthetic film, read rightly and wrongly")

# %% [markdown]
# **What to see.** The wrong readings raise no error. A model trained on right films and tested on wrong ones
# gets worse in silence. That is why reading is one tested function, `medbridge.read_film`.
#
# ## 2. Labels, and what is not known
#
# PhantomCXR draws eight of the fourteen findings of NIH ChestX-ray14, a public data set of real films.
#
# | label | in a clause | on the film |
# |---|---|---|
# | Atelectasis | a part of the lung without air, shrunk | a band or wedge, diaphragm drawn up |
# | Cardiomegaly | an enlarged heart | heart wider than half the chest |
# | Effusion | fluid between lung and chest wall | the costophrenic angle is filled, with a curved upper edge |
# | Infiltration | something denser than air within the lung | a fine patchy pattern |
# | Mass | a round shadow over 3 cm | a large round shadow |
# | Nodule | a round shadow up to 3 cm | a spot |
# | Pneumonia | an infection of the lung | a large soft shadow with dark branching airways in it |
# | Pneumothorax | air between lung and chest wall | a fine line, and no vessels outside it |

# %% tags=["nbval-ignore-output"]
examples = {label: make_film(20 + i, "A", findings=[label], subtlety=0.15) for i, label in enumerate(LABELS)}
plots.film_grid(
    [f.image / 255 for f in examples.values()], list(examples), columns=4,
    boxes=[np.array([box[1:] for box in f.boxes]) for f in examples.values()],
    title="One plain finding each (synthetic); the box is exact, because the program knows where it drew",
)

# %% [markdown]
# **What to see.** The heart fills a third of the film's width, the nodule one fiftieth. Notebook 03 is about
# the nodule.
#
# ### A benchmark is a table
#
# Every data set becomes one `Benchmark`: a folder of films and a table with one row per film. A label is 1
# (present), 0 (absent) or NaN (unknown).

# %% tags=["nbval-ignore-output"]
n_films = 900 if full_profile() else 240
films = load_benchmark("phantom", n_films=n_films)
print(f"{films.name}: {len(films)} films of {films.table['patient_id'].nunique()} patients")
films.table.drop(columns="image").head(6)

# %% [markdown]
# Real benchmarks are such tables. Where `MEDBRIDGE_DATA` names a folder with one
# ([data/README.md](../data/README.md)), this cell shows its films beside ours:

# %% alt="two synthetic films and two real ones, each under its findings" tags=["nbval-ignore-output"]
from medbridge.course import real_films

real = real_films()
shown = [(name, b, i) for name, b in (("synthetic", films), ("real", real)) if b is not None for i in (0, 1)]
findings_of = {(name, i): ", ".join(c for c in b.labels if b.table.iloc[i][c] == 1) or "no finding" for name, b, i in shown}
print("MEDBRIDGE_DATA holds no real films" if real is None else f"{real.name}: {len(real)} films, labels {', '.join(real.labels)}")
plots.film_grid([b.read(i) for _, b, i in shown], [f"{name}: {text}" for (name, _), text in findings_of.items()]) if real else None

# %% [markdown]
# A film often has more than one finding, or none: the task is *multi-label*. So a model answers eight
# yes-or-no questions. Which findings come together? Row $a$, column $b$ of the picture is $\Pr(b \mid a)$,
# the share of films with $a$ that also have $b$.

# %% alt="table of eight findings by eight: the share of the synthetic films with the finding of the row that also have that of the column" tags=["nbval-ignore-output"]
y, mask = films.targets()
together = y.T @ y
given = together / together.diagonal()[:, None]

fig, ax = chart(7, 5.2, "PhantomCXR (synthetic): films with the row's finding (count) that also have the column's")
sns.heatmap(given, annot=True, fmt=".2f", cmap="rocket_r", vmin=0, vmax=1, ax=ax, annot_kws={"fontsize": 8}, xticklabels=LABELS,
            yticklabels=[f"{label} ({int(k)})" for label, k in zip(LABELS, y.sum(0), strict=True)],
            cbar_kws={"label": "share of the row's films"})
ax.tick_params(axis="x", rotation=35)
fig

# %% alt="bars: share of the films with each finding in the synthetic hospitals A, B and C" tags=["nbval-ignore-output"]
by_hospital = films.table.groupby("hospital")[list(LABELS)].mean()
plots.prevalence_bars(by_hospital.T.add_prefix("hospital "), LABELS, "PhantomCXR (synthetic)")

# %% [markdown]
# **What to see.** A failing heart is large and leaks fluid, so Cardiomegaly and Effusion meet more often than
# chance. *Prevalence*, the share of films with a finding, depends on who comes: intensive care (C) sees more
# fluid than an outpatient clinic (B). A model can use "this film looks like hospital C" as a hint for
# Effusion. The hint is true here and false elsewhere.
#
# ### Unknown labels and the mask
#
# A report that does not mention the heart does not say that it is normal. Writing 0 there would invent a
# negative. `Benchmark.targets()` returns two arrays instead: `y`, with 0 where unknown, and `mask`, which is
# True where the label is known. Every loss and every metric in MedBridge uses both:
#
# $$\text{prevalence}_c = \frac{\sum_i \mathrm{known}_{ic}\, y_{ic}}{\sum_i \mathrm{known}_{ic}}$$
#
# Suppose a hospital reports what it sees, and often skips what it does not see.

# %%
table = films.table.copy()
skipped = (table["Effusion"] == 0) & (rng.random(len(table)) < 0.6)
table.loc[skipped, "Effusion"] = np.nan
with_holes = type(films)(films.name, films.root, films.labels, table, synthetic=True)

# %%
values = table[list(LABELS)].to_numpy(dtype=np.float32)
by_hand_mask = ~np.isnan(values)
by_hand_y = np.where(by_hand_mask, values, 0)
y_holes, mask_holes = with_holes.targets()
np.testing.assert_array_equal(by_hand_mask, mask_holes)
np.testing.assert_array_equal(by_hand_y, y_holes)

# %%
effusion = LABELS.index("Effusion")
true = y[:, effusion].mean()
unknown_as_negative = y_holes[:, effusion].mean()
known_only = y_holes[mask_holes[:, effusion], effusion].mean()
assert np.isclose(unknown_as_negative, true) and known_only > true
print(f"Effusion unknown in {np.sum(~mask_holes[:, effusion])} of {len(films)} films")

# %% [markdown]
# The assertion holds a warning. This hospital skips only negatives, so the masked prevalence is **too high**.
# A mask keeps unknowns out of the sum. It does not repair *why* they are unknown; only the makers of a data
# set can tell you that.
#
# ### Exercise 2.1: masked prevalence
# ★☆☆, 5 minutes. Write `masked_prevalence(values)`: `values` is `(n, C)` with 1, 0 and NaN. Return `(C,)`:
# the share of positives among the known films of each label, and NaN for a label of which nothing is known.
#
# <details><summary>Hint</summary>
# Count the known films per column first. <code>np.divide(..., out=..., where=...)</code> divides only where
# it is allowed.
# </details>

# %%
def masked_prevalence(values):
    raise NotImplementedError


check("2.1", masked_prevalence)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/02_films_labels_splits.ipynb](solutions/02_films_labels_splits.ipynb).
#
# ```python
# def masked_prevalence(values):
#     known = ~np.isnan(values)
#     positive = np.where(known, values, 0).sum(axis=0)
#     count = known.sum(axis=0)
#     return np.divide(positive, count, out=np.full(values.shape[1], np.nan), where=count > 0)
# ```
# </details>
#
# ## 3. Patients and splits
#
# Films are split three ways: **train** (the model learns), **val** (we choose settings), **test** (we look
# once). We draw **patients**, never films, because two films of one person are alike in bones, posture and
# disease. A draw from scratch:
#
# 1. list the patients in a fixed order, so that the order of rows does not matter;
# 2. shuffle them with a seed;
# 3. deal them out by the shares; what rounding leaves over goes to the largest share;
# 4. give every film its patient's split.

# %%
from medbridge.data import assign_splits, validate

small = pd.DataFrame({"patient_id": ["Ann", "Ann", "Bo", "Cem", "Cem", "Cem", "Di", "Eve", "Eve", "Fay", "Gil", "Hu"]})
small["image"] = [f"film{i:02d}.png" for i in range(len(small))]


def draw_splits(table, fractions=(0.7, 0.1, 0.2), seed=0):
    patients = np.random.default_rng(seed).permutation(np.array(sorted(set(table["patient_id"])), dtype=object))
    shares = np.array(fractions)
    counts = np.maximum(1, np.floor(shares * len(patients))).astype(int)
    counts[shares.argmax()] += len(patients) - counts.sum()
    split_of = dict(zip(patients, np.repeat(["train", "val", "test"], counts), strict=True))
    return table.assign(split=[str(split_of[p]) for p in table["patient_id"]])


# %%
for seed in range(20):
    mine = draw_splits(small, seed=seed)
    assert (mine.groupby("patient_id")["split"].nunique() == 1).all()  # no patient in two splits
    pd.testing.assert_frame_equal(mine, assign_splits(small, seed=seed))  # the package's own
    shuffled = small.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(draw_splits(shuffled, seed=seed).sort_index(), mine)  # rows in any order
print(mine.groupby("split")["patient_id"].unique().map(list).to_string())

# %% [markdown]
# What if a table comes with a wrong split? `validate` reads every table before use. We put one film of one
# patient into the wrong split.

# %%
from medbridge.errors import BenchmarkError

wrong = draw_splits(small).assign(Nodule=[0.0, 1.0] * 6)
validate(wrong, ["Nodule"], where="labels.csv")  # still right: says nothing
row = wrong.index[wrong["patient_id"] == "Cem"][0]
wrong.loc[row, "split"] = "test" if wrong.loc[row, "split"] != "test" else "train"
try:
    validate(wrong, ["Nodule"], where="labels.csv")
except BenchmarkError as error:
    print(error)
else:
    raise AssertionError("the patient in two splits went unseen")

# %% [markdown]
# ### Exercise 2.2: patients in two splits
# ★☆☆, 5 minutes. Write `patients_in_two_splits(table)`: `table` has the columns `patient_id` and `split`.
# Return the sorted list of the patients whose films lie in more than one split. A patient with two films in
# the *same* split is fine.
#
# <details><summary>Hint</summary>
# <code>groupby("patient_id")["split"]</code>, then count the <em>different</em> values.
# </details>

# %%
def patients_in_two_splits(table):
    raise NotImplementedError


check("2.2", patients_in_two_splits)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/02_films_labels_splits.ipynb](solutions/02_films_labels_splits.ipynb).
#
# ```python
# def patients_in_two_splits(table):
#     splits = table.groupby("patient_id")["split"].nunique()
#     return sorted(splits.index[splits > 1])
# ```
# </details>
#
# ### Leakage, measured
#
# Is the error message too strict? We take the patients with two or three films, describe each film by a few
# hundred numbers, and fit a linear classifier on 70 % of the films. Only one thing changes: we draw the 30 %
# for testing **film by film** or **patient by patient**. There are two descriptions of a film:
#
# - a **thumbnail**: the film shrunk to 16 x 16 pixels, no network at all;
# - the **tiny experts**: the summaries of the whole film by two small frozen networks of this course.
#
# And there are two kinds of labels:
#
# - the eight **findings**;
# - eight **coins**: each patient tosses a coin, and all films of the patient get the result. No chest shows a
#   coin, so an AUC above 0.5 comes from recognising the patient.

# %% tags=["nbval-ignore-output"]
films_of_patient = films.table.groupby("patient_id")["image"].transform("size").to_numpy()
repeated = films.take(films_of_patient >= 2)
patient = pd.factorize(repeated.table["patient_id"])[0]
findings, _ = repeated.targets()
print(f"{len(repeated)} films of {patient.max() + 1} patients")

# %% tags=["nbval-ignore-output"]
from medbridge import FeatureCache, FocalSampler, create_expert

experts = [create_expert("tiny-vit"), create_expert("tiny-resnet")]
cached = FeatureCache(progress=False).films(repeated, experts, [[], []], FocalSampler(local=False))
features = {
    "thumbnail 16 x 16": np.stack([read_film(path, max_side=16).ravel() for path in repeated.paths()]),
    "tiny experts": np.concatenate([cached.pooled("summary", k) for k in range(len(experts))], axis=1),
}

# %%
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medbridge.metrics.evaluate import auc


def test_films(how, rng, share=0.3):
    """True for the films that are held out, drawn by 'film' or by 'patient'."""
    unit = np.arange(len(patient)) if how == "film" else patient
    units = rng.permutation(unit.max() + 1)
    return np.isin(unit, units[: round(share * len(units))])


def score(x, y, test):
    """Mean AUC over the labels of a linear classifier that was fitted to the films outside `test`."""
    model = make_pipeline(StandardScaler(), Ridge(alpha=10.0)).fit(x[~test], y[~test])
    return np.nanmean(auc(y[test], model.predict(x[test])))


# %%
repeats = 40
rows = []
for seed in range(repeats):
    draw = np.random.default_rng(seed)
    coins = draw.integers(2, size=(patient.max() + 1, 8))[patient].astype(np.float32)
    for how in ("film", "patient"):
        test = test_films(how, draw)
        for name, x in features.items():
            rows.append((name, "findings", how, score(x, findings, test)))
            rows.append((name, "coins", how, score(x, coins, test)))
leak = pd.DataFrame(rows, columns=["features", "labels", "test drawn by", "mean AUC"])

# %%
mean = leak.groupby(["features", "labels", "test drawn by"])["mean AUC"].mean().unstack()
assert (mean["film"] > mean["patient"]).all()
print("film by film looks better than patient by patient, on average, in all four cases")

# %% tags=["nbval-ignore-output"]
print(f"mean AUC over {repeats} repeats (synthetic films)")
mean.assign(inflation=mean["film"] - mean["patient"]).round(2)

# %% alt="dots: mean AUC over repeated draws of the test films of the same classifier, synthetic films; draws by film beside draws by patient, for findings and for coins as labels; left: thumbnails, right: tiny experts" tags=["nbval-ignore-output"]
fig, axes = panels(2, 2, (4, 3.4), f"The same classifier, films and labels (synthetic), {repeats} draws of the test films", sharey=True)
for ax, (name, part) in zip(axes, leak.groupby("features"), strict=True):
    sns.stripplot(part, x="labels", y="mean AUC", hue="test drawn by", dodge=True, size=3, alpha=0.6, ax=ax,
                  palette="colorblind", order=["findings", "coins"], legend=ax is axes[0])
    sns.pointplot(part, x="labels", y="mean AUC", hue="test drawn by", dodge=0.4, linestyle="none", errorbar=None, ax=ax,
                  marker="_", markersize=24, palette="dark:black", order=["findings", "coins"], legend=False)
    ax.axhline(0.5, color="0.4", linestyle="--", linewidth=0.8)
    ax.set(title=name, xlabel="")
fig

# %% [markdown]
# **What to see.** One dot is one draw, and the black bar is their mean. There is nothing to learn about
# coins; drawn film by film, the AUC is above 0.5 all the same, because the classifier has seen the same
# chest. The findings gain in the same way, and there the inflation looks like success. Leakage needs no
# neural network: the thumbnail does it too. We measured it on synthetic films with two or three per patient,
# and not where patients have dozens.
#
# ## 4. What an AUC is
#
# A classifier gives each film a score. The **area under the ROC curve** has a plain meaning: take one
# positive and one negative film at random; AUC is the chance that the positive one has the higher score.
#
# $$\mathrm{AUC} = \frac{1}{n_+ n_-} \sum_{i:\,y_i=1}\ \sum_{j:\,y_j=0} \mathbb{1}[s_i > s_j]$$
#
# 0.5 is a coin, 1 is perfect, and no threshold is needed.

# %%
def auc_by_loops(y, scores):
    won = pairs = 0
    for s_i in scores[y == 1]:
        for s_j in scores[y == 0]:
            won += s_i > s_j
            pairs += 1
    return won / pairs


# %%
y_toy = np.array([1, 0, 1, 0, 0, 1, 0, 0])
s_toy = np.array([0.9, 0.2, 0.4, 0.6, 0.1, 0.8, 0.3, 0.5])
print(f"{np.sum(y_toy == 1)} positives x {np.sum(y_toy == 0)} negatives, AUC {auc_by_loops(y_toy, s_toy):.3f}")

# %%
for seed in range(10):
    draw = np.random.default_rng(seed)
    y_random = (np.arange(60) < 20).astype(int)
    s_random = draw.normal(y_random, 1)
    np.testing.assert_allclose(auc_by_loops(y_random, s_random), auc(y_random, s_random)[0])

# %% [markdown]
# ### Exercise 2.3: AUC by pairs, with ties
# ★★☆, 10 minutes. Scores can tie. A tied pair counts one half. Write `auc_by_pairs(y, scores)` without a
# loop, for one label: `y` holds 0 and 1, `scores` floats. Where one class is missing there are no pairs:
# return NaN.
#
# <details><summary>Hint</summary>
# <code>scores[y == 1][:, None] - scores[y == 0][None, :]</code> holds every pair.
# </details>

# %%
def auc_by_pairs(y, scores):
    raise NotImplementedError


check("2.3", auc_by_pairs)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/02_films_labels_splits.ipynb](solutions/02_films_labels_splits.ipynb).
#
# ```python
# def auc_by_pairs(y, scores):
#     difference = scores[y == 1][:, None] - scores[y == 0][None, :]
#     return np.mean((difference > 0) + 0.5 * (difference == 0)) if difference.size else np.nan
# ```
# </details>
#
# ## 5. How sure is an AUC?
#
# Another hundred patients would give another AUC. The **bootstrap** imitates that: draw *with replacement*
# from the test set, compute the AUC, repeat a thousand times, and report the middle 95 %. But draw what? Ten
# films of one patient are worth less than one film each of ten patients. Drawing films pretends otherwise.
#
# We test this where we know the truth: 200 pretended studies of 30 patients with 1 to 12 films each. The
# score of a film is the truth, plus something of the patient's own, plus noise:
# $s = \delta y + u_{\text{patient}} + e_{\text{film}}$ with standard deviations $\sigma_u$ and $\sigma_e$.
# Two films of different patients differ by a normal variable, so the true AUC is
# $\Phi\!\left(\delta / \sqrt{2(\sigma_u^2 + \sigma_e^2)}\right)$. A 95 % interval is honest if it covers this
# truth in about 95 % of the studies.

# %%
from scipy.stats import norm

from medbridge.metrics.evaluate import bootstrap_auc

DELTA, SIGMA_U, SIGMA_E = 1.2, 0.9, 0.5
truth = norm.cdf(DELTA / np.sqrt(2 * (SIGMA_U**2 + SIGMA_E**2)))


def study(seed):
    """Labels, scores and patients of one pretended study."""
    draw = np.random.default_rng(seed)
    group = np.repeat(np.arange(30), draw.integers(1, 13, 30))
    y_study = (np.arange(30) % 2)[group]
    return y_study, DELTA * y_study + draw.normal(0, SIGMA_U, 30)[group] + draw.normal(0, SIGMA_E, len(group)), group


# %%
studies, example = 200, {}
covered = {"film": 0, "patient": 0}
for seed in range(studies):
    y_study, s_study, group = study(seed)
    for how, groups in (("film", None), ("patient", group)):
        draws = bootstrap_auc(y_study, s_study, groups=groups, n_boot=200, seed=seed)[:, 0]
        low, high = np.nanpercentile(draws, (2.5, 97.5))
        covered[how] += low <= truth <= high
        example.setdefault(how, draws)
assert covered["patient"] > 1.2 * covered["film"]
for how, count in covered.items():
    print(f"bootstrap by {how:<7}: the 95 % interval covers the true AUC in {count / studies:.0%} of the studies")

# %% alt="two histograms of the AUC of 200 bootstrap draws with the true AUC as a line: drawn by patient they spread wider than drawn by film" tags=["nbval-ignore-output"]
fig, ax = chart(7, 2.8, "First of the simulated studies: AUC of 200 bootstrap draws")
for colour, hatch, (how, draws) in zip(COLOURS, ("", "//"), example.items(), strict=False):
    ax.hist(draws, bins=30, range=(0.4, 1.0), alpha=0.55, color=colour, hatch=hatch, edgecolor="white", label=f"drawn by {how}")
ax.axvline(truth, color="black", linestyle="--", label="true AUC")
ax.set(xlabel="AUC", ylabel="draws")
ax.legend(frameon=False, fontsize=9)
fig

# %% [markdown]
# **What to see.** Both have the same centre. Drawn by film the spread is too small, and the interval misses
# the truth far more often than one time in twenty. Drawn by patient it comes much nearer to its promise.
# `medbridge.metrics.evaluate` draws patients when you pass `groups=`, as every interval in this course does.
#
# ## Summary
#
# - A film is a shadow picture; white is dense. Bits, windows and `MONOCHROME1` change the stored numbers, and
#   wrong readings raise no error. `read_film` returns one convention.
# - Labels are eight yes-or-no questions. Unknown is not absent: `y` always travels with `mask`.
# - Split and draw **patients**. Splitting films inflated the AUC even for coins.
# - AUC is the share of ordered pairs, ties counting half; its interval must draw patients as well.
#
# Next: [03 Focal Sampling](03_focal_sampling.ipynb)
