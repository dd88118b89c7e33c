"""The names of what a training step consists of, shared by prediction and measurement."""

from enum import StrEnum


class Component(StrEnum):
    """One part of the step that owns parameters, storages or time; the trainer wraps each operation in ``scope(Component.X)``."""

    EMBEDDING = "embedding"
    ATTENTION_NORM = "attention_norm"
    QKV = "qkv"
    QK_NORM = "qk_norm"
    ROPE = "rope"
    ATTENTION = "attention"
    ATTENTION_OUTPUT = "attention_output"
    FEED_FORWARD_NORM = "feed_forward_norm"
    ROUTER = "router"
    AUXILIARY_LOSSES = "auxiliary_losses"
    PERMUTATION = "permutation"
    DISPATCH = "dispatch"
    EXPERTS = "experts"
    ACTIVATION = "activation"
    COMBINE = "combine"
    SHARED_EXPERTS = "shared_experts"
    DENSE_FEED_FORWARD = "dense_feed_forward"
    FINAL_NORM = "final_norm"
    HEAD = "head"
    CROSS_ENTROPY = "cross_entropy"
    TOTAL_LOSS = "total_loss"
    PARAMETER_GATHER = "parameter_gather"
    PIPELINE = "pipeline"
    GRADIENT_SYNC = "gradient_sync"
    GRADIENT_CLIPPING = "gradient_clipping"
    OPTIMIZER = "optimizer"
    INPUTS = "inputs"


class Phase(StrEnum):
    """A disjoint stretch of the step."""

    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


class Role(StrEnum):
    """What a storage holds: the categories of the memory ledger, which add up to the bytes allocated at any instant."""

    PARAMETER = "parameters"
    BUFFER = "buffers"
    GRADIENT = "gradients"
    OPTIMIZER_STATE = "optimizer"
    INPUT = "inputs"
    ACTIVATION = "activations"
    TEMPORARY = "temporaries"
    COMMUNICATION = "communication"


class Kind(StrEnum):
    """Classes of operations; FLOPs, traffic and time follow from the kind and the shapes."""

    GEMM = "gemm"
    GROUPED_GEMM = "grouped_gemm"
    ATTENTION = "attention"
    POINTWISE = "pointwise"
    REDUCE = "reduce"
    GATHER = "gather"
    SCATTER = "scatter"
    SORT = "sort"
    OPTIMIZER = "optimizer"
    COLLECTIVE = "collective"
    HOST_SYNC = "host_sync"
