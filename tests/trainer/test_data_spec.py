"""A data.yaml is read as its author meant it, and whatever is wrong with one is said in one sentence."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml
from PIL import Image

from trainer import DataError
from trainer.detection.data import find_data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two pictures in images/train, one in images/val and one in images/test."""
    for name in ("train/b.jpg", "train/a.PNG", "val/c.jpg", "test/d.webp"):
        _picture(tmp_path / "images" / name)
    return tmp_path


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)


def _yaml(root: Path, **content: object) -> str:
    """Writes a sound data.yaml with `content` on top; a key with None is left out."""
    sound = {"names": ["cat", "dog"], "train": "images/train", "val": "images/val"}
    path = root / "data.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (sound | content).items() if v is not None}))
    return str(path)


def _files(spec_files: tuple[Path, ...], root: Path) -> list[str]:
    return [str(file.relative_to(root)) for file in spec_files]


def test_splits_are_sorted_image_files_and_test_is_optional(root: Path) -> None:
    spec = find_data(_yaml(root))
    assert spec.path == root / "data.yaml"
    assert spec.names == ("cat", "dog")
    assert spec.nc == 2
    assert sorted(spec.splits) == ["train", "val"]
    assert _files(spec.splits["train"], root) == ["images/train/a.PNG", "images/train/b.jpg"]
    with_test = find_data(_yaml(root, test="images/test"))
    assert _files(with_test.splits["test"], root) == ["images/test/d.webp"]


def test_a_relative_path_is_found_from_the_current_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _yaml(root)
    monkeypatch.chdir(root)
    assert find_data("data.yaml") == find_data(str(root / "data.yaml"))


def test_folders_are_searched_deeply_and_hidden_or_other_files_are_no_images(root: Path) -> None:
    _picture(root / "images/train/deep/er/e.tiff")
    (root / "images/train/._a.jpg").write_bytes(b"\0\5\x16\7")
    (root / "images/train/notes.txt").write_text("not an image")
    assert _files(find_data(_yaml(root)).splits["train"], root) == [
        "images/train/a.PNG",
        "images/train/b.jpg",
        "images/train/deep/er/e.tiff",
    ]


@pytest.mark.parametrize("names", [{0: "cat", 1: "dog"}, {1: "dog", 0: "cat"}, {"0": "cat", "1": "dog"}])
def test_names_may_be_a_mapping_in_any_order(root: Path, names: dict[object, str]) -> None:
    assert find_data(_yaml(root, names=names)).names == ("cat", "dog")


def test_names_that_yaml_takes_for_numbers_stay_names(root: Path) -> None:
    assert find_data(_yaml(root, names=[0, 1])).names == ("0", "1")


@pytest.mark.parametrize("nc", [2, "2", None])
def test_nc_may_be_stated_or_not(root: Path, nc: object) -> None:
    assert find_data(_yaml(root, nc=nc)).nc == 2


def test_path_is_relative_to_the_yaml_not_to_the_current_folder(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    configuration = root / "configuration"
    configuration.mkdir()
    expected = find_data(_yaml(root)).splits
    assert find_data(_yaml(configuration, path="..")).splits["val"][0].samefile(expected["val"][0])
    assert find_data(_yaml(configuration, path=str(root))).splits == expected


def test_a_split_may_be_a_list_of_folders(root: Path) -> None:
    spec = find_data(_yaml(root, train=["images/train", "images/test", "images/train"]))
    assert _files(spec.splits["train"], root) == ["images/test/d.webp", "images/train/a.PNG", "images/train/b.jpg"]


@pytest.mark.parametrize(
    "lines",
    [
        "./images/train/a.PNG\n./images/train/b.jpg\n",  # relative to the list's own folder, as YOLO writes them
        "../images/train/b.jpg\r\n\r\n# a remark\r\n../images/train/a.PNG",
        "images/train/a.PNG\nimages/train/b.jpg\nimages/train/b.jpg\n",  # relative to the data set, one of them twice
        "\ufeff{root}/images/train/a.PNG\n{root}/images/train/b.jpg\n",
    ],
)
def test_a_split_may_be_a_list_file(root: Path, lines: str) -> None:
    where = root if lines.startswith("./") else root / "lists"
    where.mkdir(exist_ok=True)
    (where / "train.txt").write_text(lines.replace("{root}", str(root)))
    spec = find_data(_yaml(root, train=str((where / "train.txt").relative_to(root))))
    assert [file.resolve() for file in spec.splits["train"]] == [
        (root / "images/train" / name).resolve() for name in ("a.PNG", "b.jpg")
    ]


def test_a_file_name_in_a_list_need_not_be_utf_8(root: Path) -> None:
    name = b"caf\xe9.jpg"
    (root / "images/train/b.jpg").rename(Path(str(root / "images/train"), name.decode(errors="surrogateescape")))
    (root / "train.txt").write_bytes(b"images/train/" + name)
    (file,) = find_data(_yaml(root, train="train.txt")).splits["train"]
    assert file.exists()


def test_two_dots_too_many_are_forgiven_as_one_service_exports_them(root: Path) -> None:
    spec = find_data(_yaml(root, train="../images/train", val="../images/val"))
    assert _files(spec.splits["val"], root) == ["images/val/c.jpg"]


def test_an_empty_test_split_means_that_there_is_none(root: Path) -> None:
    path = root / "data.yaml"
    path.write_text("names: [cat]\ntrain: images/train\nval: images/val\ntest:\n")
    assert "test" not in find_data(str(path)).splits


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": None}, "has no 'names': expected the class names"),
        ({"names": []}, "'names' in .* is empty"),
        ({"names": {}}, "'names' in .* is empty"),
        ({"names": "cat"}, "'names' in .* is 'cat', expected a list or a mapping"),
        ({"names": ["cat", ["dog"]]}, r"name 1 in .* is \['dog'\], expected text"),
        ({"names": {0: "cat", 2: "dog"}}, "must be 0 to 1 without gaps, got 0, 2"),
        ({"names": {1: "cat", 2: "dog"}}, "must be 0 to 1 without gaps, got 1, 2"),
        ({"names": {"cat": 0}}, "must be class ids, got 'cat'"),
        ({"nc": 3}, "says nc: 3, but lists 2 names"),
        ({"nc": 900 * "a/"}, r"says nc: 'a/a/a/.*\.\.\., but lists 2 names"),
        ({"train": None}, "has no 'train': a data.yaml needs 'train' and 'val'"),
        ({"val": None}, "has no 'val': a data.yaml needs 'train' and 'val'"),
        ({"val": "images/valid"}, "'val' in .* leads to .*images/valid, which does not exist"),
        ({"test": "images/tests"}, "'test' in .* leads to .*images/tests, which does not exist"),
        ({"train": ["images/train", "images/more"]}, "leads to .*images/more, which does not exist"),
        ({"train": 7}, "'train' in .* is 7, expected a folder, a list of folders, a .txt list or a .json"),
        ({"train": []}, r"'train' in .* is \[\], expected a folder"),
        ({"train": [7]}, r"'train' in .* is \[7\], expected a folder"),
        ({"train": "images/val/c.jpg"}, "leads to .*c.jpg, expected a folder or a .txt list of images"),
        ({"val": "labels"}, "'val' in .* leads to .*labels, which holds no image"),
        ({"val": "empty.txt"}, "'val' in .* leads to .*empty.txt, which holds no image"),
        ({"path": "nowhere"}, "'path' in .* leads to .*nowhere, which is no folder"),
        ({"path": ["."]}, r"'path' in .* is \['.'\], expected a folder"),
        ({"kpt_shape": [17, 3]}, "describes keypoints"),
        ({"train": "x" * 5000}, "'train' in .* leads to .*xxx.*, which does not exist"),
        ({"train": "x" * 5000 + ".json", "val": "y.json"}, "'train' in .* leads to .*xxx.*, which does not exist"),
        ({"train": "a\0b"}, "'train' in .* leads to .*, which does not exist"),
        ({"train": "a\nb"}, "'train' in .* leads to .*/a.b, which does not exist"),
        ({"train": "~no one/x"}, "'train' in .* leads to .*~no one/x, which does not exist"),
        ({"path": "~no one/x"}, "'path' in .* leads to .*~no one/x, which is no folder"),
        ({"path": "x" * 5000}, "'path' in .* leads to .*, which is no folder"),
        ({"names": "x" * 5000}, "'names' in .* is 'xxx.*, expected a list or a mapping"),
    ],
)
def test_what_a_data_yaml_gets_wrong_is_said_in_one_sentence(
    root: Path, content: dict[str, object], message: str
) -> None:
    (root / "labels").mkdir()
    (root / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match=message) as error:
        find_data(_yaml(root, **content))
    assert str(root / "data.yaml") in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


def _unfolding(entry: str) -> bytes:
    """Lines that each hold the one before five times, in an entry of this form."""
    lines = (f"a{i}: &a{i} " + entry % ", ".join([f"*a{i - 1}"] * 5) for i in range(1, 10))
    return "\n".join(["a0: &a0 {x: 1}", *lines]).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"names: [cat", "is not YAML: .* in line 1"),
        (b"names: [cat]\n\ttrain: x\n", "is not YAML: .* in line 2"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is not YAML"),
        (b"train: 2024-13-45", "is not YAML: found '2024-13-45', which is no timestamp in line 1"),
        (b"train: !!bool x", "is not YAML: found 'x', which is no bool in line 1"),
        (b"train: !!float x", "is not YAML: found 'x', which is no float in line 1"),
        (b"train: !!int ''", "is not YAML: found '', which is no int in line 1"),
        (b"", "is empty, expected a mapping"),
        (b"- cat\n- dog\n", "holds a list, expected a mapping"),
        (b"just words", "holds a str, expected a mapping"),
        (b"names: " + b"[" * 10_000, "is not YAML: it is nested too deeply"),
        (b"names: &a [*a]", "is not YAML: found aliases that lead into themselves in line 1"),
        (_unfolding("[%s]"), "is not YAML: found aliases that unfold into more than 1000000 values in line 1"),
        (_unfolding("{<<: [%s]}"), "is not YAML: found aliases that unfold into more than 1000000 values in line 1"),
        (b"nc: " + b"9" * 5000, "is not YAML: found a number of 5000 characters in line 1"),
        (b'names: ["\\ud800"]', "is not YAML: found half of a surrogate pair in line 1"),
    ],
)
def test_a_file_that_is_no_data_yaml_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        find_data(str(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nothing\.yaml"):
        find_data(str(tmp_path / "nothing.yaml"))


def test_a_misspelt_data_set_gets_a_suggestion() -> None:
    with pytest.raises(DataError, match=r"no data set 'digit' .*did you mean 'digits'"):
        find_data("digit")


def test_a_folder_leads_to_the_yaml_in_it(root: Path) -> None:
    path = _yaml(root)
    assert find_data(str(root)) == find_data(path)
    (root / "other.yaml").write_text("of the two, data.yaml is meant")
    assert find_data(str(root)) == find_data(path)
    Path(path).rename(root / "another.yaml")
    with pytest.raises(DataError, match=r"holds 2 yaml files, name the one that is meant: try .*another\.yaml"):
        find_data(str(root))


def test_a_folder_in_which_nothing_can_be_read_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"without a data\.yaml, a COCO \.json or VOC \.xml files"):
        find_data(str(root))


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as unreadable:  # for everybody, while permissions stop root from nothing
        unreadable.bind("data.yaml")
        with pytest.raises(DataError, match=r"cannot read .*data\.yaml: \w"):
            find_data("data.yaml")
