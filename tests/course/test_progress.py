import pytest

from medbridge.cli import main
from medbridge.course import check
from medbridge.course.exercises import CHECKS, AnswerError
from medbridge.course.progress import progress_file, read, summary


@pytest.fixture
def course(tmp_path, monkeypatch):
    """Three exercises of two notebooks, and an empty cache."""
    monkeypatch.setenv("MEDBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MEDBRIDGE_PROGRESS", raising=False)

    def nine(answer):
        if answer != 9:
            raise AnswerError("it is 9")

    known = {"10.10": nine, "3.2": nine, "10.2": nine}
    monkeypatch.setattr("medbridge.course.progress.CHECKS", known)
    for number, test in known.items():
        monkeypatch.setitem(CHECKS, number, test)
    return tmp_path


def _progress(capsys):
    capsys.readouterr()
    assert main(["course", "progress"]) == 0
    return capsys.readouterr().out


def test_progress_follows_the_checks(course, capsys):
    assert not progress_file().exists()
    assert "0 of 3 exercises solved; next: exercise 3.2" in _progress(capsys)
    check("3.2", None)  # a stub is no try
    assert not progress_file().exists()
    check("3.2", 8)
    check("3.2", 9)
    check("3.2", 7)  # what was solved stays solved
    check("10.10", 8)
    assert read()["3.2"]["tries"] == 3
    out = _progress(capsys)
    assert "03        1/1     3.2 solved\n10        0/2     10.2 open, 10.10 tried\n" in out
    assert "1 of 3 exercises solved; next: exercise 10.2" in out
    check("10.2", 9)
    check("10.10", 9)
    assert "3 of 3 exercises solved; the course is done" in _progress(capsys)


def test_a_run_that_is_no_students_keeps_nothing(course, monkeypatch):
    monkeypatch.setenv("MEDBRIDGE_PROGRESS", "off")
    check("3.2", 9)
    assert not progress_file().exists() and not any("solved" in states.values() for states in summary().values())


def test_a_check_works_where_nothing_can_be_written(course, monkeypatch, capsys):
    (course / "file").write_text("")
    monkeypatch.setenv("MEDBRIDGE_CACHE", str(course / "file" / "below"))  # fails for root too
    check("3.2", 9)
    assert capsys.readouterr().out == "Exercise 3.2: right\n"
    assert not read()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2, "exercises": {}}', '{"format": 1, "exercises": {"3.2": 1}}'])
def test_a_damaged_file_is_named_and_left_alone(course, capsys, text):
    progress_file().parent.mkdir(parents=True)
    progress_file().write_text(text)
    check("3.2", 9)
    assert capsys.readouterr().out == "Exercise 3.2: right\n"
    assert progress_file().read_text() == text
    assert main(["course", "progress"]) == 2
    assert "progress.json: is no progress file of this version" in capsys.readouterr().err


def test_the_notebooks_of_this_course_are_counted():
    assert list(summary())[:2] == ["00", "01"]
    assert sum(map(len, summary().values())) == len(CHECKS)
