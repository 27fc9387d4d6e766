"""The model's sums keep to one core, and what was there before comes back."""

import optuna
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import studies.modern
from studies import GeneticSampler
from studies.cores import OneCore
from studies.surrogate import fit_kernel


def cores() -> set[int]:
    """How many cores numpy's linear algebra takes."""
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def _two_cores():
    with threadpool_limits(2):
        assert cores() == {2}
        yield


def test_whoever_comes_first_limits_and_whoever_leaves_last_gives_back():
    one_core = OneCore()
    for _ in range(2):
        one_core.__enter__()
        one_core.__enter__()  # a second thread, which leaves later than the first
        one_core.__exit__()
        assert cores() == {1}
        one_core.__exit__()
        assert cores() == {2}


def test_what_fails_within_gives_them_back_too():
    with pytest.raises(ZeroDivisionError), OneCore():
        1 / 0  # noqa: B018
    assert cores() == {2}


def test_the_sampler_fits_its_model_on_one_core(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def fitted(*told):
        seen.append(cores())
        return fit_kernel(*told)

    monkeypatch.setattr(studies.modern, "fit_kernel", fitted)
    study = optuna.create_study(sampler=GeneticSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=12)
    assert seen
    assert all(found == {1} for found in seen)
    assert cores() == {2}
