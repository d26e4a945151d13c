"""One film file -> one array: float32 (H, W) in [0, 1], white = dense.

The intensity scale is [ours]: 8 bits are divided by 255; beyond 8 bits the 0.5th to 99.5th percentile becomes 0 to 1 (files say
how many bits they have, not how many they use); DICOM by its own VOI LUT or window. Decoding never guesses pixels: ImageError.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from tqdm import tqdm

from medbridge.data.dicom import dicom_size, open_dicom, read_dicom
from medbridge.data.pixels import check_size, decode_jpeg, jpeg_header, luma, scale
from medbridge.errors import ImageError
from medbridge.support.threads import ahead

_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP")  # Pillow's other plugins (EPS, PDF, ...) may start programs
_ORIENTATION = 0x0112


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Decoders raise anything at all on corrupt bytes; the file is what is wrong."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{path}: damaged or truncated ({_reason(error)}); copy or export the file again") from error


def read_film(path: str | Path, max_side: int | None = None) -> np.ndarray:
    """Decode one film of PNG, JPEG, JPEG 2000, TIFF, BMP or DICOM to float32 (H, W) in [0, 1], white = dense.

    The file's content, not its extension, decides the format. Colour becomes luma, transparency is laid over black, EXIF
    orientation is applied. A film with a side beyond ``max_side`` is shrunk to it (antialiased, aspect kept). ImageError, with
    the file and the fix: missing, cut short, corrupt, no film format, multi-frame, beyond MAX_PIXELS, or without a decoder here.
    """
    if max_side is not None and max_side < 1:
        raise ImageError(f"max_side={max_side}: give at least one pixel, or None for native resolution")
    path = Path(path)
    kind = _sniff(path)
    with _named(path):
        if kind == "dicom":
            film = read_dicom(path)
        elif kind == "deep-jpeg":
            film = scale(decode_jpeg(path.read_bytes(), path), path)
        elif kind == "deep-png":
            check_size(path, *_header_size(path, kind))
            film = scale(luma(imagecodecs.png_decode(path.read_bytes())), path)
        else:
            film = _read_pillow(path)
    if max_side is not None and max(film.shape) > max_side:
        height, width = (max(1, round(side * max_side / max(film.shape))) for side in film.shape)
        small = Image.fromarray(film).resize((width, height), Image.Resampling.LANCZOS)
        film = np.clip(np.asarray(small, dtype=np.float32), 0, 1)  # Lanczos overshoots at edges
    return np.ascontiguousarray(film, dtype=np.float32)


def probe_film(path: str | Path) -> tuple[int, int]:
    """``(H, W)`` of a film from its header alone, as :func:`read_film` would give it. ImageError as there."""
    path = Path(path)
    kind = _sniff(path)
    with _named(path):
        size = _header_size(path, kind)
        check_size(path, *size)
    return size


def check_films(paths: Sequence[Path], workers: int | None = None, progress: bool = True) -> list[tuple[Path, str]]:
    """``(path, message)`` of each film that cannot be decoded, in order; by ``workers`` threads (default: one per core)."""
    problems = ahead(_problem, paths, workers or os.cpu_count() or 1)
    bar = tqdm(problems, "checking films", len(paths), unit="film", disable=not progress)
    return [(path, message) for path, message in zip(paths, bar, strict=True) if message]


def _problem(path: Path) -> str:
    try:
        read_film(path)
    except ImageError as error:
        return str(error)
    return ""


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
        raise ImageError(f"{path}: cannot be opened ({_reason(error)}); check the path and its permissions") from error
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
        return (width, height) if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8) else (height, width)


def _open_pillow(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: {_reason(error)}; shrink the film first") from error
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not a PNG, JPEG, JPEG 2000, TIFF, BMP or DICOM, whatever its name; export it again") from None


def _read_pillow(path: Path) -> np.ndarray:
    with _open_pillow(path) as image:
        check_size(path, image.size[1], image.size[0])
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path}: holds {image.n_frames} frames; export the one film as its own file")
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
        if image.mode.startswith("I") or image.mode == "F":
            film = scale(np.asarray(image), path)
        else:
            if image.mode in ("1", "L"):
                grey = np.asarray(image if image.mode == "L" else image.convert("L"))
            elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
                grey = luma(np.asarray(image.convert("RGBA")))
            else:
                grey = np.asarray(image.convert("RGB").convert("L"))
            film = grey.astype(np.float32)
            film /= 255  # in place: a second array of a film's size costs as much as the division
    if orientation in (5, 6, 7, 8):  # what any viewer shows
        film = film.T
    if orientation in (2, 3, 6, 7):
        film = film[:, ::-1]
    return film[::-1] if orientation in (3, 4, 7, 8) else film
