"""What the frozen towers compute in: chosen once, recorded in the adapter, used again."""

import json
import shutil
import warnings

import numpy as np
import pytest

from medbridge import cli, create_expert
from medbridge.adapter import load_adapter
from medbridge.errors import AdapterError, ExpertError
from medbridge.experts import tiny_experts_folder
from medbridge.studies.experiment_file import ExperimentError, parse_experiment

SETTINGS = ["--epochs", "1", "--queries", "2", "--width", "16", "--crop", "1", "--overlap", "0", "--extra", "0"]


def _run(*args):
    return cli.main([str(a) for a in args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, squares):
    root = tmp_path_factory.mktemp("own")
    (root / "images").mkdir()
    for path in squares.paths():
        shutil.copy2(path, root / "images")
    squares.table.to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def half(tmp_path_factory, folder):
    """Folder of an adapter that was trained in bfloat16."""
    out = tmp_path_factory.mktemp("half")
    assert _run("adapt", "--benchmark", "folder", "--root", folder, "--expert", "tiny-vit", "--precision", "bfloat16",
                "--out", out, "--cache", out / "cache", *SETTINGS) == 0
    return out


def test_an_adapter_is_used_as_it_was_trained(half, folder, capsys):
    capsys.readouterr()
    metrics = json.loads((half / "metrics.json").read_text())
    assert metrics["precision"] == ["bfloat16"]
    model = load_adapter(half)
    assert model.experts[0].precision == "bfloat16"
    evaluate = ["evaluate", "--adapter", half, "--benchmark", "folder", "--root", folder, "--cache", half / "cache", "--json"]
    assert _run(*evaluate) == 0
    same = json.loads(capsys.readouterr().out)["macro"]["auc"]
    assert same == pytest.approx(metrics["test"]["MedBridge"]["macro"]["auc"], abs=1e-6)
    assert len(list((half / "cache").glob("tiny-vit-*"))) == 1  # the features of training were found
    weights = f"tiny-vit={tiny_experts_folder() / 'tiny-vit'}"
    assert _run(*evaluate, "--weights", weights) == 0
    assert json.loads(capsys.readouterr().out)["macro"]["auc"] == same
    assert _run(*evaluate, "--precision", "float32") == 0
    assert json.loads(capsys.readouterr().out)["macro"]["auc"] == pytest.approx(same, abs=0.1)
    assert len(list((half / "cache").glob("tiny-vit-*"))) == 2


def test_predict_uses_it_and_may_be_told_another(half, folder, capsys):
    film = next((folder / "images").glob("*.png"))
    scores = {}
    for options in ((), ("--precision", "bfloat16"), ("--precision", "float32")):
        capsys.readouterr()
        assert _run("predict", "--adapter", half, "--json", *options, film) == 0
        scores[options] = np.array(list(json.loads(capsys.readouterr().out)[0]["probabilities"].values()))
    trained, same, other = scores.values()
    assert (trained == same).all() and 0 < np.abs(trained - other).max() < 0.05


def test_an_expert_that_computes_otherwise_is_refused(half):
    with pytest.raises(AdapterError, match="'tiny-vit' computes in float32, and bfloat16 is asked for"):
        load_adapter(half, [create_expert("tiny-vit")])
    assert load_adapter(half, [create_expert("tiny-vit")], precision="float32").experts[0].precision == "float32"
    assert load_adapter(half, ["tiny-vit"]).experts[0].precision == "bfloat16"
    with pytest.raises(ExpertError, match="precision='int8' is unknown"):
        load_adapter(half, precision="int8")


def test_adapters_from_before_and_from_nowhere(half, tmp_path):
    for name in ("adapter.json", "adapter.safetensors"):
        shutil.copy2(half / name, tmp_path)
    saved = json.loads((tmp_path / "adapter.json").read_text())
    del saved["experts"][0]["precision"]  # as adapters were written before
    (tmp_path / "adapter.json").write_text(json.dumps(saved))
    assert load_adapter(tmp_path).experts[0].precision == "float32"
    for odd in ("int8", 16, None, ["bfloat16"]):
        saved["experts"][0]["precision"] = odd
        (tmp_path / "adapter.json").write_text(json.dumps(saved))
        with pytest.raises(AdapterError, match=r"experts\[0\]\.precision"):
            load_adapter(tmp_path)


def test_runs_of_another_precision_are_other_runs(folder, squares, tmp_path, capsys):
    plain, half = create_expert("tiny-vit"), create_expert("tiny-vit", precision="bfloat16")
    assert plain.made_by() == plain.fingerprint() == half.fingerprint() != half.made_by()  # runs from before are still known
    few = squares.table.groupby("split").head(8)  # processors take their time for float16
    shutil.copytree(folder / "images", tmp_path / "few" / "images", ignore=lambda _, names: set(names) - set(few["image"]))
    few.to_csv(tmp_path / "few" / "labels.csv", index=False)
    board = ["leaderboard", "--benchmark", "folder", "--root", tmp_path / "few", "--expert", "tiny-vit", "--method", "zero-shot",
             "--seeds", "1", "--crop", "1", "--overlap", "0", "--extra", "0",
             "--out", tmp_path / "board", "--cache", tmp_path / "cache"]
    assert _run(*board, "--precision", "float16") == 0
    assert "in float16" in (tmp_path / "board" / "settings.json").read_text()
    assert _run(*board) == 2
    assert "differs in: experts" in capsys.readouterr().err


def test_an_experiment_file_names_it():
    given = {"name": "x", "experts": ["tiny-vit"], "tasks": [{"name": "t", "kind": "multi-label", "train": ["phantom"]}]}
    assert parse_experiment(given).precision == "float32"
    assert parse_experiment(given | {"precision": "bfloat16"}).precision == "bfloat16"
    with pytest.raises(ExperimentError, match="precision: 'half' is unknown"):
        parse_experiment(given | {"precision": "half"})
    with pytest.raises(ExpertError, match="precision='half' is unknown"):
        create_expert("tiny-vit", precision="half")


@pytest.mark.parametrize(("precision", "machine", "bf16", "amx", "slow"), [
    ("bfloat16", "x86_64", False, False, True), ("bfloat16", "x86_64", True, False, False),
    ("bfloat16", "x86_64", False, True, False), ("bfloat16", "arm64", False, False, False),
    ("float16", "AMD64", True, False, True), ("float32", "x86_64", False, False, False),
])
def test_a_precision_that_this_machine_emulates_is_said_to_be_slow(monkeypatch, precision, machine, bf16, amx, slow):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("torch.cpu._is_amx_fp16_supported", lambda: False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create_expert("tiny-resnet", precision=precision)
    assert [f"{precision}, which can be many times slower here" in str(w.message) for w in caught] == [True] * slow
