"""One slot is one trial at a time on one device: how many there are, and what each has."""

import pytest

from evolve.config import ConfigError, EvolveConfig
from evolve.slots import slots_of


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ({}, None),
        ({"jobs": 1}, None),
        ({"jobs": 0}, []),
        ({"jobs": 2}, ["cpu", "cpu"]),
        ({"jobs": 1, "backend": "dask"}, ["cpu"]),
        ({"backend": "ray"}, ["cpu"]),
        ({"jobs": 1, "per_device": 1}, ["cpu"]),
        ({"per_device": 2, "device": "0,1"}, ["0", "1", "0", "1"]),
        ({"jobs": 3, "device": "0,1"}, ["0", "1", "0"]),
        ({"jobs": 4, "device": "0, 1", "per_device": 2}, ["0", "1", "0", "1"]),
    ],
)
def test_the_devices_are_shared_out_in_turn(asked, devices):
    slots = slots_of(EvolveConfig(**asked))
    assert (None if slots is None else [slot.device for slot in slots]) == devices
    assert [slot.number for slot in slots or ()] == list(range(len(slots or ())))


def test_the_cores_are_shared_out_evenly_and_nobody_has_none(monkeypatch):
    monkeypatch.setattr("evolve.slots._cores", lambda: 8)
    for jobs, threads in ((2, 4), (3, 2), (8, 1), (64, 1)):
        assert {slot.threads for slot in slots_of(EvolveConfig(jobs=jobs, threads=0))} == {threads}
    assert {slot.threads for slot in slots_of(EvolveConfig(jobs=2, threads=3))} == {3}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (
            {"jobs": 5, "device": "0,1", "per_device": 2},
            "--jobs is 5, but 2 devices with 2 trials each have room for 4",
        ),
        ({"jobs": 2, "per_device": 1}, "--jobs is 2, but 1 device with 1 trial each have room for 1"),
    ],
)
def test_more_jobs_than_the_devices_have_room_for_are_refused(asked, sentence):
    with pytest.raises(ConfigError, match=sentence):
        slots_of(EvolveConfig(**asked))
