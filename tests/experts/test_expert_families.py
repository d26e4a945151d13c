"""Every architecture family that open_clip ships, small and with random weights: splitting the tower anywhere loses nothing."""

import re
from unittest import mock

import open_clip
import pytest
import timm
import torch

from medbridge.errors import ExpertError
from medbridge.experts import OpenClipExpert
from medbridge.experts.info import _known, expert_info
from medbridge.experts.registry import ExpertName
from medbridge.experts.timm_vision import TimmExpert

OWN = {"width": 32, "head_width": 16, "layers": 3, "patch_size": 8, "image_size": 32}
THIN = {"embed_dim": 32, "depth": 3, "num_heads": 2}

FAMILIES = {
    "ViT (CLIP, OpenCLIP)": ("ViT-B-32", OWN, {}),
    "ViT, QuickGELU (CLIP, MetaCLIP)": ("ViT-B-32-quickgelu", OWN, {}),
    "ViT, layer scale": ("ViT-M-16-alt", OWN, {}),
    "ViT, CLIPA": ("ViT-L-14-CLIPA", OWN, {}),
    "ViT, CoCa": ("coca_ViT-B-32", OWN | {"attn_pooler_heads": 2}, {}),
    "ViT, CoCa without attention pooling": ("coca_base", OWN, {}),
    "ModifiedResNet": ("RN50", {"layers": [1, 2, 1, 1], "width": 8, "head_width": 16, "image_size": 64}, {}),
    "EVA": ("EVA01-g-14", {}, THIN | {"img_size": 56}),
    "EVA-02": ("EVA02-B-16", {}, THIN | {"img_size": 64}),
    "SigLIP": ("ViT-B-16-SigLIP", {}, THIN | {"img_size": 64}),
    "SigLIP 2": ("ViT-B-32-SigLIP2-256", {}, THIN | {"img_size": 64}),
    "Perception Encoder": ("PE-Core-T-16-384", {}, THIN | {"img_size": 64, "attn_pool_num_heads": 2}),
    "MobileCLIP ViT": ("MobileCLIP-B", {}, {"depth": 2, "img_size": 64}),
    "MobileCLIP FastViT": ("MobileCLIP2-S0", {}, {"layers": (1, 2, 1, 1), "embed_dims": (16, 16, 32, 32)}),
    "ViTamin": ("ViTamin-S", {}, {"depth": 2}),
    "ConvNeXt": ("convnext_tiny", {}, {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32)}),
    "ConvNeXt, MLP head": ("convnext_large_d", {}, {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "Swin": ("swin_base_patch4_window7_224", {}, {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 2)}),
    "ViT, averaged": ("vit_medium_patch16_gap_256", {}, THIN | {"img_size": 64}),
    "ViT, relative positions": ("vit_relpos_medium_patch16_cls_224", {}, THIN | {"img_size": 64}),
}


def small(model_name, vision=None, trunk=None):
    """An expert of open_clip model ``model_name`` with a small tower and text tower."""
    config = open_clip.get_model_config(model_name)
    text = {"context_length": 8, "vocab_size": 100, "width": 16, "heads": 2, "layers": 1}
    kept = {k: config["text_cfg"][k] for k in ("embed_cls", "output_tokens", "pool_type", "no_causal_mask", "proj_bias")
            if k in config["text_cfg"]}
    real = timm.create_model
    # the width of the text space: that of a SigLIP trunk without a projection is the trunk's own
    options = {"embed_dim": 32, "vision_cfg": config["vision_cfg"] | (vision or {}), "text_cfg": text | kept}
    if trunk and "img_size" in trunk:
        options["vision_cfg"]["image_size"] = trunk["img_size"]
    if "multimodal_cfg" in config:
        options["multimodal_cfg"] = text | {"mlp_ratio": 2}
    with (torch.random.fork_rng(devices=[]), mock.patch.object(
            timm, "create_model", lambda name, **given: real(name, **given | (trunk or {})))):
        torch.manual_seed(0)
        model = open_clip.create_model(model_name, pretrained_text=False, **options)
        for name, p in model.visual.named_parameters():  # towers start near the identity: that would hide what they lose
            if p.dim() > 1:
                p.data.normal_(std=p[0].numel() ** -0.5)
            elif not name.endswith("bias"):
                p.data.fill_(1)
    return OpenClipExpert(model_name, model, lambda texts: torch.ones(len(texts), 8, dtype=torch.long))


@pytest.mark.parametrize("family", FAMILIES)
def test_splitting_the_tower_at_every_depth_and_finishing_it_equals_encode_image(family):
    expert = small(*FAMILIES[family])
    x = torch.randn(2, 3, expert.size, expert.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        want = torch.nn.functional.normalize(expert.model.encode_image(x), dim=-1)
        blank = torch.nn.functional.normalize(expert.model.encode_image(torch.zeros_like(x)), dim=-1)
    assert (want - blank).abs().max() > 1e-3 and (want[0] - want[1]).abs().max() > 1e-4  # the tower looks at its image
    whole = expert.encode_maps(x, range(1, expert.depth + 1))
    torch.testing.assert_close(whole.embed, want, rtol=0, atol=1e-5)
    assert expert.depth == len(expert.widths) == len(expert.grids) >= 2
    for depth in range(1, expert.depth + 1):
        rows, columns = expert.grids[depth - 1]
        assert whole.maps[depth].shape == (2, expert.prefix + rows * columns, expert.widths[depth - 1])
        rest = expert.finish(whole.maps[depth], depth)
        torch.testing.assert_close(rest.embed, want, rtol=0, atol=1e-5, msg=f"depth {depth}")
        torch.testing.assert_close(rest.summary, whole.summary, rtol=0, atol=1e-5)


def _family(model_name):
    """What a tower's building code depends on: its kind and which options are set, not how large they are."""
    vision = open_clip.get_model_config(model_name)["vision_cfg"]
    if trunk := vision.get("timm_model_name"):
        module = timm.models._registry._model_to_module[trunk.split(".")[0]]
        form = re.sub("[0-9]+|tiny|small|base|large|huge|giant", "", trunk)
        return module, vision.get("timm_pool"), vision.get("timm_proj"), form
    sizes = ("image_size", "layers", "width", "mlp_ratio")
    return isinstance(vision["layers"], list), *sorted(k for k in vision if k not in sizes)


NAMED = open_clip.list_pretrained()
EACH = {_family(model): (model, tag) for model, tag in reversed(NAMED)}  # of each kind the first that is listed


def test_every_entry_of_list_pretrained_is_a_name_that_experts_take():
    for model, tag in NAMED:
        name = f"open_clip:{model}/{tag}"
        files, build = _known(name, ExpertName.of(name))
        assert files[0] == f"{model}-{tag}.safetensors" and build is not None and _family(model) in EACH
    assert len(NAMED) > 150 and len(EACH) >= 15


@pytest.mark.parametrize("name", ["/".join(entry) for entry in EACH.values()])
def test_every_kind_of_tower_in_list_pretrained_is_supported_at_full_size(name):
    """On the meta device: shapes of the real configuration, without numbers and without weights."""
    card = expert_info(f"open_clip:{name}")
    assert card.depth >= 4 and card.width >= 64 and card.parameters > 1e6 and card.size >= 224


def test_no_block_runs_twice():
    expert = small(*FAMILIES["SigLIP"])
    runs = []
    for block in expert.blocks():
        block.register_forward_hook(lambda *_: runs.append(1))
    expert.encode_maps(torch.zeros(1, 3, expert.size, expert.size), [1, 3])
    assert len(runs) == expert.depth == 3


def test_a_map_that_lost_something_does_not_finish_to_the_same():
    expert = small(*FAMILIES["ViT (CLIP, OpenCLIP)"])
    whole = expert.encode_maps(torch.rand(1, 3, 32, 32), [1, 3])
    spoilt = whole.maps[1].clone()
    spoilt[:, 0] = 0
    assert (expert.finish(spoilt, 1).embed - whole.embed).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"maps \(B, 17, 32\) at depth 1, got \(1, 16, 32\)"):
        expert.finish(whole.maps[1][:, 1:], 1)


@pytest.mark.parametrize(("model_name", "options"), [
    ("vit_tiny_patch16_224", THIN | {"img_size": 32}),
    ("vit_small_patch16_dinov3", THIN | {"img_size": 32}),
    ("resnet18", {"layers": (1, 1, 1, 1)}),
    ("samvit_base_patch16", THIN | {"img_size": 64, "global_attn_indexes": (2,), "window_size": 2}),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}),
])
def test_timm_towers_finish_from_every_depth_too(model_name, options):
    text = torch.nn.Identity()
    text.text_dim = 4
    trunk = timm.create_model(model_name, num_classes=0, **options)
    expert = TimmExpert(model_name, trunk, text, options.get("img_size", 224))
    x = torch.randn(1, 3, expert.size, expert.size, generator=torch.Generator().manual_seed(1))
    whole = expert.encode_maps(x, range(1, expert.depth + 1))
    for depth in range(1, expert.depth + 1):
        torch.testing.assert_close(expert.finish(whole.maps[depth], depth).summary, whole.summary, rtol=0, atol=1e-5)
    assert (expert.encode_maps(torch.zeros_like(x), [1]).summary - whole.summary).abs().max() > 1e-3
    bare = expert.encode_maps(x, [])
    assert bare.maps == {} and torch.equal(bare.summary, whole.summary)


def test_a_tower_without_named_modules_says_that_it_cannot_be_split(vit, monkeypatch):
    expert = small(*FAMILIES["ConvNeXt"])
    monkeypatch.setattr(expert.model.visual.trunk, "feature_info", [])
    with pytest.raises(ExpertError, match="cannot be split"):
        expert.finish(torch.zeros(1, expert.grids[0][0] ** 2, 8), 1)
