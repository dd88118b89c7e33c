"""The ranks of a job and the groups in which they talk: the only place that knows where a rank stands.

Ranks are numbered stage by stage; within a stage the tensor index runs fastest, then the index of the shard, then that of the replica.
The same ranks are cut three ways, once for each ``Share`` of the parameters; a dimension of one rank is left out.

======== ===================================================================
whole    pipeline, replica, shard: every rank of a stage has a copy or a shard
sliced   pipeline, replica, shard, tensor
expert   pipeline, replica, shard, expert, expert_tensor
======== ===================================================================
"""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from configuration.command import CheckMissedError
from configuration.errors import ConfigurationError
from simulator.specs import Plan

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch.distributed.device_mesh import DeviceMesh

PIPELINE, REPLICA, SHARD, TENSOR, EXPERT, EXPERT_TENSOR = "pipeline", "replica", "shard", "tensor", "expert", "expert_tensor"


JOINING_S = 300.0
"""How long ranks wait for each other at the start, when some may still be loading."""


class Share(StrEnum):
    """How ranks share a parameter, before any sharding of its copies."""

    WHOLE = "whole"
    SLICED = "sliced"
    EXPERT = "expert"


def launched_ranks() -> int:
    """Processes that ``torchrun`` (or Slurm through it) started for this job; 1 for a plain process."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """This process among them."""
    return int(os.environ.get("RANK", "0"))


def check_launch(plan: Plan) -> None:
    """Raise ConfigurationError unless as many processes run as the plan has ranks."""
    if plan.ranks != launched_ranks():
        raise ConfigurationError(
            f"plan.ranks ({plan.ranks}): {launched_ranks()} process(es) were started (legal: {launched_ranks()}; "
            f"or start with: torchrun --nproc-per-node {plan.ranks} -m trainer ...)"
        )


def local_device(device: str) -> str:
    """The device of this process: of several GPUs the one with its local rank."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" and launched_ranks() > 1 else device


@dataclass
class World:
    """This process' place among the ranks of a plan. Made by ``start_world``; with one rank there is no process group."""

    plan: Plan
    rank: int = 0
    device: str = "cpu"
    timeout_s: float = 600.0
    """How long a collective may take."""
    meshes: "dict[Share, DeviceMesh | None]" = field(default_factory=dict)

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.rank == 0

    def dimensions(self, share: Share) -> tuple[str, ...]:
        """Dimensions of more than one rank."""
        mesh = self.meshes.get(share)
        return () if mesh is None else mesh.mesh_dim_names or ()

    def degree(self, share: Share, dimension: str) -> int:
        """Ranks along ``dimension``."""
        mesh = self.meshes.get(share)
        return 1 if mesh is None or dimension not in self.dimensions(share) else mesh[dimension].size()

    def index(self, share: Share, dimension: str) -> int:
        """This rank's place along ``dimension``."""
        mesh = self.meshes.get(share)
        return 0 if mesh is None or dimension not in self.dimensions(share) else mesh.get_local_rank(dimension)

    def submesh(self, share: Share, dimensions: tuple[str, ...]) -> "DeviceMesh | None":
        """The ranks that differ from this one in ``dimensions`` alone; None when that is this rank only."""
        present = tuple(name for name in self.dimensions(share) if name in dimensions)
        mesh = self.meshes.get(share)
        if mesh is None or not present:
            return None
        return mesh if present == self.dimensions(share) else mesh[present]

    def group(self, share: Share, dimension: str) -> "dist.ProcessGroup | None":
        """The process group along ``dimension``; None when it has one rank."""
        mesh = self.submesh(share, (dimension,))
        return None if mesh is None else mesh.get_group()

    @cached_property
    def expert_group(self) -> "dist.ProcessGroup | None":
        """Ranks among which rows travel to their experts; None when every rank holds all experts whole."""
        return self._joint_group(Share.EXPERT, (EXPERT, EXPERT_TENSOR))

    @cached_property
    def stage_group(self) -> "dist.ProcessGroup | None":
        """Ranks that hold the same layers."""
        return self._joint_group(Share.WHOLE, (REPLICA, SHARD))

    def _joint_group(self, share: Share, dimensions: tuple[str, ...]) -> "dist.ProcessGroup | None":
        # Joining two dimensions makes a new group, a collective call: start_world asks for each once.
        mesh = self.submesh(share, dimensions)
        if mesh is None:
            return None
        return mesh.get_group() if mesh.ndim == 1 else mesh._flatten().get_group()

    @property
    def data_rank(self) -> int:
        """Which of the ``plan.dp`` parts of a batch this rank works on."""
        return self.rank % self.plan.stage_ranks // self.plan.tp

    @property
    def stage(self) -> int:
        """Stage of the pipeline."""
        return self.rank // self.plan.stage_ranks


def start_world(plan: Plan, device: str = "cpu", *, timeout_s: float = 600.0) -> World:
    """Join the other ranks: process group and meshes; a collective that takes longer than ``timeout_s`` fails.

    ``device``: cpu (gloo) or cuda (NCCL). Raises ConfigurationError before any group is made when the plan does not fit what was started.
    """
    check_launch(plan)
    if plan.ranks == 1:
        return World(plan, device=device)
    try:
        return _joined(plan, device, timeout_s)
    except RuntimeError as error:
        raise CheckMissedError(f"rank {launched_rank()}: could not join the other ranks ({' '.join(str(error).split())[:200]})") from None


def _joined(plan: Plan, device: str, timeout_s: float) -> World:
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(local_device(device))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=max(timeout_s, JOINING_S)))
    world = World(plan, dist.get_rank(), local_device(device), timeout_s, meshes(plan, device))
    groups = [group for mesh in world.meshes.values() if mesh is not None for group in mesh.get_all_groups()]
    for group in (dist.group.WORLD, world.expert_group, world.stage_group, *groups):
        if group is not None:
            limit_wait(group, timeout_s)
    return world


def limit_wait(group: "dist.ProcessGroup", timeout_s: float) -> None:
    """Let collectives of a group fail after ``timeout_s``: new groups do not take that over from the first one."""
    from torch.distributed.distributed_c10d import _set_pg_timeout

    _set_pg_timeout(timedelta(seconds=timeout_s), group)


def meshes(plan: Plan, device: str) -> "dict[Share, DeviceMesh | None]":
    """The three cuts of the ranks. A collective call."""
    whole = {PIPELINE: plan.pp, REPLICA: plan.replicas, SHARD: plan.shard}
    sliced = {PIPELINE: plan.pp, REPLICA: plan.replicas, SHARD: plan.shard // plan.tp, TENSOR: plan.tp}
    expert = {PIPELINE: plan.pp, REPLICA: plan.expert_replicas, SHARD: plan.expert_shard, EXPERT: plan.ep, EXPERT_TENSOR: plan.etp}
    cuts = {Share.WHOLE: whole, Share.SLICED: sliced, Share.EXPERT: expert}
    made: dict[tuple[tuple[str, int], ...], DeviceMesh | None] = {}
    found = {}
    for share, sizes in cuts.items():
        # Replicas of a state that is not sharded need the second dimension too: over one alone FSDP would shard.
        present = tuple((name, size) for name, size in sizes.items() if size > 1 or (name == SHARD and sizes[REPLICA] > 1))
        if present not in made:
            made[present] = _mesh(device, dict(present))
        found[share] = made[present]
    return found


def _mesh(device: str, sizes: dict[str, int]) -> "DeviceMesh | None":
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device, tuple(sizes.values()), mesh_dim_names=tuple(sizes)) if sizes else None


def leave_world() -> None:
    """Leave the process group, if there is one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
