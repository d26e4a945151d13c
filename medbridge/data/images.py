"""One film file -> one array: float32 (H, W) in [0, 1], white = dense.

The intensity scale: 8 bits are divided by 255; beyond 8 bits the 0.5th to 99.5th percentile becomes 0 to 1 (files say
how many bits they have, not how many they use); DICOM by its own VOI LUT or window, where that shows the film, else in the same
way. Decoding never guesses pixels: ImageError. What each format can hide is told in data/README.md.

``films.npy/17`` is film 17 of the array ``films.npy``, uint8 (n, H, W), which is mapped, not loaded: MedMNIST keeps films so.
"""

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import simplejpeg
from PIL import Image
from tifffile import TiffFile

from medbridge.data.dicom import dicom_size, open_dicom, read_dicom
from medbridge.data.pixels import COMMON_JPEG, check_holes, check_png, check_size, decode_jpeg, jpeg_header, luma, scale
from medbridge.errors import ImageError

_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP")  # Pillow's other plugins (EPS, PDF, ...) may start programs
_ORIENTATION = 0x0112
_STARTS = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
           "jpeg2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"), "array": b"\x93NUMPY"}
_CHECKS = {"png": check_png, "jpeg2000": check_holes}  # of what Pillow's decoders do not see
_LOW_GROUPS = (0x02, 0x08, 0x10, 0x18, 0x20, 0x28)  # of DICOM tags that a data set can begin with


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Decoders raise anything at all on corrupt bytes; the file is what is wrong."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{path}: damaged or truncated ({_reason(error)}); copy or export the file again") from error


def film_file(path: Path) -> Path:
    """The file that a film lies in: its own, or the array of many."""
    return path.parent if path.name.isdecimal() and path.parent.suffix == ".npy" else path


def film_digest(path: Path) -> str:
    """SHA-256 in hex of what a film consists of: its file, or of an array its own size and pixels."""
    if film_file(path) != path:
        pixels = _mapped(path)
        return hashlib.sha256(b"%d x %d " % pixels.shape + pixels.tobytes()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_film(path: str | Path, max_side: int | None = None) -> np.ndarray:
    """Decode one film of PNG, JPEG, JPEG 2000, TIFF, BMP, DICOM or an array to float32 (H, W) in [0, 1], white = dense.

    The file's content, not its extension, decides the format. Colour becomes luma, transparency is laid over black, EXIF
    orientation is applied. A film with a side beyond ``max_side`` is shrunk to it (antialiased, aspect kept). ImageError, with
    the file and the fix: missing, cut short, corrupt, no film format, multi-frame, beyond MAX_PIXELS, or without a decoder here.
    """
    if max_side is not None and max_side < 1:
        raise ImageError(f"max_side={max_side}: give at least one pixel, or None for native resolution")
    path = Path(path)
    kind = _sniff(path)
    with _named(path):
        readers = {"dicom": read_dicom, "tiff": _read_tiff, "array": lambda path: _mapped(path).astype(np.float32) / 255}
        film = readers[kind](path) if kind in readers else _read_image(path, kind)
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


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _sniff(path: Path) -> str:
    """'dicom', a key of _STARTS, or 'pillow': what it knows besides."""
    try:
        info = film_file(path).stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{path}: is a folder; give an image file")
        if not stat.S_ISREG(info.st_mode):  # opening a pipe or a device could wait for ever
            raise ImageError(f"{path}: is no regular file; give an image file")
        if info.st_size == 0:
            raise ImageError(f"{path}: the file is empty; copy or export it again")
        with open(film_file(path), "rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; check the path and the image folder") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: cannot be opened ({_reason(error)}); check the path and its permissions") from error
    kinds = [kind for kind, starts in _STARTS.items() if head.startswith(starts)]
    if head[128:132] == b"DICM" or (path.suffix.lower() in (".dcm", ".dicom") and not kinds):
        return "dicom"
    # A data set without preamble: the tag of a low group, then a VR or (implicit) a length
    group, after = head[0] or head[1] if 0 in head[:2] and len(head) > 8 else 0, head[4:8]
    bare = group in _LOW_GROUPS and (after[:2].isalpha() or after[2:] == b"\0\0")
    return kinds[0] if kinds else "dicom" if bare else "pillow"


def _header_size(path: Path, kind: str) -> tuple[int, int]:
    if kind == "dicom":
        return dicom_size(open_dicom(path, header_only=True), path)
    if kind == "array":
        return _mapped(path).shape
    if kind == "jpeg" and (header := jpeg_header(path.read_bytes(), path))[:2] not in COMMON_JPEG:
        return header[2:4]
    if kind == "tiff":
        with TiffFile(path) as file:
            page = file.pages.first
            width, height, turn = page.imagewidth, page.imagelength, page.tags.valueof(_ORIENTATION, 1)
    else:
        with _open_pillow(path) as image:
            (width, height), turn = image.size, image.getexif().get(_ORIENTATION, 1)
    return (width, height) if turn in (5, 6, 7, 8) else (height, width)  # a quarter


def _mapped(path: Path) -> np.ndarray:
    """One film ``(H, W)`` of an array, uint8, not yet read from the disk."""
    file = film_file(path)
    if file == path:
        raise ImageError(f"{path}: an array of films; name one of them, such as {path}/0")
    films = np.load(file, mmap_mode="r")
    if films.dtype != np.uint8 or films.ndim != 3:
        raise ImageError(f"{file}: an array {films.shape} of {films.dtype}; films are (n, H, W) of uint8")
    if int(path.name) >= len(films):
        raise ImageError(f"{path}: no such film; the array holds {len(films)}, the first is 0")
    return films[int(path.name)]


def _open_pillow(path: Path, data: bytes | None = None) -> Image.Image:
    try:
        return Image.open(path if data is None else BytesIO(data), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{path}: {_reason(error)}; shrink the film first") from error
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: not a PNG, JPEG, JPEG 2000, TIFF, BMP or DICOM, whatever its name; export it again") from None


def _read_image(path: Path, kind: str) -> np.ndarray:
    data = None if kind == "pillow" else path.read_bytes()
    if kind == "jpeg" and jpeg_header(data, path)[:2] not in COMMON_JPEG:
        return scale(luma(decode_jpeg(data, path)), path)
    if kind in _CHECKS:
        _CHECKS[kind](data, path)
    with _open_pillow(path, data) as image:
        check_size(path, image.size[1], image.size[0])
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"{path}: holds {image.n_frames} frames; export the one film as its own file")
        if kind == "png" and data[24] == 16 and data[25] != 0:  # Pillow keeps only the high byte of 16-bit colour
            return scale(luma(imagecodecs.png_decode(data)), path)
        orientation = image.getexif().get(_ORIENTATION, 1)
        if kind == "jpeg":  # Pillow's own decoder fills what is missing with grey; the warnings of this one are errors
            pixels = simplejpeg.decode_jpeg(data, {"L": "GRAY", "RGB": "RGBX"}.get(image.mode, image.mode))
            if image.mode != "CMYK":
                image = Image.frombuffer({"RGB": "RGBX"}.get(image.mode, image.mode), image.size, pixels)
        image.load()
        if image.mode.startswith("I") or image.mode == "F":
            return _turned(scale(np.asarray(image), path), orientation)
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            grey = luma(np.asarray(image.convert("RGBA")))
        else:
            grey = np.asarray((image if image.mode in ("1", "L", "RGBX") else image.convert("RGB")).convert("L"))
    film = grey.astype(np.float32)
    film /= 255  # in place: a second array of a film's size costs as much as the division
    return _turned(film, orientation)


def _read_tiff(path: Path) -> np.ndarray:
    with TiffFile(path) as file:
        page = file.pages.first
        check_size(path, page.imagelength, page.imagewidth)
        if len(file.pages) > 1 or not all(page.databytecounts):
            raise ImageError(f"{path}: holds {len(file.pages)} frames, or a part of one; export the one film as its own file")
        pixels = page.asarray()  # of whole strips alone, checked as far as their compression can be
        tables = page.jpegtables or b"\xff\xd8\xff\xd9"
        for strip, _ in file.filehandle.read_segments(page.dataoffsets, page.databytecounts) if page.compression == 7 else ():
            decode_jpeg(tables[:-2] + strip[2:], path)  # tifffile does not see the faults of JPEG
    kind, bits, orientation = pixels.dtype.kind, page.bitspersample, page.tags.valueof(_ORIENTATION, 1)
    if kind in "bu" and bits <= 8 and (page.photometric > 1 or page.samplesperpixel > 1) and orientation < 5:
        return _read_image(path, "pillow")  # colour; Pillow scrambles it where it turns by a quarter
    if page.photometric > 2 or kind not in "buif" or page.imagedepth > 1:
        raise ImageError(f"{path}: a TIFF of {page.photometric.name} {pixels.dtype}; export it as grey of 8 or 16 bits")
    grey = luma(np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 and page.planarconfig == 2 else pixels)
    least = -(2 ** (bits - 1)) if kind == "i" else 0
    film = (grey.astype(np.float32) - least) / (2**bits - 1) if bits <= 8 else scale(grey, path)
    return _turned(1 - film if page.photometric == 0 else film, orientation)


def _turned(film: np.ndarray, orientation: int) -> np.ndarray:
    """As any viewer shows it."""
    film = film.T if orientation in (5, 6, 7, 8) else film
    film = film[:, ::-1] if orientation in (2, 3, 6, 7) else film
    return film[::-1] if orientation in (3, 4, 7, 8) else film
