"""Hours on a fabric: the simulator's step time stands where 6 N D would."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calibration.scaling.cluster import Cluster, allocate_hours, scaled
from calibration.scaling.laws import law_named
from configuration.errors import ConfigurationError
from simulator.question import ask
from simulator.specs import load_model

TINY = Cluster("tiny-moe", "spine-leaf")
JOINT = law_named("joint-moe")


def test_factor_one_is_the_template_and_its_step_time_the_simulators() -> None:
    candidate, answer = TINY.timed(1.0), ask("tiny-moe", "spine-leaf").answer()
    assert candidate.n == load_model("tiny-moe", None).active_parameters
    assert candidate.step_s == answer.time.step_s


def test_scaling_keeps_the_shape_and_grows_blocks_by_the_cube() -> None:
    settings = scaled(load_model("tiny-moe", None), 2.0, experts=16)
    assert settings == {
        "width": 256, "blocks.0.count": 8, "blocks.0.mixer.kv_heads": 8, "blocks.0.mixer.heads": 8, "blocks.0.feed_forward.expert_width": 256,
        "blocks.0.feed_forward.experts": 16,
    }  # fmt: skip
    with pytest.raises(ConfigurationError, match="has no experts"):
        scaled(load_model("llama-3-8b", None), 1.0, experts=8)


def test_tokens_are_hours_over_step_time_and_the_lowest_loss_comes_first() -> None:
    choices = allocate_hours(JOINT, JOINT.published_theta(), 1.0, TINY, [None])
    assert [choice.loss for choice in choices] == sorted(choice.loss for choice in choices)
    best = choices[0]
    tokens_per_step = ask("tiny-moe", "spine-leaf").plan.tokens_per_step
    assert best.d == pytest.approx(3600 / best.candidate.step_s * tokens_per_step)
    assert best.within_band


def test_more_hours_never_choose_a_higher_loss_and_hours_invert_the_tokens() -> None:
    short, long = (allocate_hours(JOINT, JOINT.published_theta(), hours, TINY, [None])[0] for hours in (0.5, 5.0))
    assert long.loss < short.loss
    assert TINY.hours(short.candidate.n, short.d, 8) == pytest.approx(0.5, rel=1e-6)


def test_the_command_answers_for_hours_and_refuses_half_a_question() -> None:
    words = [sys.executable, "-m", "calibration", "scaling", "optimal", "--law", "joint-moe", "--published", "ludziejewski", "--hours", "1"]
    good = subprocess.run([*words, "--fabric", "spine-leaf", "--model", "tiny-moe", "--json"], capture_output=True, text=True, check=True)
    document = json.loads(good.stdout)
    assert document["choices"][0]["candidate"]["fits"]
    bad = subprocess.run([*words, "--fabric", "spine-leaf"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stderr) == (2, "error: --fabric and --model go together: a fabric is timed with a model scaled in width and depth\n")


def test_a_fit_prices_doublings_in_hours_on_a_fabric(tmp_path: Path) -> None:
    grid = [(n, d) for n in (5e5, 1e6, 2e6, 4e6, 8e6) for d in (1e8, 2e8, 4e8, 8e8)]
    lines = [f"r{i},{n:g},{d:g},{1.8 + 400 / n**0.34 + 1500 / d**0.36:.17g}" for i, (n, d) in enumerate(grid)]
    (tmp_path / "t.csv").write_text("run,n,d,loss\n" + "\n".join(lines) + "\n")
    words = [sys.executable, "-m", "calibration", "scaling", "fit", "--runs", str(tmp_path / "t.csv"), "--columns", "run=run,n=n,d=d,loss=loss"]
    timed = [*words, "--fabric", "spine-leaf", "--model", "tiny-moe", "--resamples", "100", "--origins", "0", "--json"]
    document = json.loads(subprocess.run(timed, capture_output=True, text=True, check=True).stdout)
    by_name = {gain["doubled"]: gain for gain in document["verdict"]["gains"]}
    n, d = document["verdict"]["n"], document["verdict"]["d"]
    for name, hours in (("N", TINY.hours(2 * n, d, 1) - TINY.hours(n, d, 1)), ("D", TINY.hours(n, 2 * d, 1) - TINY.hours(n, d, 1))):
        assert by_name[name]["nats_per_hour"] == pytest.approx(by_name[name]["nats"] / hours, rel=1e-6)
