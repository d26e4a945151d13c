"""Small experts of random weights, random targets and scores, films that exist in a table alone, features of random views."""

import numpy as np
import open_clip
import pandas as pd
import torch
from open_clip.model import CLIP

from medbridge.data import Benchmark
from medbridge.experts import OpenClipExpert
from medbridge.features.batch import Batch


def draw(n=200, c=3, seed=0, ties=False):
    """Targets, scores in [0, 1], what is known, and the patient of each film."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, c)) < 0.3).astype(float)
    scores = rng.random((n, c)) * 0.7 + 0.3 * y
    if ties:
        scores = np.round(scores * 20) / 20
    return y, scores, rng.random((n, c)) >= 0.2, rng.integers(0, n // 3, n)


def toy(patients, labels):
    """A benchmark of one film per entry of ``patients``, with columns of labels."""
    images = [f"{i}.png" for i in range(len(patients))]
    table = pd.DataFrame({"image": images, "patient_id": patients, "split": "train", **labels})
    return Benchmark("toy (synthetic)", ".", tuple(labels), table, synthetic=True)


def feature_batch(model, films=3, views=4, seed=0):
    """What a model reads of random views."""
    g = torch.Generator().manual_seed(seed)
    maps, summary = [], []
    for k, (expert, depths) in enumerate(zip(model.experts, model.depths, strict=True)):
        x = torch.rand(films * views, expert.size, expert.size, generator=g)
        out = expert.encode_maps(expert.preprocess(x), depths)
        found = {d: out.maps[d].clone() for d in depths}
        if model.bases is not None:
            if not model.bases[k].fitted:
                model.bases[k].fit({d: m.flatten(0, 1) for d, m in found.items()}, out.summary.clone())
            found = {d: model.bases[k](m, d) for d, m in found.items()}
        maps.append([(m if m.dtype == torch.int8 else m.half()).unflatten(0, (films, views)) for m in found.values()])
        summary.append(out.summary.clone().half().unflatten(0, (films, views)))
    return Batch(maps, summary, torch.rand(films, views, 4, generator=g), torch.ones(films, views, dtype=torch.bool))


def perturbed(model, size=0.1):
    """The model in eval mode, none of its trained numbers as it began: a check on zeros passes whatever one writes."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        for p in model.trainable().values():
            p.add_(size * torch.randn_like(p))
    return with_bases(model).eval()


def with_bases(model):
    """The model, with bases for compact maps that were fitted to random views."""
    feature_batch(model)
    return model


def small_expert(name, layers, width=32, embed=24, vision=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name) + layers)
        vision = vision or {"image_size": 32, "layers": layers, "width": width, "head_width": 16, "patch_size": 8}
        model = CLIP(embed, vision, {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1})
    return OpenClipExpert(name, model, open_clip.get_tokenizer("ViT-B-32", context_length=16))


def edit(path, old, new):
    """Replace the first ``old`` in a text file, which must be there."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
