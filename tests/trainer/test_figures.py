"""Figures show the numbers that they were given, and the page needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plotly import graph_objects as go

from trainer.api import EpochMetrics
from trainer.detection.data import Split
from trainer.detection.evaluate import count_confusions, score, trace_curves
from trainer.detection.figures import (
    leave_pictures,
    leave_validation,
    score_table,
    show_confidences,
    show_confusions,
    show_epochs,
    show_labels,
    show_precision_recall,
    write_images,
    write_page,
)

NAMES = ("cat", "dog & <b>", "never seen")
DETECTIONS = [
    np.array([[8, 8, 24, 24, 0.9, 0], [40, 8, 56, 24, 0.6, 0]], np.float32),
    np.array([[10, 20, 30, 44, 0.4, 1]], np.float32),
]
EPOCHS = [EpochMetrics(n, 0.1 * n, 0.2 * n, 0.3 * n, 0.25 * n, {"box": 1 / n, "cls": 2 / n}) for n in (1, 2, 3)]


@pytest.fixture
def split() -> Split:
    """Two pictures of 64 x 48 with three boxes."""
    return Split(
        images=np.full((2, 64, 64, 3), 90, np.uint8),
        sizes=np.array([[64, 48], [64, 48]], np.int32),
        boxes=np.array([[8, 8, 24, 24], [10, 20, 30, 44], [0, 0, 64, 12]], np.float32),
        classes=np.array([0, 1, 1]),
        image_index=np.array([0, 1, 1]),
        files=(Path("a.png"), Path("b.png")),
        problems=(),
        digest="",
    )


@pytest.fixture
def no_kaleido(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed: starting a browser for every page would take most of the time."""
    monkeypatch.setitem(sys.modules, "kaleido", None)


def truths_of(split: Split) -> list[np.ndarray]:
    rows = np.column_stack([split.classes, split.boxes])
    return [rows[split.image_index == picture] for picture in range(2)]


def test_labels_show_counts_sizes_and_centres(split: Split) -> None:
    bars, sizes, centres = show_labels(split, NAMES).data
    assert list(bars.y) == [1, 2, 0]
    assert len(bars.x) == 3
    assert sizes.customdata.sum() == centres.customdata.sum() == 3
    assert sizes.customdata[10, 39] == 1  # of 40 bins: the box of the whole width and a quarter of the height
    assert centres.customdata[5, 20] == 1  # it lies in the middle, an eighth of the height down


def test_epochs_show_every_loss_and_score() -> None:
    lines = {line.name: list(line.y) for line in show_epochs(EPOCHS).data}
    assert lines["box loss"] == [1, 1 / 2, 1 / 3]
    assert lines["mAP50-95"] == [metrics.map50_95 for metrics in EPOCHS]
    assert set(lines) == {"box loss", "cls loss", "precision", "recall", "mAP50", "mAP50-95"}
    assert all(list(line.x) == [1, 2, 3] for line in show_epochs(EPOCHS).data)


def test_precision_and_recall_show_each_seen_class_thin_and_the_mean_thick(split: Split) -> None:
    curves = trace_curves(DETECTIONS, truths_of(split), 3)
    *classes, mean = show_precision_recall(curves, NAMES).data
    assert [line.name.split()[0] for line in classes] == ["cat", "dog"]
    for label, line in enumerate(classes):
        np.testing.assert_array_equal(line.y, curves.precision_at_recall[label])
    np.testing.assert_allclose(mean.y, curves.precision_at_recall[:2].mean(axis=0))
    assert mean.line.width > classes[0].line.width
    map50 = score(DETECTIONS, truths_of(split), 3).map50
    assert mean.name == f"all classes {map50:.3f} mAP50"


def test_confidences_mark_where_f1_is_best(split: Split) -> None:
    curves = trace_curves(DETECTIONS, truths_of(split), 3)
    figure = show_confidences(curves, NAMES)
    mean = np.nanmean(curves.f1[:2], axis=0)
    best = curves.confidences[int(mean.argmax())]
    assert [shape.x0 for shape in figure.layout.shapes] == [best] * 3
    assert f"all classes: F1 {mean.max():.3f} at {best:.3f}" in {line.name for line in figure.data}


def test_confusions_show_shares_of_the_row_and_count_on_hovering(split: Split) -> None:
    matrix = count_confusions(DETECTIONS, truths_of(split), 3)
    (heat,) = show_confusions(matrix, NAMES).data
    np.testing.assert_array_equal(heat.customdata, matrix)
    assert heat.z[1].tolist() == [0, 0.5, 0, 0.5]  # of two dogs one was found
    assert heat.z[2].tolist() == [0, 0, 0, 0]
    assert heat.y[-1] == heat.x[-1] == "background"
    assert heat.x[1] == "dog &amp; &lt;b&gt;"


def test_equal_names_keep_places_of_their_own() -> None:
    (heat,) = show_confusions(np.eye(4, dtype=np.int64), ["cat", "cat", "dog"]).data
    assert list(heat.x) == ["cat (0)", "cat (1)", "dog", "background"]


@pytest.mark.parametrize("nc", [1, 80])
def test_a_model_that_finds_nothing_and_any_number_of_classes_have_figures(split: Split, nc: int) -> None:
    names = [f"class {number}" for number in range(nc)]
    nothing = [np.zeros((0, 6), np.float32)] * 2
    for truths in (
        truths_of(split) if nc > 1 else [rows[rows[:, 0] < 1] for rows in truths_of(split)],
        [np.zeros((0, 5))] * 2,
    ):
        curves = trace_curves(nothing, truths, nc)
        assert show_precision_recall(curves, names).data[-1].name == "all classes 0.000 mAP50"
        assert "F1 0.000" in show_confidences(curves, names).data[-1].name
        assert show_confusions(count_confusions(nothing, truths, nc), names).data[0].z.shape == (nc + 1, nc + 1)


def test_the_table_has_a_row_for_all_and_one_for_each_class_with_boxes(split: Split) -> None:
    scores = score(DETECTIONS, truths_of(split), 3)
    table = score_table(scores, NAMES)
    rows = re.findall(r"<tr.*?</tr>", table)
    assert len(rows) == 1 + 1 + 2
    assert f"<td>all</td><td>3</td><td>{scores.precision:.3f}</td>" in rows[1]
    assert "dog &amp; &lt;b&gt;" in rows[3]


def pictures_of(page: str) -> list[Image.Image]:
    encoded = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


@pytest.mark.usefixtures("no_kaleido")
def test_a_training_leaves_a_page_that_needs_nothing_else(split: Split, tmp_path: Path) -> None:
    batch = (torch.full((2, 3, 64, 64), 0.5), torch.tensor([[0.0, 1.0, 30.0, 30.0, 10.0, 10.0]]))
    page = leave_pictures(
        tmp_path / "plots",
        names=NAMES,
        training=split,
        scored=split,
        detections=DETECTIONS,
        epochs=EPOCHS,
        first_batches=[batch] * 4,
    )
    text = page.read_text(encoding="utf-8")
    names = {path.name for path in page.parent.glob("*.jpg")}
    assert names == {"predictions.jpg", "train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg"}
    assert len(pictures_of(text)) == 4
    for figure in ("results", "labels", "PR_curve", "F1_curve", "confusion_matrix"):
        assert text.count(f'id="{figure}"') == 1
    outside_scripts = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "http" not in outside_scripts
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", text)
    assert not list(page.parent.glob(".*"))


@pytest.mark.usefixtures("no_kaleido")
def test_a_validation_leaves_its_page(split: Split, tmp_path: Path) -> None:
    page = leave_validation(tmp_path, names=NAMES, scored=split, detections=DETECTIONS)
    assert len(pictures_of(page.read_text(encoding="utf-8"))) == 1


def test_a_page_replaces_the_one_before(tmp_path: Path) -> None:
    write_page(tmp_path, "first", {}, {})
    page = write_page(tmp_path, "second <i>", {}, {})
    assert "<h1>second &lt;i&gt;</h1>" in page.read_text(encoding="utf-8")


def test_figures_are_images_too_wherever_that_can_be_done(tmp_path: Path) -> None:
    drawn = write_images(tmp_path, {"one": show_epochs(EPOCHS)})
    images = list(tmp_path.iterdir())
    assert [path.name for path in images] == ["one.png"] * drawn
    assert all(Image.open(path).size == (1950, 690) for path in images)


@pytest.mark.usefixtures("no_kaleido")
def test_without_the_program_that_draws_there_is_the_page_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="trainer.detection.figures"):
        page = write_page(tmp_path, "title", {"one": go.Figure().update_layout(width=300, height=200)}, {})
    assert page.exists()
    assert not list(tmp_path.glob("*.png"))
    assert [record.getMessage() for record in caplog.records] == [
        f"figures are in {page} only: images of them need kaleido (pip install kaleido)"
    ]
