"""Plan: how one training step is run: batch, parallel degrees, precision and the implementation of each operation."""

from math import gcd
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configuration.errors import ConfigurationError
from configuration.spec import Spec
from simulator.specs.model import DenseFeedForward, ModelSpec

RECOMPUTED_PARTS = {"attention", "feed_forward", "experts"}


class Implementation(Spec):
    """Which kernel does each operation; the trainer registers kernels and the simulator lowerings under these names.

    ``eager`` norms and SwiGLU are written in plain tensor operations and keep every intermediate; ``recompute`` keeps the
    inputs alone and computes the rest again in backward, and so does ``triton``, in one pass on CUDA. ``rope``: ``triton`` turns queries and keys in one pass
    on CUDA, and in compiled blocks takes values out of the product that they share with them in the same one. ``router`` logits are in fp32: of
    factors widened before (``fp32``) or as they are (``narrow``). ``experts``: one grouped GEMM for each of gate, up and down; ``packed`` has gate
    and up side by side in one matrix and one GEMM; ``loop`` is one GEMM an expert; ``batched`` is one batched GEMM of a capacity of rows an expert,
    which every MoE layer must have, and in evaluation and generation, where nothing is dropped, what ``grouped`` or, for what that cannot take, ``loop`` do.
    ``permutation``: ``index_add`` sums rows into zeros,
    ``gather`` looks every row up, forward and backward. ``cross_entropy``: ``in-place`` turns the logits into their own gradient, ``chunked``
    holds the logits of some tokens at a time.
    ``compile``: each decoder block and the final norm through torch.compile, which fuses what is written in plain operations.
    ``launch``: kernels are issued one by one (``eager``), or recorded once and replayed, the whole step, as one CUDA ``graph``.
    """

    attention: Literal["sdpa"] = "sdpa"
    norm: Literal["eager", "recompute"] = "recompute"
    rope: Literal["eager", "triton"] = "eager"
    swiglu: Literal["eager", "recompute", "triton"] = "recompute"
    router: Literal["fp32", "narrow"] = "fp32"
    permutation: Literal["index_add", "gather"] = "index_add"
    experts: Literal["grouped", "packed", "loop", "batched"] = "grouped"
    cross_entropy: Literal["eager", "in-place", "chunked"] = "eager"
    optimizer: Literal["fused", "for-loop"] = "fused"
    compile: Literal["none", "block"] = "none"
    launch: Literal["eager", "graph"] = "eager"


class Plan(Spec):
    """One step on ``ranks`` processes.

    Every rank holds ``micro_batch`` sequences at a time; ``global_batch`` (sequences of one optimizer step over all ranks;
    by default one micro-batch on each) makes micro-batches accumulate.

    Degrees. ``tp`` neighbouring ranks slice attention and dense feed-forwards, and hold a slice of the tokens everywhere else (sequence
    parallelism, Korthikanti et al. 2022, arXiv 2205.05198). ``pp`` stages of ``virtual_stages`` pieces each share the layers and run by
    ``schedule``. What is left is data parallel. Of the ``dp * tp`` ranks of a stage, ``ep`` share the experts of a layer, ``etp`` slice
    each of them. ``zero_stage``: 0 keeps whole copies; 2 shards gradients and states, 3 parameters too, over the ranks that hold
    the same ones; ``replicas`` copies of that sharded state make it hybrid (arXiv 2304.11277, section 3.2.2).

    ``auxiliary_loss_scope``: the tokens over which the load-balancing loss counts the experts' shares, which it is not linear in: those of one
    micro-batch, or (``global``) of the micro-batches that all data-parallel ranks run at the same time.
    ``recomputation``: what a decoder block keeps nothing of but its inputs, and computes again in the backward pass: nothing, all of it
    (``full``), or a list of parts: ``attention`` and ``feed_forward``, each with its norm, and ``experts``, from the permuted rows to
    what the experts return.
    ``routing``: ``uniform`` deals tokens to experts in turn, whatever the router says, so that every expert gets the same number of
    rows: for benchmarks.
    ``attention_across_documents``: false keeps the attention of a token within its document, where several are packed into one sequence;
    a mask of micro_batch x sequence x sequence numbers in the compute type then lives through the step.
    ``precision``: ``bf16-mixed`` casts fp32 weights for every use; ``bf16-split`` trains the same fp32 weights, of which parameters are the
    upper 16 bits and the optimizer holds the lower ones, so that weights and gradients are bf16 wherever they are used, and gradients
    accumulate in bf16; ``bf16`` has no fp32 weights.
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
    replicas: PositiveInt = 1
    schedule: Literal["gpipe", "1f1b", "interleaved"] = "1f1b"
    virtual_stages: PositiveInt = 1
    auxiliary_loss_scope: Literal["micro_batch", "global"] = "micro_batch"
    recomputation: str | tuple[str, ...] = "none"
    routing: Literal["learned", "uniform"] = "learned"
    attention_across_documents: bool = True
    precision: Literal["fp32", "bf16-mixed", "bf16-split", "bf16"] = "fp32"
    gradient_clipping: PositiveFloat | None = 1.0
    overlap_gradient_sync: bool = True
    gradient_bucket_bytes: PositiveInt = 25 * 2**20
    implementation: Implementation = Implementation()

    @field_validator("recomputation")
    @classmethod
    def _check_recomputation(cls, given: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if given not in ("none", "full") and (isinstance(given, str) or not given or not set(given) <= RECOMPUTED_PARTS):
            raise ValueError(f"must be none, full, or a list of {', '.join(sorted(RECOMPUTED_PARTS))}")
        if {"feed_forward", "experts"} <= set(given):
            raise ValueError("feed_forward contains experts (legal: one of them)")
        return given

    @model_validator(mode="after")
    def _check(self) -> "Plan":
        if self.cp != 1:
            raise ValueError(f"cp ({self.cp}): context parallelism is not supported (legal: 1)")
        if self.ranks % (self.tp * self.pp):
            raise ValueError(f"tp x pp ({self.tp} x {self.pp}) must divide ranks ({self.ranks})")
        if self.stage_ranks % (self.ep * self.etp):
            degrees = f"ep ({self.ep})" if self.etp == 1 else f"ep x etp ({self.ep} x {self.etp})"
            raise ValueError(f"{degrees} must divide ranks ({self.ranks})" + (f" / pp ({self.pp})" if self.pp > 1 else ""))
        self._check_sharding()
        self._check_implementation()
        self._check_pipeline()
        if self.global_batch is not None and self.global_batch % (self.micro_batch * self.dp):
            raise ValueError(f"global_batch ({self.global_batch}) must be a multiple of micro_batch x dp ({self.micro_batch} x {self.dp})")
        if self.tokens_per_micro_batch % self.tp:
            raise ValueError(f"tp ({self.tp}) must divide micro_batch x sequence ({self.tokens_per_micro_batch})")
        self._check_accumulation()
        return self

    def _check_sharding(self) -> None:
        if self.zero_stage == 1:
            raise ValueError("zero_stage 1 (states sharded, gradients whole) is not supported (legal: 0, 2, 3)")
        if self.zero_stage and self.stage_ranks == 1:
            raise ValueError(f"zero_stage ({self.zero_stage}) shards over data-parallel ranks, and there is one (legal: 0)")
        if self.zero_stage and self.pp > 1:
            raise ValueError(
                f"zero_stage ({self.zero_stage}) is not supported with pp ({self.pp}): a stage would gather its parameters for every micro-batch (legal: 0)"
            )
        if self.replicas > 1 and not self.zero_stage:
            raise ValueError(f"replicas ({self.replicas}) are copies of a sharded state: they need zero_stage 2 or 3 (legal: 1)")
        if self.dp % self.replicas or (self.replicas > 1 and self.dp * self.tp == self.replicas):
            raise ValueError(f"replicas ({self.replicas}) must divide the {self.dp} data-parallel ranks and leave some to shard over")

    def _check_implementation(self) -> None:
        if self.zero_stage and self.precision == "bf16-split":
            raise ValueError("precision bf16-split is not supported with a zero_stage: its remainders are not sharded (legal: fp32, bf16-mixed, bf16)")
        if self.etp > 1 and self.implementation.experts == "packed":
            raise ValueError(
                f"implementation.experts packed has gate and up in one matrix, which etp ({self.etp}) cannot slice (legal: grouped, loop, batched)"
            )
        if self.implementation.compile != "none":
            if self.implementation.experts == "loop":
                raise ValueError("implementation.compile block takes a block as one graph, which experts loop cuts to ask for the rows (legal: none)")
            for field in ("ep", "tp", "pp", "etp", "zero_stage"):
                if (value := getattr(self, field)) > 1:
                    raise ValueError(f"implementation.compile block takes a block as one graph, which {field} ({value}) cuts (legal: none)")
        if self.implementation.launch == "graph":
            if self.implementation.experts == "loop":
                raise ValueError("implementation.launch graph has no host in a step, which experts loop asks for the rows of each expert (legal: eager)")
            for field in ("ep", "tp", "pp", "etp", "zero_stage"):
                if (value := getattr(self, field)) > 1:
                    raise ValueError(f"implementation.launch graph records a step of whole experts and layers, which {field} ({value}) cuts (legal: eager)")

    def _check_pipeline(self) -> None:
        if self.pp > 1 and not self.attention_across_documents:
            raise ValueError(
                f"attention_across_documents false is not supported with pp ({self.pp}): later stages do not see where documents begin (legal: true)"
            )
        if (self.virtual_stages > 1) != (self.schedule == "interleaved"):
            raise ValueError(f"virtual_stages ({self.virtual_stages}): interleaved takes 2 or more, gpipe and 1f1b take 1; the schedule is {self.schedule}")
        if self.virtual_stages > 1 and self.pp == 1:
            raise ValueError(f"virtual_stages ({self.virtual_stages}) need a pipeline: pp 2 or more (legal: 1)")

    def _check_accumulation(self) -> None:
        if self.pp > 1 and self.schedule == "1f1b" and self.accumulation < self.pp:
            raise ValueError(f"schedule 1f1b needs pp ({self.pp}) micro-batches or more on a rank, global_batch gives {self.accumulation}")
        if self.schedule == "interleaved" and self.accumulation % self.pp:
            raise ValueError(f"schedule interleaved needs a multiple of pp ({self.pp}) micro-batches on a rank, global_batch gives {self.accumulation}")

    @property
    def stage_ranks(self) -> int:
        """Ranks that hold the same layers: all but for pipelines."""
        return self.ranks // self.pp

    @property
    def dp(self) -> int:
        """Data-parallel degree of everything but the experts."""
        return self.stage_ranks // self.tp

    @property
    def expert_dp(self) -> int:
        """Data-parallel degree of the experts: ranks that hold the same ones."""
        return self.stage_ranks // (self.ep * self.etp)

    @property
    def shard(self) -> int:
        """Ranks over which one copy of what all of them would hold whole is sharded; without sharding, those that average its gradients."""
        return self.stage_ranks // self.replicas

    @property
    def expert_replicas(self) -> int:
        """Copies of the sharded state of the experts."""
        return gcd(self.replicas, self.expert_dp)

    @property
    def expert_shard(self) -> int:
        """Ranks over which one copy of an expert is sharded."""
        return self.expert_dp // self.expert_replicas

    @property
    def accumulation(self) -> int:
        """Micro-batches that one rank runs before an optimizer step."""
        return 1 if self.global_batch is None else self.global_batch // (self.micro_batch * self.dp)

    @property
    def tokens_per_micro_batch(self) -> int:
        """Tokens that one rank sees in one micro-batch."""
        return self.micro_batch * self.sequence

    @property
    def own_tokens(self) -> int:
        """Of these the tokens that a rank works on outside of what tensor parallelism slices."""
        return self.tokens_per_micro_batch // self.tp

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
                legal = [d for d in range(1, experts + 1) if experts % d == 0 and self.stage_ranks % (d * self.etp) == 0]
                raise ConfigurationError(
                    f"plan.ep ({self.ep}) must divide the {experts} experts of {model.name} (legal on {self.ranks} ranks: {', '.join(map(str, legal))})"
                )
        if "experts" in self.recomputation and not model.expert_counts:
            raise ConfigurationError(f"plan.recomputation: {model.name} has no experts (legal: none, full, attention, feed_forward)")
        self._check_capacity(model)
        if self.implementation.launch == "graph" and self.precision == "fp32" and model.expert_counts and self.implementation.experts != "batched":
            raise ConfigurationError(
                "plan.implementation.launch graph: the grouped GEMM in fp32 asks the host for its rows (legal: eager, or precision bf16-mixed, "
                "or experts batched)"
            )
        if self.ep > 1 and not model.expert_counts:
            raise ConfigurationError(f"plan.ep ({self.ep}): {model.name} has no experts to spread (legal: 1)")
        if self.etp > 1 and not model.expert_counts:
            raise ConfigurationError(f"plan.etp ({self.etp}): {model.name} has no experts to slice (legal: 1)")
        if self.pp * self.virtual_stages > model.layers:
            raise ConfigurationError(f"plan.pp x virtual_stages ({self.pp} x {self.virtual_stages}) exceeds the {model.layers} layers of {model.name}")
        self._check_slices(model)

    def _check_slices(self, model: ModelSpec) -> None:
        shards = max(self.shard // self.tp if self.tp > 1 else 1, self.expert_shard if model.expert_counts else 1)
        if self.zero_stage and model.width % shards:
            raise ConfigurationError(f"plan.zero_stage ({self.zero_stage}): {shards} shards must divide model.width ({model.width})")
        for index, group in enumerate(model.blocks):
            place, mixer, feed_forward = f"model.blocks.{index}", group.mixer, group.feed_forward
            widths = {f"{place}.mixer.heads": mixer.heads, f"{place}.mixer.kv_heads": mixer.kv_heads}
            if isinstance(feed_forward, DenseFeedForward):
                widths[f"{place}.feed_forward.hidden_width"] = feed_forward.hidden_width
            elif feed_forward.expert_width % self.etp:
                raise ConfigurationError(f"plan.etp ({self.etp}) must divide {place}.feed_forward.expert_width ({feed_forward.expert_width})")
            for field, width in widths.items():
                if width % self.tp:
                    raise ConfigurationError(f"plan.tp ({self.tp}) must divide {field} ({width})")
            if self.tp > 1 and mixer.qk_norm == "width":
                raise ConfigurationError(f"plan.tp ({self.tp}): {place}.mixer.qk_norm width normalises over all heads, which tp spreads over ranks (legal: 1)")

    def _check_capacity(self, model: ModelSpec) -> None:
        for index, group in enumerate(model.blocks):
            if self.implementation.experts == "batched" and group.feed_forward.kind == "moe" and group.feed_forward.capacity_factor is None:
                raise ConfigurationError(
                    f"plan.implementation.experts batched gives every expert as many rows, and model.blocks.{index}.feed_forward has no capacity_factor "
                    "(legal: grouped, packed, loop)"
                )
        if all(group.feed_forward.kind == "dense" or group.feed_forward.capacity_factor is None for group in model.blocks):
            return
        if self.implementation.permutation != "index_add":
            raise ConfigurationError(f"plan.implementation.permutation {self.implementation.permutation}: a capacity_factor needs index_add")
