"""The peer: the ultralytics package from the Python index, run beside us by its own command line, in its own process.

Nothing of it is imported here. `python` is the interpreter of an environment that has it (`pip install ultralytics`).
"""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainer import TrainOptions

# It computes on os.cpu_count() - 1 threads, whatever it is told; a start-up file of its process says one more.
_THREADS = "import os\nos.cpu_count = lambda: {threads} + 1\n"


@dataclass(frozen=True)
class PeerRun:
    """One training: map50_95 and map50 after each epoch, seconds of each (training and validation), and of the whole
    process with its imports, and the most memory it held, in MiB."""

    map50_95: tuple[float, ...]
    map50: tuple[float, ...]
    epoch_s: tuple[float, ...]
    process_s: float
    peak_mib: float


def train_peer(python: str, model: str, options: TrainOptions, *, batch: int) -> PeerRun:
    """Train its `model` ("yolov8n") from scratch on the data, size, length, seed, device and threads of `options`.

    Everything else is its default, but for what only costs time (plots, saving). Raises RuntimeError with the end of
    its output if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="evolve-peer-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(_THREADS.format(threads=options.threads))
        data = _with_absolute_path(Path(options.data).absolute(), Path(folder) / "data.yaml")
        log = Path(folder) / "log"
        started = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                _command(python, model, data, options, batch, folder),
                stdout=file,
                stderr=file,
                env=_environment(folder),
            )
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        results = Path(folder) / "run" / "results.csv"
        if status != 0 or not results.exists():
            raise RuntimeError(f"{model} failed: {log.read_text(errors='replace')[-2000:]}")
        rows = list(csv.DictReader(results.open()))
    ends = [float(row["time"]) for row in rows]
    return PeerRun(
        map50_95=tuple(float(row["metrics/mAP50-95(B)"]) for row in rows),
        map50=tuple(float(row["metrics/mAP50(B)"]) for row in rows),
        epoch_s=tuple(end - start for start, end in zip([0.0, *ends], ends, strict=False)),
        process_s=seconds,
        peak_mib=usage.ru_maxrss / 1024,
    )


def _with_absolute_path(yaml_path: Path, copy: Path) -> Path:
    """A copy of a data.yaml for the peer, to which a relative `path` means the working directory."""
    content = yaml.safe_load(yaml_path.read_text())
    content["path"] = str((yaml_path.parent / content.get("path", ".")).resolve())
    copy.write_text(yaml.safe_dump(content))
    return copy


def _command(python: str, model: str, data: Path, options: TrainOptions, batch: int, folder: str) -> list[str]:
    on_gpu = options.device != "cpu"
    settings = {
        "model": f"{model}.yaml",
        "data": str(data),
        "imgsz": options.imgsz,
        "epochs": options.epochs,
        "seed": options.seed,
        "batch": batch,
        "device": options.device.removeprefix("cuda:").replace("cuda", "0"),
        "workers": 8 if on_gpu else 0,
        "amp": on_gpu,
        "cache": "ram",
        "plots": False,
        "save": False,
        "pretrained": False,
        "project": folder,
        "name": "run",
    }
    start = "from ultralytics.cfg import entrypoint; entrypoint()"
    return [python, "-c", start, "detect", "train", *(f"{key}={value}" for key, value in settings.items())]


def _environment(folder: str) -> dict[str, str]:
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "YOLO_CONFIG_DIR": folder, "OMP_WAIT_POLICY": "PASSIVE"}
