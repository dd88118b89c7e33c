"""What every operation costs on a device: seconds = launches × overhead + FLOPs / rate + exponentials / rate + scores / rate + traffic / bandwidth.

Flash attention takes its time by scores, too, whatever the width of a head: their exponentials do not run on matrix units (arXiv 2407.08608, section 3).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simulator.components import Kind
from simulator.memory.profile import Sizes
from simulator.program.graph import ItemKind
from simulator.program.operations import Operation
from simulator.program.sizes import ZERO, Bindings
from simulator.specs.device import PRICED_KINDS, DeviceSpec
from simulator.time.elementwise import is_irregular
from simulator.time.launch import ById

Floats = NDArray[np.float64]
_KINDS = tuple(Kind)
_ITEMS: tuple[Literal["fp32", "bf16"], ...] = ("fp32", "bf16")

EXPONENTIATING = frozenset(("_softmax", "_log_softmax", "_log_softmax_backward_data", "logsumexp", "exp", "exp_", "silu", "silu_backward"))
"""Kernels that raise e to every element of what they read first."""


@dataclass(frozen=True, eq=False, repr=False)
class Work:
    """FLOPs, traffic and launches of a run of operations, compiled from their symbolic sizes."""

    flops: Sizes
    exponentials: Sizes
    pairs: Sizes
    """Queries times keys of attention."""
    traffic: Sizes
    traffic_of: NDArray[np.intp]
    launches: Sizes
    calls: NDArray[np.intp]
    """Of the host, beside launches."""
    hooks: NDArray[np.intp]
    kinds: NDArray[np.intp]
    mover: NDArray[np.intp]
    """Which rate its traffic takes: 1 where an element-wise kernel goes element by element, 2 where attention runs backward, 0 elsewhere."""
    narrow: NDArray[np.intp]
    """1 where the operation's inputs are of a 16-bit type."""
    backward: NDArray[np.intp]
    """1 where the operation is a kernel of attention's backward pass; attention that is computed again there is not."""
    groups: Sizes
    listed: NDArray[np.intp]
    """1 where one call launches a kernel for each parameter of a list."""

    def scores(self, bindings: Bindings) -> Floats:
        """Scores of causal attention: half of all pairs of a query and a key."""
        half: Floats = self.pairs.at(bindings) / 2
        return half

    def further_products(self, bindings: Bindings) -> Floats:
        """Matrix products beyond one a launch."""
        further: Floats = np.maximum(self.groups.at(bindings) - self.launches.at(bindings), 0.0)
        return further


@dataclass(frozen=True, eq=False, repr=False)
class Cost:
    """Numbers of a run of operations, one entry each.

    ``seconds``: on the device, collectives not counted; ``moving_s`` and ``scoring_s``: the parts of them that are traffic and scores.
    """

    flops: Floats
    scores: Floats
    traffic_bytes: Floats
    launches: Floats
    seconds: Floats
    moving_s: Floats
    scoring_s: Floats
    host_s: Floats


@lru_cache(maxsize=2048)
def work(operations: tuple[Operation, ...]) -> Work:
    """Compile the work of ``operations``."""
    pairs = [(position, value) for position, operation in enumerate(operations) for value in operation.traffic]
    return Work(
        Sizes.of([operation.flops or ZERO for operation in operations]),
        Sizes.of([operation.reads[0].elements if operation.name in EXPONENTIATING else ZERO for operation in operations]),
        Sizes.of([operation.scores or ZERO for operation in operations]),
        Sizes.of([value.bytes for _, value in pairs]),
        np.array([position for position, _ in pairs], dtype=np.intp),
        Sizes.of([operation.launches for operation in operations]),
        np.array([operation.calls for operation in operations], dtype=np.intp),
        np.array([operation.hooks for operation in operations], dtype=np.intp),
        np.array([_KINDS.index(operation.kind) for operation in operations], dtype=np.intp),
        np.array([2 if is_backward_attention(operation) else is_irregular(operation) for operation in operations], dtype=np.intp),
        np.array([any(value.item is ItemKind.BF16 for value in operation.reads) for operation in operations], dtype=np.intp),
        np.array([is_backward_attention(operation) for operation in operations], dtype=np.intp),
        Sizes.of([operation.gemm.groups if operation.gemm is not None else ZERO for operation in operations]),
        np.array([operation.launches.factor > 1 for operation in operations], dtype=np.intp),
    )


def is_backward_attention(operation: Operation) -> bool:
    """Whether it is a kernel of attention's backward pass."""
    return operation.kind is Kind.ATTENTION and operation.name.endswith("_backward")


@lru_cache(maxsize=64)
def _rates(device: ById) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Seconds per FLOP (kind, narrow, backward), byte (kind, mover), launch (kind, listed), further product (kind) and score (kind, backward).

    None of collectives and host reads.
    """
    spec = device.spec
    per_flop, per_byte, per_launch, per_product, per_score = (np.zeros((len(_KINDS), *shape)) for shape in ((2, 2), (3,), (2,), (), (2,)))
    for kind in PRICED_KINDS:
        rate = spec.kernels[kind]
        row = _KINDS.index(kind)
        movers = (rate.bytes_per_s, rate.irregular_bytes_per_s or rate.bytes_per_s, rate.backward_bytes_per_s or rate.bytes_per_s)
        per_byte[row] = [1 / constant.value for constant in movers]
        per_score[row] = [0.0 if constant is None else 1 / constant.value for constant in (rate.scores_per_s, rate.backward_scores_per_s)]
        launch = rate.launch_overhead_s or spec.launch_overhead_s
        per_launch[row] = [launch.value, (spec.listed_launch_overhead_s or launch).value]
        per_product[row] = 0.0 if rate.product_overhead_s is None else rate.product_overhead_s.value
        for column, item in enumerate(_ITEMS):
            forward = rate.flops_per_s.get(item) or next(iter(rate.flops_per_s.values()), None)
            backward = rate.backward_flops_per_s.get(item) or forward
            per_flop[row, column] = [0.0 if constant is None else 1 / constant.value for constant in (forward, backward)]
    return per_flop, per_byte, per_launch, per_product, per_score


def cost(operations: tuple[Operation, ...], bindings: Bindings, device: DeviceSpec) -> Cost:
    """Price ``operations`` for given numbers on ``device``."""
    compiled = work(operations)
    per_flop, per_byte, per_launch, per_product, per_score = _rates(ById(device))
    flops = compiled.flops.at(bindings)
    traffic: Floats = np.zeros(len(operations))
    np.add.at(traffic, compiled.traffic_of, compiled.traffic.at(bindings))
    launches = compiled.launches.at(bindings)
    moving = traffic * per_byte[compiled.kinds, compiled.mover]
    exponentials = compiled.exponentials.at(bindings) / device.exponentials_per_s.value if device.exponentials_per_s is not None else 0.0
    scores = compiled.scores(bindings)
    scoring = scores * per_score[compiled.kinds, compiled.backward]
    arithmetic = flops * per_flop[compiled.kinds, compiled.narrow, compiled.backward]
    started = launches * per_launch[compiled.kinds, compiled.listed] + compiled.further_products(bindings) * per_product[compiled.kinds]
    seconds = started + arithmetic + exponentials + scoring + moving
    hook_s = device.hook_overhead_s.value if device.hook_overhead_s is not None else 0.0
    issued = (launches + compiled.calls) * device.host_overhead_s.value + compiled.hooks * hook_s
    host = np.zeros_like(seconds) if device.host_and_device_are_one else issued
    return Cost(flops, scores, traffic, launches, seconds, moving, scoring, host)
