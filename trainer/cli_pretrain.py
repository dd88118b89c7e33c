"""``pretrain`` on the command line: parses and prints."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configuration.command import emit, stderr
from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from trainer.generation import Completion
    from trainer.loop.experiment import Experiment
    from trainer.loop.run import RunResult
    from trainer.parallel.world import World

Log = Callable[[str], None]

MODEL, DATA, TRAINING = "tiny-moe", "simple-corpus", "basic"
PROMPT_TOKENS, SAMPLE_TOKENS = 16, 96


def pretrain(
    model: Annotated[str | None, typer.Option("--model", help=f"Preset, YAML file or Hugging Face config.json; default: {MODEL}.", show_default=False)] = None,
    data: Annotated[str | None, typer.Option("--data", help=f"Preset or YAML file; default: {DATA}.", show_default=False)] = None,
    training: Annotated[str | None, typer.Option("--training", help=f"Preset or YAML file; default: {TRAINING}.", show_default=False)] = None,
    plan: Annotated[str | None, typer.Option("--plan", help="Preset or YAML file; default: the training's, else the model's sequence and batch.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: training.learning_rate=1e-3, model.width=256, plan.micro_batch=4. Repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run's folder under runs/; default: model, data and time.")] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Name or folder of a run that goes on from its newest checkpoint; its plan may change.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of CPU operations; default: PyTorch's, or the resumed run's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", dir_okay=False, help="Write the JSON document to this file.")] = None,
) -> None:
    """Train a language model; log, checkpoints and result are kept in a folder of runs/.

    Example: [bold]python -m trainer pretrain --data python-source --set training.tokens=4e6 --name python[/bold]
    """
    given = {"--model": model, "--data": data, "--training": training, "--name": name}
    from trainer.loop.run_folder import new_run, threads_of
    from trainer.parallel.together import first_rank_decides, loss_of_a_rank_told
    from trainer.parallel.world import launched_rank, leave_world, start_world

    console = stderr()

    def log(line: str) -> None:
        if launched_rank() == 0:
            console.print(line, soft_wrap=True, markup=False)

    opening: list[str] = []
    if resume is not None:
        excess = [option for option, value in given.items() if value] + [f"--set {setting}" for setting in set_ or [] if not setting.startswith("plan.")]
        if excess:
            raise ConfigurationError(f"{excess[0]} does not go with --resume: a run goes on with what it began with, its plan alone may change")
        experiment, begun = _resumed(resume, plan, set_ or [])
        threads = threads or threads_of(begun)
    else:
        begun = None
        experiment, name = _begun(model or MODEL, data or DATA, training or TRAINING, plan, set_ or [], name, opening)
    world = start_world(experiment.plan, experiment.training.device, timeout_s=experiment.training.collective_timeout_s)
    with loss_of_a_rank_told(world):
        # The default name holds the time, which is not the same everywhere.
        folder = first_rank_decides(world, lambda: begun or new_run(name or ""))
        result = _trained(experiment, folder, threads, log, opening, resume=resume is not None, world=world)
        sample = _sample(result)
        leave_world()
    if not world.first:
        return
    document = result.as_dict() | {"sample": {"prompt": sample.prompt, "text": sample.text}}
    emit(document, as_json=as_json, output=output, show=lambda out: _show(result, sample, out))


def _resumed(where: str, plan: str | None, settings: list[str]) -> "tuple[Experiment, Path]":
    from dataclasses import replace

    from configuration.overrides import parse_single
    from simulator.specs import load_plan
    from trainer.loop.experiment import cuda_is_there
    from trainer.loop.run_folder import find_run, read_experiment
    from trainer.parallel.world import launched_ranks

    folder = find_run(where)
    experiment = read_experiment(folder)
    if experiment.training.device == "cuda" and not cuda_is_there():
        raise ConfigurationError(f"run {folder}: training.device (cuda) stays as it began, and this machine has no CUDA device")
    if plan is None and not settings:
        return experiment, folder
    changed, _ = load_plan(
        experiment.model,
        plan or str(folder / "plan.yaml"),
        parse_single(settings, ("plan",)).get("plan"),
        ranks=launched_ranks(),
        ranks_reason="processes started",
        precision=experiment.plan.precision,
    )
    return replace(experiment, plan=changed), folder


def _begun(model: str, data: str, training: str, plan: str | None, settings: list[str], name: str | None, opening: list[str]) -> "tuple[Experiment, str]":
    from configuration.overrides import parse_single
    from trainer.loop.experiment import KINDS, cuda_is_there, resolve

    experiment, defaults = resolve(model, data, training, plan, parse_single(settings, KINDS), cuda=cuda_is_there())
    opening.append("defaults: " + "; ".join(f"{default.field} {default.value} ({default.reason})" for default in defaults))
    return experiment, name or f"{experiment.model.name}-{Path(data).stem}-{datetime.now():%Y%m%d-%H%M%S}"


def _trained(experiment: "Experiment", folder: Path, threads: int | None, log: Log, opening: list[str], *, resume: bool, world: "World") -> "RunResult":
    import torch

    from trainer.loop.run import train

    if threads is not None:
        torch.set_num_threads(threads)
    spec = experiment.model
    opening.append(
        f"{folder}: {spec.name}, {spec.parameters:,} parameters ({spec.active_parameters:,} active), {experiment.steps:,} steps of "
        f"{experiment.plan.tokens_per_step:,} tokens, {_ranks(experiment)}{experiment.training.device}, {torch.get_num_threads()} threads"
    )
    return train(experiment, run_folder=folder, log=log, resume=resume, opening=opening, world=world)


def _ranks(experiment: "Experiment") -> str:
    plan = experiment.plan
    return "" if plan.ranks == 1 else f"{plan.ranks} ranks (dp {plan.dp}, ep {plan.ep}, tp {plan.tp}, pp {plan.pp}, zero stage {plan.zero_stage}), "


def _sample(result: "RunResult") -> "Completion":
    """What the model writes after the first words of the held-out text."""
    from trainer.generation import Sampling, generate

    tokenizer, begin_token = result.data.tokenizer, bool(result.experiment.data.begin_token)
    prompt = tokenizer.decode(int(token) for token in result.data.validation[:PROMPT_TOKENS] if token not in tokenizer.boundary_ids)
    sampling = Sampling(seed=result.experiment.training.seed)
    return generate(result.model, tokenizer, prompt, tokens=SAMPLE_TOKENS, sampling=sampling, begin_token=begin_token)


def _show(result: "RunResult", sample: "Completion", console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    validation, unigram = result.validation, result.data.facts.unigram_nats_per_token
    loss, error = validation.loss_nats_per_token, validation.standard_error_nats_per_token
    table = Table(box=None, show_header=False)
    rows = {
        "validation loss": f"{loss:.4f}{'' if error is None else f' ± {error:.4f}'} nats/token on {validation.tokens:,} tokens (± standard error over windows)",
        "": f"{result.bits_per_byte:.4f} bits/byte",
        "single-token frequencies": f"{unigram:.4f} nats/token: the entropy of the validation tokens under the training unigram",
        "learnt beyond them": f"{unigram - loss:.4f} nats/token",
        "trained on": f"{result.tokens:,} tokens in {result.elapsed_s:,.1f} s, {result.tokens / result.elapsed_s:,.0f} tokens/s",
        "expert load": _load(result),
        "memory": str(result.memory).removeprefix("memory: "),
        "kept in": str(result.run_folder),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table, soft_wrap=True)
    console.print(f"\n[bold]{escape(sample.prompt)}[/bold]{escape(sample.text)}", soft_wrap=True)


def _load(result: "RunResult") -> str:
    from math import log

    entropy = result.validation.expert_load_entropy_nats
    if entropy is None:
        return "no experts"
    even = sum(log(len(counts_E)) for counts_E in result.validation.counts_LE) / len(result.validation.counts_LE)
    return f"entropy {entropy:.4f} nats of {even:.4f} when even, mean over MoE layers"
