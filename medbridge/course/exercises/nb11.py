"""Checks of notebook 11: heat inside the boxes, other patients' maps, an expert taken out of a mixture. [ours]"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise


@exercise("11.1")
def heat_inside(answer: Callable[[np.ndarray, np.ndarray], float]) -> None:
    rng = np.random.default_rng(0)
    heat = np.array([[0.0, 0.4, 0.8], [2.0, 1.6, 0.0]])
    left = np.array([[True, False, False], [True, True, False]])
    for h, inside in ((heat, left), (rng.random((5, 4)), rng.random((5, 4)) < 0.3), (heat, np.zeros_like(left))):
        got, want = answer(h.copy(), inside.copy()), float(h[inside].sum() / h.sum())
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number: the share of the heat that is inside")
        if np.isclose(got, want):
            continue
        if not inside.any():
            hint = "no cell is inside here, so nothing of the heat is: the share is 0"
        elif np.isclose(got, h[inside].sum()):
            hint = "this is the heat inside; divide it by all the heat of the map"
        elif np.isclose(got, h[inside].sum() / h.max()):
            hint = "divide by the sum of the map, not by its maximum"
        elif np.isclose(got, h[inside].mean()):
            hint = "this is the mean of the cells inside; what counts is their sum, as a share of all heat"
        elif np.isclose(got, inside.mean()):
            hint = "this is the share of the cells, which is what chance gives; weigh each cell by its heat"
        elif np.isclose(got, 1 - want):
            hint = "this is the share outside"
        else:
            hint = "sum of the heat where the mask is True, divided by the sum of all heat"
        raise AnswerError(f"a map of {h.shape[0]} x {h.shape[1]} cells has {want:.3f} of its heat inside, you give {got:.3f}; "
                          f"{hint}")
    blank = answer(np.zeros((2, 3)), left)
    if blank is None or not np.isnan(blank):
        raise AnswerError(f"a map without any heat has no such share: return NaN; you give {blank}")


def _hits(heats: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Hit of map j on the boxes of film i: ``(n, n)``; several maxima share."""
    top = heats == heats.max(axis=(1, 2), keepdims=True)
    return np.einsum("irc,jrc->ij", masks.astype(float), top.astype(float)) / top.sum(axis=(1, 2))


@exercise("11.2")
def others_hits(answer: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    heats, masks = rng.random((6, 4, 5)), rng.random((6, 4, 5)) < 0.4
    heats[2, 0, 0] = heats[2, 3, 4] = 2.0  # two maxima
    masks[:, 0, 0], masks[:, 3, 4] = True, False  # ... one of which is inside
    masks[2:, 0, 0] = False
    for patients in (np.array(list("abcdef")), np.array(list("aabbcd")), np.array(list("aaaaaa"))):
        got = answer(heats.copy(), masks.copy(), patients.copy())
        if got is None or np.shape(got) != (6,):
            raise AnswerError(f"for 6 films your result has shape {np.shape(got)}; give one number a film, (n,)")
        got = np.asarray(got, dtype=np.float64)
        hits, other = _hits(heats, masks), patients[:, None] != patients[None, :]
        self_only = ~np.eye(6, dtype=bool)
        count = other.sum(1)
        want = np.divide((hits * other).sum(1), count, out=np.full(6, np.nan), where=count > 0)
        if np.allclose(got, want, equal_nan=True):
            continue
        if not count.any():
            raise AnswerError(f"all films are of one patient, so there is no other map: return NaN for each; you give {got[0]}")
        first = np.stack([masks[:, *np.unravel_index(h.argmax(), h.shape)] for h in heats], axis=1)
        hint = next((text for value, text in [
            (np.diag(hits), "these are the hits of each film's own map; use the maps of other patients"),
            (hits.mean(1), "a film's own map is among those that you average; leave it out"),
            ((hits * self_only).sum(1) / 5, "a film of the same patient is no stranger: leave out all films of the patient"),
            ((hits.T * other).sum(1) / count, "this lays the film's own map over the others' boxes; swap the two"),
            ((first * other).sum(1) / count, "a map may have several maxima; the hit is the share of them that is inside"),
            ((hits * other).sum(1) / 6, "divide by the number of maps of other patients, not by the number of films"),
        ] if np.allclose(got, value, equal_nan=True)), "mean over films j of other patients: share of map j's maxima in mask i")
        raise AnswerError(f"patients {''.join(patients)}: film 0 should get {want[0]:.3f}, you give {got[0]:.3f}; {hint}")


@exercise("11.3")
def without_expert(answer: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> None:
    weights = np.array([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]])
    logits = np.array([[2.0, -1.0], [-1.0, 3.0], [0.5, 1.0]])
    for k in (0, 2, 1):
        got = answer(weights.copy(), logits.copy(), k)
        if got is None or np.shape(got) != (2,):
            raise AnswerError(f"for weights (K, C) = (3, 2) your result has shape {np.shape(got)}; give one logit a label, (C,)")
        rest = [i for i in range(3) if i != k]
        kept, said = weights[rest], logits[rest]
        want = (kept * said).sum(0) / kept.sum(0)
        if np.allclose(got, want):
            continue
        whole = (weights * logits).sum(0)
        hint = next((text for value, text in [
            ((kept * said).sum(0), "the weights that are left no longer sum to one; divide them by their sum"),
            (whole, "this is the whole mixture; leave expert k out"),
            (weights[k] * logits[k], "this is what expert k adds to the whole mixture; the others' is asked for"),
            (whole - want, "this is the change; give the logits themselves"),
            (want - whole, "this is the change; give the logits themselves"),
            (said.mean(0), "the experts that are left keep the proportion of their weights; you made them equal"),
            ((kept / kept.sum() * said).sum(0), "the weights sum to one for each label apart: sum over axis 0 alone"),
            ((kept / kept.sum(1, keepdims=True) * said).sum(0), "weights sum to one over the experts, axis 0, not over labels"),
            ((np.exp(kept) / np.exp(kept).sum(0) * said).sum(0), "the weights are a softmax already; divide them by their sum"),
        ] if np.allclose(got, value)), "drop row k of both, divide the other weights by their sum over experts, and sum")
        raise AnswerError(f"without expert {k} the logits are {np.round(want, 3).tolist()}, you give "
                          f"{np.round(got, 3).tolist()}; {hint}")
