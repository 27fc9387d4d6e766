"""Weights into a model and out of it: Darknet's files byte for byte, torch's files by name, and what does not fit."""

from __future__ import annotations

import json
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import opencv_golden
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.api import DataError
from trainer.detection.darknet import Convolution, Darknet, decode, load_model, parse_cfg, read_cfg
from trainer.detection.weights import Header, Taken, load_weights, read_header, save_darknet_weights

BLOCK = "[convolutional]\nbatch_normalize=1\nfilters={}\nsize=3\nstride=2\npad=1\nactivation=leaky\n"
HEAD = "[convolutional]\nfilters=255\nsize=1\nactivation=linear\n[yolo]\nmask={}\nclasses=80\nnum=6\nanchors={}\n"
ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"
NET = "[net]\nchannels=3\n"
SMALL = (
    NET + BLOCK.format(4) + BLOCK.format(6) + HEAD.format("3,4,5", ANCHORS) + "[route]\nlayers=0\n"
    "[convolutional]\nfilters=5\nsize=1\nactivation=leaky\n" + HEAD.format("0,1,2", ANCHORS)
)  # layers 0, 1; 2 and 3 the first head; 4; 5; 6 and 7 the second


def build(nc: int = 80, cfg: str = SMALL, channels: int | None = None) -> Darknet:
    """A model whose every number, also of its batch statistics, is drawn at random."""
    model = Darknet(parse_cfg(cfg), nc, channels=channels)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.endswith("anchors"):
            tensor.copy_(torch.rand_like(tensor))
    return model


def states_differ(one: Darknet, other: Darknet) -> set[str]:
    """Names of the tensors that are not equal, without what Darknet does not know."""
    other_state = other.state_dict()
    return {
        name
        for name, tensor in one.state_dict().items()
        if not name.endswith(("num_batches_tracked", "anchors")) and not torch.equal(tensor, other_state[name])
    }


def frozen_copy(model: Darknet) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_unchanged(model: Darknet, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# Darknet's files ----------------------------------------------------------------------------------------------------


def test_a_darknet_file_is_read_in_darknets_order(tmp_path: Path) -> None:
    cfg = NET + BLOCK.format(2) + "[convolutional]\nfilters=6\nsize=1\nactivation=linear\n[yolo]\nmask=0\nanchors=8,8\n"
    model = build(1, cfg)
    beta, gamma, mean, variance = [0.1, 0.2], [1.1, 1.2], [2.1, 2.2], [3.1, 3.2]
    kernel = np.arange(2 * 3 * 3 * 3, dtype=np.float32)
    bias, head = np.arange(6, dtype=np.float32), np.arange(12, dtype=np.float32)
    file = tmp_path / "a.weights"
    numbers = np.concatenate([beta, gamma, mean, variance, kernel, bias, head]).astype("<f4")
    file.write_bytes(struct.pack("<iiiQ", 0, 2, 0, 32_013_312) + numbers.tobytes())

    assert read_header(file) == Header(0, 2, 0, 32_013_312)
    taken = load_weights(model, file, cfg)

    assert taken.left_out == ()
    first, second = model.layers[0], model.layers[1]
    assert isinstance(first, Convolution)
    assert isinstance(second, Convolution)
    for actual, expected in (
        (first.norm.bias, beta),
        (first.norm.weight, gamma),
        (first.norm.running_mean, mean),
        (first.norm.running_var, variance),
        (first.conv.weight, kernel.reshape(2, 3, 3, 3)),
        (second.conv.bias, bias),
        (second.conv.weight, head.reshape(6, 2, 1, 1)),
    ):
        assert isinstance(actual, torch.Tensor)
        torch.testing.assert_close(actual.detach(), torch.tensor(np.array(expected), dtype=torch.float32))


def test_cfg_and_weights_predict_what_opencv_makes_of_them(tmp_path: Path) -> None:
    model = Darknet(parse_cfg(opencv_golden.CFG), nc=2).eval()
    opencv_golden.write_weights(tmp_path / "a.weights")
    assert load_weights(model, tmp_path / "a.weights", opencv_golden.CFG).left_out == ()
    with torch.no_grad():
        raw = model(torch.from_numpy(opencv_golden.picture()))
    golden = json.loads(opencv_golden.GOLDEN.read_text(encoding="utf-8"))
    for part, head, expected in zip(raw, model.heads, map(torch.tensor, golden["heads"]), strict=True):
        side = opencv_golden.SIDE // head.stride
        rows = decode(part, head).view(3, side, side, 7).permute(1, 2, 0, 3).reshape(-1, 7)
        classes = rows[:, 5:] * rows[:, 4:5]
        torch.testing.assert_close(rows[:, :4] / opencv_golden.SIDE, expected[:, :4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(rows[:, 4], expected[:, 4], rtol=1e-4, atol=1e-5)
        told = expected[:, 5:] > 0
        assert told.sum() > 10
        torch.testing.assert_close(classes[told], expected[:, 5:][told], rtol=1e-4, atol=1e-5)
        assert classes[~told].max() < 0.2 + 1e-5


@pytest.mark.parametrize(
    "header",
    [Header(), Header(0, 2, 0, 2**40 + 7), Header(0, 1, 0, 12_800), Header(1, 0, 3, 2**64 - 1), Header(0, 0, 9, 5)],
)
def test_a_darknet_file_survives_byte_for_byte(tmp_path: Path, header: Header) -> None:
    first, again = tmp_path / "first.weights", tmp_path / "again.weights"
    model, other = build(), build()
    save_darknet_weights(model, first, header)
    assert load_weights(other, first, SMALL).left_out == ()
    assert states_differ(model, other) == set()
    save_darknet_weights(other, again, read_header(first))
    assert again.read_bytes() == first.read_bytes()
    assert first.read_bytes()[:12] == struct.pack("<iii", header.major, header.minor, header.revision)


@pytest.mark.parametrize(
    ("name", "file", "cutoff", "size"),
    [
        ("yolov3-tiny", "yolov3-tiny.weights", None, 35_434_956),
        ("yolov3", "yolov3.weights", None, 248_007_048),
        ("yolov3", "darknet53.conv.74", 74, 162_482_580),
        ("yolov3-spp", "yolov3-spp.weights", None, 252_209_544),
        ("yolov4-tiny", "yolov4-tiny.weights", None, 24_251_276),
        ("yolov4-tiny", "yolov4-tiny.conv.29", 29, 19_789_716),
    ],
)
def test_the_files_have_the_published_sizes(
    tmp_path: Path, name: str, file: str, cutoff: int | None, size: int
) -> None:
    # In bytes, of the files that pjreddie.com and the releases of AlexeyAB/darknet offer for 80 classes.
    with torch.device("meta"):
        model = load_model(name, nc=80, anchors=np.ones((9, 2)))
    path = tmp_path / file
    save_darknet_weights(model.to_empty(device="cpu"), path, cutoff=cutoff)
    assert path.stat().st_size == size
    path.unlink()  # pytest keeps folders


def test_weights_of_other_classes_are_taken_without_the_heads(tmp_path: Path) -> None:
    file = tmp_path / "coco.weights"
    coco, ours = build(80), build(3)
    before = frozen_copy(ours)
    save_darknet_weights(coco, file)
    taken = load_weights(ours, file, SMALL)

    heads = {f"layers.{number}.conv.{kind}" for number in (2, 6) for kind in ("bias", "weight")}
    assert {name for name, _ in taken.left_out} == heads
    assert ("layers.2.conv.weight", "shape 255x6x1x1 in the file, 24x6x1x1 here") in taken.left_out
    assert all(torch.equal(ours.state_dict()[name], before[name]) for name in heads)
    assert all(torch.equal(ours.state_dict()[name], coco.state_dict()[name]) for name in taken.taken)
    assert set(taken.taken) | heads == states_differ(coco, build(80))
    assert taken.summary() == (
        "took 12 of 16 tensors from coco.weights (left out: layers.2.conv.weight: shape 255x6x1x1 in the file, 24x6x1x1"
        " here; layers.2.conv.bias and 1 more: shape 255 in the file, 24 here; layers.6.conv.weight: shape 255x5x1x1 in"
        " the file, 24x5x1x1 here)"
    )


@pytest.mark.parametrize(("of_file", "of_model"), [(3, 3), (7, 3), (80, 80), (1, 80)])
def test_the_size_of_a_whole_file_tells_its_classes(tmp_path: Path, of_file: int, of_model: int) -> None:
    file = tmp_path / "some.weights"
    theirs, ours = build(of_file), build(of_model)
    save_darknet_weights(theirs, file)
    taken = load_weights(ours, file, SMALL)
    heads = {"layers.2.conv.bias", "layers.2.conv.weight", "layers.6.conv.bias", "layers.6.conv.weight"}
    assert {name for name, _ in taken.left_out} == (set() if of_file == of_model else heads)
    assert all(torch.equal(ours.state_dict()[name], theirs.state_dict()[name]) for name in taken.taken)


def test_a_cfg_that_was_edited_for_its_classes_is_taken_at_its_word(tmp_path: Path) -> None:
    cfg = SMALL.replace("classes=80", "classes=2").replace("filters=255", "filters=21")
    file = tmp_path / "two.weights"
    theirs, ours = build(2), build(5, cfg)
    save_darknet_weights(theirs, file, cutoff=4)
    assert set(load_weights(ours, file, cfg).taken) == {
        f"layers.{layer}.{kind}"
        for layer in (0, 1)
        for kind in ("conv.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    }


@pytest.mark.parametrize("cutoff", [1, 2, 6])
@pytest.mark.parametrize("nc", [80, 3])
def test_a_partial_file_gives_its_first_layers(tmp_path: Path, cutoff: int, nc: int) -> None:
    theirs, ours = build(nc), build(nc)
    before = frozen_copy(ours)
    for name in (f"small.conv.{cutoff}", "cut.weights"):
        save_darknet_weights(theirs, tmp_path / name, cutoff=cutoff)
        taken = load_weights(ours, tmp_path / name, SMALL)
        assert {name.split(".")[1] for name in taken.taken} == {str(n) for n in (0, 1, 2, 5, 6) if n < cutoff}
        assert {reason for _, reason in taken.left_out} == {"not in the file"}
        assert all(torch.equal(ours.state_dict()[name], theirs.state_dict()[name]) for name in taken.taken)
        assert all(torch.equal(ours.state_dict()[name], before[name]) for name, _ in taken.left_out)


def test_colour_weights_go_into_a_grey_model_but_for_the_first_kernel(tmp_path: Path) -> None:
    file = tmp_path / "colour.weights"
    theirs, ours = build(80), build(3, channels=1)
    save_darknet_weights(theirs, file)
    taken = load_weights(ours, file, SMALL)
    assert ("layers.0.conv.weight", "shape 4x3x3x3 in the file, 4x1x3x3 here") in taken.left_out
    assert {"layers.0.norm.bias", "layers.1.conv.weight"} <= set(taken.taken)
    assert torch.equal(ours.state_dict()["layers.1.conv.weight"], theirs.state_dict()["layers.1.conv.weight"])


def test_every_built_in_cfg_can_be_saved_and_read_again(tmp_path: Path) -> None:
    for name in ("pico", "nano", "yolov4-tiny"):
        model, other, file = load_model(name, 3), load_model(name, 3), tmp_path / f"{name}.weights"
        save_darknet_weights(model, file)
        assert load_weights(other, file, read_cfg(name)).left_out == ()
        assert states_differ(model, other) == set()


def test_a_model_of_half_precision_is_saved_in_float32(tmp_path: Path) -> None:
    model = build()
    save_darknet_weights(model.bfloat16(), tmp_path / "half.weights")
    assert load_weights(other := build(), tmp_path / "half.weights", SMALL).left_out == ()
    assert states_differ(model.float(), other) == set()


def whole_file(tmp_path: Path, nc: int = 80) -> bytes:
    save_darknet_weights(build(nc), tmp_path / "whole.weights")
    return (tmp_path / "whole.weights").read_bytes()


LAYER_0 = 4 * 4 + 4 * 3 * 9


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("a.weights", lambda b: b[: 20 + 40], "was made for another cfg or is cut off: it ends within layer 0, 114"),
        (
            "a.weights",
            lambda b: b[:-4],
            "was made for another cfg or is cut off: it ends within layer 6, 1 numbers short",
        ),
        ("a.weights", lambda b: b[:-2], "is cut off within a number: it has "),
        ("a.weights", lambda b: b + bytes(4), "was made for another cfg or is cut off: it holds "),
        ("a.conv.1", lambda b: b[: 24 + 4 * LAYER_0], "it holds 125 numbers, and this cfg has 124 up to layer 0"),
        ("a.conv.0", lambda b: b, "is named for the first 0 layers, which have no weights in this cfg"),
        ("a.weights", lambda b: b[:20], "it ends within layer 0, 124 numbers short"),
        ("a.weights", lambda b: b[:18], "is no Darknet file of weights: it ends within its header"),
        ("a.weights", lambda b: b[:9], "is no Darknet file of weights: it has 9 bytes"),
        ("a.weights", lambda b: b"PK\x03\x04" + b, "is no Darknet file of weights: it begins with version 67324752.0"),
        ("a.weights", lambda b: b[:20] + b"\xff" * 4 + b[24:], "is broken: layers.0.norm.bias holds numbers that are"),
        ("a.weights", lambda b: b[:68] + struct.pack("<f", -1) + b[72:], "layers.0.norm.running_var holds variances"),
        ("a.bin", lambda b: b, "weights must be a .weights, .conv.N, .pt or .pth file, got 'a.bin'"),
        ("a.pt", lambda b: b, "a.pt is broken or no file of torch"),
        ("a.pt", lambda b: b"<!DOCTYPE html><html>", "a.pt is broken or no file of torch"),
        ("a.pt", lambda b: b"", "is broken or no file of torch: "),
    ],
)
def test_a_darknet_file_that_is_broken_is_refused_and_changes_nothing(
    tmp_path: Path, name: str, change: object, sentence: str
) -> None:
    assert callable(change)
    (tmp_path / name).write_bytes(change(whole_file(tmp_path)))
    model = build()
    before = frozen_copy(model)
    with pytest.raises(DataError) as caught:
        load_weights(model, tmp_path / name, SMALL)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert is_unchanged(model, before)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_file_that_was_cut_anywhere_is_taken_up_to_a_layer_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    content = whole_file(folder)
    size = data.draw(st.integers(0, len(content) - 1))
    (folder / "cut.weights").write_bytes(content[:size])
    ends = {20 + 4 * n for n in (124, 124 + 24 + 4 * 54, 124 + 240 + 255 * 7, 124 + 240 + 255 * 7 + 25)}
    one_class, two_classes = (len(whole_file(folder, nc)) for nc in (1, 2))
    ends |= set(range(one_class, len(content), two_classes - one_class))  # as long as a whole one of fewer classes
    try:
        taken = load_weights(build(), folder / "cut.weights", SMALL)
    except DataError:
        assert size not in ends
        return
    assert size in ends
    assert taken.left_out


@pytest.mark.parametrize("name", ["none.weights", "none.pt", "folder.weights", "folder.pt"])
def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.weights").mkdir()
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(DataError, match=r"cannot be read: (No such file or directory|Is a directory)"):
        load_weights(build(), tmp_path / name, SMALL)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "kept.weights"
    file.write_bytes(b"old")
    with torch.device("meta"):
        empty = load_model("pico", 1, anchors=np.ones((6, 2)))
    with pytest.raises(NotImplementedError):  # there is nothing to copy out of meta tensors
        save_darknet_weights(empty, file)
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.weights"]


# torch's files ------------------------------------------------------------------------------------------------------


def wrap_as(how: str, model: Darknet) -> object:
    state = model.state_dict()
    return {
        "bare": state,
        "ours": {"weights": dict(state), "names": ["a"], "hyp": {"lr0": 0.1}, "metrics": None},
        "model": {"model": state, "epoch": 3},
        "ema": {"epoch": 3, "ema": OrderedDict(state), "model": build(80).state_dict()},
        "state_dict": {"state_dict": state, "model": None},
        "parallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "compiled": {"model": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()}},
        "half": {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
    }[how]


@pytest.mark.parametrize("how", ["bare", "ours", "model", "ema", "state_dict", "parallel", "compiled", "half"])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_torch_file_is_taken_by_name_and_shape(tmp_path: Path, how: str, suffix: str) -> None:
    theirs, ours = build(3), build(3)
    torch.save(wrap_as(how, theirs), tmp_path / f"a{suffix}")
    taken = load_weights(ours, tmp_path / f"a{suffix}", SMALL)
    assert taken.left_out == ()
    assert taken.summary() == f"took 16 of 16 tensors from a{suffix}"
    if how == "half":
        theirs = theirs.half().float()
    assert states_differ(theirs, ours) == set()


def test_a_torch_file_of_other_classes_is_taken_without_the_heads(tmp_path: Path) -> None:
    theirs, ours = build(80), build(3)
    torch.save({"weights": theirs.state_dict()}, tmp_path / "a.pt")
    taken = load_weights(ours, tmp_path / "a.pt", SMALL)
    assert len(taken.taken) == 12
    assert ("layers.6.conv.bias", "shape 255 in the file, 24 here") in taken.left_out


def test_what_a_torch_file_lacks_stays_and_what_it_has_besides_is_ignored(tmp_path: Path) -> None:
    theirs, ours = build(3), build(3)
    before = frozen_copy(ours)
    state = theirs.state_dict()
    del state["layers.0.norm.bias"]
    state["layers.1.norm.bias"] = torch.ones(6, dtype=torch.int64)
    state["layers.99.conv.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "a.pt")
    taken = load_weights(ours, tmp_path / "a.pt", SMALL)
    assert taken.left_out == (
        ("layers.0.norm.bias", "not in the file"),
        ("layers.1.norm.bias", "int64 in the file, not floating point"),
    )
    assert states_differ(theirs, ours) == {"layers.0.norm.bias", "layers.1.norm.bias"}
    assert torch.equal(ours.state_dict()["layers.0.norm.bias"], before["layers.0.norm.bias"])


def test_anchors_are_taken_only_where_that_is_asked(tmp_path: Path) -> None:
    theirs = Darknet(parse_cfg(SMALL), 3, anchors=np.arange(1, 13).reshape(6, 2))
    ours = build(3)
    torch.save(theirs.state_dict(), tmp_path / "a.pt")
    fitted = ours.heads[0].anchors.clone()
    assert "layers.3.anchors" not in load_weights(ours, tmp_path / "a.pt", SMALL).taken
    assert torch.equal(ours.heads[0].anchors, fitted)
    assert "layers.3.anchors" in load_weights(ours, tmp_path / "a.pt", SMALL, anchors=True).taken
    assert ours.heads[0].anchors.tolist() == [[7, 8], [9, 10], [11, 12]]


class Hostile:
    """A pickle that would write a file if it was ever run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    file, touched = tmp_path / "a.pt", tmp_path / "touched"
    if how == "torch":
        torch.save({"weights": build(3).state_dict(), "extra": Hostile(touched)}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(touched), protocol=2))
    with pytest.raises(
        DataError, match=r"a\.pt is no state_dict: besides tensors .* it holds getattr, and to"
    ) as caught:
        load_weights(build(3), file, SMALL)
    assert "\n" not in str(caught.value)
    assert not touched.exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_torch_file_that_was_cut_is_refused(tmp_path: Path, part: float) -> None:
    file = tmp_path / "a.pt"
    torch.save(build(3).state_dict(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DataError, match=r"a\.pt is broken or no file of torch"):
        load_weights(build(3), file, SMALL)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3}, "holds no tensors, neither at its top nor under weights, ema, model, state_dict"),
        ([torch.ones(3)], "holds no tensors"),
        ({"fc.weight": torch.ones(3)}, "fits this model (layers.0.conv.weight: not in the file)"),
        ({"layers.0.norm.bias": torch.full((4,), torch.nan)}, "layers.0.norm.bias holds numbers that are not finite"),
        ({"layers.0.norm.running_var": -torch.ones(4)}, "layers.0.norm.running_var holds variances below 0"),
    ],
)
def test_a_torch_file_without_usable_weights_is_refused(tmp_path: Path, content: object, sentence: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(DataError) as caught:
        load_weights(build(3), tmp_path / "a.pt", SMALL)
    assert sentence in str(caught.value)


def test_the_summary_counts_what_is_left_out_for_one_reason() -> None:
    left_out = (("a", "not in the file"), ("b", "shape 1 in the file, 2 here"), ("c", "not in the file"))
    assert Taken("x.pt", ("d",), left_out).summary() == (
        "took 1 of 4 tensors from x.pt (left out: a and 1 more: not in the file; b: shape 1 in the file, 2 here)"
    )
