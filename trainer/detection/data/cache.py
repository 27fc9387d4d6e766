"""The decoded pictures of a split: one memory-mapped file in the user's cache folder, or decoded on demand."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import threading
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, Protocol, TypeVar

import numpy as np
import PIL

from trainer.api import DataError
from trainer.detection.data.pictures import Picture, UnreadablePicture, decode
from trainer.detection.data.problems import Problem
from trainer.progress import progress

T = TypeVar("T")
R = TypeVar("R")
Index = tuple[tuple[int, ...], np.ndarray, tuple[Problem, ...]]  # of a cache: kept, sizes, problems

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache; raise it when `decode` gives other pixels for the same bytes
KEPT_BYTES = 256 * 2**20  # of pictures that are decoded on demand
SETTLED = 2.0  # seconds after which a file that was written no longer changes within one tick of its time stamp


class Images(Protocol):
    """Pictures uint8 [N, imgsz, imgsz, 3]: the little of numpy's arrays that all kinds of them have."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any:
        """By an index, a slice or an array of indices, and perhaps slices of rows and columns behind it: an array."""


@dataclass(frozen=True)
class Cached:
    """Decoded pictures: uint8 [N, imgsz, imgsz, 3], their sizes int32 [N, 2], and which of the files they are [N]."""

    images: Images
    sizes: np.ndarray
    kept: tuple[int, ...]
    problems: tuple[Problem, ...]


def cache_folder(cache_dir: Path | None = None) -> Path:
    """Where caches live: `cache_dir`, else $EVOLVE_CACHE, else $XDG_CACHE_HOME/evolve, else ~/.cache/evolve."""
    if cache_dir is not None:
        return cache_dir
    if own := os.environ.get("EVOLVE_CACHE"):
        return Path(own).expanduser().absolute()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "evolve"
    try:
        return Path.home() / ".cache" / "evolve"
    except RuntimeError:
        raise DataError("there is no home folder for the cache: set EVOLVE_CACHE to a folder") from None


def hash_files(files: Sequence[Path], folder: Path) -> list[str | OSError]:
    """The blake2b of each file's bytes, or why it cannot be read.

    What was hashed is remembered in `folder` by path, size and times, so that a second start reads no file again.
    """
    memo_file = folder / "hashes" / f"{_blake(os.fsencode(files[0].parent))}.json"
    memo = _read_json(memo_file) or {}
    news: dict[str, list[Any]] = {}

    def hashed(file: Path) -> str | OSError:
        try:
            stat = file.stat()
            if not S_ISREG(stat.st_mode):  # a device may never end
                return OSError(errno.EINVAL, "it is no file")
            digest = _blake(file.read_bytes())
        except OSError as error:
            return error
        if is_settled(stat):
            news[str(file)] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, digest]
        return digest

    digests: list[str | OSError] = [_recall(file, memo) for file in files]
    unknown = [i for i, digest in enumerate(digests) if not digest]
    with ThreadPoolExecutor(_threads()) as pool:
        for done, digest in enumerate(pool.map(hashed, [files[i] for i in unknown])):
            digests[unknown[done]] = digest
            progress("reading pictures", done + 1, len(unknown))
    if news:
        with contextlib.suppress(OSError):  # it only saves time
            memo_file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(memo_file) as out:
                out.write(json.dumps(memo | news).encode())
    return digests


def is_settled(stat: os.stat_result) -> bool:
    """Whether a file was written long enough ago that its times would tell of a change."""
    return time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED


def cached_pictures(files: Sequence[Path], digests: Sequence[str], imgsz: int, folder: Path) -> Cached:
    """The pictures of `files` (whose bytes have these digests), from the cache in `folder` or decoded into it.

    What does not decode is left out, with a Problem. Several processes may call this at once: one builds, the others
    wait for it; if it dies, the next takes over. If the folder cannot be written the pictures are kept in memory, with
    a Problem; DataError if they do not fit there.
    """
    key = _blake(json.dumps([FORMAT, PIL.__version__, imgsz, *digests]).encode())
    stem = folder / "pictures" / f"{key}-{imgsz}"
    if (found := _open(stem, files, imgsz)) is not None:
        return found
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        with lock(stem.with_suffix(".lock")):
            if (found := _open(stem, files, imgsz)) is not None:
                return found
            remove_left_overs(stem.with_suffix(".npy"))
            remove_left_overs(stem.with_suffix(".json"))
            _build(stem, files, digests, imgsz)
    except OSError as error:
        return _in_memory(files, digests, imgsz, folder, error)
    if (found := _open(stem, files, imgsz)) is None:
        raise DataError(f"the cache {stem}.npy was just written and cannot be read back: is its disk sound?")
    return found


def decoded_on_demand(files: Sequence[Path], digests: Sequence[str], imgsz: int, folder: Path) -> Cached:
    """The same pictures without a cache of pixels: each is decoded whenever it is needed.

    All are decoded once, to know which can be and their sizes; that is remembered in `folder`, if it can be written.
    """
    key = _blake(json.dumps([FORMAT, PIL.__version__, imgsz, *digests]).encode())
    stem = folder / "pictures" / f"{key}-{imgsz}"
    for known in (stem.with_suffix(".json"), stem.with_suffix(".sizes")):
        if (found := _read_index(known, files)) is not None:
            break
    else:
        index: dict[str, list[Any]] = {"kept": [], "sizes": [], "problems": []}
        for _ in _decode_all(files, digests, imgsz, index):
            pass
        found = _parse_index(index, files)
        with contextlib.suppress(OSError):  # it only saves time
            stem.parent.mkdir(parents=True, exist_ok=True)
            with replacing(stem.with_suffix(".sizes")) as out:
                out.write(json.dumps(index).encode())
    kept, sizes, problems = found
    images = DecodedOnDemand([files[i] for i in kept], [digests[i] for i in kept], imgsz)
    return Cached(images, sizes, kept, problems)


class DecodedOnDemand:
    """Pictures that are decoded when they are asked for; those asked for last are kept, `limit_bytes` of them at most.

    Stands in for a uint8 array [N, imgsz, imgsz, 3] where it is read by picture: `images[3]`, `images[3, 5:9, 5:9]`,
    `images[2:5]`, `images[[4, 1, 4]]`. What it returns is the caller's own. Several threads may read.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self, files: Sequence[Path], digests: Sequence[str], imgsz: int, limit_bytes: int = KEPT_BYTES
    ) -> None:
        self._files, self._digests, self._imgsz = tuple(files), tuple(digests), imgsz
        self._most = limit_bytes // (imgsz * imgsz * 3)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._guard = threading.Lock()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self._files), self._imgsz, self._imgsz, 3

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Raises DataError if a file is no longer what it was."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        which = np.arange(len(self._files))[first]
        if which.ndim == 0:
            return self._picture(int(which))[rest].copy()
        pictures = np.empty((len(which), *self.shape[1:]), np.uint8)
        with ThreadPoolExecutor(_threads()) as pool:
            for place, picture in enumerate(pool.map(self._picture, which.tolist())):
                pictures[place] = picture
        return pictures[(slice(None), *rest)]

    def _picture(self, i: int) -> np.ndarray:
        with self._guard:
            if (kept := self._kept.get(i)) is not None:
                self._kept.move_to_end(i)
                return kept
        picture = _decode_unchanged(self._files[i], self._digests[i], self._imgsz)
        if isinstance(picture, str):
            raise DataError(f"{self._files[i]} cannot be read any more: {picture}")
        with self._guard:
            self._kept[i] = picture.pixels
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return picture.pixels


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system releases it when the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT, 0o666)  # reading is enough where another user made the file
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that prepares the same data (%s)", path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` at the end, whole and on disk, or not at all."""
    part = temporary(path)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """A new name beside `path` (not `tempfile`'s, whose files only their owner may read: a cache may be shared)."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")


def remove_left_overs(path: Path) -> None:
    """Remove what a process that was killed left under a `temporary(path)`. Only for who holds the lock."""
    for left_over in path.parent.glob(f"{path.name}.*.part"):
        if left_over.is_dir():
            shutil.rmtree(left_over, ignore_errors=True)
        else:
            left_over.unlink(missing_ok=True)


def _open(stem: Path, files: Sequence[Path], imgsz: int) -> Cached | None:
    """The cache at `stem` if it is there and whole. The .json is written after the .npy: where it is, both are."""
    index = _read_index(stem.with_suffix(".json"), files)
    if index is None:
        return None
    kept, sizes, problems = index
    images: np.ndarray = np.empty((0, imgsz, imgsz, 3), np.uint8)
    if kept:  # nothing cannot be mapped
        try:
            images = np.lib.format.open_memmap(stem.with_suffix(".npy"), mode="r")
        except (OSError, ValueError):
            return None
    if images.shape != (len(kept), imgsz, imgsz, 3) or images.dtype != np.uint8:
        return None
    return Cached(images, sizes, kept, problems)


def _read_index(file: Path, files: Sequence[Path]) -> Index | None:
    content = _read_json(file)
    if content is None:
        return None
    try:
        index = _parse_index(content, files)
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return index if len(index[0]) == len(index[1]) else None


def _parse_index(content: Mapping[str, Any], files: Sequence[Path]) -> Index:
    kept = tuple(map(int, content["kept"]))
    sizes = np.array(content["sizes"], np.int32).reshape(-1, 2)
    return kept, sizes, tuple(Problem(files[i], None, what, detail) for i, what, detail in content["problems"])


def _build(stem: Path, files: Sequence[Path], digests: Sequence[str], imgsz: int) -> None:
    index: dict[str, list[Any]] = {"kept": [], "sizes": [], "problems": []}
    if shutil.disk_usage(stem.parent).free < len(files) * imgsz * imgsz * 3:  # before hours are spent on filling it
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with replacing(stem.with_suffix(".npy")) as out:
        # Written, not mapped: on a full disk a write raises OSError where a mapped page would end the process.
        begin = _write_header(out, len(files), imgsz)
        for picture in _decode_all(files, digests, imgsz, index):
            out.write(picture.pixels.data)
        out.seek(0)
        if _write_header(out, len(index["kept"]), imgsz) != begin:
            raise RuntimeError("the header of an .npy file changed its length")
    with replacing(stem.with_suffix(".json")) as out:
        out.write(json.dumps(index).encode())


def _write_header(out: IO[bytes], n: int, imgsz: int) -> int:
    """Numpy pads the header so that the first axis may be rewritten later without moving the data."""
    shape = {"descr": "|u1", "fortran_order": False, "shape": (n, imgsz, imgsz, 3)}
    np.lib.format.write_array_header_1_0(out, shape)
    return out.tell()


def _in_memory(files: Sequence[Path], digests: Sequence[str], imgsz: int, folder: Path, why: OSError) -> Cached:
    needed = len(files) * imgsz * imgsz * 3
    if needed > _free_memory() / 2:
        raise DataError(
            f"the cache folder {folder} cannot be written ({why.strerror or why}), and"
            f" {needed / 2**30:.1f} GiB of pictures do not fit into memory: set EVOLVE_CACHE to a folder with room, or"
            " take --cache none, which decodes them whenever they are needed"
        ) from why
    index: dict[str, list[Any]] = {"kept": [], "sizes": [], "problems": []}
    images = np.empty((len(files), imgsz, imgsz, 3), np.uint8)
    for i, picture in enumerate(_decode_all(files, digests, imgsz, index)):
        images[i] = picture.pixels
    images = images[: len(index["kept"])]
    images.flags.writeable = False
    problem = Problem(
        folder, None, "the cache folder cannot be written; pictures are kept in memory", why.strerror or str(why)
    )
    problems = [problem, *(Problem(files[i], None, what, detail) for i, what, detail in index["problems"])]
    return Cached(images, np.array(index["sizes"], np.int32).reshape(-1, 2), tuple(index["kept"]), tuple(problems))


def _decode_all(
    files: Sequence[Path], digests: Sequence[str], imgsz: int, index: dict[str, list[Any]]
) -> Iterator[Picture]:
    """The pictures that can be read, in order; which they are, their sizes and the problems go into `index`."""

    def one(i: int) -> Picture | str:
        return _decode_unchanged(files[i], digests[i], imgsz)

    with warnings.catch_warnings(), ThreadPoolExecutor(_threads()) as pool:
        warnings.simplefilter("ignore")  # Pillow warns of large pictures and odd metadata, without saying in which file
        for i, picture in enumerate(_in_order(pool, one, range(len(files)), ahead=4 * _threads())):
            progress(f"decoding pictures at {imgsz} px", i + 1, len(files))
            if isinstance(picture, str):
                index["problems"].append([i, "image dropped: it cannot be read", picture])
                continue
            if picture.flaw:
                index["problems"].append([i, "image kept although it is damaged", picture.flaw])
            index["kept"].append(i)
            index["sizes"].append([picture.width, picture.height])
            yield picture


def _recall(file: Path, memo: Mapping[str, Any]) -> str:
    """The digest that is remembered for a file as it is now; '' if none is."""
    known = memo.get(str(file))
    try:
        stat = os.stat(file)
    except OSError:
        return ""
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    return str(known[3]) if isinstance(known, list) and len(known) == 4 and known[:3] == stamp else ""


def _decode_unchanged(file: Path, digest: str, imgsz: int) -> Picture | str:
    """The picture in a file, or why there is none. Raises DataError if its bytes are not those of the digest."""
    try:
        content = file.read_bytes()
    except OSError:
        content = None
    if content is None or _blake(content) != digest:
        raise DataError(f"{file} changed while the data set was being read: start again when it is complete")
    try:
        return decode(content, imgsz)
    except UnreadablePicture as error:
        return str(error)


def _in_order(pool: ThreadPoolExecutor, do: Callable[[T], R], items: Iterable[T], ahead: int) -> Iterator[R]:
    """`pool.map` that is never more than `ahead` results in front of who takes them."""
    rest = iter(items)
    pending: deque[Future[R]] = deque(pool.submit(do, item) for item in islice(rest, ahead))
    while pending:
        yield pending.popleft().result()
        pending.extend(pool.submit(do, item) for item in islice(rest, 1))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _blake(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _threads() -> int:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)


def _free_memory() -> float:
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float("inf")
