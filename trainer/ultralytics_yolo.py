"""UltralyticsTrainer: any detection model of the ultralytics package, trained by its own trainer, epoch by epoch.

That trainer pushes its epochs to a callback, and ours are pulled: so it trains in a thread, which rests after every
epoch until the next one is asked for. Nothing here loads the package before it trains. Made for ultralytics 8.4.190.
"""

from __future__ import annotations

import hashlib
import math
import os
import queue
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.api import DataError, EpochMetrics, Prepared, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.presets import cuda_numbers

OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
SCHEDULES = {"linear": False, "cosine": True}  # cos_lr

HYPS = frozenset(
    (
        *("lr0", "lrf", "momentum", "weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
        *("box", "cls", "cls_pw", "dfl", "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear"),
        *("perspective", "flipud", "fliplr", "bgr", "mosaic", "mixup", "cutmix", "copy_paste", "close_mosaic"),
        *("erasing", "nbs", "optimizer"),
    )
)
METRICS = {
    "precision": "metrics/precision(B)",
    "recall": "metrics/recall(B)",
    "map50": "metrics/mAP50(B)",
    "map50_95": "metrics/mAP50-95(B)",
}
OF_OURS = (
    *("freeze_epochs", "freeze_batch", "nominal_batch", "multi_scale", "image_weights"),
    *("cache", "amp", "sync_bn", "notest"),
)
"""Options that it does not have, or calls otherwise."""


class UltralyticsTrainer:
    """Trains `--model yolo11n.pt` (from its weights) or `yolov8n.yaml` (from scratch) on a data.yaml.

    It is told its optimizer, never auto, which would set lr0 and momentum aside. What it says after the first epoch to
    have trained with is compared with what it was told: DataError where they differ.
    """

    hyps = HYPS

    def prepare(self, options: TrainOptions) -> Prepared:
        check(options)
        load_package()
        from ultralytics.data.utils import check_det_dataset

        try:
            data = check_det_dataset(options.data, autodownload=False)
        except Exception as error:  # of many kinds
            raise DataError(f"ultralytics cannot use the data {options.data}: {_first_line(error)}") from error
        build_model(options)
        splits = {split: data[split] for split in ("train", "val", "test") if data.get(split)}
        return Prepared(digest_of(data["names"], splits), f"{options.data}: {len(data['names'])} classes")

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        check(job.options)
        if job.resume:
            raise TrainerError("a training of ultralytics does not go on from a checkpoint here")
        if unknown := sorted(job.hyp.keys() - HYPS):
            raise TrainerError(f"ultralytics has no hyp {unknown[0]!r} that could be tuned")
        load_package()
        training = _Training(job)
        training.start()
        try:
            while (metrics := training.next_epoch()) is not None:
                yield metrics
        finally:
            training.end()


def check(options: TrainOptions) -> None:
    """Raise DataError for what it cannot be told."""
    usual = TrainOptions()
    for name in ("epochs", "batch", "imgsz"):
        if getattr(options, name) < 1:
            raise DataError(f"{name} must be at least 1, got {getattr(options, name)}")
    for name in OF_OURS:
        if getattr(options, name) != getattr(usual, name):
            raise DataError(f"--{name.replace('_', '-')} means nothing to ultralytics")
    if not options.data:
        raise DataError("ultralytics needs the data.yaml of its data: give --data")
    if options.schedule not in SCHEDULES:
        raise DataError(f"ultralytics has no schedule {options.schedule!r}: give --schedule linear or cosine")
    if options.freeze_layers and not options.freeze_layers.isdecimal():
        raise DataError(f"--freeze-layers is {options.freeze_layers}; ultralytics takes the number of first layers")
    if "," in options.device:
        raise DataError(f"--device is {options.device}; a training of ultralytics takes one device, as with --jobs")


def load_package() -> None:
    """Import ultralytics, quietly and without reaching out: no updates, no installs, no reports. Raises DataError."""
    for name, setting in {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}.items():
        os.environ.setdefault(name, setting)
    import torch

    threads = torch.get_num_threads()
    try:
        import ultralytics.engine.trainer as engine
        from ultralytics.utils import SETTINGS, torch_utils
    except ImportError as error:
        raise DataError(f"ultralytics is not installed ({error}): pip install 'evolve-hyp[ultralytics]'") from error
    torch_utils.NUM_THREADS = threads  # it would take its own number of them on a CPU
    for name in ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb"):
        if name in SETTINGS:
            dict.__setitem__(SETTINGS, name, False)  # for this process; the user's file stays as it is
    if not hasattr(engine.check_amp, "known"):
        engine.check_amp = _Once(engine.check_amp)


class _Once:
    """A check of the machine that need not be made for every training."""

    def __init__(self, check: Any) -> None:
        self._check = check
        self.known: list[bool] = []

    def __call__(self, model: Any) -> bool:
        if not self.known:
            self.known.append(bool(self._check(model)))
        return self.known[0]


def build_model(options: TrainOptions) -> Any:
    from ultralytics import YOLO

    try:
        return YOLO(options.model, task="detect", verbose=False)
    except Exception as error:  # of many kinds
        raise DataError(f"ultralytics cannot build the model {options.model}: {_first_line(error)}") from error


def arguments_of(job: TrainJob, folder: Path) -> dict[str, Any]:
    """What its trainer is told: everything that a hyp or an option stands for, and where it may write."""
    options = job.options
    return {
        "data": options.data,
        "epochs": options.epochs,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "seed": options.seed,
        "device": cuda_numbers(options.device),
        "optimizer": OPTIMIZERS.get(options.optimizer.lower(), options.optimizer),
        "cos_lr": SCHEDULES[options.schedule],
        "split": options.split,
        "single_cls": options.single_cls,
        "rect": options.rect,
        **({"freeze": int(options.freeze_layers)} if options.freeze_layers else {}),
        **({"pretrained": options.weights} if options.weights else {}),
        "patience": 0,  # none: the pruner has more to go by
        "save": options.save,
        "plots": options.plots,
        "project": str(folder),
        "name": "train",
        "exist_ok": True,
        **job.hyp,
    }


class _Closed(BaseException):
    """Nobody wants more epochs."""


class _Training(threading.Thread):
    """One training, which begins its next epoch when that is asked for."""

    def __init__(self, job: TrainJob) -> None:
        super().__init__(name="ultralytics", daemon=True)
        self._job = job
        self._told = arguments_of(job, job.workdir.absolute())
        self._trainer: Any = None
        self._asked: queue.Queue[bool] = queue.Queue()
        self._epochs: queue.Queue[EpochMetrics | BaseException | None] = queue.Queue()
        self._since = time.perf_counter()
        self._over = False

    # In the thread of whoever pulls

    def next_epoch(self) -> EpochMetrics | None:
        """The next epoch's metrics; None after the last. Raises what the training does."""
        self._asked.put(True)
        epoch = self._epochs.get()
        if isinstance(epoch, BaseException):
            raise epoch
        return epoch

    def end(self) -> None:
        self._asked.put(False)
        self.join()

    # In the thread that trains

    def run(self) -> None:
        try:
            self._rest()
            model = build_model(self._job.options)
            model.add_callback("on_train_start", self._note)
            model.add_callback("on_train_epoch_end", self._check)
            model.add_callback("on_fit_epoch_end", self._tell)
            model.train(**self._told)
            self._epochs.put(None)
        except _Closed:
            self._epochs.put(None)
        except BaseException as error:
            self._epochs.put(self._explain(error))
        finally:
            for loader in ("train_loader", "test_loader"):
                with suppress(Exception):
                    getattr(self._trainer, loader).close()
            self._trainer = None

    def _rest(self) -> None:
        if not self._asked.get():
            raise _Closed

    def _note(self, trainer: Any) -> None:
        self._trainer = trainer

    def _check(self, trainer: Any) -> None:
        """After an epoch's training, before it is scored: is it the one that was asked for, and alive?"""
        losses = losses_of(trainer)
        if not all(map(math.isfinite, losses.values())):
            raise TrainingDiverged(trainer.epoch + 1, losses)
        if trainer.batch_size != self._job.options.batch:
            options = self._job.options
            raise TrainerError(f"out of memory with batch {options.batch} at imgsz {options.imgsz}")
        if trainer.epoch == trainer.start_epoch:
            check_used(trainer, self._told)

    def _tell(self, trainer: Any) -> None:
        """After an epoch was scored: hand it over, and rest."""
        if self._over:  # it scores its best weights once more at the end
            return
        now = time.perf_counter()
        scores: dict[str, Any] = {name: float(trainer.metrics[key]) for name, key in METRICS.items()}
        metrics = EpochMetrics(trainer.epoch + 1, **scores, losses=losses_of(trainer), seconds=now - self._since)
        self._over = metrics.epoch >= self._job.options.epochs
        self._epochs.put(metrics)
        self._rest()
        self._since = time.perf_counter()
        if self._over and not self._job.options.save:
            raise _Closed

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, RuntimeError) and "NaN" in str(error) and self._trainer is not None:
            return TrainingDiverged(self._trainer.epoch + 1, losses_of(self._trainer))
        return error


def losses_of(trainer: Any) -> dict[str, float]:
    """The means of an epoch."""
    named: Mapping[str, Any] = trainer.label_loss_items(trainer.tloss, prefix="train")
    return {name.removeprefix("train/"): float(loss) for name, loss in named.items()}


def check_used(trainer: Any, told: Mapping[str, Any]) -> None:
    """Raise DataError where a training goes by other values than it was told."""
    used = vars(trainer.args)
    for name in sorted(HYPS & told.keys()):
        if not _same(used.get(name), told[name]):
            raise DataError(f"ultralytics trains with {name} {used.get(name)!r}, and was told {told[name]!r}")
    optimizer = trainer.optimizer
    if type(optimizer).__name__.lower() != str(told["optimizer"]).lower():
        raise DataError(f"ultralytics trains by {type(optimizer).__name__}, and was told {told['optimizer']!r}")
    for group in optimizer.param_groups:
        if "lr0" in told and group.get("param_group") != "muon" and not _same(group["initial_lr"], told["lr0"]):
            raise DataError(f"ultralytics trains with lr0 {group['initial_lr']!r}, and was told {told['lr0']!r}")


def _same(used: Any, told: Any) -> bool:
    if isinstance(used, int | float) and isinstance(told, int | float):
        return math.isclose(used, told, rel_tol=1e-9, abs_tol=1e-12)
    return str(used).lower() == str(told).lower()


_IMAGES, _LABELS = (f"{os.sep}{name}{os.sep}" for name in ("images", "labels"))


def digest_of(names: object, splits: Mapping[str, Any]) -> str:
    """Changes with the classes, and with the names and sizes of pictures and their labels."""
    digest = hashlib.sha256(repr(names).encode())
    for split, paths in sorted(splits.items()):
        for path in paths if isinstance(paths, list) else [paths]:
            for file in _files(Path(path)):
                label = Path(str(file).replace(_IMAGES, _LABELS)).with_suffix(".txt")
                sizes = [found.stat().st_size if found.exists() else None for found in (file, label)]
                digest.update(repr((split, file.name, sizes)).encode())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """The pictures of a folder, or those that a list names."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and file.suffix not in (".txt", ".cache"))
    lines = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return [path, *(path.parent / line for line in lines)]


def _first_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
