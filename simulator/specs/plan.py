"""Plan: how one training step is run: batch, parallel degrees, precision and the implementation of each operation."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from configuration.errors import ConfigurationError
from configuration.spec import Spec
from simulator.specs.model import ModelSpec


class Implementation(Spec):
    """Which kernel does each operation; the trainer registers kernels and the simulator lowerings under these names.

    ``eager`` norms and SwiGLU are written in plain tensor operations and keep every intermediate; ``recompute`` keeps the
    inputs alone and computes the rest again in backward. ``experts``: one grouped GEMM, or a loop of one GEMM an expert.
    """

    attention: Literal["sdpa"] = "sdpa"
    norm: Literal["eager", "recompute"] = "recompute"
    swiglu: Literal["eager", "recompute"] = "recompute"
    experts: Literal["grouped", "loop"] = "grouped"
    cross_entropy: Literal["eager"] = "eager"
    optimizer: Literal["fused", "for-loop"] = "fused"


class Plan(Spec):
    """One step on ``ranks`` processes.

    Every rank holds ``micro_batch`` sequences at a time; ``global_batch`` (sequences of one optimizer step over all ranks;
    by default one micro-batch on each) makes micro-batches accumulate. ``ep`` ranks share the experts of a layer.
    """

    ranks: PositiveInt = 1
    sequence: PositiveInt
    micro_batch: PositiveInt
    global_batch: PositiveInt | None = None
    ep: PositiveInt = 1
    tp: PositiveInt = 1
    pp: PositiveInt = 1
    cp: PositiveInt = 1
    etp: PositiveInt = 1
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 0
    recomputation: Literal["none"] = "none"
    precision: Literal["fp32", "bf16-mixed", "bf16"] = "fp32"
    gradient_clipping: PositiveFloat | None = 1.0
    overlap_gradient_sync: bool = True
    gradient_bucket_bytes: PositiveInt = 25 * 2**20
    implementation: Implementation = Implementation()

    @model_validator(mode="after")
    def _check(self) -> "Plan":
        for field, meaning in (("tp", "tensor"), ("pp", "pipeline"), ("cp", "context"), ("etp", "expert-tensor")):
            if getattr(self, field) != 1:
                raise ValueError(f"{field} ({meaning} parallelism) is not supported yet: only 1 is legal")
        if self.zero_stage:
            raise ValueError("zero_stage: sharded states are not supported yet: only 0 is legal")
        if self.ranks % self.ep:
            raise ValueError(f"ep ({self.ep}) must divide ranks ({self.ranks})")
        if self.global_batch is not None and self.global_batch % (self.micro_batch * self.dp):
            raise ValueError(f"global_batch ({self.global_batch}) must be a multiple of micro_batch x dp ({self.micro_batch} x {self.dp})")
        return self

    @property
    def dp(self) -> int:
        """Data-parallel degree of everything but the experts."""
        return self.ranks // (self.tp * self.pp * self.cp)

    @property
    def expert_dp(self) -> int:
        """Data-parallel degree of the experts: ranks that hold the same ones."""
        return self.dp // self.ep

    @property
    def accumulation(self) -> int:
        """Micro-batches that one rank runs before an optimizer step."""
        return 1 if self.global_batch is None else self.global_batch // (self.micro_batch * self.dp)

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens that one rank sees in one micro-batch."""
        return self.micro_batch * self.sequence

    @property
    def tokens_per_step(self) -> int:
        """Tokens of one optimizer step over all ranks."""
        return self.tokens_per_micro_batch * self.accumulation * self.dp

    def check_against(self, model: ModelSpec) -> None:
        """Raise ConfigurationError when ``model`` cannot be run under this plan."""
        if self.sequence > model.maximum_positions:
            raise ConfigurationError(f"plan.sequence ({self.sequence}) exceeds maximum_positions of {model.name} ({model.maximum_positions})")
        for experts in model.expert_counts:
            if experts % self.ep:
                legal = [d for d in range(1, experts + 1) if experts % d == 0 and self.ranks % d == 0]
                raise ConfigurationError(
                    f"plan.ep ({self.ep}) must divide the {experts} experts of {model.name} (legal on {self.ranks} ranks: {', '.join(map(str, legal))})"
                )
        if self.ep > 1 and not model.expert_counts:
            raise ConfigurationError(f"plan.ep ({self.ep}): {model.name} has no experts to spread (legal: 1)")
