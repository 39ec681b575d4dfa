"""RequestPath and FreeLists in Chromium: two layouts, two themes, and labels at many moments of real recordings."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kmemlab import __GFP_MOVABLE, GFP_DMA, GFP_KERNEL, Machine, Stuck
from kmemlab.story import Step, Story
from kmemlab_widgets import FreeLists, RequestPath
from kmemlab_widgets.panel import View
from kmemlab_widgets.requestpath import draw
from kmemlab_widgets.svg import flat
from kmemlab_widgets.theme import DARK, LIGHT
from tests.kernel.test_slowpath import ROWS, machine_of

pytestmark = pytest.mark.browser

RECORDINGS = Path(__file__).resolve().parent.parent / "kernel" / "recordings"

# Every label's box against the drawing and against every other label.
MEASURE = """() => [...document.querySelectorAll('svg')].map(svg => {
  const box = svg.viewBox.baseVal;
  const places = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim()).map(t => {
    const b = t.getBBox();
    return [t.textContent, b.x, b.y + b.height * 0.2, b.x + b.width, b.y + b.height * 0.8];
  });
  const wrong = places.filter(([, l, t, r, b]) => l < 0 || t < 0 || r > box.width || b > box.height).map(p => p[0]);
  places.forEach((a, i) => places.slice(i + 1).forEach(b => {
    if (a[1] < b[3] - 1 && b[1] < a[3] - 1 && a[2] < b[4] && b[2] < a[4]) wrong.push(a[0] + ' / ' + b[0]);
  }));
  return wrong;
})"""


def _moments() -> Iterator[tuple[str, Any]]:
    """(name, view) of both panels along recorded workloads: the moments where something new happened."""
    longest = Step("buddy", "unreserve_highatomic_pageblock", "mm/page_alloc.c", "say " * 30, "why " * 30, None)
    yield "longest names", View("", "", *(draw(Story("head " * 30, (longest,)), "sub " * 40, w) for w in (868, 358)))
    for row in ROWS:  # the slow path: rounds of reclaim and compaction, kills, NULL
        slow = machine_of(row)
        with suppress(Stuck):
            slow.alloc_pages(row["gfp"], row["order"])
        yield f"slow path {row['name']}", RequestPath(slow)._last
    for name in ("256M-normal-c-33", "256M-a-21", "128M-a-11"):
        path = RECORDINGS / "buddy" / f"{name}.json.gz"
        m = Machine.from_recording(str(path) if path.exists() else name)
        lists = {zone.name: FreeLists(m, zone=zone.name) for zone in m.snapshot().zones}
        path_panel, seen = RequestPath(m), set()
        for i, op in enumerate(m.recording.ops[:12000]):
            if op[0]:
                m.alloc_pages(op[1], op[2])
            else:
                m.__free_pages(m.memmap[op[1]], op[2])
            if i % 3:
                continue
            kind = tuple((step.function, step.verdict) for step in m.explain().steps)
            if kind not in seen and len(seen) < 25:
                seen.add(kind)
                path_panel.refresh()
                yield f"{name} call {i + 1} RequestPath", path_panel._last
            if i % 2100 == 0:
                for zone, panel in lists.items():
                    panel.refresh()
                    yield f"{name} call {i + 1} FreeLists {zone}", panel._last


@pytest.mark.slow
def test_labels_along_recordings(browser: Any) -> None:
    """In DejaVu Sans, the widest font a panel must fit, no label leaves its drawing or lies on another."""
    page = browser.new_page(viewport={"width": 900, "height": 900})
    wrong, moments = [], 0
    for name, view in _moments():
        moments += 1
        style = "<style>svg{font-family:'DejaVu Sans'!important}</style>"
        page.set_content(style + flat(view.wide) + flat(view.narrow))
        for width, faults in zip((868, 358), page.evaluate(MEASURE), strict=True):
            wrong += [f"{name} at {width}: {fault}" for fault in faults]
    page.close()
    assert moments > 20
    assert not wrong, "\n".join(wrong)


def test_the_label_test_can_fail(browser: Any) -> None:
    """Two labels on one place, and one outside, are found."""
    page = browser.new_page()
    page.set_content(
        '<svg viewBox="0 0 100 40" width="100" height="40"><text x="5" y="20">one</text>'
        '<text x="8" y="22">two</text><text x="90" y="20">outside</text></svg>'
    )
    assert page.evaluate(MEASURE) == [["outside", "one / two"]]
    page.close()


def _as_sent(panel: FreeLists) -> str:
    """The drawings in the places where the ES module puts them."""
    data = json.loads(panel.data)
    parts = "".join(f'<div class="{name}">{data[name]}</div>' for name in ("wide", "narrow"))
    return f'<style>{panel._css}</style><div class="kml-freelists kml">{parts}</div>'


@pytest.fixture
def open_panel(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open what an HTML panel sends to the browser, in a container of some width."""
    pages = []

    def open_page(panel: Any, width: int, *, light: bool = True) -> Any:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        pages.append(page)
        content = panel.value if isinstance(panel, RequestPath) else _as_sent(panel)
        page.set_content(
            f'<meta charset="utf-8"><body data-jp-theme-light="{str(light).lower()}" style="margin:0">'
            f'<div style="width:{width}px">{content}</div></body>'
        )
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def panel() -> FreeLists:
    """A zone whose order-10 blocks were used up since."""
    m = Machine.from_recording("256M-a-21")
    panel = FreeLists(m, zone="DMA32")
    for _ in range(30):
        m.alloc_pages(GFP_KERNEL | __GFP_MOVABLE, 10)
    panel.refresh()
    return panel


@pytest.mark.parametrize(("width", "shown"), [(868, "wide"), (561, "wide"), (560, "narrow"), (358, "narrow")])
def test_the_container_chooses_the_layout(open_panel: Any, panel: FreeLists, width: int, shown: str) -> None:
    """One of the two drawings is shown, by the width of the output, and it is not cut off."""
    page = open_panel(panel, width)
    for name in ("wide", "narrow"):
        assert page.locator(f".kml .{name} svg").is_visible() is (name == shown)
    assert page.evaluate("document.querySelector('.kml').scrollWidth") <= width


@pytest.mark.parametrize("width", [868, 358])
def test_patterns_are_painted_in_both_layouts(open_panel: Any, panel: FreeLists, width: int) -> None:
    """The second cue is there: in the movable part of a bar both the tint and the dots are found."""
    page = open_panel(panel, width)
    swatch = page.locator("svg:visible rect[fill^='url(#kml-mov']").last
    box = swatch.bounding_box()
    shot = page.screenshot(clip=box)
    colours = page.evaluate(
        """async (data) => {
          const image = new Image(); image.src = 'data:image/png;base64,' + data; await image.decode();
          const g = Object.assign(document.createElement('canvas'), { width: image.width, height: image.height })
            .getContext('2d');
          g.drawImage(image, 0, 0);
          const px = g.getImageData(3, 3, image.width - 6, image.height - 6).data, found = new Set();
          for (let i = 0; i < px.length; i += 4) found.add([px[i], px[i + 1], px[i + 2]].join());
          return [...found];
        }""",
        base64.b64encode(shot).decode(),
    )
    assert ",".join(str(c) for c in bytes.fromhex(LIGHT["free"][1:])) in colours
    assert len(colours) > 1


@pytest.mark.parametrize(("light", "theme"), [(True, LIGHT), (False, DARK)], ids=["light", "dark"])
def test_the_notebooks_theme_is_followed(open_panel: Any, light: bool, theme: dict[str, str]) -> None:
    """Ink, paper and the tint of what is free are those of the theme that JupyterLab says it has."""
    m = Machine.from_recording("256M-a-21")
    m.alloc_pages(GFP_DMA, 4)
    page = open_panel(RequestPath(m), 868, light=light)
    for selector, token in (("text", "ink"), ("rect", "paper"), ("rect[stroke*=freeln]", "free")):
        fill = page.locator(f".wide svg {selector}").first.evaluate("node => getComputedStyle(node).fill")
        assert fill == "rgb({}, {}, {})".format(*bytes.fromhex(theme[token][1:]))


def test_a_screen_reader_finds_headline_and_twin(open_panel: Any) -> None:
    """The drawing is an image named by the finding; what describes it is the whole story."""
    m = Machine.from_recording("256M-a-21")
    m.alloc_pages(GFP_DMA, 4)
    page = open_panel(RequestPath(m), 868)
    image = page.get_by_role("img", name=m.explain().headline)
    assert image.count() == 1
    described = page.locator(f"#{image.get_attribute('aria-describedby')}")
    assert described.text_content() == str(m.explain())
    assert described.bounding_box()["width"] <= 1
