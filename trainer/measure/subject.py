"""What is measured: a model, its optimizer, and micro-batches that are made one at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch

from configuration.errors import ConfigurationError
from simulator.specs import ModelSpec, Plan
from trainer.data import Batches, prepare
from trainer.model import MoETransformer, build_model
from trainer.optimizer import build_optimizer
from trainer.parallel.parallelize import Parallel, parallelize
from trainer.parallel.world import World
from trainer.replay import Step, build_step
from trainer.specs import DataSpec
from trainer.step import MicroBatch, StepLosses

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 0.1
"""Neither changes the memory or the time of a step."""


@dataclass
class Subject:
    """One training job that takes steps, as one rank sees it."""

    model: MoETransformer
    parallel: Parallel
    optimizer: torch.optim.Optimizer
    optimize: Step
    """Takes an optimizer step of the micro-batches it is given, without waiting for the device."""
    micro_batches: Iterator[MicroBatch]
    spec: ModelSpec
    plan: Plan
    device: str

    def step(self, micro_batches: Iterator[MicroBatch] | None = None) -> StepLosses:
        """Take one optimizer step, of ``micro_batches`` if they are given, and wait for the device."""
        losses = self.optimize(micro_batches or self.micro_batches)
        self.wait()
        return losses

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def build_subject(
    spec: ModelSpec,
    plan: Plan,
    micro_batches: Iterator[MicroBatch],
    *,
    seed: int,
    device: str = "cpu",
    world: World | None = None,
    learning_rate: float = LEARNING_RATE,
) -> Subject:
    """Build model and optimizer; ``world``: this rank among the others. Raises ConfigurationError for a plan of several ranks without one."""
    if world is None and plan.ranks != 1:
        raise ConfigurationError(f"plan.ranks ({plan.ranks}): a step of one process is measured (legal: 1)")
    model = build_model(spec, plan, seed=seed, device=device)
    parallel = parallelize(model, world or World(plan, device=device))
    optimizer = build_optimizer(model, plan, learning_rate=learning_rate, weight_decay=WEIGHT_DECAY)
    return Subject(model, parallel, optimizer, build_step(model, optimizer, plan, parallel), micro_batches, spec, plan, device)


def random_micro_batches(spec: ModelSpec, plan: Plan, *, seed: int, device: str = "cpu", part: int = 0) -> Iterator[MicroBatch]:
    """Uniform random tokens, for ever; other ones for each ``part`` of the batch."""
    generator = torch.Generator().manual_seed(seed + 1_000_003 * part)
    while True:
        yield _random(spec, plan, generator, device)


def _random(spec: ModelSpec, plan: Plan, generator: torch.Generator, device: str) -> MicroBatch:
    window_BS1 = torch.randint(spec.vocabulary, (plan.micro_batch, plan.sequence + 1), generator=generator)
    return window_BS1[:, :-1].clone().to(device), window_BS1[:, 1:].clone().to(device)


def data_micro_batches(
    data: DataSpec, spec: ModelSpec, plan: Plan, *, seed: int, device: str = "cpu", part: int = 0, log: Callable[[str], None]
) -> Iterator[MicroBatch]:
    """Windows of a corpus, for ever, those of one ``part`` of a batch. Raises ConfigurationError when the tokenizer has more ids than the model."""
    tokens = prepare(data, spec.vocabulary, log)
    batches = Batches(tokens.training, plan.sequence, seed)
    sequences = plan.micro_batch * plan.accumulation * plan.dp
    return (batch for step in count() for batch in batches.micro_batches(step, sequences, plan.micro_batch, device, part=part, parts=plan.dp))
