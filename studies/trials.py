"""What the trials of a study say of themselves: their hyps, which of them count, which generation each is.

Trials are read with deepcopy=False: `study.trials` copies all of them, every time. In a study that is not ours trials
lack our attributes, and then each counts, trial 0 is the base, and its number is a trial's generation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

from optuna import Study, Trial
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

# user attributes of a trial
PARENTS = "parents"  # list of trial numbers
OPERATOR = "operator"  # name of what made the hyp
STEP = "step"  # hyp name -> how far it moved
WORKER = "worker"  # {host, pid, started}
SEED = "seed"  # of its training
METRICS = "metrics"  # of its last epoch: precision, recall, map50, map50_95
COSTS = "costs"  # of its last epoch, where the trainer tells any: latency_ms, params
FINAL = "final"  # metrics and fitness on a second split, after the last epoch
EPOCHS = "epochs"  # how many it ran
FAILURE = "failure"  # one line
LOST = "lost"  # why; the trial does not count, its hyp was queued again
RETRY_OF = "retry_of"  # number of the lost trial
RESUMED = "resumed"  # of a retry: the epoch of the lost trial that it went on after
BASE = "base"  # True where the base is trained, under whatever seed (and of a study: the hyp that it starts from)
KNOWN = (
    "known"  # where the result was taken over from, in words: nothing was trained here, and the trial counts nowhere
)
SOURCE = "source"  # where the queued hyp was taken from, in words
SURPLUS = "surplus"  # True: another trial has its generation; nothing was trained, and it counts nowhere
ENTRANT = "entrant"  # of a race's heat: number of the trial whose hyp it is, or "base"
ROUND = "round"  # of a race's heat

# system attribute of a trial
DRAWN = "fixed_params"  # the params that it will have: Optuna's own name, for what is queued

_asked: WeakKeyDictionary[Study, tuple[int, int]] = WeakKeyDictionary()
"""Number and generation of the trial that was asked for last: counting it anew reads the whole study."""


def trials_of(study: Study) -> list[FrozenTrial]:
    """All trials by number, not copied: only to be read. A study that a pruner has filtered shows all of them, too."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def notes_of(study: Study) -> dict[str, Any]:
    """The user attributes of the study, not copied: only to be read."""
    found: dict[str, Any] = study._storage.get_study_user_attrs(study._study_id)
    return found


def trials_when_asked(study: Study) -> list[FrozenTrial]:
    """All trials as they were when this thread was given the trial that it asked for last, or as they are now."""
    return study._get_trials(deepcopy=False, use_cache=True)


def without_cache(storage: BaseStorage) -> BaseStorage:
    """Optuna wraps a database in a cache."""
    found: BaseStorage = getattr(storage, "_backend", storage)
    return found


def at_once(trial: Trial) -> AbstractContextManager[None]:
    """Within it, what is set of the trial's params and user attributes is held back, and stored in one transaction.

    Only in a database of ours (see `studies.database`): elsewhere each is stored as it is set.
    """
    hold: Callable[[], AbstractContextManager[None]] = getattr(without_cache(trial.storage), "at_once", nullcontext)
    return hold()


def hyp_of(trial: FrozenTrial) -> dict[str, Any]:
    """The params that the trial has or, while it waits or has not been asked for all of them, will have."""
    return {**trial.system_attrs.get(DRAWN, {}), **trial.params}


def counts(trial: FrozenTrial) -> bool:
    """Whether the trial has finished here (COMPLETE, PRUNED or FAIL) and was not lost."""
    return trial.state.is_finished() and not (is_lost(trial) or is_known(trial) or is_surplus(trial))


def is_lost(trial: FrozenTrial) -> bool:
    """Whether its process ended before it did; the hyp lives on in its retry."""
    return trial.state == TrialState.FAIL and LOST in trial.user_attrs


def lost_before(trials: Sequence[FrozenTrial], trial: Trial | FrozenTrial) -> list[FrozenTrial]:
    """The lost trials that had the hyp and the generation of this one before it, the latest first."""
    found: list[FrozenTrial] = []
    before = trial.user_attrs.get(RETRY_OF)
    while before is not None:
        found.append(trials[before])
        before = trials[before].user_attrs.get(RETRY_OF)
    return found


def is_known(trial: FrozenTrial) -> bool:
    """Whether its result was taken over from an earlier study."""
    return KNOWN in trial.user_attrs


def is_surplus(trial: FrozenTrial) -> bool:
    """Whether another trial is the one of its generation: two workers asked at once for the last, or for a retry."""
    return SURPLUS in trial.user_attrs


def finished(study: Study) -> int:
    """How many trials count towards the study's total."""
    return sum(map(counts, trials_of(study)))


def is_base(trial: FrozenTrial) -> bool:
    return trial.number == 0 or bool(trial.user_attrs.get(BASE))


def base_seeds_of(study: Study) -> int:
    """How many trials the study began with that train its base, each under another seed."""
    return sum(is_base(trial) and RETRY_OF not in trial.user_attrs for trial in trials_of(study))


def generations(trials: Sequence[FrozenTrial]) -> list[int]:
    """The generation of each trial; `trials` are all of a study from number 0 on.

    A trial's generation is its number minus the number of retries, known and surplus trials before it; a retry has that
    of the trial it retries. So every generation is had by one trial that was trained here and is not lost, and what
    happens later changes none. (A known trial has that of the next one to be trained, which says nothing.)
    """
    found: list[int] = []
    aside = 0
    for trial in trials:
        retried = trial.user_attrs.get(RETRY_OF)
        found.append(trial.number - aside if retried is None else found[retried])
        aside += retried is not None or is_known(trial) or is_surplus(trial)
    return found


def generation_of(study: Study, trial: Trial | FrozenTrial) -> int:
    """The trial's place in the study as if no trial had ever been lost, from 0."""
    if (counted := _asked.get(study)) is not None and counted[0] == trial.number:
        return counted[1]
    return generation_in(trials_of(study), _frozen(trial))


def generation_in(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The same of a trial as it is now; `trials` are those before it, and perhaps more."""
    return generations([*trials[: trial.number], trial])[-1]


def remember_generation(study: Study, number: int, generation: int) -> None:
    """Note the generation of the trial that this process asked for last."""
    _asked[study] = number, generation


def _frozen(trial: Trial | FrozenTrial) -> FrozenTrial:
    return trial._cached_frozen_trial if isinstance(trial, Trial) else trial
