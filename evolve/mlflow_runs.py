"""MLflow: an experiment for every study, a run for every trial."""

from __future__ import annotations

import logging
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna import Study

from evolve.config import mask_url
from evolve.fitness import METRICS
from evolve.tracking import Ended, Refused
from studies import trials_of

TRIAL, STUDY = "evolve.trial", "evolve.study"  # tags of a run
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100  # in a request, which is what MLflow takes
LONGEST_NAME = 250
BAD_REQUEST = 400
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowRuns:
    """The runs of the experiment that is called as the study. `uri` None: where MLFLOW_TRACKING_URI says."""

    def __init__(self, uri: str | None) -> None:
        self._uri = uri
        self._known: Any = None
        self._experiment = ""

    @property
    def place(self) -> str:
        return f"MLflow at {mask_url(self._uri or os.environ.get('MLFLOW_TRACKING_URI') or 'its default')}"

    def sent(self, study: Study) -> set[int]:
        """What was cut short is removed: it is sent again."""
        experiment = self._client.get_experiment_by_name(study.study_name)
        self._experiment = (
            self._client.create_experiment(study.study_name) if experiment is None else experiment.experiment_id
        )
        found = set()
        for run in self._runs(f"tags.`{STUDY}` = '{name_of(study)}'"):
            if run.info.status == "RUNNING":
                self._client.delete_run(run.info.run_id)
            else:
                found.add(int(run.data.tags[TRIAL]))
        return found

    def send(self, study: Study, trial: Ended) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._send(study, trial)
        except MlflowException as error:
            status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
            if status == BAD_REQUEST:
                raise Refused(str(error)) from error
            raise

    def _send(self, study: Study, trial: Ended) -> None:
        from mlflow.entities import Metric, Param

        tags = {STUDY: name_of(study), **tags_of(trial)}
        began = _milliseconds(trial.started)
        run = self._client.create_run(self._experiment, began, tags, f"trial {trial.number}").info.run_id
        params = [Param(name_for(name), str(value)) for name, value in {**trial.hyp, "seed": trial.seed}.items()]
        now = _milliseconds(trial.ended) or began or 0
        metrics = [
            Metric(name, value, now, row["epoch"]) for row in trial.rows for name, value in metrics_of(row).items()
        ]
        for some in in_parts(params, PARAMS_AT_ONCE):
            self._client.log_batch(run, params=some)
        for some in in_parts(metrics, METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=some)
        self._client.set_terminated(run, STATUS[trial.state], _milliseconds(trial.ended))

    @property
    def _client(self) -> Any:
        """Made when it is first needed, in the thread that sends: MLflow takes seconds to load."""
        if self._known is None:
            for name, value in PATIENCE.items():  # we try again ourselves
                os.environ.setdefault(name, value)
            logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # we tell of it
            from mlflow import MlflowClient

            self._known = MlflowClient(self._uri)
        return self._known

    def _runs(self, wanted: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], wanted, page_token=token)
            yield from page
            if not (token := page.token):
                return


def name_of(study: Study) -> str:
    """What no other study is called: one of the same name that was made anew began at another time."""
    first = trials_of(study)[0]
    return f"{study.study_name} {first.datetime_start or first.datetime_complete}"


def name_for(name: str) -> str:
    """The nearest to it that MLflow takes as the name of a parameter or a metric."""
    taken = re.sub(r"[^/\w.\- :]", "_", name)[:LONGEST_NAME]
    is_path = taken == posixpath.normpath(taken) and not taken.startswith((".", "/"))
    return taken if is_path else re.sub(r"[/.]", "_", taken)


def in_parts(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


def tags_of(trial: Ended) -> dict[str, str]:
    told = {
        TRIAL: str(trial.number),
        "evolve.generation": str(trial.generation),
        "evolve.state": trial.state,
        "evolve.change": trial.change,
        "evolve.operator": trial.operator,
        "evolve.parents": ", ".join(map(str, trial.parents)),
        "evolve.failure": trial.outcome.failure,
    }
    return {name: value for name, value in told.items() if value}


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """What an epoch measured; what is no finite number is left out."""
    losses = {name_for(f"loss/{name}"): loss for name, loss in row.get("losses", {}).items()}
    told = {**{name: row.get(name) for name in ("fitness", *METRICS, "seconds")}, **losses}
    return {name: float(value) for name, value in told.items() if value is not None and math.isfinite(value)}


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(1000 * moment.timestamp())
