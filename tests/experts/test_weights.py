"""Finding and reading weights: never unpickled, and what is missing is named with its place."""

import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from medbridge.errors import ExpertError
from medbridge.experts import create_expert
from medbridge.experts.timm_vision import _load
from medbridge.experts.weights import check_weights, explained, find_weights, load_state


def test_weights_that_cannot_be_downloaded_name_the_file_and_its_place(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(tmp_path))

    def offline(*args, **options):
        raise OSError("no network")

    monkeypatch.setattr("open_clip.create_model", offline)
    with pytest.raises(ExpertError, match=r"ViT-B-32-openai\.safetensors") as caught:
        create_expert("clip-vitb32")
    assert str(tmp_path) in str(caught.value)


def test_a_weights_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", "/nowhere")
    with pytest.raises(ExpertError, match="MEDBRIDGE_WEIGHTS='/nowhere' is not a folder"):
        find_weights(["x"])


def test_state_dicts_are_read_but_never_unpickled(tmp_path):
    good, torch_file, evil = tmp_path / "a.safetensors", tmp_path / "b.pt", tmp_path / "c.pt"
    save_file({"w": torch.ones(2, dtype=torch.float16)}, good)
    torch.save({"state_dict": {"w": torch.ones(2)}}, torch_file)
    assert load_state(good)["w"].dtype == torch.float32 and load_state(torch_file)["w"].tolist() == [1, 1]
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(marker),))

    torch.save(Evil(), evil)
    with pytest.raises(ExpertError, match=r"c\.pt: refused"):
        load_state(evil)
    assert not marker.exists()
    good.write_bytes(b"short")
    with pytest.raises(ExpertError, match=r"a\.safetensors: not a readable"):
        load_state(good)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize(("content", "words"), [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 600000000\n", "a Git LFS pointer.*git lfs pull"),
    (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "a web page, not weights"),
    (b"<HTML></HTML>", "a web page, not weights"),
])
def test_a_file_that_only_has_the_name_of_weights(tmp_path, suffix, content, words):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(ExpertError, match=rf"a\{suffix}: {words}"):
        load_state(path)


@pytest.mark.parametrize("kept", [0, 6, 40, -1])
def test_a_part_of_a_safetensors_file(tmp_path, kept):
    save_file({"w": torch.ones(9), "v": torch.ones(3)}, tmp_path / "a.safetensors", metadata={"format": "pt"})
    check_weights(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:kept])
    with pytest.raises(ExpertError, match="cut short or no safetensors"):
        check_weights(tmp_path / "a.safetensors")


@pytest.mark.parametrize(("key", "words"), [
    ("vision_model.encoder.layers.{}.mlp.fc1.weight", "keys of transformers.*hf:ORG/REPO"),
    ("visual.transformer.resblocks.{}.mlp.c_fc.weight", "keys of open_clip or OpenAI's CLIP"),
    ("encoder.layer.{}.attention.attention.query.weight", r"keys of transformers.*hf:ORG/REPO\+TEXT"),
    ("features.denseblock1.denselayer{}.conv1.weight", "keys of a DenseNet"),
    ("layer1.{}.conv1.weight", "keys of a ResNet"),
    ("something.else.{}", "does not fit timm model"),
])
def test_another_librarys_layout_is_named_in_a_short_message(tmp_path, key, words):
    save_file({key.format(i): torch.zeros(1) for i in range(400)}, tmp_path / "a.safetensors")
    trunk = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    with pytest.raises(ExpertError, match=words) as caught:
        _load(trunk, tmp_path / "a.safetensors", "vit_tiny_patch16_224")
    assert len(str(caught.value)) < 700
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ExpertError, match=words.replace("does not fit timm model", "Unexpected")) as caught, explained("bad"):
        model.load_state_dict(load_state(tmp_path / "a.safetensors"))
    assert len(str(caught.value)) < 700
