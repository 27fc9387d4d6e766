"""The built-in detection trainer: one training from hyps to metrics, read top to bottom."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor

from trainer.api import DataError, EpochMetrics, Prepared, TrainingDiverged, TrainJob, TrainOptions
from trainer.detection.batches import Ahead, Sampling, draw_batches
from trainer.detection.checkpoint import strip
from trainer.detection.detect import detect, tell_latency
from trainer.detection.distributed import assemble, check_shares, devices_of
from trainer.detection.matching import Matches
from trainer.detection.phases import phase_at
from trainer.detection.recipe import HYPS, Recipe
from trainer.detection.run import Run
from trainer.detection.validation import score_split
from trainer.detection.world import World, check_options, find_idle, open_world

logger = logging.getLogger(__name__)

MOST_WORLDS = 32  # that are kept: they map files of decoded pictures, so that they take little memory
SHOWN_BATCHES = 3  # of the first epoch, among the pictures that a training leaves


class DetectionTrainer:
    """Trains a Darknet cfg on a data set; scores the averaged weights after every epoch (see trainer.Trainer)."""

    hyps: frozenset[str] | None = HYPS

    def __init__(self) -> None:
        self._worlds: dict[tuple[object, ...], World] = {}  # the one that was entered last is the last

    def prepare(self, options: TrainOptions) -> Prepared:
        """Check the options, decode the data into the cache, fit the anchors. Raises DataError."""
        check_options(options)
        prepared = self._enter(options).prepared
        costs = {"latency_ms": tell_latency(devices_of(options.device)[0]), "params": "weights that are learned"}
        return replace(prepared, warnings=(*prepared.warnings, *find_idle(options)), costs=costs)

    def train(self, job: TrainJob) -> Generator[EpochMetrics, None, None]:
        """Yield after every epoch that was scored. Raises TrainingDiverged, TrainerError, DataError."""
        options = job.options
        check_options(options)
        recipe = Recipe.from_hyp(job.hyp)
        torch.set_num_threads(options.threads or cpu_count())
        with assemble(job) as team:
            world = team.in_turn("world", lambda: self._enter(options))
            yield from train_epochs(Run(job, recipe, world, team))

    def _enter(self, options: TrainOptions) -> World:
        """The world of these options, kept between trainings: decoding and clustering happen once.

        Where models and image sizes evolve there are several. Only that of this training may lie on a GPU.
        """
        apart = ("data", "model", "imgsz", "split", "single_cls", "cache", "rect", "weights")
        freezing = ("freeze_layers", "freeze_epochs")
        key = tuple(getattr(options, name) for name in (*apart, *freezing))
        world = self._worlds.pop(key, None) or open_world(options)
        for other in self._worlds.values():
            other.leave()
        self._worlds = {**dict(list(self._worlds.items())[-MOST_WORLDS + 1 :]), key: world}
        check_shares(options, len(world.pictures.images))
        return world


def train_epochs(run: Run) -> Iterator[EpochMetrics]:
    """Train what is left of a run; the first process yields after every epoch that was scored, the others never."""
    options, team = run.job.options, run.team
    if run.job.resume and run.history and team.leads:
        yield run.history[-1]  # again: whoever listened may not have heard of it
    batches: Ahead[tuple[Tensor, Matches]] | None = None
    try:
        for epoch in range(run.epoch + 1, options.epochs + 1):
            started = time.perf_counter()
            run.map_by_class = team.meet(f"epoch {epoch}", run.map_by_class)
            run.enter(phase_at(options, epoch))
            batches = batches or start_batches(run, epoch)
            losses = train_one_epoch(run, epoch, batches)
            batches = start_batches(run, epoch + 1) if starts_early(run, epoch) else None
            team.meet(f"end of epoch {epoch}")
            if team.leads and (epoch == options.epochs or not options.notest):
                yield score_epoch(run, epoch, losses, started)
            elif team.leads and options.save:
                run.save(is_best=False)
    finally:
        if batches is not None:
            batches.close()
    if options.save and team.leads:
        strip(run.job.workdir / "last.pt")
    if options.plots and team.leads:
        draw_pictures(run)


def starts_early(run: Run, epoch: int) -> bool:
    """Whether the next epoch's first batches are made while this one is scored.

    That is where the scores do not decide on them, and on a GPU: on a CPU it would take the core that suppresses.
    """
    options = run.job.options
    if run.team.device.type == "cpu" or epoch == options.epochs or options.image_weights:
        return False
    return phase_at(options, epoch + 1) == run.phase


def score_epoch(run: Run, epoch: int, losses: dict[str, float], started: float) -> EpochMetrics:
    """Score the averaged weights, and save them if that is wanted."""
    scores, latency_ms = score_split(run.average.model, run.scored, run.world.spec.nc, run.precision.dtype)
    metrics = EpochMetrics(
        epoch=epoch,
        precision=scores.precision,
        recall=scores.recall,
        map50=scores.map50,
        map50_95=scores.map50_95,
        losses=losses,
        seconds=time.perf_counter() - started,
        final=score_final(run) if epoch == run.job.options.epochs else {},
        costs={"latency_ms": latency_ms, "params": sum(weights.numel() for weights in run.model.parameters())},
    )
    is_best = run.note(metrics, scores.ap)
    if run.job.options.save:
        run.save(is_best=is_best)
    return metrics


def score_final(run: Run) -> dict[str, float]:
    """The scores on `final_split`; none where it was not asked for, is not there or cannot be read."""
    options, world = run.job.options, run.world
    if options.final_split not in world.spec.splits:
        return {}
    try:
        split = world.split(options.final_split, options)
    except DataError as error:  # the training is done, and what it was for is known
        logger.warning("%s was not scored: %s", options.final_split, error)
        return {}
    scores, _ = score_split(run.average.model, split, world.spec.nc, run.precision.dtype)
    return {name: float(getattr(scores, name)) for name in ("precision", "recall", "map50", "map50_95")}


def draw_pictures(run: Run) -> None:
    """Leave what the training saw and found as pictures. The first batches are drawn again, as they were."""
    from trainer.detection.figures import leave_pictures  # plotly is slow to load, and a trial draws nothing

    options = run.job.options
    sampling = choose_sampling(run, phase_at(options, 1).batch, None)
    batches: Ahead[tuple[Tensor, Tensor]] = draw_batches(
        run.pictures, run.recipe, sampling, np.random.default_rng([options.seed, 1])
    )
    with closing(batches):
        first = [(images.cpu(), targets) for images, targets in islice(batches, SHOWN_BATCHES)]
    try:
        leave_pictures(
            run.job.workdir,
            names=run.world.spec.names,
            training=run.world.training,
            scored=run.world.scored,
            detections=detect(run.average.model, run.scored, run.precision.dtype),
            epochs=run.history,
            first_batches=first,
        )
    except OSError as error:  # a full disk, as a rule; the training is done, and its weights are there
        logger.warning("the pictures of the training could not be written: %s", error)


def train_one_epoch(run: Run, epoch: int, batches: Iterable[tuple[Tensor, Matches]]) -> dict[str, float]:
    """One pass over the training pictures; returns the mean losses. Raises TrainingDiverged.

    On a CPU a loss that is not finite ends the epoch at once, on a GPU at its end: nothing waits for the device.
    """
    drawn = np.random.SeedSequence([run.job.options.seed, epoch]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(drawn))  # for dropout; by epoch: a resumed run draws the same
    run.model.train()
    device = run.team.device
    total = torch.zeros(3, device=device)
    gathered, steps = 0, 0
    for images, matches in batches:
        due = run.schedule.advance()
        terms = run.updater.gather(images, matches.to(device))
        if device.type == "cpu":
            check_finite(terms, epoch)
        total += terms
        steps, gathered = steps + 1, gathered + 1
        if gathered >= due or steps == run.steps:
            run.updater.step()
            gathered = 0
    run.epoch = epoch
    mean = total.cpu() / steps
    check_finite(mean, epoch)
    return name_losses(mean)


def start_batches(run: Run, epoch: int) -> Ahead[tuple[Tensor, Matches]]:
    """Begin to make this process' part of an epoch's batches: images [B, 3, H, W] on the device, and what answers."""
    options, team = run.job.options, run.team
    rng = np.random.default_rng([options.seed, epoch])  # by epoch, so that a resumed run draws the same
    sampling = choose_sampling(run, run.batch, run.map_by_class)
    return draw_batches(run.pictures, run.recipe, sampling, rng, team.device, team.rank, team.world, run.matcher.match)


def choose_sampling(run: Run, batch: int, map_by_class: Sequence[float] | None) -> Sampling:
    """How an epoch becomes batches; the last scores by class decide where badly detected ones are shown more often."""
    options = run.job.options
    weights = run.weigh_pictures(map_by_class)
    return Sampling(batch, options.rect, options.multi_scale, run.model.stride, weights)


def check_finite(terms: Tensor, epoch: int) -> None:
    if not torch.isfinite(terms).all():
        raise TrainingDiverged(epoch, name_losses(terms))


def name_losses(terms: Tensor) -> dict[str, float]:
    return dict(zip(("box", "obj", "cls"), terms.tolist(), strict=True))
