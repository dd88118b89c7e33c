"""The single failures that cost the walked all-to-all most."""

from fabrics.explain.sections import Rows, Section
from fabrics.explain.walk import Walk
from fabrics.failures import by_cost, candidates
from fabrics.graph import Fabric
from fabrics.network import FloatArray
from fabrics.units import seconds

TRIED_MOST = 64
SHOWN = 8


def section(fabric: Fabric, walk: Walk, busy: FloatArray | None) -> Section:
    """A table of the worst; of many candidates those are tried that carry most."""
    title = "Worst single failure"
    if busy is None or len(walk.ranks) < 2:
        return Section(title, ("Not looked for: the fabric is too large to look at link by link, or one rank is alone.",))
    now_s = float(walk.cost(fabric).time_s[0])
    names = candidates(fabric)
    load: dict[str, float] = {}
    for (tail, head), share in zip(fabric.links, busy.tolist(), strict=True):
        for name in (tail, head, f"{tail}:{head}", f"{head}:{tail}"):
            load[name] = load.get(name, 0.0) + share
    tried = sorted((name for name in names if load[name] > 0), key=lambda name: -load[name])[:TRIED_MOST]
    if not tried:
        return Section(title, ("Nothing can fail without cutting an accelerator off: there is one switch only, or none.",))
    worst = by_cost(fabric, tried, lambda changed: float(walk.cost(changed).time_s[0]))
    rows = tuple(
        (failure.name, "cut off", "") if failure.time_s == float("inf") else (failure.name, seconds(failure.time_s), f"{failure.time_s / now_s:.2f}")
        for failure in worst[:SHOWN]
    )
    text = f"{len(tried)} of {len(names)} switches and links that can fail were tried, one at a time; without a failure: {seconds(now_s)}."
    return Section(title, (text,), (Rows(("failed", "time of the all-to-all", "times"), rows),), data={"worst": worst[0].name})
