"""The shipped tiny experts: they load through open_clip, match their cards, and their script repeats itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

import medbridge
from medbridge.experts import create_expert, tiny_experts_folder

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("tiny-vit", "tiny-resnet", "tiny-resnet-scenes")
AT_CHANCE = {"tiny-vit": {"place"}, "tiny-resnet": {"place"}, "tiny-resnet-scenes": {"place", "bright", "shape"}}
MEDICAL = {
    "atelectasis", "body", "bone", "bones", "cardiomegaly", "chest", "clavicle", "clinical", "consolidation",
    "diaphragm", "disease", "edema", "effusion", "emphysema", "fibrosis", "finding", "fracture", "heart",
    "hernia", "infiltrate", "infiltration", "lesion", "lung", "lungs", "mass", "medical", "nodule", "nodules",
    "opacity", "patient", "pleural", "pneumonia", "pneumothorax", "radiograph", "rib", "ribs", "scan", "spine",
    "thorax", "tissue", "tumour", "xray",
}


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        yield importlib.import_module("pretrain_tiny_experts")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(name) -> Path:
    return tiny_experts_folder() / name


@pytest.fixture(scope="module")
def expert(name):
    return create_expert(name)


def test_open_clip_loads_the_folder_itself(folder):
    model = open_clip.create_model(f"local-dir:{folder}")
    stored = load_file(folder / "open_clip_model.safetensors")
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    for key, value in model.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64)
        assert torch.isfinite(value).all()
        assert torch.equal(value, stored[key].to(value.dtype)), key


def test_files_match_the_card(name, folder):
    card = json.loads((folder / "card.json").read_text())
    weights = folder / "open_clip_model.safetensors"
    assert weights.stat().st_size == card["bytes"] < 4_000_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card["sha256"]
    assert card["name"] == name
    assert card["licence"] == "MIT"
    config = json.loads((folder / "open_clip_config.json").read_text())
    assert card["architecture"] == config["model_cfg"]


def test_zero_shot_is_what_the_card_says(script, name, folder, expert):
    card = json.loads((folder / "card.json").read_text())
    images = 200
    scores = script.zero_shot(expert, card["diet"], images, seed=card["test"]["seed"] + 50)
    for task, stated in card["zero_shot"].items():
        # 200 other images: four binomial standard errors of the smallest task (a third of them) on top of the tolerance
        slack = card["tolerance"] + 4 * (stated * (1 - stated) / (images / 4)) ** 0.5
        assert abs(scores[task] - stated) < slack, task


def test_zero_shot_and_probes_beat_chance_and_random_weights(folder):
    card = json.loads((folder / "card.json").read_text())
    # README.md names the tasks at which an expert is no better than chance
    for task in card["zero_shot"].keys() - AT_CHANCE[card["name"]]:
        assert card["zero_shot"][task] > card["chance"][task] + card["tolerance"], task
    trained, random = card["linear_probe"], card["linear_probe_random_weights"]
    assert sum(trained.values()) > sum(random.values()) + 0.1 * len(trained)
    assert trained["spot_auc"] > random["spot_auc"] + 0.05


def test_words_never_seen_still_tokenise(expert):
    tokens = expert.tokenizer(["pleural effusion, Ångström 7 ✓", "a small bright spot"])
    vocabulary = expert.model.vocab_size
    assert tokens.shape == (2, 32)
    assert tokens.min() >= 0 and tokens.max() < vocabulary
    assert expert.tokenizer.decode(expert.tokenizer.encode("pleural effusion")).strip() == "pleural effusion"
    seen = expert.tokenizer.encode("a small bright spot")
    assert len(seen) == 4  # a caption word is one token, so captions fit the context
    text = expert.encode_text(["pleural effusion", "no pleural effusion", "cardiomegaly"])
    torch.testing.assert_close(text.norm(dim=1), torch.ones(3))
    assert (text @ text.T)[0, 2] < 0.999


def test_maps_at_all_depths(expert):
    x = expert.preprocess(torch.rand(2, 128, 128))
    out = expert.encode_maps(x, range(1, expert.depth + 1))
    for depth in range(1, expert.depth + 1):
        rows, columns = expert.grids[depth - 1]
        assert out.maps[depth].shape == (2, expert.prefix + rows * columns, expert.widths[depth - 1])
        assert out.maps[depth].isfinite().all()
    assert out.summary.shape == (2, expert.image_dim)
    torch.testing.assert_close(out.embed.norm(dim=1), torch.ones(2))


def test_works_without_transformers(monkeypatch):
    monkeypatch.setattr(medbridge, "experts", medbridge.experts)  # put back afterwards, with the modules
    for module in [m for m in sys.modules if m.startswith(("medbridge.experts", "open_clip", "transformers"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "transformers", None)
    fresh = importlib.import_module("medbridge.experts")
    assert fresh.create_expert is not create_expert
    for name in ("tiny-vit", "tiny-resnet"):
        assert fresh.create_expert(name).encode_text(["a small bright spot"]).shape == (1, 128)


def test_captions_hold_no_medical_word(script):
    assert not script.WORDS & MEDICAL
    for diet in script.DIETS.values():
        captions = diet(200, 5).captions
        words = set(" ".join(captions).replace(",", "").split())
        assert words <= script.WORDS
        assert len(set(captions)) > 150


def test_captions_fit_the_context(script, expert):
    for diet in script.DIETS.values():
        assert max(len(expert.tokenizer.encode(caption)) for caption in diet(200, 6).captions) <= 30


@pytest.mark.parametrize("diet", ["scenes", "textures"])
def test_images_follow_from_the_seed(script, diet):
    first, again, other = (script.DIETS[diet](8, seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert first.captions == again.captions
    assert not torch.equal(first.images, other.images)
    assert first.images.min() >= 0 and first.images.max() <= 1
    assert first.cells.unique().tolist() == [0, 1]
    assert first.marks.shape == (8, 2, 32, 32)


def test_marks_lie_where_the_images_are_marked(script):
    batch = script.DIETS["scenes"](200, 8, single=True)
    bright = batch.attributes["bright"] == 1
    assert (batch.marks[bright, 0].flatten(1).amax(1) > 0.3).float().mean() > 0.95
    assert batch.marks[bright, 1].max() == 0
    centre = batch.attributes["place"] == 4
    assert batch.cells[centre][..., :2, :].sum() < batch.cells[centre][..., 3:5, :].sum()


def test_an_interrupted_run_resumes_to_the_same_weights(script, name, tmp_path, monkeypatch):
    recipe = script.RECIPES[name]
    monkeypatch.setitem(script.RECIPES, name, script.Recipe(**{**recipe.__dict__, "batch": 8}))
    whole = script.train(name, tmp_path / "whole", steps=3)
    script.train(name, tmp_path / "parts", steps=3, stop_at=2)
    assert not (tmp_path / "parts" / name / "open_clip_model.safetensors").exists()
    parts = script.train(name, tmp_path / "parts", steps=3, resume=True)
    weights = [load_file(path / "open_clip_model.safetensors") for path in (whole, parts)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert open_clip.create_model(f"local-dir:{parts}") is not None


def test_evaluate_reports_a_card_that_does_not_hold(script, tmp_path, capsys):
    source = tiny_experts_folder() / "tiny-vit"
    target = tmp_path / "tiny-vit"
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    card = json.loads((target / "card.json").read_text())
    card["test"]["images"] = 60
    card["zero_shot"] = script.zero_shot(create_expert("tiny-vit"), "scenes", 60, card["test"]["seed"])
    (target / "card.json").write_text(json.dumps(card))
    assert script.main(["tiny-vit", "--evaluate", "--out", str(tmp_path), "--threads", "1"]) == 0
    assert "within the tolerance" in capsys.readouterr().out
    card["zero_shot"]["size"] -= 0.3
    (target / "card.json").write_text(json.dumps(card))
    assert script.main(["tiny-vit", "--evaluate", "--out", str(tmp_path), "--threads", "1"]) == 1
    assert "NOT within" in capsys.readouterr().out
