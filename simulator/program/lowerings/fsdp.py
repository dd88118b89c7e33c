"""Gathering, freeing and scattering of a unit of sharded parameters, as PyTorch's ``fully_shard`` does it.

Buffers live as there: the result of an all-gather until the next one is copied out (forward) or it is copied out itself (backward), the input of a
reduce-scatter until the next unit's gradients are there. Parameters cut along another dimension than the first are rearranged through copies.

``calls``: what its hooks ask PyTorch's dispatcher for beside kernels and collectives: allocations, views, operators around operators. Freeing asks for none.
``hooks``: one for each gathering and each reduction, for the Python around these calls.
"""

from functools import partial

from simulator.components import Component, Kind, Role
from simulator.program.graph import ItemKind, Node, Value
from simulator.program.operations import Exchange, Operation, Stream
from simulator.program.rewrites.fsdp import Sharding, Unit, UnitNode
from simulator.program.rewrites.layout import Share
from simulator.program.sizes import Total, symbol
from simulator.program.tape import Backward, Forward, Lowering, Tape

CAST_CALLS = 2
"""A buffer, its split into shards."""

GATHER_CALLS = 5
"""A buffer, the operator that copies in, in it this rank's part, its split and the copy."""

COPY_IN_CALLS = 3
"""A buffer, a view of it by rank, the operator around the kernel."""


REARRANGING_CALLS = 4
"""Of each parameter: a buffer, views of it and of the result, chunks."""


def sharding_lowerings(how: Sharding) -> dict[str, Lowering]:
    """Lowerings of a unit's beginning and end."""
    return {"gather": partial(_gather, how), "reshard": partial(_reshard, how)}


def _gather(how: Sharding, tape: Forward, node: Node) -> None:
    assert isinstance(node, UnitNode)
    unit = node.unit
    if tape.again:
        if unit.recomputed and how.stage == 3:
            _collect(tape, unit, how)
            _copy_out(tape, unit, unit.gathered())
    elif how.stage == 3 or tape.turn.first:
        _collect(tape, unit, how)
        previous = [] if unit.end else unit.before.gathered() if unit.before else [_carried("gathered")]
        _copy_out(tape, unit, previous)
    # It hangs onto the input of the unit's first module.
    tape.hook(partial(_scatter, how, unit), inside=unit.inner)


def _reshard(how: Sharding, tape: Forward, node: Node) -> None:
    assert isinstance(node, UnitNode)
    unit = node.unit
    if how.stage == 3 and not tape.again:
        tape.operations[-1].frees += unit.buffer()
    if unit.end and (how.stage == 3 or tape.turn.first):
        # The root's forward pass is over, and with it the last all-gather of all.
        assert unit.ahead is not None
        tape.operations[-1].frees += unit.ahead.gathered()
    tape.hook(partial(_gather_again, how, unit))


def _gather_again(how: Sharding, unit: Unit, back: Backward) -> None:
    """Before the unit's backward; then its neighbour is gathered ahead."""
    if how.stage != 3:
        return
    if unit.end:
        _collect(back, unit, how)
    if not unit.recomputed:
        _copy_out(back, unit, unit.gathered())
    if unit.ahead is not None:
        if not unit.ahead.recomputed:
            _collect(back, unit.ahead, how)
    else:
        # Norms and router of the block below, which are whole on every rank.
        _all_gather(back, [_carried("prefetched")], how, Share.WHOLE)


def _carried(name: str) -> Value:
    return Value(name, (symbol(name),), ItemKind.BOOL, Role.COMMUNICATION, Component.PARAMETER_GATHER)


def _collect(tape: Tape, unit: Unit, how: Sharding) -> None:
    """All-gather, after a cast of the shards where another type is computed in."""
    narrow = _narrow(unit)
    if unit.copied:
        return
    if unit.shards[0].item != unit.whole[0].item:
        tape.component = Component.PARAMETER_GATHER
        tape.emit("_foreach_copy_", Kind.POINTWISE, (), (), traffic=(*unit.shards, *narrow), calls=CAST_CALLS).allocates += narrow
        _all_gather(tape, unit.buffer(), how, unit.share).frees += narrow
    else:
        _all_gather(tape, unit.buffer(), how, unit.share)


def _narrow(unit: Unit) -> list[Value]:
    return [Value(f"{shard.name}.cast", shard.shape, whole.item, Role.COMMUNICATION) for shard, whole in zip(unit.shards, unit.whole, strict=True)]


def _all_gather(tape: Tape, result: list[Value], how: Sharding, share: Share) -> Operation:
    exchange = Exchange("all-gather", dict(how.gathers)[share], Total(tuple(value.bytes for value in result)))
    with tape.within(Component.PARAMETER_GATHER):
        operation = tape.emit("_allgather_base_", Kind.COLLECTIVE, (), (), exchange=exchange, traffic=(), stream=Stream.GATHER, calls=GATHER_CALLS, hooks=1)
    operation.allocates += result
    return operation


def _copy_out(tape: Tape, unit: Unit, done: list[Value]) -> None:
    """Into whole parameters; buffers that are ``done`` with are let go of afterwards."""
    if unit.copied:
        _copy(tape, unit, done)
        return
    rearranged = [value for value, axis in zip(unit.buffer(), unit.axes, strict=True) if axis]
    with tape.within(Component.PARAMETER_GATHER):
        moved, calls = (*unit.buffer(), *unit.buffer()), 2 + len(unit.whole)
        copy = tape.emit("split_with_sizes_copy", Kind.POINTWISE, (), (), traffic=moved, after=Stream.GATHER, calls=calls)
        copy.allocates += [*unit.buffer(), *rearranged]
        for value in rearranged:
            copy = tape.emit("cat", Kind.POINTWISE, (), (), traffic=(value, value), calls=REARRANGING_CALLS)
        copy.frees += rearranged
    copy.frees += done


def _copy(tape: Tape, unit: Unit, done: list[Value]) -> None:
    """One parameter after another; a cast has a name until the next one has it."""
    casts = _narrow(unit) if unit.shards[0].item != unit.whole[0].item else []
    with tape.within(Component.PARAMETER_GATHER):
        for index, whole in enumerate(unit.buffer()):
            copy = tape.emit("copy_", Kind.POINTWISE, (), (), traffic=(whole, whole), hooks=int(not index))
            copy.allocates += [whole, *casts[index : index + 1]]
            copy.frees += casts[index - 1 : index] if index else []
    copy.frees += [*done, *casts[-1:]]


def _scatter(how: Sharding, unit: Unit, back: Backward) -> None:
    """After the unit's backward: its parameters are freed, its gradients summed, every rank keeping its shard."""
    if how.stage == 3 or back.turn.last:
        back.operations[-1].frees += unit.buffer()
    if unit.behind is None:
        back.operations[-1].frees.append(_carried("reduced"))
    elif not (unit.behind.end and back.turn.first):
        back.operations[-1].frees += unit.behind.buffer(unit.behind.shards[0].item)
    gradients = [back.taken.pop(whole) for whole in unit.whole]
    with back.within(Component.GRADIENT_SYNC):
        held = [] if unit.copied else _rearranged(back, unit, gradients)
        into = unit.buffer(unit.shards[0].item)
        back.emit("chunk_cat", Kind.POINTWISE, gradients, (), traffic=(*gradients, *into), after=Stream.REDUCE, calls=COPY_IN_CALLS, hooks=1).allocates += into
        for gradient in gradients:
            if gradient not in held:
                back.drop(gradient)
        out = [Value(f"{shard.name}.grad", shard.shape, shard.item, Role.GRADIENT, shard.component) for shard in unit.shards]
        if unit.copied:
            operation = back.emit("copy_", Kind.POINTWISE, (), (), traffic=(*out, *out))
        else:
            exchange = Exchange("reduce-scatter", dict(how.gathers)[unit.share], Total(tuple(value.bytes for value in into)))
            operation = back.emit("_reduce_scatter_base_", Kind.COLLECTIVE, (), (), exchange=exchange, traffic=(), stream=Stream.REDUCE, calls=1 + len(out))
        operation.allocates += out
        if how.copying or unit.copied:
            copy = unit.buffer(unit.shards[0].item)
            operation.allocates += copy
            operation.frees += copy
        for gradient in held:
            back.drop(gradient)
        if back.turn.last and (group := dict(how.copies).get(unit.share)) is not None:
            exchange = Exchange("all-reduce", group, Total(tuple(value.bytes for value in out)))
            back.emit("allreduce_", Kind.COLLECTIVE, (), (), exchange=exchange, traffic=(), stream=Stream.REDUCE)
        if not back.turn.first:
            back.emit("add_", Kind.POINTWISE, (), (), traffic=(*out, *out, *out), calls=len(out) - 1).frees += out
        if unit.end and back.turn.last:
            back.operations[-1].frees += into


def _rearranged(back: Backward, unit: Unit, gradients: list[Value]) -> list[Value]:
    """Chunks of gradients cut along another dimension than the first, one below the other, in place of these. Returns the gradients that have a name until
    the reduce-scatter is done: the last, and the last that was rearranged."""
    held = [gradients[-1]]
    previous: Value | None = None
    for index, axis in enumerate(unit.axes):
        if not axis:
            continue
        gradient = gradients[index]
        if previous is not None and previous not in held:
            back.drop(previous)
        gradients[index] = back.new("chunks", gradient.shape, gradient.item)
        back.emit("cat", Kind.POINTWISE, (gradient,), (gradients[index],), calls=1)
        previous = gradient
    if previous is not None and previous not in held:
        held.append(previous)
    return held
