"""Stands in for YOLOv7's train.py (main): its flags and no others, its hyp file, its results.txt. Learns nothing."""

# ruff: noqa: SIM905, T201

import argparse
import math
import re
from pathlib import Path

import yaml

HYPS = (
    "lr0 lrf momentum weight_decay warmup_epochs warmup_momentum warmup_bias_lr box cls cls_pw obj obj_pw "
    "iou_t anchor_t fl_gamma hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr mosaic "
    "mixup copy_paste paste_in"
).split()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=str, default="yolo7.pt")
    parser.add_argument("--cfg", type=str, default="")
    parser.add_argument("--data", type=str, default="data/coco.yaml")
    parser.add_argument("--hyp", type=str, default="data/hyp.scratch.p5.yaml")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--img-size", nargs="+", type=int, default=[640, 640])
    parser.add_argument("--resume", nargs="?", const=True, default=False)
    parser.add_argument("--bucket", type=str, default="")
    parser.add_argument("--device", default="")
    parser.add_argument("--local_rank", type=int, default=-1)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--project", default="runs/train")
    parser.add_argument("--entity", default=None)
    parser.add_argument("--name", default="exp")
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--bbox_interval", type=int, default=-1)
    parser.add_argument("--save_period", type=int, default=-1)
    parser.add_argument("--artifact_alias", type=str, default="latest")
    parser.add_argument("--freeze", nargs="+", type=int, default=[0])
    for flag in ("rect", "nosave", "notest", "noautoanchor", "evolve", "cache-images", "image-weights", "multi-scale"):
        parser.add_argument(f"--{flag}", action="store_true")
    for flag in ("single-cls", "adam", "sync-bn", "exist-ok", "quad", "linear-lr", "upload_dataset", "v5-metric"):
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args()


def check_file(file: str) -> str:
    """As there: below the working folder, whatever that is."""
    if Path(file).is_file() or file == "":
        return file
    files = list(Path().glob("**/" + file))
    assert len(files) == 1, f"File Not Found or not unique: {file}"
    return str(files[0])


def main(opt: argparse.Namespace) -> None:
    print(opt)
    assert not opt.notest, "nothing to prune by"
    data, cfg, hyp_file = check_file(opt.data), check_file(opt.cfg), check_file(opt.hyp)
    assert cfg or opt.weights, "either --cfg or --weights must be specified"
    assert re.fullmatch(r"cpu|\d+(,\d+)*", opt.device), f"CUDA unavailable, invalid device {opt.device} requested"
    assert len(opt.img_size) == 2
    save_dir = Path(opt.project) / opt.name
    assert opt.exist_ok or not save_dir.exists(), "it would be numbered"
    assert yaml.safe_load(Path(data).read_text())["nc"]
    with open(hyp_file) as f:
        hyp = yaml.load(f, Loader=yaml.SafeLoader)
    used = {name: hyp[name] for name in HYPS}
    print("loss:", "OTA" if "loss_ota" not in hyp or hyp["loss_ota"] == 1 else "plain")
    weights = save_dir / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    for epoch in range(opt.epochs):
        score = math.exp(-(math.log10(used["lr0"] / 0.03) ** 2)) * (1 - math.exp(-(epoch + 1) / 3))
        losses = (0.05, 0.02, 0.01, 0.08)
        s = ("%10s" * 2 + "%10.4g" * 6) % (f"{epoch}/{opt.epochs - 1}", "1.23G", *losses, 17, opt.img_size[0])
        results = (score, score / 2, score / 3, score / 5, 0.05, 0.02, 0.01)
        with open(save_dir / "results.txt", "a") as f:
            f.write(s + "%10.4g" * 7 % results + "\n")
        if not opt.nosave or epoch + 1 == opt.epochs:
            (weights / "last.pt").write_text(str(epoch))


main(parse())
