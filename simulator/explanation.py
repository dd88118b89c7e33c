"""Where a number of a prediction comes from: formula with symbolic shapes, the numbers put in, and the source of each constant."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from configuration.errors import ConfigurationError, unknown
from simulator.components import Component, Kind, Phase
from simulator.memory.step import STEP_COUNTER_BYTES, kept_activations, state_bytes
from simulator.program.build import build_program
from simulator.program.graph import ITEM_BYTES, Value
from simulator.program.operations import Operation
from simulator.program.parts import Program, Stretch
from simulator.program.sizes import SYMBOLS
from simulator.question import Question
from simulator.records.step_report import Record, StepReport
from simulator.specs.device import Constant, DeviceSpec
from simulator.time.elementwise import is_irregular
from simulator.time.kernels import cost
from simulator.time.launch import launched

MEMORY = ("parameters", "gradients", "optimizer", "activations", "peak")
TIME = tuple(phase.value for phase in Phase)


class Term(Record):
    """One addend: what it is, its formula, how often it stands in the model, and what it comes to."""

    what: str
    formula: str
    count: int
    value: float
    source: str


class Explanation(Record):
    """Terms that add up to ``total`` (in ``unit``), the symbols in their formulas, and remarks."""

    line: str
    unit: str
    total: float
    terms: list[Term]
    symbols: dict[str, str]
    remarks: list[str]


def lines(report: StepReport) -> list[str]:
    """Names that ``explain`` takes for this prediction."""
    memory = [f"memory.{name}" for name in MEMORY]
    memory += [f"memory.{name}.{row.component}" for row in report.memory.components for name in MEMORY[:-1] if getattr(row, f"{name}_bytes")]
    time = [f"time.{phase}" for phase in TIME] + [f"time.{row.phase}.{row.component}" for row in report.time.rows]
    links = sorted({f"communication.{row.component}" for row in report.communication})
    network = ["network"] if report.communication else []
    rates = [] if report.throughput.mfu is None else ["throughput.mfu"]
    return [*memory, *time, "time.exposed_communication", *links, *network, *rates]


def explain(question: Question, line: str) -> Explanation:
    """Explain one line of the prediction; the remarks end with what the report says of itself.

    Raises ConfigurationError for a line that this prediction does not have, listing those it has.
    """
    report = question.answer()
    if line == "throughput.mfu":
        found = _mfu(question, report, line)
    elif line in lines(report):
        found = _explained(question, report, line)
    else:
        raise unknown("explain", line, lines(report))
    return found.model_copy(update={"remarks": [*found.remarks, *report.provenance.notes]})


def _explained(question: Question, report: StepReport, line: str) -> Explanation:
    section, name, *rest = line.split(".")
    alike = [row.memory == report.memory if section == "memory" else row.time == report.time for row in report.ranks]
    stage = alike.index(True) if alike else 0
    program = build_program(question.model, question.plan, question.network.load, on_cpu=question.device.host_and_device_are_one, stage=stage)
    component = Component(rest[0]) if rest else None
    if section == "memory":
        return _peak(report, line, question.device) if name == "peak" else _memory(program, question, report, line, name, component)
    if section == "communication" or line == "time.exposed_communication":
        return _communication(report, line, Component(name) if section == "communication" else None, question)
    return _time(program, question, line, Phase(name), component)


def _memory(program: Program, question: Question, report: StepReport, line: str, name: str, component: Component | None) -> Explanation:
    if name == "activations":
        values = list(kept_activations(program))
    else:
        values = [(stretch, value, stretch.count) for stretch in program.stretches for value in stretch.segment.parameters]
    per_element = partial(state_bytes, precision=question.plan.precision) if name == "optimizer" else None
    terms = [_storage(value, stretch, count, per_element) for stretch, value, count in values if component in (None, value.component)]
    remarks = {
        "activations": ["Storages that are alive after the last forward, each counted once: what backward reads and what is logged."],
        "optimizer": ["AdamW (arXiv 1711.05101): two moments of every parameter, and one fp32 step counter (4 bytes) a tensor."],
        "gradients": ["A gradient is as large as its parameter, in the parameter's type."],
    }.get(name, [])
    if name == "optimizer" and question.plan.precision == "bf16-split":
        remarks.append("bf16-split: the moments are in fp32, and 2 bytes of each weight lie here, its lower half.")
    if report.ranks:
        fullest_rank = next(row.rank for row in report.ranks if row.memory == report.memory)
        remarks.append(f"Of rank {fullest_rank}, the first of the stage with the highest peak; activations are those of the micro-batches in flight.")
    return Explanation(line=line, unit="bytes", total=sum(term.value for term in terms), terms=terms, symbols=_symbols(program, terms), remarks=remarks)


def _storage(value: Value, stretch: Stretch, count: int, state_bytes_of: Callable[[int], int] | None) -> Term:
    """``state_bytes_of``: the bytes of an element's optimizer states, where these are asked for."""
    item = ITEM_BYTES[value.item]
    each, counter = (item, 0) if state_bytes_of is None else (state_bytes_of(item), STEP_COUNTER_BYTES)
    return Term(
        what=f"{value.component}: {value}",
        formula=f"{value.elements} · {each}{f' + {counter}' if counter else ''} bytes",
        count=count,
        value=count * (value.elements.at(stretch.bindings) * each + counter),
        source=f"{value.item}, {stretch.segment.name}",
    )


def _peak(report: StepReport, line: str, device: DeviceSpec) -> Explanation:
    at = report.memory.peak_at
    terms = [
        Term(what=role, formula="alive at the peak", count=1, value=size, source="liveness of the step program")
        for role, size in report.memory.at_peak.items()
        if size
    ]
    remark = f"The peak lies in {at.phase} of {at.component}, where {at.operation} has written its result and its inputs are still alive."
    remarks = [remark]
    if device.matrix_workspace_bytes is not None:
        remarks.append(f"Temporaries hold, twice, {_sourced('bytes of work space for matrix products', device.matrix_workspace_bytes)}")
    return Explanation(line=line, unit="bytes", total=report.memory.peak_allocated_bytes, terms=terms, symbols={}, remarks=remarks)


def _runs(program: Program, phase: Phase) -> Iterator[tuple[tuple[Operation, ...], int, dict[str, float]]]:
    for turn, repeats in Counter(program.turns).items():
        for stretch in program.stretches if phase is not Phase.OPTIMIZER else ():
            run = stretch.segment.passes[turn]
            yield run.forward if phase is Phase.FORWARD else run.backward, stretch.count * repeats, stretch.bindings
    if phase is Phase.OPTIMIZER:
        for optimizer in program.optimizer:
            yield optimizer.operations, optimizer.count, optimizer.bindings


def _time(program: Program, question: Question, line: str, phase: Phase, component: Component | None) -> Explanation:
    terms: list[Term] = []
    kinds: set[Kind] = set()
    irregular = False
    device = launched(question.device, question.plan.implementation)
    for operations, count, bindings in _runs(program, phase):
        costs = cost(operations, bindings, device)
        for position, operation in enumerate(operations):
            if (component is not None and operation.component is not component) or not costs.seconds[position]:
                continue
            kinds.add(operation.kind)
            slowly = is_irregular(operation) and device.kernels[operation.kind].irregular_bytes_per_s is not None
            irregular |= slowly
            traffic = " + ".join(str(value.bytes) for value in operation.traffic) or "0"
            flops = f"({operation.flops}) FLOPs = {costs.flops[position]:.4g}; " if operation.flops else ""
            if operation.scores and costs.scoring_s[position]:
                flops += f"({operation.scores}) / 2 scores = {costs.scores[position]:.4g}, {costs.scoring_s[position]:.4g} s of {costs.seconds[position]:.4g}; "
            terms.append(
                Term(
                    what=f"{operation.component}: {operation.name}",
                    formula=f"{flops}{operation.launches} launches; {traffic} bytes = {costs.traffic_bytes[position]:.4g}",
                    count=count,
                    value=count * float(costs.seconds[position]),
                    source=f"{operation.kind}, element by element" if slowly else operation.kind,
                )
            )
    scores = " + scores / scores_per_s" if Kind.ATTENTION in kinds and device.kernels[Kind.ATTENTION].scores_per_s is not None else ""
    formula = f"seconds = launches × launch overhead + FLOPs / flops_per_s{scores} + bytes / bytes_per_s, by kind:"
    remarks = [formula, *_constants(device, kinds, irregular=irregular)]
    return Explanation(line=line, unit="s", total=sum(term.value for term in terms), terms=terms, symbols=_symbols(program, terms), remarks=remarks)


def _constants(device: DeviceSpec, kinds: Iterable[Kind], *, irregular: bool) -> Iterator[str]:
    yield _sourced("s a launch", device.launch_overhead_s)
    if device.listed_launch_overhead_s is not None:
        yield _sourced("s a launch of calls over all parameters", device.listed_launch_overhead_s)
    if device.exponentials_per_s is not None:
        yield _sourced("exponentials/s", device.exponentials_per_s)
    for kind in sorted(kinds):
        rate = device.kernels.get(kind)
        if rate is None:
            continue
        named: list[tuple[str, Constant | None]] = [("bytes/s", rate.bytes_per_s)]
        if irregular:
            named.append(("bytes/s, element by element", rate.irregular_bytes_per_s))
        named += [(f"{item} FLOP/s", constant) for item, constant in rate.flops_per_s.items()]
        named += [(f"{item} FLOP/s in backward", constant) for item, constant in rate.backward_flops_per_s.items()]
        named += [("bytes/s in backward", rate.backward_bytes_per_s), ("scores/s", rate.scores_per_s), ("scores/s in backward", rate.backward_scores_per_s)]
        named += [("s a launch", rate.launch_overhead_s), ("s for each further product of a group", rate.product_overhead_s)]
        yield from (f"{kind}: {_sourced(unit, constant)}" for unit, constant in named if constant is not None)


def _sourced(unit: str, constant: Constant) -> str:
    return f"{constant.value:.4g} {unit}: {constant.origin}, {constant.reference}"


def _communication(report: StepReport, line: str, component: Component | None, question: Question) -> Explanation:
    rows = [row for row in report.communication if component in (None, row.component)]
    terms = [
        Term(
            what=f"{row.component}: {row.collective} over {row.ranks} ranks, hottest link {row.bottleneck}",
            formula=f"{row.bytes_per_call:.0f} bytes a call: latency {row.latency_s / row.calls:.4g} s, with transfer {row.time_s / row.calls:.4g} s",
            count=row.calls,
            value=row.exposed_s if component is None else row.time_s,
            source=f"fabric {report.fabric}",
        )
        for row in rows
    ]
    remark = "Exposed is what the step lasts longer than on a network that costs nothing; it is shared among the collectives by their time."
    fabric = f"python -m fabrics explain --fabric {question.network.fabric.spec.name} walks through one collective hop by hop."
    return Explanation(line=line, unit="s", total=sum(term.value for term in terms), terms=terms, symbols={}, remarks=[remark, fabric])


def _mfu(question: Question, report: StepReport, line: str) -> Explanation:
    peak = question.device.peak_for(question.plan.precision)
    if peak is None or report.throughput.mfu is None:
        raise ConfigurationError(f"explain {line}: device {question.device.name} names no peak FLOP/s for {question.plan.precision}")
    constant = question.device.peak_flops_per_s["fp32" if question.plan.precision == "fp32" else "bf16"]
    terms = [
        Term(
            what="model FLOPs over time and peak",
            formula=f"{report.throughput.model_flops:.4g} FLOPs / ({report.time.step_s:.4g} s · {question.plan.ranks} ranks · {peak:.4g} FLOP/s)",
            count=1,
            value=report.throughput.mfu,
            source=f"peak: {constant.origin}, {constant.reference}",
        )
    ]
    remark = "Model FLOPs: forward times three, active parameters, half of the causal scores, no recomputation."
    return Explanation(line=line, unit="1", total=report.throughput.mfu, terms=terms, symbols={}, remarks=[remark])


def _symbols(program: Program, terms: list[Term]) -> dict[str, str]:
    words = {word for term in terms for word in re.findall(r"\w+", f"{term.what.partition(': ')[2]} {term.formula}")}
    found = {}
    for symbol, meaning in SYMBOLS.items():
        if symbol in words:
            runs = program.stretches if any(symbol in stretch.bindings for stretch in program.stretches) else program.optimizer
            numbers = sorted({run.bindings[symbol] for run in runs if run.bindings.get(symbol)})
            found[symbol] = f"{' or '.join(f'{number:.0f}' for number in numbers)}: {meaning}"
    return found
