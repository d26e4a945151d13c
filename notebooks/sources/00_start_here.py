# %% [markdown]
# # 00 Start here
#
# {{COLAB}}
#
# A *vision-language model* (VLM) such as CLIP has learned from millions of captioned pictures. **MedBridge**
# keeps several such models frozen and trains a small bridge between them and medical diagnosis. In this
# course you build that bridge. Each notebook takes one idea, writes it from scratch, checks it against the
# package `medbridge`, and shows what it does.
#
# **What you will build:** nothing yet, but you see the whole machine once. You check your environment, and
# you run one chest film (radiologists call an X-ray picture a *film*) through a finished MedBridge, step by
# step.
#
# **For research and education, not for clinical use.** All films in this notebook are *synthetic*: a program
# draws them.
#
# - **For whom:** students, researchers and clinician-engineers who know Python and NumPy and had a first
#   course in deep learning. We explain medical terms where they come up.
# - **Prerequisites:** none beyond that.
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores, and
#   about the same on a Colab T4 (an estimate).
# - **Module:** `medbridge/model.py` · **test:** `tests/test_model.py`
# - **Paper:** Li, Ghahremani, Wachinger, *MedBridge: Bridging Foundation Vision-Language Models to Medical
#   Image Diagnosis*, [arXiv 2505.21698](https://arxiv.org/abs/2505.21698).
#
# **What the course rests on.** We could read the abstracts of the paper's three versions and summaries by
# others, and not its body. So we use three marks. **[abstract]**: the authors' own abstract says it.
# **[summary]**: somebody else's summary says it, and may be wrong. **[ours]**: this project chose it. Where
# we measured a choice, we give the number; where we did not, we say so. The paper's third version says that
# the authors' code will be released on acceptance.

# %%
# {{SETUP}}

# %% [markdown]
# ## The course
#
# | notebook | what you build |
# |---|---|
# | **00 Start here** | you are here |
# | [01 Vision-language models and zero-shot](01_vlms_and_zero_shot.ipynb) | contrastive loss, zero-shot, and how a domain shift breaks both |
# | [02 Films, labels, splits](02_films_labels_splits.ipynb) | the data: labels, patients, splits, shift between hospitals |
# | [03 Focal Sampling](03_focal_sampling.ipynb) | from one large film to N views |
# | [04 Query Encoder](04_query_encoder.ipynb) | learnable queries over frozen maps |
# | [05 Mixture of Experts](05_mixture_of_experts.ipynb) | the query-driven router |
# | [06 Assembling and training](06_assembling_and_training.ipynb) | attention across views, class scores, losses, schedules |
# | [07 Evaluation done right](07_evaluation.ipynb) | intervals, paired comparisons, reliable probabilities, bias |
# | [08 Baselines](08_baselines.ipynb) | prompts, adapters, LoRA and others on the same frozen experts |
# | [09 The adaptation tasks](09_adaptation_tasks.ipynb) | cross-domain, in-domain, label budgets |
# | [10 Ablations](10_ablations.ipynb) | which part earns its place |
# | [11 What did it look at?](11_what_did_it_look_at.ipynb) | attention against boxes |
# | [12 Full training on a GPU](12_full_gpu_training.ipynb) | real benchmarks and foundation models |
# | [13 Beyond the paper](13_beyond_the_paper.ipynb) | other experts, more routers, similar films as evidence, change |
#
# **How the notebooks work**
#
# - A cell that writes something from scratch ends in an assertion that it equals the package's own function.
#   The package's code in [medbridge/](../medbridge) may differ, because it works on padded batches and saves
#   arithmetic. The assertion shows that the numbers are the same.
# - *Exercises* have stars for difficulty. Fill in the stub, run the cell, and `check(...)` tells you whether
#   it is right or what to look at; `medbridge course progress` lists what you have
#   solved. <!-- solutions -->The solution is folded below each, and in `solutions/`.<!-- /solutions -->
# - A letter means the same thing in all notebooks and in the code:
#   [notation and glossary](../docs/notation.md).
# - *Profiles:* by default every notebook uses small samples. Start Jupyter with the environment variable
#   `MEDBRIDGE_PROFILE=full` for larger samples and real models. The stored outputs are of the default
#   profile.

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from medbridge import load_adapter, load_benchmark
from medbridge.course import check, full_profile, seed_everything
from medbridge.viz import plots
from medbridge.viz.drawing import chart

rng = seed_everything(0)
ADAPTER = Path("../data/quickstart")

# %% [markdown]
# ### Is everything here?
#
# This cell shows where you are. Your output will differ, and you need no GPU. The cache folder
# (`MEDBRIDGE_CACHE`) keeps films and features. `MEDBRIDGE_WEIGHTS` may name a folder with weights of real
# foundation models, for machines without a network.

# %% tags=["nbval-ignore-output"]
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from medbridge.experts import tiny_experts_folder
from medbridge.features.cache import cache_folder


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


# %% tags=["nbval-ignore-output"]
packages = ("medbridge", "torch", "open_clip_torch", "timm", "numpy", "scikit-learn", "transformers")
rows = {"python": platform.python_version()} | {package: version_of(package) for package in packages}
rows |= {
    "CPU cores": os.cpu_count(),
    "GPU": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (not needed)",
    "profile": "full" if full_profile() else "default",
    "cache folder": str(cache_folder()).replace(str(Path.home()), "~"),
    "shipped experts": os.path.relpath(tiny_experts_folder()),
    "MEDBRIDGE_WEIGHTS": os.environ.get("MEDBRIDGE_WEIGHTS", "not set: shipped experts only, or downloads"),
}
pd.DataFrame({"value": [str(v) for v in rows.values()]}, index=list(rows))

# %% [markdown]
# The next cell must pass; otherwise its message says what to do.

# %%
import sys
from importlib.util import find_spec

assert sys.version_info >= (3, 11), "medbridge needs Python 3.11 or newer"
absent = [m for m in ("torch", "open_clip", "timm", "sklearn", "safetensors", "ipywidgets") if find_spec(m) is None]
assert not absent, f"missing: {', '.join(absent)}; run `make install`, or `pip install -e '.[course]'` in the clone"
for name in ("tiny-resnet", "tiny-resnet-scenes"):
    weights_file = tiny_experts_folder() / name / "open_clip_model.safetensors"
    assert weights_file.is_file(), f"{weights_file} is missing; restore data/tiny_experts from the repository"
assert (ADAPTER / "adapter.safetensors").is_file(), f"{ADAPTER} holds no adapter; run the notebook from its own folder"
cache_folder().mkdir(parents=True, exist_ok=True)
assert os.access(cache_folder(), os.W_OK), f"{cache_folder()} is not writable; set MEDBRIDGE_CACHE to a folder that is"
print("environment: ready")

# %% [markdown]
# ## The method in one picture
#
# A chest film is large, and what matters in it may be small. A frozen model takes small pictures, and it has
# never seen a chest. The method has five steps:
#
# 1. **Focal Sampling**: one film becomes $N$ *views*, the whole film and windows of it at higher
#    magnification.
# 2. **Frozen experts and Query Encoders**: each of $K$ frozen models (*experts*) turns a view into a map of
#    $P$ tokens of width $d$. $Q$ small learnable *queries* read the map and collect what diagnosis needs.
# 3. **Across views**: attention relates the queries of the $N$ views, and a maximum pools them.
# 4. **Class scores**: the pooled queries are compared with a text prompt per finding, such as "a chest x-ray
#    showing effusion".
# 5. **Mixture of experts**: a router reads the queries and decides how much to trust each expert.
#
# Blue is frozen, orange with a thick edge is trained. Only the orange part is stored in an *adapter*.

# %%
from matplotlib.patches import FancyBboxPatch

FROZEN, TRAINED, DATA = "#bcd7ee", "#fbd3a6", "#eeeeee"


def block(ax, x, y, text, colour, width=1.5, height=0.86):
    ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0.04",
                                facecolor=colour, edgecolor="0.35", linewidth=2.4 if colour == TRAINED else 0.8))
    ax.text(x, y, text, ha="center", va="center", fontsize=10)


def arrow(ax, start, end, text="", shift=(0, 0.08)):
    ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": "0.35"})
    x, y = ((a + b) / 2 + s for a, b, s in zip(start, end, shift, strict=True))
    ax.text(x, y, text, ha="center", va="bottom", fontsize=9, color="0.25")


# %%
def expert_row(ax, name, y, side):
    """One expert's part of the diagram; ``side`` is 1 above the middle, -1 below."""
    block(ax, 5.0, y, f"{name}\nfrozen VLM", FROZEN, 1.3)
    for x, text in ((7.6, "Query Encoder\nQ queries"), (10.2, "across views\nattend, pool"), (12.75, "class scores\nagainst prompts")):
        block(ax, x, y, text, TRAINED)
    arrow(ax, (3.5, 2 + 0.12 * side), (4.3, y), "B, N, R, R", (-0.5, 0.25 * side - 0.1))
    for start, end, text in ((5.7, 6.8, "B, N, P, d"), (8.4, 9.4, "B, N, Q, w"), (11.0, 11.95, "B, Q, w")):
        arrow(ax, (start, y), (end, y), text)
    arrow(ax, (13.55, y), (14.8, 2 + 0.5 * side), "B, C", (0.3, 0.12 * side))
    arrow(ax, (10.4, y - 0.5 * side), (10.9, 2 + 0.32 * side))


# %% alt="Diagram of the method: a film is cut into N views; each frozen expert gives maps, a trained query encoder reads them into Q queries and class scores; a router turns the queries into weights, and the mixture adds up the experts' scores" tags=["nbval-ignore-output"]
fig, ax = chart(13.5, 4.6)
block(ax, 0.7, 2, "film\nH x W", DATA, 0.9)
for back, text in ((0.16, ""), (0.08, ""), (0, "Focal Sampling\nN views")):
    block(ax, 2.55 + back, 2 + back, text, DATA, 1.4)
arrow(ax, (1.2, 2), (1.8, 2))
expert_row(ax, "expert 1", 3.2, 1)
expert_row(ax, "expert K", 0.8, -1)
ax.text(5.0, 2.0, "$\\vdots$", ha="center", va="center", fontsize=16)
block(ax, 11.6, 2, "router\nfrom the queries", TRAINED, 1.4, 0.6)
arrow(ax, (12.4, 2), (14.35, 2), "weights B, K, C")
block(ax, 15.05, 2, "mixture\nB, C", DATA, 1.2)
ax.text(0.3, -0.4, "B films, N views of R x R pixels, K experts, P tokens of width d, Q queries of width w, C findings", color="0.25")
ax.set(xlim=(0.1, 15.8), ylim=(-0.65, 3.75))
ax.set_axis_off()
fig

# %% [markdown]
# ## One film, step by step
#
# The repository ships an adapter. We trained it with `medbridge adapt --members 1 --no-readout` on
# *PhantomCXR*, our synthetic benchmark, with two of the shipped *tiny experts*. It is one network, so that we
# can follow it number by number; without these options the command averages five (notebook 06). The experts
# are small CLIP models: one learned from drawn textures, the other from drawn scenes of shapes. They stand in
# for real foundation models where you cannot download any.

# %%
model = load_adapter(ADAPTER)
for k, expert in enumerate(model.experts):
    depths, maps = model.depths[k], model.map_shapes[k]  # the maps that are read
    tower = [f"{' x '.join(map(str, maps.grids[d - 1]))} patches of width {maps.widths[d - 1]}" for d in depths]
    print(f"expert {k + 1}: {expert.name}, takes {expert.size} x {expert.size} pixels, has {expert.depth} blocks")
    print(f"          queries read the maps after blocks {', '.join(map(str, depths))}: {'; '.join(tower)}")
print(f"queries per expert: Q = {model.config.queries}, of width w = {model.config.width}")
print(f"findings: C = {len(model.labels)}: {', '.join(model.labels)}")
print("trained on synthetic films:", model.card["synthetic"])
assert model.card["synthetic"] and len(model.experts) == 2

# %% [markdown]
# PhantomCXR draws frontal chest films of 1024 x 1024 pixels with up to eight findings, and it knows exactly
# where each finding is. The adapter learned from training patients only, so we look at *test* films. The
# first call draws the films (a few per second).

# %% tags=["nbval-ignore-output"]
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 120)
films = benchmark.split("test")

# %%
print(f"{films.name}: {len(films)} test films of {films.table['patient_id'].nunique()} patients")
assert films.synthetic

# %% [markdown]
# We take the first test film with at least two findings, so that nobody picks a film that goes well. White
# means dense (bone, fluid), black means air. The orange boxes are the truth, which the model never sees.

# %%
truth, _ = films.targets()
chosen = int(np.flatnonzero(truth.sum(axis=1) >= 2)[0])
film = films.read(chosen)
present = [label for label, t in zip(films.labels, truth[chosen], strict=True) if t == 1]
boxes = films.boxes[films.boxes["image"] == films.image_ids()[chosen]]
print("film:", film.shape, film.dtype)
print("findings:", ", ".join(present))
assert set(boxes["label"]) <= set(present)

# %% alt="one synthetic chest film, with the true box of every finding drawn and named" tags=["nbval-ignore-output"]
plots.film_grid([film], [f"synthetic film {Path(films.image_ids()[chosen]).stem}"], 1, size=5,
                boxes=[boxes[["x0", "y0", "x1", "y1"]].to_numpy()], names=[boxes["label"].tolist()])

# %% [markdown]
# **A real film**, if you have one. Where `MEDBRIDGE_DATA` names a folder with a benchmark of real films
# ([data/README.md](../data/README.md)), this cell shows one beside ours:

# %% alt="a synthetic film beside a real one" tags=["nbval-ignore-output"]
from medbridge.course import real_films

real = real_films()
pair = [film] if real is None else [film, real.read(0)]
print("MEDBRIDGE_DATA holds no real films" if real is None else f"the second film is real, from {real.name}")
plots.film_grid(pair, ["synthetic", "real"][: len(pair)], len(pair)) if real else None

# %% [markdown]
# ### Step 1: Focal Sampling, $N$ views
#
# The experts take pictures of 128 x 128 pixels, and the film has 64 times as many. So one view is the whole
# film, shrunk, and overlapping windows of half its side keep small things visible. Notebook 03 builds this.

# %% tags=["nbval-ignore-output"]
from medbridge.focal import extract_views

view_boxes = model.sampler.inference_boxes(*film.shape)
views = extract_views(film, view_boxes, model.experts[0].size)
plots.view_strip(views.numpy(), title="synthetic film: the N views as the experts get them")

# %% [markdown]
# ### Step 2: what the frozen experts say
#
# Each expert turns each view into maps of tokens, one vector per patch of the picture. The queries read a
# *compact* form of them: at most 64 patches, and at most 128 principal components of each token, in a byte
# each (notebook 04). No label enters here, so it is computed once and kept on disk.

# %%
from medbridge.predict import film_features

features, _ = film_features(model, film)
N = len(view_boxes)
for expert, compact, depths, maps in zip(model.experts, model.map_shapes, model.depths, features.maps, strict=True):
    for depth, tokens in zip(depths, maps, strict=True):
        rows_, columns_ = compact.grids[depth - 1]
        assert tokens.shape == (N, rows_ * columns_ + compact.prefix, compact.widths[depth - 1])
        assert tokens.dtype == torch.int8
        print(f"{expert.name:<18} after block {depth}: (N, P, d) = {tuple(tokens.shape)}")

# %% [markdown]
# Experts may differ in all of this, so each gets its own Query Encoder. They need no common space.
#
# ### Steps 2 to 5: queries, scores, mixture
#
# One call does the rest. A *batch* here holds one film, $B = 1$.

# %%
from medbridge.features.batch import collate

batch = collate([features])
with torch.inference_mode():
    output = model.eval()(batch)
print("expert logits (B, K, C):", tuple(output.expert_logits.shape))
print("router weights (B, K, C):", tuple(output.weights.shape))
print("mixture logits (B, C):  ", tuple(output.logits.shape))
for expert, attention in zip(model.experts, output.attention, strict=True):
    print(f"attention of the queries over {expert.name}'s last map (B, N, Q, P): {tuple(attention.shape)}")

# %% [markdown]
# The picture above says that the mixture is the weighted sum of the experts' scores,
#
# $$s_c = \sum_{k=1}^{K} g_{kc}\, s_{kc}, \qquad \sum_{k=1}^{K} g_{kc} = 1,
# \qquad p_c = \frac{1}{1 + e^{-s_c}},$$
#
# with $s_{kc}$ the logit of expert $k$ for finding $c$ and $g_{kc}$ the router's weight. Is that what the
# model does?

# %%
from medbridge import evaluate, predict, predict_film

torch.testing.assert_close(output.weights.sum(dim=1), torch.ones_like(output.logits))
torch.testing.assert_close(output.logits, (output.weights * output.expert_logits).sum(dim=1))
np.testing.assert_allclose(predict_film(model, film), output.logits[0].sigmoid().numpy(), atol=1e-5)
print("weights sum to one over the experts; mixture = weighted sum of expert logits; predict_film says the same")

# %% [markdown]
# Each finding has its own probability, because a film may show several findings at once. A star marks a
# finding that is really there.

# %% alt="one synthetic film: bars of the probability that each expert and the mixture give each finding, a star on the findings that are present, and below them the router's weights" tags=["nbval-ignore-output"]
from medbridge.explain.attention import explain

explanation = explain(model, film)
plots.router_film(explanation, truth[chosen], "one synthetic film: what the experts say, and the mixture")

# %% [markdown]
# **What to see.** The experts do not agree everywhere, and the mixture lies between them. Whether it is
# *right* is a matter of one film, so we measure on many below.
#
# ### Where did the queries look?
#
# Left: the film. Middle: which windows contributed to the pooled queries. Right: where the queries that
# matter for one finding put their attention.

# %%
np.testing.assert_allclose(explanation.probabilities, output.logits[0].sigmoid(), atol=1e-5)
label = boxes["label"].iloc[0]
print("heat map for:", label)

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
plots.query_attention(explanation, label, boxes.loc[boxes["label"] == label, ["x0", "y0", "x1", "y1"]].to_numpy(),
                      title=f"synthetic film, {label}")

# %% [markdown]
# Read this picture with care. Attention shows where the model *read*, not what *caused* the score. A warm
# place inside the box does not prove that the model understood.
#
# ## A handful of films
#
# Each row is a test film. The colour is the model's probability, and a white star is a finding that is there.

# %% alt="table of probabilities, eight synthetic test films by eight findings; white stars mark the findings that are present" tags=["nbval-ignore-output"]
import seaborn as sns

from medbridge import FeatureCache

cache = FeatureCache(progress=False)  # what the frozen experts say of a film is computed once and kept
few = films.take(np.arange(8))
probabilities = predict(model, cache.of(model, few), progress=False).probabilities
table = pd.DataFrame(probabilities, [Path(i).stem for i in few.image_ids()], list(model.labels))
fig, ax = chart(8.5, 4.2, "eight synthetic test films: probability, and star = present")
sns.heatmap(table, annot=True, fmt=".2f", vmin=0, vmax=1, cmap="viridis", ax=ax, annot_kws={"fontsize": 8},
            cbar_kws={"label": "probability"})
for row, column in np.argwhere(truth[:8] == 1):
    ax.plot(column + 0.85, row + 0.25, "*", color="white", markersize=9, markeredgecolor="black", markeredgewidth=0.5)
ax.tick_params(axis="x", rotation=25)
ax.tick_params(axis="y", rotation=0)
fig

# %% [markdown]
# How good is that? One measure is the **AUC**: the probability that a film with the finding gets a higher
# score than a film without it. 0.5 is chance, 1.0 is perfect.

# %% tags=["nbval-ignore-output"]
y, mask = films.targets()
scores = predict(model, cache.of(model, films), progress=False).probabilities
result = evaluate(y, scores, mask, films.table["patient_id"], films.labels)
print(result.table())
print()
low, high = result.macro["lo"], result.macro["hi"]
print("mean AUC: the 95 % interval", "lies above 0.5" if low > 0.5 else "holds 0.5 or lies below it")

# %%
assert result.macro["n_defined"] > 0
wide = result.per_label["auc_hi"] - result.per_label["auc_lo"]
assert wide.mean() > result.macro["hi"] - result.macro["lo"]
print("on average, the interval of a single label is wider than the interval of the mean")

# %% [markdown]
# Look at the intervals before the numbers. With a few positive films per label, the interval of a single
# label is wide (notebook 07). And these are synthetic films and tiny experts: they show that the machine
# works, not how it does on patients.
#
# ### Your first widget
#
# Move the slider to change the film, and choose a finding. Things to try:
#
# - Find a film where the finding is there and the probability is low. How large is its box?
# - Choose a finding that is absent. Does the heat map change? The queries always look somewhere.
#
# Without a running kernel, the figure above shows the same for one film.

# %% tags=["nbval-ignore-output"]
from medbridge.viz.widgets import explore_film

explore_film(model, films.take(np.arange(6)))

# %% [markdown]
# ## Exercises
#
# ### Exercise 0.1: how much does a frozen expert say about one film?
#
# ★☆☆, 5 minutes.
#
# An expert gives $N \times P \times d$ numbers per film and depth, where $P$ counts all tokens: the patches,
# and the `prefix` tokens before them (a ViT has one, called CLS). Write a function that gives the number of
# numbers.
#
# <details><summary>Hint</summary>
#
# $P$ = rows × columns + prefix. Compare with the shapes printed in step 2.
#
# </details>

# %%
def numbers_per_film(views: int, rows: int, columns: int, prefix: int, width: int, depths: int) -> int:
    raise NotImplementedError


check("0.1", numbers_per_film)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/00_start_here.ipynb](solutions/00_start_here.ipynb).
#
# ```python
# def numbers_per_film(views: int, rows: int, columns: int, prefix: int, width: int, depths: int) -> int:
#     tokens = rows * columns + prefix
#     return views * tokens * width * depths
# ```
#
# </details>

# %% [markdown]
# ### Exercise 0.2: mix the experts yourself
#
# ★☆☆, 5 minutes.
#
# Given the experts' logits and the router's weights, both `(B, K, C)`, return the mixture's *probabilities*
# `(B, C)`.
#
# <details><summary>Hint</summary>
#
# Which dimension is $k$? What turns a logit into a probability, before or after the sum?
#
# </details>

# %%
def mixture(expert_logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("0.2", mixture)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/00_start_here.ipynb](solutions/00_start_here.ipynb).
#
# ```python
# def mixture(expert_logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
#     return (weights * expert_logits).sum(dim=1).sigmoid()
# ```
#
# </details>

# %% [markdown]
# ### Exercise 0.3: how much of it is trained?
#
# ★☆☆, 5 minutes.
#
# Write a function that gives the share of a model's parameters that are trained, between 0 and 1. Then try
# `trainable_share(model)`. The share is large here, because the experts are tiny; next to a real CLIP the
# same bridge is a few per cent at most.
#
# <details><summary>Hint</summary>
#
# `model.parameters()` gives all parameters; each has `p.requires_grad` and `p.numel()`.
#
# </details>

# %%
def trainable_share(model: torch.nn.Module) -> float:
    raise NotImplementedError


check("0.3", trainable_share)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/00_start_here.ipynb](solutions/00_start_here.ipynb).
#
# ```python
# def trainable_share(model: torch.nn.Module) -> float:
#     trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
#     return trained / sum(p.numel() for p in model.parameters())
# ```
#
# </details>
#
# ## Summary
#
# - MedBridge keeps $K$ vision-language models frozen and trains a small bridge: queries, view attention,
#   class scores, a router.
# - One film becomes $N$ views, each view becomes maps of $P$ tokens of width $d$ in each expert, $Q$ queries
#   read them, and $C$ findings get a probability each.
# - The mixture is a weighted sum of the experts' logits.
# - An AUC on a handful of films has a wide interval. Look at the interval first.
#
# Next: [01 Vision-language models and zero-shot](01_vlms_and_zero_shot.ipynb)
