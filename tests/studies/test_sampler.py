"""The genetic sampler by itself and in a study, and Optuna's samplers as they are given here."""

import contextlib
import pickle
import sys
import warnings

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.trial import TrialState, create_trial
from small_study import attrs, exit_code, fitness, fork, history, in_process, open_small, run

from search_spaces import Param, Space, dump_hyp
from studies import SAMPLERS, GeneticSampler, StudyError, build_sampler, claim, distribution, suggest, trials_of
from studies.genetics import Child, normalised
from studies.sampler import OPERATORS, _Genome
from studies.study import requeue_lost
from studies.trials import finished, hyp_of, is_base


def study_with(sampler, direction="maximize"):
    return optuna.create_study(sampler=sampler, direction=direction)


def complete(study, space, value, **hyp):
    """A trial that has ended with this value and the space's defaults but for `hyp`."""
    params = {param.name: hyp.get(param.name, param.default) for param in space.params}
    distributions = {param.name: distribution(param) for param in space.params}
    study.add_trial(create_trial(params=params, distributions=distributions, value=value))


# what is asked for and recorded


def test_a_hyp_holds_params_and_fixed_values_in_the_order_of_the_space(space):
    hyp = suggest(open_small("memory:", space).ask(), space)
    assert hyp == space.defaults()
    assert list(hyp) == list(space.order)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_trained_is_what_is_recorded_and_what_a_hyp_file_holds(space, sampler):
    study = open_small("memory:", space, sampler=sampler)
    for _ in range(12):  # beyond the start-up of TPE and GP
        trial = study.ask()
        hyp = suggest(trial, space)
        space.check(hyp)
        recorded = hyp_of(trials_of(study)[trial.number])
        assert {name: hyp[name] for name in space.names} == recorded
        assert yaml.safe_load(dump_hyp(hyp)) == hyp
        assert {name: type(value) for name, value in hyp.items()} == {k: type(v) for k, v in space.defaults().items()}
        assert all(param.round_value(hyp[param.name]) == hyp[param.name] for param in space.params)
        study.tell(trial, fitness({**hyp, "lr0": 0.001}, 8))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pinned_params_keep_their_default_with_every_sampler(sampler):
    params = (
        Param("gain0", 0.5, 0.0, 2.0, gain=0.0),
        Param("gain0_log", 0.5, 0.1, 2.0, gain=0.0, log=True),
        Param("gain0_int", 3, 1, 9, step=2, gain=0.0),
        Param("gain0_choice", "adam", choices=("sgd", "adam"), gain=0.0),
        Param("one_value", 1.5, 1.5, 1.5),
        Param("free", 0.0, 0.0, 1.0),
    )
    space = Space("pinned", params)
    study = open_small("memory:", space, sampler=sampler)
    for i in range(4):
        trial = study.ask()
        assert suggest(trial, space) == {**space.defaults(), "free": trial.params["free"]}
        study.tell(trial, i)
    assert len({trial.params["free"] for trial in trials_of(study)}) == 4


def test_distributions_hold_what_params_hold(space):
    assert distribution(space["lr0"]) == FloatDistribution(1e-5, 0.1, log=True)
    assert distribution(space["layers"]) == IntDistribution(1, 9)
    assert distribution(space["optimizer"]) == CategoricalDistribution(("sgd", "adam", "lion"))
    assert distribution(space["fl_gamma"]) == FloatDistribution(0.5, 0.5)


# the genetic sampler


def test_each_trial_notes_its_parents_its_operator_and_its_step(space):
    study = open_small("memory:", space)
    run(study, space, 6)
    for trial in trials_of(study)[1:]:
        parent = trial.user_attrs["parents"][0]
        assert study.trials[parent].state == TrialState.COMPLETE
        assert trial.user_attrs["operator"] in ("normalised", "uniform")  # too few for a model
        moved = {name for name in space.names if trial.params[name] != study.trials[parent].params[name]}
        assert set(trial.user_attrs["step"]) == moved != set()


def test_only_complete_trials_are_parents_and_a_childs_hyp_is_new(space):
    seen = []

    def operator(population, space, rng):
        seen.append(population)
        return Child(space.defaults() | {"degrees": 1.0 + len(seen)}, (), "mine", {})

    study = study_with(GeneticSampler(space, seed=0, operator=operator))
    complete(study, space, 0.5)
    complete(study, space, float("inf"), degrees=40.0)
    for degrees, state in ((10.0, TrialState.PRUNED), (20.0, TrialState.FAIL), (30.0, TrialState.RUNNING)):
        trial = study.ask()
        trial.storage.set_trial_system_attr(trial._trial_id, "fixed_params", {**space.defaults(), "degrees": degrees})
        trial.report(0.99, 1)
        if state != TrialState.RUNNING:
            study.tell(trial, state=state)
    study.enqueue_trial({**space.defaults(), "degrees": 35.0})
    study.ask()  # takes it from the queue
    study.enqueue_trial({**space.defaults(), "degrees": 37.0})
    suggest(optuna.Trial(study, study._storage.create_new_trial(study._study_id)), space)
    [population] = seen
    assert [(candidate.number, candidate.fitness) for candidate in population.scored] == [(0, 0.5)]
    assert [tried.hyp["degrees"] for tried in population.hopeless] == [40.0, 10.0, 20.0]
    assert [tried.hyp["degrees"] for tried in population.running] == [30.0, 35.0, 37.0]
    assert sorted(hyp["degrees"] for hyp in population.taken) == [0.0, 10.0, 20.0, 30.0, 35.0, 37.0, 40.0]


def test_where_less_is_better_the_least_is_the_fittest(space):
    for direction, parent in (("maximize", 1), ("minimize", 2)):
        study = study_with(GeneticSampler(space, seed=0), direction)
        for value, degrees in ((0.5, 1.0), (0.9, 2.0), (0.1, 3.0)):
            complete(study, space, value, degrees=degrees)
        parents = []
        for _ in range(12):
            trial = study.ask()
            suggest(trial, space)
            parents += trial.user_attrs["parents"]
        assert max(set(parents), key=parents.count) == parent


def test_without_a_queue_the_base_comes_first_and_then_steps_around_it(space):
    study = study_with(GeneticSampler(space, seed=3))
    hyps = []
    for _ in range(5):  # all fail: nothing is known
        trial = study.ask()
        hyps.append(suggest(trial, space))
        study.tell(trial, state=TrialState.FAIL)
    assert hyps[0] == space.defaults()
    assert [attrs(study, n)["operator"] for n in range(3)] == ["base", "normalised", "normalised"]
    assert len({tuple(hyp.values()) for hyp in hyps}) == 5


def test_the_base_of_the_study_goes_before_the_defaults_of_the_space(space):
    study = study_with(GeneticSampler(space, seed=3))
    study.set_user_attr("base", {**space.defaults(), "degrees": 12.5, "layers": 99})
    assert suggest(study.ask(), space) == {**space.defaults(), "degrees": 12.5, "layers": 9}


def test_a_space_that_is_used_up_is_searched_again():
    space = Space("tiny", (Param("a", 0, 0, 1, step=1), Param("b", "x", choices=("x", "y"))))
    study = study_with(GeneticSampler(space, seed=0))
    for _ in range(9):
        trial = study.ask()
        suggest(trial, space)
        study.tell(trial, 1.0)
    hyps = [tuple(trial.params.values()) for trial in trials_of(study)]
    assert len(set(hyps[:4])) == 4


def test_a_sampler_made_anew_for_each_trial_draws_the_same(space):
    def hyps(anew):
        study = study_with(GeneticSampler(space, seed=5))
        for i in range(12):
            if anew:
                study.sampler = GeneticSampler(space, seed=5)
            trial = study.ask()
            suggest(trial, space)
            trial.suggest_float("unknown to the space", 0, 1)
            study.tell(trial, i % 5)
        return [trial.params for trial in trials_of(study)]

    assert hyps(anew=True) == hyps(anew=False)


def test_another_seed_draws_another_hyp(space):
    first, second = (open_small("memory:", space, seed=seed) for seed in (1, 2))
    for study in (first, second):
        run(study, space, 3)
    assert hyp_of(trials_of(first)[1]) != hyp_of(trials_of(second)[1])


# what it remembers of a study, which nothing may depend on


@pytest.mark.parametrize("pruner", ["evolve", "none"])
def test_a_study_of_a_model_that_is_killed_and_resumed_equals_one_that_was_not(space, pruner):
    """With trials of every fate, and beyond those that only `normalised` breeds."""

    class Killed(Exception):
        pass

    straight, resumed = (open_small("memory:", space, pruner=pruner) for _ in range(2))
    run(straight, space, 45)
    deaths = {3: "claimed", 12: "half suggested", 21: "suggested", 22: "asked", 30: "suggested", 41: "claimed"}

    def die(point, number):
        if deaths.get(number) == point:
            raise Killed

    while finished(resumed) < 45:
        resumed.sampler = build_sampler("genetic", space, seed=7)
        with contextlib.suppress(Killed):
            run(resumed, space, 45, at=die)
        requeue_lost(resumed, exclusive=True)
    assert history(resumed) == history(straight)
    trials = trials_of(resumed)
    assert len(trials) == 45 + len(deaths)
    states = {trial.state for trial in trials if "lost" not in trial.user_attrs}
    fates = {TrialState.COMPLETE, TrialState.FAIL}
    assert states == (fates | {TrialState.PRUNED} if pruner == "evolve" else fates)
    assert {trial.user_attrs.get("operator") for trial in trials[40:]} & {"step", "mean", "difference"}


def test_one_sampler_serves_many_studies_as_if_each_had_its_own(space):
    """Studies that are gone leave their place in memory to others; all of them are number 0 of their storage."""
    sampler = GeneticSampler(space, seed=5)

    def first_two():
        study = study_with(sampler)
        trials = []
        for value in (0.5, 0.4):
            trials.append(study.ask())
            suggest(trials[-1], space)
            study.tell(trials[-1], value)
        return [trial.params for trial in trials]

    assert first_two()[0] == {name: space.defaults()[name] for name in space.names}
    assert all(first_two() == first_two() for _ in range(20))


def test_two_studies_may_take_turns_with_a_sampler(space):
    def hyps(*samplers):
        studies = [study_with(sampler) for sampler in samplers]
        for i in range(8):
            for j, study in enumerate(studies):
                trial = study.ask()
                suggest(trial, space)
                study.tell(trial, i % (2 + j))
        return [[trial.params for trial in trials_of(study)] for study in studies]

    shared = GeneticSampler(space, seed=5)
    assert hyps(shared, shared) == hyps(GeneticSampler(space, seed=5), GeneticSampler(space, seed=5))


def test_a_sampler_that_has_drawn_can_be_pickled_and_goes_on_alike(space):
    studies = [study_with(GeneticSampler(space, seed=5)) for _ in range(2)]
    for i in range(10):
        for j, study in enumerate(studies):
            if j:
                assert len(pickle.dumps(study.sampler)) == len(pickle.dumps(GeneticSampler(space, seed=5)))
                study.sampler = pickle.loads(pickle.dumps(study.sampler))
            trial = study.ask()
            suggest(trial, space)
            study.tell(trial, i % 4)
    first, second = ([trial.params for trial in trials_of(study)] for study in studies)
    assert first == second


def test_threads_share_a_sampler_and_draw_no_hyp_twice(space):
    study = study_with(GeneticSampler(space, seed=0))
    study.optimize(lambda trial: suggest(trial, space)["degrees"], n_trials=60, n_jobs=6)
    hyps = [tuple(trial.params.values()) for trial in trials_of(study)]
    memory = study.sampler._memory.population(trials_of(study), 60)
    anew = GeneticSampler(space, seed=0)
    study.sampler = anew
    suggest(study.ask(), space)
    assert memory == anew._memory.population(trials_of(study)[:60], 60)
    assert len(set(hyps)) > 50  # two that ask at the same moment do not see each other


def test_a_finished_trial_is_read_once(space, monkeypatch):
    read = []
    encoded = _Genome.encoded
    monkeypatch.setattr(_Genome, "encoded", lambda genome, hyp: read.append(hyp) or encoded(genome, hyp))
    study = study_with(GeneticSampler(space, seed=0))
    for i in range(40):
        trial = study.ask()
        suggest(trial, space)
        study.tell(trial, i)
    assert len(read) == 39  # the last one has not been asked about


def test_of_a_long_study_an_operator_sees_the_fittest_and_the_latest_but_differs_from_all(space, monkeypatch):
    monkeypatch.setattr("studies.sampler.MOST", 20)
    seen = []

    def operator(population, space, rng):
        seen.append(population)
        return Child(space.defaults() | {"degrees": 44.0}, (), "mine", {})

    study = study_with(GeneticSampler(space, seed=0, operator=operator))
    for i in range(100):
        complete(study, space, 200.0 - i if i % 2 else -1.0, degrees=i / 5)
        params = {param.name: param.default for param in space.params} | {"degrees": i / 7}
        distributions = {param.name: distribution(param) for param in space.params}
        study.add_trial(create_trial(params=params, distributions=distributions, state=TrialState.FAIL))
    suggest(study.ask(), space)
    [population] = seen
    numbers = [one.number for one in population.scored]
    assert numbers == sorted({2 * i for i in range(1, 40, 2)} | {2 * i for i in range(80, 100)})
    assert [one.number for one in population.hopeless] == list(range(161, 200, 2))
    assert len(population.taken) == 200


def test_the_population_knows_the_base(space):
    seen = []

    def operator(population, space, rng):
        seen.append(population)
        return normalised(population, space, rng)

    for direction, sign in (("maximize", 1), ("minimize", -1)):
        study = study_with(GeneticSampler(space, seed=0, operator=operator), direction)
        for value in (0.3, 0.5):
            study.enqueue_trial({name: space.defaults()[name] for name in space.names}, user_attrs={"base": True})
            trial = study.ask()
            suggest(trial, space)
            study.tell(trial, value)
        suggest(study.ask(), space)
        assert seen[-1].base_fitness == pytest.approx(sign * 0.4)
        assert [one.fitness for one in seen[-1].scored] == [sign * 0.3, sign * 0.5]
        assert len(seen[-1].ranked()) == 1
        assert seen[-1].better_than_base == 1


def test_sixteen_that_are_asked_for_at_once_are_sixteen(space):
    study = open_small("memory:", space)
    run(study, space, 21)
    for trial in [study.ask() for _ in range(16)]:
        suggest(trial, space)
    assert len({tuple(hyp_of(trial).values()) for trial in trials_of(study)}) == 37


# in anybody's study, without a space


def test_without_a_space_it_starts_from_the_middle():
    study = study_with(GeneticSampler(seed=0, operator=lambda population, space, rng: middles.append(space) or child))
    middles, child = [], Child({"x": 1.0, "n": 3, "rate": 0.1}, (), "mine", {})
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 4.0)
        trial.suggest_int("n", 2, 6)
        trial.suggest_float("rate", 1e-4, 1.0, log=True)
        study.tell(trial, 0.0)
    assert middles[0].defaults() == {"x": 2.0, "n": 4, "rate": 0.01}


def objective(trial):
    depth = trial.suggest_categorical("depth", [None, 3, True, "deep"])
    rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.6, step=0.15)
    width = trial.suggest_int("width", 8, 64, step=8)
    trial.suggest_float("fixed", 2.0, 2.0)
    if width > 32:
        trial.suggest_float("only when wide", 0, 1)
    return -abs(width - 40) / 8 - abs(dropout - 0.45) + 0.5 * (depth is None) - 0.1 * rate


@pytest.mark.parametrize("operator", OPERATORS)
def test_without_a_space_it_evolves_what_all_complete_trials_have_in_common(operator):
    study = study_with(GeneticSampler(seed=1, operator=operator))
    study.optimize(objective, n_trials=40)
    trials = trials_of(study)
    assert "parents" not in trials[0].user_attrs  # nothing to evolve from
    evolved = {name for trial in trials[1:] for name in trial.user_attrs["step"]}
    assert evolved <= {"depth", "rate", "dropout", "width"}
    assert len(evolved) >= 3
    for trial in trials:
        assert trial.params["dropout"] in (0.0, 0.15, 0.3, 0.44999999999999996, 0.45, 0.6)
        assert trial.params["width"] in range(8, 65, 8)
    best = study.best_trial
    assert best.number > 0
    assert study.best_value > trials[0].value


def test_without_a_space_it_beats_random_draws():
    def found(sampler):
        study = study_with(sampler, "minimize")
        study.optimize(
            lambda trial: sum((trial.suggest_float(f"x{i}", -5, 5) - 1) ** 2 for i in range(6)), n_trials=200
        )
        return study.best_value

    for seed in range(3):
        assert found(GeneticSampler(seed=seed)) < found(RandomSampler(seed)) / 2


def test_some_of_the_space_may_be_fixed_by_optunas_own_means(space):
    study = study_with(GeneticSampler(space, seed=0))
    complete(study, space, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = PartialFixedSampler({"degrees": 7.0}, study.sampler)
    assert suggest(study.ask(), space)["degrees"] == 7.0


def test_hyperband_hides_no_trial_from_it(space):
    study = optuna.create_study(
        sampler=GeneticSampler(space, seed=0), pruner=optuna.pruners.HyperbandPruner(1, 27), direction="maximize"
    )
    for i in range(12):
        complete(study, space, 0.1 * i, degrees=float(i))
    for _ in range(6):
        trial = study.ask()
        hyp = suggest(trial, space)
        assert trial.user_attrs["parents"][0] >= 3  # one of the nine best of all
        study.tell(trial, -1.0)
        assert hyp != space.defaults()


def test_eight_processes_that_ask_at_the_same_time_train_no_hyp_twice(url):
    few = Space("few", tuple(Param(f"n{i}", 2, 0, 5, step=1) for i in range(4)))
    open_small(url, few, pruner="none", base_seeds=3)
    together = fork.Barrier(8)
    processes = [in_process(ask_and_tell, url, few, 25, together) for _ in range(8)]
    assert [exit_code(process) for process in processes] == [0] * 8
    study = open_small(url, few, pruner="none", base_seeds=3)
    others = [tuple(trial.params.values()) for trial in trials_of(study) if not is_base(trial)]
    assert len(others) == 200 - 3
    assert len({*others, tuple(few.defaults().values())}) == len(others) + 1


def ask_and_tell(url, space, count, together):
    study = open_small(url, space, pruner="none", base_seeds=3, exclusive=False)
    together.wait()
    for _ in range(count):
        trial = study.ask()
        claim(trial)
        hyp = suggest(trial, space)
        study.tell(trial, -sum((value - 4) ** 2 for value in hyp.values()))


# by name


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_optunas_samplers_go_on_in_a_resumed_study_as_if_it_had_never_stopped(space, sampler):
    straight, resumed = (open_small("memory:", space, sampler=sampler, pruner="none") for _ in range(2))
    run(straight, space, 18)
    for total in (13, 18):  # beyond the start-up of TPE and GP
        resumed.sampler = build_sampler(sampler, space, seed=7)
        run(resumed, space, total)
    assert history(resumed) == history(straight)
    assert len({tuple(hyp_of(trial).values()) for trial in trials_of(straight)}) > 13  # GP asks for what failed again


def test_optunas_samplers_draw_by_the_seed(space):
    first, second = (open_small("memory:", space, sampler="random", seed=seed) for seed in (1, 2))
    for study in (first, second):
        run(study, space, 3)
    assert hyp_of(trials_of(first)[1]) != hyp_of(trials_of(second)[1])


def test_an_unknown_sampler_or_operator_is_refused_with_the_one_that_was_meant(space):
    with pytest.raises(StudyError, match=r"unknown sampler 'genetics' \(did you mean 'genetic'\?\); known: genetic, "):
        build_sampler("genetics", space, seed=0)
    with pytest.raises(StudyError, match=r"unknown operator 'normalized' \(did you mean 'normalised'\?\)"):
        GeneticSampler(space, operator="normalized")


def test_a_package_that_a_sampler_lacks_is_named_with_the_command_that_installs_it(space, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)  # as if it were not installed
    with pytest.raises(StudyError, match="sampler 'cmaes' needs a package that is not installed: pip install cmaes"):
        build_sampler("cmaes", space, seed=0)
