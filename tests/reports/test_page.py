"""Every page is one offline file with named figures, and says where it comes from."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from reports.drawing import picture
from reports.page import Page, Section, Table, render, write
from reports.publish import publish


def _draw(figure: Figure) -> None:
    figure.add_subplot().plot([1, 2], [3, 4])


def _page(**changes: object) -> Page:
    section = Section("Part", ("Said <b>plainly</b>.",), (picture("line", "A line.", _draw), picture("other", "Another.", _draw)))
    fields = {"name": "sample", "title": "Sample", "subject": "nothing", "verdicts": ("So it is.",), "sections": (section,)}
    fields |= {"provenance": (("Command", "none"),), "limits": ("All of them.",)}
    return Page(**{**fields, **changes})


class _Reader(HTMLParser):
    """Collects ids, tags and what a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            elif name in ("src", "href", "xlink:href", "data"):
                self.loaded.append(str(value))


def _read(html: str) -> _Reader:
    reader = _Reader()
    reader.feed(html)
    return reader


def test_a_page_loads_nothing_from_elsewhere_and_runs_no_script() -> None:
    html = render(_page())
    reader = _read(html)
    assert "script" not in reader.tags
    assert all(target.startswith("#") for target in reader.loaded)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_stay_unique_when_two_figures_stand_on_one_page() -> None:
    ids = _read(render(_page())).ids
    assert len(ids) == len(set(ids))


def test_references_inside_a_figure_point_to_ids_that_exist() -> None:
    html = render(_page())
    ids = set(_read(html).ids)
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', html)) <= ids


def test_text_from_outside_is_escaped() -> None:
    assert "Said &lt;b&gt;plainly&lt;/b&gt;." in render(_page())


def test_figures_are_written_beside_the_page_under_their_names(tmp_path: Path) -> None:
    page = _page()
    files = write(page, render(page), tmp_path / "deep" / "folder")
    assert [path.name for path in files] == ["sample.html", "line.png", "other.png"]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in files[1:])
    assert len(list((tmp_path / "deep" / "folder").iterdir())) == 3


def test_an_error_of_rendering_is_not_told_as_one_of_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.page.TEMPLATES", tmp_path / "gone")
    with pytest.raises(OSError, match=r"page\.html\.j2"):
        publish(_page(), tmp_path / "out", as_json=False)
    assert not (tmp_path / "out").exists()


def test_equal_drawings_give_equal_bytes() -> None:
    first, second = picture("line", "A line.", _draw), picture("line", "A line.", _draw)
    assert first.svg == second.svg
    assert first.png == second.png


def test_every_page_ends_with_provenance_and_limits() -> None:
    html = render(_page())
    assert html.index("Where this comes from") > html.index("Part")
    assert html.index("Limits") > html.index("Where this comes from")


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [(("1,024", "equal"), True), (("12.5 MB", "0 B"), True), (("+3.1%", ""), True), (("7.3 ms (0.9%)", "1 s (50.0%)"), True), (("1e-05",), True),
     (("leaf0->spine0",), False), (("12 MB", "does not fit"), False)],
)  # fmt: skip
def test_columns_of_numbers_are_set_flush_right_and_others_are_not(cells: tuple[str, ...], numeric: bool) -> None:
    assert Table("", ("x",), tuple((cell,) for cell in cells)).numeric == (numeric,)
