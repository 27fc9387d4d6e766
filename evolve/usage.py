"""The command that trains with an exported hyp file, as the study did: its data, epochs, sizes, optimizer and seed.

What is written in capitals is for a person to replace: the folder of a check-out, data that the study had in no form
which that trainer reads.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.config import PROGRAMS, EvolveConfig
from evolve.dialects import Told
from evolve.paths import from_here
from evolve.plugins import AS_OPTIONS
from trainer.presets import PRESETS


@dataclass(frozen=True)
class Choices:
    """The optimizers and schedules of ours that a trainer has, each with the words of its command line for it."""

    optimizers: Mapping[str, tuple[str, ...]]
    schedules: Mapping[str, tuple[str, ...]]

    def words(self, config: EvolveConfig) -> tuple[str, ...]:
        return *self.optimizers.get(config.optimizer, ()), *self.schedules.get(config.schedule, ())

    def unsaid(self, config: EvolveConfig) -> list[str]:
        """What the study had of these, as far as that is known, and the trainer does not: 'schedule trapezoid'."""
        asked = (("optimizer", config.optimizer, self.optimizers), ("schedule", config.schedule, self.schedules))
        return [f"{what} {name}" for what, name, known in asked if name and name not in known]


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


def own_choices(config: EvolveConfig) -> tuple[str, str]:
    """The optimizer and the schedule of a study, in our words; '' where it is only known to its program."""
    if config.trainer not in PROGRAMS:
        return config.optimizer.lower(), config.schedule
    if config.trainer == "command":
        return "", ""
    words = [*config.command, ""]
    named = words[words.index("--optimizer") + 1].lower() if "--optimizer" in words else "sgd"
    cosine = "--cos-lr" in words if config.trainer == "yolov5" else "--linear-lr" not in words
    return "adam" if "--adam" in words else named, "cosine" if cosine else "linear"


def use_evolve(file: str, config: EvolveConfig, told: Told) -> str:
    from evolve.records import train_command

    options = [name for name in AS_OPTIONS.get(config.trainer, ()) if name in told.hyp]
    return shlex.join(train_command(config, Path(file), options))


def use_yolov3(file: str, config: EvolveConfig, _told: Told) -> str:
    """It takes the first hyp*.txt of the folder in which it is started, and that is its own."""
    data = config.data if config.data.endswith(".data") else "DATA.data"
    scenario = _scenario(config, data, "--img-size", str(config.imgsz))
    folder, more = _folder(config, "yolov3"), _as_in_study(config, "yolov3") or YOLOV3.words(config)
    train = shlex.join(["python", "train.py", *scenario, *more])
    return f"{shlex.join(['cp', file, f'{folder}/hyp.txt'])} && {shlex.join(['cd', folder])} && {train}"


def use_yolov5(file: str, config: EvolveConfig, told: Told) -> str:
    scenario = _scenario(config, _data(config), "--imgsz", str(config.imgsz))
    more = _as_in_study(config, "yolov5") or YOLOV5.words(config)
    options = [*scenario, "--seed", str(config.seed), *more, *_smoothing(told)]
    return shlex.join(["python", f"{_folder(config, 'yolov5')}/train.py", "--hyp", file, *options])


def use_yolov7(file: str, config: EvolveConfig, told: Told) -> str:
    folder = _folder(config, "yolov7")
    model = ("--cfg", f"{folder}/cfg/training/yolov7.yaml", "--weights", "")  # its default weights do not exist
    scenario = _scenario(config, _data(config), "--img-size", str(config.imgsz), str(config.imgsz))
    more = _as_in_study(config, "yolov7") or (*model, *YOLOV7.words(config))
    return shlex.join(["python", f"{folder}/train.py", "--hyp", file, *scenario, *more, *_smoothing(told)])


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


def _folder(config: EvolveConfig, name: str) -> str:
    """The check-out, where the study trained with it."""
    return config.repo if config.trainer == name and config.repo else f"{name.upper()}_FOLDER"


def _as_in_study(config: EvolveConfig, name: str) -> Sequence[str]:
    """The model, and what else the study told the same trainer."""
    if config.trainer != name:
        return ()
    model = config.model or ("" if config.weights else PRESETS[name].model)
    return "--cfg", model, "--weights", config.weights, *config.command


def _data(config: EvolveConfig) -> str:
    """The study's data, where it is a data.yaml; else what is to be put in its place."""
    return from_here(config.data) if config.data.endswith((".yaml", ".yml")) else "DATA.yaml"


def _smoothing(told: Told) -> Sequence[str]:
    return ("--label-smoothing", str(told.flags["label_smoothing"])) if "label_smoothing" in told.flags else ()


def _words_of(file: str) -> str:
    """What a shell puts in place of the words in a file, without its comments."""
    return f"$(grep -v '^#' {shlex.quote(file)})"
