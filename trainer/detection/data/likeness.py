"""What a picture file looks like at a glance, and which pictures of two splits are nearly the same."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.detection.data.pictures import FORMATS, ORIENTATION_TAG, UnreadablePicture, decode
from trainer.progress import progress

GLANCE = 64  # pixels of the small picture that is compared
NEAR_BITS = 3  # of the 64 of a difference hash
NEAR_CORRELATION = 0.9
GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # of Pillow, and those that begin with I;16
MOST_TRIED = 20  # pictures with a near hash
MOST_PAIRS = 100_000_000  # that are compared; more would take minutes


@dataclass(frozen=True)
class Glance:
    """`grey`: the file has no colours. `orientation` is its EXIF tag as it stands there, None without one.

    `bits` uint64 is a difference hash: whether each of 8 x 8 cells is brighter than its right neighbour.
    """

    file: Path
    grey: bool
    orientation: int | None
    bits: np.uint64


@dataclass(frozen=True)
class Pair:
    """Picture `first` of one split and `second` of another, and how well their pixels correlate."""

    first: int
    second: int
    correlation: float


def glance_at_all(files: Sequence[Path]) -> list[Glance | None]:
    """A look at each file, None where it holds no picture."""
    with warnings.catch_warnings(), ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        warnings.simplefilter("ignore")  # see cache._decode_all
        found: list[Glance | None] = []
        for glance in pool.map(glance_at, files):
            found.append(glance)
            progress("looking at pictures", len(found), len(files))
        return found


def glance_at(file: Path) -> Glance | None:
    try:
        content = file.read_bytes()
        shown = _shown(content)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            grey = image.mode in GREY_MODES or image.mode.startswith("I;16")
            orientation = _orientation(image)
    except (OSError, UnreadablePicture, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    cells = np.asarray(shown.resize((9, 8), Image.Resampling.BOX), np.int16)
    return Glance(file, grey, orientation, np.packbits(cells[:, :-1] > cells[:, 1:]).view(np.uint64)[0])


def near_pairs(first: Sequence[Glance | None], second: Sequence[Glance | None]) -> Iterator[Pair]:
    """For each picture of `second` one of `first` whose hash differs in NEAR_BITS at most and whose pixels correlate.

    Where many have such a hash, as in a film, only MOST_TRIED are looked at.
    """
    small = functools.lru_cache(maxsize=2048)(stretched)
    known = [(i, glance) for i, glance in enumerate(first) if glance is not None]
    hashes = np.array([glance.bits for _, glance in known], np.uint64)
    for j, other in enumerate(second):
        if other is None:
            continue
        apart = count_bits(hashes ^ other.bits)
        near = np.flatnonzero(apart <= NEAR_BITS)
        for at in near[np.argsort(apart[near], kind="stable")][:MOST_TRIED].tolist():
            i, one = known[at]
            if (found := correlation(small(one.file), small(other.file))) > NEAR_CORRELATION:
                yield Pair(i, j, found)
                break


def stretched(file: Path) -> np.ndarray:
    """The picture in a file in grey, stretched to a square: float32 [GLANCE, GLANCE]. Raises as `decode`."""
    shown = _shown(file.read_bytes())
    return np.asarray(shown.resize((GLANCE, GLANCE), Image.Resampling.BILINEAR), np.float32)


def _shown(content: bytes) -> Image.Image:
    picture = decode(content, GLANCE)
    return Image.fromarray(picture.pixels[: picture.height, : picture.width]).convert("L")


def count_bits(values: np.ndarray) -> np.ndarray:
    """The number of ones in each uint64 (numpy has a function for it only since 2.0)."""
    bits = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1)
    return np.asarray(bits.sum(axis=1))


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's r of two pictures' pixels; 0 where one of them is flat."""
    one, other = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def _orientation(image: Image.Image) -> int | None:
    try:
        found = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # damaged EXIF, see pictures
        return None
    return found if isinstance(found, int) else None
