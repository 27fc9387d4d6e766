"""One image file's bytes to a square of uint8 RGB, whatever the file holds: any mode, any orientation, some damage."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")  # by content; naming them keeps Pillow from starting e.g. Ghostscript
GREY = 114  # what is not picture: the padding of the square and what a transparent pixel shows (YOLO's letterbox grey)
MAX_MISSING_ROWS = 0.25  # of a truncated JPEG's height; with more of it missing, too many boxes would lie on nothing

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
ORIENTATION_TAG = 0x0112  # EXIF tag
_UPRIGHT = {  # EXIF 2.32, 4.6.4 A: what to do to see it upright; 1 and whatever is no orientation: nothing
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8])


@dataclass(frozen=True)
class Picture:
    """uint8 [imgsz, imgsz, 3] RGB, the picture (`width` x `height` px) at the top left; `flaw` is '' or a remark."""

    pixels: np.ndarray
    width: int
    height: int
    flaw: str = ""


class UnreadablePicture(Exception):
    """The bytes hold no picture that can be used; the message says why."""


def decode(content: bytes, imgsz: int) -> Picture:
    """The picture in `content`, upright, its long side resized to `imgsz`, on a grey square.

    16-bit values are scaled by their full range, transparent pixels show GREY, of several frames the first is taken.
    A JPEG that lacks its end is taken if no more than MAX_MISSING_ROWS of it is missing. Raises UnreadablePicture.
    """
    if not content:
        raise UnreadablePicture("the file is empty")
    try:
        try:
            image, flaw = _read(content, imgsz), ""
        except OSError as error:
            if not content.startswith(_JPEG_START) or "truncated" not in str(error):
                raise
            image, flaw = _read_truncated(content, imgsz)
        pixels = np.full((imgsz, imgsz, 3), GREY, np.uint8)
        pixels[: image.height, : image.width] = np.asarray(image)
        return Picture(pixels, image.width, image.height, flaw)
    except UnreadablePicture:
        raise
    except UnidentifiedImageError:
        raise UnreadablePicture(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except Image.DecompressionBombError:
        raise UnreadablePicture(f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files; it costs their picture only
        raise UnreadablePicture(" ".join(str(error).split()) or type(error).__name__) from error


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of the picture in a file, upright, from its header. Raises OSError, UnreadablePicture."""
    with file.open("rb") as content:
        try:
            with Image.open(content, formats=FORMATS) as image:
                orientation = _orientation(image)
                width, height = image.size
        except UnidentifiedImageError:
            raise UnreadablePicture(f"not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
        except Exception as error:  # see decode
            raise UnreadablePicture(" ".join(str(error).split()) or type(error).__name__) from error
    return (height, width) if orientation in _LYING else (width, height)


def _read(content: bytes, imgsz: int) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        size = fit(image.size, imgsz)
        image.draft(None, (2 * size[0], 2 * size[1]))  # a JPEG decodes faster at 1/2, 1/4, 1/8; twice `size` is enough
        image.load()
        if image.format == "TIFF":  # which Pillow turns upright by itself, and then forgets the tag
            size = fit(image.size, imgsz)
        orientation = _orientation(image)
        rgb = _to_rgb(image)
    if rgb.size != size:
        rgb = rgb.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return rgb if orientation is None else rgb.transpose(orientation)


def _read_truncated(content: bytes, imgsz: int) -> tuple[Image.Image, str]:
    """A JPEG that lacks its end, as browsers show it: libjpeg fills the missing rows with one flat colour."""
    whole = content + _JPEG_END
    with Image.open(io.BytesIO(whole), formats=FORMATS) as image:
        missing = _flat_rows(np.asarray(image))
    flaw = f"truncated, {missing:.0%} of its rows are missing"
    if missing > MAX_MISSING_ROWS:
        raise UnreadablePicture(flaw)
    return _read(whole, imgsz), flaw


def _flat_rows(pixels: np.ndarray) -> float:
    """Which fraction of the rows, from the bottom up, is one flat colour."""
    differs = (pixels != pixels[-1, -1]).reshape(len(pixels), -1).any(axis=1)
    filled = int(np.flatnonzero(differs)[-1]) + 1 if differs.any() else 0
    return 1 - filled / len(pixels)


def fit(size: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """Width and height of a picture whose long side becomes `imgsz`."""
    width, height = size
    scale = imgsz / max(width, height)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _orientation(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing about the picture
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        ground = Image.new("RGBA", image.size, (GREY, GREY, GREY, 255))
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


_FROM_16_BIT = np.rint(np.arange(65536) * (255 / 65535)).astype(np.uint8)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """16-bit values by their full range; other integers and floats, which have none, by the range they use."""
    if values.dtype.kind != "f" and values.min() >= 0 and values.max() <= 65535:
        return np.asarray(_FROM_16_BIT[values])
    finite = values[np.isfinite(values)]
    low, high = float(finite.min()), float(finite.max())
    bounded = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint((bounded - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
