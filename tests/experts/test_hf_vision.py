"""transformers vision towers: tiny random models of the real classes, saved in shards as their owners publish them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medbridge.errors import ExpertError
from medbridge.experts import create_expert

transformers = pytest.importorskip("transformers")

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
          "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LANGUAGE = TEXT | {"num_key_value_heads": 1, "head_dim": 16}
QWEN = {"depth": 3, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
ROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}


def _clip():
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=24))


def _siglip():
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=VISION))


def _llava():
    return transformers.LlavaForConditionalGeneration(transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LANGUAGE), vision_config=transformers.CLIPVisionConfig(**VISION)))


def _gemma3():
    return transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(
        text_config=LANGUAGE, vision_config=VISION | {"vision_use_head": False}, mm_tokens_per_image=4))


def _qwen2():
    return transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(
        text_config=LANGUAGE | {"rope_parameters": ROPE}, vision_config=QWEN | {"embed_dim": 32, "hidden_size": 32}))


def _qwen25():
    return transformers.Qwen2_5_VLForConditionalGeneration(transformers.Qwen2_5_VLConfig(
        text_config=LANGUAGE | {"rope_parameters": ROPE},
        vision_config=QWEN | {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "window_size": 16,
                              "fullatt_block_indexes": [1]}))


def _qwen3():
    return transformers.Qwen3VLForConditionalGeneration(transformers.Qwen3VLConfig(
        text_config=LANGUAGE | {"rope_parameters": ROPE},
        vision_config=QWEN | {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 32, "num_position_embeddings": 16,
                              "deepstack_visual_indexes": [1]}))


MODELS = {"clip": _clip, "siglip": _siglip, "llava": _llava, "gemma3": _gemma3, "qwen2_vl": _qwen2, "qwen2_5_vl": _qwen25,
          "qwen3_vl": _qwen3}
PAIRED = ("clip", "siglip")
SIZE = {"qwen2_vl": 32, "qwen2_5_vl": 32, "qwen3_vl": 32}  # these take any size


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Kind -> the model; in the weights folder ``org--KIND/`` lies its checkpoint."""
    root, models = tmp_path_factory.mktemp("hub"), {}
    for kind, build in MODELS.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            models[kind] = build().eval()
        folder = root / f"org--{kind}"
        models[kind].save_pretrained(folder, max_shard_size="40KB")
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.5], "resample": 3}))
        _tokenizer(folder)
    return root, models


def _tokenizer(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[BOS]", "[EOS]", "[UNK]", *["a", "film", "with", "no", "nodule", "effusion", "one", "two"]]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[BOS] $A [EOS]", special_tokens=[("[BOS]", 1), ("[EOS]", 2)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", eos_token="[EOS]", unk_token="[UNK]",
        model_max_length=64).save_pretrained(folder)


@pytest.fixture(params=MODELS)
def loaded(request, checkpoints, monkeypatch):
    """(kind, expert, the model that was saved)."""
    root, models = checkpoints
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(root))
    kind = request.param
    name = f"hf:org/{kind}" if kind in PAIRED else f"hf:org/{kind}+tiny-vit"
    return kind, create_expert(name, size=SIZE.get(kind)), models[kind]


def test_the_tower_is_the_saved_one_and_splits_at_every_depth(loaded):
    kind, expert, model = loaded
    saved = {f".{k}": v for k, v in model.state_dict().items()}
    for key, value in expert.vision_state().items():
        [same] = [v for k, v in saved.items() if k.endswith(f".{key}") and ("vision" in k or "visual" in k)]
        assert torch.equal(value, same), key
    assert (expert.size, expert.interpolation, expert.aligned) == (32, "bicubic", kind in PAIRED)
    torch.testing.assert_close(expert.mean.flatten(), torch.tensor([0.5, 0.4, 0.3]))
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = expert.encode_maps(x, [1, 2, 3])
    assert expert.depth == 3 and whole.summary.shape == (2, expert.image_dim)
    for depth in (1, 2, 3):
        rows, columns = expert.grids[depth - 1]
        assert whole.maps[depth].shape == (2, expert.prefix + rows * columns, 32)
        rest = expert.finish(whole.maps[depth], depth)
        torch.testing.assert_close(rest.summary, whole.summary, rtol=0, atol=1e-5)
        lost = whole.maps[depth].clone()
        lost[:, expert.prefix:] = 0
        assert (expert.finish(lost, depth).summary - whole.summary).abs().max() > 1e-3
    assert not torch.allclose(whole.summary[0], whole.summary[1], atol=1e-4)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind not in PAIRED])
def test_no_tensor_of_a_language_model_is_read(kind, monkeypatch, checkpoints):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(checkpoints[0]))
    from medbridge.experts import hf_vision

    read, real = [], hf_vision.safe_open

    class Spy:
        def __init__(self, *args, **options):
            self.file = real(*args, **options)

        def __enter__(self):
            self.inner = self.file.__enter__()
            return self

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def get_tensor(self, key):
            read.append(key)
            return self.inner.get_tensor(key)

    monkeypatch.setattr(hf_vision, "safe_open", Spy)
    create_expert(f"hf:org/{kind}+tiny-vit", size=SIZE.get(kind))
    assert read and all("vision" in key or "visual" in key for key in read)
    assert len(read) < len(load_all(checkpoints[0] / f"org--{kind}"))


def load_all(folder):
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def test_a_paired_model_embeds_as_transformers_does(checkpoints, monkeypatch):
    root, models = checkpoints
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(root))
    for kind in PAIRED:
        expert = create_expert(f"hf:org/{kind}")
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        texts = ["a film with nodule", "no effusion"]
        padding = {"padding": "max_length", "max_length": 64} if kind == "siglip" else {"padding": True}
        ids = transformers.AutoTokenizer.from_pretrained(root / f"org--{kind}")(texts, return_tensors="pt", **padding)
        ids = {"input_ids": ids["input_ids"]} if kind == "siglip" else {k: ids[k] for k in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            want = models[kind](pixel_values=x, **ids)
        torch.testing.assert_close(expert.encode_maps(x, [3]).embed, want.image_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(expert.encode_text(texts), want.text_embeds, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl"])
def test_a_packed_towers_maps_stand_in_rows_and_columns(kind, checkpoints, monkeypatch):
    """With attention and MLP silenced a block passes its input on, so the map is the patch embedding of each place."""
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(checkpoints[0]))
    expert = create_expert(f"hf:org/{kind}+tiny-vit", size=32)
    for block in expert.blocks():
        for p in (*block.attn.parameters(), *block.mlp.parameters()):
            p.data.zero_()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    got = expert.encode_maps(x, [2]).maps[2]
    weight = expert.tower.patch_embed.proj.weight  # (32, 3, frames, 4, 4)
    bias = expert.tower.patch_embed.proj.bias
    want = torch.nn.functional.conv2d(x, weight.sum(2), bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


def test_another_size_interpolates_the_position_embeddings(checkpoints, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(checkpoints[0]))
    expert = create_expert("hf:org/siglip@48")
    assert (expert.name, expert.size, expert.grids[0]) == ("hf:org/siglip@48", 48, (6, 6))
    x = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = checkpoints[1]["siglip"].get_image_features(pixel_values=x, interpolate_pos_encoding=True)
        want = getattr(want, "pooler_output", want)
    torch.testing.assert_close(expert.encode_maps(x, [3]).embed, want / want.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)
    with pytest.raises(ExpertError, match="size=50 is not a multiple of 8 pixels"):
        create_expert("hf:org/siglip", size=50)


@pytest.mark.parametrize("kind", ["clip", "llava", "gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_every_tower_takes_another_size_as_transformers_own_tower_does(kind, checkpoints, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(checkpoints[0]))
    expert = create_expert(f"hf:org/{kind}" + ("" if kind in PAIRED else "+tiny-vit"), size=48)
    side = 48 // (4 if kind.startswith("qwen") else 8)
    assert (expert.size, expert.grids[0]) == (48, (side, side))
    x = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    got = expert.encode_maps(x, [1, 3])
    torch.testing.assert_close(expert.finish(got.maps[1], 1).summary, got.summary, rtol=0, atol=1e-5)
    if kind.startswith("qwen"):
        return  # their positions are computed for the grid that they are given
    tower = next(m for n, m in checkpoints[1][kind].named_modules() if n.endswith(("vision_model", "vision_tower")))
    with torch.inference_mode():
        want = tower(x, interpolate_pos_encoding=True).last_hidden_state[:, expert.prefix:].mean(dim=1)
    want = torch.nn.functional.normalize(want, dim=1)
    torch.testing.assert_close(got.summary[:, -want.shape[1]:], want, rtol=0, atol=1e-5)


def test_what_is_wrong_with_a_checkpoint_is_said(checkpoints, monkeypatch, tmp_path):
    root = checkpoints[0]
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(root))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # without the retries of a network that is down
    with pytest.raises(ExpertError, match=r"'llava' has no text tower.*hf:org/llava\+TEXT"):
        create_expert("hf:org/llava")
    with pytest.raises(ExpertError, match=r"folder org--nothing/ \(the repository's json, txt"):
        create_expert("hf:org/nothing+tiny-vit")
    with pytest.raises(ExpertError, match="needs the folder that mirrors org/llava"):
        create_expert("hf:org/llava+tiny-vit", weights=root / "org--llava" / "config.json")
    transformers.Siglip2Config(vision_config={"hidden_size": 32, "num_attention_heads": 2}).save_pretrained(tmp_path / "naflex")
    with pytest.raises(ExpertError, match="NaFlex"):
        create_expert("hf:org/naflex+tiny-vit", weights=tmp_path / "naflex")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_text((root / "org--llava" / "config.json").read_text())
    with pytest.raises(ExpertError, match=r"no preprocessor_config\.json"):
        create_expert("hf:org/llava+tiny-vit", weights=folder)
    (folder / "preprocessor_config.json").write_text((root / "org--llava" / "preprocessor_config.json").read_text())
    with pytest.raises(ExpertError, match=r"model\.safetensors: missing"):
        create_expert("hf:org/llava+tiny-vit", weights=folder)
    tensors = load_all(root / "org--llava")
    lost = next(k for k in tensors if "vision" in k and k.endswith("layers.1.mlp.fc1.weight"))
    save_file({k: v for k, v in tensors.items() if k != lost}, folder / "model.safetensors")
    with pytest.raises(ExpertError, match=r"lacks '.*layers\.1\.mlp\.fc1\.weight'"):
        create_expert("hf:org/llava+tiny-vit", weights=folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ExpertError, match=r"model\.safetensors: not a readable weights file"):
        create_expert("hf:org/llava+tiny-vit", weights=folder)
