"""The training loop."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configuration.command import CheckMissedError, to_json
from configuration.files import write_atomically
from trainer.data import TokenData
from trainer.loop.evaluate import Validation, evaluate
from trainer.loop.experiment import Experiment
from trainer.loop.expert_load import step_load
from trainer.loop.interrupt import deferred_interrupts, termination_interrupts
from trainer.loop.job import Job, start_job
from trainer.loop.journal import StepRecord
from trainer.loop.memory import RunMemory, peak_bytes, run_memory
from trainer.loop.run_folder import RESULT_FILE
from trainer.loop.schedule import learning_rate
from trainer.model import MoETransformer
from trainer.optimizer import set_learning_rate
from trainer.parallel.together import anywhere, loss_of_a_rank_told
from trainer.parallel.world import World
from trainer.replay import release


class NotFiniteError(CheckMissedError):
    """A loss, a gradient or a weight became infinite or NaN."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    experiment: Experiment
    run_folder: Path | None
    checkpoint: Path | None
    """Folder of the last checkpoint; None without a run folder."""
    tokens: int
    """Trained on."""
    elapsed_s: float
    """Wall time of the steps alone, all sittings together."""
    losses: tuple[float, ...]
    """Language-model loss of every step, nats per token."""
    dropped_share: float
    """Share of all choices of the training that found no row; 0 without a capacity."""
    validation: Validation
    """On the whole validation split, after the last step."""
    memory: RunMemory
    data: TokenData
    model: MoETransformer

    @property
    def bits_per_byte(self) -> float:
        """Validation loss in bits for each byte of held-out text, which does not depend on the tokenizer."""
        return self.data.facts.bits_per_byte(self.validation.loss_nats_per_token)

    def as_dict(self) -> dict[str, Any]:
        """Plain content; times in seconds, losses in nats per token."""
        validation, facts = self.validation, self.data.facts
        return {
            "schema_version": 1,
            "run_folder": None if self.run_folder is None else str(self.run_folder),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "steps": self.experiment.steps,
            "tokens": self.tokens,
            "elapsed_s": self.elapsed_s,
            "tokens_per_s": self.tokens / self.elapsed_s,
            "parameters": self.experiment.model.parameters,
            "active_parameters": self.experiment.model.active_parameters,
            "first_loss_nats_per_token": self.losses[0],
            "last_loss_nats_per_token": self.losses[-1],
            "validation_loss_nats_per_token": validation.loss_nats_per_token,
            "validation_standard_error_nats_per_token": validation.standard_error_nats_per_token,
            "validation_tokens": validation.tokens,
            "bits_per_byte": self.bits_per_byte,
            "unigram_nats_per_token": facts.unigram_nats_per_token,
            "expert_load_entropy_nats": validation.expert_load_entropy_nats,
            "dropped_share": self.dropped_share,
            "memory": asdict(self.memory),
        }


def train(
    experiment: Experiment,
    *,
    run_folder: Path | None,
    log: Callable[[str], None],
    resume: bool = False,
    opening: Sequence[str] = (),
    world: World | None = None,
) -> RunResult:
    """Train to the end, or go on to it; log and checkpoints are kept in ``run_folder``, nothing is written without one.

    With ``resume`` a run folder that is there already goes on from its newest checkpoint, exactly as if it had never stopped.
    ``opening``: lines for ``log`` once everything is checked. ``world``: this process among the ranks of the plan; the first of them writes. Raises
    ConfigurationError before anything is written, NotFiniteError, RankLostError, and KeyboardInterrupt once a checkpoint is safe.
    """
    world = world or World(experiment.plan, device=experiment.training.device)
    with termination_interrupts(), loss_of_a_rank_told(world):
        job = start_job(experiment, run_folder, log, resume=resume, opening=opening, world=world)
        try:
            with deferred_interrupts() as interrupted:
                while job.step < experiment.steps:
                    take_step(job)
                    leaving = anywhere(world, interrupted())
                    validate_and_save(job, leaving=leaving)
                    if leaving and job.step < experiment.steps:
                        job.saved()
                        log(f"interrupted after step {job.step:,} of {experiment.steps:,}{_how_to_go_on(job)}")
                        raise KeyboardInterrupt
            return finish(job)
        finally:
            job.saved()
            job.journal.close()
            release(job.optimize)


def take_step(job: Job) -> None:
    """One optimizer step, logged. Raises NotFiniteError."""
    training = job.experiment.training
    rate = learning_rate(job.step, job.experiment.steps, training)
    set_learning_rate(job.optimizer, rate)
    started_s = time.perf_counter()
    losses = job.optimize(job.next_micro_batches())
    # One transfer, which waits for the device.
    present = {name: value for name, value in losses._asdict().items() if isinstance(value, torch.Tensor)}
    counts = [each.double().flatten() for each in (*losses.counts_LE, *losses.dropped_L)]
    read = torch.cat([torch.stack([value.double() for value in present.values()]), *counts]).tolist()
    numbers = dict(zip(present, read, strict=False))
    load = step_load(read[len(present) :], [len(counts_E) for counts_E in losses.counts_LE])
    step_s = time.perf_counter() - started_s
    job.step += 1
    job.journal.step(
        StepRecord(
            step=job.step,
            loss_nats_per_token=numbers["language_model"],
            load_balancing_loss=numbers.get("load_balancing"),
            router_z_loss=numbers.get("router_z"),
            gradient_norm=numbers["gradient_norm"],
            learning_rate=rate,
            step_s=step_s,
            peak_bytes=peak_bytes(job.parallel.world.device),
            expert_max_over_mean=None if load is None else load.max_over_mean,
            dead_experts=None if load is None else load.dead_experts,
            dropped_share=None if load is None else load.dropped_share,
        )
    )
    for name, value in numbers.items():
        _hold(job, math.isfinite(value), f"{name} is {value}")
    if job.step == 1:
        job.journal.memory(job.step, run_memory(job.model, job.optimizer))


def validate_and_save(job: Job, *, leaving: bool) -> None:
    """Measure and save where the training says so; save also when ``leaving``."""
    training, last = job.experiment.training, job.step == job.experiment.steps
    if job.step % training.evaluation.interval_steps == 0 and not last:
        validation = evaluate(job.model, job.held_out(training.evaluation.tokens), job.parallel)
        job.journal.validation(job.step, validation)
    if job.step % training.checkpoints.interval_steps == 0 or last or leaving:
        # A finite loss may still have left weights that are not; the good checkpoint before is worth more than this one.
        _hold(job, job.weights_are_finite(), "a weight is infinite or NaN")
        job.save()


def finish(job: Job) -> RunResult:
    """Measure a run that has taken its last step on the whole validation split, and write its result."""
    validation = evaluate(job.model, job.held_out(), job.parallel)
    _hold(job, math.isfinite(validation.loss_nats_per_token), f"validation loss is {validation.loss_nats_per_token}")
    job.journal.validation(job.step, validation)
    memory = run_memory(job.model, job.optimizer)
    job.journal.memory(job.step, memory)
    result = RunResult(
        experiment=job.experiment,
        run_folder=job.run_folder,
        checkpoint=job.saved(),
        tokens=job.step * job.experiment.plan.tokens_per_step,
        elapsed_s=job.journal.elapsed_s,
        losses=tuple(job.journal.losses),
        dropped_share=statistics.fmean(job.journal.dropped_shares or [0.0]),
        validation=validation,
        memory=memory,
        data=job.data,
        model=job.model,
    )
    if job.run_folder is not None and job.parallel.world.first:
        write_atomically(job.run_folder / RESULT_FILE, to_json(result.as_dict()))
    return result


def _hold(job: Job, finite: bool, fault: str) -> None:
    if not finite:
        kept = f"; the last good checkpoint is {saved}" if (saved := job.saved()) else "; there is no checkpoint yet"
        raise NotFiniteError(f"step {job.step}: {fault}; a smaller learning rate may help{kept if job.run_folder else ''}")


def _how_to_go_on(job: Job) -> str:
    return f"; go on with: python -m trainer pretrain --resume {job.run_folder}" if job.run_folder else ""
