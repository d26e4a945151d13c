"""Antialiased resizing along the rows of a film as one sparse matrix product.

PyTorch's ``F.interpolate`` reads a whole film for every view; here all windows that lie side by side share one product.
"""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix


@lru_cache(maxsize=256)
def row_weights(length: int, size: int, interpolation: str) -> csr_matrix:
    """Sparse float32 ``(size, length)``: what each of ``size`` new rows takes of ``length`` old ones by ``F.interpolate``."""
    support = (1 if interpolation == "bilinear" else 2) * max(1.0, length / size)
    taps = min(length, 2 * math.ceil(support) + 1)  # no new row sees more neighbours, so unit rows as far apart share a column
    old = torch.arange(length)
    unit, place = torch.zeros(2, length, taps)
    unit[old, old % taps] = 1
    place[old, old % taps] = old.float()  # says which old row a weight is of, as a multiple of the weight
    weight, weighted = F.interpolate(torch.stack([unit, place])[None], (size, taps), mode=interpolation, antialias=True)[0]
    new, column = weight.nonzero(as_tuple=True)
    values = weight[new, column]
    taken = (weighted[new, column] / values).round().long()
    return csr_matrix((values.numpy(), (new.numpy(), taken.numpy())), shape=(size, length))


def resize_rows(pixels: np.ndarray, size: int, interpolation: str, before: int = 0, after: int = 0) -> np.ndarray:
    """``(H, W)`` float32, contiguous -> ``(size, W)``, as if ``before`` rows of zeros lay above and ``after`` below."""
    weights = row_weights(before + len(pixels) + after, size, interpolation)
    return (weights[:, before : before + len(pixels)] if before or after else weights) @ pixels
