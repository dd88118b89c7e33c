"""Time training steps of one plan in this process, or in each process of a ``torchrun``, and say what communication costs.

``{python | torchrun --nproc-per-node 2} -m trainer.bench.parallel_steps OUT.json --model moe-s1 --plan fast --set plan.ep=1 --device cuda``
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import torch

from configuration.errors import ConfigurationError
from configuration.files import write_atomically
from configuration.overrides import parse_single
from simulator.specs import load_model, load_plan
from trainer.bench.overlap import overlap
from trainer.measure.subject import Subject, build_subject, random_micro_batches
from trainer.parallel.world import launched_ranks, leave_world, start_world
from trainer.replay import release

WARM_UP, TIMED, PROFILED = 4, 9, 2


def main() -> None:
    """Measure and write; what cannot run is told in one line."""
    try:
        _measure()
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _measure() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--plan", required=True)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    given = parser.parse_args()
    settings = parse_single(given.settings, ("model", "plan"))
    spec = load_model(given.model, settings.get("model"))
    plan, _ = load_plan(spec, given.plan, settings.get("plan"), ranks=launched_ranks(), ranks_reason="processes", precision="fp32")
    world = start_world(plan, given.device)
    batches = random_micro_batches(spec, plan, seed=world.data_rank, device=world.device)
    subject = build_subject(spec, plan, batches, seed=0, device=given.device, world=world)
    for _ in range(WARM_UP):
        subject.step()
    steps_s = [seconds(subject) for _ in range(TIMED)]
    found = {
        "model": given.model, "plan": given.plan, "settings": given.settings, "tokens_per_step": plan.tokens_per_step, "step_s": median(steps_s),
        "steps_s": steps_s, "tokens_per_s": plan.tokens_per_step / median(steps_s), "torch": torch.__version__,
        "environment": {name: value for name, value in os.environ.items() if name.startswith("NCCL_")},
    }  # fmt: skip
    if given.device == "cuda":
        found |= {"device": torch.cuda.get_device_name(), "peak_allocated_bytes": torch.cuda.max_memory_allocated(), **profiled(subject)}
    if world.first:
        write_atomically(given.output, json.dumps(found, indent=1) + "\n")
        print(given.output.name, f"{found['step_s'] * 1e3:.1f} ms", {name: value for name, value in found.items() if name.endswith("_a_step_s")}, flush=True)
    release(subject.optimize)
    leave_world()


def seconds(subject: Subject) -> float:
    """Wall time of one step."""
    begin = time.perf_counter()
    subject.step()
    return time.perf_counter() - begin


def profiled(subject: Subject) -> dict[str, float]:
    """Seconds a step of communication, of computation, and of communication with no computation beside it, on this rank."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(PROFILED):
            subject.step()
    return {f"{name.removesuffix('_s')}_a_step_s": value / PROFILED for name, value in asdict(overlap(profile)).items()}


if __name__ == "__main__":
    main()
