"""``medbridge experts``: cards and cost. Fetching is tested with :mod:`medbridge.experts.fetch`."""

from medbridge.cli import main
from medbridge.experts import ALIASES


def test_the_commands_print_cards(capsys, monkeypatch):
    monkeypatch.delenv("MEDBRIDGE_WEIGHTS", raising=False)
    for words in (["experts"], ["experts", "list"]):
        assert main(words) == 0
        assert all(name in capsys.readouterr().out or name != "tiny-vit" for name in ALIASES)
    assert main(["experts", "info", "medsiglip"]) == 0
    out = capsys.readouterr().out
    assert "HAI-DEF" in out and "google--medsiglip-448" in out and "known once its files are here" in out and "448 x 448" in out
    assert main(["experts", "info", "clip-vitb32"]) == 0 and capsys.readouterr().err == ""
    assert main(["experts", "info", "nothing"]) == 2 and "unknown expert" in capsys.readouterr().err
    assert main(["experts", "fetch", "tiny-vit"]) == 2 and "set MEDBRIDGE_WEIGHTS" in capsys.readouterr().err


def test_profile_prints_a_table(capsys):
    assert main(["experts", "profile", "tiny-vit", "--views", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("measured on") and "tiny-vit" in out and "17.4" in out
    assert main(["experts", "profile", "tiny-vit", "--weights", "tiny-vit"]) == 2
    assert "write NAME=FILE" in capsys.readouterr().err
    assert main(["experts", "profile", "tiny-vit", "--weights", "clip=x"]) == 2
    assert "no expert 'clip' here" in capsys.readouterr().err


def test_a_leaderboard_takes_the_weights_of_an_expert(capsys):
    assert main(["leaderboard", "--benchmark", "phantom", "--expert", "tiny-vit", "--weights", "clip=x"]) == 2
    assert "no expert 'clip' here" in capsys.readouterr().err


def test_experts_are_listed(capsys):
    assert main(["experts"]) == 0
    assert "tiny-vit" in capsys.readouterr().out
