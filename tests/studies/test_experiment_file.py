"""The YAML file of an experiment: what it refuses, with the key that is at fault, and what it forgives."""

import copy
from pathlib import Path

import pytest
import yaml

from medbridge.studies.experiment_file import Experiment, ExperimentError, parse_experiment, read_experiment

SHIPPED = Path(__file__).resolve().parents[2]


@pytest.fixture
def given(two_sites):
    return {
        "name": "small grid", "experts": ["small-vit"], "seeds": [0, 1], "label_fractions": [1.0, 0.2],
        "benchmarks": {site: {"benchmark": "folder", "root": str(two_sites / site)} for site in ("north", "south")},
        "tasks": [{"name": "across", "kind": "cross-domain", "train": ["north"], "test": ["south"]}],
    }


@pytest.mark.parametrize(("change", "message"), [
    ({"expert": ["x"]}, r"unknown key 'expert'; did you mean 'experts'\?"),
    ({"name": None}, "name: None: write a text"),
    ({"experts": "tiny-vit"}, "experts: 'tiny-vit': write a list"),
    ({"experts": ["a", "A"]}, "experts: 'a' is named twice"),
    ({"seeds": [0.5]}, r"seeds\[0\]: 0.5: write a whole number"),
    ({"n_boot": True}, "n_boot: True: write a whole number"),
    ({"label_fractions": [0.1, 2]}, r"label_fractions\[1\]: 2: write a share"),
    ({"methods": ["linear prob"]}, "methods: unknown method 'linear prob'; did you mean 'linear probe'"),
    ({"adapter": {"querys": 8}}, "adapter: unknown key 'querys'; did you mean 'queries'"),
    ({"adapter": {"queries": "eight"}}, "adapter.queries: 'eight': write a whole number"),
    ({"train": {"loss": "mse"}}, "train: loss='mse' is unknown"),
    ({"train": {"seed": 1}}, "train: seeds have a key of their own"),
    ({"sampler": {"crop": 2}}, "sampler: crop=2"),
    ({"benchmarks": {"east": {"root": "x"}}}, "unknown benchmark 'east'"),
    ({"benchmarks": {"north": {"folder": "x"}}}, "benchmarks.north: unknown key 'folder'"),
    ({"benchmarks": {"north": {"options": 3}}}, "benchmarks.north.options: 3"),
    ({"benchmarks": {}}, "unknown benchmark 'north'"),
    ({"tasks": []}, r"tasks: \[\]: write a list"),
    ({"tasks": [{"name": "a", "kind": "cross", "train": ["north"]}]}, r"tasks\[0\].kind: 'cross' is unknown"),
    ({"tasks": [{"name": "a", "kind": "binary", "train": ["north"]}]}, r"tasks\[0\]: label: a binary task names one label"),
    ({"tasks": [{"name": "a", "kind": "cross-domain", "train": ["north"]}]}, r"tasks\[0\]: test: a cross-domain task"),
    ({"tasks": [{"name": "a", "kind": "multi-label", "train": ["north"], "test": ["south"]}]}, r"tasks\[0\]: test: an in-domain"),
    ({"tasks": [{"name": "a", "kind": "multi-label"}]}, r"tasks\[0\]: key 'train' is missing"),
])
def test_a_faulty_file_names_its_key(given, tmp_path, change, message):
    path = tmp_path / "faulty.yaml"
    path.write_text(yaml.safe_dump(copy.deepcopy(given) | change))
    with pytest.raises(ExperimentError, match=f"faulty.yaml: {message}"):
        read_experiment(path)


def test_a_file_that_is_no_yaml(tmp_path):
    path = tmp_path / "a.yaml"
    for text, message in (("a: [", "cannot be read as YAML: while parsing"), ("- 1", r"write it as key: value")):
        path.write_text(text)
        with pytest.raises(ExperimentError, match=message):
            read_experiment(path)


def test_the_shipped_grid_is_valid_and_method_names_are_forgiving():
    shipped = read_experiment(SHIPPED / "bench" / "phantom_tasks.yaml")
    assert [t.kind for t in shipped.tasks] == ["cross-domain", "multi-label", "binary"]
    assert shipped.tasks[0].tests_of("phantom-A") == ("phantom-A", "phantom-B", "phantom-C")
    assert shipped.tasks[0].label_fractions == () and shipped.label_fractions == (0.01, 0.1, 1.0)
    every = read_experiment(SHIPPED / "medbridge" / "studies" / "experiment.yaml")
    assert {*every.model_fields_set} == {*Experiment.model_fields} and every.benchmarks["mine"].name == "folder"
    given = {"name": "x", "experts": ["tiny-vit"], "tasks": [{"name": "t", "kind": "multi-label", "train": ["phantom"]}]}
    named = parse_experiment(given | {"methods": ["Zero shot", "linear-probe", "medbridge"]}).methods
    assert named == ("zero-shot", "linear probe", "MedBridge")
