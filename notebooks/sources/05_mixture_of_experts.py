# %% [markdown]
# # 05 Mixture of Experts
#
# {{COLAB}}
#
# **What you will build:** the third part of MedBridge: several frozen experts, and a *router* that decides how much each one
# counts. You measure whether two experts fail on the same films, average them, write the router from scratch (weights for a
# film, weights for a class, top-k, the balance term), watch a router collapse and see what prevents it, train a mixture, and
# add and drop an expert.
#
# - **Prerequisites:** notebook [04](04_query_encoder.ipynb); PyTorch tensors.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores the first time, one afterwards. On a
#   Colab T4 about one minute (an estimate).
# - **Module:** `medbridge/moe.py` · **test:** `tests/test_moe.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), "Mixture of Experts". [Notebook 00](00_start_here.ipynb) explains the marks
#   **[abstract]**, **[summary]** and **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import copy

import ipywidgets
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from scipy.stats import norm
from torch import nn

from medbridge import FeatureCache, FocalSampler, MedBridge, TrainConfig, create_expert, fit, load_benchmark, paired_difference
from medbridge.course import check, full_profile, seed_everything
from medbridge.extras.mixture_edit import with_expert, without_expert
from medbridge.features.batch import collate
from medbridge.losses import masked_bce
from medbridge.metrics.evaluate import auc
from medbridge.moe import Router, balance_loss
from medbridge.predict import predict
from medbridge.viz import plots, widgets

rng = seed_everything(0)
BLUE, ORANGE, GREEN = sns.color_palette("colorblind")[:3]

# %% [markdown]
# ## 1. Why several experts? Because they fail on different films
#
# Two models are better than one only where they differ. Take two frozen experts with the same tower and different
# pre-training pictures: `tiny-resnet` saw textures, `tiny-resnet-scenes` saw scenes of shapes. Each gets its own queries
# (notebook 04) and is trained *alone*.

# %% tags=["nbval-ignore-output"]
names = ["tiny-resnet", "tiny-resnet-scenes"]
experts = [create_expert(name) for name in names]
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 450)
sampler = FocalSampler(crop=0.5, overlap=0.0, extra=0)  # the whole film and four windows
settings = TrainConfig(epochs=30 if full_profile() else 10)
singles = [MedBridge([expert], benchmark.labels, sampler=sampler) for expert in experts]
cache = FeatureCache(progress=False)


def trained(model):
    """Train on the training films, choose the epoch on the validation films."""
    return fit(model, cache.of(model, benchmark.split("train"), training=True), cache.of(model, benchmark.split("val")), settings,
               progress=False)


def scored(model, part):
    return predict(model, cache.of(model, part), progress=False)


for name, single in zip(names, singles, strict=True):
    history = trained(single)
    print(f"{name:<18} validation mean AUC {history.best_auc:.2f}")

# %%
test = benchmark.split("test")
y, mask = test.targets()
patients = test.table["patient_id"]
alone = [scored(single, test) for single in singles]
z = np.concatenate([p.expert_logits for p in alone], axis=1)  # (n, K, C): each expert's own logits
print(f"{test.name}: {len(test)} test films of {patients.nunique()} patients; logits {z.shape}: films, experts, findings")

# %% [markdown]
# When does an expert *fail*? A probability is neither right nor wrong. But take a **pair**: one film with the finding and one
# without. An expert fails on it where the film without gets the higher score. The share of such pairs is $1 - \mathrm{AUC}$
# (notebook 02). Let $e_1, e_2$ say (0 or 1) whether each expert fails on a pair. The correlation of $e_1$ and $e_2$ over all
# pairs is the **error correlation**: 1 where they fail on the same pairs, 0 where their failures have nothing to do with each
# other.

# %%
def failed_pairs(y, scores):
    """y (n,) of 0 and 1, scores (n,) -> (positives, negatives): 1 where the pair is in the wrong order, one half for a tie."""
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return (difference < 0) + 0.5 * (difference == 0)


rows = []
for c, label in enumerate(test.labels):
    first, second = (failed_pairs(y[:, c], z[:, k, c]) for k in range(2))
    np.testing.assert_allclose([1 - first.mean(), 1 - second.mean()], auc(np.stack([y[:, c]] * 2, 1), z[:, :, c]))
    rows.append({"finding": label, "both": (first * second).mean(), "only the first": (first * (1 - second)).mean(),
                 "only the second": ((1 - first) * second).mean(),
                 "correlation": np.corrcoef(first.ravel(), second.ravel())[0, 1]})
failures = pd.DataFrame(rows).set_index("finding")
print("share of failed pairs = 1 - AUC, for both experts and every finding")

# %% alt="stacked bars by label: the share of pairs of synthetic test films on which both experts fail, only the first or only the second, with the correlation of their scores above each bar" tags=["nbval-ignore-output"]
fig = Figure(figsize=(8.5, 3.6), layout="constrained")
ax = fig.subplots()
below = np.zeros(len(failures))
for part, colour, hatch in (("both", GREEN, ""), ("only the first", BLUE, "//"), ("only the second", ORANGE, "..")):
    ax.bar(failures.index, failures[part], 0.7, bottom=below, color=colour, hatch=hatch, edgecolor="white",
           label=f"{part} failed")
    below += failures[part].to_numpy()
for at, (top, r) in enumerate(zip(below, failures["correlation"], strict=True)):
    ax.text(at, top + 0.01, f"r = {r:.2f}", ha="center", fontsize=8)
ax.set(ylabel="share of pairs", ylim=(0, below.max() + 0.15),
       title=f"Pairs of synthetic test films on which {names[0]} or {names[1]} fails")
ax.tick_params(axis="x", rotation=20)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper left")
fig

# %% [markdown]
# **What to see.** Where hatched bars are large, one expert is right where the other fails: a mixture has something to gain.
# Where the plain bar is nearly everything ("both failed"), no fixed weighting of these two can help.
#
# ### What an average gains, in theory
#
# Let each expert's score be the truth plus noise: standard deviation 1 within each class, class means $d'$ apart. Then
# $\mathrm{AUC} = \Phi(d'/\sqrt2)$. If the noises of two such experts correlate with $\rho$, the mean of the scores has noise
# variance $(1 + \rho)/2$, so
#
# $$\mathrm{AUC}_{\text{mean}} = \Phi\!\left(\frac{d'}{\sqrt 2}\sqrt{\frac{2}{1 + \rho}}\right).$$
#
# A simulation checks the formula; 1.0 on the right is the case of two copies of one expert.

# %%
def auc_of_mean(single, rho):
    return norm.cdf(norm.ppf(single) * np.sqrt(2 / (1 + rho)))


truth = np.arange(40_000) % 2
for rho in (-0.3, 0.0, 0.5, 0.9):
    noise = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], len(truth))
    shift = np.sqrt(2) * norm.ppf(0.75)
    simulated = auc(truth, (truth[:, None] * shift + noise).mean(axis=1))[0]
    np.testing.assert_allclose(simulated, auc_of_mean(0.75, rho), atol=0.01)
    print(f"two experts of AUC 0.75 with rho = {rho:+.1f}: their mean has AUC {auc_of_mean(0.75, rho):.2f}")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(5.6, 3.2), layout="constrained")
ax = fig.subplots()
r = np.linspace(-0.5, 1, 100)
for single, style in ((0.85, "-"), (0.75, "--"), (0.65, ":")):
    ax.plot(r, auc_of_mean(single, r), linestyle=style, color=BLUE, label=f"each alone {single:.2f}")
ax.set(xlabel="correlation of the two experts' noise", ylabel="AUC of their mean",
       title="What averaging two equal experts gains (theory)")
ax.legend(frameon=False, fontsize=8)
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# ### Exercise 5.1: the best weight
# ★★☆, 15 minutes. Experts are not equally good. Expert 1 has noise of standard deviation $s_1$, expert 2 of $s_2$, the
# correlation is $\rho$, and both scores have the same class means. Which weight $g$ of expert 1 (and $1 - g$ of expert 2)
# makes the noise of the weighted mean least? Write `best_weight(s1, s2, rho)`; a weight lies in [0, 1].
#
# <details><summary>Hint</summary>
# The variance is g² s1² + (1 - g)² s2² + 2 g (1 - g) rho s1 s2. Set its derivative to zero. What if the solution is above 1?
# </details>

# %%
def best_weight(s1, s2, rho):
    raise NotImplementedError


check("5.1", best_weight)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/05_mixture_of_experts.ipynb](solutions/05_mixture_of_experts.ipynb).
#
# ```python
# def best_weight(s1, s2, rho):
#     g = (s2**2 - rho * s1 * s2) / (s1**2 + s2**2 - 2 * rho * s1 * s2)
#     return min(1.0, max(0.0, g))
# ```
# </details>

# %% [markdown]
# ## 2. Uniform average first
#
# The simplest mixture gives each expert the same weight: $s_c = \frac1K \sum_k s_{kc}$. Nothing is learned, so nothing can go
# wrong in learning. Every cleverer mixture has to beat it.

# %% tags=["nbval-ignore-output"]
def sigmoid(s):
    return 1 / (1 + np.exp(-s))


def compare(a, b):
    """Paired difference of mean AUC, and the sentence that it allows."""
    d = paired_difference(y, a, b, mask, groups=patients)
    return d, "the interval holds zero" if d.lo <= 0 <= d.hi else "the first is better" if d.diff > 0 else "the second is better"


uniform = sigmoid(z.mean(axis=1))
for name, p in zip(names, alone, strict=True):
    d, verdict = compare(uniform, p.probabilities)
    print(f"uniform average minus {name:<18} {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]  {verdict}")

# %%
pooled = [torch.randn(len(z), 64), torch.randn(len(z), 64)]  # a uniform router does not look at them
g = Router([64, 64], len(test.labels), "uniform")(pooled).numpy()
np.testing.assert_allclose((g * z).sum(axis=1), z.mean(axis=1), atol=1e-6)
print("Router(kind='uniform') is the average of the logits")

# %% [markdown]
# **How to read it.** The average of a strong and a weak expert may lie anywhere between them; it is better than both only
# where they fail on different pairs.
#
# ### No shared space is needed
#
# The experts' tokens cannot be added or even stacked: widths and grids differ. **[abstract]** They do not have to: the experts need no shared space. **[ours]** What is mixed
# is the *scores*, and a score is made within each expert's own space. Here is the proof for one expert: turn its whole text
# space by a random rotation $O$ (prompts and projected queries alike). Every coordinate changes, and no score does, since
# $(Oz) \cdot (Ot) = z \cdot t$.

# %%
branch = singles[0].branches[0]
turned = copy.deepcopy(branch.scores)
rotation = torch.linalg.qr(torch.randn(turned.text.shape[1], turned.text.shape[1])).Q
with torch.inference_mode():
    turned.project.weight.copy_(rotation @ turned.project.weight)
    turned.project.bias.copy_(rotation @ turned.project.bias)
    turned.delta.copy_(turned.delta @ rotation.T)
    turned.text.copy_(turned.text @ rotation.T)
    tokens = torch.randn(4, 9, branch.encoder.width)
    torch.testing.assert_close(turned(tokens), branch.scores(tokens), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(turned.text, branch.scores.text, atol=0.1)
print("another space, the same scores: the mixture cannot tell")

# %% [markdown]
# ## 3. The router
#
# A fixed weight treats all films alike. But one expert may be good at blurred films, or at one finding. **[abstract]** The
# pooled queries $\bar q_1, \dots, \bar q_K$ of the film drive the router:
#
# $$g = \operatorname{softmax}_k\, \mathrm{router}([\bar q_1; \dots; \bar q_K]), \qquad s_c = \sum_k g_{kc}\, s_{kc}$$
#
# The router is a small network; its input is the queries side by side, so widths may differ. **[ours]** The equation, and a weight for each
# expert *and class* (`kind="class"`); `kind="image"` gives one weight per expert for all classes. We measured all three kinds on synthetic films with
# the earlier form: uniform weights instead of learned ones changed the AUC by +0.001 [-0.006, +0.008]
# ([docs/results.md](../docs/results.md#one-part-changed-at-a-time)). So the router has not shown its worth.

# %%
def my_router(router, queries, classes):
    """The package's Router, for its weights: K tensors (B, w_k) -> weights (B, K, C)."""
    first, last = router.net[0], router.net[2]
    hidden = torch.cat(queries, dim=1) @ first.weight.T + first.bias
    hidden = nn.functional.gelu(hidden)
    scores = (hidden @ last.weight.T + last.bias).unflatten(1, (len(queries), -1))  # (B, K, C) or (B, K, 1)
    e = (scores - scores.amax(dim=1, keepdim=True)).exp()
    return (e / e.sum(dim=1, keepdim=True)).expand(-1, -1, classes)


torch.manual_seed(0)
widths, B, C = [16, 24, 8], 5, 4  # three experts, each with queries of another width
queries = [torch.randn(B, w) for w in widths]
for kind in ("class", "image"):
    router = Router(widths, C, kind)
    for p in router.parameters():
        nn.init.normal_(p, std=0.2)  # as if trained; a new router is uniform
    weights = router(queries)
    torch.testing.assert_close(my_router(router, queries, C), weights)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B, C))
    by_class = ", ".join(f"{v:.2f}" for v in weights[0, 0].tolist())
    print(f"{kind}: weights {tuple(weights.shape)}; those of the first expert on the first film, class by class: {by_class}")

# %% [markdown]
# ### Start uniform
#
# **[ours]** The router's last layer starts at zero, so every weight starts at $1/K$. With random numbers in it, an expert would
# begin with more weight on some films by accident, and would learn faster *because of that accident* (section 5 shows what
# follows).

# %%
start = Router(widths, C)
assert torch.equal(start(queries), torch.full((B, 3, C), 1 / 3))
start.zero_grad()
target = torch.randn(B, 3, C)
(start(queries) * target).sum().backward()
assert start.net[0].weight.grad.abs().max() == 0  # behind a layer of zeros nothing learns in the first step ...
assert start.net[2].weight.grad.abs().max() > 0  # ... but that layer itself does
print("uniform at the start, and not stuck: the last layer has a gradient at once, the first layer from the second step on")

# %% [markdown]
# ### A weight for the film, or for the class?
#
# Two made-up experts (plain tensors, no films): expert 1 knows class 1 and is noise on class 2; expert 2 the other way round.
# One weight per expert cannot express that.

# %%
def train_router(kind, steps=200):
    """Loss at the end of a router that is trained on made-up experts with fixed scores."""
    made = torch.Generator().manual_seed(0)
    targets = (torch.rand(2000, 2, generator=made) < 0.5).float()
    noise = torch.randn(2000, 2, 2, generator=made)
    knows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (K, C)
    scores = 3 * knows * (2 * targets[:, None] - 1) + noise
    seen = [torch.randn(2000, 4, generator=made) for _ in range(2)]
    torch.manual_seed(0)
    router = Router([4, 4], 2, kind)
    optimizer = torch.optim.AdamW(router.parameters(), lr=0.01)
    for _ in range(steps):
        loss = masked_bce((router(seen) * scores).sum(1), targets, torch.ones_like(targets, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach()), router(seen).mean(0).detach()


film_only, film_and_class = train_router("image"), train_router("class")
assert film_and_class[0] < 0.7 * film_only[0]
assert film_and_class[1][0, 0] > 0.8 and film_and_class[1][1, 1] > 0.8  # each class found its expert
assert (film_only[1] - 0.5).abs().max() < 0.1  # a weight for the film can only stay in the middle
print(f"loss with a weight for the film {film_only[0]:.2f}, with a weight for film and class {film_and_class[0]:.2f}")

# %% [markdown]
# ### Top-k
#
# With many experts one may keep the $k$ strongest and leave the others out of the softmax. In language models this saves running
# the others. Here it does not: the router reads the queries of *all* experts. What it gives is a prediction of few experts.

# %%
def my_top_k(scores, k):
    """Router scores (B, K, C) -> weights, of which k per film and class are not zero."""
    threshold = scores.sort(dim=1, descending=True).values[:, k - 1 : k]
    return scores.masked_fill(scores < threshold, -torch.inf).softmax(dim=1)


for k in (1, 2, 3):
    router = Router(widths, C, top_k=k)
    for p in router.parameters():
        nn.init.normal_(p, std=0.5)
    scores = router.net(torch.cat(queries, dim=1)).unflatten(1, (3, C))
    torch.testing.assert_close(my_top_k(scores, k), router(queries))
    assert ((router(queries) > 0).sum(dim=1) == k).all()
    router.zero_grad()
    (router(queries) * target).sum().backward()
    learns = bool(router.net[2].weight.grad.abs().max() > 1e-6)
    assert learns == (k > 1)
    print(f"top_k = {k}: the router gets {'a gradient' if learns else 'no gradient'}")

# %% [markdown]
# **Beware of $k = 1$.** After renormalising, the one weight that is left is always 1. It does not change when the scores
# change a little, so the router gets no gradient and never learns: a new router with `top_k=1` keeps the same expert for
# good. Train with all experts or with $k \ge 2$; the default keeps all.
#
# ## 4. The balance term
#
# A router may fall into the habit of using one expert only. The **balance term** punishes unequal *mean* use. With the load
# $\ell_k = \operatorname{mean}_{b,c}\, g_{bkc}$ it is the squared coefficient of variation (Shazeer et al., 2017, equation
# 7):
#
# $$\mathcal{L}_{\text{balance}} = \frac{\operatorname{var}_k(\ell)}{\operatorname{mean}_k(\ell)^2}$$

# %%
def my_balance(weights):
    load = [float(weights[:, k].mean()) for k in range(weights.shape[1])]
    mean = sum(load) / len(load)
    return sum((v - mean) ** 2 for v in load) / len(load) / mean**2


weights = torch.randn(6, 3, C).softmax(dim=1)
np.testing.assert_allclose(my_balance(weights), float(balance_loss(weights)), rtol=1e-5)
halves = torch.zeros(2, 2, 1)
halves[0, 0], halves[1, 1] = 1, 1  # film 1 all to expert 1, film 2 all to expert 2
one_for_all = torch.tensor([1.0, 0.0]).view(1, 2, 1).expand(2, -1, -1)
assert balance_loss(halves) == 0 and balance_loss(one_for_all) == 1
print(f"balance term, each film has its own expert: {balance_loss(halves):.0f}; all films have one: {balance_loss(one_for_all):.0f}")

# %% [markdown]
# It asks for equal use *over the batch*; each film may be as one-sided as it likes.
#
# ## 5. Collapse, and what prevents it
#
# The gradient that reaches expert $k$ through the mixture carries its weight as a factor:
#
# $$\frac{\partial \mathcal{L}}{\partial s_{kc}} = g_{kc}\, \frac{\partial \mathcal{L}}{\partial s_c}$$
#
# So an expert that is behind gets less weight, with less weight it learns less, and then it is further behind: **collapse**.
# Two remedies **[ours]**:
#
# - a loss on **each expert's own** scores, which does not pass through the weights ($\lambda_e$, `TrainConfig.expert_loss`);
# - the **balance term** ($\lambda_b$, `TrainConfig.balance`).
#
# $$\mathcal{L} = \mathrm{BCE}(s) + \lambda_e\, \frac1K \sum_k \mathrm{BCE}(s_k) + \lambda_b\, \mathcal{L}_{\text{balance}}$$
#
# A demonstration with made-up tensors. Both experts hold the same amount of evidence about a label, with independent noise.
# For expert 1 it is one plain number. For expert 2 it is hidden: it is whether two numbers have the *same sign*. Expert
# 1 has been trained before; expert 2 is new. We train all four combinations, three seeds each.

# %%
def made_up(n, seed):
    """Inputs of two experts, (n, 8) each, and labels (n, 1)."""
    made = torch.Generator().manual_seed(seed)
    targets = (torch.rand(n, 1, generator=made) < 0.5).float()
    sign = 2 * targets - 1
    plain, hidden = torch.randn(n, 8, generator=made), torch.randn(n, 8, generator=made)
    plain[:, :1] += sign
    side = torch.randn(n, 1, generator=made).sign()
    hidden[:, :2] = torch.cat([side, side * sign], dim=1) + 0.7 * hidden[:, :2]
    return [plain, hidden], targets


def train_mixture(expert_loss, balance, seed, steps=150):
    """Weight of expert 2 after each step; then AUC of expert 1, expert 2 and the mixture on new data."""
    torch.manual_seed(seed)
    readers = [nn.Sequential(nn.Linear(8, 16), nn.GELU()) for _ in range(2)]
    heads = [nn.Linear(16, 1) for _ in range(2)]
    router = Router([16, 16], 1)
    x, targets = made_up(1024, seed + 100)
    known = torch.ones_like(targets, dtype=torch.bool)

    def step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    optimizer = torch.optim.AdamW([*readers[0].parameters(), *heads[0].parameters()], lr=3e-3)
    for _ in range(200):  # the head start of expert 1
        step(optimizer, masked_bce(heads[0](readers[0](x[0])), targets, known))

    def forward(x):
        q = [reader(v) for reader, v in zip(readers, x, strict=True)]
        own, weights = torch.stack([head(v) for head, v in zip(heads, q, strict=True)], dim=1), router(q)
        return (weights * own).sum(1), own, weights

    modules = nn.ModuleList([*readers, *heads, router])
    optimizer, weight = torch.optim.AdamW(modules.parameters(), lr=3e-3), []
    for _ in range(steps):
        mixed, own, weights = forward(x)
        loss = masked_bce(mixed, targets, known) + balance * balance_loss(weights)
        loss = loss + expert_loss * torch.stack([masked_bce(s, targets, known) for s in own.unbind(1)]).mean()
        step(optimizer, loss)
        weight.append(float(weights[:, 1].detach().mean()))
    x, targets = made_up(4096, seed + 900)
    with torch.inference_mode():
        mixed, own, _ = forward(x)
    return weight, [float(auc(targets.numpy(), s.numpy())[0]) for s in (own[:, 0], own[:, 1], mixed)]


variants = {"mixture loss alone": (0, 0), "+ balance": (0, 0.5), "+ expert losses": (0.5, 0), "+ both": (0.5, 0.5)}
paths, results = {}, {}
for name, (expert_loss, balance) in variants.items():
    runs = [train_mixture(expert_loss, balance, seed) for seed in range(3)]
    paths[name] = np.mean([r[0] for r in runs], axis=0)
    results[name] = [paths[name].min(), *np.mean([r[1] for r in runs], axis=0)]
results = pd.DataFrame(results, index=["least weight of expert 2", "AUC expert 1", "AUC expert 2", "AUC mixture"]).T
assert results.loc["mixture loss alone", "least weight of expert 2"] < 0.15  # the router turns away from the newcomer ...
assert results.loc["mixture loss alone", "AUC expert 2"] < results.loc["+ both", "AUC expert 2"] - 0.1  # ... which hardly learns
assert results.loc["+ both", "least weight of expert 2"] > 0.35
assert results.loc["+ both", "AUC mixture"] > results.loc["mixture loss alone", "AUC mixture"] + 0.01
print("with both terms the newcomer keeps its weight, learns, and the mixture is better")

# %% tags=["nbval-ignore-output"]
fig = Figure(figsize=(9.5, 3.2), layout="constrained")
left, right = fig.subplots(1, 2)
for (name, path), style, colour in zip(paths.items(), ("-", "--", ":", "-."), sns.color_palette("colorblind"), strict=False):
    left.plot(path, linestyle=style, color=colour, label=name)
left.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
left.set(xlabel="step", ylabel="mean weight of expert 2", ylim=(0, 0.6), title="made-up tensors, mean of three seeds")
left.legend(frameon=False, fontsize=8, ncols=2)
at = np.arange(len(results))
for i, (column, hatch) in enumerate((("AUC expert 1", ""), ("AUC expert 2", "//"), ("AUC mixture", ".."))):
    bars = right.bar(at + 0.27 * (i - 1), results[column], 0.25, hatch=hatch, edgecolor="white", label=column,
                     color=sns.color_palette("colorblind")[i])
    right.bar_label(bars, fmt="%.2f", fontsize=7)
right.set_xticks(at, results.index, fontsize=8)
right.set(ylim=(0.5, 1.12), ylabel="AUC on new data")
right.legend(frameon=False, fontsize=8, ncols=3)
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **What to see.** With the mixture loss alone the router drops the newcomer within some 30 steps, and it stays far behind. The
# balance term holds its *weight* up, the expert losses make it *learn*, whatever its weight is. The package's defaults are
# $\lambda_e = 0.5$ and a small $\lambda_b = 0.01$: a large balance term would forbid the router to prefer the better expert. This
# demonstration is built so that collapse happens; whether it would in a mixture whose experts all start new is not tested here.
#
# ### Exercise 5.2: the gradient that reaches an expert
# ★★★, 20 minutes. Write `expert_gradient(expert_logits, weights, targets)`: the gradient of the mixture's BCE, averaged over
# all films and classes, by each expert's logits. `expert_logits` and `weights` are `(B, K, C)`, `targets` is `(B, C)`; the
# weights count as constants. No autograd: write the formula.
#
# <details><summary>Hint</summary>
# The derivative of the BCE of one number by its logit is p - y. And the loss is a mean: over how many numbers?
# </details>

# %%
def expert_gradient(expert_logits, weights, targets):
    raise NotImplementedError


check("5.2", expert_gradient)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/05_mixture_of_experts.ipynb](solutions/05_mixture_of_experts.ipynb).
#
# ```python
# def expert_gradient(expert_logits, weights, targets):
#     p = (weights * expert_logits).sum(dim=1).sigmoid()
#     return weights * (p - targets)[:, None] / targets.numel()
# ```
# </details>

# %% [markdown]
# ## 6. The trained mixture against its single experts
#
# Now the real thing: both experts, their queries and the router, trained together from the start, with the settings of the
# single ones.

# %% alt="training curves of the mixture on PhantomCXR (synthetic): training loss and mean validation AUC by epoch, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
mixture = MedBridge(experts, benchmark.labels, sampler=sampler)
history = trained(mixture)
plots.training_curves(history.rows, history.best_epoch, f"mixture of {' and '.join(names)} on {benchmark.name}")

# %%
found = scored(mixture, test)
np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)
np.testing.assert_allclose(sigmoid((found.weights * found.expert_logits).sum(axis=1)), found.probabilities, atol=1e-5)
router_numbers = sum(p.numel() for p in mixture.router.parameters())
print(f"the router has {router_numbers:,} of {sum(p.numel() for p in mixture.trainable().values()):,} trained numbers")

# %% alt="dots with 95 % paired intervals: mean test AUC of the trained mixture minus each expert alone, their uniform average and equal weights, synthetic test films; a line marks zero" tags=["nbval-ignore-output"]
rivals = {**{f"{name} alone": p.probabilities for name, p in zip(names, alone, strict=True)},
          "uniform average of the two alone": uniform,
          "its own experts, equal weights": sigmoid(found.expert_logits.mean(axis=1))}
fig = Figure(figsize=(7.5, 2.6), layout="constrained")
ax = fig.subplots()
ax.axvline(0, color="0.5", linewidth=0.9)
print("mean test AUC: mixture minus ...")
for at, (name, rival) in enumerate(rivals.items()):
    d, verdict = compare(found.probabilities, rival)
    print(f"{name:<33} {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]  {verdict}")
    ax.plot([d.lo, d.hi], [at, at], color=BLUE, linewidth=1.5)
    ax.plot(d.diff, at, "o", color=BLUE)
ax.set_yticks(range(len(rivals)), rivals)
ax.invert_yaxis()
ax.set(xlabel="mean test AUC, trained mixture minus this (95 % paired interval)",
       title=f"{len(test)} synthetic test films, one training seed")
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **How to read it.** The printed sentences are the result. Where an interval holds zero, these films do not show that the mixture
# differs, in either direction. With 265 training films and ten epochs (the default takes up to 24 for so few), that is what to
# expect: the second expert adds little, and the router has little to learn from. Against the *weaker* expert a mixture is an insurance: you
# need not know beforehand which one it is. `medbridge ablate` compares them with more films and seeds (notebook 10).
#
# ### What did the router learn?

# %% alt="table of the router's weights on synthetic test films, expert by label: mean and standard deviation" tags=["nbval-ignore-output"]
plots.router_weights(found.weights, names, test.labels, "router weights on synthetic test films: mean ± standard deviation")

# %% tags=["nbval-ignore-output"]
between = found.weights[:, 0].mean(axis=0).std()
within = found.weights[:, 0].std(axis=0).mean()
print(f"weight of {names[0]}: differs by {between:.2f} between findings, and by {within:.2f} between films (standard deviations)")

# %% [markdown]
# **What to see.** If the first number is much larger than the second, the router has learned which expert to trust for which
# *finding*, and hardly looks at the film. A weight does not measure quality by itself: an expert with small logits may get a
# large weight only to make it heard.
#
# **Be the router** (needs a running kernel): one weight for all films. Where is the best place, and is it the same for each
# finding? (These are *validation* films: whoever chooses a weight on test films has tuned on the test.)

# %% tags=["nbval-ignore-output"]
val = benchmark.split("val")
val_y, _ = val.targets()
val_z = np.concatenate([scored(single, val).expert_logits for single in singles], axis=1)
grid = np.linspace(0, 1, 41)
curves = np.stack([auc(val_y, w * val_z[:, 0] + (1 - w) * val_z[:, 1]) for w in grid])  # (weights, findings)


def be_the_router(weight=0.5, finding="mean"):
    curve = curves.mean(axis=1) if finding == "mean" else curves[:, val.labels.index(finding)]
    fig = Figure(figsize=(6.5, 3), layout="constrained")
    ax = fig.subplots()
    ax.plot(grid, curve, color=BLUE)
    at = int(np.abs(grid - weight).argmin())
    ax.plot(grid[at], curve[at], "D", color=ORANGE, markersize=8)
    ax.annotate(f"{curve[at]:.2f}", (grid[at], curve[at]), xytext=(8, 6), textcoords="offset points")
    ax.set(xlabel=f"weight of {names[0]} (the rest goes to {names[1]})", ylabel="AUC",
           title=f"{finding}: {len(val)} synthetic validation films", ylim=(curve.min() - 0.05, curve.max() + 0.05))
    ax.spines[["top", "right"]].set_visible(False)
    return fig


widgets.explore(be_the_router, weight=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.025, description="weight"),
                finding=ipywidgets.Dropdown(options=["mean", *val.labels], description="finding"))

# %% [markdown]
# The same for readers without a kernel, for the mean:

# %% alt="mean validation AUC of the mixture as the weight of one expert goes from 0 to 1, synthetic validation films; a diamond marks the weight that is set" tags=["nbval-ignore-output"]
be_the_router()

# %% [markdown]
# ## 7. Add an expert, drop an expert
#
# Since experts share no space, one can be added later without touching the others. `with_expert` makes a new model: the old
# branches keep every weight, the newcomer gets about $1/K$ from the router, and its branch is untrained. Only its maps need a
# basis before they can be read (notebook 04), fitted to training films; no label is looked at.

# %%
newcomer = with_expert(mixture, "tiny-vit")
cache.fit_bases(benchmark.split("train"), list(newcomer.experts), newcomer.bases, sampler)  # the old experts have theirs already
few = cache.of(newcomer, test.take(np.arange(16)))
batch = collate([few[i] for i in range(len(few))])
two = cache.of(mixture, test.take(np.arange(16)))
with torch.inference_mode():
    three_of_them, two_of_them = newcomer(batch), mixture(collate([two[i] for i in range(len(two))]))
torch.testing.assert_close(three_of_them.expert_logits[:, :2], two_of_them.expert_logits)  # the old ones say what they said
ratios = [out.weights[:, 0] / out.weights[:, 1] for out in (three_of_them, two_of_them)]
torch.testing.assert_close(*ratios, rtol=1e-3, atol=1e-3)  # in the old proportions
assert (three_of_them.weights[:, 2] - 1 / 3).abs().max() < 0.1
again = without_expert(newcomer, "tiny-vit")
for (name, p), old in zip(again.trainable().items(), mixture.trainable().values(), strict=True):
    assert torch.equal(p, old), name
print("added: old scores and old proportions as before; dropped again: the first mixture, bit by bit")

# %% [markdown]
# What is an untrained newcomer worth? It has learned nothing, and it gets a third of the weight. Its scores are a random reading of its
# maps. So we start it three times, from different seeds. (The full profile trains the mixture of three before it looks, once.)

# %% tags=["nbval-ignore-output"]
starts = [newcomer] if full_profile() else [newcomer, *(with_expert(mixture, "tiny-vit", seed=seed) for seed in (1, 2))]
if full_profile():
    trained(newcomer)
for seed, three in enumerate(starts):
    three.take_bases(newcomer.bases)
    d, verdict = compare(scored(three, test).probabilities, found.probabilities)
    print(f"mean test AUC, three experts ({'trained' if full_profile() else f'the third untrained, seed {seed}'}) minus two: "
          f"{d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]  {verdict}")

# %% [markdown]
# **How to read it.** The interval speaks of other films, and knows nothing of other seeds. In the stored output one start of three is
# better beyond its interval, and the other two are not. That is luck of the start: no single line says what a newcomer is worth.
#
# Dropping is not always so clean. Drop an expert that the router was *trained* with, and the router's hidden layer misses what
# it had read from that expert's queries.

# %%
smaller = without_expert(mixture, names[1])
one = cache.of(smaller, test.take(np.arange(16)))
with torch.inference_mode():
    left_over = smaller(collate([one[i] for i in range(len(one))]))
torch.testing.assert_close(left_over.expert_logits[:, 0], two_of_them.expert_logits[:, 0])
assert torch.equal(left_over.weights, torch.ones_like(left_over.weights))
print("one expert left: it gets all the weight, and says what it said in the mixture")

# %% [markdown]
# ### Exercise 5.3: drop an expert at inference
# ★☆☆, 10 minutes. There is a simpler way when an expert is missing for a moment (its machine is down): compute the router as
# always and share the missing expert's weight among the others in their proportions. Write `drop(weights, k)`: `(B, K, C)` ->
# `(B, K - 1, C)`. With `top_k=1` the missing expert may have had *all* the weight; then the others share equally.
#
# <details><summary>Hint</summary>
# Leave expert k out, then divide by the sum of what is left. Where that sum is zero, use 1 / (K - 1).
# </details>

# %%
def drop(weights, k):
    raise NotImplementedError


check("5.3", drop)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/05_mixture_of_experts.ipynb](solutions/05_mixture_of_experts.ipynb).
#
# ```python
# def drop(weights, k):
#     rest = torch.cat([weights[:, :k], weights[:, k + 1 :]], dim=1)
#     total = rest.sum(dim=1, keepdim=True)
#     return torch.where(total > 0, rest / total, 1 / rest.shape[1])
# ```
# </details>

# %% [markdown]
# ## Summary
#
# - A mixture gains where its experts fail on different films. Measure it: pairs that only one of them gets wrong.
# - Experts need no shared space, because scores are mixed, not tokens. The uniform average is the first thing to beat.
# - The router is a small network over the pooled queries; weights for film and class; it starts uniform.
# - An expert's gradient is scaled by its weight, so a router can starve it. A loss on each expert's own scores and a balance
#   term prevent that.
# - With `top_k=1` the router gets no gradient.
# - A paired interval tells whether the mixture beats its experts. Where it holds zero, nothing is shown.
#
# Next: [06 Assembling and training](06_assembling_and_training.ipynb): losses, schedules, checkpoints.
