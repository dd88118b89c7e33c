"""Tensor and sequence parallelism (Megatron-LM, arXiv 1909.08053; Korthikanti et al. 2022, arXiv 2205.05198).

Attention and dense feed-forwards are sliced: tokens are gathered before them, their partial sums reduced and scattered after them. Everything
between works on this rank's run of the tokens: embedding, norms, router, head and loss, whose parameters stay whole and whose gradients
are summed with those of the other ranks.

Shapes: T tokens, D width.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from simulator.components import Component
from trainer.measure.scope import scope
from trainer.model.attention import Attention
from trainer.model.feed_forward import FeedForward
from trainer.model.labels import labelled
from trainer.parallel.collectives import gather_rows, reduce_rows
from trainer.parallel.world import TENSOR, Share, World

if TYPE_CHECKING:
    from trainer.model import MoETransformer


def split_tokens(model: "MoETransformer", world: World) -> None:
    """Let a model whose slices are cut already work on this rank's tokens between its sliced parts."""
    group = world.group(Share.SLICED, TENSOR)
    if group is None:
        return
    tokens = _Tokens(group)
    model.own_tokens = tokens.own
    model.all_tokens = tokens.all
    setattr(model, "cross_entropy", tokens.weighed(model.cross_entropy))  # noqa: B010 - a method of this one model
    for block in model.blocks:
        for module in (getattr(block, "attention", None), getattr(block, "feed_forward", None)):
            if isinstance(module, Attention | FeedForward):
                component = Component.QKV if isinstance(module, Attention) else Component.DENSE_FEED_FORWARD
                out = Component.ATTENTION_OUTPUT if isinstance(module, Attention) else Component.DENSE_FEED_FORWARD
                module.register_forward_pre_hook(partial(tokens.before, component))
                module.register_forward_hook(partial(tokens.after, out))


class _Tokens:
    """Which tokens are whose. The total is that of the last ``own``: the micro-batch that is under way."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.ranks, self.place = dist.get_world_size(group), dist.get_rank(group)
        self.total = 0

    def own(self, ids_BS: Tensor) -> Tensor:
        """This rank's run of the flattened tokens."""
        self.total = ids_BS.numel()
        return torch.split(ids_BS.flatten(), self.sizes)[self.place]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each rank: as even as can be."""
        whole, rest = divmod(self.total, self.ranks)
        return [whole + (rank < rest) for rank in range(self.ranks)]

    def all(self, x_TD: Tensor) -> Tensor:
        """The tokens of all ranks, in order."""
        return gather_rows(x_TD, self.sizes, self.group)

    def weighed(self, cross_entropy: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """The mean loss of this rank's tokens times what they are of an even share of the labelled ones: its mean over ranks is the micro-batch's."""

        def loss(x_TD: Tensor, labels_BS: Tensor) -> Tensor:
            mean, own, total = cross_entropy(x_TD, labels_BS), labelled(self.own(labels_BS)), labelled(labels_BS)
            if isinstance(total, int) and (total == 0 or own * self.ranks == total):
                return mean
            return torch.where(torch.as_tensor(own, device=mean.device) > 0, mean * (own * self.ranks / total), 0.0)

        return loss

    def before(self, component: Component, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Gather the tokens that a sliced module works on."""
        with scope(component):
            return self.all(arguments[0]), *arguments[1:]

    def after(self, component: Component, module: nn.Module, arguments: Any, partial_TD: Tensor) -> Tensor:
        """Sum what the slices return, and keep this rank's tokens."""
        with scope(component):
            return reduce_rows(partial_TD, self.sizes, self.group)
