"""Precision: in which numbers convolutions compute. The fastest is found by trying, once for a model on a machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from trainer.api import DataError
from trainer.detection.data.cache import cache_folder

CHOICES = ("auto", "bf16", "fp16", "off")
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}
WORTHWHILE = 0.9  # bf16 keeps 8 bits of a number: it has to take less than this share of float32's time
ROUNDS = 3  # each in turn, so that a busy moment hits both; the fastest counts


@dataclass(frozen=True)
class Precision:
    """The type that convolutions compute in, and whether the loss is scaled against underflow, as float16 needs."""

    dtype: torch.dtype
    scaled: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass. It keeps no copies of weights, which a recorded CUDA graph may not share."""
        mixed = self.dtype != torch.float32
        return torch.autocast(device.type, dtype=self.dtype, enabled=mixed, cache_enabled=False)


def check_precision(amp: str, device: torch.device) -> None:
    """DataError for what is no precision, or none of this device."""
    if amp not in CHOICES:
        raise DataError(f"amp is one of {', '.join(CHOICES)}, not '{amp}'")
    if amp == "fp16" and device.type == "cpu":
        raise DataError("amp fp16 needs a GPU: on a CPU it would be slower than float32; choose bf16, auto or off")


def name_of(precision: Precision) -> str:
    """What `amp` asks for just this precision."""
    return next(name for name, dtype in DTYPES.items() if dtype == precision.dtype)


def choose_precision(amp: str, model: nn.Module, imgsz: int, batch: int, device: torch.device) -> Precision:
    """What `amp` asks for; for 'auto' what is fastest for this model here. Raises DataError for what cannot be.

    On a GPU that is bfloat16 where the hardware computes in it, else float16 with a scaled loss. On a CPU float32 and
    bfloat16 are timed, and the answer stays in the cache folder: the same machine trains in the same numbers ever
    after, whatever else it is doing.
    """
    check_precision(amp, device)
    if amp != "auto":
        return Precision(DTYPES[amp], scaled=amp == "fp16")
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(torch.bfloat16) if native else Precision(torch.float16, scaled=True)
    if device.type != "cpu":
        return Precision(torch.float32)
    return Precision(DTYPES[_remembered(model, imgsz, batch)])


def _remembered(model: nn.Module, imgsz: int, batch: int) -> str:
    """'bf16' or 'off': as it was found the first time on this machine, else as it is found now."""
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    machine = (platform.machine(), _processor(), torch.__version__, torch.get_num_threads())
    question = hashlib.blake2b(repr((machine, shapes, imgsz, batch)).encode(), digest_size=12).hexdigest()
    path = cache_folder() / "precision" / f"{question}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text())["amp"]
        if known in ("bf16", "off"):
            return str(known)
    seconds = time_precisions(model, imgsz, batch)
    answer = "bf16" if seconds["bf16"] < WORTHWHILE * seconds["off"] else "off"
    return _remember(path, {"amp": answer, "seconds": seconds})


def _remember(path: Path, answer: dict[str, object]) -> str:
    """Write the answer down; of several processes that ask at once the first one's holds for all."""
    with suppress(OSError):  # without a cache folder it is found anew each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp") as file:
            json.dump(answer, file)
            file.flush()
            with suppress(FileExistsError):
                os.link(file.name, path)
        with suppress(ValueError, KeyError):
            return str(json.loads(path.read_text())["amp"])
    return str(answer["amp"])


def time_precisions(model: nn.Module, imgsz: int, batch: int) -> dict[str, float]:
    """Seconds of a forward and backward pass in 'off' (float32) and 'bf16', on random pictures, on the CPU."""
    device = torch.device("cpu")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    was_training, rng = model.training, torch.get_rng_state()
    images = torch.rand(batch, 3, imgsz, imgsz).contiguous(memory_format=torch.channels_last)
    best = dict.fromkeys(("off", "bf16"), float("inf"))
    model.train()
    for round_number in range(ROUNDS + 1):
        for name in best:
            started = time.perf_counter()
            with Precision(DTYPES[name]).autocast(device):
                outputs = model(images)
            torch.autograd.backward(sum(raw.float().square().mean() for raw in outputs))
            model.zero_grad(set_to_none=True)
            if round_number:  # the first of each chooses its algorithms
                best[name] = min(best[name], time.perf_counter() - started)
    model.load_state_dict(state)  # running statistics moved
    model.train(was_training)
    torch.set_rng_state(rng)
    return best


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
