"""A study's life: created or resumed as the same study, its trials given out, the lost ones queued again.

A trial is *lost* when the process that worked on it ended before it did. Its state becomes FAIL, its user attribute
"lost" says why, and its hyp is queued again as a new trial, its *retry*. A retry takes over the *generation* of the
trial that it retries, and whatever draws random numbers draws them by generation, not by trial number. So a study that
was killed and resumed equals one that never stopped.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib import metadata
from typing import Any, Literal

import optuna
from optuna import Study, Trial
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Hyp, Space, Value
from studies.errors import StudyError
from studies.lease import Listener
from studies.storage import open_storage, storage_errors
from studies.trials import (
    BASE,
    ENTRANT,
    FAILURE,
    LOST,
    OPERATOR,
    PARENTS,
    RETRY_OF,
    ROUND,
    SEED,
    SOURCE,
    STEP,
    SURPLUS,
    WORKER,
    generation_in,
    generation_of,
    generations,
    hyp_of,
    is_known,
    is_lost,
    is_surplus,
    lost_before,
    remember_generation,
    trials_of,
)
from studies.worker import is_alive, this_worker

logger = logging.getLogger(__name__)

Direction = Literal["maximize", "minimize"]
ONE_GOAL: Mapping[str, Direction] = {"fitness": "maximize"}

# user attributes of a study
IDENTITY = "identity"  # what must be the same for its trials to be comparable; written last, once all else is set up
CREATED_WITH = "created_with"  # version
CONFIG = "config"  # the YAML of what it was asked for, without passwords
NOISE = "noise"  # {sd, degrees}: the noise floor as it is now, for people; code takes it from the trials

INHERITED = (BASE, SOURCE, PARENTS, OPERATOR, STEP, SEED, ENTRANT, ROUND)  # by the retry of a lost trial

DIED = "the process that trained it ended"  # why a trial was lost that nobody has given up
RETRIES = 3  # of a hyp whose trial was lost; then it is the hyp that its process does not survive
GRACE_S = 60  # how old a trial without a worker must be to count as lost while others may work on the study

SETUP_WAIT_S = 5  # how long another process may take to set up a study that it has just created
SHOWN_DIFFERENCES = 6


def open_study(
    name: str,
    storage: str | BaseStorage,
    *,
    sampler: BaseSampler,
    pruner: BasePruner,
    identity: Mapping[str, Any],
    base: Hyp,
    base_seeds: int = 1,
    goals: Mapping[str, Direction] = ONE_GOAL,
    exclusive: bool = False,
    retries: int = RETRIES,
) -> Study:
    """Create the study, or resume it where it stopped; `storage` is a URL or what `open_storage` returned.

    `identity` (JSON-able) is compared with what the study was created with. Where it holds "space"
    (`Space.to_dict()`), the base is checked against that and only its params are queued: `base` may hold fixed values
    too. Of a new study, the first `base_seeds` trials train the base, each under a seed of its own; lost trials are
    queued again. `goals` names what a trial's values are, in order.

    `exclusive`: the caller knows that nobody else works on this study, for instance because it holds a lock on the
    folder in which the study's storage lies. Then every trial still RUNNING is lost, but for those of a living process
    of this host. Without it, trials of other hosts are left alone, and those of nobody get a minute's grace. `retries`
    is how often a hyp is queued again whose trial was lost.

    Raises StudyError if the study differs in identity or goals, was not made here, or its storage fails; SpaceError
    for a base outside its bounds.
    """
    asked = json.loads(json.dumps(identity))  # as a storage gives it back
    queued = _evolving(base, asked)
    url = storage if isinstance(storage, str) else ""
    opened = open_storage(storage) if isinstance(storage, str) else storage
    with storage_errors(url):
        study = _create_or_load(name, opened, sampler, pruner, goals, exclusive)
        if IDENTITY not in study.user_attrs:
            _set_up(study, asked, base, queued, base_seeds, goals)
        _check_same(study, asked, goals)
        requeue_lost(study, exclusive=exclusive, retries=retries)
    return study


def goals_of(study: Study) -> dict[str, Direction]:
    """The names of a trial's values, in order, and whether more or less of each is better."""
    count = len(study.directions)
    names = study.metric_names or (list(ONE_GOAL) if count == 1 else [f"goal {number}" for number in range(count)])
    better: dict[StudyDirection, Direction] = {
        StudyDirection.MAXIMIZE: "maximize",
        StudyDirection.MINIMIZE: "minimize",
    }
    return dict(zip(names, (better[direction] for direction in study.directions), strict=True))


def ask_within(study: Study, generations: int, trials: Sequence[FrozenTrial] | None = None) -> Trial | None:
    """The next trial of a study of so many generations, claimed by this process; None while there is none to be had.

    Then all generations are done or under way elsewhere; a trial that gets lost there may still be had later. Any
    number of processes may ask at once, and no generation is had by two trials: trial numbers, which the storage gives
    out one by one, decide. What is queued comes first, in the order of generations, so that a hyp that was lost is the
    next to be trained. Optuna's own `ask` knows neither an end nor this order. `trials` are those of the study, where
    the caller has just read them.
    """
    trial, trials = _ask_queued(study, generations, trials)
    if trial is not None:
        return trial
    if sum(not (is_lost(trial) or is_known(trial) or is_surplus(trial)) for trial in trials) >= generations:
        return None
    trial_id = study._storage.create_new_trial(study._study_id)
    trials = study._thread_local.cached_all_trials = trials_of(study)  # a sampler has no need to read them again
    created = next(trial for trial in reversed(trials) if trial._trial_id == trial_id)
    if (generation := generation_in(trials, created)) < generations:
        return _claimed(study, trial_id, created.number, generation)
    _set_aside(study, trial_id)
    return None


def ask_queued(
    study: Study, generations: int | None = None, trials: Sequence[FrozenTrial] | None = None
) -> Trial | None:
    """The next trial of the queue, of so many generations, claimed by this process; None if there is none."""
    return _ask_queued(study, generations, trials)[0]


def claim(trial: Trial) -> None:
    """Note that this process works on the trial: when the process dies, the trial is lost."""
    trial.set_user_attr(WORKER, this_worker())


def abandon(study: Study, trial: Trial | FrozenTrial, reason: str) -> None:
    """Give up a running trial that is to be done again; one that has finished stays as it is.

    Whoever gives up has not died of it, so that this does not count among its retries.
    """
    _lose(study, trials_of(study)[trial.number], reason)


def requeue_lost(
    study: Study,
    trials: Sequence[FrozenTrial] | None = None,
    *,
    exclusive: bool = False,
    listener: Listener | None = None,
    retries: int = RETRIES,
) -> list[int]:
    """Mark the trials of dead workers as lost and queue their hyps again; returns their numbers.

    Any process may die within this, too. A trial is marked first, which only one process can do, then queued; one that
    was marked but not queued is found by having no retry. (Where two find it so at once, `ask_within` sets the second
    retry aside.) `exclusive` is explained at `open_study`. A trial of which the `listener` has heard nothing for long
    is lost, unless it is that of a living process of this host; whoever has listened needs no wall clock to know that
    a trial without a worker is lost. A hyp that has been lost more than `retries` times is not queued again: its last
    trial has failed. `trials` are those of the study, where the caller has just read them.
    """
    trials = trials_of(study) if trials is None else trials
    mute = None if listener is None else {trial.number for trial in listener.silent(trials)}
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    orphans = [trial for trial in running if _is_orphan(trial, exclusive, mute)]
    retried = {trial.user_attrs.get(RETRY_OF) for trial in trials}
    forgotten = [trial for trial in trials if is_lost(trial) and trial.number not in retried]
    forgotten = [trial for trial in forgotten if exclusive or _age_s(trial.datetime_complete) > GRACE_S]
    for trial in forgotten:
        _queue_again(study, trial)
    for trial in orphans:
        deaths = 1 + _deaths(trials, trial)
        if deaths <= retries:
            _lose(study, trial, DIED)
        else:
            _fail(study, trial, f"the process that trained it ended, {deaths} times in all")
    return [trial.number for trial in (*forgotten, *orphans)]


def _ask_queued(
    study: Study, most: int | None, trials: Sequence[FrozenTrial] | None
) -> tuple[Trial | None, Sequence[FrozenTrial]]:
    """The next trial of the queue; if there is none, all trials as they are."""
    trials = trials_of(study) if trials is None else trials
    while waiting := _queued(trials, most):
        for trial in waiting:
            if not _take(study, trial):
                continue  # others were quicker
            if not _is_second_retry(trials, trial):
                study._thread_local.cached_all_trials = None
                return _claimed(study, trial._trial_id, trial.number, generation_of(study, trial)), trials
            _set_aside(study, trial._trial_id)
        trials = trials_of(study)
    return None, trials


def _queued(trials: Sequence[FrozenTrial], most: int | None) -> list[FrozenTrial]:
    """The waiting trials of the first `most` generations (None: of all), in the order of these."""
    found = generations(trials)
    waiting = (trial for trial in trials if trial.state == TrialState.WAITING)
    within = (trial for trial in waiting if most is None or found[trial.number] < most)
    return sorted(within, key=lambda trial: found[trial.number])


def _is_second_retry(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
    """Whether an earlier trial retries the same: two processes have found a lost trial without a retry at once."""
    retried = trial.user_attrs.get(RETRY_OF)
    earlier = trials[: trial.number]
    return retried is not None and any(other.user_attrs.get(RETRY_OF) == retried for other in earlier)


def _set_aside(study: Study, trial_id: int) -> None:
    study._storage.set_trial_user_attr(trial_id, SURPLUS, True)
    study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def _take(study: Study, trial: FrozenTrial) -> bool:
    """Whether this process is the one that has taken a waiting trial from the queue."""
    try:
        return study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return False


def _claimed(study: Study, trial_id: int, number: int, generation: int) -> Trial:
    remember_generation(study, number, generation)
    study._storage.set_trial_user_attr(trial_id, WORKER, this_worker())  # before the sampler has a second to think
    return Trial(study, trial_id)


def _evolving(base: Hyp, identity: Mapping[str, Any]) -> dict[str, Value]:
    """What is to be queued of the base: its params, each as the kind of number that it is, within its bounds."""
    if "space" not in identity:
        return dict(base)
    space = Space.from_dict(identity["space"]).with_base(base)
    return {param.name: param.default for param in space.params}


def _create_or_load(
    name: str,
    storage: BaseStorage,
    sampler: BaseSampler,
    pruner: BasePruner,
    goals: Mapping[str, Direction],
    exclusive: bool,
) -> Study:
    try:
        return optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, pruner=pruner, directions=list(goals.values())
        )
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
    deadline = time.monotonic() + (0 if exclusive else SETUP_WAIT_S)
    while IDENTITY not in study.user_attrs and time.monotonic() < deadline:
        time.sleep(0.05)
    return study


def _set_up(
    study: Study,
    identity: Mapping[str, Any],
    base: Hyp,
    queued: dict[str, Value],
    base_seeds: int,
    goals: Mapping[str, Direction],
) -> None:
    """Make a new study ours; goes on where another process that died in here has stopped."""
    trials = trials_of(study)
    if any(BASE not in trial.user_attrs for trial in trials):
        raise StudyError(
            f"study {study.study_name!r} exists in this storage, but was not made by evolve; use another --study name"
        )
    study.set_user_attr(BASE, dict(base))
    study.set_user_attr(CREATED_WITH, _version())
    if len(study.directions) == len(goals) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(goals))
    for _ in range(base_seeds - len(trials)):
        study.enqueue_trial(queued, user_attrs={BASE: True})
    study.set_user_attr(IDENTITY, identity)


def _check_same(study: Study, asked: Mapping[str, Any], goals: Mapping[str, Direction]) -> None:
    recorded = {**study.user_attrs[IDENTITY], **_described(goals_of(study))}
    found = list(differences(recorded, {**asked, **_described(goals)}))
    if not found:
        return
    shown = "; ".join(found[:SHOWN_DIFFERENCES])
    more = f"; and {len(found) - SHOWN_DIFFERENCES} more" if len(found) > SHOWN_DIFFERENCES else ""
    raise StudyError(
        f"study {study.study_name!r} was made with other settings: {shown}{more}. "
        "Use another --study name, or the settings that it was made with"
    )


def _described(goals: Mapping[str, Direction]) -> dict[str, str]:
    """Of one goal its direction, of several their names too."""
    if len(goals) == 1:
        return {"direction": next(iter(goals.values()))}
    return {"goals": ", ".join(f"{direction} {name}" for name, direction in goals.items())}


def differences(recorded: Any, asked: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A phrase for each leaf in which two JSON values differ: 'epochs is 10 there, 30 here'."""
    if isinstance(recorded, Mapping) and isinstance(asked, Mapping):
        for key in {**recorded, **asked}:
            yield from differences(recorded.get(key, _Nothing), asked.get(key, _Nothing), (*path, key))
    elif recorded != asked:
        label = ".".join(path).replace("space.hyps.", "space: ")
        yield f"{label} is {_shown(recorded)} there, {_shown(asked)} here"


class _Nothing:
    """Stands for a key that is not there."""


def _shown(value: Any) -> str:
    if value is _Nothing:
        return "missing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_orphan(trial: FrozenTrial, exclusive: bool, mute: Collection[int] | None) -> bool:
    """`mute` are the numbers of silent trials; None where nobody has listened."""
    worker, me = trial.user_attrs.get(WORKER), this_worker()
    if worker is None:  # it died between asking for the trial and claiming it, or is about to claim it
        return exclusive or (_age_s(trial.datetime_start) > GRACE_S if mute is None else trial.number in mute)
    if worker["host"] != me["host"]:
        return exclusive or (mute is not None and trial.number in mute)
    if worker == me:
        return exclusive
    return not is_alive(worker)


def _deaths(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """How often the process that trained the trial's hyp has ended before."""
    return sum(before.user_attrs.get(LOST) == DIED for before in lost_before(trials, trial))


def _fail(study: Study, trial: FrozenTrial, reason: str) -> None:
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial._trial_id, FAILURE, reason)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)


def _lose(study: Study, trial: FrozenTrial, reason: str) -> None:
    try:
        study._storage.set_trial_user_attr(trial._trial_id, LOST, reason)
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return  # finished after all, or another process was quicker
    logger.info("trial %d is lost (%s); its hyp is queued again", trial.number, reason)
    _queue_again(study, trial)


def _queue_again(study: Study, trial: FrozenTrial) -> None:
    kept = {key: trial.user_attrs[key] for key in INHERITED if key in trial.user_attrs}
    study.enqueue_trial(hyp_of(trial), user_attrs={**kept, RETRY_OF: trial.number})


def _age_s(moment: datetime | None) -> float:
    return (datetime.now() - moment).total_seconds() if moment else 0.0


def _version() -> str:
    try:
        return metadata.version("evolve-hyp")
    except metadata.PackageNotFoundError:
        return "unknown"
