"""From operations to kernels, as a compiler for accelerators fuses them (Ansel et al. 2024, PyTorch 2, section 4; ``torch/_inductor/scheduler.py``).

A pointwise value that nothing needs in memory is computed wherever it is read. What has to be in memory: results that leave, that a kernel of its own reads, or
a ``cat``; results of reductions and scatters; and pointwise values of several readers that read more than ``READS_THRESHOLD`` values themselves.
Kernels that make these are joined where they run over the same rows: with what they read, unless it is looked up at other places or summed over the
rows, and with others that read the same. A kernel then reads each value once and writes what is read outside of it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from simulator.components import Kind
from simulator.program.graph import Value
from simulator.program.operations import Operation
from simulator.program.sizes import ONE, Size, Symbol

READS_THRESHOLD = 4
"""``realize_reads_threshold`` of ``torch/_inductor/config.py``."""

Symbols = tuple[Symbol, ...]
"""Sorted."""

FUSED = (Kind.POINTWISE, Kind.REDUCE, Kind.GATHER, Kind.SCATTER)


def fuse(operations: Sequence[Operation], leaving: Collection[Value], *, few_experts: bool) -> list[Operation]:
    """Kernels of functional ``operations``, in order. ``leaving``: storages read later; ``few_experts``: sums over those of a token are written out."""
    groups = _groups(_Units(few_experts, set(leaving)).of(operations))
    return [kernel for group in _in_order(groups) for kernel in _kernels(group, groups, set(leaving))]


@dataclass(eq=False)
class _Group:
    """Operations that one kernel does, in order.

    ``reads``: storages that it reads from memory; ``makes``: those that it may write there. ``space``: symbols of what it goes through; ``sums``: those of what
    its reductions leave, one for each.
    """

    operations: list[Operation]
    reads: set[Value]
    makes: set[Value]
    space: Symbols
    sums: list[tuple[Operation, Symbols]]
    fused: bool
    needs: "set[_Group]" = field(default_factory=set)

    def behind(self) -> "set[_Group]":
        """All that it hangs on."""
        found: set[_Group] = set()
        waiting = [*self.needs]
        while waiting:
            group = waiting.pop()
            if group not in found:
                found.add(group)
                waiting += group.needs
        return found


def _is_fused(operation: Operation) -> bool:
    return operation.kind in FUSED and not operation.opaque


@dataclass
class _Units:
    """One group for each operation whose result has to be in memory, with what is computed on the way."""

    few_experts: bool
    leaving: set[Value]
    readers: dict[Value, list[Operation]] = field(default_factory=dict)

    def of(self, operations: Sequence[Operation]) -> list[_Group]:
        """The groups of ``operations``, in order."""
        for operation in operations:
            for storage in dict.fromkeys(value.storage for value in operation.reads):
                self.readers.setdefault(storage, []).append(operation)
        inlined: dict[Value, list[Operation]] = {}
        frontier: dict[Value, set[Value]] = {}
        units: list[_Group] = []
        for operation in operations:
            chain = [*dict.fromkeys([*(step for value in operation.reads for step in inlined.get(value.storage, [])), operation])]
            reads = {storage for value in operation.reads for storage in frontier.get(value.storage, {value.storage})}
            if _is_fused(operation) and not self._realised(operation, reads):
                for value in operation.writes:
                    inlined[value.storage], frontier[value.storage] = chain, reads
                continue
            sums = [(operation, _symbols(operation.writes[0].elements))] if self._reduces(operation) else []
            space = _symbols((operation.reads if sums else operation.writes)[0].elements)
            units.append(_Group(chain, reads, {value.storage for value in operation.writes}, space, sums, _is_fused(operation)))
        return units

    def _realised(self, operation: Operation, reads: set[Value]) -> bool:
        if self._reduces(operation) or operation.kind is Kind.SCATTER or operation.name == "cat":
            return True
        for value in operation.writes:
            users = self.readers.get(value.storage, [])
            if value.storage in self.leaving or any(not _is_fused(user) or user.name == "cat" for user in users):
                return True
            if len(users) > 1 and len(reads) > READS_THRESHOLD:
                return True
        return False

    def _reduces(self, operation: Operation) -> bool:
        if operation.kind is not Kind.REDUCE:
            return False
        given, made = (_symbols(value.elements) for value in (operation.reads[0], operation.writes[0]))
        return given != made and not (self.few_experts and given == _sorted(("K", *made)))


def _symbols(size: Size) -> Symbols:
    return size.by_sequence.symbols


def _sorted(symbols: Iterable[Symbol]) -> Symbols:
    return tuple(sorted(symbols, key=str))


def _contains(space: Symbols, other: Symbols) -> bool:
    left = list(space)
    for symbol in other:
        if symbol not in left:
            return False
        left.remove(symbol)
    return True


def _groups(units: Sequence[_Group]) -> list[_Group]:
    """Join units in order, each to the latest group that it may go with."""
    groups: list[_Group] = []
    maker: dict[Value, _Group] = {}
    for unit in units:
        unit.needs = {maker[storage] for storage in unit.reads if storage in maker}
        home = next((group for group in _candidates(unit, groups) if _joins(unit, group)), None) if unit.fused else None
        if home is None:
            groups.append(unit)
            home = unit
        else:
            home.operations = [*dict.fromkeys([*home.operations, *unit.operations])]
            home.reads |= unit.reads - home.makes
            home.makes |= unit.makes
            home.sums += unit.sums
            home.space = max(home.space, unit.space, key=len)
            home.needs |= unit.needs - {home}
        for storage in unit.makes:
            maker[storage] = home
    return groups


def _candidates(unit: _Group, groups: Sequence[_Group]) -> Iterable[_Group]:
    """Those it reads from, the latest first; then those that read the same."""
    latest = list(reversed(groups))
    yield from (group for group in latest if group in unit.needs)
    yield from (group for group in latest if group not in unit.needs and group.reads & unit.reads)


def _joins(unit: _Group, group: _Group) -> bool:
    if not group.fused or not _over_the_same(unit, group):
        return False
    if group not in unit.needs and group.space != unit.space:
        return False
    if any(group in other.behind() for other in unit.needs - {group}):
        return False
    across = {value.storage for operation, _ in group.sums if _sums_over_rows(operation) for value in operation.writes}
    across |= {value.storage for operation in group.operations if operation.kind is Kind.SCATTER for value in operation.writes}
    looked_up = {operation.reads[0].storage for operation in unit.operations if operation.kind is Kind.GATHER}
    return not unit.reads & across and not looked_up & group.makes


def _over_the_same(unit: _Group, group: _Group) -> bool:
    """Whether one loop does for both: over the same, or over what reductions of the one leave."""
    if unit.sums and group.sums:
        return unit.space == group.space
    summing, other = (unit, group) if unit.sums else (group, unit)
    return other.space in (summing.space, *(left for _, left in summing.sums))


def _sums_over_rows(operation: Operation) -> bool:
    """Whether a reduction leaves nothing of the tokens: each block of a kernel has summed over its own."""
    return "S" not in _symbols(operation.writes[0].elements)


def _in_order(groups: Sequence[_Group]) -> list[_Group]:
    """Each after what it hangs on, otherwise as they are."""
    found: dict[_Group, None] = {}

    def visit(group: _Group) -> None:
        if group in found:
            return
        for need in groups:
            if need in group.needs:
                visit(need)
        found[group] = None

    for group in groups:
        visit(group)
    return list(found)


def _kernels(group: _Group, groups: Sequence[_Group], leaving: set[Value]) -> Iterator[Operation]:
    """The kernel, and one that adds up what each of its blocks summed over its rows."""
    (*_, last) = group.operations
    if not group.fused:
        yield last
        return
    outside = {storage for other in groups if other is not group for storage in other.reads} | leaving
    writes = [value for step in group.operations for value in step.writes if value.storage in group.makes and value.storage in outside]
    reads = [value for step in group.operations for value in _read(step) if value.storage in group.reads]
    reads = list({(value.storage, value.name, value.elements): value for value in reads}.values())
    whole = {value.storage for value in reads if value.elements == value.storage.elements}
    reads = [value for value in reads if value.storage not in whole or value is next(read for read in reads if read.storage is value.storage)]
    scatters = any(step.kind is Kind.SCATTER for step in group.operations)
    kind = Kind.SCATTER if scatters else Kind.REDUCE if group.sums else Kind.POINTWISE
    name = "fused " + " ".join(dict.fromkeys(step.name for step in group.operations))
    moved = (*reads, *writes)
    yield replace(
        last, name=name, kind=kind, reads=tuple(reads), writes=tuple(writes), flops=None, gemm=None, launches=ONE, traffic=moved, allocates=[], frees=[],
        opaque=True,
    )  # fmt: skip
    for step, _ in group.sums:
        if _sums_over_rows(step) and len(group.operations) > 1:
            yield replace(step, reads=step.writes, traffic=step.writes, allocates=[], frees=[])


def _read(step: Operation) -> Iterable[Value]:
    """What it takes from memory: of a larger thing that it looks things up in, as much as it finds."""
    for place, value in enumerate(step.reads):
        found = step.writes[0]
        if step.kind is Kind.GATHER and place == 0 and not _contains(_symbols(found.elements), _symbols(value.elements)):
            yield value.viewed(found.shape)
        else:
            yield value
