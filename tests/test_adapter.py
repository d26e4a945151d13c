"""Adapters are saved, loaded and refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import feature_batch, perturbed

from medbridge.adapter import load_adapter, save_adapter
from medbridge.errors import AdapterError, ExpertError
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.prompts import ClassPrompts

LABELS = ("Nodule", "Effusion", "Mass")
OPTIONS = {"width": 32, "queries": 4}


def _trained(experts, **options):
    model = perturbed(MedBridge(experts, LABELS, **OPTIONS | options), 0.2)
    model.card = {"seed": 1}
    return model


@pytest.fixture
def model(experts):
    return perturbed(MedBridge(experts, LABELS, **OPTIONS))


@pytest.mark.parametrize("kind", ["copy", "lora"])
def test_query_layers_from_the_frozen_blocks_save_and_load(vit, kind, tmp_path):
    with pytest.raises(ValueError, match="set maps='full'"):
        MedBridge([vit], LABELS, query_kind=kind)
    model = perturbed(MedBridge([vit], LABELS, query_kind=kind, maps="full"))
    batch = feature_batch(model)
    save_adapter(model, tmp_path)
    again = load_adapter(tmp_path, [vit])
    torch.testing.assert_close(model(batch).logits, again(batch).logits)


def test_save_and_load_keep_everything_but_the_experts(experts, tmp_path):
    model = perturbed(MedBridge(
        experts, LABELS, AdapterConfig(width=32, top_k=1), FocalSampler(crop=0.6), {"Mass": ClassPrompts(("big",), ("none",))}))
    model.card = {"seed": 3}
    batch = feature_batch(model)
    save_adapter(model, tmp_path)
    assert (tmp_path / "adapter.safetensors").stat().st_size < 4.2 * sum(value.numel() for value in model.state().values())
    again = load_adapter(tmp_path, experts)
    assert (again.labels, again.config, again.sampler, again.prompts, again.card) == (
        model.labels, model.config, model.sampler, model.prompts, model.card)
    torch.testing.assert_close(model(batch).logits, again(batch).logits)
    assert not again.training


def test_an_adapter_for_other_experts_is_refused(model, vit, resnet, tmp_path):
    save_adapter(model, tmp_path)
    with pytest.raises(AdapterError, match="made for the experts small-vit, small-resnet, not for small-resnet, small-vit"):
        load_adapter(tmp_path, [resnet, vit])
    weight = vit.model.visual.conv1.weight
    before = weight.data.clone()  # adding 1 and taking it away again would not give the same bits
    weight.data += 1
    try:
        with pytest.raises(AdapterError, match="'small-vit' has other weights"):
            load_adapter(tmp_path, [vit, resnet])
    finally:
        weight.data.copy_(before)
    with pytest.raises(ExpertError, match="unknown expert 'small-vit'"):
        load_adapter(tmp_path)


def test_damaged_adapters_name_the_file(model, experts, tmp_path):
    with pytest.raises(AdapterError, match=r"adapter\.json: missing"):
        load_adapter(tmp_path, experts)
    save_adapter(model, tmp_path)
    weights, config = tmp_path / "adapter.safetensors", tmp_path / "adapter.json"
    good = weights.read_bytes(), config.read_text()
    weights.write_bytes(good[0][:100])
    with pytest.raises(AdapterError, match=r"adapter\.safetensors: damaged"):
        load_adapter(tmp_path, experts)
    weights.unlink()
    with pytest.raises(AdapterError, match=r"adapter\.safetensors: missing"):
        load_adapter(tmp_path, experts)
    weights.write_bytes(good[0])
    saved = json.loads(good[1])
    for change, message in (
        ({"config": saved["config"] | {"queries": 5}}, "does not fit"), ({"format": "x"}, "format is 'x'"),
        ({"config": {"nonsense": 1}}, "not an adapter of this version"),
    ):
        config.write_text(json.dumps(saved | change))
        with pytest.raises(AdapterError, match=message):
            load_adapter(tmp_path, experts)
    config.write_text("{")
    with pytest.raises(AdapterError, match="not readable as JSON"):
        load_adapter(tmp_path, experts)


def test_the_adapter_of_the_repository_loads():
    model = load_adapter(Path(__file__).parents[1] / "data" / "quickstart")
    assert model.card["synthetic"] and not model.training and len(model.labels) == 8


def test_a_router_with_a_memory_is_refused(model, tmp_path):
    model.members[0].router = torch.nn.Identity()
    with pytest.raises(AdapterError, match="a memory of films is not stored"):
        save_adapter(model, tmp_path)


def test_an_adapter_of_the_old_form_still_loads(model, experts, tmp_path):
    """One member without a name, tokens as they are, and no key of what came later."""
    model = perturbed(MedBridge(experts, LABELS, maps="full", **OPTIONS))
    save_adapter(model, tmp_path)
    path = tmp_path / "adapter.safetensors"
    save_file({name.removeprefix("members.0."): value for name, value in load_file(path).items()}, path)
    saved = json.loads((tmp_path / "adapter.json").read_text())
    for key in ("maps", "components", "patches", "bits", "whiten", "members", "readout"):
        del saved["config"][key]
    (tmp_path / "adapter.json").write_text(json.dumps(saved | {"format": "medbridge-adapter/1"}))
    again, batch = load_adapter(tmp_path, experts), feature_batch(model)
    assert again.config == model.config
    torch.testing.assert_close(again(batch).logits, model(batch).logits)


def test_members_bases_and_the_read_out_are_saved(experts, tmp_path):
    model = perturbed(MedBridge(experts, LABELS, members=2, readout=True, **OPTIONS))
    with torch.no_grad():
        model.readout.weight.normal_()
        model.readout.blend.fill_(0.7)
    batch, again = feature_batch(model), load_adapter(save_adapter(model, tmp_path), experts)
    torch.testing.assert_close(again(batch).logits, model(batch).logits)
    assert [b.digest() for b in again.bases] == [b.digest() for b in model.bases]
