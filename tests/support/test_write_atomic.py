"""Atomic writes: the old file or the new one, whatever happens in between."""

import errno
import os

import numpy as np
import pytest

from medbridge.support.files import try_folder, write_atomic


def test_text_bytes_and_writers_arrive_whole(tmp_path):
    path = write_atomic(tmp_path / "new" / "a.json", "ä")
    assert path.read_bytes() == "ä".encode()
    assert write_atomic(path, b"\x00").read_bytes() == b"\x00"
    array = np.arange(3)
    write_atomic(tmp_path / "a.npy", lambda p: np.save(p, array))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = write_atomic(tmp_path / "a.csv", "old")

    def torn(temporary):
        temporary.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")  # as Python says it: without a name

    with pytest.raises(OSError, match="a.csv") as error:
        write_atomic(path, torn)
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("sync"), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomic(tmp_path / "a.txt", "x")
    assert calls == ["sync", "replace"]


def test_a_folder_is_tried_and_left_empty(tmp_path):
    try_folder(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        try_folder(tmp_path / "file")
