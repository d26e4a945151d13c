"""Checks of notebook 12: the size of a cache, the weights of a step's parts, a snapshot that resumes exactly. [ours]"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medbridge.course.exercises.register import AnswerError, exercise


@exercise("12.1")
def cache_gigabytes(answer: Callable[[int, int, Sequence[tuple[int, int]]], float]) -> None:
    """``answer(films, views, maps)``: gigabytes of float16 maps, ``maps`` the (tokens, width) of each depth that is kept."""
    for films, views, maps in ((1000, 10, [(197, 768)]), (112_120, 14, [(257, 384), (257, 192)]), (5, 1, [(50, 64), (10, 128)])):
        want = 2 * films * views * sum(t * w for t, w in maps) / 1e9
        got = answer(films, views, list(maps))
        if got is None or np.ndim(got) != 0:
            raise AnswerError("give one number: gigabytes")
        hints = {
            2.0: "it is twice too large; float16 takes two bytes a number, float32 four",
            0.5: "it is half of what it takes; a float16 number takes two bytes",
            1e9: "that is bytes; a gigabyte is 10^9 of them",
            1e3: "that is megabytes; a gigabyte is 10^9 bytes",
            1e9 / 2**30: "that is in GiB (2^30 bytes); here GB is 10^9 bytes",
            1 / views: "the views are missing: every view of a film has maps of its own"}
        for factor, hint in hints.items():
            if np.isclose(got, factor * want, rtol=1e-6) and factor != 1:
                raise AnswerError(hint)
        if len(maps) > 1 and np.isclose(got, 2 * films * views * maps[0][0] * maps[0][1] / 1e9, rtol=1e-6):
            raise AnswerError("only the first depth is counted; the maps of all depths are kept")
        if not np.isclose(got, want, rtol=1e-6):
            raise AnswerError(f"{films:,} films x {views} views with maps {maps} take {want:.6g} GB, you give {float(got):.6g}")


@exercise("12.2")
def part_weights(answer: Callable[[np.ndarray, list[np.ndarray]], Sequence[float]]) -> None:
    """``answer(mask, parts)``: weight of each part's masked mean, so that the weighted sum is the masked mean of all."""
    rng = np.random.default_rng(0)
    mask = rng.random((7, 5)) < 0.5
    mask[:3] = [[True] * 5, [True] * 5, [False] * 5]
    losses, parts = rng.random((7, 5)), [np.array([0, 1]), np.array([2]), np.array([3, 4, 5, 6])]
    got = answer(mask.copy(), [p.copy() for p in parts])
    if got is None or np.shape(got) != (3,):
        raise AnswerError("give one weight for each part")
    got = np.asarray(got, dtype=float)
    if np.allclose(got, 1 / 3):
        raise AnswerError("equal weights let a label of a small part count more; parts differ in their known labels")
    if np.allclose(got, np.array([2, 1, 4]) / 7):
        raise AnswerError("these are the shares of the films; a mean over known labels asks for the shares of known labels")
    if not np.isclose(got.sum(), 1):
        raise AnswerError(f"the weights add up to {got.sum():.3f}; divide by the known labels of the whole step")
    means = [losses[p][mask[p]].mean() if mask[p].any() else 0.0 for p in parts]
    if not np.isclose(got @ means, losses[mask].mean()):
        raise AnswerError("the weighted sum of the parts' means is not the mean over all known labels")
    empty = answer(np.zeros((4, 2), dtype=bool), [np.array([0, 1]), np.array([2, 3])])
    if empty is None or not np.isfinite(empty).all():
        raise AnswerError("where no label of the step is known you divide by zero; any finite weights will do, such as zeros")


class Walk:
    """A training in small: momentum SGD with dropout on a quadratic. All that it depends on is in its attributes."""

    def __init__(self) -> None:
        self.weights, self.momentum, self.step = np.full(6, 5.0), np.zeros(6), 0
        self.rng = np.random.default_rng(0)

    def advance(self, steps: int) -> None:
        """Take steps; the rate falls with the step's number, dropout comes from ``rng``. Arrays change in place."""
        for _ in range(steps):
            self.momentum *= 0.9
            self.momentum += self.weights * (self.rng.random(6) < 0.7)
            self.weights -= 0.1 / (1 + self.step) * self.momentum
            self.step += 1


@exercise("12.3")
def snapshot(answer: tuple[Callable[[Walk], object], Callable[[Walk, object], None]]) -> None:
    """``answer = (save, load)``: what save(walk) returns is all that load(new walk, state) needs to go on bit by bit."""
    try:
        save, load = answer
    except (TypeError, ValueError):
        raise AnswerError("give two functions: (save, load)") from None
    for before, after in ((4, 6), (1, 3)):
        straight, first, second = Walk(), Walk(), Walk()
        straight.advance(before + after)
        first.advance(before)
        state = save(first)
        if state is None:
            raise AnswerError("save returns nothing; return what load needs")
        second.rng.random(11)  # a new process has drawn other numbers
        first.advance(2)  # the run goes on after it was saved, and is killed then
        load(second, state)
        if second.step != before:
            at = " (the state has moved on with the run: copy what changes in place)" if second.step == before + 2 else ""
            raise AnswerError(f"after load the walk is at step {second.step}, and it was saved at {before}{at}")
        second.advance(after)
        if np.array_equal(second.weights, straight.weights) and np.array_equal(second.momentum, straight.momentum):
            continue
        reference = Walk()
        reference.advance(before)
        fresh = Walk()
        load(fresh, state)
        if not np.array_equal(fresh.weights, reference.weights):
            raise AnswerError("the weights are not those of the moment of saving; arrays change in place, so save a copy")
        if not np.array_equal(fresh.momentum, reference.momentum):
            missing = "missing" if not fresh.momentum.any() else "not that of the moment of saving: save a copy"
            raise AnswerError(f"the optimiser's momentum is {missing}")
        raise AnswerError("the random numbers after load are others than in the undisturbed run: save rng.bit_generator.state, a "
                          "copy of its value and not the generator itself")
