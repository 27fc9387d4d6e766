"""Hyps for trainers that share only some of them: a Python config for MMDetection, flags for torchvision's references.

MMDetection 3 (mmengine's schedulers, mmdet's transforms) and torchvision's references/detection/train.py.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from evolve import usage
from evolve.config import EvolveConfig
from evolve.dialects import as_float
from search_spaces import Hyp
from search_spaces.files import comment_lines

Entry = dict[str, object]

# As trainer/detection/optimizer.py has them, which loads torch.
FLAT_SHARE = 0.7  # of a run, that our trapezoid stays at the full rate
FULL_WARMUP_FROM_EPOCHS = 30  # shorter runs warm up for a proportionally shorter time
NOMINAL_BATCH = 64  # the pictures of an update for which weight_decay is meant

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def write_mmdetection(hyp: Hyp, header: Sequence[str], config: EvolveConfig) -> str:
    """A config on top of the one that is trained with; what no hyp says stays as it is there."""
    said = {name: as_float(name, value) for name, value in hyp.items()}
    parts = [
        '_base_ = "YOUR_CONFIG.py"  # the config that is to be trained with these hyps',
        f"train_cfg = dict(max_epochs={config.epochs})",
        f"randomness = dict(seed={config.seed})",
    ]
    if optimizer := _optimizer(said, config):
        wrapper = {"optimizer": {"_delete_": True, **optimizer}, "paramwise_cfg": _NO_DECAY}
        parts.append(f"optim_wrapper = {_python(wrapper)}")
    if schedulers := _schedulers(said, config):
        parts.append(f"param_scheduler = {_lines(schedulers)}")
    if transforms := _transforms(said):
        parts.append("# For the train_pipeline of that config, in place of its own warps and flips:")
        parts.append(f"evolved_transforms = {_lines(transforms)}")
    return comment_lines(header) + "\n".join(parts) + "\n"


def write_torchvision(hyp: Hyp, header: Sequence[str], config: EvolveConfig) -> str:
    """Flags on one line."""
    said = {name: as_float(name, value) for name, value in hyp.items()}
    words = [*usage.TORCHVISION.words(config)]
    if "lr0" in said:
        words += ["--lr", repr(said["lr0"])]
    if "momentum" in said and config.optimizer != "adamw":
        words += ["--momentum", repr(said["momentum"])]
    if "weight_decay" in said:
        words += ["--weight-decay", repr(_decay(said, config)), "--norm-weight-decay", "0.0"]
    return comment_lines(header) + shlex.join(words) + "\n"


_NO_DECAY = {"norm_decay_mult": 0.0, "bias_decay_mult": 0.0}


def _optimizer(said: Mapping[str, float], config: EvolveConfig) -> Entry:
    if config.optimizer not in OPTIMIZERS or "lr0" not in said:
        return {}
    found: Entry = {"type": OPTIMIZERS[config.optimizer], "lr": said["lr0"]}
    if "momentum" in said and config.optimizer == "sgd":
        found |= {"momentum": said["momentum"], "nesterov": said["momentum"] > 0}
    elif "momentum" in said:
        found["betas"] = (said["momentum"], 0.999)
    if "weight_decay" in said:
        found["weight_decay"] = _decay(said, config)
    return found


def _schedulers(said: Mapping[str, float], config: EvolveConfig) -> list[Entry]:
    """The warm-up, and the fall to lrf; where both are at work their factors multiply, as ours do."""
    by: Entry = {"by_epoch": True, "convert_to_iter_based": True}
    found: list[Entry] = []
    warmup = said.get("warmup_epochs", 0.0) * min(1.0, config.epochs / FULL_WARMUP_FROM_EPOCHS)
    if warmup > 0:
        found.append({"type": "LinearLR", "start_factor": 0.001, "begin": 0, "end": round(warmup, 6), **by})
    if "lrf" in said and config.schedule == "cosine":
        shape: Entry = {"eta_min_ratio": said["lrf"], "T_max": config.epochs, "begin": 0, "end": config.epochs}
        found.append({"type": "CosineAnnealingLR", **shape, **by})
    elif "lrf" in said:
        begin = 0 if config.schedule == "linear" else round(FLAT_SHARE * config.epochs, 3)
        ends: Entry = {"start_factor": 1.0, "end_factor": said["lrf"], "begin": begin, "end": config.epochs}
        found.append({"type": "LinearLR", **ends, **by})
    return found


def _transforms(said: Mapping[str, float]) -> list[Entry]:
    found: list[Entry] = []
    if {"degrees", "translate", "scale", "shear"} <= said.keys():
        turned: Entry = {"max_rotate_degree": said["degrees"], "max_translate_ratio": said["translate"]}
        sized: Entry = {"scaling_ratio_range": (round(1 - said["scale"], 12), round(1 + said["scale"], 12))}
        found.append({"type": "RandomAffine", **turned, **sized, "max_shear_degree": said["shear"]})
    if {"fliplr", "flipud"} <= said.keys():
        across, down = said["fliplr"], said["flipud"]
        shares = [across * (1 - down), down * (1 - across), across * down]  # it draws one of three, we draw each
        found.append({"type": "RandomFlip", "prob": shares, "direction": ["horizontal", "vertical", "diagonal"]})
    return found


def _decay(said: Mapping[str, float], config: EvolveConfig) -> float:
    """Theirs is that of one update, whatever it holds; ours is meant for one of 64 pictures."""
    return said["weight_decay"] * config.batch / NOMINAL_BATCH


def _lines(entries: Sequence[Entry]) -> str:
    return "[\n" + "".join(f"    {_python(entry)},\n" for entry in entries) + "]"


def _python(value: object) -> str:
    """A value as such configs have it: dict(...) and double quotes."""
    if isinstance(value, dict):
        return f"dict({', '.join(f'{key}={_python(inner)}' for key, inner in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_python, value))}]"
    return json.dumps(value) if isinstance(value, str) else repr(value)
