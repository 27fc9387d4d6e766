"""Dead hyps: those that can change nothing with this data and these options, so that nobody searches them for nothing.

Every other hyp reaches the loss, the optimizer or the pictures of some batch (tests/trainer/test_hyp_effects.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.api import Hyp, TrainOptions


def dead_hyps(
    options: TrainOptions, *, nc: int, has_polygons: bool, has_colour: bool = True, fixed: Hyp | None = None
) -> dict[str, str]:
    """Names of hyps without an effect, each with the reason in a few words.

    `nc` classes; whether any training box has a polygon, and any training picture a colour that is no grey (see
    Pictures). `fixed` are hyps that keep one value in the whole study, where that is known.
    """
    fixed = fixed or {}
    found: dict[str, str] = {"iou_t": "boxes are matched by anchor_t"}
    if nc == 1 or options.single_cls:
        found |= explain("there is one class, and so no class loss", "cls", "cls_pw", "label_smoothing")
    if not has_polygons:
        found |= explain("no box has a polygon", "copy_paste")
    if not has_colour:
        found |= explain("all pictures are grey", "hsv_h", "hsv_s")
    if options.rect:
        found |= explain("rect shows every picture alone", "mosaic", "mixup")
    elif fixed.get("mosaic") == 0:
        found |= explain("only mosaics are mixed, and mosaic is 0", "mixup")
    if fixed.get("warmup_epochs") == 0:
        found |= explain("there is no warm-up: warmup_epochs is 0", "warmup_momentum", "warmup_bias_lr")
    return found


def explain(reason: str, *names: str) -> Mapping[str, str]:
    """Several hyps that are dead for one reason."""
    return dict.fromkeys(names, reason)
