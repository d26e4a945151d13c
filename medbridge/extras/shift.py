r"""Turn the knobs of a film's exposure: what changes between hospitals while the patient stays the same. [ours]

A detector's curve from density to grey value is close to a sigmoid, so the same patient in another X-ray room is about

    x' = sigmoid(contrast * (logit(x) + exposure + noise * n)),     n standard normal
"""

import numpy as np
from scipy.special import expit, logit

_EDGE = 1 / 510  # half a grey level of 8 bits: black and white have no finite logit


def shift_film(film: np.ndarray, exposure: float = 0.0, contrast: float = 1.0, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A film ``(H, W)`` in [0, 1] as another room would have printed it: float32, same shape.

    An exposure above 0 is whiter, a contrast below 1 is flatter; ``noise`` is the standard deviation of the grain, in logits.
    """
    if contrast <= 0 or noise < 0:
        raise ValueError(f"contrast={contrast}, noise={noise}; give a contrast above 0 and a noise of 0 or more")
    if (exposure, contrast, noise) == (0, 1, 0):
        return np.asarray(film, dtype=np.float32)
    density = logit(np.clip(film, _EDGE, 1 - _EDGE)) + exposure
    if noise:
        density = density + noise * np.random.default_rng(seed).standard_normal(film.shape)
    return expit(contrast * density).astype(np.float32)
