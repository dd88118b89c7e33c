"""The states of torch's random generators, as tensors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def random_state() -> "dict[str, torch.Tensor]":
    """Generator states of the CPU and of every CUDA device in use."""
    import torch

    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def set_random_state(states: "dict[str, torch.Tensor]") -> None:
    """Put ``random_state``'s result back; devices that this machine lacks are passed over."""
    import torch

    torch.set_rng_state(states["cpu"])
    for index in range(torch.cuda.device_count()):
        if f"cuda:{index}" in states:
            torch.cuda.set_rng_state(states[f"cuda:{index}"], index)
