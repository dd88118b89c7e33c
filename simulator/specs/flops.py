"""Model FLOPs: the arithmetic that a token needs, whatever the implementation does.

Convention: matrix products and attention scores of the active parameters, causal scores counted half, backward twice the
forward, no recomputation (PaLM, arXiv 2204.02311, appendix B, with the causal half).
"""

from simulator.specs.model import DenseFeedForward, GroupedQueryAttention, ModelSpec, MoeFeedForward

BACKWARD_AND_FORWARD = 3.0


def model_flops_per_token(model: ModelSpec, sequence: int) -> float:
    """Training FLOPs of one token in sequences of ``sequence`` tokens: forward times three."""
    return BACKWARD_AND_FORWARD * forward_flops_per_token(model, sequence)


def forward_flops_per_token(model: ModelSpec, sequence: int) -> float:
    """Forward FLOPs of one token: two for each weight that multiplies it, and the scores."""
    blocks = sum(
        group.count * (2.0 * (_projections(group.mixer, model.width) + _feed_forward(group.feed_forward, model.width)) + _scores(group.mixer, sequence))
        for group in model.blocks
    )
    return blocks + 2.0 * model.width * model.vocabulary


def _projections(mixer: GroupedQueryAttention, width: int) -> int:
    """Weights of queries and output, keys and values."""
    return 2 * width * mixer.head_width * (mixer.heads + mixer.kv_heads)


def _scores(mixer: GroupedQueryAttention, sequence: int) -> float:
    """Scores and their product with the values: two FLOPs for each of S/2 positions, H heads and C elements, twice."""
    return 2 * 2 * (sequence / 2) * mixer.heads * mixer.head_width


def _feed_forward(feed_forward: DenseFeedForward | MoeFeedForward, width: int) -> int:
    """Weights that one token meets: all of a dense layer; the router and the chosen experts of a mixture."""
    return feed_forward.active_parameters(width)


def executed_flops_per_token(model: ModelSpec, sequence: int) -> float:
    """FLOPs of the matrix products that training one token really runs here, without recomputation of layers.

    Forward once and backward twice for every weight; attention's two products of the causal half once forward, and five backward,
    where flash attention forms the scores anew (arXiv 2205.14135, section 3.1).
    """
    scores = sum(group.count * group.mixer.heads * group.mixer.head_width for group in model.blocks) * float(sequence)
    return 3.0 * (forward_flops_per_token(model, sequence) - 2.0 * scores) + 7.0 * scores
