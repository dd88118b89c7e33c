"""What a training loop works on: prepared data, model, optimizer and log, fresh or as a checkpoint left them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from configuration.errors import ConfigurationError
from trainer.checkpoints import Checkpoint, Saver, checkpoints_in, find_checkpoint, load_training_state
from trainer.data import Batch, Batches, TokenData, prepare
from trainer.loop.experiment import KINDS, Experiment
from trainer.loop.journal import Journal
from trainer.loop.run_folder import LOG_FILE, check_free, create_run_folder, threads_of
from trainer.model import MoETransformer, build_model
from trainer.optimizer import build_optimizer
from trainer.parallel.layout import own_parts
from trainer.parallel.parallelize import Parallel, parallelize
from trainer.parallel.together import anywhere, first_rank_decides, first_rank_first
from trainer.parallel.world import World


@dataclass
class Job:
    """The state of a training run."""

    experiment: Experiment
    run_folder: Path | None
    data: TokenData
    model: MoETransformer
    parallel: Parallel
    optimizer: torch.optim.Optimizer
    training: Batches
    validation: Batches
    journal: Journal
    saver: Saver | None
    """None without a run folder."""
    step: int
    """Optimizer steps done."""

    def next_micro_batches(self) -> Iterator[Batch]:
        """The micro-batches of the step that comes."""
        experiment = self.experiment
        world = self.parallel.world
        return self.training.micro_batches(
            self.step, experiment.sequences_per_step, experiment.plan.micro_batch, world.device, part=world.data_rank, parts=experiment.plan.dp
        )

    def held_out(self, limit_tokens: int | None = None) -> Iterator[Batch]:
        """Batches of the validation split."""
        return self.validation.in_sequence(self.experiment.plan.micro_batch, limit_tokens, self.parallel.world.device)

    def weights_are_finite(self) -> bool:
        """Whether no weight is infinite or NaN, on any rank."""
        return not anywhere(self.parallel.world, not all(bool(tensor.isfinite().all()) for tensor in own_parts(self.model)))

    def save(self) -> None:
        """Begin a checkpoint, which older ones make way for once it is whole; nothing without a run folder."""
        if self.saver is not None:
            self.saver.save(self.step, self.model, self.optimizer, experiment=self.experiment, data_key=self.data.facts.key, tokenizer=self.data.tokenizer)

    def saved(self) -> Path | None:
        """The newest checkpoint, once what is under way is on disk; None when there is none."""
        return None if self.saver is None else self.saver.wait()


def start_job(experiment: Experiment, run_folder: Path | None, log: Callable[[str], None], *, resume: bool, world: World | None = None) -> Job:
    """Check and build everything, and only then make the run folder; or put back the state of its newest checkpoint.

    Raises ConfigurationError in one line.
    """
    plan, training = experiment.plan, experiment.training
    world = world or World(plan, device=training.device)
    goes_on = first_rank_decides(world, lambda: _is_begun(run_folder, resume=resume))
    data = first_rank_first(world, lambda: prepare(experiment.data, experiment.model.vocabulary, log))
    batches = Batches(data.training, plan.sequence, training.seed)
    held_out = Batches(data.validation, plan.sequence, name="validation")
    model = build_model(experiment.model, plan, seed=training.seed, device=world.device)
    parallel = parallelize(model, world)
    optimizer = build_optimizer(
        model,
        plan,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        betas=training.adam_betas,
        epsilon=training.adam_epsilon,
    )
    torch.manual_seed(training.seed)
    file = None if run_folder is None or not world.first else run_folder / LOG_FILE
    journal = Journal(file, log, steps=experiment.steps, tokens_per_step=plan.tokens_per_step)
    saver = None if run_folder is None else Saver(run_folder, world, keep=training.checkpoints.keep)
    job = Job(experiment, run_folder, data, model, parallel, optimizer, batches, held_out, journal, saver, step=0)
    if goes_on:
        _go_on(job, log)
    elif run_folder is not None:
        first_rank_decides(world, lambda: create_run_folder(run_folder, experiment))
    return job


def _is_begun(run_folder: Path | None, *, resume: bool) -> bool:
    """Whether the run goes on from what it left; if not, its folder must be free."""
    goes_on = resume and run_folder is not None and run_folder.exists()
    if run_folder is not None and not goes_on:
        check_free(run_folder)
    return goes_on


def _go_on(job: Job, log: Callable[[str], None]) -> None:
    assert job.run_folder is not None
    assert job.saver is not None
    before = threads_of(job.run_folder)
    if before != torch.get_num_threads():
        log(f"note: the run began with {before} threads and goes on with {torch.get_num_threads()}: sums may round differently")
    if checkpoints_in(job.run_folder):
        checkpoint = find_checkpoint(str(job.run_folder))
        _check_same(checkpoint, job)
        load_training_state(checkpoint, job.model, job.optimizer, job.parallel.world)
        job.step, job.saver.last = checkpoint.step, checkpoint.folder
    first_rank_decides(job.parallel.world, lambda: job.journal.rewind(job.step))
    log(f"going on after step {job.step:,} of {job.experiment.steps:,}")


def _check_same(checkpoint: Checkpoint, job: Job) -> None:
    for kind in KINDS:
        if getattr(checkpoint.experiment, kind) != getattr(job.experiment, kind):
            raise ConfigurationError(f"run {job.run_folder}: its {kind} is not the one that checkpoint {checkpoint.folder.name} was trained with")
    if checkpoint.data_key != job.data.facts.key:
        raise ConfigurationError(f"run {job.run_folder}: the text or the tokenizer has changed since checkpoint {checkpoint.folder.name}")
