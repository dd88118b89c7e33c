"""``python hooks.py STEP.json TRACED.json``: what a hook of ``fully_shard`` takes of the host beside its calls, ``hook_overhead_s`` of a device.

TRACED is what ``trainer.bench.hook_trace`` makes of the trace of a step; the calls are those of the simulator's program of that step, each taken to cost the
host ``host_overhead_s``.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configuration.overrides import parse_single
from simulator.program.build import build_program
from simulator.program.operations import Operation
from simulator.program.sizes import Bindings
from simulator.specs import load_model, load_plan
from simulator.specs.presets import DEVICES

SHARDING = ("parameter_gather", "gradient_sync")
"""Components of the hooks' operations."""


def main() -> None:
    """Print it."""
    step, traced = (json.loads(Path(name).read_text()) for name in sys.argv[1:3])
    found = list(hook_operations(step))
    hooks = sum(count * operation.hooks for operation, _, count in found)
    if hooks != traced["gathers_and_reductions"]:
        print(f"error: the trace has {traced['gathers_and_reductions']} gathers and reductions, the program {hooks}: it is of another trainer", file=sys.stderr)
        sys.exit(2)
    calls = sum(count * (round(operation.launches.at(bindings)) + operation.calls) for operation, bindings, count in found)
    issued_s = calls * DEVICES.load("h200-sxm-141gb").host_overhead_s.value
    print(f"{calls} calls and launches; hook_overhead_s {(traced['hooks_s'] - issued_s) / hooks:.4g}")


def hook_operations(step: dict[str, Any]) -> Iterator[tuple[Operation, Bindings, int]]:
    """Operations of the hooks in the program of this step, the numbers of their symbols and how often they run."""
    overrides = parse_single(step["settings"], ("model", "plan"))
    model = load_model(step["model"], overrides.get("model"))
    plan, _ = load_plan(model, step["plan"], overrides.get("plan"), ranks=len(step["placement"]), ranks_reason="of the measurement", precision="fp32")
    program = build_program(model, plan, on_cpu=False)
    for turn in program.turns:
        for stretch in program.stretches:
            run = stretch.segment.passes[turn]
            for operation in (*run.forward, *run.backward):
                # Below the first block there is nothing to gather ahead.
                moves = operation.exchange is None or operation.exchange.bytes.at(stretch.bindings)
                if operation.component in SHARDING and moves:
                    yield operation, stretch.bindings, stretch.count


if __name__ == "__main__":
    main()
