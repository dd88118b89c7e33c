"""Build the program of a step: segments (embedding, block groups, head) with their forward and backward operations.

A segment depends on the structure alone (kinds of layers, implementations, precision), so it is built once and then evaluated
for any numbers; equal blocks are one segment and a count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import accumulate, groupby
from math import ceil
from typing import NamedTuple

from configuration.errors import ConfigurationError
from simulator.components import Component, Role
from simulator.program.graph import ITEM_BYTES, PRECISIONS, Graph, ItemKind, Value
from simulator.program.layers.attention import attention
from simulator.program.layers.dense import dense
from simulator.program.layers.ends import embedding, head
from simulator.program.layers.moe import moe
from simulator.program.lowerings.compiled import compiled_lowerings
from simulator.program.lowerings.fsdp import sharding_lowerings
from simulator.program.lowerings.registry import lowerings
from simulator.program.operations import Operation
from simulator.program.optimizer_phase import optimizer_phase
from simulator.program.parts import Pass, Program, Segment, Stretch, Wire
from simulator.program.rewrites.all_ranks import counts_of_a_stage
from simulator.program.rewrites.auxiliary_losses import attach, weigh
from simulator.program.rewrites.compiled import FEW_EXPERTS, compile_nodes, join_projections, lower_compiled
from simulator.program.rewrites.counts import count_over_ranks, counting_lowerings
from simulator.program.rewrites.data_parallel import without_copies_of_large
from simulator.program.rewrites.expert import EXPERT_PARALLEL_LOWERINGS, expert_parallel
from simulator.program.rewrites.expert_tensor import EXPERT_TENSOR_LOWERINGS
from simulator.program.rewrites.fsdp import Sharding, Unit, carried, even_rows, shard_block, shard_ends, shard_numbers, sharding
from simulator.program.rewrites.fused_cross_entropy import fuse_cross_entropy
from simulator.program.rewrites.gathering import gather_both_ways
from simulator.program.rewrites.layout import Share, share_of, sharing_group
from simulator.program.rewrites.packed import pack_experts
from simulator.program.rewrites.pipeline import ALONE, Place, actions, layers_of, layers_on
from simulator.program.rewrites.recompute import Recomputed, recompute
from simulator.program.rewrites.tensor import tensor_lowerings, tensor_parallel
from simulator.program.sizes import ONE, B, D, N, S, Size, T
from simulator.program.tape import ONLY, Backward, Forward, Turn
from simulator.specs import DenseFeedForward, ExpertLoad, Implementation, ModelSpec, MoeFeedForward, Plan
from simulator.specs.chunks import chunk_rows
from simulator.specs.model import BlockGroup

AGAIN = Turn(first=False, last=True)
TURNS = tuple(Turn(first, last) for first in (True, False) for last in (True, False))


@dataclass(frozen=True)
class _Structure:
    """What the operations of a segment depend on, and nothing else."""

    implementation: Implementation
    precision: str
    expert_parallel: bool
    expert_slices: bool
    bucketed: frozenset[Share]
    """Parameters whose gradients go into buckets that ranks sum."""
    sharding: Sharding | None
    sliced: bool
    counting_group: str | None
    """Ranks over whose tokens the balancing loss counts the experts' shares, where they are several."""
    pipelined: bool
    on_cpu: bool
    auxiliary_losses: tuple[str, ...]
    tied: bool
    uniform_routing: bool
    recomputation: str | tuple[str, ...]


def build_program(model: ModelSpec, plan: Plan, load: ExpertLoad | None = None, *, on_cpu: bool = False, stage: int = 0) -> Program:
    """The program of one step of ``model`` under ``plan`` on the rank whose experts receive most rows under ``load`` (uniform when None).

    ``on_cpu``: ranks are processes on CPUs, whose kernels and collectives differ from those on accelerators; ``stage``: of a pipeline.
    Raises ConfigurationError for what is not predicted.
    """
    if not plan.attention_across_documents:
        raise ConfigurationError("plan.attention_across_documents: false is not predicted, neither its mask nor the kernel that takes one (legal: true)")
    if plan.implementation.compile == "block" and plan.recomputation != "none":
        raise ConfigurationError(f"plan.recomputation {plan.recomputation} is not predicted with implementation.compile block (legal: none)")
    auxiliary = [("load_balancing", model.load_balancing_loss), ("router_z", model.router_z_loss)]
    names = tuple(name for name, coefficient in auxiliary if coefficient > 0 and model.moe_layers)
    structure = _Structure(
        plan.implementation, plan.precision, plan.ep * plan.etp > 1, plan.etp > 1, _bucketed(plan), sharding(plan, on_cpu=on_cpu), plan.tp > 1,
        _counting_group(plan), plan.pp > 1, on_cpu, names, model.tied_embeddings and plan.pp == 1, plan.routing == "uniform", plan.recomputation,
    )  # fmt: skip
    common: dict[str, float] = {
        "B": plan.micro_batch, "S": plan.sequence, "T": plan.own_tokens, "D": model.width,
        "V": model.vocabulary, "P": model.maximum_positions, "N": model.moe_layers,
    }  # fmt: skip
    rows = chunk_rows(plan.own_tokens, model.width, model.vocabulary)
    common |= {"R": rows, "X": ceil(plan.own_tokens / rows)}
    numbers = [common | _numbers(group, plan, load or ExpertLoad()) for group in model.blocks]
    pieces = [
        [without_copies_of_large(stretch, plan) for stretch in _piece(model, structure, common, numbers, number, plan)]
        for number in range(stage, plan.pp * plan.virtual_stages, plan.pp)
    ]
    stretches = _neighbouring(tuple(stretch for piece in pieces for stretch in piece), plan)
    widths = {group.mixer.head_width for group in model.blocks}
    biases = sum(stretch.count * value.elements.at(stretch.bindings) for stretch in stretches for value in stretch.segment.biases)
    ends = list(accumulate(len(piece) for piece in pieces)) if plan.pp > 1 else [len(stretches)]
    return Program(
        stretches,
        tuple(range(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)),
        tuple(actions(plan, stage)),
        optimizer_phase(stretches, plan, len(names), tuple(counts_of_a_stage(model, layers_on(plan, stage, model.layers), plan)), on_cpu=on_cpu),
        tuple(Turn(index == 0, index == plan.accumulation - 1) for index in range(plan.accumulation)),
        _wire(model, plan, stage) if plan.pp > 1 else None,
        model.maximum_positions * sum(widths) + int(biases),
    )


def _piece(model: ModelSpec, structure: _Structure, common: dict[str, float], numbers: Sequence[dict[str, float]], number: int, plan: Plan) -> list[Stretch]:
    """The stretches of one piece of the model: embedding, its run of layers, head; where they are its."""
    count = plan.pp * plan.virtual_stages
    start, finish = _ends(replace(structure, auxiliary_losses=()) if structure.pipelined else structure)
    layers = [index for index, group in enumerate(model.blocks) for _ in range(group.count)]
    run = layers_of(number, count, len(layers))
    kinds = [(layers[layer], Place(number > 0 and layer == run[0], number < count - 1 and layer == run[-1], plan.pp > 1 and layer == run[-1])) for layer in run]
    blocks = [
        Stretch(_block(structure, *_kinds(model.blocks[index]), place, even_rows(plan, numbers[index])), len(list(equal)), numbers[index])
        for (index, place), equal in groupby(kinds)
    ]
    return [*([Stretch(start, 1, common)] if number == 0 else []), *blocks, *([Stretch(finish, 1, common)] if number == count - 1 else [])]


def _wire(model: ModelSpec, plan: Plan, stage: int) -> Wire:
    numbers = range(stage, plan.pp * plan.virtual_stages, plan.pp)
    item = ITEM_BYTES[PRECISIONS[plan.precision][ItemKind.COMPUTE]]
    last = plan.pp * plan.virtual_stages - 1
    master = ITEM_BYTES[PRECISIONS[plan.precision][ItemKind.MASTER]]
    return Wire(
        plan.own_tokens * model.width * item,
        tuple(number > 0 for number in numbers),
        tuple(number < last for number in numbers),
        plan.schedule != "1f1b",
        model.vocabulary * model.width * master if model.tied_embeddings and stage in (0, plan.pp - 1) else 0,
    )


def _neighbouring(stretches: tuple[Stretch, ...], plan: Plan) -> tuple[Stretch, ...]:
    """Where parameters are sharded, stretches know what their neighbours hand on: the first and the last run of one may have others than the rest."""
    if not plan.zero_stage:
        return stretches
    known = [replace(stretch, bindings=stretch.bindings | shard_numbers(plan)) for stretch in stretches]
    root, norm = stretches[0].segment.units
    blocks = known[1:-1]
    runs = carried(
        [list(stretch.segment.units) for stretch in blocks], [stretch.count for stretch in blocks], [stretch.bindings for stretch in known], root, norm
    )
    return tuple(Stretch(stretch.segment, count, stretch.bindings | numbers) for stretch, own in zip(known, runs, strict=True) for count, numbers in own)


def _counting_group(plan: Plan) -> str | None:
    if plan.auxiliary_loss_scope == "global" and plan.stage_ranks > 1:
        return "stage"
    return "tensor" if plan.tp > 1 else None


def _bucketed(plan: Plan) -> frozenset[Share]:
    return frozenset() if plan.zero_stage else frozenset(share for share in Share if sharing_group(plan, share))


def _kinds(group: BlockGroup) -> tuple[str, DenseFeedForward | MoeFeedForward]:
    """What kind of block this is: numbers that change no operation are one."""
    feed_forward = group.feed_forward
    if isinstance(feed_forward, DenseFeedForward):
        return group.mixer.qk_norm, DenseFeedForward(hidden_width=1)
    scale = 1.0 if feed_forward.weight_scale == 1 else 2.0
    factor = None if feed_forward.capacity_factor is None else 1.0
    few_or_many = 1 if feed_forward.top_k <= FEW_EXPERTS else feed_forward.experts
    one = {
        "experts": few_or_many,
        "top_k": few_or_many,
        "expert_width": 1,
        "weight_scale": scale,
        "shared_width": min(feed_forward.shared_width, 1),
        "capacity_factor": factor,
    }
    return group.mixer.qk_norm, feed_forward.model_copy(update=one)


def _numbers(group: BlockGroup, plan: Plan, load: ExpertLoad) -> dict[str, float]:
    mixer, feed_forward = group.mixer, group.feed_forward
    numbers: dict[str, float] = {"H": mixer.heads // plan.tp, "G": mixer.kv_heads // plan.tp, "C": mixer.head_width, "J": mixer.head_width // 2}
    numbers["Y"] = (numbers["H"] + 2 * numbers["G"]) * mixer.head_width
    if isinstance(feed_forward, DenseFeedForward):
        return numbers | {"F": feed_forward.hidden_width // plan.tp}
    experts, top_k = feed_forward.experts, feed_forward.top_k
    capacity = feed_forward.capacity(plan.own_tokens)
    rows = load.most_rows(plan.own_tokens * top_k, experts, top_k, plan.ep) if capacity is None else experts * capacity
    return numbers | {
        "F": feed_forward.expert_width // plan.etp, "E": experts, "K": top_k,
        "L": experts // plan.ep, "Q": rows * plan.etp, "g": plan.ep * plan.etp, "p": plan.ep, "z": plan.etp,
        "M": capacity or 0, "W": feed_forward.shared_width,
    }  # fmt: skip


@lru_cache(maxsize=256)
def _block(structure: _Structure, qk_norm: str, feed_forward: DenseFeedForward | MoeFeedForward, place: Place, even: frozenset[Size]) -> Segment:
    graph = Graph("block")
    x = graph.input("x", (T, D), ItemKind.COMPUTE, Role.COMMUNICATION if place.received else Role.ACTIVATION)
    mixer = BlockGroup.model_fields["mixer"].annotation
    assert mixer is not None
    residual = attention(graph, x, mixer(heads=1, kv_heads=1, head_width=2, qk_norm=qk_norm))
    losses: list[Value] = []
    if isinstance(feed_forward, MoeFeedForward):
        residual, losses = moe(
            graph, residual, feed_forward,
            load_balancing="load_balancing" in structure.auxiliary_losses, router_z="router_z" in structure.auxiliary_losses,
            uniform=structure.uniform_routing,
        )  # fmt: skip
        if structure.implementation.permutation == "gather":
            gather_both_ways(graph)
        if structure.implementation.experts == "packed":
            pack_experts(graph)
        if structure.expert_parallel:
            expert_parallel(graph, sliced=structure.expert_slices)
    else:
        residual = dense(graph, residual)
    graph.outputs = [residual, *losses]
    if structure.sliced:
        tensor_parallel(graph)
    if structure.counting_group:
        count_over_ranks(graph)
    units = shard_block(graph, structure.sharding, even) if structure.sharding else []
    if structure.implementation.compile == "block":
        join_projections(graph, structure.implementation.rope)
    graph.resolve(structure.precision)
    if structure.implementation.compile == "block":
        compile_nodes(graph, graph.nodes, few_experts=not isinstance(feed_forward, MoeFeedForward) or feed_forward.top_k <= FEW_EXPERTS)
    return _segment(graph, structure, units, place=place)


@lru_cache(maxsize=64)
def _ends(structure: _Structure) -> tuple[Segment, Segment]:
    first = Graph("embedding")
    x, table = embedding(first)
    first.outputs = [x]
    last = Graph("head")
    incoming = last.input("x", (T, D), ItemKind.COMPUTE)
    total = head(last, incoming, table if structure.tied else None, structure.auxiliary_losses)
    last.outputs = [total]
    if structure.implementation.cross_entropy != "eager":
        fuse_cross_entropy(last)
    units = shard_ends(first, last, structure.sharding) if structure.sharding else ()
    for graph in (first, last):
        graph.resolve(structure.precision)
    if structure.implementation.compile == "block":
        compile_nodes(last, last.nodes[:1])
    finish = _segment(last, structure, units)
    start = _segment(first, structure, units, _left_by_head(last, units, structure))
    if not structure.pipelined:
        _frame(start, structure)
    return start, finish


def _left_by_head(last: Graph, units: Sequence[Unit], structure: _Structure) -> dict[Value, Value]:
    """Gradients of parameters that the head made and the embedding's backward ends: of the tied table, and of all that are sharded with it."""
    table = next((value for node in last.nodes for value in node.inputs if value.name == "embedding"), None)
    left = [table] if table is not None else []
    left += [whole for unit in units for whole in unit.whole if unit.end and whole.name == "head"]
    role = Role.ACTIVATION if structure.implementation.cross_entropy == "chunked" else Role.TEMPORARY
    return {value: Value(f"{value.name}.grad", value.shape, value.item, role, Component.HEAD) for value in left}


def _frame(start: Segment, structure: _Structure) -> None:
    """Inputs begin with the first operation of the forward pass and end with the last of backward, as do the gradients of the
    layers' auxiliary losses, and the total loss and its gradient, which the caller holds until then."""
    inputs = [Value(name, (B * S,), ItemKind.INT64, Role.INPUT, Component.INPUTS) for name in ("inputs", "labels")]
    for forward in {id(run.forward): run.forward for run in start.passes.values()}.values():
        forward[0].allocates.extend(inputs)
    losses = [Value(name, (N,), ItemKind.FP32, Role.TEMPORARY, Component.TOTAL_LOSS) for name in structure.auxiliary_losses]
    scalars = [Value(name, (ONE,), ItemKind.FP32, role, Component.TOTAL_LOSS) for name, role in (("total", Role.ACTIVATION), ("ones", Role.TEMPORARY))]
    for backward in {id(run.backward): run.backward for run in start.passes.values()}.values():
        backward[-1].frees.extend([*inputs, *losses, *scalars])


def _segment(graph: Graph, structure: _Structure, units: Sequence[Unit], early: dict[Value, Value] | None = None, place: Place = ALONE) -> Segment:
    """``early``: gradients of parameters that a later stretch left."""
    made = {turn: _passes(graph, structure, units, early or {}, turn, place) for turn in (TURNS if structure.sharding else (ONLY, AGAIN))}
    first = made[ONLY]
    return Segment(
        graph.name,
        tuple(_in_module_order(graph.parameters) if graph.name == "block" else graph.parameters),
        {turn: Pass(*made[turn if structure.sharding else Turn(turn.first, last=True)][:2]) for turn in TURNS},
        tuple(graph.kept),
        tuple(graph.outputs),
        tuple(value for value in graph.inputs if value.name == "selection_bias"),
        tuple(first.tape.early_gradients),
        tuple(first.tape.arrivals),
        tuple(units),
    )


class _Passes(NamedTuple):
    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]
    tape: Backward


def _passes(graph: Graph, structure: _Structure, units: Sequence[Unit], early: dict[Value, Value], turn: Turn, place: Place) -> _Passes:
    table = lowerings(structure.implementation, on_cpu=structure.on_cpu) | EXPERT_PARALLEL_LOWERINGS | EXPERT_TENSOR_LOWERINGS
    if structure.counting_group:
        table |= counting_lowerings(structure.counting_group)
    if structure.sliced:
        table |= tensor_lowerings(on_cpu=structure.on_cpu)
    if structure.sharding is not None:
        table |= sharding_lowerings(structure.sharding)
    if structure.implementation.compile == "block":
        table |= {"compiled": partial(lower_compiled, table | compiled_lowerings(structure.implementation))}
    forward = Forward(turn)
    for node in graph.nodes:
        forward.lower(node, table)
    recomputed = recompute(graph, forward, structure.recomputation, table)
    forward.finish(graph, recomputed.saved)
    bucketed = frozenset(parameter for parameter in graph.parameters if share_of(parameter.component) in structure.bucketed)
    losses = len(graph.outputs) - 1 if structure.pipelined else 0
    if losses:
        weigh(forward, losses, sums=place.last)
    back = Backward(turn, bucketed)
    if losses:
        attach(back, losses, sums=place.last)
    _backward(graph, forward, recomputed, units, early, back, sent=place.sent)
    return _Passes(tuple(forward.operations), tuple(back.operations), back)


def _backward(graph: Graph, forward: Forward, recomputed: Recomputed, units: Sequence[Unit], early: dict[Value, Value], back: Backward, *, sent: bool) -> None:
    for output in graph.outputs:
        gradient = Value(f"{output.name}.grad", output.shape, output.item, Role.TEMPORARY, output.component)
        if graph.name == "head":
            back.component = output.component
            back.emit("ones_like", forward.operations[-1].kind, (output,), (gradient,))
            back.references[gradient] += 1  # autograd's caller holds it to the end
        elif output.shape == (ONE,):
            # One element of the gradient of all layers' losses, which the head's backward made and the embedding's ends.
            gradient.role = Role.BUFFER
        elif sent:
            gradient.role = Role.COMMUNICATION
        else:
            back.references[gradient] = 1
        back.gradients[output] = gradient
    for parameter, gradient in early.items():
        back.references[gradient] = 1
        (back.taken if parameter.name == "head" else back.gradients)[parameter] = gradient
    uses = dict.fromkeys((*graph.parameters, *(whole for unit in units for whole in unit.whole)), 1)
    if graph.name == "head":
        # The tied table's gradient waits for the embedding's.
        uses |= {value: 2 for node in graph.nodes for value in node.inputs if value.name == "embedding"}
    back.run(forward.autograd, uses, recomputed.spans)


def _in_module_order(parameters: list[Value]) -> list[Value]:
    """The trainer's order within a block: attention, then feed-forward; each as its module lists them."""
    order = ["attention_norm", "query", "key", "value", "output", "query_norm", "key_norm", "feed_forward_norm", "router", "gate", "up", "gate_up", "down"]
    order += ["shared_gate", "shared_up", "shared_down"]
    return sorted(parameters, key=lambda parameter: order.index(parameter.name))
