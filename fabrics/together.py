"""Several groups that run the same collective at once: groups of the same shape share one schedule, and all their flows run phase by phase."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fabrics.collectives.schedule import Group, Phase, Schedule
from fabrics.network import FloatArray, IntArray


@dataclass(frozen=True)
class Alike:
    """Groups of the same size whose ranks fall into scale-up domains in the same way: ``ranks`` is groups x members."""

    ranks: IntArray
    domains: IntArray

    def stencil(self) -> Group:
        """One group with its members numbered from 0; its schedule serves all."""
        return Group(np.arange(self.ranks.shape[1]), self.domains)


@dataclass(frozen=True)
class Flows:
    """One phase of all groups. ``parts``: index of the ``Alike``, how many groups it has, and the phase of one; flows stand group after group."""

    src: IntArray
    dst: IntArray
    share: FloatArray
    parts: tuple[tuple[int, int, Phase], ...]

    def add_latency(self, totals: list[FloatArray], wire_s: FloatArray, overhead_s: FloatArray, gap_s: FloatArray) -> None:
        """Add the phase's latency to each group's total, given wire latency, overhead and gap of every flow."""
        start = 0
        for index, groups, phase in self.parts:
            stop = start + groups * len(phase.src)
            step = (wire_s[start:stop] + overhead_s[start:stop]).reshape(groups, -1)
            totals[index] += phase.steps * (step.mean(axis=1) if phase.around else step.max(axis=1))
            if phase.messages > 1:
                totals[index] += (phase.messages - 1) * gap_s[start:stop].reshape(groups, -1).mean(axis=1)
            start = stop


def alike(groups: Sequence[Group]) -> list[Alike]:
    """Groups by shape."""
    found: dict[tuple[int, bytes], list[Group]] = {}
    patterns: dict[tuple[int, bytes], IntArray] = {}
    for group in groups:
        # Domains numbered in the order in which the group names them.
        number: dict[int, int] = {}
        pattern = np.array([number.setdefault(domain, len(number)) for domain in group.domains.tolist()], dtype=np.int64)
        key = (group.size, pattern.tobytes())
        found.setdefault(key, []).append(group)
        patterns[key] = pattern
    return [Alike(np.array([group.ranks for group in members]), patterns[key]) for key, members in found.items()]


def together(batches: list[tuple[Alike, Schedule]]) -> list[Flows]:
    """The phases of all groups; a group whose schedule is shorter has nothing in the last ones."""
    phases = []
    for k in range(max((len(schedule) for _, schedule in batches), default=0)):
        parts = [(index, batch, schedule[k]) for index, (batch, schedule) in enumerate(batches) if k < len(schedule)]
        phases.append(
            Flows(
                src=np.concatenate([batch.ranks[:, phase.src].ravel() for _, batch, phase in parts]),
                dst=np.concatenate([batch.ranks[:, phase.dst].ravel() for _, batch, phase in parts]),
                share=np.concatenate([np.tile(phase.share, len(batch.ranks)) for _, batch, phase in parts]),
                parts=tuple((index, len(batch.ranks), phase) for index, batch, phase in parts),
            )
        )
    return phases
