"""The four specifications of a run, resolved and checked together before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configuration.errors import ConfigurationError
from configuration.overrides import Overrides
from configuration.spec import validated
from simulator.specs import ModelSpec, Plan, load_model, load_plan
from simulator.specs.presets import Default
from trainer.parallel.world import check_launch, launched_ranks
from trainer.specs import DATA, TRAINING, DataSpec, TrainingSpec

KINDS = ("model", "plan", "data", "training")


@dataclass(frozen=True)
class Experiment:
    """What a run trains, how, on what, for how long."""

    model: ModelSpec
    plan: Plan
    data: DataSpec
    training: TrainingSpec

    @property
    def steps(self) -> int:
        """Optimizer steps: the tokens rounded up to whole steps."""
        return -(-self.training.tokens // self.plan.tokens_per_step)

    @property
    def sequences_per_step(self) -> int:
        """Sequences of one optimizer step."""
        return self.plan.tokens_per_step // self.plan.sequence

    def as_dict(self) -> dict[str, Any]:
        """Plain content, from which ``experiment_from_dict`` makes an equal experiment."""
        return {kind: getattr(self, kind).model_dump(mode="json") for kind in KINDS}


def resolve(model: str, data: str, training: str, plan: str | None, overrides: Overrides, *, cuda: bool) -> tuple[Experiment, list[Default]]:
    """Read and check the four specifications; ``plan`` goes before the plan that the training names.

    Returns the experiment, its device settled, and every default used. Raises ConfigurationError in one line.
    """
    model_spec = load_model(model, overrides.get("model"))
    data_spec = DATA.load(data, overrides.get("data"))
    training_spec = TRAINING.load(training, overrides.get("training"))
    device = settled_device(training_spec, cuda=cuda)
    training_spec = training_spec.model_copy(update={"device": device})
    plan_spec, used = load_plan(
        model_spec,
        plan or training_spec.plan,
        overrides.get("plan"),
        ranks=launched_ranks(),
        ranks_reason="processes started",
        precision="bf16-mixed" if device == "cuda" else "fp32",
    )
    check_launch(plan_spec)
    return Experiment(model_spec, plan_spec, data_spec, training_spec), used


def cuda_is_there() -> bool:
    """Whether this machine has a CUDA device that torch can use."""
    import torch

    return torch.cuda.is_available()


def settled_device(training: TrainingSpec, *, cuda: bool) -> str:
    """``auto`` made definite. Raises ConfigurationError when CUDA is asked for and absent."""
    if training.device == "cuda" and not cuda:
        raise ConfigurationError("training.device: this machine has no CUDA device (legal here: auto, cpu)")
    return ("cuda" if cuda else "cpu") if training.device == "auto" else training.device


def experiment_from_dict(content: Mapping[str, Any], source: str) -> Experiment:
    """The experiment that ``as_dict`` gave. Raises ConfigurationError naming ``source`` for anything else."""
    absent = [kind for kind in KINDS if kind not in content]
    if absent:
        raise ConfigurationError(f"{source}: no field {absent[0]!r}")
    return Experiment(
        validated(ModelSpec, content["model"], f"{source}: model"),
        validated(Plan, content["plan"], f"{source}: plan"),
        validated(DataSpec, content["data"], f"{source}: data"),
        validated(TrainingSpec, content["training"], f"{source}: training"),
    )
