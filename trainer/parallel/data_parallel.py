"""Data parallelism: gradients are summed over the ranks that hold the same parameters, in buckets, beside the backward pass.

As PyTorch's DistributedDataParallel does (Li et al. 2020, arXiv 2006.15704, section 3.2), for several groups at once: a bucket is made when its
first gradient comes, gradients become views of it (no bytes of their own), and it leaves when the last micro-batch has filled it. A gradient as
large as a bucket is one itself, where it lies.
Losses are divided by the tokens of all ranks, so that sums are right for every group, the experts' too.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from simulator.components import Component
from trainer.measure.scope import scope
from trainer.parallel.layout import division
from trainer.parallel.world import SHARD, World

if TYPE_CHECKING:
    from torch.distributed import Work


@dataclass
class Bucket:
    """Gradients that are summed together."""

    group: dist.ProcessGroup
    alone: bool = False
    """Whether its one gradient is the bucket itself."""
    parameters: list[nn.Parameter] = field(default_factory=list)
    flat: Tensor | None = None
    passes: int = 0
    """Gradients that have come in this step."""
    work: "Work | None" = None

    @property
    def elements(self) -> int:
        """Elements of all its gradients."""
        return sum(parameter.numel() for parameter in self.parameters)

    def take(self, parameter: nn.Parameter) -> None:
        """Move a gradient in, zeros where there is none; from then on it accumulates there."""
        if self.alone:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            self.flat = parameter.grad.view(-1)
            return
        if self.flat is None:
            self.flat = torch.empty(self.elements, dtype=parameter.dtype, device=parameter.device)
            parts = torch.split(self.flat, [member.numel() for member in self.parameters])
            self.views = {member: part.view_as(member) for member, part in zip(self.parameters, parts, strict=True)}
        view = self.views[parameter]
        if parameter.grad is None:
            view.zero_()
        elif parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)
        parameter.grad = view

    def leave(self) -> None:
        """Begin to sum over the group."""
        if self.work is None and self.flat is not None:
            self.work = dist.all_reduce(self.flat, group=self.group, async_op=True)

    def arrive(self) -> None:
        """Wait for the sum; the storage lives on in the gradients alone."""
        if self.work is not None:
            self.work.wait()
        self.work, self.flat, self.passes = None, None, 0
        self.views = {}

    views: dict[nn.Parameter, Tensor] = field(default_factory=dict)


class GradientBuckets:
    """All buckets of a model. Parameters that no other rank holds stay out."""

    def __init__(self, model: nn.Module, world: World) -> None:
        self.plan = world.plan
        self.buckets: list[Bucket] = []
        filling: dict[dist.ProcessGroup, Bucket] = {}
        # Backward makes gradients from the last layer to the first.
        for name, parameter in reversed(list(model.named_parameters())):
            group = world.group(division(name).share, SHARD)
            if group is None:
                continue
            bucket = filling.get(group)
            full = bucket is not None and (bucket.elements + parameter.numel()) * parameter.element_size() > self.plan.gradient_bucket_bytes
            if bucket is None or full:
                bucket = filling[group] = Bucket(group, alone=parameter.nbytes >= self.plan.gradient_bucket_bytes)
                self.buckets.append(bucket)
            bucket.parameters.append(parameter)
            parameter.register_post_accumulate_grad_hook(self._taker(bucket))  # type: ignore[no-untyped-call]

    def _taker(self, bucket: Bucket) -> Callable[[nn.Parameter], None]:
        def take(parameter: nn.Parameter) -> None:
            with scope(Component.GRADIENT_SYNC):
                bucket.take(parameter)
                bucket.passes += 1
                if self.plan.overlap_gradient_sync and bucket.passes == self.plan.accumulation * len(bucket.parameters):
                    bucket.leave()

        return take

    def finish(self) -> None:
        """Sum what has not left yet and wait for all. A parameter without gradient gets zeros: every rank sums the same buckets."""
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                if parameter.grad is None:
                    bucket.take(parameter)
            bucket.leave()
        for bucket in self.buckets:
            bucket.arrive()
