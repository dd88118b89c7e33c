"""Time training steps of one plan in this process, or in each process of a ``torchrun``, and say what communication costs.

``{python | torchrun --nproc-per-node 2} -m trainer.bench.parallel_steps OUT.json --model moe-s1 --plan fast --set plan.ep=1 --device cuda``
"""

import argparse
import json
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
from trainer.bench.contenders import random_tokens
from trainer.measure.profile import profile_steps
from trainer.measure.spans import overlap_of
from trainer.measure.subject import Subject, build_subject
from trainer.measure.surroundings import place_of, settings, versions
from trainer.measure.trace import check_trace_file, write_trace
from trainer.parallel.together import gathered
from trainer.parallel.world import launched_ranks, leave_world, start_world
from trainer.replay import release

WARM_UP, TIMED = 4, 9


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
    parser.add_argument("--timed", type=int, default=TIMED, help="steps of which the median is taken")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--trace", type=Path, help="Chrome trace of one more step of the first rank, .json or .json.gz: what the host does, hook by hook")
    given = parser.parse_args()
    if given.trace is not None:
        check_trace_file(given.trace)
    overrides = parse_single(given.settings, ("model", "plan"))
    spec = load_model(given.model, overrides.get("model"))
    plan, _ = load_plan(spec, given.plan, overrides.get("plan"), ranks=launched_ranks(), ranks_reason="processes", precision="fp32")
    world = start_world(plan, given.device)
    torch.manual_seed(world.data_rank)
    subject = build_subject(spec, plan, random_tokens(spec, plan, world.device), seed=0, device=given.device, world=world)
    for _ in range(WARM_UP):
        subject.step()
    steps_s = [seconds(subject) for _ in range(given.timed)]
    found = {
        "model": given.model, "plan": given.plan, "settings": given.settings, "implementation": plan.implementation.model_dump(),
        "tokens_per_step": plan.tokens_per_step, "step_s": median(steps_s), "steps_s": steps_s, "tokens_per_s": plan.tokens_per_step / median(steps_s),
        "versions": versions(given.device), "environment": settings(), "placement": [place.model_dump() for place in gathered(world, place_of(world))],
    }  # fmt: skip
    if given.device == "cuda":
        # Of all steps: a replay allocates nothing, its recording did.
        found |= {"peak_allocated_bytes": torch.cuda.max_memory_allocated(), **profiled(subject)}
    if world.first:
        write_atomically(given.output, json.dumps(found, indent=1) + "\n")
        print(given.output.name, f"{found['step_s'] * 1e3:.1f} ms", {name: value for name, value in found.items() if name.endswith("_a_step_s")}, flush=True)
    if given.trace is not None:
        # After the numbers are written: it may take long.
        profile = profile_steps(subject, steps=1)
        if world.first:
            write_trace(profile, given.trace)
    release(subject.optimize)
    leave_world()


def seconds(subject: Subject) -> float:
    """Wall time of one step."""
    begin = time.perf_counter()
    subject.step()
    return time.perf_counter() - begin


def profiled(subject: Subject) -> dict[str, float]:
    """Seconds a step of communication, of computation, and of communication with no computation beside it, on this rank."""
    profile = profile_steps(subject)
    talking, working = ([kernel.span for kernel in profile.kernels if kernel.communicates is kind] for kind in (True, False))
    return {f"{name.removesuffix('_s')}_a_step_s": value / profile.steps for name, value in asdict(overlap_of(talking, working)).items()}


if __name__ == "__main__":
    main()
