"""Losses over some hundred steps of every variant of the trainer against the plainest one, on the same weights and the same tokens, seed by seed.

The text is a made-up language: a Markov chain in which every token has a few successors. Its entropy is the loss that no model beats.
Shapes: N sequences, S positions, V vocabulary, C successors of a token.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from statistics import mean, stdev
from typing import Any

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from configuration.spec import Spec
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from trainer.bench.contenders import portable
from trainer.measure.subject import build_subject
from trainer.step import MicroBatch

Row = dict[str, Any]

MODEL = "tiny-moe"
WIDER = {"width": 256, "blocks.0.mixer.head_width": 64, "blocks.0.feed_forward.expert_width": 256}
LEARNING_RATE = 1e-3
SUCCESSORS = 12
REFERENCE, NOT_CLIPPED = "reference", "reference, not clipped"
VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    REFERENCE: ("reference", {"precision": "fp32"}, REFERENCE),
    "mixed-precision": ("mixed-precision", {}, REFERENCE),
    "fast": ("fast", {}, REFERENCE),
    NOT_CLIPPED: ("reference", {"precision": "fp32", "gradient_clipping": None}, NOT_CLIPPED),
    "fast, not clipped": ("fast", {"gradient_clipping": None}, NOT_CLIPPED),
}
"""Name to preset of a plan, what is changed in it, and the variant that it is held against. Without a limit on the norm updates can run beside the backward."""


class LossesShape(Spec):
    """``last``: losses at the end whose mean is compared. ``model``: a preset or file, as it is; by default a wider tiny-moe."""

    model: str | None = None
    steps: PositiveInt = 200
    seeds: int = Field(default=3, ge=2)
    last: PositiveInt = 20
    micro_batch: PositiveInt = 32
    sequence: PositiveInt = 256

    @model_validator(mode="after")
    def _check(self) -> "LossesShape":
        if self.last > self.steps:
            raise ValueError(f"last ({self.last}) exceeds steps ({self.steps})")
        return self


def losses_document(shape: LossesShape, device: str, log: Callable[[str], None]) -> dict[str, Any]:
    """``rows``: every loss of every variant and seed; ``comparison``: each variant against its reference."""
    spec = load_model(shape.model or MODEL, None if shape.model else WIDER)
    rows: list[Row] = []
    for name, (preset, changes, _) in VARIANTS.items():
        batch = {"micro_batch": shape.micro_batch, "sequence": shape.sequence}
        plan = portable(load_plan(spec, preset, batch | changes)[0], device)
        for seed in range(shape.seeds):
            losses = trained(spec, plan, shape.steps, seed, device)
            rows.append({"variant": name, "seed": seed, "mean_of_last": mean(losses[-shape.last :]), "losses": losses})
            log(f"{name}, seed {seed}: {rows[-1]['mean_of_last']:.4f} nats a token, mean of the last {shape.last} of {shape.steps} steps")
    return {"model": spec.model_dump(mode="json"), "entropy_nats_per_token": entropy(), "rows": rows, "comparison": compared(rows)}


def compared(rows: list[Row]) -> list[Row]:
    """``difference``: mean over the seeds of what a variant is above its reference of the same seed; ``spread``: deviation of that reference over seeds."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["variant"], {})[row["seed"]] = row["mean_of_last"]
    comparison = []
    for variant, by_seed in found.items():
        reference = found[VARIANTS[variant][-1]]
        spread = stdev(reference.values())
        differences = [by_seed[seed] - reference[seed] for seed in reference]
        comparison.append(
            {
                "variant": variant, "mean_of_last": mean(by_seed.values()), "difference": mean(differences), "largest": max(differences, key=abs),
                "spread": spread, "within_spread": abs(mean(differences)) <= spread,
            }
        )  # fmt: skip
    return comparison


def trained(spec: ModelSpec, plan: Plan, steps: int, seed: int, device: str) -> list[float]:
    """Losses of a run from fresh weights."""
    tokens = _markov_batches(spec, plan, steps, seed, device)
    subject = build_subject(spec, plan, tokens, seed=seed, device=device, learning_rate=LEARNING_RATE)
    losses = [subject.step().language_model for _ in range(steps)]
    return torch.stack(losses).tolist()


def _markov_batches(spec: ModelSpec, plan: Plan, steps: int, seed: int, device: str) -> Iterator[MicroBatch]:
    batches = steps * plan.accumulation
    text_NS = chain(spec.vocabulary, batches * plan.micro_batch, plan.sequence + 1, seed)
    for window in islice(torch.split(text_NS, plan.micro_batch), batches):
        yield window[:, :-1].contiguous().to(device), window[:, 1:].contiguous().to(device)


def _odds() -> Tensor:
    """Of the successors of a token, in falling order: as one over the rank."""
    odds_C = 1.0 / torch.arange(1, SUCCESSORS + 1, dtype=torch.float64)
    return odds_C / odds_C.sum()


def entropy() -> float:
    """Nats a token of the chain, given the token before. Where a token has the same successor twice it is less."""
    odds_C = _odds()
    return float(-(odds_C * odds_C.log()).sum())


def chain(vocabulary: int, sequences: int, positions: int, seed: int) -> Tensor:
    """Sequences (N, S) of one language, whatever the seed; they start at any token."""
    successor_VC = torch.randint(vocabulary, (vocabulary, SUCCESSORS), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1 + seed)
    which_NS = torch.multinomial(_odds(), sequences * positions, replacement=True, generator=generator).view(sequences, positions)
    text_NS = torch.empty(sequences, positions, dtype=torch.int64)
    text_NS[:, 0] = torch.randint(vocabulary, (sequences,), generator=generator)
    for position in range(1, positions):
        text_NS[:, position] = successor_VC[text_NS[:, position - 1], which_NS[:, position]]
    return text_NS
