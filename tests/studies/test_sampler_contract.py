"""Optuna's own suite for samplers, held by ours: the default operator and the classic one, and Optuna's.

Ours stand here with and without a space, Optuna's as they are given here. With a space, that is what is drawn together
and nothing else: the suite's tests of other spaces are not for it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase

from search_spaces import Param, Space
from studies import GeneticSampler, build_sampler

SPACE = Space("other than the suite's", (Param("lr0", 0.01, 1e-5, 0.1, log=True),))


class TestModern(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: GeneticSampler(seed=0)


class TestYolo(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: GeneticSampler(seed=0, operator="yolo")


class TestWithASpace(BasicSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=["genetic", "yolo"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: build_sampler(request.param, SPACE, seed=0)


class TestOptunasOwn(BasicSamplerTestCase):
    @pytest.fixture(params=["tpe", "random"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: build_sampler(request.param, SPACE, seed=0)
