"""The training loop in this process: schedule, losses, log, what it writes and what it refuses."""

import json
import math

import pytest
import torch

from configuration.errors import ConfigurationError
from trainer.data import Batches
from trainer.loop.evaluate import Validation, evaluate
from trainer.loop.expert_load import step_load
from trainer.loop.journal import Journal, StepRecord
from trainer.loop.memory import run_memory
from trainer.loop.run import NotFiniteError, train
from trainer.loop.run_folder import read_experiment
from trainer.loop.schedule import learning_rate
from trainer.model import build_model
from trainer.specs import ConstantSchedule, CosineSchedule, TrainingSpec


def silent(_):
    pass


def rates(schedule, steps):
    training = TrainingSpec(learning_rate=8.0, schedule=schedule)
    return [learning_rate(step, steps, training) for step in range(steps)]


def test_a_cosine_rises_to_the_full_rate_and_ends_at_the_final_share():
    # Two steps of warm-up; then cos(0), cos(pi/2), cos(pi) over the three that are left, between 8 and 2.
    assert rates(CosineSchedule(warmup_fraction=0.4, final_fraction=0.25), 5) == pytest.approx([4, 8, 8, 5, 2])


def test_a_constant_rate_cools_down_in_a_straight_line():
    assert rates(ConstantSchedule(warmup_fraction=0.2, cooldown_fraction=0.4, final_fraction=0), 10) == pytest.approx([4, 8, 8, 8, 8, 8, 6, 4, 2, 0])


def test_constant_runs_of_two_lengths_share_their_beginning():
    short, long = (rates(ConstantSchedule(warmup_fraction=0), steps) for steps in (10, 20))
    assert short[:8] == long[:8]


@pytest.mark.parametrize("schedule", [CosineSchedule(), CosineSchedule(warmup_fraction=1), ConstantSchedule(warmup_fraction=0.9, cooldown_fraction=0.9)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_schedule_leaves_its_bounds(schedule, steps):
    assert all(0 <= rate <= 8 + 1e-9 for rate in rates(schedule, steps))


@pytest.fixture
def model_and_windows(experiment_of):
    experiment = experiment_of()
    model = build_model(experiment.model, experiment.plan, seed=3)
    return model, Batches(torch.arange(32 * 5 + 1).remainder(260).numpy(), 32)


def test_validation_is_the_mean_over_windows_with_its_standard_error(model_and_windows):
    model, windows = model_and_windows
    losses = [float(model(*batch).language_model) for batch in windows.in_sequence(1)]
    validation = evaluate(model, windows.in_sequence(2))
    mean = sum(losses) / 5
    assert validation.loss_nats_per_token == pytest.approx(mean, rel=1e-6)
    # Sample variance over the five windows, over five, under the root.
    assert validation.standard_error_nats_per_token == pytest.approx(math.sqrt(sum((loss - mean) ** 2 for loss in losses) / 4 / 5), rel=1e-3)
    assert validation.tokens == 160
    assert [sum(counts_E) for counts_E in validation.counts_LE] == [160 * 2]


def test_one_window_has_no_standard_error(model_and_windows):
    model, windows = model_and_windows
    assert evaluate(model, windows.in_sequence(1, limit_tokens=1)).standard_error_nats_per_token is None


def test_evaluation_leaves_no_gradient(model_and_windows):
    model, windows = model_and_windows
    evaluate(model, windows.in_sequence(2))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_load_entropy_by_hand():
    # An even layer of two experts has ln 2, a layer with one busy expert 0.
    assert Validation(1.0, None, 4, ((4, 4), (8, 0))).expert_load_entropy_nats == pytest.approx(math.log(2) / 2)
    assert Validation(1.0, None, 4, ()).expert_load_entropy_nats is None


def test_a_run_learns_and_says_what_it_did(experiment_of, tmp_path):
    experiment = experiment_of()
    result = train(experiment, run_folder=tmp_path / "run", log=silent)
    assert result.losses[0] == pytest.approx(math.log(260), rel=0.02)
    assert result.validation.loss_nats_per_token < result.data.facts.unigram_nats_per_token
    assert (len(result.losses), result.tokens) == (60, 60 * 256)
    # All windows that the validation stream fills.
    assert result.validation.tokens == (result.data.facts.validation_tokens - 1) // 32 * 32
    ratio = result.data.facts.validation_tokens / result.data.facts.validation_text_bytes
    assert result.bits_per_byte == pytest.approx(result.validation.loss_nats_per_token / math.log(2) * ratio)
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == json.loads(json.dumps(result.as_dict()))


def test_the_folder_holds_what_the_run_was(experiment_of, tmp_path):
    experiment = experiment_of("training.checkpoints.keep=2")
    train(experiment, run_folder=tmp_path / "run", log=silent)
    assert read_experiment(tmp_path / "run") == experiment
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        ["model.yaml", "plan.yaml", "data.yaml", "training.yaml", "run.json", "log.jsonl", "result.json", "checkpoints"]
    )
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["threads"], about["seed"], about["versions"]["torch"]) == (1, 0, torch.__version__)
    # Every seventh step and the last; the two newest stay.
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["step-00000056", "step-00000060"]


def test_the_log_has_every_step_and_every_validation(experiment_of, tmp_path):
    result = train(experiment_of(), run_folder=tmp_path / "run", log=silent)
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [record for record in records if "gradient_norm" in record]
    assert [record["step"] for record in steps] == list(range(1, 61))
    assert [record["loss_nats_per_token"] for record in steps] == list(result.losses)
    assert [record["step"] for record in records if "validation_loss_nats_per_token" in record] == [20, 40, 60]
    assert [record["step"] for record in records if "parameters_bytes" in record] == [1, 60]


def test_the_log_tells_how_the_experts_were_loaded(experiment_of, tmp_path):
    settings = ("training.tokens=5120", "model.blocks.0.feed_forward.top_k=2")
    train(experiment_of(*settings, "model.blocks.0.feed_forward.capacity_factor=0.5"), run_folder=tmp_path / "tight", log=silent)
    train(experiment_of(*settings, "plan.routing=uniform"), run_folder=tmp_path / "even", log=silent)
    tight, even = ([json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("tight", "even"))
    steps = [record for record in tight if "gradient_norm" in record]
    # Half of the mean is the capacity: at least half of the choices find no row.
    assert all(0.5 <= record["dropped_share"] < 1 and record["expert_max_over_mean"] > 1 for record in steps)
    assert all(
        (record["expert_max_over_mean"], record["dead_experts"], record["dropped_share"]) == (1, 0, None) for record in even if "gradient_norm" in record
    )
    counts = next(record["expert_counts_LE"] for record in tight if "validation_loss_nats_per_token" in record)
    assert [len(counts_E) for counts_E in counts] == [16]


def test_the_load_of_a_step_by_hand():
    load = step_load([6, 0, 3, 3, 2, 2, 2, 6, 1, 2], [4, 4])
    assert (load.counts_LE, load.dropped_L) == (((6, 0, 3, 3), (2, 2, 2, 6)), (1, 2))
    # Means are 3 and 3; one expert of the first layer got nothing; 3 of 24 choices were dropped.
    assert (load.max_over_mean, load.dead_experts, load.dropped_share) == (2, 1, 0.125)
    assert step_load([], []) is None


def test_without_a_folder_nothing_is_written(experiment_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = train(experiment_of("training.tokens=1024"), run_folder=None, log=silent)
    assert (list(tmp_path.iterdir()), result.checkpoint, len(result.losses)) == ([], None, 4)


def test_the_seed_decides_weights_and_order(experiment_of):
    first, again, other = (train(experiment_of("training.tokens=1024", f"training.seed={seed}"), run_folder=None, log=silent).losses for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_optimizer_takes_the_training_settings(experiment_of):
    def last_loss(*settings):
        return train(experiment_of("training.tokens=2560", *settings), run_folder=None, log=silent).losses[-1]

    settings = ["training.adam_betas=[0.5, 0.5]", "training.adam_epsilon=0.1", "training.weight_decay=5.0", "training.learning_rate=0.02"]
    settings += ["training.schedule.warmup_fraction=0.5", "training.schedule.final_fraction=1.0", "training.schedule={kind: constant}"]
    losses = [last_loss(), *(last_loss(setting) for setting in settings)]
    assert len(set(losses)) == len(losses)


def test_accumulated_micro_batches_are_one_batch(experiment_of):
    common = ("training.tokens=2560", "model.load_balancing_loss=0", "model.router_z_loss=0")
    whole = train(experiment_of(*common), run_folder=None, log=silent)
    parts = train(experiment_of(*common, "plan.micro_batch=2", "plan.global_batch=8"), run_folder=None, log=silent)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)


@pytest.mark.parametrize("top_k", [1, 2, 4, 8])
def test_a_run_broken_off_and_resumed_is_bit_for_bit_uninterrupted(experiment_of, tmp_path, top_k):
    experiment = experiment_of(f"model.blocks.0.feed_forward.top_k={top_k}", "training.tokens=7680", "training.evaluation.interval_steps=17")

    def break_off(line):
        if "validation loss" in line:
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        train(experiment, run_folder=tmp_path / "run", log=break_off)
    torch.rand(5)
    said = []
    resumed = train(experiment, run_folder=tmp_path / "run", log=said.append, resume=True)
    whole = train(experiment, run_folder=None, log=silent)
    # Checkpoints every seven steps: three steps come a second time.
    assert "going on after step 14 of 30" in said
    assert resumed.losses == whole.losses
    assert resumed.validation == whole.validation
    assert all(torch.equal(one, other) for one, other in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))


def test_memory_is_the_sizes_of_the_tensors(experiment_of):
    result = train(experiment_of("training.tokens=512"), run_folder=None, log=silent)
    count = result.experiment.model.parameters
    tensors = len(list(result.model.parameters()))
    memory = result.memory
    # fp32; Adam keeps two moments for each parameter and a step counter for each tensor.
    assert (memory.parameters_bytes, memory.gradients_bytes, memory.optimizer_bytes) == (4 * count, 4 * count, 8 * count + 4 * tensors)
    assert memory.process_peak_bytes > memory.parameters_bytes
    assert run_memory(result.model, torch.optim.SGD(result.model.parameters())).optimizer_bytes == 0


def test_a_run_that_diverges_fails_and_keeps_the_last_good_checkpoint(experiment_of, tmp_path):
    experiment = experiment_of("training.learning_rate=1e20", "plan.gradient_clipping=null", "training.checkpoints.interval_steps=1")
    with pytest.raises(NotFiniteError, match=r"step \d+: .*(nan|inf|NaN)"):
        train(experiment, run_folder=tmp_path / "run", log=silent)
    for folder in (tmp_path / "run" / "checkpoints").glob("*"):
        from safetensors.torch import load_file

        assert all(tensor.isfinite().all() for tensor in load_file(next(folder.glob("*.safetensors"))).values())


def test_a_folder_that_is_taken_is_refused_untouched(experiment_of, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigurationError, match="exists already: take another name, or go on with --resume run"):
        train(experiment_of(), run_folder=tmp_path / "run", log=silent)
    assert list((tmp_path / "run").iterdir()) == []


def record(step):
    return StepRecord(
        step=step, loss_nats_per_token=1.0 / step, load_balancing_loss=None, router_z_loss=None, gradient_norm=math.inf, learning_rate=0.1, step_s=0.5
    )


def test_the_log_is_rewound_to_the_checkpoint(tmp_path):
    file = tmp_path / "log.jsonl"
    journal = Journal(file, silent, steps=9, tokens_per_step=1)
    for step in (1, 2, 3):
        journal.step(record(step))
    with file.open("a") as log:
        log.write('{"step": 4, "loss_na')
    resumed = Journal(file, silent, steps=9, tokens_per_step=1)
    resumed.rewind(2)
    assert (resumed.losses, resumed.elapsed_s) == ([1.0, 0.5], 1.0)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2]
    with pytest.raises(ConfigurationError, match="lacks records of the steps 1 to 3"):
        resumed.rewind(3)


def test_progress_tells_loss_rate_and_time_left(tmp_path):
    said = []
    Journal(None, said.append, steps=121, tokens_per_step=100).step(record(1))
    assert said == ["step 1/121  loss 1.0000  200 tokens/s  learning rate 1.00e-01  gradient norm inf  1:00 left"]
