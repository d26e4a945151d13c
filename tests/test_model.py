import json

import numpy as np
import pytest
import timm
import torch

from medbridge.adapter import load_adapter, save_adapter, without_expert
from medbridge.errors import AdapterError, ExpertError
from medbridge.experts.timm_vision import TimmExpert
from medbridge.features.batch import Batch
from medbridge.features.cost import cost_table, expert_cost
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.prompts import ClassPrompts

LABELS = ("Nodule", "Effusion", "Mass")


def _batch(model, films=3, views=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    maps, summary = [], []
    for expert, depths in zip(model.experts, model.depths, strict=True):
        x = torch.rand(films * views, expert.size, expert.size, generator=g)
        out = expert.encode_maps(expert.preprocess(x), depths)
        maps.append([out.maps[d].clone().half().unflatten(0, (films, views)) for d in depths])
        summary.append(out.summary.clone().half().unflatten(0, (films, views)))
    return Batch(maps, summary, torch.rand(films, views, 4, generator=g), torch.ones(films, views, dtype=torch.bool))


def _perturbed(model):
    torch.manual_seed(5)
    with torch.no_grad():
        for p in model.trainable().values():
            p.add_(0.1 * torch.randn_like(p))
    return model.eval()


@pytest.fixture
def model(experts):
    return _perturbed(MedBridge(experts, LABELS, width=32, queries=4))


def test_output_shapes_and_the_mixture_is_the_weighted_sum(model):
    out = model(_batch(model))
    assert out.logits.shape == (3, 3) and out.expert_logits.shape == out.weights.shape == (3, 2, 3)
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))
    assert [a.shape for a in out.attention] == [(3, 4, 4, 17), (3, 4, 4, 4)]
    assert [w.shape for w in out.view_weights] == [(3, 5, 32), (3, 5, 32)]


@pytest.mark.parametrize("options", [
    {"cross_view": False}, {"router": "uniform"}, {"router": "image", "top_k": 1}, {"query_layers": 1}, {"adapt_prompts": False}])
def test_every_option_gives_finite_scores_and_gradients(experts, options):
    model = MedBridge(experts, LABELS, width=32, queries=4, **options)
    model(_batch(model)).logits.square().sum().backward()
    for name, p in model.trainable().items():
        assert p.grad is None or p.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in model.trainable().values() if p.grad is not None) > 0


@pytest.mark.parametrize("kind", ["copy", "lora"])
def test_query_layers_from_the_frozen_blocks_save_and_load(vit, kind, tmp_path):
    model = _perturbed(MedBridge([vit], LABELS, query_kind=kind))
    model.save(tmp_path)
    again = MedBridge.load(tmp_path, [vit])
    batch = _batch(model)
    torch.testing.assert_close(model(batch).logits, again(batch).logits)


def test_frozen_experts_stay_frozen(model):
    model.train()
    assert not any(e.training for e in model.experts)
    assert not any(name.startswith("experts.") for name in model.trainable())


def test_padded_views_change_nothing(model):
    batch = _batch(model)
    want = model(batch).logits
    batch.view_mask = torch.cat([batch.view_mask, torch.zeros(3, 2, dtype=torch.bool)], 1)
    batch.boxes = torch.cat([batch.boxes, torch.rand(3, 2, 4)], 1)
    batch.maps = [[torch.cat([m, m[:, :2] * 7], 1) for m in maps] for maps in batch.maps]
    batch.summary = [torch.cat([s, s[:, :2] * 7], 1) for s in batch.summary]
    torch.testing.assert_close(model(batch).logits, want, rtol=1e-4, atol=1e-4)


def test_the_same_seed_builds_the_same_model_and_leaves_torch_alone(experts):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    a, b, c = (MedBridge(experts, LABELS, seed=s).trainable() for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)


def test_prevalence_sets_the_bias(model):
    model.set_prevalence(np.array([0.5, 0.1, 0.0]))
    got = model.branches[0].scores.bias.sigmoid()
    torch.testing.assert_close(got, torch.tensor([0.5, 0.1, 0.001]), rtol=1e-4, atol=1e-5)


def test_save_and_load_keep_everything_but_the_experts(experts, tmp_path):
    model = _perturbed(MedBridge(
        experts, LABELS, AdapterConfig(width=32, top_k=1), FocalSampler(crop=0.6), {"Mass": ClassPrompts(("big",), ("none",))}))
    model.card = {"seed": 3}
    model.save(tmp_path)
    assert (tmp_path / "adapter.safetensors").stat().st_size < 4.2 * sum(p.numel() for p in model.trainable().values())
    again = MedBridge.load(tmp_path, experts)
    assert (again.labels, again.config, again.sampler, again.prompts, again.card) == (
        model.labels, model.config, model.sampler, model.prompts, model.card)
    batch = _batch(model)
    torch.testing.assert_close(model(batch).logits, again(batch).logits)
    assert not again.training


def test_an_adapter_for_other_experts_is_refused(model, vit, resnet, tmp_path):
    model.save(tmp_path)
    with pytest.raises(AdapterError, match="made for the experts small-vit, small-resnet, not for small-resnet, small-vit"):
        MedBridge.load(tmp_path, [resnet, vit])
    weight = vit.model.visual.conv1.weight
    before = weight.data.clone()  # adding 1 and taking it away again would not give the same bits
    weight.data += 1
    try:
        with pytest.raises(AdapterError, match="'small-vit' has other weights"):
            MedBridge.load(tmp_path, [vit, resnet])
    finally:
        weight.data.copy_(before)
    with pytest.raises(ExpertError, match="unknown expert 'small-vit'"):
        MedBridge.load(tmp_path)


def test_damaged_adapters_name_the_file(model, experts, tmp_path):
    with pytest.raises(AdapterError, match=r"adapter\.json: missing"):
        MedBridge.load(tmp_path, experts)
    model.save(tmp_path)
    weights, config = tmp_path / "adapter.safetensors", tmp_path / "adapter.json"
    good = weights.read_bytes(), config.read_text()
    weights.write_bytes(good[0][:100])
    with pytest.raises(AdapterError, match=r"adapter\.safetensors: damaged"):
        MedBridge.load(tmp_path, experts)
    weights.unlink()
    with pytest.raises(AdapterError, match=r"adapter\.safetensors: missing"):
        MedBridge.load(tmp_path, experts)
    weights.write_bytes(good[0])
    saved = json.loads(good[1])
    for change, message in (
        ({"config": saved["config"] | {"queries": 5}}, "does not fit"), ({"format": "x"}, "format is 'x'"),
        ({"config": {"nonsense": 1}}, "not an adapter of this version"),
    ):
        config.write_text(json.dumps(saved | change))
        with pytest.raises(AdapterError, match=message):
            MedBridge.load(tmp_path, experts)
    config.write_text("{")
    with pytest.raises(AdapterError, match="not readable as JSON"):
        MedBridge.load(tmp_path, experts)


def test_bad_arguments(vit):
    with pytest.raises(ValueError, match="experts is empty"):
        MedBridge([], LABELS)
    with pytest.raises(ValueError, match="named twice"):
        MedBridge([vit, vit], LABELS)
    with pytest.raises(ValueError, match="labels='Mass'"):
        MedBridge([vit], "Mass")
    with pytest.raises(ValueError, match="unknown option querys"):
        MedBridge([vit], LABELS, querys=3)
    with pytest.raises(ValueError, match="prompts name Hernia"):
        MedBridge([vit], LABELS, prompts={"Hernia": ClassPrompts(("a",), ("b",))})


def test_router_options_reach_the_model_and_survive_saving_and_editing(experts, tmp_path):
    model = MedBridge(experts, LABELS, width=32, top_k=1, shared_expert="small-resnet", router_noise=0.5)
    assert (model.router.shared, model.router.noise) == (1, 0.5)
    again = load_adapter(save_adapter(model, tmp_path), experts)
    assert again.config == model.config
    assert without_expert(model, "small-resnet").config.shared_expert is None
    kept = without_expert(model, "small-vit")
    assert kept.config.shared_expert == "small-resnet" and kept.router.shared == 0
    with pytest.raises(ValueError, match="shared_expert='x' is none of the experts small-vit, small-resnet"):
        MedBridge(experts, LABELS, shared_expert="x")


def test_experts_of_other_kinds_sizes_widths_and_depths_mix(experts, tiny):
    text = torch.nn.Embedding(1, 20)
    text.text_dim = 20
    text.forward = lambda texts: torch.nn.functional.normalize(torch.ones(len(texts), 20) + torch.arange(20) % 3, dim=-1)
    more = [TimmExpert("timm-vit", timm.create_model("test_vit", num_classes=0, img_size=96), text, 96),
            TimmExpert("timm-convnext", timm.create_model("test_convnext", num_classes=0), text, 160), tiny]
    model = _perturbed(MedBridge([*experts, *more], LABELS, width=32))
    shapes = {(e.size, e.depth, e.widths[-1], e.text_dim) for e in model.experts}
    assert len({s[0] for s in shapes}) >= 4 and len({s[1] for s in shapes}) >= 3 and len({s[2] for s in shapes}) >= 4
    out = model(_batch(model))
    assert out.logits.shape == (3, 3) and out.weights.shape == (3, 5, 3) and torch.isfinite(out.logits).all()
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))
    table = cost_table([expert_cost(e, views=1, repeats=1) for e in model.experts])
    assert all(e.name in table for e in model.experts)
