"""A layer of experts: router, permutation, grouped experts, combine; dropless.

Shapes: T tokens, D width, E experts, K experts a token, R = T K rows, F expert width.
"""

import torch
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import Implementation, MoeFeedForward
from trainer.kernels.grouped_linear import GROUPED_LINEARS
from trainer.kernels.permutation import Order, combine, order_by_expert, permute
from trainer.kernels.swiglu import SWIGLUS
from trainer.measure.scope import scope
from trainer.model.router import Router, RouterRecord, Routing


class Experts(nn.Module):
    """SwiGLU experts over rows sorted by expert."""

    def __init__(self, spec: MoeFeedForward, width: int, implementation: Implementation) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(spec.experts, width, spec.expert_width))
        self.up = nn.Parameter(torch.empty(spec.experts, width, spec.expert_width))
        self.down = nn.Parameter(torch.empty(spec.experts, spec.expert_width, width))
        self.linear = GROUPED_LINEARS[implementation.experts]
        self.swiglu = SWIGLUS[implementation.swiglu]

    def forward(self, rows_RD: Tensor, weight_R1: Tensor, ends_E: Tensor) -> Tensor:
        return self._project(self._hidden(rows_RD, weight_R1, ends_E), ends_E)

    def _hidden(self, rows_RD: Tensor, weight_R1: Tensor, ends_E: Tensor) -> Tensor:
        with scope(Component.EXPERTS):
            gate_RF = self.linear(rows_RD, self.gate.to(rows_RD.dtype), ends_E)
            up_RF = self.linear(rows_RD, self.up.to(rows_RD.dtype), ends_E)
        with scope(Component.ACTIVATION):
            return self.swiglu(gate_RF, up_RF, weight_R1)

    def _project(self, hidden_RF: Tensor, ends_E: Tensor) -> Tensor:
        with scope(Component.EXPERTS):
            return self.linear(hidden_RF, self.down.to(hidden_RF.dtype), ends_E)


class MoE(nn.Module):
    """Each token goes to its top-k experts; the weighted sum of what they return comes back."""

    def __init__(self, spec: MoeFeedForward, width: int, implementation: Implementation, *, load_balancing: bool, router_z: bool, uniform: bool) -> None:
        super().__init__()
        self.router = Router(spec, width, load_balancing=load_balancing, router_z=router_z, uniform=uniform)
        self.experts = Experts(spec, width, implementation)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, RouterRecord]:
        rows_RD, weight_R1, order, record = _dispatched(x_TD, self.router(x_TD))
        rows_RD = self.experts(rows_RD, weight_R1, order.ends_E)
        with scope(Component.COMBINE):
            return combine(rows_RD, order, x_TD.shape[0]), record


def _dispatched(x_TD: Tensor, routing: Routing) -> tuple[Tensor, Tensor, Order, RouterRecord]:
    weight_TK, expert_TK, record = routing
    del routing
    with scope(Component.PERMUTATION):
        order = order_by_expert(expert_TK, record.counts_E)
        weight_R1 = weight_TK.flatten().index_select(0, order.slot_R)[:, None]
        del weight_TK
        return permute(x_TD, order), weight_R1, order, record
