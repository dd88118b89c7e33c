"""Collectives on a small leaf-spine network against numbers worked by hand and published ones."""

import numpy as np
import pytest

from fabrics.bounds import lower_bound
from fabrics.cost import cost, groups_of, price
from fabrics.graph import Fabric
from fabrics.loading import load_fabric

ALL = tuple(range(16))
HUNDRED_GBIT = {"link_profile": "ideal", "link_bytes_per_s": 12.5e9, "hop_latency_s": 1e-6}


def network(**fields: object) -> Fabric:
    return load_fabric("spine-leaf", HUNDRED_GBIT | fields)


@pytest.mark.parametrize(("spines", "transfer_us", "with_latency_us"), [(4, 1200, 1224), (2, 1920, 1949), (1, 3840, 3858)])
@pytest.mark.parametrize("routing", ["ideal", "static"])
def test_all_to_all_meets_the_linear_program_and_a_congestion_aware_simulator(spines: int, transfer_us: float, with_latency_us: float, routing: str) -> None:
    fabric = network(spines=spines, routing=routing)
    costs = cost(fabric, "all-to-all", [ALL], 16e6)
    assert costs.transfer_s[0] * 1e6 == pytest.approx(transfer_us, rel=1e-12)
    assert costs.time_s[0] * 1e6 == pytest.approx(with_latency_us, rel=0.06)
    bound = lower_bound(fabric, "all-to-all", groups_of(fabric, [ALL]), 16e6, fabric.bytes_per_s)
    assert bound.transfer_s * 1e6 == pytest.approx(transfer_us, rel=1e-6)


@pytest.mark.parametrize("oversubscription", [0.5, 1, 1.2, 1.25, 1.5, 2, 3, 4, 8])
def test_oversubscription_slows_all_to_all_by_the_leaf_bound(oversubscription: float) -> None:
    p, h = 16, 4
    slowdown = cost(network(oversubscription=oversubscription), "all-to-all", [ALL], 1e6).transfer_s / (15 / 16 * 1e6 / 12.5e9)
    assert slowdown[0] == pytest.approx(max(1, oversubscription * (p - h) / (p - 1)), rel=1e-12)


def test_ring_in_leaf_order_feels_oversubscription_only_when_one_flow_fills_an_uplink() -> None:
    def ring(oversubscription: float, order: tuple[int, ...] = ALL) -> float:
        return float(cost(network(oversubscription=oversubscription), "all-reduce", [order], 1e8, algorithm="ring").transfer_s[0])

    free = 2 * 15 / 16 * 1e8 / 12.5e9
    # One flow of a full host rate leaves each leaf, over two uplinks: they carry it down to 4:1 (4 x 12.5 / 4 = 12.5 GB/s).
    assert [ring(o) for o in (1, 2, 4)] == pytest.approx([free] * 3, rel=1e-12)
    assert ring(8) == pytest.approx(2 * free, rel=1e-12)
    shuffled = tuple(np.random.default_rng(0).permutation(16).tolist())
    assert ring(4, shuffled) > 1.9 * free


PERMUTATION = [(7, 5), (15, 1), (0, 13), (14, 8), (1, 3), (6, 7), (5, 11), (9, 12), (11, 4), (3, 14), (12, 15), (2, 10), (13, 2), (10, 6), (4, 0), (8, 9)]


@pytest.mark.parametrize(("spines", "ideal_us", "hashed_us"), [(4, 160, 364), (2, 240, 442)])
def test_permutation_shows_what_hash_collisions_cost(spines: int, ideal_us: float, hashed_us: float) -> None:
    fabric = network(spines=spines)

    def transfer_us(**routing: object) -> float:
        changed = fabric.spec.routing.model_copy(update=routing)
        return float(cost(fabric, "point-to-point", PERMUTATION, 2e6, routing=changed).transfer_s[0]) * 1e6

    assert transfer_us(mode="ideal") == pytest.approx(ideal_us, rel=1e-12)
    hashed = [transfer_us(mode="ecmp", seed=seed) for seed in range(1000)]
    assert np.mean(hashed) == pytest.approx(hashed_us, rel=0.10)
    assert min(hashed) >= ideal_us * (1 - 1e-12)
    spread = [transfer_us(mode="ecmp", seed=seed, flows_per_pair=8) for seed in range(50)]
    assert ideal_us < np.mean(spread) < np.mean(hashed)


def test_groups_at_once_share_the_links_they_share() -> None:
    fabric = network(spines=1)
    pairs = [(i, i + 8) for i in range(4)]
    alone = cost(fabric, "point-to-point", pairs[:1], 1e6).transfer_s
    together = cost(fabric, "point-to-point", pairs, 1e6)
    assert together.transfer_s == pytest.approx(4 * alone)
    assert together.bottleneck == ("leaf0->spine0",)


def test_one_rank_and_no_bytes_cost_exactly_nothing() -> None:
    fabric = load_fabric("spine-leaf")
    for op in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "broadcast"):
        assert cost(fabric, op, [(3,)], [0, 1e9]).time_s.tolist() == [0, 0]
        assert cost(fabric, op, [ALL], 0).time_s.tolist() == [0]


def test_an_uneven_all_to_all_shows_incast() -> None:
    fabric = network()
    matrix = np.zeros((16, 16))
    matrix[:, 0] = 1e6
    costs = cost(fabric, "all-to-all", [ALL], 1, matrix=matrix)
    assert costs.bottleneck == ("leaf0->gpu0",)
    assert costs.transfer_s[0] == pytest.approx(15e6 / 12.5e9, rel=1e-12)


def test_time_is_latency_and_transfer_and_prices_repeat() -> None:
    fabric = load_fabric("spine-leaf")
    sizes = np.logspace(2, 10, 50)
    costs = cost(fabric, "all-reduce", [ALL], sizes)
    assert costs.time_s == pytest.approx(costs.latency_s + costs.transfer_s)
    prices = price(fabric, "all-reduce", [ALL])
    assert [prices.time_s(size) for size in sizes.tolist()] == pytest.approx(costs.time_s.tolist())
    assert price(fabric, "all-reduce", [ALL]) is prices
    assert costs.protocol[0] == "LL"
    assert costs.protocol[-1] == "Simple"


def test_a_failed_spine_leaves_half_the_uplinks_and_a_slow_one_is_avoided() -> None:
    fabric = network(spines=2)
    base = float(cost(fabric, "all-to-all", [ALL], 16e6).transfer_s[0])
    down = cost(fabric.without(("spine1",)), "all-to-all", [ALL], 16e6)
    assert down.transfer_s[0] == pytest.approx(2 * base)
    # leaf0 keeps 1.5 of 2 uplinks and spreads its traffic 1:2 over them.
    slow = cost(fabric.without(slow={"leaf0:spine0": 0.5}), "all-to-all", [ALL], 16e6)
    assert slow.transfer_s[0] == pytest.approx(base / 0.75)


def test_the_worst_single_failure_is_found() -> None:
    from fabrics.failures import by_cost, candidates

    fabric = network(spines=2).without(slow={"leaf0:spine0": 0.5})
    names = candidates(fabric)
    assert set(names) == {"spine0", "spine1", *(f"leaf{leaf}:spine{spine}" for leaf in range(4) for spine in range(2))}
    worst = by_cost(fabric, names, lambda changed: float(cost(changed, "all-to-all", [ALL], 16e6).transfer_s[0]))
    # Without spine1 leaf0 keeps half of one uplink: a quarter of what it had when whole.
    assert worst[0].name in ("spine1", "leaf0:spine1")
    assert worst[0].time_s == pytest.approx(4 * 1920e-6)
    assert by_cost(network(spines=1), ["spine0"], lambda changed: 0.0)[0].time_s == float("inf")
