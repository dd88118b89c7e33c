"""Symbolic sizes: a whole number times symbols, such as ``2·T·K·D``.

A program is built once for a structure (which layers, which implementations) and then evaluated for any numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod

SYMBOLS = {
    "B": "sequences of a micro-batch on one rank",
    "S": "sequence length",
    "T": "tokens of a micro-batch on one rank, B·S",
    "D": "width of the residual stream",
    "V": "vocabulary",
    "H": "query heads",
    "G": "key-value heads",
    "C": "width of a head",
    "J": "half of a head's width, C/2",
    "Y": "width of queries, keys and values side by side, (H + 2G)·C",
    "E": "experts of a layer",
    "L": "experts of a layer on one rank, E over the expert-parallel degree",
    "K": "experts of a token",
    "Q": "rows that the experts of the busiest rank receive",
    "F": "hidden width of an expert or of a dense feed-forward",
    "M": "rows that each expert takes, its capacity",
    "W": "hidden width of the shared experts",
    "R": "tokens whose logits are held at a time",
    "X": "chunks of the tokens of a micro-batch",
    "P": "positions of the rotary tables",
    "N": "MoE layers of the model",
    "A": "tensors among the parameters",
    "g": "ranks among which rows travel to their experts",
    "p": "of these, ranks that hold different experts",
    "z": "of these, ranks that hold a slice of the same experts",
    "s": "ranks over which a parameter that all hold whole is sharded",
    "t": "ranks over which a slice of attention or of a dense feed-forward is sharded",
    "e": "ranks over which an expert is sharded",
    "gathered": "bytes of the all-gather that ran last in the stretch before",
    "prefetched": "bytes gathered ahead for the stretch that backward runs next",
    "reduced": "bytes that the reduce-scatter of the stretch before in backward still holds",
}
"""What each symbol stands for. Symbols of a block (H, G, C, J, Y, E, L, K, Q, F, M, W) are its own."""

Bindings = Mapping[str, float]


@dataclass(frozen=True)
class Part:
    """What the first of several ranks holds of a dimension that they cut: dimension / parts, rounded up. Stands among the symbols of a size."""

    dimension: "Size"
    parts: str

    def __str__(self) -> str:
        return f"⌈{self.dimension}/{self.parts}⌉"


Symbol = str | Part


def value_of(symbol: Symbol, bindings: Bindings) -> float:
    """The number that a symbol stands for."""
    return bindings[symbol] if isinstance(symbol, str) else ceil(symbol.dimension.at(bindings) / bindings[symbol.parts])


@dataclass(frozen=True)
class Size:
    """``factor`` times the product of ``symbols`` (sorted; repeated for powers)."""

    factor: int = 1
    symbols: tuple[Symbol, ...] = ()

    def __mul__(self, other: "Size | int") -> "Size":
        if isinstance(other, int):
            return Size(self.factor * other, self.symbols)
        return Size(self.factor * other.factor, tuple(sorted(self.symbols + other.symbols, key=str)))

    __rmul__ = __mul__

    @property
    def by_sequence(self) -> "Size":
        """The same with tokens as sequences times positions, so that equal numbers of elements are equal."""
        symbols = [part for symbol in self.symbols for part in (("B", "S") if symbol == "T" else (symbol,))]
        return Size(self.factor, tuple(sorted(symbols, key=str)))

    def at(self, bindings: Bindings) -> float:
        """The number for given symbols."""
        return self.factor * prod(value_of(symbol, bindings) for symbol in self.symbols)

    def __str__(self) -> str:
        words = [str(self.factor)] if self.factor != 1 or not self.symbols else []
        return "·".join([*words, *map(str, self.symbols)])


@dataclass(frozen=True)
class Total:
    """The sum of sizes."""

    sizes: tuple[Size, ...]

    def at(self, bindings: Bindings) -> float:
        """The number for given symbols."""
        return sum(size.at(bindings) for size in self.sizes)

    def __str__(self) -> str:
        return " + ".join(map(str, self.sizes))


ONE = Size()
ZERO = Size(0)


def symbol(name: str) -> Size:
    """The size that is one symbol of ``SYMBOLS``."""
    if name not in SYMBOLS:
        raise KeyError(name)
    return Size(1, (name,))


def part(dimension: Size, parts: str) -> Size:
    """The size that is one part of ``dimension``."""
    return Size(1, (Part(dimension, parts),))


def product(sizes: tuple[Size, ...]) -> Size:
    """The number of elements of a shape."""
    result = ONE
    for size in sizes:
        result = result * size
    return result


B, S, T, D, V, H, G, C, J, E, L, K, Q, F, M, W, R, X, Y, P, N, A = (symbol(name) for name in "BSTDVHGCJELKQFMWRXYPNA")
