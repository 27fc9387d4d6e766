"""The sampler and the pruner by themselves, in studies that are not ours: any storage, any params, any direction."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from studies import EvolvePruner, GeneticSampler, trials_of

EPOCHS = 20
STORAGES: dict[str, Callable[[Path], BaseStorage]] = {
    "memory": lambda folder: InMemoryStorage(),
    "SQLite": lambda folder: RDBStorage(f"sqlite:///{folder / 'anybody.db'}"),
    "journal": lambda folder: JournalStorage(JournalFileBackend(str(folder / "anybody.log"))),
}


def error_of(trial: optuna.Trial) -> float:
    """Somebody's training: params of all kinds, some only where others call for them. 0 is the best."""
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    layers = trial.suggest_int("layers", 1, 8)
    width = trial.suggest_int("width", 8, 512, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.5, step=0.05)
    optimizer = trial.suggest_categorical("optimizer", ["sgd", "adam", None])
    momentum = trial.suggest_float("momentum", 0.5, 0.99) if optimizer == "sgd" else 0.9
    trial.set_user_attr("mine", [rate, optimizer])
    return (
        abs(math.log10(rate / 0.003))
        + 0.2 * abs(layers - 5)
        + 0.2 * abs(math.log2(width / 128))
        + dropout
        + abs(momentum - 0.9)
        + 0.3 * (optimizer != "adam")
    )


def minimize(trial: optuna.Trial) -> float:
    """The error falls from epoch to epoch."""
    found = error_of(trial)
    for epoch in range(1, EPOCHS + 1):
        trial.report(found + 1 / epoch, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return found + 1 / EPOCHS


def maximize(trial: optuna.Trial) -> float:
    """The same turned round, and counted from 0, as many count."""
    found = error_of(trial)
    for step in range(EPOCHS):
        trial.report(-found - 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return -found - 1 / EPOCHS


def study_of(direction: str = "minimize", storage: BaseStorage | None = None, seed: int = 0) -> optuna.Study:
    sampler, pruner = GeneticSampler(seed=seed), EvolvePruner(epochs=EPOCHS)
    return optuna.create_study(storage=storage, direction=direction, sampler=sampler, pruner=pruner)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("storage", STORAGES)
def test_they_serve_a_study_in_any_storage_in_both_directions(tmp_path: Path, storage: str, direction: str):
    study = study_of(direction, STORAGES[storage](tmp_path))
    study.optimize(minimize if direction == "minimize" else maximize, n_trials=24)
    pruned, complete = (study.get_trials(states=(state,)) for state in (TrialState.PRUNED, TrialState.COMPLETE))
    assert len(pruned) + len(complete) == 24
    last = EPOCHS if direction == "minimize" else EPOCHS - 1
    assert pruned
    assert all(trial.last_step is not None and trial.last_step < last for trial in pruned)
    assert abs(study.best_value) < min(abs(trial.value) for trial in complete[:3])
    assert study.best_trial.user_attrs["mine"] == [study.best_params["rate"], study.best_params["optimizer"]]


@pytest.mark.parametrize("storage", STORAGES)
def test_threads_share_them(tmp_path: Path, storage: str):
    study = study_of(storage=STORAGES[storage](tmp_path))
    study.optimize(minimize, n_trials=16, n_jobs=4)
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in study.trials)
    hyps = [tuple(sorted(trial.params.items(), key=str)) for trial in study.trials]
    assert len(set(hyps)) == len(hyps)


def test_a_study_that_goes_on_is_one_that_never_stopped(tmp_path: Path):
    whole = study_of()
    whole.optimize(minimize, n_trials=20)
    url = f"sqlite:///{tmp_path / 'halves.db'}"
    for n_trials in (9, 11):
        halves = optuna.create_study(
            study_name="halves",
            storage=url,
            load_if_exists=True,
            sampler=GeneticSampler(seed=0),
            pruner=EvolvePruner(epochs=EPOCHS),
        )
        halves.optimize(minimize, n_trials=n_trials)
    assert [trial.params for trial in halves.trials] == [trial.params for trial in whole.trials]


def test_they_beat_random_search():
    def lead(seed: int) -> float:
        """By how much the best that they find in 80 trials is better than the best of 80 random ones, trained whole."""
        study, random = study_of(seed=seed), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
        study.optimize(minimize, n_trials=80)
        random.optimize(lambda trial: error_of(trial) + 1 / EPOCHS, n_trials=80)
        return random.best_value - study.best_value

    leads = [lead(seed) for seed in range(4)]
    assert sum(leads) / 4 > 0.1


def test_trials_of_anybody_are_parents_too():
    study = study_of("maximize")
    distributions = {"x": FloatDistribution(0.0, 1.0), "n": IntDistribution(0, 9)}
    for value in (0.1, 0.5, 0.9):
        study.add_trial(create_trial(params={"x": value, "n": 3}, distributions=distributions, value=value))
    study.enqueue_trial({"x": 0.25})
    for _ in range(12):
        trial = study.ask(distributions)
        study.tell(trial, trial.params["x"])
    trials = trials_of(study)
    assert trials[3].params["x"] == 0.25
    assert all(trial.user_attrs["parents"] for trial in trials[4:] if trial.user_attrs["operator"] in ("step", "mean"))
    assert study.best_value > 0.9


def test_params_that_only_some_trials_have_evolve_by_themselves():
    def objective(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("kind", ["plain", "deep"]) == "plain":
            return 1.0
        where = trial.suggest_categorical("where", [None, "left", "right"])
        return abs(trial.suggest_float("depth", 0.0, 10.0) - 7) / 10 + 0.2 * (where != "left")

    far, wrong, deep = 0.0, 0, 0
    for seed in range(4):
        study = study_of(seed=seed)
        study.optimize(objective, n_trials=60)
        last = [trial.params for trial in study.trials[20:] if trial.params["kind"] == "deep"]
        far += sum(abs(params["depth"] - 7) for params in last)
        wrong += sum(params["where"] != "left" for params in last)
        deep += len(last)
        assert study.best_value < 0.1
    assert far / deep < 1.8, "uniform draws are 2.9 away"
    assert wrong / deep < 0.5, "uniform draws are wrong two times of three"


def test_several_goals_are_refused():
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=GeneticSampler())
    with pytest.raises(ValueError, match="GeneticSampler"):
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=1)


@pytest.mark.parametrize(("low", "high"), [(2000.0, 2001.0), (-1e6, -1e6 + 5), (0.9990, 0.9999)])
def test_a_narrow_range_far_from_0_is_searched_as_finely_as_any(low: float, high: float):
    aim = low + 0.3 * (high - low)
    study = study_of(seed=1)
    study.optimize(lambda trial: abs(trial.suggest_float("x", low, high) - aim) / (high - low), n_trials=60)
    assert study.best_value < 0.01
    drawn = [trial.params["x"] for trial in study.trials]
    assert all(low <= value <= high for value in drawn)
    assert len(set(drawn)) > 50


def flat(value: float, steps: range) -> dict[int, float]:
    return dict.fromkeys(steps, value)


def pruned_after(steps: range, *, epochs: int = 100) -> int | None:
    """The step at which a bad trial is pruned beside good ones, if all report at these steps."""
    study = optuna.create_study(direction="maximize", pruner=EvolvePruner(epochs=epochs))
    for value in (0.5, 0.6, 0.7, 0.8, 0.9):
        study.add_trial(create_trial(value=value, intermediate_values=flat(value, steps)))
    trial = study.ask()
    for step in steps:
        trial.report(0.1, step)
        if trial.should_prune():
            return step
    return None


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (range(1, 101), 10),  # a tenth of 100 epochs has ended
        (range(100), 9),  # it has, too, for who counts from 0
        (range(20, 101, 20), 20),
        (range(0, 100, 25), 25),
        (range(100, 101), None),  # at the end there is nothing to save
        (range(99, 100), 99),
        (range(0, 100, 99), None),  # nor for who counts from 0
    ],
)
def test_it_is_asked_at_whatever_steps_a_trial_reports(steps: range, expected: int | None):
    assert pruned_after(steps) == expected


def test_reports_that_are_far_apart_are_not_averaged():
    """Over a twentieth of the epochs, that is: a curve that has risen is judged by where it is now."""
    study = optuna.create_study(direction="maximize", pruner=EvolvePruner(epochs=1000, elite=0))
    risen = {100: 0.1, 200: 0.2, 300: 0.9}
    for value in (0.5, 0.6, 0.7, 0.8):
        study.add_trial(create_trial(value=value, intermediate_values=flat(value, range(100, 1001, 100))))
    trial = study.ask()
    verdicts = []
    for step, value in risen.items():
        trial.report(value, step)
        verdicts.append(trial.should_prune())
    assert verdicts == [True, True, False]
