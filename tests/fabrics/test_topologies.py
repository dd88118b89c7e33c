"""Each topology has the shape that its parameters say."""

from pathlib import Path

import networkx as nx
import pytest

from configuration.errors import ConfigurationError
from fabrics.cost import cost
from fabrics.explain.tiers import bisection_bytes_per_s
from fabrics.loading import load_fabric


def test_fat_tree_has_full_bisection() -> None:
    fabric = load_fabric("fat-tree")
    assert fabric.size == 8**3 // 4
    assert bisection_bytes_per_s(fabric) == pytest.approx(64 * 50e9)
    assert fabric.routes.count(0, 127) == 16


def test_superpod_reaches_its_rail_in_one_switch_and_other_rails_through_a_spine() -> None:
    fabric = load_fabric("dgx-h100-superpod-1")
    routing = fabric.spec.routing
    assert [fabric.link_name(link) for link in fabric.routes.path(0, 8, routing)] == ["gpu0->leaf0", "leaf0->gpu8"]
    assert len(fabric.routes.path(0, 9, routing)) == 4
    assert [fabric.link_name(link) for link in fabric.routes.path(0, 1, routing)] == ["gpu0->nvswitch0", "nvswitch0->gpu1"]


def test_planes_without_common_spines_are_crossed_inside_nodes() -> None:
    fabric = load_fabric("rail-only")
    path = fabric.routes.path(0, 9, fabric.spec.routing)
    kinds = [fabric.graph.edges[fabric.links[link]]["kind"] for link in path]
    assert sorted(kinds) == ["network", "network", "nvlink", "nvlink"]


def test_torus_is_regular_and_wraps_around() -> None:
    fabric = load_fabric("tpu-v4-cube")
    assert {degree for _, degree in fabric.graph.out_degree()} == {6}
    assert nx.diameter(fabric.graph) == 6
    # A ring of four along one dimension: neighbours only, so every link carries the ring's share at full rate.
    costs = cost(load_fabric("tpu-v4-cube", {"link_profile": "ideal"}), "all-gather", [(0, 1, 2, 3)], 4e9)
    assert costs.transfer_s[0] == pytest.approx(3e9 / 50e9)


def test_two_wide_torus_has_single_links() -> None:
    fabric = load_fabric("tpu-v4-cube", {"dimensions": [2, 2]})
    assert fabric.graph.number_of_edges() == 8


def test_dragonfly_needs_at_most_three_links_between_routers() -> None:
    fabric = load_fabric("slingshot")
    assert fabric.size == 320
    # One global link per router and pair of groups: one hop to the right group; with one per pair of groups a local hop on each side.
    for global_links, links in ((8, 4), (1, 5)):
        graph = load_fabric("slingshot", {"global_links": global_links}).graph
        assert max(nx.single_source_shortest_path_length(graph, "gpu0").values()) == links


GRAPHML = """<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
<key id="k" for="node" attr.name="kind" attr.type="string"/>
<key id="b" for="edge" attr.name="bytes_per_s" attr.type="double"/>
<key id="l" for="edge" attr.name="latency_s" attr.type="double"/>
<graph edgedefault="undirected">
<node id="a"><data key="k">accelerator</data></node>
<node id="b"><data key="k">accelerator</data></node>
<node id="s"><data key="k">leaf</data></node>
<edge source="a" target="s"><data key="b">1e9</data><data key="l">1e-6</data></edge>
<edge source="b" target="s"><data key="b">RATE</data><data key="l">1e-6</data></edge>
</graph></graphml>"""


def test_graphml_is_a_fabric(tmp_path: Path) -> None:
    file = tmp_path / "two.graphml"
    file.write_text(GRAPHML.replace("RATE", "2e9"))
    fabric = load_fabric(str(file), {"device": "cpu"})
    costs = cost(fabric, "point-to-point", [(0, 1)], 1e9)
    assert costs.time_s[0] == pytest.approx(1 + 2e-6)
    assert costs.bottleneck == ("a->s",)


def test_graphml_faults_are_told(tmp_path: Path) -> None:
    file = tmp_path / "two.graphml"
    file.write_text(GRAPHML.replace("RATE", "400"))
    with pytest.raises(ConfigurationError, match=r"two\.graphml: edge b - s: bytes_per_s: the unit is bytes per second"):
        load_fabric(str(file), {"device": "cpu"})
    file.write_text("<graphml")
    with pytest.raises(ConfigurationError, match="not readable as GraphML"):
        load_fabric(str(file), {"device": "cpu"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"links": [{"between": ["a", "s"], "bytes_per_s": 1e9, "latency_s": 0}]}, "not connected: no path between a and b"),
        ({"links": [{"between": ["a", "t"], "bytes_per_s": 1e9, "latency_s": 0}]}, "unknown name 't'"),
        ({"links": [{"between": ["a", "s"], "gbps": 400, "latency_s": 0}]}, "links.0.gbps: unknown key"),
        ({"links": [{"between": ["a", "s"], "bytes_per_s": 0, "latency_s": 0}]}, "greater than 0"),
        ({"links": [{"between": ["a", "s"], "bytes_per_s": 1e9, "latency_s": -1}]}, "not be negative"),
        ({"accelerators": []}, "give either"),
        ({"kind": "clo"}, "did you mean 'clos'"),
    ],
)
def test_faults_of_explicit_networks_are_told(tmp_path: Path, change: dict[str, object], told: str) -> None:
    import yaml

    file = tmp_path / "net.yaml"
    network = {"kind": "explicit", "device": "cpu", "accelerators": ["a", "b"], "switches": {"s": "leaf"}, "links": []}
    file.write_text(yaml.safe_dump(network | change))
    with pytest.raises(ConfigurationError, match=told):
        load_fabric(str(file))


def test_all_to_all_on_a_torus_is_bound_by_the_work_of_its_links() -> None:
    from fabrics.bounds import lower_bound
    from fabrics.cost import groups_of

    fabric = load_fabric("tpu-v4-cube", {"link_profile": "ideal"})
    everyone = [tuple(range(64))]
    # Three links on average over all 64 (a chip itself included), 64 chips, 384 links.
    expected = 3 * 64 * 64e6 / (384 * 50e9)
    assert cost(fabric, "all-to-all", everyone, 64e6).transfer_s[0] == pytest.approx(expected)
    assert lower_bound(fabric, "all-to-all", groups_of(fabric, everyone), 64e6, fabric.bytes_per_s).transfer_s == pytest.approx(expected)
