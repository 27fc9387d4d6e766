"""A Darknet .data file leads to its pictures wherever it was written, since nobody knows where Darknet was started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from drawn_data import write_darknet

from trainer import DataError
from trainer.detection.data import find_data, load_split


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_darknet(tmp_path / "darknet")


def _stems(data: Path, split: str = "train") -> list[str]:
    return [file.stem for file in find_data(str(data)).splits[split] if file.is_file()]


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_paths_are_found_from_a_folder_above_wherever_we_are(
    data: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert (_stems(data), _stems(data, "val")) == (["a", "b", "c"], ["d", "e"])


def test_paths_beside_the_file_win_and_those_of_the_current_folder_come_last(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "cfg/obj.data"
    elsewhere.parent.mkdir()
    data.rename(elsewhere)
    monkeypatch.chdir(data.parents[1])
    assert _stems(elsewhere) == ["a", "b", "c"]
    (elsewhere.parent / "data").mkdir()
    (elsewhere.parent / "data/train.txt").write_text("data/obj/b.png\n")
    assert _stems(elsewhere) == ["b"]


def test_labels_may_lie_in_a_folder_beside_voc_s_pictures(data: Path) -> None:
    obj = data.parent / "obj"
    obj.rename(data.parent / "JPEGImages")
    (data.parent / "labels").mkdir()
    for file in (data.parent / "JPEGImages").glob("*.txt"):
        file.rename(data.parent / "labels" / file.name)
    for name in ("train.txt", "valid.txt"):
        _replace(data.parent / name, "data/obj/", "data/JPEGImages/")
    assert len(load_split(find_data(str(data)), "train", 64, data.parents[2] / "cache").boxes) == 3


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("/dev/zero", "cannot read /dev/zero: it is no file"),
        ("x" * 5000, "'names' in .* leads to xxx.*, which is neither"),
    ],
)
def test_a_path_that_leads_to_no_file_is_told(data: Path, names: str, told: str) -> None:
    _replace(data, "data/obj.names", names)
    with pytest.raises(DataError, match=told) as error:
        find_data(str(data))
    assert len(str(error.value)) < 1000


def test_class_names_in_another_encoding_are_refused(data: Path) -> None:
    (data.parent / "obj.names").write_bytes("café\ndog\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"obj\.data has the class name 'caf.*', which is no UTF-8 text"):
        find_data(str(data))


def test_a_list_may_name_what_is_no_picture_and_no_file(data: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(b"caf\xe9")
    (data.parent / "train.txt").write_bytes(
        b"data/obj/a.png\n/dev/zero\n" + b"x" * 5000 + b"\n" + os.fsencode(f"{folder}/a.png")
    )
    split = load_split(find_data(str(data)), "train", 64, tmp_path / "cache")
    assert [file.stem for file in split.files] == ["a"]
    assert sorted(problem.detail for problem in split.problems if "cannot be read" in problem.what) == [
        "File name too long",
        "No such file or directory",
        "it is no file",
    ]


def test_a_list_may_hold_absolute_paths_and_ones_that_lead_nowhere(data: Path) -> None:
    (data.parent / "train.txt").write_text(f"{data.parent}/obj/a.png\ndata/obj/ghost.png\n")
    assert _stems(data) == ["a"]
    split = load_split(find_data(str(data)), "train", 64, data.parents[2] / "cache")
    assert [(problem.file.name, problem.what) for problem in split.problems] == [
        ("ghost.png", "image dropped: it cannot be read")
    ]


def test_a_test_split_may_be_there(data: Path) -> None:
    data.write_text(data.read_text() + "test = data/valid.txt\n")
    assert _stems(data, "test") == ["d", "e"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("classes= 2", "classes= 3", "says classes = 3, but .*obj.names lists 2: they must agree"),
        ("names =", "label =", "has no 'names': expected the path of a .names file"),
        ("train  =", "trains =", "has no 'train': expected a list of pictures, as in train = data/train.txt"),
        ("valid  =", "", "has the line 'data/valid.txt', expected key = value"),
        (
            "data/valid.txt",
            "data/none.txt",
            "'valid' in .* leads to data/none.txt, which is neither beside it nor in a",
        ),
        ("data/train.txt", "data/obj.data.empty", "names no picture"),
    ],
)
def test_what_a_data_file_gets_wrong_is_said_in_one_sentence(data: Path, old: str, new: str, message: str) -> None:
    (data.parent / "obj.data.empty").touch()
    _replace(data, old, new)
    with pytest.raises(DataError, match=message) as error:
        find_data(str(data))
    assert "\n" not in str(error.value)
