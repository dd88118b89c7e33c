"""A run that is killed at random moments of training and saving can always go on, and nothing is lost."""

import json
import multiprocessing
import random
import shutil

import pytest
import torch

from configuration.errors import ConfigurationError
from trainer.checkpoints import checkpoints_in, find_checkpoint
from trainer.loop.run import train

STEPS = 60


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.loop.run", "trainer.checkpoints.storage", "torch.distributed.checkpoint.state_dict_loader"])
    return context


def logged(run):
    lines = (run / "log.jsonl").read_text().splitlines() if (run / "log.jsonl").is_file() else []
    records = []
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            assert line == lines[-1]
    return [record["loss_nats_per_token"] for record in records if "gradient_norm" in record]


def newest(run):
    """Step of the newest checkpoint; it must be whole."""
    return find_checkpoint(str(run)).step if checkpoints_in(run) else 0


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_a_run_killed_at_random_moments_goes_on_and_loses_nothing(experiment_of, processes, tmp_path, kills):
    # A save after every step, under way during the next: about every other kill hits one.
    experiment = experiment_of("training.checkpoints.interval_steps=1", f"training.tokens={STEPS * 256}", "training.evaluation.interval_steps=1000")
    whole = train(experiment, run_folder=tmp_path / "whole", log=str)
    draw = random.Random(kills)
    run, done, killed, saving = tmp_path / "run", 0, 0, 0
    while killed < kills:
        process = processes.Process(target=train, args=(experiment,), kwargs={"run_folder": run, "log": str, "resume": True})
        process.start()
        process.join(draw.uniform(0.2, 1.2))
        process.kill()
        process.join()
        assert process.exitcode in (0, -9)
        saving += any((run / "checkpoints").glob(".*"))
        assert newest(run) >= done
        done = newest(run)
        losses = logged(run)
        assert done <= len(losses)
        assert losses == list(whole.losses[: len(losses)])
        killed += process.exitcode != 0
        if process.exitcode == 0:
            shutil.rmtree(run)
            done = 0
    resumed = train(experiment, run_folder=run, log=str, resume=True)
    assert resumed.losses == whole.losses
    assert all(torch.equal(one, other) for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == [f"step-{STEPS - 1:08d}", f"step-{STEPS:08d}"]
    if kills == 50:
        assert saving >= 10


def test_a_damaged_newest_checkpoint_never_passes_for_whole(experiment_of, tmp_path):
    train(experiment_of("training.tokens=512", "training.checkpoints.interval_steps=1"), run_folder=tmp_path / "run", log=str)
    shard = next(checkpoints_in(tmp_path / "run")[-1].glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ConfigurationError, match=r"an older one is .*step-00000001"):
        find_checkpoint(str(tmp_path / "run"))
