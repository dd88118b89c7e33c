"""Names and shapes of the same weights here and in Hugging Face's layouts.

Experts: here one tensor for all, in by out, as the grouped GEMM takes it; there one matrix each, out by in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from simulator.specs import ModelSpec, MoeFeedForward

if TYPE_CHECKING:
    from torch import Tensor

_MOE = {
    "router": "mlp.gate.weight",
    "gate": "mlp.experts.{}.gate_proj.weight",
    "up": "mlp.experts.{}.up_proj.weight",
    "down": "mlp.experts.{}.down_proj.weight",
}
_MIXTRAL = {
    "router": "block_sparse_moe.gate.weight",
    "gate": "block_sparse_moe.experts.{}.w1.weight",
    "up": "block_sparse_moe.experts.{}.w3.weight",
    "down": "block_sparse_moe.experts.{}.w2.weight",
}


@dataclass(frozen=True)
class Pair:
    """One tensor here, and the tensor or the expert matrices that it is there."""

    ours: str
    theirs: tuple[str, ...]
    experts: bool = False

    def split(self, tensor: "Tensor") -> "dict[str, Tensor]":
        """Ours to theirs."""
        if not self.experts:
            return {self.theirs[0]: tensor}
        return {name: matrix.t().contiguous() for name, matrix in zip(self.theirs, tensor, strict=True)}

    def join(self, tensors: "dict[str, Tensor]") -> "Tensor":
        """Theirs to ours. Raises KeyError with the name of a tensor that is not there."""
        import torch

        if not self.experts:
            return tensors[self.theirs[0]]
        return torch.stack([tensors[name].t() for name in self.theirs])


def pairs(model: ModelSpec, family: str) -> Iterator[Pair]:
    """All tensors of a model in the layout of ``family`` (a ``model_type`` of Hugging Face)."""
    yield Pair("embedding", ("model.embed_tokens.weight",))
    groups = [group for group in model.blocks for _ in range(group.count)]
    for layer, group in enumerate(groups):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        yield Pair(f"{ours}attention_norm.weight", (f"{theirs}input_layernorm.weight",))
        for name, projection in {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}.items():
            yield Pair(f"{ours}attention.{name}.weight", (f"{theirs}self_attn.{projection}.weight",))
        if group.mixer.qk_norm != "none":
            yield Pair(f"{ours}attention.query_norm.weight", (f"{theirs}self_attn.q_norm.weight",))
            yield Pair(f"{ours}attention.key_norm.weight", (f"{theirs}self_attn.k_norm.weight",))
        yield Pair(f"{ours}feed_forward_norm.weight", (f"{theirs}post_attention_layernorm.weight",))
        if isinstance(group.feed_forward, MoeFeedForward):
            names = _MIXTRAL if family == "mixtral" else _MOE
            yield Pair(f"{ours}feed_forward.router.weight", (theirs + names["router"],))
            for name in ("gate", "up", "down"):
                matrices = tuple(theirs + names[name].format(expert) for expert in range(group.feed_forward.experts))
                yield Pair(f"{ours}feed_forward.experts.{name}", matrices, experts=True)
        else:
            for name in ("gate", "up", "down"):
                yield Pair(f"{ours}feed_forward.{name}.weight", (f"{theirs}mlp.{name}_proj.weight",))
    yield Pair("final_norm.weight", ("model.norm.weight",))
    if not model.tied_embeddings:
        yield Pair("head.weight", ("lm_head.weight",))
