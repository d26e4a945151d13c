"""The commands as a user types them, on small real files; experts are small ones with random weights."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from medbridge import cli
from medbridge.focal import FocalSampler
from medbridge.model import AdapterConfig, MedBridge
from medbridge.studies.adapt import adapt
from medbridge.train import TrainConfig

SETTINGS = ["--epochs", "2", "--queries", "4", "--width", "32", "--crop", "0.6", "--overlap", "0", "--extra", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, squares):
    root = tmp_path_factory.mktemp("own")
    (root / "images").mkdir()
    for path in squares.paths():
        shutil.copy2(path, root / "images")
    squares.table.to_csv(root / "labels.csv", index=False)
    return root


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, squares, experts):
    out = tmp_path_factory.mktemp("run")
    result = adapt(squares, experts, out, AdapterConfig(queries=4, width=32), TrainConfig(epochs=2),
                   FocalSampler(0.6, 0.0, 1), out / "cache", progress=False)
    return out, result


def _run(*args):
    return cli.main([str(a) for a in args])


def test_adapt_writes_adapter_metrics_and_report(named, folder, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["adapt", "--benchmark", "folder", "--root", folder, "--expert", "small-vit", "--expert", "small-resnet",
               "--out", out, "--cache", tmp_path / "cache", *SETTINGS]
    assert _run(*command) == 0
    printed = capsys.readouterr().out
    for word in ("zero-shot", "linear probe", "MedBridge", "mean", "bright", "wide", "paired"):
        assert word in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["test"]) == {"zero-shot", "linear probe", "MedBridge"}
    assert f"{metrics['test']['MedBridge']['macro']['auc']:.3f}" in printed
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 6 and "http" not in page.replace("http-equiv", "")
    assert (out / "adapter.safetensors").exists() and (out / "adapter.json").exists()
    # the same command again does not train again, and says the same
    weights = (out / "adapter.safetensors").read_bytes()
    assert _run(*command) == 0
    assert (out / "adapter.safetensors").read_bytes() == weights
    assert capsys.readouterr().out.splitlines()[:5] == printed.splitlines()[:5]


def test_evaluate_repeats_what_adapt_measured(named, folder, adapted, capsys):
    out, result = adapted
    assert _run("evaluate", "--adapter", out, "--benchmark", "folder", "--root", folder, "--json") == 0
    got = json.loads(capsys.readouterr().out)
    assert got["macro"]["auc"] == pytest.approx(result.evaluations["MedBridge"].macro["auc"], abs=1e-6)


def test_a_loaded_adapter_scores_as_the_trained_one(adapted, experts):
    out, result = adapted
    again = MedBridge.load(out, experts)
    np.testing.assert_allclose(
        again.predict_proba(result.test, cache=out / "cache", progress=False), result.scores["MedBridge"], atol=1e-6)


def _dicom(path, film):
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.1.1", ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "DX"
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *film.shape, 1, "MONOCHROME1"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.WindowCenter, d.WindowWidth = 2048, 4096
    d.PixelData = (4095 - film.astype(np.uint16) * 16).astype("<u2").tobytes()
    pydicom.dcmwrite(path, d)


def test_predict_reads_png_jpeg_and_dicom(named, adapted, squares, tmp_path, capsys):
    film = np.asarray(Image.open(squares.paths()[0]))
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.png", "d.dcm")]
    Image.fromarray(film).save(paths[0])
    Image.fromarray(film).save(paths[1], quality=98)
    Image.fromarray(film.astype(np.uint16) * 257).save(paths[2])
    _dicom(paths[3], film)
    assert _run("predict", "--adapter", adapted[0], "--json", *paths) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["image"] for r in rows] == [str(p) for p in paths]
    values = np.array([list(r["probabilities"].values()) for r in rows])
    assert list(rows[0]["probabilities"]) == ["bright", "wide"] and ((values > 0) & (values < 1)).all()
    assert np.abs(values - values[0]).max() < 0.1  # the same film in four containers
    assert _run("predict", "--adapter", adapted[0], paths[0]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["image", "bright", "wide"]
    assert [float(v) for v in table[1].split()[1:]] == pytest.approx(values[0], abs=1e-3)


@pytest.mark.parametrize(("command", "message"), [
    (["predict", "--adapter", "{run}", "{tmp}/none.png"], "none.png"),
    (["predict", "--adapter", "{tmp}/no-run", "{image}"], "adapter.json: missing"),
    (["evaluate", "--adapter", "{run}", "--benchmark", "folders", "--root", "{folder}"], "did you mean 'folder'"),
    (["adapt", "--benchmark", "folder", "--expert", "small-vit"], "needs root"),
    (["adapt", "--benchmark", "folder", "--root", "{tmp}/nothing", "--expert", "small-vit"], "no such folder"),
])
def test_errors_are_one_line_and_name_the_fix(named, adapted, folder, squares, tmp_path, capsys, command, message):
    values = {"run": adapted[0], "tmp": tmp_path, "image": squares.paths()[0], "folder": folder}
    assert _run(*(part.format(**values) for part in command)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error


def test_an_unknown_expert_stops_before_anything_is_computed(folder, tmp_path, capsys):
    assert _run("adapt", "--benchmark", "folder", "--root", folder, "--expert", "tiny-vitt", "--out", tmp_path / "x") == 2
    assert "did you mean tiny-vit" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_corrupt_film_stops_before_training(named, folder, tmp_path, capsys, monkeypatch):
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    (bad / "images" / "050.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    monkeypatch.setattr("medbridge.studies.adapt.fit", lambda *a, **k: pytest.fail("training started"))
    assert _run("adapt", "--benchmark", "folder", "--root", bad, "--expert", "small-vit", "--out", tmp_path / "x",
                "--cache", tmp_path / "cache", *SETTINGS) == 2
    assert "050.png" in capsys.readouterr().err


def test_experts_are_listed(capsys):
    assert _run("experts") == 0
    assert "tiny-vit" in capsys.readouterr().out


def test_ctrl_c_says_that_nothing_is_lost(named, folder, tmp_path, capsys, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("medbridge.cli.adapt.adapt", stop)
    assert _run("adapt", "--benchmark", "folder", "--root", folder, "--expert", "small-vit", "--out", tmp_path) == 130
    assert "goes on from there" in capsys.readouterr().err
