"""What no routing and no schedule can beat: lower bounds of a collective's transfer time."""

from dataclasses import dataclass

import numpy as np

from fabrics.collectives.schedule import Group
from fabrics.graph import Fabric, FloatArray

LP_VARIABLES_MOST = 60_000
ROUNDING = 1 - 1e-9
"""Bounds are lowered by this much, so that rounding never lifts one over what it bounds."""


@dataclass(frozen=True)
class Bound:
    """Lower bound of the transfer part and how it was found."""

    transfer_s: float
    method: str


def lower_bound(fabric: Fabric, collective: str, groups: list[Group], bytes_: float, rates: FloatArray, matrix: FloatArray | None = None) -> Bound:
    """Least transfer time that links of ``rates`` (bytes/s, one per link) allow for ``collective`` over ``groups`` at once.

    all-to-all and point-to-point: the maximum concurrent flow (a linear program) where it is small enough, else cuts. The others: cuts between
    the ranks of a switch, a node or a pod and the rest (each side needs the other's contribution once), and for all-reduce without sums
    in switches 2(p-1) buffers in all over the ranks' ports (Patarasuk and Yuan 2009, theorem 1).
    """
    demand = _demand(fabric, collective, groups, bytes_, matrix)
    if demand is not None:
        if not demand.any():
            return Bound(0.0, "nothing is sent")
        found = _concurrent_flow_s(fabric, demand, rates)
        if found is not None:
            return Bound(found * ROUNDING, "linear program (maximum concurrent flow)")
        return Bound(_cuts_s(fabric, demand, rates) * ROUNDING, "cuts (too large for the linear program)")
    return Bound(max((_group_s(fabric, collective, group, bytes_, rates) for group in groups if group.size > 1), default=0.0) * ROUNDING, "cuts")


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


def _sides(fabric: Fabric) -> list[set[int]]:
    """Sets of ranks worth cutting off: each alone, and those on the near side of each switch tier (nodes, leaves, pods)."""
    import networkx as nx

    rank_of = {name: rank for rank, name in enumerate(fabric.endpoints)}
    sides = {frozenset([rank]) for rank in range(fabric.size)}
    tiers = sorted({tier for _, tier in fabric.graph.nodes(data="tier")})
    for top in tiers:
        below = fabric.graph.subgraph([name for name, tier in fabric.graph.nodes(data="tier") if tier <= top])
        for part in nx.weakly_connected_components(below):
            sides.add(frozenset(rank_of[name] for name in part if name in rank_of))
    for domain in np.unique(fabric.domains):
        sides.add(frozenset(np.flatnonzero(fabric.domains == domain).tolist()))
    return [set(side) for side in sides if 0 < len(side) < fabric.size]


def _cut_bytes_per_s(fabric: Fabric, inside: set[int], rates: FloatArray) -> tuple[float, float]:
    """Least capacity out of and into a set of ranks: minimum cuts against all other ranks."""
    import networkx as nx

    graph = nx.DiGraph()
    for (tail, head), rate in zip(fabric.links, rates.tolist(), strict=True):
        graph.add_edge(tail, head, capacity=rate)
    for rank, name in enumerate(fabric.endpoints):
        one, other = ("inside", name) if rank in inside else ("outside", name)
        graph.add_edge(one, other)
        graph.add_edge(other, one)
    return float(nx.maximum_flow_value(graph, "inside", "outside")), float(nx.maximum_flow_value(graph, "outside", "inside"))


def _cuts_s(fabric: Fabric, demand: FloatArray, rates: FloatArray) -> float:
    bound = 0.0
    for side in _sides(fabric):
        inside = np.isin(np.arange(fabric.size), list(side))
        out, into = _cut_bytes_per_s(fabric, side, rates)
        bound = max(bound, demand[np.ix_(inside, ~inside)].sum() / out, demand[np.ix_(~inside, inside)].sum() / into)
    return bound


def _group_s(fabric: Fabric, collective: str, group: Group, bytes_: float, rates: FloatArray) -> float:
    p, members = group.size, set(group.ranks.tolist())
    bound = 0.0
    ports = 0.0
    for side in _sides(fabric):
        near = side & members
        far = p - len(near)
        if not near or not far:
            continue
        out, into = _cut_bytes_per_s(fabric, side, rates)
        if len(side) == 1:
            ports += out
        if collective == "all-reduce":
            bound = max(bound, bytes_ / min(out, into))
        elif collective == "broadcast":
            bound = max(bound, bytes_ / (out if int(group.ranks[0]) in near else into))
        elif collective == "all-gather":
            bound = max(bound, bytes_ * len(near) / p / out, bytes_ * far / p / into)
        else:
            bound = max(bound, bytes_ * far / p / out, bytes_ * len(near) / p / into)
    if collective == "all-reduce":
        bound = max(bound, 2 * (p - 1) * bytes_ / ports)
    return bound
