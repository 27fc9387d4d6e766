"""How good each hyp of a study probably is, with as much of the noise taken out as the trials allow."""

from __future__ import annotations

from statistics import fmean, variance

from optuna import Study

from search_spaces import Space
from studies.noise import by_hyp, noise_floor, value_of
from studies.trials import trials_of


def smoothed_scores(study: Study, space: Space) -> dict[int, float]:
    """The expected fitness of every hyp that was trained to the end, by the number of its first trial.

    Its mean over the seeds that it had, drawn towards the mean of all hyps by as much as the noise floor says that one
    of so few seeds has come by luck.
    """
    trials = trials_of(study)
    groups = by_hyp(trials)
    means = {group[0].number: fmean(map(value_of, group)) for group in groups}
    floor = noise_floor(trials)
    if floor is None or len(means) < 2:
        return means
    noise = {group[0].number: floor.sd**2 / len(group) for group in groups}
    centre, spread = fmean(means.values()), max(0.0, variance(means.values()) - fmean(noise.values()))
    if not spread:
        return dict.fromkeys(means, centre)
    return {n: centre + (mean - centre) * spread / (spread + noise[n]) for n, mean in means.items()}
