"""From what a user asks for to a measurement: specifications, device, threads and tokens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from configuration.errors import ConfigurationError
from configuration.overrides import parse_single
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from simulator.specs.presets import Default
from trainer.measure.levers import Levers, Setting, measure_levers
from trainer.measure.report import Extras, Measurement, measure_step
from trainer.measure.subject import build_subject, data_micro_batches, random_micro_batches
from trainer.measure.trace import check_trace_file
from trainer.parallel.together import first_rank_first, loss_of_a_rank_told
from trainer.parallel.world import check_launch, launched_ranks, leave_world, start_world
from trainer.specs import DATA
from trainer.step import MicroBatch


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
    trace: Path | None = None
    snapshot: Path | None = None

    @property
    def extras(self) -> Extras:
        """What is made only when it is asked for."""
        return Extras(check_allocator=self.check_allocator, trace=self.trace, snapshot=self.snapshot)


def answer(request: Request, log: Callable[[str], None]) -> Measurement:
    """Check what was asked for, then measure. Raises ConfigurationError in one line."""
    resolved = _resolved(request, log)
    model, plan = resolved.model, resolved.plan
    world = start_world(plan, resolved.device)
    with loss_of_a_rank_told(world):
        batches = first_rank_first(world, lambda: resolved.micro_batches(world.data_rank))
        subject = build_subject(model, plan, batches, seed=request.seed, device=resolved.device, world=world)
        on = resolved.device if plan.ranks == 1 else f"{plan.ranks} ranks, {resolved.device}"
        log(f"measuring a step of {model.name}: {model.parameters:,} parameters, {plan.tokens_per_step:,} tokens, {on}")
        measurement = measure_step(subject, repeats=request.repeats, data=resolved.tokens, defaults=resolved.defaults, extras=request.extras)
        leave_world()
    return measurement


def answer_levers(request: Request, log: Callable[[str], None]) -> Levers:
    """Check what was asked for, then measure every lever. Raises ConfigurationError in one line."""
    for option, given in (("--check-allocator", request.check_allocator), ("--trace", request.trace), ("--memory-snapshot", request.snapshot)):
        if given:
            raise ConfigurationError(f"{option} does not go with --levers (legal: one of them)")
    resolved = _resolved(request, log)
    if resolved.plan.ranks > 1:
        raise ConfigurationError(f"plan.ranks ({resolved.plan.ranks}): levers are measured in one process (legal: 1)")
    setting = Setting(
        model=resolved.model, plan=resolved.plan, micro_batches=lambda: resolved.micro_batches(0), seed=request.seed, device=resolved.device
    )  # fmt: skip
    return measure_levers(setting, resolved.tokens, log)


@dataclass(frozen=True)
class _Resolved:
    model: ModelSpec
    plan: Plan
    defaults: list[Default]
    device: str
    tokens: str
    """In words."""
    micro_batches: Callable[[int], Iterator[MicroBatch]]
    """Those of one data-parallel rank."""


def _resolved(request: Request, log: Callable[[str], None]) -> _Resolved:
    overrides = parse_single(request.settings, ("model", "plan", "data"))
    device = _device(request)
    model = load_model(request.model, overrides.get("model"))
    plan, defaults = load_plan(
        model,
        request.plan,
        overrides.get("plan"),
        ranks=launched_ranks(),
        ranks_reason="processes started",
        precision="bf16-mixed" if device == "cuda" else "fp32",
    )
    check_launch(plan)
    if plan.implementation.launch == "graph":
        raise ConfigurationError("plan.implementation.launch graph: a replayed step cannot be told apart by component (legal: eager)")
    if plan.implementation.compile != "none":
        raise ConfigurationError(
            f"plan.implementation.compile {plan.implementation.compile}: compiled code has neither components nor storages that could be followed "
            "(legal: none; whole compiled steps: trainer bench --suite training, or plans)"
        )
    if "data" in overrides and request.data is None:
        raise ConfigurationError("--set data: no --data was given whose field could be set")
    data = None if request.data is None else DATA.load(request.data, overrides.get("data"))
    if request.threads is not None:
        torch.set_num_threads(request.threads)

    def micro_batches(part: int) -> Iterator[MicroBatch]:
        if data is None:
            return random_micro_batches(model, plan, seed=request.seed, device=device, part=part)
        return data_micro_batches(data, model, plan, seed=request.seed, device=device, part=part, log=log)

    tokens = "uniform random" if request.data is None else f"data {request.data}"
    return _Resolved(model, plan, defaults, device, f"{tokens}, seed {request.seed}", micro_batches)


def _device(request: Request) -> str:
    cuda = torch.cuda.is_available()
    if request.device == "cuda" and not cuda:
        raise ConfigurationError("--device cuda: this machine has no CUDA device (legal here: auto, cpu)")
    device = ("cuda" if cuda else "cpu") if request.device == "auto" else request.device
    if request.check_allocator and device != "cpu":
        raise ConfigurationError("--check-allocator: on CUDA the peak is the allocator's own already (legal with --device cpu)")
    if request.snapshot is not None and device != "cuda":
        raise ConfigurationError(f"--memory-snapshot: the history of allocations is the CUDA allocator's (legal with --device cuda, here: {device})")
    if request.trace is not None:
        check_trace_file(request.trace)
    return device
