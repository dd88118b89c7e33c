"""The pages about fabrics in a real headless browser: readable, without sideways scrolling."""

import re
import subprocess
from pathlib import Path

import pytest

from fabrics.explain.explanation import explain
from fabrics.explain.page import write_page
from fabrics.explain.walk import walk_over
from fabrics.loading import load_fabric
from reports.fabric.build import build
from reports.page import render, write

pytestmark = pytest.mark.browser
WIDTH = 1200
SMALLEST_TEXT_PX = 8
PROBE = (
    "<script>const sizes = [...document.querySelectorAll('svg text')].map(text => {"
    "const scale = text.getScreenCTM(); return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(scale.a, scale.b)});"
    "document.title = document.documentElement.scrollWidth + ' ' + Math.min(...sizes)</script>"
)


def document(chromium: str, page: Path, profile: Path) -> str:
    """The page's elements after scripts ran, a probe's result in its title."""
    copy = page.with_name("probe.html")
    copy.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={profile}", f"--window-size={WIDTH},1600"]
    return subprocess.run([chromium, *flags, "--dump-dom", copy.as_uri()], check=True, capture_output=True, text=True, timeout=120).stdout


def check(dom: str) -> None:
    found = re.search(r"<title>(\d+) ([\d.]+)</title>", dom)
    assert found is not None
    assert int(found[1]) <= WIDTH
    assert float(found[2]) >= SMALLEST_TEXT_PX


def test_the_explanation_of_a_fabric(chromium: str, tmp_path: Path) -> None:
    fabric, page = load_fabric("spine-leaf"), tmp_path / "fabric.html"
    write_page(explain(fabric, walk_over(fabric, None, 1e6), worst_failure=True), page)
    dom = document(chromium, page, tmp_path / "profile")
    check(dom)
    titles = ["What it consists of", "Paths, hop by hop", "One all-to-all, walked through", "Which group uses which tier"]
    for title in [*titles, "Hash collisions (ECMP)", "What if", "Worst single failure", "Terms, formulas, constants, limits"]:
        assert title in dom
    assert dom.count("<svg") == 3


def test_what_a_fabric_does_to_training(chromium: str, tmp_path: Path) -> None:
    page = build(["tiny-moe"], "spine-leaf", {})
    (html, *_) = write(page, render(page), tmp_path)
    dom = document(chromium, html, tmp_path / "profile")
    check(dom)
    assert dom.count("<svg") == len(page.pictures)
    for text in ("Which parallel group uses which tier", "expert parallel", "host-bound", "accelerators per node (count)", "change of the step's time (%)"):
        assert text in dom
