"""One rank of a test world: reads cases as JSON lines from stdin, runs them with all other ranks, answers on stdout."""

import gc
import json
import sys
import time
import traceback
from collections import Counter
from itertools import count

import torch

from simulator.specs import load_model, load_plan
from trainer.measure.communication import measure_communication
from trainer.measure.memory import measure_memory
from trainer.measure.subject import build_subject, random_micro_batches
from trainer.measure.time import OUTSIDE
from trainer.model import build_model
from trainer.optimizer import build_optimizer
from trainer.parallel.layout import as_whole
from trainer.parallel.parallelize import parallelize
from trainer.parallel.world import World, start_world
from trainer.step import training_step

MODEL = {
    "width": 32,
    "vocabulary": 64,
    "blocks.0.count": 4,
    "blocks.0.mixer.heads": 4,
    "blocks.0.mixer.kv_heads": 2,
    "blocks.0.mixer.head_width": 8,
    "blocks.0.feed_forward.experts": 4,
    "blocks.0.feed_forward.expert_width": 16,
    "load_balancing_loss": 0.05,
}


def specifications(case):
    """Model and plan of a case."""
    spec = load_model(case.get("preset", "tiny-moe"), {**MODEL, **case.get("model", {})})
    plan, _ = load_plan(spec, None, {"sequence": 16, "micro_batch": 2, "implementation.experts": "loop", **case["plan"]})
    return spec, plan


def build(case):
    """Model, plan, world and optimizer of a case."""
    spec, plan = specifications(case)
    world = start_world(plan, timeout_s=30)
    model = build_model(spec, plan, seed=1)
    if case.get("double"):
        model.double()
        model.compute_dtype = torch.float64
    return model, plan, world


def batches(case, plan, model, world):
    """The micro-batches of this rank, for ever: those of a step are dealt to the data-parallel ranks in turn."""
    for step in count():
        for index in range(plan.accumulation):
            yield batch(case, plan, model, (step * plan.accumulation + index) * plan.dp + world.data_rank)


def batch(case, plan, model, number):
    parts = case.get("sequences", plan.micro_batch)
    window = torch.cat([torch.randint(model.spec.vocabulary, (1, plan.sequence + 1), generator=sequence(number * parts + part)) for part in range(parts)])
    if case.get("same_tokens"):
        window.fill_(5)
    inputs, labels = window[:, :-1].clone(), window[:, 1:].clone()
    for rule in case.get("masks", []):
        if number % rule["every"] == rule["at"]:
            labels.flatten()[rule["from"] :] = -100
    return inputs, labels


def sequence(number):
    return torch.Generator().manual_seed(number)


def train(case):
    """Losses of some steps, whole gradients of the first and whole parameters after the last."""
    model, plan, world = build(case)
    parallel = parallelize(model, world)
    optimizer = build_optimizer(model, plan, learning_rate=case.get("learning_rate", 1e-3), weight_decay=0.1)
    gradients = []
    collect = optimizer.register_step_pre_hook(lambda *_: gradients.append(whole({name: p.grad for name, p in model.named_parameters()}, world)))
    stream = batches(case, plan, model, world)
    losses, norms, counts = [], [], []
    for _ in range(case.get("steps", 1)):
        step = training_step(model, optimizer, stream, plan, parallel)
        collect.remove()
        losses.append(float(step.language_model))
        norms.append(float(step.gradient_norm))
        counts.append([layer.tolist() for layer in step.counts_LE])
    return {"losses": losses, "norms": norms, "counts": counts, "gradients": gradients[0], "parameters": whole(dict(model.named_parameters()), world)}


def whole(tensors, world: World):
    from torch.distributed.tensor import DTensor

    found = {}
    for name, tensor in tensors.items():
        joined = as_whole(name, tensor.detach(), world)
        found[name] = (joined.full_tensor() if isinstance(joined, DTensor) else joined).double().clone()
    if world.plan.pp > 1:
        stages = [None] * world.plan.ranks
        torch.distributed.all_gather_object(stages, found)
        found = {name: tensor for stage in stages for name, tensor in stage.items()}
    return found


def infer(case):
    """Tokens that are generated, and the loss of seven windows in batches of two."""
    from trainer.generation.sampling import Sampling
    from trainer.generation.tokens import next_tokens
    from trainer.loop.evaluate import evaluate

    model, plan, world = build(case)
    parallel = parallelize(model, world)
    drawn = list(next_tokens(model, [3, 1, 4], tokens=12, sampling=Sampling(seed=2)))
    held_out = [batch(case, plan, model, number) for number in range(4)]
    held_out[-1] = tuple(part[:1] for part in held_out[-1])
    found = evaluate(model, held_out, parallel)
    return {"tokens": drawn, "loss": found.loss_nats_per_token, "counts": found.counts_LE, "windows": found.tokens}


def memory(case):
    """The memory of a steady step as the measurement's ledger has it, what ran in it, and its collectives."""
    spec, plan = specifications(case)
    world = start_world(plan, timeout_s=30)
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=world.data_rank), seed=1, world=world)
    measured = measure_memory(subject)
    return {
        "memory": measured.memory.model_dump(mode="json"),
        "names": sorted(f"{phase} {component}" for phase, component in measured.operations if component not in OUTSIDE),
        "communication": {f"{row.name} {row.component} {row.collective}": (row.calls, row.bytes_per_call * row.calls) for row in followed(subject)},
        "model": spec.model_dump(mode="json"),
        "plan": plan.model_dump(mode="json"),
    }


def followed(subject):
    return measure_communication(subject, repeats=1).rows


def calls(case):
    """Calls into the dispatcher from the hooks of sharded parameters in one step, but for those that another operator or a collective makes, by hook."""
    spec, plan = specifications(case)
    world = start_world(plan, timeout_s=30)
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=world.data_rank), seed=1, world=world)
    subject.step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        subject.step()
    found = Counter()
    for event in profile.events():
        around = list(outer(event))
        if event.name.startswith(("aten::", "c10d::", "fsdp::")) and not any(name.startswith(("aten::", "c10d::")) for name in around):
            found[next((name.split(" (")[0] for name in around if name.startswith("FSDP::")), "")] += 1
    return {"calls": dict(found), "model": spec.model_dump(mode="json"), "plan": plan.model_dump(mode="json")}


def outer(event):
    """Names of what a profiled event ran in, the innermost first."""
    while (event := event.cpu_parent) is not None:
        yield event.name


def late(case):
    """Seconds in collectives and in waits, of a job in which one rank is late with every micro-batch."""
    spec, plan = specifications(case)
    world = start_world(plan, timeout_s=30)
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=world.data_rank), seed=1, world=world)
    if world.rank == case["late"]:
        subject.model.embedded = slowed(subject.model.embedded, case["by_s"])
        subject.model.finished = slowed(subject.model.finished, case["by_s"])
    for _ in range(2):
        subject.step()
    found = measure_communication(subject, repeats=2)
    return {"rows": [row.model_dump(mode="json") for row in found.rows], "bubble_s": sum(found.bubble_s.values()), "exposed_s": sum(found.exposed_s.values())}


def slowed(work, seconds):
    def run(*arguments):
        time.sleep(seconds)
        return work(*arguments)

    return run


def resume(case):
    """A run that goes on (or begins) under a plan, takes some steps and saves; with none it saves what it has read."""
    from dataclasses import replace
    from pathlib import Path

    from simulator.specs import Plan
    from trainer.loop.experiment import experiment_from_dict
    from trainer.loop.job import start_job
    from trainer.loop.run import take_step

    plan = Plan(**case["plan"])
    experiment = replace(experiment_from_dict(case["experiment"], "case"), plan=plan)
    job = start_job(experiment, Path(case["folder"]), str, resume=True, world=start_world(plan, timeout_s=30))
    for _ in range(case["steps"]):
        take_step(job)
    job.save()
    job.saved()
    return {"losses": job.journal.losses, "step": job.step}


CASES = {"resume": resume, "train": train, "infer": infer, "memory": memory, "calls": calls, "late": late}


def main():
    torch.set_num_threads(1)
    # Measured steps begin with a collection, which needs not look through all that was imported.
    gc.freeze()
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = CASES[case["run"]](case)
            torch.save(answer, case["answer"])
            print("done", flush=True)
        except Exception:
            print(json.dumps(traceback.format_exc()), flush=True)


if __name__ == "__main__":
    main()
