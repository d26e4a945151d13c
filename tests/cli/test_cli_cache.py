"""``medbridge cache``: what is held, what is damaged, and what goes."""

import os

from medbridge import cli
from medbridge.features.cache import FeatureCache
from medbridge.focal import FocalSampler


def test_info_and_clean(squares, experts, tmp_path, capsys):
    films = FeatureCache(tmp_path, progress=False).films(squares.take(range(2)), experts, [[2, 3], [3]], FocalSampler())
    names = [files[0].parent.name for files in films.files]
    stale = films.files[0][0].with_suffix(".1-2.part")
    stale.write_bytes(b"half")
    os.utime(stale, (1, 1))
    at = ["--cache", str(tmp_path)]
    assert cli.main(["cache", "info", "--verify", *at]) == 0
    out = capsys.readouterr().out
    assert all(f"{n}: 1 shards" in out for n in names) and "1 unfinished files" in out and out.count("all sound") == 2
    assert cli.main(["cache", "clean", *at]) == 0
    assert "1 files deleted" in capsys.readouterr().out and not stale.exists()
    assert all(p.exists() for files in films.files for p in files)
    assert cli.main(["cache", "clean", "--expert", "other", *at]) == 2
    assert "no features of other" in capsys.readouterr().err
    assert cli.main(["cache", "clean", "--expert", "small-vit", "--all", *at]) == 2
    assert cli.main(["cache", "clean", "--expert", "small-vit", *at]) == 0
    assert not (tmp_path / names[0]).exists() and films.files[1][0].exists()
    films.files[1][0].write_bytes(b"x")
    assert cli.main(["cache", "info", "--verify", *at]) == 1
    assert "damaged: " in capsys.readouterr().out
    assert cli.main(["cache", "clean", "--all", *at]) == 0
    assert not list(tmp_path.rglob("*.safetensors"))
