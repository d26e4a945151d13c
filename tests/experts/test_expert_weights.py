"""Weights from files and folders, without a network; and other input sizes, against the libraries' own interpolation."""

import json
import sys
from dataclasses import replace
from unittest import mock

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.model import resize_pos_embed
from PIL import Image
from safetensors.torch import load_file, save_file
from test_expert_families import FAMILIES, small
from timm.layers import resample_abs_pos_embed

from medbridge.data import Benchmark
from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, OpenClipExpert, create_expert, tiny_experts_folder
from medbridge.experts.clip import _resized, load_unimed
from medbridge.experts.timm_vision import _load
from medbridge.features.cache import FeatureCache, expert_folder
from medbridge.focal import FocalSampler, extract_views

TINY = "test_vit.r160_in1k"  # timm's own test model, 64 wide, 160 px
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}


def _trunk(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return timm.create_model(TINY.split(".")[0], **options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(tmp_path))
    return tmp_path


# -- timm ---------------------------------------------------------------------------------------------------------------------


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
    from medbridge.experts.info import expert_info

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


# -- open_clip ----------------------------------------------------------------------------------------------------------------


def test_an_open_clip_tower_at_another_size_has_open_clips_own_position_embeddings():
    expert = create_expert("tiny-vit", size=192)
    assert (expert.name, expert.size, expert.grids[0]) == ("tiny-vit@192", 192, (12, 12))
    stored = load_file(tiny_experts_folder() / "tiny-vit" / "open_clip_model.safetensors")  # half precision
    state = {"visual.positional_embedding": stored["visual.positional_embedding"].float()}
    larger = open_clip.create_model(f"local-dir:{tiny_experts_folder() / 'tiny-vit'}", load_weights=False, force_image_size=192)
    resize_pos_embed(state, larger)
    assert torch.equal(expert.model.visual.positional_embedding, state["visual.positional_embedding"])
    assert create_expert("tiny-vit@192").fingerprint() == expert.fingerprint() != create_expert("tiny-vit").fingerprint()
    x = torch.rand(1, 3, 192, 192)
    whole = expert.encode_maps(x, range(1, 7))
    torch.testing.assert_close(expert.finish(whole.maps[2], 2).embed, whole.embed, rtol=0, atol=1e-5)


def test_a_timm_trunk_in_open_clip_at_another_size_has_timms_own_position_embeddings():
    native = small(*FAMILIES["SigLIP"])
    want = resample_abs_pos_embed(native.model.visual.trunk.pos_embed, (6, 6), num_prefix_tokens=0)
    other = OpenClipExpert("other", _resized("other", native.model, 96), native.tokenizer)
    assert (other.size, other.grids[0]) == (96, (6, 6))
    torch.testing.assert_close(other.model.visual.trunk.pos_embed, want)
    with pytest.raises(ExpertError, match="size=100 is not a multiple of its patches of 16"):
        _resized("other", native.model, 100)


@pytest.mark.parametrize(("name", "size", "message"), [
    ("tiny-resnet", 256, "attention pooling of this ResNet takes 128 alone"),
    ("tiny-vit", 100, "size=100 is not a multiple of its patches of 16"),
    ("tiny-vit@64", 128, "names another size than size=128")])
def test_sizes_that_a_tower_cannot_take(name, size, message):
    with pytest.raises(ExpertError, match=message):
        create_expert(name, size=size)


@pytest.fixture
def registered(monkeypatch):
    """A small model ``mb-small`` with a tag ``run``, as open_clip's own registries hold the large ones."""
    vision = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "mb-small", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "mb-small", {"run": {
        "url": "", "hf_hub": "org/mb-small/", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bicubic",
        "quick_gelu": True}})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return open_clip.create_model("mb-small", force_quick_gelu=True).eval()


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_an_open_clip_tag_is_loaded_from_the_folder_with_its_own_preprocessing(registered, folder, suffix):
    path = folder / f"mb-small-run.{suffix}"
    state = registered.state_dict()
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    expert = create_expert("open_clip:mb-small/run")
    torch.testing.assert_close(expert.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    assert expert.interpolation == "bicubic"
    x = torch.randn(1, 3, 32, 32)
    want = torch.nn.functional.normalize(registered.encode_image(x), dim=1)  # QuickGELU, as the tag says
    torch.testing.assert_close(expert.encode_maps(x, [2]).embed, want)
    larger = create_expert("open_clip:mb-small/run", size=48, weights=path)
    model = open_clip.create_model("mb-small", pretrained=str(path), force_quick_gelu=True, force_image_size=48).eval()
    x = torch.randn(1, 3, 48, 48)
    want = torch.nn.functional.normalize(model.encode_image(x), dim=1)
    torch.testing.assert_close(larger.encode_maps(x, [2]).embed, want)
    save_file({"a": torch.ones(1)}, folder / "other.safetensors")
    with pytest.raises(ExpertError, match=r"other\.safetensors: does not fit open_clip model 'mb-small'"):
        create_expert("open_clip:mb-small/run", weights=folder / "other.safetensors")


def _bert(folder):
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=40)
    config.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "no", "mass"]))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return transformers.BertModel(config)


def test_an_hf_hub_model_with_a_text_tower_of_its_own_loads_from_two_folders(folder):
    """BiomedCLIP's layout: a timm trunk, a BERT whose configuration is in another repository."""
    _bert(folder / "org--bert")
    model_folder = folder / "org--biomed"
    model_folder.mkdir()
    config = {
        "embed_dim": 24, "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {"hf_model_name": "org/bert", "hf_tokenizer_name": "org/bert", "hf_proj_type": "mlp",
                     "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 16}}
    (model_folder / "open_clip_config.json").write_text(json.dumps(
        {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}))
    for path in (folder / "org--bert").glob("*token*"):
        (model_folder / path.name).write_bytes(path.read_bytes())
    (model_folder / "vocab.txt").write_bytes((folder / "org--bert" / "vocab.txt").read_bytes())
    local = json.loads(json.dumps(config))
    local["text_cfg"] |= {"hf_model_name": str(folder / "org--bert"), "hf_model_pretrained": False}
    model = open_clip.model.CustomTextCLIP(**local)
    save_file(model.state_dict(), model_folder / "open_clip_model.safetensors")
    expert = create_expert("open_clip:hf-hub:org/biomed")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in expert.model.state_dict().items())
    assert expert.encode_text(["a film", "no mass"]).shape == (2, 24)
    x = torch.randn(1, 3, 160, 160)
    torch.testing.assert_close(
        expert.encode_maps(x, [1]).embed, torch.nn.functional.normalize(model.eval().encode_image(x), dim=1), rtol=0, atol=1e-5)
    (model_folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ExpertError, match="cannot load this folder"):
        create_expert("open_clip:hf-hub:org/biomed")  # never with random weights


def test_unimed_clips_checkpoint_is_understood(registered, folder, monkeypatch):
    _bert(folder / "microsoft--BiomedNLP-BiomedBERT-base-uncased-abstract")
    text = {"hf_model_name": str(folder / "microsoft--BiomedNLP-BiomedBERT-base-uncased-abstract"), "hf_model_pretrained": False,
            "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}
    model = open_clip.create_model("mb-small", force_custom_text=True, text_cfg=text)
    names = {k: k.replace("text.", "text_encoder.", 1) if k.startswith("text.") else k for k in model.state_dict()}
    torch.save({"epoch": 1, "state_dict": {f"module.{names[k]}": v for k, v in model.state_dict().items()}}, folder / "u.pt")
    expert = load_unimed("u", "mb-small", None, folder / "u.pt")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in expert.model.state_dict().items())
    assert expert.encode_text(["a film", "no mass"]).shape == (2, 24)
    save_file({"a": torch.ones(1)}, folder / "other.safetensors")
    with pytest.raises(ExpertError, match="does not fit UniMed-CLIP"):
        load_unimed("u", "mb-small", None, folder / "other.safetensors")


def test_pubmedclip_comes_as_its_authors_saved_it(registered, folder, monkeypatch):
    """OpenAI's own layout in half precision, beside the optimiser's state; QuickGELU, as OpenAI trained it."""
    monkeypatch.setitem(ALIASES, "pubmedclip", replace(ALIASES["pubmedclip"], target="open_clip:mb-small/run"))
    save_file(registered.state_dict(), folder / "mb-small-run.safetensors")
    with pytest.raises(ExpertError, match=r"(?s)sarahESL/PubMedCLIP.*put PubMedCLIP_ViT32\.pth, or the same"):
        create_expert("pubmedclip")  # another model's weights never stand in
    state = {k: v.half() if v.is_floating_point() else v for k, v in registered.state_dict().items() if k != "attn_mask"}
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
    torch.save({"best_epoch": 3, "state_dict": state, "optimizer_state_dict": optimiser, "best_loss": 1.5},
               folder / "PubMedCLIP_ViT32.pth")
    expert = create_expert("pubmedclip")
    x = torch.randn(1, 3, 32, 32)
    want = torch.nn.functional.normalize(registered.encode_image(x), dim=1)
    torch.testing.assert_close(expert.encode_maps(x, [2]).embed, want, rtol=0, atol=2e-3)
    assert next(expert.model.parameters()).dtype == torch.float32


# -- vision towers in the layouts of their own repositories -------------------------------------------------------------------

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


# -- views ----------------------------------------------------------------------------------------------------------------------


def test_bicubic_views_are_pillows_clipped_to_the_range():
    film = np.random.default_rng(0).uniform(0, 1, (64, 64)).astype(np.float32)
    film[:, 32:] = 1  # an edge at which bicubic rings
    got = extract_views(film, np.array([[0, 0, 64, 64]]), 24, "bicubic")[0].numpy()
    want = np.asarray(Image.fromarray(film).resize((24, 24), Image.Resampling.BICUBIC))
    assert want.max() > 1.001 and got.max() == 1.0
    np.testing.assert_allclose(got, want.clip(0, 1), atol=2e-3)


def test_a_film_becomes_three_equal_channels_once(vit):
    x = vit.preprocess(torch.rand(2, vit.size, vit.size))
    back = x * vit.std + vit.mean
    assert x.shape == (2, 3, vit.size, vit.size)
    torch.testing.assert_close(back[:, 0], back[:, 1])


def test_experts_of_one_size_and_other_interpolations_get_their_own_views(squares, tmp_path, monkeypatch):
    films = squares.split("test").subset(0.2, "test", 0) if hasattr(Benchmark, "subset") else squares
    one, two = create_expert("tiny-vit"), create_expert("tiny-resnet-scenes")
    bilinear = expert_folder(two)
    monkeypatch.setattr(two, "interpolation", "bicubic")
    sampler = FocalSampler(0.6, 0.0, 0, local=False)
    found = FeatureCache(tmp_path, progress=False).films(films, [one, two], [[6], [5]], sampler)[0]
    film = films.read(0)
    for k, (expert, depth) in enumerate(((one, 6), (two, 5))):
        views = extract_views(film, sampler.inference_boxes(*film.shape), *expert.view_kind)
        want = expert.encode_maps(expert.preprocess(views), [depth]).maps[depth]
        torch.testing.assert_close(found.maps[k][0].float(), want, rtol=5e-3, atol=5e-3)
    assert (tmp_path / expert_folder(two)).is_dir() and expert_folder(two) != bilinear
