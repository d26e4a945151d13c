"""Prediction on a folder of films."""

import numpy as np
import pytest

from medbridge import cli
from medbridge.cli.predict import film_paths, predict_files
from medbridge.errors import ImageError
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.predict import predict_film


@pytest.fixture(scope="module")
def model(experts, squares):
    return MedBridge(experts, squares.labels, sampler=FocalSampler(crop=0.6, overlap=0.0), width=32, queries=4)


@pytest.fixture
def folder(squares, tmp_path):
    """Nine films below a folder; the first, the fifth and the last are cut short."""
    (tmp_path / "films" / "b").mkdir(parents=True)
    for i, path in enumerate(squares.paths()[:9]):
        data = path.read_bytes()
        where = tmp_path / "films" / ("b" if i > 4 else "")
        (where / path.name).write_bytes(data[: len(data) // 2] if i in (0, 4, 8) else data)
    (tmp_path / "films" / "notes.txt").write_text("no film")
    return tmp_path / "films"


@pytest.mark.parametrize("workers, least", [(0, 1), (2, 20), (1, 500)])
def test_a_stream_scores_as_films_alone_and_reports_bad_ones_in_their_place(model, folder, squares, workers, least):
    paths = film_paths([folder])
    found = list(predict_files(model, paths, workers, least))
    assert [p for p, _ in found] == paths and len(paths) == 9
    for i, (path, row) in enumerate(found):
        if i in (0, 4, 8):
            assert isinstance(row, ImageError) and path.name in str(row)
        else:
            np.testing.assert_allclose(row, predict_film(model, squares.read(i)), atol=2e-3)


def test_no_film(model, tmp_path):
    assert list(predict_files(model, [])) == []
    with pytest.raises(ImageError, match="a folder without a film"):
        film_paths([tmp_path])


def test_the_command_takes_a_folder(named, model, folder, tmp_path, capsys):
    model.save(tmp_path / "run")
    assert cli.main(["predict", "--adapter", str(tmp_path / "run"), str(folder)]) == 2
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 7, error
    assert "3 of 9 films could not be read" in error and "000.png" in error
