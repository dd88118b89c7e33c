"""The ways to start that the README shows: every line is one that torchrun and the trainer take, and the batch script asks for what it should."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser
from typer.main import get_command

from simulator.specs import load_model, load_plan
from trainer.cli import app

README = (Path(__file__).parents[3] / "trainer" / "parallel" / "README.md").read_text()
BLOCKS = [block.strip() for block in README.split("```")[1::2]]
LINES = [line.partition("   #")[0] for block in BLOCKS for line in block.splitlines() if line.startswith("torchrun")]
(SCRIPT,) = [block for block in BLOCKS if block.startswith("#!/bin/bash")]


def started(line):
    """Options of torchrun, and those of the trainer's command."""
    options = get_args_parser().parse_args(shlex.split(line)[1:])
    assert (options.module, options.training_script) == (True, "trainer")
    name, *arguments = options.training_script_args
    command = get_command(app).commands[name]
    return options, command.make_context(name, arguments).params


def nodes(options):
    """At least as many; torchrun takes a range."""
    return int(options.nnodes.partition(":")[0])


@pytest.mark.parametrize("line", LINES)
def test_every_line_is_understood(line):
    options, chosen = started(line)
    ranks = nodes(options) * int(options.nproc_per_node)
    for setting in chosen["set_"] or []:
        field, _, value = setting.partition("=")
        if field.startswith("plan."):
            load_plan(load_model("tiny-moe"), None, {field.removeprefix("plan."): int(value), "ranks": ranks})


def test_there_is_a_laptop_a_node_and_several_nodes():
    sizes = {(nodes(options), int(options.nproc_per_node)) for options, _ in map(started, LINES)}
    assert sizes == {(1, 2), (1, 8), (4, 8)}


def test_the_batch_script_starts_the_same_job_on_every_node(tmp_path):
    stubs = {
        "scontrol": '[ "$*" = "show hostnames first,second" ] && printf "first\\nsecond\\n"',
        "srun": 'for node in 1 2; do "$@"; done',
        "torchrun": 'echo torchrun "$@" >> started',
    }
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "first,second", "SLURM_NNODES": "2", "SLURM_JOB_ID": "77"}
    subprocess.run(["bash", "-c", SCRIPT], cwd=tmp_path, env=job, check=True)
    first, second = (tmp_path / "started").read_text().splitlines()
    assert first == second
    options, chosen = started(first)
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint, options.rdzv_id) == ("2", "8", "first:29500", "77")
    assert chosen["plan"] == "plan.yaml"
