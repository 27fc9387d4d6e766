"""The quick way to the detections of a split finds what the plain way does."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.detection.boxes import non_max_suppression
from trainer.detection.darknet import Darknet, decode, load_model
from trainer.detection.data import Split
from trainer.detection.detect import (
    LAG,
    MAX_CANDIDATES,
    Beside,
    decode_likely,
    detect,
    detect_and_time,
    detect_with_latency,
    load_batches,
    suitable_batch,
)

SIDE = 96
CPU = torch.device("cpu")


def make_split(sizes: list[tuple[int, int]], seed: int = 0) -> Split:
    """Noise of these widths and heights in grey squares, with two boxes each."""
    rng = np.random.default_rng(seed)
    images = np.full((len(sizes), SIDE, SIDE, 3), 114, np.uint8)
    boxes = []
    for picture, (width, height) in zip(images, sizes, strict=True):
        picture[:height, :width] = rng.integers(0, 256, (height, width, 3))
        boxes += [[1, 1, 12, 14], [width / 2, height / 2, width - 1, height - 1]]
    return Split(
        images=images,
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        classes=np.arange(2 * len(sizes)) % 2,
        image_index=np.arange(2 * len(sizes)) // 2,
        files=(),
        problems=(),
        digest="",
    )


@pytest.fixture(scope="module")
def model() -> Darknet:
    torch.manual_seed(0)
    model = load_model("pico", nc=2)
    for head in model.heads:
        head.anchors.uniform_(8, 40)
    return model.eval()


def plain_detections(model: Darknet, split: Split) -> list[np.ndarray]:
    """All squares whole, one after the other, without any shortcut."""
    with torch.no_grad():
        images = torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255
        return [
            non_max_suppression(model.predict(image[None]), max_candidates=MAX_CANDIDATES)[0].numpy()
            for image in images
        ]


def test_detections_are_those_of_the_plain_way(model: Darknet) -> None:
    split = make_split([(96, 96)] * 5 + [(96, 90)])  # less than half a stride of grey: nothing is cut
    for found, expected in zip(detect(model, split, batch=2), plain_detections(model, split), strict=True):
        assert abs(len(found) - len(expected)) <= 2  # folding rounds differently, and may let one more pass a threshold
        np.testing.assert_allclose(found[:50, 4], expected[:50, 4], rtol=1e-2)
        np.testing.assert_allclose(found[:5, :4], expected[:5, :4], atol=0.1)


def test_each_picture_gets_its_own_detections_in_whatever_order_it_comes(model: Darknet) -> None:
    split = make_split([(96, 40), (30, 96), (96, 96), (96, 44), (20, 96), (96, 41), (96, 96)])
    shuffled = [3, 0, 6, 2, 5, 1, 4]
    other = replace(split, images=split.images[shuffled], sizes=split.sizes[shuffled])
    straight, mixed = detect(model, split, batch=1), detect(model, other, batch=1)
    for place, picture in enumerate(shuffled):
        np.testing.assert_array_equal(mixed[place], straight[picture])
    assert len({detections.tobytes() for detections in straight}) == len(shuffled)


def test_batches_are_cut_to_what_they_hold_with_half_a_stride_of_grey() -> None:
    split = make_split([(96, 40), (30, 96), (96, 41), (96, 96), (96, 24), (20, 96), (96, 56)])
    batches = {tuple(indices.tolist()): tuple(images.shape) for indices, images in load_batches(split, 16, 2, CPU)}
    assert batches == {(0, 4): (2, 3, 48, 96), (2, 6): (2, 3, 64, 96), (1, 5): (2, 3, 96, 48), (3,): (1, 3, 96, 96)}
    for indices, images in load_batches(split, 16, 2, CPU):
        expected = split.images[indices][:, : images.shape[2], : images.shape[3]].transpose(0, 3, 1, 2) / 255
        np.testing.assert_allclose(images.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_decoding_what_is_likely_leaves_nothing_likely_out(model: Darknet, share: float) -> None:
    torch.manual_seed(1)
    head = model.heads[0]
    raw = torch.randn(2, head.na, 4, 6, 7)
    raw[..., 4] = torch.where(torch.rand(raw.shape[:-1]) < share, 2.0, -20.0)
    everything, likely = decode(raw, head), decode_likely(raw, head, conf=0.01)
    assert likely.shape[1] == everything.shape[1] if share > 0.5 else likely.shape[1] < everything.shape[1] / 2
    for whole, part in zip(everything, likely, strict=True):
        torch.testing.assert_close(part[part[:, 4] > 0.01], whole[whole[:, 4] > 0.01])


def test_one_step_after_the_other_detects_the_same_and_says_what_each_took(model: Darknet) -> None:
    split = make_split([(96, 40), (96, 96), (60, 96)])
    detections, milliseconds = detect_and_time(model, split, batch=2)
    for found, expected in zip(detections, detect(model, split, batch=2), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert list(milliseconds) == ["preprocess", "inference", "suppression"]
    assert all(value > 0 for value in milliseconds.values())


def test_the_latency_of_a_picture_is_what_the_plain_way_takes(model: Darknet) -> None:
    split = make_split([(96, 96)] * 24)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        detect_with_latency(model, split, batch=4)  # what is computed first takes longer
        detections, latency_ms = detect_with_latency(model, split, batch=4)
        _, milliseconds = detect_and_time(model, split, batch=4)
    finally:
        torch.set_num_threads(threads)
    assert len(detections) == 24
    plain = milliseconds["inference"] + milliseconds["suppression"]
    assert 0 < latency_ms < 2 * plain  # which a busy machine makes slower, as it goes by the clock on the wall


def test_a_gpu_takes_more_small_pictures_at_once_than_large_ones() -> None:
    batches = {}
    for side in (32, 320, 640, 4096):
        split = replace(make_split([]), images=np.empty((0, side, side, 3), np.uint8))
        batches[side] = (suitable_batch(split, torch.device("cuda")), suitable_batch(split, CPU))
    assert batches == {32: (128, 16), 320: (64, 16), 640: (16, 16), 4096: (1, 16)}


def test_a_split_without_pictures_has_no_detections(model: Darknet) -> None:
    assert detect(model, make_split([])) == []


def test_what_is_made_beside_comes_in_the_order_it_was_added() -> None:
    with Beside(lambda number: number**2) as squares:
        for number in range(100):
            squares.add(number)
        assert squares.finish() == [number**2 for number in range(100)]


def test_whoever_waits_for_the_thread_beside_helps() -> None:
    held, makers = threading.Event(), []

    def make(number: int) -> int:
        makers.append(threading.current_thread())
        if threading.current_thread() is not threading.main_thread():
            assert held.wait(60)
        return number

    with Beside(make) as beside:
        for number in range(LAG + 3):
            beside.add(number)
        assert threading.main_thread() in makers, "more than LAG things do not wait"
        threading.Timer(0.2, held.set).start()
        assert beside.finish() == list(range(LAG + 3))
    assert len(set(makers)) == 2


def test_an_error_beside_is_raised_where_the_results_are_wanted() -> None:
    with Beside(lambda number: 1 // number) as beside:
        beside.add(0)
        with pytest.raises(ZeroDivisionError):
            beside.finish()
