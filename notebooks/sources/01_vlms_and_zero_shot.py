# %% [markdown]
# # 01 Vision-language models and zero-shot
#
# {{COLAB}}
#
# **What you will build:** the two ideas that every vision-language model (VLM) rests on: the contrastive loss
# that ties pictures to sentences, and *zero-shot* classification, in which a sentence is the classifier. Both
# work on pictures like those of the training, and break on chest films. This gap is called *domain shift*. At
# the end you find that the frozen models still hold something useful about films. MedBridge brings it out.
#
# **For research and education, not for clinical use.** All pictures and films here are *synthetic*.
#
# - **Prerequisites:** [00 Start here](00_start_here.ipynb); softmax, cross-entropy, logistic regression.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores,
#   about one on a Colab T4 (an estimate).
# - **Modules:** `medbridge/prompts.py`, `medbridge/baselines/zero_shot.py` · **test:**
#   `tests/test_prompts.py`
# - **Paper:** [MedBridge, arXiv 2505.21698](https://arxiv.org/abs/2505.21698); Radford et al.,
#   [CLIP, arXiv 2103.00020](https://arxiv.org/abs/2103.00020), sections 2.3 and 3.1.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import textwrap

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from medbridge import create_expert, load_benchmark
from medbridge.course import check, full_profile, seed_everything
from medbridge.viz import plots
from medbridge.viz.drawing import COLOURS, chart, panels

rng = seed_everything(0)

# %% [markdown]
# ## What a vision-language model is
#
# A VLM of the CLIP family has two towers. The **image tower** turns a picture into a vector; the **text
# tower** turns a sentence into a vector of the same size. Both are scaled to length one, so their dot product
# is a cosine. Training makes a picture and its own caption point the same way:
#
# $$u_i = \frac{f(\text{image}_i)}{\lVert f(\text{image}_i)\rVert},
# \qquad v_j = \frac{g(\text{text}_j)}{\lVert g(\text{text}_j)\rVert},
# \qquad \cos_{ij} = u_i^\top v_j .$$
#
# Real VLMs saw hundreds of millions of pairs from the web. Ours are the shipped *tiny experts*, so that
# everything runs without a download. `tiny-vit` learned from drawn **scenes** (shapes on a background),
# `tiny-resnet` from drawn **textures**. We know every picture and every word that they saw.

# %%
experts = {name: create_expert(name) for name in ("tiny-vit", "tiny-resnet")}
HOME = {"tiny-vit": "scenes", "tiny-resnet": "textures"}
for name, expert in experts.items():
    count = sum(p.numel() for p in expert.parameters()) / 1e6
    print(f"{name:<12} {count:.1f} million parameters, pictures of {expert.size} x {expert.size}, shared space of {expert.text_dim} numbers")
    assert not any(p.requires_grad for p in expert.parameters())

# %% [markdown]
# **Real models.** With `MEDBRIDGE_PROFILE=full` the cells below also run with OpenAI's CLIP and with
# BiomedCLIP, from the hub or from the folder that `MEDBRIDGE_WEIGHTS` names. Hospitals often have no
# internet; then the error says which file to put where. In the default profile we only look at that message:

# %% tags=["nbval-ignore-output"]
import logging
from unittest.mock import patch

from medbridge.errors import ExpertError

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
# ### Pictures with captions
#
# These pictures come from the generator of the pre-training pictures, with seeds that training never used:
# they are *held out*.

# %%
import sys

sys.path.insert(0, "../scripts")
from procedural_images import BACKGROUNDS, SCALES, SHAPES, SIZES, TEXTURES, WORDS, scenes, textures

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
# The image tower takes normalised pictures of its own size; then follow one forward pass and a division by
# the length.

# %%
def embed_images(expert, images):
    """RGB pictures (n, 3, H, W) in [0, 1] -> unit vectors (n, d)."""
    if images.shape[-1] != expert.size:
        images = F.interpolate(images, (expert.size, expert.size), mode="bilinear", antialias=True)
    with torch.inference_mode():
        parts = [expert.model.encode_image((part - expert.mean) / expert.std) for part in images.split(100)]
    vectors = torch.cat(parts).float()
    return vectors / vectors.norm(dim=1, keepdim=True)


# %%
EMBEDDED = {}
for name, expert in experts.items():
    for diet, batch in PICTURES.items():
        EMBEDDED[name, diet] = embed_images(expert, batch.images), expert.encode_text(batch.captions)
    if expert.size == 128:
        x = (PICTURES["scenes"].images[:4] - expert.mean) / expert.std
        torch.testing.assert_close(EMBEDDED[name, "scenes"][0][:4], expert.encode_maps(x, []).embed, atol=1e-5, rtol=1e-4)
print("image embeddings equal the package's")

# %% [markdown]
# We compare six pictures with their six captions. On a bright diagonal each picture is closest to its own
# caption.

# %% alt="six synthetic scenes above a table of cosine similarities with their six captions, tiny-vit; the diagonal holds the true pairs" tags=["nbval-ignore-output"]
import seaborn as sns


def similarity_figure(images, captions, cosine, title):
    fig, axes = chart(9.6, 6.4, title, [list("abcdef"), ["cosine"] * 6], height_ratios=(1, 3.2))
    for name, image in zip("abcdef", images, strict=True):
        axes[name].imshow(image.permute(1, 2, 0))
        axes[name].set_axis_off()
    sns.heatmap(cosine, annot=True, fmt=".2f", cmap="viridis", cbar=False, ax=axes["cosine"], xticklabels=False,
                yticklabels=[textwrap.fill(c, 36) for c in captions], annot_kws={"fontsize": 9})
    axes["cosine"].tick_params(axis="y", labelsize=8, rotation=0)
    return fig



u, v = EMBEDDED["tiny-vit", "scenes"]
similarity_figure(PICTURES["scenes"].images[:6], PICTURES["scenes"].captions[:6], (v[:6] @ u[:6].T).numpy(),
                  "tiny-vit: cosine similarity of six synthetic scenes (columns) and their captions (rows)")

# %% alt="six synthetic textures above a table of cosine similarities with their six captions, tiny-resnet; the diagonal holds the true pairs" tags=["nbval-ignore-output"]
u, v = EMBEDDED["tiny-resnet", "textures"]
similarity_figure(PICTURES["textures"].images[:6], PICTURES["textures"].captions[:6], (v[:6] @ u[:6].T).numpy(),
                  "tiny-resnet: cosine similarity of six synthetic textures (columns) and their captions (rows)")

# %% [markdown]
# Six are too few to judge. Over 64 pairs:

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
# Take a batch of $B$ pairs. For picture $i$, the right answer among the $B$ captions is caption $i$. That is
# a classification with $B$ classes, and its loss is cross-entropy. Ask each caption the same about the
# pictures, and take the mean (CLIP, section 2.3; the loss is called InfoNCE):
#
# $$\mathcal{L} = -\frac{1}{2B}\sum_{i=1}^{B}\left[\log\frac{e^{\tau \cos_{ii}}}{\sum_j e^{\tau\cos_{ij}}}
#  + \log\frac{e^{\tau \cos_{ii}}}{\sum_j e^{\tau\cos_{ji}}}\right].$$
#
# The *scale* $\tau$ is learned too; without it the softmax of cosines could never be sure of anything. A
# model that knows nothing has the loss $\log B$.

# %%
from open_clip.loss import ClipLoss


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
# ★★☆, 10 minutes.
#
# In medicine most reports say "no finding". The loss above then punishes the model for matching film 3 with
# the caption of film 7, although both captions are equal. Write the loss so that these pairs do not count.
# `same` is a boolean matrix $(B, B)$, True where captions $i$ and $j$ are equal. The pair itself stays; the
# denominators leave out other columns (and rows) with the same caption. With `same` equal to the identity
# matrix, the result must be CLIP's loss.
#
# <details><summary>Hint</summary>
#
# A logit of $-\infty$ contributes $e^{-\infty} = 0$ to the sum.
# `logits.masked_fill(condition, float("-inf"))`. Which entries? Those in `same` that are not on the diagonal.
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
# A trained pair of towers can sort pictures into classes that nobody trained it for. Write one sentence per
# class, embed it, and choose the class whose sentence lies closest (CLIP, section 3.1):
#
# $$p(c \mid \text{image}) = \frac{e^{\tau\, u^\top v_c}}{\sum_{c'} e^{\tau\, u^\top v_{c'}}} .$$
#
# One sentence depends on the luck of its wording. So an **ensemble** averages the embeddings of several
# sentences per class. Our tasks: which background does a scene have, how large are its shapes, which texture
# is it, how coarse is it?

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

# %%
count = 2000 if full_profile() else 200
HELD = {"scenes": scenes(count, HELD_OUT + 1, single=True), "textures": textures(count, HELD_OUT + 1, single=True)}


def classify(expert, pictures, classes):
    """Embedded pictures (n, d) and one list of sentences per class -> probabilities (n, classes)."""
    heads = torch.stack([F.normalize(expert.encode_text(sentences).mean(dim=0), dim=0) for sentences in classes])
    return (expert.model.logit_scale.exp() * pictures @ heads.T).softmax(dim=1)


# %%
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
# Read the table by rows. *At home*, on the pictures that a model was trained on, zero-shot works. *Away*, on
# the other model's pictures, it is near chance: a first domain shift. Whether the ensemble helps differs from
# task to task.
#
# ### Zero-shot for findings
#
# A film can show several findings at once. So each finding is a question of its own: does the film fit the
# *positive* prompts better than the *negative* ones? The package holds an ensemble for each side.

# %%
from medbridge.prompts import class_prompts, encode_prompts

prompts = class_prompts("Nodule")
print("positive:", *prompts.positive, sep="\n  ")
print("negative:", *prompts.negative, sep="\n  ")

# %% [markdown]
# We turn them into two vectors per finding: embed, average, scale to length one.

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
# Has the model ever read these words? Its tokenizer can spell every word, but a word that was in no caption
# has no meaning.

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
# ★★☆, 10 minutes.
#
# Another way to use an ensemble keeps all sentences apart: with $n_+$ positive sentences $v^+_a$ and $n_-$
# negative sentences $v^-_b$,
#
# $$p = \frac{\frac1{n_+}\sum_a e^{\tau u^\top v^+_a}}
# {\frac1{n_+}\sum_a e^{\tau u^\top v^+_a} + \frac1{n_-}\sum_b e^{\tau u^\top v^-_b}} .$$
#
# One very fitting sentence is then enough. Write it for `image` $(n, d)$, `positive` $(n_+, d)$ and
# `negative` $(n_-, d)$; return $(n,)$ probabilities.
#
# <details><summary>Hint</summary>
#
# Compute both matrices of logits, `scale * image @ side.T`. The logarithm of a mean of exponentials is
# `logsumexp(dim=1) - log(count)`, and a ratio $a / (a + b)$ is the sigmoid of $\log a - \log b$.
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
# def prompt_score(image, positive, negative, scale=100.0):
#     def evidence(side: torch.Tensor) -> torch.Tensor:
#         return (scale * image @ side.T).logsumexp(dim=1) - np.log(len(side))
#
#     return torch.sigmoid(evidence(positive) - evidence(negative))
# ```
#
# </details>

# %% [markdown]
# ## Chest films: what breaks
#
# PhantomCXR draws films of three synthetic hospitals. **A** is a teaching hospital with well exposed films.
# **B** is an outpatient clinic with younger patients and hard contrast. **C** is an intensive care unit, with
# noisy films of lying patients and many tubes.

# %% tags=["nbval-ignore-output"]
SIZE = {"A": 600, "B": 100, "C": 500} if full_profile() else {"A": 240, "B": 30, "C": 190}
HOSPITALS = {h: load_benchmark(f"phantom-{h}", n_films=n) for h, n in SIZE.items()}

# %%
for h, films in HOSPITALS.items():
    assert films.synthetic
    print(f"hospital {h}: {len(films)} synthetic films of {films.table['patient_id'].nunique()} patients")

# %% [markdown]
# The experts get the whole film, shrunk to their size. (Notebook 03 adds windows.) A nodule of 20 pixels in a
# film of 1024 x 1024 is then less than three pixels wide.

# %% alt="one synthetic chest film of each of the hospitals A, B and C, as a tiny expert gets it: 128 by 128 pixels" tags=["nbval-ignore-output"]
from medbridge.focal import extract_views, whole_box

shrunk = []
for films in HOSPITALS.values():
    film = films.read(0)
    shrunk.append(extract_views(film, whole_box(*film.shape)[None], 128)[0].numpy())
plots.view_strip(np.stack(shrunk), [f"hospital {h}" for h in HOSPITALS], 3, "synthetic films as a tiny expert gets them, 128 x 128")

# %%
from medbridge import FeatureCache, FocalSampler

whole = FocalSampler(local=False)
FEATURES = {
    h: FeatureCache(progress=False).films(films, list(experts.values()), [[] for _ in experts], whole)
    for h, films in HOSPITALS.items()
}
vectors = {(name, h): f.pooled("embed", k) for k, name in enumerate(experts) for h, f in FEATURES.items()}
print("image embeddings of hospital A's films:", vectors["tiny-vit", "A"].shape)

# %% [markdown]
# Zero-shot from scratch is a softmax per finding over its positive and negative prompt, at CLIP's scale of
# 100. With several experts, `medbridge.baselines.ZeroShot` averages their logits.

# %%
def logits_of(name, h):
    positive, negative = (side.numpy() for side in SIDES[name])
    unit = vectors[name, h] / np.linalg.norm(vectors[name, h], axis=1, keepdims=True)  # kept in half precision: 1 but for rounding
    return np.stack([100 * unit @ positive.T, 100 * unit @ negative.T])  # (2, n, C)


def two_way(logits):
    odds = np.exp(logits - logits.max(axis=0))
    return odds[0] / odds.sum(axis=0)


# %%
from medbridge.baselines import LinearProbe, ZeroShot

mine = two_way(np.mean([logits_of(name, "A") for name in experts], axis=0))
package = ZeroShot(list(experts.values()), LABELS).predict_proba(FEATURES["A"])
np.testing.assert_allclose(mine, package, atol=1e-5)
print("zero-shot from scratch equals medbridge.baselines.ZeroShot:", mine.shape)

# %% [markdown]
# How good is it? The **AUC** of a finding is the chance that a film with it scores higher than a film
# without: 0.5 is guessing, 1 is perfect. The interval comes from a bootstrap over patients (notebook 07).

# %%
from medbridge.metrics.evaluate import evaluate


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
# On average this is near chance. Of eight findings one or two may lie away from 0.5 by accident. An AUC
# clearly *below* 0.5 is no skill either: the model has an opinion, and it is about something else.
#
# ### Domain shift in two pictures
#
# The models, the code and the formula are the same; the data changed. First, the **pictures**: we place the
# embeddings of general pictures and of films on one plane, by the two directions in which they differ most
# (PCA).

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def general(name):
    return np.concatenate([EMBEDDED[name, diet][0].numpy() for diet in PICTURES])


def separable(a, b, groups):
    """Cross-validated accuracy, mean over both classes, of a linear classifier that tells a from b."""
    x, y = np.concatenate([a, b]), np.r_[np.zeros(len(a)), np.ones(len(b))]
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    guess = cross_val_predict(probe, x, y, cv=GroupKFold(5), groups=groups)
    return np.mean([(guess[y == c] == c).mean() for c in (0, 1)])


# %%
for name in experts:
    films_of = np.concatenate([vectors[name, h] for h in "AC"])
    patients = np.concatenate([HOSPITALS[h].table["patient_id"] for h in "AC"])
    apart = separable(general(name), films_of, np.concatenate([[f"picture {i}" for i in range(128)], patients]))
    between = separable(vectors[name, "A"], vectors[name, "C"], patients)
    assert apart > 0.85 and between > 0.6
    print(f"{name}: a linear classifier tells films from general pictures (more than 85 % right): {apart > 0.85};"
          f" hospital A from C (more than 60 %): {between > 0.6}")

# %% alt="image embeddings of each expert on a plane: general synthetic pictures spread widely, synthetic chest films of three hospitals gather in a narrow band" tags=["nbval-ignore-output"]
from sklearn.decomposition import PCA

fig, axes = panels(len(experts), len(experts), (5.2, 4.4), "image embeddings: general synthetic pictures (x) and synthetic chest films (dots)")
for ax, name in zip(axes, experts, strict=True):
    clouds = {diet: EMBEDDED[name, diet][0].numpy() for diet in PICTURES} | {f"films, hospital {h}": vectors[name, h][:60] for h in "ABC"}
    plane = PCA(2).fit(np.concatenate(list(clouds.values())))
    for i, (label, x) in enumerate(clouds.items()):
        ax.scatter(*plane.transform(x).T, s=12, color=COLOURS[i], label=label, alpha=0.75, marker="o" if i > 1 else "x", linewidths=0.9)
    ax.set(title=name, xlabel="first component", ylabel="second component")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9, markerscale=1.6)
fig

# %% [markdown]
# Films gather in a small region of their own. To a model that has only sorted shapes or textures, all films
# look alike. A few pale pixels beside a rib are a small step inside that region, and the hospitals lie apart
# in it.
#
# Second, **pictures and words together**. Does an image lie closer to a text that is *true* of it than to one
# that is not? For general pictures, true means its own caption. For films, true means the positive prompt of
# a finding that is present.

# %%
def true_and_false(name, h=None):
    """Centred cosines (n, m) of a model's home pictures and captions, or of a hospital's films and findings; and what is true."""
    if h is None:
        u, v = EMBEDDED[name, HOME.get(name, "scenes")]
        cosine, true = (u @ v.T).numpy(), np.eye(len(u), dtype=bool)
    else:
        cosine, true = vectors[name, h] @ SIDES[name][0].numpy().T, HOSPITALS[h].targets()[0] == 1
    return cosine - cosine.mean(axis=0), true


# %%
from sklearn.metrics import roc_auc_score

gap = {(name, h): roc_auc_score(true.ravel(), cosine.ravel())
       for name in experts for h in (None, "A") for cosine, true in [true_and_false(name, h)]}
for name in HOME:
    assert gap[name, None] > 0.75 and abs(gap[name, "A"] - 0.5) < 0.15
    print(f"{name}: true texts score higher than false ones at home (AUC above 0.75): {gap[name, None] > 0.75};"
          f" on films (AUC within 0.15 of chance): {abs(gap[name, 'A'] - 0.5) < 0.15}")

# %% alt="densities of the cosine similarity of pictures with true and with false texts, one row per expert: apart for its own synthetic pictures, nearly on top of each other for synthetic chest films" tags=["nbval-ignore-output"]
fig, axes = panels(2 * len(experts), 2, (4.8, 2.9))
for ax, (name, h) in zip(axes, [(name, h) for name in experts for h in (None, "A")], strict=True):
    cosine, true = true_and_false(name, h)
    for values, colour, line, text in ((cosine[~true], COLOURS[7], "--", "text is false"), (cosine[true], COLOURS[1], "-", "text is true")):
        sns.kdeplot(x=values.ravel(), ax=ax, color=colour, fill=True, alpha=0.35, linestyle=line, linewidth=1.5, label=text)
    place = f"{HOME.get(name, 'scenes')} and captions" if h is None else "chest films and findings"
    ax.set_title(f"{name}, synthetic {place}: AUC {gap[name, h]:.2f}", fontsize=9)
    ax.set(ylabel="density", yticks=[], xlim=(-0.9, 1.3), xlabel="cosine similarity, centred")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
fig

# %% [markdown]
# Left, at home, the two distributions come apart. Right, on films, they lie on top of each other: the words
# mean nothing for these pictures.
#
# ## The frozen features still know something
#
# Perhaps the image tower does not *see* the findings. Or it sees something, and the *words* do not point to
# it. A **linear probe** decides: a logistic regression on the frozen features, with labels and without words.
# We fit it to train and validation films of hospital A (its regularisation is fixed beforehand), and judge it
# on test films of other patients.

# %%
STRENGTH = 0.1


def part(*splits):
    films = HOSPITALS["A"]
    rows = films.table["split"].isin(splits).to_numpy()
    return FeatureCache(progress=False).films(films.take(rows), list(experts.values()), [[] for _ in experts], whole)


fit_on, test_on = part("train", "val"), part("test")
probe = LinearProbe(strengths=(STRENGTH,)).fit(part("train"), part("val"))  # it learns from both

# %%
x, x_test = (np.concatenate([f.pooled("summary", k) for k in range(len(experts))], axis=1) for f in (fit_on, test_on))
heart = LABELS.index("Cardiomegaly")
by_hand = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000)).fit(x, fit_on.benchmark.targets()[0][:, heart])
np.testing.assert_allclose(by_hand.predict_proba(x_test)[:, 1], probe.predict_proba(test_on)[:, heart], atol=1e-4)
print(f"probe of hospital A: {len(fit_on)} films to fit, {len(test_on)} to test, {x.shape[1]} frozen features a film")

# %%
from medbridge import paired_difference

zero_test = ZeroShot(list(experts.values()), LABELS).predict_proba(test_on)
probe_test = probe.predict_proba(test_on)
compared = {name: judge("A", p, test_on.benchmark) for name, p in (("zero-shot", zero_test), ("linear probe", probe_test))}
y, mask = test_on.benchmark.targets()
difference = paired_difference(y, probe_test, zero_test, mask, test_on.benchmark.table["patient_id"], labels=LABELS)

# %% tags=["nbval-ignore-output"]
for name, e in compared.items():
    print(f"{name:<13} mean AUC {e.macro['auc']:.2f} [{e.macro['lo']:.2f}, {e.macro['hi']:.2f}]")
print("linear probe (A) minus zero-shot (B), same films:", difference.verdict)

# %% alt="bars with 95 % intervals: test AUC of each label for zero-shot and for a linear probe on the same frozen experts, synthetic films of hospital A" tags=["nbval-ignore-output"]
plots.auc_bars(compared, f"the same frozen experts on {len(test_on)} synthetic test films of hospital A")

# %%
row = compared["linear probe"].per_label.set_index("label").loc["Cardiomegaly"]
assert row["auc_lo"] > 0.5
print("linear probe, Cardiomegaly (an enlarged heart): the interval of its AUC lies above 0.5:", bool(row["auc_lo"] > 0.5))

# %% [markdown]
# An enlarged heart is a large change, visible in the shrunk film. The frozen features hold it, and the probe
# reads it. A nodule of two or three pixels stays hard, and no classifier brings it back. So there are two
# things to mend:
#
# - **the words**: learn what to look for from labelled films (notebooks 04 and 06);
# - **the view**: look closer (notebook 03).
#
# ### Turn the knobs yourself
#
# Between hospitals many things change at once. Here you change exposure, contrast and grain one by one: in
# logits of grey values exposure is a shift, contrast a factor, and grain noise (`medbridge.extras.shift`).
# Does the probe of hospital A stay calm? (A lower AUC at another hospital mixes two things, the shift and
# films that are harder for every model. Only a comparison on the same films tells them apart; notebook 09
# makes it.)

# %%
from medbridge.extras.shift import shift_film
from medbridge.features.encode import encode_views


def probe_of_a(film):
    """Probabilities (C,) of hospital A's probe for one decoded film."""
    box = whole_box(*film.shape)[None]
    summaries = [encode_views(e, extract_views(film, box, *e.view_kind), []).summary.float().numpy() for e in experts.values()]
    weights, biases = probe.modules
    return 1 / (1 + np.exp(-(weights @ np.concatenate(summaries, axis=1)[0] + biases)))


# %%
dial_film = test_on.benchmark.read(0)
np.testing.assert_allclose(probe_of_a(dial_film), probe.predict_proba(test_on)[0], atol=0.01)
moved = {name: np.abs(probe_of_a(shift_film(dial_film, **knobs)) - probe_of_a(dial_film)).max()
         for name, knobs in {"none": {}, "exposure": {"exposure": 1.0}, "contrast": {"contrast": 0.6}, "grain": {"noise": 0.5}}.items()}
assert moved["none"] == 0 and max(moved.values()) > 0.1
print("one film, one patient: a change of the room alone moves some probability by more than 0.1:", bool(max(moved.values()) > 0.1))

# %% tags=["nbval-ignore-output"]
from medbridge.viz.widgets import explore_prompts, explore_shift

explore_shift(probe_of_a, dial_film, LABELS, "a synthetic test film of hospital A, linear probe of hospital A")

# %% [markdown]
# Without a running kernel, one setting:

# %% alt="a synthetic film before and after exposure, contrast and grain are turned, and the scores of every label before and after" tags=["nbval-ignore-output"]
darker = shift_film(dial_film, exposure=-0.8, contrast=0.7, noise=0.3)
plots.shifted_film(dial_film, darker, probe_of_a(dial_film), probe_of_a(darker), LABELS,
                   "a synthetic test film of hospital A: exposure -0.8, contrast 0.7, noise 0.3")

# %% [markdown]
# ### A playground for prompts
#
# Type a prompt. Left: its similarity to films with a finding and without. Right: its similarity to the
# labels' own prompts. Try words that the models know, such as *a large bright blob in the centre*, and words
# that they do not. The films are the training films of hospital A, so what you choose here by looking, you
# have chosen on training data.

# %% tags=["nbval-ignore-output"]
explore_prompts(list(experts.values()), fit_on)

# %% [markdown]
# Without a running kernel, one prompt:

# %% alt="left: films with and without Cardiomegaly by their similarity to a typed prompt; right: bars of the prompt's similarity to each label's own prompt; synthetic films of hospital A" tags=["nbval-ignore-output"]
prompt, where = "a large bright blob in the centre", fit_on.benchmark
text = experts["tiny-vit"].encode_text([prompt])[0].float().numpy()
plots.prompt_similarity(
    fit_on.pooled("embed", 0) @ text, where.table["Cardiomegaly"].to_numpy(), "Cardiomegaly", SIDES["tiny-vit"][0].numpy() @ text, LABELS,
    f"{len(where)} synthetic films of hospital A: {prompt!r}, tiny-vit")

# %% [markdown]
# The prompt is near the label's own prompts (right), and says little about films (left). If you search over
# many prompts, you find a good one by luck.

# %% [markdown]
# ### Exercise 1.3: better prompts
#
# ★★☆, 15 minutes.
#
# Write prompts for *Cardiomegaly*, an enlarged heart, for models that have never read that word. Use words
# that they know (the set `WORDS`): shapes, sizes, places, brightness. Both sides need at least two sentences,
# and no sentence may stand on both sides. The cell prints the AUC on **validation** films, because prompts
# chosen by their test AUC would flatter it. With so few films, a better number may be luck.
#
# <details><summary>Hint</summary>
#
# `ClassPrompts(positive=("a large bright ...", ...), negative=("a small bright ...", ...))`. Where does the
# heart lie, and what changes when it is large?
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
#     positive=("a large bright blob in the bottom", "a large bright blurry disc in the centre",
#               "a large bright blob in the centre"),
#     negative=("a small bright blob in the bottom", "a small bright blurry disc in the centre",
#               "a medium bright blob in the centre"),
# )
# ```
#
# Sentences in known words need not be *right*: no scene of the pre-training shows a bright heart between two
# dark lungs. Prompts are a way to ask; they cannot make a model see what it never learned.
#
# </details>

# %% [markdown]
# ## Summary
#
# - The contrastive loss makes each picture choose its own caption, and each caption its own picture.
# - Zero-shot classification is a softmax over cosine similarities with sentences. At home it works.
# - On chest films it is near chance: the models never read the words, and the films lie in a small region of
#   their own.
# - The frozen features still hold information that labels can bring out: a linear probe finds an enlarged
#   heart.
#
# Next: [02 Chest films, labels, patients and splits](02_films_labels_splits.ipynb)
