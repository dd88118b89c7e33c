"""Prices by symmetry are those of the explicit graph."""

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from configuration.errors import ConfigurationError
from configuration.spec import validated
from fabrics.graph import Fabric
from fabrics.loading import LINK_PROFILES
from fabrics.spec import Routing
from fabrics.symmetry import ClosSymmetry, is_symmetric
from fabrics.topologies.clos import Clos, explicit

PROFILE = LINK_PROFILES.load("nccl-hopper")


@st.composite
def specs(draw: st.DrawFn) -> Clos:
    rails = draw(st.sampled_from([1, 1, 2, 4]))
    pods = draw(st.sampled_from([1, 1, 2, 3]))
    groups = draw(st.sampled_from([1, 2]))
    per_pod = groups * draw(st.integers(1, 2)) * (rails if draw(st.booleans()) else 1)
    fields: dict[str, Any] = {
        "rails": rails,
        "pods": pods,
        "accelerators_per_node": rails * draw(st.integers(1, 2)),
        "leaves": rails * pods * draw(st.integers(1, 2)),
        "hosts_per_leaf": draw(st.integers(1, 3)),
        "spines": draw(st.sampled_from([0, pods * per_pod])),
        "planes": draw(st.integers(1, 2)),
        "join_rails": draw(st.booleans()),
        "link_bytes_per_s": 50e9,
        "hop_latency_s": 1e-6,
        "uplink_latency_s": 3e-6,
        "core_latency_s": 7e-6,
        "scale_up_bytes_per_s": 450e9,
        "scale_up_latency_s": 2e-7,
    }
    if fields["spines"]:
        fields["oversubscription"] = draw(st.sampled_from([1, 2.5]))
        if pods > 1:
            fields |= {"cores": groups * draw(st.integers(1, 2)), "core_groups": groups, "core_oversubscription": draw(st.sampled_from([1, 7]))}
    try:
        return validated(Clos, {"kind": "clos", "name": "drawn", "device": "cpu", "link_profile": PROFILE, **fields}, "test")
    except ConfigurationError:
        assume(False)
        raise


@settings(max_examples=80, deadline=None)
@given(specs(), st.integers(0, 1000))
def test_loads_and_latencies_equal_the_explicit_graph(spec: Clos, seed: int) -> None:
    assume(is_symmetric(spec))
    fabric: Fabric = explicit(spec)
    symmetric = ClosSymmetry(spec)
    random = np.random.default_rng(seed)
    demand = random.integers(0, 4, (fabric.size, fabric.size))
    np.fill_diagonal(demand, 0)
    src, dst = np.nonzero(demand)
    assume(len(src) > 0)
    size = demand[src, dst].astype(float)
    routing = Routing()
    load, other = fabric.loads(src, dst, size, routing), symmetric.loads(src, dst, size, routing)
    at = {fabric.link_name(link): link for link in range(len(fabric.links))}
    for link in range(len(other)):
        assert load[at[symmetric.link_name(link)]] == pytest.approx(other[link], rel=1e-9, abs=1e-9)
        assert fabric.bytes_per_s[at[symmetric.link_name(link)]] == pytest.approx(symmetric.bytes_per_s[link])
        back = symmetric.link_name(int(symmetric.opposite[link]))
        assert fabric.link_name(int(fabric.opposite[at[symmetric.link_name(link)]])) == back
    assert (load / fabric.bytes_per_s).max() == pytest.approx((other / symmetric.bytes_per_s).max())
    (wire_s, mask), (other_wire_s, other_mask) = fabric.latencies(src, dst), symmetric.latencies(src, dst)
    assert other_wire_s == pytest.approx(wire_s)
    assert fabric.kinds == symmetric.kinds
    assert other_mask.tolist() == mask.tolist()


@settings(max_examples=80, deadline=None)
@given(specs())
def test_what_symmetry_accepts_is_connected(spec: Clos) -> None:
    if is_symmetric(spec):
        explicit(spec)
