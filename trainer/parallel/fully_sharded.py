"""Fully sharded data parallelism (FSDP2; Zhao et al. 2023, arXiv 2304.11277): ZeRO-2, ZeRO-3 and, with replicas, hybrid sharding.

Units, each gathered and freed as one: the matrices of a block; its norms and router; the embedding with the head; the final norm. Each unit lies on the mesh
of the ranks that would otherwise hold the same numbers: matrices that different ranks share, experts or slices, are units of their own, as is each kind where
anything is recomputed. Gradients are summed, not averaged: losses are divided by the tokens of all ranks.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import Shard

from simulator.components import Component
from simulator.specs import Plan
from trainer.measure.scope import scope
from trainer.model.linear import Linear
from trainer.model.moe import Experts
from trainer.model.transformer import Block
from trainer.parallel.layout import division, shard_axis
from trainer.parallel.world import REPLICA, SHARD, Share, World

if TYPE_CHECKING:
    from trainer.model import MoETransformer


def shard_fully(model: "MoETransformer", world: World) -> None:
    """Shard parameters, gradients and states of ``model``, whose slices are cut already, in place."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    sharder = _Sharder(world, names)
    for block in model.blocks:
        if isinstance(block, Block):
            for share, modules in _matrices(block, world, names):
                sharder.shard(modules, share)
            sharder.shard([block], Share.WHOLE, master=True)
    sharder.shard([model.final_norm], Share.WHOLE, master=True)
    sharder.shard([model], Share.WHOLE)
    for method in ("logits", "token_losses"):
        register_fsdp_forward_method(model, method)


def _matrices(block: Block, world: World, names: dict[nn.Parameter, str]) -> list[tuple[Share, list[nn.Module]]]:
    """The units of the matrices of ``block``, as few as may be: every one takes the host some milliseconds a step. What is recomputed may run again in part,
    and a unit waits for all of its modules."""
    units: dict[object, tuple[Share, list[nn.Module]]] = {}
    for module in block.modules():
        if isinstance(module, Linear | Experts):
            # Shared experts are whole on every rank, the projections may be sliced.
            share = Share.EXPERT if isinstance(module, Experts) else division(names[module.weight]).share
            together = world.plan.recomputation == "none"
            units.setdefault(id(world.meshes[share]) if together else share, (share, []))[1].append(module)
    return list(units.values())


class _Sharder:
    def __init__(self, world: World, names: dict[nn.Parameter, str]) -> None:
        self.world, self.names = world, names
        self.alone: set[nn.Parameter] = set()

    def shard(self, modules: list[nn.Module], share: Share, *, master: bool = False) -> None:
        """Make one unit of ``modules``. ``master``: they compute in the type of the parameters (norms, router)."""
        plan = self.world.plan
        if not modules:
            return
        mesh = self.world.submesh(share, (REPLICA, SHARD))
        if mesh is None:
            # No other rank holds these: nothing to shard, and the units around must leave them alone.
            self.alone |= {parameter for module in modules for parameter in module.parameters()}
            return
        bf16 = plan.precision == "bf16-mixed" and not master
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False) if bf16 else MixedPrecisionPolicy(cast_forward_inputs=False)
        fully_shard(
            modules if len(modules) > 1 else modules[0],
            mesh=mesh,
            reshard_after_forward=plan.zero_stage == 3,
            shard_placement_fn=lambda parameter: Shard(shard_axis(self.names[parameter], parameter, self.world)),
            mp_policy=policy,
            ignored_params=self.alone,
        )
        for module in modules:
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        _name_work(modules[0])


WORK = {Component.PARAMETER_GATHER: ("unshard", "wait_for_unshard"), Component.GRADIENT_SYNC: ("post_backward", "finalize_backward")}
"""Methods of a unit of FSDP, by what they are for."""


def _name_work(module: nn.Module) -> None:
    """Let gathers and reductions, which FSDP does in hooks wherever the model is, belong to components of their own."""
    assert isinstance(module, FSDPModule)
    unit = module._get_fsdp_state()._fsdp_param_group
    if unit is None:
        return
    for component, methods in WORK.items():
        for method in methods:
            setattr(unit, method, _within(component, getattr(unit, method)))


def _within(component: Component, work: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        with scope(component):
            return work(*arguments, **named)

    return run


def before_micro_batch(model: nn.Module, plan: Plan, *, last: bool) -> None:
    """Between micro-batches ZeRO-2 keeps the gathered parameters, and replicas wait with their all-reduce for the ``last``."""
    assert isinstance(model, FSDPModule)
    model.set_is_last_backward(last)
    model.set_reshard_after_backward(plan.zero_stage == 3 or last)
    if plan.replicas > 1:
        model.set_requires_all_reduce(last)
