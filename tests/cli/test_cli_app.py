"""What all commands share: help, errors in one line with their fix, exit statuses."""

from importlib import import_module

import pytest

from medbridge import cli
from medbridge.cli.app import COMMANDS


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
