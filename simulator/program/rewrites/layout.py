"""Which ranks share what: how a stage's ranks are cut for each kind of parameter, and the groups that follow. Twin: ``trainer/parallel/world.py``."""

from enum import StrEnum
from math import prod

import numpy as np

from simulator.components import Component
from simulator.specs import Plan

PIPELINE, REPLICA, SHARD, TENSOR, EXPERT, EXPERT_TENSOR = "pipeline", "replica", "shard", "tensor", "expert", "expert_tensor"


class Share(StrEnum):
    """How ranks share a parameter, before any sharding of its copies."""

    WHOLE = "whole"
    SLICED = "sliced"
    EXPERT = "expert"


SHARES = {
    Component.EXPERTS: Share.EXPERT,
    Component.QKV: Share.SLICED,
    Component.ATTENTION_OUTPUT: Share.SLICED,
    Component.DENSE_FEED_FORWARD: Share.SLICED,
}
"""Parameters of all other components are whole on every rank of their stage."""


def share_of(component: Component) -> Share:
    """How ranks share the parameters of ``component``."""
    return SHARES.get(component, Share.WHOLE)


def cut(plan: Plan, share: Share) -> dict[str, int]:
    """Ranks along each dimension, the slowest first."""
    sliced = plan.shard // plan.tp
    return {
        Share.WHOLE: {PIPELINE: plan.pp, REPLICA: plan.replicas, SHARD: plan.shard},
        Share.SLICED: {PIPELINE: plan.pp, REPLICA: plan.replicas, SHARD: sliced, TENSOR: plan.tp},
        Share.EXPERT: {PIPELINE: plan.pp, REPLICA: plan.expert_replicas, SHARD: plan.expert_shard, EXPERT: plan.ep, EXPERT_TENSOR: plan.etp},
    }[share]


GROUPS = {
    "all": (Share.WHOLE, (PIPELINE, REPLICA, SHARD)),
    "expert": (Share.EXPERT, (EXPERT, EXPERT_TENSOR)),
    "tensor": (Share.SLICED, (TENSOR,)),
    "stage": (Share.WHOLE, (REPLICA, SHARD)),
    "data": (Share.WHOLE, (SHARD,)),
    "slice_data": (Share.SLICED, (SHARD,)),
    "expert_data": (Share.EXPERT, (SHARD,)),
    "replica": (Share.WHOLE, (REPLICA,)),
    "slice_replica": (Share.SLICED, (REPLICA,)),
    "expert_replica": (Share.EXPERT, (REPLICA,)),
}
"""Name of a group to the cut it belongs to and the dimensions in which its ranks differ."""

PAIRS = ("neighbours", "ends")
"""Ranks at the same place of neighbouring stages, and of the first and the last stage."""


def groups(plan: Plan, name: str) -> list[tuple[int, ...]]:
    """The groups of ranks of this name, each in order."""
    if name in PAIRS:
        stages, apart = (1, plan.pp - 1) if name == "ends" else (plan.pp - 1, 1)
        return [(rank, rank + apart * plan.stage_ranks) for rank in range(stages * plan.stage_ranks)]
    share, varying = GROUPS[name]
    sizes = cut(plan, share)
    axes = [axis for axis, dimension in enumerate(sizes) if dimension in varying]
    ranks = np.moveaxis(np.arange(plan.ranks).reshape(tuple(sizes.values())), axes, range(-len(axes), 0))
    return list(map(tuple, ranks.reshape(-1, prod(sizes[dimension] for dimension in varying)).tolist()))


def sharing_group(plan: Plan, share: Share, dimension: str = SHARD) -> str | None:
    """The group over ``dimension`` of ranks that hold the same numbers of a parameter of this share; None when it is one rank. Equal cuts have one group."""
    mine = _present(plan, share)
    if dimension not in mine:
        return None
    return next(name for name, (other, varying) in GROUPS.items() if varying == (dimension,) and _present(plan, other) == mine)


def _present(plan: Plan, share: Share) -> dict[str, int]:
    return {dimension: size for dimension, size in cut(plan, share).items() if size > 1}
