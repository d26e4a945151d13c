# %% [markdown]
# # 00 Start here: solutions
#
# {{COLAB}}
#
# The exercises of [00 Start here](../00_start_here.ipynb), solved and checked. Runs in a few seconds on a CPU. The one
# film here is synthetic. For research and education, not for clinical use.

# %%
# {{SETUP}}

# %%
import torch

from medbridge import MedBridge
from medbridge.course import check, seed_everything
from medbridge.data.phantom.benchmark import LABELS, make_film
from medbridge.features.batch import collate
from medbridge.predict import film_features

rng = seed_everything(0)
model = MedBridge(["tiny-vit", "tiny-resnet"], LABELS, maps="full").eval()  # maps as they are need no basis
film = make_film(seed=1).image / 255.0  # synthetic
features, boxes = film_features(model, film)

# %% [markdown]
# ### Exercise 0.1: how much does a frozen expert say about one film?
#
# Patches and prefix tokens are the tokens of one map; each is a vector of `width` numbers, in each view and at each
# depth.

# %%
def numbers_per_film(views: int, rows: int, columns: int, prefix: int, width: int, depths: int) -> int:
    tokens = rows * columns + prefix
    return views * tokens * width * depths


check("0.1", numbers_per_film)

# %% [markdown]
# The frozen maps of a real film hold as many numbers as the function says. (In a ViT all depths have the same width and
# grid.)

# %%
vit = model.experts[0]
counted = sum(m.numel() for m in features.maps[0])
assert counted == numbers_per_film(len(boxes), *vit.grids[-1], vit.prefix, vit.widths[-1], len(model.depths[0]))
print(f"{vit.name} says {counted:,} numbers about one film of {film.size:,} pixels")

# %% [markdown]
# ### Exercise 0.2: mix the experts yourself
#
# The sum runs over the experts, dimension 1. The sigmoid comes last, because MedBridge mixes logits.

# %%
def mixture(expert_logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights * expert_logits).sum(dim=1).sigmoid()


check("0.2", mixture)

# %%
with torch.inference_mode():
    output = model(collate([features]))
torch.testing.assert_close(mixture(output.expert_logits, output.weights), output.logits.sigmoid())
print("equal to the model's own mixture")

# %% [markdown]
# ### Exercise 0.3: how much of it is trained?

# %%
def trainable_share(model: torch.nn.Module) -> float:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return trained / sum(p.numel() for p in model.parameters())


check("0.3", trainable_share)

# %%
assert 0 < trainable_share(model) < 1
print(f"trained: {100 * trainable_share(model):.0f} % of the parameters")
