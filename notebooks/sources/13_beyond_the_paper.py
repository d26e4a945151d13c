# %% [markdown]
# # 13 Beyond the paper
#
# {{COLAB}}
#
# **What you will build:** seven additions to MedBridge, each after an idea of a related system: other experts, adapters as a baseline,
# a triplet loss, two more routers, similar films as evidence, regions for free words, and the change between two films of a
# patient. Each is a small module, each is measured beside chance or beside what it should improve, and several of them do not
# help here. You also get a map of the related work: what each system is, and where it would enter.
#
# - **Prerequisites:** notebooks [00](00_start_here.ipynb) to [03](03_focal_sampling.ipynb) and [09](09_adaptation_tasks.ipynb); notebooks
#   [04](04_query_encoder.ipynb) to [08](08_baselines.ipynb) explain the parts that are extended here.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores the first time, less when films and features
#   are there. On a Colab T4 about one minute (an estimate).
# - **Module:** `medbridge/extras/` · **test:** `tests/extras/`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). Nothing in this notebook comes from what we know of the paper. Each section names the
#   system that it takes an idea from; everything else is **[ours]**.
#
# For research and education, not for clinical use. Every film of the default profile is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging
import warnings
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from medbridge import FeatureCache, FocalSampler, MedBridge, create_expert, fit, load_adapter, load_benchmark, paired_difference
from medbridge.baselines import LinearProbe
from medbridge.baselines.mvfa import MVFA
from medbridge.course import check, full_profile, seed_everything
from medbridge.errors import ExpertError
from medbridge.experts.info import expert_info
from medbridge.explain.attention import explain
from medbridge.explain.localisation import film_scores
from medbridge.extras.change import change_report, film_pairs, fit_threshold, tell_change
from medbridge.extras.regions import prompt_attention, prompt_boxes, prompt_maps
from medbridge.extras.retrieve import (
    FilmIndex,
    RetrievalRouter,
    joint_vectors,
    precision_at_k,
    query_vectors,
    summary_vectors,
    with_memory,
)
from medbridge.extras.triplet import TripletNetwork, label_overlap, triplet_loss
from medbridge.metrics.bootstrap import bootstrap_means, group_codes, percentiles
from medbridge.metrics.evaluate import evaluate
from medbridge.moe import Router
from medbridge.predict import predict
from medbridge.prompts import class_prompts
from medbridge.train import TrainConfig
from medbridge.viz import plots, widgets

logging.getLogger().setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=UserWarning)
rng = seed_everything(0)

# %% [markdown]
# ## 1. The map
#
# MedBridge has places where something else can be plugged in: the frozen **experts**, the **loss**, the **router**, a **baseline** beside it,
# and whatever is done with its queries **after** training. The table says for each system what it is and where it enters.
# "Code" means that something in the spirit of the system runs below on the shipped tiny experts; it does not mean
# that the system itself was reproduced. "Code, weights by you" means that the same line of code runs, once you have put the weights
# there; no result with these weights is claimed. "Context" means that nothing here runs.
#
# | system | what it is | enters as | here |
# |---|---|---|---|
# | MedSigLIP ([MedGemma report](https://arxiv.org/abs/2507.05201)) | SigLIP for medical images and texts, 448 px | expert | code, weights by you (section 2) |
# | MedGemma ([arXiv 2507.05201](https://arxiv.org/abs/2507.05201)) | a language model that sees; its image encoder is of MedSigLIP's family | expert: its vision tower alone | code, weights by you (section 2) |
# | UniMed-CLIP ([arXiv 2412.10372](https://arxiv.org/abs/2412.10372)) | CLIP on 5.3 million image-text pairs of six modalities, X-ray among them | expert | code, weights by you (section 2) |
# | DINOv3 ([arXiv 2508.10104](https://arxiv.org/abs/2508.10104)) | self-supervised vision transformers without text | expert with a borrowed text space | code, weights by you (section 2) |
# | MedDINOv3 ([arXiv 2509.02379](https://arxiv.org/abs/2509.02379)) | DINOv3 ViT-B/16 trained on with 3.87 million CT slices | expert with a borrowed text space | code, weights by you (section 2) |
# | DINO-AugSeg ([arXiv 2601.08078](https://arxiv.org/abs/2601.08078)) | few-shot *segmentation* on DINOv3 features: wavelet augmentation of features, fusion by cross-attention | its backbone, DINOv3, is an expert; its own two modules need masks | context |
# | LVM-Med ([arXiv 2306.11925](https://arxiv.org/abs/2306.11925)) | ResNet-50 and ViT-B, self-supervised on 1.3 million medical images by graph matching | expert with a borrowed text space | code, weights by you (section 2) |
# | MVFA ([arXiv 2403.12570](https://arxiv.org/abs/2403.12570), CVPR 2024) | residual adapters at several depths of CLIP, for anomaly detection | baseline | code (section 3) |
# | MedTrim ([arXiv 2504.15929](https://arxiv.org/abs/2504.15929)) | triplets of images and reports, chosen by shared disease and descriptors | loss | code (section 4) |
# | Med-MoE ([arXiv 2404.10237](https://arxiv.org/abs/2404.10237), Findings of EMNLP 2024) | top-k domain experts and a meta expert inside a small language model | router | code (section 5) |
# | MedAlign ([arXiv 2510.21093](https://arxiv.org/abs/2510.21093)) | routes a question to one of several language models by retrieval, beside preference training and federated reasoning | router | code (section 5); the rest is context |
# | MMed-RAG ([arXiv 2410.13085](https://arxiv.org/abs/2410.13085)) | retrieval of reports for a medical language model | evidence beside a prediction | code (section 6); the generation is context |
# | MedROV ([arXiv 2511.20650](https://arxiv.org/abs/2511.20650), WACV 2026) | a detector for free words, trained on 600,000 samples of nine modalities | regions for words | code (section 7) |
# | MedDAM ([arXiv 2505.05804](https://arxiv.org/abs/2505.05804)) | describes a region that is pointed at, with a large vision-language model | regions for words, in the other direction | code for words to region (section 7); region to words is context |
# | TemMed-Bench ([arXiv 2509.25143](https://arxiv.org/abs/2509.25143)) | questions, reports and image pairs about what changed between two visits | a task | code (section 8); its own data are context |
#
# The descriptions follow the papers' abstracts and, for UniMed-CLIP, LVM-Med, MedDINOv3, DINOv3 and Med-MoE, their repositories. Another
# paper of 2023 is also called MedAlign (instructions for health records); it is not meant.
#
# **The films and two models.** All sections share one set of synthetic films. Sections 6 to 8 use the finished adapter that is
# shipped with the course; the others train small models that see the whole film only, so that they take seconds. All of them are one
# network on compact maps, without the cross-fitted members and the read-out of notebook [06](06_assembling_and_training.ipynb): what is
# compared here is a part, and a linear read-out beside it would hide what the part does.

# %% tags=["nbval-ignore-output"]
films = load_benchmark("phantom", n_films=900 if full_profile() else 300)
parts = {name: films.split(name) for name in ("train", "val", "test")}
test = parts["test"]
y, mask = test.targets()
patients = test.table["patient_id"]
print(f"{films.name}: " + ", ".join(f"{len(part)} films in {name}" for name, part in parts.items()))

WHOLE, CACHE = FocalSampler(local=False), FeatureCache(progress=False)
BUDGET = TrainConfig(epochs=30 if full_profile() else 8, batch_size=8, lr=3e-3, ema=0.9, patience=40)


def small_model(experts, **options):
    """A MedBridge of these experts that sees the whole film alone."""
    return MedBridge(experts, films.labels, sampler=WHOLE, queries=4, **options)


def trained(experts, config=BUDGET, network=None, **options):
    """A small model, trained; and its cached films by split."""
    model = small_model(experts, **options)
    cached = {name: CACHE.of(model, part, training=name == "train") for name, part in parts.items()}
    fit(model, cached["train"], cached["val"], config, progress=False, network=network)
    return model, cached


def said(scores):
    """Mean test AUC with its interval, as text."""
    m = evaluate(y, scores, mask, patients, test.labels).macro
    return f"{m['auc']:.3f} [{m['lo']:.3f}, {m['hi']:.3f}]"


def gain(a, b):
    """Mean test AUC of a minus b, paired on the same patients, as text."""
    d = paired_difference(y, a, b, mask, patients, n_boot=1000, labels=test.labels)
    return f"{d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]" + ("; the interval holds zero" if d.lo <= 0 <= d.hi else "")


def probabilities(model, cached):
    return predict(model, cached["test"], progress=False).probabilities


# %% [markdown]
# ## 2. Swap the experts
#
# **Why.** What the adapter can learn is bounded by what the frozen experts see. A medical expert may see more; nothing but a name changes.
# The shipped experts differ in tower and in pre-training pictures, so we can try the swap for real.

# %%
for name in ("tiny-resnet", "tiny-resnet-scenes", "tiny-vit"):
    card = expert_info(name)
    print(f"{name:<18} {card.size} px, {card.depth} blocks, width {card.width}, {card.parameters / 1e6:.1f} M parameters, {card.licence}")

# %% tags=["nbval-ignore-output"]
swapped, kept_models = {}, {}
for name in ("tiny-resnet", "tiny-resnet-scenes", "tiny-vit"):
    kept_models[name] = trained([create_expert(name)])  # the one line that changes is this name
    swapped[name] = probabilities(*kept_models[name])
    print(f"{name:<18} test AUC {said(swapped[name])}  (synthetic films)")
print("tiny-resnet minus tiny-vit:", gain(swapped["tiny-resnet"], swapped["tiny-vit"]))

# %% [markdown]
# **What to see.** Whole films alone and this little training are hard for all of them. To compare two, look at the paired difference,
# not at the two intervals.
#
# **Real experts.** The same line takes `"medsiglip"`, `"medgemma-vision+minilm"`, `"unimed-clip-vitb16"`, `"dinov3-vits16+minilm"`,
# `"meddinov3+pubmedbert"` or `"lvm-med-resnet50+pubmedbert"`. The part behind the plus sign is the text encoder that a tower without
# text borrows. What is known without the weights:

# %% tags=["nbval-ignore-output"]
names = ["medsiglip", "medgemma-vision+minilm", "unimed-clip-vitb16", "dinov3-vits16+minilm", "meddinov3+pubmedbert",
         "lvm-med-resnet50+pubmedbert", "lvm-med-vitb+pubmedbert"]
cards = [expert_info(name) for name in names]
print(pd.DataFrame({"px": [c.size for c in cards], "blocks": [c.depth for c in cards], "width": [c.width for c in cards],
                    "licence": [c.licence for c in cards], "file or folder": [c.wanted for c in cards]}, index=names).to_string())

# %% [markdown]
# And what a user sees who has not put them there, on a machine without a network: the error names the file and its place.

# %% tags=["nbval-ignore-output"]
for name in ("unimed-clip-vitb16", "lvm-med-resnet50+pubmedbert"):
    try:
        create_expert(name)
        print(f"{name}: the weights are here")
    except ExpertError as error:
        print(f"{error}\n")

# %% [markdown]
# These checkpoints load from the key names that their repositories' code writes (`tests/experts/test_timm_vision.py`); with the real
# files it was not tried. One trap is caught: timm builds DINOv3 towers with and without attention biases, and would drop a checkpoint's
# biases without an error. `create_expert` refuses instead, and names the right tower.
#
# ## 3. MVFA adapters: a baseline inside the tower
#
# MVFA mixes small residual adapters into the tokens at several depths $l$ of the frozen tower, and compares their bottlenecks $F'$
# with the prompts:
#
# $$F_l^* = \gamma\, \mathrm{adapt}_l(F_l) + (1 - \gamma) F_l, \qquad
#   \mathrm{score}_c = \operatorname{mean}_{l, p}\; s\,\big(\cos(F'_{lp}, t_c^+) - \cos(F'_{lp}, t_c^-)\big)$$
#
# Theirs are the adapters and $\gamma = 0.1$; what `medbridge/baselines/mvfa.py` changes for many labels is in its docstring. The adapters
# change what later blocks see, so features cannot be cached: every step runs the tower. That is the price that
# MedBridge's non-destructive queries do not pay.

# %% tags=["nbval-ignore-output"]
bridge, cached = kept_models["tiny-resnet"]
resnet = bridge.experts[0]
adapters = MVFA([resnet], films.labels, config=TrainConfig(epochs=30 if full_profile() else 2), tries=1, progress=False).fit(cached["train"], cached["val"])
probe = LinearProbe(views="whole").fit(cached["train"], cached["val"])
whole = {"MedBridge": probabilities(bridge, cached), "MVFA-style adapters": adapters.predict_proba(cached["test"]),
         "linear probe": probe.predict_proba(cached["test"])}
for name, scores in whole.items():
    print(f"{name:<20} test AUC {said(scores)}  (whole synthetic film, tiny-resnet)")
print("MedBridge minus MVFA-style adapters:", gain(whole["MedBridge"], whole["MVFA-style adapters"]))

# %% [markdown]
# **Read with care.** Here the adapters get one setting and two epochs, fewer than MedBridge; the leaderboard (`medbridge leaderboard`) gives
# all methods three settings and the same epochs. This cell shows that the baseline runs, not which method is better.
#
# ## 4. MedTrim: a loss over triplets
#
# **Why.** The cross-entropy looks at films one by one. It does not care whether two films with the same findings lie near each other;
# retrieval (section 6) does. MedTrim aligns images and reports with triplets: an anchor, a positive that shares much with it, a negative
# that shares less. *Theirs:* how much two studies share is scored from disease classes and from adjectives and directions found in the
# reports. *Ours:* there are no reports, so only the labels are left. With $s_{ij}$ the Jaccard index of the findings of films $i$ and $j$,
#
# $$s_{ij} = \frac{|\text{findings of both}|}{|\text{findings of either}|}, \qquad
#   \ell = \operatorname{mean}_{s_{ap} > s_{an}} \max\big(0,\; m\,(s_{ap} - s_{an}) + \cos(v_a, v_n) - \cos(v_a, v_p)\big)$$
#
# where $v$ are an expert's pooled queries, and only triplets that cost something enter the mean.
#
# ### Exercise 13.1: how much do two films share?
# ★☆☆, 5 minutes. Write `overlap(a, b)` for the labels of two films, arrays of 1, 0 and NaN (unknown): the Jaccard index over the labels
# that are known of **both** films. Two films without any finding are wholly alike: 1.
#
# <details><summary>Hint</summary>
# First keep what is known of both. <code>(a * b).sum()</code> counts the findings of both.
# </details>

# %%
def overlap(a, b):
    raise NotImplementedError


check("13.1", overlap)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/13_beyond_the_paper.ipynb](solutions/13_beyond_the_paper.ipynb).
#
# ```python
# def overlap(a, b):
#     known = ~np.isnan(a) & ~np.isnan(b)
#     a, b = a[known], b[known]
#     either = ((a + b) > 0).sum()
#     return (a * b).sum() / either if either else 1.0
# ```
# </details>
#
# The loss from scratch, as three loops, against the package's:

# %%
def my_triplet_loss(vectors, s, margin=0.5):
    v = vectors / vectors.norm(dim=1, keepdim=True)
    costs = []
    for a in range(len(v)):
        for p in range(len(v)):
            for n in range(len(v)):
                if len({a, p, n}) == 3 and s[a, p] > s[a, n]:
                    costs.append(margin * (s[a, p] - s[a, n]) + v[a] @ v[n] - v[a] @ v[p])
    costs = torch.stack(costs)
    return costs[costs > 0].mean()


generator = torch.Generator().manual_seed(0)
some_y, some_mask = (torch.tensor(a[:8]) for a in parts["train"].targets())
vectors = torch.randn(8, 5, generator=generator)
torch.testing.assert_close(my_triplet_loss(vectors, label_overlap(some_y, some_mask)), triplet_loss(vectors, some_y, some_mask))
print("equal")

# %% [markdown]
# `TripletNetwork` adds it to the loss of a training, with a weight. Does it help? Same experts, seed, films and epochs:

# %% tags=["nbval-ignore-output"]
with_triplets, same_films = trained([resnet], network=partial(TripletNetwork, weight=0.5))
plain, triplets = whole["MedBridge"], probabilities(with_triplets, same_films)
print(f"test AUC without {said(plain)}, with triplets {said(triplets)}  (synthetic films)")
print("with minus without:", gain(triplets, plain))


def retrieval(model, cached):
    """Precision at 5 of the pooled queries, in the mean over findings."""
    index = FilmIndex(parts["train"], query_vectors(model, cached["train"]))
    table = precision_at_k(index, index.search(query_vectors(model, cached["test"]), 5, patients), test)
    return table.set_index("label").loc["mean"]


for name, row in (("without", retrieval(bridge, cached)), ("with triplets", retrieval(with_triplets, same_films))):
    print(f"precision at 5, {name:<13} {row.precision:.3f}, chance {row.chance:.3f}, "
          f"gain {row.gain:+.3f} [{row.gain_lo:+.3f}, {row.gain_hi:+.3f}]")

# %% [markdown]
# **What to see.** A triplet loss is made for neighbours, not for AUC. In the stored run it brings neither: the AUC falls, with an interval
# below zero, and the neighbours share no more findings than without it. One weight and one training seed do not decide about triplets. It
# stays an option that is off.
#
# ## 5. Two more routers
#
# **Med-MoE** keeps the $k$ strongest domain experts and, beside them, a **meta expert** that is always active; its code can also
# disturb the router in training, so that other experts are tried. *Ours:* the experts are whole frozen models, and one softmax runs over
# those that are kept:
#
# $$g = \operatorname{softmax}\big(\mathrm{router}(q)\ \text{where kept, else} -\infty\big), \qquad \text{kept} = \{\text{shared}\} \cup \text{top-}k(\text{others})$$

# %%
def my_top_k(logits, k, shared):
    """Logits (K,) -> weights (K,)."""
    others = [i for i in np.argsort(-logits) if i != shared]
    kept = [shared, *others[:k]]
    weights = np.zeros(len(logits))
    weights[kept] = np.exp(logits[kept] - logits[kept].max())
    return weights / weights.sum()


torch.manual_seed(0)
router = Router([4, 4, 4, 4], classes=1, kind="image", top_k=1, shared=2).eval()
for parameter in router.parameters():
    torch.nn.init.normal_(parameter)
queries = [torch.randn(6, 4) for _ in range(4)]
logits = router.net(torch.cat(queries, dim=1)).detach().numpy()
for film in range(6):
    np.testing.assert_allclose(router(queries)[film, :, 0].detach(), my_top_k(logits[film], 1, 2), atol=1e-6)
print("experts used by each film:", [np.flatnonzero(router(queries)[film, :, 0].detach()).tolist() for film in range(6)])

# %% tags=["nbval-ignore-output"]
three = [create_expert(name) for name in ("tiny-resnet", "tiny-resnet-scenes", "tiny-vit")]
dense, three_films = trained(three)
sparse, _ = trained(three, top_k=1, shared_expert="tiny-resnet", router_noise=0.5)
mixed, kept = probabilities(dense, three_films), probabilities(sparse, three_films)
print(f"all three experts: {said(mixed)}; tiny-resnet and one other: {said(kept)}  (synthetic films)")
print("sparse minus dense:", gain(kept, mixed))

# %% [markdown]
# **What to see.** A sparse router is made to save work: only the kept experts need to run. Here all of them have run already, for
# the cache, so nothing is saved, and a gain in AUC is not to be expected.
#
# **MedAlign** sends a question to the model whose own data are most like it. *Ours,* without any training: remember the pooled
# queries of some labelled films, and how wrong each expert was on each of them. For a new film look up the $J$ nearest (`M` in the code), and trust
# the experts that were right there, the more sharply the lower the temperature $\vartheta$ (`T`):
#
# $$g_{kc} \propto g^{\text{trained}}_{kc}\; e^{-\ell_{kc} / \vartheta}, \qquad
#   \ell_{kc} = \frac{\sum_{i \in \text{nearest}} \cos(q, q_i)\, \mathrm{BCE}_{ikc}}{\sum_{i \in \text{nearest}} \cos(q, q_i)}$$

# %%
def my_memory_weights(base, q, memory, losses, M, T):
    """base (K,), query (w,), memory (n, w), losses (n, K): unit vectors, one label."""
    cosine = memory @ q
    near = np.argsort(-cosine)[:M]
    loss = (cosine[near, None] * losses[near]).sum(0) / cosine[near].sum()
    g = base * np.exp(-loss / T)
    return g / g.sum()


some = np.random.default_rng(0)
memory = joint_vectors([torch.tensor(some.uniform(0, 1, (30, 4)), dtype=torch.float32) for _ in range(2)])
losses = torch.tensor(some.uniform(0, 2, (30, 2, 1)), dtype=torch.float32)
by_memory = RetrievalRouter(Router([4, 4], 1, "uniform"), memory, losses, torch.ones(30, 1, dtype=torch.bool), 5, 0.5)
new = [torch.tensor(some.uniform(0, 1, (3, 4)), dtype=torch.float32) for _ in range(2)]
for film, q in enumerate(joint_vectors(new).numpy()):
    mine = my_memory_weights(np.full(2, 0.5), q, memory.numpy(), losses[..., 0].numpy(), 5, 0.5)
    np.testing.assert_allclose(by_memory(new)[film, :, 0], mine, atol=1e-5)
print("equal")

# %% tags=["nbval-ignore-output"]
print(f"trained router alone: {said(mixed)}")
for source in ("train", "val"):
    for temperature in (2.0, 0.2):
        remembering = with_memory(dense, three_films[source], 16, temperature)
        on_val = predict(remembering, three_films["val"], progress=False).probabilities
        val_y, val_mask = parts["val"].targets()
        val_auc = evaluate(val_y, on_val, val_mask, n_boot=0).macro["auc"]
        print(f"memory of {source:<5} T = {temperature:3.1f}: validation AUC {val_auc:.3f}; test AUC minus the trained router's "
              f"{gain(probabilities(remembering, three_films), mixed)}")

# %% [markdown]
# **What to see, and a trap.** On these films the memory does not help: the intervals hold zero. With a memory of *validation* films do not
# believe the validation AUC: other films of the same patients are in the memory, with their labels, and a setting chosen by that
# number would be chosen by leakage. (The film itself is left out by the router; its patient cannot be, since a router sees no
# patients.) With a memory of training films all experts look right, as they were trained on them.
#
# ## 6. Similar films as evidence
#
# **Why.** A probability convinces nobody. "The five most similar films of other patients, and what they had" can be looked at.
# MMed-RAG retrieves the reports of similar images for a language model to write with. *Ours:* no language model; the films
# and their labels are shown beside the prediction, and are never mixed into it.
#
# ### Exercise 13.2: the nearest films of other patients
# ★★☆, 10 minutes. Write `nearest(query, patient, vectors, patients, k)`: `query` is a vector, `patient` whose film it is, `vectors` $(n, d)$ and
# `patients` $(n,)$ those of the archive. Return the rows of the $k$ most similar films by cosine, nearest first, **without** films of
# that patient.
#
# <details><summary>Hint</summary>
# Set the cosine of the patient's own films to minus infinity, then sort. So row numbers stay those of <code>vectors</code>.
# </details>

# %%
def nearest(query, patient, vectors, patients, k):
    raise NotImplementedError


check("13.2", nearest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/13_beyond_the_paper.ipynb](solutions/13_beyond_the_paper.ipynb), with what happens without the patient rule.
#
# ```python
# def nearest(query, patient, vectors, patients, k):
#     cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
#     cosine[patients == patient] = -np.inf
#     return np.argsort(-cosine)[:k]
# ```
# </details>
#
# Now with the finished adapter that is shipped with the course, which sees all windows:

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
seen = {name: CACHE.of(model, part) for name, part in parts.items()}
found = {name: predict(model, cached, progress=False) for name, cached in seen.items()}
print(f"shipped adapter, {len(test)} synthetic test films: AUC {said(found['test'].probabilities)}")

# %%
archive = FilmIndex(parts["train"], query_vectors(model, seen["train"]))
looked_up = archive.search(query_vectors(model, seen["test"]), 5, patients)

# the same by hand, for the first films
asked = query_vectors(model, seen["test"]) - archive.centre
for film in range(5):
    cosine = archive.vectors @ asked[film] / np.linalg.norm(asked[film])
    cosine[archive.patients == patients[film]] = -np.inf
    np.testing.assert_allclose(cosine[looked_up.rows[film]], np.sort(cosine)[::-1][:5], atol=1e-5)
own = archive.patients[looked_up.rows] == patients.to_numpy()[:, None]
print("films of the same patient among those found:", int(own.sum()))

# %% alt="a synthetic test film and its nearest training films of other patients, with their labels" tags=["nbval-ignore-output"]
example = int(np.flatnonzero(test.table["Pneumonia"] == 1)[0])
plots.evidence_strip(archive, looked_up, test, example)

# %% [markdown]
# **Is it better than chance?** Precision at 5: of a film with a finding, how many of its five neighbours have it too? Chance is the
# finding's share in the archive. Beside the queries, the frozen summaries, which nobody trained:

# %% tags=["nbval-ignore-output"]
frozen = FilmIndex(parts["train"], summary_vectors(seen["train"]))
tables = {"trained queries": precision_at_k(archive, looked_up, test),
          "frozen summaries": precision_at_k(frozen, frozen.search(summary_vectors(seen["test"]), 5, patients), test)}
for name, table in tables.items():
    print(f"{name} (synthetic films)\n{table.round(2).to_string(index=False)}\n")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(8.5, 3.2), layout="constrained")
ax = fig.subplots()
for offset, (name, table), marker in zip((-0.12, 0.12), tables.items(), "os", strict=True):
    at = np.arange(len(table)) + offset
    ax.errorbar(at, table["gain"], [table["gain"] - table["gain_lo"], table["gain_hi"] - table["gain"]], fmt=marker, capsize=3,
                label=name)
ax.axhline(0, color="0.4", linestyle="--", linewidth=0.8)
ax.set_xticks(range(len(table)), table["label"], rotation=30, ha="right", fontsize=8)
ax.set(ylabel="precision at 5 minus chance", title="Retrieval of synthetic films of other patients")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# **What to see.** The trained queries find films with the same finding well above chance where the model is good (a large heart, pneumonia),
# and hardly where it is not (nodules, pneumothorax). Evidence is as good as the model: it shows what the model finds similar, not what
# is true.
#
# ## 7. Regions for free words
#
# **Why.** "Where is the fluid?" asks for a place, not for a number. MedROV is a detector trained on boxes; MedDAM describes a region that is
# pointed at. MedBridge never saw a box. But its queries have looked somewhere, and their tokens can be brought into the text
# space, where words are too. *Ours:* with $z_j$ the token of query $j$ and $t$ the direction of the words (what is looked for,
# minus what is not),
#
# $$a_j = \operatorname{softmax}_j\big(10\, \cos(z_j, t)\big), \qquad \mathrm{map} = \sum_j a_j\, \mathrm{attention}_j$$
#
# summed over views and experts, as for a label. Boxes are drawn around the connected parts that reach half of the maximum.

# %%
film = np.zeros((20, 40))
film[2:4, 10:20], film[15:18, 30:32] = 1.0, 0.7  # a map with two parts
boxes = prompt_boxes(film, (200, 800))  # of a film of 200 x 800 pixels
print(boxes.round(1).to_string(index=False))
assert boxes.iloc[0].tolist() == [200, 20, 400, 40, 1.0]

# %% alt="one synthetic film for each of three free texts: a heat map of where the queries that mean the text looked, the enlarged heart's true box solid and what was found dashed" tags=["nbval-ignore-output"]
row = int(np.flatnonzero((test.table["Cardiomegaly"] == 1) & (test.table["Pneumonia"] == 0))[0])
picture = test.read(row)
looked = explain(model, picture)
words = ["a large bright blob in the centre", "fluid in the pleural space", "a small bright spot"]
heats = [prompt_attention(model, looked, text) for text in words]
drawn = [prompt_boxes(heat, picture.shape)[["x0", "y0", "x1", "y1"]].to_numpy() for heat in heats]
true = test.boxes[(test.boxes["image"] == test.image_ids()[row]) & (test.boxes["label"] == "Cardiomegaly")]
plots.prompt_regions(picture, heats, words, drawn, [true[["x0", "y0", "x1", "y1"]].to_numpy()] * 3,
                     "Words and where the queries that mean them looked (synthetic film;\nsolid: the enlarged heart, dashed: found)")

# %% [markdown]
# **Try it** (needs a running kernel): write your own words. The picture above is the version without a kernel.

# %% tags=["nbval-ignore-output"]
widgets.explore_regions(model, picture, title="a synthetic film")

# %% [markdown]
# **Measured.** For each finding that a film has, the words of its prompts; hit: the maximum lies in the true box. Beside it what the same
# map would hit if it were shifted at random (notebook [11](11_what_did_it_look_at.ipynb)), and the words' cosine with the bare patches of a frozen expert, untrained.

# %% tags=["nbval-ignore-output"]
def with_interval(difference, patients):
    """Mean of a difference, one number a finding, with its interval over patients, as text."""
    draws = bootstrap_means(difference.to_numpy()[:, None], group_codes(patients, len(patients)), 1000, 0)
    lo, hi = percentiles(draws, 0.95)
    return f"{difference.mean():+.3f} [{lo[0]:+.3f}, {hi[0]:+.3f}]"


boxed = test if full_profile() else test.take(np.arange(len(test)) < 40)
right = film_scores(prompt_maps(model), boxed, test.labels, progress=False)
patches = film_scores(prompt_maps(model.experts[0]), boxed, test.labels, progress=False)
for name, scores in (("attention of the trained queries", right), ("patches of tiny-resnet, untrained", patches)):
    by_label = scores.groupby("label", sort=False)
    table = by_label[["hit", "hit_chance", "iou", "iou_chance"]].mean().round(2).assign(films=by_label.size())
    print(f"{name} (synthetic films)\n{table.to_string()}")
    print(f"hit minus chance {with_interval(scores['hit'] - scores['hit_chance'], scores['patient'])} over {len(scores)} findings\n")

# %% [markdown]
# **What to see.** The queries point to some large findings more often than chance; small ones they miss. The untrained patches are about
# at chance. It is tempting to stop here and say that the model finds what the words name.
#
# **The control.** Chance was a *shifted* map. Another question is whether the *words* did anything. So ask for something else: the
# words of another finding, scored against the very same boxes.

# %% tags=["nbval-ignore-output"]
other = {label: class_prompts(test.labels[(c + 3) % len(test.labels)]) for c, label in enumerate(test.labels)}
wrong = film_scores(prompt_maps(model, other), boxed, test.labels, progress=False)
for measure in ("hit", "iou"):
    print(f"{measure:<4} right words {right[measure].mean():.3f}, wrong words {wrong[measure].mean():.3f}; difference "
          f"{with_interval(right[measure] - wrong[measure], right['patient'])} over {len(right)} findings (synthetic films)")
one, two = (prompt_attention(model, looked, text, side=64) for text in ("an enlarged heart", "air in the pleural space"))
print(f"correlation of the maps of 'an enlarged heart' and 'air in the pleural space': {np.corrcoef(one.ravel(), two.ravel())[0, 1]:.2f}")

# %% [markdown]
# **What to see.** Wrong words do as well as right ones, and the maps of two quite different prompts are nearly the same map. **The words do
# nothing here.** The queries look at the same suspicious places whatever is asked: what beat chance above is the model's attention, not
# its understanding of a prompt. Eight queries that were trained for eight labels, and text encoders that learned words about blobs
# and bands, give no more. Sharper ways to choose among the queries were tried on training films (a higher factor, cosines
# standardised over the queries, weights by the nearest labels) with the same outcome. For regions that follow words, a model must be
# trained for regions, as MedROV is.
#
# ## 8. What changed between two films?
#
# **Why.** In the ward the question is rarely "is there an effusion?" but "is it *new*?". TemMed-Bench asks vision-language models about pairs
# of visits, and finds most of them near guessing. *Ours:* no language. Many patients of PhantomCXR have two or three films. With the
# logits $z$ of the earlier and the later film,
#
# $$d = z_{\text{after}} - z_{\text{before}}, \qquad \text{new if } d > t, \quad \text{resolved if } d < -t, \quad \text{unchanged else.}$$

# %%
visits = {name: film_pairs(part) for name, part in parts.items()}
if not full_profile():
    print(pd.DataFrame({name: {"pairs": len(p), **{word: int((p.known & (p.change == c)).sum()) for word, c in
                                                   (("resolved", -1), ("unchanged", 0), ("new", 1))}}
                        for name, p in visits.items()}).to_string())
first = visits["test"]
table = test.table
assert (table["patient_id"].to_numpy()[first.before] == table["patient_id"].to_numpy()[first.after]).all()
assert (first.change[:, 0] == table[test.labels[0]].to_numpy()[first.after] - table[test.labels[0]].to_numpy()[first.before]).all()

# %% [markdown]
# Almost everything is unchanged. So the share of right answers is useless: "unchanged, always" would be right nine times of ten. We take
# the **mean recall** of the three answers: chance, and "unchanged, always", get one third.
#
# ### Exercise 13.3: choose the threshold
# ★★★, 20 minutes. Write `best_threshold(d, change)`: `d` are differences, `change` is 1 (new), -1 (resolved) or 0 (unchanged). Return the
# $t \ge 0$ whose answers have the best mean recall over the three.
#
# <details><summary>Hint</summary>
# Try every value of |d| as the threshold. For each of the three answers take the share of right ones among those where it is true.
# </details>

# %%
def best_threshold(d, change):
    raise NotImplementedError


check("13.3", best_threshold)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/13_beyond_the_paper.ipynb](solutions/13_beyond_the_paper.ipynb).
#
# ```python
# def best_threshold(d, change):
#     def mean_recall(t):
#         answer = np.sign(d) * (np.abs(d) > t)
#         return np.mean([(answer == c)[change == c].mean() for c in (-1, 0, 1)])
#
#     tried = np.append(0.0, np.abs(d))
#     return tried[np.argmax([mean_recall(t) for t in tried])]
# ```
# </details>
#
# The threshold comes from the **validation** pairs, the numbers from the test pairs. The comparison is the later film alone: whoever only
# looks at that one also knows something about what is new.

# %% tags=["nbval-ignore-output"]
def film_logits(p):
    p = p.clip(1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))


z = {name: film_logits(p.probabilities) for name, p in found.items()}
threshold = fit_threshold(visits["val"].differences(z["val"]), visits["val"])
report = change_report(first, z["test"], threshold)
print(f"{report.pairs} pairs of synthetic test films, {report.counts}; threshold {threshold:.2f} from {len(visits['val'])} validation pairs")
for word, e, g in (("new", report.new, report.new_gain), ("resolved", report.resolved, report.resolved_gain)):
    print(f"{word:<9} AUC of the difference {e.macro['auc']:.3f} [{e.macro['lo']:.3f}, {e.macro['hi']:.3f}] over {e.macro['n_defined']} "
          f"labels (chance 0.5); minus the later film alone {g.diff:+.3f} [{g.lo:+.3f}, {g.hi:+.3f}]")
print(f"mean recall of new, resolved, unchanged {report.accuracy:.3f} [{report.lo:.3f}, {report.hi:.3f}]; chance 0.333")

# %% alt="an earlier and a later synthetic film of one patient, with the score of one finding in each, and whether it is called new, unchanged or resolved" tags=["nbval-ignore-output"]
d = first.differences(z["test"])
called = tell_change(d, threshold)
size = np.where(first.change == 1, d, -np.inf)
i, c = np.unravel_index(size.argmax(), size.shape)
pair = [test.read(int(rows[i])) for rows in (first.before, first.after)]
plots.film_grid(pair, [f"earlier film: z = {z['test'][first.before[i], c]:+.1f}", f"later film: z = {z['test'][first.after[i], c]:+.1f}"],
                columns=2, title=f"{test.labels[c]} is new, called '{('resolved', 'unchanged', 'new')[called[i, c] + 1]}' (synthetic films)")

# %% [markdown]
# **What to see.** The three answers are better than chance in mean recall. The difference ranks *resolved* findings better than chance; for
# *new* ones the interval of the stored run holds 0.5, and so few pairs cannot say. Nor can they say whether the difference beats the later
# film alone where the interval holds zero. Subtracting cancels what a patient's films share, but it adds the noise of two scores. The picture is the
# test pair with the largest difference among those where a finding is new: a best case, not a typical one.
#
# ## Summary
#
# - Another expert is another name. What each needs, and where its file belongs, `expert_info` and the error say; no result with real
#   weights is claimed here.
# - A triplet term, a sparse router and a router by memory are options, all off. On these synthetic films none shows a gain in AUC
#   beyond its interval, and the triplet term costs some.
# - Films found by trained queries share findings far above chance, where the model is good. Never show a patient's own films as
#   evidence, and never choose a setting on patients who are in the memory.
# - A map that beats a shifted map need not follow the words: here wrong words point as well as right ones, so text-prompted regions do
#   **not** work with these tiny experts. Always run the control.
# - Change between two films is read from the difference of logits, with a threshold from validation pairs; report mean recall, since nearly
#   everything is unchanged.
#
# This is the last notebook. From here: your own films ([02](02_films_labels_splits.ipynb) shows the folder layout, [docs/running.md](../docs/running.md) the commands).
