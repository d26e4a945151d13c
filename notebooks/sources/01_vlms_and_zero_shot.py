# %% [markdown]
# # 01 Vision-language models and zero-shot
#
# {{COLAB}}
#
# **What you will build:** the two ideas that every vision-language model (VLM) rests on: the contrastive loss that ties
# pictures to sentences, and *zero-shot* classification, in which a sentence is the classifier. You see both work on the kind of
# pictures that the models were trained on. Then you show them chest films, and see them break: this gap is called
# *domain shift*. At the end you find that the frozen models still say something useful about films, if one learns to
# listen. That is what MedBridge does.
#
# **For research and education, not for clinical use.** All pictures and all films here are *synthetic*: programs draw
# them.
#
# - **Prerequisites:** [00 Start here](00_start_here.ipynb); softmax, cross-entropy, logistic regression.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes to run on two CPU cores (on a Colab T4, we estimate about one
#   minute).
# - **Modules:** `medbridge/prompts.py`, `medbridge/baselines/zero_shot.py` · **test:** `tests/test_prompts.py`
# - **Paper:** [MedBridge, arXiv 2505.21698](https://arxiv.org/abs/2505.21698); Radford et al.,
#   [CLIP, arXiv 2103.00020](https://arxiv.org/abs/2103.00020), sections 2.3 and 3.1.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging
import sys
import textwrap
from unittest.mock import patch

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from open_clip.loss import ClipLoss
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medbridge import FeatureCache, FocalSampler, create_expert, load_benchmark, paired_difference
from medbridge.baselines import LinearProbe, ZeroShot
from medbridge.course import check, full_profile, seed_everything
from medbridge.errors import ExpertError
from medbridge.extras.shift import shift_film
from medbridge.features.encode import encode_views
from medbridge.focal import extract_views, whole_box
from medbridge.metrics.evaluate import bootstrap_auc, evaluate
from medbridge.prompts import class_prompts, encode_prompts
from medbridge.viz import plots
from medbridge.viz.widgets import explore_prompts, explore_shift

sys.path.insert(0, "../scripts")
from procedural_images import BACKGROUNDS, SCALES, SHAPES, SIZES, TEXTURES, WORDS, scenes, textures

rng = seed_everything(0)
COLOURS = sns.color_palette("colorblind")

# %% [markdown]
# ## What a vision-language model is
#
# A VLM of the CLIP family has two towers. The **image tower** turns a picture into a vector; the **text tower** turns a
# sentence into a vector of the same length. Both vectors are scaled to length one, so that their dot product is the
# cosine of the angle between them. The two towers are trained so that a picture and its own caption point the same way:
#
# $$u_i = \frac{f(\text{image}_i)}{\lVert f(\text{image}_i)\rVert}, \qquad v_j = \frac{g(\text{text}_j)}{\lVert g(\text{text}_j)\rVert},
# \qquad \cos_{ij} = u_i^\top v_j .$$
#
# Real VLMs saw hundreds of millions of pairs from the web. Ours are the shipped *tiny experts*, so that everything here
# runs without a download: `tiny-vit` was trained on drawn **scenes** (shapes on a background), `tiny-resnet` on drawn
# **textures**. Each is a plain open_clip model. What they lack in size they have in clarity: we know every picture and
# every word that they ever saw.

# %%
experts = {name: create_expert(name) for name in ("tiny-vit", "tiny-resnet")}
HOME = {"tiny-vit": "scenes", "tiny-resnet": "textures"}
for name, expert in experts.items():
    count = sum(p.numel() for p in expert.parameters()) / 1e6
    print(f"{name:<12} {count:.1f} million parameters, pictures of {expert.size} x {expert.size}, shared space of {expert.text_dim} numbers")
    assert not any(p.requires_grad for p in expert.parameters())

# %% [markdown]
# **Real models.** With `MEDBRIDGE_PROFILE=full` the cells below also run with OpenAI's CLIP and with BiomedCLIP, where
# their weights can be had: from the hub, or from the folder that `MEDBRIDGE_WEIGHTS` names. Hospitals often have no
# internet. Then the error says which file to put where. In the default profile we do not download anything: we only
# look at that message, by asking for CLIP as if there were no network.

# %% tags=["nbval-ignore-output"]
logging.disable(logging.ERROR)  # open_clip logs the failure as well; the message below says it all
for name in ("clip-vitb32", "biomedclip"):
    try:
        with patch("huggingface_hub.constants.HF_HUB_OFFLINE", not full_profile()):
            real = create_expert(name)
        print(f"{name}: its weights are here" + ("" if full_profile() else "; set MEDBRIDGE_PROFILE=full to use it"))
        if full_profile():
            experts[name] = real
    except ExpertError as error:
        print(textwrap.fill(f"{name}: {error}", 120), "\n")
logging.disable(logging.NOTSET)

# %% [markdown]
# ## Pictures with captions
#
# These pictures come from the generator that made the pre-training pictures, with seeds that were never used in
# training: they are *held out*.

# %%
HELD_OUT = 2_000_001
PICTURES = {"scenes": scenes(64, HELD_OUT), "textures": textures(64, HELD_OUT)}
for diet, batch in PICTURES.items():
    print(f"{diet}: images {tuple(batch.images.shape)} in [{batch.images.min():.0f}, {batch.images.max():.0f}]")
    print("   ", batch.captions[0])

# %% tags=["nbval-ignore-output"]
some = [(PICTURES[diet].images[i], PICTURES[diet].captions[i]) for diet in PICTURES for i in range(4)]
plots.film_grid([image.permute(1, 2, 0).numpy() for image, _ in some], [textwrap.fill(text, 34) for _, text in some], 4,
                title="held-out synthetic pictures: scenes (top), textures (bottom)")

# %% [markdown]
# Now both towers. The image tower wants normalised pictures of its own size; then one forward pass and a division by
# the length. The result must be what open_clip itself says.

# %%
def embed_images(expert, images):
    """RGB pictures (n, 3, H, W) in [0, 1] -> unit vectors (n, d)."""
    if images.shape[-1] != expert.size:
        images = F.interpolate(images, (expert.size, expert.size), mode="bilinear", antialias=True)
    with torch.inference_mode():
        parts = [expert.model.encode_image((part - expert.mean) / expert.std) for part in images.split(100)]
    vectors = torch.cat(parts).float()
    return vectors / vectors.norm(dim=1, keepdim=True)


EMBEDDED = {}
for name, expert in experts.items():
    for diet, batch in PICTURES.items():
        EMBEDDED[name, diet] = embed_images(expert, batch.images), expert.encode_text(batch.captions)
    if expert.size == 128:
        x = (PICTURES["scenes"].images[:4] - expert.mean) / expert.std
        torch.testing.assert_close(EMBEDDED[name, "scenes"][0][:4], expert.encode_maps(x, []).embed, atol=1e-5, rtol=1e-4)
print("image embeddings equal the package's")

# %% [markdown]
# Six pictures against their six captions. A model that has learned its lesson has a bright diagonal: each picture is
# closest to its own caption.

# %% alt="six synthetic scenes above a table of cosine similarities with their six captions, tiny-vit; the diagonal holds the true pairs" tags=["nbval-ignore-output"]
def similarity_figure(images, captions, cosine, title):
    n = len(images)
    fig = Figure(figsize=(9.6, 6.4), layout="constrained")
    grid = fig.add_gridspec(2, n + 1, height_ratios=(1, 3.2), width_ratios=[1] * n + [0.12])
    for i in range(n):
        ax = fig.add_subplot(grid[0, i])
        ax.imshow(images[i].permute(1, 2, 0))
        ax.set_axis_off()
    ax = fig.add_subplot(grid[1, :n])
    sns.heatmap(cosine, annot=True, fmt=".2f", cmap="viridis", cbar_ax=fig.add_subplot(grid[1, n]), ax=ax, xticklabels=False,
                yticklabels=[textwrap.fill(c, 36) for c in captions], annot_kws={"fontsize": 9})
    ax.tick_params(axis="y", labelsize=8, rotation=0)
    fig.suptitle(title, fontsize=11)
    return fig


u, v = EMBEDDED["tiny-vit", "scenes"]
similarity_figure(PICTURES["scenes"].images[:6], PICTURES["scenes"].captions[:6], (v[:6] @ u[:6].T).numpy(),
                  "tiny-vit: cosine similarity of six synthetic scenes (columns) and their captions (rows)")

# %% alt="six synthetic textures above a table of cosine similarities with their six captions, tiny-resnet; the diagonal holds the true pairs" tags=["nbval-ignore-output"]
u, v = EMBEDDED["tiny-resnet", "textures"]
similarity_figure(PICTURES["textures"].images[:6], PICTURES["textures"].captions[:6], (v[:6] @ u[:6].T).numpy(),
                  "tiny-resnet: cosine similarity of six synthetic textures (columns) and their captions (rows)")

# %% [markdown]
# Six are too few to judge. Over all 64 pairs of each model's home diet:

# %%
for name, diet in HOME.items():
    u, v = EMBEDDED[name, diet]
    cosine = u @ v.T
    own, other = cosine.diag().mean(), cosine[~torch.eye(64, dtype=torch.bool)].mean()
    assert own > other + 0.1
    print(f"{name} on {diet}: a picture is closer to its own caption than to others, on average: {bool(own > other)}")

# %% [markdown]
# ## The contrastive loss
#
# How does one train that? Take a batch of $B$ pairs. For picture $i$, the right answer among the $B$ captions is
# caption $i$: that is a classification problem with $B$ classes, and its loss is cross-entropy. Ask the same question
# of each caption about the pictures, and take the mean (CLIP, section 2.3; the loss is called InfoNCE):
#
# $$\mathcal{L} = -\frac{1}{2B}\sum_{i=1}^{B}\left[\log\frac{e^{\tau \cos_{ii}}}{\sum_j e^{\tau\cos_{ij}}}
#  + \log\frac{e^{\tau \cos_{ii}}}{\sum_j e^{\tau\cos_{ji}}}\right].$$
#
# The *scale* $\tau$ is learned too. Cosines lie in $[-1, 1]$; without a scale the softmax could never be sure of
# anything. A model that knows nothing gives each caption the same chance, so its loss is $\log B$.

# %%
def clip_loss(u, v, scale):
    logits = scale * u @ v.T
    rows = logits - logits.logsumexp(dim=1, keepdim=True)  # picture i: log-probability of each caption
    columns = logits - logits.logsumexp(dim=0, keepdim=True)  # caption j: log-probability of each picture
    return -(rows.diag().mean() + columns.diag().mean()) / 2


for name, diet in HOME.items():
    u, v = EMBEDDED[name, diet]
    scale = experts[name].model.logit_scale.exp().detach()
    loss = clip_loss(u, v, scale)
    torch.testing.assert_close(loss, ClipLoss()(u, v, scale))
    assert loss < np.log(len(u)) - 0.5
    print(f"{name}: loss on 64 held-out {diet} well below log 64 = {np.log(64):.2f}: {bool(loss < np.log(64) - 0.5)}")

# %% [markdown]
# ### Exercise 1.1: a loss for captions that repeat
#
# Difficulty: ★★☆, 10 minutes.
#
# In medicine most reports say the same thing: "no finding". In a batch of 64 films, forty may share one caption. The
# loss above then punishes the model for matching film 3 with the caption of film 7, although both captions are equal.
# Write the loss so that these pairs do not count: `same` is a boolean matrix $(B, B)$, True where captions $i$ and $j$
# are equal (so its diagonal is True). The pair itself stays; other columns (and rows) with the same caption are left
# out of the sums in the denominators.
#
# With `same` equal to the identity matrix, the result must be CLIP's loss.
#
# <details><summary>Hint</summary>
#
# A logit of $-\infty$ contributes $e^{-\infty} = 0$ to the sum. `logits.masked_fill(condition, float("-inf"))`. Which
# entries? Those in `same` that are not on the diagonal.
#
# </details>

# %%
def info_nce(image: torch.Tensor, text: torch.Tensor, scale: float, same: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("1.1", info_nce)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/01_vlms_and_zero_shot.ipynb](solutions/01_vlms_and_zero_shot.ipynb).
#
# ```python
# def info_nce(image: torch.Tensor, text: torch.Tensor, scale: float, same: torch.Tensor) -> torch.Tensor:
#     pairs = torch.arange(len(image))
#     others = same & ~torch.eye(len(image), dtype=torch.bool)
#     logits = (scale * image @ text.T).masked_fill(others, float("-inf"))
#     return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2
# ```
#
# </details>

# %% [markdown]
# ## Zero-shot: a sentence is a classifier
#
# A trained pair of towers can classify pictures into classes that nobody trained it for. Write one sentence per class,
# embed it, and choose the class whose sentence lies closest (CLIP, section 3.1):
#
# $$p(c \mid \text{image}) = \frac{e^{\tau\, u^\top v_c}}{\sum_{c'} e^{\tau\, u^\top v_{c'}}} .$$
#
# One sentence depends on the luck of its wording. So one takes an **ensemble**: several sentences per class, whose
# embeddings are averaged and scaled back to length one. Our tasks: which background does a scene have, how large are
# its shapes, which texture is it, how coarse is it?

# %%
TASKS = {
    ("scenes", "background"): [
        [f"a small {light} {shape} on a {ground} background" for light in ("bright", "dark") for shape in SHAPES]
        for ground in BACKGROUNDS],
    ("scenes", "size"): [
        [f"a {size} {light} {shape}" for light in ("bright", "dark") for shape in SHAPES] for size in SIZES],
    ("textures", "texture"): [
        [f"{scale} {texture}" for scale in SCALES] if texture != "smooth" else ["smooth surface"] for texture in TEXTURES],
    ("textures", "scale"): [[f"{scale} {texture}" for texture in TEXTURES if texture != "smooth"] for scale in SCALES],
}
count = 2000 if full_profile() else 200
HELD = {"scenes": scenes(count, HELD_OUT + 1, single=True), "textures": textures(count, HELD_OUT + 1, single=True)}


def classify(expert, pictures, classes):
    """Embedded pictures (n, d) and one list of sentences per class -> probabilities (n, classes)."""
    heads = torch.stack([F.normalize(expert.encode_text(sentences).mean(dim=0), dim=0) for sentences in classes])
    return (expert.model.logit_scale.exp() * pictures @ heads.T).softmax(dim=1)


rows = []
for name, expert in experts.items():
    embedded = {diet: embed_images(expert, batch.images) for diet, batch in HELD.items()}
    for (diet, task), classes in TASKS.items():
        label = HELD[diet].attributes[task]
        known = label >= 0
        for kind, sentences in (("one sentence", [c[:1] for c in classes]), ("ensemble", classes)):
            right = (classify(expert, embedded[diet], sentences).argmax(dim=1) == label)[known].float().mean().item()
            rows.append((name, diet, task, kind, right, 1 / len(classes)))
accuracy = pd.DataFrame(rows, columns=["expert", "diet", "task", "prompts", "accuracy", "chance"])
accuracy["at home"] = accuracy["expert"].map(HOME) == accuracy["diet"]

# %% tags=["nbval-ignore-output"]
accuracy.pivot_table(index=["expert", "at home", "diet", "task", "chance"], columns="prompts", values="accuracy").round(2)

# %%
for name in HOME:
    mine = accuracy[(accuracy["expert"] == name) & accuracy["at home"] & (accuracy["prompts"] == "ensemble")]
    assert mine["accuracy"].mean() > mine["chance"].mean() + 0.05
    print(f"{name}: zero-shot at home is better than chance: {mine['accuracy'].mean() > mine['chance'].mean() + 0.05}")

# %% [markdown]
# Read the table by rows. *At home*, on the diet that a model was trained on, zero-shot works, although no model was
# ever told that there are five backgrounds or twelve textures. *Away*, on the other model's diet, it does worse on many
# tasks: a first, small domain shift. Whether the ensemble helps differs from task to task; look at both columns.
#
# ## Zero-shot for findings
#
# A film can show several findings at once. So each finding is a question of its own: does the film fit the *positive*
# prompts ("a chest x-ray showing a nodule") better than the *negative* ones ("a chest x-ray without ...")? The package
# holds an ensemble for each side.

# %%
prompts = class_prompts("Nodule")
print("positive:", *prompts.positive, sep="\n  ")
print("negative:", *prompts.negative, sep="\n  ")

# %% [markdown]
# From sentences to two vectors per finding: embed, average, scale to length one. Equal to
# `medbridge.prompts.encode_prompts`?

# %%
def encode_sides(expert, labels):
    sides = []
    for side in ("positive", "negative"):
        means = torch.stack([expert.encode_text(getattr(class_prompts(label), side)).mean(dim=0) for label in labels])
        sides.append(means / means.norm(dim=1, keepdim=True))
    return sides


LABELS = load_benchmark("phantom-A", n_films=1).labels
SIDES = {name: encode_sides(expert, LABELS) for name, expert in experts.items()}
for name, expert in experts.items():
    for mine, package in zip(SIDES[name], encode_prompts(expert, LABELS), strict=True):
        torch.testing.assert_close(mine, package)
print("prompt ensembles equal the package's:", SIDES["tiny-vit"][0].shape)

# %% [markdown]
# Has the model ever read these words? For the tiny experts we know. Their tokenizer can spell every word, but a word
# that was in no caption has no meaning: its pieces were never trained.

# %%
def words(text):
    return [w.strip(",.") for w in text.lower().split()]


print("pieces of 'disc':        ", [experts["tiny-vit"].tokenizer.decode([t]) for t in experts["tiny-vit"].tokenizer.encode("disc")])
print("pieces of 'pneumothorax':", [experts["tiny-vit"].tokenizer.decode([t]) for t in experts["tiny-vit"].tokenizer.encode("pneumothorax")])
print()
print("words of the positive prompts that were in no caption of the pre-training:")
for label in LABELS:
    asked = [w for text in class_prompts(label).positive for w in words(text)]
    strange = [w for w in dict.fromkeys(asked) if w not in WORDS]
    assert label.lower() in strange
    print(f"  {label:<13} {100 * sum(w not in WORDS for w in asked) / len(asked):3.0f} %  {', '.join(strange[:7])} ...")

# %% [markdown]
# ### Exercise 1.2: every prompt a class of its own
#
# Difficulty: ★★☆, 10 minutes.
#
# Averaging the embeddings is one way to use an ensemble. Another keeps all sentences apart: with $n_+$ positive sentences
# $v^+_a$ and $n_-$ negative sentences $v^-_b$,
#
# $$p = \frac{\frac1{n_+}\sum_a e^{\tau u^\top v^+_a}}{\frac1{n_+}\sum_a e^{\tau u^\top v^+_a} + \frac1{n_-}\sum_b e^{\tau u^\top v^-_b}} .$$
#
# One very fitting sentence is then enough. Write it for `image` $(n, d)$, `positive` $(n_+, d)$ and `negative` $(n_-, d)$;
# return $(n,)$ probabilities.
#
# <details><summary>Hint</summary>
#
# Compute both matrices of logits, `scale * image @ side.T`. Take `exp`, then the mean over dimension 1. (For large
# scales `logsumexp` is safer: the mean of exponentials is `logsumexp(dim=1) - log(count)`, and a ratio $a / (a + b)$ is
# the sigmoid of $\log a - \log b$.)
#
# </details>

# %%
def prompt_score(image: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, scale: float = 100.0) -> torch.Tensor:
    raise NotImplementedError


check("1.2", prompt_score)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/01_vlms_and_zero_shot.ipynb](solutions/01_vlms_and_zero_shot.ipynb).
#
# ```python
# def prompt_score(image: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor, scale: float = 100.0) -> torch.Tensor:
#     def evidence(side: torch.Tensor) -> torch.Tensor:
#         return (scale * image @ side.T).logsumexp(dim=1) - np.log(len(side))
#
#     return torch.sigmoid(evidence(positive) - evidence(negative))
# ```
#
# </details>

# %% [markdown]
# ## Chest films
#
# PhantomCXR draws films of three synthetic hospitals. They differ as real hospitals do: hospital **A** is a teaching
# hospital with well exposed films; **B** is an outpatient clinic with younger patients and hard contrast; **C** is an
# intensive care unit, with noisy films of lying patients and many tubes and wires. Most of what follows compares A and
# C. (The first call draws the films, which takes half a minute.)

# %% tags=["nbval-ignore-output"]
SIZE = {"A": 600, "B": 100, "C": 500} if full_profile() else {"A": 240, "B": 30, "C": 190}
HOSPITALS = {h: load_benchmark(f"phantom-{h}", n_films=n) for h, n in SIZE.items()}

# %%
for h, films in HOSPITALS.items():
    assert films.synthetic
    print(f"hospital {h}: {len(films)} synthetic films of {films.table['patient_id'].nunique()} patients")

# %% [markdown]
# What the experts get is the whole film, shrunk to their size. (This notebook uses the whole view only. Notebook 03
# adds windows.) The largest film that we show has 1024 x 1024 pixels; a nodule of 20 pixels is then less than three
# pixels wide.

# %% alt="one synthetic chest film of each of the hospitals A, B and C, as a tiny expert gets it: 128 by 128 pixels" tags=["nbval-ignore-output"]
shrunk = []
for films in HOSPITALS.values():
    film = films.read(0)
    shrunk.append(extract_views(film, whole_box(*film.shape)[None], 128)[0].numpy())
plots.view_strip(np.stack(shrunk), [f"hospital {h}" for h in HOSPITALS], 3, "synthetic films as a tiny expert gets them, 128 x 128")

# %%
whole = FocalSampler(local=False)
FEATURES = {
    h: FeatureCache(progress=False).films(films, list(experts.values()), [[] for _ in experts], whole)
    for h, films in HOSPITALS.items()
}
vectors = {(name, h): f.pooled("embed", k) for k, name in enumerate(experts) for h, f in FEATURES.items()}
print("image embeddings of hospital A's films:", vectors["tiny-vit", "A"].shape)

# %% [markdown]
# Zero-shot from scratch: for each finding a softmax over two classes, positive and negative prompt, at CLIP's scale of
# 100. (A softmax over two classes is a sigmoid of the difference.) With several experts, `medbridge.baselines.ZeroShot`
# averages their logits.

# %%
def logits_of(name, h):
    positive, negative = (side.numpy() for side in SIDES[name])
    unit = vectors[name, h] / np.linalg.norm(vectors[name, h], axis=1, keepdims=True)  # kept in half precision: 1 but for rounding
    return np.stack([100 * unit @ positive.T, 100 * unit @ negative.T])  # (2, n, C)


def two_way(logits):
    odds = np.exp(logits - logits.max(axis=0))
    return odds[0] / odds.sum(axis=0)


mine = two_way(np.mean([logits_of(name, "A") for name in experts], axis=0))
package = ZeroShot(list(experts.values()), LABELS).predict_proba(FEATURES["A"])
np.testing.assert_allclose(mine, package, atol=1e-5)
print("zero-shot from scratch equals medbridge.baselines.ZeroShot:", mine.shape)

# %% [markdown]
# How good is it? The **AUC** of a finding is the chance that a film with it scores higher than a film without it: 0.5
# is guessing, 1 is perfect. The interval comes from a bootstrap that draws patients (notebook 07). Nothing is trained
# here and no prompt was chosen by looking at these films, so every film may be used.

# %%
def judge(h, scores, films=None):
    films = HOSPITALS[h] if films is None else films
    y, mask = films.targets()
    return evaluate(y, scores, mask, films.table["patient_id"], films.labels)


zero = {(name, h): judge(h, two_way(logits_of(name, h))) for name in experts for h in "AC"}

# %% tags=["nbval-ignore-output"]
rows = [(name, h, e.macro["auc"], e.macro["lo"], e.macro["hi"],
         int(((e.per_label["auc_lo"] <= 0.5) & (e.per_label["auc_hi"] >= 0.5)).sum())) for (name, h), e in zero.items()]
pd.DataFrame(rows, columns=["expert", "hospital", "mean AUC", "low", "high", "findings whose interval holds 0.5 (of 8)"]).round(2)

# %% alt="bars with 95 % intervals: zero-shot AUC of each label for each tiny expert, synthetic films of hospital A, with a line at chance" tags=["nbval-ignore-output"]
plots.auc_bars({f"{name}, zero-shot": zero[name, "A"] for name in experts}, f"zero-shot on {len(HOSPITALS['A'])} synthetic films of hospital A")

# %%
for name in HOME:
    means = [zero[name, h].macro["auc"] for h in "AC"]
    assert all(abs(mean - 0.5) < 0.12 for mean in means)
    print(f"{name}: mean zero-shot AUC within 0.12 of chance at both hospitals: {all(abs(m - 0.5) < 0.12 for m in means)}")

# %% [markdown]
# On average this is near chance. A single finding may lie away from 0.5, upwards or downwards; look at its interval,
# and remember that of eight findings one or two may do so by accident. An AUC clearly *below* 0.5 is not a skill either:
# the model has an opinion, and it is about something else.
#
# ## What broke: domain shift in two pictures
#
# The same models, the same code, the same formula. What changed is the data. First, the **pictures**: we place the
# embeddings of general pictures and of films on one plane, the two directions in which they differ most (PCA).

# %%
def general(name):
    return np.concatenate([EMBEDDED[name, diet][0].numpy() for diet in PICTURES])


def separable(a, b, groups):
    """Cross-validated accuracy, mean over both classes, of a linear classifier that tells a from b."""
    x, y = np.concatenate([a, b]), np.r_[np.zeros(len(a)), np.ones(len(b))]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    guess = cross_val_predict(probe, x, y, cv=GroupKFold(5), groups=groups)
    return np.mean([(guess[y == c] == c).mean() for c in (0, 1)])


for name in experts:
    films_of = np.concatenate([vectors[name, h] for h in "AC"])
    patients = np.concatenate([HOSPITALS[h].table["patient_id"] for h in "AC"])
    told = separable(general(name), films_of, np.concatenate([[f"picture {i}" for i in range(128)], patients]))
    between = separable(vectors[name, "A"], vectors[name, "C"], patients)
    assert told > 0.85 and between > 0.6
    print(f"{name}: a linear classifier tells films from general pictures (more than 85 % right): {told > 0.85};"
          f" hospital A from C (more than 60 %): {between > 0.6}")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(5.2 * len(experts), 4.4), layout="constrained")
axes = fig.subplots(1, len(experts), squeeze=False)[0]
for ax, name in zip(axes, experts, strict=True):
    clouds = {diet: EMBEDDED[name, diet][0].numpy() for diet in PICTURES} | {f"films, hospital {h}": vectors[name, h][:60] for h in "ABC"}
    plane = PCA(2).fit(np.concatenate(list(clouds.values())))
    for i, (label, x) in enumerate(clouds.items()):
        ax.scatter(*plane.transform(x).T, s=12, color=COLOURS[i], label=label, alpha=0.75, marker="o" if i > 1 else "x", linewidths=0.9)
    ax.set(title=name, xlabel="first component", ylabel="second component")
    ax.spines[["top", "right"]].set_visible(False)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9, markerscale=1.6)
fig.suptitle("image embeddings: general synthetic pictures (x) and synthetic chest films (dots)", fontsize=11)
fig

# %% [markdown]
# Films gather in a small region of their own. To a model that has only ever sorted shapes or textures, all films look
# alike: chest, chest, chest. What makes one film differ from another, a few pale pixels beside a rib, is a small step
# inside that region. Within it, the hospitals lie apart: how a film was taken is plainer to the model than what is
# wrong with the patient.
#
# Second, **pictures and words together**. Does an image lie closer to a text that is *true* of it than to one that is
# not? For general pictures, true means its own caption. For films, true means the positive prompt of a finding that is
# present. We subtract each text's mean over the pictures, so that only what changes from picture to picture is left.

# %%
def true_and_false(name, h=None):
    """Centred cosines (n, m) of a model's home pictures and captions, or of a hospital's films and findings; and what is true."""
    if h is None:
        u, v = EMBEDDED[name, HOME.get(name, "scenes")]
        cosine, true = (u @ v.T).numpy(), np.eye(len(u), dtype=bool)
    else:
        cosine, true = vectors[name, h] @ SIDES[name][0].numpy().T, HOSPITALS[h].targets()[0] == 1
    return cosine - cosine.mean(axis=0), true


gap = {(name, h): roc_auc_score(true.ravel(), cosine.ravel())
       for name in experts for h in (None, "A") for cosine, true in [true_and_false(name, h)]}
for name in HOME:
    assert gap[name, None] > 0.75 and abs(gap[name, "A"] - 0.5) < 0.15
    print(f"{name}: true texts score higher than false ones at home (AUC above 0.75): {gap[name, None] > 0.75};"
          f" on films (AUC within 0.15 of chance): {abs(gap[name, 'A'] - 0.5) < 0.15}")

# %% alt="densities of the cosine similarity of pictures with true and with false texts, one row per expert: apart for its own synthetic pictures, nearly on top of each other for synthetic chest films" tags=["nbval-ignore-output"]
fig = Figure(figsize=(9.6, 2.9 * len(experts)), layout="constrained")
axes = fig.subplots(len(experts), 2, squeeze=False, sharex="row")
for row, name in zip(axes, experts, strict=True):
    for ax, h in zip(row, (None, "A"), strict=True):
        cosine, true = true_and_false(name, h)
        for values, colour, line, text in ((cosine[~true], COLOURS[7], "--", "text is false"), (cosine[true], COLOURS[1], "-", "text is true")):
            sns.kdeplot(x=values.ravel(), ax=ax, color=colour, fill=True, alpha=0.35, linestyle=line, linewidth=1.5, label=text)
        place = f"{HOME.get(name, 'scenes')} and captions" if h is None else "chest films and findings"
        ax.set(title=f"{name}, synthetic {place}: AUC {gap[name, h]:.2f}", ylabel="density", yticks=[])
        ax.title.set_fontsize(10)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in row:
        ax.set_xlabel("cosine similarity, centred")
fig.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
fig

# %% [markdown]
# Left, at home, the two distributions come apart. Right, on films, they lie on top of each other, and they are narrow:
# the words mean nothing for these pictures.
#
# ## The frozen features still know something
#
# Zero-shot fails for two reasons that should be kept apart. Perhaps the image tower does not *see* the findings. Or it
# sees something, and the *words* do not point to it. A **linear probe** decides: leave the image tower as it is, and fit
# a logistic regression on its frozen features, with labels. No words are needed.
#
# From here on something is trained, so we keep to the splits: the probe is fitted to train and validation films of
# hospital A (its strength of regularisation is fixed beforehand, nothing is chosen), and judged on the test films, of
# patients that it never met.

# %%
STRENGTH = 0.1


def part(h, which):
    films = HOSPITALS[h]
    rows = films.table["split"].isin(which).to_numpy()
    return FeatureCache(progress=False).films(films.take(rows), list(experts.values()), [[] for _ in experts], whole)


fit_on = {h: part(h, ("train", "val")) for h in "AC"}
test_on = {h: part(h, ("test",)) for h in "AC"}
probes = {h: LinearProbe(strengths=(STRENGTH,)).fit(part(h, ("train",)), part(h, ("val",))) for h in "AC"}  # it learns from both

x, x_test = (np.concatenate([f.pooled("summary", k) for k in range(len(experts))], axis=1) for f in (fit_on["A"], test_on["A"]))
heart = LABELS.index("Cardiomegaly")
by_hand = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000)).fit(x, fit_on["A"].benchmark.targets()[0][:, heart])
np.testing.assert_allclose(by_hand.predict_proba(x_test)[:, 1], probes["A"].predict_proba(test_on["A"])[:, heart], atol=1e-4)
print(f"probe of hospital A: {len(fit_on['A'])} films to fit, {len(test_on['A'])} to test, {x.shape[1]} frozen features a film")

# %%
def on_test(h, scores):
    return judge(h, scores, test_on[h].benchmark)


zero_test = ZeroShot(list(experts.values()), LABELS).predict_proba(test_on["A"])
probe_test = probes["A"].predict_proba(test_on["A"])
compared = {"zero-shot": on_test("A", zero_test), "linear probe": on_test("A", probe_test)}
y, mask = test_on["A"].benchmark.targets()
difference = paired_difference(y, probe_test, zero_test, mask, test_on["A"].benchmark.table["patient_id"], labels=LABELS)

# %% tags=["nbval-ignore-output"]
for name, e in compared.items():
    print(f"{name:<13} mean AUC {e.macro['auc']:.2f} [{e.macro['lo']:.2f}, {e.macro['hi']:.2f}]")
print("linear probe (A) minus zero-shot (B), same films:", difference.verdict)

# %% alt="bars with 95 % intervals: test AUC of each label for zero-shot and for a linear probe on the same frozen experts, synthetic films of hospital A" tags=["nbval-ignore-output"]
plots.auc_bars(compared, f"the same frozen experts on {len(test_on['A'])} synthetic test films of hospital A")

# %%
row = compared["linear probe"].per_label.set_index("label").loc["Cardiomegaly"]
assert row["auc_lo"] > 0.5
print("linear probe, Cardiomegaly (an enlarged heart): the interval of its AUC lies above 0.5:", bool(row["auc_lo"] > 0.5))

# %% [markdown]
# An enlarged heart is the clearest case: a large change, visible in the shrunk film. The frozen features hold it, and
# the probe reads it; the zero-shot score of the same features is printed beside it. Small findings stay hard for the
# probe as well: a nodule of two or three pixels is hardly there in the whole view, and no classifier brings it back. So
# there are two things to mend:
#
# - **the words**: learn what to look for from labelled films, and let class scores move away from prompts that mean
#   nothing (notebooks 04 and 06);
# - **the view**: look closer (notebook 03).
#
# ## From hospital to hospital
#
# A second, smaller domain shift: the probe is fitted at hospital A and used at hospital C.

# %%
table = {(a, b): on_test(b, probes[a].predict_proba(test_on[b])) for a in "AC" for b in "AC"}


def draws(a, b):
    films = test_on[b].benchmark
    y, mask = films.targets()
    return np.nanmean(bootstrap_auc(y, probes[a].predict_proba(test_on[b]), mask, films.table["patient_id"], seed=ord(b)), axis=1)


def interval(point, samples):
    low, high = np.percentile(samples, (2.5, 97.5))
    told = "the interval holds zero, nothing is shown" if low <= 0 <= high else "the interval does not hold zero"
    return f"{point:+.2f} [{low:+.2f}, {high:+.2f}]: {told}"


point = {pair: e.macro["auc"] for pair, e in table.items()}
sample = {pair: draws(*pair) for pair in table}

# %% tags=["nbval-ignore-output"]
print("mean AUC of the linear probe, by hospital")
for (a, b), e in table.items():
    print(f"  fitted at {a}, tested at {b}: {e.macro['auc']:.2f} [{e.macro['lo']:.2f}, {e.macro['hi']:.2f}]")
print("\nfitted at A: tested at A minus tested at C")
print(" ", interval(point["A", "A"] - point["A", "C"], sample["A", "A"] - sample["A", "C"]))
print("\nhome minus away: probe of the same hospital minus probe of the other, on the same films, mean over both hospitals")
home = (point["A", "A"] - point["C", "A"] + point["C", "C"] - point["A", "C"]) / 2
print(" ", interval(home, (sample["A", "A"] - sample["C", "A"] + sample["C", "C"] - sample["A", "C"]) / 2))

# %% [markdown]
# Read this with care; there are two questions, and they are often confused.
#
# - *Does the probe of A do worse at C?* That is the first difference. But C's films are noisier and full of tubes: they
#   may simply be **harder** for everybody, also for a probe that was fitted there.
# - *Does a probe lose because it comes from elsewhere?* That is the second difference, on the same films for both
#   probes. Only this is the price of the shift itself.
#
# With this few test films the intervals are wide, and where one holds zero, no difference is shown, whatever the sign.
# The full profile draws more films; notebook 09 returns to the question with the whole method. There is one more cost
# that no AUC shows: probabilities.

# %% tags=["nbval-ignore-output"]
rows = []
for b in "AC":
    y, _ = test_on[b].benchmark.targets()
    rows.append((b, y.mean(), probes["A"].predict_proba(test_on[b]).mean()))
pd.DataFrame(rows, columns=["tested at", "findings per film and label: true share", "the probe of A says, on average"]).round(2)

# %% [markdown]
# An AUC only asks for the right order. A probability should also have the right size, and the shares differ between
# hospitals, because their patients do. Compare the two columns. Notebook 07 repairs this.

# %% [markdown]
# ### Turn the knobs yourself
#
# Between hospitals many things change at once. On one film they can be changed one by one: exposure, contrast, grain. A detector
# turns density into grey by a curve close to a sigmoid, so in logits of grey values a brighter exposure is a shift, contrast is a
# factor, and grain is noise (`medbridge.extras.shift`). The patient stays the same; only the X-ray room changes. Does the probe of
# hospital A stay calm?

# %%
def probe_of_a(film):
    """Probabilities (C,) of hospital A's probe for one decoded film."""
    box = whole_box(*film.shape)[None]
    summaries = [encode_views(e, extract_views(film, box, *e.view_kind), []).summary.float().numpy() for e in experts.values()]
    weights, biases = probes["A"].modules
    return 1 / (1 + np.exp(-(weights @ np.concatenate(summaries, axis=1)[0] + biases)))


dial_film = test_on["A"].benchmark.read(0)
np.testing.assert_allclose(probe_of_a(dial_film), probes["A"].predict_proba(test_on["A"])[0], atol=0.01)
moved = {name: np.abs(probe_of_a(shift_film(dial_film, **knobs)) - probe_of_a(dial_film)).max()
         for name, knobs in {"none": {}, "exposure": {"exposure": 1.0}, "contrast": {"contrast": 0.6}, "grain": {"noise": 0.5}}.items()}
assert moved["none"] == 0 and max(moved.values()) > 0.1
print("one film, one patient: a change of the room alone moves some probability by more than 0.1:", bool(max(moved.values()) > 0.1))

# %% tags=["nbval-ignore-output"]
explore_shift(probe_of_a, dial_film, LABELS, "a synthetic test film of hospital A, linear probe of hospital A")

# %% [markdown]
# Without a running kernel nothing moves; here is one setting of the dials.

# %% alt="a synthetic film before and after exposure, contrast and grain are turned, and the scores of every label before and after" tags=["nbval-ignore-output"]
darker = shift_film(dial_film, exposure=-0.8, contrast=0.7, noise=0.3)
plots.shifted_film(dial_film, darker, probe_of_a(dial_film), probe_of_a(darker), LABELS,
                           "a synthetic test film of hospital A: exposure -0.8, contrast 0.7, noise 0.3")

# %% [markdown]
# ### A playground for prompts
#
# Type a prompt (and, if you like, a second one against it), and see two things. Left: how alike it is to films with a finding and to
# films without. Right: how alike it is to the labels' own prompts. Try words that the models know, such as *a large bright blob in
# the centre*, and words that they do not. The films are those of hospital A that the probe was fitted to, not the test films: what
# you choose here by looking, you have chosen on training data.

# %% tags=["nbval-ignore-output"]
explore_prompts(list(experts.values()), fit_on["A"])

# %% [markdown]
# Without a running kernel, one prompt:

# %% alt="left: films with and without Cardiomegaly by their similarity to a typed prompt; right: bars of the prompt's similarity to each label's own prompt; synthetic films of hospital A" tags=["nbval-ignore-output"]
prompt, where = "a large bright blob in the centre", fit_on["A"].benchmark
text = experts["tiny-vit"].encode_text([prompt])[0].float().numpy()
plots.prompt_similarity(
    fit_on["A"].pooled("embed", 0) @ text, where.table["Cardiomegaly"].to_numpy(), "Cardiomegaly", SIDES["tiny-vit"][0].numpy() @ text, LABELS,
    f"{len(where)} synthetic films of hospital A: {prompt!r}, tiny-vit")

# %% [markdown]
# The bars on the right show that this prompt is near the label's own prompts; the dots on the left show that this says little about
# films: both groups lie over each other. And if you search over many prompts, you find a good one by luck.

# %% [markdown]
# ### Exercise 1.3: better prompts
#
# Difficulty: ★★☆, 15 minutes.
#
# Write prompts for *Cardiomegaly*, an enlarged heart, for models that have never read that word. Use words that they
# know (the set `WORDS`): shapes, sizes, places, brightness. Both sides need at least two sentences, and no sentence may
# stand on both sides.
#
# The cell prints the AUC on **validation** films. Try as many prompts as you like there. The test films stay out of it:
# if you chose prompts by their test AUC, that number would flatter you. And look at how many films with the finding
# there are: with so few, a better number may be luck.
#
# <details><summary>Hint</summary>
#
# `ClassPrompts(positive=("a large bright ...", ...), negative=("a small bright ...", ...))`. Where does the heart lie,
# and what changes when it is large?
#
# </details>

# %%
my_prompts = None  # ClassPrompts(positive=(...), negative=(...))
check("1.3", my_prompts)

# %% tags=["nbval-ignore-output"]
def validation_auc(prompts):
    """Zero-shot AUC of Cardiomegaly, mean logit of the tiny experts, on the validation films of hospital A."""
    films = HOSPITALS["A"].split("val")
    features = FeatureCache(progress=False).films(films, list(experts.values()), [[] for _ in experts], whole)
    score = ZeroShot(list(experts.values()), ["Cardiomegaly"], prompts={"Cardiomegaly": prompts}).predict_proba(features)[:, 0]
    truth = films.table["Cardiomegaly"].to_numpy()
    return f"{roc_auc_score(truth, score):.2f} ({int(truth.sum())} of {len(truth)} films have it)"


print("default prompts, validation AUC:", validation_auc(class_prompts("Cardiomegaly")))
if my_prompts is not None:
    print("your prompts, validation AUC:   ", validation_auc(my_prompts))

# %% [markdown]
# <details><summary>Solution</summary>
#
# One of many. Also in [solutions/01_vlms_and_zero_shot.ipynb](solutions/01_vlms_and_zero_shot.ipynb).
#
# ```python
# my_prompts = ClassPrompts(
#     positive=("a large bright blob in the bottom", "a large bright blurry disc in the centre", "a large bright blob in the centre"),
#     negative=("a small bright blob in the bottom", "a small bright blurry disc in the centre", "a medium bright blob in the centre"),
# )
# ```
#
# Sentences in known words need not be *right*: no scene of the pre-training shows a bright heart between two dark
# lungs. Prompts are a way to ask; they cannot make a model see what it never learned.
#
# </details>

# %% [markdown]
# ## Summary
#
# - A VLM has an image tower and a text tower with one shared space. The contrastive loss makes each picture choose its
#   own caption, and each caption its own picture; you wrote it and it equals open_clip's.
# - Zero-shot classification is a softmax over cosine similarities with sentences. At home it works.
# - On chest films it is near chance: words that were never read, pictures that lie in a small region of their own.
# - The frozen features still hold information that labels can bring out: a linear probe finds an enlarged heart.
# - A lower AUC at another hospital mixes two things: shift, and harder films. Compare on the same films, and look at
#   the interval.
#
# Next: [02 Chest films, labels, patients and splits](02_films_labels_splits.ipynb)
