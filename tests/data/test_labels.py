"""The vocabulary of findings."""

import pytest

from medbridge.data.labels import FINDINGS, SharedLabel, canonical, shared_labels
from medbridge.errors import BenchmarkError


@pytest.mark.parametrize(("label", "finding"), [
    ("Pleural Effusion", "Effusion"), ("Pleural_Thickening", "Pleural Thickening"), ("covid", "COVID-19"),
    ("  no  finding ", "No Finding"), ("Lung Opacity", "Lung Opacity"), ("Left shoe", None)])
def test_canonical(label, finding):
    assert canonical(label) == finding


def test_no_name_means_two_findings():
    names = [alias for name, finding in FINDINGS.items() for alias in (name.lower(), *finding.aliases)]
    assert len(names) == len(set(names))


def test_shared_labels_keep_each_sides_names_and_the_first_sides_order():
    shared = shared_labels(["Pneumonia", "Effusion", "Own"], ["Own", "Pleural Effusion", "pneumonia", "Edema"])
    assert shared == [SharedLabel("Pneumonia", "Pneumonia", "pneumonia"),
                      SharedLabel("Effusion", "Effusion", "Pleural Effusion"), SharedLabel("Own", "Own", "Own")]


def test_nothing_shared_names_both_sides():
    with pytest.raises(BenchmarkError, match=r"no shared label.*Mass.*COVID-19"):
        shared_labels(["Mass"], ["COVID-19"])


def test_one_finding_named_twice():
    with pytest.raises(BenchmarkError, match=r"'Effusion' and 'Pleural Effusion' both name 'Effusion'"):
        shared_labels(["Effusion", "Pleural Effusion"], ["Effusion"])
