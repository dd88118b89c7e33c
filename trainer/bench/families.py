"""What can be benchmarked: for each operation its kernels, how to make inputs, the formula in float64, and its FLOPs.

A kernel and its formula are functions of the same tensors and give one tensor or a tuple of them. Inputs that want a gradient are floating; the others
tell the layout.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from configuration.errors import ConfigurationError
from trainer.bench.shape import BenchShape
from trainer.kernels.cross_entropy import LINEAR_CROSS_ENTROPIES
from trainer.kernels.grouped_linear import GROUPED_LINEARS
from trainer.kernels.norm import NORMS
from trainer.kernels.permutation import PERMUTATIONS, Permutation
from trainer.kernels.rope import PACKED_ROPES, PackedRope, tables
from trainer.kernels.router_logits import ROUTER_LOGITS
from trainer.kernels.swiglu import PACKED_SWIGLUS

Function = Callable[..., Tensor | tuple[Tensor, ...]]
Draw = Callable[..., Tensor]
"""Normal numbers of a shape in the benchmark's type, on its device."""


@dataclass(frozen=True)
class Family:
    """One operation. ``flops`` of its matrix products, forward; backward has ``backward_ratio`` times as many."""

    kernels: dict[str, Function]
    inputs: Callable[[BenchShape, Draw], tuple[Tensor, ...]]
    reference: Function
    flops: Callable[[BenchShape], float] = lambda shape: 0.0
    backward_ratio: float = 2.0
    check: Callable[[BenchShape], None] = lambda shape: None
    """Raises ConfigurationError for a shape that the operation cannot have."""


def _experts_loop(x_RI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    ends = ends_E.tolist()
    return torch.cat([x_RI[begin:end] @ weight for begin, end, weight in zip([0, *ends[:-1]], ends, weight_EIO, strict=True)])


def _even_ends(shape: BenchShape, draw: Draw) -> Tensor:
    return (torch.arange(1, shape.experts + 1, device=draw(1).device) * shape.rows // shape.experts).int()


def _packed_swiglu(both_RG: Tensor, weight_R1: Tensor) -> Tensor:
    gate, up = both_RG.chunk(2, -1)
    return F.silu(gate) * up * weight_R1


def _choices(shape: BenchShape, draw: Draw) -> Tensor:
    return torch.rand(shape.tokens, shape.experts, device=draw(1).device).topk(shape.top_k).indices


def _there_and_back(permutation: Permutation) -> Function:
    def function(x_TD: Tensor, expert_TK: Tensor, counts_E: Tensor) -> Tensor:
        order = permutation.order(expert_TK, counts_E)
        return permutation.combine(permutation.permute(x_TD, order), order, x_TD.shape[0])

    return function


def _permutation_inputs(shape: BenchShape, draw: Draw) -> tuple[Tensor, ...]:
    expert_TK = _choices(shape, draw)
    return draw(shape.tokens, shape.width), expert_TK, torch.bincount(expert_TK.flatten(), minlength=shape.experts)


def _labels(shape: BenchShape, draw: Draw) -> Tensor:
    return torch.randint(shape.vocabulary, (shape.tokens,), device=draw(1).device)


def _attention_inputs(shape: BenchShape, draw: Draw) -> tuple[Tensor, ...]:
    batch, head_width = shape.tokens // shape.sequence, shape.width // shape.heads
    return tuple(draw(batch, shape.heads, shape.sequence, head_width) for _ in range(3))


def _check_choices(shape: BenchShape) -> None:
    if shape.top_k > shape.experts:
        raise ConfigurationError(f"shape.top_k ({shape.top_k}): must be at most shape.experts ({shape.experts}) for --kernel permutation")


_angles = lru_cache(maxsize=1)(partial(tables, theta=10000.0))


def _side_by_side(shape: BenchShape, draw: Draw) -> tuple[Tensor, ...]:
    return (draw(shape.tokens // shape.sequence, shape.sequence, 3, shape.heads, shape.width // shape.heads),)


def _of_packed(kernel: PackedRope) -> Function:
    def function(x_BS3HC: Tensor) -> tuple[Tensor, ...]:
        _, sequence, parts, heads, head_width = x_BS3HC.shape
        return kernel(x_BS3HC.flatten(2).flatten(0, 1), *_angles(sequence, head_width, device=x_BS3HC.device), [heads] * parts)

    return function


def _rope(x_BS3HC: Tensor) -> tuple[Tensor, ...]:
    cosine, sine = (table.double()[:, None] for table in _angles(x_BS3HC.shape[1], x_BS3HC.shape[4], device=x_BS3HC.device))
    query, key, value = x_BS3HC.unbind(2)
    halves = (part.chunk(2, -1) for part in (query, key))
    return *(torch.cat([x * cosine - y * sine, y * cosine + x * sine], -1) for x, y in halves), value


def _check_heads(kernel: str, shape: BenchShape) -> None:
    for field, parts in (("width", "heads"), ("tokens", "sequence")):
        if getattr(shape, field) % getattr(shape, parts):
            raise ConfigurationError(
                f"shape.{field} ({getattr(shape, field)}): must be a multiple of shape.{parts} ({getattr(shape, parts)}) for --kernel {kernel}"
            )


def _check_halves(shape: BenchShape) -> None:
    _check_heads("rope", shape)
    if shape.width // shape.heads % 2:
        raise ConfigurationError(f"shape.width ({shape.width}): shape.heads ({shape.heads}) must have an even width for --kernel rope")


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    hidden = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).triu(1)
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    mixed: Tensor = scores.masked_fill(hidden, float("-inf")).softmax(-1) @ value
    return mixed


FAMILIES = {
    "norm": Family(
        {name: (lambda x, w, kernel=kernel: kernel(x, w, 1e-5)) for name, kernel in NORMS.items()},
        lambda shape, draw: (draw(shape.tokens, shape.width), draw(shape.width)),
        lambda x, w: x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * w,
    ),
    "rope": Family({name: _of_packed(kernel) for name, kernel in PACKED_ROPES.items()}, _side_by_side, _rope, check=_check_halves),
    "swiglu": Family(dict(PACKED_SWIGLUS), lambda shape, draw: (draw(shape.rows, 2 * shape.expert_width), draw(shape.rows, 1)), _packed_swiglu),
    "experts": Family(
        {name: kernel for name, kernel in GROUPED_LINEARS.items() if name != "packed"},
        lambda shape, draw: (draw(shape.rows, shape.width), draw(shape.experts, shape.width, shape.expert_width), _even_ends(shape, draw)),
        _experts_loop,
        lambda shape: 2.0 * shape.rows * shape.width * shape.expert_width,
    ),
    "permutation": Family(
        {name: _there_and_back(kernel) for name, kernel in PERMUTATIONS.items()},
        _permutation_inputs,
        lambda x, choice, counts: x * choice.shape[1],
        check=_check_choices,
    ),
    "router": Family(
        dict(ROUTER_LOGITS),
        lambda shape, draw: (draw(shape.tokens, shape.width), draw(shape.experts, shape.width)),
        lambda x, w: x @ w.t(),
        lambda shape: 2.0 * shape.tokens * shape.width * shape.experts,
    ),
    "cross_entropy": Family(
        {"eager": lambda x, w, y: F.cross_entropy((x @ w.t()).float(), y), **LINEAR_CROSS_ENTROPIES},
        lambda shape, draw: (draw(shape.tokens, shape.width), draw(shape.vocabulary, shape.width), _labels(shape, draw)),
        lambda x, w, y: F.cross_entropy(x @ w.t(), y),
        lambda shape: 2.0 * shape.tokens * shape.width * shape.vocabulary,
    ),
    "attention": Family(
        {"sdpa": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)},
        _attention_inputs,
        _causal,
        lambda shape: 2.0 * shape.tokens * shape.sequence * shape.width,
        backward_ratio=2.5,
        check=partial(_check_heads, "attention"),
    ),
}
"""By the field of ``Plan.implementation`` that names the kernel."""
