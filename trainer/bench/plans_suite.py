"""One model under several plans, step by step in turn with a matrix product: which share of the product's rate a training step reaches.

Everything takes turns, so that a machine which slows down meanwhile slows all of it; the median of the shares is told. On a CPU also by the time that the
process had a core: other work on the machine then counts for caches and clocks alone.
"""

import time
from collections.abc import Callable
from statistics import mean, median, quantiles
from typing import Any

import torch

from simulator.specs import ModelSpec, load_plan
from simulator.specs.flops import model_flops_per_token
from trainer.bench.contenders import portable, random_tokens
from trainer.bench.timing import wait
from trainer.measure.subject import Subject, build_subject

Row = dict[str, Any]
Times = tuple[float, ...]
"""By each of ``CLOCKS``, seconds."""
CLOCKS = ("wall_time", "processor_time")

PLANS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "default": (None, {}),
    "default, packed experts": (None, {"implementation": {"experts": "packed"}}),
    "default, gathering permutation": (None, {"implementation": {"permutation": "gather"}}),
    "default, in-place cross-entropy": (None, {"implementation": {"cross_entropy": "in-place"}}),
    "default, compiled": (None, {"implementation": {"compile": "block"}}),
    "fast-cpu": ("fast-cpu", {}),
}
"""Name to preset and what is changed in it."""
WARM_UP_STEPS = 3
PRODUCTS = {"cpu": (512, 12), "cuda": (4096, 4)}
"""Side of the square product, and how many make one measurement."""


def plan_rows(spec: ModelSpec, device: str, dtype: str, repeats: int, log: Callable[[str], None]) -> list[Row]:
    """A row for each plan; by each clock ``share_of_product``: the step's model FLOP/s over the rate of the products right before and after it."""
    precision = "fp32" if dtype == "fp32" else "bf16-mixed"
    subjects: dict[str, Subject] = {}
    for name, (preset, changes) in PLANS.items():
        plan = portable(load_plan(spec, preset, changes | {"precision": precision})[0], device)
        subjects[name] = build_subject(spec, plan, random_tokens(spec, plan, device), seed=0, device=device)
        for _ in range(WARM_UP_STEPS):
            subjects[name].step()
        log(f"{name}: ready")
    product = _Product(device, dtype)
    steps: dict[str, list[Times]] = {name: [] for name in subjects}
    products: dict[str, list[Times]] = {name: [] for name in subjects}
    for _ in range(repeats):
        for name, subject in subjects.items():
            before = _timed(product.run)
            steps[name].append(_timed(subject.step))
            products[name].append(tuple(mean(pair) for pair in zip(before, _timed(product.run), strict=True)))
    return [_row(name, spec, subject, product, steps[name], products[name]) for name, subject in subjects.items()]


def _row(name: str, spec: ModelSpec, subject: Subject, product: "_Product", steps: list[Times], products: list[Times]) -> Row:
    plan = subject.plan
    flops = model_flops_per_token(spec, plan.sequence) * plan.tokens_per_step
    row: Row = {"plan": name, "implementation": plan.implementation.model_dump(mode="json"), "precision": plan.precision, "model_flops": flops}
    for clock, by in enumerate(CLOCKS if subject.device == "cpu" else CLOCKS[:1]):
        steps_s, products_s = ([times[clock] for times in taken] for taken in (steps, products))
        shares = [flops / step_s / (product.flops / product_s) for step_s, product_s in zip(steps_s, products_s, strict=True)]
        low, _, high = quantiles(shares, n=4)
        row[by] = {"step_s": median(steps_s), "share_of_product": median(shares), "quartiles": [low, high], "steps_s": steps_s, "products_s": products_s}
    return row


def _timed(work: Callable[[], object]) -> Times:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begin, time.process_time() - begin_cpu


class _Product:
    def __init__(self, device: str, dtype: str) -> None:
        self.side, self.times = PRODUCTS[device]
        self.device = device
        kind = torch.float32 if dtype == "fp32" else torch.bfloat16
        self.left, self.right = (torch.ones(self.side, self.side, dtype=kind, device=device) for _ in range(2))

    def run(self) -> None:
        """Some products one after another."""
        for _ in range(self.times):
            torch.mm(self.left, self.right)
        wait(self.device)

    @property
    def flops(self) -> float:
        """Of all of them."""
        return 2.0 * self.side**3 * self.times
