"""Logistic regression per label, as weights for columns as they are: for the linear probe and the model's read-out."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits


def fit_logistic(x: np.ndarray, y: np.ndarray, mask: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """One logistic regression per label on standardised columns of ``x`` ``(n, d)``: weights ``(C, d)`` and biases ``(C,)`` for
    ``x`` as it is. A label with one class only gets its smoothed log-odds."""
    weights, biases = np.zeros((y.shape[1], x.shape[1])), np.zeros(y.shape[1])
    for c in range(y.shape[1]):
        known, rows = y[mask[:, c], c], x[mask[:, c]]
        if len(np.unique(known)) < 2:
            biases[c] = np.log((known.sum() + 0.5) / (len(known) - known.sum() + 0.5))
            continue
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale == 0] = 1
        with threadpool_limits(1):  # thousands of small products: starting threads costs more than they bring
            model = LogisticRegression(C=strength, max_iter=2000).fit((rows - mean) / scale, known)
        weights[c] = model.coef_[0] / scale
        biases[c] = model.intercept_[0] - weights[c] @ mean
    return weights, biases
