"""Expert parallelism (GShard, arXiv 2006.16668): rows travel to the ranks that hold their experts, and come back.

Hung onto the experts of a layer from outside. They get rows sorted by expert, so that those for one rank lie together; the counts are
exchanged and read by the host once, which the all-to-all needs. With expert-tensor parallelism every rank that holds a slice of an expert gets
the row, and what they return is summed where it came from.

Shapes: G ranks of the group, E experts, L local experts, R rows here, Q rows received, D width.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from simulator.components import Component
from trainer.measure.scope import scope
from trainer.model.moe import Experts
from trainer.parallel.collectives import exchange
from trainer.parallel.world import World


class Journey(NamedTuple):
    """How the rows of one layer travel."""

    sent: list[int]
    """Rows for each rank of the group."""
    received: list[int]
    """Rows from each rank of the group."""
    by_expert_Q: Tensor
    """Place after arrival of each row in the order of the local experts."""
    by_arrival_Q: Tensor
    """And back."""


class Dispatcher:
    """The two hooks of one layer's experts: rows out before them, rows home after them."""

    def __init__(self, group: dist.ProcessGroup, slices: int) -> None:
        self.group = group
        self.slices = slices
        """Ranks that hold a slice of each expert."""
        self._under_way: Journey | None = None

    def dispatch(self, module: nn.Module, arguments: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """From (rows, weights, ends) by expert over all experts to those of the local experts."""
        rows_RD, weight_R1, ends_E = arguments
        with scope(Component.DISPATCH):
            journey, ends_L = self._planned(ends_E)
            # Kept until the rows come home; one that recomputation broke off is replaced.
            self._under_way = journey
            rows_RD, weight_R1 = (self._copied(rows, journey.sent) for rows in (rows_RD, weight_R1))
            rows_QD = exchange(rows_RD, journey.sent, journey.received, self.group).index_select(0, journey.by_expert_Q)
            weight_Q1 = exchange(weight_R1, journey.sent, journey.received, self.group).index_select(0, journey.by_expert_Q)
            return rows_QD, weight_Q1, ends_L

    def combine(self, module: nn.Module, arguments: Any, rows_QD: Tensor) -> Tensor:
        """Home, in the order in which the rows left."""
        journey, self._under_way = self._under_way, None
        assert journey is not None
        with scope(Component.COMBINE):
            rows_QD = rows_QD.index_select(0, journey.by_arrival_Q)
            return self._summed(exchange(rows_QD, journey.received, journey.sent, self.group), journey.sent)

    def _planned(self, ends_E: Tensor) -> tuple[Journey, Tensor]:
        ranks = dist.get_world_size(self.group)
        counts_E = ends_E.diff(prepend=ends_E.new_zeros(1)).long()
        sent_GL = counts_E.view(ranks // self.slices, -1).repeat_interleave(self.slices, 0)
        received_GL = torch.empty_like(sent_GL)
        dist.all_to_all_single(received_GL, sent_GL, group=self.group)
        sent, received = torch.stack([sent_GL.sum(1), received_GL.sum(1)]).tolist()
        local = sent_GL.shape[1]
        expert_Q = torch.arange(local, device=ends_E.device).repeat(ranks).repeat_interleave(received_GL.flatten(), output_size=sum(received))
        by_expert_Q = expert_Q.argsort(stable=True)
        ends_L = received_GL.sum(0).cumsum(0, dtype=torch.int32)
        return Journey(sent, received, by_expert_Q, by_expert_Q.argsort()), ends_L

    def _copied(self, rows_RD: Tensor, sent: list[int]) -> Tensor:
        """The rows of each expert once for every slice of it."""
        if self.slices == 1:
            return rows_RD
        return torch.cat([part for part in torch.split(rows_RD, sent[:: self.slices]) for _ in range(self.slices)])

    def _summed(self, rows_ND: Tensor, sent: list[int]) -> Tensor:
        """The sum over the slices."""
        if self.slices == 1:
            return rows_ND
        parts = torch.split(rows_ND, sent)
        return torch.cat([torch.stack(parts[first : first + self.slices]).sum(0) for first in range(0, len(parts), self.slices)])


def hang_dispatchers(model: nn.Module, world: World) -> None:
    """Let the experts of every layer, which must be sliced already, take rows from all ranks of the expert group."""
    group = world.expert_group
    if group is None:
        return
    for experts in _experts(model):
        dispatcher = Dispatcher(group, world.plan.etp)
        experts.register_forward_pre_hook(dispatcher.dispatch)
        experts.register_forward_hook(dispatcher.combine)


def _experts(model: nn.Module) -> Iterator[Experts]:
    yield from (module for module in model.modules() if isinstance(module, Experts))
