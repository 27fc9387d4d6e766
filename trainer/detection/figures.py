"""What a training leaves to look at: figures of data, epochs and scores, and one page that holds them all."""

from __future__ import annotations

import base64
import html
import importlib
import io
import logging
import math
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from trainer.api import EpochMetrics
from trainer.detection.data import Split
from trainer.detection.data.cache import replacing
from trainer.detection.detect import Detections
from trainer.detection.evaluate import Curves, Scores, count_confusions, score, trace_curves
from trainer.detection.gallery import colour_of, draw_batch, draw_findings
from trainer.detection.validation import labels_by_picture

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

MOST_CLASSES_NAMED = 30  # in a confusion matrix with its numbers; in a legend
BINS = 40
INK, FAINT, PAPER = "#282828", "#d8d8d8", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif"
METRIC_COLOURS = {"precision": "#1f77b4", "recall": "#ff7f0e", "mAP50": "#2ca02c", "mAP50-95": "#d62728"}
LOSS_COLOURS = ("#9467bd", "#8c564b", "#17becf", "#7f7f7f")
SHARES = [[0.0, "#f7fbff"], [0.2, "#c6dbef"], [0.5, "#9ecae1"], [1.0, "#08306b"]]
COUNTS = [[0.0, "#c6dbef"], [0.5, "#4292c6"], [1.0, "#08306b"]]


def leave_pictures(
    folder: Path,
    *,
    names: Sequence[str],
    training: Split,
    scored: Split,
    detections: Detections,
    epochs: Sequence[EpochMetrics],
    first_batches: Sequence[tuple[Tensor, Tensor]] = (),
) -> Path:
    """Leave everything that can be seen of a training in `folder`, and return the page that shows it all.

    `detections` are the final ones in each picture of `scored`. Of `first_batches` (images float [B, 3, H, W] in 0..1,
    targets [M, 6]: picture, class, centre x and y, width, height in pixels) the first few are drawn. What is there
    already is replaced. Raises OSError.
    """
    truths = labels_by_picture(scored)
    figures = {
        "results": show_epochs(epochs),
        "labels": show_labels(training, names),
        **figures_of_scores(truths, detections, names),
    }
    batches = {
        f"train_batch{number}": draw_batch(images, targets, names)
        for number, (images, targets) in enumerate(first_batches[:3])
    }
    pictures = {"predictions": draw_findings(scored, truths, detections, names), **batches}
    table = score_table(score(detections, truths, len(names)), names)
    return write_page(folder, "Training", figures, pictures, table)


def leave_validation(folder: Path, *, names: Sequence[str], scored: Split, detections: Detections) -> Path:
    """As `leave_pictures`, of what a file of weights scores on a split."""
    truths = labels_by_picture(scored)
    figures = {**figures_of_scores(truths, detections, names), "labels": show_labels(scored, names)}
    pictures = {"predictions": draw_findings(scored, truths, detections, names)}
    table = score_table(score(detections, truths, len(names)), names)
    return write_page(folder, "Validation", figures, pictures, table)


def figures_of_scores(
    truths: Sequence[NDArray[np.floating]], detections: Detections, names: Sequence[str]
) -> dict[str, Figure]:
    """The curves and the confusion matrix."""
    curves = trace_curves(detections, truths, len(names))
    return {
        "PR_curve": show_precision_recall(curves, names),
        "F1_curve": show_confidences(curves, names),
        "confusion_matrix": show_confusions(count_confusions(detections, truths, len(names)), names),
    }


# --------------------------------------------------------------------------------------------------------------------
# the figures
# --------------------------------------------------------------------------------------------------------------------


def show_labels(split: Split, names: Sequence[str]) -> Figure:
    """How many boxes each class has, how large they are and where they lie, as shares of their picture."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    sides = np.asarray(split.sizes, dtype=np.float64)[split.image_index]
    boxes = split.boxes.astype(np.float64)
    shares = np.clip((boxes[:, 2:] - boxes[:, :2]) / sides, 0, 1)
    centres = np.clip((boxes[:, :2] + boxes[:, 2:]) / 2 / sides, 0, 1)
    counts = np.bincount(split.classes, minlength=len(names))
    figure = make_subplots(
        rows=1,
        cols=3,
        column_widths=[0.4, 0.3, 0.3],
        horizontal_spacing=0.09,
        subplot_titles=(f"{len(boxes)} boxes in {len(split.sizes)} pictures", "sizes", "centres"),
    )
    bars = go.Bar(
        x=[_short(name) for name in _distinct(names)],
        y=counts,
        marker_color=[_css(colour_of(label)) for label in range(len(names))],
        text=counts if len(names) <= MOST_CLASSES_NAMED else None,
        textangle=0,
        hovertemplate="%{x}: %{y} boxes<extra></extra>",
    )
    figure.add_trace(bars, row=1, col=1)
    figure.add_trace(_heat(shares[:, 0], shares[:, 1], "width %{x:.2f}, height %{y:.2f}"), row=1, col=2)
    figure.add_trace(_heat(centres[:, 0], centres[:, 1], "x %{x:.2f}, y %{y:.2f}"), row=1, col=3)
    figure.update_xaxes(title="class", type="category", row=1, col=1)
    figure.update_yaxes(title="boxes", row=1, col=1)
    for column, (x, y) in ((2, ("width / picture", "height / picture")), (3, ("x / picture", "y / picture"))):
        figure.update_xaxes(title=x, range=[0, 1], constrain="domain", row=1, col=column)
        figure.update_yaxes(title=y, range=[0, 1] if column == 2 else [1, 0], row=1, col=column)
        figure.update_yaxes(scaleanchor=f"x{column}", constrain="domain", row=1, col=column)
    return _finish(figure, "Labels", width=1300, height=460, legend=False)


def show_epochs(epochs: Sequence[EpochMetrics]) -> Figure:
    """The losses and the scores of every epoch that was scored."""
    from plotly.subplots import make_subplots

    numbers = [metrics.epoch for metrics in epochs]
    mode = "lines" if len(epochs) > 40 else "lines+markers"
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.08, subplot_titles=("mean losses", "scores"))
    losses = dict.fromkeys(name for metrics in epochs for name in metrics.losses)
    for index, name in enumerate(losses):
        values = [metrics.losses.get(name, math.nan) for metrics in epochs]
        colour = LOSS_COLOURS[index % len(LOSS_COLOURS)]
        figure.add_trace(_line(numbers, values, f"{name} loss", colour, mode, "losses"), row=1, col=1)
    scores = {
        "precision": [metrics.precision for metrics in epochs],
        "recall": [metrics.recall for metrics in epochs],
        "mAP50": [metrics.map50 for metrics in epochs],
        "mAP50-95": [metrics.map50_95 for metrics in epochs],
    }
    for name, values in scores.items():
        figure.add_trace(_line(numbers, values, name, METRIC_COLOURS[name], mode, "scores"), row=1, col=2)
    whole = {"tickmode": "linear", "dtick": 1} if len(epochs) <= 20 else {}
    figure.update_xaxes(title="epoch", **whole)
    figure.update_yaxes(rangemode="tozero", row=1, col=1)
    figure.update_yaxes(range=[0, 1.02], row=1, col=2)
    return _finish(figure, "Epochs", width=1300, height=460)


def show_precision_recall(curves: Curves, names: Sequence[str]) -> Figure:
    """Precision at each recall, at IoU .50: each class thin, their mean thick. The area below a curve is its AP50."""
    from plotly import graph_objects as go

    figure = go.Figure()
    for label in _seen(curves.precision_at_recall):
        values = curves.precision_at_recall[label]
        name = f"{_short(names[label])} {values.mean():.3f}"
        figure.add_trace(_class_line(curves.recalls, values, name, label, len(names), "recall"))
    mean = _mean(curves.precision_at_recall)
    name = f"all classes {np.nan_to_num(mean).mean():.3f} mAP50"
    figure.add_trace(go.Scatter(x=curves.recalls, y=mean, name=name, line={"color": INK, "width": 4}))
    figure.update_xaxes(title="recall", range=[0, 1])
    figure.update_yaxes(title="precision", range=[0, 1.02])
    return _finish(figure, "Precision and recall at IoU 0.5", width=850, height=560)


def show_confidences(curves: Curves, names: Sequence[str]) -> Figure:
    """F1, precision and recall of what is at least as confident, at IoU .50: each class thin, their mean thick."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    mean_f1 = np.nan_to_num(_mean(curves.f1))
    best = int(np.argmax(mean_f1))
    figure = make_subplots(rows=1, cols=3, horizontal_spacing=0.06, subplot_titles=("F1", "precision", "recall"))
    for column, values in enumerate((curves.f1, curves.precision, curves.recall), start=1):
        for label in _seen(curves.recall):
            line = _class_line(curves.confidences, values[label], _short(names[label]), label, len(names), "confidence")
            figure.add_trace(line.update(showlegend=column == 1 and line.showlegend), row=1, col=column)
        bold = {"color": INK, "width": 4}
        told = f"all classes: F1 {mean_f1[best]:.3f} at {curves.confidences[best]:.3f}"
        mean = go.Scatter(
            x=curves.confidences, y=_mean(values), name=told, legendgroup="mean", line=bold, showlegend=column == 1
        )
        figure.add_trace(mean, row=1, col=column)
        figure.add_vline(x=curves.confidences[best], line={"color": INK, "width": 1, "dash": "dot"}, row=1, col=column)
    figure.update_xaxes(title="confidence", range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    return _finish(figure, "Confidence: where to cut", width=1300, height=480)


def show_confusions(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Rows true, columns predicted, background last; shares of a row, the counts on hovering."""
    from plotly import graph_objects as go

    labels = [*(_short(name) for name in _distinct(names)), "background"]
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros(matrix.shape), where=totals > 0)
    readable = len(names) <= MOST_CLASSES_NAMED
    text = [
        [f"{share:.2f}" if count else "" for share, count in zip(*rows, strict=True)]
        for rows in zip(shares, matrix, strict=True)
    ]
    heat = go.Heatmap(
        z=shares,
        x=labels,
        y=labels,
        customdata=matrix,
        text=text if readable else None,
        texttemplate="%{text}" if readable else None,
        colorscale=SHARES,
        zmin=0,
        zmax=1,
        xgap=1,
        ygap=1,
        colorbar={"title": "share of<br>the row", "thickness": 14},
        hovertemplate="true %{y}, predicted %{x}<br>%{customdata} (%{z:.1%} of the row)<extra></extra>",
    )
    figure = go.Figure(heat)
    side = int(min(1100, max(560, 240 + 26 * len(labels))))
    figure.update_xaxes(title="predicted", type="category", constrain="domain", showgrid=False)
    figure.update_yaxes(
        title="true", type="category", autorange="reversed", scaleanchor="x", constrain="domain", showgrid=False
    )
    return _finish(figure, "Confusions (confidence > 0.25, IoU > 0.45)", width=side + 120, height=side, legend=False)


def _heat(x: Floats, y: Floats, hover: str) -> object:
    """How many fall where, on a grid over [0, 1] x [0, 1]."""
    from plotly import graph_objects as go

    counts, edges, _ = np.histogram2d(x, y, bins=BINS, range=[[0, 1], [0, 1]])
    middles = (edges[:-1] + edges[1:]) / 2
    drawn = np.where(counts.T > 0, np.sqrt(counts.T), np.nan)  # the root: else one crowded place hides all others
    return go.Heatmap(
        x=middles,
        y=middles,
        z=drawn,
        customdata=counts.T,
        colorscale=COUNTS,
        showscale=False,
        hovertemplate=f"{hover}: %{{customdata}} boxes<extra></extra>",
    )


def _line(x: Sequence[int], y: Sequence[float], name: str, colour: str, mode: str, group: str) -> object:
    from plotly import graph_objects as go

    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode=mode,
        line={"color": colour, "width": 2},
        legendgroup=group,
        hovertemplate="epoch %{x}: %{y:.4f}<extra>" + html.escape(name) + "</extra>",
    )


def _class_line(x: Floats, y: Floats, name: str, label: int, classes: int, what: str) -> Scatter:
    """A thin line; with very many classes they have one faint colour and no place in the legend."""
    from plotly import graph_objects as go

    few = classes <= MOST_CLASSES_NAMED
    return go.Scatter(
        x=x,
        y=y,
        name=name,
        mode="lines",
        line={"color": _css(colour_of(label)) if few else FAINT, "width": 1.2},
        legendgroup=str(label),
        showlegend=few,
        hovertemplate=f"{what} %{{x:.3f}}: %{{y:.3f}}<extra>{name}</extra>",
    )


def _seen(by_class: Floats) -> list[int]:
    """The classes that have true boxes."""
    return [int(label) for label in np.flatnonzero(~np.isnan(by_class).all(axis=1))]


def _mean(by_class: Floats) -> Floats:
    """The mean of the classes that have a value, [n]; NaN where none has."""
    known = ~np.isnan(by_class)
    counts = known.sum(axis=0)
    total = np.where(known, by_class, 0.0).sum(axis=0)
    return np.asarray(np.divide(total, counts, out=np.full(total.shape, np.nan), where=counts > 0))


def _short(name: str) -> str:
    """A class name as plotly shows it: not as HTML, and not too long."""
    return html.escape(name if len(name) <= 24 else f"{name[:23]}…")


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where two are the same: plotly would put them on one place."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({label})" for label, name in enumerate(names)]


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({}, {}, {})".format(*colour)


def _finish(figure: Figure, title: str, width: int, height: int, legend: bool = True) -> Figure:
    figure.update_layout(
        title={"text": title, "x": 0.01, "xanchor": "left", "font": {"size": 18}},
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        width=width,
        height=height,
        margin={"l": 70, "r": 30, "t": 80, "b": 60},
        showlegend=legend,
        hoverlabel={"font": {"family": FONT}},
    )
    figure.update_xaxes(showline=True, linecolor=INK, gridcolor=FAINT, zeroline=False, ticks="outside")
    figure.update_yaxes(showline=True, linecolor=INK, gridcolor=FAINT, zeroline=False, ticks="outside")
    return figure


# --------------------------------------------------------------------------------------------------------------------
# the page
# --------------------------------------------------------------------------------------------------------------------

STYLE = f"""
body {{ font-family: {FONT}; color: {INK}; margin: 2rem auto; max-width: 1340px; padding: 0 1rem; }}
section {{ margin: 0 0 2.5rem; }}
section > div {{ overflow-x: auto; }}
h2 {{ font-weight: 600; font-size: 1.15rem; }}
img {{ max-width: 100%; height: auto; border: 1px solid {FAINT}; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .9rem; text-align: right; border-bottom: 1px solid {FAINT}; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.all {{ font-weight: 600; }}
"""
CAPTIONS = {
    "predictions": "Validation pictures: the truth, and what was found (confidence > 0.25)",
    "train_batch0": "The first batch as the training saw it",
    "train_batch1": "The second batch",
    "train_batch2": "The third batch",
}


def score_table(scores: Scores, names: Sequence[str]) -> str:
    """The scores overall and of each class that has true boxes, as an HTML table."""
    heads = ("class", "boxes", "precision", "recall", "F1", "mAP50", "mAP50-95")
    overall = (scores.precision, scores.recall, scores.f1, scores.map50, scores.map50_95)
    rows = [("all", int(scores.boxes.sum()), overall)]
    for label in np.flatnonzero(scores.boxes):
        of_class = (
            scores.class_precision[label],
            scores.class_recall[label],
            scores.class_f1[label],
            scores.ap[label, 0],
            scores.ap[label].mean(),
        )
        rows.append((names[int(label)], int(scores.boxes[label]), of_class))
    lines = "".join(
        f"<tr{' class=all' if number == 0 else ''}><td>{html.escape(name)}</td><td>{boxes}</td>"
        + "".join(f"<td>{value:.3f}</td>" for value in values)
        + "</tr>"
        for number, (name, boxes, values) in enumerate(rows)
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def write_page(
    folder: Path, title: str, figures: Mapping[str, Figure], pictures: Mapping[str, Image.Image], table: str = ""
) -> Path:
    """Write one page that needs nothing else, index.html, and beside it each picture as .jpg and each figure as .png.

    The .png need kaleido and a Chrome; without them there is the page only, and a log line says so. Raises OSError.
    """
    from plotly.offline import get_plotlyjs

    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"<section>{table}</section>"] if table else []
    parts += [f"<section><div>{_figure_html(figure, name)}</div></section>" for name, figure in figures.items()]
    for name, picture in pictures.items():
        encoded = _jpeg(picture)
        _replace(folder / f"{name}.jpg", encoded)
        source = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
        caption = html.escape(CAPTIONS.get(name, name))
        parts.append(f'<section><h2>{caption}</h2><img src="{source}" alt="{caption}"></section>')
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{chr(10).join(parts)}\n</body></html>\n"
    )
    write_images(folder, figures)
    _replace(folder / "index.html", page.encode())  # last: where it lies, everything does
    return folder / "index.html"


def write_images(folder: Path, figures: Mapping[str, Figure]) -> bool:
    """Each figure as .png, if that can be done here; returns whether it was."""
    if not figures:
        return True
    try:
        importlib.import_module("kaleido")  # what plotly draws with: it starts a Chrome, here one for all figures
        from plotly.io import write_images as draw
    except ImportError:
        logger.info("figures are in %s only: images of them need kaleido (pip install kaleido)", folder / "index.html")
        return False
    with tempfile.TemporaryDirectory(prefix=".figures-", dir=folder) as drawn:
        files = {name: Path(drawn, f"{name}.png") for name in figures}
        try:
            draw(
                fig=list(figures.values()),
                file=list(files.values()),
                width=[figure.layout.width for figure in figures.values()],
                height=[figure.layout.height for figure in figures.values()],
                scale=1.5,
            )
        except Exception as error:  # Chrome fails in as many ways as there are machines; the page holds everything
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            logger.info("figures are in %s only: images of them need a Chrome (%s)", folder / "index.html", reason)
            return False
        for name, file in files.items():
            os.replace(file, folder / f"{name}.png")
    return True


def _figure_html(figure: Figure, name: str) -> str:
    from plotly import graph_objects as go

    wide = figure.layout.width >= 1200
    shown = go.Figure(figure).update_layout(width=None) if wide else figure
    text: str = shown.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False, "responsive": wide}
    )
    return text


def _jpeg(picture: Image.Image) -> bytes:
    content = io.BytesIO()
    picture.save(content, format="JPEG", quality=88)
    return content.getvalue()


def _replace(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
