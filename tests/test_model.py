
import numpy as np
import pytest
import timm
import torch
from samples import feature_batch, perturbed

from medbridge.experts.timm_vision import TimmExpert
from medbridge.features.cost import cost_table, expert_cost
from medbridge.model import MedBridge
from medbridge.prompts import ClassPrompts

LABELS = ("Nodule", "Effusion", "Mass")


@pytest.fixture
def model(experts):
    return perturbed(MedBridge(experts, LABELS, width=32, queries=4))


def test_output_shapes_and_the_mixture_is_the_weighted_sum(model):
    out = model(feature_batch(model))
    assert out.logits.shape == (3, 3) and out.expert_logits.shape == out.weights.shape == (3, 2, 3)
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))
    assert [a.shape for a in out.attention] == [(3, 4, 4, 17), (3, 4, 4, 4)]
    assert [w.shape for w in out.view_weights] == [(3, 5, 32), (3, 5, 32)]


@pytest.mark.parametrize("options", [
    {"cross_view": False}, {"router": "uniform"}, {"router": "image", "top_k": 1}, {"query_layers": 1}, {"adapt_prompts": False}])
def test_every_option_gives_finite_scores_and_gradients(experts, options):
    model = MedBridge(experts, LABELS, width=32, queries=4, **options)
    model(feature_batch(model)).logits.square().sum().backward()
    for name, p in model.trainable().items():
        assert p.grad is None or p.grad.isfinite().all(), name
    assert sum(p.grad.abs().sum() for p in model.trainable().values() if p.grad is not None) > 0


def test_frozen_experts_stay_frozen(model):
    model.train()
    assert not any(e.training for e in model.experts)
    assert not any(name.startswith("experts.") for name in model.trainable())


def test_padded_views_change_nothing(model):
    batch = feature_batch(model)
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


def test_bad_arguments(vit):
    with pytest.raises(ValueError, match="experts is empty"):
        MedBridge([], LABELS)
    with pytest.raises(ValueError, match="named twice"):
        MedBridge([vit, vit], LABELS)
    with pytest.raises(ValueError, match="labels='Mass'"):
        MedBridge([vit], "Mass")
    for name in ("queries", "query_layers", "layer_step", "width", "heads", "rank", "members"):
        with pytest.raises(ValueError, match=f"{name}=0 must be at least 1"):
            MedBridge([vit], LABELS, **{name: 0})
    with pytest.raises(ValueError, match="unknown option querys"):
        MedBridge([vit], LABELS, querys=3)
    with pytest.raises(ValueError, match="prompts name Hernia"):
        MedBridge([vit], LABELS, prompts={"Hernia": ClassPrompts(("a",), ("b",))})


def test_experts_of_other_kinds_sizes_widths_and_depths_mix(experts, tiny):
    text = torch.nn.Embedding(1, 20)
    text.text_dim = 20
    text.forward = lambda texts: torch.nn.functional.normalize(torch.ones(len(texts), 20) + torch.arange(20) % 3, dim=-1)
    more = [TimmExpert("timm-vit", timm.create_model("test_vit", num_classes=0, img_size=96), text, 96),
            TimmExpert("timm-convnext", timm.create_model("test_convnext", num_classes=0), text, 160), tiny]
    model = perturbed(MedBridge([*experts, *more], LABELS, width=32))
    shapes = {(e.size, e.depth, e.widths[-1], e.text_dim) for e in model.experts}
    assert len({s[0] for s in shapes}) >= 4 and len({s[1] for s in shapes}) >= 3 and len({s[2] for s in shapes}) >= 4
    out = model(feature_batch(model))
    assert out.logits.shape == (3, 3) and out.weights.shape == (3, 5, 3) and torch.isfinite(out.logits).all()
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))
    table = cost_table([expert_cost(e, views=1, repeats=1) for e in model.experts])
    assert all(e.name in table for e in model.experts)
