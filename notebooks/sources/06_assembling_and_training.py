# %% [markdown]
# # 06 Assembling and training
#
# {{COLAB}}
#
# **What you will build:** the whole of MedBridge, from its parts, and the loop that trains it. You write the forward pass by hand
# and check it against the package; count what is trained beside what is frozen; write the losses, with labels that are unknown;
# train with thirty lines of your own, which have a schedule and keep the best epoch. Then see what `medbridge.fit` adds to them: two more
# terms of the loss, an average of the weights, early stopping, and a run that can be cut off and still ends in the same numbers. At the end you take the step from one network to what the
# commands train: several members, each judged by films that it has not learned from, and a linear read-out beside them.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (labels and masks) and [03](03_focal_sampling.ipynb) (views), 04 (Query
#   Encoder) and 05 (mixture of experts); PyTorch: modules, autograd, an optimiser.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores when films and features are not there
#   yet, less afterwards. On a Colab T4 about one minute (an estimate).
# - **Modules:** `medbridge/crossview.py`, `medbridge/losses.py`, `medbridge/train.py`, `medbridge/readout.py` ·
#   **tests:** `tests/test_crossview.py`, `tests/test_losses.py`, `tests/test_train.py`, `tests/test_readout.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). **[abstract]** The experts stay frozen. How the rest is trained is our choice.
#   [Notebook 00](00_start_here.ipynb) explains the marks **[abstract]**, **[summary]** and **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import copy
import logging
import math
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from open_clip.model import CLIP

from medbridge import (
    AdapterConfig,
    FeatureCache,
    FocalSampler,
    MedBridge,
    TrainConfig,
    fit,
    load_adapter,
    load_benchmark,
    predict_film,
    save_adapter,
)
from medbridge import train as train_module
from medbridge.course import check, full_profile, seed_everything
from medbridge.crossview import CrossView
from medbridge.data.tasks import label_budget, member_folds
from medbridge.experts import tiny_experts_folder
from medbridge.explain.attention import explain
from medbridge.features.batch import collate, draw_views
from medbridge.features.compact import as_numbers
from medbridge.losses import asymmetric_loss, masked_bce
from medbridge.metrics.evaluate import auc, evaluate
from medbridge.predict import film_features, outputs, predict
from medbridge.prompts import encode_prompts
from medbridge.qencoder import QueryEncoder
from medbridge.readout import pool_summary
from medbridge.scores import PromptScores
from medbridge.train import cosine_schedule
from medbridge.viz import plots, widgets

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. The parts on the table
#
# Each part takes what the one before it gives. $B$ films, $N$ views, $K$ experts, $P$ patch tokens, $Q$ queries of width $w$, $C$
# findings:
#
# | part | takes | gives | trained? | notebook |
# |---|---|---|---|---|
# | Focal Sampling | a film | $N$ views | no | 03 |
# | expert $k$ | a view | map $P \times d_k$, summary | **frozen** | 01 |
# | compact maps $k$ | map, summary | bytes, at most 64 patches of width $r$; standardised summary | no: a basis, fitted without labels; cached | 04 |
# | Query Encoder $k$ | maps | $N \times Q \times w$ | yes | 04 |
# | across views $k$ | $N \times Q \times w$, summaries, boxes | $(Q + 1) \times w$ | yes | here |
# | class scores $k$ | $(Q + 1) \times w$, prompts | $C$ scores | yes (prompts frozen) | here |
# | mixture | $K \times C$ scores, queries | $C$ scores | yes (the router) | 05 |
#
# The trained rows together are one **member**. The shipped adapter is a single member, so that it can be followed number by number; section 8
# goes on to several.
#
# To see real weights at work we take the adapter that the repository ships: trained weights, not fresh ones. This matters
# for a check: in a fresh model some layers are zero on purpose, and a check on zeros passes whatever one writes.

# %%
shipped = load_adapter("../data/quickstart")
assert shipped.card["synthetic"]

# %% tags=["nbval-ignore-output"]
benchmark = load_benchmark("phantom", n_films=1200 if full_profile() else 360)
test = benchmark.split("test")
print(f"{benchmark.name}: {len(benchmark)} films; {len(test)} of them for testing")

# %% [markdown]
# Films of another shape have another number of windows. In a batch they are padded to the same number, and a mask says which views are
# real. Padding must change nothing. So one of our films is cut to a narrow one:

# %%
films = [test.read(0), test.read(1), test.read(2)[:, 160:860]]
features = [film_features(shipped, film)[0] for film in films]
batch = collate(features)
assert not batch.view_mask[0].all() and batch.view_mask[2].all()  # the square films are padded, the narrow one is not
print("views of the films:", [len(f.boxes) for f in features], "-> padded to", batch.view_mask.shape[1])
print("boxes (B, N, 4):", tuple(batch.boxes.shape), " mask (B, N):", tuple(batch.view_mask.shape))

# %% [markdown]
# ## 2. The forward pass by hand
#
# ### Across views
#
# **[summary]** Self-attention relates the $N$ views of a film; then max-pooling over the views leaves one set of tokens, frozen ones
# $m_k$ and queries. **[ours]** The frozen summary $m_k$ of each view joins the queries as one more token. Summaries are standardised: each number has mean 0 and deviation 1
# over the films of the basis. Attention runs over the views for each token apart: query $j$ of one view sees query $j$ of the others. Each
# view's tokens get a code of where its box lies.
#
# $$x_n = [q_n ; \mathrm{proj}(m_n)] + \mathrm{place}(\mathrm{box}_n), \qquad
# x_{nj} \leftarrow x_{nj} + W_o \sum_{n'} \operatorname{softmax}_{n'}\!\left(\frac{\tilde q_{nj} \cdot K_{n'j}}{\sqrt{w/h}}\right) V_{n'j},
# \qquad \bar q_j = \mathrm{LN}\!\left(\max_n x_{nj}\right)$$
#
# with $h$ heads, and an MLP after the attention as in any transformer block. We write it for *one* film and only its real views, with
# plain loops over tokens and heads. The package does a padded batch at once; both must agree.

# %%
def across_views(part, queries, summary, boxes):
    """One film: queries (N, Q, w), summaries (N, image_dim), boxes (N, 4) -> tokens (Q + 1, w)."""
    tokens = torch.cat([queries, part.project(summary)[:, None]], dim=1) + part.place(boxes)[:, None]
    related = []
    for x in tokens.unbind(dim=1):  # token j of all views: (N, w)
        per_head = [t.chunk(part.heads, dim=-1) for t in part.qkv(part.norm1(x)).chunk(3, dim=-1)]
        attended = [
            ((q @ k.T) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v for q, k, v in zip(*per_head, strict=True)
        ]
        x = x + part.out(torch.cat(attended, dim=-1))
        related.append(x + part.mlp(part.norm2(x)))
    return part.norm(torch.stack(related, dim=1).max(dim=0).values)


# %% [markdown]
# Why maximum and not mean? The argument: a nodule is in one view of ten; a mean dilutes it by ten, and a maximum keeps it. The price: a
# maximum of more views is larger, so noise in any view counts too. What we measured, on synthetic films with the earlier form: on validation films the mean is level with the
# maximum (+0.001 [-0.013, +0.014]); on test films it is lower (-0.009 [-0.018, -0.001]). So the argument is weaker than it sounds.
#
# ### Class scores
#
# **[ours]** Tokens are projected to the expert's own text space and compared with the class prompts. For multi-label
# diagnosis the direction of a class is positive minus negative prompt, $t_c$. Each class reads its own mixture $a_c$ of the
# tokens, may correct its prompt by $\delta_c$, and has a bias:
#
# $$z_c = \mathrm{normalise}\Big(W_t\,\mathrm{LN}\big(\textstyle\sum_j a_{cj}\,\bar q_j\big)\Big), \qquad
# s_c = e^{\tau}\, z_c \cdot (t_c + \delta_c) + b_c$$

# %%
def class_scores(part, tokens):
    """Tokens (Q + 1, w) -> logits (C,)."""
    scores = []
    for c in range(len(part.bias)):
        mixed = (part.mix[c].softmax(dim=0)[:, None] * tokens).sum(dim=0)
        z = F.normalize(part.project(part.norm(mixed)), dim=0)
        scores.append(part.log_scale.exp() * (z @ (part.text[c] + part.delta[c])) + part.bias[c])
    return torch.stack(scores)


for expert, branch in zip(shipped.experts, shipped.branches, strict=True):
    positive, negative = encode_prompts(expert, shipped.labels, shipped.prompts)
    torch.testing.assert_close(branch.scores.text, F.normalize(positive - negative, dim=-1))
print("the frozen directions are those of the prompts")

# %% [markdown]
# ### All of it
#
# Query Encoder and router come from notebooks 04 and 05. The rest is one line per part:

# %%
def forward_by_hand(model, film):
    """Frozen features of one film -> mixture's logits (C,), experts' logits (K, C), weights (K, C)."""
    logits, pooled = [], []
    for k, branch in enumerate(model.branches):
        summary = (film.summary[k].float() - model.bases[k].summary_mean) / model.bases[k].summary_scale
        queries, _ = branch.encoder([as_numbers(m) for m in film.maps[k]])  # bytes to numbers; (N, Q, w)
        tokens = across_views(branch.views, queries, summary, film.boxes)  # (Q + 1, w)
        logits.append(class_scores(branch.scores, tokens))
        pooled.append(tokens[:-1].mean(dim=0))  # the queries alone drive the router
    expert_logits = torch.stack(logits)
    weights = model.router.net(torch.cat(pooled)).view(expert_logits.shape).softmax(dim=0)
    return (weights * expert_logits).sum(dim=0), expert_logits, weights


# what the function above is written for
assert shipped.config.router == "class" and shipped.config.cross_view and shipped.config.members == 1 and shipped.readout is None
with torch.inference_mode():
    output = shipped.eval()(batch)
    for i, film in enumerate(features):
        logits, expert_logits, weights = forward_by_hand(shipped, film)
        torch.testing.assert_close(logits, output.logits[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(expert_logits, output.expert_logits[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(weights, output.weights[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(weights.sum(dim=0), torch.ones(len(shipped.labels)))
assert expert_logits.std() > 0.1 and (weights[0] - weights[1]).abs().max() > 0.01  # neither zeros nor a uniform router
print("by hand = MedBridge.forward, for", len(films), "films, padded or not")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(9, 3.2), layout="constrained")
ax = fig.subplots()
at, names = np.arange(len(shipped.labels)), [e.name for e in shipped.experts]
for k, (name, marker) in enumerate(zip(names, "^v", strict=True)):
    ax.scatter(at, output.expert_logits[0, k].sigmoid(), marker=marker, s=50, color=f"C{k}", label=f"{name} alone")
ax.scatter(at, output.logits[0].sigmoid(), marker="_", s=500, color="black", label="mixture")
ax.set_xticks(at, [f"{label}\n{output.weights[0, 0, c]:.2f} : {output.weights[0, 1, c]:.2f}" for c, label in enumerate(shipped.labels)],
              fontsize=8)
ax.set(ylabel="probability", ylim=(0, None), title="One synthetic film: what each expert says, and the mixture (below: the weights)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# **What to see.** The mixture lies between the experts, nearer to the one with the larger weight. (Weights act on logits, so it is not
# exactly the weighted mean of the probabilities.)
#
# ## 3. What is trained, and what is frozen
#
# `requires_grad` says it. We make the model that this notebook trains: smaller than the default, so that a processor is enough.

# %%
LABELS = benchmark.labels
SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=2)
SMALL = {"queries": 4, "query_layers": 1, "width": 64, "dropout": 0.1}
EXPERTS = ["tiny-resnet", "tiny-resnet-scenes"]


def new_model(seed=0):
    return MedBridge(EXPERTS, LABELS, sampler=SAMPLER, seed=seed, **SMALL)


model = new_model()


def count(parameters):
    return sum(p.numel() for p in parameters)


def parameter_table(model):
    rows = {}
    for expert, branch in zip(model.experts, model.branches, strict=True):
        rows[f"{expert.name}: the expert itself"] = (0, count(expert.parameters()))
        rows[f"{expert.name}: Query Encoder"] = (count(branch.encoder.parameters()), 0)
        rows[f"{expert.name}: across views"] = (count(branch.views.parameters()), 0)
        rows[f"{expert.name}: class scores"] = (count(branch.scores.parameters()), branch.scores.text.numel())
    rows["router"] = (count(model.router.parameters()), 0)
    table = pd.DataFrame(rows, index=["trained", "frozen"]).T
    table.loc["all"] = table.sum()
    return table


table = parameter_table(model)
assert table.loc["all", "trained"] == count(model.trainable().values()) == count(p for p in model.parameters() if p.requires_grad)
assert not any(p.requires_grad for p in model.experts.parameters())
print(table.to_string(formatters={column: "{:,}".format for column in table}))

# %% [markdown]
# One number is trained for thirteen that are frozen. That is not yet the "few trainable parameters" of the paper, because our experts are
# tiny, so that they can be shipped. The bridge does not grow with the expert: compact maps have at most 128 components. We count a larger bridge, with the default number of queries and
# layers, for a CLIP ViT-B/16, without downloading one: PyTorch's "meta" device makes modules that have shapes and no numbers.

# %% tags=["nbval-ignore-output"]
with torch.device("meta"):
    clip = CLIP(**open_clip.get_model_config("ViT-B-16"))
    width, text_dim, default = 768, 512, AdapterConfig()
    maps = SimpleNamespace(depth=12, widths=[default.components] * 12)  # compact: of the 768 channels the first 128 components
    bridge = [QueryEncoder(maps, default.queries, default.query_layers, "cross", default.width),
              CrossView(default.width, text_dim + width),
              PromptScores(default.width, default.queries + 1, torch.ones(14, text_dim), torch.zeros(14, text_dim))]
trained, frozen = sum(count(part.parameters()) for part in bridge), count(clip.parameters())
print(f"CLIP ViT-B/16: {frozen:,} frozen; a bridge for 14 findings: {trained:,} trained, {100 * trained / frozen:.1f} % of that; "
      f"five members: {500 * trained / frozen:.1f} %")
assert 5 * trained < 0.02 * frozen

# %% [markdown]
# Because the experts are frozen, what they say about a film never changes. So it is computed **once**, kept on disk, and read in every
# epoch. Training then never runs an expert at all. The first call for the training films also fits the basis of the compact maps:

# %% tags=["nbval-ignore-output"]
cache = FeatureCache(progress=False)
cached = {name: cache.of(model, benchmark.split(name), training=name == "train") for name in ("train", "val", "test")}
kept = {name: [part[i] for i in range(len(part))] for name, part in cached.items()}  # small enough for memory
targets = {name: part.benchmark.targets() for name, part in cached.items()}
print({name: len(part) for name, part in cached.items()}, "films;", sum(t.nbytes for f in kept["train"] for maps in f.maps for t in maps) // 10**6,
      "MB of maps to train with")

# %%
# maps from the cache and maps from the film itself: a byte on disk, so equal up to a rounding that may fall the other way
fresh = film_features(model, cached["test"].benchmark.read(0))[0]
for a, b in zip(fresh.maps, kept["test"][0].maps, strict=True):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype == torch.int8
        torch.testing.assert_close(as_numbers(x), as_numbers(y), atol=1.01 / 32, rtol=0)
batch = collate([draw_views(f) for f in kept["train"][:8]], targets["train"][0][:8], targets["train"][1][:8])
model.train()(batch).logits.sum().backward()
assert all(p.grad is None for p in model.experts.parameters())
assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trainable().values())
model.zero_grad()
print("gradients reach the bridge, and not the experts")

# %% [markdown]
# ## 4. Losses, with labels that are not known
#
# Each finding is a yes-or-no question, so each has a binary cross-entropy. With $p = \sigma(s)$:
#
# $$\ell(s, y) = -\big(y \log p + (1 - y) \log(1 - p)\big)$$
#
# A label may be **unknown**: blank, or uncertain under the policy "ignore" (notebook 02). It must not count as absent. With $\mathrm{known} = 1$ where a
# label is known, the **masked** loss is the mean over what is known:
#
# $$L = \frac{\sum_{ic} \mathrm{known}_{ic}\,\ell(s_{ic}, y_{ic})}{\sum_{ic} \mathrm{known}_{ic}}$$

# %%
def my_masked_bce(logits, targets, mask):
    p = logits.sigmoid()
    entries = -(targets * p.log() + (1 - targets) * (1 - p).log())
    return entries[mask].mean()


torch.manual_seed(0)
scores = torch.randn(6, 4, requires_grad=True)
y = (torch.rand(6, 4) < 0.4).float()
known = torch.rand(6, 4) < 0.7
loss = my_masked_bce(scores, y, known)
torch.testing.assert_close(loss, masked_bce(scores, y, known))

masked_bce(scores, y, known).backward()
assert (scores.grad[~known] == 0).all() and (scores.grad[known] != 0).all()
flipped = torch.where(known, y, 1 - y)  # whatever is written in an unknown place
assert masked_bce(scores, flipped, known) == masked_bce(scores, y, known)
print(f"{int((~known).sum())} of {known.numel()} labels are unknown: gradient there exactly 0, and their value does not matter")

# %% [markdown]
# Why does the package not use this short form? For a logit of 60, $1 - p$ is exactly zero in float32 and its logarithm infinite. The
# package computes $\ell = \log(1 + e^{s}) - y s$ in a stable way:

# %%
far, absent, one = torch.tensor([[60.0]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
print("by hand:", float(my_masked_bce(far, absent, one)), " package:", float(masked_bce(far, absent, one)))

# %% [markdown]
# ### Exercise 6.1: the gradient by hand
# ★★☆, 10 minutes. Write `loss_gradient(z, y, mask)` in NumPy: the derivative of the masked loss with respect to each logit. `z`, `y`:
# float arrays `(B, C)`, `mask`: bool `(B, C)`. If nothing is known, the gradient is zero everywhere.
#
# <details><summary>Hint</summary>
# For one known label the derivative of the cross-entropy with respect to its logit is simply p - y. Then look at the factor in front.
# </details>

# %%
def loss_gradient(z, y, mask):
    raise NotImplementedError


check("6.1", loss_gradient)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/06_assembling_and_training.ipynb](solutions/06_assembling_and_training.ipynb).
#
# ```python
# def loss_gradient(z, y, mask):
#     p = 1 / (1 + np.exp(-z))
#     return np.where(mask, p - y, 0.0) / max(1, mask.sum())
# ```
# </details>

# %% [markdown]
# ### An option: the asymmetric loss
#
# Most findings are absent in most films. Thousands of easy negatives, each with a small loss, may outweigh the few positives. The
# **asymmetric loss** (Ridnik et al., ICCV 2021) turns easy negatives down: it shifts their probability by a margin $\mu$ and
# weighs them by a power $\gamma_-$:
#
# $$p_\mu = \max(p - \mu, 0), \qquad \ell_- = -\,p_\mu^{\gamma_-} \log(1 - p_\mu), \qquad \ell_+ = -(1 - p)^{\gamma_+} \log p$$

# %%
def my_asymmetric(logits, targets, mask, gamma_negative=4.0, gamma_positive=0.0, margin=0.05):
    p = logits.sigmoid()
    p_shifted = (p - margin).clamp(min=0)
    negative = -(p_shifted**gamma_negative) * (1 - p_shifted).log()
    positive = -((1 - p) ** gamma_positive) * p.log()
    return torch.where(targets == 1, positive, negative)[mask].mean()


torch.testing.assert_close(my_asymmetric(scores, y, known), asymmetric_loss(scores, y, known))
torch.testing.assert_close(asymmetric_loss(scores, y, known, 0.0, 0.0, 0.0), masked_bce(scores, y, known))  # its plain case
scores.grad = None
asymmetric_loss(scores, y, known).backward()
assert (scores.grad[~known] == 0).all()
print("by hand = package; with both powers and the margin at zero it is the masked cross-entropy")

# %% alt="size of the loss's gradient against the probability given, for cross-entropy and the asymmetric loss; left: finding absent, right: present" tags=["nbval-ignore-output"]
logit = torch.linspace(-5, 5, 201, requires_grad=True)
fig = Figure(figsize=(9, 3), layout="constrained")
for ax, truth, text in zip(fig.subplots(1, 2, sharey=True), (0.0, 1.0), ("finding absent", "finding present"), strict=True):
    for (name, function), style in zip({"cross-entropy": masked_bce, "asymmetric": asymmetric_loss}.items(), ("-", "--"), strict=True):
        each = torch.stack([function(v.view(1, 1), torch.full((1, 1), truth), torch.ones(1, 1, dtype=torch.bool)) for v in logit])
        (slope,) = torch.autograd.grad(each.sum(), logit)
        ax.plot(logit.sigmoid().detach(), slope.abs(), style, label=name)
    ax.set(xlabel="probability given", title=text)
    ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
fig.axes[0].set_ylabel("size of the gradient")
fig

# %% [markdown]
# **What to see.** On the left, below 0.05 the asymmetric loss does not pull at all, and up to one half hardly; close to 1 it lets go
# again, as if such a label were more likely wrong than the model. On the right they are the same. The price: what comes out is no longer a probability, because negatives were made unimportant (notebook 07 measures such things). So the
# cross-entropy is the default, and the asymmetric loss an option, `TrainConfig(loss="asymmetric")`.
#
# `medbridge.fit` adds two terms **[ours]**: the mean loss of each expert on its own, since an expert that the router ignores would
# otherwise never learn, and the balance term of notebook 05:
#
# $$L = L_{\text{mixture}} + \lambda_1 \tfrac{1}{K} \textstyle\sum_k L_k + \lambda_2\, \mathrm{balance}$$

# %% tags=["nbval-ignore-output"]
config = TrainConfig()
print(f"defaults: expert_loss = {config.expert_loss}, balance = {config.balance}")

# %% [markdown]
# ## 5. A schedule, an average, and when to stop
#
# **The learning rate** rises for the first steps (**warm-up**): the first gradients of a fresh model are large and point anywhere. Then it
# falls along half a cosine, so that the last steps settle instead of jumping about. Of $\mathrm{steps}$ steps, with warm-up share $u$ and $t_u = \max(1, \lfloor u\,\mathrm{steps} \rfloor)$, step
# $t = 0, 1, \dots$ uses the base rate times
#
# $$f(t) = \begin{cases} (t + 1)/t_u & t < t_u \\ 0.01 + 0.99 \cdot \tfrac12\left(1 + \cos\left(\pi\,\frac{t - t_u}{\mathrm{steps} - t_u}\right)\right) & t \ge t_u\end{cases}$$
#
# ### Exercise 6.2: the schedule
# ★☆☆, 5 minutes. Write `rate(t, steps, u)` that returns the factor $f(t)$. If $\mathrm{steps} = t_u$ there is no cosine left; divide by $\max(1, \mathrm{steps} - t_u)$.
#
# <details><summary>Hint</summary>
# <code>int(u * steps)</code> rounds down. The first step must not have the rate zero: it would be wasted.
# </details>

# %%
def rate(t, steps, u):
    raise NotImplementedError


check("6.2", rate)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/06_assembling_and_training.ipynb](solutions/06_assembling_and_training.ipynb).
#
# ```python
# def rate(t, steps, u):
#     r = max(1, int(u * steps))
#     if t < r:
#         return (t + 1) / r
#     return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (t - r) / max(1, steps - r)))
# ```
# </details>

# %% [markdown]
# **The average.** Each step is taken on a few films and so is noisy. An **exponential moving average** (EMA) of the weights,
# $\bar\theta \leftarrow \beta\,\bar\theta + (1 - \beta)\,\theta$, is a mean over about the last $1/(1 - \beta)$ steps. It is the average that is validated and kept.
# A toy shows what it does: find the minimum of $\frac12 (\theta - 1)^2$ with noisy gradients.

# %%
def noisy_descent(steps, rate, beta, rng):
    theta, average, path = 0.0, 0.0, []
    for step in range(1, steps + 1):
        theta -= rate * ((theta - 1) + rng.standard_normal())
        decay = min(beta, step / (step + 10))  # a short run would otherwise never forget its start
        average = decay * average + (1 - decay) * theta
        path.append((theta, average))
    return np.array(path)


path = noisy_descent(600, 0.1, 0.98, np.random.default_rng(0))
error = np.sqrt(((path[200:] - 1) ** 2).mean(axis=0))
print(f"distance from the minimum after step 200: weights {error[0]:.2f}, their average {error[1]:.2f}")
assert error[1] < 0.7 * error[0]

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(9, 2.8), layout="constrained")
left, right = fig.subplots(1, 2)
for share, style in ((0.0, ":"), (0.1, "-"), (0.3, "--")):
    left.plot([cosine_schedule(t, 200, share) for t in range(200)], style, label=f"warm-up {share:g}")
left.set(xlabel="step of 200", ylabel="factor of the learning rate", title="schedule")
right.plot(path[:, 0], linewidth=0.7, color="0.6", label="weights")
right.plot(path[:, 1], linewidth=1.8, color="C1", label="their average")
right.axhline(1, color="black", linestyle="--", linewidth=0.8)
right.set(xlabel="step", title="a toy with noisy gradients")
for ax in (left, right):
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **When to stop.** With few films a model begins to learn the training films by heart. We keep the epoch with the best mean AUC on the
# **validation** films, and stop when `patience` epochs brought nothing better.
#
# Why not on the test films, if those are the ones that count? Because the best of many noisy numbers is too good. Imagine a model that
# does *not change* over 30 epochs: its true AUC is 0.70 throughout, and each epoch's measured AUC is 0.70 plus noise:

# %%
truth, noise, epochs, repeats = 0.70, 0.04, 30, 2000
draw = np.random.default_rng(0)
val_auc, test_auc = truth + noise * draw.standard_normal((2, repeats, epochs))
chosen_on_val = test_auc[np.arange(repeats), val_auc.argmax(axis=1)].mean()
chosen_on_test = test_auc.max(axis=1).mean()
print(f"reported test AUC: {chosen_on_val:.2f} if the epoch is chosen on validation, {chosen_on_test:.2f} if chosen on test; truth {truth:.2f}")
assert abs(chosen_on_val - truth) < 0.005 < 0.05 < chosen_on_test - truth

# %% [markdown]
# No model has achieved the second number. (Real epochs resemble each other, so there the effect is smaller; it does not go away.) The
# validation AUC of the kept epoch is too good in the same way, and nobody should report that either.
#
# **How long at most?** Ten epochs of 100,000 films are a long training; ten epochs of 200 films are 130 steps, and end before the queries have
# found anything. So where `epochs` is not given, a training on $n$ films in batches of $B$ has **ten epochs or 400 steps, whichever is
# longer** **[ours]**:
#
# $$\mathrm{epochs}(n) = \max\!\left(10,\; \left\lceil \frac{400}{\lceil n / B \rceil} \right\rceil\right)$$
#
# An epoch of few films is too short to learn much. So patience counts then in steps too: the run ends earlier only after ten epochs *and*
# 133 steps (a third of 400) without a better validation AUC.

# %%
def most_epochs(n, batch_size):
    return max(10, math.ceil(400 / math.ceil(n / batch_size)))


for n in (40, 200, 500, 640, 641, 100_000):
    assert most_epochs(n, 16) == TrainConfig().most_epochs(n)
    print(f"{n:>7,} films: {most_epochs(n, 16):3d} epochs, {most_epochs(n, 16) * math.ceil(n / 16):>6,} steps")
assert TrainConfig(epochs=3).most_epochs(40) == 3  # what is given is kept

# %% [markdown]
# ### Exercise 6.3: early stopping
# ★★★, 15 minutes. Write `early_stopping(aucs, patience)`: `aucs` lists the validation AUC that each epoch *would* have. Training stops
# after the first epoch for which the best epoch so far lies `patience` epochs back, or at the end of the list. Return two numbers: the
# epoch that is kept (from 0; of equal ones the first) and how many epochs were run.
#
# <details><summary>Hint</summary>
# Go through the epochs one by one and remember the best so far. Only a strictly larger AUC is better. You may not look at AUCs behind the
# epoch at which you stop: they were never trained.
# </details>

# %%
def early_stopping(aucs, patience):
    raise NotImplementedError


check("6.3", early_stopping)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/06_assembling_and_training.ipynb](solutions/06_assembling_and_training.ipynb).
#
# ```python
# def early_stopping(aucs, patience):
#     best = 0
#     for epoch, value in enumerate(aucs):
#         if value > aucs[best]:
#             best = epoch
#         if epoch - best >= patience:
#             break
#     return best, epoch + 1
# ```
# </details>

# %% [markdown]
# ## 6. A training loop of thirty lines
#
# Everything is there: cached features, a forward pass, a loss, a schedule, a rule which epoch to keep. **[ours]** In training the local views
# are random regions; they are drawn from each film's pool (`draw_views` with a generator). At inference they are the sliding
# windows (`draw_views` without).

# %%
def probabilities(model, films):
    model.eval()
    with torch.inference_mode():
        batches = [collate([draw_views(f) for f in films[i : i + 32]]) for i in range(0, len(films), 32)]
        return torch.cat([model(batch).logits.sigmoid() for batch in batches]).numpy()


def train(model, epochs, lr=1e-3, batch_size=16, seed=0):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)  # of the dropout
    y, mask = targets["train"]
    model.take_bases(cached["train"].bases)  # they standardise the summaries
    model.set_prevalence((y * mask).sum(axis=0) / mask.sum(axis=0))  # start at what is known without looking
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=lr, weight_decay=0.2)
    n, step, rows, best = len(y), 0, [], -math.inf
    steps = epochs * math.ceil(n / batch_size)
    for epoch in range(epochs):
        model.train()
        order, total = rng.permutation(n), 0.0
        for start in range(0, n, batch_size):
            drawn = order[start : start + batch_size]
            batch = collate([draw_views(kept["train"][i], rng) for i in drawn], y[drawn], mask[drawn])
            optimizer.param_groups[0]["lr"] = lr * cosine_schedule(step, steps, 0.1)
            loss = masked_bce(model(batch).logits, batch.targets, batch.mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step, total = step + 1, total + loss.item() * len(drawn)
        value = np.nanmean(auc(targets["val"][0], probabilities(model, kept["val"]), targets["val"][1]))
        rows.append({"epoch": epoch, "loss": total / n, "val_auc": value})
        if value > best:
            best, best_epoch, weights = value, epoch, copy.deepcopy(model.trainable())
    with torch.no_grad():
        for name, p in model.trainable().items():
            p.copy_(weights[name])
    return rows, best_epoch


mine = new_model()
rows, best_epoch = train(mine, 30 if full_profile() else 15)

# %% [markdown]
# Has it learned? A model that gives every film the prevalence of each finding has a loss that we can compute without training. The
# training loss must fall below it. And on the *test* films, which the loop has never seen, a large heart (*cardiomegaly*) is the
# easiest finding, so that is where to look first.

# %%
y, mask = targets["train"]
prevalence = torch.from_numpy((y * mask).sum(axis=0) / mask.sum(axis=0))
guess = masked_bce(torch.logit(prevalence).expand(len(y), -1), torch.from_numpy(y), torch.from_numpy(mask)).item()
assert rows[-1]["loss"] < 0.95 * guess < rows[0]["loss"]
p_test = probabilities(mine, kept["test"])
heart = auc(*[a[:, LABELS.index("Cardiomegaly")] for a in (targets["test"][0], p_test, targets["test"][1])])[0]
assert heart > 0.75
print("training loss below that of the prevalences alone; test AUC of Cardiomegaly above 0.75")

# %% alt="training curves of the thirty lines on synthetic films: training loss and mean validation AUC by epoch; a dotted line marks the loss of the prevalence alone" tags=["nbval-ignore-output"]
fig = plots.training_curves(rows, best_epoch, "Thirty lines on synthetic films")
fig.axes[0].axhline(guess, color="C1", linestyle=":", label="prevalence alone")
fig.axes[0].legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# **What to see.** The loss starts above the dotted line, where nothing but the prevalence is known, falls below within a few epochs, and goes on falling.
# The validation curve rises and then stays: the rest of the loss is films learned by heart. Some forty films and eight findings are few. Do not
# read single steps in it.
#
# ## 7. What `medbridge.fit` adds
#
# The package's loop is the same idea with what a long run needs:
#
# - **Accelerate** moves model and batches to the device, mixes precisions where asked, and under `accelerate launch` shards batches over
#   several GPUs; the code does not change;
# - the losses of the single experts and the balance term, EMA, patience, clipping of gradients, no weight decay on biases, norms and
#   queries;
# - a **checkpoint after each epoch**. The same call with the same folder goes on where it stopped;
# - errors that say what to do: a label without a known film, a loss that is not finite, a checkpoint of another run.

# %% alt="training curves of medbridge.fit on synthetic films: training loss and mean validation AUC by epoch, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
folder = Path(tempfile.mkdtemp())
EPOCHS = 30 if full_profile() else 15
model = new_model()
history = fit(model, cached["train"], cached["val"], TrainConfig(epochs=EPOCHS), folder / "full", progress=False)
plots.training_curves(history.rows, history.best_epoch, "medbridge.fit on synthetic films")

# %% [markdown]
# The loss is higher than above because more terms are in it. Do not compare losses of different definitions.
#
# ### Cut off, and gone on
#
# Is a resumed run the *same* run? We train three epochs on a few patients, once in peace, and once with the plug pulled in the middle of
# the second epoch: validation is replaced by something that stops the program.

# %%
few, short = benchmark.subset(12), TrainConfig(epochs=3, batch_size=8)
few = cache.of(model, few.split("train"), training=True), cache.of(model, few.split("val"))
warnings.simplefilter("ignore", UserWarning)

peaceful = new_model()
whole = fit(peaceful, *few, short, folder / "whole", progress=False)

calls = []


def pull_the_plug(*args, **kwargs):
    calls.append(1)
    if len(calls) == 2:
        raise KeyboardInterrupt
    return outputs(*args, **kwargs)


with mock.patch.object(train_module, "outputs", pull_the_plug):
    try:
        fit(new_model(), *few, short, folder / "cut", progress=False)
    except KeyboardInterrupt:
        print("interrupted in epoch", len(calls), "of", short.epochs)

resumed = new_model()  # as a new program would: nothing of the old run but the folder
again = fit(resumed, *few, short, folder / "cut", progress=False)
assert len(again.rows) == short.epochs
assert [r["loss"] for r in again.rows] == [r["loss"] for r in whole.rows]
assert all(torch.equal(p, resumed.trainable()[name]) for name, p in peaceful.trainable().items())
print("resumed = uninterrupted, bit by bit:", len(peaceful.trainable()), "tensors are equal")

# %% [markdown]
# That needs care in three places. The checkpoint holds the optimiser's state and the average, not the weights alone. The order of films and
# the views drawn depend on (seed, epoch, film), not on what was drawn before. Dropout is seeded anew in each epoch.
#
# For the same reason **the same seed gives the same run**. Another seed gives another run, and how different it is belongs into a report:

# %%
def short_run(seed):
    model = new_model(seed)
    fit(model, *few, TrainConfig(epochs=2, batch_size=8, seed=seed), progress=False)
    return model


first = short_run(1)
torch.rand(7)  # whatever else is drawn in between
second, other = short_run(1), short_run(2)
assert all(torch.equal(p, second.trainable()[name]) for name, p in first.trainable().items())
assert not all(torch.equal(p, other.trainable()[name]) for name, p in first.trainable().items())
print("seed 1 twice: equal; seed 2: different")

# %% [markdown]
# Equal means on the same machine with the same number of threads. Other processors add numbers in another order, and training
# lets the last digits grow.
#
# ## 8. Members, cross-fitting and the read-out
#
# One network has three weaknesses. Its **judge is small**: some forty validation films choose the epoch, and above we saw how far such a number
# jumps. It **does not learn from those films' labels**, though somebody read every one of them. And it depends on its **random start**. **[ours]** The
# commands and studies of the package therefore train `CROSS_FITTED`, which is `AdapterConfig(members=5, readout=True)`.
#
# **Cross-fitting.** The patients of train *and* val are dealt into $M$ folds, all films of a patient into one. Member $j$ learns from all folds but
# its own. So for every film $i$ there is one member, $j(i)$, that has not learned from it, and whose score may judge:
#
# $$\tilde s_i = s^{(j(i))}(\text{film}_i) \quad\text{(out-of-fold: chooses the epoch)}, \qquad s(\text{film}) = \frac1M \sum_{j=1}^M s^{(j)}(\text{film}) \quad\text{(for a new film)}$$
#
# Now all films learn, and all films judge, but no film judges a member that has learned from it.
#
# One trap is left. The more positives a fold holds, the fewer its member has learned from, and the lower it scores them all. Put together as they
# are, out-of-fold scores rank films *against* their labels. So the $n_j$ scores of each fold are moved towards the common mean, for
# each finding; a small fold less, since its mean says little:
#
# $$\tilde s_i \leftarrow \tilde s_i + \frac{n_j}{n_j + 5}\,\big(\operatorname{mean}(\tilde s) - \operatorname{mean}_j(\tilde s)\big)$$

# %%
def my_folds(patients, members, seed):
    """The member that may not learn from each film."""
    order = np.random.default_rng(seed).permutation(np.array(sorted(set(patients)), dtype=object))
    place = {patient: i % members for i, patient in enumerate(order)}
    return np.array([place[patient] for patient in patients])


both = cached["train"].benchmark, cached["val"].benchmark
patients = np.concatenate([part.table["patient_id"] for part in both])
fold = my_folds(patients, 3, seed=0)
assert (fold == member_folds(*both, 3, seed=0)).all()
assert all(len(set(fold[patients == patient])) == 1 for patient in set(patients))
print(f"films of {len(set(patients))} patients in three folds:", np.bincount(fold).tolist())

# %% [markdown]
# Three members are enough to see it. We train them, score each film by each member, and pick the out-of-fold scores by hand:

# %%
crossed = MedBridge(EXPERTS, LABELS, sampler=SAMPLER, members=3, readout=True, **SMALL)
crossed_history = fit(crossed, cached["train"], cached["val"], TrainConfig(epochs=30 if full_profile() else 6), progress=False)
learned_films = kept["train"] + kept["val"]
learned_y, learned_mask = (np.concatenate(parts) for parts in zip(targets["train"], targets["val"], strict=True))
q = np.stack([torch.cat([o.logits for o in outputs(crossed, learned_films, member=m)]).numpy() for m in range(3)])  # (M, n, C)
out_of_fold = q[fold, np.arange(len(fold))]
moved = out_of_fold.copy()
for own in (fold == m for m in range(3)):
    moved[own] += own.sum() / (own.sum() + 5) * (out_of_fold.mean(axis=0) - out_of_fold[own].mean(axis=0))
judged = np.nanmean(auc(learned_y, moved, learned_mask))
np.testing.assert_allclose(judged, crossed_history.best_auc, atol=2e-3)
print("the AUC that chose the epoch is that of the out-of-fold scores, of", len(fold), "films instead of", len(kept["val"]))

# %% alt="bars for each of three members: mean AUC on the films that it has learned from, and lower bars on the films of its own fold; synthetic films" tags=["nbval-ignore-output"]
fig = Figure(figsize=(6, 2.8), layout="constrained")
ax = fig.subplots()
for offset, name, mine_too in ((-0.2, "learned from", False), (0.2, "its own fold", True)):
    rows_of = [(fold == m) == mine_too for m in range(3)]
    ax.bar(np.arange(3) + offset, [np.nanmean(auc(learned_y[r], q[m, r], learned_mask[r])) for m, r in enumerate(rows_of)], 0.36,
           label=name, hatch="//" if mine_too else "")
ax.axhline(0.5, color="0.5", linestyle="--", linewidth=0.8)
ax.set_xticks(range(3), [f"member {m}" for m in range(3)])
ax.set(ylabel="mean AUC", ylim=(0, 1.15), title="Why only out-of-fold scores may judge (synthetic films)")
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8, loc="upper center", ncols=2)
fig

# %% [markdown]
# **What to see.** Each member is better on the films that it has learned from. Whoever judged by those would keep the epoch that knows
# them best by heart.
#
# Does a member really not see the labels of its fold? Turn all of them round, train again, and compare, bit by bit:

# %%
def first_epoch(train, val):
    model = MedBridge(EXPERTS, LABELS, sampler=SAMPLER, members=3, **SMALL)
    fit(model, train, val, TrainConfig(epochs=1, batch_size=8), progress=False)
    return model.members


def turned_round(films, of_fold):
    table = films.benchmark.table.copy()
    table.loc[of_fold == 0, list(LABELS)] = 1 - table.loc[of_fold == 0, list(LABELS)]
    return replace(films, benchmark=replace(films.benchmark, table=table))


few_fold = member_folds(few[0].benchmark, few[1].benchmark, 3, seed=0)
parts = np.split(few_fold, [len(few[0])])
true_labels, false_labels = first_epoch(*few), first_epoch(*map(turned_round, few, parts))
same = [all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
        for one, other in zip(true_labels, false_labels, strict=True)]
assert same == [True, False, False]
print("the labels of fold 0 turned round: member 0 is the same to the last bit, members 1 and 2 are not")

# %% [markdown]
# **The read-out.** With few films a linear probe is hard to beat (notebook 08). So the probe becomes a part of the model. $\bar m$ holds, for each
# expert, the standardised summary of the whole film, and the mean and the maximum over the views; $W_r^{(j)}, v^{(j)}$ are logistic
# regressions on the films that member $j$ learns from:
#
# $$\mathrm{logit}_c = a\, s_c + b\, r_c + o_c, \qquad r = \frac1M \sum_j \big( W_r^{(j)} \bar m + v^{(j)} \big), \qquad a, b \ge 0$$
#
# Two weights $a$ and $b$ for all findings and one offset $o_c$ for each are fitted last, by a logistic regression of the labels on *out-of-fold*
# $\tilde s$ and $\tilde r$. On films that the parts have learned from, the part that remembers more of them would win.

# %%
readout = crossed.readout
batch = collate([draw_views(f) for f in kept["test"][:8]])
with torch.inference_mode():
    output = crossed.eval()(batch)
    summary = crossed.summaries(batch.summary)
    pooled = torch.cat([torch.cat([s[:, 0], s.mean(dim=1), s.amax(dim=1)], dim=1) for s in summary], dim=1)  # no padding here
    torch.testing.assert_close(pooled, pool_summary(summary, batch.view_mask))
    mean_q = torch.stack([crossed(batch, member=m).logits for m in range(3)]).mean(dim=0)
    r = torch.stack([pooled @ w.T + v for w, v in zip(readout.weight, readout.bias, strict=True)]).mean(dim=0)
    a, b = readout.blend
    torch.testing.assert_close(a * mean_q + b * r + readout.offset, output.logits, atol=1e-4, rtol=1e-4)
assert a >= 0 and b >= 0 and a + b > 0
print("by hand = MedBridge.forward, with three members and the read-out")

# %% tags=["nbval-ignore-output"]
y_test, mask_test = targets["test"]
apart = [torch.cat([o.logits for o in outputs(crossed, kept["test"], member=m)]).numpy() for m in range(3)]
stages = {f"member {m} alone": logits for m, logits in enumerate(apart)}
stages |= {"mean of the three": np.mean(apart, axis=0), "with the read-out": predict(crossed, cached["test"], progress=False).probabilities}
print(pd.Series({name: np.nanmean(auc(y_test, scores, mask_test)) for name, scores in stages.items()}, name="mean test AUC").round(2).to_string())
print(f"weights of the blend: queries {a:.2f}, read-out {b:.2f}")

# %% [markdown]
# **How to read it.** Where the queries say nothing that the summaries do not say as well, $a$ is small, and the model is nearly a linear probe. The
# AUCs are of a hundred films; that one is above another proves nothing yet (notebook 07). Five members cost five times the training and five times the small bridge at inference; the frozen experts are run once for all.
#
# ## 9. Label budgets
#
# **[abstract]** Varying amounts of training data. **[ours]** 1 %, 10 % and 100 % of the labels. `label_budget` draws *patients* of the train and of the val split, a smaller budget inside a larger
# one, and leaves the test films whole: labels to choose by are labels too (notebook 09 builds it). Here is what a budget holds, and what a
# single member makes of it.

# %%
budgets = {f"{100 * f:g} %": label_budget(benchmark, f, seed=0) for f in (0.01, 0.1, 1.0)}
held = {}
for name, part in budgets.items():
    table = part.split("train").table
    held[name] = {"patients": table["patient_id"].nunique(), "films": len(table), **table[list(LABELS)].sum().astype(int)}
    assert len(part.split("test")) == len(test)
    assert set(table["patient_id"]) <= set(benchmark.split("train").table["patient_id"])
assert set(budgets["1 %"].table["image"]) <= set(budgets["10 %"].table["image"])
if not full_profile():
    print(pd.DataFrame(held).to_string())

# %% tags=["nbval-ignore-output"]
found = {}
for name, part in budgets.items():
    small = model if name == "100 %" else new_model()
    if name != "100 %":
        fit(small, cache.of(small, part.split("train"), training=True), cache.of(small, part.split("val")), TrainConfig(epochs=EPOCHS),
            progress=False)
    p = predict(small, cache.of(small, test), progress=False).probabilities
    found[name] = evaluate(y_test, p, mask_test, test.table["patient_id"], LABELS)
plots.auc_bars(found, title="Share of the training patients; synthetic films")

# %% [markdown]
# **How to read it.** In the default profile 1 % is a single patient, and no model can learn eight findings from one; its bars are chance,
# and where one looks better than chance, remember how many bars you looked at. What counts is how the mean moves with the budget, and whether its
# interval leaves 0.5 out. Compare budgets paired (notebook 07) before you say that one is better.
#
# ## 10. Save, load, predict
#
# An **adapter** is the trained tensors and the bases of the compact maps as *safetensors* (a plain list of arrays; loading it cannot run code, as a
# pickle can) and a JSON file
# that names the experts, with the checksums of their weights. The experts are not stored.

# %% tags=["nbval-ignore-output"]
saved = save_adapter(model, folder / "adapter")
sizes = {f.name: f.stat().st_size / 1000 for f in sorted(saved.iterdir())}
sizes |= {f"{name} (frozen, not stored)": (tiny_experts_folder() / name / "open_clip_model.safetensors").stat().st_size / 1000 for name in EXPERTS}
sizes["CLIP ViT-B/16 would be, in float32"] = 4 * frozen / 1000
pd.DataFrame({"kB": sizes}).round(0).astype(int)

# %%
loaded = load_adapter(folder / "adapter")
assert all(torch.equal(value, model.state()[name]) for name, value in loaded.state().items())
chosen = int(np.flatnonzero(test.targets()[0].sum(axis=1) >= 2)[0])  # the first test film with two findings or more
film = test.read(chosen)
p = predict_film(loaded, film)
np.testing.assert_allclose(p, predict_film(model, film))
with torch.inference_mode():  # and once more by hand, from the film to the probabilities
    np.testing.assert_allclose(p, forward_by_hand(loaded, film_features(loaded, film)[0])[0].sigmoid(), atol=1e-4)
print("saved = loaded = by hand")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(9, 3.4), layout="constrained")
left, right = fig.subplots(1, 2, width_ratios=[1, 1.6])
left.imshow(film, cmap="gray", vmin=0, vmax=1)
left.set_axis_off()
left.set_title("a synthetic test film", fontsize=10)
present = test.targets()[0][chosen] == 1
right.barh(np.arange(len(LABELS)), p, color=["C1" if t else "C0" for t in present], hatch=["//" if t else "" for t in present])
right.plot(prevalence, np.arange(len(LABELS)), "|", color="black", markersize=14, label="prevalence in training")
right.set_yticks(np.arange(len(LABELS)), [f"{label} (present)" if t else label for label, t in zip(LABELS, present, strict=True)], fontsize=9)
right.set(xlabel="probability", xlim=(0, 1))
right.spines[["top", "right"]].set_visible(False)
right.legend(frameon=False, fontsize=8)
fig

# %% [markdown]
# **Try it** (needs a running kernel): look through the test films with the model that you have just trained, and see where its queries
# looked. Whether that can be trusted is the question of notebook 11.

# %% tags=["nbval-ignore-output"]
widgets.explore_film(loaded, test)

# %% [markdown]
# One film of it, for readers without a kernel:

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
label = next(name for name, t in zip(LABELS, present, strict=True) if t)
boxes = test.boxes[(test.boxes["image"] == test.image_ids()[chosen]) & (test.boxes["label"] == label)]
plots.query_attention(explain(loaded, film), label, boxes[["x0", "y0", "x1", "y1"]].to_numpy(), f"{test.name}: {label}")

# %% [markdown]
# The same from a shell, for any adapter:
#
# ```
# medbridge predict --adapter runs/films film.dcm other.png
# ```
#
# ## Summary
#
# - MedBridge is six parts in a row. By hand and by the package they give the same numbers, padding or not.
# - Only the bridge is trained; experts get no gradient, so their maps are computed once. Beside a real foundation model the bridge of
#   one member is a few thousandths.
# - Unknown labels contribute nothing: neither loss, nor gradient, nor to the mean.
# - The epoch is chosen on validation. Chosen on test, the reported number would belong to nobody.
# - Cross-fitted members learn from all films and are judged by all films, each by scores of a member that has not learned from it. A linear
#   read-out is weighed against the queries by the same scores.
# - A run is a function of its seed; a checkpoint holds all that the next epoch needs, so a resumed run is the same run.
#
# Next: [07 Evaluation done right](07_evaluation.ipynb)
