"""From what a user asks for to a measurement: specifications, device, threads and tokens."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from configuration.errors import ConfigurationError
from configuration.overrides import parse_single
from simulator.specs import load_model, load_plan
from trainer.measure.report import Measurement, measure_step
from trainer.measure.subject import build_subject, data_micro_batches, random_micro_batches
from trainer.specs import DATA


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says."""

    model: str
    plan: str | None
    settings: list[str]
    data: str | None
    device: str
    seed: int
    repeats: int
    threads: int | None
    check_allocator: bool


def answer(request: Request, log: Callable[[str], None]) -> Measurement:
    """Check what was asked for, then measure. Raises ConfigurationError in one line."""
    overrides = parse_single(request.settings, ("model", "plan", "data"))
    device = _device(request)
    model = load_model(request.model, overrides.get("model"))
    plan, defaults = load_plan(model, request.plan, overrides.get("plan"), precision="bf16-mixed" if device == "cuda" else "fp32")
    if "data" in overrides and request.data is None:
        raise ConfigurationError("--set data: no --data was given whose field could be set")
    data = None if request.data is None else DATA.load(request.data, overrides.get("data"))
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    micro_batches = (
        random_micro_batches(model, plan, seed=request.seed, device=device)
        if data is None
        else data_micro_batches(data, model, plan, seed=request.seed, device=device, log=log)
    )
    subject = build_subject(model, plan, micro_batches, seed=request.seed, device=device)
    log(f"measuring a step of {model.name}: {model.parameters:,} parameters, {plan.tokens_per_step:,} tokens, {device}")
    tokens = "uniform random" if request.data is None else f"data {request.data}"
    return measure_step(subject, repeats=request.repeats, data=f"{tokens}, seed {request.seed}", defaults=defaults, check_allocator=request.check_allocator)


def _device(request: Request) -> str:
    cuda = torch.cuda.is_available()
    if request.device == "cuda" and not cuda:
        raise ConfigurationError("--device cuda: this machine has no CUDA device (legal here: auto, cpu)")
    device = ("cuda" if cuda else "cpu") if request.device == "auto" else request.device
    if request.check_allocator and device != "cpu":
        raise ConfigurationError("--check-allocator: on CUDA the peak is the allocator's own already (legal with --device cpu)")
    return device
