"""``bench`` on the command line: parses and prints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from configuration.command import emit, stderr
from configuration.files import write_atomically

REPEATS = 7


def bench(
    kernel: Annotated[
        list[str] | None, typer.Option("--kernel", help="Operation whose kernels run against each other: norm, swiglu, experts, ... Repeatable; default: all.")
    ] = None,
    suite: Annotated[
        Literal["device", "training", "losses", "plans"] | None,
        typer.Option(
            "--suite",
            help="device: what calibration fits. training: steps against others'. losses: variants over 200 steps. plans: shares of the GEMM rate.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Sizes of kernels: shape.tokens=1024,4096, lists make a grid; of suites shape.model=NAME. Repeatable.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Python file with KERNELS = {operation: {name: function}}, run beside ours.")] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto takes CUDA where it is there.")] = "auto",
    dtype: Annotated[Literal["fp32", "bf16"] | None, typer.Option("--dtype", help="Default: bf16 on CUDA, fp32 on CPU.")] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help=f"Measurements of each time, of which the median is taken; at least 5. Default: {REPEATS}.")
    ] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="Draw the kernels under the measured roofline into this PNG.")] = None,
    hugging_face: Annotated[bool, typer.Option("--hugging-face", help="Suite training: also the transformers library.")] = False,
    ranks: Annotated[int | None, typer.Option("--ranks", min=2, help="Suite device: processes of the collectives. Default: 2.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Suite device: also write the rows as lines, as 'calibration fit' and fabrics read them.")
    ] = None,
) -> None:
    """Time kernels forward and backward, against the device's roofline and against float64.

    On CUDA replays of a CUDA graph are timed; what cannot be captured in one is issued by the host, and its record says so (issued: graph or host).

    Example: [bold]python -m trainer bench --kernel swiglu --set shape.tokens=1024,4096 --figure roofline.png[/bold]
    """
    from trainer.bench.request import Request, answer
    from trainer.bench.table import show_answer

    console = stderr()
    found = answer(
        Request(
            kernels=kernel or [], settings=set_ or [], suite=suite, file=file, device=device, dtype=dtype,
            repeats=REPEATS if repeats is None else repeats, repeats_given=repeats is not None, figure=figure,
            hugging_face=hugging_face, ranks=ranks, probes=probes is not None,
        ),
        lambda line: console.print(line),
    )  # fmt: skip
    if probes is not None:
        write_atomically(probes, _lines(found.document))
    emit(found.document, as_json=as_json, output=output, show=lambda out: show_answer(found, out))


def _lines(document: dict[str, object]) -> str:
    """The rows of the device suite, one JSON object a line, after one that names the device."""
    import json

    provenance, rows, collectives = document["provenance"], document["rows"], document["collectives"]
    assert isinstance(provenance, dict)
    assert isinstance(rows, list)
    assert isinstance(collectives, list)
    first = {"kind": "device", "name": provenance["device"], "memory_bytes": provenance.get("memory_bytes"), **provenance["versions"]}
    return "".join(f"{json.dumps(row)}\n" for row in (first, *rows, *collectives))
