"""The real command lines: results, options, one-line errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fabrics.loading import FABRICS, LINK_PROFILES, load_fabric

SPINE_LEAF = ["--fabric", "spine-leaf"]
EXACT = ["--set", "fabric.link_profile=ideal", "--set", "fabric.link_bytes_per_s=12.5e9", "--set", "fabric.hop_latency_s=1e-6"]


def fabrics(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fabrics", *arguments], capture_output=True, text=True, check=False)


def answer(*arguments: str) -> dict[str, Any]:
    result = fabrics(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    assert document["schema_version"] == 1
    return document


def test_all_to_all_as_json() -> None:
    found = answer("collective", *SPINE_LEAF, *EXACT, "--op", "all-to-all", "--bytes-per-pair", "1000000", "--ranks", "16", "--routing", "ideal", "--bound")
    assert found["transfer_s"] == pytest.approx(1920e-6)
    assert found["lower_bound_s"] == pytest.approx(1920e-6)
    assert found["time_s"] == pytest.approx(found["latency_s"] + found["transfer_s"])
    assert (found["algorithm"], found["bottleneck"]) == ("pairwise", "leaf0->spine0")


def test_all_reduce_as_json_and_file(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    found = answer("collective", *SPINE_LEAF, "--op", "all-reduce", "--bytes", "1e6", "--bound", "-o", str(file))
    assert json.loads(file.read_text()) == found
    assert {"time_s", "latency_s", "transfer_s", "lower_bound_s", "algorithm", "bottleneck"} <= found.keys()
    assert found["lower_bound_s"] <= found["transfer_s"]


def test_options_of_collective_do_what_they_say() -> None:
    base = ["collective", *SPINE_LEAF, *EXACT, "--op", "all-to-all", "--bytes", "16e6"]
    plain = answer(*base)
    assert answer(*base, "--fail", "spine1")["transfer_s"] == pytest.approx(2 * plain["transfer_s"])
    assert answer(*base, "--slow", "leaf0:spine0=0.5")["transfer_s"] == pytest.approx(plain["transfer_s"] / 0.75)
    assert answer(*base, "--set", "fabric.oversubscription=4")["transfer_s"] == pytest.approx(2 * plain["transfer_s"])
    near, far = answer(*base, "--group-size", "4"), answer(*base, "--group-size", "4", "--strided")
    assert (near["groups"], near["ranks_per_group"]) == (4, 4)
    assert far["transfer_s"] > near["transfer_s"]
    assert answer(*base, "--ranks", "4")["ranks_per_group"] == 4
    hashed = [answer(*base, "--routing", "ecmp", "--seed", seed)["transfer_s"] for seed in ("1", "2")]
    assert hashed[0] != hashed[1]
    assert answer(*base, "--routing", "ecmp", "--flows-per-pair", "64")["transfer_s"] < min(hashed)
    assert answer(*base, "--algorithm", "pairwise")["algorithm"] == "pairwise"
    spread = answer("collective", *SPINE_LEAF, *EXACT, "--op", "all-to-all", "--bytes", "16e6", "--seeds", "5")["over_seeds"]
    assert spread["seeds"] == 5
    assert spread["transfer_ideal_s"] < spread["transfer_p10_s"] <= spread["transfer_mean_s"] <= spread["transfer_worst_s"]
    assert len(answer("collective", *SPINE_LEAF, "--op", "broadcast", "--bytes", "1,1000")["rows"]) == 2
    assert len(answer("collective", *SPINE_LEAF, "--op", "broadcast")["rows"]) == 11


def test_tables_are_printed() -> None:
    result = fabrics("collective", *SPINE_LEAF, "--op", "all-to-all", "--bytes", "16e6", "--bound", "--seeds", "3")
    assert result.returncode == 0
    assert "leaf0->spine0" in result.stdout
    assert "lower bound" in result.stdout
    assert "over 3 seeds" in result.stdout


def test_list_names_everything() -> None:
    found = answer("list")
    assert {"spine-leaf", "single-node", "dgx-h100-superpod-4", "meta-24k-roce", "deepseek-multi-plane", "gb200-nvl72", "tpu-v4-cube", "ethernet-3to1"} <= {
        preset["name"] for preset in found["fabrics"]
    }
    assert fabrics("list").stdout.count("spine-leaf") == 1


def test_show_prints_what_can_be_used_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(fabrics("show", "spine-leaf").stdout.replace("spines: 2", "spines: 4"))
    assert answer("collective", "--fabric", str(file), "--op", "all-reduce", "--bytes", "1e6")["fabric"] == "spine-leaf"
    schema = json.loads(fabrics("show", "--schema").stdout)
    assert "oversubscription" in schema["$defs"]["Clos"]["properties"]


def test_explain_writes_terminal_page_picture_and_json(tmp_path: Path) -> None:
    page, picture, document = tmp_path / "page.html", tmp_path / "tiers.png", tmp_path / "out.json"
    result = fabrics("explain", *SPINE_LEAF, "--worst-failure", "--ranks", "16", "--html", str(page), "--png", str(picture), "-o", str(document))
    assert result.returncode == 0, result.stderr
    for text in (
        "oversubscribed 2:1",
        "farthest accelerators are 4 links apart",
        "all-to-all bandwidth",
        "gpu0 -> leaf0",
        "The hottest link is leaf0->spine0",
        "spine0 lost",
        "10 of 10 switches and links",
    ):
        assert text in result.stdout
    html = page.read_text()
    assert html.count("<svg") == 3
    assert "oversubscribed 2:1" in html
    assert not any(tag in html for tag in ("src=", "<script", "<link", "@import", "url(http"))
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert [section["title"] for section in json.loads(document.read_text())["sections"]][:3] == [
        "What it consists of",
        "Paths, hop by hop",
        "One all-to-all, walked through",
    ]


def test_the_path_between_two_named_accelerators() -> None:
    (table,) = answer("explain", *SPINE_LEAF, "--pair", "gpu5:gpu14")["sections"][1]["tables"]
    assert [row[0] for row in table["rows"]] == ["gpu5 -> leaf1", "leaf1 -> spine0", "spine0 -> leaf3", "leaf3 -> gpu14"]
    for pair, told in (("gpu5:gpu99", "no accelerator 'gpu99'"), ("gpu1:gpu1", "two different"), ("gpu1", "no accelerator ''")):
        result = fabrics("explain", *SPINE_LEAF, "--pair", pair)
        assert (result.returncode, result.stderr.count("\n"), told in result.stderr) == (2, 1, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--fabric", "spine-lea", "--op", "all-reduce"], "did you mean 'spine-leaf'"),
        ([*SPINE_LEAF, "--op", "all-red"], "did you mean 'all-reduce'"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--ranks", "17"], "has 16 endpoints"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--group-size", "5"], "does not divide 16 ranks"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.link_bytes_per_s=0"], "greater than 0"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.link_bytes_per_s=400"], "400 Gb/s would be 5e+10"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.link_gbps=400"], "link_gbps: unknown key"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.hop_latency_s=-1e-6"], "must not be negative"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.hop_latency_s=500"], "500 ns would be 5e-07"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.spines=0"], "not connected"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.routing=random"], "'ideal', 'ecmp' or 'static'"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--set", "fabric.oversubscription=2", "--set", "fabric.uplink_bytes_per_s=1e9"], "one follows from the other"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--fail", "spine7"], "did you mean 'spine1'"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--fail", "leaf0"], "not connected"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--slow", "leaf0:spine0"], "expected LINK=SHARE"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--slow", "leaf0:spine0=2"], "at most 1"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--bytes", "-5"], "not negative"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--bytes-per-pair", "5"], "takes --bytes"),
        ([*SPINE_LEAF, "--op", "all-reduce", "--algorithm", "nvls"], "cannot run it"),
    ],
)
def test_bad_input_is_one_line_and_exit_two(arguments: list[str], told: str) -> None:
    result = fabrics("collective", *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert told in result.stderr


@pytest.mark.parametrize("name", FABRICS.names())
def test_every_preset_prices_a_group_of_neighbours(name: str) -> None:
    from fabrics.cost import cost

    fabric = load_fabric(name)
    assert fabric.spec.name == name
    assert fabric.spec.sources
    costs = cost(fabric, "all-to-all", [tuple(range(min(8, fabric.size)))], 1e6)
    assert 0 < costs.latency_s[0] < costs.time_s[0] < 1e-3


@pytest.mark.parametrize("name", LINK_PROFILES.names())
def test_every_link_profile_is_legal(name: str) -> None:
    assert LINK_PROFILES.load(name).name == name
