"""Finding and reading weights: never unpickled, and what is missing is named with its place."""

import os

import pytest
import torch
from safetensors.torch import save_file

from medbridge.errors import ExpertError
from medbridge.experts import create_expert
from medbridge.experts.weights import find_weights, load_state


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
