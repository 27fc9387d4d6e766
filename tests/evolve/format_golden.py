"""One hyp in every format: `python tests/evolve/format_golden.py` writes the files of golden/ that the tests read.

They change when a format is meant to change, and are then to be read line by line: other programs take them.
"""

from __future__ import annotations

from pathlib import Path

from evolve.config import EvolveConfig, complete
from evolve.dialects import EVOLVE, Told, translate
from evolve.formats import FORMATS, Format

GOLDEN = Path(__file__).parent / "golden"
CONFIG = complete(EvolveConfig(data="sets/cells.yaml", model="nano", imgsz=160, epochs=20, optimizer="sgd", seed=7))
HYP = {
    "lr0": 0.0082712,
    "lrf": 0.049226,
    "momentum": 0.80313,
    "weight_decay": 0.00056101,
    "warmup_epochs": 3.6441,
    "warmup_momentum": 0.57622,
    "warmup_bias_lr": 0.025053,
    "box": 0.035894,
    "cls": 0.7711,
    "cls_pw": 0.56409,
    "obj": 1.3519,
    "obj_pw": 0.67431,
    "anchor_t": 2.5722,
    "fl_gamma": 0.0,
    "label_smoothing": 0.11663,
    "hsv_h": 0.017029,
    "hsv_s": 0.70773,
    "hsv_v": 0.1414,
    "degrees": 0.16249,
    "translate": 0.1983,
    "scale": 0.22059,
    "shear": 0.34812,
    "perspective": 0.00033999,
    "flipud": 0.054387,
    "fliplr": 0.044893,
    "mosaic": 0.98837,
    "mixup": 0.17112,
    "copy_paste": 0.0,
}
"""What the first study of the README found."""


def told(wanted: Format) -> Told:
    return Told(HYP) if wanted.dialect is None else translate(HYP, EVOLVE, wanted.dialect, {"optimizer": "SGD"})


def text_of(wanted: Format) -> str:
    """The file in that format, its header being the title and the command alone."""
    header = [f"Hyps for {wanted.title}.", wanted.use(wanted.file, CONFIG, told(wanted)), ""]
    return wanted.write(told(wanted).hyp, header, CONFIG)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for known in FORMATS.values():
        (GOLDEN / known.file).write_text(text_of(known), encoding="utf-8")
