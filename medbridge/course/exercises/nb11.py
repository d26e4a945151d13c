"""Checks of notebook 11: heat inside the boxes, other patients' maps, an expert taken out of a mixture. [ours]"""

import numpy as np

from medbridge.course.exercises.register import Answer, exercise, judge


@exercise("11.1")
def heat_inside(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    heat, left = np.array([[0.0, 0.4, 0.8], [2.0, 1.6, 0.0]]), np.array([[True, False, False], [True, True, False]])
    for h, inside in ((heat, left), (rng.random((5, 4)), rng.random((5, 4)) < 0.3), (heat, np.zeros_like(left))):
        within = h[inside].sum()
        want = within / h.sum()
        judge(answer, (h, inside), want, [
            (not inside.any(), "no cell is inside here, so nothing of the heat is: the share is 0"),
            (within, "this is the heat inside; divide it by all the heat of the map"),
            (within / h.max(), "divide by the sum of the map, not by its maximum"),
            (within / max(1, inside.sum()), "this is the mean of the cells inside; give their sum as a share of all heat"),
            (inside.mean(), "this is the share of the cells, which is what chance gives; weigh each cell by its heat"),
            (1 - want, "this is the share outside"),
        ], "sum of the heat where the mask is True, divided by the sum of all heat", "share of the heat inside",
            "one number: the share of the heat that is inside")
    judge(answer, (np.zeros((2, 3)), left), np.nan, [], "a map without any heat has no such share: return NaN")


def _hits(heats: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Hit of map j on the boxes of film i: ``(n, n)``; several maxima share."""
    top = heats == heats.max(axis=(1, 2), keepdims=True)
    return np.einsum("irc,jrc->ij", masks.astype(float), top.astype(float)) / top.sum(axis=(1, 2))


@exercise("11.2")
def others_hits(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    heats, masks = rng.random((6, 4, 5)), rng.random((6, 4, 5)) < 0.4
    heats[2, 0, 0] = heats[2, 3, 4] = 2.0  # two maxima
    masks[:, 0, 0], masks[:, 3, 4] = True, False  # ... one of which is inside
    masks[2:, 0, 0] = False
    hits = _hits(heats, masks)
    first = np.stack([masks[:, *np.unravel_index(h.argmax(), h.shape)] for h in heats], axis=1)
    for patients in (np.array(list("abcdef")), np.array(list("aabbcd")), np.array(list("aaaaaa"))):
        other = patients[:, None] != patients[None, :]
        count = np.where(other.any(1), other.sum(1), np.nan)
        want = (hits * other).sum(1) / count
        judge(answer, (heats, masks, patients), want, [
            (not other.any(), "all films are of one patient, so there is no other map: return NaN for each"),
            (np.diag(hits), "these are the hits of each film's own map; use the maps of other patients"),
            (hits.mean(1), "a film's own map is among those that you average; leave it out"),
            ((hits.sum(1) - np.diag(hits)) / 5, "a film of the same patient is no stranger: leave out all films of the patient"),
            ((hits.T * other).sum(1) / count, "this lays the film's own map over the others' boxes; swap the two"),
            ((first * other).sum(1) / count, "a map may have several maxima; the hit is the share of them that is inside"),
            ((hits * other).sum(1) / 6, "divide by the number of maps of other patients, not by the number of films"),
        ], "mean over films j of other patients: share of map j's maxima in mask i", f"films of patients {''.join(patients)}",
            "one number per film, (n,), here 6")


@exercise("11.3")
def without_expert(answer: Answer) -> None:
    weights, logits = np.array([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]]), np.array([[2.0, -1.0], [-1.0, 3.0], [0.5, 1.0]])
    whole = (weights * logits).sum(0)
    for k in (0, 2, 1):
        kept, others = np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)
        want = (kept * others).sum(0) / kept.sum(0)
        judge(answer, (weights, logits, k), want, [
            ((kept * others).sum(0), "the weights that are left no longer sum to one; divide them by their sum"),
            (whole, "this is the whole mixture; leave expert k out"),
            (weights[k] * logits[k], "this is what expert k adds to the whole mixture; the others' is asked for"),
            (whole - want, "this is the change; give the logits themselves"),
            (want - whole, "this is the change; give the logits themselves"),
            (others.mean(0), "the experts that are left keep the proportion of their weights; you made them equal"),
            ((kept / kept.sum() * others).sum(0), "the weights sum to one for each label apart: sum over axis 0 alone"),
            ((kept / kept.sum(1, keepdims=True) * others).sum(0), "weights sum to one over the experts, axis 0, not over labels"),
            ((np.exp(kept) / np.exp(kept).sum(0) * others).sum(0), "the weights are a softmax already; divide them by their sum"),
        ], "drop row k of both, divide the other weights by their sum over experts, and sum", f"the logits without expert {k}",
            "one logit per label, (C,), of weights (K, C) = (3, 2)")
