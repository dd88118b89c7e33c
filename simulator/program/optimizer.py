"""Clipping and AdamW over a run of parameters; twins: ``trainer/optimizer.py`` and PyTorch's clipping."""

from collections.abc import Sequence

from simulator.components import Component, Kind, Phase, Role
from simulator.program.graph import ItemKind, Value
from simulator.program.operations import Operation
from simulator.program.sizes import ONE, ZERO, A, Size
from simulator.program.tape import Tape


def gradient_norms(parameters: Sequence[Value]) -> list[Operation]:
    """The norm of the gradient of each of ``parameters``."""
    tape = _tape(Component.GRADIENT_CLIPPING)
    norms = tape.new("norms", (Size(len(parameters)),), ItemKind.FP32)
    _emit(tape, "linalg_vector_norm", Kind.REDUCE, (), (norms,), launches=Size(len(parameters)), traffic=parameters)
    return tape.operations


def total_norm(limit: bool) -> list[Operation]:
    """The norm of all gradients and, with a ``limit``, the number to scale them with."""
    tape = _tape(Component.GRADIENT_CLIPPING)
    norms, stacked = (tape.new(name, (A,), ItemKind.FP32) for name in ("norms", "stacked"))
    total, shifted, inverse, ratio, clamped = (tape.new(name, (ONE,), ItemKind.FP32) for name in ("total", "shifted", "inverse", "ratio", "clamped"))
    _emit(tape, "stack", Kind.POINTWISE, (), (stacked,))
    _emit(tape, "linalg_vector_norm", Kind.REDUCE, (stacked,), (total,), frees=(norms, stacked))
    if limit:
        _emit(tape, "add", Kind.POINTWISE, (total,), (shifted,))
        _emit(tape, "reciprocal", Kind.POINTWISE, (shifted,), (inverse,), frees=(shifted,))
        _emit(tape, "mul", Kind.POINTWISE, (inverse,), (ratio,), frees=(inverse,))
        _emit(tape, "clamp", Kind.POINTWISE, (ratio,), (clamped,), frees=(ratio,))
    return tape.operations


def gradient_scaling(parameters: Sequence[Value]) -> list[Operation]:
    """Each gradient times a number that lies on the device, in place."""
    tape = _tape(Component.GRADIENT_CLIPPING)
    number = tape.new("clamped", (ONE,), ItemKind.FP32)
    tape.emit("mul_", Kind.POINTWISE, (number, *parameters), parameters, launches=Size(len(parameters)), traffic=(*parameters, *parameters))
    return tape.operations


def fused_adamw(parameters: Sequence[Value]) -> list[Operation]:
    """AdamW over parameters, gradients and two moments without temporaries: reads all four, writes all but the gradients."""
    tape = _tape(Component.OPTIMIZER)
    _emit(tape, "_fused_adamw_", Kind.OPTIMIZER, (), (), launches=ZERO, traffic=tuple(parameters) * 7)
    return tape.operations


def fused_launches() -> list[Operation]:
    """The calls of the fused AdamW: for each weight-decay group one over the step counters and one over everything else."""
    tape = _tape(Component.OPTIMIZER)
    for _ in ("matrices", "vectors"):
        _emit(tape, "_foreach_add_", Kind.POINTWISE, (), ())
        _emit(tape, "_fused_adamw_", Kind.OPTIMIZER, (), ())
    return tape.operations


def split_adamw(parameters: Sequence[Value], *, on_cpu: bool) -> list[Operation]:
    """AdamW over bf16 parameters and the remainders of their fp32 weights; twin: ``trainer/split_adamw.py``. On CUDA one pass, launched for all of a group."""
    tape = _tape(Component.OPTIMIZER)
    if on_cpu:
        for parameter in parameters:
            _split_update(tape, parameter)
        return tape.operations
    moved: list[Value] = []
    for parameter in parameters:
        first, second = (Value(name, parameter.shape, ItemKind.FP32, Role.OPTIMIZER_STATE) for name in ("exp_avg", "exp_avg_sq"))
        remainder = Value("remainder", parameter.shape, ItemKind.BF16, Role.OPTIMIZER_STATE)
        gradient = parameter
        moved += [gradient, *(2 * (parameter, remainder, first, second))]
    _emit(tape, "split_adamw", Kind.POINTWISE, (), (), launches=ZERO, traffic=moved)
    return tape.operations


def split_launches() -> list[Operation]:
    """The kernels of split AdamW on CUDA: one for each weight-decay group."""
    tape = _tape(Component.OPTIMIZER)
    for _ in ("matrices", "vectors"):
        _emit(tape, "split_adamw", Kind.POINTWISE, (), ())
    return tape.operations


def _split_update(tape: Tape, parameter: Value) -> None:
    """The same in tensor operations."""

    def wide(name: str) -> Value:
        return tape.new(name, parameter.shape, ItemKind.FP32)

    def narrow(name: str) -> Value:
        return tape.new(name, parameter.shape, ItemKind.BF16)

    given, gradient, weight, denominator, bits, shifted, low = map(wide, ("gradient", "gradient", "weight", "denominator", "bits", "shifted", "low"))
    high, remainder = narrow("high"), narrow("remainder")
    _emit(tape, "_to_copy", Kind.POINTWISE, (parameter,), (given,))
    _emit(tape, "mul", Kind.POINTWISE, (given,), (gradient,), frees=(given,))
    for name in ("lerp_", "mul_", "addcmul_"):
        _emit(tape, name, Kind.POINTWISE, (gradient,), (), traffic=(gradient, gradient))
    _emit(tape, "_to_copy", Kind.POINTWISE, (parameter,), (weight,))
    for name in ("bitwise_left_shift_", "add_", "mul_"):
        _emit(tape, name, Kind.POINTWISE, (weight,), (), traffic=(weight, weight))
    _emit(tape, "sqrt", Kind.POINTWISE, (gradient,), (denominator,))
    for name in ("div_", "add_", "addcdiv_"):
        _emit(tape, name, Kind.POINTWISE, (denominator,), (), traffic=(denominator, denominator))
    _emit(tape, "add", Kind.POINTWISE, (weight,), (bits,))
    _emit(tape, "bitwise_right_shift_", Kind.POINTWISE, (bits,), (), traffic=(bits, bits))
    _emit(tape, "_to_copy", Kind.POINTWISE, (bits,), (high,))
    _emit(tape, "__lshift__", Kind.POINTWISE, (bits,), (shifted,))
    _emit(tape, "sub", Kind.POINTWISE, (weight, shifted), (low,), frees=(shifted,))
    _emit(tape, "_to_copy", Kind.POINTWISE, (low,), (remainder,), frees=(low, bits))
    for name in ("copy_", "copy_"):
        _emit(tape, name, Kind.POINTWISE, (high,), (), traffic=(high, high))
    tape.operations[-1].frees += [gradient, weight, denominator, high, remainder]


def split_counters(*, on_cpu: bool, replayed: bool) -> list[Operation]:
    """The step counters; on CUDA, of steps issued kernel by kernel, the rates of both weight-decay groups, and of ``replayed`` ones a copy of the addresses,
    which others make only where a tensor has moved."""
    tape = _tape(Component.OPTIMIZER)
    _emit(tape, "_foreach_add_", Kind.POINTWISE, (), ())
    if not on_cpu:
        for name in ("_to_copy",) if replayed else ("full", "full"):
            _emit(tape, name, Kind.POINTWISE, (), ())
    return tape.operations


def loop_adamw(parameters: Sequence[Value], previous: Value | None) -> list[Operation]:
    """AdamW parameter by parameter: the root of the second moment and its quotient are temporaries, and the quotient of one
    parameter lives on until that of the next takes its name; ``previous``: the parameter before these."""
    tape = _tape(Component.OPTIMIZER)
    denominator = None if previous is None else Value("denominator", previous.shape, previous.item, Role.TEMPORARY, Component.OPTIMIZER)
    for parameter in parameters:
        root, quotient = (tape.new(name, parameter.shape, parameter.item) for name in ("root", "denominator"))
        tape.emit("add_", Kind.POINTWISE, (), ())
        if len(parameter.shape) > 1:  # vectors do not decay
            tape.emit("mul_", Kind.POINTWISE, (parameter,), (parameter,))
        for name in ("lerp_", "mul_", "addcmul_"):
            tape.emit(name, Kind.POINTWISE, (parameter, parameter), (parameter,))
        _emit(tape, "sqrt", Kind.POINTWISE, (parameter,), (root,))
        _emit(tape, "div", Kind.POINTWISE, (root,), (quotient,), frees=(root,))
        tape.emit("add_", Kind.POINTWISE, (quotient,), (quotient,)).frees += [] if denominator is None else [denominator]
        tape.emit("addcdiv_", Kind.POINTWISE, (parameter, parameter, quotient), (parameter,))
        denominator = quotient
    return tape.operations


def end_of_loop(last: Value) -> Operation:
    """The loop returns and lets go of the last quotient; ``last``: its parameter."""
    tape = _tape(Component.OPTIMIZER)
    quotient = Value("denominator", last.shape, last.item, Role.TEMPORARY, Component.OPTIMIZER)
    _emit(tape, "return", Kind.OPTIMIZER, (), (), launches=ZERO, frees=(quotient,))
    return tape.operations[0]


def gradients_let_go(parameters: Sequence[Value]) -> list[Operation]:
    """The gradients of ``parameters`` end."""
    tape = _tape(Component.OPTIMIZER)
    gradients = [Value(f"{parameter.name}.grad", parameter.shape, parameter.item, Role.GRADIENT, parameter.component) for parameter in parameters]
    _emit(tape, "zero_grad", Kind.OPTIMIZER, (), (), launches=ZERO, frees=gradients)
    return tape.operations


def bias_update(bias: Value) -> list[Operation]:
    """A step of the selection bias of one layer towards even loads; twin: ``trainer/model/router.py``."""
    tape = _tape(Component.ROUTER)
    counts, apart = (tape.new(name, bias.shape, ItemKind.FP32) for name in ("counts", "apart"))
    mean = tape.new("mean", (ONE,), ItemKind.FP32)
    _emit(tape, "_to_copy", Kind.POINTWISE, (), (counts,))
    _emit(tape, "mean", Kind.REDUCE, (counts,), (mean,))
    _emit(tape, "sub", Kind.POINTWISE, (mean, counts), (apart,))
    _emit(tape, "sign_", Kind.POINTWISE, (apart,), ())
    _emit(tape, "add_", Kind.POINTWISE, (bias, apart), (), frees=(counts, mean, apart))
    return tape.operations


def _tape(component: Component) -> Tape:
    tape = Tape(Phase.OPTIMIZER)
    tape.component = component
    return tape


def _emit(
    tape: Tape,
    name: str,
    kind: Kind,
    reads: Sequence[Value],
    writes: Sequence[Value],
    *,
    launches: Size = ONE,
    traffic: Sequence[Value] | None = None,
    frees: Sequence[Value] = (),
) -> None:
    operation = tape.emit(name, kind, reads, writes, launches=launches, traffic=traffic)
    operation.allocates += list(writes)
    operation.frees += list(frees)
