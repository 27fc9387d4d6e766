"""What `evolve` gives to Python: the best hyp of a study, and where it lies."""

from __future__ import annotations

from dataclasses import dataclass, field

from evolve.paths import RunPaths, from_here
from studies import BestHyp


@dataclass(frozen=True, repr=False)
class Result(BestHyp):
    """The best hyp, as its hyp file has it, with the names of all files of the run folder.

    `paths.best_hyp` is that hyp file. `storage` is where Optuna finds the study, as by
    `optuna.load_study(study_name=result.study, storage=result.storage)`.
    """

    paths: RunPaths = field(kw_only=True)
    storage: str = field(kw_only=True)

    @property
    def trial(self) -> int:
        """The number of the trial that trained it first."""
        return self.number

    def __repr__(self) -> str:
        base = "" if self.base_fitness is None else f", base {self.base_fitness:.4f}"
        found = f"fitness {self.fitness:.4f} in trial {self.trial}{base}"
        return f"<Result of {self.study}: {found}; {from_here(self.paths.best_hyp)}>"
