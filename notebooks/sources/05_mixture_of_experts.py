# %% [markdown]
# # 05 Mixture of Experts
#
# {{COLAB}}
#
# **What you will build:** the third part of MedBridge: several frozen experts, and a *router* that decides
# how much each one counts. You measure whether two experts fail on the same films, average them, and write
# the router from scratch. You watch a router collapse and see what prevents it. Then you train a mixture, and
# add and drop an expert.
#
# - **Prerequisites:** notebook [04](04_query_encoder.ipynb); PyTorch tensors.
# - **Time:** about {{READING}} minutes to read and solve; about two minutes of computing on two CPU cores the
#   first time, about one on a Colab T4 (an estimate).
# - **Module:** `medbridge/moe.py` · **test:** `tests/test_moe.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), "Mixture of Experts".
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
from torch import nn

from medbridge import FeatureCache, FocalSampler, MedBridge, TrainConfig, create_expert, fit, load_benchmark
from medbridge.course import check, full_profile, seed_everything
from medbridge.metrics.evaluate import auc
from medbridge.predict import predict
from medbridge.viz import charts, plots

rng = seed_everything(0)

# %% [markdown]
# ## 1. Why several experts? Because they fail on different films
#
# Two models beat one only where they differ. We take two frozen experts with the same tower and different
# pre-training: `tiny-resnet` saw textures, `tiny-resnet-scenes` saw scenes of shapes. We give each its own
# queries (notebook 04) and train it *alone*.

# %% tags=["nbval-ignore-output"]
names = ["tiny-resnet", "tiny-resnet-scenes"]
experts = [create_expert(name) for name in names]
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 450)
sampler = FocalSampler(crop=0.5, overlap=0.0, extra=0)  # the whole film and four windows
settings = TrainConfig(epochs=30 if full_profile() else 10)
singles = [MedBridge([expert], benchmark.labels, sampler=sampler) for expert in experts]
cache = FeatureCache(progress=False)

# %% tags=["nbval-ignore-output"]
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
# When does an expert *fail*? A probability is neither right nor wrong. But take a **pair**, one film with the
# finding and one without. An expert fails on it where the film without gets the higher score. The share of
# such pairs is $1 - \mathrm{AUC}$ (notebook 02). Let $e_1, e_2$ be 1 where each expert fails on a pair, else
# 0. Their correlation over all pairs is the **error correlation**: 1 where the experts fail on the same
# pairs, 0 where their failures are unrelated.

# %%
def failed_pairs(y, scores):
    """y (n,) of 0 and 1, scores (n,) -> (positives, negatives): 1 where the pair is in the wrong order, one half for a tie."""
    difference = scores[y == 1][:, None] - scores[y == 0][None, :]
    return (difference < 0) + 0.5 * (difference == 0)


# %%
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
shares = failures[["both", "only the first", "only the second"]]
charts.bar_chart(shares.set_axis([f"{label}\nr = {r:.2f}" for label, r in failures["correlation"].items()]), stacked=True, width=8.5,
                 title=f"Pairs of synthetic test films on which {names[0]} (the first) or {names[1]} fails", ylabel="share of pairs")

# %% [markdown]
# **What to see.** Where hatched bars are large, one expert is right where the other fails, and a mixture has
# something to gain. Where "both" is nearly everything, no fixed weighting of these two can help.
#
# ### What an average gains, in theory
#
# Let each expert's score be the truth plus noise, with standard deviation 1 within each class and class means
# $d'$ apart. Then $\mathrm{AUC} = \Phi(d'/\sqrt2)$. If the noises of two such experts correlate with $\rho$,
# their mean score has noise variance $(1 + \rho)/2$, so
#
# $$\mathrm{AUC}_{\text{mean}} = \Phi\!\left(\frac{d'}{\sqrt 2}\sqrt{\frac{2}{1 + \rho}}\right).$$
#
# A simulation checks the formula. At $\rho = 1$ the two are copies of one expert.

# %%
from scipy.stats import norm


def auc_of_mean(single, rho):
    return norm.cdf(norm.ppf(single) * np.sqrt(2 / (1 + rho)))


truth = np.arange(40_000) % 2
for rho in (-0.3, 0.0, 0.5, 0.9):
    noise = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], len(truth))
    shift = np.sqrt(2) * norm.ppf(0.75)
    simulated = auc(truth, (truth[:, None] * shift + noise).mean(axis=1))[0]
    np.testing.assert_allclose(simulated, auc_of_mean(0.75, rho), atol=0.01)
    print(f"two experts of AUC 0.75 with rho = {rho:+.1f}: their mean has AUC {auc_of_mean(0.75, rho):.2f}")

# %% alt="AUC of the mean of two equal experts against the correlation of their noise, for single AUCs of 0.85, 0.75 and 0.65; each curve falls to the single AUC at a correlation of 1" tags=["nbval-ignore-output"]
r = np.linspace(-0.5, 1, 100)
charts.curves({"What averaging two equal experts gains (theory)": {f"each alone {single:.2f}": (r, auc_of_mean(single, r))
                                                                   for single in (0.85, 0.75, 0.65)}},
              size=(5.6, 3.2), xlabel="correlation of the two experts' noise", ylabel="AUC of their mean")

# %% [markdown]
# ### Exercise 5.1: the best weight
# ★★☆, 15 minutes. Expert 1 has noise of standard deviation $s_1$, expert 2 of $s_2$, the correlation is
# $\rho$, and both scores have the same class means. Which weight $g$ of expert 1 (and $1 - g$ of expert 2)
# makes the noise of the weighted mean least? Write `best_weight(s1, s2, rho)`; a weight lies in [0, 1].
#
# <details><summary>Hint</summary>
# The variance is g² s1² + (1 - g)² s2² + 2 g (1 - g) rho s1 s2. Set its derivative to zero. What if the
# solution is above 1?
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
# ### Uniform average first
#
# The simplest mixture gives each expert the same weight: $s_c = \frac1K \sum_k s_{kc}$. It learns nothing, so
# nothing can go wrong in learning. Every cleverer mixture has to beat it.

# %% tags=["nbval-ignore-output"]
from medbridge import paired_difference


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
from medbridge.moe import Router, balance_loss

pooled = [torch.randn(len(z), 64), torch.randn(len(z), 64)]  # a uniform router does not look at them
g = Router([64, 64], len(test.labels), "uniform")(pooled).numpy()
np.testing.assert_allclose((g * z).sum(axis=1), z.mean(axis=1), atol=1e-6)
print("Router(kind='uniform') is the average of the logits")

# %% [markdown]
#
# ### No shared space is needed
#
# We cannot add the experts' tokens, because widths and grids differ. **[abstract]** The experts need no
# shared space. **[ours]** We mix their *scores*, and each expert makes its score in its own space. Here is
# the proof for one expert: turn its whole text space by a random rotation $O$, prompts and projected queries
# alike. Every coordinate changes, and no score does, since $(Oz) \cdot (Ot) = z \cdot t$.

# %%
import copy

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
# ## 2. The router
#
# A fixed weight treats all films alike. But one expert may be good at one finding. **[abstract]** The pooled
# queries $\bar q_1, \dots, \bar q_K$ of the film drive the router:
#
# $$g = \operatorname{softmax}_k\, \mathrm{router}([\bar q_1; \dots; \bar q_K]),
# \qquad s_c = \sum_k g_{kc}\, s_{kc}$$
#
# The router is a small network over the queries side by side, so widths may differ. **[ours]** The equation,
# and a weight per expert *and class* (`kind="class"`); `kind="image"` gives one weight per expert for all
# classes. We measured it on synthetic films, with an earlier form of the method: uniform weights instead of
# learned ones changed the AUC by +0.001 [-0.006, +0.008]
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


# %%
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
# **[ours]** The router's last layer starts at zero, so every weight starts at $1/K$. With random numbers an
# expert would begin with more weight by accident, and would learn faster *because of that accident* (section
# 3).

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
# Take two made-up experts, plain tensors and no films. Expert 1 knows class 1 and is noise on class 2; expert
# 2 the other way round. One weight per expert cannot express that.

# %%
from medbridge.losses import masked_bce


def two_experts(n=2000):
    """Labels (n, 2), scores (n, 2, 2) of two made-up experts, and what the router sees of each, noise."""
    made = torch.Generator().manual_seed(0)
    targets = (torch.rand(n, 2, generator=made) < 0.5).float()
    noise = torch.randn(n, 2, 2, generator=made)
    knows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # (K, C)
    return targets, 3 * knows * (2 * targets[:, None] - 1) + noise, [torch.randn(n, 4, generator=made) for _ in range(2)]


# %%
def train_router(kind, steps=200):
    """Loss at the end, and the mean weights (K, C)."""
    targets, scores, seen = two_experts()
    torch.manual_seed(0)
    router = Router([4, 4], 2, kind)
    optimizer = torch.optim.AdamW(router.parameters(), lr=0.01)
    for _ in range(steps):
        loss = masked_bce((router(seen) * scores).sum(1), targets, torch.ones_like(targets, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach()), router(seen).mean(0).detach()


# %%
film_only, film_and_class = train_router("image"), train_router("class")
assert film_and_class[0] < 0.7 * film_only[0]
assert film_and_class[1][0, 0] > 0.8 and film_and_class[1][1, 1] > 0.8  # each class found its expert
assert (film_only[1] - 0.5).abs().max() < 0.1  # a weight for the film can only stay in the middle
print(f"loss with a weight for the film {film_only[0]:.2f}, with a weight for film and class {film_and_class[0]:.2f}")

# %% [markdown]
# ### Top-k
#
# With many experts one may keep the $k$ strongest and leave the others out of the softmax. In language models
# this saves running the others. Here it does not, because the router reads the queries of *all* experts.

# %%
def my_top_k(scores, k):
    """Router scores (B, K, C) -> weights, of which k per film and class are not zero."""
    threshold = scores.sort(dim=1, descending=True).values[:, k - 1 : k]
    return scores.masked_fill(scores < threshold, -torch.inf).softmax(dim=1)


# %%
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
# **Beware of $k = 1$.** The one weight that is left is always 1, so the router gets no gradient and keeps the
# same expert for good. Train with all experts (the default) or with $k \ge 2$.
#
# ## 3. Collapse, and what prevents it
#
# A router may fall into the habit of using one expert only. The **balance term** punishes unequal *mean* use.
# With the load $\ell_k = \operatorname{mean}_{b,c}\, g_{bkc}$ it is the squared coefficient of variation
# (Shazeer et al., 2017):
#
# $$L_{\text{balance}} = \frac{\operatorname{var}_k(\ell)}{\operatorname{mean}_k(\ell)^2}$$

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
# Why would a router need it? The gradient that reaches expert $k$ through the mixture carries its weight as a
# factor:
#
# $$\frac{\partial L}{\partial s_{kc}} = g_{kc}\, \frac{\partial L}{\partial s_c}$$
#
# So an expert that is behind gets less weight, with less weight it learns less, and then it is further
# behind: **collapse**. There are two remedies **[ours]**:
#
# - a loss on **each expert's own** scores, which bypasses the weights ($\lambda_e$,
#   `TrainConfig.expert_loss`);
# - the **balance term** ($\lambda_b$, `TrainConfig.balance`).
#
# $$L = \mathrm{BCE}(s) + \lambda_e\, \frac1K \sum_k \mathrm{BCE}(s_k) + \lambda_b\, L_{\text{balance}}$$
#
# We demonstrate it with made-up tensors. Both experts hold the same amount of evidence about a label, with
# independent noise. For expert 1 it is one plain number. For expert 2 it is hidden: whether two numbers have
# the *same sign*. Expert 1 has been trained before; expert 2 is new. We train all four combinations, three
# seeds each.

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


# %%
class Pair(nn.Module):
    """Two readers with a head each, and a router: (n, 8) of each -> mixture (n, 1), own (n, 2, 1), weights (n, 2, 1)."""

    def __init__(self):
        super().__init__()
        self.readers = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.GELU()) for _ in range(2))
        self.heads = nn.ModuleList(nn.Linear(16, 1) for _ in range(2))
        self.router = Router([16, 16], 1)

    def forward(self, x):
        q = [reader(v) for reader, v in zip(self.readers, x, strict=True)]
        own, weights = torch.stack([head(v) for head, v in zip(self.heads, q, strict=True)], dim=1), self.router(q)
        return (weights * own).sum(1), own, weights


def descend(parameters, loss, steps):
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


# %%
def train_pair(expert_loss, balance, seed):
    """Weight of expert 2 after each step; then AUC of expert 1, expert 2 and the mixture on new data."""
    torch.manual_seed(seed)
    pair, (x, targets), (new_x, new_targets), weight = Pair(), made_up(1024, seed + 100), made_up(4096, seed + 900), []
    known = torch.ones_like(targets, dtype=torch.bool)

    def loss():
        mixed, own, weights = pair(x)
        weight.append(float(weights[:, 1].detach().mean()))
        each = torch.stack([masked_bce(s, targets, known) for s in own.unbind(1)]).mean()
        return masked_bce(mixed, targets, known) + balance * balance_loss(weights) + expert_loss * each

    first = [*pair.readers[0].parameters(), *pair.heads[0].parameters()]
    descend(first, lambda: masked_bce(pair(x)[1][:, 0], targets, known), 200)  # the head start of expert 1
    descend(pair.parameters(), loss, 150)
    with torch.inference_mode():
        mixed, own, _ = pair(new_x)
    return weight, [float(auc(new_targets.numpy(), s.numpy())[0]) for s in (own[:, 0], own[:, 1], mixed)]


# %%
variants = {"mixture loss alone": (0, 0), "+ balance": (0, 0.5), "+ expert losses": (0.5, 0), "+ both": (0.5, 0.5)}
paths, results = {}, {}
for name, (expert_loss, balance) in variants.items():
    runs = [train_pair(expert_loss, balance, seed) for seed in range(3)]
    paths[name] = np.mean([path for path, _ in runs], axis=0)
    results[name] = np.mean([aucs for _, aucs in runs], axis=0)
results = pd.DataFrame(results, index=["AUC expert 1", "AUC expert 2", "AUC mixture"]).T

# %%
assert paths["mixture loss alone"].min() < 0.15  # the router turns away from the newcomer ...
assert results.loc["mixture loss alone", "AUC expert 2"] < results.loc["+ both", "AUC expert 2"] - 0.1  # ... which hardly learns
assert paths["+ both"].min() > 0.35
assert results.loc["+ both", "AUC mixture"] > results.loc["mixture loss alone", "AUC mixture"] + 0.01
print("with both terms the newcomer keeps its weight, learns, and the mixture is better")

# %% alt="weight of the new expert over 150 steps: it falls towards zero with the mixture loss alone, and stays near one half with the balance term" tags=["nbval-ignore-output"]
charts.curves({"made-up tensors, mean of three seeds": {name: (range(150), path) for name, path in paths.items()}}, size=(6, 3),
              level={"": 0.5}, xlabel="step", ylabel="mean weight of expert 2", ylim=(0, 0.6))

# %% alt="bars of the AUC on new data of expert 1, expert 2 and their mixture, for the four combinations of losses; expert 2 is far behind unless the expert losses are added" tags=["nbval-ignore-output"]
charts.bar_chart(results, "made-up tensors, mean of three seeds", width=7, ylabel="AUC on new data", ylim=(0.5, 1.12))

# %% [markdown]
# **What to see.** With the mixture loss alone the router drops the newcomer within some 30 steps, and it
# stays far behind. The balance term holds its *weight* up; the expert losses make it *learn*. The defaults
# are $\lambda_e = 0.5$ and a small $\lambda_b = 0.01$, since a large balance term would forbid the router to
# prefer the better expert. We built this demonstration so that collapse happens. We did not measure whether
# it would in a mixture whose experts all start new.
#
# ### Exercise 5.2: the gradient that reaches an expert
# ★★★, 20 minutes. Write `expert_gradient(expert_logits, weights, targets)`: the gradient of the mixture's
# BCE, averaged over all films and classes, with respect to each expert's logits. `expert_logits` and
# `weights` are `(B, K, C)`, `targets` is `(B, C)`; the weights count as constants. No autograd: write the
# formula.
#
# <details><summary>Hint</summary>
# The derivative of one BCE with respect to its logit is p - y. And the loss is a mean: over how many numbers?
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
# ## 4. The trained mixture against its single experts
#
# Now we train both experts' queries and the router together from the start, with the settings of the single
# ones.

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
rows = {}
print("mean test AUC: mixture minus ...")
for name, rival in rivals.items():
    d, verdict = compare(found.probabilities, rival)
    rows[name] = d.diff, d.lo, d.hi
    print(f"{name:<33} {d.diff:+.3f} [{d.lo:+.3f}, {d.hi:+.3f}]  {verdict}")
charts.points({"": pd.DataFrame(rows, index=["diff", "lo", "hi"]).T}, level={"": 0},
              title=f"{len(test)} synthetic test films, one training seed",
              xlabel="mean test AUC, trained mixture minus this (95 % paired interval)")

# %% [markdown]
# **How to read it.** The printed sentences are the result. Where an interval holds zero, these films do not
# show that the mixture differs. With 265 training films and ten epochs that is what to expect: the second
# expert adds little, and the router has little to learn from. Against the *weaker* expert a mixture is an
# insurance, because you need not know beforehand which one it is. Notebook 10 compares them with more films
# and seeds.
#
# ### What did the router learn?

# %% alt="table of the router's weights on synthetic test films, expert by label: mean and standard deviation" tags=["nbval-ignore-output"]
plots.router_weights(found.weights, names, test.labels, "router weights on synthetic test films: mean ± standard deviation")

# %% tags=["nbval-ignore-output"]
between = found.weights[:, 0].mean(axis=0).std()
within = found.weights[:, 0].std(axis=0).mean()
print(f"weight of {names[0]}: differs by {between:.2f} between findings, and by {within:.2f} between films (standard deviations)")

# %% [markdown]
# **What to see.** If the first number is much larger than the second, the router has learned which expert to
# trust for which *finding*, and hardly looks at the film. A weight does not measure quality: an expert with
# small logits may get a large weight only to be heard.
#
# **Be the router** (needs a running kernel): one weight for all films. Where is the best place, and is it the
# same for each finding? (These are *validation* films, because a weight chosen on test films is tuned on the
# test.)

# %% tags=["nbval-ignore-output"]
val = benchmark.split("val")
val_y, _ = val.targets()
val_z = np.concatenate([scored(single, val).expert_logits for single in singles], axis=1)
grid = np.linspace(0, 1, 41)
curves = np.stack([auc(val_y, w * val_z[:, 0] + (1 - w) * val_z[:, 1]) for w in grid])  # (weights, findings)

# %%
def be_the_router(weight=0.5, finding="mean"):
    curve, at = curves.mean(axis=1) if finding == "mean" else curves[:, val.labels.index(finding)], int(np.abs(grid - weight).argmin())
    fig = charts.curves({f"{finding}: {len(val)} synthetic validation films": {"": (grid, curve)}}, size=(6.5, 3), ylabel="AUC",
                        xlabel=f"weight of {names[0]} (the rest goes to {names[1]})", ylim=(curve.min() - 0.05, curve.max() + 0.05))
    fig.axes[0].plot(grid[at], curve[at], "D", color="tab:orange", markersize=8)
    fig.axes[0].annotate(f"{curve[at]:.2f}", (grid[at], curve[at]), xytext=(8, 6), textcoords="offset points")
    return fig


# %% tags=["nbval-ignore-output"]
import ipywidgets

from medbridge.viz import widgets

widgets.explore(be_the_router, weight=ipywidgets.FloatSlider(0.5, min=0, max=1, step=0.025, description="weight"),
                finding=ipywidgets.Dropdown(options=["mean", *val.labels], description="finding"))

# %% [markdown]
# Without a kernel, the mean:

# %% alt="mean validation AUC of the mixture as the weight of one expert goes from 0 to 1, synthetic validation films; a diamond marks the weight that is set" tags=["nbval-ignore-output"]
be_the_router()

# %% [markdown]
# ## 5. Add an expert, drop an expert
#
# Since experts share no space, we can add one later without touching the others. `with_expert` makes a new
# model. The old branches keep every weight, and the newcomer gets about $1/K$ from the router. Its branch is
# untrained, and only its maps need a basis (notebook 04).

# %%
from medbridge.extras.mixture_edit import with_expert, without_expert
from medbridge.features.batch import collate

newcomer = with_expert(mixture, "tiny-vit")
cache.fit_bases(benchmark.split("train"), list(newcomer.experts), newcomer.bases, sampler)  # the old experts have theirs already
few = cache.of(newcomer, test.take(np.arange(16)))
batch = collate([few[i] for i in range(len(few))])
two = cache.of(mixture, test.take(np.arange(16)))
with torch.inference_mode():
    three_of_them, two_of_them = newcomer(batch), mixture(collate([two[i] for i in range(len(two))]))

# %%
torch.testing.assert_close(three_of_them.expert_logits[:, :2], two_of_them.expert_logits)  # the old ones say what they said
ratios = [out.weights[:, 0] / out.weights[:, 1] for out in (three_of_them, two_of_them)]
torch.testing.assert_close(*ratios, rtol=1e-3, atol=1e-3)  # in the old proportions
assert (three_of_them.weights[:, 2] - 1 / 3).abs().max() < 0.1
again = without_expert(newcomer, "tiny-vit")
for (name, p), old in zip(again.trainable().items(), mixture.trainable().values(), strict=True):
    assert torch.equal(p, old), name
print("added: old scores and old proportions as before; dropped again: the first mixture, bit by bit")

# %% [markdown]
# What is an untrained newcomer worth? It gets a third of the weight, and its scores are a random reading of
# its maps. So we start it three times, from different seeds. (The full profile trains the mixture of three
# first.)

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
# **How to read it.** The interval speaks of other films, not of other seeds. In the stored output one start
# of three is better beyond its interval, and the other two are not. That is luck of the start.
#
# Dropping is not always so clean. Without an expert that it was *trained* with, the router's hidden layer
# misses what it read from that expert's queries.

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
# ★☆☆, 10 minutes. When an expert is missing for a moment, there is a simpler way: compute the router as
# always, and share the missing expert's weight among the others in their proportions. Write
# `drop(weights, k)`: `(B, K, C)` -> `(B, K - 1, C)`. With `top_k=1` the missing expert may have had *all* the
# weight; then the others share equally.
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
# - A mixture gains where its experts fail on different films. Measure it: pairs that only one of them gets
#   wrong.
# - Experts need no shared space, because scores are mixed, not tokens. The uniform average is the first thing
#   to beat.
# - The router is a small network over the pooled queries. It starts uniform.
# - An expert's gradient is scaled by its weight, so a router can starve it. A loss on each expert's own
#   scores and a balance term prevent that.
# - With `top_k=1` the router gets no gradient.
# - A paired interval tells whether the mixture beats its experts. Where it holds zero, nothing is shown.
#
# Next: [06 Assembling and training](06_assembling_and_training.ipynb): losses, schedules, checkpoints.
