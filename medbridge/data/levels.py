"""What a DICOM's stored values mean: bit layout, padding, modality and VOI, polarity; one place for all codecs.

A film has few distinct values. All is decided for these; then the film is looked up in the table that comes out.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset

from medbridge.data.pixels import limits, luma, scale
from medbridge.errors import ImageError

SAMPLES = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3, "YBR_ICT": 3, "YBR_RCT": 3, "YBR_FULL": 3, "YBR_FULL_422": 3}
SHOWN, CONTRAST = 0.1, 0.02  # of a window that is used: least share of pixels that it does not clip, and their deviation


def check_layout(dataset: Dataset, path: Path) -> None:
    """ImageError where the header states no layout of pixels, or contradicts itself; fills in what follows from the rest."""
    dataset.PhotometricInterpretation = kind = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    dataset.setdefault("SamplesPerPixel", SAMPLES.get(kind))
    dataset.setdefault("HighBit", (dataset.get("BitsStored") or 0) - 1)
    names = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")
    allocated, stored, high, signed, samples = header = [dataset.get(name) for name in names]
    if (None in header or allocated not in (1, 8, 16, 32) or not 1 <= stored <= high + 1 <= allocated or signed not in (0, 1)
            or samples != SAMPLES.get(kind) or samples + signed > 3):
        fields = ", ".join(f"{name} {number}" for name, number in zip(names, header, strict=True))
        raise ImageError(f"{path}: PhotometricInterpretation {kind or None}, {fields}: no film that MedBridge reads, or a header "
                         "that contradicts itself; export it as MONOCHROME2")


def film_of(cells: np.ndarray, precision: int, dataset: Dataset, path: Path) -> np.ndarray:
    """A decoder's samples of ``precision`` bits, (H, W) or (H, W, 3) -> the film, float32 (H, W) in [0, 1], white = dense."""
    if cells.itemsize <= 2:
        codes = cells.view(f"u{cells.itemsize}")
        counts = np.bincount(codes.reshape(-1), minlength=256**cells.itemsize)
        levels = np.arange(len(counts), dtype=codes.dtype).view(cells.dtype)
    else:
        levels, codes, counts = np.unique(cells, return_inverse=True, return_counts=True)
    held, values, padding = counts > 0, np.zeros(len(levels), np.int64), np.zeros(len(levels), bool)
    values[held], padding[held] = _values(levels[held].astype(np.int64), precision, dataset, path)
    least, most = -(dataset.PixelRepresentation << (dataset.BitsStored - 1)), 2**dataset.BitsStored - 1
    if dataset.SamplesPerPixel == 3:
        grey = luma(values[codes])
        unused = most > 255 and 2 * grey.max() <= most  # not even the highest bit is used
        return scale(grey, path) if unused else (grey / most).astype(np.float32)
    units, counts = _modality(values, dataset, path), counts * ~padding
    for shown in _windowed(units, dataset):
        inside = counts * ((shown > 0.01) & (shown < 0.99))
        if inside.sum() >= SHOWN * counts.sum():
            spread = shown - np.average(shown, weights=inside)
            if np.average(spread**2, weights=inside) >= CONTRAST**2:
                break
    else:
        if dataset.BitsStored <= 8:  # as the same bits in a PNG
            low, high = sorted(_modality(np.array([least, least + most]), dataset, path))
        else:
            sample, ends = codes[~padding[codes]] if padding.any() else codes.reshape(-1), units[counts > 0]
            low, high = limits(units[sample[:: max(1, sample.size // 1_000_000)]], (ends.min(), ends.max()))
        shown = np.clip((units - low) / (high - low), 0, 1) if high > low else 0 * units
    shown = 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown
    return np.where(padding, 0, shown).astype(np.float32)[codes]


def _values(cells: np.ndarray, precision: int, dataset: Dataset, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values that cells, int64, store by their header, and which of them are padding. Bits beside those of a value may repeat
    its sign or be overlays: ImageError where the film itself seems to use them."""
    allocated, stored, signed = dataset.BitsAllocated, dataset.BitsStored, dataset.PixelRepresentation
    pad = dataset.get("PixelPaddingValue") if dataset.SamplesPerPixel == 1 else None
    width = min(stored, precision)
    low = dataset.HighBit + 1 - width if precision > stored else 0
    outside = cells & ~(((1 << width) - 1) << low) != 0
    exact = outside & (cells == (-1 if pad is None else pad & (2**allocated - 1)))  # padding may lie beside a value's bits
    used = int(np.bitwise_or.reduce(cells[~exact], initial=0))
    if used < 0:  # a JPEG 2000 stream with signs
        values, fault = cells, not signed or np.abs(cells + 0.5).max() > 2 ** (stored - 1)
    else:
        beyond = cells[~exact] >> (low + width - 1)  # from the sign up
        extended = signed and not low and np.isin(beyond, (0, (1 << (precision - width + 1)) - 1)).all()
        overlays = [(group, 0x102) for group in range(0x6000, 0x6020, 2) if (group, 0x3000) not in dataset]  # within cells
        film = used & ~sum({1 << int(dataset[tag].value) for tag in overlays if tag in dataset})
        # bits that adjoin a value's are the film's own; others are an old overlay whose header is gone
        beside = film >> (low + width) & 1 or (low and film >> (low - 1) & 1)
        fault = (beside and not extended) or (signed and width < stored and (beyond & 1).any()) or precision > allocated
        values = cells >> low & ((1 << width) - 1)
        values = values - (values >> (width - 1) << width) if signed else values
    if fault:
        raise ImageError(f"{path}: its values of {precision} bits use bits {used & (2**allocated - 1):#x}, which BitsAllocated "
                         f"{allocated}, BitsStored {stored}, HighBit {dataset.HighBit}, PixelRepresentation {signed} contradict; "
                         "export the film again")
    if pad is not None:
        ends = np.array([pad, dataset.get("PixelPaddingRangeLimit", pad)]) & (2**allocated - 1)
        ends -= signed * (ends >> (allocated - 1) << allocated)
        exact |= (values >= ends.min()) & (values <= ends.max())
    if exact.all():
        raise ImageError(f"{path}: PixelPaddingValue {pad} says that every pixel is padding; export the film again")
    return values, exact


def _modality(values: np.ndarray, dataset: Dataset, path: Path) -> np.ndarray:
    """Stored values -> float64 in the units of the modality LUT or rescale."""
    if table := dataset.get("ModalityLUTSequence"):
        return _look_up(table[0], values, dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    units = values * 1.0 if None in (slope, intercept) else values * float(slope) + float(intercept)
    if slope == 0 or not np.isfinite(units).all():
        raise ImageError(f"{path}: RescaleSlope {slope} and RescaleIntercept {intercept} leave no film; export it again")
    return units


def _windowed(units: np.ndarray, dataset: Dataset) -> Iterator[np.ndarray]:
    """``units`` in [0, 1] by each of the file's VOI LUTs and windows that can be used, in its order."""
    for item in dataset.get("VOILUTSequence") or []:
        span = _look_up(item, None, dataset)
        if len(span) and span.max() > span.min():
            yield (_look_up(item, units, dataset) - span.min()) / (span.max() - span.min())
    kind = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    centers, widths = (np.ravel(dataset.get(name) or []).astype(float) for name in ("WindowCenter", "WindowWidth"))
    for center, width in zip(centers, widths, strict=False):
        at = (units - center + 0.5) / max(width - 1, 1e-9) if kind == "LINEAR" else (units - center) / max(width, 1e-9)
        if kind in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            yield np.clip(at + 0.5, 0, 1) if kind != "SIGMOID" else 1 / (1 + np.exp(np.clip(-4 * at, -500, 500)))


def _look_up(item: Dataset, values: np.ndarray | None, dataset: Dataset) -> np.ndarray:
    """``values``, or all entries (None), by a LUT; values beyond its ends take the ends. pydicom's own wraps those round."""
    descriptor, data = item.get("LUTDescriptor") or (0, 0), item.get("LUTData") or []
    entries, first = int(descriptor[0]) or 2**16, int(descriptor[1])
    if isinstance(data, bytes):
        data = np.frombuffer(data, "u1" if len(data) < 2 * entries else f"{'<>'[dataset.original_encoding[1] is False]}u2")
    table = np.asarray(data, dtype=np.float64)[:entries]
    return table if values is None else table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.int64)]
