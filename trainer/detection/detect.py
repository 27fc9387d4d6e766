"""What a model finds in the pictures of a split. Fast, since it follows every epoch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.detection.boxes import suppress
from trainer.detection.darknet import Darknet, Head, decode, decode_boxes
from trainer.detection.data import Images, Split
from trainer.detection.fuse import fuse
from trainer.progress import progress

CPU_BATCH = 16
GPU_BATCH_PX = 64 * 320**2  # what a GPU takes at once: small batches would keep it waiting for the next kernel
MAX_CANDIDATES = 700  # of a picture, that enter suppression: of 3000, mAP50-95 differed by 0.0001 or less
CONFIDENCE, OVERLAP = 0.001, 0.6  # below and above which a detection is dropped: YOLOv5 v7.0, val.py
LAG = 3  # batches that wait for suppression at most

Item = TypeVar("Item")
Made = TypeVar("Made")

Detections = list[NDArray[np.float32]]
"""Of each picture [n, 6]: x1, y1, x2, y2 in its pixels, confidence, class; the most confident first."""


@torch.inference_mode()
def detect(
    model: Darknet,
    split: Split,
    dtype: torch.dtype = torch.float32,
    conf: float = CONFIDENCE,
    iou: float = OVERLAP,
    batch: int = 0,
) -> Detections:
    """What the model, as in evaluation mode, finds in every picture of a split, `batch` at once (0: what suits it)."""
    return detect_with_latency(model, split, dtype, conf, iou, batch)[0]


def tell_latency(device: torch.device) -> str:
    """How `detect_with_latency` measures."""
    if device.type == "cuda":
        return "milliseconds a picture, network and suppression, mean over all"
    return f"milliseconds a picture, network and suppression, median over batches of {CPU_BATCH}"


@torch.inference_mode()
def detect_with_latency(
    model: Darknet,
    split: Split,
    dtype: torch.dtype = torch.float32,
    conf: float = CONFIDENCE,
    iou: float = OVERLAP,
    batch: int = 0,
) -> tuple[Detections, float]:
    """As `detect`, and how long a picture took (see `tell_latency`), in milliseconds; 0 for a split without pictures.

    Where a single thread computes that is its own time, so that what else runs on the machine counts for little.

    Suppression takes as long as the network in a short run: a thread suppresses one batch while the next is computed.
    On a GPU everything stays there until the last batch is done.
    """
    device = next(model.parameters()).device
    network = prepare_network(model, dtype)
    order: list[NDArray[np.int64]] = []
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    milliseconds: list[float] = []  # a picture, of each batch

    def suppress_and_note(batch: tuple[Tensor, float]) -> tuple[Tensor, Tensor]:
        predictions, spent = batch
        started = clock()
        found = suppress(predictions, conf, iou, max_candidates=MAX_CANDIDATES)
        milliseconds.append(1000 * (spent + clock() - started) / len(predictions))
        return found

    begun = time.perf_counter()
    with Beside(suppress_and_note) as suppressing:
        for indices, images in load_batches(split, model.stride, batch or suitable_batch(split, device), device):
            order.append(indices)
            started = clock()
            predictions = predict(network, images, dtype, conf)
            suppressing.add((predictions, clock() - started))
        detections = gather(suppressing.finish(), order)
    if device.type == "cuda":  # nobody waited for a batch there
        milliseconds = [1000 * (time.perf_counter() - begun) / max(1, len(detections))]
    return detections, statistics.median(milliseconds) if milliseconds else 0.0


@torch.inference_mode()
def detect_and_time(
    model: Darknet,
    split: Split,
    dtype: torch.dtype = torch.float32,
    conf: float = CONFIDENCE,
    iou: float = OVERLAP,
    batch: int = 0,
) -> tuple[Detections, Mapping[str, float]]:
    """As `detect`, but one step after the other: also returns the milliseconds a picture of each."""
    device = next(model.parameters()).device
    network = prepare_network(model, dtype)
    seconds = {"preprocess": 0.0, "inference": 0.0, "suppression": 0.0}

    @contextmanager
    def clock(step: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds[step] += time.perf_counter() - started

    order, found = [], []
    batches = load_batches(split, model.stride, batch or suitable_batch(split, device), device)
    while True:
        with clock("preprocess"):
            loaded = next(batches, None)
        if loaded is None:
            break
        with clock("inference"):
            predictions = predict(network, loaded[1], dtype, conf)
        with clock("suppression"):
            found.append(suppress(predictions, conf, iou, max_candidates=MAX_CANDIDATES))
        order.append(loaded[0])
        progress("scoring", sum(map(len, order)), len(split.sizes))
    return gather(found, order), {step: 1000 * of_step / max(1, len(split.sizes)) for step, of_step in seconds.items()}


class Beside(Generic[Item, Made]):
    """Applies a function to things in a thread of its own, while others are added; who waits for it helps."""

    def __init__(self, make: Callable[[Item], Made]) -> None:
        self._make = make
        threads = torch.get_num_threads()  # a new thread would take all cores: OpenMP keeps the number by thread
        self._pool = ThreadPoolExecutor(1, initializer=lambda: torch.set_num_threads(threads))
        self._futures: list[Future[Made]] = []
        self._waiting: dict[int, Item] = {}
        self._own: dict[int, Made] = {}

    def __enter__(self) -> Beside[Item, Made]:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, item: Item) -> None:
        """Have it made; where the thread lags behind make it here, so that few things wait in memory."""
        self._waiting[len(self._futures)] = item
        self._futures.append(self._pool.submit(self._make, item))
        self._waiting = {number: item for number, item in self._waiting.items() if not self._futures[number].done()}
        if len(self._waiting) > LAG:
            self._help()

    def finish(self) -> list[Made]:
        """All that was made, in the order in which it was added."""
        while self._help():
            pass
        return [self._own[n] if n in self._own else future.result() for n, future in enumerate(self._futures)]

    def _help(self) -> bool:
        """Make the last thing that the thread has not begun; whether there was one."""
        for number in sorted(self._waiting, reverse=True):
            item = self._waiting.pop(number)
            if self._futures[number].cancel():
                self._own[number] = self._make(item)
                return True
        return False


def suitable_batch(split: Split, device: torch.device) -> int:
    """How many pictures are computed at once."""
    if device.type == "cpu":
        return CPU_BATCH
    return int(min(128, max(1, GPU_BATCH_PX // split.images.shape[1] ** 2)))


def load_batches(
    split: Split, stride: int, batch: int, device: torch.device
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Which pictures, and they as floats in 0..1, [B, 3, H, W]: cut to the largest, in full strides.

    Pictures lie at the top left of a grey square; those of one shape come together, so that little grey is computed.
    Half a stride of it stays at least, as in YOLOv5 (utils/dataloaders.py, rect with pad 0.5): where the zeros beyond
    the edge take the place of the grey that the model knows, mAP50-95 fell by 0.007 (nano, bccd_320, 160 px).
    """
    side = split.images.shape[1]
    sizes = np.asarray(split.sizes, dtype=np.int64)
    shapes = np.minimum(-(-(sizes + stride // 2) // stride) * stride, side)
    order = np.lexsort((shapes[:, 0], shapes[:, 1]))
    for first in range(0, len(order), batch):
        indices = np.sort(order[first : first + batch])
        width, height = shapes[indices].max(axis=0)
        pixels = look_up(split.images, indices)[:, :height, :width].to(device, non_blocking=True)
        yield indices, (pixels.permute(0, 3, 1, 2).float() / 255.0).contiguous(memory_format=torch.channels_last)


def look_up(images: Images | Tensor, indices: NDArray[np.int64]) -> Tensor:
    """Some of the pictures, where they lie."""
    if isinstance(images, Tensor):
        return images[torch.from_numpy(indices).to(images.device)]
    return torch.from_numpy(np.array(images[indices]))


def prepare_network(model: Darknet, dtype: torch.dtype) -> Darknet:
    """The network that detects: on a CPU with its batch norms folded, which on a GPU would take longer than they do."""
    return fuse(model, dtype) if next(model.parameters()).device.type == "cpu" else model


def predict(network: Darknet, images: Tensor, dtype: torch.dtype, conf: float) -> Tensor:
    """Decoded predictions [B, A, 5 + nc] in float32, as Darknet.predict; on a CPU without most of the unlikely ones."""
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32, cache_enabled=False):
        outputs = network(images)
    # Counting on a GPU would wait for it.
    decoded = decode_likely if images.device.type == "cpu" else lambda raw, head, _: decode(raw, head)
    return torch.cat([decoded(raw, head, conf) for raw, head in zip(outputs, network.heads, strict=True)], dim=1)


def decode_likely(raw: Tensor, head: Head, conf: float) -> Tensor:
    """As `decode`, but at best only predictions of an objectness above `conf`, [B, R, 5 + nc] with R as most have."""
    rows = raw.flatten(1, 3)
    likely = rows[..., 4] > torch.tensor(conf).logit()
    most = int(likely.sum(1).max())
    if 2 * most > rows.shape[1]:
        return decode(raw, head)
    # True sorts before False, and stably: what is likely stays in its order, and something unlikely fills up.
    index = likely.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = rows.gather(1, index[..., None].expand(-1, -1, rows.shape[-1])).float()
    ny, nx = raw.shape[2:4]
    grid = torch.stack([index % nx, index // nx % ny], dim=-1)
    anchors = head.anchors.float()[index // (nx * ny)]
    boxes = decode_boxes(chosen[..., :4], grid, anchors, head.stride, head.scale_x_y, head.new_coords)
    return torch.cat([boxes, chosen[..., 4:].sigmoid()], dim=-1)


def gather(parts: list[tuple[Tensor, Tensor]], order: list[NDArray[np.int64]]) -> Detections:
    """Batches of (rows [B, D, 6], counts [B]) as one list in the order of the split, brought to the CPU at once."""
    detections: Detections = [np.zeros((0, 6), np.float32)] * sum(map(len, order))
    if not parts:
        return detections
    width = max(rows.shape[1] for rows, _ in parts)
    rows = torch.cat([torch.nn.functional.pad(rows, (0, 0, 0, width - rows.shape[1])) for rows, _ in parts])
    counts = torch.cat([counts for _, counts in parts])
    for index, picture, count in zip(np.concatenate(order), rows.cpu().numpy(), counts.tolist(), strict=True):
        detections[index] = picture[:count]
    return detections
