"""The spaces that come with the package, held against the programs that they mirror."""

import pytest

from search_spaces import available_spaces, dump_hyp, dump_space, load_hyp, load_space

# hyp files of YOLOv5 v7.0 (data/hyps/hyp.scratch-low.yaml) and YOLOv7 (data/hyp.scratch.p5.yaml), line for line
YOLOV5 = {
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 3.0, "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1, "box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "iou_t": 0.2,
    "anchor_t": 4.0, "fl_gamma": 0.0, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1,
    "scale": 0.5, "shear": 0.0, "perspective": 0.0, "flipud": 0.0, "fliplr": 0.5, "mosaic": 1.0, "mixup": 0.0,
    "copy_paste": 0.0,
}  # fmt: skip
YOLOV7 = YOLOV5 | {
    "lrf": 0.1, "cls": 0.3, "obj": 0.7, "translate": 0.2, "scale": 0.9, "mixup": 0.15, "paste_in": 0.15, "loss_ota": 1,
}  # fmt: skip
ULTRALYTICS = {
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005, "warmup_epochs": 3.0, "warmup_momentum": 0.8,
    "box": 7.5, "cls": 0.5, "cls_pw": 0.0, "dfl": 1.5, "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0,
    "translate": 0.1, "scale": 0.5, "shear": 0.0, "perspective": 0.0, "flipud": 0.0, "fliplr": 0.5, "bgr": 0.0,
    "mosaic": 1.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0, "close_mosaic": 10, "optimizer": "AdamW",
}  # fmt: skip
YOLOV3 = {
    "giou": 3.54, "cls": 37.4, "cls_pw": 1.0, "obj": 64.3, "obj_pw": 1.0, "iou_t": 0.2, "lr0": 0.01, "lrf": 0.0005,
    "momentum": 0.937, "weight_decay": 0.0005, "fl_gamma": 0.0, "hsv_h": 0.0138, "hsv_s": 0.678, "hsv_v": 0.36,
    "degrees": 0.0, "translate": 0.0, "scale": 0.0, "shear": 0.0,
}  # fmt: skip

# (gain, low, high) in YOLOv5 v7.0, train.py, `meta`
YOLOV5_META = {
    "lr0": (1, 1e-5, 1e-1), "lrf": (1, 0.01, 1.0), "momentum": (0.3, 0.6, 0.98), "weight_decay": (1, 0.0, 0.001),
    "warmup_epochs": (1, 0.0, 5.0), "warmup_momentum": (1, 0.0, 0.95), "warmup_bias_lr": (1, 0.0, 0.2),
    "box": (1, 0.02, 0.2), "cls": (1, 0.2, 4.0), "cls_pw": (1, 0.5, 2.0), "obj": (1, 0.2, 4.0), "obj_pw": (1, 0.5, 2.0),
    "iou_t": (0, 0.1, 0.7), "anchor_t": (1, 2.0, 8.0), "fl_gamma": (0, 0.0, 2.0), "hsv_h": (1, 0.0, 0.1),
    "hsv_s": (1, 0.0, 0.9), "hsv_v": (1, 0.0, 0.9), "degrees": (1, 0.0, 45.0), "translate": (1, 0.0, 0.9),
    "scale": (1, 0.0, 0.9), "shear": (1, 0.0, 10.0), "perspective": (0, 0.0, 0.001), "flipud": (1, 0.0, 1.0),
    "fliplr": (0, 0.0, 1.0), "mosaic": (1, 0.0, 1.0), "mixup": (1, 0.0, 1.0), "copy_paste": (1, 0.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "hyp"),
    [("yolov3", YOLOV3), ("yolov5", YOLOV5), ("yolov7", YOLOV7), ("ultralytics", ULTRALYTICS)],
)
def test_a_mirrored_space_starts_from_the_original_hyps_in_their_order(name: str, hyp: dict[str, object]) -> None:
    assert list(load_space(name).defaults().items()) == list(hyp.items())


@pytest.mark.parametrize("name", ["yolov5", "yolov7"])
def test_yolov5_and_yolov7_have_the_original_gains_and_bounds(name: str) -> None:
    found = {param.name: (param.gain, *param.bounds) for param in load_space(name).params}
    extra = {"paste_in": (1, 0.0, 1.0)} if name == "yolov7" else {}
    assert found == YOLOV5_META | extra
    assert not any(param.log for param in load_space(name).params)


def test_yolov3_pins_what_the_original_pins_and_clips_where_it_clips() -> None:
    space = load_space("yolov3")
    assert {param.name: param.gain for param in space.params if param.gain != 1} == {
        "lrf": 0, "momentum": 0.1, "fl_gamma": 0
    }  # fmt: skip
    clipped = {p.name: p.bounds for p in space.params if "unclipped" not in p.comment}
    assert clipped == {
        "iou_t": (0, 0.7), "lr0": (1e-5, 1e-2), "momentum": (0.6, 0.98), "weight_decay": (0, 0.001), "fl_gamma": (0, 3),
        "hsv_s": (0, 0.9), "hsv_v": (0, 0.9), "translate": (0, 0.9), "scale": (0, 0.9),
    }  # fmt: skip


def test_ultralytics_tunes_26_hyps_under_adamw() -> None:
    space = load_space("ultralytics")
    assert len(space.params) == 26
    assert dict(space.fixed) == {"optimizer": "AdamW"}
    assert space["close_mosaic"].kind == "int"
    assert {p.name for p in space.params if p.gain != 1} == {"momentum"}
    assert {name: space[name].bounds for name in ("lr0", "momentum", "box", "cls", "cls_pw", "dfl", "scale")} == {
        "lr0": (1e-5, 1e-2), "momentum": (0.7, 0.98), "box": (1, 20), "cls": (0.1, 4), "cls_pw": (0, 1),
        "dfl": (0.4, 12), "scale": (0, 0.95),
    }  # fmt: skip


def test_the_default_space_has_yolov5s_bounds_and_pins_nothing() -> None:
    space = load_space("detection")
    assert set(space.names) == set(YOLOV5) - {"iou_t"} | {"label_smoothing"}
    assert space.evolving == space.params
    for param in space.params:
        if param.name != "label_smoothing":
            assert param.bounds == YOLOV5_META[param.name][1:], param.name
    assert [p.name for p in space.params if p.log] == ["lr0", "lrf", "box", "cls", "cls_pw", "obj", "obj_pw"]
    assert {p.name: p.needs for p in space.params if p.needs} == {
        "warmup_momentum": "warmup_epochs", "warmup_bias_lr": "warmup_epochs", "mixup": "mosaic"
    }  # fmt: skip


@pytest.mark.parametrize("name", available_spaces())
def test_every_hyp_says_what_it_does(name: str) -> None:
    assert [param.name for param in load_space(name).params if not param.comment] == []


@pytest.mark.parametrize("name", available_spaces())
def test_a_shipped_space_and_its_hyp_come_back_from_their_files(name: str, tmp_path) -> None:
    space = load_space(name)
    (tmp_path / f"{name}-copy.yaml").write_text(dump_space(space))
    (tmp_path / "hyp.yaml").write_text(dump_hyp(space.defaults(), ["base"]))
    assert load_space(tmp_path / f"{name}-copy.yaml").to_dict()["hyps"] == space.to_dict()["hyps"]
    assert space.with_base(load_hyp(tmp_path / "hyp.yaml")) == space


@pytest.mark.parametrize("name", available_spaces())
def test_every_default_survives_the_rounding_that_a_trained_hyp_gets(name: str) -> None:
    for param in load_space(name).params:
        assert param.round_value(param.default) == param.default
