"""Whatever mode, depth, orientation or damage a file has, it becomes upright RGB or is refused with a reason."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from trainer.detection.data.pictures import GREY, Picture, UnreadablePicture, decode

LEFT, RIGHT = (200, 40, 40), (40, 40, 200)


def _two_halves(mode: str = "RGB", size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", size, RIGHT)
    image.paste(LEFT, (0, 0, size[0] // 2, size[1]))
    if mode == "LAB":
        return ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    return image.convert(mode, palette=Image.Palette.ADAPTIVE)


def _bytes(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _assert_two_halves(picture: Picture, tolerance: int = 12) -> None:
    assert (picture.width, picture.height) == (64, 32)
    assert picture.pixels[4:28, 4:28].astype(int) == pytest.approx(np.broadcast_to(LEFT, (24, 24, 3)), abs=tolerance)
    assert picture.pixels[4:28, 36:60].astype(int) == pytest.approx(np.broadcast_to(RIGHT, (24, 24, 3)), abs=tolerance)
    assert (picture.pixels[32:] == GREY).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_every_format_is_read(kind: str) -> None:
    picture = decode(_bytes(_two_halves(), kind), 64)
    assert picture.pixels.shape == (64, 64, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.flaw == ""
    _assert_two_halves(picture)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((64, 32), (32, 16)), ((32, 64), (16, 32)), ((8, 4), (32, 16)), ((1000, 1), (32, 1)), ((101, 67), (32, 21))],
)
def test_the_long_side_is_fitted_and_the_aspect_kept(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    picture = decode(_bytes(Image.new("RGB", size, LEFT)), 32)
    assert (picture.width, picture.height) == fitted
    assert (picture.pixels[: fitted[1], : fitted[0]] == LEFT).all()
    assert (picture.pixels[fitted[1] :] == GREY).all()
    assert (picture.pixels[:, fitted[0] :] == GREY).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_averages_instead_of_skipping_pixels(kind: str) -> None:
    checks = np.indices((512, 512)).sum(0) % 2 * 255
    picture = decode(
        _bytes(Image.fromarray(checks.astype(np.uint8)), kind, **({"quality": 95} if kind == "JPEG" else {})), 32
    )
    assert picture.pixels[2:-2, 2:-2].astype(int) == pytest.approx(127, abs=10)


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "YCbCr", "LAB"])
def test_colour_modes_become_rgb(mode: str) -> None:
    kind = {"CMYK": "TIFF", "YCbCr": "JPEG", "LAB": "TIFF"}.get(mode, "PNG")
    _assert_two_halves(decode(_bytes(_two_halves(mode), kind), 64))


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    _assert_two_halves(decode(_bytes(_two_halves("CMYK"), "JPEG", quality=95), 64))


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("LA", "PNG")])
def test_grey_modes_become_three_equal_channels(mode: str, kind: str) -> None:
    image = Image.new("L", (64, 32), 255)
    image.paste(0, (0, 0, 32, 32))
    pixels = decode(_bytes(image.convert(mode), kind), 64).pixels
    assert (pixels[4:28, 4:28] <= 3).all()
    assert (pixels[4:28, 36:60] >= 252).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_by_its_full_range(kind: str) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16)
    pixels = decode(_bytes(Image.fromarray(np.tile(values, (32, 1))), kind), 64).pixels
    assert (pixels[:32] == np.rint(values / 257)[None, :, None]).all()


def test_floats_are_scaled_by_the_range_they_use() -> None:
    values = np.tile(np.linspace(-3, 5, 64, dtype=np.float32), (32, 1))
    values[0, :2] = np.nan, np.inf
    pixels = decode(_bytes(Image.fromarray(values), "TIFF"), 64).pixels
    assert (pixels[0, 0] == 0).all()
    assert (pixels[0, 1] == 255).all()
    assert (pixels[1, 1] < 5).all()
    assert (pixels[1, 63] == 255).all()


def test_transparent_pixels_show_grey() -> None:
    image = _two_halves("RGBA")
    image.paste((0, 255, 0, 0), (32, 0, 64, 32))
    pixels = decode(_bytes(image), 64).pixels
    assert (pixels[:32, :32] == LEFT).all()
    assert (pixels[:32, 32:] == GREY).all()


def test_a_palette_may_have_a_transparent_colour() -> None:
    image = Image.new("P", (64, 32), 1)
    image.putpalette([*RIGHT, *LEFT])
    image.paste(0, (32, 0, 64, 32))
    pixels = decode(_bytes(image, transparency=0), 64).pixels
    assert (pixels[:32, :32] == LEFT).all()
    assert (pixels[:32, 32:] == GREY).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(kind: str, orientation: int) -> None:
    # What a camera stores so that this orientation shows the two halves upright: the inverse of EXIF's operation.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](_two_halves())
    exif = Image.Exif()
    exif[0x0112] = orientation
    _assert_two_halves(decode(_bytes(stored, kind, exif=exif), 64))


@pytest.mark.parametrize("orientation", [0, 9, 257, 65535])
def test_nonsense_orientation_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _assert_two_halves(decode(_bytes(_two_halves(), "JPEG", exif=exif), 64))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\x01\0\x01\0\0\0\0"]
)
def test_damaged_exif_costs_nothing(exif: bytes) -> None:
    """The second is orientation 65537 as a LONG, as a real camera file has it."""
    _assert_two_halves(decode(_bytes(_two_halves(), "JPEG", exif=exif), 64))


def _photo() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    return _bytes(Image.fromarray(noise), "JPEG", quality=80)


@pytest.mark.parametrize("cut", [2, 20, 1000])
def test_a_jpeg_without_its_end_is_kept_with_a_remark(cut: int) -> None:
    content = _photo()
    whole, damaged = decode(content, 192), decode(content[:-cut], 192)
    assert damaged.flaw.startswith("truncated, ")
    assert (damaged.width, damaged.height) == (192, 128)
    assert (damaged.pixels[:96] == whole.pixels[:96]).all()


def test_a_jpeg_of_which_half_is_missing_is_refused() -> None:
    content = _photo()
    with pytest.raises(UnreadablePicture, match=r"truncated, (4|5)\d% of its rows are missing"):
        decode(content[: len(content) // 2], 64)


def test_a_truncated_png_is_refused() -> None:
    content = _bytes(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(UnreadablePicture, match="truncated"):
        decode(content[: len(content) // 2], 64)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"Not found", "not a JPEG, PNG, BMP, WEBP or TIFF image"),
        (b"\xff\xd8\xff", "not a JPEG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "."),
        (b"GIF89a" + bytes(100), "not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(content: bytes, message: str) -> None:
    with pytest.raises(UnreadablePicture, match=message) as error:
        decode(content, 64)
    assert "\n" not in str(error.value)


def test_a_decompression_bomb_is_refused() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(UnreadablePicture, match="more than 178,956,970 pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT", 64)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_anywhere_in_a_file_raises_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(0)
    content = _bytes(_two_halves(), kind)
    for _ in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, len(damaged), 4):
            damaged[at] = rng.integers(256)
        with contextlib.suppress(UnreadablePicture):
            assert decode(bytes(damaged), 64).pixels.shape == (64, 64, 3)
