"""Dead hyps: those that can change nothing with this data and these options, so that nobody searches them for nothing.

Every other hyp reaches the loss, the optimizer or the pictures of some batch (tests/trainer/test_hyp_effects.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from trainer.api import Hyp, TrainOptions

NEEDS: Mapping[str, str] = {
    "mixup": "mosaic",  # only mosaics are mixed
    "warmup_momentum": "warmup_epochs",
    "warmup_bias_lr": "warmup_epochs",
}
"""Hyps that change nothing while another one is 0."""


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
    return {name: f"{other} is 0" for name, other in NEEDS.items() if fixed.get(other) == 0} | found


def explain(reason: str, *names: str) -> Mapping[str, str]:
    """Several hyps that are dead for one reason."""
    return dict.fromkeys(names, reason)
