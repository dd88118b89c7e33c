"""An inspection on the screen."""

import math
from typing import TYPE_CHECKING

from rich.table import Table

from trainer.inspection.attention import AttentionMaps
from trainer.inspection.expert_load import LayerLoad
from trainer.inspection.inspection import Inspection
from trainer.inspection.loss_by_position import LossByPosition, PositionRange

if TYPE_CHECKING:
    from rich.console import Console

LISTED_EXPERTS = 16
"""With more experts the shares stand in the figure and the document alone."""


def show_inspection(inspection: Inspection, console: "Console") -> None:
    """Print expert load, loss by position and the habits of the heads."""
    console.print(f"{inspection.tokens:,} of {inspection.of_tokens:,} validation tokens")
    console.print(_load(inspection.loads) if inspection.loads else "expert load: a dense model has none")
    console.print(_positions(inspection.loss))
    console.print(inspection.loss.verdict, markup=False)
    console.print(_heads(inspection.attention))
    shown = len(inspection.attention.tokens)
    console.print(f"attention over the first {shown:,} of {inspection.attention.of_tokens:,} tokens of: {inspection.text_source}", markup=False)


def _load(loads: tuple[LayerLoad, ...]) -> Table:
    table = _table("expert load", "layer", "top-k", "max/mean", "entropy, nats", "of even", "dead experts", "share of choices by expert")
    for load in loads:
        even = math.log(len(load.counts))
        dead = ", ".join(map(str, load.dead)) or "none"
        shares = " ".join(f"{share:.1%}" for share in load.shares) if len(load.counts) <= LISTED_EXPERTS else f"{len(load.counts)} experts: see the figure"
        of_even = f"{load.entropy_nats / even:.1%}" if even else "100.0%"
        table.add_row(str(load.layer), str(load.top_k), f"{load.max_over_mean:.2f}", f"{load.entropy_nats:.3f}", of_even, dead, shares)
    return table


def _positions(loss: LossByPosition) -> Table:
    table = _table("loss by position", "positions", "loss, nats/token", "standard error")
    for part in loss.ranges[:-1]:
        table.add_row(*_range(part))
    table.add_section()
    table.add_row(*_range(loss.ranges[-1]))
    return table


def _range(part: PositionRange) -> tuple[str, str, str]:
    positions = str(part.first) if part.first == part.last else f"{part.first} to {part.last}"
    error = part.standard_error_nats_per_token
    return positions, f"{part.loss_nats_per_token:.4f}", "" if error is None else f"{error:.4f}"


def _heads(maps: AttentionMaps) -> Table:
    """Means over the heads of a layer; each head stands in the document."""
    columns = {"to_itself": "to itself", "to_previous": "to the previous token", "to_first": "to the first token", "distance_tokens": "tokens looked back"}
    table = _table("attention, mean over heads", "layer", *columns.values())
    heads = maps.as_dict()["heads"]
    for layer in range(len(maps.weights_LHSS)):
        of_layer = [head for head in heads if head["layer"] == layer]
        known = of_layer[0]["to_itself"] is not None
        means = {key: sum(head[key] for head in of_layer) / len(of_layer) for key in columns} if known else {}
        table.add_row(str(layer), *((f"{means[key]:.2f}" if key == "distance_tokens" else f"{means[key]:.1%}") if known else "" for key in columns))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index == 0 or name.startswith("share") else "right")
    return table
