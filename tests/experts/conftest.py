"""A folder of weights, as MEDBRIDGE_WEIGHTS names it."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_WEIGHTS", str(tmp_path))
    return tmp_path
