"""``medbridge adapt`` as a user types it, on small real files; experts are small ones with random weights."""

import json
import re
import shutil

import pytest

from medbridge import cli
from medbridge.studies.cells import PROBE, PROBES


def test_adapt_writes_adapter_metrics_and_report(adapted):
    for word in ("zero-shot", "linear probe", "MedBridge", "mean", "bright", "wide", f"MedBridge minus {PROBE}, paired"):
        assert word in adapted.printed
    metrics = json.loads((adapted.out / "metrics.json").read_text())
    assert set(metrics["test"]) == {"zero-shot", *PROBES, "MedBridge"}
    assert f"{metrics['test']['MedBridge']['macro']['auc']:.3f}" in adapted.printed
    page = (adapted.out / "report.html").read_text()
    text, pictures = re.subn(r"data:image/png;base64,[\w+/=]+", "", page)  # in whose letters any word may stand by chance
    assert pictures >= 6 and "http" not in text.replace("http-equiv", "")
    assert (adapted.out / "adapter.safetensors").exists() and (adapted.out / "adapter.json").exists()


def test_the_same_command_again_does_not_train_again_and_says_the_same(adapted, named, capsys, monkeypatch):
    monkeypatch.setattr("medbridge.viz.report.write_report", lambda *_: None)
    weights = (adapted.out / "adapter.safetensors").read_bytes()
    assert cli.main([str(word) for word in adapted.command]) == 0
    assert (adapted.out / "adapter.safetensors").read_bytes() == weights
    assert capsys.readouterr().out.splitlines()[:5] == adapted.printed.splitlines()[:5]


def test_an_unknown_expert_stops_before_anything_is_computed(squares_folder, tmp_path, capsys):
    assert cli.main(["adapt", "--benchmark", "folder", "--root", str(squares_folder), "--expert", "tiny-vitt",
                     "--out", str(tmp_path / "x")]) == 2
    assert "did you mean" in capsys.readouterr().err and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("option", "value", "message"), [
    ("--epochs", "0", "epochs=0 must be at least 1"), ("--crop", "2", "crop=2.0"), ("--loss", "mse", "loss='mse' is unknown")])
def test_settings_are_checked_before_films_are_read(monkeypatch, capsys, option, value, message):
    monkeypatch.setattr("medbridge.data.tasks.load_benchmark", lambda *a, **k: pytest.fail("films were read"))
    assert cli.main(["adapt", "--benchmark", "phantom", "--expert", "tiny-vit", option, value]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value", "message"), [
    ("--epochs", "x", "argument --epochs: 'x': write a whole number"),
    ("--lr", "nan", "argument --lr: 'nan': write a finite number")])
def test_a_value_of_another_type_names_its_option(capsys, option, value, message):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["adapt", "--benchmark", "phantom", "--expert", "tiny-vit", option, value])
    assert message in capsys.readouterr().err


def test_a_corrupt_film_stops_before_training(named, squares_folder, tmp_path, capsys, monkeypatch):
    bad = tmp_path / "bad"
    shutil.copytree(squares_folder, bad)
    (bad / "images" / "050.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    monkeypatch.setattr("medbridge.baselines.method.MedBridgeMethod.fit", lambda *a, **k: pytest.fail("training started"))
    assert cli.main(["adapt", "--benchmark", "folder", "--root", str(bad), "--expert", "small-vit", "--out", str(tmp_path / "x"),
                     "--cache", str(tmp_path / "cache")]) == 2
    assert "050.png" in capsys.readouterr().err


def test_a_streamed_run_writes_no_features_and_its_probes_say_the_same(adapted, named, tmp_path, monkeypatch):
    monkeypatch.setattr("medbridge.viz.report.write_report", lambda *_: None)
    places = {adapted.out: tmp_path / "run", adapted.out / "cache": tmp_path / "cache"}
    command = [str(places.get(word, word)) for word in adapted.command]
    assert cli.main([*command, "--features", "stream", "--members", "1"]) == 0
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"bases", "films.jsonl"}
    before, after = (json.loads((run / "metrics.json").read_text()) for run in (adapted.out, tmp_path / "run"))
    for name in PROBES:
        assert after["test"][name]["macro"]["auc"] == pytest.approx(before["test"][name]["macro"]["auc"], abs=0.02)
    assert (before["features"], after["features"]) == ("cache", "stream")
