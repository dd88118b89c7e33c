"""The real command line of ``pretrain``."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from trainer.checkpoints import checkpoints_in, find_checkpoint
from trainer.cli_pretrain import _resumed
from trainer.loop.run import train
from trainer.loop.run_folder import read_experiment

PRETRAIN = [sys.executable, "-m", "trainer", "pretrain"]


@pytest.fixture
def pretrain(trainer):
    return partial(trainer, "pretrain")


@pytest.fixture
def settings(small_run):
    """The small run as options, with further settings."""

    def options(*changed):
        chosen = {setting.partition("=")[0]: setting for setting in (*small_run, *changed)}
        return [text for setting in chosen.values() for text in ("--set", setting)]

    return options


def losses(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record["loss_nats_per_token"] for record in records if "gradient_norm" in record]


def stop_after(steps, number, folder, arguments, cwd):
    """Start a run, send it a signal once its log has ``steps`` steps (and, to kill it, once it has a checkpoint), and wait."""
    process = subprocess.Popen([*PRETRAIN, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        log = folder / "log.jsonl"
        saved = number != signal.SIGKILL
        while process.poll() is None and not (saved and log.is_file() and log.read_text().count("gradient_norm") >= steps):
            saved = saved or bool(checkpoints_in(folder))
            time.sleep(0.002)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


# On two threads the tensors are large enough to be shared out: some threaded backward passes would add in an order of their own.
@pytest.mark.parametrize(("top_k", "threads", "sequence"), [(2, 1, 32), *(pytest.param(top_k, 2, 128, marks=pytest.mark.slow) for top_k in (1, 2, 4, 8))])
def test_killed_and_resumed_is_bit_for_bit_uninterrupted(settings, experiment_of, pretrain, tmp_path, top_k, threads, sequence):
    changed = (f"model.blocks.0.feed_forward.top_k={top_k}", f"plan.sequence={sequence}", f"training.tokens={40 * 8 * sequence}")
    arguments = [*settings(*changed), "--threads", str(threads)]
    code, _, _ = stop_after(12, signal.SIGKILL, tmp_path / "runs" / "killed", [*arguments, "--name", "killed"], tmp_path)
    assert code == -signal.SIGKILL
    behind = find_checkpoint("killed").step
    assert 7 <= behind < 40
    code, _, err = pretrain("--resume", "killed")
    assert (code, f"going on after step {behind} of 40" in err) == (0, True)
    whole = train(experiment_of(*changed), run_folder=tmp_path / "whole", log=lambda line: None)
    assert losses(tmp_path / "runs" / "killed") == list(whole.losses)
    assert len(whole.losses) == 40
    states = [load_file(next(folder.glob("*.safetensors"))) for folder in (find_checkpoint("killed").folder, whole.checkpoint)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (tmp_path / "runs" / "killed", tmp_path / "whole")]
    assert results[0]["validation_loss_nats_per_token"] == results[1]["validation_loss_nats_per_token"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_a_checkpoint_and_says_how_to_go_on(settings, pretrain, tmp_path, number):
    arguments = [*settings("training.checkpoints.interval_steps=1000"), "--threads", "1", "--name", "stopped"]
    code, out, err = stop_after(5, number, tmp_path / "runs" / "stopped", arguments, tmp_path)
    assert (code, out) == (130, "")
    assert "go on with: python -m trainer pretrain --resume" in err
    assert "Traceback" not in err
    step = find_checkpoint("stopped").step
    assert step == len(losses(tmp_path / "runs" / "stopped"))
    assert pretrain("--resume", str(tmp_path / "runs" / "stopped"))[0] == 0
    assert len(losses(tmp_path / "runs" / "stopped")) == 60


def test_a_run_killed_before_its_first_checkpoint_starts_again(settings, pretrain, tmp_path):
    assert pretrain(*settings("training.tokens=1024"), "--name", "run")[0] == 0
    before = losses(tmp_path / "runs" / "run")
    for folder in (tmp_path / "runs" / "run" / "checkpoints").iterdir():
        folder.rename(tmp_path / folder.name)
    assert pretrain("--resume", "run")[0] == 0
    assert losses(tmp_path / "runs" / "run") == before


def test_a_finished_run_resumed_is_only_evaluated_again(settings, pretrain, tmp_path):
    assert pretrain(*settings("training.tokens=1024"), "--name", "run")[0] == 0
    files = [(tmp_path / "runs" / "run" / name) for name in ("log.jsonl", "result.json")]
    kept = [len(files[0].read_text().splitlines()), json.loads(files[1].read_text())["validation_loss_nats_per_token"]]
    code, out, _ = pretrain("--resume", "run", "--json")
    assert (code, json.loads(out)["validation_loss_nats_per_token"]) == (0, kept[1])
    assert len(files[0].read_text().splitlines()) == kept[0]


def test_the_result_is_printed_written_and_kept(settings, pretrain, tmp_path):
    code, out, err = pretrain(*settings("training.tokens=1024"), "--name", "run", "-o", "result.json")
    document = json.loads((tmp_path / "result.json").read_text())
    assert code == 0
    for text in (
        f"{document['validation_loss_nats_per_token']:.4f}",
        f"{document['bits_per_byte']:.4f}",
        f"{document['unigram_nats_per_token']:.4f}",
        "runs/run",
    ):
        assert text in out
    assert document["sample"]["text"].split()[0] in out
    for text in ("default", "step 1/4", "tokens/s", "memory: parameters", "validation loss"):
        assert text in err
    code, out, _ = pretrain(*settings("training.tokens=1024"), "--name", "again", "--json")
    again = json.loads(out)
    assert again["schema_version"] == 1
    assert again["validation_loss_nats_per_token"] == document["validation_loss_nats_per_token"]


def test_name_model_data_training_plan_and_threads_do_what_they_say(settings, pretrain, small_run, tmp_path):
    data = next(setting for setting in small_run if setting.startswith("data.sources"))
    (tmp_path / "words.yaml").write_text(f"sources: {data.partition('=')[2]}\ntokenizer: bytes\n")
    (tmp_path / "model.yaml").write_text(
        "{name: mouse, width: 16, vocabulary: 300, maximum_positions: 64, training_defaults: {sequence: 32, micro_batch: 2}, blocks: "
        "[{count: 1, mixer: {kind: grouped_query, heads: 2, kv_heads: 1, head_width: 8}, feed_forward: {kind: dense, hidden_width: 32}}]}"
    )
    (tmp_path / "plan.yaml").write_text("{sequence: 16, micro_batch: 4, global_batch: 8}")
    (tmp_path / "training.yaml").write_text("{tokens: 200, seed: 5, device: cpu}")
    files = ["--model", "model.yaml", "--data", "words.yaml", "--training", "training.yaml", "--plan", "plan.yaml"]
    code, out, err = pretrain(*files, "--threads", "2", "--json")
    assert code == 0, err
    # 200 tokens are two steps of 8 sequences of 16.
    document = json.loads(out)
    assert (document["steps"], document["tokens"], document["expert_load_entropy_nats"]) == (2, 256, None)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("mouse-words-2")
    about = json.loads((folder / "run.json").read_text())
    assert (about["threads"], about["seed"]) == (2, 5)
    code, _, err = pretrain("--resume", folder.name, "--threads", "1")
    assert (code, "began with 2 threads and goes on with 1" in err) == (0, True)


def test_a_run_that_diverges_is_exit_code_1(settings, pretrain, tmp_path):
    code, out, err = pretrain(*settings("training.learning_rate=1e30", "plan.gradient_clipping=null"), "--name", "run")
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: step ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "training.learning_rat=1"], "did you mean 'learning_rate'"),
        (["--set", "trainig.seed=1"], "did you mean 'training'"),
        (["--training", "basics"], "did you mean 'basic'"),
        (["--set", "training.seed=1,2"], "lists are for 'sweep'"),
        (["--set", "data.sources=[{kind: text-files, paths: gone.txt}]"], "'gone.txt' does not exist"),
        (["--set", "plan.global_batch=20"], "global_batch (20) must be a multiple of micro_batch x dp (8 x 1)"),
        (["--set", "plan.ranks=2", "--set", "plan.ep=1", "--set", "plan.global_batch=16"], "plan.ranks (2): 1 process(es) were started (legal: 1;"),
        (["--set", "plan.ranks=7", "--set", "plan.ep=7"], "must divide the 16 experts"),
        (["--set", "plan.sequence=4096"], "exceeds maximum_positions"),
        (["--set", "model.vocabulary=200"], "model.vocabulary"),
        (["--set", "model.width=30"], "must be a multiple of 4"),
        (["--set", "data.validation_fraction=0.000001", "--set", "plan.sequence=2048"], "the validation data has"),
        (["--name", "../elsewhere"], "expected the name of one folder"),
        (["--threads", "0"], "--threads"),
        (["--output", "."], "is a directory"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_run_folder(settings, pretrain, tmp_path, arguments, told):
    changed = [value for option, value in zip(arguments[::2], arguments[1::2], strict=True) if option == "--set"]
    others = [text for pair in zip(arguments[::2], arguments[1::2], strict=True) if pair[0] != "--set" for text in pair]
    code, out, err = pretrain(*settings(*changed), *others)
    assert (code, out) == (2, "")
    assert told in err.splitlines()[-1]
    assert [line for line in err.splitlines() if line.startswith("error:")] == [err.splitlines()[-1]]
    # How many tokens a text has is known once it is encoded, which is told.
    if "validation data has" not in told and not told.startswith("--threads"):
        assert len(err.splitlines()) == 1, err
    assert not (tmp_path / "runs").exists()


def test_a_taken_name_is_refused(settings, pretrain, tmp_path):
    (tmp_path / "runs" / "run").mkdir(parents=True)
    code, _, err = pretrain(*settings(), "--name", "run")
    assert (code, "exists already" in err) == (2, True)
    assert list((tmp_path / "runs" / "run").iterdir()) == []


def test_resume_refuses_other_settings_and_unknown_runs(pretrain, tmp_path):
    code, _, err = pretrain("--resume", "run", "--set", "training.tokens=1")
    assert (code, "--set training.tokens=1 does not go with --resume" in err) == (2, True)
    code, _, err = pretrain("--resume", "run")
    assert (code, "'run' is no run" in err) == (2, True)
    assert not (tmp_path / "runs").exists()


def test_resume_refuses_a_truncated_checkpoint_and_changes_nothing(settings, pretrain, tmp_path):
    folder = tmp_path / "runs" / "run"
    assert pretrain(*settings("training.tokens=1024"), "--name", "run")[0] == 0
    weights = next(find_checkpoint("run").folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    code, out, err = pretrain("--resume", "run")
    assert (code, out) == (2, "")
    assert "shard-00001-model-00001-of-00001.safetensors has" in err
    assert len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_under_another_plan(settings, pretrain, tmp_path):
    arguments = settings("training.tokens=2048", "training.checkpoints.interval_steps=4", "model.load_balancing_loss=0", "model.router_z_loss=0")
    assert pretrain(*arguments, "--name", "whole")[0] == 0
    assert pretrain(*arguments, "--name", "run")[0] == 0
    shutil.rmtree(find_checkpoint("run").folder)
    code, _, err = pretrain("--resume", "run", "--set", "plan.micro_batch=4", "--set", "plan.global_batch=8", "--set", "plan.implementation.experts=loop")
    assert code == 0, err
    assert "goes on under another plan: micro_batch 4 (before 8), global_batch 8 (before None), implementation" in err
    assert "going on after step 4 of 8" in err
    assert losses(tmp_path / "runs" / "run") == pytest.approx(losses(tmp_path / "runs" / "whole"), rel=1e-5)
    assert read_experiment(tmp_path / "runs" / "run").plan.micro_batch == 4


@pytest.mark.parametrize("setting", ["plan.sequence=16", "plan.micro_batch=4", "plan.gradient_clipping=2", "plan.precision=bf16"])
def test_a_plan_that_would_learn_something_else_is_refused(settings, pretrain, tmp_path, setting):
    assert pretrain(*settings("training.tokens=512"), "--name", "run")[0] == 0
    code, out, err = pretrain("--resume", "run", "--set", setting)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "decides what is learnt: it stays as it began (legal: " in err
    assert read_experiment(tmp_path / "runs" / "run").plan.sequence == 32


@pytest.mark.parametrize("kind", ["training", "model"])
def test_resume_refuses_specifications_that_were_changed_since(settings, pretrain, tmp_path, kind):
    assert pretrain(*settings("training.tokens=1024"), "--name", "run")[0] == 0
    file = tmp_path / "runs" / "run" / f"{kind}.yaml"
    file.write_text(file.read_text().replace("weight_decay: 0.1", "weight_decay: 0.2").replace("rope_theta: 10000.0", "rope_theta: 5000.0"))
    code, _, err = pretrain("--resume", "run")
    assert (code, f"its {kind} is not the one" in err) == (2, True)


def test_resume_refuses_a_device_that_is_not_here(settings, pretrain, tmp_path, monkeypatch):
    assert pretrain(*settings("training.tokens=512"), "--name", "run")[0] == 0
    file = tmp_path / "runs" / "run" / "training.yaml"
    file.write_text(file.read_text().replace("device: cpu", "device: cuda"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, out, err = pretrain("--resume", "run")
    assert (code, out, err) == (2, "", "error: run runs/run: training.device (cuda) stays as it began, and this machine has no CUDA device\n")


def test_a_resumed_plan_that_leaves_ranks_open_is_for_the_processes_started(settings, pretrain, tmp_path, monkeypatch):
    assert pretrain(*settings("training.tokens=512", "plan.global_batch=16"), "--name", "run")[0] == 0
    plan = tmp_path / "plan.yaml"
    plan.write_text("{sequence: 32, micro_batch: 8, global_batch: 16}")
    monkeypatch.setenv("WORLD_SIZE", "2")
    resumed, _ = _resumed("run", str(plan), [])
    assert (resumed.plan.ranks, resumed.plan.ep, resumed.plan.tokens_per_step) == (2, 2, 512)


def test_resume_refuses_a_text_that_has_changed(settings, pretrain, tmp_path):
    (tmp_path / "text.txt").write_text("one line after another\n" * 200)
    source = f"data.sources=[{{kind: text-files, paths: {tmp_path / 'text.txt'}, document: line}}]"
    assert pretrain(*settings("training.tokens=512", source), "--name", "run")[0] == 0
    (tmp_path / "text.txt").write_text("one line after the other\n" * 200)
    code, _, err = pretrain("--resume", "run")
    assert (code, "the text or the tokenizer has changed" in err) == (2, True)


def test_a_checkpoint_holds_each_weight_and_each_moment_once(settings, pretrain):
    assert pretrain(*settings("training.tokens=512"), "--name", "run")[0] == 0
    found = find_checkpoint("run")
    state = load_file(next(found.folder.glob("*.safetensors")))
    numbers = {kind: sum(tensor.numel() for name, tensor in state.items() if kind in name) for kind in ("model.", ".exp_avg")}
    assert numbers == {"model.": found.experiment.model.parameters, ".exp_avg": 2 * found.experiment.model.parameters}


def test_help_comes_without_torch_and_has_an_example():
    shown = subprocess.run([*PRETRAIN, "--help"], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert "python -m trainer pretrain --data" in shown.stdout
    imported = {line.split()[-1] for line in shown.stderr.splitlines()}
    assert "trainer.cli_pretrain" in imported
    assert "torch" not in imported
    assert "--resume" in shown.stdout
