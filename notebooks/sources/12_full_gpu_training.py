# %% [markdown]
# # 12 Full training on a GPU
#
# {{COLAB}}
#
# **What you will build:** a training that you can leave alone. You work out what it will cost before it
# starts, fill a cache of compact frozen features that survives an interruption, train, kill the training in
# the middle and watch it go on to the very same numbers, and evaluate all three tasks. In the default profile
# the very same cells run on synthetic films and tiny experts; with `MEDBRIDGE_PROFILE=full` they run on a
# real benchmark with CLIP, BiomedCLIP and SigLIP.
#
# - **Prerequisites:** notebooks [03](03_focal_sampling.ipynb) (views) and [09](09_adaptation_tasks.ipynb)
#   (tasks).
# - **Time:** about {{READING}} minutes to read and solve; about one minute of computing on two CPU cores. The
#   full profile prints what to expect on a Colab T4, an A100 and others before it starts: hours (estimates;
#   no run on a GPU stands behind them).
# - **Modules:** `medbridge/train.py`, `medbridge/features/cache.py` · **tests:** `tests/test_train.py`,
#   `tests/features/test_cache.py`
# - **Paper:** [arXiv 2505.21698](https://arxiv.org/abs/2505.21698). **[abstract]** The experts are frozen,
#   which makes all of this possible.
#
# For research and education, not for clinical use. Every film of the default profile is **synthetic**.

# %%
# {{SETUP}}

# %%
# %matplotlib inline
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from medbridge import FeatureCache, MedBridge, create_expert, load_benchmark, save_adapter
from medbridge.course import check, full_profile, seed_everything
from medbridge.data.get import get
from medbridge.data.tasks import BenchmarkRef
from medbridge.features.batch import collate, passes
from medbridge.features.budget import LARGE, cost_of_run, run_cost_table
from medbridge.focal import FocalSampler
from medbridge.train import TrainConfig, fit

logging.getLogger().setLevel(logging.ERROR)
rng = seed_everything(0)

# %% [markdown]
# ## 1. Where things live
#
# A Colab machine is taken away after some hours, with its disk. What must survive is the **features** and the
# **checkpoint**, so they go to Google Drive; the films may be unpacked again each time, since features are
# addressed by the *content* of a film and not by its path. On your own machine, set `MEDBRIDGE_CACHE` and
# `MEDBRIDGE_RUNS` to folders that stay.
#
# The full profile begins with **ChestMNIST**: the 112,120 films of NIH ChestX-ray14 and their 14 labels, at
# 224 pixels, open to everybody. It is fetched where it is not there yet (`medbridge data get`, 3.9 GB, and
# 5.6 GB unpacked). Its films are no larger than what the experts take, so a window shows nothing that the
# whole film hides. For that, run the notebook once more with `MEDBRIDGE_BENCHMARK=nih`: the same films at
# 1024 pixels, 45 GB. Any other benchmark of [data/README.md](../data/README.md) does too, from its folder
# in `MEDBRIDGE_DATA`, with its loader's options in `MEDBRIDGE_OPTIONS` (such as `splits=drawn` for a part of
# NIH without its official lists). `MEDBRIDGE_TARGETS` names sets that are only tested on, and
# `MEDBRIDGE_EXPERTS` other experts than the three below.

# %% tags=["nbval-ignore-output"]
if full_profile():
    if "google.colab" in sys.modules:
        from google.colab import drive

        drive.mount("/content/drive")
        os.environ.setdefault("MEDBRIDGE_CACHE", "/content/drive/MyDrive/medbridge-cache")
        os.environ.setdefault("MEDBRIDGE_RUNS", "/content/drive/MyDrive/medbridge-runs")
    name = os.environ.get("MEDBRIDGE_BENCHMARK", "chestmnist")
    data = Path(os.environ.setdefault("MEDBRIDGE_DATA", "medbridge-data"))
    if name == "chestmnist" or (name == "nih" and not (data / name).exists()):
        get(name, data / name)  # what is there already is not fetched again
    options = dict(pair.split("=") for pair in os.environ.get("MEDBRIDGE_OPTIONS", "").split())
    benchmark = BenchmarkRef.parse(name, options).load()
    elsewhere = [BenchmarkRef.parse(name).load() for name in os.environ.get("MEDBRIDGE_TARGETS", "").split()]
    names = os.environ.get("MEDBRIDGE_EXPERTS", "clip-vitb16 biomedclip siglip-vitb16").split()
    sampler, config = LARGE, TrainConfig()
    runs, cache = Path(os.environ.get("MEDBRIDGE_RUNS", "runs")) / f"notebook-12-{benchmark.name}", None

# %% tags=["nbval-ignore-output"]
if not full_profile():
    benchmark, elsewhere = load_benchmark("phantom-A", n_films=90), [load_benchmark("phantom-B", n_films=60)]
    names, sampler = ["tiny-resnet", "tiny-resnet-scenes"], FocalSampler(crop=0.6, overlap=0.0, extra=2)
    config = TrainConfig(epochs=4, batch_size=8)
    scratch = tempfile.TemporaryDirectory()  # a fresh cache, so that its filling can be seen
    runs, cache = Path(scratch.name) / "runs", Path(scratch.name) / "features"
experts = [create_expert(name) for name in names]
features = FeatureCache(cache, progress=full_profile(), features="auto" if full_profile() else "cache")
quiet, streamed = FeatureCache(cache, progress=False), FeatureCache(cache, progress=False, features="stream", fresh=False)


def new_model(labels=benchmark.labels):
    return MedBridge(experts, labels, sampler=sampler)


print(benchmark.name, {s: len(benchmark.split(s)) for s in ("train", "val", "test")})

# %% [markdown]
# ## 2. What will it cost?
#
# A frozen expert sees every view once. With $n$ films of $N_p$ views in the pool of each, and maps of $P_l$
# tokens of width $d_l$ at the depths $l$ that the queries read, each number taking $b$ bytes:
#
# $$\text{cache} = n\, N_p \sum_{k} \Big( b \sum_{l \in D_k} P_l\, d_l
# + 2\, \text{summary}_k \Big) \text{ bytes}, \qquad
# t_\text{fill} \approx \frac{n\, N_p \sum_k F_k}{u \cdot \text{FLOP/s}}, \qquad
# t_\text{epoch} \approx \frac{N}{N_p} \cdot \frac{\text{cache}}{\text{bytes/s}}$$
#
# $\text{summary}_k$ are the numbers of the summary, and of the embedding in the text space where there is
# one. $F_k$ is the work of one view, $u$ the share of the data sheet's speed that is reached, and $N$ the
# views that an epoch draws of the $N_p$: the whole film and at most four local views.
#
# The maps are **compact** (notebook [04](04_query_encoder.ipynb)): at most $P_l = 64$ patches, at most $d_l =
# 128$ components, one byte per number, $b = 1$. With `maps="full"` they are the tower's tokens as they are,
# in float16, $b = 2$.
#
# There is another way: to **stream**. Then the towers run inside the loop, on the $N$ views that a step
# draws, new ones in every epoch. Nothing is kept on the disk, and an epoch takes what the towers take for
# $n\,N$ views:
#
# $$t_\text{streamed epoch} \approx \frac{n\, N \sum_k F_k}{u \cdot \text{FLOP/s}}$$
#
# The first formula is exact. The others are **estimates** for GPUs that are not here: we take $u = 0.3$
# and a disk that gives 1 GB per second (a mounted Drive gives less). In the full profile the towers,
# decoding and the disk are measured on this machine for some seconds first.

# %%
reader = new_model()  # what is read depends on it: experts, depths, views, and bases that are not fitted yet
pool, local = len(sampler.training_boxes(1024, 1024, "any film")), len(sampler.inference_boxes(1024, 1024)) - 1
size = len(benchmark.split("train")), pool, 1 + min(local, config.local_views)
cost = cost_of_run(experts, reader.depths, *size, bases=reader.bases)
print(run_cost_table(cost, features.rates(reader, benchmark.split("train")) if full_profile() else None))

# %% [markdown]
# That is the training part. The whole of a set, with the films of val and test and their windows:

# %%
sets = {"ChestMNIST": (78_468, 33_652), "NIH ChestX-ray14": (86_524, 25_596)}  # training films, and the others
for title, (training_films, others) in sets.items():
    views = training_films * pool + others * (1 + local)
    print(f"{title}: {views:,} views, {views * cost.view / 1e9:.0f} GB with these experts and views")

# %% [markdown]
# **Read it before you start.** Does the cache fit on your Drive? The full profile takes four windows side
# by side and four random ones (`LARGE`): the whole of NIH ChestX-ray14 with its three experts is 44 GB,
# and would be 72 GB with the default windows. It lets `features="auto"` choose: the cache where it fits
# and pays within ten epochs, else the stream. `MEDBRIDGE_CACHE_LIMIT=50GB` makes the package refuse what
# would not fit, before anything is computed. What compact maps save depends on the tower: much for a
# transformer with many wide tokens, less for the tiny experts, whose maps are small already.

# %%
full = cost_of_run(experts, reader.depths, *size)
print(f"these experts, tokens as they are: {full.cache / cost.cache:.1f} times the bytes")
vit = 2 * 2 * 197 * 768, 2 * (1 + 49) * 128  # two depths of a ViT-B/16: 14 x 14 patches, averaged over squares of 2 x 2
print(f"maps of a ViT-B/16, one view: {vit[0] / 1e3:.0f} kB as they are, {vit[1] / 1e3:.1f} kB compact: {vit[0] / vit[1]:.0f} times the bytes")

# %% [markdown]
# ### Exercise 12.1: the size of a cache
# ★☆☆, 5 minutes. Write `cache_gigabytes(films, views, maps)`: gigabytes ($10^9$ bytes) of maps kept **as they
# are**, in float16, where `maps` lists (tokens, width) of each depth.
#
# <details><summary>Hint</summary>
# Two bytes per number; every view of every film has all the maps.
# </details>

# %%
def cache_gigabytes(films, views, maps):
    raise NotImplementedError


check("12.1", cache_gigabytes)

# %% [markdown]
# <details><summary>Solution</summary>
#
# Also in [solutions/12_full_gpu_training.ipynb](solutions/12_full_gpu_training.ipynb).
#
# ```python
# def cache_gigabytes(films, views, maps):
#     return 2 * films * views * sum(tokens * width for tokens, width in maps) / 1e9
# ```
# </details>

# %% [markdown]
# ## 3. Fill the cache, and be interrupted
#
# Threads decode films and cut views ahead of the experts; one thread writes behind them. What is written is a
# **shard**: many films in one file, named by its own checksum, written under another name, synced to the disk
# and only then renamed. A reader therefore sees a whole shard or none.
#
# Before the first shard, each expert's basis is fitted, without labels, to tokens of at most 256 training
# films. It is kept in the cache too, beside the shards, and another model of the same experts, depths and
# training films finds it there. Then we stop the filling in the middle, as a lost connection would:

# %%
train = benchmark.split("train")
quiet.fit_bases(train, experts, reader.bases, sampler)
assert all(basis.fitted for basis in reader.bases)


class LostError(Exception):
    """The connection is lost."""


class Unreliable(type(train)):
    """A benchmark whose films stop coming after some time."""

    reads = 0

    def read(self, i):
        type(self).reads += 1
        if type(self).reads > len(self) // 2:
            raise LostError
        return super().read(i)


if not full_profile():
    try:
        quiet.of(reader, Unreliable(**train.__dict__), training=True)
    except LostError:
        print("lost; shards that are there:", len(list(cache.glob("tiny*/*.safetensors"))) > 0)

# %% [markdown]
# The same call goes on with the films that are missing. What is on disk afterwards is what the formula said:

# %%
films = features.of(reader, train, training=True)
if not full_profile():
    on_disk = sum(p.stat().st_size for p in cache.glob("tiny*/*.safetensors"))  # the shards
    assert 0 <= on_disk - cost.cache < 0.02 * cost.cache
    print("the shards are as large as the formula says, to 2 %")

# %% [markdown]
# A **streamed** batch holds the same numbers, when it draws from the same pool: views are cut and encoded
# when the batch is moved to the model's device. A byte may differ by one, where a number lay between two:

# %%
if not full_profile():
    live = streamed.of(reader, train, training=True)
    kept, made = (collate([part[i].draw(np.random.default_rng([0, i])) for i in range(4)]).to("cpu") for part in (films, live))
    assert torch.equal(kept.boxes, made.boxes)
    for a, b in zip(kept.maps, made.maps, strict=True):
        assert all((x.int() - y.int()).abs().max() <= 1 for x, y in zip(a, b, strict=True))
    print("streamed and cached batches agree")

# %% [markdown]
# A damaged shard is noticed by its checksum, and its films are computed again. We flip one bit:

# %%
if not full_profile():
    before = films[0].summary[0].clone()
    victim = films.files[0][0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(data)
    films = quiet.of(reader, train, training=True)
    assert torch.allclose(films[0].summary[0].float(), before.float(), atol=2e-3)
    print("computed again, with the same values")

# %% [markdown]
# ## 4. Train, and be killed
#
# `notebook_launcher` starts the training on all GPUs of the machine; on one, or on none, it simply calls the
# function. Each process computes its share of every batch. The loss is a *masked* mean over known labels, so
# the shares must be weighted:
#
# $$L = \frac{\sum_{p} \sum_{(i,c) \in \mathcal{M}_p} \ell_{ic}}{\sum_p |\mathcal{M}_p|}
# = \sum_p \frac{|\mathcal{M}_p|}{|\mathcal{M}|}\, L_p$$
#
# with $\mathcal{M}_p$ the known labels of part $p$. The same weights make gradient accumulation exact
# (`TrainConfig(accumulate=4)`, for when a batch does not fit in memory). A check on random numbers that the
# package's passes add up to the undivided step:

# %%
for accumulate in (1, 3):
    parts = list(passes(list, *train.targets(), np.arange(len(train)), 8, accumulate))
    share, steps = sum(p.known for p in parts), sum(p.last for p in parts)
    assert np.isclose(share, steps) and sum(p.count for p in parts) == len(train)
print("the shares of a step's parts add up to one")

# %% [markdown]
# ### Exercise 12.2: the weights of the parts
# ★★☆, 10 minutes. Write `part_weights(mask, parts)`: `mask` is a boolean array (films, labels), True where
# the label is known; `parts` lists arrays of film numbers. Return one weight per part, such that the weighted
# sum of the parts' masked means is the masked mean of the whole step. A part, or a whole step, may hold no
# known label.
#
# <details><summary>Hint</summary>
# How many known labels does a part hold, and how many the step? Beware of dividing by zero.
# </details>

# %%
def part_weights(mask, parts):
    raise NotImplementedError


check("12.2", part_weights)

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def part_weights(mask, parts):
#     known = mask[np.concatenate(parts)].sum()
#     return [mask[part].sum() / max(known, 1) for part in parts]
# ```
# </details>

# %% [markdown]
# Now the training, once undisturbed (this is also the result that we keep):

# %% alt="training curves of MedBridge on PhantomCXR (synthetic), four epochs: training loss and mean validation AUC, with a line at the epoch that is kept" tags=["nbval-ignore-output"]
from accelerate import notebook_launcher

from medbridge.viz import plots


def training(folder, save_steps=500):
    model = new_model()
    parts = features.of(model, benchmark.split("train"), training=True), features.of(model, benchmark.split("val"))
    history = fit(model, *parts, config, folder, progress=full_profile(), save_steps=save_steps)
    save_adapter(model, folder)
    return model, history


results = []
notebook_launcher(lambda: results.append(training(runs / "main")), num_processes=1)
model, history = results[0]
plots.training_curves(history.rows, history.best_epoch,
                      None if full_profile() else "MedBridge on PhantomCXR (synthetic), four epochs")

# %% [markdown]
# **What to see.** Four epochs on a few dozen synthetic films say nothing about quality; the point is what
# comes next. This is one network, as `MedBridge(...)` makes it: for a set as large as the full profile's one
# member is enough to begin with. `medbridge adapt` trains five cross-fitted members and a read-out
# (`medbridge.model.CROSS_FITTED`, notebook [06](06_assembling_and_training.ipynb)), all of them in the same
# run and from the same cache. On several GPUs give `notebook_launcher(..., num_processes=N)` a function that
# builds its model *inside* and leaves its result on disk, before the notebook has used CUDA itself.
#
# A second training with the same seed runs in a process of its own, with a checkpoint after every step, and
# is killed with `SIGKILL`, which no program can catch, as soon as a few steps are done. Then the same call
# again. If the resumed run equals the undisturbed one **bit by bit**, nothing was forgotten: weights, the
# optimiser's momentum, the moving average, the position in the epoch, the random numbers of dropout.

# %%
program = """
import sys
from medbridge import FeatureCache, FocalSampler, MedBridge, TrainConfig, create_expert, fit, load_benchmark
films = load_benchmark("phantom-A", n_films=90)
model = MedBridge([create_expert(n) for n in ("tiny-resnet", "tiny-resnet-scenes")], films.labels,
                  sampler=FocalSampler(crop=0.6, overlap=0.0, extra=2))
cache = FeatureCache(sys.argv[2], progress=False)
parts = cache.of(model, films.split("train"), training=True), cache.of(model, films.split("val"))
fit(model, *parts, TrainConfig(epochs=4, batch_size=8), sys.argv[1], progress=False, save_steps=1)
"""

# %%
import signal
import subprocess
import time

if not full_profile():
    checkpoint = runs / "killed" / "checkpoint.pt"
    process = subprocess.Popen([sys.executable, "-c", program, str(checkpoint.parent), str(cache)])
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    steps = torch.load(checkpoint, weights_only=True)["step"]
    resumed, again = training(checkpoint.parent, save_steps=1)
    undisturbed = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in again.rows] == undisturbed
    assert all(torch.equal(p, resumed.trainable()[k]) for k, p in model.trainable().items())
    print("killed within the run:", 0 < steps <= 4 * -(-len(train) // 8))
    print("the resumed run equals the undisturbed one, bit by bit")

# %% [markdown]
# ### Exercise 12.3: a snapshot that forgets nothing
# ★★★, 15 minutes. `Walk` is a small training run: `weights`, `momentum`, `step` and a NumPy generator `rng`;
# `advance(steps)` changes them, the arrays **in place**. Write `save(walk)`, which returns a state, and
# `load(walk, state)`, which puts it into a *new* walk, so that it goes on bit by bit as the old one would
# have.
#
# <details><summary>Hint</summary>
# A generator's state is <code>rng.bit_generator.state</code>, which can be read and set. What changes in
# place must be copied when it is saved, or it moves on with the run. <code>copy.deepcopy</code> copies
# dictionaries of arrays.
# </details>

# %%
import copy  # noqa: F401


def save(walk):
    raise NotImplementedError


def load(walk, state):
    raise NotImplementedError


check("12.3", (save, load))

# %% [markdown]
# <details><summary>Solution</summary>
#
# ```python
# def save(walk):
#     return copy.deepcopy({"weights": walk.weights, "momentum": walk.momentum, "step": walk.step,
#                           "rng": walk.rng.bit_generator.state})
#
#
# def load(walk, state):
#     state = copy.deepcopy(state)
#     walk.weights, walk.momentum, walk.step = state["weights"], state["momentum"], state["step"]
#     walk.rng.bit_generator.state = state["rng"]
# ```
# </details>

# %% [markdown]
# ## 5. All three tasks
#
# In-domain multi-label on the source's own test patients, cross-domain over the labels that another hospital
# shares, and in-domain binary, one finding against the rest, which trains a model of its own **on the same
# cached features**: only the small part is new. Scores of films come with intervals over patients.

# %% tags=["nbval-ignore-output"]
from medbridge.data.tasks import make_targets, one_label
from medbridge.metrics.evaluate import evaluate
from medbridge.predict import predict


def score(model, target):
    p = predict(model, quiet.of(model, target.test), progress=False).select(target.columns).probabilities
    y, mask = target.test.targets()
    return evaluate(y, p, mask, target.test.table["patient_id"], target.test.labels).macro


finding = "Cardiomegaly" if "Cardiomegaly" in benchmark.labels else benchmark.labels[0]
binary = one_label(benchmark, finding)
narrow = new_model(binary.labels)
parts = features.of(narrow, binary.split("train"), training=True), features.of(narrow, binary.split("val"))
fit(narrow, *parts, config, runs / "binary", progress=full_profile())
rows = [("in-domain, multi-label", model, benchmark, benchmark)]
rows += [(f"cross-domain: {other.name}", model, benchmark, other) for other in elsewhere]
rows += [(f"in-domain, binary: {finding}", narrow, binary, binary)]
found = {name: score(m, make_targets(source, [test])[0]) for name, m, source, test in rows}
for name, m in found.items():
    print(f"{name:<45} AUC {m['auc']:.2f} [{m['lo']:.2f}, {m['hi']:.2f}]")

# %%
assert all(0 <= m["lo"] <= m["auc"] <= m["hi"] <= 1 for m in found.values()) and len(found) == 2 + len(elsewhere)
print(len(found), "tasks scored")

# %% [markdown]
# **What to see.** Wide intervals: a handful of synthetic test patients. In the full profile the same cell
# scores thousands.
#
# After a disconnect, run the notebook from the top: features and checkpoint are found, and it goes on where
# it stopped. How a million films would be handled is worked out in [docs/scale.md](../docs/scale.md).

# %%
if not full_profile():
    scratch.cleanup()

# %% [markdown]
# ## Summary
#
# - Frozen features are computed once, in a basis that needs no labels, or streamed, anew for every step. The
#   size of the cache can be known exactly before; the time is an estimate until it is measured.
# - A file that is written, synced and renamed is whole or absent; a checksum finds what breaks later.
# - Masked means are joined by their known labels, whether parts follow each other or run on several GPUs.
# - A checkpoint holds all that the next step depends on, random numbers included; the test is equality bit by
#   bit after a kill.
#
# Next: {{NEXT}}
