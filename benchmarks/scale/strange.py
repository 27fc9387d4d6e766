"""Contents of files that nobody writes on purpose: drawn by hypothesis, so that what breaks a reader is made small."""

from __future__ import annotations

import copy
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy


def _words(text: str, between: str | None = None) -> list[str]:
    return text.split(between)


NUMBERS = _words(
    "0 -0 1 -1 0.5 1e-5 1E+3 1e999 -1e999 1e-400 nan .nan NaN inf -inf .inf Infinity 0x1F 0o17 017 0b1 1_000 1,5"
    " 190:20:30 2147483648 9223372036854775807 18446744073709551616 1e16 1e300 5e-324 ½ ٣ -.5 5. . + - e e5 1e 00 0.1e"
)
MOST_BYTES = 200_000  # after repeating a part: how long a large file takes, the bombs tell
LONG_NUMBERS = ["9" * 400, "9" * 5000, "0." + "1" * 5000, "1e" + "9" * 30]
YAML_SCALARS = [
    *NUMBERS,
    *LONG_NUMBERS,
    *_words("~ null yes no on off true false True << = - ? : | > @ ` % ! !x 2024-01-01 2024-13-45"),
    *_words(
        r"""'' "" "\ud800" "\ud83d\ude00" "\0" "\x1b[31m" "\u2028" '0.1' "1e-5" é 名 2001-12-14t21:59:43.1-05:00"""
    ),
    *_words("!!int x|!!float x|!!bool x|!!null x|!!timestamp x|!!str 1|!!binary aGk=|!!binary é|!!map x|!!seq x", "|"),
    *_words("!!set {a}|!!omap [a: 1]|!!python/object/apply:os.system [touch pwned]|!!python/name:os.system", "|"),
    *_words("[]|{}|[[]]|[a]|[1, 2]|{a: 1}|{a: {b: 1}}|{[a]: 1}|&a 1|*a|*none|&a [*a]|&a {b: *a}|{<<: {a: 1}}", "|"),
    "x" * 300,
    "[" * 50 + "]" * 50,
    "{a: " * 50 + "1" + "}" * 50,
]
JSON_ODD: list[Any] = [
    *(None, True, False, 0, -1, 0.5, 1, 2, 2**31, 2**63, 10**400, -(10**400), 1e308, 5e-324, math.nan, math.inf),
    *("", "0", "1", "1e-5", "\ud800", "\0", "a/b", "../a", "~", ".", "x" * 300, "\u2028", "é"),
    *([], [[]], [1], [[1, 2]], [None] * 4, ["a"] * 4, {}, {"a": 1}, {"id": 1}, [{}]),
]
BYTES = [
    *(number.encode() for number in (*NUMBERS, *LONG_NUMBERS)),
    *(b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x1b", b"\x85", b"\x0c", b"\xe2\x80\xa8"),
    *(bytes([mark]) for mark in b"\r\n\t \"'{}[],;:#&*!%=<>/\\~"),
    *(b"\r\n", b": ", b"&a ", b"*a", b".."),
]
ODD_PATHS = [
    "",
    ".",
    "..",
    "/",
    "~",
    "~nobody/x",
    "a\\b",
    "x" * 300,
    "a/" * 2000,
    "/dev/null",
    "/dev/zero",
    "\x7f",
    "*",
]

scalars = (
    st.sampled_from(YAML_SCALARS) | st.floats().map(repr) | st.integers().map(str) | st.text(max_size=6).map(json.dumps)
)


def _mapping(pairs: Sequence[tuple[str, str]]) -> str:
    return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"


def flow(inner: SearchStrategy[str]) -> SearchStrategy[str]:
    """Lists and mappings of YAML in one line."""
    pairs = st.lists(st.tuples(scalars, inner), max_size=3)
    return st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]") | pairs.map(_mapping)


values = st.recursive(scalars, flow, max_leaves=6)


def fields(names: Sequence[str]) -> SearchStrategy[str]:
    """A mapping in one line of some of these names."""
    return st.lists(st.tuples(st.sampled_from(names), scalars), max_size=5).map(_mapping)


def yaml_files(names: Sequence[str], entries: SearchStrategy[str] = values) -> SearchStrategy[bytes]:
    """Lines of `name: entry`, most of them with known names, in any encoding."""
    keys = st.sampled_from(names) | st.sampled_from(names) | scalars
    line = st.tuples(keys, entries | scalars).map(lambda pair: f"{pair[0]}: {pair[1]}")
    odd = st.sampled_from(["---", "...", "%YAML 1.1", "# remark", "- a", "? b", "\ta: 1", "", "a: |", "  indented"])
    return encoded(st.lists(line | line | line | odd, max_size=8).map("\n".join))


@st.composite
def encoded(draw: DrawFn, texts: SearchStrategy[str]) -> bytes:
    text = draw(texts)
    how = draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "crlf", "cr"]))
    if how in ("crlf", "cr"):
        text, how = text.replace("\n", "\r\n" if how == "crlf" else "\r"), "utf-8"
    return text.encode(how, errors="replace" if how == "latin-1" else "surrogatepass")


@st.composite
def json_like(draw: DrawFn, content: Any) -> Any:
    """The same with one to three of its parts replaced, left out or doubled."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        holder = content
        while True:
            places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if not isinstance(holder[place], dict | list) or draw(st.integers(0, 3)) == 0:
                _replace(draw, holder, place)
                break
            holder = holder[place]
    return content


def _replace(draw: DrawFn, holder: Any, place: Any) -> None:
    what = draw(st.sampled_from(["odd", "odd", "odd", "text", "float", "gone", "twice"]))
    if what == "gone":
        del holder[place]
    elif what == "twice" and isinstance(holder, list):
        holder.insert(place, holder[place])
    else:
        holder[place] = draw({"text": st.text(max_size=6), "float": st.floats()}.get(what, st.sampled_from(JSON_ODD)))


def json_files(content: Any) -> SearchStrategy[bytes]:
    return encoded(
        st.tuples(json_like(content), st.booleans()).map(lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1]))
    )


def json_lines(rows: Sequence[Any]) -> SearchStrategy[bytes]:
    line = st.sampled_from(rows).flatmap(json_like) | st.sampled_from(rows) | st.sampled_from(JSON_ODD)
    return encoded(st.lists(line.map(json.dumps), max_size=5).map("\n".join))


@st.composite
def mutated(draw: DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A valid file after one to five steps: a byte changed, a part cut, repeated, replaced or from another file."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 5))):
        content = draw(st.sampled_from(STEPS))(draw, content, seeds)
    return content


def _place(draw: DrawFn, content: bytes) -> int:
    return draw(st.integers(0, len(content)))


def _flip(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] + bytes([draw(st.integers(0, 255))]) + content[at + 1 :]


def _insert(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    at = _place(draw, content)
    return content[:at] + draw(st.sampled_from(BYTES) | st.binary(max_size=4)) + content[at:]


def _reword(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    words = [found.span() for found in re.finditer(rb"[\w.+-]+", content)]
    if not words:
        return content
    start, end = draw(st.sampled_from(words))
    return content[:start] + draw(st.sampled_from(BYTES)) + content[end:]


def _cut(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted((_place(draw, content), _place(draw, content)))
    return content[:start] + content[end:]


def _end(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    return content[: _place(draw, content)]


def _repeat(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    start, end = sorted((_place(draw, content), _place(draw, content)))
    room = max(MOST_BYTES - len(content), 0) // (end - start + 1)
    times = min(draw(st.sampled_from([2, 2, 3, 10, 300])), 1 + room)
    return content[:start] + content[start:end] * times + content[end:]


def _splice(draw: DrawFn, content: bytes, seeds: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(seeds))
    return content[: _place(draw, content)] + other[_place(draw, other) :]


STEPS: list[Callable[[DrawFn, bytes, Sequence[bytes]], bytes]] = [
    _flip, _insert, _reword, _reword, _cut, _end, _repeat, _splice,
]  # fmt: skip

DTYPES = [
    "<f4",
    "<f8",
    ">f8",
    "<f2",
    "<i8",
    "|u1",
    "|b1",
    "<c16",
    "<U3",
    "|S3",
    "|O",
    "<M8[s]",
    "|V4",
    "<f16",
    "<f4,<f4",
    "x",
    "",
]
SHAPES = [
    "(2, 3)",
    "(6,)",
    "()",
    "(0, 3)",
    "(3, 0)",
    "(2, 3, 1)",
    "(-1, 3)",
    "(2.0, 3)",
    "(1000000000, 1000000000)",
    "(100000000, 10)",
    "2",
    "[2]",
]


@st.composite
def npz_files(draw: DrawFn, name: str, seeds: Sequence[bytes]) -> bytes:
    """A zip of an .npy whose header says anything, or a valid file with a few bytes changed."""
    if draw(st.booleans()):
        return draw(mutated(seeds))
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    order = draw(st.sampled_from(["False", "True", "1", "x"]))
    said = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    version = draw(st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\7\0"]))
    length = len(said).to_bytes(2 if version == b"\1\0" else 4, "little")
    body = draw(
        st.sampled_from([np.ones(6).tobytes(), b"", np.ones((2, 3), np.float32).tobytes(), bytes(96), b"\xff" * 48])
    )
    content = b"\x93NUMPY" + version + length + said.encode() + body
    if draw(st.integers(0, 9)) == 0:
        return content
    return zipped(
        {
            draw(st.sampled_from([f"{name}.npy"] * 9 + [name, "other.npy"])): draw(mutated([content]))
            if draw(st.booleans())
            else content
        }
    )


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    with io.BytesIO() as out:
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return out.getvalue()
