"""Random targets and scores, and films that exist in a table alone."""

import numpy as np
import pandas as pd

from medbridge.data import Benchmark


def draw(n=200, c=3, seed=0, ties=False):
    """Targets, scores in [0, 1], what is known, and the patient of each film."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, c)) < 0.3).astype(float)
    scores = rng.random((n, c)) * 0.7 + 0.3 * y
    if ties:
        scores = np.round(scores * 20) / 20
    return y, scores, rng.random((n, c)) >= 0.2, rng.integers(0, n // 3, n)


def toy(patients, labels):
    """A benchmark of one film per entry of ``patients``, with columns of labels."""
    images = [f"{i}.png" for i in range(len(patients))]
    table = pd.DataFrame({"image": images, "patient_id": patients, "split": "train", **labels})
    return Benchmark("toy (synthetic)", ".", tuple(labels), table, synthetic=True)
