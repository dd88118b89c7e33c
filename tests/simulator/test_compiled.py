"""Predicted blocks under torch.compile against PyTorch's own partitioner and allocator, and against steps measured on a GPU."""

import gc
import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.decomposition import select_decomp_table
from torch.multiprocessing.reductions import StorageWeakRef

from configuration.errors import ConfigurationError
from simulator.components import Kind
from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.program.operations import Operation
from simulator.program.parts import Pass, Stretch
from simulator.question import ask
from simulator.records.step_report import StepReport
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from trainer.measure.allocator import allocator_peak_bytes
from trainer.measure.subject import build_subject, random_micro_batches
from trainer.model.transformer import Block

MEASURED = Path("calibration/measurements/h100-2026-11-24/training.json")
MEASURED_ON_H200 = Path("calibration/measurements/h200-2026-11-28")
MEASURED_WITH_ROPE_KERNEL = Path("calibration/measurements/h200-2026-11-30")
SMALL = {"width": 128, "training_defaults.sequence": 64, "training_defaults.micro_batch": 4, "maximum_positions": 128}
ON_CPU = {"rope": "eager", "swiglu": "recompute", "launch": "eager"}
"""Instead of Triton, and of a CUDA graph."""


def moe(**fields: object) -> dict[str, object]:
    return {"kind": "moe", "experts": 8, "top_k": 2, "expert_width": 64} | fields


def blocks(feed_forward: dict[str, object] | None = None, count: int = 1, **mixer: object) -> dict[str, object]:
    grouped = {"kind": "grouped_query", "heads": 8, "kv_heads": 8, "head_width": 16} | mixer
    return {"blocks": [{"count": count, "mixer": grouped, "feed_forward": feed_forward or moe()}]}


def resolved(model: dict[str, object], plan: dict[str, object], **implementation: object) -> tuple[ModelSpec, Plan]:
    spec = load_model("tiny-moe", SMALL | model)
    fields = {f"implementation.{name}": value for name, value in (ON_CPU | implementation).items()}
    return spec, load_plan(spec, "fast", {"gradient_clipping": None} | plan | fields)[0]


def block_of(spec: ModelSpec, plan: Plan) -> tuple[Stretch, Pass]:
    program = build_program(spec, plan, on_cpu=True)
    stretch = program.stretches[1]
    return stretch, stretch.segment.passes[program.turns[0]]


def predicted_storages(spec: ModelSpec, plan: Plan) -> Counter[int]:
    """Bytes of each storage that a compiled block keeps, its outputs left out."""
    stretch, passes = block_of(spec, plan)
    left = {value for operation in passes.forward for value in operation.allocates} - {value for operation in passes.forward for value in operation.frees}
    left -= {*stretch.segment.outputs, *stretch.segment.kept}
    # Every block's norm keeps the rows that come in.
    rows = plan.tokens_per_micro_batch * spec.width * 2
    return Counter(round(value.bytes.at(stretch.bindings)) for value in left) + Counter([rows])


def kept_by_torch(spec: ModelSpec, plan: Plan) -> Counter[int]:
    """Bytes of each storage that PyTorch's partitioner hands from forward to backward, parameters and tables left out."""
    kept: dict[StorageWeakRef, int] = {}

    def partition(joint: torch.fx.GraphModule, joint_inputs: object, **options: int) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
        forward, backward = min_cut_rematerialization_partition(joint, joint_inputs, compiler="inductor", **options)
        inputs = [node.meta["val"] for node in forward.graph.nodes if node.op == "placeholder"]
        given = {StorageWeakRef(value.untyped_storage()) for value in inputs if value.shape != x_TD.shape}
        (output,) = (node for node in forward.graph.nodes if node.op == "output")
        saved = [node.meta["val"] for node in output.args[0][options["num_fwd_outputs"] :]]
        for value in saved:
            if isinstance(value, Tensor) and StorageWeakRef(value.untyped_storage()) not in given:
                kept[StorageWeakRef(value.untyped_storage())] = value.untyped_storage().nbytes()
        return forward, backward

    def as_it_is(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        return graph

    block = Block(spec.blocks[0], spec, plan)
    if plan.precision != "bf16-mixed":
        block.to(torch.bfloat16)
    x_TD = torch.empty(plan.tokens_per_micro_batch, spec.width, dtype=torch.bfloat16, requires_grad=True)
    tables = tuple(torch.zeros(plan.sequence, spec.blocks[0].mixer.head_width // 2) for _ in range(2))
    backend = aot_autograd(fw_compiler=as_it_is, bw_compiler=as_it_is, partition_fn=partition, decompositions=select_decomp_table())
    torch._dynamo.reset()
    torch.compile(block, backend=backend, fullgraph=True, dynamic=False)(x_TD, plan.micro_batch, tables)
    return Counter(kept.values())


CASES: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object]]] = {
    "the fast plan": ({}, {}, {}),
    "heads turned in one pass": ({}, {}, {"rope": "triton"}),
    "top-8 of 64, uniform routing, no auxiliary losses": (
        blocks(moe(experts=64, top_k=8, expert_width=32)) | {"load_balancing_loss": 0, "router_z_loss": 0},
        {"routing": "uniform"},
        {},
    ),
    "few key-value heads, normalised": (blocks(kv_heads=2, qk_norm="head"), {}, {}),
    "mixed precision, nothing of the fast plan": (
        {},
        {"precision": "bf16-mixed"},
        {"experts": "grouped", "permutation": "index_add", "router": "fp32", "norm": "recompute"},
    ),
    "dense": (blocks({"kind": "dense", "hidden_width": 384}), {}, {"swiglu": "eager"}),
}
MORE: dict[str, tuple[dict[str, object], dict[str, object], dict[str, object]]] = {
    "uniform routing": ({}, {"routing": "uniform"}, {}),
    "heads turned in one pass, few of them, mixed precision": (blocks(kv_heads=2), {"precision": "bf16-mixed"}, {"rope": "triton"}),
    "heads turned in one pass, normalised": (blocks(kv_heads=2, qk_norm="head"), {}, {"rope": "triton"}),
    "heads turned in one pass, normalised together": (blocks(qk_norm="width"), {}, {"rope": "triton"}),
    "norm over all heads": (blocks(qk_norm="width"), {}, {}),
    "bf16": ({}, {"precision": "bf16"}, {"norm": "recompute"}),
    "grouped experts, eager SwiGLU": ({}, {}, {"experts": "grouped", "swiglu": "eager"}),
    "batched experts": (blocks(moe(capacity_factor=1.25)), {}, {"experts": "batched", "permutation": "index_add"}),
    "grouped experts with a capacity": (blocks(moe(capacity_factor=1.25)), {}, {"experts": "grouped", "permutation": "index_add"}),
    "added rows": ({}, {}, {"permutation": "index_add"}),
    "wide router": ({}, {}, {"router": "fp32"}),
    "sigmoid router": (blocks(moe(router="sigmoid", top_k=3, weight_scale=2.5)), {}, {}),
    "shared experts": (blocks(moe(shared_width=96)), {}, {}),
    "dense, mixed precision": (blocks({"kind": "dense", "hidden_width": 384}), {"precision": "bf16-mixed"}, {}),
}


def assert_keeps_what_torch_keeps(name: str) -> None:
    model, plan, implementation = (CASES | MORE)[name]
    spec, resolved_plan = resolved(model, plan, **implementation)
    torch_keeps, predicted = kept_by_torch(spec, resolved_plan), predicted_storages(spec, resolved_plan)
    total = sum(torch_keeps.elements())
    # Which of several small things, of up to eight numbers a token, is kept, or computed again from another, is the minimum cut's.
    large = resolved_plan.tokens_per_micro_batch * 8 * 8
    assert Counter(size for size in predicted.elements() if size > large) == Counter(size for size in torch_keeps.elements() if size > large)
    assert sum(predicted.elements()) == pytest.approx(total, rel=0.01)


@pytest.mark.usefixtures("rope_parts_on_cpu")
@pytest.mark.parametrize("name", CASES)
def test_a_compiled_block_keeps_what_the_partitioner_keeps(name: str) -> None:
    assert_keeps_what_torch_keeps(name)


@pytest.mark.slow
@pytest.mark.usefixtures("rope_parts_on_cpu")
@pytest.mark.parametrize("name", MORE)
def test_a_compiled_block_keeps_what_the_partitioner_keeps_under_other_plans(name: str) -> None:
    assert_keeps_what_torch_keeps(name)


def traffic_bytes(stretch: Stretch, operations: tuple[Operation, ...]) -> float:
    return sum(value.bytes.at(stretch.bindings) for operation in operations for value in operation.traffic)


def test_a_compiled_norm_reads_its_rows_once_and_writes_them_once() -> None:
    spec, plan = resolved({}, {})
    stretch, passes = block_of(spec, plan)
    kernel = passes.forward[0]
    # 256 tokens of width 128 in bf16, in and out; the norm's weight; the mean square of each token in fp32.
    assert traffic_bytes(stretch, (kernel,)) == 2 * 256 * 128 * 2 + 128 * 2 + 256 * 4
    assert kernel.kind is Kind.REDUCE
    assert kernel.name == "fused _to_copy pow mean add rsqrt mul"


def test_heads_turned_in_one_pass_are_read_once_and_written_once_and_their_product_goes() -> None:
    spec, plan = resolved({}, {}, rope="triton")
    stretch, passes = block_of(spec, plan)
    # 256 tokens with 3 x 4 heads of width 32 in bf16; cosines and sines of 64 positions in fp32.
    product, tables = 256 * 3 * 4 * 32 * 2, 2 * 64 * 16 * 4
    for half, name in ((passes.forward, "rope_parts"), (passes.backward, "rope_parts_backward")):
        (kernel,) = (operation for operation in half if operation.name == name)
        assert traffic_bytes(stretch, (kernel,)) == 2 * product + tables
        assert kernel.launches.at(stretch.bindings) == 1
    assert product not in predicted_storages(spec, plan)
    assert product in predicted_storages(*resolved({}, {}))


def test_rows_of_experts_are_summed_and_added_to_the_residual_stream_in_one_kernel_if_they_are_few() -> None:
    few, many = (resolved(blocks(moe(experts=16, top_k=top_k)), {}) for top_k in (7, 8))
    names = [[operation.name for operation in block_of(*case)[1].forward] for case in (few, many)]
    assert [name[-1] for name in names] == ["fused add index_select sum", "fused index_select sum add"]
    last = block_of(*few)[1].forward[-1]
    assert last.kind is Kind.POINTWISE
    assert block_of(*many)[1].forward[-1].kind is Kind.REDUCE


def test_a_compiled_block_launches_less_moves_less_and_does_the_same_products() -> None:
    compiled, eager = (block_of(*resolved({}, {}, compile=mode)) for mode in ("block", "none"))
    products = []
    for stretch, passes in (compiled, eager):
        operations = [*passes.forward, *passes.backward]
        products.append(Counter((operation.kind, operation.scores) for operation in operations if operation.kind in (Kind.GROUPED_GEMM, Kind.ATTENTION)))
        assert sum(operation.flops.at(stretch.bindings) for operation in operations if operation.flops) == pytest.approx(
            sum(operation.flops.at(eager[0].bindings) for operation in (*eager[1].forward, *eager[1].backward) if operation.flops)
        )
    assert products[0] == products[1]
    for half in ("forward", "backward"):
        few, many = (getattr(passes, half) for _, passes in (compiled, eager))
        assert len(few) < len(many) / 2
        assert traffic_bytes(compiled[0], few) < traffic_bytes(eager[0], many)


@pytest.mark.parametrize("precision", ["bf16-split", "bf16-mixed"])
def test_after_its_backward_a_compiled_block_leaves_what_an_eager_one_leaves(precision: str) -> None:
    left = []
    for mode in ("block", "none"):
        stretch, passes = block_of(*resolved({}, {"precision": precision}, compile=mode))
        operations = [*passes.forward, *passes.backward]
        begun, ended = (Counter(value for operation in operations for value in getattr(operation, name)) for name in ("allocates", "frees"))
        assert max(begun.values()) == max(ended.values()) == 1
        left.append(sum(value.bytes.at(stretch.bindings) for value in begun) - sum(value.bytes.at(stretch.bindings) for value in ended))
    assert left[0] == left[1]


def test_recomputation_of_compiled_blocks_is_refused_in_one_line() -> None:
    spec, plan = resolved({}, {"recomputation": "full"})
    with pytest.raises(ConfigurationError, match=r"plan.recomputation full is not predicted with implementation.compile block \(legal: none\)"):
        build_program(spec, plan)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-split", "bf16-mixed"])
def test_the_peak_of_a_compiled_step_is_the_cpu_allocators_within_one_percent(precision: str) -> None:
    """With a vocabulary so small that the peak lies in a block's backward."""
    spec = load_model("tiny-moe", {"vocabulary": 64, "blocks.0.count": 2})
    plan = load_plan(spec, "fast", {"precision": precision, **{f"implementation.{name}": value for name, value in ON_CPU.items()}})[0]
    predicted = step_memory(build_program(spec, plan, on_cpu=True), plan)
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=0)
    for _ in range(3):
        subject.step()
    gc.collect()
    states = [state for values in subject.optimizer.state.values() for state in values.values()]
    before = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in (*subject.model.parameters(), *subject.model.buffers(), *states)}
    assert predicted.peak_at.operation.startswith("fused")
    assert predicted.peak_allocated_bytes == pytest.approx(allocator_peak_bytes(subject, sum(before.values())), rel=0.01)


def fast_step(shape: str) -> tuple[StepReport, dict[str, float]]:
    """Predicted, and measured on one H100: uniform routing, kernels issued one by one, the norm taken before the update, as it is now under a limit.

    Heads were turned by what the compiler made of plain formulas.
    """
    rows = json.loads(MEASURED.read_text())["training"]
    (measured,) = (row for row in rows if row["shape"] == shape and row["contender"] == "trainer, plan fast")
    settings = {"plan": {"routing": "uniform", "gradient_clipping": 1.0, "implementation.launch": "eager", "implementation.rope": "eager"}}
    return ask(shape, "single-node", plan="fast", device="h100-sxm-80gb", gpus=1, settings=settings).answer(), measured


@pytest.mark.parametrize("shape", ["moe-s1", "moe-s2", "moe-s3"])
def test_the_peak_of_the_fast_plan_on_an_h100_is_predicted_within_a_tenth_of_a_percent(shape: str) -> None:
    predicted, measured = fast_step(shape)
    assert predicted.memory.peak_allocated_bytes / 1e9 == pytest.approx(measured["peak_allocated_gb"], rel=0.001)


@pytest.mark.parametrize(("shape", "error"), [("moe-s1", 0.025), ("moe-s2", 0.08), ("moe-s3", 0.055)])
def test_the_step_of_the_fast_plan_on_an_h100_is_predicted_as_well_as_the_readme_says(shape: str, error: float) -> None:
    predicted, measured = fast_step(shape)
    assert predicted.time.step_s * 1e3 == pytest.approx(measured["step_ms"], rel=error)


@pytest.mark.parametrize(
    ("folder", "rope", "shape", "replayed", "issued"),
    [
        (MEASURED_ON_H200, "eager", "s1", 0.065, 0.11),
        (MEASURED_ON_H200, "eager", "s2", 0.12, 0.14),
        (MEASURED_ON_H200, "eager", "s3", 0.07, 0.085),
        (MEASURED_WITH_ROPE_KERNEL, "triton", "s1", 0.015, 0.07),
        (MEASURED_WITH_ROPE_KERNEL, "triton", "s2", 0.105, 0.15),
        (MEASURED_WITH_ROPE_KERNEL, "triton", "s3", 0.06, 0.115),
    ],
)
def test_the_step_of_the_fast_plan_on_an_h200_is_predicted_as_well_as_the_readme_says(
    folder: Path, rope: str, shape: str, replayed: float, issued: float
) -> None:
    """The process had multiplied matrices on another stream before, whose work space of 67 MB stayed. ``rope``: how heads were turned then."""
    rows = json.loads((folder / f"training-{shape}.json").read_text())["rows"]
    for launch, name, error in (("graph", "trainer, plan fast", replayed), ("eager", "trainer, plan fast, kernels issued one by one", issued)):
        settings = {"plan": {"routing": "uniform", "gradient_clipping": None, "implementation.launch": launch, "implementation.rope": rope}}
        predicted = ask(f"moe-{shape}", "single-node", plan="fast", device="h200-sxm-141gb", gpus=1, settings=settings).answer()
        (measured,) = (row for row in rows if row["contender"] == name)
        assert predicted.memory.peak_allocated_bytes == pytest.approx(measured["peak_allocated_bytes"], rel=0.004)
        assert predicted.time.step_s == pytest.approx(measured["step"]["median_s"], rel=error)
