"""Networks from Darknet cfgs: structure, strides, padding, decode, and one clear sentence for every mistake."""

from __future__ import annotations

import copy
import math
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainer.api import DataError
from trainer.detection.darknet import (
    Convolution,
    Darknet,
    available_models,
    decode,
    decode_boxes,
    initialise_biases,
    load_model,
    parse_cfg,
)


def section(kind: str, **options: object) -> str:
    return "\n".join([f"[{kind}]", *(f"{key.rstrip('_')}={value}" for key, value in options.items()), ""])


def conv(filters: int, size: int = 3, stride: int = 1, activation: str = "leaky") -> str:
    return section(
        "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=activation
    )


def plain(filters: int, activation: str = "linear", **options: object) -> str:
    return section("convolutional", filters=filters, size=1, stride=1, pad=1, activation=activation, **options)


def yolo(mask: str, anchors: str, classes: int = 80, **options: object) -> str:
    return section("yolo", mask=mask, anchors=anchors, num=anchors.count(",") // 2 + 1, classes=classes, **options)


NET = section("net", width=416, height=416, channels=3, learning_rate=0.001)
SMALL_ANCHORS = "10,14, 23,27, 37,58"
SMALL = NET + conv(8, stride=2) + conv(16, stride=2) + plain(99) + yolo("0,1,2", SMALL_ANCHORS)

TINY_ANCHORS = "10,14,  23,27,  37,58,  81,82,  135,169,  344,319"


def yolov3_tiny() -> str:
    """The structure of YOLOv3-tiny (Redmon and Farhadi 2018; Darknet's layer list)."""
    layers = [NET]
    for filters in (16, 32, 64, 128, 256):
        layers += [conv(filters), section("maxpool", size=2, stride=2)]
    layers += [conv(512), section("maxpool", size=2, stride=1), conv(1024)]
    layers += [conv(256, size=1), conv(512), plain(255), yolo("3,4,5", TINY_ANCHORS)]
    layers += [section("route", layers=-4), conv(128, size=1), section("upsample", stride=2)]
    layers += [section("route", layers="-1, 8"), conv(256), plain(255), yolo("0,1,2", TINY_ANCHORS)]
    return "\n".join(layers)


def head_bias(model: Darknet, layer: int) -> Tensor:
    """The bias of the convolution before a [yolo]."""
    convolution = model.layers[layer]
    assert isinstance(convolution, Convolution)
    assert convolution.conv.bias is not None
    return convolution.conv.bias.detach()


def build(text: str, nc: int = 4) -> Darknet:
    return Darknet(parse_cfg(text), nc)


def test_parse_cfg_keeps_the_text_and_says_where_it_stands() -> None:
    net, layer = parse_cfg("# a comment\n[net]\nchannels = 3 # colour\n\n[convolutional]\nfilters=8\nfilters=9\n")
    assert (net.kind, net.number, net.line, net.options) == ("net", -1, 2, {"channels": "3"})
    assert (layer.kind, layer.number, layer.line, layer.options) == ("convolutional", 0, 5, {"filters": "8"})


def test_yolov3_tiny_has_as_many_numbers_as_its_published_weights() -> None:
    # yolov3-tiny.weights has 35,434,956 bytes: a header of 20, then float32 weights, biases, scales, means, variances.
    model = build(yolov3_tiny(), nc=80)
    statistics = sum(m.num_features * 2 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    numbers = sum(p.numel() for p in model.parameters()) + statistics
    assert numbers == (35_434_956 - 20) // 4


@pytest.mark.parametrize(
    ("name", "parameters", "size"),
    [
        ("yolov3-tiny", 8_852_366, 35_434_956),
        ("yolov3", 61_949_149, 248_007_048),
        ("yolov3-spp", 62_998_749, 252_209_544),
        ("yolov4-tiny", 6_056_606, 24_251_276),
    ],
)
def test_the_published_models_have_their_published_size(name: str, parameters: int, size: int) -> None:
    # Sizes in bytes of the .weights that pjreddie.com and AlexeyAB/darknet offer for 80 classes; see above.
    with torch.device("meta"):
        model = load_model(name, nc=80, anchors=np.ones((9, 2)))
    statistics = sum(m.num_features * 2 for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert 20 + 4 * (parameters + statistics) == size


NINE = [[10, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
SIX = [[10, 14], [23, 27], [37, 58], [81, 82], [135, 169], [344, 319]]


@pytest.mark.parametrize(
    ("name", "strides", "anchors", "scale"),
    [
        ("yolov3-tiny", [32, 16], [SIX[3:], SIX[:3]], 1.0),
        ("yolov3", [32, 16, 8], [NINE[6:], NINE[3:6], NINE[:3]], 1.0),
        ("yolov3-spp", [32, 16, 8], [NINE[6:], NINE[3:6], NINE[:3]], 1.0),
        ("yolov4-tiny", [32, 16], [SIX[3:], SIX[:3]], 1.05),
    ],
)
def test_the_published_models_have_their_published_heads(
    name: str, strides: list[int], anchors: list[list[list[float]]], scale: float
) -> None:
    heads = load_model(name, nc=1).heads
    assert [head.stride for head in heads] == strides
    assert [head.anchors.tolist() for head in heads] == anchors
    assert {(head.scale_x_y, head.new_coords) for head in heads} == {(scale, False)}


def test_the_built_in_yolov3_tiny_computes_what_its_layer_list_says() -> None:
    ours, listed = load_model("yolov3-tiny", nc=2).eval(), build(yolov3_tiny(), nc=2).eval()
    listed.load_state_dict(ours.state_dict())
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours.predict(picture), listed.predict(picture))


def test_yolov3_tiny_sees_at_strides_32_and_16() -> None:
    model = build(yolov3_tiny(), nc=7).eval()
    with torch.no_grad():
        coarse, fine = model(torch.rand(2, 3, 64, 96))
    assert [head.stride for head in model.heads] == [32, 16]
    assert model.stride == 32
    assert coarse.shape == (2, 3, 2, 3, 12)
    assert fine.shape == (2, 3, 4, 6, 12)
    assert model.heads[0].anchors.tolist() == [[81, 82], [135, 169], [344, 319]]


def test_the_head_follows_the_number_of_classes_not_the_file() -> None:
    model = build(SMALL, nc=2)
    assert [raw.shape[-1] for raw in model(torch.rand(1, 3, 8, 8))] == [7]
    assert len(head_bias(model, 2)) == 3 * 7


def test_given_anchors_replace_those_of_the_file() -> None:
    anchors = [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    model = Darknet(parse_cfg(SMALL), nc=2, anchors=anchors)
    assert model.heads[0].anchors.tolist() == anchors


def test_pictures_may_have_other_than_three_channels(tmp_path: Path) -> None:
    path = tmp_path / "small.cfg"
    path.write_text(SMALL)
    assert load_model(path, nc=2, channels=1)(torch.rand(1, 1, 8, 8))[0].shape == (1, 3, 2, 2, 7)


def test_every_built_in_model_finds_boxes_of_its_size() -> None:
    assert set(available_models()) >= {"pico", "nano", "yolov3-tiny", "yolov3", "yolov3-spp", "yolov4-tiny"}
    for name in available_models():
        model = load_model(name, nc=3).eval()
        side = model.stride * 2
        cells = sum(head.na * (side // head.stride) ** 2 for head in model.heads)
        with torch.no_grad():
            assert model.predict(torch.rand(1, 3, side, side)).shape == (1, cells, 8)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("side", [6, 7, 12])
def test_maxpool_pads_as_darknet_does(size: int, stride: int, side: int) -> None:
    pool = build(NET + section("maxpool", size=size, stride=stride) + plain(27) + yolo("0", "8,8")).layers[0]
    picture = torch.rand(1, 1, side, side)
    # Darknet, src/maxpool_layer.c: padding = size - 1 in all; the first window starts at -(padding / 2).
    out = (side + size - 1 - size) // stride + 1
    expected = torch.empty(1, 1, out, out)
    for row in range(out):
        for column in range(out):
            top, left = row * stride - (size - 1) // 2, column * stride - (size - 1) // 2
            window = picture[..., max(0, top) : top + size, max(0, left) : left + size]
            expected[..., row, column] = window.max()
    assert torch.equal(pool(picture), expected)


def test_route_takes_one_group_of_each_layer_and_joins_them() -> None:
    route = section("route", layers="-1,0", groups=2, group_id=1)
    model = build(NET + conv(4) + conv(6) + route + plain(9) + yolo("0", "8,8")).eval()
    picture = torch.rand(1, 3, 4, 4)
    first = model.layers[0](picture)
    second = model.layers[1](first)
    joined = torch.cat([second[:, 3:], first[:, 2:]], dim=1)
    assert torch.equal(model(picture)[0], model.layers[4](model.layers[3](joined)))


def test_shortcut_adds_and_then_activates() -> None:
    shortcut = section("shortcut", from_="-3", activation="relu")
    model = build(NET + conv(4) + conv(2) + conv(4) + shortcut + plain(9) + yolo("0", "8,8")).eval()
    picture = torch.rand(1, 3, 4, 4)
    first = model.layers[0](picture)
    third = model.layers[2](model.layers[1](first))
    assert torch.equal(model(picture)[0], model.layers[5](model.layers[4]((first + third).relu())))


def test_shortcut_adds_several_layers() -> None:
    shortcut = section("shortcut", from_="-2,-3", activation="linear")
    model = build(NET + conv(4) + conv(4) + conv(4) + shortcut + plain(9) + yolo("0", "8,8")).eval()
    picture = torch.rand(1, 3, 4, 4)
    first = model.layers[0](picture)
    second = model.layers[1](first)
    added = model.layers[2](second) + second + first
    torch.testing.assert_close(model(picture)[0], model.layers[5](model.layers[4](added)))


def test_upsample_repeats_cells_and_scales_them() -> None:
    upsample = section("upsample", stride=2, scale=0.5)
    model = build(NET + conv(2, stride=2) + upsample + plain(9) + yolo("0", "8,8")).eval()
    assert model.heads[0].stride == 1
    cells = torch.tensor([[[[2.0, 4.0]]]])
    assert model.layers[1](cells).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_dropout_only_acts_in_training() -> None:
    model = build(NET + conv(4) + section("dropout", probability=0.75) + plain(9) + yolo("0", "8,8"))
    ones = torch.ones(1, 4, 100, 100)
    dropped = model.train().layers[1](ones)
    assert set(dropped.unique().tolist()) == {0.0, 4.0}
    assert (dropped == 0).float().mean().item() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(model.eval().layers[1](ones), ones)


def test_avgpool_leaves_the_mean_of_each_channel() -> None:
    file = NET + conv(4, stride=2) + section("avgpool") + plain(6) + section("route", layers="-3") + plain(9)
    model = build(file + yolo("0", "8,8")).eval()
    assert model.stride == model.heads[0].stride == 2
    picture = torch.rand(2, 3, 8, 12)
    assert model(picture)[0].shape == (2, 1, 4, 6, 9)
    first = model.layers[0](picture)
    torch.testing.assert_close(model.layers[1](first), first.mean(dim=(2, 3), keepdim=True))


def test_scale_channels_weighs_a_map_with_what_avgpool_saw() -> None:
    squeeze = section("avgpool") + plain(2, activation="relu") + plain(4, activation="logistic")
    file = NET + conv(4, stride=2) + squeeze + section("scale_channels", from_=-4) + plain(9) + yolo("0", "8,8")
    model = build(file).eval()
    assert model.heads[0].stride == 2
    picture = torch.rand(2, 3, 8, 8)
    first = model.layers[0](picture)
    weights = model.layers[3](model.layers[2](first.mean(dim=(2, 3), keepdim=True)))
    torch.testing.assert_close(model(picture)[0], model.layers[6](model.layers[5](first * weights)))


@pytest.mark.parametrize(
    ("inserted", "sentence"),
    [
        (
            section("route", layers="-1,-2"),
            "layer 1 is one cell behind [avgpool], layer 0 a map; they cannot be joined",
        ),
        (section("shortcut", from_=-2), "layer 1 is one cell behind [avgpool], layer 0 a map; they cannot be joined"),
        (section("upsample"), "a single cell, which is what [avgpool] leaves, cannot be made a map again"),
        (section("maxpool", size=2, stride=2, padding=0), "size=2, padding=0 changes the picture's side by other than"),
        (plain(9) + yolo("0", "8,8"), "it cannot stand behind [avgpool], which leaves one cell that says nothing of"),
        (section("scale_channels", from_="-1,-2"), "from must name one layer, not 2"),
        (conv(8) + section("scale_channels", from_=-3), "layers 2, 0 have 8, 4 channels; they must be equal"),
    ],
)
def test_one_cell_is_not_taken_for_a_map(inserted: str, sentence: str) -> None:
    with pytest.raises(DataError) as caught:
        build(NET + conv(4, stride=2) + section("avgpool") + inserted + plain(9) + yolo("0", "8,8"))
    assert sentence in str(caught.value)


def test_a_map_is_not_taken_for_one_cell() -> None:
    with pytest.raises(DataError, match=r"layer 1 must be a single cell, as \[avgpool\] leaves it, not a map"):
        build(NET + conv(4) + conv(4) + section("scale_channels", from_=-2) + plain(9) + yolo("0", "8,8"))


def test_what_steers_darknets_own_training_changes_nothing() -> None:
    plain_file = NET + conv(4, stride=2) + section("maxpool", size=2) + plain(9) + yolo("0", "8,8")
    steered = plain_file.replace(
        "stride=2", "stride_x=2\nstride_y=2\ncbn=1\ngrad_centr=1\nlearning_rate=0.1\nflipped=0", 1
    )
    steered = steered.replace("[maxpool]", "[maxpool]\nstopbackward=1\nantialiasing=0", 1)
    steered = steered.replace("[net]", "[net]\ntrack=1\nmosaic=1\nsteps=1,2\nseq_scales=1,1", 1)
    assert steered.count("=1") > plain_file.count("=1")
    plain_model, steered_model = build(plain_file).eval(), build(steered).eval()
    steered_model.load_state_dict(plain_model.state_dict())
    picture = torch.rand(1, 3, 8, 8)
    assert torch.equal(plain_model(picture)[0], steered_model(picture)[0])


@pytest.mark.parametrize("options", ["size=3\npad=1\ndilation=2", "size=3\npadding=1\ndilation=3", "size=6\npadding=2"])
def test_convolutions_that_divide_by_their_stride_are_welcome(options: str) -> None:
    file = NET + f"[convolutional]\nfilters=4\nstride=2\n{options}\n" + plain(9) + yolo("0", "8,8")
    model = build(file).eval()
    assert model.heads[0].stride == 2
    assert model(torch.rand(1, 3, 12, 16))[0].shape == (1, 1, 6, 8, 9)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda x: x),
        ("leaky", lambda x: torch.where(x > 0, x, 0.1 * x)),
        ("relu", lambda x: x.clamp(min=0)),
        ("mish", lambda x: x * torch.tanh(torch.log1p(x.exp()))),
        ("swish", lambda x: x / (1 + (-x).exp())),
        ("logistic", lambda x: 1 / (1 + (-x).exp())),
    ],
)
def test_activations_are_darknets(name: str, formula: Callable[[Tensor], Tensor]) -> None:
    layer = build(NET + conv(2, activation=name) + plain(9) + yolo("0", "8,8")).layers[0]
    assert isinstance(layer, Convolution)
    x = torch.linspace(-4, 4, 33)
    torch.testing.assert_close(layer.activation(x.clone()), formula(x))


def test_a_layer_is_let_go_as_soon_as_nobody_will_read_it() -> None:
    model = build(yolov3_tiny()).eval()
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def count(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        alive.append(len({id(tensor) for reference in outputs if (tensor := reference()) is not None}))
        outputs.append(weakref.ref(output))

    for layer in model.layers:
        layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.rand(1, 3, 64, 64))
    # Counted when a layer is done: its input; from 10 to 20 layer 8, which 20 reads; from 15 to 17 layer 13, which 17
    # reads; from 17 on what the first head returned.
    assert alive == [0, *[1] * 9, *[2] * 5, *[3] * 6, *[2] * 3]


def test_memory_format_copy_and_pickle_change_nothing() -> None:
    model = build(yolov3_tiny()).eval()
    picture = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = model.predict(picture)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other.predict(picture), expected)
        model.to(memory_format=torch.channels_last)
        actual = model.predict(picture.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_pictures_must_fit_the_coarsest_grid() -> None:
    with pytest.raises(DataError, match="images of 40 x 32 pixels: this model needs multiples of 32"):
        build(yolov3_tiny())(torch.rand(1, 3, 32, 40))


# decode -------------------------------------------------------------------------------------------------------------


def test_decode_of_yolov3_is_the_published_formula() -> None:
    logits = torch.tensor([0.3, -0.7, 0.2, -0.1])
    cx, cy, w, h = decode_boxes(logits, torch.tensor([5.0, 7.0]), torch.tensor([30.0, 61.0]), 16, 1.0, False).tolist()
    # Redmon and Farhadi 2018, section 2.1: bx = sigmoid(tx) + cx, bw = pw exp(tw)
    assert cx == pytest.approx((1 / (1 + math.exp(-0.3)) + 5) * 16)
    assert cy == pytest.approx((1 / (1 + math.exp(0.7)) + 7) * 16)
    assert w == pytest.approx(30 * math.exp(0.2))
    assert h == pytest.approx(61 * math.exp(-0.1))


@given(logits=st.lists(st.floats(-8, 8), min_size=4, max_size=4))
def test_scale_2_with_new_coords_is_the_decode_of_yolov5(logits: list[float]) -> None:
    cell, anchor, stride = torch.tensor([3.0, 9.0]), torch.tensor([30.0, 61.0]), 8
    y = torch.tensor(logits).sigmoid()
    expected = torch.cat([(y[:2] * 2 - 0.5 + cell) * stride, (y[2:] * 2) ** 2 * anchor])
    actual = decode_boxes(torch.tensor(logits), cell, anchor, stride, 2.0, True)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@given(
    inside=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
    ratio=st.tuples(st.floats(0.05, 3.9), st.floats(0.05, 3.9)),
    cell=st.tuples(st.integers(0, 79), st.integers(0, 79)),
    scale=st.sampled_from([1.0, 1.05, 1.2, 2.0]),
    new_coords=st.booleans(),
)
def test_a_box_that_is_encoded_decodes_to_itself(
    inside: tuple[float, float], ratio: tuple[float, float], cell: tuple[int, int], scale: float, new_coords: bool
) -> None:
    grid, anchor, stride = torch.tensor(cell).double(), torch.tensor([12.0, 40.0]).double(), 8
    offset, factor = torch.tensor(inside).double(), torch.tensor(ratio).double()
    box = torch.cat([(grid + offset) * stride, factor * anchor])
    centre = torch.logit((offset + (scale - 1) / 2) / scale)
    sides = torch.logit(factor.sqrt() / 2) if new_coords else factor.log()
    decoded = decode_boxes(torch.cat([centre, sides]), grid, anchor, stride, scale, new_coords)
    torch.testing.assert_close(decoded, box, rtol=1e-9, atol=1e-9)


def test_predictions_are_ordered_by_anchor_row_and_column() -> None:
    model = build(SMALL, nc=2)
    head = model.heads[0]
    raw = torch.zeros(1, 3, 5, 6, 7)
    raw[0, 2, 3, 4, 4] = 9.0
    decoded = decode(raw, head)
    best = int(decoded[0, :, 4].argmax())
    assert best == (2 * 5 + 3) * 6 + 4
    assert decoded[0, best, :4].tolist() == [(4 + 0.5) * 4, (3 + 0.5) * 4, 37, 58]


def test_decode_answers_in_float32_and_never_with_infinity() -> None:
    head = build(SMALL, nc=2).heads[0]
    decoded = decode(torch.full((1, 3, 2, 2, 7), 1e4, dtype=torch.bfloat16), head)
    assert decoded.dtype == torch.float32
    assert decoded.isfinite().all()
    raw = torch.randn(1, 3, 2, 2, 7).bfloat16()
    assert torch.equal(decode(raw, head), decode(raw.float(), head))


def test_logistic_before_a_head_of_new_coords_belongs_to_the_decode() -> None:
    anchors = "8,8"
    file = NET + conv(4) + plain(7, activation="logistic") + yolo("0", anchors, new_coords=1, scale_x_y=2.0)
    model = build(file, nc=2).eval()
    raw = model(torch.rand(1, 3, 4, 4) * 100)[0]
    assert raw.min() < 0
    assert decode(raw, model.heads[0])[..., 4:].min() >= 0


def test_the_gradient_reaches_every_parameter() -> None:
    model = build(yolov3_tiny(), nc=2)
    sum(raw.square().mean() for raw in model(torch.rand(2, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# first biases -------------------------------------------------------------------------------------------------------


def test_an_untrained_head_expects_the_prior() -> None:
    model = build(yolov3_tiny(), nc=80)
    initialise_biases(model, objects=8, imgsz=640)
    for index, stride in ((15, 32), (22, 16)):
        bias = head_bias(model, index).view(3, 85)
        assert bias[:, 4].exp().tolist() == pytest.approx([8 / (640 / stride) ** 2] * 3)
        assert bias[:, 5:].exp().flatten().tolist() == pytest.approx([0.6 / (80 - 0.99999)] * 240)


def test_a_head_with_fewer_cells_than_objects_expects_one_in_two() -> None:
    model = build(yolov3_tiny(), nc=80)
    initialise_biases(model, objects=20, imgsz=160)
    for index, expected in ((15, 0.5), (22, 0.2)):
        assert head_bias(model, index).view(3, 85)[:, 4].exp().tolist() == pytest.approx([expected] * 3)


def test_setting_the_biases_twice_is_setting_them_once() -> None:
    model = build(SMALL, nc=1)
    initialise_biases(model)
    once = head_bias(model, 2).clone()
    initialise_biases(model)
    assert torch.equal(head_bias(model, 2), once)
    assert once.isfinite().all()


# mistakes -----------------------------------------------------------------------------------------------------------


FIRST, LAST, HEAD = "layer 0 [convolutional] (line 6)", "layer 2 [convolutional] (line 20)", "layer 3 [yolo] (line 26)"
ROUTE, SHORTCUT = "layer 3 [route] (line 26)", "layer 3 [shortcut] (line 26)"


@pytest.mark.parametrize(
    ("old", "new", "place", "sentence"),
    [
        ("=leaky", "=leeky", FIRST, "unknown activation 'leeky' (did you mean 'leaky'?)"),
        ("stride=2", "strid=2", FIRST, "unknown option 'strid' (did you mean 'stride'?)"),
        ("channels=3", "chanels=3", "[net] (line 1)", "unknown option 'chanels' (did you mean 'channels'?)"),
        ("[yolo]", "[yola]", "layer 3 [yola] (line 26)", "unknown section [yola] (did you mean 'yolo'?)"),
        ("filters=8", "filters=eight", FIRST, "filters must be a whole number, not 'eight'"),
        ("filters=8", "filters=0", FIRST, "filters must be at least 1, not 0"),
        ("filters=8", "filters", "line 8", "expected [section] or option=value, not 'filters'"),
        ("[net]", "a=3\n[net]", "line 1", "'a=3' stands before the first [section]"),
        (
            "pad=1",
            "pad=0",
            FIRST,
            "size=3, padding=0 changes the picture's side by other than its stride=2 (try pad=1)",
        ),
        ("stride=2", "stride=2\nstride_x=1", FIRST, "stride_x=1, stride_y=2: only equal strides are supported"),
        ("pad=1", "pad=1\nflipped=1", FIRST, "flipped=1 is not supported; leave it out"),
        ("pad=1", "pad=1\nbinary=1", FIRST, "binary=1 is not supported; leave it out"),
        ("pad=1", "pad=1\nxnor=1", FIRST, "xnor=1 is not supported; leave it out"),
        ("pad=1", "pad=1\nshare_index=0", FIRST, "share_index=0 is not supported; leave it out"),
        ("pad=1", "pad=1\ndontload=1", FIRST, "dontload=1 is not supported; leave it out"),
        ("pad=1", "groups=2", FIRST, "groups=2 must divide both its 3 input channels and its 8 filters"),
        ("=linear", "=relu", LAST, "activation=relu cannot stand right before [yolo]; use linear"),
        (
            "size=1",
            "size=1\nbatch_normalize=1",
            LAST,
            "batch_normalize=1 cannot stand right before [yolo], whose numbers need a bias",
        ),
        ("size=1", "size=1\ngroups=16", LAST, "groups must be 1 right before [yolo]"),
        ("0,1,2", "0,1,3", HEAD, "mask asks for anchor 3 (counted from 0), but there are 3"),
        ("0,1,2", "0,0", HEAD, "mask must be different anchor numbers from 0, not '0,0'"),
        ("0,1,2", "a", HEAD, "mask must be whole numbers separated by commas, not 'a'"),
        ("num=3", "num=4", HEAD, "num=4 wants 8 numbers in anchors (width, height of each), not 6"),
        ("10,14", "-10,14", HEAD, "anchors must be sides of more than 0 pixels"),
        ("num=3", "num=3\nscale_x_y=0", HEAD, "scale_x_y must be more than 0, not 0"),
        ("num=3", "num=3\nscale_x_y=nan", HEAD, "scale_x_y must be finite, not 'nan'"),
        ("num=3", "num=3\nscale_x_y=x", HEAD, "scale_x_y must be a number, not 'x'"),
        ("[yolo]", "[route]\nlayers=9\n[yolo]", ROUTE, "layers=9 is no layer before it; layers 0 to 2 are"),
        ("[yolo]", "[route]\ngroups=2\n[yolo]", ROUTE, "layers must name at least one layer"),
        (
            "[yolo]",
            "[route]\nlayers=-1\n[yolo]",
            "layer 4 [yolo] (line 28)",
            "the layer right before [yolo] must be [convolutional]",
        ),
        (
            "[yolo]",
            "[route]\nlayers=1,0\n[yolo]",
            ROUTE,
            "layers 1, 0 have strides 4, 2; only equal ones can be joined",
        ),
        (
            "[yolo]",
            "[route]\nlayers=0\ngroups=3\n[yolo]",
            ROUTE,
            "groups=3 does not divide the 8 channels of layer 0",
        ),
        (
            "[yolo]",
            "[route]\nlayers=0\ngroups=2\ngroup_id=2\n[yolo]",
            ROUTE,
            "group_id=2 must be less than groups=2",
        ),
        (
            "[yolo]",
            "[shortcut]\nfrom=-2\n[yolo]",
            SHORTCUT,
            "layers 2, 1 have 99, 16 channels; only equal ones can be added",
        ),
        (
            "[yolo]",
            "[shortcut]\nfrom=-2\nweights_type=per_channel\n[yolo]",
            SHORTCUT,
            "weights_type=per_channel is not supported; leave it out",
        ),
        ("[yolo]", "[shortcut]\nfrom=-1\nalpha=0.5\n[yolo]", SHORTCUT, "alpha=0.5 is not supported; leave it out"),
        (
            "[yolo]",
            "[dropout]\nprobability=1\n[yolo]",
            "layer 3 [dropout] (line 26)",
            "probability must be at least 0 and less than 1, not 1",
        ),
        (
            "[yolo]",
            "[dropout]\ndropblock=1\n[yolo]",
            "layer 3 [dropout] (line 26)",
            "dropblock=1 is not supported; leave it out",
        ),
        (
            "[yolo]",
            "[maxpool]\nmaxpool_depth=1\n[yolo]",
            "layer 3 [maxpool] (line 26)",
            "maxpool_depth=1 is not supported; leave it out",
        ),
        (
            "[yolo]",
            "[maxpool]\nsize=5\npadding=0\n[yolo]",
            "layer 3 [maxpool] (line 26)",
            "size=5, padding=0 changes the picture's side by other than its stride=1",
        ),
    ],
)
def test_a_mistake_is_one_sentence_that_says_where(old: str, new: str, place: str, sentence: str) -> None:
    assert old in SMALL
    with pytest.raises(DataError) as caught:
        build(SMALL.replace(old, new, 1))
    assert str(caught.value) == f"{place}: {sentence}"


def test_the_first_section_is_net() -> None:
    with pytest.raises(DataError, match=r"the first section must be \[net\], not \[convolutional\] \(line 1\)"):
        build(conv(8))
    with pytest.raises(DataError, match=r"the first section must be \[net\], not no section at all"):
        build("")


def test_what_a_head_returns_cannot_be_read_by_a_layer() -> None:
    with pytest.raises(DataError, match=r"layer 4 \[upsample\] .*: it reads layer 3, a \[yolo\]"):
        build(SMALL + section("upsample", stride=2))


def test_a_network_without_heads_is_refused() -> None:
    with pytest.raises(DataError, match=r"there is no \[yolo\] section, so it detects nothing"):
        build(NET + conv(8))
    with pytest.raises(DataError, match=r"there is no section after \[net\]"):
        build(NET)


@pytest.mark.parametrize("anchors", [[[1.0, 2.0, 3.0]], [[0.0, 4.0]], [[math.nan, 4.0]], [4.0, 4.0]])
def test_anchors_must_be_sides_in_pixels(anchors: object) -> None:
    with pytest.raises(DataError, match="anchors must be rows of width, height > 0 in pixels"):
        Darknet(parse_cfg(SMALL), nc=1, anchors=anchors)  # type: ignore[arg-type]


def test_a_detector_has_a_class() -> None:
    with pytest.raises(DataError, match="at least one class, not 0"):
        build(SMALL, nc=0)


def test_an_unknown_model_is_told_from_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown model 'pikco' \(did you mean 'pico'\?\)"):
        load_model("pikco", nc=1)
    with pytest.raises(DataError, match=r"model '.*mine\.cfg' cannot be read: No such file or directory"):
        load_model(tmp_path / "mine.cfg", nc=1)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_model(tmp_path, nc=1)


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe rubbish", b"[net]\n", b"\n\n# nothing\n"])
def test_a_file_that_is_no_cfg_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.cfg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"model '.*mine\.cfg', "):
        load_model(path, nc=1)


LINES = SMALL.splitlines()


@settings(max_examples=60, deadline=None)
@given(
    where=st.integers(0, len(LINES) - 1),
    value=st.sampled_from(
        ["", "-1", "0", "1", "2", "5", "x", "nan", "1.5", "3,4", "-2,0", "mish", "route", "yolo", "avgpool", "dropout"]
    ),
    how=st.sampled_from(["drop", "twice", "value", "section"]),
)
def test_whatever_a_file_says_it_is_built_or_refused(where: int, value: str, how: str) -> None:
    line = LINES[where]
    changed = {
        "drop": [],
        "twice": [line, line],
        "value": [f"{line.split('=')[0]}={value}"],
        "section": [f"[{value}]", line],
    }[how]
    text = "\n".join([*LINES[:where], *changed, *LINES[where + 1 :]])
    try:
        model = build(text)
    except DataError:
        return
    with torch.no_grad():
        predictions = model.predict(torch.rand(2, model.channels, model.stride * 2, model.stride * 2))
    assert predictions.isfinite().all()
