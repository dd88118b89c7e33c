"""Activation checkpointing (Chen et al. 2016, arXiv 1604.06174), applied to a model from outside.

What a wrapped function makes is let go of when it returns, and made again when the backward pass asks for it first. Nothing in it draws random
numbers, and the selection bias moves between steps alone, so that tokens go the same way twice; counts are what the first time returned.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch.utils.checkpoint import checkpoint

from simulator.specs import Plan
from trainer.model.moe import MoE
from trainer.model.transformer import Block, MoETransformer


def recompute(model: MoETransformer, plan: Plan) -> None:
    """Let every block recompute what the plan names."""
    for block in model.modules():
        if not isinstance(block, Block):
            continue
        if plan.recomputation == "full":
            block.forward = recomputed(block.forward)  # type: ignore[method-assign]
        if "attention" in plan.recomputation:
            block.mixed = recomputed(block.mixed)  # type: ignore[method-assign]
        if "feed_forward" in plan.recomputation:
            block.fed = recomputed(block.fed)  # type: ignore[method-assign]
        if "experts" in plan.recomputation and isinstance(block.feed_forward, MoE):
            block.feed_forward.returned = recomputed(block.feed_forward.returned)  # type: ignore[method-assign]


def recomputed(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, of positional arguments, with nothing kept but these."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)

    return run
