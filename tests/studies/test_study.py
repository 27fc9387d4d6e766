"""A study's life: created, killed, resumed, shared, and always the same study."""

import os
import time

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from small_study import (
    attrs,
    backdate,
    exit_code,
    fork,
    history,
    identity_of,
    in_process,
    kill_me,
    open_small,
    run,
    states,
)

from search_spaces import Space, SpaceError
from studies import (
    SAMPLERS,
    StudyError,
    abandon,
    best_of,
    claim,
    finished,
    generation_of,
    open_storage,
    open_study,
    suggest,
    trials_of,
)
from studies.study import ask_within, requeue_lost
from studies.trials import KNOWN, SURPLUS, base_seeds_of, counts, generations, hyp_of, is_lost, is_surplus
from studies.worker import is_alive, this_worker

# the base


def test_the_base_is_trial_0_whatever_the_sampler(space):
    for sampler in SAMPLERS:
        study = open_small("memory:", space, sampler=sampler)
        assert suggest(study.ask(), space) == space.defaults()
        assert attrs(study, 0)["base"] is True


def test_opening_a_study_twice_queues_the_base_once(url, space):
    open_small(url, space)
    assert states(open_small(url, space)) == ["WAITING"]


def test_the_base_is_queued_for_so_many_seeds_whatever_the_sampler(space):
    for sampler in SAMPLERS:
        study = open_small("memory:", space, sampler=sampler, base_seeds=3)
        run(study, space, 5)
        trials = trials_of(study)
        assert [trial.user_attrs.get("base") for trial in trials] == [True, True, True, None, None]
        assert [hyp_of(trial) for trial in trials[:3]] == [hyp_of(trials[0])] * 3
        assert not any("parents" in trial.user_attrs for trial in trials[:3]), "nobody proposed them"
        assert base_seeds_of(study) == 3


def test_who_asks_while_all_of_the_base_is_running_gets_another_hyp(space):
    study = open_small("memory:", space, base_seeds=3)
    workers = [study.ask() for _ in range(5)]
    hyps = [suggest(trial, space) for trial in workers]
    assert hyps[:3] == [space.defaults()] * 3
    assert hyps[3] != space.defaults() != hyps[4] != hyps[3]


def test_a_base_that_is_lost_comes_again_in_its_own_generation_and_is_no_seed_more(space):
    study = open_small("memory:", space, base_seeds=3)
    first, second = study.ask(), study.ask()
    suggest(second, space)
    abandon(study, second, "interrupted")
    for number in (first.number, study.ask().number):
        study.tell(number, 0.5)
    retry = study.ask()
    assert (retry.number, generation_of(study, retry), attrs(study, 3)["base"]) == (3, 1, True)
    assert suggest(retry, space) == space.defaults()
    assert base_seeds_of(study) == 3


def test_a_base_outside_its_bounds_is_never_queued(space):
    with pytest.raises(SpaceError, match=r"lr0.*0\.2.*\[1e-05, 0\.1\]"):
        open_small_with_base(space, {**space.defaults(), "lr0": 0.2})


def test_a_base_given_in_other_kinds_of_numbers_is_recorded_as_the_params_hold_them(space):
    study = open_small_with_base(space, {**space.defaults(), "degrees": 12, "layers": 4.0})
    hyp = suggest(study.ask(), space)
    assert (hyp["degrees"], type(hyp["degrees"])) == (12.0, float)
    assert (hyp["layers"], type(hyp["layers"])) == (4, int)
    assert suggest(study.ask(), space).keys() == hyp.keys()


def open_small_with_base(space, base):
    sampler, pruner = optuna.samplers.RandomSampler(0), optuna.pruners.NopPruner()
    return open_study("s", "memory:", sampler=sampler, pruner=pruner, identity=identity_of(space), base=base)


# identity


def reopen(url, space, changes, direction="maximize"):
    identity = identity_of(space) | changes
    return open_study(
        "small",
        url,
        sampler=optuna.samplers.RandomSampler(0),
        pruner=optuna.pruners.NopPruner(),
        identity=identity,
        base=Space.from_dict(identity["space"]).defaults(),
        goals={"fitness": direction},
        exclusive=True,
    )


def test_resuming_with_other_settings_names_each_of_them_and_both_values(url, space):
    open_small(url, space)
    wider = space.to_dict()
    wider["hyps"]["lr0"]["high"] = 0.2
    del wider["hyps"]["degrees"]
    with pytest.raises(StudyError) as error:
        reopen(url, space, {"epochs": 20, "space": wider, "imgsz": 320})
    assert str(error.value) == (
        "study 'small' was made with other settings: "
        "space: lr0.high is 0.1 there, 0.2 here; "
        'space: degrees is {"low": 0.0, "high": 45.0, "default": 0.0} there, missing here; '
        "epochs is 8 there, 20 here; imgsz is missing there, 320 here. "
        "Use another --study name, or the settings that it was made with"
    )


def test_many_differences_are_counted_not_listed(url, space):
    open_small(url, space)
    with pytest.raises(StudyError, match=r"there, 6 here; and 3 more\. Use another"):
        reopen(url, space, {f"key{i}": i + 1 for i in range(9)})


def test_another_direction_is_another_study(url, space):
    open_small(url, space)
    with pytest.raises(StudyError, match='direction is "maximize" there, "minimize" here'):
        reopen(url, space, {}, direction="minimize")


def test_a_study_that_somebody_else_made_is_left_alone(url, space):
    theirs = optuna.create_study(study_name="small", storage=url, direction="maximize")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(StudyError, match="'small' exists in this storage, but was not made by evolve"):
        open_small(url, space)
    assert "identity" not in theirs.user_attrs
    assert len(theirs.trials) == 1


def test_an_interrupted_set_up_is_completed(space):
    """Killed between any two of: create the study, note its base, queue the base twice, note the identity."""
    for done in range(4):
        storage = open_storage("memory:")
        study = optuna.create_study(study_name="small", storage=storage, direction="maximize")
        if done > 0:
            study.set_user_attr("base", space.defaults())
        for _ in range(done - 1):
            study.enqueue_trial({name: space[name].default for name in space.names}, user_attrs={"base": True})
        study = open_small(storage, space, base_seeds=2)
        assert states(study) == ["WAITING", "WAITING"]
        assert study.user_attrs["identity"] == identity_of(space)


# 17 + 23 = 40


@pytest.mark.parametrize("sampler", ["genetic", "yolo"])
def test_17_and_23_trials_resumed_equal_40_straight_hyp_for_hyp(tmp_path, space, sampler):
    straight = open_small("memory:", space, sampler=sampler)
    run(straight, space, 40)
    url = f"sqlite:///{tmp_path}/study.db"
    run(open_small(url, space, sampler=sampler), space, 17)
    resumed = open_small(url, space, sampler=sampler)
    run(resumed, space, 40)
    assert history(resumed) == history(straight)
    assert {"COMPLETE", "PRUNED", "FAIL"} == set(states(straight))  # or the test would show little


def run_and_die(url, space, sampler, point, number):
    study = open_small(url, space, sampler=sampler, base_seeds=3)
    run(study, space, 99, at=lambda here, trial: here == point and trial >= number and kill_me())


POINTS = ["asked", "claimed", "half suggested", "suggested", "epoch 1", "told"]


@pytest.mark.parametrize(
    ("sampler", "points"), [("genetic", POINTS), ("genetic", POINTS[::-1]), ("tpe", POINTS), ("random", POINTS[::-1])]
)
def test_a_study_killed_at_every_point_equals_one_that_never_stopped(url, space, sampler, points):
    straight = open_small("memory:", space, sampler=sampler, base_seeds=3)
    run(straight, space, 12)
    for number, point in zip((0, 1, 4, 7, 11, 13), points, strict=True):
        assert exit_code(in_process(run_and_die, url, space, sampler, point, number)) == -9
    resumed = open_small(url, space, sampler=sampler, base_seeds=3)
    run(resumed, space, 12)
    assert history(resumed) == history(straight)
    lost = [trial.number for trial in trials_of(resumed) if not counts(trial)]
    assert len(lost) == 5  # all but the one that had been told
    assert [attrs(resumed, n)["lost"] for n in lost] == ["the process that trained it ended"] * 5


def test_a_retry_has_the_generation_the_lineage_and_the_privileges_of_what_it_retries(url, space):
    study = open_small(url, space)
    run(study, space, 3)
    trial = study.ask()
    hyp = suggest(trial, space)
    abandon(study, trial, "interrupted")
    retry = study.ask()
    assert (trial.number, retry.number) == (3, 4)
    assert suggest(retry, space) == hyp
    assert generation_of(study, retry) == generation_of(study, trial) == 3
    for key in ("parents", "operator", "step"):
        assert attrs(study, 4)[key] == attrs(study, 3)[key]
    assert generation_of(study, study.ask()) == 4


def test_the_retry_of_the_base_is_the_base(space):
    study = open_small("memory:", space)
    abandon(study, study.ask(), "interrupted")
    retry = study.ask()
    assert attrs(study, retry.number)["base"] is True
    assert suggest(retry, space) == space.defaults()


def test_a_retry_may_be_lost_as_often_as_it_likes(space):
    study = open_small("memory:", space)
    run(study, space, 2)
    for _ in range(4):
        abandon(study, study.ask(), "interrupted")
    trial = study.ask()
    assert (trial.number, generation_of(study, trial)) == (6, 2)
    study.tell(trial, state=TrialState.FAIL)
    assert generation_of(study, study.ask()) == 3


def test_generations_do_not_change_when_an_older_trial_is_lost_later(space):
    study = open_small("memory:", space)
    first, second = study.ask(), study.ask()  # two workers
    assert generation_of(study, second) == 1
    abandon(study, first, "interrupted")
    assert generation_of(study, second) == 1
    retry, third = study.ask(), study.ask()
    assert [generation_of(study, trial) for trial in (retry, third)] == [0, 2]


def test_lost_and_unfinished_trials_do_not_count(space):
    study = open_small("memory:", space)
    run(study, space, 5)
    abandon(study, study.ask(), "interrupted")
    study.ask()
    assert finished(study) == 5
    study.tell(study.ask(), state=TrialState.FAIL)
    assert finished(study) == 6


def test_known_trials_take_no_generation_and_count_for_nothing_wherever_they_stand(space):
    """Beside them, seven trials are trained, one of them twice, as it was lost."""
    study = open_small("memory:", space)
    for total in (1, 3, 7):
        run(study, space, total)
        known = {**trials_of(study)[0].params, "degrees": float(total)}
        study.add_trial(
            create_trial(
                value=9.0,
                params=known,
                distributions=trials_of(study)[0].distributions,
                user_attrs={KNOWN: f"trial {total} of another study"},
            )
        )
        if total == 3:
            abandon(study, study.ask(), "killed")
    trials = trials_of(study)
    found = generations(trials)
    trained = [trial.number for trial in trials if counts(trial)]
    assert len(trials) == 7 + 3 + 1
    assert ([found[number] for number in trained], finished(study)) == ([0, 1, 2, 3, 4, 5, 6], 7)
    assert best_of(study, space).fitness < 9


def test_what_has_finished_cannot_be_abandoned(space):
    study = open_small("memory:", space)
    trial = study.ask()
    study.tell(trial, 0.5)
    abandon(study, trial, "interrupted")
    assert states(study) == ["COMPLETE"]


# who is dead


def claim_and_wait(url, space):
    claim(open_small(url, space, exclusive=False).ask())
    time.sleep(60)


def wait_until_claimed(study):
    deadline = time.monotonic() + 240
    while not any("worker" in trial.user_attrs for trial in trials_of(study)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_trial_of_a_living_process_is_left_to_it_and_lost_when_it_is_killed(url, space):
    study = open_small(url, space)
    process = in_process(claim_and_wait, url, space)
    wait_until_claimed(study)
    worker = attrs(study, 0)["worker"]
    assert is_alive(worker)
    for exclusive in (False, True):
        assert states(open_small(url, space, exclusive=exclusive)) == ["RUNNING"]
    os.kill(process.pid, 9)
    while not is_zombie(process.pid):
        time.sleep(0.01)
    assert not is_alive(worker)  # though nobody has waited for it
    assert states(open_small(url, space, exclusive=False)) == ["FAIL", "WAITING"]
    assert exit_code(process) == -9


def is_zombie(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"


def test_a_process_that_was_given_the_pid_of_a_dead_one_is_not_taken_for_it():
    me = this_worker()
    assert is_alive(me)
    assert not is_alive({**me, "started": me["started"] + "0"})


@pytest.mark.parametrize(
    ("worker", "age_s", "lost_shared", "lost_exclusive"),
    [
        ({"host": "elsewhere", "pid": 1, "started": "x"}, 1e6, False, True),  # or a container that was restarted
        (this_worker(), 1e6, False, True),  # this very process opens the study anew, so it has stopped working on it
        ({**this_worker(), "started": "another boot/1"}, 0, True, True),
        (None, 0, False, True),  # died before it could claim; or is just about to
        (None, 1e6, True, True),
    ],
)
def test_whose_running_trial_is_lost(url, space, worker, age_s, lost_shared, lost_exclusive):
    for exclusive, lost in ((False, lost_shared), (True, lost_exclusive)):
        open_small(url, space)
        study = optuna.load_study(study_name="small", storage=url)
        trial = study.ask()
        if worker:
            trial.set_user_attr("worker", worker)
        backdate(url, "datetime_start", age_s)
        assert states(open_small(url, space, exclusive=exclusive)) == (["FAIL", "WAITING"] if lost else ["RUNNING"])
        optuna.delete_study(study_name="small", storage=url)


def test_a_lost_trial_whose_process_died_before_it_queued_the_retry_is_queued_once(url, space):
    study = open_small(url, space)
    trial = study.ask()
    hyp = suggest(trial, space)
    trial.set_user_attr("lost", "the process that trained it ended")
    study.tell(trial, state=TrialState.FAIL)
    assert states(open_small(url, space, exclusive=False)) == ["FAIL"]  # its process may be about to queue it
    backdate(url, "datetime_complete", 100)
    assert requeue_lost(study) == [0]
    for _ in range(2):
        assert states(open_small(url, space, exclusive=False)) == ["FAIL", "WAITING"]
    assert suggest(open_small(url, space).ask(), space) == hyp


# several at once


def work(url, space, total, ready):
    first = []

    def meet(point, number):
        """Neither goes on before the other has a trial too, or it might do all of them."""
        if point == "claimed" and not first:
            first.append(number)
            ready.wait()

    run(open_small(url, space, exclusive=False), space, total, at=meet)


def test_two_processes_share_a_study_without_doing_anything_twice(url, space):
    ready = fork.Barrier(2)
    workers = [in_process(work, url, space, 14, ready) for _ in range(2)]
    assert [exit_code(worker) for worker in workers] == [0, 0]
    study = open_small(url, space)
    trials = trials_of(study)
    assert 14 <= finished(study) <= 15
    assert generations(trials) == list(range(len(trials)))
    assert [trial.number for trial in trials if "base" in trial.user_attrs] == [0]
    hyps = [tuple(hyp_of(trial).values()) for trial in trials]
    assert len(set(hyps)) == len(hyps)
    assert len({trial.user_attrs["worker"]["pid"] for trial in trials}) == 2


def take_all(url, space, ready, taken):
    study = open_small(url, space, exclusive=False)
    ready.wait()
    while any(trial.state == TrialState.WAITING for trial in trials_of(study)):
        taken.put(study.ask().number)


def test_a_queued_trial_is_taken_by_one_process_only(url, space):
    study = open_small(url, space)
    for i in range(1, 25):
        study.enqueue_trial({"degrees": float(i)})
    taken, ready = fork.Queue(), fork.Barrier(4)
    workers = [in_process(take_all, url, space, ready, taken) for _ in range(4)]
    numbers = [taken.get(timeout=240) for _ in range(25)]
    assert [exit_code(worker) for worker in workers] == [0] * 4
    while not taken.empty():
        numbers.append(taken.get())
    queued = [number for number in numbers if number < 25]
    assert sorted(queued) == list(range(25))


@pytest.fixture(params=["sqlite", "postgresql"])
def shared(request, url):
    return url if request.param == "sqlite" else request.getfixturevalue("postgres").url


def take_until_none(url, space, total, ready, taken):
    study = open_small(url, space, exclusive=False)
    ready.wait()
    while (trial := ask_within(study, total)) is not None:
        hyp = suggest(trial, space)
        taken.put((generation_of(study, trial), trial.number, tuple(hyp.values())))
        study.tell(trial, 0.5)


def test_eight_processes_have_each_generation_once_and_no_more_when_the_study_is_continued(shared, space):
    study = open_small(shared, space, base_seeds=3)
    for done, total in ((0, 20), (20, 27)):
        taken, ready = fork.Queue(), fork.Barrier(8)
        workers = [in_process(take_until_none, shared, space, total, ready, taken) for _ in range(8)]
        found = [taken.get(timeout=240) for _ in range(done, total)]
        assert [exit_code(worker) for worker in workers] == [0] * 8
        assert taken.empty()
        assert sorted(generation for generation, _, _ in found) == list(range(done, total))
        assert finished(study) == total
    trials = trials_of(study)
    assert all(trial.state.is_finished() for trial in trials)
    assert sorted(generation_of(study, trial) for trial in trials if counts(trial)) == list(range(27))
    hyps = [tuple(hyp_of(trial).values()) for trial in trials if counts(trial)]
    assert len(set(hyps)) == 27 - 2, "but for the base, which was asked for three times"


def test_what_is_asked_for_beyond_the_end_counts_nowhere_and_takes_no_generation(url, space):
    study = open_small(url, space)
    for _ in range(3):
        study.tell(ask_within(study, 3), 0.5)
    late = study._storage.create_new_trial(study._study_id)  # by who had looked before the third was there
    study._storage.set_trial_user_attr(late, SURPLUS, True)
    study._storage.set_trial_state_values(late, TrialState.FAIL)
    assert ask_within(study, 3) is None
    assert finished(study) == 3
    more = ask_within(study, 4)
    assert (more.number, generation_of(study, more)) == (4, 3)


def test_lost_hyps_come_first_in_the_order_of_their_generations(url, space):
    study = open_small(url, space)
    asked = [ask_within(study, 9) for _ in range(4)]
    for trial in asked:
        suggest(trial, space)
    for number in (2, 0, 3):
        abandon(study, asked[number], "a test")
    again = [ask_within(study, 9) for _ in range(4)]
    assert [generation_of(study, trial) for trial in again] == [0, 2, 3, 4]
    assert [attrs(study, trial.number).get("retry_of") for trial in again] == [0, 2, 3, None]


def test_a_hyp_that_is_lost_in_the_last_generation_can_still_be_had(url, space):
    study = open_small(url, space)
    (only,) = [ask_within(study, 1)]
    assert ask_within(study, 1) is None
    abandon(study, only, "a test")
    assert attrs(study, ask_within(study, 1).number)["retry_of"] == 0


def test_of_two_retries_of_one_trial_the_first_is_trained_and_the_other_counts_nowhere(url, space):
    """Two processes may find at once that whoever marked a trial as lost died before it queued the hyp again."""
    study = open_small(url, space)
    trial = ask_within(study, 2)
    suggest(trial, space)
    trial.set_user_attr("lost", "a test")
    study.tell(trial, state=TrialState.FAIL)
    for _ in range(2):
        study.enqueue_trial(hyp_of(trials_of(study)[0]), user_attrs={"retry_of": 0})
    taken = [ask_within(study, 2) for _ in range(3)]
    assert [one and one.number for one in taken] == [1, 3, None]
    assert [is_surplus(one) for one in trials_of(study)] == [False, False, True, False]
    assert generation_of(study, taken[1]) == 1


def die_with_a_trial(url, space):
    study = open_small(url, space, exclusive=False)
    suggest(ask_within(study, 9), space)
    kill_me()


def test_a_hyp_that_no_process_survives_fails_when_its_retries_are_used_up(url, space):
    study, hyp = open_small(url, space), None
    for deaths in range(1, 4):
        assert exit_code(in_process(die_with_a_trial, url, space)) == -9
        hyp = hyp or hyp_of(trials_of(study)[0])
        assert requeue_lost(study, retries=2) == [deaths - 1]
        assert hyp_of(trials_of(study)[deaths - 1]) == hyp
    assert states(study) == ["FAIL"] * 3
    assert [is_lost(trial) for trial in trials_of(study)] == [True, True, False]
    assert attrs(study, 2)["failure"] == "the process that trained it ended, 3 times in all"
    assert finished(study) == 1
    assert requeue_lost(study, retries=2) == []


def test_what_was_given_up_by_a_living_process_is_queued_again_however_often(url, space):
    study = open_small(url, space)
    for _ in range(6):
        abandon(study, ask_within(study, 9), "KeyboardInterrupt in the process that ran it")
        assert requeue_lost(study, retries=0) == []
    assert states(study) == ["FAIL"] * 6 + ["WAITING"]


def test_without_retries_one_death_is_a_failure(url, space):
    study = open_small(url, space)
    assert exit_code(in_process(die_with_a_trial, url, space)) == -9
    requeue_lost(study, retries=0)
    assert states(study) == ["FAIL"]
    assert finished(study) == 1


# a journal


def test_a_study_in_a_journal_with_a_torn_last_line_goes_on_where_it_was(tmp_path, space):
    journal = tmp_path / "study.journal"
    run(open_small(f"journal:{journal}", space), space, 3)
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","stu')
    resumed = open_small(f"journal:{journal}", space)
    run(resumed, space, 5)
    straight = open_small("memory:", space)
    run(straight, space, 5)
    assert history(resumed) == history(straight)
