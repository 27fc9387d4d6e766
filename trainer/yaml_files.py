"""YAML files that a user hands us: read, or refused in one sentence."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from trainer.api import DataError

MOST_VALUES = 1_000_000
MOST_DIGITS = 1000
MOST_SHOWN = 200  # characters of what a message quotes


def load_yaml(path: Path) -> Any:
    """What the file holds, None if that is nothing. Raises DataError."""
    try:
        return yaml.load(path.read_bytes(), Loader=_BoundedLoader)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except RecursionError as error:
        raise DataError(f"{path} is not YAML: it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML: {_one_line(error)}") from error


def shown(value: object) -> str:
    """A value of such a file for a message."""
    return cut_short(repr(value))


def cut_short(text: object) -> str:
    text = "".join(char if char.isprintable() else "?" for char in str(text))
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 3] + "..."


class _BoundedLoader(yaml.SafeLoader):
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


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_yaml_int)


def _unfolded(node: yaml.Node, known: dict[yaml.Node, float]) -> float:
    """How many values a node is with its aliases written out."""
    if node not in known:
        known[node] = math.inf  # while it is being counted: what holds itself has no end
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        if isinstance(node, yaml.MappingNode):
            children = itertools.chain.from_iterable(children)
        known[node] = 1 + sum(_unfolded(child, known) for child in children)
    return known[node]


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error) or type(error).__name__
    return " ".join(problem.split()) + (f" in line {mark.line + 1}" if mark is not None else "")
