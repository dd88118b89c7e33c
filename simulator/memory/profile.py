"""Bytes over a run of operations, and how runs of equal ones compose.

A run changes the bytes alive by ``net`` and raises them at most ``peak`` above where it began. Repeated ``count`` times, run i begins at
i * net; the highest is the first or the last of them, so repetition needs no unrolling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulator.components import Role
from simulator.program.graph import Value
from simulator.program.operations import Operation
from simulator.program.sizes import Bindings, Size, Symbol, value_of

_ROLES = tuple(Role)
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Sizes:
    """Many symbolic sizes, evaluated at once."""

    factors: Floats
    symbols: tuple[Symbol, ...]
    powers: Floats

    @classmethod
    def of(cls, sizes: Sequence[Size]) -> "Sizes":
        """Compile sizes into factors and powers of the symbols that occur in them."""
        columns = {symbol: column for column, symbol in enumerate(dict.fromkeys(symbol for size in sizes for symbol in size.symbols))}
        powers = np.zeros((len(sizes), len(columns)))
        for row, size in enumerate(sizes):
            for symbol in size.symbols:
                powers[row, columns[symbol]] += 1
        return cls(np.array([size.factor for size in sizes], dtype=float), tuple(columns), powers)

    def at(self, bindings: Bindings) -> Floats:
        """The numbers for given symbols."""
        values = np.array([value_of(symbol, bindings) for symbol in self.symbols], dtype=float)
        result: Floats = self.factors * np.exp(self.powers @ np.log(np.maximum(values, 1e-300)))
        return np.rint(result)


@dataclass(frozen=True, eq=False, repr=False)
class Ledger:
    """Beginnings and ends of storages over a run of operations, compiled."""

    operations: tuple[Operation, ...]
    sizes: Sizes
    allocating: NDArray[np.intp]
    """(operation, storage, role) of each beginning, as three rows."""
    freeing: NDArray[np.intp]


@lru_cache(maxsize=2048)
def ledger(operations: tuple[Operation, ...]) -> Ledger:
    """Compile the storages of ``operations`` (identified by the tuple's members)."""
    index: dict[Value, int] = {}
    allocating: list[tuple[int, int, int]] = []
    freeing: list[tuple[int, int, int]] = []
    for position, operation in enumerate(operations):
        for values, events in ((operation.allocates, allocating), (operation.frees, freeing)):
            for value in values:
                number = index.setdefault(value, len(index))
                events.append((position, number, _ROLES.index(value.role)))
    shape = (0, 3)
    return Ledger(
        operations,
        Sizes.of([value.bytes for value in index]),
        np.array(allocating, dtype=np.intp).reshape(-1, 3).T if allocating else np.zeros(shape, dtype=np.intp).T,
        np.array(freeing, dtype=np.intp).reshape(-1, 3).T if freeing else np.zeros(shape, dtype=np.intp).T,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A ledger in numbers. ``live``: bytes right after each operation allocated, above the beginning of the run."""

    operations: tuple[Operation, ...]
    live_by_role: Floats
    live: Floats
    net: float
    net_by_role: Floats
    at_peak_by_role: Floats
    peak: float
    peak_index: int

    def roles(self, index: int) -> Floats:
        """Bytes by role right after an operation allocated."""
        row: Floats = self.live_by_role[index].copy()
        return row

    def repeated(self, count: int) -> tuple[float, bool]:
        """Highest point of ``count`` runs in a row above the first one's beginning, and whether it lies in the last of them."""
        last = (count - 1) * self.net
        return (self.peak + last, True) if last > 0 else (self.peak, False)


def run(operations: tuple[Operation, ...], bindings: Bindings) -> Run:
    """Evaluate a run of operations for given numbers."""
    compiled = ledger(operations)
    length = len(operations)
    sizes = compiled.sizes.at(bindings)
    roles = len(_ROLES)
    begun = np.zeros((length, roles))
    ended = np.zeros((length, roles))
    np.add.at(begun, (compiled.allocating[0], compiled.allocating[2]), sizes[compiled.allocating[1]])
    np.add.at(ended, (compiled.freeing[0], compiled.freeing[2]), sizes[compiled.freeing[1]])
    after = np.cumsum(begun - ended, axis=0)
    at = after + ended
    live = at.sum(axis=1)
    peak_index = int(live.argmax()) if length else 0
    empty = np.zeros(roles)
    return Run(
        operations,
        at,
        live,
        float(after[-1].sum()) if length else 0.0,
        after[-1] if length else empty,
        at[peak_index] if length else empty,
        float(live[peak_index]) if length else 0.0,
        peak_index,
    )
