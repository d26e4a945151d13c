"""The experts' interface. What is specific to the shipped tiny ones is in test_tiny_experts.py."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, create_expert, list_experts
from medbridge.experts.weights import find_weights, load_state


def _views(expert, n=2):
    return torch.rand(n, expert.size, expert.size, generator=torch.Generator().manual_seed(0))


def test_maps_at_every_depth_have_the_shapes_that_the_expert_declares(experts):
    for expert in experts:
        out = expert.encode_maps(expert.preprocess(_views(expert)), range(1, expert.depth + 1))
        for depth in range(1, expert.depth + 1):
            rows, columns = expert.grids[depth - 1]
            assert out.maps[depth].shape == (2, expert.prefix + rows * columns, expert.widths[depth - 1])
        assert out.summary.shape == (2, expert.image_dim) and out.embed.shape == (2, expert.text_dim)
        torch.testing.assert_close(out.embed.norm(dim=1), torch.ones(2))


def test_the_embedding_is_open_clips_own(experts):
    for expert in experts:
        x = expert.preprocess(_views(expert))
        want = torch.nn.functional.normalize(expert.model.encode_image(x), dim=-1)
        torch.testing.assert_close(expert.encode_maps(x, [expert.depth]).embed, want)


def test_the_map_after_a_block_is_the_input_of_the_next(vit):
    maps = vit.encode_maps(vit.preprocess(_views(vit)), [1, 2]).maps
    torch.testing.assert_close(vit.model.visual.transformer.resblocks[1](maps[1].clone()), maps[2])


def test_frozen_means_frozen(vit):
    vit.train()
    assert not vit.training and not any(p.requires_grad for p in vit.parameters())


def test_texts_are_normalised_and_differ(vit):
    text = vit.encode_text(["a nodule", "no finding"])
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    assert (text[0] - text[1]).abs().max() > 1e-3


def test_preprocess_normalises_and_refuses_other_sizes(vit):
    x = vit.preprocess(torch.full((1, vit.size, vit.size), 0.5))
    torch.testing.assert_close(x[0, :, 0, 0], (0.5 - vit.mean.flatten()) / vit.std.flatten())
    with pytest.raises(ValueError, match=f"size={vit.size}"):
        vit.preprocess(torch.zeros(1, 8, 8))


def test_depths_out_of_range(vit):
    with pytest.raises(ValueError, match=r"depths 1\.\.3; asked for \[4\]"):
        vit.encode_maps(vit.preprocess(_views(vit)), [4])


def test_a_fingerprint_follows_the_weights(vit):
    before = vit.fingerprint()
    weight = vit.model.visual.conv1.weight
    own = weight.detach().clone()
    weight.data[0, 0, 0, 0] += 1
    try:
        assert vit.fingerprint() != before
    finally:
        weight.data.copy_(own)  # to the last bit: other tests share the expert
    assert vit.fingerprint() == before


@pytest.mark.parametrize(("name", "message"), [
    ("tiny-vitt", "did you mean 'tiny-vit'"),
    ("nonsense", "Known: tiny-vit"),
    ("open_clip:ViT-Z-99/openai", "unknown open_clip model 'ViT-Z-99'"),
    ("open_clip:ViT-B-32/nobody", "no pretrained tag 'nobody'"),
    ("timm:resnet9000+minilm", "unknown timm model 'resnet9000'"),
    ("timm:resnet18+word2vec", "unknown text encoder 'word2vec'"),
])
def test_unknown_names_say_what_is_known(name, message):
    with pytest.raises(ExpertError, match=message):
        create_expert(name)


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


def test_shipped_experts_come_first():
    assert list_experts()[:2] == ["tiny-vit", "tiny-resnet"] and set(list_experts()) == set(ALIASES)


DINO = "vit_small_patch14_dinov2.lvd142m.safetensors"


@pytest.mark.skipif(not (Path(os.environ.get("MEDBRIDGE_WEIGHTS", "/nowhere")) / DINO).exists(),
                    reason=f"MEDBRIDGE_WEIGHTS holds no {DINO}")
def test_dinov2_with_a_sentence_encoder():
    pytest.importorskip("transformers")
    expert = create_expert("dinov2-vits14+minilm")
    assert (expert.depth, expert.prefix, expert.text_dim, expert.aligned) == (12, 1, 384, False)
    x = expert.preprocess(_views(expert, 1))
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
    x = expert.preprocess(_views(expert, 1))
    whole = expert.encode_maps(x, [1, 6, 12])
    for depth in (1, 6, 12):
        torch.testing.assert_close(expert.finish(whole.maps[depth], depth).summary, whole.summary, rtol=0, atol=1e-5)
