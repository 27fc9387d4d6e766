"""The batches of an epoch, and the thread that makes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.detection.batches import AHEAD, count_batches, make_ahead, split_epoch


@given(pictures=st.integers(1, 60), size=st.integers(1, 20))
def test_an_epoch_shows_every_picture_once_in_batches_of_nearly_one_size(pictures: int, size: int) -> None:
    batches = split_epoch(pictures, size, np.random.default_rng(0))
    lengths = {len(part) for part in batches}
    assert sorted(np.concatenate(batches).tolist()) == list(range(pictures))
    assert len(batches) == count_batches(pictures, size)
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1


def test_what_is_made_ahead_comes_in_order_and_only_a_little_ahead() -> None:
    asked: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            asked.append(item)
            yield item

    made = make_ahead(lambda item: item * item, items())
    assert next(made) == 0
    assert asked == list(range(AHEAD + 1))
    assert list(made) == [item * item for item in range(1, 10)]


def test_an_error_while_making_reaches_the_one_who_asks() -> None:
    with pytest.raises(ZeroDivisionError):
        list(make_ahead(lambda item: 1 // item, [1, 0, 1]))


def test_leaving_early_leaves_no_thread() -> None:
    before = threading.active_count()
    made = make_ahead(lambda item: item, range(100))
    next(made)
    made.close()
    assert threading.active_count() == before
