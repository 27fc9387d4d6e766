"""The one number: weights by name, and sentences for what cannot be weighed."""

import math

import pytest

from evolve.config import ConfigError
from evolve.fitness import Fitness
from trainer import EpochMetrics

METRICS = EpochMetrics(epoch=3, precision=0.5, recall=0.25, map50=0.8, map50_95=0.4)


def test_the_default_of_yolov5_is_a_tenth_of_map50_and_nine_tenths_of_map50_95():
    assert Fitness.parse("map50=0.1,map50_95=0.9")(METRICS) == pytest.approx(0.1 * 0.8 + 0.9 * 0.4)


def test_every_metric_can_be_weighed_by_its_short_name_too():
    assert Fitness.parse("P=1, R=2, map=3") == Fitness.parse("precision=1,recall=2,map50_95=3")


def test_a_fitness_prints_as_what_it_was_read_from_and_leaves_out_what_weighs_nothing():
    assert str(Fitness.parse("map50_95=0.9,precision=0,map50=0.1")) == "map50=0.1,map50_95=0.9"


def test_a_metric_that_is_not_weighed_cannot_spoil_the_fitness():
    spoiled = EpochMetrics(epoch=1, precision=math.nan, recall=0, map50=0, map50_95=0.5)
    assert Fitness.parse("map50_95=1")(spoiled) == 0.5
    assert math.isnan(Fitness.parse("P=1,map50_95=1")(spoiled))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("map5O=1", "unknown metric 'map5O' (did you mean 'map50'?)"),
        ("map50=-1", "the weight of map50 is -1"),
        ("map50=nan", "the weight of map50 is nan"),
        ("map50=much", "'map50=much' is not metric=weight"),
        ("map50", "'map50' is not metric=weight"),
        ("map50=0,recall=0", "weighs nothing"),
        ("", "weighs nothing"),
        ("map=1,map50_95=2", "map50_95 is given twice"),
    ],
)
def test_what_cannot_be_a_fitness_is_told_in_one_sentence(text, sentence):
    with pytest.raises(ConfigError) as error:
        Fitness.parse(text)
    assert sentence in str(error.value)


def test_the_trainer_gets_the_weights_in_the_order_of_its_metrics():
    assert Fitness.parse("map=0.9,P=0.25,map50=0.1").in_order == (0.25, 0.0, 0.1, 0.9)
