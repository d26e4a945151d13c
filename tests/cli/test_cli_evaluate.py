"""``medbridge evaluate``: a saved adapter scores as the trained one."""

import json

import numpy as np
import pytest

from medbridge import cli
from medbridge.adapter import load_adapter
from medbridge.features.cache import FeatureCache
from medbridge.predict import predict


def test_evaluate_repeats_what_adapt_measured(named, squares_folder, adapted, capsys):
    assert cli.main(["evaluate", "--adapter", str(adapted.out), "--benchmark", "folder", "--root", str(squares_folder),
                     "--cache", str(adapted.out / "cache"), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["macro"]["auc"] == pytest.approx(adapted.result.tested[0].evaluations["MedBridge"].macro["auc"], abs=1e-6)


def test_a_loaded_adapter_scores_as_the_trained_one(adapted, experts):
    again = load_adapter(adapted.out, experts)
    films = FeatureCache(adapted.out / "cache", progress=False).of(again, adapted.result.tested[0].target.test)
    np.testing.assert_allclose(
        predict(again, films, progress=False).probabilities, adapted.result.tested[0].scores["MedBridge"], atol=1e-6)
