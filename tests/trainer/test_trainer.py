"""The built-in trainer as a whole: it keeps the contract, learns what can be learned, and says what it cannot do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from trainer.api import DataError, EpochMetrics, TrainerError, TrainingDiverged, TrainJob, TrainOptions
from trainer.detection.checkpoint import read_checkpoint
from trainer.detection.darknet import Darknet, load_model, parse_cfg
from trainer.detection.distributed import Team
from trainer.detection.loss import DetectionLoss
from trainer.detection.matching import grids_of, match_batch
from trainer.detection.optimizer import Average
from trainer.detection.phases import phases_of
from trainer.detection.precision import Precision
from trainer.detection.recipe import HYPS, LIMITS, Recipe
from trainer.detection.run import Run, build_model
from trainer.detection.trainer import DetectionTrainer
from trainer.detection.update import Updater
from trainer.detection.validation import score_split
from trainer.detection.world import find_idle, open_world
from trainer.process import ProcessTrainer
from trainer.testing import TrainerContract, timeless

NAMES = ("bright", "dark")


def write_data(folder: Path, train: int = 16, val: int = 8, boxes: bool = True) -> Path:
    """Pictures of 64 px with a bright or a dark square on grey: a data set that a few epochs can learn."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val), ("test", val)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(100, 150, (64, 64, 3), dtype=np.uint8)
            lines = []
            for left in (4, 36):
                side, cls = int(rng.integers(16, 24)), int(rng.integers(2))
                x, y = left + int(rng.integers(0, 6)), int(rng.integers(2, 38))
                picture[y : y + side, x : x + side] = (30, 220)[cls == 0]
                lines.append(f"{cls} {(x + side / 2) / 64} {(y + side / 2) / 64} {side / 64} {side / 64}")
            Image.fromarray(picture).save(folder / "images" / split / f"{index}.png")
            (folder / "labels" / split / f"{index}.txt").write_text("\n".join(lines) if boxes else "")
    yaml = folder / "data.yaml"
    yaml.write_text(f"train: images/train\nval: images/val\ntest: images/test\nnames: {list(NAMES)}\n")
    return yaml


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOLVE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def trainer() -> DetectionTrainer:
    return DetectionTrainer()


def job_of(data: Path, workdir: Path, hyp: dict[str, float] | None = None, **options: object) -> TrainJob:
    small = TrainOptions(data=str(data), epochs=2, imgsz=64, batch=8)
    return TrainJob(hyp or {}, replace(small, **options), workdir)


class TestDetectionTrainer(TrainerContract):
    bad_options = (
        *({"epochs": 0}, {"batch": 0}, {"data": "no-such-data"}, {"imgsz": 50}, {"optimizer": "sdg"}),
        *({"amp": "fp16"}, {"seed": 2**63}, {"freeze_batch": 4}),
    )

    @pytest.fixture
    def trainer(self, trainer: DetectionTrainer) -> DetectionTrainer:
        return trainer

    @pytest.fixture
    def job(self, data: Path, tmp_path: Path) -> TrainJob:
        return job_of(data, tmp_path, {"lr0": 0.01, "degrees": 5.0, "mixup": 0.5})


def test_it_learns_what_a_few_epochs_can_teach(trainer: DetectionTrainer, data: Path, tmp_path: Path) -> None:
    hyp = {"mosaic": 0.0, "hsv_v": 0.0, "hsv_s": 0.0, "scale": 0.1}
    *_, last = trainer.train(job_of(data, tmp_path, hyp, epochs=24, batch=4))
    assert last.map50 > 0.7
    assert last.precision > 0.5 and last.recall > 0.5
    assert 0.2 < last.map50_95 <= last.map50
    assert set(last.losses) == {"box", "obj", "cls"}


def test_worlds_of_several_models_and_sizes_are_kept_beside_each_other(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    small, large = (job_of(data, tmp_path, epochs=1, imgsz=imgsz) for imgsz in (32, 64))
    first = [timeless(metrics) for metrics in trainer.train(small)]
    other = [timeless(metrics) for metrics in trainer.train(large)]
    assert other != first
    assert [timeless(metrics) for metrics in trainer.train(small)] == first
    assert [timeless(metrics) for metrics in DetectionTrainer().train(small)] == first
    assert trainer._enter(small.options) is trainer._enter(small.options)
    assert trainer._enter(large.options).scored.images.shape[1] == 64


def test_every_epoch_tells_how_many_weights_the_model_has_and_how_long_a_picture_takes(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    for model in ("pico", "nano"):
        (metrics,) = trainer.train(job_of(data, tmp_path, epochs=1, model=model))
        assert metrics.costs["params"] == sum(weights.numel() for weights in load_model(model, 2).parameters())
        assert 0 < metrics.costs["latency_ms"] < 1000


def test_what_is_scored_is_the_split_that_was_asked_for(trainer: DetectionTrainer, data: Path, tmp_path: Path) -> None:
    summary = trainer.prepare(job_of(data, tmp_path, split="test").options).summary
    assert "test 8 with 16" in summary and "train 16 pictures with 32 boxes" in summary


def test_a_second_split_is_scored_once_by_the_final_weights_and_changes_nothing_else(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    both = list(trainer.train(job_of(data, tmp_path, epochs=2, final_split="test")))
    on_val, on_test = (list(trainer.train(job_of(data, tmp_path, epochs=2, split=split))) for split in ("val", "test"))
    last = on_test[-1]
    assert both[0].final == {}
    assert both[1].final == {name: getattr(last, name) for name in ("precision", "recall", "map50", "map50_95")}
    assert [timeless(replace(metrics, final={})) for metrics in both] == [timeless(m) for m in on_val]
    absent = list(trainer.train(job_of(data, tmp_path, epochs=1, final_split="no such split")))
    assert absent[0].final == {}


def test_a_loss_that_is_not_finite_is_a_divergence_with_its_epoch_and_terms(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch \d+ \(box .*, obj .*, cls .*\)") as caught:
        list(trainer.train(job_of(data, tmp_path, {"lr0": 1e30, "warmup_epochs": 0.0}, optimizer="sgd")))
    assert caught.value.epoch >= 1


@pytest.mark.parametrize(
    ("hyp", "sentence"),
    [
        ({"degree": 0.1}, r"knows no hyp 'degree' \(did you mean 'degrees'\?\)"),
        ({"lr0": float("nan")}, "lr0: expected a finite number, got nan"),
        ({"lr0": "fast"}, "lr0: expected a finite number, got 'fast'"),
        ({"mosaic": 1.5}, r"mosaic: 1.5 lies outside \[0, 1\]"),
        ({"lr0": -0.1}, "lr0: -0.1 lies outside"),
    ],
)
def test_a_hyp_without_meaning_is_refused(
    trainer: DetectionTrainer, data: Path, tmp_path: Path, hyp: dict[str, float], sentence: str
) -> None:
    with pytest.raises(TrainerError, match=sentence):
        next(trainer.train(job_of(data, tmp_path, hyp)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"imgsz": 50}, "imgsz must be a multiple of 16 for pico, got 50"),
        ({"imgsz": 80, "model": "nano"}, "imgsz must be a multiple of 32 for nano, got 80"),
        ({"seed": -1}, "seed cannot be negative, got -1"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"model": "huge"}, "huge"),
        ({"split": "holdout"}, "holdout"),
    ],
)
def test_options_that_cannot_be_trained_with_are_named(
    trainer: DetectionTrainer, data: Path, tmp_path: Path, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        trainer.prepare(job_of(data, tmp_path, **options).options)


def test_training_pictures_without_a_box_are_refused(trainer: DetectionTrainer, tmp_path: Path) -> None:
    empty = write_data(tmp_path / "empty", boxes=False)
    with pytest.raises(DataError, match="no training picture holds a box"):
        trainer.prepare(job_of(empty, tmp_path).options)


def test_a_cfg_may_pick_from_more_anchors_than_its_heads_have(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    cfg = (files("trainer.detection") / "cfg" / "pico.cfg").read_text()
    nine = cfg.replace("mask=0,1,2", "mask=3,4,5").replace("mask=3,4,5\nanchors", "mask=6,7,8\nanchors", 1)
    model = tmp_path / "nine.cfg"
    model.write_text(nine.replace("num=6", "num=9").replace("59,119", "59,119, 116,90, 156,198, 373,326"))
    [metrics] = trainer.train(job_of(data, tmp_path, model=str(model), epochs=1))
    assert metrics.epoch == 1


def test_data_that_changed_under_a_study_is_refused_by_the_next_child(data: Path, tmp_path: Path) -> None:
    mine = write_data(tmp_path / "mine", train=4, val=2)
    with ProcessTrainer("trainer.detection.trainer:DetectionTrainer", threads=1, log=tmp_path / "log") as process:
        job = job_of(mine, tmp_path, epochs=1)
        process.prepare(job.options)
        (tmp_path / "mine" / "labels" / "train" / "0.txt").write_text("0 0.5 0.5 0.25 0.25")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
        for _ in range(2):
            with pytest.raises(DataError, match="no longer what this study began with"):
                next(process.train(job))


def test_the_digest_changes_with_the_data_alone(trainer: DetectionTrainer, data: Path, tmp_path: Path) -> None:
    before = trainer.prepare(job_of(data, tmp_path).options).digest
    same_elsewhere = write_data(tmp_path / "same")
    other = write_data(tmp_path / "other")
    label = other.parent / "labels" / "train" / "0.txt"
    label.write_text(label.read_text().splitlines()[0])
    assert trainer.prepare(job_of(same_elsewhere, tmp_path).options).digest == before
    assert trainer.prepare(job_of(other, tmp_path).options).digest != before


def test_what_is_saved_loads_safely_and_says_where_it_came_from(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    job = job_of(data, tmp_path, {"lr0": 0.02}, save=True)
    scored = list(trainer.train(job))
    last, best = (read_checkpoint(tmp_path / name) for name in ("last.pt", "best.pt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]
    assert last["names"] == list(NAMES)
    assert last["hyp"] == {"lr0": 0.02}
    assert last["recipe"] == vars(Recipe(lr0=0.02))
    assert last["digest"] == trainer.prepare(job.options).digest
    assert last["metrics"]["map50_95"] == scored[-1].map50_95
    assert best["metrics"]["map50_95"] == max(metrics.map50_95 for metrics in scored)
    assert torch.__version__.startswith(last["provenance"]["torch"])
    assert "training" not in last and "training" not in best  # a finished training needs its optimizer no more


def test_a_model_from_its_checkpoint_alone_scores_what_the_training_said(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    *_, last = trainer.train(job_of(data, tmp_path, save=True))
    saved = read_checkpoint(tmp_path / "last.pt")
    model = Darknet(parse_cfg(saved["cfg"]), len(saved["names"]))
    model.load_state_dict(saved["weights"])
    world = open_world(job_of(data, tmp_path).options)
    again, _ = score_split(model.eval(), world.scored, 2)
    assert again.map50_95 == pytest.approx(last.map50_95, abs=0.02)  # the training may have scored in bfloat16


RESUMABLE: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd, accumulating": {"optimizer": "sgd", "nominal_batch": 16, "batch": 4},
    "two phases": {"freeze_epochs": 2, "freeze_batch": 4},
}


@pytest.mark.parametrize("name", RESUMABLE)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_training_that_was_resumed_equals_one_that_never_stopped(
    name: str, stop: int, data: Path, tmp_path: Path
) -> None:
    for place in ("straight", "resumed"):
        (tmp_path / place).mkdir()
    job = job_of(data, tmp_path / "straight", {"mixup": 0.3}, epochs=4, imgsz=32, save=True, **RESUMABLE[name])
    straight = list(DetectionTrainer().train(job))
    job = replace(job, workdir=tmp_path / "resumed")
    with closing(DetectionTrainer().train(job)) as epochs:
        before = [next(epochs) for _ in range(stop)]
    again, *after = DetectionTrainer().train(replace(job, resume=True))
    assert again == before[-1]  # once more, since whoever listened may not have heard of it
    assert [timeless(metrics) for metrics in (*before, *after)] == [timeless(metrics) for metrics in straight]
    one, other = (read_checkpoint(tmp_path / place / "last.pt")["weights"] for place in ("straight", "resumed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_only_an_unfinished_training_of_the_same_model_can_be_resumed(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    job = job_of(data, tmp_path, imgsz=32, save=True)
    with pytest.raises(DataError, match=r"nothing to resume.*last\.pt does not exist"):
        next(trainer.train(replace(job, resume=True)))
    with closing(trainer.train(job)) as epochs:
        next(epochs)
    other = replace(job, options=replace(job.options, model="nano"), resume=True)
    with pytest.raises(DataError, match=r"the model of .*last\.pt is another one"):
        next(trainer.train(other))
    list(trainer.train(replace(job, resume=True)))
    with pytest.raises(DataError, match="finished training"):
        next(trainer.train(replace(job, resume=True)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"optimizer": "sgd"}, "trained with optimizer adamw, not sgd"),
        ({"epochs": 2}, "trained with epochs 4, not 2"),
        ({"freeze_epochs": 3}, "trained with freeze_epochs 0, not 3"),
        ({"seed": 1}, "trained with seed 0, not 1"),
    ],
)
def test_a_training_is_resumed_as_it_was_begun(
    changed: dict[str, Any], said: str, trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    job = job_of(data, tmp_path, epochs=4, imgsz=32, save=True)
    with closing(trainer.train(job)) as epochs:
        next(epochs)
    with pytest.raises(DataError, match=said):
        next(trainer.train(replace(job, options=replace(job.options, **changed), resume=True)))
    with pytest.raises(DataError, match=r"the hyp of .*last\.pt is another one"):
        next(trainer.train(replace(job, hyp={"lr0": 0.02}, resume=True)))


def test_an_epoch_that_was_saved_but_not_heard_of_is_told_where_the_training_is_resumed(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    job = job_of(data, tmp_path, epochs=2, imgsz=32, save=True)
    with closing(trainer.train(job)) as epochs:
        heard = [next(epochs), next(epochs)]  # closed before it ended: last.pt still knows how to go on
    (tmp_path / "best.pt.123-abcd.part").touch()  # of a kill while it was written
    assert list(trainer.train(replace(job, resume=True))) == heard[-1:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_the_second_phase_starts_without_the_gradients_of_the_first(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path, imgsz=32, freeze_epochs=1)
    run = Run(job, Recipe(), open_world(job.options), Team(torch.device("cpu")))
    run.enter(phases_of(job.options)[0])
    for parameter in run.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    run.enter(phases_of(job.options)[1])
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_the_network_is_that_of_the_cfg_that_the_study_began_with(data: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "own.cfg"
    cfg.write_text((files("trainer.detection") / "cfg" / "pico.cfg").read_text())
    options = job_of(data, tmp_path, model=str(cfg)).options
    world = open_world(options)
    cfg.write_text(cfg.read_text().replace("filters=12", "filters=16", 1))
    assert build_model(world, 64).state_dict().keys() == load_model("pico", 2).state_dict().keys()
    assert sum(p.numel() for p in build_model(world, 64).parameters()) == sum(
        p.numel() for p in load_model("pico", 2).parameters()
    )
    assert open_world(options).prepared.digest != world.prepared.digest


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_weights": True, "notest": True}, "image_weights go by"),
        ({"sync_bn": True}, "sync_bn"),
        ({"freeze_layers": "3"}, "no weights are given"),
        ({"freeze_epochs": 2, "weights": "x.pt"}, "all 2 epochs have frozen layers"),
        ({"nominal_batch": 4}, "gathers nothing"),
    ],
)
def test_an_option_that_does_nothing_beside_the_others_is_a_warning(
    options: dict[str, Any], said: str, data: Path, tmp_path: Path
) -> None:
    assert any(said in warning for warning in find_idle(job_of(data, tmp_path, **options).options))
    assert find_idle(job_of(data, tmp_path).options) == ()


def test_a_warning_is_about_the_options_that_were_asked_for_last(data: Path, tmp_path: Path) -> None:
    trainer = DetectionTrainer()
    assert any(
        "gathers nothing" in warning
        for warning in trainer.prepare(job_of(data, tmp_path, nominal_batch=4).options).warnings
    )
    assert trainer.prepare(job_of(data, tmp_path).options).warnings == ()


def test_without_tests_only_the_last_epoch_is_scored_and_trains_the_same(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    *_, usual = trainer.train(job_of(data, tmp_path, epochs=3, imgsz=32))
    (only,) = trainer.train(job_of(data, tmp_path, epochs=3, imgsz=32, notest=True))
    assert timeless(only) == timeless(usual)


def test_weights_of_another_training_are_a_start_and_what_did_not_fit_is_said(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
    *_, taught = trainer.train(job_of(data, tmp_path / "first", epochs=8, save=True))
    weights = str(tmp_path / "first" / "best.pt")
    job = job_of(data, tmp_path / "second", {"lr0": 1e-5, "warmup_bias_lr": 0.0}, epochs=1, weights=weights)
    assert "took" in trainer.prepare(job.options).summary
    (metrics,) = trainer.train(job)
    assert metrics.map50 > taught.map50 / 2
    with pytest.raises(DataError, match=r"nothing.*it was trained as pico"):
        trainer.prepare(replace(job.options, model="yolov4-tiny"))
    with pytest.raises(DataError, match="which --weights takes"):
        trainer.prepare(replace(job.options, model=weights))
    with pytest.raises(DataError, match=r"no-such\.pt"):
        trainer.prepare(replace(job.options, weights="no-such.pt"))


def test_frozen_layers_stay_as_they_were_and_are_released_after_their_epochs(
    trainer: DetectionTrainer, data: Path, tmp_path: Path
) -> None:
    def train_until(epoch: int, **options: Any) -> dict[str, Tensor]:
        job = job_of(data, tmp_path, epochs=2, imgsz=32, save=True, **options)
        with closing(trainer.train(job)) as epochs:
            for _ in range(epoch):
                next(epochs)
            state = read_checkpoint(tmp_path / "last.pt")["training"]["model"]
        assert isinstance(state, dict)
        return state

    torch.manual_seed(0)
    start = load_model("pico", 2).state_dict()
    frozen = train_until(1, freeze_epochs=1)
    released = train_until(2, freeze_epochs=1)
    first = [name for name in start if name.startswith("layers.0.") and "num_batches" not in name]
    assert all(torch.equal(frozen[name], start[name]) for name in first)
    assert not all(torch.equal(released[name], start[name]) for name in first)
    assert any(not torch.equal(frozen[name], start[name]) for name in start)
    with pytest.raises(DataError, match="freeze_layers"):
        trainer.prepare(job_of(data, tmp_path, freeze_layers="all").options)


def test_badly_detected_classes_are_shown_more_often_on_request(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path, imgsz=32, image_weights=True)
    run = Run(job, Recipe(), open_world(job.options), Team(torch.device("cpu")))
    before = run.weigh_pictures(None)
    ap = np.array([[0.9] * 10, [0.1] * 10])
    run.note(EpochMetrics(1, 0.5, 0.5, 0.5, 0.5), ap)
    after = run.weigh_pictures(run.map_by_class)
    assert before is not None and after is not None
    dark = np.array([(labels[:, 0] == 1).sum() for labels in run.pictures.labels])
    assert after[dark == 2].min() / after[dark == 0].max() > 20 * before[dark == 2].min() / before[dark == 0].max()
    assert Run(job_of(data, tmp_path, imgsz=32), Recipe(), run.world, run.team).weigh_pictures(None) is None


def test_an_untrained_model_expects_as_many_objects_as_the_pictures_hold(data: Path, tmp_path: Path) -> None:
    world = open_world(job_of(data, tmp_path).options)
    model = build_model(world, 64)
    objects = len(world.training.boxes) / len(world.training.files)
    for head, before in zip(model.heads, (layer for layer in model.modules() if is_before_head(layer)), strict=True):
        found = before.bias.detach().view(head.na, -1)[:, 4].exp()
        assert found.tolist() == pytest.approx([min(0.5, objects / (64 / head.stride) ** 2)] * head.na)


def is_before_head(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Conv2d) and module.bias is not None


@pytest.mark.parametrize("option", ["rect", "multi_scale", "image_weights", "single_cls"])
def test_every_way_to_sample_trains_and_says_the_same_again(option: str, data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path, imgsz=64, **{option: True})
    once, again, plain = (list(DetectionTrainer().train(each)) for each in (job, job, job_of(data, tmp_path, imgsz=64)))
    assert [timeless(metrics) for metrics in once] == [timeless(metrics) for metrics in again]
    assert [metrics.losses for metrics in once] != [metrics.losses for metrics in plain]


def test_pictures_that_are_decoded_on_demand_train_the_same(data: Path, tmp_path: Path) -> None:
    jobs = (job_of(data, tmp_path, cache=cache) for cache in ("disk", "none"))
    cached, decoded = (list(DetectionTrainer().train(job)) for job in jobs)
    assert [timeless(metrics) for metrics in cached] == [timeless(metrics) for metrics in decoded]


def test_a_training_leaves_its_pictures_on_request_also_where_it_was_resumed(data: Path, tmp_path: Path) -> None:
    job = job_of(data, tmp_path, epochs=3, imgsz=32, save=True, plots=True)
    with closing(DetectionTrainer().train(job)) as epochs:
        next(epochs)
    assert not list(tmp_path.glob("*.html"))
    list(DetectionTrainer().train(replace(job, resume=True)))
    (page,) = tmp_path.glob("*.html")
    text = page.read_text()
    assert all(name in text for name in NAMES)
    assert text.count("data:image/") >= 4  # three batches, and what was found


def test_gathering_gradients_is_an_update_with_all_of_their_pictures() -> None:
    """Two batches gathered move the weights as their mean gradient does."""
    outcome = []
    for gathered in (1, 2):
        torch.manual_seed(0)
        model = load_model("pico", nc=2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loss = DetectionLoss(Recipe(), model.heads, 2, 64)
        precision, team = Precision(torch.float32), Team(torch.device("cpu"))
        updater = Updater(model, loss, optimizer, Average(model, 10), precision, team, record=False)
        images, boxes = torch.rand(2, 3, 64, 64), np.array([[0, 1, 30, 30, 20, 20]], np.float32)
        found = match_batch(boxes, grids_of(model.heads), 2, (64, 64), 4.0)
        for _ in range(gathered):
            updater.gather(images, found)
        updater.step()
        outcome.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*outcome)


def test_every_hyp_has_a_default_within_its_limits() -> None:
    defaults = vars(Recipe())
    assert set(defaults) < HYPS  # which also holds what older trainers call theirs
    assert set(LIMITS) <= HYPS
    assert Recipe.from_hyp(defaults) == Recipe()


def test_every_hyp_changes_the_training(trainer: DetectionTrainer, data: Path, tmp_path: Path) -> None:
    """A hyp without an effect would be searched for nothing: each, moved alone, must leave other weights behind."""
    moved = {
        **{name: value * 0.7 for name, value in vars(Recipe()).items()},
        "mosaic": 0.5,
        "degrees": 10.0,
        "shear": 5.0,
        "perspective": 0.001,
        "flipud": 0.5,
        "warmup_epochs": 20.0,
        "mixup": 0.5,
        "fl_gamma": 1.0,
        "label_smoothing": 0.1,
        "anchor_t": 1.5,
    }
    dead = trainer.prepare(job_of(data, tmp_path, imgsz=32, batch=4).options).dead
    assert set(dead) == {"iou_t", "copy_paste"}
    base = {"mosaic": 1.0}

    def losses(hyp: dict[str, float]) -> dict[str, float]:
        *_, last = trainer.train(job_of(data, tmp_path, hyp, epochs=2, imgsz=32, batch=4))
        return dict(last.losses)

    undisturbed = losses(base)
    idle = [name for name in vars(Recipe()) if losses({**base, name: moved[name]}) == undisturbed]
    assert set(idle) <= set(dead)
