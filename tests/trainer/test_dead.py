"""Dead hyps: what is said to be without effect, and why. That it is true, tests/trainer/test_hyp_effects.py holds."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.api import TrainOptions
from trainer.detection.dead import dead_hyps
from trainer.detection.recipe import HYPS

ALIVE: dict[str, Any] = {"nc": 3, "has_polygons": True}


def test_where_nothing_stands_against_it_only_iou_t_is_dead() -> None:
    assert dead_hyps(TrainOptions(), **ALIVE) == {"iou_t": "boxes are matched by anchor_t"}


@pytest.mark.parametrize(
    ("options", "world", "names", "reason"),
    [
        ({}, {"nc": 1}, {"cls", "cls_pw", "label_smoothing"}, "one class"),
        ({"single_cls": True}, {}, {"cls", "cls_pw", "label_smoothing"}, "one class"),
        ({}, {"has_polygons": False}, {"copy_paste"}, "polygon"),
        ({}, {"has_colour": False}, {"hsv_h", "hsv_s"}, "grey"),
        ({"rect": True}, {}, {"mosaic", "mixup"}, "rect"),
        ({}, {"fixed": {"mosaic": 0.0}}, {"mixup"}, "mosaic is 0"),
        ({}, {"fixed": {"mosaic": 0.1}}, set(), ""),
        ({}, {"fixed": {"warmup_epochs": 0}}, {"warmup_momentum", "warmup_bias_lr"}, "warmup_epochs is 0"),
    ],
)
def test_each_reason_kills_its_own(
    options: dict[str, Any], world: dict[str, Any], names: set[str], reason: str
) -> None:
    dead = dead_hyps(TrainOptions(**options), **ALIVE | world)
    assert set(dead) == names | {"iou_t"} and set(dead) <= HYPS
    assert all(reason in dead[name] and len(dead[name]) < 60 for name in names)
