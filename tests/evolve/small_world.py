"""A study that takes a second: the toy trainer in a real child process, three hyps, and the command line around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from evolve.cli import cli

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "trainer"
SPACE = """\
lr0: {low: 1.0e-4, high: 0.5, default: 0.0005, log: true}
momentum: {low: 0.0, high: 0.95, default: 0.5}
weight_decay: {low: 0.0, high: 0.01, default: 0.0}
"""
FAULTS = """\
fault: {choices: ["", "sleep", "nap", "NaN", "SIGKILL", "TrainerError"], default: ""}
fault_epoch: {low: 1, high: 9, step: 1, default: 1, gain: 0}
"""
RUN = 'import runpy; runpy.run_module("evolve", run_name="__main__", alter_sys=True)'
LIMITED = "import resource; resource.setrlimit(resource.{0}, ({1}, {1}))\n" + RUN
ELSEWHERE = 'import socket; socket.gethostname = lambda: "elsewhere"\n' + RUN
IMPATIENT = "import studies.lease; studies.lease.SILENCE_S, studies.lease.BEAT_S = 3.0, 0.5\n"


@dataclass
class World:
    """A folder with a space file, and `evolve` run in it: in this process, or in one of its own that can be killed."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def run_folder(self) -> Path:
        return self.folder / "runs" / "points"

    def run(self, *arguments: str) -> Result:
        """`evolve run` on the toy, 3 generations of 3 epochs unless the arguments say otherwise."""
        return self.evolve("run", *self.toy(), "--epochs", "3", "--generations", "3", *arguments)

    def evolve(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    def start(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """`evolve run` on the toy in a process of its own."""
        return self.start_command("run", *self.toy(), *arguments, **how)

    def start_command(
        self,
        *arguments: str,
        limit_bytes: int | None = None,
        limit: str = "RLIMIT_FSIZE",
        program: str = "",
        leader: bool = False,
    ) -> subprocess.Popen[str]:
        """Any command of `evolve` in a process of its own, which has a limit or is started by that `program`.

        `leader`: it leads a process group, as a shell's jobs do.
        """
        program = LIMITED.format(limit, limit_bytes) if limit_bytes else program
        module = ["-c", program] if program else ["-m", "evolve"]
        command = [sys.executable, *module, *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TOY), str(Path(__file__).parent)])}
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.folder, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=leader
        )
        self.started.append(process)
        return process

    def toy(self) -> Sequence[str]:
        return ("--trainer", "toy:ToyTrainer", "--data", "points", "--space", str(self.folder / "space.yaml"))

    def evolve_in_python(self, watcher: Any = None, **settings: Any) -> Any:
        """The best hyp of a study that the library runs, without the command line."""
        from evolve import EvolveConfig, evolve

        paths = {"space": str(self.folder / "space.yaml"), "runs": str(self.folder / "runs")}
        usual = {"trainer": "toy:ToyTrainer", "data": "points", "epochs": 3, **paths}
        return evolve(EvolveConfig(**{**usual, **settings}), watcher)

    def trials(self, study: str = "points") -> list[Any]:
        import optuna

        url = f"sqlite:///{self.folder}/runs/{study}/study.db"
        return optuna.load_study(study_name=study, storage=url).get_trials(deepcopy=False)


def wait_for(condition: Callable[[], Any], timeout_s: float = 240) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def interrupt(process: subprocess.Popen[str], number: signal.Signals = signal.SIGINT) -> None:
    """Have a study leave at once, as somebody does who presses Ctrl-C, reads what it says, and presses it again."""
    assert process.stdout is not None
    process.send_signal(number)
    while "leaving after this epoch" not in (line := process.stdout.readline()):
        assert line, "it ended without a word"
    process.send_signal(number)


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children_of(pid: int) -> list[int]:
    """The processes that one has started, from whichever of its threads."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text().split()]
