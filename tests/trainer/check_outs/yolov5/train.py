"""Stands in for YOLOv5's train.py (v7.0): its flags and no others, its hyp file, its results.csv. Learns nothing."""

# ruff: noqa: SIM905, T201

import argparse
import math
import random
import re
from pathlib import Path

import yaml

HYPS = (
    "lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw "
    "iou_t anchor_t fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic "
    "mixup copy_paste"
).split()
KEYS = (
    "train/box_loss train/obj_loss train/cls_loss metrics/precision metrics/recall metrics/mAP_0.5 "
    "metrics/mAP_0.5:0.95 val/box_loss val/obj_loss val/cls_loss x/lr0 x/lr1 x/lr2"
).split()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=True)
    parser.add_argument("--weights", type=str, default="yolov5s.pt")
    parser.add_argument("--cfg", type=str, default="")
    parser.add_argument("--data", type=str, default="data/coco128.yaml")
    parser.add_argument("--hyp", type=str, default="data/hyps/hyp.scratch-low.yaml")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--imgsz", "--img", "--img-size", type=int, default=640)
    parser.add_argument("--resume", nargs="?", const=True, default=False)
    parser.add_argument("--evolve", type=int, nargs="?", const=300)
    parser.add_argument("--bucket", type=str, default="")
    parser.add_argument("--cache", type=str, nargs="?", const="ram")
    parser.add_argument("--device", default="")
    parser.add_argument("--optimizer", type=str, choices=["SGD", "Adam", "AdamW"], default="SGD")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--project", default="runs/train")
    parser.add_argument("--name", default="exp")
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--patience", type=int, default=100)
    parser.add_argument("--freeze", nargs="+", type=int, default=[0])
    parser.add_argument("--save-period", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("--entity", default=None)
    parser.add_argument("--upload_dataset", nargs="?", const=True, default=False)
    parser.add_argument("--bbox_interval", type=int, default=-1)
    parser.add_argument("--artifact_alias", type=str, default="latest")
    for flag in ("rect", "nosave", "noval", "noautoanchor", "noplots", "image-weights", "multi-scale", "single-cls"):
        parser.add_argument(f"--{flag}", action="store_true")
    for flag in ("sync-bn", "exist-ok", "quad", "cos-lr"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args()


def main(opt: argparse.Namespace) -> None:
    print("train:", vars(opt))
    assert not opt.noval, "nothing to prune by"
    assert opt.cfg or opt.weights, "either --cfg or --weights must be specified"
    assert re.fullmatch(r"cpu|\d+(,\d+)*", opt.device), f"Invalid CUDA '--device {opt.device}' requested"
    assert yaml.safe_load(Path(opt.data).read_text())["nc"]
    save_dir = Path(opt.project) / opt.name
    assert opt.exist_ok or not save_dir.exists(), "it would be numbered"
    weights = save_dir / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    hyp = yaml.safe_load(Path(opt.hyp).read_text())
    used = {name: hyp[name] for name in HYPS}
    assert all(isinstance(value, int | float) for value in used.values()), used
    (save_dir / "hyp.yaml").write_text(yaml.safe_dump(hyp, sort_keys=False))
    rng = random.Random(opt.seed)
    for epoch in range(opt.epochs):
        quality = math.exp(-(math.log10(used["lr0"] / 0.03) ** 2)) * (1 - math.exp(-(epoch + 1) / 3))
        score = quality * rng.uniform(0.9, 1.0)
        values = [0.1, 0.2, 0.3, score, score / 2, score / 3, score / 5, 0.1, 0.2, 0.3, 0.01, 0.01, 0.01]
        file = save_dir / "results.csv"
        n = len(KEYS) + 1
        header = "" if file.exists() else ("%20s," * n % ("epoch", *KEYS)).rstrip(",") + "\n"
        with open(file, "a") as results:
            results.write(header + ("%20.5g," * n % (epoch, *values)).rstrip(",") + "\n")
        if not opt.nosave or epoch + 1 == opt.epochs:
            (weights / "last.pt").write_text(str(epoch))
    if not opt.noplots:
        (save_dir / "results.png").touch()


main(parse())
