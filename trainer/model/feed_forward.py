"""Dense SwiGLU feed-forward.

Shapes: T tokens, D width, F hidden width.
"""

from torch import Tensor, nn

from simulator.components import Component
from trainer.kernels.swiglu import SWIGLUS
from trainer.measure.scope import scope
from trainer.model.linear import Linear


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)); its operations belong to ``component``."""

    def __init__(self, width: int, hidden_width: int, swiglu_kernel: str, component: Component = Component.DENSE_FEED_FORWARD) -> None:
        super().__init__()
        self.gate = Linear(width, hidden_width)
        self.up = Linear(width, hidden_width)
        self.down = Linear(hidden_width, width)
        self.swiglu = SWIGLUS[swiglu_kernel]
        self.component = component

    def forward(self, x_TD: Tensor) -> Tensor:
        return self._project(self._hidden(x_TD))

    def _hidden(self, x_TD: Tensor) -> Tensor:
        with scope(self.component):
            gate_TF, up_TF = self.gate(x_TD), self.up(x_TD)
        with scope(Component.ACTIVATION):
            return self.swiglu(gate_TF, up_TF, None)

    def _project(self, hidden_TF: Tensor) -> Tensor:
        with scope(self.component):
            out_TD: Tensor = self.down(hidden_TF)
            return out_TD
