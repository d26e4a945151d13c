"""Checks of notebook 12: the size of a cache, the weights of a step's parts, a snapshot that resumes exactly."""

import numpy as np

from medbridge.course.exercises import Answer, close, exercise


@exercise("12.1")
def cache_gigabytes(answer: Answer) -> None:
    for films, views, maps in ((1000, 10, [(197, 768)]), (112_120, 14, [(257, 384), (257, 192)]), (5, 1, [(50, 64), (10, 128)])):
        sizes = [t * w for t, w in maps]
        want = 2 * films * views * sum(sizes) / 1e9
        answer.judge((films, views, maps), want, f"GB of {films:,} films x {views} views with maps {maps}", rtol=1e-6, atol=0,
                     twice=2 * want, half=want / 2, bytes=1e9 * want, megabytes=1e3 * want, binary=1e9 / 2**30 * want,
                     no_views=want / views, one_depth=want * sizes[0] / sum(sizes))


@exercise("12.2")
def part_weights(answer: Answer) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((7, 5)) < 0.5
    mask[:3] = [[True] * 5, [True] * 5, [False] * 5]
    losses, parts = rng.random((7, 5)), [np.array([0, 1]), np.array([2]), np.array([3, 4, 5, 6])]
    got = answer.ask(mask, parts, shape=(3,))
    means = [losses[p][mask[p]].mean() if mask[p].any() else 0.0 for p in parts]
    answer.refuse({"sum": got.sum()}, equal=close(got, [1 / 3] * 3), films=close(got, [2 / 7, 1 / 7, 4 / 7]),
                  no_sum=not close(got.sum(), 1), another_mean=not close(got @ means, losses[mask].mean()))
    empty = answer.ask(np.zeros((4, 2), dtype=bool), [np.array([0, 1]), np.array([2, 3])], shape=(2,))
    answer.refuse(nothing_known=not np.isfinite(empty).all())


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
def snapshot(answer: Answer) -> None:
    answer.refuse(not_two=not isinstance(answer.given, tuple | list) or len(answer.given) != 2)
    save, load = answer.given
    for before, after in ((4, 6), (1, 3)):
        saved, killed, resumed, straight = Walk(before), Walk(before), Walk(), Walk(before + after)
        state = save(killed)
        answer.refuse(nothing=state is None)
        resumed.rng.random(11)  # a new process has drawn other numbers
        killed.advance(2)  # the run goes on after it was saved, and is killed then
        load(resumed, state)
        momentum_differs = not np.array_equal(resumed.momentum, saved.momentum)
        answer.refuse({"step": resumed.step, "before": before}, moved_on=resumed.step == before + 2, step=resumed.step != before,
                      weights=not np.array_equal(resumed.weights, saved.weights),
                      later_momentum=momentum_differs and resumed.momentum.any(), no_momentum=momentum_differs)
        resumed.advance(after)
        answer.refuse(rng=not np.array_equal(resumed.weights, straight.weights))
