"""Benchmark kernels of one operation against each other: time forward and backward, roofline, error against float64."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from configuration.errors import ConfigurationError, unknown
from trainer.bench.families import FAMILIES, Family
from trainer.bench.shape import BenchShape
from trainer.bench.timing import Timing, timed

OPTIMIZER = "optimizer"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Row:
    """One kernel at one shape. Bytes are the least that must move: inputs read, outputs written, once each. Errors are relative norms."""

    operation: str
    kernel: str
    shape: BenchShape
    forward: Timing | None
    backward: Timing | None
    forward_flops: float
    backward_flops: float
    forward_bytes: int
    backward_bytes: int
    forward_error: float | None
    gradient_error: float | None
    note: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain content, rates included."""
        return {
            "operation": self.operation,
            "kernel": self.kernel,
            "shape": self.shape.model_dump(),
            "forward": None if self.forward is None else self.forward.as_dict(),
            "backward": None if self.backward is None else self.backward.as_dict(),
            "forward_flops": self.forward_flops,
            "backward_flops": self.backward_flops,
            "forward_bytes": self.forward_bytes,
            "backward_bytes": self.backward_bytes,
            "forward_flops_per_s": None if self.forward is None else self.forward_flops / self.forward.median_s,
            "backward_flops_per_s": None if self.backward is None else self.backward_flops / self.backward.median_s,
            "forward_bytes_per_s": None if self.forward is None else self.forward_bytes / self.forward.median_s,
            "backward_bytes_per_s": None if self.backward is None else self.backward_bytes / self.backward.median_s,
            "forward_error": self.forward_error,
            "gradient_error": self.gradient_error,
            "note": self.note,
        }


def chosen_families(names: list[str], file: Path | None) -> dict[str, Family | None]:
    """The operations asked for, all by default, with the kernels of a user's file beside the registered ones; None for the optimizer, which is no function.

    The file defines ``KERNELS``: operation to name to function. Raises ConfigurationError.
    """
    families = dict(FAMILIES)
    for operation, kernels in ({} if file is None else _read(file)).items():
        if operation not in families:
            raise unknown(f"--file {file}: operation", operation, families)
        if not isinstance(kernels, dict) or not all(callable(kernel) for kernel in kernels.values()):
            raise ConfigurationError(f"--file {file}: KERNELS[{operation!r}] must be {{name: function}}")
        families[operation] = replace(families[operation], kernels=families[operation].kernels | kernels)
    known: dict[str, Family | None] = {**families, OPTIMIZER: None}
    for name in names:
        if name not in known:
            raise unknown("--kernel", name, known)
    return {name: known[name] for name in names or known}


def _read(file: Path) -> dict[str, dict[str, Callable[..., Tensor]]]:
    specification = importlib.util.spec_from_file_location("user_kernels", file)
    if specification is None or specification.loader is None or not file.is_file():
        raise ConfigurationError(f"--file {file}: no Python file")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise ConfigurationError(f"--file {file}: {type(error).__name__}: {error}") from None
    kernels = getattr(module, "KERNELS", None)
    if not isinstance(kernels, dict):
        raise ConfigurationError(f"--file {file}: defines no KERNELS = {{operation: {{name: function}}}}")
    return kernels


def measure_family(operation: str, family: Family, shape: BenchShape, *, dtype: str, device: str, repeats: int) -> list[Row]:
    """All kernels of one operation on the same inputs."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device, dtype=torch.float32).to(DTYPES[dtype])

    inputs = family.inputs(shape, draw)
    wide = [_leaf(given.double()) if given.is_floating_point() else given for given in inputs]
    wants = _listed(family.reference(*wide))
    pulls = [torch.randn(want.shape, generator=generator, device=device, dtype=torch.float32) for want in wants]
    gradients = torch.autograd.grad(wants, _floating(wide), [pull.double() for pull in pulls])
    expected = _Expected([want.detach() for want in wants], gradients, pulls)
    return [_measure(operation, name, family, shape, inputs, expected, device, repeats) for name in family.kernels]


class _Expected(NamedTuple):
    """Results, and gradients of the inputs for these ``pulls`` at the results."""

    results: list[Tensor]
    gradients: tuple[Tensor, ...]
    pulls: list[Tensor]


def _measure(
    operation: str, name: str, family: Family, shape: BenchShape, given: tuple[Tensor, ...], expected: _Expected, device: str, repeats: int
) -> Row:  # fmt: skip
    kernel = family.kernels[name]
    inputs = [_leaf(tensor) if tensor.is_floating_point() else tensor for tensor in given]
    leaves = _floating(inputs)
    moved = sum(tensor.nbytes for tensor in inputs)
    flops = family.flops(shape)
    try:
        outs = _listed(kernel(*inputs))
        shapes, wanted_shapes = ([list(result.shape) for result in results] for results in (outs, expected.results))
        if shapes != wanted_shapes:
            raise ValueError(f"the result has the shape {_told(shapes)}, expected {_told(wanted_shapes)}")
        pulls = [pull.to(out.dtype) for pull, out in zip(expected.pulls, outs, strict=True)]
        gradients = torch.autograd.grad(outs, leaves, pulls)
        # Nodes that lived on would tie the leaves to the stream of this call, which is not the one that captures.
        outs = [out.detach() for out in outs]
    except Exception as error:  # of the device, or of the user's kernel: the others still run
        return Row(operation, name, shape, None, None, flops, flops * family.backward_ratio, 0, 0, None, None, _first_line(error))
    forward, both = _timed_alike(lambda: kernel(*inputs), lambda: torch.autograd.grad(_listed(kernel(*inputs)), leaves, pulls), device, repeats)
    backward = Timing([max(seconds - forward.median_s, 1e-9) for seconds in both.repeats_s], both.calls, both.issued)
    grads_bytes = sum(leaf.nbytes for leaf in leaves)
    moved += sum(out.nbytes for out in outs)
    return Row(
        operation, name, shape, forward, backward, flops, flops * family.backward_ratio, moved, moved + grads_bytes,
        _largest_error(outs, expected.results), _largest_error(gradients, expected.gradients),
    )  # fmt: skip


def _timed_alike(run: Callable[[], object], run_both: Callable[[], object], device: str, repeats: int) -> tuple[Timing, Timing]:
    """Forward without autograd, forward and backward; the host issues both where one of them cannot be in a graph, for they are subtracted."""
    with torch.no_grad():
        forward = timed(run, device, repeats)
    both = timed(run_both, device, repeats)
    if forward.issued != both.issued:
        with torch.no_grad():
            forward = timed(run, device, repeats, calls=forward.calls)
        both = timed(run_both, device, repeats, calls=both.calls)
    return forward, both


def _listed(results: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [results] if isinstance(results, Tensor) else list(results)


def _told(shapes: list[list[int]]) -> str:
    return ", ".join(map(str, shapes))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:160]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _floating(tensors: "list[Tensor] | tuple[Tensor, ...]") -> list[Tensor]:
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _largest_error(gots: Sequence[Tensor], wants: Sequence[Tensor]) -> float:
    return max(float((got.detach().double() - want).norm() / want.norm().clamp(min=1e-30)) for got, want in zip(gots, wants, strict=True))
