"""open_clip experts: every architecture family that open_clip ships, small and with random weights; weights from files; sizes."""

import json
import re
from dataclasses import replace
from unittest import mock

import open_clip
import pytest
import timm
import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed

from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, OpenClipExpert, create_expert, tiny_experts_folder
from medbridge.experts.clip import _resized, load_unimed
from medbridge.experts.info import expert_info
from medbridge.experts.registry import ExpertName

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
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
        assert ExpertName.of(name).files[0] == f"{model}-{tag}.safetensors" and _family(model) in EACH
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


def test_a_tower_without_named_modules_says_that_it_cannot_be_split(vit, monkeypatch):
    expert = small(*FAMILIES["ConvNeXt"])
    monkeypatch.setattr(expert.model.visual.trunk, "feature_info", [])
    with pytest.raises(ExpertError, match="cannot be split"):
        expert.finish(torch.zeros(1, expert.grids[0][0] ** 2, 8), 1)


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
