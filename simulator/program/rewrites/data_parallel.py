"""Data parallelism: gradients are averaged over the ranks that hold the same parameters, in buckets, beside the backward pass.

As in PyTorch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704, section 3.2): a bucket leaves when it is full, gradients
are views of their buckets (no bytes of their own), and only the last micro-batch communicates.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from simulator.components import Component
from simulator.program.build import Stretch
from simulator.specs import Plan

DATA, EXPERT_DATA = "data", "expert_data"


@dataclass
class Buckets:
    """Gradients that are ready and not yet sent, by group of ranks."""

    plan: Plan
    _waiting: dict[str, float] = field(default_factory=lambda: {DATA: 0.0, EXPERT_DATA: 0.0})

    def ready(self, stretch: Stretch) -> Iterator[tuple[str, float]]:
        """Add the gradients of one run of ``stretch``; yield (group, bytes) of every bucket that is full."""
        for group, size_bytes in gradient_bytes(stretch, self.plan).items():
            self._waiting[group] += size_bytes
            while self._waiting[group] >= self.plan.gradient_bucket_bytes:
                yield group, float(self.plan.gradient_bucket_bytes)
                self._waiting[group] -= self.plan.gradient_bucket_bytes

    def rest(self) -> Iterator[tuple[str, float]]:
        """What is left when the backward pass ends."""
        for group, size_bytes in self._waiting.items():
            if size_bytes:
                yield group, size_bytes


def gradient_bytes(stretch: Stretch, plan: Plan) -> dict[str, float]:
    """Bytes of gradients of one run of ``stretch`` by the group that averages them; groups of one rank are left out."""
    sizes = {DATA: 0.0, EXPERT_DATA: 0.0}
    for parameter in stretch.segment.parameters:
        group = EXPERT_DATA if parameter.component is Component.EXPERTS else DATA
        sizes[group] += parameter.bytes.at(stretch.bindings)
    degrees = {DATA: plan.dp, EXPERT_DATA: plan.expert_dp}
    return {group: size for group, size in sizes.items() if size and degrees[group] > 1}
