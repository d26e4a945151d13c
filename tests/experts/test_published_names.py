"""Real key names: what the owners of every expert publish, at full size, through the package's own loaders on the meta device.

published.yaml has the names and shapes, each part with its source. A loader must use every tensor, or leave it out by name; a
tensor that is missing or of another shape is an error. What lies in the tensors is for the other tests of this folder.
"""

import hashlib
import json
import re
from pathlib import Path

import open_clip
import pytest
import timm
import torch
import torchvision
from published import META, PUBLISHED, tensors
from safetensors.torch import load_file, save_file
from torch import nn

from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, create_expert
from medbridge.experts.clip import BIOMEDBERT
from medbridge.experts.hf_vision import empty_tower, filled, load_hf, tensor_files
from medbridge.experts.registry import ExpertName
from medbridge.experts.timm_vision import load_timm
from medbridge.experts.weights import load_state

transformers = pytest.importorskip("transformers")

UNVERIFIED = {  # short name -> why its names are what the publishing library writes today, and no independent list
    "openclip-convnext": "published by open_clip itself; no list of its keys was found",
    "eva02-vitb16": "published by open_clip itself; no list of its keys was found",
    "coca-vitb32": "published by open_clip itself; no list of its keys was found",
    "lvm-med-resnet50+pubmedbert": "its code loads it into torchvision's ResNet-50; whether the head is in the file is not said",
}
def constants(state):
    """OpenAI's archive holds the model's sizes beside its weights (clip/model.py, build_model)."""
    return state | {key: torch.tensor(1) for key in ("input_resolution", "context_length", "vocab_size")}


def training_run(state):
    """A run of open_clip's own training code on several processors."""
    return {"epoch": 3, "name": "run", "optimizer": {}, "state_dict": {f"module.{key}": value for key, value in state.items()}}


WRAPS = {"bare": lambda s: s, "archive": constants, "training run": training_run,
         "PubMedCLIP": lambda s: {"best_epoch": 3, "state_dict": s, "optimizer_state_dict": {}, "best_loss": 1.5},
         "half": lambda s: {k: v.half() for k, v in s.items()},
         "older transformers": lambda s: s | {next(k for k in s if k.endswith("word_embeddings.weight")).replace(
             "word_embeddings.weight", "position_ids"): torch.arange(512)[None]},
         "vector scale": lambda s: s | {k: torch.empty(1, device=META) for k in ("logit_scale", "logit_bias")}}
FORMS = [*((name, "archive") for name in ("clip-vitb32", "clip-vitb16", "open_clip:ViT-L-14/openai")),
         ("clip-vitb16", "half"), ("openclip-vitb32", "bare"), ("metaclip-vitb16", "training run"), ("pubmedclip", "PubMedCLIP"),
         ("siglip-vitb16", "bare"), ("siglip2-vitb16", "vector scale"), ("biomedclip", "older transformers"),
         ("unimed-clip-vitb16", "training run"), ("unimed-clip-vitl14", "older transformers")]


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    """A weights folder with what stands beside checkpoints: BiomedBERT's configuration, and small vocabularies."""
    root = tmp_path_factory.mktemp("weights")
    words = [f"w{i}" for i in range(30)]
    for repository in (BIOMEDBERT, "timm/ViT-B-16-SigLIP", "timm/ViT-B-16-SigLIP2"):
        folder = root / repository.replace("/", "--")
        folder.mkdir()
        transformers.BertConfig().save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
        transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return root


def stored(name, state, root, folder):
    """The checkpoint as a file that holds shapes alone, or in BiomedCLIP's folder; what ``weights`` is to name."""
    if name != "biomedclip":
        torch.save(state, folder / "weights.pt")
        return folder / "weights.pt"
    for path in (root / BIOMEDBERT.replace("/", "--")).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = {"embed_dim": 512, "vision_cfg": {"timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False,
                                               "timm_pool": "", "timm_proj": "linear", "image_size": 224},
              "text_cfg": {"hf_model_name": BIOMEDBERT, "hf_tokenizer_name": BIOMEDBERT, "hf_proj_type": "mlp",
                           "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256}}
    (folder / "open_clip_config.json").write_text(json.dumps(
        {"model_cfg": config, "preprocess_cfg": {"mean": [0.48145466] * 3, "std": [0.26862954] * 3}}))
    state |= {"visual.head.proj.weight": torch.empty(512, 768, device=META), "logit_scale": torch.empty((), device=META)}
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_clip_loads_from_every_form_in_which_it_is_published(name, form, repositories, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(repositories))
    entry = PUBLISHED["clip"][name]
    state = tensors(entry)
    if count := entry.get("parameters"):
        assert sum(tensor.numel() for tensor in state.values()) == count
    with META:
        weights = stored(name, WRAPS[form](state), repositories, tmp_path)
        expert = create_expert(name, "meta", weights=weights)
        assert (expert.size, expert.depth, expert.widths[-1], expert.text_dim) == (entry["R"], entry["N"], entry["D"], entry["E"])
        lost = next(key for key in state if key.endswith(f".{entry['N'] - 1}.mlp.{'fc1' if 'trunk' in key else 'c_fc'}.weight"))
        half = {key: value for key, value in state.items() if key != lost}
        with pytest.raises(ExpertError, match=r"does not fit|cannot load"):
            create_expert(name, "meta", weights=stored(name, half, repositories, tmp_path))


class Archive(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.proj = nn.LayerNorm(4), nn.Parameter(torch.randn(4, 3).half())
        self.register_buffer("vocab_size", torch.tensor(49408))

    def forward(self, x):
        return self.ln_1(x)


def test_openais_archives_are_read_and_no_other_program(tmp_path, monkeypatch):
    program, path = torch.jit.script(Archive()), tmp_path / "ViT-B-32.pt"
    torch.jit.save(program, path)
    with pytest.raises(ExpertError, match=r"ViT-B-32\.pt: refused.*a TorchScript program, and none of OpenAI's CLIP archives"):
        load_state(path)
    url = f"https://openaipublic.azureedge.net/clip/models/{hashlib.sha256(path.read_bytes()).hexdigest()}/ViT-B-32.pt"
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "mb-small", {"openai": {"url": url}})
    state, want = load_state(path), program.state_dict()
    assert set(state) == set(want) and state["proj"].dtype == torch.float32
    assert all(torch.equal(state[key], value.float() if value.is_floating_point() else value) for key, value in want.items())


def test_open_clip_knows_the_checksums_of_openais_archives():
    urls = [open_clip.get_pretrained_url(model, "openai") for model in ("ViT-B-32", "ViT-B-16", "ViT-L-14")]
    assert all(re.search(r"/[0-9a-f]{64}/", url) for url in urls)


def text():
    encoder = nn.Identity()
    encoder.text_dim = 4
    return encoder


def timm_forms(name, entry):
    """Form -> the checkpoint: Meta's own names, timm's, and the wrappings of the authors' training code."""
    state, width = tensors(entry), entry["D"]
    if "dinov3" in name:  # their numbers are looked at
        state = {k: torch.zeros(v.shape, device="cpu") if k.endswith("qkv.bias") else v for k, v in state.items()}
    if name.startswith("dinov2"):
        return {"timm": state, "Meta": state | {"mask_token": torch.empty(1, width, device=META)}}
    if name.startswith("meddinov3"):
        heads = {f"{head}.{key}.weight": torch.empty(2, 2, device=META) for head in ("dino_head", "ibot_head")
                 for key in ("mlp.0", "mlp.2", "mlp.4", "last_layer")}
        return {"repository": {"teacher": {f"backbone.{k}": v for k, v in state.items()} | heads}}
    return {"Meta" if "dinov3" in name else "repository": state}


@pytest.mark.parametrize("name", PUBLISHED["timm"])
def test_a_timm_tower_loads_from_every_form_in_which_it_is_published(name, tmp_path):
    entry, parts = PUBLISHED["timm"][name], ExpertName.of(name)
    for state in timm_forms(name, entry).values():
        with META:
            torch.save(state, tmp_path / "w.pth")
            expert = load_timm(name, parts, text(), parts.default_size, tmp_path / "w.pth")
            assert (expert.depth, expert.widths[-1]) == (entry["N"], entry["D"])
            inner = state.get("teacher", state)
            lost = next(key for key in inner if re.search(rf"{entry['N'] - 1}\.mlp\.(fc1|lin1)\.weight", key))
            torch.save({k: v for k, v in inner.items() if k != lost}, tmp_path / "w.pth")
            with pytest.raises(ExpertError, match="does not fit timm model"):
                load_timm(name, parts, text(), parts.default_size, tmp_path / "w.pth")


def test_metas_dinov3_with_biases_is_sent_to_the_timm_model_that_has_them(tmp_path):
    parts = ExpertName.of("dinov3-vits16+minilm")
    state = tensors(PUBLISHED["timm"]["timm:vit_small_patch16_dinov3_qkvb.lvd1689m+minilm"])
    state |= {key: torch.ones(value.shape) for key, value in state.items() if key.endswith("qkv.bias")}
    with META:
        torch.save(state, tmp_path / "w.pth")
        with pytest.raises(ExpertError, match=r"take vit_small_patch16_dinov3_qkvb\.lvd1689m$"):
            load_timm("d", parts, text(), None, tmp_path / "w.pth")
    assert timm.is_model("vit_small_patch16_dinov3_qkvb.lvd1689m")


@pytest.mark.parametrize(("name", "prefix"), [
    (name, prefix) for name, entry in PUBLISHED["hf"].items() for prefix in entry["prefixes"]])
def test_a_vision_tower_is_found_in_transformers_index_files(name, prefix, tmp_path):
    entry = PUBLISHED["hf"][name]
    (tmp_path / "config.json").write_text(json.dumps(entry["config"]))
    state, tower = tensors(entry, prefix), empty_tower(tmp_path)
    assert entry.get("tensors") in (None, len(state))
    held = dict.fromkeys(state, "model-00001-of-00004.safetensors") | {
        key: "model-00002-of-00004.safetensors" for key in (
            "language_model.model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight", "lm_head.weight",
            "multi_modal_projector.linear_1.weight", "text_model.embeddings.position_embedding.weight") if prefix}
    places = tensor_files(tower, held, "index")
    assert {whole for whole, _ in places.values()} == set(state)  # of the language model nothing
    found = {key: state[whole] for key, (whole, _) in places.items()}
    full = filled(type(tower), None, "index", config=tower.config, state_dict=found, device_map="meta")
    assert {k: v.shape for k, v in full.state_dict().items()} == {k: v.shape for k, v in tower.state_dict().items()}
    lost = list(found)[len(found) // 2]
    with pytest.raises(ExpertError, match="the checkpoint lacks"):
        filled(type(tower), None, "index", config=tower.config, device_map="meta",
               state_dict={k: v for k, v in found.items() if k != lost})
    with pytest.raises(ExpertError, match="does not fit its config"):
        filled(type(tower), None, "index", config=tower.config, device_map="meta",
               state_dict=found | {lost: torch.empty(3, 3, 3, device=META)})


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters", "DINOv3ViT"])
@pytest.mark.parametrize("size", [32, 48])
def test_dinos_of_transformers_load_and_split(kind, size, tmp_path):
    """The names of the files differ from those of the model that transformers builds today."""
    options = {"num_register_tokens": 4} if kind != "Dinov2" else {}
    model = transformers.AutoModel.from_config(getattr(transformers, f"{kind}Config")(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, **options))
    model.eval().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    expert = load_hf("hf:org/dino+x", "org/dino", text(), size, tmp_path)
    assert set(load_file(tmp_path / "model.safetensors")) != set(model.state_dict())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in expert.vision_state().items())
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    whole = expert.encode_maps(x, [1, 2])
    assert expert.prefix == 1 + 4 * (kind != "Dinov2") and expert.grids[0] == (size // 8,) * 2
    with torch.inference_mode():
        want = torch.nn.functional.normalize(model(x).pooler_output, dim=-1)
    torch.testing.assert_close(whole.summary[:, :32], want, rtol=0, atol=1e-5)
    torch.testing.assert_close(expert.finish(whole.maps[1], 1).summary, whole.summary, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in UNVERIFIED if ExpertName.of(name).kind == "open_clip"])
def test_what_open_clip_itself_publishes_loads_from_its_own_names(name, tmp_path):
    model_name = ExpertName.of(name).model.partition("/")[0]
    with META:
        model = open_clip.create_model(model_name, load_weights=False, device="meta")
        torch.save(model.state_dict(), tmp_path / "w.bin")
        assert create_expert(name, "meta", weights=tmp_path / "w.bin").depth >= 4


@pytest.mark.parametrize("head", [False, True])
def test_lvm_meds_resnet_has_torchvisions_names(head, tmp_path):
    parts = ExpertName.of("lvm-med-resnet50+pubmedbert")
    with META:
        state = {k: v for k, v in torchvision.models.resnet50().state_dict().items() if head or not k.startswith("fc.")}
        torch.save(state, tmp_path / "w.torch")
        assert load_timm("l", parts, text(), None, tmp_path / "w.torch").widths[-1] == 2048


def test_every_short_name_is_covered():
    covered = {*PUBLISHED["clip"], *PUBLISHED["timm"], *PUBLISHED["hf"], *UNVERIFIED, "dinov3-vits16+minilm"}
    assert {name for name, alias in ALIASES.items() if not alias.target.startswith("tiny:")} <= covered
    documented = (Path(__file__).parents[2] / "docs" / "experts.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in documented for name in UNVERIFIED)


def test_a_paired_model_with_a_part_missing_is_refused(tmp_path, monkeypatch):
    """transformers fills what is missing with random numbers, and warns; here it is an error."""
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.CLIPConfig(text_config=small | {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2},
                                     vision_config=small | {"image_size": 16, "patch_size": 8}, projection_dim=8)
    model = transformers.CLIPModel(config)
    model.save_pretrained(tmp_path)
    state = {k: v for k, v in model.state_dict().items() if k != "visual_projection.weight"}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExpertError, match="lacks 'visual_projection.weight'"):
        filled(transformers.AutoModel, str(tmp_path), str(tmp_path), use_safetensors=True)
