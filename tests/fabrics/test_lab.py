"""A fabric for real, in network namespaces: what is measured there is what the model says."""

import os
import subprocess
from pathlib import Path

import pytest

from configuration.errors import ConfigurationError
from fabrics.lab.experiment import measure
from fabrics.lab.namespaces import Lab
from fabrics.loading import load_fabric

SPACE = f"lab{os.getpid()}-probe"
PROBE = (
    f"ip netns add {SPACE} && ip -n {SPACE} link add va type veth peer name vb && tc -n {SPACE} qdisc add dev va root tbf rate 1mbit burst 2000 latency 50ms"
)
TWO_LEAVES = {"leaves": 2, "hosts_per_leaf": 2, "spines": 2, "oversubscription": 2}


def _works() -> bool:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return False
    done = subprocess.run(f"({PROBE}); end=$?; ip netns del {SPACE}; exit $end", shell=True, capture_output=True, check=False)
    return done.returncode == 0


possible = pytest.mark.skipif(not _works(), reason="needs Linux, root, iproute2 and network namespaces with token buckets")


def _spaces() -> set[str]:
    folder = Path("/run/netns")
    return {path.name for path in folder.iterdir() if path.name.startswith(f"lab{os.getpid()}-")} if folder.is_dir() else set()


@pytest.mark.lab
@possible
def test_an_all_to_all_takes_what_its_hottest_link_takes() -> None:
    found = measure(load_fabric("spine-leaf", TWO_LEAVES), bytes_per_pair=1_500_000, host_bytes_per_s=6.25e6, repeats=1)
    (done,) = found["rounds"]
    # The kernel hashes at will: evenly at best, at worst all four flows between the leaves over one spine.
    assert found["predicted_even_s"] * 0.9 <= done["measured_s"] <= 2 * found["predicted_even_s"] * 1.3
    assert done["error"] == pytest.approx(0, abs=0.3)
    assert _spaces() == set()


@pytest.mark.lab
@possible
def test_with_one_spine_left_there_is_nothing_to_hash() -> None:
    fabric = load_fabric("spine-leaf", TWO_LEAVES).without(("spine1",))
    found = measure(fabric, bytes_per_pair=1_000_000, host_bytes_per_s=6.25e6, repeats=1)
    assert found["predicted_even_s"] == pytest.approx(found["predicted_hashed_mean_s"])
    assert found["rounds"][0]["measured_s"] == pytest.approx(found["predicted_even_s"], rel=0.3)


def test_a_fabric_of_nodes_with_many_accelerators_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lab: "):
        Lab(load_fabric("dgx-h100-superpod-1"), 1000)


def test_one_host_alone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="alone sends nothing"):
        measure(load_fabric("single-node", {"accelerators": 1}), 1000, 1e6, 1)
