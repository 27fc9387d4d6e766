"""The trials of a study as far as its status needs them, read from a database in five queries.

Optuna makes an object of every row. Ten thousand trials have half a million, and that takes ten seconds and more.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from optuna import Study
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from studies.lease import BEAT
from studies.study import BASE, EPOCHS, FAILURE, KNOWN, LOST, RETRY_OF, SURPLUS, WORKER, trials_of

NOTED = (BASE, BEAT, EPOCHS, FAILURE, KNOWN, LOST, RETRY_OF, SURPLUS, WORKER)  # the user attributes that are read


def glance(study: Study) -> list[FrozenTrial]:
    """All trials by number, only to be read: of the user attributes at least those in NOTED.

    From a database, `params` are those of complete trials alone and as it stores them (those of equal hyps are equal),
    and `intermediate_values` those of running ones. Other storages have all of them at hand.
    """
    storage = getattr(study._storage, "_backend", study._storage)  # Optuna wraps a database in a cache
    return _read(storage, study._study_id) if isinstance(storage, RDBStorage) else trials_of(study)


def _read(storage: RDBStorage, study_id: int) -> list[FrozenTrial]:
    from optuna.storages._rdb import models
    from sqlalchemy import select

    trial = models.TrialModel.__table__.c
    attribute = models.TrialUserAttributeModel.__table__.c
    reached = models.TrialValueModel.__table__.c
    param = models.TrialParamModel.__table__.c
    report = models.TrialIntermediateValueModel.__table__.c
    own, complete, running = (
        trial.study_id == study_id,
        trial.state == TrialState.COMPLETE,
        trial.state == TrialState.RUNNING,
    )
    with storage.engine.connect() as connection:

        def rows(of: Any, *columns: Any, where: Any) -> Any:
            joined = select(of.trial_id, *columns).join_from(of.trial_id.table, trial.trial_id.table)
            return connection.execute(joined.where(own, where))

        times = trial.datetime_start, trial.datetime_complete
        found = connection.execute(
            select(trial.trial_id, trial.number, trial.state, *times).where(own).order_by(trial.number)
        ).all()
        noted = _by_trial(rows(attribute, attribute.key, attribute.value_json, where=attribute.key.in_(NOTED)), _json())
        values = _by_trial(
            rows(reached, reached.objective, reached.value, reached.value_type, where=complete),
            models.TrialValueModel.stored_repr_to_value,
        )
        params = _by_trial(rows(param, param.param_name, param.param_value, where=complete), lambda value: value)
        reports = _by_trial(
            rows(report, report.step, report.intermediate_value, report.intermediate_value_type, where=running),
            models.TrialIntermediateValueModel.stored_repr_to_intermediate_value,
        )
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[value for _, value in sorted(values[trial_id].items())] if trial_id in values else None,
            datetime_start=_here(start),
            datetime_complete=_here(end),
            params=params.get(trial_id, {}),
            distributions={},
            user_attrs=noted.get(trial_id, {}),
            system_attrs={},
            intermediate_values=reports.get(trial_id, {}),
            trial_id=trial_id,
        )
        for trial_id, number, state, start, end in found
    ]


def _by_trial(rows: Iterable[Any], value_of: Callable[..., Any]) -> Mapping[int, dict[Any, Any]]:
    """Of rows of a trial's id, a key and what is stored for it: a mapping for each trial."""
    found: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
    for trial_id, key, *stored in rows:
        found[trial_id][key] = value_of(*stored)
    return found


def _json() -> Callable[[str], Any]:
    """Reads JSON, of which most is the same: there are few workers and fewer numbers of epochs."""
    return lru_cache(maxsize=None)(json.loads)


def _here(utc: datetime | None) -> datetime | None:
    """A moment as Optuna gives it: in the time zone of this machine, without saying so."""
    return None if utc is None else utc.replace(tzinfo=UTC).astimezone().replace(tzinfo=None)
