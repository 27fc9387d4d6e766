"""The cache is built once by whoever comes first, survives kills and full disks, and is never half-read."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from trainer import DataError
from trainer.detection.data import DecodedOnDemand, cache, find_data, load_split
from trainer.detection.data.spec import DataSpec

# Loads the built-in data set and prints its digests as soon as a file named `go` is there.
LOADER = """
import pathlib, sys, time
from trainer.detection.data import find_data, load_split
cache, go, imgsz = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
while not go.exists():
    time.sleep(0.002)
spec = find_data("digits", cache_dir=cache)
print([load_split(spec, split, imgsz, cache_dir=cache).digest for split in ("train", "val")])
"""


def _loader(cache_dir: Path, go: Path, imgsz: int) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", LOADER, str(cache_dir), str(go), str(imgsz)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    return find_data("digits", cache_dir=tmp_path_factory.mktemp("digits"))


def _files(cache_dir: Path) -> list[Path]:
    return sorted(file for file in cache_dir.rglob("*") if file.suffix in (".npy", ".json", ".part"))


def _npy(cache_dir: Path) -> Path:
    (file,) = (cache_dir / "pictures").glob("*.npy")
    return file


def test_two_processes_at_once_build_one_cache(tmp_path: Path) -> None:
    go = tmp_path / "go"
    loaders = [_loader(tmp_path / "cache", go, 96) for _ in range(2)]
    time.sleep(0.5)  # both have imported what they need
    go.touch()
    first, second = (loader.communicate(timeout=120)[0] for loader in loaders)
    assert first == second
    assert first.count("'") == 4
    assert [loader.returncode for loader in loaders] == [0, 0]
    assert len(list((tmp_path / "cache" / "pictures").glob("*.npy"))) == 2
    assert len(list((tmp_path / "cache").glob("digits-*/data.yaml"))) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_a_builder_that_is_killed_leaves_nothing_that_is_believed(digits: DataSpec, tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.touch()
    os.symlink(digits.path.parent, tmp_path / digits.path.parent.name)  # type: ignore[union-attr]
    loader = _loader(tmp_path, go, 512)  # 240 MiB: slow enough to be met in the middle
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size for file in tmp_path.glob("pictures/*.npy.*.part")):
        assert loader.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    loader.send_signal(signal.SIGKILL)
    loader.communicate()
    assert loader.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("pictures/*.part"))
    split = load_split(digits, "train", 512, cache_dir=tmp_path)
    assert split.problems == ()
    assert split.images[-1].any()
    assert not list(tmp_path.glob("pictures/*.part"))


def test_a_second_load_decodes_and_reads_nothing(
    digits: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED", -1.0)  # the pictures have just been drawn
    first = load_split(digits, "val", 32, cache_dir=tmp_path)
    before = {file: file.stat().st_mtime_ns for file in _files(tmp_path)}
    read = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.suffix) or read_bytes(path))
    second = load_split(digits, "val", 32, cache_dir=tmp_path)
    assert ".png" not in read
    assert ".txt" not in read
    assert second.digest == first.digest
    assert (second.images == first.images).all()
    assert {file: file.stat().st_mtime_ns for file in _files(tmp_path)} == before


def test_what_was_written_a_moment_ago_is_not_remembered(
    digits: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SETTLED", 3600.0)
    load_split(digits, "val", 32, cache_dir=tmp_path)
    assert not (tmp_path / "hashes").exists()


@pytest.mark.parametrize(
    "harm",
    ["cut short", "too long", "empty", "another shape", "garbage", "gone", "index cut", "index gone", "index empty"],
)
def test_a_torn_cache_is_built_again(digits: DataSpec, tmp_path: Path, harm: str) -> None:
    expected = np.array(load_split(digits, "val", 32, cache_dir=tmp_path).images)
    npy = _npy(tmp_path)
    index = npy.with_suffix(".json")
    match harm:
        case "cut short":
            os.truncate(npy, npy.stat().st_size - 1)
        case "too long":
            os.truncate(npy, npy.stat().st_size + 1)
        case "empty":
            os.truncate(npy, 0)
        case "another shape":
            np.save(npy, np.zeros((128, 16, 16, 3), np.uint8))
        case "garbage":
            npy.write_bytes(b"garbage")
        case "gone":
            npy.unlink()
        case "index cut":
            os.truncate(index, 100)
        case "index gone":
            index.unlink()
        case "index empty":
            index.write_text("{}")
    again = load_split(digits, "val", 32, cache_dir=tmp_path)
    assert (again.images == expected).all()
    assert again.problems == ()
    assert json.loads(index.read_text())["kept"] == list(range(128))


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """Any write beyond `size` bytes fails as it does on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_on_a_full_disk_pictures_are_kept_in_memory_with_a_remark(digits: DataSpec, tmp_path: Path) -> None:
    with _files_of_at_most(100_000):
        split = load_split(digits, "val", 32, cache_dir=tmp_path)
    (problem,) = split.problems
    assert problem.file == tmp_path
    assert problem.what == "the cache folder cannot be written; pictures are kept in memory"
    assert problem.detail == "File too large"
    assert not isinstance(split.images, np.memmap)
    assert not split.images.flags.writeable
    assert not [file for file in _files(tmp_path) if file.suffix != ".json"]
    from_disk = load_split(digits, "val", 32, cache_dir=tmp_path)
    assert from_disk.problems == ()
    assert (split.images == from_disk.images).all()
    assert (split.sizes == from_disk.sizes).all()
    assert split.digest == from_disk.digest


def test_without_a_cache_folder_too(digits: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    split = load_split(digits, "val", 32, cache_dir=tmp_path / "file" / "cache")
    assert [problem.detail for problem in split.problems] == ["Not a directory"]


def test_what_fits_neither_on_disk_nor_in_memory_is_an_error(digits: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"cannot be written \(Not a directory\), and [\d.]+ GiB of pictures do not fit"
    ):
        load_split(digits, "val", 200_000, cache_dir=tmp_path / "file" / "cache")


def test_what_no_disk_can_hold_is_said_before_it_is_filled(digits: DataSpec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\(No space left on device\), .* or take --cache none, which decodes them"):
        load_split(digits, "val", 200_000, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.part"))


@pytest.fixture
def eager(digits: DataSpec, tmp_path: Path) -> np.ndarray:
    return np.array(load_split(digits, "val", 32, cache_dir=tmp_path / "eager").images)


@pytest.mark.parametrize(
    "key",
    [
        3,
        -1,
        np.int64(5),
        (7, slice(4, 20), slice(2, 9)),
        (2, slice(None), slice(None, None, -1), 0),
        slice(3, 11),
        slice(120, 500),
        np.array([4, 1, 4, 127]),
        [0, 2],
        np.array([], np.int64),
        (np.array([1, 8]), slice(0, 5), slice(3, 6)),
        np.arange(128) % 50 == 3,
    ],
    ids=str,
)
def test_decoded_on_demand_is_what_the_cache_holds(
    digits: DataSpec, eager: np.ndarray, tmp_path: Path, key: object
) -> None:
    images = load_split(digits, "val", 32, cache_dir=tmp_path, cache="none").images
    assert isinstance(images, DecodedOnDemand)
    assert (len(images), images.shape, images.dtype) == (128, (128, 32, 32, 3), np.uint8)
    found = images[key]
    assert (found.shape, found.dtype) == (eager[key].shape, np.uint8)  # type: ignore[index]
    assert (found == eager[key]).all()  # type: ignore[index]
    found[...] = 0
    assert (images[key] == eager[key]).all(), "what was given away is the caller's own"  # type: ignore[index]


def test_an_index_out_of_range_is_one_on_demand_too(digits: DataSpec, tmp_path: Path) -> None:
    images = load_split(digits, "val", 32, cache_dir=tmp_path, cache="none").images
    for key in (128, [0, 128]):
        with pytest.raises(IndexError):
            images[key]


def test_on_demand_all_but_the_pixels_is_as_with_the_cache(digits: DataSpec, tmp_path: Path) -> None:
    on_demand = load_split(digits, "val", 32, cache_dir=tmp_path, cache="none")
    assert not list(tmp_path.rglob("*.npy"))
    on_disk = load_split(digits, "val", 32, cache_dir=tmp_path)
    assert (on_demand.digest, on_demand.files, on_demand.problems) == (on_disk.digest, on_disk.files, on_disk.problems)
    assert (on_demand.sizes == on_disk.sizes).all()
    assert (on_demand.boxes == on_disk.boxes).all()


@pytest.mark.parametrize("first", ["none", "disk"])
def test_a_second_start_on_demand_decodes_nothing(
    digits: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    load_split(digits, "val", 32, cache_dir=tmp_path, cache=first)
    decoded = []
    decode = cache.decode
    monkeypatch.setattr(cache, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))
    images = load_split(digits, "val", 32, cache_dir=tmp_path, cache="none").images
    assert not decoded
    for _ in range(3):
        images[[5, 6]]
    assert len(decoded) == 2, "those asked for last are kept"


def test_what_is_kept_on_demand_is_bounded(digits: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = load_split(digits, "val", 32, cache_dir=tmp_path)
    decoded = []
    decode = cache.decode
    monkeypatch.setattr(cache, "decode", lambda *arguments: decoded.append(1) or decode(*arguments))
    images = DecodedOnDemand(split.files, split.file_digests, 32, limit_bytes=3 * 32 * 32 * 3)
    for i in (0, 1, 2, 0, 3, 0, 1):  # 1 was pushed out by 3, as 0 had been asked for again
        images[i]
    assert len(decoded) == 5
    nothing_kept = DecodedOnDemand(split.files, split.file_digests, 32, limit_bytes=0)
    assert (nothing_kept[[1, 1]] == split.images[[1, 1]]).all()


def test_several_threads_may_read_on_demand(digits: DataSpec, eager: np.ndarray, tmp_path: Path) -> None:
    split = load_split(digits, "val", 32, cache_dir=tmp_path)
    images = DecodedOnDemand(split.files, split.file_digests, 32, limit_bytes=5 * 32 * 32 * 3)
    keys = np.random.default_rng(0).integers(0, 128, (40, 4))
    with ThreadPoolExecutor(4) as pool:
        for key, found in zip(keys, pool.map(images.__getitem__, keys), strict=True):
            assert (found == eager[key]).all()


def test_a_picture_that_changes_between_two_looks_is_an_error(digits: DataSpec, tmp_path: Path) -> None:
    split = load_split(digits, "val", 32, cache_dir=tmp_path)
    copies = []
    for file in split.files[:2]:
        copies.append(tmp_path / file.name)
        shutil.copy(file, copies[-1])
    images = DecodedOnDemand(copies, split.file_digests[:2], 32)
    copies[1].write_bytes(copies[0].read_bytes())
    assert (images[0] == split.images[0]).all()
    with pytest.raises(DataError, match="changed while the data set was being read"):
        images[1]


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"EVOLVE_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"EVOLVE_CACHE": "~/a", "HOME": "/c"}, "/c/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/evolve"),
        ({"XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/evolve"),
    ],
)
def test_the_cache_folder_is_the_users(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVOLVE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache.cache_folder() == Path(folder)
    assert cache.cache_folder(Path("/mine")) == Path("/mine")
