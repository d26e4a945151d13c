"""One file from a server that cuts, stalls, lies and refuses: whole under its name, or not there."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest
from web_server import serving

from medbridge.support import download as module
from medbridge.support.download import download

DATA = os.urandom(3_000_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(module, "TIMEOUT", 0.3)
    with serving() as server:
        server.files["films.npz"] = DATA
        yield server


def get(web, path, checksum=MD5, **options):
    return download(f"{web.url}/films.npz?download=1", path, checksum, progress=False, **options)


def names(path):
    return sorted(p.name for p in path.iterdir())


@pytest.mark.parametrize("checksum", [
    MD5, hashlib.sha256(DATA).hexdigest(), hashlib.sha1(b"blob 3000000\0" + DATA).hexdigest(), ""],
    ids=["MD5", "SHA-256", "git", "none"])
def test_a_whole_file_has_its_name(web, tmp_path, checksum):
    path = get(web, tmp_path / "new" / "films.npz", checksum, size=len(DATA))
    assert path.read_bytes() == DATA and names(path.parent) == ["films.npz"]


@pytest.mark.parametrize(("faults", "ranges"), [
    (["cut"], [0, 1_500_000]), (["stall"], [0, 1_500_000]), (["cut", "stall", "cut"], [0, 1_500_000, 2_250_000, 2_625_000]),
    ([503, 429, "cut"], [0, 0, 0, 1_500_000]), (["cut", "whole"], [0, 1_500_000]), (["cut", "another part"], [0, 1_500_000, 0]),
    (["no length"], [0]), (["too long a length"], [0, 3_000_000]),
], ids=str)
def test_what_is_interrupted_goes_on(web, tmp_path, faults, ranges):
    web.faults.extend(faults)
    path = get(web, tmp_path / "films.npz")
    assert path.read_bytes() == DATA and names(tmp_path) == ["films.npz"] and web.ranges == ranges


def test_the_next_call_goes_on_too_and_parts_of_two_versions_never_mix(web, tmp_path):
    web.faults.extend(["cut"] * 30)
    with pytest.raises(OSError, match=r"films\.npz: cut off at 2,953,125 of 3,000,000 bytes, 5 times; the same command goes on"):
        get(web, tmp_path / "films.npz")
    assert names(tmp_path) == [f"films.npz.{MD5[:8]}.part"]
    web.faults.clear()
    web.ranges.clear()
    newer = os.urandom(100)
    web.files["films.npz"] = newer
    assert get(web, tmp_path / "films.npz", hashlib.md5(newer).hexdigest()).read_bytes() == newer and web.ranges == [0]
    web.files["films.npz"] = DATA
    assert get(web, tmp_path / "films.npz").read_bytes() == DATA and web.ranges[1] == 2_953_125


def test_a_part_that_is_whole_already_and_one_that_is_too_long(web, tmp_path):
    part = tmp_path / f"films.npz.{MD5[:8]}.part"
    part.write_bytes(DATA)
    assert get(web, tmp_path / "films.npz", size=len(DATA)).read_bytes() == DATA and web.ranges == []
    part.write_bytes(DATA)
    assert get(web, tmp_path / "again.npz", "").read_bytes() == DATA
    part.write_bytes(DATA + b"more")
    assert get(web, tmp_path / "films.npz").read_bytes() == DATA


@pytest.mark.parametrize(("fault", "message"), [
    (403, "the server says 403 Forbidden"), (404, "the server says 404 Not Found"),
    ("page", "a web page, not the file: it wants a log-in or a click"), ("page without a type", "a web page"),
    ("too short a length", r"has 2,999,990 bytes, not 3,000,000: it is another version")])
def test_a_refusal_is_not_tried_again_and_leaves_nothing(web, tmp_path, fault, message):
    web.faults.append(fault)
    with pytest.raises(OSError, match=rf"films\.npz: .*{message}.*; or get it with a browser from https://example\.org and"):
        get(web, tmp_path / "films.npz", size=len(DATA), page="https://example.org")
    assert len(web.ranges) == 1 and names(tmp_path) == []


def test_a_length_that_is_too_short_is_seen_by_the_checksum(web, tmp_path):
    web.faults.append("too short a length")
    with pytest.raises(OSError, match=rf"the download's checksum is [0-9a-f]{{32}}, not {MD5}; fetch it again"):
        get(web, tmp_path / "films.npz")
    assert names(tmp_path) == []


def test_a_server_that_is_not_there_or_only_stalls(web, tmp_path):
    with pytest.raises(OSError, match=r"cannot be fetched \(.*refused.*\), 5 times"):
        download("http://127.0.0.1:9/films.npz", tmp_path / "films.npz", progress=False)
    web.faults.extend(["stall"] * 30)
    with pytest.raises(OSError, match=r"no byte came for a minute\), 5 times"):
        get(web, tmp_path / "films.npz")


def test_no_room(web, tmp_path):
    web.faults.append("endless")
    with pytest.raises(OSError, match=r"films\.npz\..*part: 1000000\.0 GB are still to come, .* GB are free; make room"):
        get(web, tmp_path / "films.npz")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"(Not a directory|File exists); make room, or name a folder that can be written"):
        get(web, tmp_path / "file" / "films.npz")


def _started(web, path, before=""):
    """A download in a process of its own, which does not inherit this one's threads and locks."""
    program = f"""
import signal, sys
from pathlib import Path
from medbridge.support.download import download
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
{before}
try:
    download(sys.argv[1], Path(sys.argv[2]), progress=False)
except OSError as error:
    sys.exit(str(error))
"""
    return subprocess.Popen([sys.executable, "-c", program, f"{web.url}/films.npz", str(path)], stderr=subprocess.PIPE, text=True)


unix = pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of Unix")


@unix
def test_a_disk_that_is_full_in_the_middle(web, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))"
    _, said = _started(web, tmp_path / "films.npz", limit).communicate(timeout=60)
    assert "films.npz.part: File too large; make room, or name a folder" in said
    assert names(tmp_path) == ["films.npz.part"] and (tmp_path / "films.npz.part").stat().st_size == 2_000_000
    assert get(web, tmp_path / "films.npz", "").read_bytes() == DATA and web.ranges[-1] == 2_000_000


@unix
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_download_leaves_its_part(tmp_path, sign):
    with serving() as web:
        web.files["films.npz"], web.faults[:] = DATA, ["stall"]
        process = _started(web, tmp_path / "films.npz")
        part, end = tmp_path / "films.npz.part", time.monotonic() + 60
        while not (part.exists() and part.stat().st_size > 1_000_000) and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(process.pid, sign)
        process.communicate(timeout=60)
        held = part.stat().st_size
        assert names(tmp_path) == [part.name] and held > 1_000_000 and process.returncode
        assert get(web, tmp_path / "films.npz", "").read_bytes() == DATA and web.ranges[-1] == held


def test_headers_are_for_the_server_that_they_were_meant_for(web, tmp_path):
    with serving() as other:
        other.files["films.npz"] = DATA
        web.faults.append(f"to {other.url}/films.npz")
        get(web, tmp_path / "films.npz", headers={"authorization": "Bearer secret"})
        assert web.headers_seen[0]["Authorization"] == "Bearer secret" and "Authorization" not in other.headers_seen[0]


def test_a_bar_says_what_comes(web, tmp_path, capsys):
    web.faults.append("cut")
    download(f"{web.url}/films.npz", tmp_path / "films.npz", MD5)
    said = capsys.readouterr().err
    assert "films.npz: 100%" in said and "3.00M/3.00M" in said and "cut off at 1,500,000 of 3,000,000 bytes; trying again" in said
