"""No film is scored by what it trained: by content, whatever folder, name, format or size it has there."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medbridge import cli, load_benchmark
from medbridge.adapter import load_adapter, save_adapter
from medbridge.data.prepare import prepare
from medbridge.data.tasks import make_targets
from medbridge.errors import BenchmarkError, BenchmarkWarning
from medbridge.features.cache import FeatureCache
from medbridge.model import MedBridge
from medbridge.studies.engine import unseen


@pytest.fixture(scope="module")
def source(squares_folder):
    return load_benchmark("folder", squares_folder)


@pytest.fixture
def cache(tmp_path):
    return FeatureCache(tmp_path / "cache", progress=False)


@pytest.fixture
def elsewhere(squares_folder, tmp_path):
    """A copy of the folder under other names, in which 6 training films and 10 test films are the test split."""
    root, table = tmp_path / "elsewhere", pd.read_csv(squares_folder / "labels.csv")
    table = table[(table.index < 6) | (table.index >= 50)]
    (root / "images").mkdir(parents=True)
    for name in table["image"]:
        shutil.copy(squares_folder / "images" / name, root / "images" / f"x{name}")
    table.assign(image="x" + table["image"], split="test").to_csv(root / "labels.csv", index=False)
    return root


def test_copies_are_left_out_counted_and_named(source, elsewhere, cache):
    with pytest.warns(BenchmarkWarning, match=r"6 of 16 films are films that the model is trained on, or copies of them: "
                                              r"x000.png, x001.png, .*; they are left out, the 10 others are scored"):
        target, = unseen(make_targets(source, [load_benchmark("folder", elsewhere)]), source, cache)
    assert target.test.image_ids() == [f"x{i:03d}.png" for i in range(50, 60)]


@pytest.mark.parametrize("change", ["prepared", "jpeg"])
def test_copies_of_another_size_or_format_are_known(source, elsewhere, cache, tmp_path, change):
    other = load_benchmark("folder", elsewhere)
    if change == "prepared":
        other = load_benchmark("folder", prepare(other, tmp_path / "small", 72, workers=1, progress=False).out)
    else:
        for path in other.paths():
            film = Image.open(path)
            film.load()
            film.save(path, format="JPEG", quality=95)  # the ending does not matter
    with pytest.warns(BenchmarkWarning, match="6 of 16 films are films that the model is trained on"):
        target, = unseen(make_targets(source, [other]), source, cache)
    assert len(target.test) == 10


def test_a_test_of_copies_alone_is_refused(source, squares_folder, cache, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(squares_folder, root)
    table = pd.read_csv(root / "labels.csv")
    table.assign(split=np.where(table["split"] == "train", "test", "train")).to_csv(root / "labels.csv", index=False)
    with pytest.raises(BenchmarkError, match="32 of 32 films are films that the model is trained.*keep all films of a pat"):
        unseen(make_targets(source, [load_benchmark("folder", root)]), source, cache)


@pytest.mark.filterwarnings("error")
def test_the_own_test_split_is_whole(source, cache):
    target, = unseen(make_targets(source, [source]), source, cache)
    assert len(target.test) == 16


@pytest.mark.parametrize(("command", "next_step"), [("adapt", "adapt.cell_films"), ("leaderboard", "leaderboard.run_cells")])
def test_training_begins_without_the_copies(named, elsewhere, squares_folder, tmp_path, capsys, monkeypatch, command, next_step):
    def stop(*_):
        raise BenchmarkError("far enough")

    monkeypatch.setattr(f"medbridge.studies.{next_step}", stop)
    assert cli.main([command, "--train", f"folder={squares_folder}", "--test", f"folder={elsewhere}", "--expert", "small-vit",
                     "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err
    assert "6 of 16 films are films that the model is trained on, or copies of them: x000.png" in error and "far enough" in error


def test_a_saved_adapter_knows_its_films(named, adapted, elsewhere, squares_folder, capsys):
    command = ["evaluate", "--adapter", str(adapted.out), "--cache", str(adapted.out / "cache")]
    assert cli.main([*command, "--test", f"folder={elsewhere}", "--json"]) == 0
    captured = capsys.readouterr()
    assert "6 of 16 films are films that the model is trained on, or copies of them: x000.png" in captured.err
    assert json.loads(captured.out)[0]["films_trained_on"] == 6
    assert cli.main([*command, "--test", f"folder={squares_folder}", "--split", "train"]) == 0
    assert "32 of 32 films are films that the model is trained on" in capsys.readouterr().err
    assert cli.main(["predict", "--adapter", str(adapted.out), str(elsewhere / "images")]) == 0
    assert "was trained on 6 of 16 films, or on copies of them" in capsys.readouterr().err


def test_an_adapter_keeps_what_its_films_are_known_by(adapted, experts):
    assert load_adapter(adapted.out, experts).trained_films.nbytes < 8 * 44


def test_an_older_adapter_says_that_it_cannot_tell(named, experts, squares_folder, tmp_path, capsys):
    save_adapter(MedBridge(experts, ["bright", "wide"], maps="full"), tmp_path)
    assert load_adapter(tmp_path, experts).trained_films is None
    assert cli.main(["predict", "--adapter", str(tmp_path), str(squares_folder / "images" / "000.png")]) == 0
    assert "whether it was trained on films that it scores here cannot be told" in capsys.readouterr().err
