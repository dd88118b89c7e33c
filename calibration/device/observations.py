"""What is fitted: measured seconds beside the work that took them."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from configuration.errors import ConfigurationError
from simulator.components import Kind
from simulator.program.build import build_program
from simulator.program.operations import Operation
from simulator.program.parts import Program
from simulator.program.sizes import Bindings
from simulator.records.step_report import StepReport
from simulator.specs import ModelSpec, Plan
from simulator.specs.device import PRICED_KINDS
from simulator.time.kernels import work

Term = Literal[
    "launches", "listed_launches", "products", "flops", "backward_flops", "bytes", "irregular_bytes", "backward_bytes",
    "exponentials", "scores", "backward_scores",
]  # fmt: skip

TRAFFIC: tuple[Term, Term, Term] = ("bytes", "irregular_bytes", "backward_bytes")
"""What the traffic of an operation counts as, by its ``mover`` (``simulator/time/kernels.py``)."""


class Quantity(NamedTuple):
    """One unknown of the cost model: seconds per launch, further product of a group, FLOP (of one element type), byte, exponential or score.

    ``kind``: of operation; None where all kinds share the unknown. Attention runs other kernels backward, so its FLOPs, bytes and scores there are apart, as
    are the bytes of irregular element-wise kernels on a GPU.
    """

    term: Term
    kind: Kind | None = None
    item: str = ""


EXPONENTIALS = Quantity("exponentials")
LISTED_LAUNCHES = Quantity("listed_launches")


@dataclass(frozen=True)
class Observation:
    """Measured ``seconds`` of ``work``: how much of each quantity.

    ``scale_s``: what its error is measured by, at least ``seconds``. ``source`` and ``name`` say what it is.
    """

    source: str
    name: str
    seconds: float
    scale_s: float
    work: dict[Quantity, float]


SMALLEST_SHARE = 0.01
"""A line below this share of its step weighs as if it had this share: a relative error of nothing is nothing."""


def step_observations(report: StepReport, model: ModelSpec, plan: Plan, source: str) -> list[Observation]:
    """One observation for each (phase, component) of a measured step of one process.

    Raises ConfigurationError for a report of several ranks, whose lines hold waiting for the network.
    """
    if plan.ranks != 1:
        raise ConfigurationError(f"{source}: measured on {plan.ranks} ranks; a device is fitted to steps of one process (legal: plan.ranks 1)")
    done: dict[tuple[str, str], dict[Quantity, float]] = defaultdict(lambda: defaultdict(float))
    on_cpu = report.provenance.device == "cpu"
    for operations, bindings, count in runs(build_program(model, plan, on_cpu=on_cpu)):
        _add_work(done, operations, bindings, count, on_cpu=on_cpu)
    floor_s = SMALLEST_SHARE * report.time.step_s
    return [
        Observation(source, f"{row.component} {row.phase}", row.time_s, max(row.time_s, floor_s), dict(done[row.phase, row.component]))
        for row in report.time.rows
        if (row.phase, row.component) in done
    ]


def runs(program: Program) -> Iterator[tuple[tuple[Operation, ...], Bindings, int]]:
    """Every run of operations of a step, the numbers of its symbols, and how often it passes."""
    for turn, times in Counter(program.turns).items():
        for stretch in program.stretches:
            taken = stretch.segment.passes[turn]
            yield taken.forward, stretch.bindings, stretch.count * times
            yield taken.backward, stretch.bindings, stretch.count * times
    for optimizer in program.optimizer:
        yield optimizer.operations, optimizer.bindings, optimizer.count


def _add_work(done: dict[tuple[str, str], dict[Quantity, float]], operations: tuple[Operation, ...], bindings: Bindings, count: int, *, on_cpu: bool) -> None:
    compiled = work(operations)
    flops, launches, exponentials = compiled.flops.at(bindings), compiled.launches.at(bindings), compiled.exponentials.at(bindings)
    products, scores = compiled.further_products(bindings), compiled.scores(bindings)
    traffic = np.zeros(len(operations))
    np.add.at(traffic, compiled.traffic_of, compiled.traffic.at(bindings))
    for position, operation in enumerate(operations):
        if operation.kind not in PRICED_KINDS:
            continue
        row = done[operation.phase, operation.component]
        row[LISTED_LAUNCHES if compiled.listed[position] else Quantity("launches", operation.kind)] += count * float(launches[position])
        if products[position]:
            row[Quantity("products", operation.kind)] += count * float(products[position])
        moved = TRAFFIC[compiled.mover[position]]
        row[Quantity("bytes" if on_cpu and moved == "irregular_bytes" else moved, operation.kind)] += count * float(traffic[position])
        if exponentials[position]:
            row[EXPONENTIALS] += count * float(exponentials[position])
        backward = bool(compiled.backward[position])
        if scores[position]:
            row[Quantity("backward_scores" if backward else "scores", operation.kind)] += count * float(scores[position])
        if flops[position]:
            term: Term = "backward_flops" if backward else "flops"
            row[Quantity(term, operation.kind, "bf16" if compiled.narrow[position] else "fp32")] += count * float(flops[position])
