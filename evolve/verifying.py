"""`evolve verify`: the race of a study that is there already, at any length and under any number of seeds."""

from __future__ import annotations

from pathlib import Path

from evolve.clusters import open_cluster
from evolve.config import ConfigError, resolve_config
from evolve.describing import describe
from evolve.engine import watcher_with_uploads
from evolve.goals import Goals
from evolve.lookup import find_study
from evolve.outcomes import standing_of
from evolve.racing import run_race
from evolve.standing import NoResult
from evolve.watcher import Silence, Watcher
from evolve.work import ended, open_work
from studies.decision import Decision
from studies.note import leave_note
from studies.race import CHALLENGERS, rounds_for
from studies.racing import choose_challengers


def verify(
    name: str | None,
    runs: Path,
    *,
    storage: str | None = None,
    epochs: int | None = None,
    seeds: int = 5,
    candidates: int = CHALLENGERS,
    watcher: Watcher | None = None,
) -> Decision:
    """Race the best candidates of a study against its base in trainings of so many epochs (None: as in the study).

    The study is that of this name in `runs`, as `evolve best` finds it. Raises what `evolve.engine.evolve` does.
    """
    found = find_study(name, runs, storage)
    config = resolve_config({"storage": storage}, found.paths.config)
    if Goals.parse(config.objective).several:
        raise ConfigError(f"{config.study} has several goals, of which there is no one best to verify")
    watcher = watcher_with_uploads(watcher or Silence(), config, found.paths)
    with open_cluster(config) as cluster, open_work(config, found.paths, watcher) as work:
        watcher, standing = work.watcher, standing_of(work.study, work.space)
        reason = "ended by an error"
        try:
            work.records.catch_up()
            if not choose_challengers(work.study, work.space, 1):
                raise NoResult(
                    f"there is nothing to verify: no hyp but the base of {config.study} was trained to the end"
                )
            decision = run_race(work, rounds_for(candidates, seeds), epochs or config.epochs, cluster)
            watcher.decided(decision)
            leave_note(work.study, describe(work.study))
            reason = f"verified in trainings of {decision.epochs} epochs"
        except KeyboardInterrupt:
            reason = "interrupted; the same command goes on from here"
            raise
        finally:
            watcher.ended(ended(work, standing, reason))
    return decision
