"""The experts' interface, their names and their views. What is specific to the shipped tiny ones is in test_tiny_experts.py."""

import numpy as np
import pytest
import torch
from PIL import Image

from medbridge.data import Benchmark
from medbridge.errors import ExpertError
from medbridge.experts import ALIASES, create_expert, list_experts
from medbridge.features.cache import FeatureCache, expert_folder
from medbridge.focal import FocalSampler, extract_views


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


def test_shipped_experts_come_first():
    assert list_experts()[:2] == ["tiny-vit", "tiny-resnet"] and set(list_experts()) == set(ALIASES)


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
    features = FeatureCache(tmp_path, progress=False).films(films, [one, two], [[6], [5]], sampler)[0]
    film = films.read(0)
    for k, (expert, depth) in enumerate(((one, 6), (two, 5))):
        views = extract_views(film, sampler.inference_boxes(*film.shape), *expert.view_kind)
        want = expert.encode_maps(expert.preprocess(views), [depth]).maps[depth]
        torch.testing.assert_close(features.maps[k][0].float(), want, rtol=5e-3, atol=5e-3)
    assert (tmp_path / expert_folder(two)).is_dir() and expert_folder(two) != bilinear
