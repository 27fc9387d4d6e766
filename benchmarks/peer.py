"""The peer: the ultralytics package from the Python index, run beside us by its own command line, in its own process.

Nothing of it is imported here. `python` is the interpreter of an environment that has it (`pip install ultralytics`).
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from trainer import TrainOptions

# It computes on os.cpu_count() - 1 threads, whatever it is told; a start-up file of its process says one more. And it
# logs to MLflow wherever that is installed, which takes seconds.
_START = "import os, sys\nos.cpu_count = lambda: {threads} + 1\nsys.modules['mlflow'] = None\n"


@dataclass(frozen=True)
class PeerRun:
    """One training: map50_95 and map50 after each epoch, seconds of each (training and validation), and of the whole
    process with its imports, and the most memory it held, in MiB."""

    map50_95: tuple[float, ...]
    map50: tuple[float, ...]
    epoch_s: tuple[float, ...]
    process_s: float
    peak_mib: float


@dataclass(frozen=True)
class PeerTune:
    """A search by its own tuner: how long it took, the fitness of its trials, the epochs it ran and the seconds within
    them, and the file with its best hyps."""

    seconds: float
    fitness: tuple[float, ...]
    epochs: int
    epoch_s: float
    best: Path


def train_peer(
    python: str,
    model: str,
    options: TrainOptions,
    *,
    batch: int,
    cfg: Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> PeerRun:
    """Train its `model` ("yolov8n") from scratch on the data, size, length, seed, device and threads of `options`.

    Everything else is as the file `cfg` and then `settings` say, or else its default, but for what only costs time
    (plots, saving). Raises RuntimeError with the end of its output if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="evolve-peer-") as folder:
        (Path(folder) / "sitecustomize.py").write_text(_START.format(threads=options.threads))
        data = with_absolute_path(Path(options.data).absolute(), Path(folder) / "data.yaml")
        log = Path(folder) / "log"
        given = {**({"cfg": str(cfg.absolute())} if cfg else {}), **_settings(model, data, options, batch, folder)}
        started = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen(
                _command(python, {**given, **(settings or {})}),
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


def tune_peer(python: str, model: str, options: TrainOptions, *, batch: int, iterations: int, folder: Path) -> PeerTune:
    """Search its hyps by `model.tune`, as its documentation calls it: AdamW, nothing saved, one validation a trial.

    Everything lies in `folder`, an empty one, in the end. Raises RuntimeError with the end of its output if it fails.
    """
    folder = folder.absolute()
    (folder / "sitecustomize.py").write_text(_START.format(threads=options.threads))
    data = with_absolute_path(Path(options.data).absolute(), folder / "data.yaml")
    settings = _settings(model, data, options, batch, str(folder)) | {"optimizer": "AdamW", "val": False}
    del settings["model"], settings["name"]
    program = f"from ultralytics import YOLO; YOLO({model + '.yaml'!r}).tune(iterations={iterations}, **{settings!r})"
    log = folder / "log"
    started = time.perf_counter()
    with log.open("wb") as file, Epochs(folder) as epochs:
        environment = _environment(str(folder))
        status = subprocess.call([python, "-c", program], stdout=file, stderr=file, env=environment, cwd=folder)
    seconds = time.perf_counter() - started
    if status != 0 or not (found := sorted(folder.rglob("tune_results.ndjson"))):
        raise RuntimeError(f"{model}'s tune failed: {log.read_text(errors='replace')[-2000:]}")
    results = [json.loads(line) for line in found[0].read_text().splitlines()]
    best = found[0].with_name("best_hyperparameters.yaml")
    fitness = tuple(float(result["fitness"]) for result in results)
    return PeerTune(seconds, fitness, epochs.count, epochs.seconds, best)


class Epochs:
    """Reads, while a search runs, what every training under a folder writes of its epochs: most are removed by it."""

    def __init__(self, folder: Path, every_s: float = 0.2) -> None:
        self._folder = folder
        self._every_s = every_s
        self._seen: dict[Path, list[float]] = {}  # every training has a folder of its own
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Epochs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def count(self) -> int:
        return sum(map(len, self._seen.values()))

    @property
    def seconds(self) -> float:
        """Of all epochs, from the first one's beginning in each training."""
        return sum(ends[-1] for ends in self._seen.values() if ends)

    def _watch(self) -> None:
        over = False
        while not over:
            over = self._over.wait(self._every_s)
            self.look()

    def look(self) -> None:
        for path in self._folder.rglob("results.csv"):
            with contextlib.suppress(FileNotFoundError, KeyError, ValueError):  # removed or being written
                rows = list(csv.DictReader(path.read_text().splitlines()))
                self._seen[path] = [float(row["time"]) for row in rows]


def with_absolute_path(yaml_path: Path, copy: Path) -> Path:
    """A copy of a data.yaml for the peer, to which a relative `path` means the working directory."""
    content = yaml.safe_load(yaml_path.read_text())
    content["path"] = str((yaml_path.parent / content.get("path", ".")).resolve())
    copy.write_text(yaml.safe_dump(content))
    return copy


def _settings(model: str, data: Path, options: TrainOptions, batch: int, folder: str) -> dict[str, object]:
    on_gpu = options.device != "cpu"
    return {
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


def _command(python: str, settings: Mapping[str, object]) -> list[str]:
    start = "from ultralytics.cfg import entrypoint; entrypoint()"
    return [python, "-c", start, "detect", "train", *(f"{key}={value}" for key, value in settings.items())]


def _environment(folder: str) -> dict[str, str]:
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "YOLO_CONFIG_DIR": folder, "OMP_WAIT_POLICY": "PASSIVE"}
