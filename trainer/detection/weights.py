"""Weights into a model and out of it: Darknet's .weights and .conv.N, whole or partial, and torch's .pt.

A Darknet file is a header (major, minor, revision: int32; pictures seen: uint64, or uint32 below version 0.2), then in
float32 for every convolution, in the order of the cfg: the biases (with batch norm beta, gamma, mean, variance), then
the kernel [filters, channels / groups, size, size]. All of it is little-endian (AlexeyAB/darknet, src/parser.c). It
names nothing: what a number means is known only from the cfg.
"""

from __future__ import annotations

import itertools
import math
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainer.api import DataError
from trainer.detection.darknet import Convolution, Darknet, Head, parse_cfg
from trainer.detection.data.cache import replacing

NOT_IN_FILE = "not in the file"
SHOWN_REASONS = 3  # in a summary
STATES = ("weights", "ema", "model", "state_dict")  # keys under which a .pt may hold its tensors, the first one counts
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


@dataclass(frozen=True)
class Taken:
    """What a model took from the file `source`, by the names of its state_dict, and what it kept, with the reason."""

    source: str
    taken: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """One line for people; tensors that were left out for one reason are counted."""
        told = f"took {len(self.taken)} of {len(self.taken) + len(self.left_out)} tensors from {self.source}"
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left_out:
            by_reason.setdefault(reason, []).append(name)
        parts = [
            f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
            for reason, names in by_reason.items()
        ]
        if len(parts) > SHOWN_REASONS:
            parts[SHOWN_REASONS:] = ["..."]
        return f"{told} (left out: {'; '.join(parts)})" if parts else told


@dataclass(frozen=True)
class Header:
    """The beginning of a Darknet file; `seen` counts the pictures of its training. Ours says 0.2.5, as AlexeyAB's."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    def to_bytes(self) -> bytes:
        return struct.pack("<3iQ" if _is_wide(self.major, self.minor) else "<3iI", *vars(self).values())


def load_weights(model: Darknet, path: Path, cfg_text: str, *, anchors: bool = False) -> Taken:
    """Copy into `model`, which was built from `cfg_text`, whatever of the file fits it; the rest stays as it is.

    By the name: .weights, .conv.N (the first N layers) and .pt or .pth. A head that was trained for another number of
    classes is left out. Anchors are in .pt only, and taken only if `anchors` says so: whoever trains has fitted them to
    the data, and whoever goes on with weights as they are wants those that they were trained with. Raises DataError,
    and then nothing was changed.
    """
    if path.suffix in (".pt", ".pth"):
        return _copy(model, _read_torch(path), path, anchors)
    return _copy(model, _read_darknet(model, path, cfg_text), path, anchors=False)


def save_darknet_weights(model: Darknet, path: Path, header: Header | None = None, cutoff: int | None = None) -> None:
    """Replace `path` by the model's weights as Darknet reads them, of the first `cutoff` layers (None: all)."""
    with replacing(path) as file:
        file.write((header or Header()).to_bytes())
        for number, convolution in _convolutions(model):
            if cutoff is not None and number >= cutoff:
                break
            for tensor in _tensors(convolution).values():
                file.write(tensor.detach().cpu().float().numpy().astype("<f4", copy=False).tobytes())


def read_header(path: Path) -> Header:
    """The header of a Darknet file. Raises DataError if it has none that Darknet could have written."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError as error:
        raise DataError(f"weights {path} cannot be read: {error.strerror or error}") from None
    if len(head) < 16:
        raise DataError(f"{path} is no Darknet file of weights: it has {len(head)} bytes")
    major, minor, revision = struct.unpack_from("<3i", head)
    if not (0 <= major < 1000 and 0 <= minor < 1000):  # above, an old Darknet meant transposed connected layers
        raise DataError(
            f"{path} is no Darknet file of weights: it begins with version {major}.{minor}, expected 0.1 or 0.2"
        )
    wide = _is_wide(major, minor)
    if wide and len(head) < 20:
        raise DataError(f"{path} is no Darknet file of weights: it ends within its header")
    (seen,) = struct.unpack_from("<Q" if wide else "<I", head, 12)
    return Header(major, minor, revision, seen)


def _is_wide(major: int, minor: int) -> bool:
    return major * 10 + minor >= 2


# --------------------------------------------------------------------------------------------------------------------
# Darknet's files
# --------------------------------------------------------------------------------------------------------------------


def _convolutions(model: Darknet) -> Iterator[tuple[int, Convolution]]:
    return ((number, layer) for number, layer in enumerate(model.layers) if isinstance(layer, Convolution))


def _tensors(convolution: Convolution) -> dict[str, Tensor]:
    """The tensors of a convolution in the order of the file, by their names in its state_dict."""
    names = ["conv.bias", "conv.weight"]
    if isinstance(convolution.norm, nn.modules.batchnorm._BatchNorm):
        names[:1] = ["norm.bias", "norm.weight", "norm.running_mean", "norm.running_var"]
    state = convolution.state_dict()
    return {name: state[name] for name in names}


@dataclass(frozen=True)
class _Layout:
    """What a file holds of each convolution: per layer number the shape of each tensor, in the order of the file."""

    shapes: Mapping[int, Mapping[str, tuple[int, ...]]]

    def ends(self) -> dict[int, int]:
        """How many numbers there are up to the end of each layer."""
        sizes = (sum(math.prod(shape) for shape in shapes.values()) for shapes in self.shapes.values())
        return dict(zip(self.shapes, itertools.accumulate(sizes), strict=True))


def _lay_out(model: Darknet, filters: Mapping[int, int], channels: int) -> _Layout:
    """The layout for pictures of `channels`, with other `filters` where a layer is named (the heads')."""
    shapes: dict[int, dict[str, tuple[int, ...]]] = {}
    for number, convolution in _convolutions(model):
        shapes[number] = {}
        for name, tensor in _tensors(convolution).items():
            shape = [filters.get(number, tensor.shape[0]), *tensor.shape[1:]]
            if number == 0 and len(shape) > 1:
                shape[1] = channels // convolution.conv.groups
            shapes[number][name] = tuple(shape)
    return _Layout(shapes)


def _read_darknet(model: Darknet, path: Path, cfg_text: str) -> dict[str, Tensor]:
    """The tensors of a Darknet file by their names in `model`, with the shapes that they have in the file."""
    cutoff = _read_cutoff(path)
    offset = len(read_header(path).to_bytes())
    if (path.stat().st_size - offset) % 4:
        raise DataError(f"{path} is cut off within a number: it has {path.stat().st_size} bytes")
    numbers = torch.from_numpy(np.fromfile(path, "<f4", offset=offset).astype(np.float32, copy=False))
    layout = _find_layout(model, cfg_text, len(numbers), path, cutoff)
    found: dict[str, Tensor] = {}
    start = 0
    for number, shapes in layout.shapes.items():
        if start == len(numbers):
            break
        for name, shape in shapes.items():
            end = start + math.prod(shape)
            found[f"layers.{number}.{name}"] = numbers[start:end].view(shape)
            start = end
    return found


def _read_cutoff(path: Path) -> int | None:
    """N of a file named .conv.N, None of .weights. Raises DataError for other names."""
    if match := re.search(r"\.conv\.(\d+)$", path.name):
        return int(match[1])
    if path.suffix != ".weights":
        raise DataError(f"weights must be a .weights, .conv.N, .pt or .pth file, got '{path.name}'")
    return None


def _find_layout(model: Darknet, cfg_text: str, count: int, path: Path, cutoff: int | None) -> _Layout:
    """The layout of a file of `count` numbers: made for the model's classes, for the cfg's, or for any other number.

    A whole file tells its number of classes by its size. A partial one is taken for the cfg's if it ends with one of
    its layers, else for the model's. Raises DataError where none fits.
    """
    layouts = [_lay_out(model, *told) for told in _tell_heads(model, cfg_text)]
    last = max((number for number in layouts[0].shapes if cutoff is None or number < cutoff), default=None)
    if last is None:
        raise DataError(f"{path} is named for the first {cutoff} layers, which have no weights in this cfg")
    for layout in layouts:
        if count == layout.ends()[last]:
            return layout
    if cutoff is None and (solved := _solve_classes(model, layouts[0], count)) is not None:
        return solved
    for layout in layouts:
        ends = layout.ends()
        if count in ends.values() and count < ends[last]:
            return layout
    raise DataError(f"{path} was made for another cfg or is cut off: {_tell_misfit(layouts[0].ends(), count, last)}")


def _tell_misfit(ends: Mapping[int, int], count: int, last: int) -> str:
    if count > ends[last]:
        return f"it holds {count} numbers, and this cfg has {ends[last]} up to layer {last}"
    within = next(number for number, end in ends.items() if count < end)
    return f"it ends within layer {within}, {ends[within] - count} numbers short"


def _tell_heads(model: Darknet, cfg_text: str) -> list[tuple[dict[int, int], int]]:
    """Filters of the heads and channels of the picture: as the cfg states them, then as the model has them."""
    sections = parse_cfg(cfg_text)
    assert len(sections) == len(model.layers) + 1, "a model and the cfg that it was built from"
    numbers = [number - 1 for number, layer in enumerate(model.layers) if isinstance(layer, Head)]
    stated = {number: sections[number + 1].read_int("filters", 1, low=1) for number in numbers}
    return [(stated, sections[0].read_int("channels", 3, low=1)), ({}, model.channels)]


def _solve_classes(model: Darknet, layout: _Layout, count: int) -> _Layout | None:
    """The layout with another number of classes that has `count` numbers, if one has."""
    heads = {number - 1: layer.na for number, layer in enumerate(model.layers) if isinstance(layer, Head)}
    a_filter = {number: 1 + math.prod(layout.shapes[number]["conv.weight"][1:]) for number in heads}
    *_, total = layout.ends().values()
    without = total - sum(layout.shapes[number]["conv.bias"][0] * a_filter[number] for number in heads)
    a_class = sum(na * a_filter[number] for number, na in heads.items())
    nc, rest = divmod(count - without - 5 * a_class, a_class)
    if rest or nc < 1:
        return None
    shapes = {**layout.shapes}
    for number, na in heads.items():
        shapes[number] = {name: (na * (5 + nc), *shape[1:]) for name, shape in layout.shapes[number].items()}
    return _Layout(shapes)


# --------------------------------------------------------------------------------------------------------------------
# torch's files
# --------------------------------------------------------------------------------------------------------------------


def _read_torch(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pt by name: of a state_dict, or of a dict that holds one under one of `STATES`."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"weights {path} cannot be read: {error.strerror or error}") from None
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named is None:
            raise DataError(f"{path} is broken or no file of torch") from None
        raise DataError(
            f"{path} is no state_dict: besides tensors and plain values it holds {named[1]}, and to run what a file"
            " names is not safe; save model.state_dict() instead"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        told = re.split(r"\. |\n", str(error))[0] or type(error).__name__
        raise DataError(f"{path} is broken or no file of torch: {told}") from None
    state = _find_state(content)
    if state is None:
        raise DataError(f"{path} holds no tensors, neither at its top nor under {', '.join(STATES)}")
    return {_strip_prefixes(name): tensor for name, tensor in state.items()}


def _find_state(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    candidates = [content[key] for key in STATES if isinstance(content.get(key), Mapping)]
    for state in [*candidates, content]:
        tensors = {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
        if tensors:
            return tensors
    return None


def _strip_prefixes(name: str) -> str:
    while (found := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)) is not None:
        name = name.removeprefix(found)
    return name


# --------------------------------------------------------------------------------------------------------------------
# into the model
# --------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _copy(model: Darknet, found: Mapping[str, Tensor], path: Path, anchors: bool) -> Taken:
    """Copy what fits by name and shape. Checked before anything is copied, so that an error leaves the model alone."""
    wanted = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked") and (anchors or not name.endswith(".anchors"))
    }
    reasons = {name: _why_not(tensor, found.get(name)) for name, tensor in wanted.items()}
    taken = tuple(name for name, reason in reasons.items() if reason is None)
    left_out = tuple((name, reason) for name, reason in reasons.items() if reason is not None)
    if not taken:
        raise DataError(f"nothing in {path} fits this model ({'; '.join(': '.join(item) for item in left_out[:1])})")
    for name in taken:
        _check_numbers(name, found[name], path)
    for name in taken:
        wanted[name].copy_(found[name])
    return Taken(path.name, taken, left_out)


def _why_not(wanted: Tensor, found: Tensor | None) -> str | None:
    if found is None:
        return NOT_IN_FILE
    if found.shape != wanted.shape:
        return f"shape {_shape(found)} in the file, {_shape(wanted)} here"
    if not found.is_floating_point():
        return f"{str(found.dtype).removeprefix('torch.')} in the file, not floating point"
    return None


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _check_numbers(name: str, tensor: Tensor, path: Path) -> None:
    if not tensor.isfinite().all():
        raise DataError(f"{path} is broken: {name} holds numbers that are not finite")
    if name.endswith("running_var") and (tensor < 0).any():
        raise DataError(f"{path} was made for another cfg or is broken: {name} holds variances below 0")
