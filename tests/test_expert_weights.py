"""Weights from files and folders, without a network; and other input sizes, against the libraries' own interpolation."""

import json

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

from medbridge.benchmarks import Benchmark
from medbridge.cache import compute_features
from medbridge.errors import ExpertError
from medbridge.experts import OpenClipExpert, create_expert, tiny_experts_folder
from medbridge.experts.clip_load import _resized
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
    assert (expert.interpolation, expert.patch) == ("bicubic", 16)
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
    with pytest.raises(ExpertError, match=r"(?s)LVM-Med.*put lvm-med-resnet50\+pubmedbert\.safetensors or"):
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
    from medbridge.experts.clip_load import load_unimed

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
    monkeypatch.setattr(two, "interpolation", "bicubic")
    sampler = FocalSampler(0.6, 0.0, 0, local=False)
    found = compute_features(films, [one, two], [[6], [5]], sampler, folder=tmp_path, progress=False)[0]
    film = films.read(0)
    for k, (expert, depth) in enumerate(((one, 6), (two, 5))):
        views = extract_views(film, sampler.inference_boxes(*film.shape), *expert.view_kind)
        want = expert.encode_maps(expert.preprocess(views), [depth]).maps[depth]
        torch.testing.assert_close(found.maps[k][0].float(), want, rtol=5e-3, atol=5e-3)
    assert sorted(p.name.endswith("-bicubic") for p in tmp_path.iterdir() if p.is_dir()) == [False, True]
