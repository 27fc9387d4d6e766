"""Hyp and space files: what is written is read back exactly, and what is wrong is said in one sentence."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import (
    Param,
    Space,
    SpaceError,
    available_spaces,
    dump_hyp,
    dump_space,
    load_hyp,
    load_space,
    read_scalar,
)

calm = settings(deadline=None)  # a busy machine is no failure

names = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**62), 2**62), st.booleans(), texts)


@pytest.fixture
def written(tmp_path: Path):
    def write(content: str | bytes) -> Path:
        path = tmp_path / "hyp.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@calm
@given(st.dictionaries(names, values, min_size=1, max_size=6), st.lists(texts, max_size=3))
def test_yaml_safe_load_reads_a_dumped_hyp_back_exactly(hyp: dict[str, object], header: list[str]) -> None:
    read = yaml.safe_load(dump_hyp(hyp, header))
    assert read == hyp
    assert list(read) == list(hyp)
    assert [type(value) for value in read.values()] == [type(value) for value in hyp.values()]


@calm
@given(st.dictionaries(names, values, min_size=1, max_size=6))
def test_load_hyp_reads_a_dumped_hyp_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, hyp: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "hyp.yaml"
    path.write_text(dump_hyp(hyp), "utf-8")
    read = load_hyp(path)
    assert list(read.items()) == list(hyp.items())
    assert [type(value) for value in read.values()] == [type(value) for value in hyp.values()]


def test_the_header_is_comments_line_by_line() -> None:
    text = dump_hyp({"lr0": 1e-5}, ["fitness 0.4\nof trial 12", "", "a \x07 bell"])
    assert text == "# fitness 0.4\n# of trial 12\n#\n# a ? bell\nlr0: 1.0e-05\n"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], None])
def test_a_hyp_that_no_file_could_hold_is_not_written(value: object) -> None:
    with pytest.raises(SpaceError, match=r"^lr0 must be"):
        dump_hyp({"lr0": value})  # type: ignore[dict-item]


def test_a_dumped_space_is_read_back_with_its_comments(tmp_path: Path) -> None:
    space = Space(
        "mine",
        (
            Param("lr0", 0.01, 1e-5, 0.1, log=True, comment="learning rate: the first"),
            Param("n", 3, 1, 9, step=2, gain=0.5, needs="opt"),
            Param("opt", "1e-5", choices=("SGD", "1e-5", "no"), comment="one of # three"),
        ),
        {"seed": 7, "name": "a: b", "ota": True},
        ("seed", "lr0", "n", "name", "opt", "ota"),
    )
    path = tmp_path / "mine.yaml"
    path.write_text(dump_space(space), "utf-8")
    read = load_space(path)
    assert read == space
    assert [param.comment for param in read.params] == ["learning rate: the first", "", "one of # three"]


def test_text_with_an_exponent_is_a_number(written) -> None:
    path = written("lr0: {low: 1e-5, high: '1E-1', default: 1e-2, log: true}\nwd: 5e-4\nname: '5e-4'\n")
    space = load_space(path)
    assert space["lr0"].bounds == (1e-5, 0.1)
    assert dict(space.fixed) == {"wd": 5e-4, "name": "5e-4"}


def test_a_hyp_file_is_a_space_with_nothing_to_evolve(written) -> None:
    path = written("lr0: 0.01\nfl_gamma: 0\n")
    assert load_space(path).params == ()
    assert load_hyp(path) == {"lr0": 0.01, "fl_gamma": 0}


def test_the_hyp_of_a_space_file_is_its_defaults(written) -> None:
    assert load_hyp(written(dump_space(load_space("detection")))) == load_space("detection").defaults()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(written) -> None:
    space = load_space(written(b"\xef\xbb\xbflr0: {low: 0, high: 1, default: 0.5}  # rate\r\nseed: 3\r\n"))
    assert space["lr0"].comment == "rate"
    assert space.fixed["seed"] == 3


BAD = {
    "nothing": (b"", "is empty"),
    "only a comment": (b"# lr0\n", "is empty"),
    "a list": (b"- lr0\n", "must be a mapping of names to values, got a list"),
    "plain text": (b"lr0 0.01\n", "must be a mapping of names to values, got 'lr0 0.01'"),
    "not YAML": (b"lr0: {low: 0\nhigh: [\n", "is not YAML: "),
    "a tab": (b"lr0:\n\tlow: 0\n", "is not YAML: while scanning for the next token, found character '\\t'"),
    "two documents": (b"a: 1\n---\nb: 2\n", "is not YAML: expected a single document"),
    "not UTF-8": (b"lr0: 0.01 # \xe9\n", "is not UTF-8 text: byte 0xe9 at 12"),
    "binary": (b"\x00\x01\x02", "is not YAML: "),
    "nested without end": (b"a: " + b"[" * 5000, "is not YAML: it is nested too deeply"),
    "a key twice": (b"lr0: 1\nlrf: 2\nlr0: 3\n", "lr0 stands twice, in lines 1 and 3"),
    "a field twice": (b"lr0: {low: 0, low: 1, high: 2, default: 1}\n", "lr0: low stands twice, in lines 1 and 1"),
    "an unknown field": (b"lr0: {low: 0, high: 1, defalt: 1}\n", "lr0: unknown field 'defalt' (did you mean 'default'"),
    "an endless field": (b"lr0: {" + 300 * b"de " + b": 1}\n", "lr0: unknown field 'de de de"),
    "an unknown need": (b"a: {low: 0, high: 1, default: 1, needs: lr}\nlr0: 1\n", "a: needs 'lr', which is no hyp"),
    "a number for a need": (b"a: {low: 0, high: 1, default: 1, needs: 0}\n", "a: needs must be the name of a hyp"),
    "low > high": (b"lr0: {low: 2, high: 1, default: 1}\n", "lr0: low 2.0 is greater than high 1.0"),
    "default outside": (b"lr0: {low: 0, high: 1, default: 3}\n", "lr0: default 3 lies outside [0.0, 1.0]"),
    "text for a number": (b"lr0: {low: 0, high: fast, default: 1}\n", "lr0: high must be a number, got 'fast'"),
    "a bool for a number": (b"lr0: {low: no, high: 1, default: 1}\n", "lr0: low must be a number, got False"),
    "NaN": (b"lr0: {low: 0, high: .nan, default: 1}\n", "lr0: high must be finite, got nan"),
    "infinity": (b"lr0: .inf\n", "lr0 must be finite, got inf"),
    "too large": (b"lr0: 1e999\n", "lr0 must be finite, got inf"),
    "log from 0": (b"lr0: {low: 0, high: 1, default: 1, log: true}\n", "lr0: low 0.0 is not positive, which log needs"),
    "no value": (b"lr0:\n", "lr0 must be a number, text, true or false, got nothing"),
    "null": (b"lr0: null\n", "lr0 must be a number, text, true or false, got 'null'"),
    "a list for a hyp": (b"anchors: [1, 2]\n", "anchors must be a value or a mapping with low, high and default"),
    "a mapping in a field": (b"lr0: {low: {a: 1}, high: 1, default: 1}\n", "lr0: low must be a number"),
    "a list in choices": (b"o: {choices: [[a], b], default: b}\n", "o: choices must be a number, text, true or false"),
    "a number for a key": (b"1: 2\n", "key '1' in line 1 is not a name"),
    "a bool for a key": (b"on: 2\n", "key 'on' in line 1 is not a name"),
    "two lines for a key": (b'"a\\nb": 2\n', "key 'a\\nb' in line 1 is not a name"),
    "a list for a key": (b"[a]: 2\n", "key a list in line 1 is not a name"),
    "a merge": (b"a: &a {low: 0, high: 1, default: 0}\nb: {<<: *a}\n", "b: key '<<' in line 2 is not a name"),
    "a loop": (b"a: &a {low: *a, high: 1, default: 0}\n", "is not YAML: found aliases that lead into themselves"),
    "a Python object": (b"a: !!python/object/apply:os.getcwd []\n", "a must be a value or a mapping"),
    "aliases of aliases": (
        b"\n".join(b"a%d: &a%d [%s]" % (i, i, b"*a%d, " % (i - 1) * 9 if i else b"x") for i in range(9)),
        "is not YAML: found aliases that unfold into more than 1000000 values in line 1"),
    "half of a surrogate pair": (b'a: "\\ud800"\n', "is not YAML: found half of a surrogate pair in line 1"),
    "a number of 5,000 digits": (b"a: " + b"9" * 5000, "a must be a number, text, true or false, got '9999"),
    "a number in base 60": (b"a: " + b":".join([b"59"] * 3000), "a must be a number, text, true or false, got '59:59"),
    "a number beyond floats": (b"a: 0x" + b"f" * 900, "a must be finite, got a number of 3600 bits"),
    "a long text": (b"a: {low: 0, high: 1, default: %s}\n" % (b"v" * 5000), "a: default must be a number, got 'vvv"),
    "a long choice": (b"o: {choices: [%s, b], default: x}\n" % (b"v" * 5000), "o: default 'x' is not one of vvv"),
    "many choices": (b"o: {choices: [%s], default: x}\n" % b", ".join(b"%d" % i for i in range(999)), "10, 11, ..."),
    "a list for log": (b"o: {low: 1, high: 2, default: 1, log: [%s]}\n" % (b"a, " * 999), "log must be true or false"),
    "a lying tag": (b"a: !!int x\n", "a must be a number, text, true or false, got 'x'"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_in_one_sentence_that_names_it(written, content: bytes, message: str) -> None:
    path = written(content)
    for load in (load_space, load_hyp):
        with pytest.raises(SpaceError) as error:
            load(path)
        assert str(error.value).startswith(str(path))
        assert message in str(error.value)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1000


def test_a_character_beyond_16_bit_may_be_written_as_json_writes_it(written) -> None:
    assert load_hyp(written(b'name: "\\ud83d\\ude00"\n')) == {"name": "\U0001f600"}


@calm
@given(st.one_of(st.binary(max_size=200), st.text("lr0: {}[],#&*!|>'\"%@`\n\t -?e1.~<=", max_size=60).map(str.encode)))
def test_whatever_a_file_holds_it_is_a_space_or_a_space_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        space = load_space(path)
    except SpaceError as error:
        message = str(error)
        assert message.startswith(str(path))
    else:
        assert space.order or yaml.safe_load(content) == {}, "a training may have no hyp to write down"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"none\.yaml does not exist"):
        load_hyp(tmp_path / "none.yaml")
    with pytest.raises(SpaceError, match=r"cannot read .*: Is a directory"):
        load_space(tmp_path)
    with pytest.raises(SpaceError, match=r"cannot read .*embedded null byte"):
        load_hyp("a\0b")


def test_a_name_that_is_no_space_gets_a_guess() -> None:
    with pytest.raises(SpaceError, match=r"no space 'detecton' \(did you mean 'detection'\?\).*yolov3, yolov5, yolov7"):
        load_space("detecton")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-5", 1e-5),
        ("-3", -3),
        ("true", True),
        ("AdamW", "AdamW"),
        ("'1e-5'", "1e-5"),
        ("2-1-1", "2-1-1"),
    ],
)
def test_a_command_lines_value_reads_as_in_a_file(text: str, value: object) -> None:
    assert read_scalar(text) == value
    assert type(read_scalar(text)) is type(value)


@pytest.mark.parametrize("text", ["", "# 1", "[1, 2]", "a: b", "{", ".nan", "null", "1e999", "[" * 10_000, "9" * 5000])
def test_a_command_lines_value_is_one_finite_scalar(text: str) -> None:
    with pytest.raises(SpaceError) as error:
        read_scalar(text)
    assert len(str(error.value)) < 200


def test_the_built_in_spaces_are_listed() -> None:
    assert available_spaces() == ("detection", "ultralytics", "yolov3", "yolov5", "yolov7")
