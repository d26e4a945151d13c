# %% [markdown]
# # 01 Vision-language models and zero-shot: solutions
#
# {{COLAB}}
#
# The exercises of [01 Vision-language models and zero-shot](../01_vlms_and_zero_shot.ipynb), solved and checked. Under
# a minute on a CPU. All pictures and films are synthetic. For research and education, not for clinical use.

# %%
# {{SETUP}}

# %%
import sys

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from medbridge import FocalSampler, create_expert, load_benchmark
from medbridge.baselines import ZeroShot
from medbridge.course import check, seed_everything
from medbridge.features.cache import FeatureCache
from medbridge.prompts import ClassPrompts, class_prompts

sys.path.insert(0, "../../scripts")
from procedural_images import WORDS, scenes

rng = seed_everything(0)
experts = [create_expert("tiny-vit"), create_expert("tiny-resnet")]

# %% [markdown]
# ### Exercise 1.1: a loss for captions that repeat
#
# What is left out gets a logit of minus infinity, in both directions at once. The diagonal stays: a pair is always its
# own right answer.

# %%
def info_nce(image: torch.Tensor, text: torch.Tensor, scale: float, same: torch.Tensor) -> torch.Tensor:
    pairs = torch.arange(len(image))
    others = same & ~torch.eye(len(image), dtype=torch.bool)
    logits = (scale * image @ text.T).masked_fill(others, float("-inf"))
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


check("1.1", info_nce)

# %% [markdown]
# What repetition does. Take a perfect model: each picture lies exactly on its caption, and different captions are at right
# angles. Give it 32 pairs, each twice. CLIP's loss calls half of the right answers wrong, so even this model pays
# $\log 2$; the loss that knows of repeats is zero.

# %%
perfect = torch.eye(32).tile(2, 1)
same = torch.eye(32, dtype=torch.bool).tile(2, 2)
plain = info_nce(perfect, perfect, 100.0, torch.eye(64, dtype=torch.bool))
aware = info_nce(perfect, perfect, 100.0, same)
torch.testing.assert_close(plain, torch.tensor(2.0).log())
torch.testing.assert_close(aware, torch.tensor(0.0))
print(f"a perfect model, every pair twice: CLIP's loss {plain:.2f}, the loss that knows of repeats {abs(aware):.2f}")

# %% [markdown]
# The shipped model on 32 held-out scenes, each twice, is not perfect; but the part of its loss that repetition adds is gone.

# %%
batch = scenes(32, 2_000_001)
vit = experts[0]
u = vit.encode_maps((batch.images - vit.mean) / vit.std, []).embed.tile(2, 1)
v = vit.encode_text(batch.captions).tile(2, 1)
scale = vit.model.logit_scale.exp().item()
same = torch.tensor([[a == b for b in batch.captions] for a in batch.captions]).tile(2, 2)
assert info_nce(u, v, scale, same) < info_nce(u, v, scale, torch.eye(64, dtype=torch.bool))
print("tiny-vit: the loss that knows of repeats is lower")

# %% [markdown]
# ### Exercise 1.2: every prompt a class of its own
#
# `logsumexp` minus the logarithm of the count is the logarithm of the mean of exponentials, without overflow at scale
# 100.

# %%
def prompt_score(image, positive, negative, scale=100.0):
    def evidence(side: torch.Tensor) -> torch.Tensor:
        return (scale * image @ side.T).logsumexp(dim=1) - np.log(len(side))

    return torch.sigmoid(evidence(positive) - evidence(negative))


check("1.2", prompt_score)

# %% [markdown]
# With one prompt on each side it is the score of the lesson: a sigmoid of the difference of two cosines.

# %%
bright, dark = vit.encode_text(["a large bright disc"]), vit.encode_text(["a large dark disc"])
torch.testing.assert_close(prompt_score(u, bright, dark), torch.sigmoid(100 * (u @ (bright - dark).T)[:, 0]), atol=1e-4, rtol=1e-4)
print("equal to the two-way softmax")

# %% [markdown]
# ### Exercise 1.3: better prompts
#
# The heart lies in the lower middle of the film; an enlarged heart is a larger bright shape. All words are words that
# the experts have read.

# %%
my_prompts = ClassPrompts(
    positive=("a large bright blob in the bottom", "a large bright blurry disc in the centre",
              "a large bright blob in the centre"),
    negative=("a small bright blob in the bottom", "a small bright blurry disc in the centre",
              "a medium bright blob in the centre"),
)
check("1.3", my_prompts)

# %%
strange = {w for text in (*my_prompts.positive, *my_prompts.negative) for w in text.split()} - WORDS
assert not strange
print("words that no caption held:", len(strange))

# %% [markdown]
# On validation films, beside the default prompts. There are few films with the finding: a difference here may be luck.

# %% tags=["nbval-ignore-output"]
films = load_benchmark("phantom-A", n_films=240).split("val")
features = FeatureCache(progress=False).films(films, experts, [[], []], FocalSampler(local=False))
truth = films.table["Cardiomegaly"].to_numpy()
for name, prompts in (("default prompts", class_prompts("Cardiomegaly")), ("our prompts", my_prompts)):
    score = ZeroShot(experts, ["Cardiomegaly"], prompts={"Cardiomegaly": prompts}).predict_proba(features)[:, 0]
    print(f"{name:<16} validation AUC {roc_auc_score(truth, score):.2f} ({int(truth.sum())} of {len(truth)} synthetic films have it)")
