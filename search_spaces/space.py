"""Param and Space: what may vary, within which bounds, and from which defaults."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, cast

Value = float | int | str | bool
Hyp = Mapping[str, Value]
Kind = Literal["float", "int", "categorical"]

SIGNIFICANT_DIGITS = 5
_DECIMAL = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_FIELDS = ("low", "high", "default", "gain", "log", "step", "choices", "needs")


class SpaceError(Exception):
    """A space, a hyp or a file of either is wrong; the message says in one sentence what, and what would be right."""


@dataclass(frozen=True)
class Param:
    """One hyp that may vary.

    A float param has low <= high; `step` makes it an int param (low, low + step, ... high); `choices` makes it
    categorical, and then it has no bounds. `gain` scales how far mutation moves it: 0 pins it. `log` measures it by
    ratios, and needs low > 0. `needs` names another hyp of the space: while that one is 0 or false, this one changes
    nothing. Numbers are stored as the kind says (a float param's low = 0 becomes 0.0), numeric text as the number that
    it spells. Raises SpaceError for whatever does not hold together.
    """

    name: str
    default: Value
    low: float | int | None = None
    high: float | int | None = None
    gain: float = 1.0
    log: bool = False
    step: int | None = None
    choices: tuple[Value, ...] = ()
    needs: str = ""
    comment: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.log, bool):
            raise SpaceError(f"{self.name}: log must be true or false, got {shown(self.log)}")
        if not isinstance(self.needs, str):
            raise SpaceError(f"{self.name}: needs must be the name of a hyp, got {shown(self.needs)}")
        self._set("gain", float(_number(f"{self.name}: gain", self.gain)))
        if self.gain < 0:
            raise SpaceError(f"{self.name}: gain {self.gain} is negative; 0 pins a hyp, 1 is the usual")
        if self.choices:
            self._settle_choices()
        else:
            self._settle_bounds()
        self._set("default", self._checked("default", self.default))

    def _set(self, attribute: str, value: object) -> None:
        object.__setattr__(self, attribute, value)  # only while it is being made: afterwards it is frozen

    def _settle_choices(self) -> None:
        for attribute in ("low", "high", "step"):
            if getattr(self, attribute) is not None:
                raise SpaceError(f"{self.name}: {attribute} does not go with choices; give bounds or choices")
        if self.log:
            raise SpaceError(f"{self.name}: log does not go with choices")
        choices = tuple(read_value(f"{self.name}: choice", choice) for choice in self.choices)
        if (again := _repeated(choices)) is not None:
            raise SpaceError(f"{self.name}: choice {shown(again)} stands there twice")
        self._set("choices", choices)

    def _settle_bounds(self) -> None:
        if self.step is not None:
            self._set("step", _whole(f"{self.name}: step", self.step))
            if self.step < 1:
                raise SpaceError(f"{self.name}: step {self.step} is not positive; 1 makes a hyp an integer")
        for attribute in ("low", "high"):
            if getattr(self, attribute) is None:
                raise SpaceError(f"{self.name}: {attribute} is missing; a hyp that evolves has low, high and default")
            bound = (_number if self.step is None else _whole)(f"{self.name}: {attribute}", getattr(self, attribute))
            self._set(attribute, float(bound) if self.step is None else bound)
        low, high = self.bounds
        if low > high:
            raise SpaceError(f"{self.name}: low {low} is greater than high {high}")
        if not math.isfinite(high - low):
            raise SpaceError(f"{self.name}: low {low} and high {high} lie too far apart")
        if self.log and low <= 0:
            raise SpaceError(f"{self.name}: low {low} is not positive, which log needs")
        if self.step is not None and (high - low) % self.step:
            raise SpaceError(f"{self.name}: high {high} is not low {low} plus a whole number of steps of {self.step}")
        if self.log and self.step not in (None, 1):
            raise SpaceError(f"{self.name}: step {self.step} does not go with log, only 1 does")

    @property
    def kind(self) -> Kind:
        if self.choices:
            return "categorical"
        return "float" if self.step is None else "int"

    @property
    def bounds(self) -> tuple[float | int, float | int]:
        """(low, high) of a float or int param."""
        assert self.low is not None, f"{self.name} is categorical"
        assert self.high is not None, f"{self.name} is categorical"
        return self.low, self.high

    @property
    def levels(self) -> int | None:
        """How many values an int or categorical param can take; None for floats."""
        if self.kind == "float":
            return None
        if self.choices:
            return len(self.choices)
        low, high = self.bounds
        return int(high - low) // (self.step or 1) + 1

    @property
    def evolves(self) -> bool:
        """Whether mutation may move it: its gain is not 0 and it has more than one value."""
        return self.gain > 0 and (len(self.choices) > 1 if self.choices else self.low != self.high)

    def accept(self, value: object) -> Value:
        """The value as this param holds it (numeric text becomes its number); SpaceError names key, value and bound."""
        return self._checked("", value)

    def clip(self, value: object) -> Value:
        """The nearest value within the bounds, for ints the nearest step. SpaceError: text, NaN, no such choice."""
        if self.choices:
            return self.accept(value)
        low, high = self.bounds
        number = min(max(_number(self.name, value), low), high)
        return self._nearest_step(number) if self.step else float(number)

    def round_value(self, value: Value) -> Value:
        """The value that is trained and saved: floats to 5 significant digits (within the bounds), ints to a step."""
        if self.choices:
            return self.accept(value)
        low, high = self.bounds
        number = cast(float, self.clip(value))
        if self.step:
            return number
        return min(max(round_significant(number), low), high)  # rounding may have left bounds that have more digits

    def to_unit(self, value: Value) -> float:
        """The value's place in [0, 1]: 0 at low, 1 at high, by ratios where log; a value outside counts as its bound.

        Each of the n values of an int (not log) or categorical param owns a cell of width 1/n and sits in its middle.
        """
        if self.choices:
            return (self.choices.index(self.accept(value)) + 0.5) / len(self.choices)
        low, high = self._edges()
        if high <= low:
            return 0.5
        number = cast(float, self.clip(value))
        return math.log(number / low) / math.log(high / low) if self.log else (number - low) / (high - low)

    def from_unit(self, u: float) -> Value:
        """The value at place u (clipped to [0, 1]), rounded as `round_value` does."""
        u = min(max(float(u), 0.0), 1.0)
        if self.choices:
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        low, high = self._edges()
        return self.round_value(low * (high / low) ** u if self.log else low + u * (high - low))

    def _edges(self) -> tuple[float, float]:
        """What 0 and 1 stand for: the bounds, and for ints half a step beyond, so that each value's cell is whole."""
        low, high = self.bounds
        half = (self.step or 0) / 2
        return low - half, high + half

    def _nearest_step(self, number: float) -> int:
        low, high = self.bounds
        step = self.step or 1
        return min(int(low) + step * math.floor((number - low) / step + 0.5), int(high))

    def _checked(self, what: str, value: object) -> Value:
        """`value` as this param holds it; `what` is '' or 'default', for the message."""
        label = f"{self.name}: {what}" if what else self.name
        if self.choices:
            return self._checked_choice(label, value)
        low, high = self.bounds
        number = _number(label, value) if self.step is None else _whole(label, value)
        if not low <= number <= high:
            raise SpaceError(f"{_joined(label, number)} lies outside [{low}, {high}]")
        if self.step is None:
            return float(number)
        if (number - low) % self.step:
            raise SpaceError(f"{_joined(label, number)} is not low {low} plus a whole number of steps of {self.step}")
        return number

    def _checked_choice(self, label: str, value: object) -> Value:
        for choice in self.choices:
            if isinstance(choice, bool) is isinstance(value, bool) and choice == value:
                return choice
        number = as_number(value)  # '1e-5' given for the choice 0.00001
        if number is not None and isinstance(value, str):
            return self._checked_choice(label, number)
        first = (str(choice)[:60] for choice in self.choices[:12])
        one_of = ", ".join([*first, *(["..."] if len(self.choices) > 12 else [])])
        raise SpaceError(f"{_joined(label, value)} is not one of {one_of}{did_you_mean(value, self.choices)}")

    def to_dict(self) -> dict[str, Any]:
        """Its fields as a space file holds them, those at their usual value left out."""
        if self.choices:
            fields: dict[str, Any] = {"choices": list(self.choices), "default": self.default}
        else:
            fields = {"low": self.low, "high": self.high, "default": self.default}
        if self.gain != 1:
            fields["gain"] = self.gain
        if self.log:
            fields["log"] = True
        if self.step is not None:
            fields["step"] = self.step
        if self.needs:
            fields["needs"] = self.needs
        return fields

    @classmethod
    def from_dict(cls, name: str, fields: Mapping[str, Any], comment: str = "") -> Param:
        """A param of a space file's fields: low, high, default, gain, log, step, choices, needs."""
        for key in fields:
            if key not in _FIELDS:
                raise SpaceError(
                    f"{name}: unknown field {shown(key)}{did_you_mean(key, _FIELDS)}; known: {', '.join(_FIELDS)}"
                )
        if "default" not in fields:
            raise SpaceError(f"{name}: default is missing; a hyp that evolves has low, high and default")
        choices = fields.get("choices", ())
        if "choices" in fields and not (isinstance(choices, list | tuple) and choices):
            raise SpaceError(f"{name}: choices must be a list of values, got {shown(choices)}")
        return cls(name, comment=comment, **{**fields, "choices": tuple(choices)})


@dataclass(frozen=True)
class Space:
    """What a study searches: params that may vary and hyps that are fixed, matched by name only.

    `order` is the file's order over both; left out, params come first. A frozen value: every change makes a new one.
    """

    name: str
    params: tuple[Param, ...]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fixed = {key: read_value(key, value) for key, value in self.fixed.items()}
        object.__setattr__(self, "params", tuple(self.params))
        object.__setattr__(self, "fixed", MappingProxyType(fixed))
        names = [*self.names, *fixed]
        if (again := _repeated(names)) is not None:
            raise SpaceError(f"{again} stands twice in space {self.name!r}")
        known = set(names)
        for param in self.params:
            if param.needs == param.name:
                raise SpaceError(f"{param.name}: needs itself; needs is the name of another hyp")
            if param.needs and param.needs not in known:
                raise SpaceError(
                    f"{param.name}: needs {shown(param.needs)}, which is no hyp of space {self.name!r}"
                    f"{did_you_mean(param.needs, names)}"
                )
        object.__setattr__(self, "order", tuple(self.order or names))
        assert sorted(self.order) == sorted(names), "order holds every name once"

    def __reduce__(self) -> tuple[type[Space], tuple[Any, ...]]:
        return type(self), (self.name, self.params, dict(self.fixed), self.order)  # a mapping proxy does not pickle

    def __hash__(self) -> int:
        return hash((self.name, self.params, tuple(self.fixed.items()), self.order))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all params, in file order; those that a gain of 0 pins are among them."""
        return tuple(param.name for param in self.params)

    @cached_property
    def evolving(self) -> tuple[Param, ...]:
        """The params that mutation may move: gain above 0 and more than one value."""
        return tuple(param for param in self.params if param.evolves)

    def __getitem__(self, name: str) -> Param:
        """The param of that name; SpaceError if there is none."""
        for param in self.params:
            if param.name == name:
                return param
        raise SpaceError(f"unknown hyp {shown(name)} in space {self.name!r}{did_you_mean(name, self.names)}")

    def defaults(self) -> dict[str, Value]:
        """The hyp that a study starts from: every param's default and the fixed values, in file order."""
        values = {**{param.name: param.default for param in self.params}, **self.fixed}
        return {name: values[name] for name in self.order}

    def clip(self, hyp: Hyp) -> dict[str, Value]:
        """`hyp` with every param's value moved to the nearest allowed one; fixed keys pass. SpaceError: unknown key."""
        self._know(hyp)
        params = self._by_name()
        return {key: params[key].clip(value) if key in params else value for key, value in hyp.items()}

    def check(self, hyp: Hyp) -> None:
        """Raise SpaceError (key, value, bound) for an unknown key or a value that is not allowed; none is required."""
        self.with_base(hyp)

    def with_base(self, hyp: Hyp) -> Space:
        """This space started from another hyp: new defaults, fixed values replaced, what `hyp` lacks kept.

        Raises SpaceError for an unknown key, for a value outside the bounds, and for text where a number belongs.
        """
        self._know(hyp)
        params = tuple(replace(p, default=p.accept(hyp[p.name])) if p.name in hyp else p for p in self.params)
        fixed = {key: _like(key, old, hyp[key]) if key in hyp else old for key, old in self.fixed.items()}
        return replace(self, params=params, fixed=fixed)

    def freeze(self, names: Iterable[str]) -> Space:
        """Fix the named params at their defaults; a hyp that is fixed already stays so."""
        return self._fix({name: self._default_of(name) for name in names})

    def only(self, names: Iterable[str]) -> Space:
        """Let only the named params vary; the others become fixed at their defaults."""
        wanted = set(names)
        self._know(wanted)
        for name in sorted(wanted & set(self.fixed)):
            raise SpaceError(f"{name} is fixed in space {self.name!r} and cannot evolve: it has no low and high")
        return self.freeze(name for name in self.names if name not in wanted)

    def with_values(self, values: Hyp) -> Space:
        """Fix the named hyps at these values, which must lie within their bounds."""
        self._know(values)
        return self.with_base(values).freeze(values)

    def to_dict(self) -> dict[str, Any]:
        """Plain and JSON-able: {"name": ..., "hyps": {name: value | fields}} in file order; comments are left out."""
        params = self._by_name()
        return {
            "name": self.name,
            "hyps": {name: params[name].to_dict() if name in params else self.fixed[name] for name in self.order},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """What `to_dict` wrote."""
        return cls.from_hyps(data["name"], data["hyps"])

    @classmethod
    def from_hyps(cls, name: str, hyps: Mapping[str, Any], comments: Mapping[str, str] | None = None) -> Space:
        """A space of a file's entries: a mapping of fields evolves, a scalar is fixed."""
        comments = comments or {}
        params = [
            Param.from_dict(key, entry, comments.get(key, ""))
            for key, entry in hyps.items()
            if isinstance(entry, Mapping)
        ]
        fixed = {key: entry for key, entry in hyps.items() if not isinstance(entry, Mapping)}
        return cls(name, tuple(params), fixed, tuple(hyps))

    def _by_name(self) -> dict[str, Param]:
        return {param.name: param for param in self.params}

    def _know(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.order:
                raise SpaceError(f"unknown hyp {shown(name)} in space {self.name!r}{did_you_mean(name, self.order)}")

    def _default_of(self, name: str) -> Value:
        self._know([name])
        return self.fixed[name] if name in self.fixed else self[name].default

    def _fix(self, values: Mapping[str, Value]) -> Space:
        params = tuple(param for param in self.params if param.name not in values)
        return replace(self, params=params, fixed={**self.fixed, **values})


def as_number(value: object) -> float | int | None:
    """The number that value is, or that its text spells in decimal ('1e-5'); None for all else, bools included."""
    if isinstance(value, str):
        text = value.strip()
        if not _DECIMAL.fullmatch(text):
            return None
        return int(text) if text.lstrip("+-").isdigit() and len(text) < 20 else float(text)
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else None


def read_value(label: str, value: object) -> Value:
    """`value` as a plain Python scalar (numpy's become their own); SpaceError if it is none, or not finite."""
    if isinstance(value, bool | str):
        return value
    if as_number(value) is None:
        raise SpaceError(f"{label} must be a number, text, true or false, got {shown(value)}")
    return _number(label, value)


def round_significant(number: float, digits: int = SIGNIFICANT_DIGITS) -> float:
    """`number` to so many significant digits: 0.00123456 -> 0.0012346."""
    return float(f"{number:.{digits - 1}e}")


def did_you_mean(word: object, known: Collection[object]) -> str:
    """ " (did you mean 'lr0'?)" if something known is close to `word`, '' otherwise."""
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _number(label: str, value: object) -> float | int:
    number = as_number(value)
    if number is None:
        raise SpaceError(f"{label} must be a number, got {shown(value)}")
    try:
        finite = math.isfinite(number)
    except OverflowError:
        finite = False
    if not finite:
        raise SpaceError(f"{label} must be finite, got {shown(value)}")
    return number


def _whole(label: str, value: object) -> int:
    number = _number(label, value)
    if number != int(number):
        raise SpaceError(f"{label} must be a whole number, got {shown(value)}")
    return int(number)


def _like(key: str, old: Value, new: object) -> Value:
    """A fixed hyp's new value, of the sort that the old one is: number, text or bool."""
    if isinstance(old, bool):
        if not isinstance(new, bool):
            raise SpaceError(f"{key} must be true or false, got {shown(new)}")
        return new
    if isinstance(old, str):
        if not isinstance(new, str):
            raise SpaceError(f"{key} must be text like {old!r}, got {shown(new)}")
        return new
    return _number(key, new)


def _joined(label: str, value: object) -> str:
    return f"{label} {shown(value)}" if ":" in label else f"{label}: {shown(value)}"


def shown(value: object) -> str:
    """`value` for a message: its repr, cut short before it is made, as a value can be of any size and depth."""
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 2, 60, 60, 60

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"a number of {x.bit_length()} bits"


_SHORT = _Short()


def _repeated(items: Iterable[Hashable]) -> Hashable | None:
    """The first item that stands there a second time; None if all differ."""
    seen: set[Hashable] = set()
    for item in items:
        if item in seen:
            return item
        seen.add(item)
    return None
