"""What a study leaves on disk: the best hyp as YAML, and a table of all finished trials; the study is their source."""

from __future__ import annotations

import csv
import glob
import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from search_spaces import Hyp, Space, SpaceError, Value, dump_hyp, load_hyp
from studies.front import front_of
from studies.noise import by_hyp, mean_values
from studies.study import goals_of
from studies.trials import (
    COSTS,
    EPOCHS,
    METRICS,
    OPERATOR,
    PARENTS,
    SEED,
    counts,
    generations,
    hyp_of,
    is_base,
    trials_of,
)

STALE_S = 60  # a temporary file of that age was left by a process that was killed
METRIC_NAMES = ("precision", "recall", "map50", "map50_95")
NOT_CONFIRMED = "Not confirmed: the best of many noisy trainings looks better than it is."
COST_NAMES = ("latency_ms", "params")
TRIAL_COLUMNS = ("trial", "generation", "state", "fitness", "epochs", *METRIC_NAMES, "seconds", "parents", "operator")


@dataclass(frozen=True)
class BestHyp:
    """The hyp of highest fitness among those that a study trained to the end: every value in the space's order.

    `fitness` and `metrics` are the mean of `seeds` trainings. `number`, `generation` and `seed` are those of the first
    one's trial and training; `found` is when the last one ended, in UTC. `base` is None while no training of the base
    has completed.

    Of a study with several goals it is one of the front. `fitness` is then the mean of the first goal, `goals` are the
    means of all, and `base_goals` those of the base (empty while none of its trainings has completed). `costs` are
    means too.
    """

    hyp: Hyp
    fitness: float
    metrics: Mapping[str, float]
    number: int
    generation: int
    study: str
    seed: int | None = None
    seeds: int = 1
    base: Score | None = None
    found: datetime | None = field(default=None, compare=False)
    goals: Mapping[str, float] = field(default_factory=dict)
    base_goals: Mapping[str, float] = field(default_factory=dict)
    costs: Mapping[str, float] = field(default_factory=dict)

    @property
    def base_fitness(self) -> float | None:
        return self.base.fitness if self.base else None


@dataclass(frozen=True)
class Score:
    """The mean fitness of a hyp over so many training seeds, and the sample standard deviation (None of one)."""

    fitness: float
    seeds: int = 1
    sd: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Score:
        return cls(fmean(values), len(values), stdev(values) if len(values) > 1 else None)


def best_of(study: Study, space: Space) -> BestHyp | None:
    """The best hyp (of equals the first), None while nothing has completed: what the whole program takes for the best.

    A hyp that was trained under several seeds counts with their mean, and no fitness counts that was not measured in
    this study or is not finite. With several goals it is that of the front which is best in the first.
    """
    return next(iter(best_front_of(study, space)), None)


def best_front_of(study: Study, space: Space, trials: Sequence[FrozenTrial] | None = None) -> list[BestHyp]:
    """The hyps of the front, the best in the first goal first; with one goal, the best hyp if there is any.

    `trials` are all of the study as they were read, where they have been.
    """
    trials = trials_of(study) if trials is None else trials
    groups = by_hyp(trials)
    names = list(goals_of(study)) if len(study.directions) > 1 else [""]
    means = [mean_values(group) for group in groups]
    base = next((index for index, group in enumerate(groups) if any(map(is_base, group))), None)
    found = generations(trials)

    def goals(index: int | None) -> dict[str, float]:
        return {} if index is None or len(names) == 1 else dict(zip(names, means[index], strict=True))

    return [
        BestHyp(
            hyp=whole_hyp(hyp_of(groups[index][0]), space),
            fitness=means[index][0],
            metrics=_mean_of(METRICS, groups[index]),
            number=groups[index][0].number,
            generation=found[groups[index][0].number],
            study=study.study_name,
            seed=groups[index][0].user_attrs.get(SEED),
            seeds=len(groups[index]),
            base=None if base is None else Score.of([trial.values[0] for trial in groups[base]]),
            found=_last_end(groups[index]),
            goals=goals(index),
            base_goals=goals(base),
            costs=_mean_of(COSTS, groups[index]) if len(names) > 1 else {},
        )
        for index in front_of(means, study.directions)
    ]


def save_best(path: Path, best: BestHyp, provenance: Mapping[str, str]) -> None:
    """Replace the hyp file at `path` by this hyp, with what is known of it, as `save_hyp` does."""
    if best.goals:
        title = f"A hyp of the front of an evolve study so far: nothing beats it in all of {', '.join(best.goals)}."
    else:
        title = "The best hyp of an evolve study so far."
    save_hyp(path, best.hyp, [title, NOT_CONFIRMED], facts_of(best), provenance)


def save_hyp(
    path: Path, hyp: Hyp, title: Sequence[str], facts: Mapping[str, str], provenance: Mapping[str, str]
) -> None:
    """Replace the hyp file at `path` by this hyp, below a header of comments; raises OSError.

    `facts` and `provenance` go into the header line by line: fitness, trial ... and data, epochs, imgsz, version,
    command ... A file that says the same but for its provenance is left as it is: that, and its age, are those of the
    day when it was found.
    """
    if not _says(path, hyp, [*title, *lines_of(facts)]):
        write_atomically(path, dump_hyp(hyp, header=[*title, *lines_of({**facts, **provenance}), ""]))


def whole_hyp(evolving: Hyp, space: Space) -> dict[str, Value]:
    """These values and, for what is not among them, the fixed values and defaults; in the space's order."""
    values = {**space.defaults(), **evolving}
    return {name: values[name] for name in space.order}


def rewrite_csv(path: Path, study: Study, space: Space) -> None:
    """Write the table anew: a row for each finished trial, by number; heals whatever was there. Raises OSError."""
    trials = trials_of(study)
    found, costs = generations(trials), costs_told(study)
    rows = [_row(trial, found[trial.number], space, costs) for trial in trials if counts(trial)]
    write_atomically(path, _csv([[*TRIAL_COLUMNS, *costs, *space.order], *rows]))


def append_rows(path: Path, study: Study, numbers: Iterable[int], space: Space) -> None:
    """Append trials that have finished, in one write: processes that share the table do not mix their rows.

    Raises OSError; a row that was cut off then is healed by the next `rewrite_csv`.
    """
    trials = trials_of(study)
    found, costs = generations(trials), costs_told(study)
    rows = _csv([_row(trials[number], found[number], space, costs) for number in numbers])
    with path.open("ab") as file:  # what fits the buffer goes out at once when the file is closed
        file.write(rows.encode())


def save_front(table: Path, files: Mapping[Path, BestHyp], provenance: Callable[[Path], Mapping[str, str]]) -> None:
    """Leave the hyps of a front that is not empty, in a table, and each in its file. Raises OSError.

    The files lie in a folder of their own, from which those of hyps that have left the front are removed.
    """
    write_atomically(table, _csv(_front_rows(list(files.values()))))
    for path, best in files.items():
        save_best(path, best, provenance(path))
    for folder in {path.parent for path in files}:
        for left in {*folder.glob("*.yaml")} - files.keys():
            left.unlink()


def costs_told(study: Study) -> tuple[str, ...]:
    """The costs that stand in the study's tables: those of a model where there are several goals, else none."""
    return COST_NAMES if len(study.directions) > 1 else ()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the file's content such that whoever reads finds the old or the new one, even after a power cut.

    The folder is made if there is none. Raises OSError (disk full, read-only), and then the old file is as it was and
    nothing else is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    temporary = temporary_of(path, os.getpid())
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def temporary_of(path: Path, pid: int) -> Path:
    """The file that such a process writes before it replaces that one."""
    return path.with_name(f".{path.name}.{pid}.tmp")


def _says(path: Path, hyp: Hyp, header: Sequence[str]) -> bool:
    """Whether the file has this hyp, and these lines in its header."""
    try:
        lines = {" ".join(line.split()) for line in path.read_text(encoding="utf-8").splitlines()}
        held = load_hyp(path)
    except (OSError, UnicodeDecodeError, SpaceError):
        return False
    told = {" ".join(f"# {line}".split()) for line in header}
    return told <= lines and list(held.items()) == list(hyp.items())


def facts_of(best: BestHyp) -> dict[str, str]:
    """What the first lines of a hyp file say of it."""
    several = f"mean of {best.seeds} seeds; " if best.seeds > 1 else ""
    goals = {
        name: f"{value:.6g} ({several}{_against(value, best.base_goals.get(name))})"
        for name, value in best.goals.items()
    }
    return {
        **(goals or {"fitness": f"{best.fitness:.6g} ({several}{_against_base(best)})"}),
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in best.metrics.items()) or "none",
        "trial": f"{best.number}" + (f" (training seed {best.seed})" if best.seed is not None else ""),
        "study": best.study,
        **({"date": best.found.strftime("%Y-%m-%d %H:%M UTC")} if best.found else {}),
    }


def lines_of(entries: Mapping[str, str]) -> list[str]:
    """One a name, on one line each, their values below one another."""
    width = max(map(len, entries))
    return [f"{name:<{width}}  {' '.join(str(value).split())}" for name, value in entries.items()]


def _against_base(best: BestHyp) -> str:
    if best.base is None or best.base.sd is None:
        return _against(best.fitness, best.base_fitness)
    return _against(best.fitness, best.base_fitness, f" ± {best.base.sd:.2g} over {best.base.seeds} seeds")


def _against(value: float, base: float | None, spread: str = "") -> str:
    return "base not known" if base is None else f"base {base:.6g}{spread}, difference {value - base:+.6g}"


def _mean_of(attribute: str, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """The mean of each number that all of the trials note there."""
    found = [noted for trial in trials if (noted := trial.user_attrs.get(attribute))]
    names = [name for name in (found[0] if found else {}) if all(name in noted for noted in found)]
    return {name: fmean(noted[name] for noted in found) for name in names}


def _last_end(trials: Sequence[FrozenTrial]) -> datetime | None:
    ends = [trial.datetime_complete.astimezone(UTC) for trial in trials if trial.datetime_complete]
    return max(ends, default=None)  # Optuna's is local time


def _front_rows(front: Sequence[BestHyp]) -> Iterator[list[object]]:
    """A header and a row for each hyp: its goals, then all else that was measured, then its values."""
    goals, hyps = list(front[0].goals), list(front[0].hyp)
    measured = [name for name in (*METRIC_NAMES, *COST_NAMES) if name not in goals]
    yield ["trial", "generation", "seeds", *goals, *measured, *hyps]
    for best in front:
        told = {**best.metrics, **best.costs}
        yield [
            *(best.number, best.generation, best.seeds),
            *best.goals.values(),
            *(told.get(name, "") for name in measured),
            *(best.hyp[name] for name in hyps),
        ]


def _row(trial: FrozenTrial, generation: int, space: Space, costs: Sequence[str]) -> list[object]:
    metrics, told = trial.user_attrs.get(METRICS, {}), trial.user_attrs.get(COSTS, {})
    hyp = whole_hyp(hyp_of(trial), space)
    return [
        trial.number,
        generation,
        trial.state.name,
        trial.values[0] if trial.state == TrialState.COMPLETE else "",  # a pruned trial's last value is no fitness
        trial.user_attrs.get(EPOCHS, len(trial.intermediate_values)),
        *(metrics.get(name, "") for name in METRIC_NAMES),
        f"{trial.duration.total_seconds():.2f}" if trial.duration else "",
        " ".join(map(str, trial.user_attrs.get(PARENTS, ()))),
        trial.user_attrs.get(OPERATOR, ""),
        *(told.get(name, "") for name in costs),
        *(hyp[name] for name in space.order),
    ]


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _remove_stale(path: Path) -> None:
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - temporary.stat().st_mtime > STALE_S:
                temporary.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the folder's entry durable; some file systems do not let a folder be synced, and need not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
