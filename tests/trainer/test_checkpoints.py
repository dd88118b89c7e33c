"""Checkpoints: what goes in comes out, they are whole or not there, and damage is told in one line."""

import os
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configuration.errors import ConfigurationError
from trainer.checkpoints import Saver, checkpoints_in, find_checkpoint, load_model_weights, load_training_state, remove_old, save_checkpoint
from trainer.checkpoints.storage import AtomicWriter
from trainer.data import Batches, prepare
from trainer.model import build_model
from trainer.optimizer import build_optimizer
from trainer.parallel.world import World
from trainer.step import training_step


class Trained:
    """A small model after two steps."""

    def __init__(self, experiment, *, steps=2):
        self.experiment = experiment
        self.data = prepare(experiment.data, experiment.model.vocabulary, lambda line: None)
        self.model = build_model(experiment.model, experiment.plan, seed=1)
        self.optimizer = build_optimizer(self.model, experiment.plan, learning_rate=1e-3, weight_decay=0.1)
        self.batches = Batches(self.data.training, experiment.plan.sequence)
        for step in range(steps):
            self.step(step)

    def step(self, step):
        return training_step(self.model, self.optimizer, self.batches.micro_batches(step, 8, 8), self.experiment.plan).language_model.item()

    def save(self, run, step=2):
        return save_checkpoint(run, step, self.model, self.optimizer, experiment=self.experiment, data_key=self.data.facts.key, tokenizer=self.data.tokenizer)


@pytest.fixture
def trained(experiment_of):
    return Trained(experiment_of())


SETTINGS = [(), ("model.tied_embeddings=false",), ("plan.implementation.optimizer=for-loop",), ("plan.precision=bf16-split",)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_weights_moments_and_random_state_come_back_bit_by_bit(experiment_of, tmp_path, settings):
    before = Trained(experiment_of(*settings))
    before.save(tmp_path / "run")
    drawn = torch.rand(3)
    after = Trained(experiment_of(*settings), steps=0)
    load_training_state(find_checkpoint(str(tmp_path / "run")), after.model, after.optimizer)
    assert torch.equal(torch.rand(3), drawn)
    for (name, expected), (_, found) in zip(before.model.named_parameters(), after.model.named_parameters(), strict=True):
        assert torch.equal(expected, found), name
        for key, value in before.optimizer.state[expected].items():
            assert torch.equal(value, after.optimizer.state[found][key]), (name, key)
    assert [before.step(step) for step in (2, 3)] == [after.step(step) for step in (2, 3)]


@pytest.mark.parametrize("kernels", [("packed", "grouped"), ("grouped", "packed"), ("packed", "loop")], ids="-".join)
def test_packed_experts_are_saved_as_gate_and_up(experiment_of, tmp_path, kernels):
    before, after = (
        Trained(experiment_of(f"plan.implementation.experts={kernel}"), steps=2 * first) for kernel, first in zip(kernels, (True, False), strict=True)
    )
    folder = before.save(tmp_path / "run")
    assert not any("gate_up" in name for name in load_file(next(folder.glob("*.safetensors"))))
    load_training_state(find_checkpoint(str(tmp_path / "run")), after.model, after.optimizer)
    assert [after.step(step) for step in (2, 3)] == pytest.approx([before.step(step) for step in (2, 3)], rel=1e-6)


def test_a_checkpoint_says_what_it_is(trained, tmp_path):
    trained.save(tmp_path / "run", step=7)
    found = find_checkpoint(str(tmp_path / "run"))
    assert (found.step, found.data_key, found.experiment) == (7, trained.data.facts.key, trained.experiment)
    assert found.tokenizer().to_json() == trained.data.tokenizer.to_json()


def test_checkpoints_hold_no_pickle(trained, tmp_path):
    folder = trained.save(tmp_path / "run")
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", ".safetensors"]
    # Every byte of the state is a tensor that safetensors reads without running anything.
    names = load_file(next(folder.glob("*.safetensors"))).keys()
    assert {name.partition(".")[0] for name in names} == {"model", "optimizer", "random"}


def test_the_newest_is_found_by_run_name_and_by_default(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = trained.save(tmp_path / "runs" / "one", step=9)
    trained.save(tmp_path / "runs" / "two", step=1)
    last = trained.save(tmp_path / "runs" / "two", step=2)
    os.utime(first, ns=(0, 0))
    for where, expected in ((None, last), ("one", first), ("two", last), (str(first), first), ("runs/two", last)):
        assert find_checkpoint(where).folder.resolve() == expected


def test_what_is_not_there_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="there is none under runs/"):
        find_checkpoint(None)
    with pytest.raises(ConfigurationError, match="'gone' is neither a folder nor a run"):
        find_checkpoint("gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="holds no checkpoint"):
        find_checkpoint("empty")


def read_all(run, trained):
    checkpoint = find_checkpoint(str(run))
    checkpoint.tokenizer()
    load_training_state(checkpoint, trained.model, trained.optimizer)


@pytest.mark.parametrize("file", ["shard-00001-model-00001-of-00001.safetensors", "checkpoint.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "missing", "emptied"])
def test_a_damaged_checkpoint_is_refused_and_an_older_one_named(trained, tmp_path, file, damage):
    trained.save(tmp_path / "run", step=1)
    path = trained.save(tmp_path / "run", step=2) / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if damage == "cut" else 0])
    with pytest.raises(ConfigurationError) as refused:
        read_all(tmp_path / "run", trained)
    assert file in str(refused.value)
    assert "\n" not in str(refused.value)
    if file != "checkpoint.json" or damage == "missing":
        assert "an older one is" in str(refused.value)


def test_weights_of_another_model_are_refused(trained, experiment_of, tmp_path):
    trained.save(tmp_path / "run")
    wider = experiment_of("model.width=48")
    with pytest.raises(ConfigurationError, match=r"of another model: .*model\."):
        load_model_weights(find_checkpoint(str(tmp_path / "run")), build_model(wider.model, wider.plan, seed=0))


@pytest.mark.parametrize("moment", ["_sync", "_put_in_place", "to_json"])
def test_a_save_that_fails_leaves_the_older_checkpoint_and_no_new_one(trained, tmp_path, monkeypatch, moment):
    trained.save(tmp_path / "run", step=1)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(f"trainer.checkpoints.storage.{moment}", full)
    with pytest.raises(ConfigurationError, match="step-00000002 cannot be written: no space left on device"):
        trained.save(tmp_path / "run", step=2)
    assert find_checkpoint(str(tmp_path / "run")).step == 1
    monkeypatch.undo()
    trained.save(tmp_path / "run", step=2)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]


def test_a_checkpoint_of_the_same_step_is_replaced(trained, tmp_path):
    trained.save(tmp_path / "run")
    trained.step(5)
    trained.save(tmp_path / "run")
    model = build_model(trained.experiment.model, trained.experiment.plan, seed=9)
    load_model_weights(find_checkpoint(str(tmp_path / "run")), model)
    assert torch.equal(model.embedding, trained.model.embedding)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]


def test_while_one_is_replaced_the_old_one_counts(trained, tmp_path, monkeypatch):
    first = trained.save(tmp_path / "run")
    kept = (first / "checkpoint.json").read_bytes()
    rename = Path.rename

    def killed(path, target):
        if path.name.startswith(".writing-"):
            raise OSError("killed here")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(ConfigurationError, match="killed here"):
        trained.save(tmp_path / "run")
    monkeypatch.undo()
    found = find_checkpoint(str(tmp_path / "run"))
    assert (found.folder / "checkpoint.json").read_bytes() == kept
    load_training_state(found, trained.model, trained.optimizer)
    trained.save(tmp_path / "run", step=3)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


def test_training_goes_on_while_its_state_is_written(trained, tmp_path, monkeypatch):
    expected = {name: parameter.detach().clone() for name, parameter in trained.model.named_parameters()}
    stepped = threading.Event()
    finish = AtomicWriter.write_data

    def late(writer, plan, planner):
        assert stepped.wait(60)
        return finish(writer, plan, planner)

    monkeypatch.setattr(AtomicWriter, "write_data", late)
    saver = Saver(tmp_path / "run", World(trained.experiment.plan), keep=1)
    saver.save(2, trained.model, trained.optimizer, experiment=trained.experiment, data_key=trained.data.facts.key, tokenizer=trained.data.tokenizer)
    trained.step(2)
    stepped.set()
    assert saver.wait() == find_checkpoint(str(tmp_path / "run")).folder
    model = build_model(trained.experiment.model, trained.experiment.plan, seed=9)
    load_model_weights(find_checkpoint(str(tmp_path / "run")), model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, expected[name]), name
    assert not torch.equal(expected["embedding"], trained.model.embedding)


def test_old_checkpoints_go_and_the_newest_stay(trained, tmp_path):
    for step in (1, 10, 2):
        trained.save(tmp_path / "run", step=step)
    remove_old(tmp_path / "run", keep=2)
    assert [folder.name for folder in checkpoints_in(tmp_path / "run")] == ["step-00000002", "step-00000010"]
    assert len(list((tmp_path / "run" / "checkpoints").iterdir())) == 2
