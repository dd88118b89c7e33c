"""Fully sharded data parallelism: ranks hold shards of parameters, gradients and states; parameters are gathered for their use unit by unit.

Units: the matrices of a block; its norms and router; the final norm; the embedding with the head. Matrices that different ranks share (experts, slices) are
units of their own, as is each kind where anything is recomputed. As PyTorch's ``fully_shard`` does it (Zhao et al. 2023,
arXiv 2304.11277): ZeRO-3 frees what it gathered after the unit's forward pass and gathers it again, one unit ahead, in backward; ZeRO-2 keeps it until the
last backward pass of the step. Twin: ``trainer/parallel/fully_sharded.py``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

from simulator.components import Component, Role
from simulator.program.graph import Graph, ItemKind, Node, Value
from simulator.program.rewrites.layout import REPLICA, SHARD, Share, cut, share_of, sharing_group
from simulator.program.sizes import Bindings, C, D, E, F, G, H, L, Size, part, symbol
from simulator.specs import Plan

PARTS = {Share.WHOLE: "s", Share.SLICED: "t", Share.EXPERT: "e"}
"""Symbol of the number of shards."""

EXCHANGES = ("exchange_counts", "order_local", "copy_rows", "exchange", "reorder", "sum_slices")
"""What the rewrites for expert parallelism put around the experts."""


@dataclass(frozen=True)
class Sharding:
    """What a plan shards. ``apart``: experts, shared experts and projections are units of their own even where the same ranks share them.

    ``copying``: reduce-scatters work on a copy of their input, as gloo's do. ``gathers``: group that gathers and scatters by share, empty where a rank holds
    its copy whole; ``copies``: replicas that then sum.
    """

    stage: int
    apart: bool
    copying: bool
    gathers: tuple[tuple[Share, str], ...]
    copies: tuple[tuple[Share, str], ...]


def sharding(plan: Plan, *, on_cpu: bool) -> Sharding | None:
    """How ``plan`` shards; None without sharding. Parameters that no other rank holds are left alone."""
    if not plan.zero_stage:
        return None
    shards = {share: sharing_group(plan, share, SHARD) for share in Share}
    copies = {share: sharing_group(plan, share, REPLICA) for share in Share}
    taking = [share for share in Share if shards[share] or copies[share]]
    return Sharding(
        plan.zero_stage,
        plan.recomputation != "none",
        on_cpu,
        tuple((share, shards[share] or "") for share in taking),
        tuple((share, group) for share, group in copies.items() if group),
    )


def shard_numbers(plan: Plan) -> dict[str, float]:
    """Shards of each kind of parameter."""
    return {name: float(cut(plan, share)[SHARD]) for share, name in PARTS.items()}


@dataclass(eq=False)
class Unit:
    """Parameters that are gathered and freed as one: ``shards`` of them, and the ``whole`` ones in the type that is computed in.

    ``axes``: the dimension of each that is cut. ``before``: the unit gathered before it; ``ahead``: the one that its backward gathers ahead;
    ``behind``: the one whose gradients were scattered before its own. Of these None is one of the neighbouring stretch, unless the unit is an ``end``.
    ``copied``: every replica holds it whole, and uses a copy.
    """

    name: str
    share: Share
    copied: bool
    shards: list[Value]
    whole: list[Value]
    axes: list[int]
    before: "Unit | None" = None
    ahead: "Unit | None" = None
    behind: "Unit | None" = None
    end: bool = False
    inner: bool = False
    """Begins with one matrix, whose input others read too: block and experts are modules with all readers of theirs inside."""
    recomputed: bool = False
    """Gathered by the second run of a stretch, and kept from there on: that begins before backward comes to the unit."""

    def buffer(self, item: ItemKind | None = None, role: Role = Role.COMMUNICATION) -> list[Value]:
        """Storage for all of it, padded to whole shards; in the type that is gathered unless ``item`` says another."""
        times = symbol(PARTS[self.share])
        return [
            Value(f"{whole.name}.all", (times, *shard.shape), item or whole.item, role, Component.PARAMETER_GATHER)
            for whole, shard in zip(self.whole, self.shards, strict=True)
        ]

    def gathered(self) -> list[Value]:
        """The result of its all-gather, before it is copied out."""
        return [] if self.copied else self.buffer()

    def gathered_bytes(self, bindings: Bindings) -> float:
        """Bytes of the result of its all-gather."""
        return sum(value.bytes.at(bindings) for value in self.gathered())

    def scattered_bytes(self, bindings: Bindings) -> float:
        """Bytes of the input of its reduce-scatter."""
        return sum(value.bytes.at(bindings) for value in self.buffer(self.shards[0].item))


@dataclass(frozen=True)
class UnitNode(Node):
    """``gather`` before a unit's first use, ``reshard`` after its last."""

    unit: Unit = field(kw_only=True)


def even_rows(plan: Plan, numbers: Bindings) -> frozenset[Size]:
    """First dimensions of slices and experts that shards cut: no slice cuts them, and the shards divide them. Twin: ``shard_axis`` of the trainer."""
    if not plan.zero_stage:
        return frozenset()
    free = {Share.SLICED: (H * C, G * C, F) if plan.tp == 1 else (), Share.EXPERT: (E, L) if plan.ep == 1 else ()}
    known = [(share, rows) for share, sizes in free.items() for rows in sizes if numbers.keys() >= set(rows.symbols)]
    return frozenset(rows for share, rows in known if not rows.at(numbers) % cut(plan, share)[SHARD])


def make_unit(name: str, parameters: Iterable[Value], share: Share, how: Sharding, *, master: bool = False, even: frozenset[Size] = frozenset()) -> Unit:
    """A unit; ``master``: computed in the type of the parameters. Slices and experts are cut along a first dimension that is ``even``, else along the width."""
    unit = Unit(name, share, not dict(how.gathers)[share], [], [], [])
    for parameter in parameters:
        axis = 0 if share_of(parameter.component) is Share.WHOLE or parameter.shape[0] in even else parameter.shape.index(D)
        cut_shape = tuple(part(size, PARTS[share]) if place == axis else size for place, size in enumerate(parameter.shape))
        unit.shards.append(replace(parameter, shape=cut_shape))
        item = ItemKind.MASTER if master else ItemKind.COMPUTE
        unit.whole.append(replace(parameter, item=item, role=Role.COMMUNICATION))
        unit.axes.append(axis)
    return unit


def shard_block(graph: Graph, how: Sharding, even: frozenset[Size]) -> list[Unit]:
    """Rewrite a block in place; its units in the order in which they are gathered. ``even``: what ``even_rows`` says of its numbers."""
    shares = {"projections": Share.SLICED, "shared": Share.WHOLE, "experts": Share.EXPERT}
    belongs: dict[str, list[Value]] = {"block": [], **{kind: [] for kind in shares}}
    for parameter in graph.parameters:
        share = share_of(parameter.component)
        kind = {Share.SLICED: "projections", Share.EXPERT: "experts"}.get(share, "shared" if parameter.component is Component.SHARED_EXPERTS else "block")
        if share not in dict(how.gathers):
            continue
        if kind != "block" and not how.apart:
            kind = next(other for other in shares if _same_ranks(how, share, shares[other]))
        belongs[kind].append(parameter)
    units = [make_unit(kind, values, shares.get(kind, Share.WHOLE), how, master=kind == "block", even=even) for kind, values in belongs.items() if values]
    for unit in units:
        unit.inner = unit.name in ("projections", "shared")
    substitute(graph, units)
    spans = {unit: (0, len(graph.nodes)) if unit.name == "block" else _span(graph, unit) for unit in units}
    place(graph, spans)
    units.sort(key=lambda unit: spans[unit][0])
    _chain(units, sorted(units, key=lambda unit: spans[unit][1] + (unit.name == "block")))
    return units


def _same_ranks(how: Sharding, share: Share, other: Share) -> bool:
    return all(dict(groups).get(share) == dict(groups).get(other) for groups in (how.gathers, how.copies))


def _chain(gathered: list[Unit], freed: list[Unit]) -> None:
    """Who comes before whom, given the order of the units' beginnings and of their ends in the forward pass."""
    for earlier, later in pairwise(gathered):
        later.before, earlier.behind = earlier, later
    for earlier, later in pairwise(freed):
        later.ahead = earlier


def shard_ends(first: Graph, last: Graph, how: Sharding) -> tuple[Unit, Unit]:
    """Rewrite embedding and head in place, which are one unit (the root) beside the final norm."""
    root = make_unit("root", [*first.parameters, *(value for value in last.parameters if value.name == "head")], Share.WHOLE, how)
    norm = make_unit("final_norm", [value for value in last.parameters if value.name == "final_norm"], Share.WHOLE, how, master=True)
    substitute(first, [root])
    substitute(last, [root, norm])
    root.end = True
    norm.behind, root.ahead = root, norm
    first.nodes.insert(0, UnitNode("gather", Component.PARAMETER_GATHER, (), (), unit=root))
    place(last, {norm: _span(last, norm)})
    last.nodes.append(UnitNode("reshard", Component.PARAMETER_GATHER, (), (), unit=root))
    return root, norm


def substitute(graph: Graph, units: list[Unit]) -> None:
    """Let nodes take whole parameters, and the graph own their shards."""
    whole = {old: new for unit in units for old, new in zip(_originals(graph, unit), unit.whole, strict=True) if old is not None}
    shard = {old: new for unit in units for old, new in zip(_originals(graph, unit), unit.shards, strict=True) if old is not None}
    graph.nodes[:] = [replace(node, inputs=_exchanged(node.inputs, whole), holds=_exchanged(node.holds, whole)) for node in graph.nodes]
    graph.parameters[:] = [shard.get(value, value) for value in graph.parameters]


def _originals(graph: Graph, unit: Unit) -> list[Value | None]:
    named = {value.name: value for node in graph.nodes for value in node.inputs if value.role is Role.PARAMETER}
    return [named.get(value.name) for value in unit.whole]


def _exchanged(values: tuple[Value, ...], instead: Mapping[Value, Value]) -> tuple[Value, ...]:
    return tuple(instead.get(value, value) for value in values)


def _span(graph: Graph, unit: Unit) -> tuple[int, int]:
    """From the unit's first use to after its last; experts are there while rows travel to them and back."""
    travels = EXCHANGES if unit.share is Share.EXPERT else ()
    used = [index for index, node in enumerate(graph.nodes) if set(node.inputs) & set(unit.whole) or node.operation in travels]
    return used[0], used[-1] + 1


def place(graph: Graph, spans: Mapping[Unit, tuple[int, int]]) -> None:
    """Put gathers and reshards around the spans of the units."""
    nodes: list[Node] = []
    for index in range(len(graph.nodes) + 1):
        ending = sorted((unit for unit, (_, end) in spans.items() if end == index), key=lambda unit: -spans[unit][0])
        nodes += [UnitNode("reshard", Component.PARAMETER_GATHER, (), (), unit=unit) for unit in ending]
        nodes += [UnitNode("gather", Component.PARAMETER_GATHER, (), (), unit=unit) for unit, (begin, _) in spans.items() if begin == index]
        nodes += graph.nodes[index : index + 1]
    graph.nodes[:] = nodes


def carried(units: list[list[Unit]], counts: list[int], bindings: list[dict[str, float]], root: Unit, norm: Unit) -> list[list[tuple[int, dict[str, float]]]]:
    """What neighbouring stretches hand on, as numbers: for every stretch (embedding, blocks, head) its runs in a row with equal numbers.

    ``units``: of each stretch of blocks in the order in which they are gathered; ``counts``: how often it runs; ``bindings``: of all stretches.
    """
    blocks = list(zip(units, counts, bindings[1:-1], strict=True))
    forward = [root.gathered_bytes(bindings[0]), *(row[-1].gathered_bytes(numbers) for row, _, numbers in blocks)]
    ahead = [0.0, *(row[0].gathered_bytes(numbers) for row, _, numbers in blocks)]
    behind = [*(row[0].scattered_bytes(numbers) for row, _, numbers in blocks), norm.scattered_bytes(bindings[-1])]
    runs: list[list[tuple[int, dict[str, float]]]] = [[(1, {"reduced": behind[0]})]]
    for place, (_, count, _) in enumerate(blocks):
        own: list[tuple[int, dict[str, float]]] = []
        for run in range(count):
            numbers = {
                "gathered": forward[place if run == 0 else place + 1],
                "prefetched": ahead[place if run == 0 else place + 1],
                "reduced": behind[place + 1 if run == count - 1 else place],
            }
            if own and own[-1][1] == numbers:
                own[-1] = (own[-1][0] + 1, numbers)
            else:
                own.append((1, numbers))
        runs.append(own)
    return [*runs, [(1, {"gathered": forward[-1], "prefetched": ahead[-1]})]]
