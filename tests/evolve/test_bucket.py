"""Run folders in a bucket: a real S3 server on this machine, with its refusals, its absence, and its return."""

import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from small_world import ROOT, World, wait_for

from evolve.bucket import Bucket, Uploads, open_bucket, without_secrets
from evolve.config import ConfigError

SECRET = "wJalrXUtnFEMI-secret"
TRAIN = ("train", "--trainer", "resumable:Resumable", "--data", "points", "--epochs", "3")


class S3:
    """A server that can be started and stopped at one address; what it holds outlives that."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.host, self.port = self._server.get_host_and_port()
        self.url = f"http://{self.host}:{self.port}"

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address=self.host, port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def make(self, bucket: str) -> None:
        urlopen(Request(f"{self.url}/{bucket}", method="PUT")).close()

    def holds(self, bucket: str) -> dict[str, bytes]:
        files, _ = url_to_fs(f"s3://{bucket}", skip_instance_cache=True)
        return {name.partition("/")[2]: files.cat_file(name) for name in files.find(bucket)}


@pytest.fixture
def s3(monkeypatch):
    server = S3()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    yield server
    server.stop()


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {f"{folder.name}/{path.relative_to(folder)}": path.read_bytes() for path in files}


def test_all_that_a_training_leaves_arrives(world: World, s3: S3):
    s3.make("all")
    result = world.evolve(*TRAIN, "--bucket", "s3://all/mine", "--seeds", "2")
    assert result.exit_code == 0, result.output
    assert "warning: the upload" not in result.output
    there = {name.removeprefix("mine/"): content for name, content in s3.holds("all").items()}
    assert there == contents(Path("runs/train/exp"))
    assert {"exp/args.yaml", "exp/seed-1/last.pt", "exp/seed-1/results.csv", "exp/seed-0/metrics.jsonl"} <= there.keys()


def test_what_a_study_found_arrives_and_goes_on_from_there(world: World, s3: S3, tmp_path):
    s3.make("study")
    assert world.run("--generations", "3", "--bucket", "s3://study").exit_code == 0
    there = s3.holds("study")
    for name in ("best/hyp.yaml", "evolve.csv", "trials/00000/metrics.jsonl", "trials/00002/metrics.jsonl"):
        assert there[f"points/{name}"] == (world.run_folder / name).read_bytes()
    assert not any("log" in name for name in there)
    elsewhere = tmp_path / "elsewhere"
    for name, content in there.items():
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_bytes(content)
    result = world.run("--generations", "5", "--runs", str(elsewhere))
    assert result.exit_code == 0, result.output
    assert "resumed: 3 of 5 generations are already done" in result.output


def test_a_server_that_comes_back_gets_what_it_missed(world: World, s3: S3, tmp_path):
    s3.make("late")
    s3.stop()
    folder, warnings = tmp_path / "exp", []
    folder.mkdir()
    (folder / "results.csv").write_text("1\n")
    uploads = Uploads(open_bucket("s3://late"), folder, warnings.append)
    uploads.soon()
    wait_for(lambda: warnings)
    assert warnings[0].startswith("the upload to s3://late/exp failed (EndpointConnectionError: ")
    (folder / "results.csv").write_text("1\n2\n")
    s3.start()
    wait_for(lambda: s3.holds("late") == {"exp/results.csv": b"1\n2\n"})
    uploads.close()
    assert len(warnings) == 1


@pytest.mark.parametrize("command", [TRAIN, ("run",)])
def test_a_server_that_never_comes_costs_a_warning_and_nothing_else(world: World, s3: S3, command):
    s3.stop()
    arguments = ("--bucket", "s3://never")
    result = world.run(*arguments) if command == ("run",) else world.evolve(*command, *arguments)
    assert result.exit_code == 0, result.output
    warnings = [line for line in result.output.splitlines() if line.startswith("warning:") and "s3://never/" in line]
    assert [warning.partition(" s3://")[0] for warning in warnings][-1] == "warning: not all could be sent to"
    assert len(warnings) <= 2
    s3.start()


def test_a_refusal_is_told_without_what_nobody_should_read(world: World, s3: S3):
    result = world.evolve(*TRAIN, "--bucket", "s3://not-made")
    assert result.exit_code == 0
    assert "not all could be sent to s3://not-made/exp (FileNotFoundError: The specified bucket does not exist)" in (
        result.output
    )
    assert SECRET not in result.output
    assert "AKIAEXAMPLE" not in result.output


def test_secrets_are_taken_out_of_any_text(s3: S3):
    text = without_secrets(f"403 for AKIAEXAMPLE with {SECRET} at sftp://ann:pw@host/x?token=abc in us-east-1")
    assert text == "403 for *** with *** at sftp://ann:***@host/x?token=*** in us-east-1"


@pytest.mark.parametrize(
    ("url", "missing", "sentence"),
    [
        ("s3://bucket", "s3fs", "needs a package that is not installed: pip install 'evolve-hyp[bucket]'"),
        ("s3://bucket", "fsspec.core", "needs a package that is not installed: pip install 'evolve-hyp[bucket]'"),
        ("sftp://ann:s3cret@host/x", "paramiko", "--bucket sftp://ann:***@host/x needs a package"),
        (
            "nonsense://bucket",
            "",
            "--bucket nonsense://bucket cannot be used: ValueError: Protocol not known",
        ),
        ("bucket", "", "--bucket bucket is not a URL, as s3://bucket/folder"),
        ("s3://", "", "--bucket s3:// is not a URL"),
    ],
)
@pytest.mark.parametrize("command", ["train", "run"])
def test_a_bucket_that_cannot_be_used_is_one_sentence_before_any_training(world, command, url, missing, sentence):
    hide = f"import sys; sys.modules[{missing!r}] = None; from evolve.cli import main; main()"
    arguments = [command, "--trainer", "toy:ToyTrainer", "--data", "points", "--bucket", url]
    told = subprocess.run(
        [sys.executable, "-c", hide, *arguments], check=False, env={"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert told.returncode == 2, told.stderr
    assert sentence in told.stderr.decode()
    assert told.stderr.count(b"\n") == 1
    assert told.stdout == b""
    assert b"s3cret" not in told.stderr
    assert not Path("runs").exists()


def test_a_folder_serves_as_a_bucket_but_not_the_run_folder_itself(world: World, monkeypatch):
    assert world.evolve(*TRAIN, "--bucket", f"file://{world.folder}/copies").exit_code == 0
    assert contents(Path("copies/exp")) == contents(Path("runs/train/exp"))
    monkeypatch.chdir("runs/train/exp")
    assert world.evolve("train", "--resume", ".", "--bucket", f"file://{world.folder}/again").exit_code == 0
    assert contents(world.folder / "again" / "exp") == contents(world.folder / "runs" / "train" / "exp")
    monkeypatch.chdir(world.folder)
    result = world.evolve(*TRAIN, "--bucket", f"file://{world.folder}/runs/train")
    assert result.exit_code == 2
    assert "would copy runs/train/exp2 into itself" in result.stderr


class Slow(MemoryFileSystem):
    """Takes a file when it is let to, and counts how many are under way."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.let, self.under_way, self.most, self.sent = threading.Semaphore(0), 0, 0, []

    def pipe_file(self, path, value, **_):
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.let.acquire()
        self.sent.append(bytes(value))
        self.under_way -= 1


@pytest.fixture
def slow(tmp_path):
    files, warnings = Slow(), []
    yield files, Uploads(Bucket("memory://b", files, "/b"), tmp_path, warnings.append), warnings
    files.let.release(100)


def test_nobody_waits_for_an_upload_one_is_under_way_and_the_newest_state_is_next(slow, tmp_path):
    files, uploads, warnings = slow
    (tmp_path / "results.csv").write_text("0")
    uploads.soon()
    wait_for(lambda: files.under_way)
    for state in range(1, 50):
        (tmp_path / "results.csv").write_text(str(state))
        uploads.soon()
    assert files.sent == [], "and yet we are here"
    files.let.release(2)
    wait_for(lambda: len(files.sent) == 2)
    assert files.sent == [b"0", b"49"]
    uploads.close()
    assert (files.sent, files.most, warnings) == ([b"0", b"49"], 1, [])


def test_the_end_waits_so_long_and_no_longer(slow, tmp_path):
    _, uploads, warnings = slow
    (tmp_path / "results.csv").write_text("0")
    uploads.soon()
    uploads.close(wait_s=0.05)
    assert warnings == [
        f"the upload to memory://b/{tmp_path.name} was given up after 0.05 s; everything lies in {tmp_path}"
    ]


def test_what_did_not_change_is_not_sent_again(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / ".hidden").write_text("1")
    files = Slow()
    files.let.release(100)
    uploads = Uploads(Bucket("memory://b", files, "/b"), tmp_path, pytest.fail)
    uploads.soon()
    wait_for(lambda: files.sent == [b"1"])
    (tmp_path / "b").write_text("2")
    uploads.soon()
    uploads.close()
    assert files.sent == [b"1", b"2"]


def test_a_large_file_is_sent_whole(s3: S3, tmp_path, monkeypatch):
    monkeypatch.setattr("evolve.bucket.SMALL_BYTES", 1000)
    s3.make("large")
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / "last.pt").write_bytes(bytes(range(256)) * 100)
    uploads = Uploads(open_bucket("s3://large"), folder, pytest.fail)
    uploads.soon()
    uploads.close()
    assert s3.holds("large") == {"exp/last.pt": bytes(range(256)) * 100}


def test_a_wrong_url_is_refused_whatever_it_is():
    for url in ("", "s3:/bucket", "://bucket", "s3:///x", "runs/train"):
        with pytest.raises(ConfigError, match="is not a URL"):
            open_bucket(url)


def test_whoever_waits_for_the_end_is_told_what_for(world: World, s3: S3, monkeypatch):
    monkeypatch.setattr("evolve.training.UNNOTICED_S", 0.0)
    s3.make("slowly")
    result = world.evolve(*TRAIN, "--bucket", "s3://slowly")
    assert "\nsending the rest to s3://slowly/exp ...\non val:" in result.output
    assert s3.holds("slowly") == contents(Path("runs/train/exp"))
