"""Copies of a film, whatever they are called: renamed, in another format, resized, compressed.

The *print* of a film is the signs of its 128 lowest frequencies but the very lowest. A copy changes the signs of small
coefficients alone, so the 12 smallest may be either. (The 64 bits of a usual perceptual hash do not tell chest films apart: too
many look alike.) A film that is cropped, padded, turned or inverted is no copy here.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn

_LOW = sorted((y * y + x * x, y, x) for y in range(32) for x in range(32) if y * y + x * x >= 4)[:128]
# a film's key is the xor of the codes of its positive signs, so that another sign is one xor more
_CODES = np.array([int.from_bytes(hashlib.sha256(bytes([i])).digest()[:8], "big") for i in range(len(_LOW))], dtype=np.uint64)
_BITS, _STEP, _END = 30, np.uint64(2**32 - 1), np.uint64(2**64 - 1)


def film_print(film: np.ndarray) -> bytes:
    """The print of a film ``(H, W)`` in [0, 1]: 8 bytes of key, then which 12 signs are unsure; of a film with next to nothing in
    it the key alone, of its very pixels."""
    film = np.ascontiguousarray(film, dtype=np.float32)
    small = Image.fromarray(film).resize((32, 32), Image.Resampling.BILINEAR)
    waves = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[tuple(np.transpose(_LOW)[1:])]
    if np.sum(np.abs(waves) > 1e-3) < len(_LOW) // 2:  # rounding to 8 bits is far below
        return hashlib.sha256(repr(film.shape).encode() + film.tobytes()).digest()[:8]
    unsure = np.argsort(np.abs(waves), kind="stable")[:12].astype(np.uint8)
    return int(np.bitwise_xor.reduce(_CODES[waves > 0])).to_bytes(8, "big") + unsure.tobytes()


def _key(film: bytes) -> int:
    return int.from_bytes(film[:8], "big")


def _matches(film: bytes, held: np.ndarray, shift: int = 0) -> np.ndarray:
    """Where in the sorted keys ``held``, of which one is larger than all, those stand that a copy of the film may have;
    ``shift``: low bits that they lack."""
    keys = np.array([_key(film)], dtype=np.uint64)
    for code in _CODES[list(film[8:])]:
        keys = np.concatenate([keys, keys ^ code])
    keys >>= np.uint64(shift)
    at = np.searchsorted(held[:-1], keys)
    return at[held[at] == keys]


def pack_prints(prints: Sequence[bytes]) -> np.ndarray:
    """n prints in a small form, int32 of about 4.2 bytes per print: how many bits of a key are kept, then the gaps between them.

    30 + log2(n) bits are kept: another film is taken for one of these by chance once in 260,000.
    """
    bits = min(64, _BITS + len(prints).bit_length())
    keys = np.unique(np.array([_key(film) for film in prints if film], dtype=np.uint64) >> np.uint64(64 - bits))
    full, rest = np.divmod(np.diff(keys, prepend=np.uint64(0)), _STEP)  # a gap beyond 32 bits is crossed in steps
    gaps = np.insert(rest, np.repeat(np.arange(len(rest)), full.astype(np.int64)), _STEP)
    return np.append(np.uint32(bits), gaps.astype(np.uint32)).view(np.int32)


def are_copies(prints: Sequence[bytes], packed: np.ndarray | None) -> np.ndarray:
    """bool ``(n,)``: which films are, or are copies of, those that were packed; none where nothing was."""
    if packed is None or len(packed) < 2:
        return np.zeros(len(prints), dtype=bool)
    held = np.asarray(packed).ravel().view(np.uint32).astype(np.uint64)
    shift, held[0] = (64 - int(held[0])) % 64, 0
    held = np.append(np.cumsum(held)[1:], _END)
    return np.array([bool(film) and len(_matches(film, held, shift)) > 0 for film in prints], dtype=bool)


def copy_groups(prints: Sequence[bytes]) -> list[list[int]]:
    """Groups of two and more films that are copies of one another, by position."""
    keys = np.array([_key(film) for film in prints], dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    held = np.append(keys[order], _END)
    first = np.array([order[_matches(film, held)].min() for film in prints], dtype=int)
    groups = [np.flatnonzero(first[first] == i).tolist() for i in np.unique(first)] if len(first) else []
    return [group for group in groups if len(group) > 1]
