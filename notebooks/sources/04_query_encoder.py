# %% [markdown]
# # 04 Query Encoder
#
# {{COLAB}}
#
# **What you will build:** the second part of MedBridge, a few learnable *queries* that read the maps of a
# frozen expert. You write the compact maps, the attention and the whole query layer, assert that each equals
# the package's own, show that the queries never touch the frozen model, and compare trained queries with a
# linear probe.
#
# - **Prerequisites:** notebook [03](03_focal_sampling.ipynb); attention as in a first course on transformers;
#   PyTorch tensors.
# - **Time:** about {{READING}} minutes to read and solve; one to two minutes of computing on two CPU cores,
#   about one on a Colab T4 (an estimate).
# - **Module:** `medbridge/qencoder.py` · **test:** `tests/test_qencoder.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698), "Query Encoder".
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
import torch.nn.functional as F

from medbridge import FocalSampler, create_expert, focal, load_adapter
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.phantom.benchmark import make_film
from medbridge.viz import charts, plots

rng = seed_everything(0)
vit = create_expert("tiny-vit")  # a vision transformer, to see tokens and blocks
resnet = create_expert("tiny-resnet")  # a convolutional tower: the expert that is adapted below
adapter = load_adapter("../data/quickstart")  # from the repository
trained = adapter.branches[0]  # its trained queries for tiny-resnet

# %% [markdown]
# ## 1. A frozen map, and why one vector per film is too few
#
# A vision tower is a chain of $T$ blocks. After each the view is a **map**, a grid of vectors, one per piece
# of the picture. Written as a list, it is a matrix of **tokens**
#
# $$X \in \mathbb{R}^{P \times d}, \qquad P = \text{rows} \times \text{columns} \;(+\ \text{prefix}),$$
#
# with $d$ the width. A vision transformer puts a prefix token, called CLS, before the patches.

# %%
rows = []
for e in (vit, resnet):
    for depth, ((r, c), d) in enumerate(zip(e.grids, e.widths, strict=True), start=1):
        rows.append((e.name, depth, f"{r} x {c}", e.prefix, e.prefix + r * c, d))
print(pd.DataFrame(rows, columns=["expert", "after block", "grid", "prefix", "tokens P", "width d"]).to_string(index=False))
assert not any(p.requires_grad for e in (vit, resnet) for p in e.parameters())

# %% [markdown]
# The convolutional tower trades places for width; the transformer keeps its grid. A token has up to 512
# numbers, and a picture shows one. So we paint each token by its place along the direction in which the
# tokens of all views differ most, the first *principal component*.

# %%
example = make_film(11, "A", findings=["Nodule", "Effusion"], subtlety=0)
film = example.image.astype(np.float32) / 255
nodule = np.array(next(box[1:] for box in example.boxes if box[0] == "Nodule"))
sampler = FocalSampler(crop=0.5, overlap=0.0, extra=0)  # the whole film and four windows
boxes = sampler.inference_boxes(*film.shape)
views = focal.extract_views(film, boxes, vit.size)
maps = {e.name: e.encode_maps(e.preprocess(views), range(1, e.depth + 1)).maps for e in (vit, resnet)}

# %%
def first_component(tokens):
    """Tokens (N, P, d) -> (N, P): place along the direction in which they differ most; the sign is arbitrary."""
    flat = tokens.flatten(0, 1)
    centred = flat - flat.mean(0)
    direction = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return (centred @ direction).unflatten(0, tokens.shape[:2])


spread = first_component(maps["tiny-vit"][6][:, vit.prefix :])
assert abs(float(spread.mean())) < 1e-4  # centred over all tokens of all views

# %% alt="two views of one synthetic film, the whole and the window with the nodule; beside each, frozen maps of tiny-vit after blocks 1, 3 and 6 and of tiny-resnet after blocks 2, 4 and 5, coloured by their first principal component" tags=["nbval-ignore-output"]
middle = (nodule[:2] + nodule[2:]) / 2
inside = ((boxes[:, :2] < middle) & (middle < boxes[:, 2:])).all(axis=1)
pictured = [0, 1 + int(inside[1:].argmax())]  # the whole film, and the window with the nodule
shown = [(vit, 1), (vit, 3), (vit, 6), (resnet, 2), (resnet, 4), (resnet, 5)]
painted = [first_component(maps[e.name][depth][pictured, e.prefix :]).numpy() for e, depth in shown]
scaled = [np.clip((p - np.percentile(p, 2)) / np.ptp(np.percentile(p, [2, 98])), 0, 1) for p in painted]
heats, titles = [], []
for row, name in enumerate(("whole film", f"window {pictured[1]}")):
    heats += [None, *(s[row].reshape(e.grids[depth - 1]) for s, (e, depth) in zip(scaled, shown, strict=True))]
    titles += [name, *(f"{e.name}, block {depth}" for e, depth in shown)]
plots.film_grid([views[v] for v in pictured for _ in range(7)], titles, 7, heats=heats, alpha=1, size=1.7,
                title="First principal component of the frozen tokens (synthetic film); the sign is arbitrary")

# %% [markdown]
# **What to see.** Nobody taught these experts what a lung is, yet block 2 of the convolutional tower draws
# lungs and ribs.
#
# ### Why a query, and not the mean or CLS?
#
# A classifier needs one vector per film, not $P$. Two are usual:
#
# - **mean pooling**: $\bar x = \frac1P \sum_p x_p$. A nodule in one of 64 patches counts for 1/64 of the
#   mean.
# - **CLS**: the token that the tower itself uses as a summary.
#
# Both gather *the same* for every question. To measure what that costs, we draw each film twice, with a
# nodule and without. How far does the nodule move a vector, compared with the distance between two films?
#
# $$\text{signal} = \frac{\operatorname{mean}_i \lVert f(\text{film}_i + \text{nodule})
# - f(\text{film}_i) \rVert}
# {\operatorname{mean}_{i \ne j} \lVert f(\text{film}_i) - f(\text{film}_j) \rVert}$$

# %%
pairs = [(make_film(seed, "A", findings=["Nodule"], subtlety=0), make_film(seed, "A", findings=[]))
         for seed in range(48 if full_profile() else 12)]
whole = [torch.cat([focal.extract_views(f.image.astype(np.float32) / 255, focal.whole_box(1024, 1024)[None], vit.size)
                    for f in side]) for side in zip(*pairs, strict=True)]
with_nodule, without = (vit.encode_maps(vit.preprocess(v), [vit.depth]).maps[vit.depth] for v in whole)
side = vit.grids[-1][0]
under = [int((y0 + y1) / 2 / 1024 * side) * side + int((x0 + x1) / 2 / 1024 * side)  # the patch under the nodule
         for _, x0, y0, x1, y1 in (p[0].boxes[0] for p in pairs)]

# %%
def apart(a):
    """Mean distance between different rows of (n, d)."""
    return torch.pdist(a).mean()


moved, patches, films_i = with_nodule - without, without[:, vit.prefix :], torch.arange(len(pairs))
between = torch.stack([apart(patches[:, p]) for p in under]).mean()
signal = {
    "mean of the patches": moved[:, vit.prefix :].mean(1).norm(dim=-1).mean() / apart(patches.mean(1)),
    "CLS": moved[:, 0].norm(dim=-1).mean() / apart(without[:, 0]),
    "the token under the nodule": moved[films_i, torch.tensor(under) + vit.prefix].norm(dim=-1).mean() / between,
}
assert signal["the token under the nodule"] > 4 * max(signal["mean of the patches"], signal["CLS"])
for name, value in signal.items():
    print(f"{name:<27} a nodule moves it by {100 * value:4.0f} % of the distance between two films")

# %% [markdown]
# **What to see.** The nodule is a large event in the token under it, and nearly nothing in the pooled
# vectors. (This small transformer was pre-trained with mean pooling, so its CLS never learned to summarise.)
# A **query** is a learned vector that says which tokens to gather: a weighted mean whose weights depend on
# the tokens, and which training can aim.
#
# ## 2. Compact maps: what the queries read
#
# A query sees a token through a matrix, $W_k x$. Directions in which all tokens differ much are loud, and
# they drown the quiet ones. Is a nodule loud or quiet? We turn the tokens of `tiny-resnet` after block 4 to
# their principal components, the largest first.

# %%
def principal(tokens):
    """Tokens (n, d) -> mean and scale (d,); directions (d, d), a column each, the largest first; deviation along each (d,)."""
    mean, scale = tokens.mean(0), tokens.std(0)
    z = (tokens - mean) / scale
    variance, v = torch.linalg.eigh(z.T @ z / len(z))  # the smallest first
    v = v * v.gather(0, v.abs().argmax(0, keepdim=True)).sign()  # the sign is free: the largest number is positive
    return mean, scale, v.flip(1), variance.flip(0).sqrt()


depth = 4
seen = torch.cat([focal.extract_views(f.image.astype(np.float32) / 255, boxes, resnet.size) for _, f in pairs])
frozen = resnet.encode_maps(resnet.preprocess(seen), [depth])
tokens = frozen.maps[depth].flatten(0, 1).double()
mean, scale, directions, deviation = principal(tokens)

# %% [markdown]
# What share of the spread between tokens do the components hold, and what share of a nodule's step?

# %%
pair = [resnet.encode_maps(resnet.preprocess(v), [depth]).maps[depth] for v in whole]  # with the nodule, and without
step = ((pair[0] - pair[1])[films_i, under] / scale) @ directions  # (films, d), in the token under the nodule
held = pd.DataFrame({"spread between tokens": deviation**2, "step of a nodule": step.square().sum(0)},
                    index=np.arange(1, len(deviation) + 1))
held = held / held.sum()
first = held[:8].sum()
assert first["spread between tokens"] > 2 * first["step of a nodule"]
print(f"the first 8 of {len(held)} components hold {100 * first.iloc[0]:.0f} % of the spread between tokens, "
      f"and {100 * first.iloc[1]:.0f} % of the step of a nodule")

# %% alt="tiny-resnet after block 4 on synthetic films: the share of the spread between tokens and of a nodule's step that the first components hold together; the spread's curve lies far above the nodule's for the first components" tags=["nbval-ignore-output"]
charts.curves({f"{resnet.name} after block {depth}, synthetic films": held.cumsum()}, size=(6, 3), xscale="log",
              xlabel="components, the largest first", ylabel="share that they hold together", ylim=(0, 1))

# %% [markdown]
# **What to see.** A few components hold most of the spread between tokens, and little of a nodule.
#
# **[ours]** So the queries do not read $X$ itself but a **compact map** $U$, made in four steps:
#
# 1. patches are averaged over the smallest squares that leave at most 64;
# 2. channels are standardised by their mean and scale over tokens;
# 3. the first 128 principal components (the columns of $V$) are kept, each divided by its own deviation;
# 4. each number is rounded to a byte, in steps of 1/32.
#
# $$u = \frac{x - \text{mean}}{\text{scale}}\; V \,/\, \text{deviation}, \qquad
# \text{stored: } \operatorname{clip}(\operatorname{round}(32\,u),\ -127,\ 127)$$
#
# Mean, scale, $V$ and deviation are the **basis** of one expert and depth. It is fitted to training films
# without their labels, and belongs to the adapter.

# %%
from medbridge.features.compact import MapBasis, MapFormat, as_numbers


def my_pool(x, grid, side):
    """Patches (N, P, d), no prefix -> their means over squares, on a grid that the side divides."""
    return x.unflatten(1, (grid[0] // side, side, grid[1] // side, side)).mean((2, 4)).flatten(1, 2)


def my_compact(x, mean, scale, directions, deviation):
    return (32 * ((x - mean) / scale) @ directions / deviation).round().clamp(-127, 127)


# %%
basis = MapBasis(resnet, [depth], MapFormat(components=128, patches=64, bits=8))
basis.fit({depth: tokens}, frozen.summary)
mine = my_compact(frozen.maps[depth], mean, scale, directions[:, :128], deviation[:128])
package = basis(frozen.maps[depth], depth)
assert package.dtype == torch.int8
wrong = (mine - package).abs()
assert wrong.max() <= 1 and wrong.mean() < 1e-3  # 1: a number that lies between two bytes, but for rounding
fine = maps["tiny-resnet"][3]
torch.testing.assert_close(my_pool(fine, resnet.grids[2], 2), MapBasis(resnet, [3], MapFormat()).pool(fine, 3))

# %%
signals = []
for with_it, without_it in (pair, [as_numbers(basis(m, depth)) for m in pair]):
    between = torch.stack([apart(without_it[:, p]) for p in under]).mean()
    signals.append((with_it - without_it)[films_i, under].norm(dim=-1).mean() / between)
assert signals[1] > signals[0]
print("equal to the package; a nodule moves the token over it by "
      "{:.0f} % of the distance between two films, and the compact one by {:.0f} %".format(*(100 * v for v in signals)))

# %% [markdown]
# Compact maps are small as well. These are the bytes per view and depth, with two bytes per number of the map
# as it is:

# %%
table = {}
for name, (side, prefix, d) in {"tiny-resnet, block 4": (8, 0, 256), "ViT-B/16 at 224": (14, 1, 768),
                                "ViT-L/14 at 336": (24, 1, 1024)}.items():
    square = MapFormat().side(side, side)
    as_it_is, compact = 2 * (prefix + side**2) * d, (prefix + (-(-side // square)) ** 2) * min(128, d)
    table[name] = [f"{as_it_is:,}", f"{compact:,}", f"{as_it_is / compact:.0f}"]
print(pd.DataFrame(table, index=["as it is", "compact", "ratio"]).T.to_string())

# %% [markdown]
# From here on $x$ stands for whatever tokens are read.
#
# ## 3. Attention of the queries
#
# Every frozen token offers one query $q \in \mathbb{R}^{w}$ a **key** $k_p = W_k x_p$ and a **value**
# $v_p = W_v x_p$. The query takes more from tokens whose key fits it:
#
# $$a = \operatorname{softmax}\!\left(\frac{W_q\,q\; K_x^\top}{\sqrt{d_h}}\right) \in \mathbb{R}^{P},
# \qquad \text{gathered} = a\,V_x$$
#
# $d_h$ is the width of a head. Without the root, the softmax of a wide head would pick a single token.

# %%
def attend_single(query, tokens, w_q, w_k, w_v):
    """One query (w,), tokens (P, d), one head -> gathered (w,), attention (P,)."""
    q, keys, values = w_q @ query, tokens @ w_k.T, tokens @ w_v.T
    a = (keys @ q / len(q) ** 0.5).softmax(-1)
    return a @ values, a


# %%
w, d = 16, vit.widths[-1]
tokens = maps["tiny-vit"][6][0].clone()
query, w_q, w_k, w_v = torch.randn(w), torch.randn(w, w), torch.randn(w, d) / d, torch.randn(w, d)
gathered, a = attend_single(query, tokens, w_q, w_k, w_v)
torch.testing.assert_close(
    gathered[None], F.scaled_dot_product_attention((w_q @ query)[None], tokens @ w_k.T, tokens @ w_v.T), rtol=1e-4, atol=1e-5)
torch.testing.assert_close(attend_single(query, tokens, w_q, 0 * w_k, w_v)[0], (tokens @ w_v.T).mean(0), rtol=1e-4, atol=1e-5)
print("equal to PyTorch's attention; with keys of zero, attention is mean pooling")

# %% [markdown]
# So mean pooling is a special case of a query. **[ours]** $Q$ queries attend to *themselves and* to the
# frozen tokens, under **one** softmax:
#
# $$A = \operatorname{softmax}\!\left(\frac{[\,\tilde q K_q^\top \,;\; \tilde q K_x^\top\,]}
# {\sqrt{d_h}}\right) \in \mathbb{R}^{Q \times (Q + P)}, \qquad q \leftarrow q + A\,[V_q ; V_x]\,W_o,
# \qquad q \leftarrow q + \mathrm{MLP}(\mathrm{LN}(q))$$
#
# A query that finds nothing in the map can turn to the other queries. The rest is a usual pre-norm
# transformer block.

# %%
def heads_of(t, heads):
    """(B, n, w) -> (B, heads, n, w / heads)."""
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def my_query_layer(layer, q, x):
    """Queries (B, Q, w), frozen tokens (B, P, d) -> queries, attention (B, heads, Q, P); with the package's weights."""
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


# %% [markdown]
# We check it against both trained layers of the shipped adapter, on our five views:

# %%
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

# %%
to_map = package[1].sum(-1)
assert to_map.max() <= 1 + 1e-5  # the rest goes to the other queries
print(f"share of attention that goes to the map: {100 * float(to_map.mean()):.0f} % on average")

# %% [markdown]
# Layer $i$ of the $T_2$ query layers reads the map after block $T_1 + i$: the queries climb beside the tower.
# **[abstract]** Queries are injected into intermediate layers. **[summary]** They enter after the first $T_1$
# blocks. **[ours]** $T_2 = T - T_1$ query layers follow.
#
# ### Exercise 4.1: one softmax, not two
# ★★☆, 10 minutes. One head, without projections: write `joint_attention(q, k_own, v_own, k_map, v_map)`. `q`,
# `k_own`, `v_own` are `(Q, e)`, `k_map`, `v_map` are `(P, e)`. Return what each query gathers, `(Q, e)`.
#
# <details><summary>Hint</summary>
# Stack the keys of both kinds with torch.cat, and the values in the same order.
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
# ### Keys that are never formed
#
# `layer.k_map(x)` makes a key for each of many tokens: $P\,d\,w$ multiplications, and as many again for the
# values. But we may bracket a product of three matrices as we like:
#
# $$\tilde q K_x^\top = \tilde q\,(X W_k^\top)^\top = (\tilde q\,W_k)\,X^\top,
# \qquad A_x V_x = A_x (X W_v^\top) = (A_x X)\,W_v^\top$$
#
# Here $\tilde q = q W_q^\top$. On the right the weight moves to the queries, and the numbers are the same.
# Biases need care: $b_k$ adds $q \cdot b_k$ to the scores of all frozen tokens and not to the queries' own,
# and $b_v$ counts as often as the row of $A_x$ sums to.

# %%
def scores_plain(layer, queries, x):
    """Scores of the frozen tokens, keys formed: queries (B, h, Q, e), tokens (B, P, d) -> (B, h, Q, P)."""
    return queries @ heads_of(layer.k_map(x), layer.heads).transpose(-1, -2)


def scores_folded(layer, queries, x):
    """The same numbers: each head's rows of W_k are moved to the queries."""
    w_k = layer.k_map.weight.unflatten(0, (layer.heads, -1))  # (h, e, d)
    b_k = layer.k_map.bias.unflatten(0, (layer.heads, -1))  # (h, e)
    moved = torch.einsum("bhqe,hed->bhqd", queries, w_k)
    return torch.einsum("bhqd,bpd->bhqp", moved, x) + torch.einsum("bhqe,he->bhq", queries, b_k)[..., None]


# %%
layer, x = trained.encoder.layers[0], F.layer_norm(read[0], read[0].shape[-1:], eps=1e-6)
with torch.inference_mode():
    queries = heads_of(layer.q(layer.norm1(trained.encoder.queries.expand(len(views), -1, -1))), layer.heads)
    torch.testing.assert_close(scores_folded(layer, queries, x), scores_plain(layer, queries, x), rtol=1e-3, atol=1e-3)
print("same scores, no keys")

# %% [markdown]
# **How much does it save?** We count multiplications, which are the same on every machine, for one view, both
# products and all $h$ heads, with $w = h\,d_h$:
#
# $$\text{plain: } 2 P d w + 2 Q P w, \qquad \text{folded: } 2 Q d w + 2 h\, Q P d$$
#
# For large $P$ folding pays as long as $h\,Q < w$. PyTorch's own count checks the formula:

# %%
from torch.utils.flop_counter import FlopCounterMode


def multiplications(Q, P, d, w, h):
    """For one view: (plain, folded)."""
    return 2 * P * d * w + 2 * Q * P * w, 2 * Q * d * w + 2 * h * Q * P * d


def counted(f, *arguments):
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        f(*arguments)
    return counter.get_total_flops() // 2  # a "flop" count has a multiplication and an addition


# %%
Q, (P, d), w, h = len(trained.encoder.queries), x.shape[1:], trained.encoder.width, layer.heads
one, bias = (layer, queries[:1], x[:1]), Q * w  # the folded form's extra product, with the bias
assert 2 * counted(scores_plain, *one) == multiplications(Q, P, d, w, h)[0]
assert 2 * (counted(scores_folded, *one) - bias) == multiplications(Q, P, d, w, h)[1]

# %%
table = {}
for name, shape in {"compact map": (8, P, d, 64, 4), "ViT-B/16 at 224, as it is": (8, 197, 768, 64, 4),
                    "ViT-L/14 at 336, as it is": (8, 577, 1024, 64, 4), "many queries on ViT-B/16": (64, 197, 768, 64, 4)}.items():
    plain, folded = multiplications(*shape)
    table[name] = [shape[0], shape[1], shape[2], f"{plain / 1e6:.1f}", f"{folded / 1e6:.1f}", f"{plain / folded:.1f}"]
print("million multiplications for one view and layer, width 64, 4 heads")
print(pd.DataFrame(table, index=["Q", "P", "d", "plain", "folded", "ratio"]).T.to_string())

# %% [markdown]
# **What to see.** Folding saves nearly half of the multiplications. With 64 queries $h\,Q = 256 > w$, and it
# costs more.
#
# ### Exercise 4.2: fold the values
# ★★★, 20 minutes. One head. `a` is `(Q, P)`: the attention over the frozen tokens, whose rows sum to less
# than one. `x` is `(P, d)`, `weight` is `(w, d)`, `bias` is `(w,)`. Write `folded_values(a, x, weight, bias)`
# that returns $A_x (X W_v^\top + b)$, `(Q, w)`, without forming the $P$ values. The check counts your
# multiplications.
#
# <details><summary>Hint</summary>
# Write the sum for one query. What can you take out of it, and what is left in front of b?
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
# ## 4. Non-destructive: the frozen tokens never see the queries
#
# **[abstract]** The queries attend to frozen feature maps without harming them. **[ours]** So queries read
# the maps, and the maps do not read the queries. *Prompt tuning* puts the queries into the tower as further
# tokens instead, and each block then mixes them into the frozen ones. We compare both in blocks 5 and 6 of
# the transformer.

# %%
from medbridge.qencoder import QueryEncoder, QueryLayer


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

# %%
answers, inside = [], []
for seed in (1, 2):
    torch.manual_seed(seed)
    torch.nn.init.normal_(encoder.queries)
    with torch.inference_mode():
        answers.append(encoder(read_vit)[0])
    prompts = torch.randn(len(views), 8, vit.widths[0])
    inside.append(run_blocks(vit, torch.cat([middle, prompts], dim=1), T1, vit.depth)[:, : middle.shape[1]])

# %%
assert all(torch.equal(a, b) for a, b in zip(before, read_vit, strict=True))  # bit by bit
again = vit.encode_maps(vit.preprocess(views), encoder.depths).maps
assert all(torch.equal(again[depth], b) for depth, b in zip(encoder.depths, before, strict=True))
assert not torch.allclose(*answers)  # the queries do find other things
assert (inside[0] - inside[1]).norm() > 0.01 * last.norm()  # inside the tower, other queries make other maps
print("queries beside the tower: other queries, same maps, bit by bit")
print("queries inside the tower: other queries, other maps")

# %% [markdown]
# This makes the **cache** possible: we compute the maps once per film, and every epoch reads them from disk.
# It also means that a gradient stops at the maps:

# %%
encoder(read_vit)[0].square().sum().backward()
assert encoder.queries.grad.abs().sum() > 0 and not any(m.requires_grad for m in read_vit)
assert all(p.grad is None for p in vit.parameters())
print("the queries have a gradient, maps and tower have none")

# %% [markdown]
# A map at depth $T_1$ holds *all* that the tower knew there. The package's `finish` runs the other blocks on
# it, and gives what the unsplit tower gives:

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
# ### Three kinds of query layer
#
# There are three options **[ours]**:
#
# - **cross** (the default): a fresh narrow block of width $w$, for every tower and compact maps.
# - **copy**: a trainable copy of the frozen block, which reads that block's *input*.
# - **lora**: the frozen block, with each weight $W_0$ replaced by $W_0 + W_\text{up} W_\text{down}$ of a low
#   rank (Hu et al., 2021).
#
# *copy* and *lora* need a transformer and its own tokens (`maps="full"`). Both start as the frozen block:
# with a frozen token as the query and the others as the map, they compute what the block computes.

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

# %%
for kind in ("cross", "copy", "lora"):
    encoder = QueryEncoder(vit, kind=kind, width=64)
    print(f"{kind:<5} {sum(p.numel() for p in encoder.parameters() if p.requires_grad):>7,} trained numbers on {vit.name}")

# %% [markdown]
# A *copy* grows with the square of the expert's width; *cross* on compact maps has the same size whatever the
# expert. We measured no difference in AUC between the three, on synthetic films with an earlier form
# ([docs/results.md](../docs/results.md#three-kinds-of-query-layers)).
#
# ## 5. Train the queries, and see where they look
#
# A film has $N$ views, and so $N \times Q$ query tokens. **[summary]** Self-attention relates the views, and
# a maximum over the views follows. [Notebook 06](06_assembling_and_training.ipynb) derives that step and the
# class scores. One trap belongs here: films of different shape have different numbers of windows, so a batch
# is **padded**, and padding must never win the maximum.
#
# ### Exercise 4.3: pool padded views
# ★☆☆, 5 minutes. Write `pool_views(tokens, view_mask)`: `tokens` is `(B, N, Q, w)`, `view_mask` is bool
# `(B, N)` with True for real views. Return the maximum over the real views, `(B, Q, w)`. Tokens may be
# negative.
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
# Now we train one expert (picked on other synthetic films) with $Q = 8$ queries and two query layers. The
# first call with `training=True` fits the basis to the training films. Here we call the training loop;
# notebook 06 writes it.

# %% alt="training curves of one expert on PhantomCXR (synthetic): training loss and mean validation AUC by epoch, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
from medbridge import FeatureCache, MedBridge, TrainConfig, fit, load_benchmark

benchmark = load_benchmark("phantom", n_films=900 if full_profile() else 450)
model = MedBridge([resnet], benchmark.labels, sampler=sampler)
cache = FeatureCache(progress=False)
films = {name: cache.of(model, benchmark.split(name), training=name == "train") for name in ("train", "val", "test")}
history = fit(model, films["train"], films["val"], TrainConfig(epochs=30 if full_profile() else 14), progress=False)
plots.training_curves(history.rows, history.best_epoch, f"one expert on {benchmark.name}")

# %%
branch = model.branches[0]
size = {name: sum(p.numel() for p in module.parameters() if p.requires_grad) for name, module in
        (("queries and their layers", branch.encoder), ("across views", branch.views), ("class scores", branch.scores))}
assert sum(size.values()) == sum(p.numel() for p in model.trainable().values())
assert history.rows[-1]["loss"] < history.rows[0]["loss"]
print(f"{len(films['train'])} synthetic films to train, {len(films['val'])} to choose the epoch, {len(films['test'])} to test")
print("trained numbers:", ", ".join(f"{name} {count:,}" for name, count in size.items()))

# %% [markdown]
# The opponent is the **linear probe** of notebook 03 on the *same* views. It learns from the validation films
# too. Our queries only choose their epoch on them; notebook 06 mends that. We compare both on the same test
# films, resampled by patient.

# %% tags=["nbval-ignore-output"]
from medbridge import paired_difference
from medbridge.baselines import LinearProbe
from medbridge.predict import predict

test = films["test"].benchmark
y, mask = test.targets()
scores = {"linear probe": LinearProbe(views="all").fit(films["train"], films["val"]).predict_proba(films["test"]),
          "queries": predict(model, films["test"], progress=False).probabilities}
difference = paired_difference(y, scores["queries"], scores["linear probe"], mask, groups=test.table["patient_id"],
                               labels=test.labels)
print(f"mean AUC, queries minus linear probe: {difference.diff:+.2f}, 95 % interval {difference.lo:+.2f} to {difference.hi:+.2f}")
print("On these synthetic films " + (
    "the interval holds zero: no difference is shown." if difference.lo <= 0 <= difference.hi else
    f"the {'queries are' if difference.diff > 0 else 'linear probe is'} better."))

# %% alt="dots with 95 % paired intervals: test AUC of the queries minus that of a linear probe on the same views, in the mean and by label, synthetic test films; a dashed line marks zero" tags=["nbval-ignore-output"]
mean = pd.DataFrame({"diff": difference.diff, "lo": difference.lo, "hi": difference.hi}, ["mean"])
charts.points({"": pd.concat([mean, difference.per_label.set_index("label")[["diff", "lo", "hi"]]])}, level={"": 0},
              title=f"{len(test)} synthetic test films, one training seed",
              xlabel="test AUC, queries minus linear probe on the same views (95 % paired interval)")

# %% [markdown]
# **How to read it.** The printed sentence is the result, whatever you expected. The interval speaks of other
# *test films*; another training seed would move the point as well. With 265 training films, 190,000 trained
# numbers and a tiny expert, a logistic regression is a strong opponent. [docs/results.md](../docs/results.md)
# compares the whole method on other films.
#
# ### Where do the queries look?
#
# We take the first test film with exactly one box, so that nobody picks a film that goes well. Each picture
# is one query's attention in the last layer, over one view. The number is the share that went to this view's
# tokens.

# %%
from medbridge.explain.attention import explain

counts = test.boxes.groupby("image").size().reindex(test.image_ids(), fill_value=0).to_numpy()
chosen = int(np.flatnonzero(counts == 1)[0])
truth = test.boxes[test.boxes["image"] == test.image_ids()[chosen]].iloc[0]
label, box = truth["label"], truth[["x0", "y0", "x1", "y1"]].to_numpy(dtype=np.float32)
explanation = explain(model, test.read(chosen))

# %%
N, Q = explanation.attention[0].shape[:2]
np.testing.assert_allclose(explanation.probabilities, scores["queries"][chosen], atol=1e-3)  # as through the cache
assert explanation.attention[0].sum((2, 3)).max() <= 1
print(f"film {chosen} has one box: {label}; {N} views, {Q} queries")

# %% alt="attention of each query (columns) in each view (rows) laid over a synthetic film, with the true box of the finding, which the model does not know" tags=["nbval-ignore-output"]
pictures = focal.extract_views(explanation.film, explanation.boxes, 128)
films_shown, heats, titles, truths = [], [], [], []
for n, (view, attention) in enumerate(zip(explanation.boxes, explanation.attention[0], strict=True)):
    films_shown += [pictures[n]] * (Q + 1)
    heats += [None, *attention]
    titles += ["whole film" if n == 0 else f"window {n}", *(f"{a.sum():.2f}" for a in attention)]
    truths += [(box - np.tile(view[:2], 2))[None] * 128 / (view[2] - view[0])] * (Q + 1)  # in pixels of this view
plots.film_grid(films_shown, titles, Q + 1, truths, heats=heats, size=1.3,
                title=f"Attention of queries 1 to {Q} on a synthetic film; orange: the true box ({label}), unknown to the model")

# %% [markdown]
# **What to see.** The grid is as coarse as the last map, 4 x 4. Nothing in training asked the queries to
# differ, or to look into the box: they learned from one word per finding. The next picture puts them
# together, over all views.

# %% alt="three panels of a synthetic film: with the true box of one finding; with the focal views, brighter where more of the pool was won; with a heat map of where the queries of that finding looked" tags=["nbval-ignore-output"]
plots.query_attention(explanation, label, box[None], f"synthetic film, {label}")

# %% [markdown]
# Attention shows where the model *read*, not what *caused* the score. Notebook 11 measures it against boxes
# and chance.
#
# **Try it** (needs a running kernel; the pictures above show one film of it): the first layer reads a finer
# map than the last.

# %% tags=["nbval-ignore-output"]
from medbridge.viz.widgets import explore_attention

explore_attention(model, test.take(np.arange(8)))

# %% [markdown]
# ## Summary
#
# - A small finding is plain in one token, and nearly gone in the mean.
# - Queries read compact maps, in which all components weigh alike.
# - $Q$ queries and $P$ tokens share one softmax. Keys and values need never be formed:
#   $(\tilde q\,W_k) X^\top$ and $(A_x X) W_v^\top$ give the same numbers.
# - Frozen tokens never see the queries, so maps are cached and gradients stop there.
# - A paired interval tells whether the queries beat a linear probe.
#
# Next: [05 Mixture of Experts](05_mixture_of_experts.ipynb): several experts, and which of them to trust.
