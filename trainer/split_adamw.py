"""AdamW over bf16 parameters with fp32 master weights that cost two bytes: the parameter is a weight's upper 16 bits, rounded,
and the optimizer keeps the rest as int16 ("parameter remainders", NVIDIA Apex DistributedFusedAdam).

Gradients are read in bf16. Their norm may be limited in the same pass: the kernel multiplies them by a number that is on the device. Where nothing limits
it, it need not be known before, and is taken in the same pass.
"""

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.kernels.triton.split_adamw import Launch, Row, Tensors

_Due = tuple[dict[str, Any], list[Tensor]]
"""A group, and its parameters that have a gradient."""


def joined(high: Tensor, low: Tensor) -> Tensor:
    """The fp32 weights of a bf16 tensor and its int16 remainders."""
    return high.view(torch.int16).int().bitwise_left_shift_(16).add_(low).view(torch.float32)


def parted(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest bf16 tensor, and what it lacks, such that ``joined`` gives ``weight`` back bit for bit."""
    bits = weight.view(torch.int32)
    high = (bits + 0x8000).bitwise_right_shift_(16)
    return high.short().view(torch.bfloat16), (bits - (high << 16)).short()


class SplitAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); states of a parameter: step, exp_avg, exp_avg_sq in fp32, remainder in int16.

    On CUDA one launch for each group of parameters, by a table of addresses, some 76 bytes a parameter, that is sent anew when one has changed.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float | Tensor, betas: tuple[float, float], eps: float, weight_decay: float = 0.0) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._scale: Tensor | None = None
        self._measures_norm = False
        self._squares: list[Tensor] = []
        self._rows: list[list[Row]] = []
        self._table: list[Launch] = []

    def measure_norm(self) -> None:
        """The next step takes the norm of all gradients on the way, as they are once scaled; on CUDA alone."""
        self._measures_norm, self._squares = True, []

    def measured_norm(self) -> Tensor:
        """The norm that the last step took, fp32."""
        squares, self._squares = self._squares, []
        assert squares
        return (squares[0] if len(squares) == 1 else torch.cat(squares)).sum().sqrt()

    def scale_gradients(self, scale: Tensor) -> None:
        """The next step multiplies all gradients by ``scale``, a number on the device."""
        self._scale = scale.float()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        self.update({parameter for group in self.param_groups for parameter in group["params"] if parameter.grad is not None})
        self.end_step()

    @torch.no_grad()
    def update(self, parameters: Collection[Tensor]) -> None:
        """Part of a step: update these, which have gradients."""
        due = [(group, [parameter for parameter in group["params"] if parameter in parameters]) for group in self.param_groups]
        due = [(group, chosen) for group, chosen in due if chosen]
        updated = [parameter for _, chosen in due for parameter in chosen]
        for parameter in updated:
            if not self.state[parameter]:
                self.state[parameter] = _fresh(parameter)
        if updated:
            torch._foreach_add_([self.state[parameter]["step"] for parameter in updated], 1.0)
            (self._update_in_one_pass if updated[0].is_cuda else self._update)(due)

    def end_step(self) -> None:
        """What was asked of one step ends with it."""
        self._scale, self._measures_norm = None, False

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As always, but with every state in its own type: the base class would round moments to the parameter's."""
        super().load_state_dict(state_dict)
        numbered = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, states in state_dict["state"].items():
            parameter = numbered[index]
            self.state[parameter] = {name: value.to(parameter.device) for name, value in states.items()}

    def _update(self, due: list[_Due]) -> None:
        for group, parameters in due:
            for parameter in parameters:
                assert parameter.grad is not None
                _reference_update(parameter, self.state[parameter], parameter.grad.float() * (1.0 if self._scale is None else self._scale), group)

    def _update_in_one_pass(self, due: list[_Due]) -> None:
        from trainer.kernels.triton.split_adamw import update

        device = due[0][1][0].device
        tensors = [[self._tensors(parameter) for parameter in parameters] for _, parameters in due]
        launches = self._launches(tensors, device)
        scale = torch.ones((), device=device) if self._scale is None else self._scale
        squares: list[Any] = [None] * len(launches)
        if self._measures_norm:
            programs = [launch.programs for launch in launches]
            self._squares.append(torch.empty(sum(programs), device=device))
            squares = list(torch.split(self._squares[-1], programs))
        for (group, _), launch, own in zip(due, launches, squares, strict=True):
            rate = group["lr"] if isinstance(group["lr"], Tensor) else torch.full((), group["lr"], device=device)
            log_betas = (math.log(group["betas"][0]), math.log(group["betas"][1]))
            update(launch, scale, rate, own, decay=group["weight_decay"], log_betas=log_betas, betas=group["betas"], epsilon=group["eps"])

    def _tensors(self, parameter: Tensor) -> "Tensors":
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        return parameter, state["remainder"], gradient.contiguous(), state["exp_avg"], state["exp_avg_sq"], state["step"]

    def _launches(self, tensors: list[list["Tensors"]], device: torch.device) -> list["Launch"]:
        """The table of ``tensors`` on the device. A step that is captured makes its own, from which all its replays read."""
        from trainer.kernels.triton.split_adamw import row, table

        if torch.cuda.is_current_stream_capturing():
            return table(tensors, device)
        rows = [[row(each) for each in group] for group in tensors]
        if rows != self._rows:
            self._rows, self._table = rows, table(tensors, device)
        return self._table


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    wide = torch.zeros_like(parameter, dtype=torch.float32, memory_format=torch.contiguous_format)
    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": wide,
        "exp_avg_sq": torch.zeros_like(wide),
        "remainder": torch.zeros_like(wide, dtype=torch.int16),
    }


def _reference_update(parameter: Tensor, state: dict[str, Tensor], gradient: Tensor, group: dict[str, Any]) -> None:
    """The formula in tensor operations."""
    (beta1, beta2), rate = group["betas"], float(group["lr"])
    step = state["step"].item()
    first, second = state["exp_avg"].lerp_(gradient, 1 - beta1), state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    weight = joined(parameter.detach(), state["remainder"]).mul_(1 - rate * group["weight_decay"])
    denominator = second.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
    weight.addcdiv_(first, denominator, value=-rate / (1 - beta1**step))
    high, low = parted(weight)
    parameter.copy_(high)
    state["remainder"].copy_(low)
