"""One model under several plans, step by step in turn with a matrix product: which share of the product's rate a training step reaches.

Everything takes turns, so that a machine which slows down meanwhile slows all of it; the median of the shares is told.
"""

import time
from collections.abc import Callable
from statistics import median, quantiles
from typing import Any

import torch

from simulator.specs import ModelSpec, Plan, load_plan
from simulator.specs.flops import model_flops_per_token
from trainer.bench.contenders import portable, random_tokens
from trainer.bench.timing import wait
from trainer.measure.subject import Subject, build_subject

Row = dict[str, Any]

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
    """A row for each plan: ``share_of_product`` is the step's model FLOP/s over the rate of the products right before and after it."""
    precision = "fp32" if dtype == "fp32" else "bf16-mixed"
    subjects: dict[str, Subject] = {}
    for name, (preset, changes) in PLANS.items():
        plan = portable(load_plan(spec, preset, changes | {"precision": precision})[0], device)
        subjects[name] = build_subject(spec, plan, random_tokens(spec, plan, device), seed=0, device=device)
        for _ in range(WARM_UP_STEPS):
            subjects[name].step()
        log(f"{name}: ready")
    product = _Product(device, dtype)
    steps_s: dict[str, list[float]] = {name: [] for name in subjects}
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(repeats):
        for name, subject in subjects.items():
            before = product.flops_per_s()
            begin = time.perf_counter()
            subject.step()
            steps_s[name].append(time.perf_counter() - begin)
            rates[name].append((before + product.flops_per_s()) / 2)
    return [_row(name, spec, subject.plan, steps_s[name], rates[name]) for name, subject in subjects.items()]


def _row(name: str, spec: ModelSpec, plan: Plan, steps_s: list[float], rates: list[float]) -> Row:
    flops = model_flops_per_token(spec, plan.sequence) * plan.tokens_per_step
    shares = [flops / step_s / rate for step_s, rate in zip(steps_s, rates, strict=True)]
    low, _, high = quantiles(shares, n=4)
    return {
        "plan": name, "implementation": plan.implementation.model_dump(mode="json"), "precision": plan.precision, "model_flops": flops,
        "step_s": median(steps_s), "steps_s": steps_s, "product_flops_per_s": rates,
        "share_of_product": median(shares), "quartiles": [low, high], "shares": shares,
    }  # fmt: skip


class _Product:
    def __init__(self, device: str, dtype: str) -> None:
        self.side, self.times = PRODUCTS[device]
        self.device = device
        kind = torch.float32 if dtype == "fp32" else torch.bfloat16
        self.left, self.right = (torch.ones(self.side, self.side, dtype=kind, device=device) for _ in range(2))

    def flops_per_s(self) -> float:
        """Of some products one after another."""
        wait(self.device)
        begin = time.perf_counter()
        for _ in range(self.times):
            torch.mm(self.left, self.right)
        wait(self.device)
        return 2.0 * self.side**3 * self.times / (time.perf_counter() - begin)
