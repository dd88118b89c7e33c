"""``export`` and ``import``: weights to and from the layouts of Hugging Face."""

from pathlib import Path
from typing import Annotated

import typer

from configuration.command import emit, stderr
from configuration.errors import ConfigurationError


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Checkpoint folder, run folder or name of a run; default: the newest of all runs.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a checkpoint as a folder that transformers loads: OLMoE, Mixtral, Qwen3-MoE or Llama, whichever has the model's parts.

    Example: [bold]python -m trainer export --checkpoint mine -o mine-hf[/bold]
    """
    from trainer.checkpoints import find_checkpoint
    from trainer.hugging_face import export_checkpoint

    found = find_checkpoint(checkpoint)
    files = export_checkpoint(found, output)
    document = {"schema_version": 1, "checkpoint": str(found.folder), "files": [str(file) for file in files]}
    emit(document, as_json=as_json, output=None, show=lambda out: out.print(f"{found.folder} written to {output}", soft_wrap=True, markup=False))


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder with config.json, safetensors and tokenizer.json.")],
    name: Annotated[str, typer.Option("--name", help="Name of the run's folder under runs/.")],
    data: Annotated[str, typer.Option("--data", help="What it will train on: a preset or a file.")] = "simple-corpus",
    training: Annotated[str, typer.Option("--training", help="How: a preset or a file.")] = "basic",
    plan: Annotated[str | None, typer.Option("--plan", help="Preset or YAML file; default: the training's, else the model's sequence and batch.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a field of data, training or plan. Repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a run whose first checkpoint holds the weights of a Hugging Face folder: generate from it, or train on with pretrain --resume.

    Example: [bold]python -m trainer import OLMoE-1B-7B --name olmoe --data text-files --set data.sources.0.paths=notes[/bold]
    """
    from configuration.overrides import parse_single
    from trainer.hugging_face import import_run
    from trainer.hugging_face.imports import tokenizer_settings
    from trainer.loop.experiment import cuda_is_there, resolve
    from trainer.loop.run_folder import new_run

    if not folder.is_dir():
        raise ConfigurationError(f"import: {folder} is no folder")
    overrides = parse_single(set_ or [], ("data", "training", "plan"))
    given = overrides.get("data", {})
    overrides["data"] = given if "tokenizer" in given else tokenizer_settings(folder) | given
    run_folder = new_run(name)
    experiment, _ = resolve(str(folder / "config.json"), data, training, plan, overrides, cuda=cuda_is_there())
    console = stderr()
    made = import_run(folder, experiment, run_folder, lambda line: console.print(line, soft_wrap=True, markup=False))
    document = {"schema_version": 1, "run_folder": str(run_folder), "checkpoint": str(made)}
    emit(document, as_json=as_json, output=None, show=lambda out: out.print(f"{folder} is the run {run_folder} at step 0", soft_wrap=True, markup=False))
