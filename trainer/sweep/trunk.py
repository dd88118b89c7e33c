"""Runs of several lengths off one trunk: each leaves it where its cooldown begins, with the state that it would have had alone."""

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from simulator.specs.flops import executed_flops_per_token
from trainer.loop.interrupt import deferred_interrupts, termination_interrupts
from trainer.loop.job import Job, start_job
from trainer.loop.journal import Journal
from trainer.loop.run import RunResult, finish, take_step, validate_and_save
from trainer.loop.run_folder import LOG_FILE, create_run_folder
from trainer.loop.schedule import cooldown_start
from trainer.loop.tensorboard import FOLDER, Board
from trainer.replay import release
from trainer.specs import ConstantSchedule
from trainer.sweep.grid import Point


@dataclass(frozen=True)
class Trunk:
    """Runs that differ in length alone, the shortest first; the last one is the trunk itself, up to its own cooldown."""

    branches: tuple[Point, ...]

    @property
    def name(self) -> str:
        """That of its longest run."""
        return self.branches[-1].name

    @property
    def flops(self) -> float:
        """FLOPs of the steps really taken: the trunk once, and every cooldown."""
        longest = self.branches[-1].experiment
        cooldowns = (point.experiment.steps - branching_step(point) for point in self.branches[:-1])
        steps = longest.steps + sum(cooldowns)
        return steps * longest.plan.tokens_per_step * executed_flops_per_token(longest.model, longest.plan.sequence)


def branching_step(point: Point) -> int:
    """Steps that a run shares with every longer one of its trunk."""
    return cooldown_start(point.experiment.steps, point.experiment.training)


def trunks(points: Sequence[Point]) -> list[Trunk]:
    """Group runs whose beginnings are equal: a constant schedule with ``warmup_steps``, and nothing different but the tokens. Any other run stands alone."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(_beginning(point), []).append(point)
    return [Trunk(tuple(sorted(group, key=lambda point: point.experiment.steps))) for group in groups.values()]


def _beginning(point: Point) -> str:
    schedule = point.experiment.training.schedule
    if not isinstance(schedule, ConstantSchedule) or schedule.warmup_steps is None:
        return point.name
    content = point.experiment.as_dict()
    del content["training"]["tokens"]
    return json.dumps(content, sort_keys=True)


def train_trunk(
    trunk: Trunk, wanted: Sequence[Point], folder: Path, log: Callable[[str], None], finished: Callable[[Point, RunResult], None], late: Callable[[], bool]
) -> bool:
    """Train the ``wanted`` runs of ``trunk``, telling ``finished`` each as it ends; True when all have.

    Runs lie in ``folder`` under their names; a trunk found there goes on from its newest checkpoint. Once ``late`` says so the trunk is saved and left;
    a shorter run that was in its cooldown then begins that anew.
    Raises KeyboardInterrupt likewise after an interrupt, NotFiniteError when a run diverges.
    """
    with termination_interrupts(), deferred_interrupts() as interrupted:
        branch = job = _start(trunk, wanted, folder, log)
        try:
            for point in wanted:
                branch = job
                state = None
                whole = _advance(job, branching_step(point), lambda: late() or interrupted())
                if whole and point.experiment.steps < job.experiment.steps:
                    job.save()
                    state = copy.deepcopy((job.model.state_dict(), job.optimizer.state_dict()))
                    branch = _branch(job, point, folder, log)
                whole = whole and _advance(branch, point.experiment.steps, lambda: late() or interrupted())
                if not whole:
                    break
                finished(point, finish(branch))
                branch.journal.close()
                if state is not None:
                    job.model.load_state_dict(state[0])
                    job.optimizer.load_state_dict(state[1])
            else:
                return True
            if branch is job:
                job.save()
        finally:
            job.saved()
            branch.journal.close()
            job.journal.close()
            release(job.optimize)
        log(f"{trunk.name}: left after step {job.step:,} of {job.experiment.steps:,}")
        if interrupted():
            raise KeyboardInterrupt
        return False


def _start(trunk: Trunk, wanted: Sequence[Point], folder: Path, log: Callable[[str], None]) -> Job:
    experiment, run_folder = trunk.branches[-1].experiment, folder / trunk.name
    job = start_job(experiment, run_folder, log, resume=run_folder.exists())
    if wanted[0] is not trunk.branches[-1] and job.step > branching_step(wanted[0]):
        log(f"{trunk.name}: its checkpoint lies behind the branch of {wanted[0].name}, so it starts anew")
        job.journal.close()
        shutil.rmtree(run_folder)
        job = start_job(experiment, run_folder, log, resume=False)
    return job


def _advance(job: Job, until: int, stop: Callable[[], bool]) -> bool:
    """Take steps up to ``until``; False when ``stop`` came before."""
    while job.step < until:
        if stop():
            return False
        take_step(job)
        validate_and_save(job, leaving=False)
    return True


def _branch(job: Job, point: Point, folder: Path, log: Callable[[str], None]) -> Job:
    """The trunk's model and optimizer on another way, in a run folder of its own that begins with the trunk's log; their state must be put back after it."""
    run_folder = folder / point.name
    shutil.rmtree(run_folder, ignore_errors=True)
    create_run_folder(run_folder, point.experiment)
    assert job.run_folder is not None
    shutil.copyfile(job.run_folder / LOG_FILE, run_folder / LOG_FILE)
    board = Board(run_folder / FOLDER) if point.experiment.training.tensorboard else None
    journal = Journal(run_folder / LOG_FILE, log, steps=point.experiment.steps, tokens_per_step=point.experiment.plan.tokens_per_step, board=board)
    journal.rewind(job.step)
    return replace(job, experiment=point.experiment, run_folder=run_folder, journal=journal, saver=None)
