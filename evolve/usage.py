"""The command that trains with an exported hyp file, as the study did: its data, epochs, sizes, optimizer and seed.

What is written in capitals is for a person to replace: the folder of a check-out, data that the study had in no form
which that trainer reads.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.config import EvolveConfig
from evolve.dialects import Told
from evolve.paths import from_here
from evolve.plugins import AS_OPTIONS


@dataclass(frozen=True)
class Choices:
    """The optimizers and schedules of ours that a trainer has, each with the words of its command line for it."""

    optimizers: Mapping[str, tuple[str, ...]]
    schedules: Mapping[str, tuple[str, ...]]

    def words(self, config: EvolveConfig) -> tuple[str, ...]:
        return *self.optimizers.get(config.optimizer, ()), *self.schedules.get(config.schedule, ())

    def unsaid(self, config: EvolveConfig) -> list[str]:
        """What the study had of these and the trainer does not: 'schedule trapezoid'."""
        asked = (("optimizer", config.optimizer, self.optimizers), ("schedule", config.schedule, self.schedules))
        return [f"{what} {name}" for what, name, known in asked if name not in known]


EVERY_OPTIMIZER: Mapping[str, tuple[str, ...]] = {"sgd": (), "adam": (), "adamw": ()}
OURS = Choices(EVERY_OPTIMIZER, {"trapezoid": (), "cosine": (), "linear": ()})
YOLOV3 = Choices({"sgd": (), "adam": ("--adam",)}, {"cosine": ()})
YOLOV5 = Choices(
    {"sgd": (), "adam": ("--optimizer", "Adam"), "adamw": ("--optimizer", "AdamW")},
    {"linear": (), "cosine": ("--cos-lr",)},
)
YOLOV7 = Choices({"sgd": (), "adam": ("--adam",)}, {"cosine": (), "linear": ("--linear-lr",)})
ULTRALYTICS = Choices(EVERY_OPTIMIZER, {"linear": (), "cosine": ("cos_lr=True",)})  # its file names the optimizer
TORCHVISION = Choices(
    {"sgd": ("--opt", "sgd_nesterov"), "adamw": ("--opt", "adamw")},
    {"cosine": ("--lr-scheduler", "cosineannealinglr")},
)


def use_evolve(file: str, config: EvolveConfig, told: Told) -> str:
    from evolve.records import train_command

    options = [name for name in AS_OPTIONS.get(config.trainer, ()) if name in told.hyp]
    return shlex.join(train_command(config, Path(file), options))


def use_yolov3(file: str, config: EvolveConfig, _told: Told) -> str:
    """It takes the first hyp*.txt of the folder in which it is started, and that is its own."""
    data = config.data if config.data.endswith(".data") else "DATA.data"
    scenario = _scenario(config, data, "--img-size", str(config.imgsz))
    train = shlex.join(["python", "train.py", *scenario, *YOLOV3.words(config)])
    return f"{shlex.join(['cp', file, 'YOLOV3_FOLDER/hyp.txt'])} && cd YOLOV3_FOLDER && {train}"


def use_yolov5(file: str, config: EvolveConfig, told: Told) -> str:
    scenario = _scenario(config, _data(config), "--imgsz", str(config.imgsz))
    options = [*scenario, "--seed", str(config.seed), *YOLOV5.words(config), *_smoothing(told)]
    return shlex.join(["python", "YOLOV5_FOLDER/train.py", "--hyp", file, *options])


def use_yolov7(file: str, config: EvolveConfig, told: Told) -> str:
    model = ["--cfg", "YOLOV7_FOLDER/cfg/training/yolov7.yaml", "--weights", ""]  # its default weights do not exist
    scenario = _scenario(config, _data(config), "--img-size", str(config.imgsz), str(config.imgsz))
    options = [*model, *scenario, *YOLOV7.words(config), *_smoothing(told)]
    return shlex.join(["python", "YOLOV7_FOLDER/train.py", "--hyp", file, *options])


def use_ultralytics(file: str, config: EvolveConfig, _told: Told) -> str:
    return shlex.join(["yolo", "detect", "train", f"cfg={file}", *_arguments(config)])


def use_words(file: str, config: EvolveConfig, _told: Told) -> str:
    return f"{shlex.join(['yolo', 'detect', 'train', *_arguments(config)])} {_words_of(file)}"


def use_mmdetection(file: str, _config: EvolveConfig, _told: Told) -> str:
    return shlex.join(["python", "MMDETECTION_FOLDER/tools/train.py", file])


def use_torchvision(file: str, config: EvolveConfig, _told: Told) -> str:
    scenario = ["--data-path", "COCO_FOLDER", "--epochs", str(config.epochs), "--batch-size", str(config.batch)]
    return f"{shlex.join(['python', 'VISION_FOLDER/references/detection/train.py', *scenario])} {_words_of(file)}"


def _scenario(config: EvolveConfig, data: str, *size: str) -> Sequence[str]:
    return "--data", data, "--epochs", str(config.epochs), *size, "--batch-size", str(config.batch)


def _arguments(config: EvolveConfig) -> Sequence[str]:
    """A model of its own, where the study trained one; else the smallest of today's."""
    model = config.model if (config.model or "").endswith((".pt", ".yaml")) else "yolo11n.pt"
    words = [f"model={model}", f"data={_data(config)}", f"epochs={config.epochs}", f"imgsz={config.imgsz}"]
    return *words, f"batch={config.batch}", f"seed={config.seed}", *ULTRALYTICS.words(config)


def _data(config: EvolveConfig) -> str:
    """The study's data, where it is a data.yaml; else what is to be put in its place."""
    return from_here(config.data) if config.data.endswith((".yaml", ".yml")) else "DATA.yaml"


def _smoothing(told: Told) -> Sequence[str]:
    return ("--label-smoothing", str(told.flags["label_smoothing"])) if "label_smoothing" in told.flags else ()


def _words_of(file: str) -> str:
    """What a shell puts in place of the words in a file, without its comments."""
    return f"$(grep -v '^#' {shlex.quote(file)})"
