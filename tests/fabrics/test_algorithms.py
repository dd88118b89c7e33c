"""Algorithms: hand-worked loads and times, and NCCL's tuning model."""

import numpy as np
import pytest

from configuration.errors import ConfigurationError
from fabrics import nccl
from fabrics.collectives.trees import double_tree
from fabrics.cost import cost
from fabrics.loading import load_fabric

SUPERPOD = load_fabric("dgx-h100-superpod-1", {"link_profile": "ideal", "hop_latency_s": 0, "scale_up_latency_s": 0}).explicit()


@pytest.mark.parametrize("count", range(1, 40))
def test_double_trees_span_all_members_and_no_member_is_inner_in_both(count: int) -> None:
    inner = []
    for edges in double_tree(count):
        children = [child for child, _ in edges]
        assert len(children) == len(set(children)) == count - 1
        (root,) = set(range(count)) - set(children)
        reached = {root}
        for _ in range(count):
            reached |= {child for child, parent in edges if parent in reached}
        assert reached == set(range(count))
        parents = [parent for _, parent in edges]
        assert max((parents.count(parent) for parent in parents), default=0) <= 2
        inner.append({parent for parent in parents if parents.count(parent) == 2})
    assert not inner[0] & inner[1]


def transfer(op: str, ranks: int, algorithm: str, size: float = 1e9) -> float:
    return float(cost(SUPERPOD, op, [tuple(range(ranks))], size, algorithm=algorithm).transfer_s[0])


def test_ring_uses_every_port_of_a_node() -> None:
    p = 32
    assert transfer("all-reduce", p, "ring") == pytest.approx(2 * (p - 1) / p * 1e9 / 8 / 50e9)
    assert transfer("all-gather", p, "ring") == pytest.approx((p - 1) / p * 1e9 / 8 / 50e9)


def test_tree_carries_the_buffer_once_up_and_once_down() -> None:
    # Two inner children at most: in each of two trees half of the buffer, so a port receives at most one buffer up and half of one down, over 8 ports.
    assert 1e9 / 8 / 50e9 <= transfer("all-reduce", 32, "tree") <= 2e9 / 8 / 50e9


def test_hierarchical_all_reduce_adds_its_three_parts() -> None:
    n, k = 4, 8
    inside, between = (k - 1) / k * 1e9 / 450e9, 2 * (n - 1) / n / k * 1e9 / 50e9
    assert transfer("all-reduce", n * k, "hierarchical") == pytest.approx(2 * inside + between)


def test_hierarchical_all_to_all_stays_on_its_rail() -> None:
    n, k, size = 4, 8, 1e9
    ranks = [tuple(range(n * k))]
    costs = cost(SUPERPOD, "all-to-all", ranks, size, algorithm="hierarchical")
    assert costs.transfer_s[0] == pytest.approx((n - 1) / n * size / 50e9)
    load = dict(zip(SUPERPOD.links, costs.link_bytes().tolist(), strict=True))
    assert all(bytes_ == 0 for (tail, head), bytes_ in load.items() if "spine" in tail + head)
    assert load["gpu0", "nvswitch0"] == pytest.approx((k - 1) / k * size)
    direct = cost(SUPERPOD, "all-to-all", ranks, size, algorithm="pairwise")
    load = dict(zip(SUPERPOD.links, direct.link_bytes().tolist(), strict=True))
    assert load["leaf0", "spine0"] > 0
    assert load["gpu0", "leaf0"] == pytest.approx((n - 1) / n * size)


def test_hierarchical_all_to_all_carries_an_uneven_matrix() -> None:
    p, k = 16, 8
    matrix = np.random.default_rng(0).random((p, p))
    costs = cost(SUPERPOD, "all-to-all", [tuple(range(p))], 1e6, matrix=matrix, algorithm="hierarchical")
    load = dict(zip(SUPERPOD.links, costs.link_bytes().tolist(), strict=True))
    # Everything for the other node leaves by the destination's rail.
    for rail in range(k):
        assert load[f"gpu{rail}", f"leaf{rail}"] == pytest.approx(1e6 * matrix[:k, k + rail].sum())
        others = [j for j in range(k) if j != rail]
        assert load[f"gpu{rail}", "nvswitch0"] == pytest.approx(1e6 * (matrix[rail, others].sum() + matrix[rail, [k + j for j in others]].sum()))


def test_nvls_needs_a_profile_with_it_and_one_domain() -> None:
    node = load_fabric("single-node")
    ranks = [tuple(range(8))]
    rings, sums = (cost(node, "all-reduce", ranks, 8e9, algorithm=name).time_s[0] for name in ("ring", "nvls"))
    busbw = 2 * 7 / 8 * 8e9 / 1e9
    assert busbw / rings == pytest.approx(365.6, rel=0.02)
    assert busbw / sums == pytest.approx(473, rel=0.02)
    with pytest.raises(ConfigurationError, match="nvls"):
        cost(SUPERPOD, "all-reduce", [tuple(range(8))], 1e6, algorithm="nvls")


@pytest.mark.parametrize(("ranks", "busbw"), [(8, 473), (7, 460), (6, 436), (5, 414)])
def test_nvls_by_ranks_is_as_published(ranks: int, busbw: float) -> None:
    time_s = cost(load_fabric("single-node"), "all-reduce", [tuple(range(ranks))], 8e9, algorithm="nvls").time_s[0]
    assert 2 * (ranks - 1) / ranks * 8 / time_s == pytest.approx(busbw, rel=0.025)


TABLE = {
    1: {"LL": (15, 15), "LL128": (41, 32), "Simple": (56, 64)},
    2: {"LL": (40, 25), "LL128": (75, 48), "Simple": (132, 92)},
    4: {"LL": (79, 35), "LL128": (144, 66), "Simple": (283, 120)},
    16: {"LL": (312, 55), "LL128": (560, 100), "Simple": (1190, 176)},
    64: {"LL": (1243, 75), "LL128": (2220, 134), "Simple": (4819, 232)},
}


@pytest.mark.parametrize("nodes", TABLE)
@pytest.mark.parametrize("protocol", nccl.PROTOCOLS)
def test_nccl_latency_table(nodes: int, protocol: str) -> None:
    for algorithm, published in zip(("ring", "tree"), TABLE[nodes][protocol], strict=True):
        assert round(nccl.latency_us("all-reduce", algorithm, protocol, nodes, 8)) == pytest.approx(published, abs=0.5 if published < 1000 else 5)


def test_nccl_ring_plateau() -> None:
    job = nccl.Job(16, 8, 370, 370)
    assert nccl.ring_factor("all-reduce", "ring", "Simple", job, 64 * 16 * 128) == 1.4
    assert nccl.ring_factor("all-reduce", "ring", "Simple", job, 64 * 16 * 128 - 1) == 1.0
    assert nccl.ring_factor("all-reduce", "ring", "LL", job, 1e9) == 1.0


def test_nccl_takes_trees_for_small_and_rings_for_large_messages_across_nodes() -> None:
    fabric = load_fabric("dgx-h100-superpod-1")
    costs = cost(fabric, "all-reduce", [tuple(range(32))], [1e3, 1e10], algorithm="nccl")
    assert list(zip(costs.algorithm, costs.protocol, strict=True)) == [("tree", "LL"), ("ring", "Simple")]
    best = cost(fabric, "all-reduce", [tuple(range(32))], np.logspace(3, 10, 30))
    taken = cost(fabric, "all-reduce", [tuple(range(32))], np.logspace(3, 10, 30), algorithm="nccl")
    assert (taken.time_s >= best.time_s * (1 - 1e-12)).all()
