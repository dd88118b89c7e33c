"""The table of levers through the real command line, held against the prediction."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.memory.step import step_memory
from simulator.program.build import build_program
from simulator.specs import load_model, load_plan
from trainer.measure.levers import LEVERS, OFF

MODEL = {"width": 32, "vocabulary": 300, "blocks.0.count": 1, "blocks.0.mixer.head_width": 8, "blocks.0.feed_forward.expert_width": 16}
PLAN = {"sequence": 16, "micro_batch": 4}


SETTINGS = [f"--set={kind}.{name}={value}" for kind, fields in (("model", MODEL), ("plan", PLAN)) for name, value in fields.items()]
COMMAND = ["measure", "--levers", "--model", "tiny-moe", "--device", "cpu", "--threads", "1", *SETTINGS]


@pytest.fixture(scope="module")
def levers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    file = tmp_path_factory.mktemp("levers") / "levers.json"
    result = subprocess.run([sys.executable, "-m", "trainer", *COMMAND, "-o", str(file)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(file.read_text()), result.stdout


def predicted_peak(fields: dict[str, object]) -> int:
    spec = load_model("tiny-moe", MODEL)
    plan = load_plan(spec, None, PLAN | OFF | {name.removeprefix("plan."): value for name, value in fields.items()})[0]
    return step_memory(build_program(spec, plan), plan).peak_allocated_bytes


def test_every_lever_has_a_row_and_the_bytes_that_are_predicted(levers: tuple[dict, str]) -> None:
    document, _ = levers
    assert [row["lever"] for row in document["levers"]] == list(LEVERS)
    reference = document["reference"]["peak_allocated_bytes"]
    assert reference == pytest.approx(predicted_peak({}), rel=1e-3)
    for row in document["levers"]:
        assert row["peak_allocated_bytes"] == pytest.approx(predicted_peak(row["fields"]), rel=1e-3), row["lever"]
        assert row["bytes_saved"] == reference - row["peak_allocated_bytes"]


def test_what_is_computed_again_changes_no_loss_and_what_is_rounded_changes_little(levers: tuple[dict, str]) -> None:
    rows = {row["lever"]: row for row in levers[0]["levers"]}
    assert all(row["largest_loss_difference"] == 0 for name, row in rows.items() if name.startswith("recomputation"))
    for name in ("chunked cross-entropy", "fused AdamW"):
        assert rows[name]["largest_loss_difference"] < 1e-4
    assert 0 < rows["bf16 compute, fp32 weights"]["mean_loss_difference"] < 0.05
    assert 0 < rows["bf16 throughout"]["mean_loss_difference"] < 0.1


def test_the_table_names_every_lever(levers: tuple[dict, str]) -> None:
    assert all(name in levers[1] for name in LEVERS)


@pytest.mark.parametrize(("option", "told"), [(["--check-allocator"], "--check-allocator does not go"), (["--repeats", "3"], "--repeats does not go")])
def test_options_that_say_nothing_about_levers_are_refused(trainer, option: list[str], told: str, tmp_path: Path) -> None:
    result = trainer(*COMMAND, *option, "-o", str(tmp_path / "levers.json"))
    assert (result.code, list(tmp_path.iterdir())) == (2, [])
    assert result.err.startswith(f"error: {told}")
