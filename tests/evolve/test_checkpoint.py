"""Trials whose worker died go on from their last epoch, as if they had never stopped."""

import json
import os
import shutil
import signal

import pytest
from small_world import World, wait_for

from evolve.journal import read_rows
from studies.study import counts, generations

RESUMABLE = ("--trainer", "resumable:Resumable", "--checkpoint")
EPOCHS = ("--epochs", "6", "--pruner", "none", "--race", "0")
FAULT = ("--set", "fault=sleep", "--set", "fault_epoch=4")


def asleep(world, process, count=1):
    """Wait until so many trainings sleep in their fourth epoch."""
    wait_for(lambda: len(list(world.run_folder.glob("trials/*/asleep"))) == count or process.poll() is not None)
    assert process.poll() is None, process.communicate()


def kill(process):
    process.kill()
    process.communicate()


def metrics_of(world, number, study="points"):
    """The epochs in the trial's file as they stand there, without what a clock says."""
    path = world.folder / "runs" / study / "trials" / f"{number:05d}" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("seconds", "costs")} for row in rows]


def ends(world, study="points"):
    """Of each generation the trial that ended it."""
    trials = world.trials(study)
    found = zip(generations(trials), trials, strict=True)
    return {generation: trial for generation, trial in found if counts(trial)}


def test_a_killed_trial_goes_on_after_its_last_epoch_with_the_same_metrics(faulty: World):
    process = faulty.start(*RESUMABLE, *EPOCHS, *FAULT, "--generations", "1")
    asleep(faulty, process)
    kill(process)
    result = faulty.run(*RESUMABLE, *EPOCHS, *FAULT, "--generations", "1")
    assert result.exit_code == 0, result.output
    retry = ends(faulty)[0]
    assert (retry.user_attrs["retry_of"], retry.user_attrs["resumed"]) == (0, 3)
    assert faulty.run("--trainer", "resumable:Resumable", *EPOCHS, "--generations", "1", "--study", "whole").exit_code == 0
    whole = ends(faulty, "whole")[0]
    assert retry.intermediate_values == whole.intermediate_values
    assert (retry.value, retry.user_attrs["metrics"]) == (whole.value, whole.user_attrs["metrics"])
    assert metrics_of(faulty, retry.number) == metrics_of(faulty, 0, "whole")
