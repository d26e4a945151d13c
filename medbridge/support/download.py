"""One file from the network, whole or not at all: it goes on where it stopped, and gets its name when it is what it should be."""

import errno
import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm.auto import tqdm

from medbridge.support.files import write_atomic

TIMEOUT = 60.0  # seconds in which no byte comes
TRIES = 5  # in a row that bring less than a block
_BLOCK = 2**20  # bytes
_TOO_FAR, _BUSY = 416, (408, 425, 429)


class _CutError(Exception):
    """The line went dead or the server is busy: worth another try."""


def download(url: str, path: Path, checksum: str = "", size: int | None = None, headers: Mapping[str, str] | None = None,
             page: str = "", progress: bool = True) -> Path:
    """Fetch ``url`` into ``path``, whose folder is made; returns ``path``.

    What has arrived lies beside it as ``NAME.part`` (with the start of the checksum, so that parts of two versions never mix),
    and the next call goes on there. ``checksum`` in hex: MD5, git's SHA-1 of a blob, or SHA-256, by its length; ``size`` in
    bytes; ``headers`` are for this server and go to no other; ``page``: where a person gets the file, if not at ``url``.
    OSError with the file and the fix: a server that cannot be reached, stalls or refuses; a web page instead of the file;
    another length or checksum; no room, or a folder that cannot be written.
    """
    part = path.with_name(f"{path.name}.{f'{checksum[:8]}.' if checksum else ''}part")
    failures = 0
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "ab") as file, tqdm(desc=path.name, unit="B", unit_scale=True, disable=not progress) as bar:
            while file.tell() != size:
                before = file.tell()
                try:
                    _append(url, file, size, headers or {}, bar)
                    break
                except _CutError as cut:
                    failures = 0 if file.tell() - before > _BLOCK else failures + 1
                    if failures == TRIES:
                        raise OSError(f"{cut}, {TRIES} times; the same command goes on from there") from cut
                    bar.set_postfix_str(f"{cut}; trying again")
                    time.sleep(2**failures)
        if checksum and (actual := _checksum(part, len(checksum))) != checksum:
            part.unlink()
            raise OSError(f"the download's checksum is {actual}, not {checksum}; fetch it again")
        return write_atomic(path, part.rename)
    except OSError as error:
        if error.errno is None:  # of the network, or of what it sent
            raise OSError(f"{path}: {error}; or get it with a browser from {page or url} and put it there") from error
        raise OSError(f"{part}: {error.strerror}; make room, or name a folder that can be written; what has arrived is kept "
                      f"there") from error
    finally:
        if part.is_file() and part.stat().st_size == 0:
            part.unlink()


def _append(url: str, file: BinaryIO, size: int | None, headers: Mapping[str, str], bar: tqdm) -> None:
    """What is missing at the end of ``file``. _CutError where another try may help."""
    start = file.tell()
    request = Request(url, headers={"User-Agent": "Mozilla/5.0 (medbridge)", "Accept-Encoding": "identity"})
    for name, value in headers.items():
        request.add_unredirected_header(name, value)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        with _network():
            answer = urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == _TOO_FAR and (error.headers.get("Content-Range") or "").endswith(f"*/{start}"):
            return  # it is all here
        if error.code == _TOO_FAR:
            file.seek(file.truncate(0))  # longer than the file: a part of something else
        if error.code == _TOO_FAR or error.code in _BUSY or error.code >= 500:
            raise _CutError(f"the server says {error.code} {error.reason}") from None
        raise OSError(f"the server says {error.code} {error.reason}") from None
    with answer:
        if start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            file.seek(file.truncate(0))
            if answer.status == 206:
                raise _CutError("the server sent another part than it was asked for")
            start = 0  # it sends no parts, but the whole
        kind, length = answer.headers.get("Content-Type", ""), answer.headers.get("Content-Length")
        whole = start + int(length) if length and length.isdecimal() else None
        with _network():
            block = answer.read1(_BLOCK)
        if kind.startswith("text/html") or block.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
            raise OSError("the server sent a web page, not the file: it wants a log-in or a click")
        if None not in (whole, size) and whole != size:
            raise OSError(f"the server's file has {whole:,} bytes, not {size:,}: it is another version")
        if (free := shutil.disk_usage(Path(file.name).parent).free) < (whole or 0) - start:
            raise OSError(errno.ENOSPC, f"{(whole - start) / 1e9:.1f} GB are still to come, {free / 1e9:.1f} GB are free")
        bar.total, bar.n = whole, start
        while block:
            bar.update(file.write(block))
            with _network():
                block = answer.read1(_BLOCK)
        file.flush()
    if file.tell() < (whole or size or 0):
        raise _CutError(f"cut off at {file.tell():,} of {whole or size:,} bytes")


@contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except HTTPError:
        raise
    except (OSError, HTTPException) as error:
        reason = "no byte came for a minute" if isinstance(getattr(error, "reason", error), TimeoutError) else error
        raise _CutError(f"cannot be fetched ({str(reason) or type(error).__name__})") from error


def _checksum(path: Path, digits: int) -> str:
    kinds = {32: "md5", 40: lambda: hashlib.sha1(b"blob %d\0" % path.stat().st_size), 64: "sha256"}
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kinds[digits]).hexdigest()
