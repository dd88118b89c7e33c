"""Which lowering stands for which step of a layer under which implementation."""

from simulator.program.lowerings.attention import lower_attention
from simulator.program.lowerings.basic import lower_add, lower_linear
from simulator.program.lowerings.experts import EXPERT_LOWERINGS, lower_combine, lower_mask, lower_order, lower_order_with_capacity, lower_permute
from simulator.program.lowerings.gathering import gather_lowerings
from simulator.program.lowerings.linear_cross_entropy import linear_cross_entropies
from simulator.program.lowerings.loss import lower_cross_entropy, lower_embedding, lower_total_loss
from simulator.program.lowerings.norm import NORM_LOWERINGS
from simulator.program.lowerings.rope import PACKED_ROPE_LOWERINGS, ROPE_LOWERINGS
from simulator.program.lowerings.router import (
    ROUTER_LOWERINGS,
    lower_biased_topk,
    lower_count,
    lower_gather_scores,
    lower_load_balancing,
    lower_normalise,
    lower_normalise_guarded,
    lower_router_z,
    lower_scale_weights,
    lower_sigmoid,
    lower_softmax,
    lower_take_turns,
    lower_topk,
)
from simulator.program.lowerings.swiglu import PACKED_SWIGLU_LOWERINGS, SWIGLU_LOWERINGS
from simulator.program.tape import Lowering
from simulator.specs import Implementation


def lowerings(implementation: Implementation, *, on_cpu: bool = False) -> dict[str, Lowering]:
    """Lowering of every step of a layer under ``implementation``, on a CPU or on an accelerator."""
    fused = linear_cross_entropies(on_cpu=on_cpu).get(implementation.cross_entropy)
    return {
        **({} if fused is None else {"linear_cross_entropy": fused}),
        "embedding": lower_embedding,
        "norm": NORM_LOWERINGS[implementation.norm],
        "linear": lower_linear,
        "rope": ROPE_LOWERINGS[implementation.rope],
        "packed_rope": PACKED_ROPE_LOWERINGS[implementation.rope],
        "attention": lower_attention,
        "add": lower_add,
        "router_logits": ROUTER_LOWERINGS[implementation.router],
        "softmax": lower_softmax,
        "sigmoid": lower_sigmoid,
        "topk": lower_topk,
        "biased_topk": lower_biased_topk,
        "take_turns": lower_take_turns,
        "gather_scores": lower_gather_scores,
        "normalise": lower_normalise,
        "normalise_guarded": lower_normalise_guarded,
        "scale_weights": lower_scale_weights,
        "count": lower_count,
        "load_balancing_loss": lower_load_balancing,
        "router_z_loss": lower_router_z,
        "order": lower_order,
        "order_with_capacity": lower_order_with_capacity,
        "mask": lower_mask,
        "permute": lower_permute,
        "experts_linear": EXPERT_LOWERINGS[implementation.experts],
        "swiglu": SWIGLU_LOWERINGS[implementation.swiglu],
        "packed_swiglu": PACKED_SWIGLU_LOWERINGS[implementation.swiglu],
        "combine": lower_combine,
        **gather_lowerings(on_cpu=on_cpu),
        "cross_entropy": lower_cross_entropy,
        "total_loss": lower_total_loss,
    }
