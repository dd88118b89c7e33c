"""Reduce-scatter: every rank gets its part of the sum; bytes = one rank's full input."""

from fabrics.collectives import all_gather
from fabrics.collectives.schedule import Group, Schedule


def ring(group: Group) -> Schedule:
    """Ring: p-1 steps of 1/p of the input, the all-gather run backwards."""
    return all_gather.ring(group)


def hierarchical(group: Group) -> Schedule | None:
    """First inside nodes, then between the ranks of a rail."""
    schedule = all_gather.hierarchical(group)
    return schedule[::-1] if schedule is not None else None
