# %% [markdown]
# # 03 Focal Sampling
#
# {{COLAB}}
#
# **What you will build:** the first part of MedBridge: one large film becomes several small views, each sharp
# enough for small findings. You measure what resizing does to a nodule, write the windows and the cutting
# from scratch, and compare a classifier of the whole film with one of all views.
#
# - **Prerequisites:** notebook [02](02_films_labels_splits.ipynb); Python, NumPy, a first course in deep
#   learning.
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores the
#   first time, and about the same on a Colab T4 (an estimate).
# - **Module:** `medbridge/focal.py` · **test:** `tests/test_focal.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), "Focal Sampling".
#   [Notebook 00](00_start_here.ipynb) explains the marks **[abstract]**, **[summary]** and **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from medbridge import FocalSampler, create_expert, focal, load_benchmark
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.phantom.benchmark import make_film
from medbridge.viz import charts, plots, widgets
from medbridge.viz.drawing import chart, draw_boxes, panels, show_film

rng = seed_everything(0)
expert = create_expert("tiny-vit")
R = expert.size  # side of the square picture that the network takes, in pixels
PATCH = R // expert.grids[0][0]  # a vision transformer cuts it into patches; each becomes one token
print(f"{expert.name} takes {R} x {R} pixels: {expert.grids[0][0]} x {expert.grids[0][1]} patches of {PATCH} x {PATCH} pixels")

# %% [markdown]
# ## 1. Why: a nodule of 20 pixels
#
# A *nodule* is a small round shadow in the lung; it can be an early cancer. In a film of 1024 x 1024 pixels
# it is some 20 pixels wide. But networks take small squares, here of side $R$. A window whose side is a share
# of the film's short side $S$, the **crop**, is resized to $R$. A nodule of $d$ pixels then is
#
# $$d' = d\,\frac{R}{\text{crop} \cdot S} \qquad\text{pixels wide.}$$
#
# A crop of 1 is the whole of a square film.

# %%
S, d = 1024, 20
widths = pd.DataFrame({
    f"R = {r}": {f"c = {c:.2f}": d * r / (c * S) for c in (1.0, 0.5, 0.25)} for r in (128, 224)
})
print(f"width in pixels of a nodule of {d} pixels")
print(widths.round(1).to_string())

# %%
example = make_film(11, "A", findings=["Nodule"], subtlety=0)
film = example.image.astype(np.float32) / 255
_, *nodule = example.boxes[0]
center = np.array([nodule[0] + nodule[2], nodule[1] + nodule[3]]) / 2


def window_around(point, side):
    """The square of this side in the film that has the point nearest to its middle."""
    x0, y0 = np.clip(point - side / 2, 0, S - side)
    return np.array([x0, y0, x0 + side, y0 + side], dtype=np.float32)


# %% alt="a synthetic film with a nodule, and three close-ups of it in views of crop 1, 0.5 and 0.25, under the grid of the patches: a few grey squares, then an edge and a shape" tags=["nbval-ignore-output"]
fig, axes = panels(4, 4, (2.5, 2.8), "The same nodule (synthetic film) in views of one size; blue lines: one patch, one token")
show_film(axes[0], film, "the film", 9)
draw_boxes(axes[0], np.array([nodule]), ["nodule"])
for ax, crop in zip(axes[1:], (1.0, 0.5, 0.25), strict=True):
    x0, y0, x1, y1 = box = window_around(center, crop * S)
    view = focal.extract_views(film, box[None], R)[0].numpy()
    show_film(ax, view, f"crop {crop:g}, resized to {R}", 9, interpolation="nearest", extent=(x0, x1, y1, y0))
    for at in PATCH * crop * S / R * np.arange(R // PATCH + 1):
        ax.axvline(x0 + at, color="tab:cyan", linewidth=0.7)
        ax.axhline(y0 + at, color="tab:cyan", linewidth=0.7)
    ax.set(xlim=(center[0] - 75, center[0] + 75), ylim=(center[1] + 75, center[1] - 75))
fig

# %% [markdown]
# **What to see.** All three close-ups show the same 150 x 150 pixels. In the whole film (crop 1) the nodule
# is a few grey squares, and it shares its patch with ribs and vessels. In smaller windows it has an edge and
# a shape.
#
# ### How much is lost? A measurement
#
# We can draw each synthetic film twice, with a nodule and without. The **contrast** at a place is the mean
# grey value in a disc minus that in a ring around it. Let $\delta_1$ be the contrast at the nodule and
# $\delta_0$ that at the same place of the film without it. Then
#
# $$\mathrm{CNR} = \frac{\operatorname{mean}(\delta_1 - \delta_0)}{\operatorname{std}(\delta_0)}$$
#
# is the **contrast-to-noise ratio**. The "noise" below the line is all that changes contrast without a
# nodule: grain, but also ribs and vessels. We resize each film to a view of side $R$ and back, so that disc
# and ring are the same for all $R$.

# %%
def contrast(image, x, y, radius):
    """Mean in a disc minus mean in a ring around it, in grey values (0 to 1)."""
    half = int(np.ceil(2.5 * radius))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(dx, dy)
    part = image[y - half : y + half + 1, x - half : x + half + 1]
    return part[distance <= 0.7 * radius].mean() - part[(distance > 1.5 * radius) & (distance <= 2.5 * radius)].mean()


def through_view(image, size):
    """The film as a view of this size holds it, enlarged again to the film's own size."""
    view = focal.extract_views(image, focal.whole_box(*image.shape)[None], size)
    return F.interpolate(view[None], image.shape, mode="bilinear")[0, 0].numpy()


# %%
sizes = [32, 64, 128, 256, 512, 1024]
rows = []
for seed in range(60 if full_profile() else 16):
    with_nodule = make_film(seed, "A", findings=["Nodule"], subtlety=0)
    without = make_film(seed, "A", findings=[])
    a, b = with_nodule.image.astype(np.float32) / 255, without.image.astype(np.float32) / 255
    for size in sizes:
        a_size, b_size = through_view(a, size), through_view(b, size)
        for _, x0, y0, x1, y1 in with_nodule.boxes:
            spot = int((x0 + x1) / 2), int((y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
            rows.append((size, x1 - x0, contrast(a_size, *spot), contrast(b_size, *spot)))
measured = pd.DataFrame(rows, columns=["R", "width", "with", "without"])

# %%
by_size = measured.assign(step=measured["with"] - measured["without"]).groupby("R").agg(contrast=("step", "mean"), noise=("without", "std"))
by_size["CNR"] = by_size["contrast"] / by_size["noise"]
assert by_size["contrast"].is_monotonic_increasing  # every loss of size costs contrast
assert by_size.loc[32, "CNR"] < 0.5 * by_size.loc[256, "CNR"]  # at 32 pixels the nodule drowns

# %% alt="contrast and contrast-to-noise ratio of nodules on synthetic films against the side of the view: both fall to the left, the ratio later and then steeply" tags=["nbval-ignore-output"]
mean_width = measured["width"].mean()
print(f"{len(measured) // len(sizes)} synthetic nodules, mean width {mean_width:.0f} pixels of {S}")
fig = charts.curves({"contrast (grey values)": {"": by_size["contrast"]}, "contrast-to-noise ratio": {"": by_size["CNR"]}},
                    "Plain nodules on synthetic films, seen through views of different size", marker="o",
                    xlabel="side R of the whole film's view (nodule's width in it)")
for ax in fig.axes:
    ax.axvline(R, color="tab:orange", linestyle="--", label=f"whole film at {R}")
    ax.axvline(2 * R, color="tab:green", linestyle=":", label=f"as fine as a window of crop 0.5 at {R}")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size}\n({mean_width * size / S:.1f})" for size in sizes], fontsize=8)
    ax.set_ylim(0, None)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
fig

# %% [markdown]
# **What to see.** Contrast falls with every step to the left. The ratio falls later and then steeply, because
# resizing also averages grain away. As long as the nodule is a few pixels wide, it differs from its
# background *for someone who knows where to look*. So at the size of our expert contrast is not all gone. The
# shape is gone, and with it much of the difference between a nodule and a vessel seen end on. And the nodule
# is a small part of its patch:

# %%
for crop in (1.0, 0.5, 0.25):
    width = d * R / (crop * S)
    print(f"crop {crop:4.2f}: a nodule of {d} pixels covers {100 * np.pi / 4 * width**2 / PATCH**2:4.1f} % of one patch")

# %% [markdown]
# ## 2. Boxes: the whole film and a sliding window
#
# **[abstract]** High-resolution local regions make up for the limited input size of VLMs. **[summary]** They
# are $N - 1$ regions beside the resized whole film, taken at random or by a sliding window with overlap.
# **[ours]** We draw them at random in training and slide at inference. All boxes are squares `x0, y0, x1, y1`
# in pixels of the film, so nothing is stretched. The whole view is the smallest centred square that holds the
# film, with zeros outside.

# %%
def my_whole_box(height, width):
    side = max(height, width)
    x0, y0 = (width - side) / 2, (height - side) / 2
    return np.array([x0, y0, x0 + side, y0 + side], dtype=np.float32)


for shape in ((1024, 1024), (2500, 2048), (600, 1000)):
    np.testing.assert_array_equal(my_whole_box(*shape), focal.whole_box(*shape))
print("whole box of a film 600 high and 1000 wide:", my_whole_box(600, 1000).astype(int).tolist())

# %% [markdown]
# **Where do the windows start?** Along one axis the windows must cover everything, and neighbours must share
# at least the fraction **overlap** of their side. So the step between starts is at most
# $\text{side} \cdot (1 - \text{overlap})$. We take the smallest number of windows that manages this, and
# space them evenly.

# %%
def my_starts(length, side, overlap):
    if length <= side:
        return np.array([(length - side) / 2])
    steps = 1
    while (length - side) / steps > side * (1 - overlap) + 1e-6:
        steps += 1
    return np.linspace(0, length - side, steps + 1)


def my_grid_boxes(height, width, crop=0.5, overlap=0.25):
    side = crop * min(height, width)
    return np.array(
        [[x, y, x + side, y + side] for y in my_starts(height, side, overlap) for x in my_starts(width, side, overlap)],
        dtype=np.float32,
    )


# %%
for shape in ((1024, 1024), (2500, 2048), (600, 1000)):
    for crop in (1.0, 0.7, 0.5, 0.3):
        for overlap in (0.0, 0.25, 0.5):
            np.testing.assert_allclose(
                my_grid_boxes(*shape, crop, overlap), focal.grid_boxes(*shape, crop, overlap), atol=1e-3
            )
print("starts along 1024 pixels, crop 0.5, overlap 0.25:", my_starts(1024, 512, 0.25).tolist())

# %% [markdown]
# **Random windows** have the same side, at uniformly random places inside the film. The caller passes the
# generator, and so decides the seed.

# %%
def my_random_boxes(height, width, n, crop, generator):
    side = crop * min(height, width)
    x0 = generator.uniform(0, width - side, n)
    y0 = generator.uniform(0, height - side, n)
    return np.stack([x0, y0, x0 + side, y0 + side], axis=1).astype(np.float32)


# %%
for seed in range(5):
    np.testing.assert_array_equal(
        my_random_boxes(600, 1000, 6, 0.5, np.random.default_rng(seed)),
        focal.random_boxes(600, 1000, 6, 0.5, np.random.default_rng(seed)),
    )

# %% [markdown]
# ### Coverage
#
# Does every pixel lie in a window, and in how many?

# %%
def coverage(boxes, height, width):
    count = np.zeros((height, width), dtype=int)
    for x0, y0, x1, y1 in np.rint(boxes).astype(int):
        count[y0:y1, x0:x1] += 1
    return count


# %%
settings = [(0.5, 0.0), (0.5, 0.25), (0.5, 0.5), (0.34, 0.25)]
covers = {setting: coverage(focal.grid_boxes(S, S, *setting), S, S) for setting in settings}
for (crop, overlap), cover in covers.items():
    assert cover.min() >= 1  # every pixel is seen
    print(f"crop {crop:.2f}, overlap {overlap:.2f}: {len(focal.grid_boxes(S, S, crop, overlap)):2d} windows, "
          f"a pixel lies in {cover.min()} to {cover.max()} of them")

# %% tags=["nbval-ignore-output"]
plots.film_grid([film] * 4, [f"crop {crop:g}, overlap {overlap:g}: 1 to {cover.max()}" for (crop, overlap), cover in covers.items()], 4,
                heats=list(covers.values()), title="Windows that see each pixel of a synthetic film, dark: one; orange: the first window",
                boxes=[focal.grid_boxes(S, S, *setting)[:1] + (6, 6, 0, 0) for setting in settings])

# %% [markdown]
# **What to see.** With no overlap a finding can lie on a border, and every window that sees it cuts it in
# two. Overlap mends that with more windows. Each view costs one pass through the frozen expert. The next
# picture is the price list.

# %% alt="table of the number of views of a square film by crop and overlap: from 2 for a crop of 1 to 50 for a crop of 0.25 and an overlap of 0.5" tags=["nbval-ignore-output"]
import seaborn as sns

crops, overlaps = (1.0, 0.75, 0.5, 0.34, 0.25), (0.0, 0.25, 0.5)
price = pd.DataFrame(
    [[1 + len(focal.grid_boxes(S, S, crop, overlap)) for overlap in overlaps] for crop in crops],
    index=pd.Index(crops, name="crop"), columns=pd.Index(overlaps, name="overlap"),
)
fig, ax = chart(4.6, 3.2, "views of a square film (the whole film included)")
sns.heatmap(price, annot=True, fmt="d", cmap="rocket_r", ax=ax, cbar=False)
fig

# %% [markdown]
# **Try it** (needs a running kernel): make the crop smaller and see the number of windows grow; then raise
# the overlap.

# %% tags=["nbval-ignore-output"]
widgets.explore_views(film, "a synthetic film")

# %% [markdown]
# Without a kernel:

# %% tags=["nbval-ignore-output"]
four = [focal.grid_boxes(S, S, crop, overlap) for crop, overlap in settings]
plots.film_grid([film] * 4, [f"crop {c:g}, overlap {o:g}: {len(b)} windows" for (c, o), b in zip(settings, four, strict=True)],
                columns=4, boxes=four, title="Sliding windows on a synthetic film")

# %% [markdown]
# ### Exercise 3.1: the number of windows as a formula
# ★★☆, 10 minutes. `my_starts` counts in a loop. Find the closed form: write
# `number_of_windows(height, width, crop, overlap)` that returns how many windows (without the whole view) a
# film gets. A window's side is `crop` times the **short** side.
#
# <details><summary>Hint</summary>
# Along one axis: the smallest whole number n of steps with (length - side) / n &le; side (1 - overlap). There
# is one window more than there are steps.
# </details>

# %%
def number_of_windows(height, width, crop, overlap):
    raise NotImplementedError


check("3.1", number_of_windows)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/03_focal_sampling.ipynb](solutions/03_focal_sampling.ipynb).
#
# ```python
# def number_of_windows(height, width, crop, overlap):
#     side = crop * min(height, width)
#     per_axis = [math.ceil((length - side) / (side * (1 - overlap))) + 1 for length in (height, width)]
#     return per_axis[0] * per_axis[1]
# ```
# </details>

# %% [markdown]
# ## 3. Views: cut and resize
#
# We cut a view out of the film and resize it to $R \times R$. Two details matter:
#
# - **antialias**: when shrinking by four, a new pixel must average over all old pixels under it. Otherwise it
#   picks a few of them, and a nodule may vanish or a grain become a spot.
# - **bilinear, not bicubic**: bicubic weights have negative parts, and near a bright marker they give values
#   beyond [0, 1].

# %%
def my_extract_views(film, boxes, size):
    margin = max(film.shape)
    padded = np.pad(film, margin)  # zeros all round, for boxes that reach past the film
    views = []
    for x0, y0, x1, y1 in np.rint(boxes).astype(int) + margin:
        side = max(x1 - x0, y1 - y0)
        crop = torch.from_numpy(padded[y0 : y0 + side, x0 : x0 + side])
        views.append(F.interpolate(crop[None, None], (size, size), mode="bilinear", antialias=True)[0, 0])
    return torch.stack(views)


# %%
sampler = FocalSampler(crop=0.5, overlap=0.25)
boxes = sampler.inference_boxes(*film.shape)
np.testing.assert_array_equal(boxes, np.concatenate([my_whole_box(S, S)[None], my_grid_boxes(S, S, 0.5, 0.25)]))
views = focal.extract_views(film, boxes, R)
torch.testing.assert_close(my_extract_views(film, boxes, R), views)

# %%
wide = rng.random((600, 1000)).astype(np.float32)  # a film that is not square
wide_boxes = sampler.inference_boxes(*wide.shape)
torch.testing.assert_close(my_extract_views(wide, wide_boxes, R), focal.extract_views(wide, wide_boxes, R))
print("views:", tuple(views.shape), "from", float(views.min()) >= 0 and float(views.max()) <= 1 and "[0, 1]")

# %% alt="one synthetic film as the expert gets it: the whole film and its windows, all of the same size in pixels" tags=["nbval-ignore-output"]
plots.view_strip(views.numpy(), title=f"One synthetic film as the expert gets it: {len(views)} views of {R} x {R} pixels")

# %% [markdown]
# **What to see.** The first view has everything, but coarse. Each of the others has half the width at twice
# the detail. Later parts of MedBridge must know where each view lies. So boxes are expressed relative to the
# whole view: `0, 0, 1, 1` is the whole view of *any* film.
#
# **Try it** (needs a running kernel): place views by hand. How small must a view be until a rib has an edge,
# and how large until you know where you are?

# %% tags=["nbval-ignore-output"]
widgets.explore_focus(film, R, "a synthetic film, and what the expert sees")

# %% [markdown]
# Without a running kernel, three views of the same place:

# %% alt="a synthetic film with three square views of 800, 400 and 100 pixels drawn on it, and beside it what the expert sees of each at its own size" tags=["nbval-ignore-output"]
placed = np.array([[500 - side / 2, 520 - side / 2, 500 + side / 2, 520 + side / 2] for side in (800, 400, 100)], dtype=np.float32)
plots.placed_views(film, placed, R, "a synthetic film, and what the expert sees")

# %% [markdown]
# Where `MEDBRIDGE_DATA` names a folder with real films ([data/README.md](../data/README.md)), look at one of
# them in the same way. Its size may be far from ours:

# %% alt="one real film as the expert gets it: the whole film and its windows" tags=["nbval-ignore-output"]
from medbridge.course import real_films

real = real_films()
found = film if real is None else real.read(0)
print("MEDBRIDGE_DATA holds no real films" if real is None else f"a real film of {real.name}, {found.shape[0]} x {found.shape[1]} pixels")
plots.view_strip(focal.extract_views(found, sampler.inference_boxes(*found.shape), R).numpy()) if real else None

# %% [markdown]
# ### Exercise 3.2: relative boxes
# ★★☆, 10 minutes. Write `relative_boxes(boxes, height, width)`: `boxes` is `(N, 4)` in pixels. Return them in
# units of the whole view, the centred square of section 2. Think of a film that is not square.
#
# <details><summary>Hint</summary>
# Subtract the corner of the whole box, then divide by its side. It is the same side for x and y.
# </details>

# %%
def relative_boxes(boxes, height, width):
    raise NotImplementedError


check("3.2", relative_boxes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/03_focal_sampling.ipynb](solutions/03_focal_sampling.ipynb).
#
# ```python
# def relative_boxes(boxes, height, width):
#     side = max(height, width)
#     corner = np.array([(width - side) / 2, (height - side) / 2])
#     return (boxes - np.tile(corner, 2)) / side
# ```
# </details>

# %% [markdown]
# ## 4. Does it help?
#
# A first test is a **linear probe**, a logistic regression on the frozen expert's numbers. One probe sees the
# whole film alone. The other sees the whole film, and the mean and the maximum over all views. All else is
# the same: the validation patients choose the regularisation, and then the probe learns from training and
# validation films together.

# %% tags=["nbval-ignore-output"]
from medbridge import FeatureCache, paired_difference
from medbridge.baselines import LinearProbe
from medbridge.metrics.evaluate import evaluate

benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 240)
splits = {name: FeatureCache(progress=False).films(benchmark.split(name), [expert], [[]], sampler)
          for name in ("train", "val", "test")}
test = splits["test"].benchmark
y, mask = test.targets()
patients = test.table["patient_id"]

# %% tags=["nbval-ignore-output"]
scores, evaluations = {}, {}
for name, kind in (("whole film", "whole"), (f"{len(boxes)} views", "all")):
    probe = LinearProbe(views=kind).fit(splits["train"], splits["val"])
    scores[kind] = probe.predict_proba(splits["test"])
    evaluations[name] = evaluate(y, scores[kind], mask, groups=patients, labels=test.labels)
print(f"{benchmark.name}: {len(splits['train'])} films to train, {len(splits['val'])} to choose, {len(test)} to test")
plots.auc_bars(evaluations, title="Linear probe on tiny-vit, synthetic test films")

# %% [markdown]
# Intervals that overlap prove nothing, in either direction: both probes see the *same* films, and a hard film
# is hard for both. So we compare **paired**: each bootstrap draw of patients gives both AUCs and their
# difference. If the interval of the difference holds zero, no difference is shown.

# %% tags=["nbval-ignore-output"]
difference = paired_difference(y, scores["all"], scores["whole"], mask, groups=patients, labels=test.labels)
zero_inside = difference.lo <= 0 <= difference.hi
print(f"mean AUC, all views minus whole film: {difference.diff:+.2f}, 95 % interval {difference.lo:+.2f} to {difference.hi:+.2f}")
print("On these synthetic films " + (
    "the interval holds zero: no difference is shown." if zero_inside else
    f"{'all views are' if difference.diff > 0 else 'the whole film alone is'} better."
))
difference.per_label.set_index("label").round(2)

# %% [markdown]
# **How to read it.** The printed sentence is the result, whatever you expected. Three things limit it. There
# are few test films, so intervals are wide. The tiny expert learned from drawings of general things. And a
# mean over all views washes out one small bright spot, while the maximum keeps it only if the frozen expert
# has a number for it. The Query Encoder of the next notebook learns how to *look* at the views.
#
# ## 5. Training: a pool, a seed, and no flips
#
# **[ours]** A training film has a fixed **pool**: the whole view, the sliding windows, and a few random
# windows. Each step of training takes the whole view and draws at most four of the others
# (`TrainConfig.local_views`); inference reads all windows. The pool is fixed because the expert is frozen, so
# each of its views goes through the expert once. We did not measure what other regions in each epoch would
# bring.
#
# The seed of a film's random windows comes from the sampler's seed and the film's **name**. So adding or
# reordering films does not change the pool.

# %%
pool = sampler.training_boxes(S, S, "images/A/film_1.jpg")
again = FocalSampler(crop=0.5, overlap=0.25).training_boxes(S, S, "images/A/film_1.jpg")
other = sampler.training_boxes(S, S, "images/A/film_2.jpg")

np.testing.assert_array_equal(pool, again)  # same film, same pool
np.testing.assert_array_equal(pool[: len(boxes)], boxes)  # it begins with the views of inference
assert not np.array_equal(pool[len(boxes) :], other[len(boxes) :])  # another film, other random windows
print(f"pool: {len(pool)} views = 1 whole + {len(boxes) - 1} windows + {sampler.extra} random")

# %% [markdown]
# **No flips.** For photographs, mirroring is the usual augmentation: a cat is a cat. A mirrored chest is
# another patient. The heart's tip lies on the left; where it lies on the right, the patient has a rare
# condition (*situs inversus*), or the film was put in the wrong way round. So MedBridge never flips
# **[ours]**; we did not measure what flips would bring.

# %% tags=["nbval-ignore-output"]
normal = make_film(6, "A", findings=[]).image / 255
plots.film_grid([film, normal, normal[:, ::-1]],
                [f"training pool: {sampler.extra} random windows", "heart's tip on the patient's left", "mirrored"],
                columns=3, boxes=[pool[len(boxes) :], np.empty((0, 4)), np.empty((0, 4))],
                title="Synthetic films: random windows of a pool; a chest, and its mirror image")

# %% [markdown]
# ### Exercise 3.3: how large may the window be?
# ★★☆, 10 minutes. A nodule of $d$ pixels shall be at least $p$ pixels wide in a view of side $R$; the film's
# short side is $S$. A large window means few views, so we want the **largest** crop that is good enough.
# Write `largest_crop(d, p, R, S)`. A crop is never above 1.
#
# <details><summary>Hint</summary>
# Solve the equation of section 1 for the crop.
# </details>

# %%
def largest_crop(d, p, R, S):
    raise NotImplementedError


check("3.3", largest_crop)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/03_focal_sampling.ipynb](solutions/03_focal_sampling.ipynb), with the number of views
# that it costs.
#
# ```python
# def largest_crop(d, p, R, S):
#     return min(1.0, d * R / (p * S))
# ```
# </details>

# %% [markdown]
# ## Summary
#
# - A finding of $d$ pixels is $d\,R/(\text{crop} \cdot S)$ pixels wide in a view.
# - Focal Sampling takes the whole film and windows that cover every pixel; the price is one pass per view.
# - Boxes are squares in film pixels, nothing is stretched, shrinking is antialiased, and nothing is flipped.
# - Whether views help is a question for a paired comparison. Simple pooling over views is only a start.
#
# Next: [04 Query Encoder](04_query_encoder.ipynb): learned queries that look at the views.
