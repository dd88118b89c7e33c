"""Command line of the fabrics: parses and prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configuration.command import emit, new_app

if TYPE_CHECKING:
    from fabrics.graph import Fabric

app = new_app("The network of a training job as a graph: what collectives cost on it, and why.")

FabricOption = Annotated[str, typer.Option("--fabric", help="Preset (see 'list'), YAML file or GraphML file.", show_default=False)]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a field: fabric.oversubscription=4. Repeatable.")]
RoutingOption = Annotated[str | None, typer.Option("--routing", help="ideal, ecmp or static; default: the fabric's own.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the ECMP hash.")]
FlowsOption = Annotated[int | None, typer.Option("--flows-per-pair", min=1, help="Subflows that ECMP hashes apart.")]
FailOption = Annotated[list[str] | None, typer.Option("--fail", help="A switch or link that is down: spine1, leaf0:spine0. Repeatable.")]
SlowOption = Annotated[list[str] | None, typer.Option("--slow", help="A link at a share of its rate: leaf0:spine0=0.5. Repeatable.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
OutputOption = Annotated[Path | None, typer.Option("-o", "--output", help="Write the JSON document to this file.")]


@app.command("list")
def list_(as_json: JsonOption = False, output: OutputOption = None) -> None:
    """Presets, link profiles, topologies, collectives. Example: [bold]python -m fabrics list[/bold]."""
    from fabrics.listing import document, show

    result = document()
    emit(result, as_json=as_json, output=output, show=lambda console: show(result, console))


@app.command("show")
def show_(
    name: Annotated[str | None, typer.Argument(help="Preset or link profile.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of fabric files, for editors.")] = False,
) -> None:
    """Print a preset to edit, or the schema. Example: [bold]python -m fabrics show spine-leaf > mine.yaml[/bold]."""
    from fabrics.listing import schema_text, yaml_text

    if schema:
        typer.echo(schema_text(), nl=False)
    elif name is None:
        raise typer.BadParameter("give a name, or --schema")
    else:
        typer.echo(yaml_text(name), nl=False)


@app.command()
def collective(
    fabric: FabricOption,
    op: Annotated[str, typer.Option("--op", help="all-reduce, all-gather, reduce-scatter, all-to-all, broadcast, point-to-point.")],
    bytes_: Annotated[str | None, typer.Option("--bytes", help="Size, or several with commas (see the README for what it counts).")] = None,
    bytes_per_pair: Annotated[float | None, typer.Option("--bytes-per-pair", min=0, help="All-to-all: what each rank sends to each other one.")] = None,
    ranks: Annotated[int | None, typer.Option("--ranks", help="The first N endpoints; default all.")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="Cut the ranks into groups that all run the collective at once.")] = None,
    strided: Annotated[bool, typer.Option("--strided", help="Groups of ranks that are far apart instead of neighbours.")] = False,
    algorithm: Annotated[str, typer.Option("--algorithm", help="auto takes the quickest, nccl what NCCL's tuning model takes.")] = "auto",
    routing: RoutingOption = None,
    seed: SeedOption = None,
    flows_per_pair: FlowsOption = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help="Spread of the time over that many ECMP seeds.")] = None,
    fail: FailOption = None,
    slow: SlowOption = None,
    bound: Annotated[bool, typer.Option("--bound", help="Also the least transfer time that any routing could reach.")] = False,
    set_: SetOption = None,
    as_json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """What a collective costs. Example: [bold]python -m fabrics collective --fabric spine-leaf --op all-to-all --bytes-per-pair 1e6[/bold]."""
    from fabrics.question import Question, answer, show
    from fabrics.sizes import sizes

    network = load(fabric, set_, routing, seed, flows_per_pair, fail, slow)
    question = Question.of(
        network,
        op,
        sizes(bytes_, bytes_per_pair, op),
        per_pair=bytes_per_pair is not None,
        ranks=ranks,
        group_size=group_size,
        strided=strided,
        algorithm=algorithm,
    )
    result = answer(network, question, bound=bound, seeds=seeds)
    emit(result, as_json=as_json, output=output, show=lambda console: show(result, console))


@app.command()
def explain(
    fabric: FabricOption,
    bytes_per_pair: Annotated[float, typer.Option("--bytes-per-pair", min=1, help="Of the all-to-all that is walked through.")] = 1e6,
    ranks: Annotated[int | None, typer.Option("--ranks", help="Ranks of that all-to-all; default all, at most 64.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="Show the path between these two accelerators: gpu0:gpu5; default one of each kind.")] = None,
    routing: RoutingOption = None,
    seed: SeedOption = None,
    flows_per_pair: FlowsOption = None,
    fail: FailOption = None,
    slow: SlowOption = None,
    worst_failure: Annotated[bool, typer.Option("--worst-failure", help="Also find the single failure that costs that all-to-all most.")] = False,
    png: Annotated[Path | None, typer.Option("--png", help="Draw the tiers with links coloured by load to this file.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write everything as one offline page to this file.")] = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """What leaves, spines and oversubscription are, on this very fabric. Example: [bold]python -m fabrics explain --fabric spine-leaf[/bold]."""
    from fabrics.explain.explanation import explain as explain_fabric
    from fabrics.explain.paths import named_pair
    from fabrics.explain.terminal import show
    from fabrics.explain.walk import walk_over

    network = load(fabric, set_, routing, seed, flows_per_pair, fail, slow)
    ranks_shown = None if pair is None else named_pair(network, pair)
    explanation = explain_fabric(network, walk_over(network, ranks, bytes_per_pair), worst_failure=worst_failure, pair=ranks_shown)
    if png is not None:
        from fabrics.explain.drawing import tiers_figure, write_png

        write_png(tiers_figure(network, explanation.busy), png)
    if html is not None:
        from fabrics.explain.page import write_page

        write_page(explanation, html)
    emit(explanation.document(), as_json=as_json, output=output, show=lambda console: show(explanation, console))


@app.command()
def lab(
    fabric: FabricOption,
    bytes_per_pair: Annotated[int, typer.Option("--bytes-per-pair", min=1, help="What each host sends to each other one.")] = 500_000,
    host_bytes_per_s: Annotated[float, typer.Option("--host-bytes-per-s", min=1e5, help="Rate of a host's link in the lab; others in proportion.")] = 3.125e6,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Exchanges; each is hashed anew.")] = 3,
    fail: FailOption = None,
    slow: SlowOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    output: OutputOption = None,
) -> None:
    """Send an all-to-all for real through a small fabric emulated at a fraction of its rates (Linux, root), beside the prediction.

    Example: [bold]python -m fabrics lab --fabric spine-leaf[/bold].
    """
    from fabrics.lab.experiment import measure, show

    result = measure(load(fabric, set_, fail=fail, slow=slow), bytes_per_pair, host_bytes_per_s, repeats)
    emit(result, as_json=as_json, output=output, show=lambda console: show(result, console))


def load(
    name: str,
    set_: list[str] | None,
    routing: str | None = None,
    seed: int | None = None,
    flows_per_pair: int | None = None,
    fail: list[str] | None = None,
    slow: list[str] | None = None,
) -> "Fabric":
    """The fabric that the shared options describe."""
    from configuration.overrides import parse_single
    from fabrics.loading import load_fabric
    from fabrics.placement import faults

    overrides = parse_single(set_ or [], ["fabric"]).get("fabric", {})
    for field, value in (("mode", routing), ("seed", seed), ("flows_per_pair", flows_per_pair)):
        if value is not None:
            overrides[f"routing.{field}"] = value
    return faults(load_fabric(name, overrides), fail or [], slow or [])
