"""Apply a plan to a model: cut it, hang the exchanges onto it, and keep what a step needs of that."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.components import Component
from trainer.measure.scope import scope
from trainer.parallel.together import gathered
from trainer.parallel.world import TENSOR, Share, World

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch import Tensor

    from trainer.model import KVCache, MoETransformer
    from trainer.parallel.data_parallel import GradientBuckets
    from trainer.parallel.pipeline import Pipeline


@dataclass
class Parallel:
    """A model under its plan, as the step sees it."""

    world: World
    model: "MoETransformer"
    buckets: "GradientBuckets | None" = None
    pipeline: "Pipeline | None" = None

    def before_micro_batch(self, *, last: bool) -> None:
        """Say that a micro-batch begins, and whether it is the last of its step."""
        if self.world.plan.zero_stage:
            from trainer.parallel.fully_sharded import before_micro_batch

            before_micro_batch(self.model, self.world.plan, last=last)

    def finish_gradients(self) -> None:
        """After the last backward: wait until the gradients are those of all ranks."""
        if self.buckets is not None:
            self.buckets.finish()
        if self.pipeline is not None:
            self.pipeline.finish_gradients()

    @property
    def has_loss(self) -> bool:
        """Whether this rank computes the language-model loss."""
        return self.world.stage == self.world.plan.pp - 1

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

            with scope(Component.ROUTER):
                dist.all_reduce(values, group=self.world.stage_group)
        return values

    def gathered_losses(self, losses_N: "Tensor") -> "Tensor":
        """The losses of all data-parallel ranks, one after another."""
        import torch

        speaks = self.world.index(Share.SLICED, TENSOR) == 0 and self.has_loss
        parts = gathered(self.world, losses_N.tolist() if speaks else [])
        return torch.tensor([loss for part in parts for loss in part], dtype=losses_N.dtype)

    def summed_over_data(self, number: int) -> int:
        """The sum over the data-parallel ranks."""
        return sum(gathered(self.world, number)) // (self.world.plan.ranks // self.world.plan.dp)

    def summed_counts(self, counts_LE: "list[Tensor]") -> "list[Tensor]":
        """Tokens of each expert of each MoE layer of the whole model, from what this rank counted of its own layers."""
        import torch

        if self.world.plan.ranks == 1:
            return counts_LE
        if counts_LE:
            counts_LE = list(torch.split(self.summed_over_stage(torch.cat(counts_LE)), [len(counts_E) for counts_E in counts_LE]))
        if self.world.plan.pp == 1:
            return counts_LE
        layers = list(zip(self.moe_layers, (counts_E.tolist() for counts_E in counts_LE), strict=True))
        found = {layer: counts for part in gathered(self.world, layers) for layer, counts in part}
        return [torch.tensor(found[layer]) for layer in sorted(found)]

    @property
    def moe_layers(self) -> list[int]:
        """Numbers of the decoder blocks with experts that this rank has."""
        from trainer.model.moe import MoE

        return [index for index, block in enumerate(self.model.blocks) if isinstance(getattr(block, "feed_forward", None), MoE)]


def parallelize(model: "MoETransformer", world: World) -> Parallel:
    """Cut ``model``, which is whole and the same on every rank, in place. Make the optimizer afterwards."""
    plan = world.plan
    if plan.ranks == 1:
        return Parallel(world, model)
    from trainer.parallel.expert import hang_dispatchers
    from trainer.parallel.layout import slice_parameters
    from trainer.parallel.tensor import split_tokens

    pipeline = None
    if plan.pp > 1:
        from trainer.parallel.pipeline import Pipeline

        pipeline = Pipeline(model, world)
        setattr(model, "logits", pipeline.logits)  # noqa: B010 - methods of this one model
        setattr(model, "token_losses", pipeline.token_losses)  # noqa: B010
    slice_parameters(model, world)
    hang_dispatchers(model, world)
    split_tokens(model, world)
    _set_scope(model, world)
    _speak_with_one_voice(model)
    if plan.zero_stage:
        from trainer.parallel.fully_sharded import shard_fully

        shard_fully(model, world)
        return Parallel(world, model)
    from trainer.parallel.data_parallel import GradientBuckets

    return Parallel(world, model, GradientBuckets(model, world), pipeline)


def _speak_with_one_voice(model: "MoETransformer") -> None:
    """Let every rank get the first one's logits: they draw the same token from them, bit for bit."""
    import torch.distributed as dist

    own = model.logits

    def logits(inputs_BS: "Tensor", cache: "KVCache | None" = None) -> "Tensor":
        logits_BSV = own(inputs_BS, cache)
        dist.broadcast(logits_BSV, src=0)
        return logits_BSV

    setattr(model, "logits", logits)  # noqa: B010 - a method of this one model


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
