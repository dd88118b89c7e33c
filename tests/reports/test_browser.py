"""Pages in a real headless browser: drawn, readable, without sideways scrolling."""

import re
import subprocess
from pathlib import Path

import pytest
from matplotlib.image import imread

from reports.page import render, write
from reports.step.build import build

pytestmark = pytest.mark.browser
WIDTH = 1200


@pytest.fixture(scope="module")
def page(predicted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = build(predicted, None)
    return write(page, render(page), tmp_path_factory.mktemp("page"))[0]


def _browse(chromium: str, profile: Path, target: Path, *flags: str) -> str:
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", f"--user-data-dir={profile}", f"--window-size={WIDTH},1600"]
    return subprocess.run([chromium, *common, *flags, target.as_uri()], check=True, capture_output=True, text=True, timeout=120).stdout


def test_figures_and_their_words_are_in_the_document(chromium: str, page: Path, tmp_path: Path) -> None:
    dom = _browse(chromium, tmp_path, page, "--dump-dom")
    assert dom.count("<svg") == 5
    assert "bytes allocated at the peak (MB)" in dom
    assert "stretches of the step in order of execution" in dom


def test_the_page_is_no_wider_than_the_window_and_its_text_is_readable(chromium: str, page: Path, tmp_path: Path) -> None:
    probe = (
        "<script>const sizes = [...document.querySelectorAll('svg text')].map(text => {"
        "const scale = text.getScreenCTM(); return parseFloat(getComputedStyle(text).fontSize) * Math.hypot(scale.a, scale.b)});"
        "document.title = document.documentElement.scrollWidth + ' ' + Math.min(...sizes)</script>"
    )
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text().replace("</body>", probe + "</body>"))
    title = re.search(r"<title>(\d+) ([\d.]+)</title>", _browse(chromium, tmp_path / "profile", copy, "--dump-dom"))
    assert title is not None
    assert int(title[1]) <= WIDTH
    assert float(title[2]) >= 10


def test_the_page_is_not_blank(chromium: str, page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    _browse(chromium, tmp_path / "profile", page, f"--screenshot={shot}")
    pixels = imread(shot)[..., :3]
    assert pixels.min() < 0.2
    assert pixels.max() == 1.0
