"""Any Darknet .cfg of a YOLO detector as a torch module: read, check, build, run, decode.

The file format and its arithmetic are those of AlexeyAB/darknet (src/parser.c, src/yolo_layer.c and the layers beside
them). A layer is known by its number, counted from 0 after [net], because that is how [route] and [shortcut] speak of
it. Options that only steer Darknet's own training (learning rate, jitter, losses) are accepted and have no effect.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NoReturn, Self, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from trainer.api import DataError

Number = TypeVar("Number", int, float)

# --------------------------------------------------------------------------------------------------------------------
# the file
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """One [section]: its kind, its layer number ([net] is -1), the line it starts on (from 1), its options as text."""

    kind: str
    number: int
    line: int
    options: Mapping[str, str]

    def __str__(self) -> str:
        place = f"[{self.kind}] (line {self.line})"
        return place if self.kind == "net" else f"layer {self.number} {place}"

    def fail(self, message: str) -> NoReturn:
        """Raise DataError with `message` and where in the file it happened."""
        raise DataError(f"{self}: {message}")

    def read_int(self, key: str, default: int, low: int) -> int:
        """Read a whole number of at least `low`."""
        text = self.options.get(key, str(default))
        try:
            value = int(text)
        except ValueError:
            self.fail(f"{key} must be a whole number, not '{text}'")
        if value < low:
            self.fail(f"{key} must be at least {low}, not {value}")
        return value

    def read_float(self, key: str, default: float) -> float:
        """Read one finite number."""
        text = self.options.get(key, str(default))
        try:
            value = float(text)
        except ValueError:
            self.fail(f"{key} must be a number, not '{text}'")
        if not math.isfinite(value):
            self.fail(f"{key} must be finite, not '{text}'")
        return value

    def read_ints(self, key: str) -> list[int]:
        """Read a comma-separated list of whole numbers; a missing key is an empty list."""
        return self._read_list(key, int, "whole numbers")

    def read_floats(self, key: str) -> list[float]:
        """Read a comma-separated list of numbers; a missing key is an empty list."""
        return self._read_list(key, float, "numbers")

    def _read_list(self, key: str, read: Callable[[str], Number], what: str) -> list[Number]:
        text = self.options.get(key, "")
        try:
            return [read(item) for item in text.split(",") if item.strip()]
        except ValueError:
            self.fail(f"{key} must be {what} separated by commas, not '{text}'")


SECTION_ALIASES = {"network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool"}


def parse_cfg(text: str) -> list[Section]:
    """Split the text of a .cfg into its sections, [net] first; options stay text. Raises DataError.

    `#` and `;` start a comment, also behind an option.
    """
    sections: list[Section] = []
    options: dict[str, str] = {}
    for line_number, raw_line in enumerate(text.splitlines(), start=1):
        line = raw_line.split("#")[0].split(";")[0].strip()
        if not line:
            continue
        if line.startswith("["):
            kind = line.strip("[] ").lower()
            options = {}
            sections.append(Section(SECTION_ALIASES.get(kind, kind), len(sections) - 1, line_number, options))
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not key:
            raise DataError(f"line {line_number}: expected [section] or option=value, not '{line}'")
        if not sections:
            raise DataError(f"line {line_number}: '{line}' stands before the first [section]")
        options.setdefault(key, value)  # of two equal keys Darknet takes the first
    if not sections or sections[0].kind != "net":
        found = f"[{sections[0].kind}] (line {sections[0].line})" if sections else "no section at all"
        raise DataError(f"the first section must be [net], not {found}")
    return sections


# --------------------------------------------------------------------------------------------------------------------
# what the layers do
# --------------------------------------------------------------------------------------------------------------------

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(0.1, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "mish": nn.Mish,
    "swish": nn.SiLU,
    "logistic": nn.Sigmoid,
}


class Convolution(nn.Module):
    """Convolution, batch normalisation or bias, activation.

    Weights keep torch's initialisation (kaiming_uniform with a = sqrt(5), as in YOLOv5): whatever stands before a batch
    norm may have any scale, and the heads, which have none, want small outputs at first. The batch norm's momentum of
    0.1 (Darknet has 0.01, YOLOv5 0.03) lets the running statistics forget their start within the first epoch of a
    short run: after 20 steps 12 % of it is left, with 0.03 it would be 54 %.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.activation(self.norm(self.conv(x))))


class MaxPool(nn.Module):
    """Max pooling with Darknet's padding: `padding` pixels in all, the smaller half of them left and above.

    The output side is (n + padding - size) // stride + 1; size 2 with stride 1 keeps the size (yolov3-tiny).
    """

    def __init__(self, size: int, stride: int, padding: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride
        self.before, self.after = padding // 2, padding - padding // 2

    def forward(self, x: Tensor) -> Tensor:
        uneven = self.before != self.after
        if uneven and self.stride != 2:
            x = F.pad(x, (self.before, self.after) * 2, value=-math.inf)
            return F.max_pool2d(x, self.size, self.stride)
        # With stride 2 one more pixel at the end is the same as rounding up, and costs no copy.
        return F.max_pool2d(x, self.size, self.stride, self.before, ceil_mode=uneven)


class Route(nn.Module):
    """Join layers along the channels, after taking of each its part `group_id` of `groups` equal parts."""

    def __init__(self, groups: int, group_id: int) -> None:
        super().__init__()
        self.groups, self.group_id = groups, group_id

    def forward(self, *inputs: Tensor) -> Tensor:
        parts = [x.chunk(self.groups, dim=1)[self.group_id] for x in inputs] if self.groups > 1 else list(inputs)
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class Upsample(nn.Upsample):
    """Repeat every cell `stride` times in both directions, then multiply by `scale`."""

    def __init__(self, stride: int, scale: float) -> None:
        super().__init__(scale_factor=stride, mode="nearest")
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        return x if self.scale == 1.0 else x * self.scale


class Shortcut(nn.Module):
    """Add layers of one shape, then an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        total = first
        for other in others:
            total = total + other
        return cast(Tensor, self.activation(total))


class ScaleChannels(nn.Module):
    """Multiply every channel of a map by its number in a single cell (squeeze and excitation), then an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, cell: Tensor, x: Tensor) -> Tensor:
        return cast(Tensor, self.activation(x * cell))


class Head(nn.Module):
    """One [yolo] layer: it only orders the numbers of the convolution before it, see `decode` for their meaning.

    `anchors` [na, 2] are widths and heights in pixels, a buffer, so that they travel with the weights. Raw outputs are
    logits throughout, also where the file has activation=logistic (new_coords=1).
    """

    anchors: Tensor

    def __init__(self, stride: int, anchors: Tensor, nc: int, scale_x_y: float, new_coords: bool) -> None:
        super().__init__()
        self.stride = stride
        self.nc = nc
        self.scale_x_y = scale_x_y
        self.new_coords = new_coords
        self.register_buffer("anchors", anchors)

    @property
    def na(self) -> int:
        """Number of anchors of this head."""
        return len(self.anchors)

    def forward(self, x: Tensor) -> Tensor:
        """[B, na * (5 + nc), ny, nx] -> [B, na, ny, nx, 5 + nc], contiguous: x, y, w, h, objectness, classes."""
        batch, _, ny, nx = x.shape
        return x.view(batch, self.na, 5 + self.nc, ny, nx).permute(0, 1, 3, 4, 2).contiguous()


def decode_boxes(
    xywh_logits: Tensor,
    grid: Tensor,
    anchor: Tensor,
    stride: float | Tensor,
    scale_x_y: float | Tensor,
    new_coords: bool | Tensor,
) -> Tensor:
    """Logits [..., 4], cell (column, row) [..., 2] and anchor in pixels [..., 2] -> cx, cy, w, h in pixels [..., 4].

    The head's numbers may be tensors [..., 1], where boxes of several heads are decoded at once.

    Darknet, src/yolo_layer.c: centre = (sigmoid * scale_x_y - (scale_x_y - 1) / 2 + cell) * stride; sides =
    exp * anchor, or with new_coords (2 sigmoid)^2 * anchor. So scale_x_y = 2 with new_coords is YOLOv5's decode.
    """
    centre = (xywh_logits[..., :2].sigmoid() * scale_x_y - (scale_x_y - 1) / 2 + grid) * stride
    sides = xywh_logits[..., 2:]
    # exp is capped at e^7, some 1100 anchors (ultralytics' YOLOv3: 1000): one bad early step shall not make an inf.
    if isinstance(new_coords, Tensor):
        factor = torch.where(new_coords, (sides.sigmoid() * 2).square(), sides.clamp(max=7.0).exp())
    else:
        factor = (sides.sigmoid() * 2).square() if new_coords else sides.clamp(max=7.0).exp()
    return torch.cat([centre, factor * anchor], dim=-1)


def decode(raw: Tensor, head: Head) -> Tensor:
    """Raw [B, na, ny, nx, 5 + nc] of one head -> [B, na * ny * nx, 5 + nc]: cx, cy, w, h in pixels, then probabilities.

    Always in float32, since half precision cannot place a box to a pixel in a picture of 1000.
    """
    raw = raw.float()
    batch, na, ny, nx, width = raw.shape
    rows, columns = torch.meshgrid(
        torch.arange(ny, device=raw.device), torch.arange(nx, device=raw.device), indexing="ij"
    )
    grid = torch.stack([columns, rows], dim=-1)
    anchors = head.anchors.float().view(na, 1, 1, 2)
    boxes = decode_boxes(raw[..., :4], grid, anchors, head.stride, head.scale_x_y, head.new_coords)
    return torch.cat([boxes, raw[..., 4:].sigmoid()], dim=-1).view(batch, na * ny * nx, width)


# --------------------------------------------------------------------------------------------------------------------
# from sections to layers
# --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """A built layer: its module, the layers it reads (-1 is the picture), its channels, its pixels of the picture.

    A `stride` of infinity is one cell for the whole picture, whatever its size: what [avgpool] leaves.
    """

    module: nn.Module
    sources: tuple[int, ...]
    channels: int
    stride: float


@dataclass(frozen=True)
class _Plan:
    """What building one layer needs to know of the rest; `layers[-1]` is the layer before."""

    layers: list[_Layer]
    following: Section | None
    channels: int
    nc: int
    anchors: Tensor | None

    @property
    def number(self) -> int:
        return len(self.layers)

    def source(self, number: int) -> _Layer:
        return self.layers[number] if number >= 0 else _Layer(nn.Identity(), (), self.channels, 1)


def _build_convolutional(section: Section, plan: _Plan) -> _Layer:
    before = plan.source(plan.number - 1)
    size = section.read_int("size", 1, low=1)
    stride = _read_stride(section)
    groups = section.read_int("groups", 1, low=1)
    dilation = section.read_int("dilation", 1, low=1) if size > 1 else 1
    filters = section.read_int("filters", 1, low=1)
    padding = section.read_int("padding", 0, low=0)
    if section.read_int("pad", 0, low=0):
        padding = size // 2
    padding *= dilation  # as Darknet does, src/convolutional_layer.c
    # cbn=1, batch_normalize=2: Darknet's statistics over several batches, which are those of one batch in evaluation
    normalised = bool(section.read_int("batch_normalize", 0, low=0) or section.read_int("cbn", 0, low=0))
    activation = _read_activation(section, default="logistic")
    if plan.following is not None and plan.following.kind == "yolo":
        _check_head(section, plan.following, normalised)
        filters = len(_mask(plan.following)) * (5 + plan.nc)
        activation = nn.Identity()  # logistic is a part of `decode`, so that the loss sees logits
    if before.channels % groups or filters % groups:
        section.fail(f"groups={groups} must divide both its {before.channels} input channels and its {filters} filters")
    shrinks_by = dilation * (size - 1) - 2 * padding
    if not 0 <= shrinks_by < _slack(before, stride):
        section.fail(
            f"size={size}, padding={padding} changes the picture's side by other than its stride={stride} (try pad=1)"
        )
    conv = nn.Conv2d(before.channels, filters, size, stride, padding, dilation, groups, bias=not normalised)
    norm = nn.BatchNorm2d(filters) if normalised else nn.Identity()
    return _Layer(Convolution(conv, norm, activation), (plan.number - 1,), filters, before.stride * stride)


def _check_head(section: Section, yolo: Section, normalised: bool) -> None:
    name = section.options.get("activation", "logistic")
    fitting = ("linear", "logistic") if yolo.read_int("new_coords", 0, low=0) else ("linear",)
    if name not in fitting:
        section.fail(f"activation={name} cannot stand right before [yolo]; use {' or '.join(fitting)}")
    if normalised:
        section.fail("batch_normalize=1 cannot stand right before [yolo], whose numbers need a bias")
    if section.read_int("groups", 1, low=1) > 1:
        section.fail("groups must be 1 right before [yolo]")


def _build_maxpool(section: Section, plan: _Plan) -> _Layer:
    before = plan.source(plan.number - 1)
    stride = _read_stride(section)
    size = section.read_int("size", stride, low=1)
    padding = section.read_int("padding", size - 1, low=0)
    if not 0 <= size - 1 - padding < _slack(before, stride):
        section.fail(f"size={size}, padding={padding} changes the picture's side by other than its stride={stride}")
    return _Layer(MaxPool(size, stride, padding), (plan.number - 1,), before.channels, before.stride * stride)


def _read_stride(section: Section) -> int:
    stride = section.read_int("stride", 1, low=1)
    across, down = (section.read_int(key, stride, low=1) for key in ("stride_x", "stride_y"))
    if across != down:
        section.fail(f"stride_x={across}, stride_y={down}: only equal strides are supported")
    return across


def _slack(before: _Layer, stride: int) -> int:
    """A side divided by its stride may lose fewer pixels than this: as many round away, of one cell none."""
    return stride if math.isfinite(before.stride) else 1


def _build_avgpool(section: Section, plan: _Plan) -> _Layer:
    """The mean of every channel over the whole picture, as in Darknet: [B, C, H, W] -> [B, C, 1, 1]."""
    before = plan.source(plan.number - 1)
    return _Layer(nn.AdaptiveAvgPool2d(1), (plan.number - 1,), before.channels, math.inf)


def _build_dropout(section: Section, plan: _Plan) -> _Layer:
    """Zeros with `probability`, the rest scaled up, in training only; layers that read the one before see it whole."""
    before = plan.source(plan.number - 1)
    probability = section.read_float("probability", 0.2)
    if not 0 <= probability < 1:
        section.fail(f"probability must be at least 0 and less than 1, not {probability:g}")
    return _Layer(nn.Dropout(probability), (plan.number - 1,), before.channels, before.stride)


def _build_upsample(section: Section, plan: _Plan) -> _Layer:
    before = plan.source(plan.number - 1)
    stride = section.read_int("stride", 2, low=1)
    if stride > 1 and not math.isfinite(before.stride):
        section.fail("a single cell, which is what [avgpool] leaves, cannot be made a map again")
    scale = section.read_float("scale", 1.0)
    return _Layer(Upsample(stride, scale), (plan.number - 1,), before.channels, before.stride / stride)


def _build_route(section: Section, plan: _Plan) -> _Layer:
    sources = _read_sources(section, "layers", plan)
    groups = section.read_int("groups", 1, low=1)
    group_id = section.read_int("group_id", 0, low=0)
    inputs = [plan.source(number) for number in sources]
    if group_id >= groups:
        section.fail(f"group_id={group_id} must be less than groups={groups}")
    for number, layer in zip(sources, inputs, strict=True):
        if layer.channels % groups:
            section.fail(f"groups={groups} does not divide the {layer.channels} channels of layer {number}")
    _check_strides(section, sources, inputs)
    channels = sum(layer.channels // groups for layer in inputs)
    return _Layer(Route(groups, group_id), sources, channels, inputs[0].stride)


def _build_shortcut(section: Section, plan: _Plan) -> _Layer:
    if section.options.get("weights_type", "none") != "none":
        section.fail(f"weights_type={section.options['weights_type']} is not supported; leave it out")
    for key in ("alpha", "beta"):  # pjreddie/darknet: factors of the two that are added
        if section.read_float(key, 1.0) != 1.0:
            section.fail(f"{key}={section.options[key]} is not supported; leave it out")
    sources = (plan.number - 1, *_read_sources(section, "from", plan))
    inputs = [plan.source(number) for number in sources]
    _check_strides(section, sources, inputs)
    channels = [layer.channels for layer in inputs]
    if len(set(channels)) > 1:
        section.fail(f"layers {_join(sources)} have {_join(channels)} channels; only equal ones can be added")
    return _Layer(Shortcut(_read_activation(section, default="linear")), sources, channels[0], inputs[0].stride)


def _build_scale_channels(section: Section, plan: _Plan) -> _Layer:
    named = _read_sources(section, "from", plan)
    if len(named) > 1:
        section.fail(f"from must name one layer, not {len(named)}")
    sources = (plan.number - 1, *named)
    cell, scaled = (plan.source(number) for number in sources)
    if math.isfinite(cell.stride):
        section.fail(f"layer {sources[0]} must be a single cell, as [avgpool] leaves it, not a map")
    if cell.channels != scaled.channels:
        section.fail(f"layers {_join(sources)} have {cell.channels}, {scaled.channels} channels; they must be equal")
    module = ScaleChannels(_read_activation(section, default="linear"))
    return _Layer(module, sources, scaled.channels, scaled.stride)


def _build_yolo(section: Section, plan: _Plan) -> _Layer:
    if plan.number == 0 or not isinstance(plan.layers[-1].module, Convolution):
        section.fail("the layer right before [yolo] must be [convolutional]")
    before = plan.layers[-1]
    mask = _mask(section)
    anchors = plan.anchors if plan.anchors is not None else _file_anchors(section)
    if max(mask) >= len(anchors):
        section.fail(f"mask asks for anchor {max(mask)} (counted from 0), but there are {len(anchors)}")
    if not math.isfinite(before.stride):
        section.fail("it cannot stand behind [avgpool], which leaves one cell that says nothing of places")
    if before.stride != int(before.stride):
        section.fail(f"its grid has {1 / before.stride:g} cells a pixel; one cell must be at least one pixel")
    scale_x_y = section.read_float("scale_x_y", 1.0)
    if scale_x_y <= 0:
        section.fail(f"scale_x_y must be more than 0, not {scale_x_y:g}")
    new_coords = bool(section.read_int("new_coords", 0, low=0))
    head = Head(int(before.stride), anchors[mask].clone(), plan.nc, scale_x_y, new_coords)
    return _Layer(head, (plan.number - 1,), before.channels, before.stride)


def _mask(section: Section) -> list[int]:
    mask = section.read_ints("mask") or list(range(section.read_int("num", 1, low=1)))
    if min(mask) < 0 or len(set(mask)) < len(mask):
        section.fail(f"mask must be different anchor numbers from 0, not '{section.options['mask']}'")
    return mask


def _file_anchors(section: Section) -> Tensor:
    """The file's anchors [num, 2], in pixels."""
    sides = section.read_floats("anchors")
    num = section.read_int("num", max(1, len(sides) // 2), low=1)
    if len(sides) != 2 * num:
        section.fail(f"num={num} wants {2 * num} numbers in anchors (width, height of each), not {len(sides)}")
    anchors = torch.tensor(sides, dtype=torch.float32).view(num, 2)
    if not (torch.isfinite(anchors).all() and (anchors > 0).all()):
        section.fail("anchors must be sides of more than 0 pixels")
    return anchors


def _read_activation(section: Section, default: str) -> nn.Module:
    name = section.options.get("activation", default)
    if name not in ACTIVATIONS:
        section.fail(f"unknown activation '{name}'{_did_you_mean(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def _read_sources(section: Section, key: str, plan: _Plan) -> tuple[int, ...]:
    """The layers that an option names: from 0 counted from the start, below 0 counted back from this layer."""
    numbers = section.read_ints(key)
    if not numbers:
        section.fail(f"{key} must name at least one layer")
    if plan.number == 0:
        section.fail("no layer stands before it")
    for number in numbers:
        if not -plan.number <= number < plan.number:
            section.fail(f"{key}={number} is no layer before it; layers 0 to {plan.number - 1} are")
    return tuple(number % plan.number for number in numbers)


def _check_strides(section: Section, sources: Sequence[int], inputs: Sequence[_Layer]) -> None:
    strides = [layer.stride for layer in inputs]
    cells = [number for number, stride in zip(sources, strides, strict=True) if not math.isfinite(stride)]
    if 0 < len(cells) < len(strides):
        maps = [number for number in sources if number not in cells]
        section.fail(f"layer {cells[0]} is one cell behind [avgpool], layer {maps[0]} a map; they cannot be joined")
    if len(set(strides)) > 1:
        section.fail(f"layers {_join(sources)} have strides {_join(strides)}; only equal ones can be joined")


def _join(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{close[0]}'?)" if close else f"; known are {', '.join(sorted(known))}"


_BUILDERS: Mapping[str, Callable[[Section, _Plan], _Layer]] = {
    "convolutional": _build_convolutional,
    "maxpool": _build_maxpool,
    "avgpool": _build_avgpool,
    "upsample": _build_upsample,
    "route": _build_route,
    "shortcut": _build_shortcut,
    "scale_channels": _build_scale_channels,
    "dropout": _build_dropout,
    "yolo": _build_yolo,
}

# What is read, and what only steers Darknet's own training and so has no effect here.
_OPTIONS_TEXT = {
    "net": """
        channels
        B1 B2 adam adversarial_lr angle aspect attention augment_speed badlabels_rejection_percentage batch
        batches_cycle_mult batches_per_cycle blur burn_in contrastive contrastive_color contrastive_jit_flip cutmix
        decay dynamic_minibatch ema_alpha eps equidistant_point exposure flip gamma gaussian_noise height hue inputs
        label_smooth_eps learning_rate letter_box loss_scale max_batches max_chart_loss max_crop min_crop mixup momentum
        mosaic mosaic_bound num_sigmas_reject_badlabels optimized_memory policy power resize_step saturation scale
        scales seq_scales sequential_subdivisions show_receptive_field squared step steps subdivisions time_steps track
        try_fix_nan unsupervised use_cuda_graph weights_reject_freq width workspace_size_limit_MB""",
    "convolutional": """
        activation batch_normalize cbn dilation filters groups pad padding size stride stride_x stride_y
        angle dot grad_centr""",
    "maxpool": "out_channels padding size stride stride_x stride_y",
    "avgpool": "",
    "upsample": "scale stride",
    "route": "group_id groups layers",
    "shortcut": "activation alpha beta from weights_normalization weights_type",
    "scale_channels": "activation from",
    "dropout": "dropblock_size_abs dropblock_size_rel probability",
    "yolo": """
        anchors classes mask new_coords num scale_x_y
        beta_nms cls_normalizer counters_per_class delta_normalizer dets_for_show dets_for_track embedding_layer
        focal_loss ignore_thresh iou_loss iou_normalizer iou_thresh iou_thresh_kind jitter label_smooth_eps map max
        max_delta nms_kind obj_normalizer objectness_smooth random resize show_details sim_thresh track_ciou_norm
        track_history_size truth_thresh uc_normalizer""",
}
_OPTIONS_OF_ALL_TEXT = """
    burnin_update clip dont_update dontsave learning_rate onlyforward smooth stopbackward stream train_only_bn truth
    wait_stream"""
# What would change the arithmetic, or the layout of a file of weights; 0 says that it does not.
_REFUSED_TEXT = {
    "convolutional": """
        antialiasing assisted_excitation bin_output binary coordconv flipped reverse rotate share_index stretch
        stretch_sway sway xnor""",
    "maxpool": "antialiasing maxpool_depth maxpool_zero_nonmax",
    "scale_channels": "scale_wh",
    "dropout": "dropblock",
}
_REFUSED_OF_ALL_TEXT = "dontload dontloadscales numload"
_REFUSED: Mapping[str, frozenset[str]] = {
    kind: frozenset(f"{_REFUSED_TEXT.get(kind, '')} {_REFUSED_OF_ALL_TEXT}".split()) for kind in _BUILDERS
}
_OPTIONS: Mapping[str, frozenset[str]] = {
    "net": frozenset(_OPTIONS_TEXT["net"].split()),
    **{kind: frozenset(f"{_OPTIONS_TEXT[kind]} {_OPTIONS_OF_ALL_TEXT}".split()) | _REFUSED[kind] for kind in _BUILDERS},
}


# --------------------------------------------------------------------------------------------------------------------
# the network
# --------------------------------------------------------------------------------------------------------------------


class Darknet(nn.Module):
    """A network built from sections, its heads made for `nc` classes whatever the file says.

    The filters of a convolution right before a [yolo] become len(mask) * (5 + nc). `anchors` [num, 2], in pixels,
    replace the file's, which masks pick from. `channels` of the picture: the file's unless given. Raises DataError.
    """

    def __init__(
        self, sections: Sequence[Section], nc: int, anchors: ArrayLike | None = None, channels: int | None = None
    ) -> None:
        super().__init__()
        if nc < 1:
            raise DataError(f"a detector needs at least one class, not {nc}")
        _check_options(sections[0])
        self.nc = nc
        self.channels = sections[0].read_int("channels", 3, low=1) if channels is None else channels
        layers = _build(sections[1:], self.channels, nc, _as_anchors(anchors))
        self.layers = nn.ModuleList(layer.module for layer in layers)
        self._sources = [layer.sources for layer in layers]
        self._last_uses = _last_uses(self._sources)
        self.stride = int(max(layer.stride for layer in layers if math.isfinite(layer.stride)))
        self.frozen = 0  # so many first layers stay in evaluation mode, whatever `train` is told: see freeze.py
        masks = [_mask(section) for section in sections if section.kind == "yolo"]
        self.anchor_count = 1 + max((max(mask) for mask in masks), default=-1)  # of the list that masks pick from
        if not self.heads:
            raise DataError("there is no [yolo] section, so it detects nothing")

    @property
    def heads(self) -> list[Head]:
        """The [yolo] layers, in the order of the file and of what `forward` returns."""
        return [layer for layer in self.layers if isinstance(layer, Head)]

    def train(self, mode: bool = True) -> Self:
        """As for every module, but `frozen` layers keep evaluating: their batch statistics do not move."""
        super().train(mode)
        for layer in self.layers[: self.frozen]:
            layer.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images [B, channels, H, W] in 0..1 -> one raw tensor [B, na, ny, nx, 5 + nc] a head; see `Head`, `decode`.

        H and W must be multiples of `stride`, else DataError.
        """
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise DataError(f"images of {width} x {height} pixels: this model needs multiples of {self.stride}")
        outputs = {-1: images}
        raw: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            outputs[number] = layer(*(outputs[source] for source in self._sources[number]))
            if isinstance(layer, Head):
                raw.append(outputs[number])
            for source in self._last_uses[number]:
                del outputs[source]  # nobody reads it any more
        return raw

    def predict(self, images: Tensor) -> Tensor:
        """Images as in `forward` -> all heads' decoded predictions, [B, A, 5 + nc] float32; see `decode`."""
        return torch.cat([decode(raw, head) for raw, head in zip(self(images), self.heads, strict=True)], dim=1)


def _build(sections: Sequence[Section], channels: int, nc: int, anchors: Tensor | None) -> list[_Layer]:
    layers: list[_Layer] = []
    for number, section in enumerate(sections):
        if section.kind not in _BUILDERS:
            section.fail(f"unknown section [{section.kind}]{_did_you_mean(section.kind, _BUILDERS)}")
        _check_options(section)
        following = sections[number + 1] if number + 1 < len(sections) else None
        layer = _BUILDERS[section.kind](section, _Plan(layers, following, channels, nc, anchors))
        for source in layer.sources:
            if source >= 0 and isinstance(layers[source].module, Head):
                section.fail(f"it reads layer {source}, a [yolo], which has no output that others could use")
        layers.append(layer)
    if not layers:
        raise DataError("there is no section after [net]")
    return layers


def _check_options(section: Section) -> None:
    for key in section.options:
        if key not in _OPTIONS[section.kind]:
            section.fail(f"unknown option '{key}'{_did_you_mean(key, _OPTIONS[section.kind])}")
        refused = key in _REFUSED.get(section.kind, ())
        if refused and (key == "share_index" or section.read_float(key, 0.0) != 0.0):  # share_index=0 is layer 0
            section.fail(f"{key}={section.options[key]} is not supported; leave it out")


def _last_uses(sources: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """For each layer, the outputs that nobody reads after it; among them its own, if nobody ever does."""
    last = {number: number for number in range(len(sources))}
    last |= {source: number for number, read in enumerate(sources) for source in read}
    return [tuple(source for source, user in last.items() if user == number) for number in range(len(sources))]


def _as_anchors(anchors: ArrayLike | None) -> Tensor | None:
    if anchors is None:
        return None
    values = np.asarray(anchors, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all() or not (values > 0).all():
        raise DataError(f"anchors must be rows of width, height > 0 in pixels, not an array of shape {values.shape}")
    return torch.from_numpy(values.copy())


def load_model(name_or_path: str | Path, nc: int, anchors: ArrayLike | None = None, channels: int = 3) -> Darknet:
    """Build the model of a built-in cfg's name (see `available_models`) or of a .cfg file. Raises DataError.

    It detects `nc` classes in pictures of `channels` channels, whatever the file says; for `anchors` see `Darknet`.
    """
    text = read_cfg(name_or_path)
    try:
        return Darknet(parse_cfg(text), nc, anchors, channels)
    except DataError as error:
        raise DataError(f"model '{name_or_path}', {error}") from None


def read_cfg(name_or_path: str | Path) -> str:
    """The text of a built-in cfg, by its name, or of a .cfg file, by its path. Raises DataError."""
    name = str(name_or_path)
    if name in available_models():
        return (_cfg_folder() / f"{name}.cfg").read_text(encoding="utf-8")
    path = Path(name_or_path)
    if path.suffix in (".weights", ".pt", ".pth"):
        raise DataError(f"model '{name}' is a file of weights, which --weights takes; a model is a name or a .cfg file")
    if path.suffix != ".cfg" and not path.exists():
        raise DataError(f"unknown model '{name}'{_did_you_mean(name, available_models())}, or the path of a .cfg file")
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"model '{name}' cannot be read: {error.strerror or error}") from error


def available_models() -> tuple[str, ...]:
    """Names of the built-in cfgs, sorted."""
    folder = _cfg_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name.removesuffix(".cfg") for entry in folder.iterdir() if entry.name.endswith(".cfg")))


def _cfg_folder() -> Traversable:
    return resources.files("trainer.detection") / "cfg"


@torch.no_grad()
def initialise_biases(model: Darknet, objects: float = 8.0, imgsz: float = 640.0) -> None:
    """Set the heads' objectness and class biases to what an untrained model should expect.

    The prior is `objects` objects in a picture of `imgsz` pixels: objectness log(objects / (imgsz / stride)^2), class
    log(0.6 / (nc - 0.99999)), as YOLOv5 v7.0 (models/yolo.py, `_initialize_biases`; there added to the random bias, set
    here, so that twice is once). Small pictures hold more objects a cell: pass what the data has. No prior goes beyond
    one cell in two.
    """
    for number, head in enumerate(model.layers):
        if not isinstance(head, Head):
            continue
        before = model.layers[number - 1]
        assert isinstance(before, Convolution)
        assert before.conv.bias is not None
        bias = before.conv.bias.view(head.na, 5 + head.nc)
        bias[:, 4] = math.log(min(objects / (imgsz / head.stride) ** 2, 0.5))
        bias[:, 5:] = math.log(0.6 / (head.nc - 0.99999))
