"""Stands in for YOLOv3's train.py (branch archive): its flags and no others, hyp*.txt, results.txt. Learns nothing."""

# ruff: noqa: SIM905, T201

import argparse
import glob
import math
import os
import re
from pathlib import Path

import numpy as np

results_file = "results.txt"
hyp = dict.fromkeys(
    (
        "giou cls cls_pw obj obj_pw iou_t lr0 lrf momentum weight_decay "
        "fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear"
    ).split(),
    0.5,
)

f = glob.glob("hyp*.txt")
if f:
    print(f"Using {f[0]}")
    for k, v in zip(hyp.keys(), np.loadtxt(f[0]), strict=False):
        hyp[k] = v


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cfg", type=str, default="cfg/yolov3-spp.cfg")
    parser.add_argument("--data", type=str, default="data/coco2017.data")
    parser.add_argument("--img-size", nargs="+", type=int, default=[320, 640])
    parser.add_argument("--bucket", type=str, default="")
    parser.add_argument("--weights", type=str, default="weights/yolov3-spp-ultralytics.pt")
    parser.add_argument("--name", default="")
    parser.add_argument("--device", default="")
    for flag in ("multi-scale", "rect", "resume", "nosave", "notest", "evolve", "cache-images", "adam", "single-cls"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--freeze-layers", action="store_true")
    return parser.parse_args()


def check_file(file: str) -> str:
    if os.path.isfile(file):
        return file
    files = glob.glob("./**/" + file, recursive=True)
    assert files, f"File Not Found: {file}"
    return files[0]


def main(opt: argparse.Namespace) -> None:
    print(opt)
    assert not opt.notest, "nothing to prune by"
    cfg, data = check_file(opt.cfg), check_file(opt.data)
    assert len(opt.img_size) in (2, 3)
    assert re.fullmatch(r"|cpu|\d+(,\d+)*", opt.device), f"CUDA unavailable, invalid device {opt.device} requested"
    for file in glob.glob("*_batch*.jpg") + glob.glob(results_file):
        os.remove(file)
    told = dict(line.split("=") for line in Path(data).read_text().splitlines() if line and not line.startswith("#"))
    paths = {key.strip(): value.strip() for key, value in told.items()}
    for key in ("train", "valid", "names"):
        assert Path(paths[key]).is_file(), f"{paths[key]} does not exist"
    print("model", Path(cfg).read_text().strip(), "hyp", {name: float(value) for name, value in hyp.items()})
    for epoch in range(opt.epochs):
        score = math.exp(-(math.log10(hyp["lr0"] / 0.003) ** 2)) * (1 - math.exp(-(epoch + 1) / 3))
        s = ("%10s" * 2 + "%10.3g" * 6) % (f"{epoch}/{opt.epochs - 1}", "0G", 1.1, 2.2, 3.3, 6.6, 17, opt.img_size[-1])
        results = (score, score / 2, score / 3, score / 4, 1.1, 2.2, 3.3)
        with open(results_file, "a") as file:
            file.write(s + "%10.3g" * 7 % results + "\n")
        if not opt.nosave or epoch + 1 == opt.epochs:
            Path("weights/last.pt").write_text(str(epoch))  # the folder is there in a check-out


main(parse())
