"""TrainingSpec: how long and how fast to learn; nothing in it changes the memory or the time of a step."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from configuration.files import PresetFolder
from configuration.spec import Spec

Fraction = Annotated[float, Field(ge=0, le=1)]


class CosineSchedule(Spec):
    """Linear warm-up, then half a cosine down to ``final_fraction`` of the learning rate."""

    kind: Literal["cosine"] = "cosine"
    warmup_fraction: Fraction = 0.05
    """Share of the steps that the warm-up takes."""
    final_fraction: Fraction = 0.1
    """Learning rate at the end, as a share of the highest."""


class ConstantSchedule(Spec):
    """Linear warm-up, constant, then a linear cooldown to ``final_fraction``: with ``warmup_steps`` runs of several lengths share their beginning."""

    kind: Literal["constant"] = "constant"
    warmup_fraction: Fraction = 0.05
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps of the warm-up whatever the length of the run; goes before ``warmup_fraction``."""
    cooldown_fraction: Fraction = 0.2
    """Share of the steps that the cooldown takes."""
    final_fraction: Fraction = 0.0


Schedule = Annotated[CosineSchedule | ConstantSchedule, Field(discriminator="kind")]


class Evaluation(Spec):
    """When and on how much held-out text the loss is measured; the last step always is evaluated, on the whole of it."""

    interval_steps: int = Field(default=100, ge=1)
    tokens: int = Field(default=65_536, ge=1)
    """Validation tokens of an evaluation on the way, from the beginning of the split."""


class Checkpoints(Spec):
    """When the state is saved; the last step always is."""

    interval_steps: int = Field(default=200, ge=1)
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that stay; older ones are removed."""


class TrainingSpec(Spec):
    """Length, learning rate, seed, evaluation and checkpoints of one run."""

    plan: str | None = None
    """Name or path of the plan that this training uses; without one, the model's own batch and sequence."""
    tokens: int = Field(default=1_228_800, ge=1)
    """Tokens trained on, rounded up to whole steps."""
    learning_rate: float = Field(default=2e-3, gt=0)
    schedule: Schedule = CosineSchedule()
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay of the matrices; norms and biases have none."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    adam_epsilon: float = Field(default=1e-8, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the initial weights and of the order of the data."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto``: CUDA when there is a GPU, else CPU."""
    collective_timeout_s: float = Field(default=600.0, gt=0)
    """How long a rank waits for the others before it ends with an error."""
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    tensorboard: bool = False
    """Keep what ``log.jsonl`` says as TensorBoard's event files too, in ``tensorboard/`` of the run's folder (extra ``tensorboard``)."""


TRAINING = PresetFolder("training", TrainingSpec, Path(__file__).parents[1] / "presets" / "training")
