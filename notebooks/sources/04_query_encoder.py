# %% [markdown]
# # 04 Query Encoder
#
# {{COLAB}}
#
# **What you will build:** the second part of MedBridge: a few learnable *queries* that read the maps of a frozen expert. You
# write the compact maps that they read, the attention, then the whole layer, the attention across views and the class scores.
# Each piece is asserted equal to the package's own, with trained weights. You count what it costs, show that the queries never touch the
# frozen model, train them on cached features, and compare with a linear probe on the same views.
#
# - **Prerequisites:** notebook [03](03_focal_sampling.ipynb); attention as in a first course on transformers; PyTorch tensors.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores the first time, less afterwards. On
#   a Colab T4 about one minute (an estimate).
# - **Module:** `medbridge/qencoder.py` · **test:** `tests/test_qencoder.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), "Query Encoder". [Notebook 00](00_start_here.ipynb) explains the marks
#   **[abstract]**, **[summary]** and **[ours]**.
#
# For research and education, not for clinical use. Every film in this notebook is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from medbridge import (
    FeatureCache,
    FocalSampler,
    MedBridge,
    TrainConfig,
    create_expert,
    fit,
    focal,
    load_adapter,
    load_benchmark,
    paired_difference,
)
from medbridge.baselines import LinearProbe
from medbridge.course import check, full_profile, seed_everything
from medbridge.crossview import CrossView
from medbridge.data.phantom.benchmark import make_film
from medbridge.explain.attention import explain
from medbridge.features.compact import MapBasis, MapFormat, as_numbers
from medbridge.predict import predict
from medbridge.qencoder import QueryEncoder, QueryLayer
from medbridge.viz import plots
from medbridge.viz.widgets import explore_attention

rng = seed_everything(0)
vit = create_expert("tiny-vit")  # a vision transformer, to see tokens and blocks
resnet = create_expert("tiny-resnet")  # a convolutional tower: the expert that is adapted below
adapter = load_adapter("../data/quickstart")  # from the repository
trained = adapter.branches[0]  # its trained queries for tiny-resnet

# %% [markdown]
# ## 1. What is a frozen feature map?
#
# A vision tower is a chain of $T$ blocks (a transformer's blocks, or the stages of a convolutional network). After each block
# the view is a **map**: a grid of vectors, one for each piece of the picture. Written as a list it is a matrix of **tokens**
#
# $$X \in \mathbb{R}^{P \times d}, \qquad P = \text{rows} \times \text{columns} \;(+\ \text{prefix}),$$
#
# with $d$ the width. A vision transformer puts a prefix token before the patches, called CLS. "Frozen" means that no weight
# of the tower ever changes.

# %%
rows = []
for e in (vit, resnet):
    for depth, ((r, c), d) in enumerate(zip(e.grids, e.widths, strict=True), start=1):
        rows.append((e.name, depth, f"{r} x {c}", e.prefix, e.prefix + r * c, d))
print(pd.DataFrame(rows, columns=["expert", "after block", "grid", "prefix", "tokens P", "width d"]).to_string(index=False))
assert not any(p.requires_grad for e in (vit, resnet) for p in e.parameters())

# %% [markdown]
# The convolutional tower trades places for width: few tokens, many numbers in each. The transformer keeps its grid.
#
# A token has 128 or more numbers, and a picture shows one. So we take the direction along which the tokens of all views
# differ most (the first *principal component*) and paint each token by its place along it. Two views of one synthetic film:
# the whole, and a window.

# %%
example = make_film(11, "A", findings=["Nodule", "Effusion"], subtlety=0)
film = example.image.astype(np.float32) / 255
nodule = np.array(next(box[1:] for box in example.boxes if box[0] == "Nodule"))
sampler = FocalSampler(crop=0.5, overlap=0.0, extra=0)  # the whole film and four windows
boxes = sampler.inference_boxes(*film.shape)
views = focal.extract_views(film, boxes, vit.size)
maps = {e.name: e.encode_maps(e.preprocess(views), range(1, e.depth + 1)).maps for e in (vit, resnet)}


def first_component(tokens):
    """Tokens (V, P, d) -> (V, P): place along the direction in which they differ most; the sign is arbitrary."""
    flat = tokens.flatten(0, 1)
    centred = flat - flat.mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return (centred @ direction).unflatten(0, tokens.shape[:2])


spread = first_component(maps["tiny-vit"][6][:, vit.prefix :])
assert abs(float(spread.mean())) < 1e-4  # centred over all tokens of all views

# %% tags=["nbval-ignore-output"]
shown = [("tiny-vit", 1), ("tiny-vit", 3), ("tiny-vit", 6), ("tiny-resnet", 2), ("tiny-resnet", 4), ("tiny-resnet", 5)]
pictured = [0, 1 + int(np.argmax([(x0 <= nodule[0] <= x1) and (y0 <= nodule[1] <= y1) for x0, y0, x1, y1 in boxes[1:]]))]
fig = Figure(figsize=(12, 4.1), layout="constrained")
axes = fig.subplots(2, 1 + len(shown))
for row, v in enumerate(pictured):
    axes[row, 0].imshow(views[v], cmap="gray", vmin=0, vmax=1)
    axes[row, 0].set_title("whole film" if v == 0 else f"window {v}", fontsize=9)
for column, (name, depth) in enumerate(shown, start=1):
    e = {"tiny-vit": vit, "tiny-resnet": resnet}[name]
    painted = first_component(maps[name][depth][:, e.prefix :]).unflatten(1, e.grids[depth - 1])
    low, high = np.percentile(painted[pictured], [2, 98])
    for row, v in enumerate(pictured):
        axes[row, column].imshow(painted[v], cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
        axes[row, column].set_title(f"{name}, block {depth}", fontsize=9)
for ax in axes.ravel():
    ax.set_axis_off()
fig.suptitle("First principal component of the frozen tokens (synthetic film); dark to bright is an arbitrary sign", fontsize=11)
fig

# %% [markdown]
# **What to see.** Nobody told these experts what a lung is. Yet the early map of the convolutional tower draws the rims of
# lungs and ribs, and even the coarse maps keep body, lungs and background apart. Later maps are coarser, and richer than one
# component can show. *Where* something lies is still in them, as the place of a token.
#
# ## 2. Why a query, and not the mean or CLS?
#
# A classifier needs one vector per film, not $P$. The usual ways:
#
# - **mean pooling**: $\bar x = \frac1P \sum_p x_p$. A nodule in one of 64 patches counts for 1/64 of the mean.
# - **CLS**: the token that the tower itself uses as summary. What it gathers was fixed in pre-training.
#
# Both gather *the same* for every question. Measure it: as in notebook 03 we draw each film twice, with a nodule and without,
# all else equal. How far does each vector move, compared with how far two different films are apart?
#
# $$\text{signal} = \frac{\operatorname{mean}_i \lVert f(\text{film}_i + \text{nodule}) - f(\text{film}_i) \rVert}
# {\operatorname{mean}_{i \ne j} \lVert f(\text{film}_i) - f(\text{film}_j) \rVert}$$

# %%
pairs = [(make_film(seed, "A", findings=["Nodule"], subtlety=0), make_film(seed, "A", findings=[]))
         for seed in range(48 if full_profile() else 12)]
whole = [torch.cat([focal.extract_views(f.image.astype(np.float32) / 255, focal.whole_box(1024, 1024)[None], vit.size)
                    for f in side]) for side in zip(*pairs, strict=True)]
with_nodule, without = (vit.encode_maps(vit.preprocess(v), [vit.depth]).maps[vit.depth] for v in whole)
side = vit.grids[-1][0]
under = [int((y0 + y1) / 2 / 1024 * side) * side + int((x0 + x1) / 2 / 1024 * side)  # the patch under the first nodule
         for _, x0, y0, x1, y1 in (p[0].boxes[0] for p in pairs)]


def apart(a):
    """Mean distance between different rows of (n, d)."""
    return torch.pdist(a).mean()


moved = (with_nodule - without).norm(dim=-1)  # (films, tokens)
patches = without[:, vit.prefix :]
films_i = torch.arange(len(pairs))
signal = {
    "mean of the patches": ((with_nodule - without)[:, vit.prefix :].mean(1).norm(dim=-1).mean() / apart(patches.mean(1))),
    "CLS": moved[:, 0].mean() / apart(without[:, 0]),
    "the token under the nodule": moved[films_i, torch.tensor(under) + vit.prefix].mean()
    / torch.stack([apart(patches[:, p]) for p in under]).mean(),
}
assert signal["the token under the nodule"] > 4 * signal["mean of the patches"]
assert signal["the token under the nodule"] > 4 * signal["CLS"]
for name, value in signal.items():
    print(f"{name:<27} a nodule moves it by {100 * value:4.0f} % of the distance between two films")

# %% [markdown]
# **What to see.** In the token under the nodule the nodule is a large event; in the pooled vectors it is nearly nothing.
# (This small transformer was pre-trained with mean pooling, so its CLS was not even asked to summarise. In CLIP it was, but
# for captions.) The information is there and pooling loses it. A **query** is a learned vector that says which tokens to
# gather: a weighted mean, whose weights depend on what is in the tokens, and which training can aim.
#
# ## 3. Compact maps: what the queries read
#
# A query sees a token through a matrix, $W_k x$. Directions in which all tokens differ much are loud from the first step of
# training, and quiet directions are drowned. Is a nodule loud or quiet? Take tokens of `tiny-resnet` after block 4, standardise
# each channel, and turn them to their principal components, the largest first. What share of all the spread between tokens does
# a component hold, and what share of the step that a nodule makes?

# %%
def principal(tokens):
    """Tokens (n, d) -> mean and scale (d,); directions (d, d), a column each, the largest first; deviation along each (d,)."""
    mean, scale = tokens.mean(0), tokens.std(0)
    z = (tokens - mean) / scale
    variance, v = torch.linalg.eigh(z.T @ z / len(z))  # the smallest first
    v = v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()  # the sign is free: a direction's largest number is positive
    return mean, scale, v.flip(1), variance.flip(0).sqrt()


depth = 4
seen = torch.cat([focal.extract_views(f.image.astype(np.float32) / 255, boxes, resnet.size) for _, f in pairs])
frozen = resnet.encode_maps(resnet.preprocess(seen), [depth])
tokens = frozen.maps[depth].flatten(0, 1).double()
mean, scale, directions, deviation = principal(tokens)
pair = [resnet.encode_maps(resnet.preprocess(v), [depth]).maps[depth] for v in whole]  # with the nodule, and without
step = ((pair[0] - pair[1])[films_i, under] / scale) @ directions  # (films, d), in the token under the nodule
held = pd.DataFrame({"spread between tokens": deviation**2, "step of a nodule": step.square().sum(0)})
held = held / held.sum()
first = held[:8].sum()
assert first["spread between tokens"] > 2 * first["step of a nodule"]
print(f"the first 8 of {len(held)} components hold {100 * first.iloc[0]:.0f} % of the spread between tokens, "
      f"and {100 * first.iloc[1]:.0f} % of the step of a nodule")

# %% alt="two panels for tiny-resnet after block 4 on synthetic films: share of the spread between tokens and of a nodule's step that the first components hold together; deviation of each component before and after it is divided by its own" tags=["nbval-ignore-output"]
fig = Figure(figsize=(9.5, 3), layout="constrained")
left, right = fig.subplots(1, 2)
number = np.arange(1, len(held) + 1)
for name, style, colour in zip(held, ("-", "--"), sns.color_palette("colorblind"), strict=False):
    left.plot(number, held[name].cumsum(), linestyle=style, color=colour, label=name)
left.set(xscale="log", xlabel="components, the largest first", ylabel="share that they hold", ylim=(0, 1))
right.plot(number, deviation, color="0.4", label="as it is")
right.plot(number[:128], np.ones(128), "--", color=sns.color_palette("colorblind")[2], label="compact")
right.set(yscale="log", xlabel="component", ylabel="deviation over all tokens")
for ax in (left, right):
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
fig.suptitle(f"{resnet.name} after block {depth}, synthetic films", fontsize=11)
fig

# %% [markdown]
# **What to see.** A few common components hold most of the spread between tokens. Little of a nodule
# lies in them.
#
# **[ours]** So the queries do not read $X$ itself but a **compact map** $U$, made by four steps:
#
# 1. patches are averaged over the smallest squares that leave at most 64 of them; prefix tokens stay;
# 2. channels are standardised by their mean and scale over tokens;
# 3. the first 128 principal components are kept (the columns of $V$), and each is divided by its own deviation, so that all weigh
#    alike;
# 4. each number is rounded to a byte, in steps of 1/32.
#
# $$u = \frac{x - \text{mean}}{\text{scale}}\; V \,/\, \text{deviation}, \qquad
# \text{stored: } \operatorname{clip}(\operatorname{round}(32\,u),\ -127,\ 127)$$
#
# Mean, scale, $V$ and deviation are the **basis** of one expert and depth. It is fitted to tokens of training films, and looks at no
# label. It belongs to the adapter: films of another hospital are read in the basis of the first.

# %%
def my_pool(x, grid, side):
    """Patches (V, P, d), no prefix -> their means over squares, on a grid that the side divides."""
    return x.unflatten(1, (grid[0] // side, side, grid[1] // side, side)).mean((2, 4)).flatten(1, 2)


def my_compact(x, mean, scale, directions, deviation):
    return (32 * ((x - mean) / scale) @ directions / deviation).round().clamp(-127, 127)


basis = MapBasis(resnet, [depth], MapFormat(components=128, patches=64, bits=8))
basis.fit({depth: tokens}, frozen.summary)
mine = my_compact(frozen.maps[depth], mean, scale, directions[:, :128], deviation[:128])
package = basis(frozen.maps[depth], depth)
assert package.dtype == torch.int8
wrong = (mine - package).abs()
assert wrong.max() <= 1 and wrong.mean() < 1e-3  # 1: a number that lies between two bytes, but for rounding
fine = maps["tiny-resnet"][3]
torch.testing.assert_close(my_pool(fine, resnet.grids[2], 2), MapBasis(resnet, [3], MapFormat()).pool(fine, 3))

signals = []
for with_it, without_it in (pair, [as_numbers(basis(m, depth)) for m in pair]):
    between = torch.stack([apart(without_it[:, p]) for p in under]).mean()
    signals.append((with_it - without_it)[films_i, under].norm(dim=-1).mean() / between)
assert signals[1] > signals[0]
print("equal to the package; a nodule moves the token over it by "
      "{:.0f} % of the distance between two films, and the compact one by {:.0f} %".format(*(100 * v for v in signals)))

# %% [markdown]
# Compact maps are small as well, which decides how many films fit on a disk. Bytes for one view and depth, with two bytes for a number
# as it is:

# %%
table = {}
for name, (side, prefix, d) in {"tiny-resnet, block 4": (8, 0, 256), "ViT-B/16 at 224": (14, 1, 768), "ViT-L/14 at 336": (24, 1, 1024)}.items():
    square = MapFormat().side(side, side)
    as_it_is, compact = 2 * (prefix + side**2) * d, (prefix + (-(-side // square)) ** 2) * min(128, d)
    table[name] = [f"{as_it_is:,}", f"{compact:,}", f"{as_it_is / compact:.0f}"]
print(pd.DataFrame(table, index=["as it is", "compact", "ratio"]).T.to_string())

# %% [markdown]
# `MedBridge(..., maps="full")` reads tokens as they are. From here on $x$ stands for whatever tokens are read.
#
# ## 4. Attention of a query
#
# One query $q \in \mathbb{R}^{w}$, one head: every frozen token offers a **key** $k_p = W_k x_p$ and a **value** $v_p = W_v
# x_p$; the query takes more from tokens whose key fits it.
#
# $$a = \operatorname{softmax}\!\left(\frac{W_q\,q\; K_x^\top}{\sqrt{d_h}}\right) \in \mathbb{R}^{P},
# \qquad \text{gathered} = a\,V_x$$
#
# $d_h$ is the width of a head. The root keeps the scores of wide heads from growing, which would make the softmax pick one
# token.

# %%
def attend_single(query, tokens, w_q, w_k, w_v):
    """One query (w,), tokens (P, d), one head -> gathered (w,), attention (P,)."""
    q, keys, values = w_q @ query, tokens @ w_k.T, tokens @ w_v.T
    a = (keys @ q / len(q) ** 0.5).softmax(-1)
    return a @ values, a


w, d = 16, vit.widths[-1]
tokens = maps["tiny-vit"][6][0].clone()
query, w_q, w_k, w_v = torch.randn(w), torch.randn(w, w), torch.randn(w, d) / d, torch.randn(w, d)
gathered, a = attend_single(query, tokens, w_q, w_k, w_v)
torch.testing.assert_close(
    gathered[None], F.scaled_dot_product_attention((w_q @ query)[None], tokens @ w_k.T, tokens @ w_v.T), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(attend_single(query, tokens, w_q, 0 * w_k, w_v)[0], (tokens @ w_v.T).mean(0), rtol=1e-4, atol=1e-5)
print("equal to PyTorch's attention; with keys of zero, attention is mean pooling")

# %% [markdown]
# So mean pooling is one special case of a query.
#
# ### $Q$ queries together
#
# With several queries, each should know what the others look for. **[ours]** The queries attend to *themselves and* to the
# frozen tokens, under **one** softmax:
#
# $$A = \operatorname{softmax}\!\left(\frac{\left[\,\tilde q K_q^\top \,;\; \tilde q K_x^\top\,\right]}{\sqrt{d_h}}\right)
# \in \mathbb{R}^{Q \times (Q + P)}, \qquad q \leftarrow q + A\,[V_q ; V_x]\,W_o,
# \qquad q \leftarrow q + \mathrm{MLP}(\mathrm{LN}(q))$$
#
# One softmax, not two: a query that finds nothing in the map can turn to the other queries. So its attention over the frozen
# tokens sums to *at most* one. Around it is the usual pre-norm transformer block: layer norms (LN), several heads, residual
# sums.
#
# The whole layer, from scratch, with keys and values written out:

# %%
def heads_of(t, heads):
    """(B, n, w) -> (B, heads, n, w / heads)."""
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def my_query_layer(layer, q, x):
    """The package's layer, for its weights: queries (B, Q, w), frozen tokens (B, P, d) -> queries, attention (B, heads, Q, P)."""
    x = F.layer_norm(x, x.shape[-1:], eps=layer.map_eps)
    n = layer.norm1(q)
    queries = heads_of(layer.q(n), layer.heads)
    keys = heads_of(torch.cat([layer.k(n), layer.k_map(x)], dim=1), layer.heads)  # own first, then frozen
    values = heads_of(torch.cat([layer.v(n), layer.v_map(x)], dim=1), layer.heads)
    a = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
    gathered = (a @ values).transpose(1, 2).flatten(2)  # the heads side by side again
    q = q + layer.scale1 * layer.out(gathered)
    q = q + layer.scale2 * layer.fc2(layer.activation(layer.fc1(layer.norm2(q))))
    return q, a[..., q.shape[1] :]


shipped = adapter.bases[0]  # fitted to the films that the adapter was trained on
read = [as_numbers(shipped(maps["tiny-resnet"][depth], depth)) for depth in trained.encoder.depths]  # compact maps
with torch.inference_mode():
    q = trained.encoder.queries.expand(len(views), -1, -1)
    for layer, x in zip(trained.encoder.layers, read, strict=True):
        mine, package = my_query_layer(layer, q, x), layer(q, x)
        torch.testing.assert_close(mine[0], package[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(mine[1], package[1], rtol=1e-3, atol=1e-5)
        q = package[0]
    torch.testing.assert_close(trained.encoder.norm(q), trained.encoder(read)[0])
print(f"the trained queries read {resnet.name} after blocks {trained.encoder.depths}; both layers are as the package has them")
print(f"queries out: {tuple(q.shape)} for {len(views)} views; attention {tuple(package[1].shape)}: heads, queries, tokens")
to_map = package[1].sum(-1)
assert to_map.max() <= 1 + 1e-5  # the rest goes to the other queries
print(f"share of attention that goes to the map: {100 * float(to_map.mean()):.0f} % on average")

# %% [markdown]
# Layer $i$ of the $T_2$ query layers reads the map after block $T_1 + i$: the queries climb beside the tower, and each step
# sees what the tower knows at that height. **[abstract]** Queries are injected into intermediate layers. **[summary]** They enter after the first
# $T_1$ blocks. **[ours]** $T_2 = T - T_1$ query layers follow.
#
# ### Exercise 4.1: one softmax, not two
# ★★☆, 10 minutes. One head, without projections: write `joint_attention(q, k_own, v_own, k_map, v_map)`. `q`, `k_own`,
# `v_own` are `(Q, e)`, `k_map`, `v_map` are `(P, e)`. Return what each query gathers, `(Q, e)`.
#
# <details><summary>Hint</summary>
# Put the keys of both kinds one below the other with torch.cat, and the values in the same order.
# </details>

# %%
def joint_attention(q, k_own, v_own, k_map, v_map):
    raise NotImplementedError


check("4.1", joint_attention)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/04_query_encoder.ipynb](solutions/04_query_encoder.ipynb).
#
# ```python
# def joint_attention(q, k_own, v_own, k_map, v_map):
#     keys, values = torch.cat([k_own, k_map]), torch.cat([v_own, v_map])
#     a = (q @ keys.T / q.shape[-1] ** 0.5).softmax(-1)
#     return a @ values
# ```
# </details>

# %% [markdown]
# ## 5. Keys and values that are never formed
#
# There are few queries and many frozen tokens. `layer.k_map(x)` makes a key for each of them: $P\,d\,w$ multiplications, and
# as many again for values. But a product of three matrices may be bracketed as we like:
#
# $$\tilde q K_x^\top = \tilde q\,(X W_k^\top)^\top = (\tilde q\,W_k)\,X^\top, \qquad A_x V_x = A_x (X W_v^\top) = (A_x X)\,W_v^\top$$
#
# Here $\tilde q = q W_q^\top$ are the $Q$ queries after their own weight. On the right the weight moves to them, and $X$ is only multiplied with. The numbers are the same. Biases need
# care: $b_k$ adds $q \cdot b_k$ to the scores of *all* frozen tokens (which matters, since the own tokens do not get it), and
# $b_v$ counts as often as the row of $A_x$ sums to.

# %%
def scores_plain(layer, queries, x):
    """Scores of the frozen tokens, keys formed: queries (B, H, Q, e), tokens (B, P, d) -> (B, H, Q, P)."""
    return queries @ heads_of(layer.k_map(x), layer.heads).transpose(-1, -2)


def scores_folded(layer, queries, x):
    """The same numbers: each head's rows of W_k are moved to the queries."""
    w_k = layer.k_map.weight.unflatten(0, (layer.heads, -1))  # (H, e, d)
    b_k = layer.k_map.bias.unflatten(0, (layer.heads, -1))  # (H, e)
    moved = torch.einsum("bhqe,hed->bhqd", queries, w_k)
    return torch.einsum("bhqd,bpd->bhqp", moved, x) + torch.einsum("bhqe,he->bhq", queries, b_k)[..., None]


layer, x = trained.encoder.layers[0], F.layer_norm(read[0], read[0].shape[-1:], eps=1e-6)
with torch.inference_mode():
    queries = heads_of(layer.q(layer.norm1(trained.encoder.queries.expand(len(views), -1, -1))), layer.heads)
    torch.testing.assert_close(scores_folded(layer, queries, x), scores_plain(layer, queries, x), rtol=1e-3, atol=1e-3)
print("same scores, no keys")

# %% [markdown]
# **How much is saved?** We count multiplications; a count is the same on every machine, a time is not. For one view, both
# products, all $h$ heads, with $w = h\,d_h$:
#
# $$\text{plain: } 2 P d w + 2 Q P w, \qquad \text{folded: } 2 Q d w + 2 h\, Q P d$$
#
# For large $P$ folding pays as long as $h\,Q < w$. PyTorch can count what it really multiplies, which checks the formula.

# %%
def multiplications(Q, P, d, w, H):
    """For one view: (plain, folded)."""
    return 2 * P * d * w + 2 * Q * P * w, 2 * Q * d * w + 2 * H * Q * P * d


def counted(f, *arguments):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        f(*arguments)
    return counter.get_total_flops() // 2  # a "flop" count has a multiplication and an addition


Q, (P, d), w, H = len(trained.encoder.queries), x.shape[1:], trained.encoder.width, layer.heads
one = (layer, queries[:1], x[:1])
bias = Q * w  # the folded form's extra product, with the bias
assert 2 * counted(scores_plain, *one) == multiplications(Q, P, d, w, H)[0]
assert 2 * (counted(scores_folded, *one) - bias) == multiplications(Q, P, d, w, H)[1]

table = {}
for name, shape in {"compact map": (8, P, d, 64, 4), "ViT-B/16 at 224, as it is": (8, 197, 768, 64, 4),
                    "ViT-L/14 at 336, as it is": (8, 577, 1024, 64, 4), "many queries on ViT-B/16": (64, 197, 768, 64, 4)}.items():
    plain, folded = multiplications(*shape)
    table[name] = [shape[0], shape[1], shape[2], f"{plain / 1e6:.1f}", f"{folded / 1e6:.1f}", f"{plain / folded:.1f}"]
print("million multiplications for one view and layer, width 64, 4 heads")
print(pd.DataFrame(table, index=["Q", "P", "d", "plain", "folded", "ratio"]).T.to_string())

# %% [markdown]
# **What to see.** Folding saves nearly half of the multiplications, for compact maps as well. With 64 queries and 4 heads $h\,Q = 256 > w$, and
# folding costs more. A second saving is not in the table: in training, keys and values would have to be kept for the backward
# pass, while $X$ comes from the cache and needs no gradient.
#
# ### Exercise 4.2: fold the values
# ★★★, 20 minutes. One head. `a` is `(Q, P)`: the attention over the frozen tokens, whose rows sum to less than one. `x` is
# `(P, d)`, `weight` is `(w, d)`, `bias` is `(w,)`. Write `folded_values(a, x, weight, bias)` that returns $A_x (X W_v^\top +
# b)$, `(Q, w)`, without forming the $P$ values. The check counts your multiplications.
#
# <details><summary>Hint</summary>
# Write the sum for one query: sum over p of a_p (W x_p + b). What can be taken out of the sum, and what is left in front of
# b?
# </details>

# %%
def folded_values(a, x, weight, bias):
    raise NotImplementedError


check("4.2", folded_values)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/04_query_encoder.ipynb](solutions/04_query_encoder.ipynb).
#
# ```python
# def folded_values(a, x, weight, bias):
#     return (a @ x) @ weight.T + a.sum(-1, keepdim=True) * bias
# ```
# </details>

# %% [markdown]
# ## 6. Non-destructive: the frozen tokens never see the queries
#
# **[abstract]** The queries attend to frozen feature maps, without harm to them. **[ours]** So queries read the maps, and the maps do not read the queries. There is another way, *prompt tuning*: put the
# queries into the tower as further tokens. Then each block mixes them into the frozen tokens too. Compare both on the
# transformer. We run blocks 5 and 6 on the map after block 4, alone and with queries among the tokens.

# %%
def run_blocks(e, tokens, first, last):
    """Blocks first + 1 to last on tokens (B, P, d)."""
    with torch.inference_mode():
        for block in e.blocks()[first:last]:
            tokens = block(tokens)
    return tokens


T1 = 4
middle, last = maps["tiny-vit"][T1], maps["tiny-vit"][vit.depth]
encoder = QueryEncoder(vit, queries=8, layers=vit.depth - T1)
read_vit = [maps["tiny-vit"][depth] for depth in encoder.depths]
before = [m.clone() for m in read_vit]
answers, inside = [], []
for seed in (1, 2):
    torch.manual_seed(seed)
    torch.nn.init.normal_(encoder.queries)
    with torch.inference_mode():
        answers.append(encoder(read_vit)[0])
    prompts = torch.randn(len(views), 8, vit.widths[0])
    inside.append(run_blocks(vit, torch.cat([middle, prompts], dim=1), T1, vit.depth)[:, : middle.shape[1]])

assert all(torch.equal(a, b) for a, b in zip(before, read_vit, strict=True))  # bit by bit
again = vit.encode_maps(vit.preprocess(views), encoder.depths).maps
assert all(torch.equal(again[depth], b) for depth, b in zip(encoder.depths, before, strict=True))
assert not torch.allclose(*answers)  # the queries do find other things
assert (inside[0] - inside[1]).norm() > 0.01 * last.norm()  # inside the tower, other queries make other maps
print("queries beside the tower: other queries, same maps, bit by bit")
print("queries inside the tower: other queries, other maps")

# %% [markdown]
# This is what makes the **cache** possible: maps are computed once for each film and read from disk in every epoch and every
# experiment. It also means that a gradient stops at the maps, so training needs no memory for the tower:

# %%
encoder(read_vit)[0].square().sum().backward()
assert encoder.queries.grad.abs().sum() > 0 and not any(m.requires_grad for m in read_vit)
assert all(p.grad is None for p in vit.parameters())
print("the queries have a gradient, maps and tower have none")

# %% [markdown]
# ### Split and finish
#
# A map at depth $T_1$ holds *all* that the tower knew there: running the other $T_2$ blocks on it must give what the unsplit
# tower gives. From scratch that is the loop above. The package's `finish` also does the tower's own pooling and projection,
# for every kind of tower.

# %%
torch.testing.assert_close(run_blocks(vit, middle, T1, vit.depth), last, rtol=1e-4, atol=1e-4)
for e, depth in ((vit, 4), (resnet, 3)):
    unsplit = e.encode_maps(e.preprocess(views), [depth, e.depth])
    finished = e.finish(unsplit.maps[depth], depth)
    torch.testing.assert_close(finished.maps[e.depth], unsplit.maps[e.depth], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(finished.summary, unsplit.summary, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(finished.embed, unsplit.embed, rtol=1e-4, atol=1e-4)
    print(f"{e.name}: split after block {depth} of {e.depth} and finished, equal to the unsplit tower")

# %% [markdown]
# ## 7. Three kinds of query layer
#
# What weights does a query layer start from? Three answers are options here **[ours]**. On synthetic films with the earlier form we measured no
# difference between them ([docs/results.md](../docs/results.md#three-kinds-of-query-layers)):
#
# - **cross** (the default): a fresh narrow block of width $w$. Works with every tower, and reads compact maps.
# - **copy**: a trainable copy of the frozen block, which reads that block's *input*. A query is then one more token of it.
# - **lora**: the frozen block itself, each weight $W_0$ replaced by $W_0 + W_\text{up} W_\text{down}$ of a low rank, and
#   $W_\text{up} = 0$ at the start (Hu et al., 2021, who call them $\mathrm{B}$ and $\mathrm{A}$).
#
# *copy* and *lora* need transformer blocks of the usual form, and the tower's own tokens: `maps="full"`. A copied layer computes what the frozen block computes: hand it
# a frozen token as the query, and the other tokens as map.

# %%
copied = QueryLayer.from_block(vit.block_weights(T1)).eval()
low_rank = QueryLayer.from_block(vit.block_weights(T1), rank=8).eval()
want = run_blocks(vit, middle, T1, T1 + 1)
with torch.inference_mode():
    for token in (0, 20, 40):
        others = torch.cat([middle[:, :token], middle[:, token + 1 :]], dim=1)
        for layer in (copied, low_rank):
            torch.testing.assert_close(
                layer(middle[:, token : token + 1], others)[0], want[:, token : token + 1], rtol=1e-3, atol=1e-3)
print("copy and lora start as the frozen block")

# %% [markdown]
# How much is trained? The count from scratch, and that of the package. `w` is the width of the queries, `d` that of the
# expert.

# %%
def linear(inputs, outputs):
    return inputs * outputs + outputs


def trained_numbers(kind, d, Q=8, T2=2, w=64, r=8):
    """Trainable numbers of a Query Encoder on a transformer of width d (its MLPs are 4 d wide)."""
    w, ratio = (w, 2) if kind == "cross" else (d, 4)
    mlp = linear(w, ratio * w) + linear(ratio * w, w)
    block = 4 * linear(w, w) + 2 * linear(d, w) + mlp + 6 * w  # q k v out, k_map v_map, two norms and two scales
    if kind == "lora":
        block = 6 * r * 2 * d  # q k v out k_map v_map
    return Q * w + T2 * block + 2 * w  # the queries, the layers, a last norm


for kind in ("cross", "copy", "lora"):
    package = sum(p.numel() for p in QueryEncoder(vit, kind=kind, width=64).parameters() if p.requires_grad)
    assert package == trained_numbers(kind, vit.widths[-1])
sizes = {"tiny-vit (d = 128)": 128, "ViT-B (d = 768)": 768, "ViT-L (d = 1024)": 1024}
print("trained numbers of a Query Encoder, Q = 8, T2 = 2, w = 64, r = 8")
print(pd.DataFrame({name: {"cross, compact maps": f"{trained_numbers('cross', 128):,}"}
                    | {kind: f"{trained_numbers(kind, d):,}" for kind in ("cross", "copy", "lora")}
                    for name, d in sizes.items()}).to_string())

# %% [markdown]
# **What to see.** *copy* grows with the square of the expert's width: tens of millions of numbers on a real one. *cross* on compact
# maps has the same size whatever the expert, since both widths are fixed. Fewer trained numbers mean less to overfit
# with few films, and not necessarily a better AUC: which kind is best is a question for the ablations (notebook 10).
#
# ## 8. Relate the views, then pool
#
# Each view now has $Q$ query tokens. A finding may show in one window only, and a window's meaning depends on where it lies.
# **[summary]** Self-attention over the $N$ views relates them, then the maximum over views is taken.
# **[ours]** Query $j$ of a view attends to query $j$ of the other views; each view adds where its box lies; the expert's
# frozen summary goes along as one more token.
#
# $$t_n = [\,q_{n1}, \dots, q_{nQ}, m_n\,] + \mathrm{place}(\text{box}_n), \qquad
# t_{\cdot j} \leftarrow t_{\cdot j} + \mathrm{attention}(t_{1j}, \dots, t_{Nj}), \qquad \bar t_j = \max_n t_{nj}$$
#
# Films of different shape have different numbers of windows, so a batch is **padded**. Padding must not be attended to and
# must not win.

# %%
def my_cross_view(c, queries, summary, boxes, view_mask):
    """The package's CrossView, for its weights: (B, N, Q, w), (B, N, image_dim), (B, N, 4), bool (B, N) -> (B, Q + 1, w)."""
    tokens = torch.cat([queries, c.project(summary)[:, :, None]], dim=2) + c.place(boxes)[:, :, None]
    x = tokens.transpose(1, 2)  # (B, Q + 1, N, w): the views are the sequence
    q, k, v = (t.unflatten(-1, (c.heads, -1)).transpose(2, 3) for t in c.qkv(c.norm1(x)).chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, Q + 1, heads, N, N)
    a = scores.masked_fill(~view_mask[:, None, None, None, :], -torch.inf).softmax(-1)
    x = x + c.out((a @ v).transpose(2, 3).flatten(3))
    x = x + c.mlp(c.norm2(x))
    pooled = x.masked_fill(~view_mask[:, None, :, None], -torch.inf).max(dim=2).values
    return c.norm(pooled)


relative = torch.from_numpy(focal.relative_boxes(boxes, *film.shape))
summary = shipped.standardise(resnet.encode_maps(resnet.preprocess(views), []).summary)  # as the maps, over the same films
with torch.inference_mode():
    found = trained.encoder(read)[0]
    # a second film with two real views; what stands in its padding is wild on purpose
    two = torch.stack([found, torch.cat([found[:2], 100 + found[2:]])])
    summaries = torch.stack([summary, torch.cat([summary[:2], 100 + summary[2:]])])
    places = relative.expand(2, -1, -1)
    view_mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    pooled, winner = trained.views(two, summaries, places, view_mask)
    torch.testing.assert_close(my_cross_view(trained.views, two, summaries, places, view_mask), pooled, rtol=1e-3, atol=1e-4)
    alone = trained.views(found[None, :2], summary[None, :2], relative[None, :2], view_mask[1:, :2])[0]
    torch.testing.assert_close(pooled[1:], alone, rtol=1e-3, atol=1e-4)  # the film without padding
    fresh = CrossView(trained.encoder.width, resnet.image_dim).eval()
    plain = fresh.norm(torch.cat([found, fresh.project(summary)[:, None]], dim=1).max(dim=0).values)
    untrained = fresh(found[None], summary[None], relative[None], view_mask[:1])[0]
    torch.testing.assert_close(untrained[0], plain, rtol=1e-4, atol=1e-5)
assert winner[1].max() < 2
print("equal to the package; padding changes nothing and never wins; a new CrossView is plain max-pooling")

# %% [markdown]
# ### Exercise 4.3: pool padded views
# ★☆☆, 5 minutes. Write `pool_views(tokens, view_mask)`: `tokens` is `(B, N, Q, w)`, `view_mask` is bool `(B, N)` with True
# for real views. Return the maximum over the real views, `(B, Q, w)`. Tokens may be negative.
#
# <details><summary>Hint</summary>
# What number loses against every other?
# </details>

# %%
def pool_views(tokens, view_mask):
    raise NotImplementedError


check("4.3", pool_views)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/04_query_encoder.ipynb](solutions/04_query_encoder.ipynb).
#
# ```python
# def pool_views(tokens, view_mask):
#     return tokens.masked_fill(~view_mask[:, :, None, None], -torch.inf).amax(dim=1)
# ```
# </details>

# %% [markdown]
# ## 9. Class scores through the text space
#
# What do the pooled tokens say about class $c$? **[ours]** We compare as in zero-shot (notebook 01), with the text
# embedding $t_c$ of the class's prompts, here positive minus negative. Each class reads its own mixture $a_c$ of
# the tokens; $\delta_c$ lets it move away from prompts that the text encoder does not understand; $b_c$ starts at the
# log-odds of the training prevalence.
#
# $$z_c = \mathrm{normalise}\Big(W_t\,\mathrm{LN}\big(\textstyle\sum_j a_{cj}\,\bar t_j\big)\Big), \qquad
# s_c = e^{\tau}\, z_c \cdot (t_c + \delta_c) + b_c$$

# %%
def my_scores(s, tokens):
    """The package's PromptScores, for its weights: tokens (B, Q + 1, w) -> logits (B, C)."""
    mixed = s.mix.softmax(-1) @ tokens  # (C, Q + 1) @ (B, Q + 1, w) -> (B, C, w)
    z = s.project(s.norm(mixed))
    z = z / z.norm(dim=-1, keepdim=True)
    return s.log_scale.exp() * torch.einsum("bct,ct->bc", z, s.text + s.delta) + s.bias


with torch.inference_mode():
    logits = trained.scores(pooled)
    torch.testing.assert_close(my_scores(trained.scores, pooled), logits, rtol=1e-3, atol=1e-4)
print("class scores:", tuple(logits.shape), "for two films and eight findings")

# %% [markdown]
# That is the whole path of one expert: compact maps, queries, views, scores. `MedBridge` with a single expert is exactly this.
#
# ## 10. Train the queries alone
#
# Now train it: one expert, $Q = 8$ queries, two query layers, on small PhantomCXR. The first call with `training=True` fits the
# basis to the training films. The frozen features are computed once; the loop then sees only the cache. Notebook 06 is about the loop itself; here we call it. The expert is tiny-resnet, which was
# picked on other synthetic films than these.

# %% alt="training curves of one expert on PhantomCXR (synthetic): training loss and mean validation AUC by epoch, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 450)
model = MedBridge([resnet], benchmark.labels, sampler=sampler)
cache = FeatureCache(progress=False)
films = {name: cache.of(model, benchmark.split(name), training=name == "train") for name in ("train", "val", "test")}
history = fit(model, films["train"], films["val"], TrainConfig(epochs=30 if full_profile() else 14), progress=False)
plots.training_curves(history.rows, history.best_epoch, f"one expert on {benchmark.name}")

# %%
size = {name: sum(p.numel() for p in module.parameters() if p.requires_grad)
        for name, module in (("queries and their layers", model.branches[0].encoder), ("across views", model.branches[0].views),
                             ("class scores", model.branches[0].scores))}
assert sum(size.values()) == sum(p.numel() for p in model.trainable().values())
assert history.rows[-1]["loss"] < history.rows[0]["loss"]
print(f"{len(films['train'])} synthetic films to train, {len(films['val'])} to choose the epoch, {len(films['test'])} to test")
print("trained numbers:", ", ".join(f"{name} {count:,}" for name, count in size.items()))

# %% [markdown]
# The opponent is the **linear probe** of notebook 03 on the *same* views of the same films, from the same frozen expert: a
# logistic regression on the summary of the whole film, and the mean and maximum of the summaries over all views. Its
# regularisation is chosen on the validation films, and then it learns from them as well; our queries choose their epoch on them
# and do not (notebook 06 mends that, by cross-fitting). Both are then compared on the same test films, resampled by patient.

# %% tags=["nbval-ignore-output"]
test = films["test"].benchmark
y, mask = test.targets()
patients = test.table["patient_id"]
scores = {"linear probe": LinearProbe(views="all").fit(films["train"], films["val"]).predict_proba(films["test"]),
          "queries": predict(model, films["test"], progress=False).probabilities}
difference = paired_difference(y, scores["queries"], scores["linear probe"], mask, groups=patients, labels=test.labels)
print(f"mean AUC, queries minus linear probe: {difference.diff:+.2f}, 95 % interval {difference.lo:+.2f} to {difference.hi:+.2f}")
print("On these synthetic films " + (
    "the interval holds zero: no difference is shown." if difference.lo <= 0 <= difference.hi else
    f"the {'queries are' if difference.diff > 0 else 'linear probe is'} better."))

# %% alt="dots with 95 % paired intervals: test AUC of the queries minus that of a linear probe on the same views, by label and in the mean, synthetic test films; a line marks zero" tags=["nbval-ignore-output"]
mean = pd.DataFrame([{"label": "mean", "diff": difference.diff, "lo": difference.lo, "hi": difference.hi}])
rows = pd.concat([difference.per_label.iloc[::-1], mean], ignore_index=True)
fig = Figure(figsize=(7, 3.4), layout="constrained")
ax = fig.subplots()
ax.axvline(0, color="0.5", linewidth=0.9)
for at, label, diff, low, high in rows[["label", "diff", "lo", "hi"]].itertuples():
    colour, marker = sns.color_palette("colorblind")[label == "mean"], "D" if label == "mean" else "o"
    ax.plot([low, high], [at, at], color=colour, linewidth=1.5)
    ax.plot(diff, at, marker, color=colour)
ax.set_yticks(range(len(rows)), rows["label"])
ax.set(xlabel="test AUC, queries minus linear probe on the same views (95 % paired interval)",
       title=f"{len(test)} synthetic test films, one training seed")
ax.spines[["top", "right"]].set_visible(False)
fig

# %% [markdown]
# **How to read it.** The printed sentence is the result, whatever you expected. The interval speaks of other *test films*, not of
# other training runs: another seed would move the point as well. With 265 training films, 190,000 trained numbers and
# a tiny expert, a logistic regression is a strong opponent. The full profile has twice the films.
# [docs/results.md](../docs/results.md) says how the whole method compares on other films, and what that was measured with.
#
# ## 11. Where do the queries look?
#
# To choose without picking a film that happens to go well: the first test film with exactly one box. Each picture is one
# query's attention in the last layer, over the patches of one view; numbers are the share that went to this view's tokens
# (the rest went to the other queries).

# %%
counts = test.boxes.groupby("image").size().reindex(test.image_ids(), fill_value=0).to_numpy()
chosen = int(np.flatnonzero(counts == 1)[0])
truth = test.boxes[test.boxes["image"] == test.image_ids()[chosen]].iloc[0]
label, box = truth["label"], truth[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)
explanation = explain(model, test.read(chosen))
N, Q = explanation.attention[0].shape[:2]
np.testing.assert_allclose(explanation.probabilities, scores["queries"][chosen], atol=1e-3)  # as through the cache
assert explanation.attention[0].sum((2, 3)).max() <= 1
print(f"film {Path(test.image_ids()[chosen]).stem} has one box: {label}; {N} views, {Q} queries")

# %% alt="attention of each query (columns) in each view (rows) laid over a synthetic film, with the true box of the finding, which the model does not know" tags=["nbval-ignore-output"]
fig = Figure(figsize=(12.5, 1.5 * N + 0.5), layout="constrained")
axes = fig.subplots(N, Q + 1)
pictures = focal.extract_views(explanation.film, explanation.boxes, 128)
brightest = explanation.attention[0].max()
for n, view in enumerate(explanation.boxes):
    inside = (box - np.tile(view[:2], 2)) * 128 / (view[2] - view[0])  # the true box in pixels of this view
    for column in range(Q + 1):
        ax = axes[n, column]
        ax.imshow(pictures[n], cmap="gray", vmin=0, vmax=1)
        if column:
            attention = explanation.attention[0][n, column - 1]
            ax.imshow(attention, cmap="inferno", alpha=0.6, extent=(0, 128, 128, 0), vmin=0, vmax=brightest,
                      interpolation="nearest")
            ax.set_title(f"query {column}: {attention.sum():.2f}" if n == 0 else f"{attention.sum():.2f}", fontsize=8)
        plots.draw_boxes(ax, inside[None])
        ax.set(xlim=(0, 128), ylim=(128, 0), xticks=[], yticks=[])
    axes[n, 0].set_ylabel("whole film" if n == 0 else f"window {n}", fontsize=8)
fig.suptitle(f"Attention of each query on a synthetic film; orange: the true box ({label}), unknown to the model", fontsize=11)
fig

# %% [markdown]
# **What to see.** The grid is as coarse as the last map, 4 x 4. In the stored picture several queries share their
# brightest patches; others spread over the view. Nothing in training asked them to differ, or to look into the box: they
# learned from one word per finding. The next picture puts the queries of this finding together, over all views.

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
plots.query_attention(explanation, label, box[None], f"synthetic film, {label}")

# %% [markdown]
# Attention shows where information was *read*, which need not be what *caused* the score. Notebook 11 measures it against
# boxes, and against chance.
#
# **Try it** (needs a running kernel): choose film, layer, view and query. The first layer reads a finer map than the last. Without a
# kernel, the two pictures above show the same for one film.

# %% tags=["nbval-ignore-output"]
explore_attention(model, test.take(np.arange(8)))

# %% [markdown]
# ## Summary
#
# - A frozen map is a grid of tokens. Where a small finding lies it is plain in one token, and nearly gone in the mean and in CLS.
# - A few common components drown the rest of raw tokens. Queries read compact maps, in which all components weigh alike.
# - A query gathers tokens by attention; $Q$ queries and $P$ tokens share one softmax.
# - Keys and values of frozen tokens need never be formed: $(\tilde q\,W_k) X^\top$ and $(A_x X) W_v^\top$ give the same numbers.
# - Frozen tokens never see the queries, so maps are cached and gradients stop there.
# - Views are related by attention over views and pooled by the maximum; padding never wins. Scores are cosines with the class
#   prompts.
# - A paired interval tells whether the queries beat a linear probe. With few films it may hold zero.
#
# Next: [05 Mixture of Experts](05_mixture_of_experts.ipynb): several experts, and who is to be trusted.
