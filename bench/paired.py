"""An expert for (d) of ``bench/speed.py``: towers of the size that real experts have, images and texts in one space.

Vision is timm's ``vit_small_patch14_dinov2``, with the weights in a file that the caller names. The text tower has the shape of
CLIP ViT-B/32's and random weights. What joins them is one linear layer behind the vision tower. It is fitted here, on PhantomCXR
films (synthetic) that the race does not use: the difference between a film's similarities to the two prompts of a label becomes
what a ridge regression says of it. So zero-shot classification works, and prompts can be learned.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import timm
import torch
from open_clip.model import CLIP
from rig import FIVE
from sklearn.linear_model import RidgeCV

from medbridge import load_benchmark
from medbridge.experts.clip import OpenClipExpert
from medbridge.focal import extract_views
from medbridge.prompts import encode_prompts

_TRUNK = "vit_small_patch14_dinov2"


def paired_expert(weights: str | None, films: int = 100) -> OpenClipExpert:
    """The expert.

    Args:
        weights: safetensors of timm's ``vit_small_patch14_dinov2.lvd142m``; ``None``: random weights.
        films: of PhantomCXR (seed 1), to join the towers with.

    Raises:
        FileNotFoundError: no such file.
    """
    if weights is not None and not Path(weights).is_file():
        raise FileNotFoundError(f"--tower {weights}: no such file; it is model.safetensors of "
                                "https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = {"timm_model_name": _TRUNK, "timm_pool": "", "timm_proj": "linear", "timm_proj_bias": True, "image_size": 224}
        model = CLIP(512, vision, open_clip.get_model_config("ViT-B-32")["text_cfg"])
        model.visual.trunk = timm.create_model(
            _TRUNK, pretrained=weights is not None, pretrained_cfg_overlay={"file": weights}, img_size=224, num_classes=0)
    name = f"DINOv2 ViT-S/14 ({'random' if weights is None else 'trained'} weights) with a text tower of CLIP's size"
    expert = OpenClipExpert(name, model, open_clip.get_tokenizer("ViT-B-32"))
    _join(expert, films)
    return expert


@torch.no_grad()
def _join(expert: OpenClipExpert, films: int) -> None:
    benchmark = load_benchmark("phantom", n_films=films, seed=1)
    visual, rows = expert.model.visual, []
    for i in range(films):
        film = benchmark.read(i)
        views = extract_views(film, FIVE.inference_boxes(*film.shape), *expert.view_kind)
        rows.append(visual.trunk(expert.preprocess(views)).mean(dim=0))
    x = torch.stack(rows)
    mean, deviation = x.mean(dim=0), x.std(dim=0)
    fitted = RidgeCV(alphas=(10.0, 100.0, 1000.0)).fit(((x - mean) / deviation).numpy(), benchmark.targets()[0])
    probe = torch.from_numpy(fitted.coef_).float() / deviation  # (C, image width)
    positive, negative = encode_prompts(expert, benchmark.labels)
    back = torch.linalg.pinv(positive - negative)  # (text_dim, C)
    common = (positive + negative).mean(dim=0)  # what all texts share says nothing for or against a label
    common = common - back @ ((positive - negative) @ common)
    proj = visual.head.proj
    proj.weight.copy_(back @ probe)
    proj.bias.copy_(common / common.norm() - back @ (probe @ mean))
