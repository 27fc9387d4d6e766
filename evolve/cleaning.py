"""`evolve clean`: removes what a study has left on the disk and nobody needs, and tells how much that was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna import Study

from evolve.config import EvolveConfig, read_config
from evolve.keeping import best_of, entries_of, numbered, over_of, remove, superfluous
from evolve.lock import sole_use
from evolve.lookup import find_study
from evolve.paths import RunPaths
from search_spaces import Space
from studies import best_front_of, storage_errors, trials_of
from studies.racing import current_races
from studies.trials import is_known, is_lost, is_surplus


def clean(
    name: str | None, runs: Path, *, storage: str | None = None, keep: int | None = None, dry_run: bool = False
) -> list[str]:
    """Remove what a study needs no longer, and tell of it in a few lines; a `dry_run` only tells.

    The study is that of this name in `runs`, as `evolve best` finds it; its own --keep is the default. Raises
    ConfigError where `evolve run` works on it, and what `find_study` does. Trials that run elsewhere are left alone,
    and lost ones that are to go on.
    """
    found = find_study(name, runs, storage)
    if keep is None:
        keep = read_config(found.paths.config).get("keep", EvolveConfig.keep)
    broom = Broom(keep, dry_run)
    with sole_use(found.paths), storage_errors(storage or str(found.paths.database)):
        broom.sweep(found.paths, found.study, found.space)
        races = current_races(found.study)
        for folder in entries_of(found.paths.races):
            if folder.name in races:
                broom.sweep(found.paths.of_race(folder.name), races[folder.name], found.space)
            else:
                broom.take("races of the study as it was before", [folder])
    return broom.tell()


@dataclass
class Broom:
    """Removes things of several kinds, or only looks at them, and remembers how many of each and how large."""

    keep: int
    dry_run: bool
    _taken: dict[str, tuple[int, int]] = field(default_factory=dict)  # kind -> how many, bytes

    def sweep(self, paths: RunPaths, study: Study, space: Space) -> None:
        """The folders of the trials of a study, and those of no trial of it."""
        folders = sorted(numbered(paths))  # before the trials are read: whatever begins now has its trial there
        trials = trials_of(study)
        best, over = best_of(trials, best_front_of(study, space), self.keep), over_of(trials)
        for number in folders:
            folder = paths.trial(number)
            if number >= len(trials) or is_known(trials[number]) or is_surplus(trials[number]):
                self.take("folders of no trial", [folder])
            elif number in over and is_lost(trials[number]):
                self.take("lost trials that were done again", [folder])
            elif number in over - best:
                self.take(
                    f"trials that are not among the best {self.keep}, of which the metrics stay",
                    superfluous(paths, trials[number]),
                )

    def take(self, kind: str, paths: Iterator[Path] | Sequence[Path]) -> None:
        """Remove these, which one of that kind has left; nothing is counted where there is nothing."""
        paths = list(paths)
        if not paths:
            return
        count, size = self._taken.get(kind, (0, 0))
        self._taken[kind] = count + 1, size + sum(map(size_of, paths))
        if not self.dry_run:
            for path in paths:
                remove(path)

    def tell(self) -> list[str]:
        """A line for each kind, with how many and how large, and how much it is in all."""
        if not self._taken:
            return ["nothing to remove"]
        lines = [f"{kind}: {count}, {show_bytes(size)}" for kind, (count, size) in self._taken.items()]
        total = show_bytes(sum(size for _, size in self._taken.values()))
        return [*lines, f"{total} {'would be' if self.dry_run else 'were'} removed"]


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; 0 where it has just vanished."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(map(size_of, entries_of(path)))
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def show_bytes(size: int) -> str:
    """A number below 1000 and its unit: '34.1 MB'."""
    units = ("kB", "MB", "GB")
    power = min((len(str(size)) - 1) // 3, len(units))
    return f"{size / 1000**power:.1f} {units[power - 1]}" if power else f"{size} B"
