"""The report in a real browser: nothing is asked for, nothing complains, everything fits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM, Page, open_page
from tests.support.manifests import migration
from tests.support.report_cases import finished_run, hostile_report

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)
WIDTHS = (320, 390, 768, 1400)
LONGEST = 4_500
"""Pixels of a page before anything is unfolded, 1280 wide; a third of the 13,500 that it was."""
UNFOLD = "document.querySelectorAll('details').forEach(one => one.open = true)"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_page() as page:
        yield page


@pytest.fixture(scope="module", params=["finished", "hostile"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    report = migration(finished_run(folder)).report()
    if request.param == "hostile":
        report = hostile_report(report)
    path = folder / "report.html"
    path.write_text(report.to_html())
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_offline_and_fits(page: Page, file: Path, width: int, dark: bool) -> None:
    page.requests.clear()
    page.complaints.clear()
    page.show(file, width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing sticks out"
    assert page.evaluate("document.querySelectorAll('.card').length") == 4
    assert page.requests == [file.as_uri()]
    assert page.complaints == []
    page.evaluate(UNFOLD)
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nor unfolded"


def test_one_screen_says_all(page: Page, file: Path) -> None:
    page.show(file, 1280)
    assert page.evaluate("document.documentElement.scrollHeight") <= LONGEST
    ends = page.evaluate("Array.from(document.querySelectorAll('.card, .verdict'), "
                         "one => one.getBoundingClientRect().bottom)")  # fmt: skip
    assert len(ends) == 5, "verdict, comparison, next step, checks, cost"
    assert max(ends) <= (1100 if "script" in page.evaluate("document.title") else 900)


def test_plots_can_be_read_on_a_phone(page: Page, file: Path) -> None:
    page.show(file, 320)
    page.evaluate(UNFOLD)
    heights = page.evaluate(
        "Array.from(document.querySelectorAll('svg text'), t => t.getBoundingClientRect().height)"
    )
    assert heights and min(heights) >= 9
    page.evaluate(  # the longest share there is
        "document.querySelectorAll('svg text').forEach(t => {"
        " if (/^[0-9.]+ %$/.test(t.textContent)) t.textContent = '100.0 %' })"
    )
    outside = page.evaluate(
        "Array.from(document.querySelectorAll('svg text')).filter(t => {"
        " const a = t.getBoundingClientRect(), b = t.ownerSVGElement.getBoundingClientRect();"
        " return a.left < b.left - 1 || a.right > b.right + 1 }).map(t => t.textContent)"
    )
    assert outside == []


LUMINANCE = """
(() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!/^rgba.*, 0\\)$/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const ratios = Array.from(document.querySelectorAll('body *'))
    .filter(e => e.getClientRects().length && !e.closest('svg')
      && Array.from(e.childNodes).some(n => n.nodeType === 3 && n.data.trim()))
    .map(e => {
      const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    });
  return Math.min(...ratios);
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(page: Page, file: Path, dark: bool) -> None:
    page.show(file, 768, dark=dark)
    page.evaluate(UNFOLD)
    assert page.evaluate(LUMINANCE) >= 4.5, "WCAG 2.2, 1.4.3"


def test_dark_and_light_differ_and_are_drawn(page: Page, file: Path) -> None:
    pictures = []
    for dark in (False, True):
        page.show(file, 320, dark=dark)
        picture = page.screenshot()
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG") and width == 320 and height > 2000
        pictures.append(picture)
    assert pictures[0] != pictures[1]


def test_it_prints(page: Page, file: Path) -> None:
    page.show(file, 1400, dark=True)
    printed = page.pdf()
    assert printed.startswith(b"%PDF-")
    assert 1 <= printed.count(b"/Type /Page\n") <= 4, "what is folded on the screen is not printed"
    page.evaluate(UNFOLD)
    assert printed.count(b"/Type /Page\n") < page.pdf().count(b"/Type /Page\n") <= 40
