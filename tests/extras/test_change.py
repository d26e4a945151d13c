"""Pairs of films of one patient, and what their scores say about change: small cases with a known answer."""

import numpy as np
import pytest
from samples import toy

from medbridge.errors import EvaluationError
from medbridge.extras.change import change_report, film_pairs, fit_threshold, tell_change


def _visits():
    return toy(list("aabcccd"), {"x": [0.0, 1, 1, 1, 0, 0, 1], "y": [0.0, 0, 1, 0, np.nan, 1, 0]})


def test_pairs_are_consecutive_films_of_a_patient():
    pairs = film_pairs(_visits())
    assert pairs.before.tolist() == [0, 3, 4] and pairs.after.tolist() == [1, 4, 5] and pairs.patients.tolist() == ["a", "c", "c"]
    assert pairs.change[:, 0].tolist() == [1, -1, 0] and pairs.known.tolist() == [[True, True], [True, False], [True, False]]
    shuffled = _visits().take([3, 0, 2, 4, 1, 6, 5])  # each patient's films are still in order, others between them
    again = film_pairs(shuffled)
    assert [shuffled.table["image"][i] for i in again.before] == ["3.png", "4.png", "0.png"]
    with pytest.raises(EvaluationError, match="nothing can have"):
        film_pairs(_visits().take([0, 2]))


def _many(noise, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((400, 2)) < 0.4).astype(float)
    films = toy([f"p{i // 2}" for i in range(400)], {"x": y[:, 0], "y": y[:, 1]})
    patient = np.repeat(rng.normal(size=(200, 2)), 2, axis=0)  # some patients look worse than they are, on every film
    return films, 2 * y + 2 * patient + noise * rng.normal(size=(400, 2))


def test_a_patients_own_look_cancels_in_the_difference():
    films, logits = _many(0.3)
    pairs = film_pairs(films)
    threshold = fit_threshold(pairs.differences(logits), pairs)
    assert 0.5 < threshold < 1.8
    report = change_report(pairs, logits, threshold, n_boot=100)
    assert report.new.macro["auc"] > 0.97 and report.new_gain.lo > 0.1 and report.resolved_gain.lo > 0.1
    assert report.lo < report.accuracy < report.hi and report.accuracy > 0.9
    assert sum(report.counts.values()) == 2 * len(pairs) == 2 * report.pairs


def test_noise_is_chance():
    films, logits = _many(0.3)
    pairs = film_pairs(films)
    noise = np.random.default_rng(1).normal(size=logits.shape)
    report = change_report(pairs, noise, 1.0, n_boot=100)
    assert report.new.macro["lo"] < 0.5 < report.new.macro["hi"] and report.lo < 1 / 3 < report.hi
    assert tell_change(np.array([-2.0, -0.5, 0.5, 2.0]), 1.0).tolist() == [-1, 0, 0, 1]
    still = film_pairs(toy(list("aabb"), {"x": [1.0, 1, 0, 0]}))
    with pytest.raises(EvaluationError, match="no threshold can be chosen"):
        fit_threshold(np.zeros((2, 1)), still)
