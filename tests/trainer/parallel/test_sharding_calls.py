"""What the hooks of sharded parameters ask of the host, against a profile of two ranks."""

from collections import Counter

import pytest

from simulator.components import Component
from simulator.program.build import build_program
from simulator.specs import ModelSpec, Plan

HOOKS = {
    "FSDP::all_gather": {(Component.PARAMETER_GATHER, name) for name in ("_foreach_copy_", "_allgather_base_")},
    "FSDP::all_gather_copy_out": {(Component.PARAMETER_GATHER, name) for name in ("split_with_sizes_copy", "cat")},
    "FSDP::post_backward_reduce": {(Component.GRADIENT_SYNC, name) for name in ("cat", "chunk_cat", "_reduce_scatter_base_", "add_")},
}
"""Range of PyTorch's profiler to the operations of the program that come from it."""

GLOO_CALLS = 2
"""Around a reduce-scatter gloo calls the dispatcher itself, where NCCL does not."""

CASES = {
    "zero-3, experts that shards do not divide": ({"zero_stage": 3}, {"blocks.0.feed_forward.experts": 5}),
    "zero-3": ({"zero_stage": 3}, {}),
    "zero-3, mixed precision, two micro-batches": ({"zero_stage": 3, "precision": "bf16-mixed", "global_batch": 8}, {}),
    "zero-3, packed experts, untied": ({"zero_stage": 3, "implementation.experts": "packed"}, {"tied_embeddings": False}),
    "zero-2, two micro-batches": ({"zero_stage": 2, "global_batch": 8}, {}),
}


def predicted(model, plan):
    program = build_program(model, plan, on_cpu=True)
    found = Counter()
    for turn in program.turns:
        for stretch in program.stretches:
            run = stretch.segment.passes[turn]
            for operation in (*run.forward, *run.backward):
                hook = next((hook for hook, kinds in HOOKS.items() if (operation.component, operation.name) in kinds), None)
                # The first block gathers nothing ahead.
                nothing = operation.exchange is not None and not operation.exchange.bytes.at(stretch.bindings)
                if hook is not None and not nothing:
                    gloo = GLOO_CALLS if operation.name == "_reduce_scatter_base_" else 0
                    found[hook] += stretch.count * (round(operation.launches.at(stretch.bindings)) + operation.calls + gloo)
    return found


@pytest.mark.parametrize("name", CASES)
def test_hooks_call_the_dispatcher_as_often_as_predicted(ranks, name):
    plan, model = CASES[name]
    answer = ranks(2).run(run="calls", plan={"ranks": 2, "ep": 1, "routing": "uniform", **plan}, model=model)[0]
    expected = predicted(ModelSpec.model_validate(answer["model"]), Plan.model_validate(answer["plan"]))
    assert {hook: answer["calls"][hook] for hook in HOOKS} == {hook: expected[hook] for hook in HOOKS}
