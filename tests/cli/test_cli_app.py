"""What all commands share: help, errors in one line with their fix, exit statuses."""

import importlib
import io
import sys
from importlib import import_module

import pytest

from medbridge import cli
from medbridge.cli.app import COMMANDS
from medbridge.support import stopped


def test_help_lists_every_command_and_each_has_its_own(capsys):
    for words in ([], *([name] for name in COMMANDS)):
        with pytest.raises(SystemExit, match="0"):
            cli.main([*words, "--help"])
        out = capsys.readouterr().out
        assert out.startswith(" ".join(["usage: medbridge", *words])) and (words or all(name in out for name in COMMANDS))


def test_a_command_does_not_load_what_others_need(monkeypatch, capsys):
    loaded = []
    monkeypatch.setattr("medbridge.cli.app.import_module", lambda name: loaded.append(name) or import_module(name))
    assert cli.main(["experts", "list"]) == 0 and loaded == ["medbridge.cli.experts"]


@pytest.mark.parametrize(("command", "message"), [
    (["predict", "--adapter", "{run}", "{tmp}/none.png"], "none.png"),
    (["predict", "--adapter", "{tmp}/no-run", "{image}"], "adapter.json: missing"),
    (["evaluate", "--adapter", "{run}", "--benchmark", "folders", "--root", "{folder}"], "did you mean 'folder'"),
    (["adapt", "--benchmark", "folder", "--expert", "small-vit"], "needs root"),
    (["adapt", "--benchmark", "folder", "--root", "{tmp}/nothing", "--expert", "small-vit"], "no such folder"),
])
def test_errors_are_one_line_and_name_the_fix(named, adapted, squares_folder, squares, tmp_path, capsys, command, message):
    values = {"run": adapted.out, "tmp": tmp_path, "image": squares.paths()[0], "folder": squares_folder}
    assert cli.main([part.format(**values) for part in command]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1 and "Traceback" not in error


def test_ctrl_c_says_that_nothing_is_lost(named, squares_folder, tmp_path, capsys, monkeypatch):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("medbridge.cli.adapt.adapt", stop)
    assert cli.main(["adapt", "--benchmark", "folder", "--root", str(squares_folder), "--expert", "small-vit",
                     "--out", str(tmp_path)]) == 130
    assert "goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "words"), [
    (OSError(28, "No space left on device", "/data/a"), "error: /data/a: No space left on device; check that"),
    (PermissionError(13, "Permission denied", "/data/films"), "error: /data/films: Permission denied; check that"),
    (OSError("encoder error -2"), "error: encoder error -2; check that"),
])
def test_an_error_of_the_system_names_file_and_fix(monkeypatch, capsys, fault, words):
    def fail(args):
        raise fault

    monkeypatch.setattr("medbridge.cli.labels.run", fail)
    assert cli.main(["labels"]) == 2
    assert capsys.readouterr().err.startswith(words)


def test_a_folder_that_cannot_be_written_stops_before_the_first_feature(named, squares_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("medbridge.features.encode.Filler.add", lambda *_: pytest.fail("a feature was computed"))
    train = ["adapt", "--benchmark", "folder", "--root", str(squares_folder), "--expert", "small-vit"]
    board = ["leaderboard", *train[1:], "--method", "zero-shot"]
    for command, name in ((train, "--out"), (board, "--out"), (train, "--cache")):
        free = {"--out": tmp_path / "out", "--cache": tmp_path / "cache"} | {name: tmp_path / "file" / "x"}
        assert cli.main([*command, *(str(word) for pair in free.items() for word in pair)]) == 2
        error = capsys.readouterr().err
        assert f"{tmp_path / 'file' / 'x'}" in error and "check that its disk" in error and "Traceback" not in error


def test_a_pipe_that_is_closed_ends_the_command_without_a_word(monkeypatch, capsys):
    def closed(args):
        raise BrokenPipeError(32, "Broken pipe")

    quiet = []
    monkeypatch.setattr("medbridge.cli.labels.run", closed)
    monkeypatch.setattr("os.dup2", lambda new, old: quiet.append(old))
    assert cli.main(["labels"]) == 141 and quiet == [1, 2] and capsys.readouterr().err == ""


@pytest.mark.parametrize(("program", "quiet"), [("/bin/medbridge", True), ("-m", True), ("notebook.py", False)])
def test_a_stop_while_the_command_line_is_imported_prints_no_traceback(monkeypatch, capsys, program, quiet):
    monkeypatch.setattr("sys.argv", [program])
    monkeypatch.setattr("sys.excepthook", sys.__excepthook__)
    importlib.reload(stopped)
    for error in (KeyboardInterrupt(), RuntimeError("a fault of ours")):
        sys.excepthook(type(error), error, None)
    error = capsys.readouterr().err
    assert ("goes on from there" in error) == quiet and "a fault of ours" in error and ("KeyboardInterrupt" in error) != quiet


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_letter_gets_it_in_escapes(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("medbridge.cli.labels.run", lambda args: print("фильм \udcff"))  # and a name that is no UTF-8
    assert cli.main(["labels"]) == 0
    assert b"\\udcff" in stream.buffer.getvalue() and (b"\\u0444" in stream.buffer.getvalue()) == (encoding != "utf-8")
