"""Watermarks in Chromium: values under the pointer and by keys, a part seen larger, floors; without a round trip."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, Machine
from kmemlab_widgets import Watermarks
from kmemlab_widgets.watermarks_rows import COLUMNS, run_of_rows
from tests.browser.test_drawings import MEASURE

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def panel() -> Watermarks:
    """GFP_ATOMIC takes what is left, on a machine that has nothing to reclaim; GFP_KERNEL on a full one beside it."""
    full = Machine("linux-6.1", memory="64M")
    full.read_file("backup.tar", "64M")
    other = Watermarks(full)
    for _ in range(300):
        full.alloc_pages(GFP_KERNEL, 0)
    m = Machine("linux-6.1", memory="64M")
    held = []
    while page := m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0):
        held.append(page)
    for page in held[1000:1400]:
        m.__free_pages(page, 0)
    made = Watermarks(m, beside=other.run)
    while m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0):
        pass
    made.refresh()
    return made


def opened(show: Callable[..., Any], panel: Watermarks, **how: Any) -> Any:
    return show(Watermarks._esm, Watermarks._css, {"view_data": panel.view_data}, **how)


def picture(page: Any, width: int = 868) -> Any:
    return page.locator(".picture.wide svg, .wide svg" if width == 868 else ".narrow svg")


def data(panel: Watermarks) -> dict[str, Any]:
    return json.loads(panel.view_data)


def place(panel: Watermarks, run: int, width: int = 868) -> dict[str, float]:
    return data(panel)["places"][str(width)][run]


def at(page: Any, panel: Watermarks, run: int, value: float, width: int = 868) -> tuple[float, float]:
    """A point of the page over request ``value`` of a curve."""
    box, where = picture(page, width).bounding_box(), place(panel, run, width)
    part = (value - where["lo"]) / (where["hi"] - where["lo"])
    x = where["left"] + part * (where["right"] - where["left"])
    return box["x"] + x, box["y"] + (where["top"] + where["bottom"]) / 2


def said(page: Any, run: int = 0) -> str:
    return page.locator(".said").nth(run).inner_text()


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_arrow_keys_walk_along_the_curve(show: Callable[..., Any], panel: Watermarks, width: int, light: bool) -> None:
    page = opened(show, panel, width=width, light=light)
    rows = panel._shown.runs[0].samples
    assert picture(page, width).is_visible()
    page.locator(".said").first.focus()
    for key, index in (
        ("Home", 0),
        ("ArrowRight", 1),
        ("Shift+ArrowRight", 11),
        ("ArrowLeft", 10),
        ("End", len(rows) - 1),
    ):
        page.keyboard.press(key)
        asked, _, free, low, mid, high, _, kswapd, *_ = rows[index]
        words = said(page)
        assert words.startswith(f"after {asked:,} request")
        assert f": {free:,} free, " in words
        assert f"; min {low:,}, low {mid:,}, high {high:,}" in words
        assert f"; kswapd ran {kswapd:,} time" in words
        assert page.locator(".said").first.get_attribute("aria-valuetext") == words
        assert page.locator(".said").first.get_attribute("aria-valuenow") == str(index)
        where = place(panel, 0, width)
        x = where["left"] + (asked - where["lo"]) / (where["hi"] - where["lo"]) * (where["right"] - where["left"])
        cursor = picture(page, width).locator(".curve").first.locator(".cursor line")
        assert float(cursor.get_attribute("x1")) == pytest.approx(x, abs=0.1)
    assert page.evaluate("window.outside") == [], "the notebook does not see the keys"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_browser_draws_what_python_draws(show: Callable[..., Any], panel: Watermarks) -> None:
    """The curve goes through each sample, the marks are the same paths, and so are the words at the ring."""
    page = opened(show, panel)
    for run, name in ((0, "atomic"), (1, "kernel")):
        where, rows = place(panel, run), panel._shown.runs[run].samples
        layer = picture(page).locator(".curve").nth(run)
        points = re.findall(r"([\d.]+) ([\d.]+)", layer.locator("path.free").get_attribute("d"))
        assert len(points) == len(rows), name
        for (x, y), row in zip(points, rows, strict=True):
            part = (row[0] - where["lo"]) / (where["hi"] - where["lo"])
            assert float(x) == pytest.approx(where["left"] + part * (where["right"] - where["left"]), abs=0.06)
            free = min(row[2], where["most"]) / where["most"]
            assert float(y) == pytest.approx(where["bottom"] - free * (where["bottom"] - where["top"]), abs=0.06)
        rose = sum(b[7] > a[7] for a, b in itertools.pairwise(rows))
        assert layer.locator("path.kswapd").get_attribute("d").count("v14") == rose
    ring = picture(page).locator(".curve").first.locator("text.null").all_text_contents()
    assert ring == data(panel)["runs"][0]["ring"]["words"]
    assert ring[0].startswith("NULL: ")


def test_hover(show: Callable[..., Any], panel: Watermarks) -> None:
    page = opened(show, panel)
    for run in (0, 1):
        asked = panel._shown.runs[run].samples[-1][0] // 3
        page.mouse.move(*at(page, panel, run, asked))
        assert said(page, run).startswith(f"after {asked:,} request")
    page.wait_for_function("document.querySelectorAll('.quiet')[1].textContent.startsWith('after ')")


def test_drag_shows_a_part_and_a_double_click_all(show: Callable[..., Any], panel: Watermarks) -> None:
    page = opened(show, panel)
    rows = panel._shown.runs[0].samples
    first, last = rows[-1][0] // 4, rows[-1][0] // 2
    curve = picture(page).locator(".curve").first
    whole = curve.locator("path.free").get_attribute("d")
    assert page.get_by_role("button", name="whole curve").first.is_disabled()
    page.mouse.move(*at(page, panel, 0, first))
    page.mouse.down()
    page.mouse.move(*at(page, panel, 0, last), steps=3)
    assert float(curve.locator(".brush").get_attribute("width")) > 20
    page.mouse.up()
    part = curve.locator("path.free").get_attribute("d")
    assert part != whole
    assert part.count(".") < whole.count(".")
    where = place(panel, 0)
    ends = re.findall(r"[ML]([\d.]+) ", part)
    assert (float(ends[0]), float(ends[-1])) == (pytest.approx(where["left"]), pytest.approx(where["right"]))
    page.locator(".said").first.focus()
    page.keyboard.press("Home")
    assert abs(int(re.match(r"after ([\d,]+)", said(page))[1].replace(",", "")) - first) <= 2
    page.keyboard.press("End")
    assert abs(int(re.match(r"after ([\d,]+)", said(page))[1].replace(",", "")) - last) <= 2
    other = picture(page).locator(".curve").nth(1).locator("path.free").get_attribute("d")
    page.mouse.dblclick(*at(page, panel, 0, last))
    assert curve.locator("path.free").get_attribute("d") == whole
    assert picture(page).locator(".curve").nth(1).locator("path.free").get_attribute("d") == other


def test_a_part_by_keys_and_buttons(show: Callable[..., Any], panel: Watermarks) -> None:
    page = opened(show, panel)
    curve = picture(page).locator(".curve").first
    whole = curve.locator("path.free").get_attribute("d")
    page.locator(".said").first.focus()
    page.keyboard.press("Home")
    page.keyboard.press("+")
    page.keyboard.press("+")
    part = curve.locator("path.free").get_attribute("d")
    assert part.count("L") < whole.count("L") / 2
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert curve.locator("path.free").get_attribute("d") == whole
    page.get_by_role("button", name="see less of the curve, larger").first.click()
    assert curve.locator("path.free").get_attribute("d") != whole
    page.get_by_role("button", name="whole curve").first.click()
    assert curve.locator("path.free").get_attribute("d") == whole


def test_large_numbers_stay_apart(show: Callable[..., Any]) -> None:
    rows = [(asked, 600 + asked % 997, 0, 0) for asked in range(0, 3_000_001, 6000)]
    run = run_of_rows({"columns": COLUMNS, "rows": rows, "marks": [411, 513, 615]}, "DMA32")
    page = opened(show, Watermarks(run, beside=run))
    page.add_style_tag(content="svg { font-family: 'DejaVu Sans' !important }")
    hand = page.locator(".said").first
    for key in ("End", "+", "+", "+", "+", "ArrowLeft", "+", "Home", "-"):
        hand.press(key)
        assert page.evaluate(MEASURE.replace("'svg'", "'.wide svg'")) == [[], []], f"after {key}"


@pytest.mark.parametrize(("width", "picked"), [(868, ".wide svg"), (358, ".narrow svg")])
def test_labels_stay_apart(show: Callable[..., Any], panel: Watermarks, width: int, picked: str) -> None:
    """However large a part is seen, no number covers another, and none sticks out."""
    page = opened(show, panel, width=width)
    page.add_style_tag(content="svg { font-family: 'DejaVu Sans' !important }")
    for run in (0, 1):
        hand = page.locator(".said").nth(run)
        for key in ("Home", "+", "+", "End", "+", "0", "+", "+", "+", "+", "0"):
            hand.press(key)
            assert page.evaluate(MEASURE.replace("'svg'", f"'{picked}'")) == [[], []], f"curve {run} after {key}"


def test_floors_are_ticked(show: Callable[..., Any], panel: Watermarks) -> None:
    page = opened(show, panel)
    floor = picture(page).locator(".floor[data-floor='2']")
    assert floor.is_visible()
    assert "GFP_ATOMIC 55" in floor.text_content()
    box = page.get_by_role("checkbox", name="GFP_ATOMIC")
    box.focus()
    page.keyboard.press("Space")
    assert not floor.is_visible()
    page.evaluate("data => model.set('view_data', data)", panel.view_data)
    assert not floor.is_visible(), "what was chosen stays when the machine goes on"
    assert page.evaluate("document.activeElement.parentElement.textContent") == "GFP_ATOMIC", "the focus stays"
    page.keyboard.press("Space")
    assert floor.is_visible()


def test_it_goes_on_and_errors_are_shown(show: Callable[..., Any]) -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = Watermarks(m)
    page = opened(show, panel)
    assert said(page).startswith("after 0 requests: ")
    for _ in range(5):
        m.alloc_pages(GFP_KERNEL, 0)
    panel.refresh()
    page.evaluate("data => model.set('view_data', data)", panel.view_data)
    assert said(page).startswith("after 5 requests: "), "the cursor stays at the end"
    assert page.locator(".head").inner_text() == "GFP_KERNEL got every page it asked for: free never fell to low"
    page.evaluate("model.set('view_data', JSON.stringify({error: 'Watermarks\\npanel error: <i>x</i>'}))")
    assert page.locator(".sub").inner_text() == "panel error: <i>x</i>"
    assert not page.locator(".said").is_visible()
