"""Where trials may run at once: one slot is one trial at a time on one device."""

from __future__ import annotations

from dataclasses import dataclass

from evolve.config import ConfigError, EvolveConfig


@dataclass(frozen=True)
class Slot:
    """The place of one worker: its number from 0, its device, and the CPU threads of its trainings."""

    number: int
    device: str
    threads: int


def slots_of(config: EvolveConfig) -> tuple[Slot, ...] | None:
    """A slot for each worker, the devices in turn; () where others are to do all the work.

    None: no workers were asked for, so that whoever runs the study trains by itself, on all devices at once. Raises
    ConfigError where the devices have no room for so many.
    """
    asked, each = config.jobs, config.per_device
    if asked is None and each is None and config.backend == EvolveConfig.backend:
        return None
    if asked == 1 and each is None and config.backend == EvolveConfig.backend:
        return None
    devices = [device.strip() for device in config.device.split(",")]
    jobs = len(devices) * (each or 1) if asked is None else asked
    if each is not None and jobs > len(devices) * each:
        room = f"{len(devices)} device{'s' * (len(devices) > 1)} with {each} trial{'s' * (each > 1)} each"
        raise ConfigError(f"--jobs is {jobs}, but {room} have room for {len(devices) * each}")
    threads = config.threads or max(1, _cores() // max(1, jobs))
    return tuple(Slot(number, devices[number % len(devices)], threads) for number in range(jobs))


def _cores() -> int:
    from joblib import cpu_count

    return int(cpu_count())
