"""Cases of the exercises of notebook 03."""

import numpy as np

NAMES = {"3.1": "number_of_windows", "3.2": "relative_boxes", "3.3": "largest_crop"}


def _side(height, width, crop):
    return crop * min(height, width)


def _steps(length, side, overlap):
    return (length - side) / (side * (1 - overlap))


def _windows(height, width, crop, overlap, around=np.ceil, more=1, side=_side):
    n = [around(_steps(length, side(height, width, crop), overlap)) + more for length in (height, width)]
    return int(n[0] * n[1])


WRONG = [
    ("3.1", lambda *a: _windows(*a, around=np.floor), "round the number of steps up"),
    ("3.1", lambda *a: _windows(*a, more=0), "n steps make n + 1"),
    ("3.1", lambda *a: _windows(*a) + 1, "whole view is not a window"),
    ("3.1", lambda *a: _windows(*a, side=lambda h, w, c: c * h), "short side"),
    ("3.2", lambda b, h, w: b / np.array([w, h, w, h]), "stretches"),
    ("3.2", lambda b, h, w: b / max(h, w), "subtract its corner"),
    ("3.2", lambda b, h, w: (b - np.array([(w - max(h, w)) / 2, (h - max(h, w)) / 2] * 2)) / min(h, w), "above 1"),
    ("3.2", lambda b, h, w: b[0], "give (N, 4)"),
    ("3.3", lambda d, p, r, s: d * r / (p * s), "at most 1"),
    ("3.3", lambda d, p, r, s: min(1.0, p * s / (d * r)), "upside down"),
    ("3.3", lambda d, p, r, s: d * r / s, "divide by the width that is wanted"),
    ("3.3", lambda d, p, r, s: None, "give one number"),
]
