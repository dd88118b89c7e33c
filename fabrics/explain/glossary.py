"""Terms, formulas, the constants in use with their sources, and what the model leaves out."""

from fabrics.explain.sections import Rows, Section
from fabrics.graph import Fabric
from fabrics.spec import Constant

TERMS = (
    ("leaf", "a switch that hosts plug into"),
    ("spine", "a switch that only joins leaves: two leaves are as many equal paths apart as there are spines"),
    ("core", "a third tier that joins the spines of several pods"),
    ("oversubscription", "bandwidth of a switch towards the hosts over its bandwidth away from them"),
    ("bisection", "least capacity between two halves of the ranks"),
    ("rail", "the k-th port of every node, all on the same leaf"),
    ("plane", "an independent copy of the whole network"),
    ("ECMP", "each flow is hashed to one of the equal paths"),
    ("latency (alpha)", "cost of a message before its first byte arrives: software on both ends and the wire"),
    ("knee", "size at which latency and transfer are equal"),
)
FORMULAS = (
    ("time of a phase", "software overhead + wire latency + max over links of (bytes + opposing x bytes the other way) / (rate x efficiency)"),
    ("ring all-reduce", "2(p-1) steps, 2(p-1)/p of the buffer over each link"),
    ("all-gather, reduce-scatter", "p-1 steps, (p-1)/p of the full vector over each link"),
    ("all-to-all", "p-1 messages at once; leaf bound h(p-h) bytes per pair / (uplinks x rate)"),
    ("oversubscription o", "slows an all-to-all by max(1, o (p-h)/(p-1)) with h ranks per leaf"),
)
LIMITS = (
    "Flows, not packets: no queues, no congestion control, no retransmission. Packet simulators with spraying come within 5 to 10 % of "
    "the same transfer up to 2:1, 21 to 26 % at 4:1.",
    "All messages of a phase start together and share links in proportion to their size; cut-through, so the wire's latency counts once per step.",
    "Collectives of different kinds do not share links here: several groups at once run the same collective.",
    "Routes are shortest paths; no adaptive detours over longer ones.",
)


def section(fabric: Fabric) -> Section:
    """Everything one needs to check a number by hand."""
    constants = []
    for name, protocol in fabric.spec.link_profile.protocols.items():
        constants.append(_row(f"{name}.base_s", protocol.base_s))
        for field in ("overhead_s", "gap_s", "efficiency", "opposing"):
            constants += [_row(f"{name}.{field}.{kind}", constant) for kind, constant in getattr(protocol, field).items()]
    sources = tuple((field, "spec" if not text.startswith("assumed") else "assumed", text) for field, text in fabric.spec.sources.items())
    tables = (
        Rows(("term", "meaning"), TERMS),
        Rows(("what", "formula"), FORMULAS),
        Rows((f"link profile {fabric.spec.link_profile.name}", "value", "source", "cite"), tuple(constants)),
        *((Rows((f"fabric {fabric.spec.name}", "source", "cite"), sources),) if sources else ()),
    )
    return Section("Terms, formulas, constants, limits", LIMITS, tables)


def _row(name: str, constant: Constant) -> tuple[str, str, str, str]:
    error = f" ± {constant.standard_error:g}" if constant.standard_error is not None else ""
    return name, f"{constant.value:g}{error}", constant.source, constant.cite
