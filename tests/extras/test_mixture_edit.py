"""Experts come to a trained mixture and leave it."""

import pytest
import torch
from samples import feature_batch, perturbed

from medbridge.adapter import load_adapter, save_adapter
from medbridge.errors import AdapterError
from medbridge.experts import create_expert
from medbridge.extras.mixture_edit import with_expert, without_expert
from medbridge.features.batch import Batch
from medbridge.model import MedBridge

LABELS = ("Nodule", "Effusion", "Mass")
OPTIONS = {"width": 32, "queries": 4}


@pytest.fixture(scope="module")
def third():
    return create_expert("tiny-resnet")


def _part(batch, kept):
    return Batch([batch.maps[k] for k in kept], [batch.summary[k] for k in kept], batch.boxes, batch.view_mask)


def _trained(experts, **options):
    model = perturbed(MedBridge(experts, LABELS, **OPTIONS | options), 0.2)
    model.card = {"seed": 1}
    return model


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


def test_three_experts_of_other_widths_sizes_and_depths_run_together(experts, third):
    model = _trained([*experts, third])
    assert len({e.size for e in model.experts}) == 3 and len({e.depth for e in model.experts}) == 2
    assert len({e.widths[-1] for e in model.experts}) == 3
    out = model(feature_batch(model, views=2))
    assert out.weights.shape == (3, 3, 3)
    torch.testing.assert_close(out.logits, (out.weights * out.expert_logits).sum(1))


@pytest.mark.parametrize("options", [
    {}, {"router": "image"}, {"router": "uniform"}, {"top_k": 1}, {"members": 2, "readout": True}, {"maps": "full"}])
def test_an_added_expert_leaves_the_others_as_they_were(experts, third, options):
    model = _trained(experts, **options)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    more = with_expert(model, third)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [e.name for e in more.experts] == [e.name for e in experts] + ["tiny-resnet"]
    batch = feature_batch(more, views=2)
    old, new = model(_part(batch, [0, 1])), more(batch)
    torch.testing.assert_close(new.expert_logits[:, :2], old.expert_logits)
    torch.testing.assert_close(new.weights.sum(1), torch.ones(3, 3))
    if not options or options == {"router": "image"}:
        kept = new.weights[:, :2]
        torch.testing.assert_close(kept / kept.sum(1, keepdim=True), old.weights)  # proportions of the others
        torch.testing.assert_close(new.weights[:, 2], kept.prod(1).sqrt())  # its score is the mean of theirs
    [note] = more.card["edited"]
    assert "added tiny-resnet to small-vit, small-resnet" in note and "train again" in note and more.card["seed"] == 1


def test_a_dropped_expert_leaves_the_others_as_they_were(experts, third):
    model = _trained([*experts, third], top_k=3)
    less = without_expert(model, "small-resnet")
    assert [e.name for e in less.experts] == ["small-vit", "tiny-resnet"] and less.config.top_k == 2
    batch = feature_batch(model, views=2)
    old, new = model(batch), less(_part(batch, [0, 2]))
    torch.testing.assert_close(new.expert_logits, old.expert_logits[:, [0, 2]])
    widths = [b.encoder.width for b in model.branches]
    kept = torch.cat([c for k, c in enumerate(model.router.net[0].weight.split(widths, 1)) if k != 1], 1)
    assert torch.equal(less.router.net[0].weight, kept)
    assert torch.equal(less.router.net[2].bias, model.router.net[2].bias.view(3, -1)[[0, 2]].flatten())
    assert "dropped small-resnet" in less.card["edited"][0]


def test_added_then_dropped_is_the_mixture_that_it_was(experts, third):
    model = _trained(experts)
    again = without_expert(with_expert(model, third), "tiny-resnet")
    state = again.trainable()
    assert state.keys() == model.trainable().keys()
    assert all(torch.equal(v, state[k]) for k, v in model.trainable().items()) and len(again.card["edited"]) == 2


def test_one_expert_becomes_two_with_a_uniform_router_and_back(vit, third):
    model = _trained([vit])
    two = with_expert(model, third)
    batch = feature_batch(two, views=2)
    torch.testing.assert_close(two(batch).weights, torch.full((3, 2, 3), 0.5))
    one = without_expert(two, "tiny-resnet")
    torch.testing.assert_close(one(_part(batch, [0])).logits, model(_part(batch, [0])).logits)


def test_an_edited_mixture_saves_loads_and_trains(experts, third, tmp_path):
    more = with_expert(_trained(experts), third)
    batch = feature_batch(more, views=2)
    save_adapter(more, tmp_path)
    again = load_adapter(tmp_path, [*experts, third])
    torch.testing.assert_close(again(batch).logits, more(batch).logits)
    assert again.card == more.card
    again.train()
    again(batch).logits.square().sum().backward()
    net = again.router.net[0].weight
    assert net.grad[:, -32:].abs().sum() > 0  # the router can learn to look at the newcomer


def test_edits_that_make_no_sense_say_what_the_mixture_has(experts, vit):
    model = _trained(experts)
    with pytest.raises(AdapterError, match="'small-vit' is in this mixture already: it has small-vit, small-resnet"):
        with_expert(model, vit)
    with pytest.raises(AdapterError, match="no expert 'clip' in this mixture: it has small-vit, small-resnet"):
        without_expert(model, "clip")
    with pytest.raises(AdapterError, match="'small-vit' is the only expert"):
        without_expert(_trained([vit]), "small-vit")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_expert_that_is_named_computes_in_the_mixtures_precision(experts, monkeypatch, precision):
    model = _trained(experts)
    for expert in model.experts:
        monkeypatch.setattr(expert, "precision", precision)
    assert with_expert(model, "tiny-resnet").experts[-1].precision == precision
