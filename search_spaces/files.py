"""Hyp and space files, in and out: the only reader and the only writer of both.

One format: a mapping of names, where a scalar is fixed and a mapping of fields evolves. A hyp file is a space with
nothing to evolve.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from search_spaces.space import Hyp, Space, SpaceError, Value, did_you_mean, read_value, shown

MOST_VALUES = 1_000_000
MOST_DIGITS = 1000

_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_TEXT_TAG = "tag:yaml.org,2002:str"
_SCALAR_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "str")}


class BoundedLoader(yaml.SafeLoader):
    """Reads what `yaml.safe_load` reads, unless that would be MOST_VALUES or a number of MOST_DIGITS.

    A file of a few lines can hold aliases of aliases of aliases, which unfold into more than any memory holds.
    """

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and (size := _unfolded(node, {})) > MOST_VALUES:
            what = f"unfold into more than {MOST_VALUES} values" if math.isfinite(size) else "lead into themselves"
            raise ComposerError(None, None, f"found aliases that {what}", node.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        try:  # "\ud83d\ude00", as JSON writes what is beyond 16 bit
            node.value = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ComposerError(None, None, "found half of a surrogate pair", node.start_mark) from None
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # 2024-13-45 looks like a date, !!bool x says it were one
            if not isinstance(node, yaml.ScalarNode):
                raise
            what = f"found {node.value!r:.60}, which is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, what, node.start_mark) from None

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MOST_DIGITS:
            raise ConstructorError(None, None, f"found a number of {len(node.value)} characters", node.start_mark)
        return super().construct_yaml_int(node)


BoundedLoader.add_constructor("tag:yaml.org,2002:int", BoundedLoader.construct_yaml_int)


def _unfolded(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """How many values a node is with its aliases written out."""
    if node not in known:
        known[node] = math.inf  # while it is being counted: what holds itself has no end
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = itertools.chain.from_iterable(children)
        known[node] = 1 + sum(_unfolded(child, known) for child in children)
    return known[node]


class _Loader(BoundedLoader):
    """Reads 1e-5 as the number that YAML 1.2 sees in it, too."""


class _Dumper(yaml.SafeDumper):
    """Writes what both readers read alike: text that looks like 1e-5 is quoted, what does not print is escaped."""

    def represent_str(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar(_TEXT_TAG, text, style=None if text.isprintable() else '"')


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
_Dumper.add_representer(str, _Dumper.represent_str)


def available_spaces() -> tuple[str, ...]:
    """The names of the spaces that come with the package."""
    files = resources.files("search_spaces").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load_space(name_or_path: str | Path) -> Space:
    """The built-in space of that name, or the space in that file. Raises SpaceError that names file, key and value."""
    name = str(name_or_path)
    if name in available_spaces():
        text = resources.files("search_spaces").joinpath(f"{name}.yaml").read_text("utf-8")
        return _parse_space(name, text, where=f"{name}.yaml")
    path = Path(name_or_path)
    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        known = available_spaces()
        raise SpaceError(
            f"no space {name!r}{did_you_mean(name, known)}: it is neither a file nor one of {', '.join(known)}"
        )
    return _parse_space(path.stem, read_text(path), where=str(path))


def load_hyp(path: str | Path) -> dict[str, Value]:
    """The hyp in that file, in file order; of a space file, its defaults. Raises SpaceError."""
    path = Path(path)
    return parse_hyp(read_text(path), where=str(path))


def parse_hyp(text: str, where: str, only: Collection[str] | None = None) -> dict[str, Value]:
    """The same of YAML that lies there; with `only` whatever has another name is not looked at. Raises SpaceError."""
    return _parse_space(Path(where).stem, text, where, only).defaults()


def dump_hyp(hyp: Hyp, header: Sequence[str] = ()) -> str:
    """`hyp` as YAML that `yaml.safe_load` reads back exactly, below the header's lines as comments."""
    values = {key: read_value(key, value) for key, value in hyp.items()}
    return comment_lines(header) + yaml.dump(
        values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=False
    )


def dump_space(space: Space) -> str:
    """`space` as a file that `load_space` reads back: a line a hyp, with its comment."""
    entries = {f"{_flow(key)}:": _flow(entry) for key, entry in space.to_dict()["hyps"].items()}
    comments = {f"{_flow(param.name)}:": comment_lines([param.comment]) for param in space.params if param.comment}
    names_width = max(map(len, entries), default=0)
    width = max((len(entries[key]) for key in comments), default=0)
    lines = (
        f"{key:<{names_width}} {entry:<{width}}  {comments.get(key, '')}".rstrip() for key, entry in entries.items()
    )
    return "".join(f"{line}\n" for line in lines)


def read_scalar(text: str) -> Value:
    """The value that `text` spells in a hyp file: '0.1' and '1e-5' numbers, 'true' a bool, 'AdamW' text."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError):
        node = None
    if not isinstance(node, yaml.ScalarNode):
        raise SpaceError(f"{shown(text)} is not a value: give a number, text, true or false")
    return read_value(shown(text), _scalar(node))


def read_text(path: Path) -> str:
    """What a file holds, which is UTF-8. Raises SpaceError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path} is not UTF-8 text: byte {error.object[error.start]:#04x} at {error.start}") from None
    except FileNotFoundError:
        raise SpaceError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise SpaceError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def _parse_space(name: str, text: str, where: str, only: Collection[str] | None = None) -> Space:
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise SpaceError(f"{where} is not YAML: {_one_line(error)}") from None
    if root is None:
        raise SpaceError(f"{where} is empty; a hyp or space file is a mapping of names to values")
    if not isinstance(root, yaml.MappingNode):
        raise SpaceError(f"{where} must be a mapping of names to values, got {_described(root)}")
    try:
        nodes = {key: node for key, node in _entries(root) if only is None or key in only}
        hyps = {key: _entry(key, node) for key, node in nodes.items()}
        return Space.from_hyps(name, hyps, _comments(nodes, text))
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None


def _entries(mapping: yaml.MappingNode, of: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """Its keys and value nodes, each key once; `of` is the hyp that the mapping belongs to, for the message."""
    seen: dict[str, int] = {}
    for key_node, node in mapping.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if key_node.tag != _TEXT_TAG or not key or not key.isprintable():
            raise SpaceError(f"{of}key {_described(key_node)} in line {line} is not a name")
        if key in seen:
            raise SpaceError(f"{of}{key} stands twice, in lines {seen[key]} and {line}")
        seen[key] = line
        yield key, node


def _entry(key: str, node: yaml.Node) -> Any:
    """A hyp's entry as plain values: a scalar, or its fields."""
    if isinstance(node, yaml.ScalarNode):
        return _value(key, node)
    if not isinstance(node, yaml.MappingNode):
        raise SpaceError(f"{key} must be a value or a mapping with low, high and default, got {_described(node)}")
    return {field: _field(f"{key}: {field}", inner) for field, inner in _entries(node, of=f"{key}: ")}


def _field(label: str, node: yaml.Node) -> Value | list[Value]:
    if isinstance(node, yaml.SequenceNode):
        return [_value(label, item) for item in node.value]
    return _value(label, node)


def _value(label: str, node: yaml.Node) -> Value:
    value = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
    if value is None:
        raise SpaceError(f"{label} must be a number, text, true or false, got {_described(node)}")
    return read_value(label, value)


def _scalar(node: yaml.ScalarNode) -> Any:
    """The scalar's value; its text where YAML sees something else in it (a date), None for nothing (null)."""
    if node.tag == "tag:yaml.org,2002:null":
        return None
    if node.tag not in _SCALAR_TAGS:
        return node.value
    try:
        return _Loader("").construct_object(node)
    except ConstructorError:  # a tag that its text does not honour: !!int x
        return None


def _comments(nodes: dict[str, yaml.Node], text: str) -> dict[str, str]:
    """The comment behind each entry, on the line where the entry ends."""
    found = {}
    for key, node in nodes.items():
        end = node.end_mark.index
        line_end = text.find("\n", end)
        rest = text[end : line_end if line_end >= 0 else None].strip()
        if rest.startswith("#"):
            found[key] = rest.lstrip("# ")
    return found


def _described(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return shown(node.value) if node.value else "nothing"


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        problem = ", ".join(filter(None, (error.context, error.problem)))
        return f"{problem} in line {error.problem_mark.line + 1}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return " ".join(str(error).split())


def _flow(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True
    )
    return text.removesuffix("...\n").strip()


def comment_lines(lines: Sequence[str]) -> str:
    """The lines behind '#'; what YAML could not carry (control characters) becomes '?'."""
    flat = [part for line in lines for part in (line.splitlines() or [""])]
    shown = ("".join(char if char.isprintable() else "?" for char in line) for line in flat)
    return "".join(f"# {line}".rstrip() + "\n" for line in shown)
