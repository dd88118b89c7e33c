"""What no routing and no schedule can beat: lower bounds of a collective's transfer time."""

from dataclasses import dataclass

import numpy as np

from configuration.errors import ConfigurationError
from fabrics.collectives.schedule import Group
from fabrics.graph import Fabric
from fabrics.network import FloatArray

LP_VARIABLES_MOST = 12_000
WORK_SENDERS_MOST = 128
ENDPOINTS_MOST = 2048
ROUNDING = 1 - 1e-9
"""Bounds are lowered by this much, so that rounding never lifts one over what it bounds."""


@dataclass(frozen=True)
class Bound:
    """Lower bound of the transfer part and how it was found."""

    transfer_s: float
    method: str


def lower_bound(
    fabric: Fabric,
    collective: str,
    groups: list[Group],
    bytes_: float,
    rates: FloatArray,
    matrix: FloatArray | None = None,
    *,
    in_switch: bool = False,
) -> Bound:
    """Least transfer time that links of ``rates`` (bytes/s, one per link) allow for ``collective`` over ``groups`` at once.

    all-to-all and point-to-point: the maximum concurrent flow (a linear program) where it is small enough, else cuts. The others: cuts between
    the ranks of a switch, a node or a pod and the rest (each side needs the other's contribution once), and for all-reduce without sums
    in switches (not ``in_switch``) 2(p-1) buffers in all over the ranks' ports (Patarasuk and Yuan 2009, theorem 1).
    """
    if fabric.size > ENDPOINTS_MOST:
        raise ConfigurationError(f"bound: fabric {fabric.spec.name} has {fabric.size} endpoints; bounds are found for up to {ENDPOINTS_MOST}")
    demand = _demand(fabric, collective, groups, bytes_, matrix)
    if demand is not None:
        if not demand.any():
            return Bound(0.0, "nothing is sent")
        found = _concurrent_flow_s(fabric, demand, rates)
        if found is not None:
            return Bound(found * ROUNDING, "linear program (maximum concurrent flow)")
        return Bound(_cuts_s(fabric, demand, rates) * ROUNDING, "cuts (too large for the linear program)")
    return Bound(max((_group_s(fabric, collective, group, bytes_, rates, in_switch) for group in groups if group.size > 1), default=0.0) * ROUNDING, "cuts")


def _demand(fabric: Fabric, collective: str, groups: list[Group], bytes_: float, matrix: FloatArray | None) -> FloatArray | None:
    """Bytes from rank to rank where the collective fixes them."""
    if collective not in ("all-to-all", "point-to-point"):
        return None
    demand = np.zeros((fabric.size, fabric.size))
    for group in groups:
        if collective == "point-to-point":
            demand[group.ranks[0], group.ranks[-1]] += bytes_
        else:
            demand[np.ix_(group.ranks, group.ranks)] += bytes_ * (matrix if matrix is not None else 1 / group.size)
    np.fill_diagonal(demand, 0.0)
    return demand


def _concurrent_flow_s(fabric: Fabric, demand: FloatArray, rates: FloatArray) -> float | None:
    """1/theta of: maximise theta such that theta x demand is routed within ``rates``; None when the program would be too large.

    Endpoints that hang on one switch by one link are merged into it: their own link's time is plain, and sources of one switch are one commodity.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, hstack, kron
    from scipy.sparse import identity as eye

    number = {name: i for i, name in enumerate(fabric.graph.nodes)}
    tail = np.array([number[t] for t, _ in fabric.links])
    head = np.array([number[h] for _, h in fabric.links])
    at = np.array([number[name] for name in fabric.endpoints])
    inner = np.ones(len(tail), dtype=bool)
    least_s = 0.0
    for rank, node in enumerate(at.tolist()):
        out, back = np.flatnonzero(tail == node), np.flatnonzero(head == node)
        if len(out) == len(back) == 1 and head[out[0]] == tail[back[0]]:
            least_s = max(least_s, demand[rank].sum() / rates[out[0]], demand[:, rank].sum() / rates[back[0]])
            at[rank] = head[out[0]]
            inner[[out[0], back[0]]] = False
    wanted = np.zeros((len(number), len(number)))
    np.add.at(wanted, (at[:, None], at[None, :]), demand)
    np.fill_diagonal(wanted, 0.0)
    sources = np.flatnonzero(wanted.any(axis=1))
    tail, head, rate = tail[inner], head[inner], rates[inner]
    if not len(sources):
        return least_s
    links, nodes = len(tail), len(number)
    if links * len(sources) > LP_VARIABLES_MOST:
        return None
    # Columns: flow of each source on each link, then theta. Scaled so that rates and demands are near 1.
    unit = rate.max()
    incidence = coo_array((np.r_[np.ones(links), -np.ones(links)], (np.r_[head, tail], np.tile(np.arange(links), 2))), shape=(nodes, links)).tocsr()
    arrive = wanted[sources] / wanted.max()
    arrive[np.arange(len(sources)), sources] = -arrive.sum(axis=1)
    balance = hstack([kron(eye(len(sources)), incidence), csr_array(-arrive.reshape(-1, 1))]).tocsr()
    capacity = hstack([kron(np.ones((1, len(sources))), eye(links)), csr_array((links, 1))]).tocsr()
    solution = linprog(
        np.r_[np.zeros(links * len(sources)), -1.0], A_ub=capacity, b_ub=rate / unit, A_eq=balance, b_eq=np.zeros(balance.shape[0]), method="highs"
    )
    theta = float(solution.x[-1]) * unit / wanted.max()
    return float(max(least_s, 1 / theta))


@dataclass(frozen=True)
class _Side:
    """A set of nodes to cut off: the ranks among them and the capacity of the links that leave and enter it."""

    ranks: frozenset[int]
    out_bytes_per_s: float
    into_bytes_per_s: float


def _sides(fabric: Fabric, rates: FloatArray) -> list[_Side]:
    """Each rank alone, and what hangs together under each tier of switches (nodes, leaves, pods)."""
    import networkx as nx

    rank_of = {name: rank for rank, name in enumerate(fabric.endpoints)}
    parts = {frozenset([name]) for name in fabric.endpoints}
    for top in {tier for _, tier in fabric.graph.nodes(data="tier")}:
        below = fabric.graph.subgraph([name for name, tier in fabric.graph.nodes(data="tier") if tier <= top])
        parts |= {frozenset(part) for part in nx.weakly_connected_components(below)}
    rate = dict(zip(fabric.links, rates.tolist(), strict=True))
    sides = []
    for part in parts:
        out = sum(rate[link] for link in fabric.graph.out_edges(part) if link[1] not in part)
        into = sum(rate[link] for link in fabric.graph.in_edges(part) if link[0] not in part)
        if out and into:
            sides.append(_Side(frozenset(rank_of[name] for name in part if name in rank_of), out, into))
    return sides


def _cuts_s(fabric: Fabric, demand: FloatArray, rates: FloatArray) -> float:
    """Cuts, and the work bound: every byte takes at least as many links as the shortest way has, and all links together carry so much per second."""
    sides = _sides(fabric, rates)
    inside = np.zeros((len(sides), fabric.size))
    for row, side in zip(inside, sides, strict=True):
        row[list(side.ranks)] = 1
    out = (inside @ demand * (1 - inside)).sum(axis=1) / [side.out_bytes_per_s for side in sides]
    into = (inside @ demand.T * (1 - inside)).sum(axis=1) / [side.into_bytes_per_s for side in sides]
    return float(max(out.max(), into.max(), _work_s(fabric, demand, rates)))


def _work_s(fabric: Fabric, demand: FloatArray, rates: FloatArray) -> float:
    import networkx as nx

    senders = np.flatnonzero(demand.any(axis=1))
    if len(senders) > WORK_SENDERS_MOST:
        return 0.0
    links = 0.0
    for rank in senders.tolist():
        hops = nx.single_source_shortest_path_length(fabric.graph, fabric.endpoints[rank])
        links += sum(demand[rank, to] * hops[fabric.endpoints[to]] for to in np.flatnonzero(demand[rank]).tolist())
    return float(links / rates.sum())


def _group_s(fabric: Fabric, collective: str, group: Group, bytes_: float, rates: FloatArray, in_switch: bool) -> float:
    p, members = group.size, set(group.ranks.tolist())
    bound, ports = 0.0, 0.0
    for side in _sides(fabric, rates):
        near = len(side.ranks & members)
        far = p - near
        if not near or not far:
            continue
        out, into = side.out_bytes_per_s, side.into_bytes_per_s
        if len(side.ranks) == 1:
            ports += out
        if collective == "all-reduce":
            bound = max(bound, bytes_ / min(out, into))
        elif collective == "broadcast":
            bound = max(bound, bytes_ / (out if int(group.ranks[0]) in side.ranks else into))
        elif collective == "all-gather":
            bound = max(bound, bytes_ * near / p / out, bytes_ * far / p / into)
        else:
            bound = max(bound, bytes_ * far / p / out, bytes_ * near / p / into)
    if collective == "all-reduce" and not in_switch:
        bound = max(bound, 2 * (p - 1) * bytes_ / ports)
    return bound
