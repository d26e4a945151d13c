from pathlib import Path

import pytest

from medbridge.course import check, full_profile, real_films
from medbridge.course.exercises import CHECKS, AnswerError
from medbridge.errors import BenchmarkError

FIXTURES = Path(__file__).resolve().parents[2] / "data" / "fixtures"


@pytest.fixture
def nine(monkeypatch):
    def test(answer):
        if answer() != 9:
            raise AnswerError("it is 9")

    monkeypatch.setitem(CHECKS, "99.1", test)


def test_verdicts(nine, capsys):
    def stub():
        raise NotImplementedError

    answers = [(lambda: 9, "right"), (lambda: 8, "not yet right: it is 9"), (lambda: 1 / 0, "your code raised ZeroDivisionError"),
               (stub, "not begun yet"), (..., "not begun yet"), (None, "not begun yet")]
    for answer, verdict in answers:
        check("99.1", answer)
        assert capsys.readouterr().out.startswith(f"Exercise 99.1: {verdict}")


def test_unknown_exercise():
    with pytest.raises(ValueError, match=r"no exercise '99\.7'"):
        check("99.7", 1)


def test_profile(monkeypatch):
    monkeypatch.delenv("MEDBRIDGE_PROFILE", raising=False)
    assert full_profile() is False
    monkeypatch.setenv("MEDBRIDGE_PROFILE", "full")
    assert full_profile() is True
    monkeypatch.setenv("MEDBRIDGE_PROFILE", "ful")
    with pytest.raises(ValueError, match="'ful' is unknown"):
        full_profile()


def test_real_films_are_those_of_the_folder_that_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDBRIDGE_DATA", raising=False)
    assert real_films() is None
    monkeypatch.setenv("MEDBRIDGE_DATA", str(tmp_path))
    assert real_films() is None
    (tmp_path / "nih").symlink_to(FIXTURES / "nih")
    assert real_films().read(0).ndim == 2
    (tmp_path / "nih").unlink()
    (tmp_path / "nih").mkdir()
    with pytest.raises(BenchmarkError, match="no such file"):
        real_films()
