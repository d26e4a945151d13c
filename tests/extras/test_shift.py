"""Exposure, contrast and grain of a film."""

import numpy as np
import pytest

from medbridge.extras.shift import shift_film


def test_shift_of_a_film():
    film = np.linspace(0.01, 0.99, 200, dtype=np.float32).reshape(10, 20)
    np.testing.assert_array_equal(shift_film(film), film)
    np.testing.assert_allclose(shift_film(shift_film(film, 0.7), -0.7), film, atol=1e-4)
    np.testing.assert_allclose(shift_film(shift_film(film, contrast=1.2), contrast=1 / 1.2), film, atol=2e-3)
    assert (shift_film(film, 0.5) > film).all()
    assert np.ptp(shift_film(film, contrast=0.5)) < np.ptp(film)
    noisy = shift_film(film, noise=0.2, seed=1)
    np.testing.assert_array_equal(noisy, shift_film(film, noise=0.2, seed=1))
    assert (noisy != shift_film(film, noise=0.2, seed=2)).any() and noisy.dtype == np.float32
    black = shift_film(np.zeros((2, 2), dtype=np.float32), 1.0)
    assert np.isfinite(black).all() and (black < 0.01).all()
    for wrong in ({"contrast": 0}, {"noise": -1}):
        with pytest.raises(ValueError, match="contrast above 0"):
            shift_film(film, **wrong)
