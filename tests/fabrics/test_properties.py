"""What must hold on any connected network, drawn by hypothesis."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configuration.spec import validated
from fabrics.bounds import lower_bound
from fabrics.cost import cost, groups_of
from fabrics.graph import Fabric
from fabrics.loading import LINK_PROFILES, build
from fabrics.spec import FabricSpec, Routing
from fabrics.topologies.explicit import Explicit

IDEAL = LINK_PROFILES.load("ideal")
RATES = st.sampled_from([5e9, 12.5e9, 25e9, 50e9, 70e9])


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """A random tree of switches with some further links, accelerators hanging on any switch or, now and then, on another accelerator."""
    switches = [f"s{i}" for i in range(draw(st.integers(1, 6)))]
    accelerators = [f"a{i}" for i in range(draw(st.integers(2, 8)))]
    pairs = [(switches[draw(st.integers(0, i - 1))], switches[i]) for i in range(1, len(switches))]
    pairs += [(one, other) for i, one in enumerate(switches) for other in switches[i + 1 :] if (one, other) not in pairs and draw(st.booleans())]
    for i, accelerator in enumerate(accelerators):
        hosts = switches if i == 0 or draw(st.integers(0, 4)) else accelerators[:i]
        pairs.append((accelerator, hosts[draw(st.integers(0, len(hosts) - 1))]))
    links = [{"between": pair, "bytes_per_s": draw(RATES), "latency_s": draw(st.sampled_from([0.0, 1e-7, 1e-6]))} for pair in pairs]
    return {"accelerators": accelerators, "switches": dict.fromkeys(switches, "switch"), "links": links}


def fabric_of(network: dict[str, Any]) -> Fabric:
    return build(validated(Explicit, {"kind": "explicit", "name": "drawn", "device": "cpu", "link_profile": IDEAL, **network}, "test"))


def demand_of(p: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 5, (p, p)) * 1e6


quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(networks(), st.sampled_from(["ideal", "ecmp", "static"]), st.integers(0, 100))
def test_transfer_is_never_under_the_linear_program(network: dict[str, Any], mode: Any, seed: int) -> None:
    fabric = fabric_of(network)
    group = tuple(range(fabric.size))
    routing = Routing(mode=mode, seed=seed)
    even = cost(fabric, "all-to-all", [group], 1e6 * fabric.size, routing=routing).transfer_s[0]
    assert even >= lower_bound(fabric, "all-to-all", groups_of(fabric, [group]), 1e6 * fabric.size, fabric.bytes_per_s).transfer_s
    matrix = demand_of(fabric.size, seed)
    uneven = cost(fabric, "all-to-all", [group], 1, matrix=matrix, routing=routing).transfer_s[0]
    assert uneven >= lower_bound(fabric, "all-to-all", groups_of(fabric, [group]), 1, fabric.bytes_per_s, matrix).transfer_s


@quick
@given(networks(), st.sampled_from(["all-reduce", "all-gather", "reduce-scatter", "broadcast"]))
def test_transfer_of_every_algorithm_is_never_under_the_cuts(network: dict[str, Any], op: str) -> None:
    fabric = fabric_of(network)
    group = tuple(range(fabric.size))
    assert cost(fabric, op, [group], 1e6).transfer_s[0] >= lower_bound(fabric, op, groups_of(fabric, [group]), 1e6, fabric.bytes_per_s).transfer_s


@quick
@given(networks(), st.sampled_from(["ideal", "ecmp", "static"]), st.integers(0, 100))
def test_bytes_are_conserved_at_every_node(network: dict[str, Any], mode: Any, seed: int) -> None:
    fabric = fabric_of(network)
    demand = demand_of(fabric.size, seed)
    np.fill_diagonal(demand, 0)
    src, dst = np.nonzero(demand)
    load = fabric.loads(src, dst, demand[src, dst], Routing(mode=mode, seed=seed))
    for name in fabric.graph:
        surplus = sum(load[i] * ((tail == name) - (head == name)) for i, (tail, head) in enumerate(fabric.links))
        rank = fabric.endpoints.index(name) if name in fabric.endpoints else None
        expected = 0.0 if rank is None else demand[rank].sum() - demand[:, rank].sum()
        assert surplus == pytest.approx(expected, abs=1e-3)


@quick
@given(networks(), st.data(), st.floats(1, 10), st.integers(0, 100))
def test_more_bandwidth_is_never_slower(network: dict[str, Any], data: st.DataObject, factor: float, seed: int) -> None:
    links = list(network["links"])
    i = data.draw(st.integers(0, len(links) - 1))
    links[i] = links[i] | {"bytes_per_s": links[i]["bytes_per_s"] * factor}
    before, after = fabric_of(network), fabric_of(network | {"links": links})
    group = tuple(range(before.size))
    for op in ("all-to-all", "all-reduce", "all-gather", "broadcast"):
        assert cost(after, op, [group], 1e6).time_s[0] <= cost(before, op, [group], 1e6).time_s[0] * (1 + 1e-12)
    matrix = demand_of(before.size, seed)
    assert cost(after, "all-to-all", [group], 1, matrix=matrix).time_s[0] <= cost(before, "all-to-all", [group], 1, matrix=matrix).time_s[0] * (1 + 1e-12)


@quick
@given(networks(), st.integers(0, 1000))
def test_relabelling_changes_nothing(network: dict[str, Any], seed: int) -> None:
    random = np.random.default_rng(seed)
    fabric = fabric_of(network)
    accelerators, links = list(network["accelerators"]), list(network["links"])
    order = random.permutation(len(accelerators)).tolist()
    random.shuffle(links)
    names = {name: f"renamed{i}" for i, name in enumerate(random.permutation([*accelerators, *network["switches"]]).tolist())}
    other = fabric_of(
        {
            "accelerators": [names[accelerators[i]] for i in order],
            "switches": {names[name]: kind for name, kind in reversed(network["switches"].items())},
            "links": [link | {"between": tuple(names[end] for end in reversed(link["between"]))} for link in links],
        }
    )
    group = tuple(range(fabric.size))
    renamed = tuple(order.index(rank) for rank in group)
    for op in ("all-to-all", "all-reduce", "broadcast"):
        assert cost(other, op, [renamed], 1e6).time_s[0] == pytest.approx(cost(fabric, op, [group], 1e6).time_s[0], rel=1e-9)


@quick
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), st.data())
def test_symmetric_ranks_are_equal(leaves: int, hosts: int, spines: int, data: st.DataObject) -> None:
    from fabrics.topologies.clos import Clos

    fields = {"leaves": leaves, "hosts_per_leaf": hosts, "spines": spines, "link_bytes_per_s": 12.5e9, "hop_latency_s": 1e-6}
    spec: FabricSpec = validated(Clos, {"kind": "clos", "name": "drawn", "device": "cpu", "link_profile": IDEAL, **fields}, "test")
    fabric = build(spec)
    load = dict(zip(fabric.links, cost(fabric, "all-to-all", [tuple(range(fabric.size))], 1e6).link_bytes(0).tolist(), strict=True))
    for tier in ("gpu", "leaf"):
        up = [bytes_ for (tail, head), bytes_ in load.items() if tail.startswith(tier) and not head.startswith("gpu")]
        assert up == pytest.approx([up[0]] * len(up))
