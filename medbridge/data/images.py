"""One film file -> one array: float32 (H, W) in [0, 1], white = dense.

Reads PNG, JPEG, JPEG 2000, TIFF, BMP and DICOM, 8 to 16 bits. The intensity scale is [ours]:

- 8 bits: divided by 255, nothing else.
- more than 8 bits: the 0.5th to 99.5th percentile of the film becomes 0 to 1. Files say how many bits they
  have, not how many they use: 12-bit data in a 16-bit PNG divided by 65535 would be black. A constant film
  becomes zeros.
- DICOM: modality LUT or rescale, then the file's own VOI LUT or window; percentiles where it has none, or one
  that leaves the film constant; MONOCHROME1 inverted.

Colour becomes luma; transparency is laid over black; EXIF orientation is applied. A file that is not a whole
film is an :class:`ImageError`: decoding never guesses pixels that are not there, and dimensions are checked
before decoding.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from tqdm import tqdm

from medbridge.data.dicom import dicom_size, open_dicom, read_dicom
from medbridge.data.pixels import MAX_PIXELS, check_size, decode_jpeg, jpeg_header, luma, scale
from medbridge.errors import ImageError

__all__ = ["MAX_PIXELS", "check_films", "probe_film", "read_film"]

# Only these: Pillow's other plugins (EPS, PDF, ...) may start programs, and no film is distributed in them.
_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP")
_KINDS = "PNG, JPEG, JPEG 2000, TIFF, BMP or DICOM"


def read_film(path: str | Path, max_side: int | None = None) -> np.ndarray:
    """Decode one film.

    Args:
        path: the file; its content, not its extension, decides the format.
        max_side: shrink (antialiased, aspect kept) so that neither side exceeds this; None keeps native
            resolution.

    Returns:
        float32 (H, W) in [0, 1], white = dense.

    Raises:
        ImageError: missing, empty, truncated, corrupt, not a film format, multi-frame, more than MAX_PIXELS,
        or
            compressed in a way that needs a decoder which is not installed. The message names the file and
            the fix.
    """
    if max_side is not None and max_side < 1:
        raise ImageError(f"max_side={max_side}: give at least one pixel, or None for native resolution")
    path = Path(path)
    kind = _sniff(path)
    try:
        if kind == "dicom":
            film = read_dicom(path)
        elif kind == "deep-jpeg":
            film = scale(decode_jpeg(path.read_bytes(), path), path)
        elif kind == "deep-png":
            check_size(path, *_header_size(path, kind))
            film = scale(luma(imagecodecs.png_decode(path.read_bytes())), path)
        else:
            film = _read_pillow(path)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything at all on corrupt bytes; the file is what is wrong
        raise ImageError(
            f"{path}: damaged or truncated ({_reason(error)}); copy or export the file again"
        ) from error
    if max_side is not None and max(film.shape) > max_side:
        height, width = (max(1, round(side * max_side / max(film.shape))) for side in film.shape)
        small = Image.fromarray(film).resize((width, height), Image.Resampling.LANCZOS)
        film = np.clip(np.asarray(small, dtype=np.float32), 0, 1)  # Lanczos overshoots at edges
    return np.ascontiguousarray(film, dtype=np.float32)


def probe_film(path: str | Path) -> tuple[int, int]:
    """``(H, W)`` of a film from its header alone, as :func:`read_film` would give it. ImageError as there."""
    path = Path(path)
    kind = _sniff(path)
    try:
        size = _header_size(path, kind)
    except ImageError:
        raise
    except Exception as error:  # as in read_film
        raise ImageError(
            f"{path}: damaged or truncated ({_reason(error)}); copy or export the file again"
        ) from error
    check_size(path, *size)
    return size


def check_films(
    paths: Iterable[str | Path], workers: int | None = None, progress: bool = True
) -> list[tuple[Path, str]]:
    """Decode every film once, so that a bad file stops a run before training and not in the middle of it.

    Args:
        paths: the files. workers: threads (default: one a core). progress: show a bar.

    Returns:
        ``(path, message)`` of each film that cannot be read, in the order given; empty where all is well.
    """
    files = [Path(p) for p in paths]

    def problem(path: Path) -> str | None:
        try:
            read_film(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        try:
            found = list(
                tqdm(
                    pool.map(problem, files), "checking films", len(files), unit="film", disable=not progress
                )
            )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C answers now, not after every film
            raise
    return [(path, message) for path, message in zip(files, found, strict=True) if message]


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _sniff(path: Path) -> str:
    """'dicom', 'deep-jpeg' (beyond 8 bits or lossless), 'deep-png' (16-bit colour) or 'pillow'."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{path}: is a folder; give an image file")
        if not stat.S_ISREG(info.st_mode):  # opening a pipe or a device could wait for ever
            raise ImageError(f"{path}: is no regular file; give an image file")
        if info.st_size == 0:
            raise ImageError(f"{path}: the file is empty; copy or export it again")
        with open(path, "rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the path and the image folder") from None
    except (OSError, ValueError) as error:
        raise ImageError(
            f"{path}: cannot be opened ({_reason(error)}); check the path and its permissions"
        ) from error
    if head[128:132] == b"DICM":
        return "dicom"
    if head[:3] == b"\xff\xd8\xff":
        marker, precision = jpeg_header(path.read_bytes(), path)[:2]
        return "pillow" if precision == 8 and marker in (0xC0, 0xC1, 0xC2) else "deep-jpeg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        # Pillow keeps only the high byte of 16-bit colour, which is black for 12-bit data.
        return "deep-png" if len(head) > 25 and head[24] == 16 and head[25] != 0 else "pillow"
    return "dicom" if path.suffix.lower() in (".dcm", ".dicom") else "pillow"


def _header_size(path: Path, kind: str) -> tuple[int, int]:
    if kind == "dicom":
        return dicom_size(open_dicom(path, header_only=True), path)
    if kind == "deep-jpeg":
        return jpeg_header(path.read_bytes(), path)[2:4]
    with _open_pillow(path) as image:
        width, height = image.size
        # Orientations 5 to 8 turn the film by a quarter.
        return (width, height) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (height, width)


def _open_pillow(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: {_reason(error)}; shrink the film first") from error
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not a {_KINDS} file, whatever its name says; export it again") from None


def _read_pillow(path: Path) -> np.ndarray:
    with _open_pillow(path) as image:
        check_size(path, image.size[1], image.size[0])
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path}: holds {image.n_frames} frames; export the one film as its own file")
        image.load()
        orientation = image.getexif().get(0x0112, 1)
        if image.mode.startswith("I") or image.mode == "F":
            film = scale(np.asarray(image), path)
        elif image.mode in ("1", "L"):
            film = _unit(np.asarray(image if image.mode == "L" else image.convert("L")))
        elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            film = _unit(luma(np.asarray(image.convert("RGBA"))))
        else:
            film = _unit(np.asarray(image.convert("RGB").convert("L")))
    return _oriented(film, orientation)


def _unit(pixels: np.ndarray) -> np.ndarray:
    """0 to 255 -> float32 in [0, 1]; divided in place, since a second array of a film's size costs as much as the division."""
    film = pixels.astype(np.float32)
    film /= 255
    return film


def _oriented(film: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation 1 to 8 of a (H, W) array; what any viewer shows."""
    if orientation in (5, 6, 7, 8):
        film = film.T
    if orientation in (2, 3, 6, 7):
        film = film[:, ::-1]
    if orientation in (3, 4, 7, 8):
        film = film[::-1]
    return film
