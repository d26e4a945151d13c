"""``medbridge predict``: films of every format, folders of films, and films that cannot be read."""

import json

import numpy as np
import pytest
from PIL import Image
from samples import with_bases

from medbridge import cli
from medbridge.adapter import save_adapter
from medbridge.cli.predict import film_paths, predict_files
from medbridge.errors import ImageError
from medbridge.focal import FocalSampler
from medbridge.model import MedBridge
from medbridge.predict import predict_film


@pytest.fixture(scope="module")
def model(experts, squares):
    return with_bases(MedBridge(experts, squares.labels, sampler=FocalSampler(crop=0.6, overlap=0.0), width=32, queries=4))


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
    paths = film_paths([folder]).films
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
    save_adapter(model, tmp_path / "run")
    assert cli.main(["predict", "--adapter", str(tmp_path / "run"), str(folder)]) == 2
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 7, error
    assert "3 of 9 films could not be read" in error and "000.png" in error
    assert "1 files are no films and were left out" in error and "notes.txt" in error


def test_what_cannot_be_opened_is_counted_and_named(named, model, squares, tmp_path, capsys):
    save_adapter(model, tmp_path / "run")
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "IM0001").write_bytes(squares.paths()[0].read_bytes())
    assert cli.main(["predict", "--adapter", str(tmp_path / "run"), str(tmp_path / "films")]) == 0
    for name in ("b.png", "IM0002"):
        (tmp_path / "films" / name).symlink_to("nowhere")
    assert cli.main(["predict", "--adapter", str(tmp_path / "run"), "--json", str(tmp_path / "films")]) == 2
    out, error = capsys.readouterr()
    assert out.count("IM0001") == 2 and "2 of 3 films could not be read" in error and "b.png" in error and "IM0002" in error


def _dicom(path, film):
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = "1.2.840.10008.5.1.4.1.1.1.1", ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    d = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID, d.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "DX"
    d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *film.shape, 1, "MONOCHROME1"
    d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 12, 11, 0
    d.WindowCenter, d.WindowWidth = 2048, 4096
    d.PixelData = (4095 - film.astype(np.uint16) * 16).astype("<u2").tobytes()
    pydicom.dcmwrite(path, d)


def test_predict_reads_png_jpeg_and_dicom(named, adapted, squares, tmp_path, capsys):
    film = np.asarray(Image.open(squares.paths()[0]))
    paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.png", "d.dcm")]
    Image.fromarray(film).save(paths[0])
    Image.fromarray(film).save(paths[1], quality=98)
    Image.fromarray(film.astype(np.uint16) * 257).save(paths[2])
    _dicom(paths[3], film)
    assert cli.main(["predict", "--adapter", str(adapted.out), "--json", *map(str, paths)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["image"] for r in rows] == [str(p) for p in paths]
    values = np.array([list(r["probabilities"].values()) for r in rows])
    assert list(rows[0]["probabilities"]) == ["bright", "wide"] and ((values > 0) & (values < 1)).all()
    assert np.abs(values - values[0]).max() < 0.1  # the same film in four containers
    assert cli.main(["predict", "--adapter", str(adapted.out), str(paths[0])]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["image", "bright", "wide"]
    assert [float(v) for v in table[1].split()[1:]] == pytest.approx(values[0], abs=1e-3)
