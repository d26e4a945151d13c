"""Our baselines give what the authors' own code gave: logits at the start and after each of two steps, to 1e-5.

The constants are what these commits gave in float32, on the numbers of :func:`numbers`: gaopengcuhk/Tip-Adapter d0e2d6f,
gaopengcuhk/CLIP-Adapter 08d07f8, KaiyangZhou/CoOp ff61507, muzairkhattak/multimodal-prompt-learning 69bce21 (widths 512 and 768,
which stand in its code, set to 64 and 128). A label is the contest of two of their classes, present and absent, under their
softmax loss; CoOp and CoCoOp learn a context for each of the two. Steps are SGD with momentum, or Tip-Adapter-F's own AdamW.
"""

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP

from medbridge.baselines.clip_adapter import FeatureAdapter
from medbridge.baselines.cocoop import ConditionalContext
from medbridge.baselines.coop import LearnedContext
from medbridge.baselines.maple import CoupledPrompts
from medbridge.baselines.tip_adapter import KeyValueCache, cache_values
from medbridge.experts import OpenClipExpert
from medbridge.losses import masked_bce

LABELS, SCALE = ["Wide_Bar", "square"], float(np.exp(3.0))
TARGETS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
AUTHORS = {  # three steps, three films, two labels: their logit of present minus that of absent
    "CoOp": [[[0.072506, 1.094547], [-2.434251, -0.677058], [-1.051709, 0.866769]],
             [[-0.054806, 0.121407], [-2.450329, 0.289651], [-0.219483, 2.474592]],
             [[-0.205443, -1.138917], [-2.451088, 1.697536], [0.977308, 4.39671]]],
    "CoCoOp": [[[0.843183, 0.599764], [-2.302776, -0.448242], [-4.316555, 0.421325]],
               [[0.624835, -0.247853], [-2.193274, 0.427007], [-2.996539, 0.97984]],
               [[0.222813, -0.961931], [-2.019381, 1.502257], [-0.898518, 1.527099]]],
    "MaPLe": [[[-0.800837, -0.268472], [2.883829, -3.360001], [-4.944057, -0.225929]],
              [[-0.301208, -0.056262], [0.179506, 0.061721], [-3.704443, -0.191594]],
              [[1.041855, 0.0321], [-1.43135, 2.707417], [-1.705083, -0.358747]]],
    "CLIP-Adapter": [[[-2.382019, 5.212367], [-2.134333, 5.032169], [-7.37152, 3.412048]],
                     [[-2.315359, 5.207079], [-2.114208, 5.037469], [-7.273261, 3.420172]],
                     [[-2.184555, 5.195957], [-2.081086, 5.042855], [-7.080497, 3.43516]]],
    "Tip-Adapter-F": [[[-17.84421, 25.803904], [-13.624189, 30.486317], [-43.360821, 20.350868]],
                      [[-17.837732, 25.792288], [-13.625974, 30.487909], [-43.346573, 20.348764]],
                      [[-17.833427, 25.782244], [-13.627323, 30.489098], [-43.335583, 20.347185]]],
}


def numbers(*shape, seed=0, size=1.0):
    """The same numbers in [-size, size) everywhere: whole numbers modulo a prime."""
    k = torch.arange(int(np.prod(shape)))
    return (((k * k * 7919 * (2 * seed + 3) + 17 * k + seed) % 9973).double() / 9973 * 2 - 1).mul(size).float().reshape(shape)


def fill(module):
    """Put such numbers in place of a module's parameters, by their names."""
    for name, p in module.named_parameters():
        seed = sum(j * ord(letter) for j, letter in enumerate(name, start=1))
        around = float(p.dim() < 2 and name.endswith("weight"))  # the scales of norms
        p.data = around + numbers(*p.shape, seed=seed, size=0.2 if p.dim() < 2 else 2 / p[0].numel() ** 0.5)


@pytest.fixture(scope="module")
def expert():
    """OpenAI's architecture, three blocks in both towers: 32 px in patches of 16, widths 128 and 64, 32 shared dimensions."""
    vision = {"image_size": 32, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3}
    with torch.random.fork_rng(devices=[]):
        model = CLIP(32, vision, text, quick_gelu=True)
    fill(model)
    model.logit_scale.data = torch.tensor(3.0)
    return OpenClipExpert("small-openai", model, open_clip.get_tokenizer("ViT-B-32", context_length=16))


def check(name, module, inputs, optimizer, scheduler=None, labels=slice(None)):
    for step, want in enumerate(AUTHORS[name]):
        logits, targets = module(*inputs), TARGETS[:, labels]
        assert (logits - torch.tensor(want)[:, labels]).abs().max() < 1e-5, f"step {step}"
        optimizer.zero_grad()
        # the mean over labels and films of the binary loss is the mean over contests of the softmax loss
        masked_bce(logits, targets, torch.ones_like(targets, dtype=torch.bool)).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def sgd(module):
    trained = [p for p in module.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=0.02, momentum=0.9, weight_decay=5e-4)


def unit(*shape, seed):
    return F.normalize(numbers(*shape, seed=seed), dim=1)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp"])
def test_coop_and_cocoop(name, expert):
    kind, extra = {"CoOp": (LearnedContext, ()), "CoCoOp": (ConditionalContext, (32,))}[name]
    module = kind(expert, LABELS, SCALE, 2, *extra)
    module.positive.data, module.negative.data = (numbers(2, 64, seed=seed, size=0.5) for seed in (20, 21))
    if name == "CoCoOp":
        meta = torch.nn.Module()
        meta.linear1, meta.linear2 = module.meta[0], module.meta[2]  # by the authors' names
        fill(meta)
    check(name, module, [unit(3, 32, seed=11)], sgd(module))


def test_maple(expert):
    module = CoupledPrompts(expert, LABELS, 2, 2)
    assert len(module.prompts) == 2  # of three blocks: the last goes on with the prompts of the second
    for i, (prompt, layer) in enumerate(zip(module.prompts, module.couple, strict=True)):
        prompt.data = numbers(2, 64, seed=20 + i, size=0.5)
        layer.weight.data, layer.bias.data = numbers(128, 64, seed=30 + i, size=0.25), numbers(128, seed=40 + i, size=0.1)
    views = (numbers(3, 1, 32, 32, seed=12) + 1) / 2
    check("MaPLe", module, [views, torch.ones(3, 1, dtype=torch.bool)], sgd(module))


def test_clip_adapter():
    positive, negative = unit(2, 32, seed=60), unit(2, 32, seed=61)
    module = FeatureAdapter(positive, negative, SCALE, alpha=0.2, reduction=4)
    module.down.weight.data, module.up.weight.data = numbers(8, 32, seed=50, size=0.5), numbers(32, 8, seed=51, size=0.5)
    check("CLIP-Adapter", module, [numbers(3, 32, seed=11)], sgd(module))


@pytest.mark.parametrize("label", [0, 1])
def test_tip_adapter_and_tip_adapter_f(label):
    """With as many films present as absent, three each, their alpha of 1.17 is ours of 3 x 1.17. One label: one cache each."""
    at = slice(label, label + 1)
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])[:, at]
    values, direction = cache_values(y, torch.ones_like(y, dtype=torch.bool)), unit(2, 32, seed=60) - unit(2, 32, seed=61)
    keys, films = unit(6, 32, seed=13), unit(3, 32, seed=11)
    fixed, free = (KeyValueCache(keys, values, direction[at], 100.0, 3 * 1.17, 5.5, train_keys) for train_keys in (False, True))
    assert (fixed(films) - torch.tensor(AUTHORS["Tip-Adapter-F"][0])[:, at]).abs().max() < 1e-5
    optimizer = torch.optim.AdamW([free.keys], lr=0.01, eps=1e-4)
    check("Tip-Adapter-F", free, [films], optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3), at)
