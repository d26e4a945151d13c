"""timm towers: checkpoints however they were wrapped and named, other input sizes against timm's own interpolation."""

import os
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from medbridge.errors import ExpertError
from medbridge.experts import TimmExpert, create_expert
from medbridge.experts.info import expert_info
from medbridge.experts.timm_vision import _load

THIN = {"embed_dim": 32, "depth": 3, "num_heads": 2}
TINY = "test_vit.r160_in1k"  # timm's own test model, 64 wide, 160 px


def _trunk(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(TINY.split(".")[0], **options)


@pytest.mark.parametrize("wrap", [
    lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"teacher": {f"backbone.{k}": v for k, v in s.items()}},
    lambda s: {"model": {f"module.{k}": v for k, v in s.items()}}])
def test_a_timm_checkpoint_comes_in_however_a_training_run_wrapped_it(wrap, folder):
    trunk = _trunk()  # with its head, which is dropped
    torch.save(wrap(trunk.state_dict()), folder / "run.pth")
    expert = create_expert(f"timm:{TINY}+tiny-vit", weights=folder / "run.pth")
    assert (expert.size, expert.depth, expert.prefix, expert.text_dim) == (160, len(trunk.blocks), 1, 128)
    state = trunk.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in expert.vision_state().items())
    assert expert.interpolation == "bicubic"
    torch.testing.assert_close(expert.encode_text(["a small bright spot"]), create_expert("tiny-vit").encode_text(
        ["a small bright spot"]))


def test_a_weights_folder_is_searched_by_model_name_and_by_alias(folder):
    trunk = timm.create_model("resnet50", num_classes=0)
    save_file(trunk.state_dict(), folder / "lvm-med-resnet50+pubmedbert.safetensors")
    assert expert_info("lvm-med-resnet50+pubmedbert").here == folder / "lvm-med-resnet50+pubmedbert.safetensors"
    trunk = _trunk(num_classes=0)
    save_file(trunk.state_dict(), folder / f"{TINY}.safetensors")
    expert = create_expert(f"timm:{TINY}+tiny-vit")
    assert all(torch.equal(v, trunk.state_dict()[k]) for k, v in expert.vision_state().items())


def test_weights_of_another_model_or_half_a_model_are_refused(folder):
    state = _trunk().state_dict()
    save_file({k: v for k, v in state.items() if "blocks.1.mlp.fc1" not in k}, folder / "half.safetensors")
    with pytest.raises(ExpertError, match=r"(?s)half\.safetensors: does not fit timm model.*blocks\.1\.mlp\.fc1"):
        create_expert(f"timm:{TINY}+tiny-vit", weights=folder / "half.safetensors")
    with pytest.raises(ExpertError, match="no such file"):
        create_expert("tiny-vit", weights=folder / "nowhere.pt")
    torch.save([1, 2], folder / "list.pt")
    with pytest.raises(ExpertError, match=r"list\.pt: holds no state dict"):
        create_expert(f"timm:{TINY}+tiny-vit", weights=folder / "list.pt")


def test_an_expert_that_no_hub_gives_never_takes_other_weights(folder):
    save_file(timm.create_model("resnet50", num_classes=0).state_dict(), folder / "resnet50.safetensors")
    with pytest.raises(ExpertError, match=r"(?s)LVM-Med.*Put lvmmed_resnet\.torch, or the same as lvm-med-resnet50\+"):
        create_expert("lvm-med-resnet50+pubmedbert")


def test_a_timm_tower_at_another_size_has_timms_own_position_embeddings(folder):
    trunk = _trunk(num_classes=0)
    save_file(trunk.state_dict(), folder / f"{TINY}.safetensors")
    expert = create_expert(f"timm:{TINY}+tiny-vit", size=96)
    assert (expert.name, expert.size, expert.grids[0]) == (f"timm:{TINY}+tiny-vit@96", 96, (6, 6))
    x = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    resized = _trunk(num_classes=0, img_size=96)
    prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
    resized.load_state_dict(trunk.state_dict() | {
        "pos_embed": resample_abs_pos_embed(trunk.pos_embed, (6, 6), num_prefix_tokens=prefix).detach()})
    with torch.inference_mode():
        want = resized.eval().forward_features(x)
    got = expert.encode_maps(x, [expert.depth]).summary
    torch.testing.assert_close(got[:, : want.shape[2]], want[:, 0], rtol=0, atol=1e-5)


SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}


def _dinov3(bias):
    """A small timm DINOv3, and its weights under the names of facebookresearch/dinov3 (and MedDINOv3)."""
    name = "vit_small_patch16_dinov3" + ("_qkvb" if bias else "")
    torch.manual_seed(0)
    trunk = timm.create_model(name, **SMALL, img_size=32)
    state = {k.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens"): v
             for k, v in trunk.state_dict().items() if not k.endswith(("q_bias", "k_bias", "v_bias"))}
    for i in range(SMALL["depth"] if bias else 0):
        q, v = torch.randn(32), torch.randn(32)
        trunk.blocks[i].attn.q_bias.data, trunk.blocks[i].attn.v_bias.data = q, v
        state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.zeros(32), v])
        state[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([torch.ones(32), torch.zeros(32), torch.ones(32)])
    return trunk, state | {"rope_embed.periods": torch.ones(4), "mask_token": torch.zeros(1, 32)}, name


@pytest.mark.parametrize("bias", [False, True])
def test_meddinov3_and_dinov3_load_from_metas_key_names(bias, tmp_path):
    trunk, state, name = _dinov3(bias)
    heads = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight": torch.ones(2, 2)}
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()} | heads}, tmp_path / "model.pth")
    torch.save(state, tmp_path / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth")
    x = torch.randn(1, 3, 48, 48)
    for file in tmp_path.iterdir():
        torch.manual_seed(1)
        again = timm.create_model(name, **SMALL, img_size=32, dynamic_img_size=True)
        _load(again, file, name)
        with torch.inference_mode():
            torch.testing.assert_close(again.eval()(x), timm_at(trunk, 48, name)(x))


def timm_at(trunk, size, name):
    """The same weights in a tower that timm builds for another size."""
    other = timm.create_model(name, **SMALL, img_size=size).eval()
    other.load_state_dict(trunk.state_dict())
    return other


def test_attention_biases_are_never_left_out_in_silence(tmp_path):
    _, state, _ = _dinov3(True)
    torch.save(state, tmp_path / "d.pth")
    trunk = timm.create_model("vit_small_patch16_dinov3", **SMALL, img_size=32)
    with pytest.raises(ExpertError, match="has attention biases.*take vit_small_patch16_dinov3_qkvb"):
        _load(trunk, tmp_path / "d.pth", "vit_small_patch16_dinov3")
    for key in state:
        if key.endswith("qkv.bias"):
            state[key] = torch.zeros(96)  # some were trained to nothing
    torch.save(state, tmp_path / "d.pth")
    _load(trunk, tmp_path / "d.pth", "vit_small_patch16_dinov3")


def test_lvm_med_loads_from_torchvisions_and_sams_key_names(tmp_path):
    resnet = timm.create_model("resnet50", num_classes=10)  # timm's names are torchvision's
    torch.save({k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}, tmp_path / "lvmmed_resnet.torch")
    bare = timm.create_model("resnet50", num_classes=0)
    _load(bare, tmp_path / "lvmmed_resnet.torch", "resnet50")
    assert torch.equal(bare.layer4[2].conv3.weight, resnet.layer4[2].conv3.weight)
    options = SMALL | {"img_size": 64, "global_attn_indexes": (1,), "window_size": 2}
    sam = timm.create_model("samvit_base_patch16", **options, use_abs_pos=False)
    torch.save({k.replace("mlp.fc", "mlp.lin"): v for k, v in sam.state_dict().items()}, tmp_path / "lvmmed_vit.pth")
    again = timm.create_model("samvit_base_patch16", **options)
    _load(again, tmp_path / "lvmmed_vit.pth", "samvit_base_patch16")
    x = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(x), sam.eval()(x))


@pytest.mark.parametrize(("name", "size"), [("vit_small_patch14_dinov2", 42), ("swin_tiny_patch4_window7_224", 256),
                                            ("convnext_atto", 96), ("vit_small_patch16_dinov3", 48)])
def test_towers_of_every_kind_of_position_take_another_size(name, size, folder):
    """Absolute, relative, none and rotary positions: as timm's own tower for that size, from the same weights."""
    options = {} if name.startswith(("swin", "convnext")) else {"embed_dim": 32, "depth": 2, "num_heads": 2}
    trunk = timm.create_model(name, num_classes=0, **options)
    with mock.patch.object(timm, "create_model", lambda *a, real=timm.create_model, **given: real(*a, **given | options)):
        torch.save(trunk.state_dict(), folder / "w.pth")
        expert = create_expert(f"timm:{name}+tiny-vit", size=size, weights=folder / "w.pth")
    assert expert.size == size
    if name.startswith("swin"):  # its window grows with the picture
        options["window_size"] = size // 32
    own = timm.create_model(name, num_classes=0, **options, **({} if name.startswith("convnext") else {"img_size": size})).eval()
    translate = sys.modules[type(own).__module__].checkpoint_filter_fn  # timm's own interpolation, as it loads a checkpoint
    own.load_state_dict(translate(trunk.state_dict(), own))
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = own.forward_features(x)
    got = expert.encode_maps(x, [expert.depth]).summary
    want = want[:, 0] if want.dim() == 3 else want.mean((1, 2) if name.startswith("swin") else (2, 3))
    torch.testing.assert_close(got[:, : want.shape[1]], want, rtol=0, atol=1e-5)


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


DINO = "vit_small_patch14_dinov2.lvd142m.safetensors"


@pytest.mark.skipif(not (Path(os.environ.get("MEDBRIDGE_WEIGHTS", "/nowhere")) / DINO).exists(),
                    reason=f"MEDBRIDGE_WEIGHTS holds no {DINO}")
def test_dinov2_with_a_sentence_encoder():
    pytest.importorskip("transformers")
    expert = create_expert("dinov2-vits14+minilm")
    assert (expert.depth, expert.prefix, expert.text_dim, expert.aligned) == (12, 1, 384, False)
    x = expert.preprocess(torch.rand(1, expert.size, expert.size, generator=torch.Generator().manual_seed(0)))
    out = expert.encode_maps(x, [11, 12])
    assert out.maps[12].shape == (1, 257, 384) and out.embed is None
    want = expert.trunk.forward_features(x)
    torch.testing.assert_close(out.summary[:, :384], want[:, 0], rtol=1e-3, atol=1e-3)
    block = expert.block_weights(11)
    assert block.heads == 6 and block.tensors["qkv.weight"].shape == (1152, 384)
    similar, other = expert.encode_text(["pneumonia", "an infection of the lung", "a red car"])[1:] @ expert.encode_text(
        ["pneumonia"])[0]
    assert similar > other and np.isfinite(float(similar))


@pytest.mark.skipif(not (Path(os.environ.get("MEDBRIDGE_WEIGHTS", "/nowhere")) / DINO).exists(),
                    reason=f"MEDBRIDGE_WEIGHTS holds no {DINO}")
def test_dinov2_at_another_size_splits_and_finishes():
    pytest.importorskip("transformers")
    expert = create_expert("dinov2-vits14+minilm", size=336)
    assert (expert.name, expert.grids[0], expert.interpolation) == ("dinov2-vits14+minilm@336", (24, 24), "bicubic")
    x = expert.preprocess(torch.rand(1, expert.size, expert.size, generator=torch.Generator().manual_seed(0)))
    whole = expert.encode_maps(x, [1, 6, 12])
    for depth in (1, 6, 12):
        torch.testing.assert_close(expert.finish(whole.maps[depth], depth).summary, whole.summary, rtol=0, atol=1e-5)
