"""Films below a folder: by content, through links, and nothing left out without a word."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from medbridge.data.walk import find_films

FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP")


def _film(path, kind="PNG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.BytesIO() as buffer:
        Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(buffer, kind)
        path.write_bytes(buffer.getvalue())


def _names(paths):
    return [os.path.basename(p) for p in paths]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_film_needs_no_ending_and_may_have_a_wrong_one(tmp_path, kind):
    _film(tmp_path / "IM0001", kind)
    _film(tmp_path / "sub" / "1.2.840.1", kind)
    _film(tmp_path / "sub" / "film.dat", kind)
    found = find_films(tmp_path)
    assert _names(found.films) == ["IM0001", "1.2.840.1", "film.dat"] and not found.others and not found.faults


def test_text_tables_archives_and_what_systems_leave_are_no_films(tmp_path):
    _film(tmp_path / "a.PNG")
    _film(tmp_path / "._b.png")  # a film whose name begins so is one all the same
    for name, content in {"README": b"text", "labels.csv": b"a,b", "report.pdf": b"%PDF\0", "films.zip": b"PK\0",
                          "DICOMDIR": b"\0" * 140, "Thumbs.db": b"\0", ".DS_Store": b"\0", "._a.PNG": b"\0\5\x16\7\0"}.items():
        (tmp_path / name).write_bytes(content)
    found = find_films(tmp_path)
    assert _names(found.films) == ["._b.png", "a.PNG"] and len(found.others) == 8 and not found.faults


def test_links_are_followed_once_and_never_upwards(tmp_path):
    _film(tmp_path / "real" / "a.png")
    _film(tmp_path / "elsewhere.png")
    films = tmp_path / "films"
    films.mkdir()
    (films / "link").symlink_to("../real")
    (films / "again").symlink_to("../real")
    (films / "up").symlink_to("..")
    (tmp_path / "real" / "loop").symlink_to(".")
    (films / "b.png").symlink_to("../elsewhere.png")
    found = find_films(films)
    assert _names(found.films) == ["a.png", "b.png"] and found.faults == []


def test_what_cannot_be_opened_or_may_be_a_damaged_film_is_a_fault(tmp_path, monkeypatch):
    _film(tmp_path / "whole.png")
    _film(tmp_path / "torn")
    (tmp_path / "torn").write_bytes((tmp_path / "torn").read_bytes()[:20])
    (tmp_path / "IM0002").symlink_to("nowhere")
    (tmp_path / "IM0003").symlink_to("IM0003")
    (tmp_path / "empty").touch()
    (tmp_path / "film.webp").write_bytes(b"RIFF\0\0\0\0WEBP")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").mkdir()
    scan = os.scandir

    def locked(path):  # as root, permissions stop nobody
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    found = find_films(tmp_path)
    assert _names(found.films) == ["whole.png"] and not found.others
    for name in ("torn", "IM0002", "IM0003", "empty", "film.webp", "pipe", "locked"):
        assert sum(str(tmp_path / name) in fault for fault in found.faults) == 1, name
