"""``measure`` on the command line: parses and prints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from configuration.command import CheckMissedError, emit, stderr
from configuration.errors import ConfigurationError

REPEATS = 10


def measure(
    model: Annotated[str, typer.Option("--model", help="Preset, YAML file or Hugging Face config.json.", show_default=False)],
    plan: Annotated[str | None, typer.Option("--plan", help="Preset or YAML file; default: the model's sequence and micro-batch, one process.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a field: plan.micro_batch=4, model.width=256, data.tokenizer=bytes. Repeatable.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Preset or YAML file of real text; default: seeded random tokens.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes CUDA where it is there.")] = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the weights and of the tokens.")] = 0,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help=f"Timed steps, of which the median is taken; default: {REPEATS}.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads of CPU operations; default: PyTorch's.")] = None,
    check_allocator: Annotated[
        bool, typer.Option("--check-allocator", help="Hold the tracked peak against the CPU allocator's own events: exit 1 when they differ by over 0.01 %.")
    ] = False,
    levers: Annotated[
        bool, typer.Option("--levers", help="Measure every lever of precision and memory instead: bytes saved, time, loss over 50 steps.")
    ] = False,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write some steps as a Chrome trace (.json or .json.gz) with lanes for the components; a file a rank.")
    ] = None,
    memory_snapshot: Annotated[
        Path | None, typer.Option("--memory-snapshot", help="CUDA: write the allocator's history of a step, for pytorch.org/memory_viz; a file a rank.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")] = None,
) -> None:
    """Measure memory and time of one training step, in separate passes.

    Example: [bold]python -m trainer measure --model tiny-moe --set plan.micro_batch=4 -o m.json[/bold]
    With a trace: [bold]python -m trainer measure --model tiny-moe --trace step.json.gz[/bold]
    With --levers: [bold]python -m trainer measure --levers --model tiny-moe --data simple-corpus[/bold]
    """
    from trainer.measure.request import Request, answer, answer_levers
    from trainer.measure.table import show_report
    from trainer.parallel.world import launched_rank

    console = stderr()
    request = Request(
        model=model, plan=plan, settings=set_ or [], data=data, device=device, seed=seed, repeats=repeats or REPEATS, threads=threads,
        check_allocator=check_allocator, trace=trace, snapshot=memory_snapshot,
    )  # fmt: skip
    if levers:
        if repeats is not None:
            raise ConfigurationError("--repeats does not go with --levers, whose steps are counted (legal: one of them)")
        from trainer.measure.lever_table import show_levers

        found = answer_levers(request, lambda line: console.print(line, markup=False))
        emit(found.model_dump(mode="json"), as_json=as_json, output=output, show=lambda out: show_levers(found, out))
        return
    first = launched_rank() == 0
    measurement = answer(request, lambda line: console.print(line) if first else None)
    report = measurement.report
    if not first:
        return
    emit(report.model_dump(mode="json"), as_json=as_json, output=output, show=lambda out: show_report(report, out))
    if measurement.allocator_agrees is False:
        raise CheckMissedError("the tracked peak and the allocator's differ by more than 0.01 % (see the notes)")
