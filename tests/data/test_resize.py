import numpy as np
import pytest

from medbridge.data.resize import row_weights


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("length", "size"), [(1000, 30), (30, 100), (7, 7), (2048, 224)])
def test_row_weights_are_a_mean(length, size, interpolation):
    weights = row_weights(length, size, interpolation)
    assert weights.shape == (size, length) and np.abs(weights.sum(axis=1) - 1).max() < 1e-5
