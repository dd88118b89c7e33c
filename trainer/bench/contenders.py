"""Who takes training steps of one shape: this trainer under a plan, the plain compiled model, Hugging Face's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simulator.specs import ModelSpec, Plan
from trainer.bench.peers.hugging_face import HuggingFaceModel
from trainer.bench.peers.plain import PlainModel
from trainer.measure.subject import build_subject
from trainer.step import MicroBatch

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Contender:
    """``step`` takes one optimizer step on fresh tokens and returns its loss, without waiting for the device.

    ``loads``: of the last step, the busiest expert over the mean, by layer; none where the implementation does not tell.
    """

    name: str
    step: Callable[[], Tensor]
    loads: Callable[[], list[float]] = list


def random_tokens(spec: ModelSpec, plan: Plan, device: str) -> Iterator[MicroBatch]:
    """Uniform random windows, made on the device, for ever."""
    while True:
        window_BS1 = torch.randint(spec.vocabulary, (plan.micro_batch, plan.sequence + 1), device=device)
        yield window_BS1[:, :-1].contiguous(), window_BS1[:, 1:].contiguous()


def trainer(name: str, spec: ModelSpec, plan: Plan, device: str) -> Contender:
    """This trainer under ``plan``."""
    plan = portable(plan, device)
    subject = build_subject(spec, plan, random_tokens(spec, plan, device), seed=0, device=device)
    counts_LE: list[Tensor] = []

    def step() -> Tensor:
        losses = subject.optimize(subject.micro_batches)
        counts_LE[:] = losses.counts_LE
        return losses.language_model

    return Contender(name, step, lambda: [float(counts_E.max() / counts_E.double().mean()) for counts_E in counts_LE])


def portable(plan: Plan, device: str) -> Plan:
    """``plan`` itself on CUDA; elsewhere with kernels that run there, for trying things out."""
    if device == "cuda":
        return plan
    swiglu = "recompute" if plan.implementation.swiglu == "triton" else plan.implementation.swiglu
    there = {"rope": "eager", "swiglu": swiglu, "launch": "eager"}
    return plan.model_copy(update={"implementation": plan.implementation.model_copy(update=there)})


def plain(spec: ModelSpec, plan: Plan, device: str) -> Contender:
    """The plain model under autocast and torch.compile, fp32 weights, fused AdamW."""
    with torch.device(device):
        model = PlainModel(spec, uniform=plan.routing == "uniform").to(device)
    return _module("plain, compiled", model, spec, plan, device, compiled=True, autocast=True)


def hugging_face(spec: ModelSpec, plan: Plan, device: str, *, bf16: bool, compiled: bool) -> Contender:
    """Hugging Face's model: fp32 weights under autocast, or everything in bf16."""
    with torch.device(device):
        model = HuggingFaceModel(spec, sequence=plan.sequence).to(device)
    if bf16:
        model.to(torch.bfloat16)
    name = f"transformers, {'bf16 weights' if bf16 else 'fp32 weights, autocast'}{', compiled' if compiled else ''}"
    return _module(name, model, spec, plan, device, compiled=compiled, autocast=not bf16)


def _module(name: str, model: nn.Module, spec: ModelSpec, plan: Plan, device: str, *, compiled: bool, autocast: bool) -> Contender:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)
    tokens = random_tokens(spec, plan, device)
    run = torch.compile(model) if compiled else model

    def step() -> Tensor:
        inputs_BS, labels_BS = next(tokens)
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss: Tensor = run(inputs_BS, labels_BS)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return Contender(name, step)
