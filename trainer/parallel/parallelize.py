"""Apply a plan to a model: cut it, hang the exchanges onto it, and keep what a step needs of that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.parallel.world import TENSOR, Share, World

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

    from trainer.model import MoETransformer
    from trainer.parallel.data_parallel import GradientBuckets


@dataclass
class Parallel:
    """A model under its plan, as the step sees it."""

    world: World
    model: "MoETransformer"
    buckets: "GradientBuckets | None" = None

    def before_micro_batch(self, *, last: bool) -> None:
        """Say that a micro-batch begins, and whether it is the last of its step."""
        if self.world.plan.zero_stage:
            from trainer.parallel.fully_sharded import before_micro_batch

            before_micro_batch(self.model, self.world.plan, last=last)

    def finish_gradients(self) -> None:
        """After the last backward: wait until the gradients are those of all ranks."""
        if self.buckets is not None:
            self.buckets.finish()

    def summed(self, values: "Tensor") -> "Tensor":
        """The sum over all ranks."""
        if self.world.plan.ranks > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values

    def summed_over_stage(self, values: "Tensor") -> "Tensor":
        """The sum over the ranks that hold the same layers."""
        if self.world.stage_group is not None:
            import torch.distributed as dist

            dist.all_reduce(values, group=self.world.stage_group)
        return values


def parallelize(model: "MoETransformer", world: World) -> Parallel:
    """Cut ``model``, which is whole and the same on every rank, in place. Make the optimizer afterwards."""
    plan = world.plan
    if plan.ranks == 1:
        return Parallel(world, model)
    from trainer.parallel.expert import hang_dispatchers
    from trainer.parallel.layout import slice_parameters
    from trainer.parallel.tensor import split_tokens

    slice_parameters(model, world)
    hang_dispatchers(model, world)
    split_tokens(model, world)
    _set_scope(model, world)
    if plan.zero_stage:
        from trainer.parallel.fully_sharded import shard_fully

        shard_fully(model, world)
        return Parallel(world, model)
    from trainer.parallel.data_parallel import GradientBuckets

    return Parallel(world, model, GradientBuckets(model, world))


def _set_scope(model: "MoETransformer", world: World) -> None:
    """Let routers count over the scope of the balancing loss: the tensor ranks that share a micro-batch, or all of the stage."""
    from trainer.model.router import Router

    group = world.stage_group if world.plan.auxiliary_loss_scope == "global" else world.group(Share.SLICED, TENSOR)
    if group is None:
        return
    for module in model.modules():
        if isinstance(module, Router) and module.load_balancing:
            module.scope_counts = _Counts(group).summed


@dataclass(frozen=True)
class _Counts:
    group: "dist.ProcessGroup"

    def summed(self, counts_E: "Tensor") -> "Tensor":
        import torch.distributed as dist

        total_E = counts_E.clone()
        dist.all_reduce(total_E, group=self.group)
        return total_E
