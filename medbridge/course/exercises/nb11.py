"""Checks of notebook 11: heat inside the boxes, other patients' maps, an expert taken out of a mixture."""

import numpy as np

from medbridge.course.exercises import Answer, exercise


@exercise("11.1")
def heat_inside(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    heat, left = np.array([[0.0, 0.4, 0.8], [2.0, 1.6, 0.0]]), np.array([[True, False, False], [True, True, False]])
    for h, inside in ((heat, left), (rng.random((5, 4)), rng.random((5, 4)) < 0.3), (heat, np.zeros_like(left))):
        within = h[inside].sum()
        want = within / h.sum()
        answer.judge((h, inside), want, "share of the heat inside", none_inside=not inside.any(), heat=within,
                     by_maximum=within / h.max(), mean=within / max(1, inside.sum()), cells=inside.mean(), outside=1 - want)
    answer.judge((np.zeros((2, 3)), left), np.nan, otherwise="no_heat")


@exercise("11.2")
def others_hits(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    heats, masks = rng.random((6, 4, 5)), rng.random((6, 4, 5)) < 0.4
    heats[2, 0, 0] = heats[2, 3, 4] = 2.0  # two maxima
    masks[:, 0, 0], masks[:, 3, 4] = True, False  # ... one of which is inside
    masks[2:, 0, 0] = False
    top = heats == heats.max(axis=(1, 2), keepdims=True)
    # of map j on the boxes of film i; several maxima share
    hits = np.einsum("irc,jrc->ij", masks.astype(float), top.astype(float)) / top.sum(axis=(1, 2))
    first = np.stack([masks[:, *np.unravel_index(h.argmax(), h.shape)] for h in heats], axis=1)
    for patients in (np.array(list("abcdef")), np.array(list("aabbcd")), np.array(list("aaaaaa"))):
        other = patients[:, None] != patients[None, :]
        count = np.where(other.any(1), other.sum(1), np.nan)
        answer.judge((heats, masks, patients), (hits * other).sum(1) / count, f"films of patients {''.join(patients)}",
                     no_other=not other.any(), own=np.diag(hits), with_own=hits.mean(1),
                     same_patient=(hits.sum(1) - np.diag(hits)) / 5, swapped=(hits.T * other).sum(1) / count,
                     one_maximum=(first * other).sum(1) / count, by_films=(hits * other).sum(1) / 6)


@exercise("11.3")
def without_expert(answer: Answer) -> None:
    weights, logits = np.array([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]]), np.array([[2.0, -1.0], [-1.0, 3.0], [0.5, 1.0]])
    whole = (weights * logits).sum(0)
    for k in (0, 2, 1):
        kept, others = np.delete(weights, k, axis=0), np.delete(logits, k, axis=0)
        want = (kept * others).sum(0) / kept.sum(0)
        answer.judge((weights, logits, k), want, f"the logits without expert {k}", no_sum=(kept * others).sum(0), whole=whole,
                     own_part=weights[k] * logits[k], loss=whole - want, change=want - whole, equal=others.mean(0),
                     one_sum=(kept / kept.sum() * others).sum(0),
                     over_labels=(kept / kept.sum(1, keepdims=True) * others).sum(0),
                     softmax=(np.exp(kept) / np.exp(kept).sum(0) * others).sum(0))
