"""Pictures with their boxes drawn in: batches as the training saw them, and detections beside the truth."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from trainer.detection.data import Split

MOST_PICTURES = 16
SIDE_PX = 320  # of a picture as it is shown: small ones are enlarged, or no name could be read
GAP_PX = 6
CAPTION_PX = 20
SURE = 0.25  # of detections, those that are shown
PAPER = (255, 255, 255)
INK = (40, 40, 40)

Colour = tuple[int, int, int]


def colour_of(label: int) -> Colour:
    """The colour of a class, the same wherever it is drawn; neighbours differ in hue, rounds in lightness."""
    hue = (0.58 + 0.381966 * label) % 1.0  # the golden angle: no two of the first dozens are alike
    lightness, saturation = (0.48, 0.85) if label // 7 % 2 == 0 else (0.62, 0.65)
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_batch(images: Tensor, targets: Tensor, names: Sequence[str]) -> Image.Image:
    """A batch as the training sees it, up to 16 pictures of it in a grid.

    Images float [B, 3, H, W] in 0..1, targets [M, 6]: picture, class, centre x and y, width, height in pixels.
    """
    shown = images[:MOST_PICTURES].detach().float().cpu()
    pixels = (shown.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    rows = targets.detach().float().cpu().numpy()
    cells = []
    for index, picture in enumerate(pixels):
        own = rows[rows[:, 0] == index]
        half = own[:, 4:6] / 2
        boxes = np.hstack([own[:, 2:4] - half, own[:, 2:4] + half])
        cells.append(_draw_boxes(picture, boxes, own[:, 1], None, names))
    return arrange(cells, math.ceil(math.sqrt(len(cells))))


def draw_findings(
    split: Split,
    truths: Sequence[NDArray[np.floating]],
    detections: Sequence[NDArray[np.floating]],
    names: Sequence[str],
    pictures: int = MOST_PICTURES // 2,
) -> Image.Image:
    """Some pictures of a split, evenly drawn: each with its true boxes, and beside that with what was found in it.

    Truths [m, 5] (class, xyxy) and detections [n, 6] (xyxy, confidence, class) of every picture; those of less than
    SURE are left out.
    """
    cells = []
    for index in np.unique(np.linspace(0, len(truths) - 1, min(pictures, len(truths))).astype(int)):
        width, height = (int(side) for side in split.sizes[index])
        picture = np.asarray(split.images[index])[:height, :width]
        true, found = truths[index], detections[index]
        found = found[found[:, 4] > SURE]
        pair = [
            _caption(_draw_boxes(picture, true[:, 1:5], true[:, 0], None, names), f"{_name(split, index)}: truth"),
            _caption(_draw_boxes(picture, found[:, :4], found[:, 5], found[:, 4], names), "found"),
        ]
        cells.append(arrange(pair, 2, gap=2))
    return arrange(cells, 2)


def arrange(cells: Sequence[Image.Image], columns: int, gap: int = GAP_PX) -> Image.Image:
    """Pictures in rows, each column as wide and each row as high as its largest picture."""
    columns = max(1, columns)
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    widths = [
        max(row[column].width for row in rows if column < len(row)) for column in range(len(rows[0]) if rows else 0)
    ]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new(
        "RGB", (max(1, sum(widths) + gap * (len(widths) - 1)), max(1, sum(heights) + gap * (len(heights) - 1))), PAPER
    )
    top = 0
    for row, height in zip(rows, heights, strict=True):
        left = 0
        for cell, width in zip(row, widths, strict=False):
            sheet.paste(cell, (left, top))
            left += width + gap
        top += height + gap
    return sheet


def _draw_boxes(
    pixels: NDArray[np.uint8],
    boxes_xyxy: NDArray[np.floating],
    labels: NDArray[np.floating],
    confidences: NDArray[np.floating] | None,
    names: Sequence[str],
) -> Image.Image:
    """The picture [H, W, 3], enlarged where it is small, with its boxes; the largest first, so that none is hidden."""
    height, width = pixels.shape[:2]
    scale = max(1.0, SIDE_PX / max(height, width))
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=12)
    boxes = np.asarray(boxes_xyxy, dtype=np.float64) * scale
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind="stable")
    for row in order:
        left, top, right, bottom = (float(side) for side in boxes[row])
        if not (right > left and bottom > top):
            continue
        draw.rectangle((left, top, right, bottom), outline=colour_of(int(labels[row])), width=2)
    # Above all boxes, the surest on top.
    for row in order if confidences is None else np.argsort(confidences, kind="stable"):
        label = int(labels[row])
        text = names[label] if label < len(names) else str(label)
        if confidences is not None:
            text = f"{text} {confidences[row]:.2f}"
        _tag(draw, text, (float(boxes[row, 0]), float(boxes[row, 1])), colour_of(label), font, image.size)
    return image


def _tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    colour: Colour,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """A name on the class' colour, on top of its box where there is room, always inside the picture."""
    width, height = draw.textlength(text, font=font) + 4, 14
    left = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    top = corner[1] - height if corner[1] >= height else max(0.0, corner[1])
    top = min(top, size[1] - height)
    draw.rectangle((left, top, left + width, top + height), fill=colour)
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    draw.text((left + 2, top), text, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)


def _caption(picture: Image.Image, text: str) -> Image.Image:
    sheet = Image.new("RGB", (picture.width, picture.height + CAPTION_PX), PAPER)
    sheet.paste(picture, (0, CAPTION_PX))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    while text and draw.textlength(text, font=font) > picture.width:
        text = f"...{text.removeprefix('...')[1:]}" if len(text) > 4 else ""
    draw.text((0, 2), text, fill=INK, font=font)
    return sheet


def _name(split: Split, index: int) -> str:
    return split.files[index].name if index < len(split.files) else str(index)
