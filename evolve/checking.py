"""What a data set holds and what is wrong with it, told to a person or as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from trainer.detection.data.report import Finding, Report

MOST_CLASSES = 20  # that are shown; of more, the ends


def tell_report(console: Console, report: Report) -> None:
    """Print what was found, the worst first."""
    for part in _parts(report):
        console.print(part, highlight=False, soft_wrap=isinstance(part, Text))


def report_as_json(report: Report) -> str:
    """One JSON document: the fields of trainer.detection.data.report.Report, and `usable`, which is true."""
    return json.dumps({"usable": True, **dataclasses.asdict(report)}, indent=2, ensure_ascii=False)


def _parts(report: Report) -> Iterator[RenderableType]:
    yield Text(f"{_here(report.source)}: {report.labels} labels, {_count(len(report.names), 'class', 'es')}")
    yield Text(f"box sizes are in pixels at imgsz {report.imgsz}", style="dim")
    yield Text()
    yield _splits_table(report)
    yield Text()
    yield _sides_table(report)
    yield Text()
    yield _classes_table(report)
    yield Text()
    if report.findings:
        yield from map(_describe, report.findings)
        yield Text()
    yield Text(_verdict(report), style="bold")


def _splits_table(report: Report) -> Table:
    table = _table("split", "images", "unusable", "without a box", "boxes", "polygons", "boxes per image")
    for split in report.splits:
        per_image = split.boxes_per_image
        numbers = (split.images, split.listed - split.images, split.images_without_boxes, split.boxes, split.polygons)
        spread = f"{per_image.least:g} to {per_image.most:g}, mean {per_image.mean:.1f}"
        table.add_row(split.split, *map(str, numbers), spread)
    return table


def _sides_table(report: Report) -> Table:
    table = _table("shorter side, px", *report.splits[0].sides_px)
    for split in report.splits:
        table.add_row(split.split, *map(str, split.sides_px.values()))
    return table


def _classes_table(report: Report) -> Table:
    table = _table("class", *(f"{split.split} boxes" for split in report.splits), "images in train")
    train = report.splits[0]
    names = sorted(report.names, key=lambda name: -train.by_class[name])
    for name in _ends(names):
        if name is None:
            table.add_row(f"({len(names) - MOST_CLASSES} more)")
            continue
        boxes = (str(split.by_class[name]) for split in report.splits)
        table.add_row(Text(name), *boxes, str(train.images_by_class[name]))
    return table


def _ends(names: list[str]) -> list[str | None]:
    if len(names) <= MOST_CLASSES:
        return [*names]
    half = MOST_CLASSES // 2
    return [*names[:half], None, *names[-half:]]


def _describe(finding: Finding) -> Text:
    """Where, how often and what; below it the first case, in one piece, so that its path can be copied."""
    colour = "yellow" if finding.severity == "warning" else ""
    return Text.assemble(
        f"{finding.split}: {finding.count} × ", (finding.what, colour), "\n    ", (_here(finding.examples[0]), "dim")
    )


def _verdict(report: Report) -> str:
    warnings = len(report.warnings)
    notes = len(report.findings) - warnings
    said = ", ".join(_count(number, noun, "s") for number, noun in ((warnings, "warning"), (notes, "note")) if number)
    return "usable" + (f", with {said}" if said else ", and nothing wrong was found")


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for other in others:
        table.add_column(other, justify="right", no_wrap=True)
    return table


def _count(number: int, noun: str, plural: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{plural}"


def _here(text: str) -> str:
    """A text with paths, those below the working folder as they are typed there."""
    return text.replace(os.getcwd() + os.sep, "")
