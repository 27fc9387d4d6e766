"""The train.py of YOLOv5, YOLOv7 and YOLOv3 as programs of the CommandTrainer: their flags, hyp files and results.

YOLOv5 v6.2 to v7.0 and master, YOLOv7 main, and YOLOv3 as it was until 2020 (branch `archive`); YOLOv3 from v9.6 on
speaks as YOLOv5 does.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainer.api import DataError, Hyp, TrainJob
from trainer.command import Program, furnish, literally
from trainer.results import Told

V5_HYPS = (
    *("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    *("box", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "anchor_t", "fl_gamma", "hsv_h", "hsv_s", "hsv_v"),
    *("degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr", "mosaic", "mixup", "copy_paste"),
)
V7_HYPS = (*V5_HYPS, "paste_in", "loss_ota")
V3_HYPS = (
    *("giou", "cls", "cls_pw", "obj", "obj_pw", "iou_t", "lr0", "lrf", "momentum", "weight_decay", "fl_gamma"),
    *("hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear"),
)
"""In the order of its hyp*.txt, which is read by position."""

V3_PATHS = ("train", "valid", "names", "backup")
"""The keys of a .data file that hold paths."""


@dataclass(frozen=True)
class Preset:
    """How one train.py is spoken to. `model` is trained, from scratch, where neither model nor weights were given.

    `furnish` is as in Program, given the check-out and that model first. It runs in its check-out, or in its workdir.
    """

    arguments: tuple[str, ...]
    told: Told
    hyps: tuple[str, ...]
    model: str
    furnish: Callable[[Path, str, Path, TrainJob], dict[str, str]]
    in_repo: bool = True
    unsaved: tuple[str, ...] = ("--nosave",)
    unplotted: tuple[str, ...] = ()
    seeded: bool = False


def furnish_in_repo(_repo: Path, model: str, folder: Path, job: TrainJob) -> dict[str, str]:
    """A hyp file as YOLOv5 and YOLOv7 take it, and their words for model and device: without one, that of weights."""
    chosen = job.options.model or ("" if job.options.weights else model)
    return furnish(folder, job) | {"model": chosen, "device": cuda_numbers(job.options.device)}


def furnish_in_workdir(repo: Path, model: str, folder: Path, job: TrainJob) -> dict[str, str]:
    """What YOLOv3 looks for where it runs: its hyp*.txt, and a folder for weights.

    As it does not run in its check-out, whatever it is given by a path from there gets a whole one.
    """
    values = furnish(folder, job)
    (folder / "hyp.txt").write_text(eighteen(job.hyp), encoding="utf-8")
    (folder / "weights").mkdir()
    data = seen_from(repo, job.options.data)
    if Path(data).is_file():
        copy = folder / Path(data).name
        copy.write_text(with_whole_paths(repo, Path(data).read_text(encoding="utf-8")), encoding="utf-8")
        data = str(copy)
    return values | {
        "data": data,
        "model": seen_from(repo, job.options.model or model),
        "weights": seen_from(repo, job.options.weights) if job.options.weights else "",
        "device": cuda_numbers(job.options.device),
    }


def cuda_numbers(device: str) -> str:
    """'cuda' -> '0', 'cuda:1' -> '1', '0,1' and 'cpu' as they are."""
    names = (name.strip() for name in device.split(","))
    return ",".join("0" if name == "cuda" else name.removeprefix("cuda:") for name in names)


def eighteen(hyp: Hyp) -> str:
    """The values by which `np.loadtxt` fills YOLOv3's hyps, a line each."""
    return "".join(f"{float(hyp[name])!r}  # {name}\n" for name in V3_HYPS)


def seen_from(repo: Path, path: str) -> str:
    """A path that means something in the check-out, as it is called elsewhere; any other one unchanged."""
    return str(repo / path) if not Path(path).exists() and (repo / path).exists() else path


def with_whole_paths(repo: Path, data: str) -> str:
    """A .data file of lines key=value, as it is read outside of the check-out."""
    lines = []
    for line in data.splitlines():
        key, equals, value = line.partition("=")
        whole = f"{key}={repo / value.strip()}" if equals and key.strip() in V3_PATHS else line
        lines.append(whole + "\n")
    return "".join(lines)


_SAME = ("--data", "{data}", "--epochs", "{epochs}", "--batch-size", "{batch}", "--device", "{device}")
_MODEL = ("--cfg", "{model}", "--weights", "{weights}")
_FOLDER = ("--project", "{workdir}", "--name", "train", "--exist-ok")

PRESETS: Mapping[str, Preset] = {
    "yolov5": Preset(
        arguments=(*_SAME, "--imgsz", "{imgsz}", "--hyp", "{hyp}", *_MODEL, "--seed", "{seed}", *_FOLDER),
        told=Told(
            "train/results.csv",
            {
                "epoch": "epoch",
                "precision": "metrics/precision",
                "recall": "metrics/recall",
                "map50": "metrics/mAP_0.5",
                "map50_95": "metrics/mAP_0.5:0.95",
            },
        ),
        hyps=V5_HYPS,
        model="yolov5s.yaml",
        furnish=furnish_in_repo,
        unplotted=("--noplots",),
        seeded=True,
    ),
    "yolov7": Preset(
        arguments=(*_SAME, "--img-size", "{imgsz}", "{imgsz}", "--hyp", "{hyp}", *_MODEL, *_FOLDER),
        told=Told(
            "train/results.txt",
            {"epoch": "1", "precision": "9", "recall": "10", "map50": "11", "map50_95": "12"},
        ),
        hyps=V7_HYPS,
        model="cfg/training/yolov7-tiny.yaml",
        furnish=furnish_in_repo,
    ),
    "yolov3": Preset(
        arguments=(*_SAME, "--img-size", "{imgsz}", "{imgsz}", "{imgsz}", *_MODEL),
        told=Told("results.txt", {"epoch": "1", "precision": "9", "recall": "10", "map50": "11"}),
        hyps=V3_HYPS,
        model="cfg/yolov3-spp.cfg",
        furnish=furnish_in_workdir,
        in_repo=False,
    ),
}


def preset_program(name: str, repo: Path, more: Sequence[str] = ()) -> Program:
    """The train.py of a check-out, with more arguments behind those of the preset. Raises DataError."""
    preset, repo = PRESETS[name], repo.absolute()
    script = repo / "train.py"
    if not script.is_file():
        raise DataError(f"{repo} is no check-out of {name}: it has no train.py")
    unseeded = f"{name} takes no seed: its trainings differ by nothing but what is random in them anyway"
    return Program(
        command=(literally(interpreter_of(repo)), literally(str(script)), *preset.arguments, *more),
        told=preset.told,
        cwd=literally(str(repo)) if preset.in_repo else "{workdir}",
        hyps=frozenset(preset.hyps),
        furnish=partial(preset.furnish, repo, preset.model),
        unsaved=preset.unsaved,
        unplotted=preset.unplotted,
        warnings=() if preset.seeded else (unseeded,),
    )


def interpreter_of(repo: Path) -> str:
    """The Python of the check-out's own environment; else the one that is called python here."""
    own = (repo / folder / "bin" / "python" for folder in (".venv", "venv"))
    return next((str(python) for python in own if python.exists()), None) or shutil.which("python") or sys.executable
