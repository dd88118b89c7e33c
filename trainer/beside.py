"""Updates beside the backward: a parameter is updated as soon as its gradient is whole, on a stream of its own, while the backward goes on.

What the backward leaves idle at the ends of its kernels is used by the optimizer, which waits for memory alone ("optimizer in backward", without its
saving of memory: a gradient stays until the step ends, since the other stream may still read it).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.split_adamw import SplitAdamW

WEIGHTS_AT_ONCE = 1 << 20
"""Small gradients wait for each other until there are so many weights."""


@contextmanager
def updates_beside(optimizer: SplitAdamW, scale: Tensor) -> Iterator[None]:
    """The backward in this context takes a whole step of ``optimizer``, gradients multiplied by ``scale``, and their norm.

    For one backward a step, whose gradients nothing but ``scale`` changes.
    """
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    waiting: set[Tensor] = set()

    def update() -> None:
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            optimizer.update(waiting)
        waiting.clear()

    def is_whole(parameter: Tensor) -> None:
        waiting.add(parameter)
        if sum(each.numel() for each in waiting) >= WEIGHTS_AT_ONCE:
            update()

    optimizer.scale_gradients(scale)
    optimizer.measure_norm()
    hooks = [parameter.register_post_accumulate_grad_hook(is_whole) for group in optimizer.param_groups for parameter in group["params"]]
    try:
        yield
        update()
    finally:
        for hook in hooks:
            hook.remove()
        torch.cuda.current_stream().wait_stream(beside)
        optimizer.end_step()
