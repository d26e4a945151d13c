"""`make quickstart` in small: real synthetic films, the shipped tiny experts, the command as it is typed."""

import json
from functools import partial
from pathlib import Path

import pytest

from medbridge import load_benchmark
from medbridge.adapter import load_adapter
from medbridge.cli import main
from medbridge.errors import AdapterError
from medbridge.studies.cells import PROBES
from medbridge.train import TrainConfig

FINISHED = Path(__file__).resolve().parents[2] / "data" / "quickstart"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("MEDBRIDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr("medbridge.cli.quickstart.TrainConfig", partial(TrainConfig, epochs=2))
    out = tmp_path_factory.mktemp("runs") / "quickstart"
    yield out, main(["quickstart", "--films", "24", "--out", str(out)])
    patch.undo()


def test_it_ends_well_and_writes_everything(run):
    out, status = run
    assert status == 0
    assert {"adapter.json", "adapter.safetensors", "metrics.json", "report.html"} <= {p.name for p in out.iterdir()}


def test_its_numbers_and_its_report_say_that_the_films_are_synthetic(run):
    metrics, page = json.loads((run[0] / "metrics.json").read_text()), (run[0] / "report.html").read_text()
    assert metrics["synthetic"] is True and "synthetic" in metrics["benchmark"]
    assert "These films are synthetic." in page and "Not for clinical use" in page
    assert set(metrics["test"]) == {"zero-shot", *PROBES, "MedBridge"}
    for method in metrics["test"].values():
        defined = [row for row in method["per_label"] if row["auc"] is not None]
        assert defined and all(0 <= row["auc"] <= 1 for row in defined)
        bounds = [(row["auc_lo"], row["auc_hi"]) for row in defined if row["auc_lo"] is not None]  # one patient gives none
        assert bounds and all(lo <= hi for lo, hi in bounds)
    assert {row["column"] for row in metrics["subgroups"]} == {"sex", "age", "view", "hospital"}
    assert metrics["subgroups"][0]["group"] in page and "by subgroup" in page


def test_its_adapter_loads_by_the_names_of_its_experts(run):
    model = load_adapter(run[0])
    assert [e.name for e in model.experts] == ["tiny-resnet", "tiny-resnet-scenes"] and model.card["synthetic"] is True


def test_the_finished_adapter_of_the_course_was_made_for_the_shipped_experts():
    model = load_adapter(FINISHED)  # refuses other weights than those that it was trained with
    assert model.card["trained_on"].startswith("PhantomCXR")
    assert tuple(model.labels) == tuple(load_benchmark("phantom", n_films=3).labels)


def test_an_adapter_of_the_shipped_experts_is_not_for_one_of_them(run):
    with pytest.raises(AdapterError, match="made for the experts tiny-resnet, tiny-resnet-scenes, not for tiny-vit"):
        load_adapter(run[0], ["tiny-vit"])
