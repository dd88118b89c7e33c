"""ModelSpec: the shapes of a decoder, and the parameter counts that follow from them."""

from math import ceil
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from configuration.spec import Spec

ROUNDING = 1e-9


class GroupedQueryAttention(Spec):
    """Causal attention with rotary positions; ``kv_heads`` = ``heads`` is multi-head, 1 is multi-query attention.

    ``qk_norm`` normalises queries and keys: over each head (Qwen3) or over all heads at once (OLMoE).
    """

    kind: Literal["grouped_query"] = "grouped_query"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_width: PositiveInt
    qk_norm: Literal["none", "head", "width"] = "none"

    @model_validator(mode="after")
    def _check(self) -> "GroupedQueryAttention":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_width % 2:
            raise ValueError(f"head_width ({self.head_width}) must be even: rotary positions turn pairs")
        return self

    def parameters(self, width: int) -> int:
        """Parameters of the four projections and the query and key norms, for a model of ``width``."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        norms = {"none": 0, "head": 2 * self.head_width, "width": queries + keys}[self.qk_norm]
        return 2 * width * queries + 2 * width * keys + norms


class DenseFeedForward(Spec):
    """SwiGLU feed-forward: down(silu(gate(x)) * up(x))."""

    kind: Literal["dense"] = "dense"
    hidden_width: PositiveInt

    def parameters(self, width: int) -> int:
        """Parameters of gate, up and down."""
        return 3 * width * self.hidden_width

    def active_parameters(self, width: int) -> int:
        """Parameters that one token uses: all."""
        return self.parameters(width)


class MoeFeedForward(Spec):
    """Top-k mixture of SwiGLU experts behind a router in fp32.

    ``router``: scores are a softmax over the experts, or a sigmoid of each logit. ``normalise_weights`` divides the k chosen scores
    by their sum (with one chosen that is always one, and only the auxiliary losses teach the router), ``weight_scale``
    multiplies what comes out. ``selection_bias``: a number of each expert is added to the scores when the k are chosen,
    and nowhere else (Wang et al. 2024, arXiv 2408.15664; DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
    ``shared_width``: hidden width of the shared experts, one dense SwiGLU that every token passes; 0 for none. ``capacity_factor``: with
    one, an expert takes at most this times the mean number of rows in training, and drops the rest (GShard, arXiv 2006.16668).
    """

    kind: Literal["moe"] = "moe"
    experts: PositiveInt
    top_k: PositiveInt
    expert_width: PositiveInt
    router: Literal["softmax", "sigmoid"] = "softmax"
    normalise_weights: bool = True
    weight_scale: PositiveFloat = 1.0
    selection_bias: bool = False
    shared_width: NonNegativeInt = 0
    capacity_factor: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> "MoeFeedForward":
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) must not exceed experts ({self.experts})")
        return self

    def parameters(self, width: int) -> int:
        """Parameters of the router and of all experts."""
        return width * self.experts + self.experts * self.expert_parameters(width) + 3 * width * self.shared_width

    def active_parameters(self, width: int) -> int:
        """Parameters that one token uses: the router, ``top_k`` experts and the shared ones."""
        return width * self.experts + self.top_k * self.expert_parameters(width) + 3 * width * self.shared_width

    def expert_parameters(self, width: int) -> int:
        """Parameters of one expert."""
        return 3 * width * self.expert_width

    def capacity(self, tokens: int) -> int | None:
        """Rows that one expert takes of a micro-batch of ``tokens``; None when it takes all. A fraction counts as a whole row."""
        if self.capacity_factor is None:
            return None
        return min(tokens, ceil(self.capacity_factor * tokens * self.top_k / self.experts * (1 - ROUNDING)))


Mixer = GroupedQueryAttention
FeedForward = Annotated[DenseFeedForward | MoeFeedForward, Field(discriminator="kind")]


class BlockGroup(Spec):
    """``count`` equal decoder blocks in a row: x + mixer(norm(x)), then x + feed_forward(norm(x))."""

    count: PositiveInt
    mixer: Mixer
    feed_forward: FeedForward

    def parameters(self, width: int) -> int:
        """Parameters of one block, its two norms included."""
        return 2 * width + self.mixer.parameters(width) + self.feed_forward.parameters(width)


class TrainingDefaults(Spec):
    """Sequence length and micro-batch that a plan takes when it names none."""

    sequence: PositiveInt
    micro_batch: PositiveInt


class ModelSpec(Spec):
    """A decoder-only language model: embedding, blocks, final RMSNorm, head; no biases.

    ``source`` says where the shapes were published. ``load_balancing_loss`` and ``router_z_loss`` are the coefficients of the two
    auxiliary losses, each the mean over the MoE layers (Switch Transformer, arXiv 2101.03961 eq. 4, extended to top-k;
    ST-MoE, arXiv 2202.08906 eq. 5); 0 leaves one out. ``selection_bias_rate``: how far the selection bias of an expert goes after each
    step: up when it got less than the mean, down when more (arXiv 2408.15664, algorithm 1).
    """

    name: str
    source: str = ""
    width: PositiveInt
    vocabulary: PositiveInt
    tied_embeddings: bool = False
    norm_epsilon: PositiveFloat = 1e-5
    rope_theta: PositiveFloat = 10000.0
    maximum_positions: PositiveInt
    load_balancing_loss: Annotated[float, Field(ge=0)] = 0.01
    router_z_loss: Annotated[float, Field(ge=0)] = 0.001
    selection_bias_rate: Annotated[float, Field(ge=0)] = 0.001
    blocks: Annotated[list[BlockGroup], Field(min_length=1)]
    training_defaults: TrainingDefaults

    @model_validator(mode="after")
    def _check(self) -> "ModelSpec":
        if self.training_defaults.sequence > self.maximum_positions:
            raise ValueError(f"training_defaults.sequence ({self.training_defaults.sequence}) exceeds maximum_positions ({self.maximum_positions})")
        return self

    @property
    def moe_layers(self) -> int:
        """Number of decoder blocks with experts."""
        return sum(group.count for group in self.blocks if isinstance(group.feed_forward, MoeFeedForward))

    @property
    def layers(self) -> int:
        """Number of decoder blocks."""
        return sum(group.count for group in self.blocks)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding and of the head; tied, they are one matrix."""
        return self.vocabulary * self.width * (1 if self.tied_embeddings else 2)

    @property
    def parameters(self) -> int:
        """All parameters, tied ones once."""
        return self.embedding_parameters + self.width + sum(group.count * group.parameters(self.width) for group in self.blocks)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token uses: of the experts only ``top_k``; embedding and head count whole."""
        idle = sum(group.count * (group.feed_forward.parameters(self.width) - group.feed_forward.active_parameters(self.width)) for group in self.blocks)
        return self.parameters - idle

    @property
    def expert_counts(self) -> list[int]:
        """Experts of each group of MoE blocks, in order; empty for a dense model."""
        return [experts for experts, _ in self.expert_choices]

    @property
    def expert_choices(self) -> list[tuple[int, int]]:
        """Experts and top-k of each group of MoE blocks, in order."""
        return [(group.feed_forward.experts, group.feed_forward.top_k) for group in self.blocks if isinstance(group.feed_forward, MoeFeedForward)]
