"""One question of the command line, "what does this collective cost?", and its answer as a document and as tables."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fabrics.bounds import lower_bound
from fabrics.collectives import IN_SWITCH
from fabrics.cost import CollectiveCost, Placement, cost, groups_of
from fabrics.graph import Fabric
from fabrics.placement import groups
from fabrics.profiles import payload_bytes_per_s
from fabrics.units import bytes_text, rate, seconds

if TYPE_CHECKING:
    from rich.console import Console

HOT_LINKS = 8


@dataclass(frozen=True)
class Question:
    """A collective, its sizes in bytes (per collective as ``cost`` counts them), and who takes part."""

    op: str
    sizes_bytes: tuple[float, ...]
    placement: Placement
    algorithm: str

    @classmethod
    def of(
        cls,
        fabric: Fabric,
        op: str,
        sizes_bytes: list[float],
        *,
        per_pair: bool = False,
        ranks: int | None = None,
        group_size: int | None = None,
        strided: bool = False,
        algorithm: str = "auto",
    ) -> Self:
        """The question for groups of neighbouring or strided ranks; ``per_pair``: sizes are those of one pair of an all-to-all."""
        placement = groups(fabric, ranks, group_size, strided=strided)
        times = len(placement[0]) if per_pair else 1
        return cls(op, tuple(size * times for size in sizes_bytes), placement, algorithm)


def answer(fabric: Fabric, question: Question, *, bound: bool = False, seeds: int | None = None) -> dict[str, Any]:
    """The document: one row per size; with a single size its fields also stand on top."""
    costs = cost(fabric, question.op, question.placement, question.sizes_bytes, algorithm=question.algorithm)
    rows = []
    for i, size in enumerate(question.sizes_bytes):
        row: dict[str, Any] = {
            "bytes": size,
            "time_s": float(costs.time_s[i]),
            "latency_s": float(costs.latency_s[i]),
            "transfer_s": float(costs.transfer_s[i]),
            "algorithm": costs.algorithm[i],
            "protocol": costs.protocol[i],
            "bottleneck": costs.bottleneck[i],
        }
        if bound:
            row |= _bound(fabric, question, costs, i)
        if seeds is not None:
            row["over_seeds"] = over_seeds(fabric, question, size, seeds)
        rows.append(row)
    document: dict[str, Any] = {
        "schema_version": 1,
        "fabric": fabric.spec.name,
        "op": question.op,
        "groups": len(question.placement),
        "ranks_per_group": len(question.placement[0]),
        "routing": fabric.spec.routing.model_dump(),
        "link_profile": fabric.spec.link_profile.name,
        "rows": rows,
        "hot_links": hot_links(costs),
    }
    return document | rows[0] if len(rows) == 1 else document


def _bound(fabric: Fabric, question: Question, costs: CollectiveCost, index: int) -> dict[str, Any]:
    line = costs.lines[index]
    if line is None:
        return {"lower_bound_s": 0.0, "bound_method": "nothing is sent"}
    rates = payload_bytes_per_s(fabric.spec.link_profile, fabric, question.op, line.protocol)
    found = lower_bound(fabric, question.op, groups_of(fabric, question.placement), question.sizes_bytes[index], rates, in_switch=line.algorithm in IN_SWITCH)
    return {"lower_bound_s": found.transfer_s, "bound_method": found.method}


def over_seeds(fabric: Fabric, question: Question, size: float, seeds: int) -> dict[str, float]:
    """Transfer time under per-flow ECMP over ``seeds`` hashes: mean, deciles, worst; and under ideal splitting."""
    ecmp = fabric.spec.routing.model_copy(update={"mode": "ecmp"})
    transfer_s = [
        cost(fabric, question.op, question.placement, size, algorithm=question.algorithm, routing=ecmp.model_copy(update={"seed": seed})).transfer_s[0]
        for seed in range(seeds)
    ]
    ideal = cost(fabric, question.op, question.placement, size, algorithm=question.algorithm, routing=ecmp.model_copy(update={"mode": "ideal"}))
    low, high = np.percentile(transfer_s, [10, 90])
    return {
        "seeds": seeds,
        "transfer_mean_s": float(np.mean(transfer_s)),
        "transfer_p10_s": float(low),
        "transfer_p90_s": float(high),
        "transfer_worst_s": float(np.max(transfer_s)),
        "transfer_ideal_s": float(ideal.transfer_s[0]),
    }


def hot_links(costs: CollectiveCost, most: int = HOT_LINKS) -> list[dict[str, Any]]:
    """The busiest links at the largest size: bytes, rate, share of the transfer time that they are busy."""
    index = int(np.argmax(costs.sizes_bytes))
    line = costs.lines[index]
    if line is None:
        return []
    busy_share = costs.busy_share(index)
    return [
        {
            "link": line.network.link_name(link),
            "bytes": float(costs.link_bytes(index)[link]),
            "bytes_per_s": float(line.network.bytes_per_s[link]),
            "busy_share": float(busy_share[link]),
        }
        for link in np.argsort(-busy_share, kind="stable")[:most].tolist()
        if busy_share[link] > 0
    ]


def show(document: dict[str, Any], console: "Console") -> None:
    """Tables of a document."""
    from rich import box
    from rich.table import Table

    groups_text = f"{document['groups']} groups of {document['ranks_per_group']} ranks" if document["groups"] > 1 else f"{document['ranks_per_group']} ranks"
    routing = document["routing"]
    console.print(f"[bold]{document['op']}[/bold] on {document['fabric']}, {groups_text}, routing {routing['mode']}, link profile {document['link_profile']}")
    table = Table(box=box.SIMPLE_HEAD)
    bounded = "lower_bound_s" in document["rows"][0]
    for heading in ("bytes", "time", "latency", "transfer", *(["lower bound"] if bounded else []), "algorithm", "protocol", "hottest link"):
        table.add_column(heading, justify="left" if heading in ("algorithm", "protocol", "hottest link") else "right")
    for row in document["rows"]:
        cells = [bytes_text(row["bytes"]), seconds(row["time_s"]), seconds(row["latency_s"]), seconds(row["transfer_s"])]
        cells += [seconds(row["lower_bound_s"])] if bounded else []
        table.add_row(*cells, row["algorithm"], row["protocol"], row["bottleneck"])
    console.print(table)
    if bounded:
        console.print(f"lower bound of the transfer by {document['rows'][0]['bound_method']}, at the payload rates of the link profile")
    for row in document["rows"]:
        if spread := row.get("over_seeds"):
            console.print(
                f"per-flow ECMP over {spread['seeds']} seeds, transfer of {bytes_text(row['bytes'])}: mean {seconds(spread['transfer_mean_s'])}, "
                f"p10 to p90 {seconds(spread['transfer_p10_s'])} to {seconds(spread['transfer_p90_s'])}, worst {seconds(spread['transfer_worst_s'])}; "
                f"ideal splitting {seconds(spread['transfer_ideal_s'])}"
            )
    hot = Table("link", box=box.SIMPLE_HEAD)
    for heading in ("bytes", "rate", "busy"):
        hot.add_column(heading, justify="right")
    for link in document["hot_links"]:
        hot.add_row(link["link"], bytes_text(link["bytes"]), rate(link["bytes_per_s"]), f"{link['busy_share']:.0%}")
    console.print(hot)
