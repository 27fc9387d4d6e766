"""The unit cube of a space: hyps as points, which is where distances and steps mean the same for every gene."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from search_spaces import Hyp, Param, Space, Value

Floats = NDArray[np.float64]


class Cube:
    """The evolving params of a space as the axes of [0, 1]^d, in the space's order; a point is a row of d places.

    A log param is measured by ratios, and one that begins at 0, its lowest value, by its square root: it is a strength
    that is off at first, and its first steps are small ones. Each value of an int or categorical param owns a cell, and
    `snap` moves points to the value's place in it. A gene that changes nothing while another hyp is 0 (or False) is
    *dead* there: `settle` moves it to the base's place, so that points which train alike are alike.
    """

    def __init__(self, space: Space) -> None:
        self.params: tuple[Param, ...] = space.evolving
        self.names = tuple(param.name for param in self.params)
        self.gains = np.array([param.gain for param in self.params])
        self.categorical = np.array([bool(param.choices) for param in self.params])
        self.levels = np.array([param.levels or 0 for param in self.params])
        self.cells = np.array([1 / param.levels if param.levels else 0.0 for param in self.params])
        self._powers = np.array([2.0 if _begins_at_zero(param) else 1.0 for param in self.params])
        self.base = np.array([param.to_unit(param.default) for param in self.params])
        self._units = [_unit_of(param) for param in self.params]
        self._base_hyp = space.defaults()
        self._stepped = [i for i, param in enumerate(self.params) if param.levels is not None]
        self._axis = {name: i for i, name in enumerate(self.names)}
        self._needs = [(i, param.needs) for i, param in enumerate(self.params) if param.needs]
        self._zeros = {param.name: _zero(param) for param in self.params}
        self._values_of = _getter(self.names)
        self._places: dict[tuple[Value, ...], Floats] = {}

    @property
    def d(self) -> int:
        return len(self.params)

    def place(self, hyp: Hyp) -> Floats:
        """The point of a hyp; what the hyp lacks has the base's place. Not to be written to."""
        try:
            key = self._values_of(hyp)
        except KeyError:
            key = self._values_of({**self._base_hyp, **hyp})
        if (found := self._places.get(key)) is None:
            units = np.array([unit(value) for unit, value in zip(self._units, key, strict=True)])
            found = units ** (1 / self._powers)
            self._places[key] = found
        return found

    def places(self, hyps: Iterable[Hyp]) -> Floats:
        """The points [n, d] of hyps."""
        rows = [self.place(hyp) for hyp in hyps]
        return np.array(rows) if rows else np.empty((0, self.d))

    def hyp_at(self, point: Floats) -> dict[str, Value]:
        """The values of the evolving params at a point, rounded as they will be saved."""
        return {param.name: param.from_unit(u) for param, u in zip(self.params, point**self._powers, strict=True)}

    def snap(self, points: Floats) -> Floats:
        """The points [n, d] with ints and choices moved to the places of their values."""
        snapped = points.copy()
        for i in self._stepped:
            param = self.params[i]
            if param.log:
                snapped[:, i] = [param.to_unit(param.from_unit(u)) for u in points[:, i]]
            else:
                cell = np.minimum(np.floor(points[:, i] * self.levels[i]), self.levels[i] - 1)
                snapped[:, i] = (cell + 0.5) / self.levels[i]
        return snapped

    def dead(self, points: Floats) -> NDArray[np.bool_]:
        """Which genes [n, d] change nothing there, since the hyp that they need is 0."""
        found = np.zeros(points.shape, dtype=bool)
        for i, needed in self._needs:
            found[:, i] = self._is_zero(needed, points)
        return found

    def settle(self, points: Floats) -> Floats:
        """The points [n, d] with every dead gene at the base's place.

        One gene after the other, as each may be what another needs: of two that need each other, both 0, either is dead
        while the other stays 0, but not both.
        """
        settled = points.copy()
        for i, needed in self._needs:
            settled[self._is_zero(needed, settled), i] = self.base[i]
        return settled

    def steps(self, before: Floats, after: Floats) -> dict[str, float]:
        """How far each gene that differs went from one point to another."""
        return {name: float(b - a) for name, a, b in zip(self.names, before, after, strict=True) if a != b}

    def features(self, points: Floats) -> Floats:
        """What a model sees of points [n, d]: settled, and a categorical gene as one column for each choice."""
        settled = self.settle(points)
        if not self.categorical.any():
            return settled
        columns: list[Floats] = []
        for i, param in enumerate(self.params):
            if param.choices:
                chosen = np.minimum(np.floor(settled[:, i] * len(param.choices)), len(param.choices) - 1)
                columns += [(chosen == k) / np.sqrt(2) for k in range(len(param.choices))]
            else:
                columns.append(settled[:, i])
        return np.stack(columns, axis=1)

    def _is_zero(self, name: str, points: Floats) -> NDArray[np.bool_]:
        """At which of the points [n, d] that hyp is 0; one that does not evolve has the base's value everywhere."""
        if name not in self._axis:
            return np.full(len(points), self._base_hyp[name] == 0)
        zero = self._zeros[name]
        if zero is None:
            return np.zeros(len(points), dtype=bool)
        near: NDArray[np.bool_] = abs(points[:, self._axis[name]] - zero) < 1e-12
        return near


def _begins_at_zero(param: Param) -> bool:
    return not (param.choices or param.log or param.levels) and param.low == param.default == 0


def _getter(names: tuple[str, ...]) -> Callable[[Hyp], tuple[Value, ...]]:
    """Has the values of these names; KeyError where one is missing."""
    if len(names) < 2:  # of one, itemgetter makes no tuple
        return lambda hyp: tuple(hyp[name] for name in names)
    return itemgetter(*names)


def _unit_of(param: Param) -> Callable[[Value], float]:
    """`param.to_unit`, quicker for floats: a search of many workers places every hyp in each of them."""
    if param.kind != "float":
        return param.to_unit
    (low, high), log = param.bounds, param.log
    span = math.log(high / low) if log else high - low

    def unit(value: Value) -> float:
        if type(value) is not float or not low < value < high:
            return param.to_unit(value)
        return math.log(value / low) / span if log else (value - low) / span

    return unit


@lru_cache(maxsize=8)
def cube_of(space: Space) -> Cube:
    """The cube of a space, made once: it remembers the places of the hyps that it has seen."""
    return Cube(space)


def reflect(points: Floats) -> Floats:
    """Points folded back into [0, 1] as by mirrors at 0 and 1."""
    folded = np.abs(points) % 2
    return np.where(folded > 1, 2 - folded, folded)


def _zero(param: Param) -> float | None:
    """The place of 0, or of False; None where the param is never 0."""
    if param.choices:
        return next((param.to_unit(choice) for choice in param.choices if choice == 0), None)
    low, high = param.bounds
    reached = low <= 0 <= high and not (param.step and low % param.step)
    return param.to_unit(0) if reached else None
