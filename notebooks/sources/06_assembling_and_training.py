# %% [markdown]
# # 06 Assembling and training
#
# {{COLAB}}
#
# **What you will build:** the whole of MedBridge from its parts, and the loop that trains it. You write the
# forward pass by hand and check it against the package, write losses that leave unknown labels out, and train
# with thirty lines of your own. Then you see what `medbridge.fit` adds.
#
# - **Prerequisites:** notebooks [02](02_films_labels_splits.ipynb) (labels and masks),
#   [03](03_focal_sampling.ipynb), [04](04_query_encoder.ipynb) and [05](05_mixture_of_experts.ipynb);
#   PyTorch: modules, autograd, an optimiser.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores the
#   first time, about one on a Colab T4 (an estimate).
# - **Modules:** `medbridge/crossview.py`, `medbridge/scores.py`, `medbridge/losses.py`, `medbridge/train.py`,
#   `medbridge/readout.py` · **tests:** `tests/test_crossview.py`, `tests/test_scores.py`,
#   `tests/test_losses.py`, `tests/test_train.py`, `tests/test_readout.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). **[abstract]** The experts stay frozen.
#   How the rest is trained is our choice. [Notebook 00](00_start_here.ipynb) explains the marks
#   **[abstract]**, **[summary]** and **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging
import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from medbridge import MedBridge, load_adapter, load_benchmark
from medbridge.course import check, full_profile, seed_everything
from medbridge.features.batch import collate
from medbridge.features.compact import as_numbers
from medbridge.predict import film_features
from medbridge.viz import charts, plots

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. The parts, and the forward pass by hand
#
# Each part takes what the one before it gives. $B$ films, $N$ views, $K$ experts, $P$ patch tokens, $Q$
# queries of width $w$, $C$ findings:
#
# | part | takes | gives | trained? | notebook |
# |---|---|---|---|---|
# | Focal Sampling | a film | $N$ views | no | 03 |
# | expert $k$ | a view | map $P \times d_k$, summary | **frozen** | 01 |
# | compact maps $k$ | map, summary | bytes; standardised summary | no: a basis without labels | 04 |
# | Query Encoder $k$ | maps | $N \times Q \times w$ | yes | 04 |
# | across views $k$ | $N \times Q \times w$, summaries, boxes | $(Q + 1) \times w$ | yes | here |
# | class scores $k$ | $(Q + 1) \times w$, prompts | $C$ scores | yes (prompts frozen) | here |
# | mixture | $K \times C$ scores, queries | $C$ scores | yes (the router) | 05 |
#
# The trained rows together are one **member**. The shipped adapter is a single one, so we can follow it
# number by number. (Some layers of a fresh model are zero on purpose, and a check on zeros passes whatever
# you write.)

# %%
shipped = load_adapter("../data/quickstart")
assert shipped.card["synthetic"]

# %% tags=["nbval-ignore-output"]
benchmark = load_benchmark("phantom", n_films=1200 if full_profile() else 360)
test, LABELS = benchmark.split("test"), benchmark.labels
print(f"{benchmark.name}: {len(benchmark)} films; {len(test)} of them for testing")

# %% [markdown]
# A batch pads films to the same number of views, and a mask says which views are real. Padding must change
# nothing, so we cut one film to a narrow one:

# %%
films = [test.read(0), test.read(1), test.read(2)[:, 160:860]]
features = [film_features(shipped, film)[0] for film in films]
batch = collate(features)
assert not batch.view_mask[0].all() and batch.view_mask[2].all()  # the square films are padded, the narrow one is not
print("views of the films:", [len(f.boxes) for f in features], "-> padded to", batch.view_mask.shape[1])
print("boxes (B, N, 4):", tuple(batch.boxes.shape), " mask (B, N):", tuple(batch.view_mask.shape))

# %% [markdown]
# ### Across views
#
# **[summary]** Self-attention relates the $N$ views of a film, and max-pooling over them leaves one set of
# tokens. **[ours]** The frozen summary $m_k$ of each view, standardised over the films of the basis, joins
# the queries as one more token. Query $j$ of one view attends to query $j$ of the others. Each view adds a
# code of where its box lies.
#
# $$x_n = [q_n ; \mathrm{proj}(m_n)] + \mathrm{place}(\mathrm{box}_n), \qquad
# x_{nj} \leftarrow x_{nj} + W_o \sum_{n'} \operatorname{softmax}_{n'}\!\left(
# \frac{\tilde q_{nj} \cdot K_{n'j}}{\sqrt{w/h}}\right) V_{n'j},
# \qquad \bar q_j = \mathrm{LN}\!\left(\max_n x_{nj}\right)$$
#
# with $h$ heads, and an MLP after the attention. We write it for *one* film and its real views, with plain
# loops. The package does a padded batch at once.

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
# Why the maximum? A nodule shows in one view of ten: a mean dilutes it by ten, and a maximum keeps it, but
# noise can win a maximum too. We measured both on synthetic films, with an earlier form of the method. The
# mean was level with the maximum on validation films (+0.001 [-0.013, +0.014]) and lower on test films
# (-0.009 [-0.018, -0.001]).
#
# ### Class scores
#
# **[ours]** We compare the tokens with the prompts in the expert's own text space. The direction $t_c$ of a
# class is its positive minus its negative prompt. Each class reads its own mixture $a_c$ of the tokens, may
# correct its prompt by $\delta_c$, and has a bias:
#
# $$z_c = \mathrm{normalise}\Big(W_t\,\mathrm{LN}\big(\textstyle\sum_j a_{cj}\,\bar q_j\big)\Big), \qquad
# s_c = e^{\tau}\, z_c \cdot (t_c + \delta_c) + b_c$$

# %%
from medbridge.prompts import encode_prompts


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


# %%
# what the function above is written for
assert shipped.config.router == "class" and shipped.config.cross_view and shipped.config.members == 1 and shipped.readout is None
with torch.inference_mode():
    output = shipped.eval()(batch)
    for i, film in enumerate(features):
        logits, expert_logits, weights = forward_by_hand(shipped, film)
        torch.testing.assert_close(logits, output.logits[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(expert_logits, output.expert_logits[i], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(weights, output.weights[i], atol=1e-4, rtol=1e-4)
assert expert_logits.std() > 0.1 and (weights[0] - weights[1]).abs().max() > 0.01  # neither zeros nor a uniform router
print("by hand = MedBridge.forward, for", len(films), "films, padded or not")

# %% alt="one synthetic film without a finding: bars of the probability that each expert and the mixture give each finding, and below them the router's weights" tags=["nbval-ignore-output"]
from medbridge.explain.attention import explain

plots.router_film(explain(shipped, films[0]), test.targets()[0][0], "One synthetic film: what each expert says, and the mixture")

# %% [markdown]
# **What to see.** The mixture lies between the experts, nearer to the one with the larger weight.
#
# ## 2. What is trained, and what is frozen
#
# We count it for the small model that this notebook trains.

# %%
from medbridge import FocalSampler

SAMPLER = FocalSampler(crop=0.6, overlap=0.0, extra=2)
SMALL = {"queries": 4, "query_layers": 1, "width": 64, "dropout": 0.1}
EXPERTS = ["tiny-resnet", "tiny-resnet-scenes"]


def new_model(seed=0):
    return MedBridge(EXPERTS, LABELS, sampler=SAMPLER, seed=seed, **SMALL)


def count(parameters):
    return sum(p.numel() for p in parameters)


# %%
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


# %%
model = new_model()
table = parameter_table(model)
assert table.loc["all", "trained"] == count(model.trainable().values()) == count(p for p in model.parameters() if p.requires_grad)
assert not any(p.requires_grad for p in model.experts.parameters())
print(table.to_string(formatters={column: "{:,}".format for column in table}))

# %% [markdown]
# One number is trained per thirteen frozen ones, because our experts are tiny enough to ship. The bridge does
# not grow with the expert. We count one of the default size for a CLIP ViT-B/16, on PyTorch's "meta" device,
# whose modules have shapes and no numbers.

# %% tags=["nbval-ignore-output"]
from types import SimpleNamespace

import open_clip
from open_clip.model import CLIP

from medbridge import AdapterConfig
from medbridge.crossview import CrossView
from medbridge.qencoder import QueryEncoder
from medbridge.scores import PromptScores

with torch.device("meta"):
    clip = CLIP(**open_clip.get_model_config("ViT-B-16"))
    width, text_dim, default = 768, 512, AdapterConfig()
    maps = SimpleNamespace(depth=12, widths=[default.components] * 12)  # compact: the first 128 components of 768 channels
    bridge = [QueryEncoder(maps, default.queries, default.query_layers, "cross", default.width),
              CrossView(default.width, text_dim + width),
              PromptScores(default.width, default.queries + 1, torch.ones(14, text_dim), torch.zeros(14, text_dim))]

# %% tags=["nbval-ignore-output"]
trained, frozen = sum(count(part.parameters()) for part in bridge), count(clip.parameters())
assert 5 * trained < 0.02 * frozen
print(f"CLIP ViT-B/16: {frozen:,} frozen; a bridge for 14 findings: {trained:,} trained, {100 * trained / frozen:.1f} % of that; "
      f"five members: {500 * trained / frozen:.1f} %")

# %% [markdown]
# What a frozen expert says about a film never changes, so we compute it **once** and keep it on disk:

# %% tags=["nbval-ignore-output"]
from medbridge import FeatureCache

cache = FeatureCache(progress=False)
cached = {name: cache.of(model, benchmark.split(name), training=name == "train") for name in ("train", "val", "test")}
kept = {name: [part[i] for i in range(len(part))] for name, part in cached.items()}  # small enough for memory
targets = {name: part.benchmark.targets() for name, part in cached.items()}
print({name: len(part) for name, part in cached.items()}, "films;",
      sum(t.nbytes for f in kept["train"] for maps in f.maps for t in maps) // 10**6, "MB of maps to train with")

# %%
# maps from the cache and from the film: a byte each, so equal up to a rounding that may fall the other way
fresh = film_features(model, cached["test"].benchmark.read(0))[0]
for a, b in zip(fresh.maps, kept["test"][0].maps, strict=True):
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype == torch.int8
        torch.testing.assert_close(as_numbers(x), as_numbers(y), atol=1.01 / 32, rtol=0)

# %%
batch = collate([f.draw() for f in kept["train"][:8]], targets["train"][0][:8], targets["train"][1][:8])
model.train()(batch).logits.sum().backward()
assert all(p.grad is None for p in model.experts.parameters())
assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.trainable().values())
model.zero_grad()
print("gradients reach the bridge, and not the experts")

# %% [markdown]
# ## 3. Losses, with labels that are not known
#
# Each finding is a yes-or-no question with a binary cross-entropy. With $p = \sigma(s)$:
#
# $$\ell(s, y) = -\big(y \log p + (1 - y) \log(1 - p)\big)$$
#
# A label may be **unknown** (notebook 02), which must not count as absent. The **masked** loss is the mean
# over what is known:
#
# $$L = \frac{\sum_{ic} \mathrm{known}_{ic}\,\ell(s_{ic}, y_{ic})}{\sum_{ic} \mathrm{known}_{ic}}$$

# %%
from medbridge.losses import asymmetric_loss, masked_bce


def my_masked_bce(logits, targets, mask):
    p = logits.sigmoid()
    entries = -(targets * p.log() + (1 - targets) * (1 - p).log())
    return entries[mask].mean()


torch.manual_seed(0)
scores = torch.randn(6, 4, requires_grad=True)
y = (torch.rand(6, 4) < 0.4).float()
known = torch.rand(6, 4) < 0.7
torch.testing.assert_close(my_masked_bce(scores, y, known), masked_bce(scores, y, known))

# %%
masked_bce(scores, y, known).backward()
assert (scores.grad[~known] == 0).all() and (scores.grad[known] != 0).all()
flipped = torch.where(known, y, 1 - y)  # whatever is written in an unknown place
assert masked_bce(scores, flipped, known) == masked_bce(scores, y, known)
print(f"{int((~known).sum())} of {known.numel()} labels are unknown: gradient there exactly 0, and their value does not matter")

# %% [markdown]
# For a logit of 60, $1 - p$ is exactly zero in float32 and its logarithm infinite. So the package computes
# $\ell = \log(1 + e^{s}) - y s$:

# %%
far, absent, one = torch.tensor([[60.0]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
print("by hand:", float(my_masked_bce(far, absent, one)), " package:", float(masked_bce(far, absent, one)))

# %% [markdown]
# ### Exercise 6.1: the gradient by hand
# ★★☆, 10 minutes. Write `loss_gradient(z, y, mask)` in NumPy: the derivative of the masked loss with respect
# to each logit. `z`, `y`: float arrays `(B, C)`, `mask`: bool `(B, C)`. If nothing is known, the gradient is
# zero everywhere.
#
# <details><summary>Hint</summary>
# For one known label the derivative with respect to its logit is simply p - y. Then look at the factor in
# front.
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
# **An option.** The **asymmetric loss** (Ridnik et al., ICCV 2021) turns easy negatives down: it shifts the
# probability of negatives by a margin $\mu$ and weighs them by a power $\gamma_-$:
#
# $$p_\mu = \max(p - \mu, 0), \qquad \ell_- = -\,p_\mu^{\gamma_-} \log(1 - p_\mu), \qquad
# \ell_+ = -(1 - p)^{\gamma_+} \log p$$

# %%
def my_asymmetric(logits, targets, mask, gamma_negative=4.0, gamma_positive=0.0, margin=0.05):
    p = logits.sigmoid()
    p_shifted = (p - margin).clamp(min=0)
    negative = -(p_shifted**gamma_negative) * (1 - p_shifted).log()
    positive = -((1 - p) ** gamma_positive) * p.log()
    return torch.where(targets == 1, positive, negative)[mask].mean()


torch.testing.assert_close(my_asymmetric(scores, y, known), asymmetric_loss(scores, y, known))
torch.testing.assert_close(asymmetric_loss(scores, y, known, 0.0, 0.0, 0.0), masked_bce(scores, y, known))  # its plain case
print("by hand = package; with both powers and the margin at zero it is the masked cross-entropy")

# %% alt="size of the loss's gradient against the predicted probability, for cross-entropy and the asymmetric loss; left: finding absent, right: present" tags=["nbval-ignore-output"]
logit, pulls = torch.linspace(-5, 5, 201, requires_grad=True), {"finding absent": {}, "finding present": {}}
for truth, panel in enumerate(pulls.values()):
    for name, function in (("cross-entropy", masked_bce), ("asymmetric", asymmetric_loss)):
        each = torch.stack([function(v.view(1, 1), torch.full((1, 1), float(truth)), one) for v in logit])
        panel[name] = logit.sigmoid().detach(), torch.autograd.grad(each.sum(), logit)[0].abs()
charts.curves(pulls, xlabel="predicted probability", ylabel="size of the gradient", ylim=(0, 1.05))

# %% [markdown]
# **What to see.** On the left the asymmetric loss hardly pulls up to one half. The price: its output is no
# longer a probability (notebook 07). So the cross-entropy is the default, and
# `TrainConfig(loss="asymmetric")` an option.
#
# ## 4. A training loop of thirty lines
#
# **The learning rate** rises for the first steps (**warm-up**), because the first gradients point anywhere.
# Then it falls along half a cosine. With warm-up share $u$ and
# $t_u = \max(1, \lfloor u\,\mathrm{steps} \rfloor)$, step $t = 0, 1, \dots$ uses the base rate times
#
# $$f(t) = \begin{cases} (t + 1)/t_u & t < t_u \\
# 0.01 + 0.99 \cdot \tfrac12\left(1 + \cos\left(\pi\,\frac{t - t_u}{\mathrm{steps} - t_u}\right)\right)
# & t \ge t_u\end{cases}$$
#
# ### Exercise 6.2: the schedule
# ★☆☆, 5 minutes. Write `rate(t, steps, u)` that returns the factor $f(t)$. If $\mathrm{steps} = t_u$ there is
# no cosine left; divide by $\max(1, \mathrm{steps} - t_u)$.
#
# <details><summary>Hint</summary>
# <code>int(u * steps)</code> rounds down. A first step with the rate zero would be wasted.
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
# **The average.** Each step is noisy. `fit` keeps an **exponential moving average** (EMA) of the weights,
# $\bar\theta \leftarrow \beta\,\bar\theta + (1 - \beta)\,\theta$. A toy shows its effect: find the minimum of
# $\frac12 (\theta - 1)^2$ with noisy gradients.

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
assert error[1] < 0.7 * error[0]
print(f"distance from the minimum after step 200: weights {error[0]:.2f}, their average {error[1]:.2f}")

# %% alt="left: the factor of the learning rate over 200 steps for three shares of warm-up; right: a toy with noisy gradients, whose averaged weights stay close to the minimum at 1" tags=["nbval-ignore-output"]
from medbridge.train import cosine_schedule

charts.curves({"factor of the learning rate": {f"warm-up {share:g}": (range(200), [cosine_schedule(t, 200, share) for t in range(200)])
                                               for share in (0.0, 0.1, 0.3)},
               "a toy with noisy gradients": {"weights": (range(600), path[:, 0]), "their average": (range(600), path[:, 1])}},
              xlabel="step")

# %% [markdown]
# **When to stop.** We keep the epoch with the best mean AUC on the **validation** films, and stop when
# `patience` epochs bring nothing better. Why not on the test films? The best of many noisy numbers is too
# good. Imagine a model that does *not change* over 30 epochs, with a true AUC of 0.70 and noise on each
# measurement:

# %%
truth, noise, epochs, repeats = 0.70, 0.04, 30, 2000
draw = np.random.default_rng(0)
val_auc, test_auc = truth + noise * draw.standard_normal((2, repeats, epochs))
chosen_on_val = test_auc[np.arange(repeats), val_auc.argmax(axis=1)].mean()
chosen_on_test = test_auc.max(axis=1).mean()
print(f"reported test AUC: {chosen_on_val:.2f} if the epoch is chosen on validation, {chosen_on_test:.2f} if chosen on test; truth {truth:.2f}")
assert abs(chosen_on_val - truth) < 0.005 < 0.05 < chosen_on_test - truth

# %% [markdown]
# No model reaches the second number. The validation AUC of the kept epoch is too good in the same way.
#
# ### Exercise 6.3: early stopping
# ★★★, 15 minutes. Write `early_stopping(aucs, patience)`: `aucs` lists the validation AUC that each epoch
# *would* have. Training stops after the first epoch for which the best epoch so far lies `patience` epochs
# back, or at the end of the list. Return the epoch that is kept (from 0; of equal ones the first) and how
# many epochs ran.
#
# <details><summary>Hint</summary>
# You may not look behind the epoch at which you stop.
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
# ### The loop
#
# **[ours]** In training the local views are random regions (`film.draw` with a generator). At inference they
# are the sliding windows.

# %%
import copy

from medbridge.metrics.evaluate import auc

y, mask = targets["train"]
prevalence = (y * mask).sum(axis=0) / mask.sum(axis=0)


def probabilities(model, films):
    model.eval()
    with torch.inference_mode():
        batches = [collate([f.draw() for f in films[i : i + 32]]) for i in range(0, len(films), 32)]
        return torch.cat([model(batch).logits.sigmoid() for batch in batches]).numpy()


# %%
def learn_once(model, optimizer, rates, rng, batch_size):
    """One epoch over all training films; their mean loss."""
    order, total = rng.permutation(len(y)), 0.0
    model.train()
    for start in range(0, len(y), batch_size):
        drawn = order[start : start + batch_size]
        batch = collate([kept["train"][i].draw(rng) for i in drawn], y[drawn], mask[drawn])
        optimizer.param_groups[0]["lr"] = next(rates)
        loss = masked_bce(model(batch).logits, batch.targets, batch.mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(drawn)
    return total / len(y)


# %%
def train(model, epochs, lr=1e-3, batch_size=16, seed=0):
    rng, rows, best = np.random.default_rng(seed), [], -math.inf
    torch.manual_seed(seed)  # of the dropout
    model.take_bases(cached["train"].bases)  # they standardise the summaries
    model.set_prevalence(prevalence)  # start at what is known without looking
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=lr, weight_decay=0.2)
    steps = epochs * math.ceil(len(y) / batch_size)
    rates = (lr * cosine_schedule(step, steps, 0.1) for step in range(steps))
    for epoch in range(epochs):
        loss = learn_once(model, optimizer, rates, rng, batch_size)
        value = np.nanmean(auc(targets["val"][0], probabilities(model, kept["val"]), targets["val"][1]))
        rows.append({"epoch": epoch, "loss": loss, "val_auc": value})
        if value > best:
            best, best_epoch, weights = value, epoch, copy.deepcopy(model.trainable())
    with torch.no_grad():
        for name, p in model.trainable().items():
            p.copy_(weights[name])
    return rows, best_epoch


# %% [markdown]
# Has it learned? The training loss must fall below that of a model that only predicts the prevalence of each
# finding. And on the *test* films the easiest finding, a large heart (*cardiomegaly*), should show.

# %%
mine = new_model()
rows, best_epoch = train(mine, 30 if full_profile() else 15)
always = torch.logit(torch.from_numpy(prevalence)).expand(len(y), -1)
guess = masked_bce(always, torch.from_numpy(y), torch.from_numpy(mask)).item()
assert rows[-1]["loss"] < 0.95 * guess < rows[0]["loss"]
p_test = probabilities(mine, kept["test"])
heart = auc(*[a[:, LABELS.index("Cardiomegaly")] for a in (targets["test"][0], p_test, targets["test"][1])])[0]
assert heart > 0.75
print("training loss below that of the prevalences alone; test AUC of Cardiomegaly above 0.75")

# %% alt="training curves of the thirty lines on synthetic films: training loss and mean validation AUC by epoch; a dotted line marks the loss of the prevalence alone" tags=["nbval-ignore-output"]
fig = plots.training_curves(rows, best_epoch, "Thirty lines on synthetic films")
fig.axes[0].axhline(guess, color="C1", linestyle=":")  # the loss of the prevalence alone
fig

# %% [markdown]
# **What to see.** The loss falls below the dotted line, the prevalence alone, and goes on falling. The
# validation curve rises and then stays: the rest is films learned by heart.
#
# ## 5. What `medbridge.fit` adds
#
# The package's loop has what a long run needs:
#
# - **Accelerate**, for devices and several GPUs;
# - two terms of the loss **[ours]**:
#   $L = L_{\text{mixture}} + \lambda_e \tfrac{1}{K} \sum_k L_k + \lambda_b\, \mathrm{balance}$. An expert
#   that the router ignores would otherwise never learn;
# - EMA, patience and clipping;
# - **ten epochs or 400 steps, whichever is longer [ours]**, where `epochs` is not given;
# - a **checkpoint** after each epoch.

# %% alt="training curves of medbridge.fit on synthetic films: training loss and mean validation AUC by epoch, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
import tempfile
from pathlib import Path

from medbridge import TrainConfig, fit

assert [TrainConfig().most_epochs(n) for n in (200, 640, 100_000)] == [31, 10, 10]
folder = Path(tempfile.mkdtemp())
model = new_model()
history = fit(model, cached["train"], cached["val"], TrainConfig(epochs=30 if full_profile() else 15), folder / "full", progress=False)
plots.training_curves(history.rows, history.best_epoch, "medbridge.fit on synthetic films")

# %% [markdown]
# Is a resumed run the *same* run? We train three epochs on a few patients without a break, and then pull the
# plug in the second epoch.

# %%
import warnings
from unittest import mock

from medbridge import train as train_module
from medbridge.predict import outputs

few, short = benchmark.subset(12), TrainConfig(epochs=3, batch_size=8)
few = cache.of(model, few.split("train"), training=True), cache.of(model, few.split("val"))
warnings.simplefilter("ignore", UserWarning)
peaceful = new_model()
whole = fit(peaceful, *few, short, folder / "whole", progress=False)

# %%
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

# %%
resumed = new_model()  # as a new program would: nothing of the old run but the folder
again = fit(resumed, *few, short, folder / "cut", progress=False)
assert len(again.rows) == short.epochs
assert [r["loss"] for r in again.rows] == [r["loss"] for r in whole.rows]
assert all(torch.equal(p, resumed.trainable()[name]) for name, p in peaceful.trainable().items())
print("resumed = uninterrupted, bit by bit:", len(peaceful.trainable()), "tensors are equal")

# %% [markdown]
# The checkpoint holds the optimiser's state and the average, and the views drawn depend on (seed, epoch,
# film) alone. So the same seed gives the same run on the same machine. Another seed gives another run, and
# how different it is belongs into a report.
#
# ### Members and cross-fitting
#
# One such network did not beat a linear probe on the same views ([docs/results.md](../docs/results.md)). It
# has three weaknesses. Some forty validation films choose its epoch. It does not learn from those films'
# labels. And it depends on its random start. What mended it **[ours]** is what the commands train:
# `AdapterConfig(members=5, readout=True)`.
#
# The patients of train *and* val are dealt into $M$ folds. Member $j$ learns from all folds but its own. So
# for every film $i$ one member, $j(i)$, has not learned from it, and its score may judge:
#
# $$\tilde s_i = s^{(j(i))}(\text{film}_i) \quad\text{(out-of-fold: chooses the epoch)}, \qquad
# s(\text{film}) = \frac1M \sum_{j=1}^M s^{(j)}(\text{film}) \quad\text{(for a new film)}$$
#
# One trap is left. The more positives a fold holds, the fewer its member learns from, and the lower it scores
# them all. So we move the $n_j$ scores of each fold towards the common mean, for each finding:
#
# $$\tilde s_i \leftarrow \tilde s_i + \frac{n_j}{n_j + 5}\,
# \big(\operatorname{mean}(\tilde s) - \operatorname{mean}_j(\tilde s)\big)$$

# %%
from medbridge.data.tasks import member_folds


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
# We train three members and pick the out-of-fold scores by hand:

# %%
crossed = MedBridge(EXPERTS, LABELS, sampler=SAMPLER, members=3, readout=True, **SMALL)
crossed_history = fit(crossed, cached["train"], cached["val"], TrainConfig(epochs=30 if full_profile() else 6), progress=False)
learned_films = kept["train"] + kept["val"]
learned_y, learned_mask = (np.concatenate(parts) for parts in zip(targets["train"], targets["val"], strict=True))
q = np.stack([torch.cat([o.logits for o in outputs(crossed, learned_films, member=m)]).numpy() for m in range(3)])  # (M, n, C)

# %%
out_of_fold = q[fold, np.arange(len(fold))]
moved = out_of_fold.copy()
for own in (fold == m for m in range(3)):
    moved[own] += own.sum() / (own.sum() + 5) * (out_of_fold.mean(axis=0) - out_of_fold[own].mean(axis=0))
judged = np.nanmean(auc(learned_y, moved, learned_mask))
np.testing.assert_allclose(judged, crossed_history.best_auc, atol=2e-3)
print("the AUC that chose the epoch is that of the out-of-fold scores, of", len(fold), "films instead of", len(kept["val"]))

# %% alt="bars for each of three members: mean AUC on the films that it has learned from, and lower bars on the films of its own fold; synthetic films" tags=["nbval-ignore-output"]
def mean_auc(m, rows):
    return np.nanmean(auc(learned_y[rows], q[m, rows], learned_mask[rows]))


seen = pd.DataFrame({"learned from": [mean_auc(m, fold != m) for m in range(3)], "its own fold": [mean_auc(m, fold == m) for m in range(3)]},
                    index=[f"member {m}" for m in range(3)])
charts.bar_chart(seen, "Why only out-of-fold scores may judge (synthetic films)", level={"": 0.5}, ylabel="mean AUC", ylim=(0, 1.15))

# %% [markdown]
# **What to see.** Each member is better on the films that it has learned from, so those may not judge.
#
# ### The read-out
#
# A probe that is hard to beat becomes a part of the model. $\bar m$ holds each expert's standardised summary
# of the whole film, and the mean and the maximum over the views. $W_r^{(j)}, v^{(j)}$ are logistic
# regressions on the films that member $j$ learns from:
#
# $$\mathrm{logit}_c = a\, s_c + b\, r_c + o_c, \qquad
# r = \frac1M \sum_j \big( W_r^{(j)} \bar m + v^{(j)} \big),
# \qquad a, b \ge 0$$
#
# A logistic regression of the labels on *out-of-fold* scores fits $a$, $b$ and $o_c$ last.

# %%
from medbridge.readout import pool_summary

readout, batch = crossed.readout, collate([f.draw() for f in kept["test"][:8]])
with torch.inference_mode():
    output, summary = crossed.eval()(batch), crossed.summaries(batch.summary)
    pooled = torch.cat([torch.cat([s[:, 0], s.mean(dim=1), s.amax(dim=1)], dim=1) for s in summary], dim=1)  # no padding here
    torch.testing.assert_close(pooled, pool_summary(summary, batch.view_mask))
    mean_q = torch.stack([crossed(batch, member=m).logits for m in range(3)]).mean(dim=0)
    r = torch.stack([pooled @ w.T + v for w, v in zip(readout.weight, readout.bias, strict=True)]).mean(dim=0)
    a, b = readout.blend
    torch.testing.assert_close(a * mean_q + b * r + readout.offset, output.logits, atol=1e-4, rtol=1e-4)
assert a >= 0 and b >= 0 and a + b > 0
print("by hand = MedBridge.forward, with three members and the read-out")

# %% tags=["nbval-ignore-output"]
from medbridge.predict import predict

apart = [torch.cat([o.logits for o in outputs(crossed, kept["test"], member=m)]).numpy() for m in range(3)]
stages = {f"member {m} alone": logits for m, logits in enumerate(apart)}
stages |= {"mean of the three": np.mean(apart, axis=0), "with the read-out": predict(crossed, cached["test"], progress=False).probabilities}
print(pd.Series({name: np.nanmean(auc(targets["test"][0], s, targets["test"][1])) for name, s in stages.items()},
                name="mean test AUC").round(2).to_string())
print(f"weights of the blend: queries {a:.2f}, read-out {b:.2f}")

# %% [markdown]
# **How to read it.** Where the queries add nothing to the summaries, $a$ is small. These are AUCs of a
# hundred films; that one is above another proves nothing yet (notebook 07). Notebook 10 measures what members
# and read-out bring.
#
# ### Save, load, predict
#
# An **adapter** is the trained tensors and the bases as *safetensors*, and a JSON file that names the experts
# and their checksums.

# %%
from medbridge import predict_film, save_adapter

loaded = load_adapter(save_adapter(model, folder / "adapter"))
assert all(torch.equal(value, model.state()[name]) for name, value in loaded.state().items())
chosen = int(np.flatnonzero(test.targets()[0].sum(axis=1) >= 2)[0])  # the first test film with two findings or more
film = test.read(chosen)
p = predict_film(loaded, film)
np.testing.assert_allclose(p, predict_film(model, film))
with torch.inference_mode():  # and once more by hand, from the film to the probabilities
    np.testing.assert_allclose(p, forward_by_hand(loaded, film_features(loaded, film)[0])[0].sigmoid(), atol=1e-4)
print("saved = loaded = by hand")

# %% [markdown]
# From a shell: `medbridge predict --adapter FOLDER film.dcm`. **Try it** (needs a running kernel; the picture
# below shows one film): see where the queries looked.

# %% tags=["nbval-ignore-output"]
from medbridge.viz import widgets

widgets.explore_film(loaded, test)

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
label = LABELS[int(test.targets()[0][chosen].argmax())]
boxes = test.boxes[(test.boxes["image"] == test.image_ids()[chosen]) & (test.boxes["label"] == label)]
plots.query_attention(explain(loaded, film), label, boxes[["x0", "y0", "x1", "y1"]].to_numpy(), f"{test.name}: {label}")

# %% [markdown]
# ## Summary
#
# - MedBridge is six parts in a row. By hand and by the package they give the same numbers.
# - Only the bridge is trained, a few thousandths of a real foundation model.
# - Unknown labels contribute nothing to the loss.
# - The epoch is chosen on validation. Chosen on test, the reported number belongs to no model.
# - Cross-fitted members learn from all films, and each film judges a member that has not learned from it. The
#   same scores weigh a linear read-out against the queries.
# - A resumed run is the same run.
#
# Next: [07 Evaluation done right](07_evaluation.ipynb)
