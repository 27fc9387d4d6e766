"""Where teams keep their runs: TensorBoard's files read back, a real MLflow server, and neither ever in the way."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from small_world import World
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from evolve.mlflow_runs import MlflowRuns, metrics_of

GENERATIONS = ("--generations", "3", "--race", "0")


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Server:
    """An MLflow server on this machine, with SQLite."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = ("--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db", "--artifacts-destination")
        here = ("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1")
        command = [sys.executable, "-m", "mlflow", "server", *where, str(self._folder / "artifacts"), *here]
        env = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        log = (self._folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            command, cwd=self._folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + 240
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        from urllib.error import URLError
        from urllib.request import urlopen

        try:
            return bool(urlopen(f"{self.uri}/health", timeout=5).status == 200)
        except (URLError, OSError):
            return False


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(tmp_path / "server")
    yield made
    made.stop()


def test_a_server_that_is_away_is_one_warning_and_gets_all_runs_when_it_is_back(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    to_server = ("--log-to", f"mlflow:{server.uri}")
    result = world.run(*GENERATIONS, *to_server)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.output.splitlines() if "cannot send trials to MLflow" in line]
    assert len(warnings) == 1 and server.uri in warnings[0]
    assert result.stderr == ""
    server.start()
    assert world.run(*GENERATIONS, *to_server).exit_code == 0
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("points")
    runs = {int(run.data.tags["evolve.trial"]): run for run in client.search_runs([experiment.experiment_id])}
    trials = world.trials()
    assert sorted(runs) == [trial.number for trial in trials]
    for trial in trials:
        run = runs[trial.number]
        assert run.info.run_name == f"trial {trial.number}"
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}[trial.state.name]
        assert {name: float(run.data.params[name]) for name in trial.params} == trial.params
        history = client.get_metric_history(run.info.run_id, "fitness")
        assert {one.step: one.value for one in history} == trial.intermediate_values
        assert {"precision", "recall", "map50", "map50_95", "loss/squares"} <= set(run.data.metrics)
        assert run.info.end_time >= run.info.start_time
    cut_short = client.create_run(experiment.experiment_id, tags=dict(runs[0].data.tags))
    tracker, study = MlflowRuns(server.uri), loaded(world)
    assert tracker.sent(study) == set(runs)
    assert client.get_run(cut_short.info.run_id).info.lifecycle_stage == "deleted"
    world.run(*GENERATIONS, *to_server)
    assert len(client.search_runs([experiment.experiment_id])) == len(trials), "nothing is sent twice"


def loaded(world: World):
    import optuna

    return optuna.load_study(study_name="points", storage=f"sqlite:///{world.run_folder}/study.db")


def test_tensorboard_has_a_run_for_every_trial_with_its_hyp_and_every_epoch(world: World):
    result = world.run(*GENERATIONS, "--log-to", "tensorboard")
    assert result.exit_code == 0, result.output
    folders = sorted((world.run_folder / "tensorboard").iterdir())
    trials = world.trials()
    assert [folder.name for folder in folders] == [f"{trial.number:05d}" for trial in trials]
    for folder, trial in zip(folders, trials, strict=True):
        events = EventAccumulator(str(folder))
        events.Reload()
        shown = {event.step: event.value for event in events.Scalars("metrics/fitness")}
        assert shown == pytest.approx(trial.intermediate_values)
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        hparams = HParamsPluginData.FromString(content).session_start_info.hparams
        assert {name: hparams[name].number_value for name in trial.params} == trial.params
        assert hparams["state"].string_value in ("complete", "pruned", "failed")


def test_what_tensorboard_lacks_is_written_when_the_study_goes_on(world: World):
    world.run(*GENERATIONS, "--log-to", "tensorboard")
    folder = world.run_folder / "tensorboard"
    for file in (folder / "00001").iterdir():
        file.unlink()
    (folder / "00001").rename(folder / ".00001.part")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("0*/*")}
    world.run("--generations", "4", "--race", "0", "--log-to", "tensorboard")
    assert sorted(path.name for path in folder.iterdir()) == ["00000", "00001", "00002", "00003"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_folder_that_cannot_be_written_is_one_warning(world: World):
    world.run_folder.mkdir(parents=True)
    (world.run_folder / "tensorboard").write_text("in the way")
    result = world.run(*GENERATIONS, "--log-to", "tensorboard")
    assert result.exit_code == 0, result.output
    assert result.output.count("cannot send trials to runs/points/tensorboard") == 1


@pytest.mark.parametrize(
    ("place", "hidden", "sentence"),
    [
        ("wandb", None, "--log-to wandb is no place for runs (known: tensorboard, mlflow, mlflow:URI)"),
        ("mlfow", None, "--log-to mlfow is no place for runs (did you mean 'mlflow'?)"),
        ("tensorboard:here", None, "--log-to tensorboard:here is no place for runs"),
        ("mlflow", "mlflow", "pip install 'evolve-hyp[mlflow]'"),
        ("tensorboard", "tensorboard", "pip install 'evolve-hyp[tensorboard]'"),
    ],
)
def test_what_is_no_tracker_is_one_sentence_before_anything_is_made(
    world: World, monkeypatch: pytest.MonkeyPatch, place, hidden, sentence
):
    if hidden:
        monkeypatch.setitem(sys.modules, hidden, None)
    result = world.run("--log-to", place)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert not world.run_folder.exists()


def test_a_password_in_the_uri_stands_in_no_file(world: World):
    address = f"http://me:secret@127.0.0.1:{free_port()}"
    result = world.run(*GENERATIONS, "--log-to", f"mlflow:{address}")
    assert "secret" not in result.output
    found = [path for path in world.run_folder.rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    assert found == []
    again = world.evolve("run", "--config", str(world.run_folder / "evolve.yaml"))
    assert (again.exit_code, "lacks its password" in again.stderr) == (2, True)


NAMES = """
from toy import ToyTrainer
from dataclasses import replace
from trainer import Prepared

class Naming(ToyTrainer):
    hyps = frozenset({"lr0", "lr (head)", "学习率@0"})

    def train(self, job):
        hyp = {name: value for name, value in job.hyp.items() if name == "lr0"}
        for metrics in super().train(replace(job, hyp=hyp)):
            yield replace(metrics, losses={"box%": 1.0, "../cls": 2.0})
"""


def test_names_that_mlflow_does_not_take_are_sent_under_the_nearest_that_it_takes(world: World):
    from mlflow import MlflowClient

    (world.folder / "naming.py").write_text(NAMES)
    low_high = "{low: 0.001, high: 0.5, default: 0.01}\n"
    names = ("lr0", "lr (head)", "学习率@0")
    (world.folder / "space.yaml").write_text("".join(f"{name}: {low_high}" for name in names), encoding="utf-8")
    uri = f"sqlite:///{world.folder}/ml.db"
    result = world.run(*GENERATIONS, "--trainer", "naming:Naming", "--log-to", f"mlflow:{uri}")
    assert (result.exit_code, "cannot send" in result.output) == (0, False), result.output
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("points").experiment_id])
    assert len(runs) == len(world.trials())
    for run in runs:
        assert run.data.params.keys() == {"lr0", "lr _head_", "学习率_0", "seed"}
        assert run.data.metrics["loss/box_"] == 1.0


def test_a_trial_that_mlflow_refuses_holds_up_no_other(world: World):
    from mlflow import MlflowClient

    (world.folder / "naming.py").write_text(NAMES.replace("学习率@0", "lr [head]"))
    low_high = "{low: 0.001, high: 0.5, default: 0.01}\n"
    names = ("lr0", "lr (head)", "lr [head]")  # two that become one
    (world.folder / "space.yaml").write_text("".join(f"{name}: {low_high}" for name in names))
    uri = f"sqlite:///{world.folder}/ml.db"
    result = world.run(*GENERATIONS, "--trainer", "naming:Naming", "--log-to", f"mlflow:{uri}")
    assert (result.exit_code, result.output.count("cannot send trials")) == (0, 1), result.output
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("points").experiment_id])
    states = {int(run.data.tags["evolve.trial"]): run.info.status for run in runs}
    assert sorted(states) == [trial.number for trial in world.trials()]


def test_an_epoch_in_mlflow_has_no_metric_that_is_no_number():
    assert metrics_of(
        {"epoch": 1, "fitness": None, "map50": 0.5, "losses": {"box": None, "cls": math.inf, "obj": 1}}
    ) == {
        "map50": 0.5,
        "loss/obj": 1.0,
    }
