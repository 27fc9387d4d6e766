"""One trial's journey, with trainings that are a few lines of Python and a real Optuna study."""

import math

import optuna
import pytest

from evolve.config import EvolveConfig
from evolve.fitness import Fitness
from evolve.goals import ONE, Goals
from evolve.interrupts import Interrupts
from evolve.objective import Objective
from evolve.paths import RunPaths
from evolve.records import Records
from evolve.watcher import Silence
from search_spaces import Param, Space
from trainer import EpochMetrics, TrainerError, TrainOptions

SPACE = Space("one", (Param("lr0", 0.1, 0.01, 1.0),))
PRUNE_BELOW_ONE_HALF = optuna.pruners.ThresholdPruner(lower=0.5)


class Epochs:
    """A training that yields these values of map50_95, and notes how far it came and whether it was closed."""

    def __init__(self, *values):
        self.values = values
        self.jobs, self.trained, self.closed = [], 0, False

    def __call__(self, job):
        self.jobs.append(job)
        try:
            for epoch, value in enumerate(self.values, 1):
                if isinstance(value, Exception):
                    raise value
                self.trained = epoch
                yield EpochMetrics(epoch, precision=0.1, recall=0.2, map50=0.3, map50_95=value)
        finally:
            self.closed = True


def journey(tmp_path, train, pruner=None, goals=ONE):
    """The outcome of the first trial of a new study that trains like this, and the study."""
    directions = list(goals.directions.values())
    study = optuna.create_study(directions=directions, pruner=pruner or optuna.pruners.NopPruner())
    paths, watcher = RunPaths(tmp_path), Silence()
    records = Records(study, SPACE, EvolveConfig(), paths, watcher)
    options = TrainOptions(epochs=len(train.values), seed=5)
    objective = Objective(train, options, Fitness.parse("map=1"), paths, records, watcher, Interrupts(), goals)
    return objective(study.ask(), {"lr0": 0.1}, seed=9), study


def test_a_trial_that_ends_has_the_fitness_and_the_metrics_of_its_last_epoch(tmp_path):
    outcome, study = journey(tmp_path, Epochs(0.3, 0.5, 0.4))
    assert (outcome.state, outcome.fitness, outcome.epochs) == ("complete", 0.4, 3)
    assert outcome.metrics == {"precision": 0.1, "recall": 0.2, "map50": 0.3, "map50_95": 0.4}
    assert study.trials[0].intermediate_values == {1: 0.3, 2: 0.5, 3: 0.4}


def test_with_several_goals_of_which_optuna_takes_no_report_the_epochs_are_noted(tmp_path):
    _, study = journey(tmp_path, Epochs(0.3, 0.5, TrainerError("a bug")), goals=Goals.parse("map50,map50_95"))
    assert study.trials[0].user_attrs["epochs"] == 2
    assert study.trials[0].intermediate_values == {}


def test_the_training_gets_the_hyp_its_own_seed_and_a_folder_that_exists(tmp_path):
    train = Epochs(0.3)
    journey(tmp_path, train)
    (job,) = train.jobs
    assert (job.hyp, job.options.seed) == ({"lr0": 0.1}, 9)
    assert job.workdir == tmp_path / "trials" / "00000"
    assert job.workdir.is_dir()


def test_a_pruned_training_is_closed_where_it_stands(tmp_path):
    train = Epochs(0.6, 0.4, 0.9)
    outcome, _ = journey(tmp_path, train, PRUNE_BELOW_ONE_HALF)
    assert (outcome.state, outcome.epochs) == ("pruned", 2)
    assert (train.trained, train.closed) == (2, True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fitness_that_is_not_finite_is_a_failure_and_no_value(tmp_path, value):
    train = Epochs(0.3, value, 0.5)
    outcome, study = journey(tmp_path, train)
    assert (outcome.state, outcome.failure) == ("failed", f"the fitness of epoch 2 is {value}")
    assert study.trials[0].intermediate_values == {1: 0.3}
    assert train.closed
    assert '"map50_95": null' in (tmp_path / "trials" / "00000" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("memory ran out; the log ends with:\n  Killed", "memory ran out; the log ends with:"),
        ("mylab.toy:Toy: the training process was killed", "the training process was killed"),
        ("", "TrainerError"),
    ],
)
def test_an_error_of_the_trainer_is_told_by_its_first_line_without_the_trainers_name(tmp_path, message, told):
    outcome, _ = journey(tmp_path, Epochs(0.3, TrainerError(message)))
    assert (outcome.state, outcome.failure, outcome.epochs) == ("failed", told, 1)


def test_a_trainer_without_an_epoch_has_failed(tmp_path):
    outcome, _ = journey(tmp_path, Epochs())
    assert (outcome.state, outcome.failure) == ("failed", "the trainer ended without an epoch")


def test_whatever_else_goes_wrong_closes_the_training_and_is_not_hidden(tmp_path):
    train = Epochs(0.3, KeyError("a bug"))
    with pytest.raises(KeyError):
        journey(tmp_path, train)
    assert train.closed


def test_the_metrics_of_a_study_that_is_gone_do_not_mix_with_new_ones(tmp_path):
    journey(tmp_path, Epochs(0.3, 0.5))
    journey(tmp_path, Epochs(0.4))
    assert len((tmp_path / "trials" / "00000" / "metrics.jsonl").read_text().splitlines()) == 1
