"""A layer of experts: router, permutation, grouped experts, combine, shared experts.

Shapes: T tokens, D width, E experts, K experts a token, R rows (T K, or E times the capacity), F expert width.
"""

import torch
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import Implementation, MoeFeedForward
from trainer.kernels.grouped_linear import GROUPED_LINEARS, UNEVEN_LINEARS
from trainer.kernels.permutation import PERMUTATIONS, Order, Permutation
from trainer.kernels.swiglu import PACKED_SWIGLUS, SWIGLUS
from trainer.measure.scope import scope
from trainer.model.capacity import order_with_capacity
from trainer.model.feed_forward import FeedForward
from trainer.model.router import Router, RouterRecord, Routing


class Experts(nn.Module):
    """SwiGLU experts over rows sorted by expert."""

    def __init__(self, spec: MoeFeedForward, width: int, implementation: Implementation) -> None:
        super().__init__()
        self.packed = implementation.experts == "packed"
        if self.packed:
            self.gate_up = nn.Parameter(torch.empty(spec.experts, width, 2 * spec.expert_width))
        else:
            self.gate = nn.Parameter(torch.empty(spec.experts, width, spec.expert_width))
            self.up = nn.Parameter(torch.empty(spec.experts, width, spec.expert_width))
        self.down = nn.Parameter(torch.empty(spec.experts, spec.expert_width, width))
        self.linear = GROUPED_LINEARS[implementation.experts]
        self.uneven_linear = UNEVEN_LINEARS[implementation.experts]
        self.swiglu = SWIGLUS[implementation.swiglu]
        self.packed_swiglu = PACKED_SWIGLUS[implementation.swiglu]

    def forward(self, rows_RD: Tensor, weight_R1: Tensor, ends_E: Tensor) -> Tensor:
        return self._project(self._hidden(rows_RD, weight_R1, ends_E), ends_E)

    def _hidden(self, rows_RD: Tensor, weight_R1: Tensor, ends_E: Tensor) -> Tensor:
        if self.packed:
            with scope(Component.EXPERTS):
                both_RG = self._linear(rows_RD, self.gate_up.to(rows_RD.dtype), ends_E)
            with scope(Component.ACTIVATION):
                return self.packed_swiglu(both_RG, weight_R1)
        with scope(Component.EXPERTS):
            gate_RF = self._linear(rows_RD, self.gate.to(rows_RD.dtype), ends_E)
            up_RF = self._linear(rows_RD, self.up.to(rows_RD.dtype), ends_E)
        with scope(Component.ACTIVATION):
            return self.swiglu(gate_RF, up_RF, weight_R1)

    def _project(self, hidden_RF: Tensor, ends_E: Tensor) -> Tensor:
        with scope(Component.EXPERTS):
            return self._linear(hidden_RF, self.down.to(hidden_RF.dtype), ends_E)

    def _linear(self, x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
        # Without gradients there is no capacity.
        return (self.linear if torch.is_grad_enabled() else self.uneven_linear)(x_RI, weight_EIO, ends_E)


class MoE(nn.Module):
    """Each token goes to its top-k experts; the weighted sum of what they return comes back."""

    def __init__(self, spec: MoeFeedForward, width: int, implementation: Implementation, *, load_balancing: bool, router_z: bool, uniform: bool) -> None:
        super().__init__()
        self.router = Router(spec, width, load_balancing=load_balancing, router_z=router_z, uniform=uniform, logits=implementation.router)
        self.experts = Experts(spec, width, implementation)
        self.permutation = PERMUTATIONS[implementation.permutation]
        self.shared = FeedForward(width, spec.shared_width, implementation.swiglu, Component.SHARED_EXPERTS) if spec.shared_width else None
        self.spec = spec

    def forward(self, x_TD: Tensor) -> tuple[Tensor, RouterRecord]:
        # Without gradients, in evaluation and generation, nothing is dropped: a token's fate would hang on its neighbours.
        capacity = self.spec.capacity(x_TD.shape[0]) if torch.is_grad_enabled() else None
        weight_R1, order, record = _ordered(self.router(x_TD), self.permutation, capacity)
        rows_RD = self.returned(x_TD, weight_R1, order)
        with scope(Component.COMBINE):
            out_TD = self.permutation.combine(rows_RD, order, x_TD.shape[0])
        if self.shared is None:
            return out_TD, record
        del rows_RD, weight_R1, order
        shared_TD = self.shared(x_TD)
        with scope(Component.SHARED_EXPERTS):
            return out_TD + shared_TD, record

    def returned(self, x_TD: Tensor, weight_R1: Tensor, order: Order) -> Tensor:
        """What the experts return for each row, (R, D)."""
        with scope(Component.PERMUTATION):
            rows_RD = self.permutation.permute(x_TD, order)
        out_RD: Tensor = self.experts(rows_RD, weight_R1, order.ends_E)
        return out_RD


def _ordered(routing: Routing, permutation: Permutation, capacity: int | None) -> tuple[Tensor, Order, RouterRecord]:
    """The weight of each row, the order of rows, and what the router leaves behind."""
    weight_TK, expert_TK, record = routing
    del routing
    with scope(Component.PERMUTATION):
        order, empty_R1 = (
            (permutation.order(expert_TK, record.counts_E), None) if capacity is None else order_with_capacity(expert_TK, record.counts_E, capacity)
        )
        weight_R1 = permutation.reorder(weight_TK, order)[:, None]
        del weight_TK
        return weight_R1 if empty_R1 is None else weight_R1.masked_fill(empty_R1, 0), order, record


def capacities(model: nn.Module, tokens: int) -> list[int | None]:
    """Rows that an expert of each MoE layer takes of ``tokens``; None where it takes all."""
    return [layer.spec.capacity(tokens) for layer in model.modules() if isinstance(layer, MoE)]
