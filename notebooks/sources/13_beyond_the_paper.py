# %% [markdown]
# # 13 Beyond the paper
#
# {{COLAB}}
#
# **What you will build:** seven additions to MedBridge, each after an idea of a related system: other
# experts, adapters as a baseline, a triplet loss, two routers, similar films as evidence, regions for free
# words, and the change between two films of a patient. You measure each beside chance or beside what it
# should improve. Several do not help here.
#
# - **Prerequisites:** notebooks [00](00_start_here.ipynb) to [09](09_adaptation_tasks.ipynb).
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores
#   the first time. On a Colab T4 about one minute (an estimate).
# - **Module:** `medbridge/extras/` · **test:** `tests/extras/`
# - **Paper:** none of this comes from [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). Each section
#   names the system that it takes an idea from; everything else is **[ours]**.
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

from medbridge import FeatureCache, FocalSampler, MedBridge, create_expert, fit, load_adapter, load_benchmark, paired_difference
from medbridge.course import check, full_profile, seed_everything
from medbridge.metrics.evaluate import evaluate
from medbridge.predict import predict
from medbridge.train import TrainConfig

logging.getLogger().setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=UserWarning)
rng = seed_everything(0)

# %% [markdown]
# ## 1. The map
#
# Something else can enter MedBridge at five places: its **experts**, its **loss**, its **router**, a
# **baseline** beside it, and what we do with its queries **after** training. "Code" means that something in
# the spirit of the system runs below on the shipped tiny experts. It does not mean that we reproduced the
# system. "Weights by you": the same line runs once you have put the weights there; we measured nothing with
# them.
#
# | system | what it is | here |
# |---|---|---|
# | [MedSigLIP, MedGemma](https://arxiv.org/abs/2507.05201) | SigLIP for medical images and texts; a language model that sees | experts, weights by you |
# | [UniMed-CLIP](https://arxiv.org/abs/2412.10372) | CLIP on 5.3 million image-text pairs of six modalities | expert, weights by you |
# | [DINOv3](https://arxiv.org/abs/2508.10104), [MedDINOv3](https://arxiv.org/abs/2509.02379) | self-supervised towers without text; trained on with CT slices | experts with a borrowed text space, weights by you |
# | [LVM-Med](https://arxiv.org/abs/2306.11925) | self-supervised on 1.3 million medical images | the same |
# | [DINO-AugSeg](https://arxiv.org/abs/2601.08078) | few-shot segmentation on DINOv3 | context |
# | [MVFA](https://arxiv.org/abs/2403.12570) | residual adapters at several depths of CLIP | baseline: code |
# | [MedTrim](https://arxiv.org/abs/2504.15929) | triplets of images and reports, by shared disease | loss: code |
# | [Med-MoE](https://arxiv.org/abs/2404.10237) | top-k domain experts and a meta expert | router: code |
# | [MedAlign](https://arxiv.org/abs/2510.21093) | routes a question to a language model by retrieval | router: code |
# | [MMed-RAG](https://arxiv.org/abs/2410.13085) | retrieves reports for a language model | similar films: code |
# | [MedROV](https://arxiv.org/abs/2511.20650), [MedDAM](https://arxiv.org/abs/2505.05804) | a detector for free words; describes a region | words to region: code |
# | [TemMed-Bench](https://arxiv.org/abs/2509.25143) | questions about what changed between visits | a task: code |
#
# The descriptions follow the papers' abstracts.
#
# All sections share one set of synthetic films. Sections 2 and 3 train small models on the whole film alone,
# as one network: members and a read-out would hide what a part does.

# %% tags=["nbval-ignore-output"]
films = load_benchmark("phantom", n_films=900 if full_profile() else 300)
parts = {name: films.split(name) for name in ("train", "val", "test")}
test = parts["test"]
y, mask = test.targets()
patients = test.table["patient_id"]
print(f"{films.name}: " + ", ".join(f"{len(part)} films in {name}" for name, part in parts.items()))

# %%
WHOLE, CACHE = FocalSampler(local=False), FeatureCache(progress=False)
BUDGET = TrainConfig(epochs=30 if full_profile() else 8, batch_size=8, lr=3e-3, ema=0.9, patience=40)


def trained(experts, network=None, **options):
    """A small model that sees the whole film, trained; and its cached films by split."""
    model = MedBridge(experts, films.labels, sampler=WHOLE, queries=4, **options)
    cached = {name: CACHE.of(model, part, training=name == "train") for name, part in parts.items()}
    fit(model, cached["train"], cached["val"], BUDGET, progress=False, network=network)
    return model, cached


def probabilities(model, cached):
    return predict(model, cached["test"], progress=False).probabilities

# %%
def auc_text(scores):
    """Mean test AUC with its interval."""
    m = evaluate(y, scores, mask, patients, test.labels).macro
    return f"{m['auc']:.3f} [{m['lo']:.3f}, {m['hi']:.3f}]"


def gain(a, b):
    """Mean test AUC of a minus b, paired on the same patients."""
    d = paired_difference(y, a, b, mask, patients, n_boot=1000, labels=test.labels)
    return f"{d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]" + ("; the interval holds zero" if d.lo <= 0 <= d.hi else "")

# %% [markdown]
# ## 2. Other experts, and adapters inside the tower
#
# **Why.** The adapter can only learn what the frozen experts see. A medical expert may see more, and only a
# name changes. The shipped experts differ in tower and in pre-training pictures, so we can try the swap.

# %%
from medbridge.experts.info import expert_info

TINY = ("tiny-resnet", "tiny-resnet-scenes", "tiny-vit")
for name in TINY:
    card = expert_info(name)
    print(f"{name:<18} {card.size} px, {card.depth} blocks, width {card.width}, {card.parameters / 1e6:.1f} M parameters, {card.licence}")

# %% tags=["nbval-ignore-output"]
models = {name: trained([create_expert(name)]) for name in TINY}  # what changes is the name
swapped = {name: probabilities(*models[name]) for name in TINY}
for name in TINY:
    print(f"{name:<18} test AUC {auc_text(swapped[name])}  (synthetic films)")
print("tiny-resnet minus tiny-vit:", gain(swapped["tiny-resnet"], swapped["tiny-vit"]))

# %% [markdown]
# To compare two experts, read the paired difference. The same line takes a real expert. The part behind the
# plus sign is the text encoder that a tower without text borrows. Without the weights `expert_info` still
# knows this much:

# %% tags=["nbval-ignore-output"]
names = ["medsiglip", "medgemma-vision+minilm", "unimed-clip-vitb16", "dinov3-vits16+minilm", "meddinov3+pubmedbert",
         "lvm-med-resnet50+pubmedbert", "lvm-med-vitb+pubmedbert"]
cards = [expert_info(name) for name in names]
print(pd.DataFrame({"px": [c.size for c in cards], "blocks": [c.depth for c in cards], "width": [c.width for c in cards],
                    "licence": [c.licence for c in cards], "file or folder": [c.wanted for c in cards]}, index=names).to_string())

# %% [markdown]
# Where the weights are missing, the error names the file and its place:

# %% tags=["nbval-ignore-output"]
from medbridge.errors import ExpertError

try:
    create_expert("unimed-clip-vitb16")
    print("the weights are here")
except ExpertError as error:
    print(error)

# %% [markdown]
# We did not try the real files.
#
# ### MVFA: adapters inside the tower
#
# MVFA mixes small residual adapters into the tokens at several depths $l$ of the frozen tower, and compares
# their bottlenecks $F'$ with the prompts:
#
# $$F_l^* = \gamma\, \mathrm{adapt}_l(F_l) + (1 - \gamma) F_l, \qquad
#   \mathrm{score}_c = \operatorname{mean}_{l, p}\; s\,\big(\cos(F'_{lp}, t_c^+) - \cos(F'_{lp}, t_c^-)\big)$$
#
# The adapters and $\gamma = 0.1$ are theirs. They change what later blocks see, so no feature can be stored:
# every step runs the tower. MedBridge's queries do not pay that price.

# %% tags=["nbval-ignore-output"]
from medbridge.baselines import LinearProbe
from medbridge.baselines.mvfa import MVFA

bridge, cached = models["tiny-resnet"]
resnet, config = bridge.experts[0], TrainConfig(epochs=30 if full_profile() else 2)
adapters = MVFA([resnet], films.labels, config=config, tries=1, progress=False).fit(cached["train"], cached["val"])
probe = LinearProbe(views="whole").fit(cached["train"], cached["val"])
plain = probabilities(bridge, cached)
for name, scores in (("MedBridge", plain), ("MVFA-style adapters", adapters.predict_proba(cached["test"])),
                     ("linear probe", probe.predict_proba(cached["test"]))):
    print(f"{name:<20} test AUC {auc_text(scores)}  (whole synthetic film, tiny-resnet)")

# %% [markdown]
# **Read with care.** The adapters got one setting and two epochs, fewer than MedBridge. This cell shows that
# the baseline runs, not which method is better.
#
# ## 3. A triplet loss and two routers
#
# **Why.** The cross-entropy looks at films one by one. It does not care whether films with the same findings
# lie near each other. MedTrim does: an anchor $a$ shall lie nearer to a positive $p$, which shares much with
# it, than to a negative $n$. MedTrim scores what two studies share from their reports. We have labels alone,
# so $s_{ij}$ is the Jaccard index of the findings of films $i$ and $j$. With $v$ an expert's pooled queries,
#
# $$s_{ij} = \frac{|\text{findings of both}|}{|\text{findings of either}|}, \qquad
#   \ell = \operatorname{mean}_{s_{ap} > s_{an}}
#   \max\big(0,\; m\,(s_{ap} - s_{an}) + \cos(v_a, v_n) - \cos(v_a, v_p)\big)$$
#
# Only triplets that cost something enter the mean.
#
# ### Exercise 13.1: how much do two films share?
# ★☆☆, 5 minutes. Write `overlap(a, b)` for the labels of two films, arrays of 1, 0 and NaN (unknown): the
# Jaccard index over the labels that are known of **both** films. Two films without any finding are wholly
# alike: 1.
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
# The loss as three loops, against the package's:

# %%
from medbridge.extras.triplet import TripletNetwork, label_overlap, triplet_loss


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


# %%
some_y, some_mask = (torch.tensor(a[:8]) for a in parts["train"].targets())
vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
torch.testing.assert_close(my_triplet_loss(vectors, label_overlap(some_y, some_mask)), triplet_loss(vectors, some_y, some_mask))
print("equal")

# %% [markdown]
# `TripletNetwork` adds it to the loss of a training, with a weight. Does it help? We compare AUC, and
# precision at 5: of a film with a finding, how many of its five neighbours have it too.

# %% tags=["nbval-ignore-output"]
from medbridge.extras.retrieve import FilmIndex, precision_at_k, query_vectors

with_triplets, same_films = trained([resnet], network=partial(TripletNetwork, weight=0.5))
triplets = probabilities(with_triplets, same_films)
print(f"test AUC without {auc_text(plain)}, with triplets {auc_text(triplets)}  (synthetic films)")
print("with minus without:", gain(triplets, plain))
for name, one, seen in (("without", bridge, cached), ("with triplets", with_triplets, same_films)):
    index = FilmIndex(parts["train"], query_vectors(one, seen["train"]))
    table = precision_at_k(index, index.search(query_vectors(one, seen["test"]), 5, patients), test)
    row = table.set_index("label").loc["mean"]
    print(f"precision at 5, {name:<13} {row.precision:.3f}, chance {row.chance:.3f}, "
          f"gain {row.gain:+.3f} [{row.gain_lo:+.3f}, {row.gain_hi:+.3f}]")

# %% [markdown]
# **What to see.** In the stored run the interval of the AUC holds zero, and the neighbours share no more
# findings than without the triplets. One weight and one seed do not decide the matter; the loss stays off.
#
# ### Med-MoE: keep the strongest experts
#
# Med-MoE keeps the $k$ strongest domain experts, and a **meta expert** that is always active. Our experts are
# whole frozen models, and one softmax runs over those that are kept:
#
# $$g = \operatorname{softmax}\big(\mathrm{router}(q)\ \text{where kept, else} -\infty\big), \qquad
#   \text{kept} = \{\text{shared}\} \cup \text{top-}k(\text{others})$$

# %%
from medbridge.moe import Router


def my_top_k(logits, k, shared):
    """Logits (K,) -> weights (K,)."""
    others = [i for i in np.argsort(-logits) if i != shared]
    kept = [shared, *others[:k]]
    weights = np.zeros(len(logits))
    weights[kept] = np.exp(logits[kept] - logits[kept].max())
    return weights / weights.sum()


# %%
torch.manual_seed(0)
router = Router([4, 4, 4, 4], classes=1, kind="image", top_k=1, shared=2).eval()
for parameter in router.parameters():
    torch.nn.init.normal_(parameter)
queries = [torch.randn(6, 4) for _ in range(4)]
logits, weights = router.net(torch.cat(queries, dim=1)).detach().numpy(), router(queries)[:, :, 0].detach().numpy()
np.testing.assert_allclose(weights, [my_top_k(row, 1, 2) for row in logits], atol=1e-6)
print("experts that each film uses:", [np.flatnonzero(row).tolist() for row in weights])

# %% tags=["nbval-ignore-output"]
three = [create_expert(name) for name in TINY]
dense, three_films = trained(three)
sparse, _ = trained(three, top_k=1, shared_expert="tiny-resnet", router_noise=0.5)
mixed, kept = probabilities(dense, three_films), probabilities(sparse, three_films)
print(f"all three experts: {auc_text(mixed)}; tiny-resnet and one other: {auc_text(kept)}  (synthetic films)")
print("sparse minus dense:", gain(kept, mixed))

# %% [markdown]
# **What to see.** A sparse router is made to save work. Here the cache holds all experts' maps, so it saves
# nothing.
#
# ### MedAlign: ask a memory
#
# MedAlign sends a question to the model whose own data are most like it. We train nothing: we remember the
# pooled queries of labelled films, and the loss of each expert on them. For a new film we look up the $J$
# nearest and trust the experts that were right there, the more so the lower the temperature $\vartheta$:
#
# $$g_{kc} \propto g^{\text{trained}}_{kc}\; e^{-\ell_{kc} / \vartheta}, \qquad
#   \ell_{kc} = \frac{\sum_{i \in \text{nearest}} \cos(q, q_i)\, \mathrm{BCE}_{ikc}}
#   {\sum_{i \in \text{nearest}} \cos(q, q_i)}$$

# %%
from medbridge.extras.retrieve import RetrievalRouter, joint_vectors, with_memory


def my_memory_weights(start, q, memory, losses, nearest, temperature):
    """start (K,), query (w,), memory (n, w), losses (n, K): unit vectors, one label."""
    cosine = memory @ q
    near = np.argsort(-cosine)[:nearest]
    loss = (cosine[near, None] * losses[near]).sum(0) / cosine[near].sum()
    g = start * np.exp(-loss / temperature)
    return g / g.sum()


# %%
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
print(f"trained router alone: {auc_text(mixed)}")
for source in ("train", "val"):
    for temperature in (2.0, 0.2):
        remembering = with_memory(dense, three_films[source], 16, temperature)
        on_val = predict(remembering, three_films["val"], progress=False).probabilities
        val_auc = evaluate(parts["val"].targets()[0], on_val, parts["val"].targets()[1], n_boot=0).macro["auc"]
        print(f"memory of {source:<5}, temperature {temperature}: validation AUC {val_auc:.3f}; test AUC minus the trained router's "
              f"{gain(probabilities(remembering, three_films), mixed)}")

# %% [markdown]
# **What to see, and a trap.** We measured no gain: every interval holds zero. Do not believe the validation
# AUC of a memory of *validation* films: other films of the same patients lie in it, with their labels. With a
# memory of training films all experts look right, because they learned from them.
#
# ## 4. Evidence: similar films, and regions for words
#
# **Why.** A reader can look at "the five most similar films of other patients, and what they showed".
# MMed-RAG retrieves reports for a language model. We show films and labels beside the prediction, and never
# mix them into it.
#
# ### Exercise 13.2: the nearest films of other patients
# ★★☆, 10 minutes. Write `nearest(query, patient, vectors, patients, k)`: `query` is a vector, `patient` whose
# film it is, `vectors` $(n, d)$ and `patients` $(n,)$ those of the archive. Return the rows of the $k$ most
# similar films by cosine, nearest first, **without** films of that patient.
#
# <details><summary>Hint</summary>
# Set the cosine of the patient's own films to minus infinity, then sort. So row numbers stay those of
# <code>vectors</code>.
# </details>

# %%
def nearest(query, patient, vectors, patients, k):
    raise NotImplementedError


check("13.2", nearest)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/13_beyond_the_paper.ipynb](solutions/13_beyond_the_paper.ipynb), with what happens
# without the patient rule.
#
# ```python
# def nearest(query, patient, vectors, patients, k):
#     cosine = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
#     cosine[patients == patient] = -np.inf
#     return np.argsort(-cosine)[:k]
# ```
# </details>
#
# Now with the shipped adapter, which sees all windows:

# %% tags=["nbval-ignore-output"]
model = load_adapter("../data/quickstart")
seen = {name: CACHE.of(model, part) for name, part in parts.items()}
found = {name: predict(model, stored, progress=False) for name, stored in seen.items()}
print(f"shipped adapter, {len(test)} synthetic test films: AUC {auc_text(found['test'].probabilities)}")

# %%
archive = FilmIndex(parts["train"], query_vectors(model, seen["train"]))
looked_up = archive.search(query_vectors(model, seen["test"]), 5, patients)
asked = query_vectors(model, seen["test"]) - archive.centre
for film in range(5):  # the same by hand
    cosine = archive.vectors @ asked[film] / np.linalg.norm(asked[film])
    cosine[archive.patients == patients[film]] = -np.inf
    np.testing.assert_allclose(cosine[looked_up.rows[film]], np.sort(cosine)[::-1][:5], atol=1e-5)
own = archive.patients[looked_up.rows] == patients.to_numpy()[:, None]
print("films of the same patient among those found:", int(own.sum()))

# %% alt="a synthetic test film and its nearest training films of other patients, with their labels" tags=["nbval-ignore-output"]
from medbridge.viz import plots

example = int(np.flatnonzero(test.table["Pneumonia"] == 1)[0])
plots.evidence_strip(archive, looked_up, test, example)

# %% [markdown]
# Is it better than chance, the finding's share in the archive? Beside the queries stand the frozen summaries,
# which nobody trained:

# %%
from medbridge.extras.retrieve import summary_vectors
from medbridge.viz.drawing import chart, errors

frozen = FilmIndex(parts["train"], summary_vectors(seen["train"]))
tables = {"trained queries": precision_at_k(archive, looked_up, test),
          "frozen summaries": precision_at_k(frozen, frozen.search(summary_vectors(seen["test"]), 5, patients), test)}

# %% alt="dots with 95 % intervals by label: precision at 5 minus chance of the trained queries and of the frozen summaries, synthetic films; a dashed line marks zero" tags=["nbval-ignore-output"]
fig, ax = chart(8.5, 3.2, "Retrieval of synthetic films of other patients")
for aside, (name, t), marker in zip((-0.12, 0.12), tables.items(), "os", strict=True):
    ax.errorbar(np.arange(len(t)) + aside, t["gain"], errors(t["gain"], t["gain_lo"], t["gain_hi"]), fmt=marker, capsize=3, label=name)
    print(f"{name}: mean gain {t['gain'].iloc[-1]:.2f} [{t['gain_lo'].iloc[-1]:.2f}, {t['gain_hi'].iloc[-1]:.2f}]")
ax.axhline(0, color="0.4", linestyle="--")
ax.set_xticks(range(len(t)), t["label"], rotation=30, ha="right")
ax.set_ylabel("precision at 5 minus chance")
ax.legend(frameon=False)
fig

# %% [markdown]
# **What to see.** The trained queries find films with the same finding well above chance where the model is
# good (a large heart, pneumonia), and hardly where it is not (nodules, pneumothorax). Evidence shows what the
# model finds similar, not what is true.
#
# ### Regions for free words
#
# "Where is the fluid?" asks for a place. MedROV is a detector trained on boxes; MedBridge never saw a box.
# But its queries have looked somewhere, and their tokens lie in the text space, as words do. With $z_j$ the
# token of query $j$ and $t$ the direction of the words (what we look for, minus what we do not), summed over
# views and experts:
#
# $$a_j = \operatorname{softmax}_j\big(10\, \cos(z_j, t)\big), \qquad
#   \mathrm{map} = \sum_j a_j\, \mathrm{attention}_j$$
#
# Boxes surround the connected parts that reach half of the maximum:

# %%
from medbridge.extras.regions import prompt_attention, prompt_boxes, prompt_maps

heat = np.zeros((20, 40))
heat[2:4, 10:20], heat[15:18, 30:32] = 1.0, 0.7  # a map with two parts
boxes = prompt_boxes(heat, (200, 800))  # of a film of 200 x 800 pixels
print(boxes.round(1).to_string(index=False))
assert boxes.iloc[0].tolist() == [200, 20, 400, 40, 1.0]

# %% alt="one synthetic film for each of three free texts: a heat map of where the queries that mean the text looked, the enlarged heart's true box solid and what was found dashed" tags=["nbval-ignore-output"]
from medbridge.explain.attention import explain
from medbridge.viz.drawing import true_boxes

row = int(np.flatnonzero((test.table["Cardiomegaly"] == 1) & (test.table["Pneumonia"] == 0))[0])
picture = test.read(row)
looked = explain(model, picture)
words = ["a large bright blob in the centre", "fluid in the pleural space", "a small bright spot"]
heats = [prompt_attention(model, looked, text) for text in words]
drawn = [prompt_boxes(heat, picture.shape)[["x0", "y0", "x1", "y1"]].to_numpy() for heat in heats]
plots.prompt_regions(picture, heats, words, drawn, [true_boxes(test, row, "Cardiomegaly")] * 3,
                     "Words and where the queries that mean them looked (synthetic film;\nsolid: the enlarged heart, dashed: found)")

# %% [markdown]
# **Try it** (needs a running kernel): write your own words.

# %% tags=["nbval-ignore-output"]
from medbridge.viz import widgets

widgets.explore_regions(model, picture, title="a synthetic film")

# %% [markdown]
# For each finding of a film we take the words of its prompts. A hit: the maximum lies in the true box. Chance
# is the same map, shifted at random (notebook [11](11_what_did_it_look_at.ipynb)). Beside it stands an
# untrained expert, whose patches are compared with the words.

# %%
from medbridge.explain.localisation import film_scores
from medbridge.metrics.bootstrap import bootstrap_means, group_codes, percentiles


def with_interval(difference, patients):
    """Mean of a difference, one number per finding, with its interval over patients, as text."""
    draws = bootstrap_means(difference.to_numpy()[:, None], group_codes(patients, len(patients)), 1000, 0)
    lo, hi = percentiles(draws, 0.95)
    return f"{difference.mean():+.3f} [{lo[0]:+.3f}, {hi[0]:+.3f}] over {len(difference)} findings"


# %% tags=["nbval-ignore-output"]
boxed = test if full_profile() else test.take(np.arange(len(test)) < 40)
right = film_scores(prompt_maps(model), boxed, test.labels, progress=False)
patches = film_scores(prompt_maps(model.experts[0]), boxed, test.labels, progress=False)
for name, scores in (("trained queries", right), ("patches of tiny-resnet, untrained", patches)):
    print(f"{name}: hit minus chance {with_interval(scores['hit'] - scores['hit_chance'], scores['patient'])} (synthetic films)")

# %% [markdown]
# **What to see.** The queries beat chance; of the untrained patches this is not shown. It is tempting to stop
# here and to say that the model finds what the words name.
#
# **The control.** Did the *words* do anything? Ask with the words of another finding, and score against the
# same boxes:

# %% tags=["nbval-ignore-output"]
from medbridge.prompts import class_prompts

other = {label: class_prompts(test.labels[(c + 3) % len(test.labels)]) for c, label in enumerate(test.labels)}
wrong = film_scores(prompt_maps(model, other), boxed, test.labels, progress=False)
for measure in ("hit", "iou"):
    print(f"{measure:<4} right words {right[measure].mean():.3f}, wrong words {wrong[measure].mean():.3f}; difference "
          f"{with_interval(right[measure] - wrong[measure], right['patient'])} (synthetic films)")
one, two = (prompt_attention(model, looked, text, side=64) for text in ("an enlarged heart", "air in the pleural space"))
print(f"correlation of the maps of 'an enlarged heart' and 'air in the pleural space': {np.corrcoef(one.ravel(), two.ravel())[0, 1]:.2f}")

# %% [markdown]
# **What to see.** Wrong words do as well as right ones, and two quite different prompts give nearly the same
# map. **The words do nothing here.** What beat chance is the model's attention, not its understanding of a
# prompt. For regions that follow words, train a model on regions, as MedROV does.
#
# ## 5. What changed between two films?
#
# **Why.** In the ward the question is rarely "is there an effusion?" but "is it *new*?". TemMed-Bench asks
# vision-language models about pairs of visits, and finds most of them near guessing. We use no language. Many
# patients of PhantomCXR have two or three films. With the logits $z$ of the earlier and the later film,
#
# $$d = z_{\text{after}} - z_{\text{before}}, \qquad
#   \text{new if } d > t, \quad \text{resolved if } d < -t, \quad \text{unchanged else.}$$

# %%
from medbridge.extras.change import change_report, film_pairs, fit_threshold, tell_change

visits = {name: film_pairs(part) for name, part in parts.items()}
if not full_profile():
    print(pd.DataFrame({name: {"pairs": len(p), **{word: int((p.known & (p.change == c)).sum()) for word, c in
                                                   (("resolved", -1), ("unchanged", 0), ("new", 1))}}
                        for name, p in visits.items()}).to_string())

# %%
first, present = visits["test"], test.table[test.labels[0]].to_numpy()
assert (patients.to_numpy()[first.before] == patients.to_numpy()[first.after]).all()
assert (first.change[:, 0] == present[first.after] - present[first.before]).all()

# %% [markdown]
# Almost everything is unchanged: "unchanged, always" would be right nine times in ten. So we take the **mean
# recall** of the three answers. Chance, and "unchanged, always", get one third.
#
# ### Exercise 13.3: choose the threshold
# ★★★, 20 minutes. Write `best_threshold(d, change)`: `d` are differences, `change` is 1 (new), -1 (resolved)
# or 0 (unchanged). Return the $t \ge 0$ whose answers have the best mean recall over the three.
#
# <details><summary>Hint</summary>
# Try every value of |d| as the threshold. For each answer take the share of right ones among those where it
# is true.
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
# The threshold comes from the **validation** pairs, the numbers from the test pairs. The rival is the later
# film alone: it also says something about what is new.

# %% tags=["nbval-ignore-output"]
from scipy.special import logit

z = {name: logit(p.probabilities.clip(1e-7, 1 - 1e-7)) for name, p in found.items()}
threshold = fit_threshold(visits["val"].differences(z["val"]), visits["val"])
report = change_report(first, z["test"], threshold)
print(f"{report.pairs} pairs of synthetic test films, {report.counts}; threshold {threshold:.2f} from {len(visits['val'])} validation pairs")
for word, e, g in (("new", report.new, report.new_gain), ("resolved", report.resolved, report.resolved_gain)):
    print(f"{word:<9} AUC of the difference {e.macro['auc']:.3f} [{e.macro['lo']:.3f}, {e.macro['hi']:.3f}] over {e.macro['n_defined']} "
          f"labels (chance 0.5); minus the later film alone {g.diff:+.3f} [{g.lo:+.3f}, {g.hi:+.3f}]")
print(f"mean recall of new, resolved, unchanged {report.accuracy:.3f} [{report.lo:.3f}, {report.hi:.3f}]; chance 0.333")

# %% alt="an earlier and a later synthetic film of one patient, with the score of one finding in each, and whether it is called new, unchanged or resolved" tags=["nbval-ignore-output"]
d = first.differences(z["test"])
size = np.where(first.change == 1, d, -np.inf)
i, c = np.unravel_index(size.argmax(), size.shape)
answer = ("resolved", "unchanged", "new")[tell_change(d, threshold)[i, c] + 1]
rows = {"earlier": int(first.before[i]), "later": int(first.after[i])}
plots.film_grid([test.read(row) for row in rows.values()], [f"{when} film: z = {z['test'][row, c]:+.1f}" for when, row in rows.items()],
                columns=2, title=f"{test.labels[c]} is new, called '{answer}' (synthetic films)")

# %% [markdown]
# **What to see.** The mean recall beats chance. The difference ranks *resolved* findings better than chance.
# For *new* ones the interval of the stored run holds 0.5: so few pairs cannot tell. Subtracting cancels what
# a patient's films share, but adds the noise of two scores. The picture is a best case: the largest
# difference where a finding is new.
#
# ## Summary
#
# - Another expert is another name. `expert_info` and the error say what it needs.
# - A triplet term, a sparse router and a memory are options, all off. We measured no gain in AUC from them.
# - Films that the trained queries find share findings above chance, where the model is good. Never show a
#   patient's own films as evidence, and never choose a setting on patients who are in the memory.
# - A map that beats a shifted map need not follow the words. Always run the control.
# - Change is a difference of logits, with a threshold from validation pairs. Report mean recall.
#
# This is the last notebook. Next come your own films: [02](02_films_labels_splits.ipynb) shows the folder
# layout, [docs/running.md](../docs/running.md) the commands.
