"""How well a file of weights does, told to a person or as JSON."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from trainer.detection.evaluate import Scores
    from trainer.detection.validation import Report

SCORES = ("precision", "recall", "F1", "mAP50", "mAP50-95")


def score_weights(weights: str, **asked: Any) -> Report:
    """As trainer.detection.validation.validate, whose arguments are taken where they are not None.

    Threads that wait sleep instead of spinning, which OpenMP only learns before torch loads: beside another busy
    process spinning took nine times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from trainer.detection.download import fetch
    from trainer.detection.validation import validate

    return validate(fetch(weights), **{name: value for name, value in asked.items() if value is not None})


def tell_scores(console: Console, report: Report) -> None:
    """Print the scores of all classes together and of each that has boxes, and how long a picture took."""
    data = os.path.relpath(report.data) if os.path.exists(report.data) else report.data
    pictures = len(report.pictures.sizes)
    console.print(
        Text(f"{report.weights} on {report.split} of {data}: {pictures} pictures at {report.imgsz} px"), soft_wrap=True
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class", no_wrap=True)
    for name in ("boxes", *SCORES):
        table.add_column(name, justify="right", no_wrap=True)
    scores = report.scores
    table.add_row("all", str(int(scores.boxes.sum())), *_shown(_overall(scores)), style="bold")
    for label in np.flatnonzero(scores.boxes).tolist():
        table.add_row(Text(report.names[label]), str(int(scores.boxes[label])), *_shown(_of_class(scores, label)))
    console.print(table)
    steps = ", ".join(f"{step} {milliseconds:.2f}" for step, milliseconds in report.milliseconds.items())
    console.print(Text(f"precision, recall and F1 at confidence {scores.confidence:.3f}"), soft_wrap=True)
    console.print(Text(f"milliseconds a picture: {steps}"), soft_wrap=True)
    if report.weights.suffix not in (".pt", ".pth"):
        console.print(Text("anchors are those of the cfg: this file holds none"), soft_wrap=True)


def scores_as_json(report: Report) -> str:
    """One JSON document: what was scored on what, the scores, those of each class with boxes, and the times."""
    scores = report.scores
    classes = [
        {"class": report.names[label], "boxes": int(scores.boxes[label]), **_named(_of_class(scores, label))}
        for label in np.flatnonzero(scores.boxes).tolist()
    ]
    content = {
        "weights": str(report.weights),
        "data": report.data,
        "split": report.split,
        "imgsz": report.imgsz,
        "pictures": len(report.pictures.sizes),
        "boxes": int(scores.boxes.sum()),
        **_named(_overall(scores)),
        "confidence": scores.confidence,
        "classes": classes,
        "milliseconds": dict(report.milliseconds),
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _overall(scores: Scores) -> tuple[float, ...]:
    return scores.precision, scores.recall, scores.f1, scores.map50, scores.map50_95


def _of_class(scores: Scores, label: int) -> tuple[float, ...]:
    ap = scores.ap[label]
    values = (scores.class_precision[label], scores.class_recall[label], scores.class_f1[label], ap[0], ap.mean())
    return tuple(map(float, values))


def _named(values: tuple[float, ...]) -> dict[str, float]:
    """By the names that an EpochMetrics has for them."""
    return dict(zip(("precision", "recall", "f1", "map50", "map50_95"), values, strict=True))


def _shown(values: tuple[float, ...]) -> list[str]:
    return [f"{value:.4f}" for value in values]
