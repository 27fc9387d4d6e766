"""What trials leave in their folders: the best keep all of it, the others nothing but their metrics."""

from __future__ import annotations

import heapq
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from evolve.paths import RunPaths
from studies import BestHyp, trials_of
from studies.noise import is_measured, value_of
from studies.trials import counts, is_lost, lost_before


class Shelf:
    """Keeps what the best trials of a study leave while its trials end; of the others it removes all but the metrics.

    What cannot be removed stays: `evolve clean` says why.
    """

    def __init__(self, study: Study, paths: RunPaths, keep: int) -> None:
        self._study = study
        self._paths = paths
        self._keep = keep
        self._best: frozenset[int] = frozenset()

    def catch_up(self, front: Sequence[BestHyp]) -> None:
        """Look at all folders. `front` is what `studies.best_front_of` found in the study."""
        folders, trials = numbered(self._paths), trials_of(self._study)
        self._best = best_of(trials, front, self._keep)
        self._clear(trials, (over_of(trials) - self._best).intersection(folders))

    def ended(self, numbers: Collection[int], trials: Sequence[FrozenTrial], front: Sequence[BestHyp]) -> None:
        """Look at the folders of trials that have just ended, of those that they were a retry of, and of who was best.

        `trials` are all of the study.
        """
        best, before = best_of(trials, front, self._keep), self._best
        self._best = best
        lost = {trial.number for number in numbers for trial in lost_before(trials, trials[number])}
        self._clear(trials, ({*numbers} | lost | before) - best)

    def _clear(self, trials: Sequence[FrozenTrial], numbers: set[int]) -> None:
        for number in numbers:
            for path in superfluous(self._paths, trials[number]):
                with suppress(OSError):
                    remove(path)


def best_of(trials: Sequence[FrozenTrial], front: Sequence[BestHyp], keep: int) -> frozenset[int]:
    """The numbers of the `keep` best trials: those of the front, however many, then the highest in the first goal."""
    highest = heapq.nsmallest(keep, filter(is_measured, trials), key=lambda trial: (-value_of(trial), trial.number))
    numbers = dict.fromkeys([*(best.number for best in front), *(trial.number for trial in highest)])
    return frozenset(islice(numbers, max(keep, len(front)) if keep else 0))


def over_of(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of the trials that have ended and of the lost ones whose hyp has: nothing goes on from these."""
    ended = [trial for trial in trials if counts(trial)]
    return {trial.number for end in ended for trial in (end, *lost_before(trials, end))}


def superfluous(paths: RunPaths, trial: FrozenTrial) -> Iterator[Path]:
    """What lies in the folder of a trial beside its metrics, and the log of one that has failed."""
    if not (found := entries_of(paths.trial(trial.number))):  # it was trained elsewhere, as most are
        return
    failed = trial.state == TrialState.FAIL and not is_lost(trial)
    kept = {paths.metrics(trial.number), *([paths.train_log(trial.number)] if failed else [])}
    yield from (path for path in found if path not in kept)


def numbered(paths: RunPaths) -> set[int]:
    """The numbers of the trials that have a folder."""
    names = (path.name for path in entries_of(paths.trials))
    return {int(name) for name in names if name.isdecimal() and paths.trial(int(name)).name == name}


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder; nothing in one that is not there."""
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; what others have removed meanwhile is fine."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
