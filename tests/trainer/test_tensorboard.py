"""TensorBoard shows what the log says, whatever happened to the run on the way."""

import json
import sys

import pytest

from configuration.errors import ConfigurationError
from trainer.loop.run import train


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def logged(run, name):
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(record["step"], pytest.approx(record[name], rel=1e-6)) for record in records if record.get(name) is not None]


def test_every_number_of_the_log_is_there_once_after_a_resumption_too(experiment_of, tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed (extra tensorboard)")
    experiment = experiment_of("training.tokens=7680", "training.tensorboard=true", "training.evaluation.interval_steps=17")

    def break_off(line):
        if "validation loss" in line:
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        train(experiment, run_folder=tmp_path / "run", log=break_off)
    train(experiment, run_folder=tmp_path / "run", log=str, resume=True)
    found = scalars(tmp_path / "run" / "tensorboard")
    for name in ("loss_nats_per_token", "tokens_per_s", "expert_max_over_mean", "dead_experts", "gradient_norm", "learning_rate"):
        assert found[f"training/{name}"] == logged(tmp_path / "run", name), name
    assert len(found["training/loss_nats_per_token"]) == 30
    assert found["memory/peak_bytes"] == logged(tmp_path / "run", "peak_bytes")
    assert found["memory/parameters_bytes"] == logged(tmp_path / "run", "parameters_bytes")
    assert found["validation/loss_nats_per_token"] == logged(tmp_path / "run", "validation_loss_nats_per_token")


def test_without_the_package_its_extra_is_named_and_nothing_is_written(experiment_of, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'moe-ledger\[tensorboard\]'"):
        train(experiment_of("training.tensorboard=true"), run_folder=tmp_path / "run", log=str)
    assert list(tmp_path.iterdir()) == []


def test_left_out_there_is_no_folder(experiment_of, tmp_path):
    train(experiment_of("training.tokens=512"), run_folder=tmp_path / "run", log=str)
    assert not (tmp_path / "run" / "tensorboard").exists()
