"""Several processes as one trainer: who is who, what they tell one another, and that they fail together.

All draw the same epoch from its seed, and each computes its own consecutive share of every batch: that is what a
DistributedSampler with set_epoch does elsewhere, without pictures that are shown twice to fill up the last batch. The
losses and gradients are those of the whole batch, so that the number of processes does not change a training, but for
two things: each normalises by the statistics of its own share (unless `sync_bn`), and sums are rounded in another
order.
"""

from __future__ import annotations

import inspect
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from trainer.api import DataError, TrainerError, TrainJob, TrainOptions
from trainer.detection.members import LOOPBACK, Members
from trainer.detection.phases import phases_of
from trainer.messages import error_from_dict, error_to_dict
from trainer.worker import is_out_of_memory

Result = TypeVar("Result")
Network = TypeVar("Network", bound=nn.Module)

EXCHANGE_TIMEOUT = timedelta(
    minutes=10
)  # for a sum over all processes: one that died is noticed at once, a hung one so
GRACE_S = 5.0  # for the cause of a broken connection to become known
LONGEST_NAP_S = 0.01

_trainings = itertools.count()  # of this process: each has its own names in the store


@dataclass(frozen=True)
class Team:
    """The processes of one training, seen from one of them: `rank` of `world`, which computes on `device`.

    All call the same methods in the same order, from their main threads: what they exchange is matched by its order.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    store: Store | None = None
    members: Members | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes files, scores and reports."""
        return self.rank == 0

    def meet(self, point: str, value: Any = None) -> Any:
        """Wait until all have come to this point, which has a name of its own; returns the first process' value.

        The value is what JSON can hold. The wait has no end, as the first may be scoring, or nobody may ask it for the
        next epoch; but TrainerError is raised if another process fails meanwhile.
        """
        if self.store is None:
            return value
        if not self.leads:
            self.store.set(f"{point}/{self.rank}", "")
            self._await(point)
            return json.loads(self.store.get(point))
        for rank in range(1, self.world):
            self._await(f"{point}/{rank}")
        self.store.set(point, json.dumps(value))
        return value

    def in_turn(self, point: str, do: Callable[[], Result]) -> Result:
        """The first process does it, then the others do: what was downloaded or cached by it, they find."""
        if self.leads:
            done = do()
            self.meet(point)
            return done
        self.meet(point)
        return do()

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same for each. On a GPU it does not wait for the device."""
        if self.store is None:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, its gradients averaged over all processes in each backward pass.

        What is frozen by now is left out. Running statistics stay each process' own: the first one's are scored.
        """
        if self.store is None:
            return model
        wrap = nn.parallel.DistributedDataParallel
        names = {"broadcast_buffers", "forward_sync_buffers"} & inspect.signature(wrap).parameters.keys()
        own_buffers: dict[str, Any] = {max(names): False}  # torch 2.15 calls it forward_sync_buffers
        return wrap(model, gradient_as_bucket_view=True, **own_buffers)

    def share_statistics(self, model: Network) -> Network:
        """The model with batch norms that normalise by the batches of all processes; before anything refers to it."""
        if self.store is None:
            return model
        converted: Network = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted

    def failure(self) -> TrainerError | None:
        """What another process failed with, as far as it is known here."""
        death = None if self.members is None else self.members.find_death()
        if self.store is not None and self.store.check(["failure"]):  # asked last: who reports does so before it ends
            return error_from_dict(json.loads(self.store.get("failure")))
        return None if death is None else TrainerError(death)

    def report(self, failure: Mapping[str, Any]) -> None:
        """Tell all others what this process failed with; the first report stands."""
        assert self.store is not None
        with suppress(dist.DistError):  # the store is gone, and so is the first process
            self.store.compare_set("failure", "", json.dumps(failure))

    def _await(self, key: str) -> None:
        assert self.store is not None
        nap_s = 0.0005
        while not self.store.check([key]):
            if (failure := self.failure()) is not None:
                raise failure
            time.sleep(nap_s)
            nap_s = min(LONGEST_NAP_S, nap_s * 1.5)


# Who is who


@dataclass(frozen=True)
class Place:
    """One process' place among those that torchrun started, or `Members`; `local` counts on this machine."""

    rank: int
    world: int
    local: int


def find_place() -> Place | None:
    """This process' place by its environment (see torch.distributed's env://); None if it stands alone."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    try:
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        place = Place(rank, world, int(os.environ.get("LOCAL_RANK", rank)))
    except ValueError:
        raise DataError("RANK, WORLD_SIZE and LOCAL_RANK must be numbers, as torchrun sets them") from None
    return place if world > 1 else None


def devices_of(asked: str) -> tuple[torch.device, ...]:
    """The devices that an option names: 'cpu', 'cuda', 'cuda:1', '1', or several: '0,1'. Raises DataError."""
    names = [name.strip() for name in asked.split(",")]
    if len(names) > 1 and "cuda" in names:
        raise DataError(f"device '{asked}': of several GPUs each needs its number, like 0,1")
    devices = tuple(_device_of(name, asked) for name in names)
    if len(devices) == 1:
        return devices
    if {device.type for device in devices} not in ({"cpu"}, {"cuda"}):
        raise DataError(f"device '{asked}': several processes work all on GPUs or all on the CPU")
    return devices


def _device_of(name: str, asked: str) -> torch.device:
    try:
        device = torch.device(f"cuda:{int(name)}" if name.isdecimal() else name)
        if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"there is no GPU {device.index}, only {torch.cuda.device_count()}")
        if device.type != "cuda" or not torch.cuda.is_available():  # the latter to have torch say why
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"device '{asked}' cannot be used: {str(error).splitlines()[0]}") from None
    return device


def choose_device(asked: str, place: Place) -> torch.device:
    """What a process computes on that was given its place: of several devices, and of all GPUs, its own."""
    devices = devices_of(asked)
    if asked == "cuda":
        return _device_of(f"cuda:{place.local}", f"cuda:{place.local}")
    if asked == "cpu":
        return devices[0]
    if place.local >= len(devices) or len(devices) == 1:
        raise DataError(f"device '{asked}' is not enough for {place.world} processes: with torchrun take cpu or cuda")
    return devices[place.local]


def count_processes(options: TrainOptions) -> int:
    """How many processes a training has: those that torchrun started, or one for each device."""
    place = find_place()
    return len(devices_of(options.device)) if place is None else place.world


def check_team(options: TrainOptions) -> None:
    """DataError for devices that cannot be used, and for batches that cannot be shared among them."""
    place = find_place()
    devices = devices_of(options.device) if place is None else (choose_device(options.device, place),)
    world = count_processes(options)
    for name, batch in (("batch", options.batch), ("freeze_batch", options.freeze_batch)):
        if batch % world:
            around = [size for size in (batch - batch % world, batch - batch % world + world) if size]
            would = " or ".join(map(str, around))
            raise DataError(f"{name} {batch} does not divide among {world} processes; {would} would")
    if options.sync_bn and devices[0].type != "cuda":
        raise DataError(f"sync_bn needs GPUs: on '{options.device}' torch has no shared batch statistics")


def check_shares(options: TrainOptions, pictures: int) -> None:
    """DataError if some batch of an epoch has too few pictures to give each process one."""
    world = count_processes(options)
    for phase in phases_of(options):
        batches = -(-pictures // phase.batch)
        if pictures // batches < world:
            raise DataError(
                f"{pictures} training pictures in batches of {phase.batch} leave some of {pictures // batches}, less "
                f"than one for each of {world} processes"
            )


# A training's beginning and end


@contextmanager
def assemble(job: TrainJob) -> Iterator[Team]:
    """The team of a training, for as long as it lasts.

    A process that was started by torchrun joins the others; one that is alone and asked for several devices starts the
    others itself, and ends them at the end, however that comes. What one fails with all raise, as one TrainerError.
    """
    place = find_place()
    if place is not None:
        device = choose_device(job.options.device, place)
        store, _, _ = next(rendezvous("env://", timeout=EXCHANGE_TIMEOUT))
        # torchrun's own processes may train several times.
        store = PrefixStore(f"training {next(_trainings)}", store)
        with _joined(Team(device, place.rank, place.world, store), job):
            yield Team(device, place.rank, place.world, store)
        return
    devices = devices_of(job.options.device)
    if len(devices) == 1:
        if devices[0].index is not None:
            torch.cuda.set_device(devices[0])
        yield Team(devices[0])
        return
    with Members(job, len(devices)) as members:
        team = Team(devices[0], 0, len(devices), PrefixStore("training 0", members.store), members)
        with _joined(team, job):
            yield team


@contextmanager
def _joined(team: Team, job: TrainJob) -> Iterator[None]:
    """The process group, open; errors are told to the others, or learned from them."""
    try:
        team.meet("joined")
        _open_group(team, job.options.device)
        yield
        team.meet("done")  # some backends wait for one another where they close
    except Exception as error:
        cause = _find_cause(team, error, job)
        _close_group(in_peace=False)
        if cause is error:
            raise
        raise cause from error
    except BaseException:  # GeneratorExit or Ctrl-C
        team.report(error_to_dict(TrainerError("the training was given up")))
        _close_group(in_peace=False)
        raise
    else:
        _close_group(in_peace=True)


def _open_group(team: Team, asked: str) -> None:
    assert team.store is not None
    backend, store = choose_backend(asked), PrefixStore("group", team.store)
    if team.device.type == "cuda":
        torch.cuda.set_device(team.device)

    # A group that failed to open took a number with it, and by these numbers the processes find one another.
    dist.distributed_c10d._world.group_count = 0

    def open_group() -> None:
        dist.init_process_group(
            backend,
            store=store,
            rank=team.rank,
            world_size=team.world,
            timeout=EXCHANGE_TIMEOUT,
            device_id=team.device if backend == "nccl" else None,
        )

    with _on_loopback(team.members is not None):
        if backend == "gloo":
            open_group()
            return
        # NCCL waits for a process that died, here as in every exchange.
        _while_none_fails(team, open_group)
    if team.members is not None:
        team.members.watch(abort_group)


def _while_none_fails(team: Team, do: Callable[[], None]) -> None:
    """Do it in a thread, which is given up where another process fails meanwhile."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            torch.cuda.set_device(team.device)
            do()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="opening", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
        if thread.is_alive() and (failure := team.failure()) is not None:
            raise failure
    if errors:
        raise errors[0]


def choose_backend(asked: str) -> str:
    """What the processes of these devices exchange by: NCCL, which wants a GPU for each, or Gloo."""
    devices = devices_of(asked)
    return "nccl" if devices[0].type == "cuda" and len(set(devices)) == len(devices) else "gloo"


def _close_group(*, in_peace: bool) -> None:
    if not dist.is_initialized():
        return
    if not in_peace:
        abort_group()
    dist.destroy_process_group()


def abort_group() -> None:
    """Give up what the process group has under way. NCCL waits for a dead process as for a slow one; Gloo notices."""
    if dist.is_initialized() and dist.get_backend() == "nccl":
        group: Any = dist.group.WORLD
        if hasattr(group, "abort"):  # from torch 2.6 on
            group.abort()


@contextmanager
def _on_loopback(yes: bool) -> Iterator[None]:
    """Have what is opened meanwhile listen on this machine alone, not on an address that others may reach."""
    settings = {name: value for name, value in LOOPBACK.items() if yes and name not in os.environ}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def _find_cause(team: Team, error: Exception, job: TrainJob) -> Exception:
    """The error that ended the training: this one, or that of another process which broke the connection to here.

    The others are told.
    """
    if not _is_of_connection(error):
        team.report(error_to_dict(error) if isinstance(error, TrainerError) else _explain(error, team, job))
        return error
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        try:
            if (failure := team.failure()) is not None:
                return failure
        except dist.DistError:  # the store is gone
            break
        time.sleep(LONGEST_NAP_S)
    return TrainerError(f"the processes of this training lost one another: {' '.join(str(error).split())[:400]}")


def _is_of_connection(error: Exception) -> bool:
    """Gloo has no exception type of its own, but names its source file."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _explain(error: Exception, team: Team, job: TrainJob) -> dict[str, Any]:
    said = f"process {team.rank} of {team.world}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
    if is_out_of_memory(error):
        said = f"out of memory with batch {job.options.batch} at imgsz {job.options.imgsz} ({said})"
    return error_to_dict(TrainerError(said))
