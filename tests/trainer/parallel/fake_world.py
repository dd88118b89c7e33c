"""One rank of a world whose other ranks are not there: collectives do nothing, storages are real. Reads cases from stdin, prints their memory as JSON."""

import gc
import json
import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.pipelining import schedules
from torch.testing._internal.distributed.fake_pg import FakeStore

from simulator.specs import load_model, load_plan
from trainer.measure.memory import measure_memory
from trainer.measure.subject import build_subject, random_micro_batches
from trainer.parallel.world import start_world


def answered_by_equals(output, given, *_, **__):
    """Every rank sends what this one sends: under uniform routing all counts are alike."""
    output.view(-1)[: given.numel()].copy_(given.view(-1)[: output.numel()])


def agreed(tensor, *_, **__):
    """Stages of a pipeline ask each other at the start whether all of them know the shapes that they exchange."""
    tensor.fill_(1)


def tokens_elsewhere(tensor, *_, group=None, **__):
    """What all ranks sum begins with the labelled tokens, which the last stage has."""
    if group is None:
        tensor[0].clamp_(min=1)


class Sent:
    """Holds what is sent, as the work of a real send does."""

    def __init__(self, tensor):
        self.tensor = tensor

    def wait(self):
        return True


def memory(case):
    spec = load_model("tiny-moe", case["model"])
    plan, _ = load_plan(spec, None, {"sequence": 16, "micro_batch": 2, "implementation.experts": "loop", **case["plan"]})
    subject = build_subject(spec, plan, random_micro_batches(spec, plan, seed=0), seed=1, world=start_world(plan))
    return {"memory": measure_memory(subject).memory.model_dump(mode="json"), "model": spec.model_dump(mode="json"), "plan": plan.model_dump(mode="json")}


def main():
    torch.set_num_threads(1)
    # Measured steps begin with a collection, which needs not look through all that was imported.
    gc.freeze()
    cases = json.load(sys.stdin)
    ranks = cases[0]["plan"]["ranks"]
    rank = cases[0].get("rank", 0)
    os.environ["WORLD_SIZE"], os.environ["RANK"] = str(ranks), str(rank)
    dist.init_process_group("fake", rank=rank, world_size=ranks, store=FakeStore())
    dist.all_to_all_single, dist.recv, dist.all_reduce = answered_by_equals, agreed, tokens_elsewhere
    schedules._batch_p2p = lambda operations, desc=None: [Sent(operation.tensor) for operation in operations]
    print(json.dumps([memory(case) for case in cases]))


if __name__ == "__main__":
    main()
