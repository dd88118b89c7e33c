"""What each lever of precision and memory saves and costs: every one alone against the same step without any.

Memory and losses are taken of the same weights and the same tokens. Every timed step of a lever is followed by one of the reference, so that a
machine that slows down meanwhile slows both; the cost is the median of their ratios. A loss differs by more than rounding where rounding turns
a choice of the router: then another expert takes the token.
"""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from simulator.records.step_report import Record
from simulator.specs import ModelSpec, Plan
from trainer.measure.memory import measure_memory
from trainer.measure.subject import Subject, build_subject
from trainer.step import MicroBatch

LOSS_STEPS = 50
LEARNING_RATE = 1e-3

OFF: dict[str, Any] = {"precision": "fp32", "recomputation": "none", "implementation.cross_entropy": "eager", "implementation.optimizer": "for-loop"}
"""The reference: the plan that was asked for, with these."""

LEVERS: dict[str, dict[str, Any]] = {
    "bf16 compute, fp32 weights": {"precision": "bf16-mixed"},
    "bf16 throughout": {"precision": "bf16"},
    "recomputation of blocks": {"recomputation": "full"},
    "recomputation of attention": {"recomputation": ("attention",)},
    "recomputation of feed-forwards": {"recomputation": ("feed_forward",)},
    "recomputation of experts": {"recomputation": ("experts",)},
    "two micro-batches for one": {},
    "chunked cross-entropy": {"implementation.cross_entropy": "chunked"},
    "fused AdamW": {"implementation.optimizer": "fused"},
    "bf16 compute, blocks, chunks, fused": {
        "precision": "bf16-mixed", "recomputation": "full", "implementation.cross_entropy": "chunked", "implementation.optimizer": "fused",
    },
}  # fmt: skip


class Lever(Record):
    """One lever against the reference. ``bytes_saved`` of the peak; ``time_cost``: seconds of a step over those of the reference's
    step right after it, median over the steps, less one.

    Differences of the language-model loss are absolute, over ``LOSS_STEPS`` steps, in nats per token.
    """

    lever: str
    fields: dict[str, object]
    peak_allocated_bytes: int
    bytes_saved: int
    step_s: float
    time_cost: float
    mean_loss_difference: float
    largest_loss_difference: float
    last_loss: float


class Levers(Record):
    """The whole table."""

    schema_version: int = 1
    model: str
    plan: dict[str, object]
    device: str
    threads: int
    versions: dict[str, str]
    tokens: str
    loss_steps: int
    reference: Lever
    levers: list[Lever]
    left_out: dict[str, str]
    """Levers that the model or the plan does not have, and why."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is measured: ``micro_batches`` makes the same ones at every call."""

    model: ModelSpec
    plan: Plan
    micro_batches: Callable[[], Iterator[MicroBatch]]
    seed: int
    device: str

    def subject(self, plan: Plan) -> Subject:
        """A fresh job under ``plan``; its micro-batches are those of the setting, cut to the plan's size."""
        parts = (part for batch in self.micro_batches() for part in _cut(batch, plan.micro_batch))
        return build_subject(self.model, plan, parts, seed=self.seed, device=self.device, learning_rate=LEARNING_RATE)


def measure_levers(setting: Setting, tokens: str, log: Callable[[str], None]) -> Levers:
    """Measure the reference, then every lever that model and plan have. ``tokens`` says in words what they are."""
    off = changed(setting.plan, OFF)
    plans, left_out = _plans(setting, off)
    peaks = {name: _peak_bytes(setting, plan) for name, plan in {"": off, **plans}.items()}
    log(f"reference: {_said(OFF)}; {LOSS_STEPS} steps each, {tokens}")
    reference = setting.subject(off)
    taken = [_step(reference) for _ in range(LOSS_STEPS)]
    losses, reference_s = [float(loss) for loss, _ in taken], [seconds for _, seconds in taken]
    levers = []
    for name, plan in plans.items():
        lever = setting.subject(plan)
        pairs = [(_step(lever), _step(reference)) for _ in range(LOSS_STEPS)]
        lever_losses, lever_s = [float(loss) for (loss, _), _ in pairs], [seconds for (_, seconds), _ in pairs]
        ratios = [seconds / of_reference for (_, seconds), (_, of_reference) in pairs]
        apart = [abs(one - other) for one, other in zip(lever_losses, losses, strict=True)]
        row = Lever(
            lever=name, fields=_fields(off, plan), peak_allocated_bytes=peaks[name], bytes_saved=peaks[""] - peaks[name], step_s=median(lever_s),
            time_cost=median(ratios) - 1, mean_loss_difference=sum(apart) / len(apart),
            largest_loss_difference=max(apart), last_loss=lever_losses[-1],
        )  # fmt: skip
        log(f"{name}: {row.bytes_saved:,} bytes saved, {row.time_cost:+.1%} time")
        levers.append(row)
        del lever
    none = Lever(
        lever="none", fields=dict(OFF), peak_allocated_bytes=peaks[""], bytes_saved=0, step_s=median(reference_s), time_cost=0.0,
        mean_loss_difference=0.0, largest_loss_difference=0.0, last_loss=losses[-1],
    )  # fmt: skip
    return Levers(
        model=setting.model.name, plan=setting.plan.model_dump(mode="json"), device=setting.device, threads=torch.get_num_threads(),
        versions={"torch": torch.__version__}, tokens=tokens, loss_steps=LOSS_STEPS, reference=none, levers=levers, left_out=left_out,
    )  # fmt: skip


def changed(plan: Plan, fields: dict[str, Any]) -> Plan:
    """``plan`` with ``fields``, of which those of its implementation are named implementation.FIELD."""
    own = {name: value for name, value in fields.items() if "." not in name}
    inner = {name.partition(".")[2]: value for name, value in fields.items() if "." in name}
    return plan.model_copy(update=own | {"implementation": plan.implementation.model_copy(update=inner)})


def _plans(setting: Setting, off: Plan) -> tuple[dict[str, Plan], dict[str, str]]:
    plans, left_out = {}, {}
    for name, fields in LEVERS.items():
        if "experts" in fields.get("recomputation", ()) and not setting.model.expert_counts:
            left_out[name] = "the model has no experts"
        elif fields:
            plans[name] = changed(off, fields)
        elif off.micro_batch % 2:
            left_out[name] = f"plan.micro_batch ({off.micro_batch}) is odd"
        else:
            plans[name] = off.model_copy(update={"micro_batch": off.micro_batch // 2, "global_batch": off.micro_batch * off.accumulation})
    return plans, left_out


def _peak_bytes(setting: Setting, plan: Plan) -> int:
    subject = setting.subject(plan)
    peak = measure_memory(subject).memory.peak_allocated_bytes
    del subject
    gc.collect()
    return peak


def _step(subject: Subject) -> tuple[Tensor, float]:
    """Language-model loss and seconds of one step; its tokens are there before the clock runs."""
    batches = iter(list(islice(subject.micro_batches, subject.plan.accumulation)))
    begin = perf_counter()
    loss = subject.step(batches).language_model
    return loss, perf_counter() - begin


def _cut(batch: MicroBatch, sequences: int) -> Iterator[MicroBatch]:
    inputs_BS, labels_BS = batch
    return zip(torch.split(inputs_BS, sequences), torch.split(labels_BS, sequences), strict=True)


def _fields(off: Plan, plan: Plan) -> dict[str, object]:
    """What ``plan`` changes, as settings of the command line."""
    before, after = off.model_dump(mode="json"), plan.model_dump(mode="json")
    own = {f"plan.{name}": value for name, value in after.items() if name != "implementation" and value != before[name]}
    inner = {name: value for name, value in after["implementation"].items() if value != before["implementation"][name]}
    return own | {f"plan.implementation.{name}": value for name, value in inner.items()}


def _said(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())
