"""Maps and boxes for free words: against MaskCLIP's definition, mixtures of the queries' maps, and boxes drawn by hand."""

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from medbridge.data import Benchmark
from medbridge.errors import EvaluationError, ExpertError
from medbridge.experts.timm_vision import TimmExpert
from medbridge.explain.attention import explain
from medbridge.explain.localisation import box_mask, localisation_table
from medbridge.extras.regions import _dense, prompt_attention, prompt_boxes, prompt_direction, prompt_maps, prompt_similarity


def test_boxes_are_the_connected_parts_in_pixels_of_the_film():
    heat = np.zeros((20, 40))
    heat[2:4, 10:20], heat[15:18, 30:32], heat[10, 0] = 1.0, 0.7, 0.9
    got = prompt_boxes(heat, (200, 800), share=0.5, least=0.003)
    assert got.round(2).to_numpy().tolist() == [[200, 20, 400, 40, 1.0], [600, 150, 640, 180, 0.7]]
    assert len(prompt_boxes(heat, (200, 800), share=0.8, least=0.003)) == 1
    assert len(prompt_boxes(np.zeros((4, 4)), (8, 8))) == 0
    with pytest.raises(ValueError, match="share=0"):
        prompt_boxes(heat, (8, 8), share=0)


def test_similarity_of_patches_is_maskclips(vit, resnet):
    film = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    for expert in (vit, resnet):
        heat = prompt_similarity(expert, film, "a bright square", side=64)
        assert heat.shape == (64, 64) and heat.min() == 0 and heat.max() == pytest.approx(1)
        other = prompt_similarity(expert, film, "a dark line", side=64)
        assert np.abs(heat - other).max() > 1e-3
    # a ResNet's attention pooling over one place alone is that place's own embedding
    visual = resnet.model.visual
    x = torch.randn(1, 3, 64, 64)
    tokens = resnet.encode_maps(x, [5]).maps[5].clone()
    pool = visual.attnpool
    want = torch.nn.functional.normalize(pool.c_proj(pool.v_proj(tokens[:, 3])), dim=-1)
    torch.testing.assert_close(_dense(resnet, x)[:, 1, 1], want)


def test_a_map_of_similarity_finds_what_the_expert_was_taught(tiny):
    """The shipped ViT knows bright blobs on dark ground; the map must be a map of this film, not of every film."""
    film = np.full((256, 256), 0.2, np.float32)
    film[160:220, 30:90] = 1
    heat, mirrored = (prompt_similarity(tiny, f, "a large bright round blob", side=32) for f in (film, film[:, ::-1].copy()))
    assert np.abs(heat - mirrored).max() > 0.05


def test_attention_for_words_is_a_mixture_of_the_queries_maps(scored):
    model, films = scored
    film = films["test"].benchmark.read(0)
    seen = explain(model, film)
    assert [t.shape for t in seen.tokens] == [(5, 32), (5, 32)]
    heat = prompt_attention(model, seen, "a bright square", side=32)
    assert heat.shape == (24, 32) and heat.max() == pytest.approx(1) and (heat >= 0).all()
    reads = [np.full(4, 0.25)] * 2
    np.testing.assert_allclose(seen.density([4 * r for r in reads], seen.weights[:, 0], 32),
                               seen.density(reads, seen.weights[:, 0], 32), atol=1e-5)
    label = seen.labels[0]
    np.testing.assert_allclose(seen.heatmap(label, 32), seen.density([m[0, :-1] for m in seen.mix], seen.weights[:, 0], 32))
    with pytest.raises(ValueError, match="the prompt is empty"):
        prompt_direction(model.experts[0], " ")


def test_maps_are_scored_beside_chance(scored, squares):
    model, films = scored
    test = films["test"].benchmark
    boxes = pd.DataFrame([(image, "wide", 0.0, 80.0, 128.0, 90.0) for image in test.image_ids()[:6]],
                         columns=["image", "label", "x0", "y0", "x1", "y1"])
    boxed = Benchmark(test.name, test.root, test.labels, test.table, True, boxes)
    for source in (model, model.experts[0]):
        table = localisation_table(prompt_maps(source), boxed, ["wide"], n_boot=50, progress=False)
        assert table["films"].tolist() == [6] and 0 < table["hit_chance"].iloc[0] < 0.2
    # a map that is the answer scores 1
    truth = localisation_table(lambda film: lambda _: box_mask([[0, 80, 128, 90]], film.shape, (24, 32)).astype(float),
                               boxed, ["wide"], n_boot=50, progress=False)
    assert truth["hit"].iloc[0] == truth["iou"].iloc[0] == 1
    with pytest.raises(EvaluationError, match="no boxes of bright"):
        localisation_table(prompt_maps(model), boxed, ["bright"], progress=False)


def test_a_tower_without_words_for_its_patches_says_so():
    text = torch.nn.Identity()
    text.text_dim = 4
    expert = TimmExpert("t", timm.create_model("test_vit", num_classes=0), text, 160)
    with pytest.raises(ExpertError, match="take an open_clip ViT or ResNet"):
        _dense(expert, torch.zeros(1, 3, 160, 160))
