"""What a training loop works on: prepared data, model, optimizer and log, fresh or as a checkpoint left them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configuration.errors import ConfigurationError
from trainer.checkpoints import Checkpoint, Saver, checkpoints_in, find_checkpoint, load_training_state
from trainer.data import Batch, Batches, TokenData, prepare
from trainer.data.tokenizer import document_start
from trainer.loop.experiment import KINDS, Experiment
from trainer.loop.journal import Journal
from trainer.loop.run_folder import LOG_FILE, check_free, create_run_folder, put_plan, threads_of
from trainer.loop.tensorboard import FOLDER, Board
from trainer.model import MoETransformer, build_model
from trainer.optimizer import build_optimizer
from trainer.parallel.layout import own_parts
from trainer.parallel.parallelize import Parallel, parallelize
from trainer.parallel.together import anywhere, first_rank_decides, first_rank_first
from trainer.parallel.world import World
from trainer.replay import Step, build_step

DECIDES_WHAT_IS_LEARNT = ("sequence", "precision", "gradient_clipping", "routing", "auxiliary_loss_scope", "attention_across_documents")
"""Fields of a plan that a resumed run keeps; all others may change."""


@dataclass
class Job:
    """The state of a training run."""

    experiment: Experiment
    run_folder: Path | None
    data: TokenData
    model: MoETransformer
    parallel: Parallel
    optimizer: torch.optim.Optimizer
    optimize: Step
    """Takes an optimizer step of the micro-batches it is given."""
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


def start_job(
    experiment: Experiment, run_folder: Path | None, log: Callable[[str], None], *, resume: bool, opening: Sequence[str] = (), world: World | None = None
) -> Job:
    """Check and build everything, and only then log the lines of ``opening`` and make the run folder; or put back the state of its newest checkpoint.

    Raises ConfigurationError in one line.
    """
    plan, training = experiment.plan, experiment.training
    world = world or World(plan, device=training.device)
    goes_on = first_rank_decides(world, lambda: _is_begun(run_folder, resume=resume))
    checkpoint = _newest_checkpoint(run_folder, experiment) if goes_on and run_folder is not None else None
    model = build_model(experiment.model, plan, seed=training.seed, device=world.device)
    data = first_rank_first(world, lambda: prepare(experiment.data, experiment.model.vocabulary, log))
    if checkpoint is not None and checkpoint.data_key != data.facts.key:
        raise ConfigurationError(f"run {run_folder}: the text or the tokenizer has changed since checkpoint {checkpoint.folder.name}")
    if not plan.attention_across_documents:
        model.document_start = document_start(experiment.data, data.tokenizer)
    batches = Batches(data.training, plan.sequence, training.seed)
    held_out = Batches(data.validation, plan.sequence, name="validation")
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
    board = Board(file.with_name(FOLDER)) if training.tensorboard and file is not None else None
    journal = Journal(file, log, steps=experiment.steps, tokens_per_step=plan.tokens_per_step, board=board)
    saver = None if run_folder is None else Saver(run_folder, world, keep=training.checkpoints.keep)
    optimize = build_step(model, optimizer, plan, parallel)
    job = Job(experiment, run_folder, data, model, parallel, optimizer, optimize, batches, held_out, journal, saver, step=0)
    if checkpoint is not None:
        load_training_state(checkpoint, model, optimizer, world)
        job.step = checkpoint.step
        assert saver is not None
        saver.last = checkpoint.folder
    if goes_on:
        first_rank_decides(world, lambda: journal.rewind(job.step))
    elif run_folder is not None:
        first_rank_decides(world, lambda: create_run_folder(run_folder, experiment))
    for line in opening:
        log(line)
    if goes_on and run_folder is not None:
        _tell_how_it_goes_on(job, run_folder, log)
    return job


def _is_begun(run_folder: Path | None, *, resume: bool) -> bool:
    """Whether the run goes on from what it left; if not, its folder must be free."""
    goes_on = resume and run_folder is not None and run_folder.exists()
    if run_folder is not None and not goes_on:
        check_free(run_folder)
    return goes_on


def _newest_checkpoint(run_folder: Path, experiment: Experiment) -> Checkpoint | None:
    """What the run goes on from; None when it was killed before its first checkpoint. Raises ConfigurationError for another experiment."""
    if not checkpoints_in(run_folder):
        return None
    checkpoint = find_checkpoint(str(run_folder))
    for kind in KINDS:
        if kind != "plan" and getattr(checkpoint.experiment, kind) != getattr(experiment, kind):
            raise ConfigurationError(f"run {run_folder}: its {kind} is not the one that checkpoint {checkpoint.folder.name} was trained with")
    before, now = checkpoint.experiment.plan, experiment.plan
    for field in (*DECIDES_WHAT_IS_LEARNT, "tokens_per_step"):
        if getattr(before, field) != getattr(now, field):
            raise ConfigurationError(
                f"run {run_folder}: plan.{field} ({getattr(now, field)}) decides what is learnt: it stays as it began (legal: {getattr(before, field)})"
            )
    return checkpoint


def _tell_how_it_goes_on(job: Job, run_folder: Path, log: Callable[[str], None]) -> None:
    before = threads_of(run_folder)
    if before != torch.get_num_threads():
        log(f"note: the run began with {before} threads and goes on with {torch.get_num_threads()}: sums may round differently")
    if changed := first_rank_decides(job.parallel.world, lambda: put_plan(run_folder, job.experiment.plan)):
        log(f"note: the run goes on under another plan: {changed}")
    log(f"going on after step {job.step:,} of {job.experiment.steps:,}")
