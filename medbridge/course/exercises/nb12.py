"""Checks of notebook 12: the size of a cache, the weights of a step's parts, a snapshot that resumes exactly. [ours]"""

from collections.abc import Callable

import numpy as np

from medbridge.course.exercises.register import Answer, AnswerError, ask, close, exercise, judge, refuse


@exercise("12.1")
def cache_gigabytes(answer: Answer) -> None:
    for films, views, maps in ((1000, 10, [(197, 768)]), (112_120, 14, [(257, 384), (257, 192)]), (5, 1, [(50, 64), (10, 128)])):
        sizes = [t * w for t, w in maps]
        want = 2 * films * views * sum(sizes) / 1e9
        judge(answer, (films, views, maps), want, [
            (2 * want, "it is twice too large; float16 takes two bytes per number, float32 four"),
            (want / 2, "it is half of what it takes; a float16 number takes two bytes"),
            (1e9 * want, "that is bytes; a gigabyte is 10^9 of them"),
            (1e3 * want, "that is megabytes; a gigabyte is 10^9 bytes"),
            (1e9 / 2**30 * want, "that is in GiB (2^30 bytes); here GB is 10^9 bytes"),
            (want / views, "the views are missing: every view of a film has maps of its own"),
            (want * sizes[0] / sum(sizes), "only the first depth is counted; the maps of all depths are kept"),
        ], case=f"GB of {films:,} films x {views} views with maps {maps}", give="one number: gigabytes", rtol=1e-6, atol=0)


@exercise("12.2")
def part_weights(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((7, 5)) < 0.5
    mask[:3] = [[True] * 5, [True] * 5, [False] * 5]
    losses, parts = rng.random((7, 5)), [np.array([0, 1]), np.array([2]), np.array([3, 4, 5, 6])]
    got = ask(answer, mask, parts, shape=(3,), give="one weight for each part")
    means = [losses[p][mask[p]].mean() if mask[p].any() else 0.0 for p in parts]
    refuse(
        (close(got, [1 / 3] * 3), "equal weights let a label of a small part count more; parts differ in their known labels"),
        (close(got, [2 / 7, 1 / 7, 4 / 7]), "these are the shares of the films; a mean over known labels asks for theirs"),
        (not close(got.sum(), 1), f"the weights add up to {got.sum():.3f}; divide by the known labels of the whole step"),
        (not close(got @ means, losses[mask].mean()), "the weighted sum of the means is not the mean over all known labels"),
    )
    empty = ask(answer, np.zeros((4, 2), dtype=bool), [np.array([0, 1]), np.array([2, 3])], shape=(2,))
    refuse((not np.isfinite(empty).all(),
            "where no label of the step is known you divide by zero; any finite weights will do, such as zeros"))


class Walk:
    """A training in small: momentum SGD with dropout on a quadratic. All that it depends on is in its attributes."""

    def __init__(self, steps: int = 0) -> None:
        self.weights, self.momentum, self.step = np.full(6, 5.0), np.zeros(6), 0
        self.rng = np.random.default_rng(0)
        self.advance(steps)

    def advance(self, steps: int) -> None:
        """Take steps; the rate falls with the step's number, dropout comes from ``rng``. Arrays change in place."""
        for _ in range(steps):
            self.momentum *= 0.9
            self.momentum += self.weights * (self.rng.random(6) < 0.7)
            self.weights -= 0.1 / (1 + self.step) * self.momentum
            self.step += 1


@exercise("12.3")
def snapshot(answer: tuple[Callable[[Walk], object], Callable[[Walk, object], None]]) -> None:
    try:
        save, load = answer
    except (TypeError, ValueError):
        raise AnswerError("give two functions: (save, load)") from None
    for before, after in ((4, 6), (1, 3)):
        saved, killed, resumed, straight = Walk(before), Walk(before), Walk(), Walk(before + after)
        state = save(killed)
        refuse((state is None, "save returns nothing; return what load needs"))
        resumed.rng.random(11)  # a new process has drawn other numbers
        killed.advance(2)  # the run goes on after it was saved, and is killed then
        load(resumed, state)
        moved = " (the state has moved on with the run: copy what changes in place)" if resumed.step == before + 2 else ""
        missing = "not that of the moment of saving: save a copy" if resumed.momentum.any() else "missing"
        refuse(
            (resumed.step != before, f"after load the walk is at step {resumed.step}, and it was saved at {before}{moved}"),
            (not np.array_equal(resumed.weights, saved.weights),
             "the weights are not those of the moment of saving; arrays change in place, so save a copy"),
            (not np.array_equal(resumed.momentum, saved.momentum), f"the optimiser's momentum is {missing}"),
        )
        resumed.advance(after)
        refuse((not np.array_equal(resumed.weights, straight.weights), "the random numbers after load are others than in the "
                "undisturbed run: save rng.bit_generator.state, a copy of its value and not the generator itself"))
