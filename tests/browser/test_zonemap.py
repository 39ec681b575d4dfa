"""The map's ES module alone in Chromium: pixels, pointer, keys, themes, widths."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import GFP_DMA, Machine
from kmemlab_widgets.theme import DARK, LIGHT
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import block_rect

pytestmark = pytest.mark.browser


@pytest.fixture
def panel() -> ZoneMap:
    """The yard after one request: 16 pages from frame 288 on are taken, cut from an order-5 block."""
    m = Machine.from_recording("256M-a-21")
    m.alloc_pages(GFP_DMA, 4)
    return ZoneMap(m, zone="DMA")


@pytest.fixture
def open_map(show: Callable[..., Any], panel: ZoneMap) -> Callable[..., Any]:
    """Open the map in a page."""

    def open_page(**kwargs: Any) -> Any:
        state = {"cells": base64.b64encode(panel.cells).decode(), "meta": panel.meta, "frame": 1}
        return show("zonemap.js", ZoneMap._css, state, binary=("cells",), **kwargs)

    return open_page


def middle(panel: ZoneMap, pfn: int, width: str = "wide") -> tuple[float, float]:
    """Where the middle of a frame is on the canvas."""
    lay = json.loads(panel.meta)[width]
    x, y, _, _ = block_rect(pfn, 0)
    for row in lay["groups"][0]["rows"]:
        if pfn // 1024 * 1024 in row["tiles"]:
            left = lay["left"] + row["tiles"].index(pfn // 1024 * 1024) * lay["pitch"]
            return left + (x + 0.5) * lay["px"], row["y"] + (y + 0.5) * lay["px"]
    raise AssertionError(f"{pfn} is not on the map")


def colour_at(page: Any, x: float, y: float) -> str:
    """The colour of a canvas pixel as #RRGGBB."""
    data = page.evaluate(
        f"[...document.querySelector('canvas.map').getContext('2d').getImageData({int(x)}, {int(y)}, 1, 1).data]"
    )
    return "#" + "".join(f"{c:02X}" for c in data[:3])


@pytest.mark.parametrize(("light", "theme"), [(True, LIGHT), (False, DARK)], ids=["light", "dark"])
def test_pages_have_their_states_colour(open_map: Any, panel: ZoneMap, light: bool, theme: dict[str, str]) -> None:
    """A free frame is light, a taken one dark, in both themes."""
    page = open_map(light=light)
    assert colour_at(page, *middle(panel, 1500)) == theme["free"]
    assert colour_at(page, *middle(panel, 295)) == theme["unmov"]


def test_hover_tells_the_block_and_its_buddy(open_map: Any, panel: ZoneMap) -> None:
    """What the pointer is on, in the kernel's words."""
    page = open_map()
    x, y = middle(panel, 310)
    page.locator("canvas.map").hover(position={"x": x, "y": y})
    text = page.locator(".tip").inner_text()
    assert text.startswith("pfn 310 · free, in the buddy lists · order 4 block 304–319")
    assert "buddy 288 (in use)" in text
    assert "pageblock Unmovable" in text


def test_keys_walk_and_stay_inside(open_map: Any) -> None:
    """Arrows go page by page, with Shift block by block, B to the buddy; the notebook does not hear them."""
    page = open_map()
    tip = page.locator(".tip")
    page.locator("canvas.map").focus()
    page.keyboard.press("ArrowRight")  # the first key shows where we are: the block just taken
    assert tip.inner_text().startswith("pfn 288 ·")
    page.keyboard.press("ArrowRight")
    assert tip.inner_text().startswith("pfn 289 ·")
    page.keyboard.press("ArrowDown")
    assert tip.inner_text().startswith("pfn 291 ·")
    page.keyboard.press("End")
    assert tip.inner_text().startswith("pfn 4095 ·")
    page.keyboard.press("Home")
    assert tip.inner_text().startswith("pfn 0 ·")
    for _ in range(320):
        if "pfn 320 " in tip.inner_text():
            break
        page.keyboard.press("Shift+ArrowRight")
    assert "order 6 block 320–383" in tip.inner_text()
    page.keyboard.press("Shift+ArrowRight")
    assert "order 7 block 384–511" in tip.inner_text()
    page.keyboard.press("b")
    assert tip.inner_text().startswith("pfn 256 ·")
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert page.evaluate("window.outside") == []


def test_zoom(open_map: Any, panel: ZoneMap) -> None:
    """A click pins the pageblock, Z lets it go."""
    page = open_map()
    x, y = middle(panel, 700)
    page.locator("canvas.map").click(position={"x": x, "y": y})
    assert "pageblock 512–1023 (2 MiB), Movable" in page.locator(".zoom").inner_text()
    page.locator("canvas.map").focus()
    page.keyboard.press("z")
    assert page.locator(".zoom").is_hidden()


def test_legend_shows_one_state(open_map: Any, panel: ZoneMap) -> None:
    """A pressed entry keeps its state's colour and fades the rest: the second cue for small pages."""
    page = open_map()
    page.locator(".legend button", has_text="unmovable").click()
    assert page.locator(".legend button[aria-pressed='true']").count() == 1
    assert colour_at(page, *middle(panel, 1500)) == LIGHT["wash"]
    assert colour_at(page, *middle(panel, 295)) == LIGHT["unmov"]


def test_new_cells_are_drawn_on_frame(open_map: Any, panel: ZoneMap) -> None:
    """The counter is the only trigger: one redraw for all traits."""
    page = open_map()
    x, y = middle(panel, 1500)
    page.evaluate("model.get('cells').buffer && new Uint8Array(model.get('cells').buffer).fill(7)")
    assert colour_at(page, x, y) == LIGHT["free"]
    page.evaluate("model.set('frame', 2)")
    assert colour_at(page, x, y) == LIGHT["unmov"]


def test_narrow(open_map: Any, panel: ZoneMap) -> None:
    """On a phone the second layout is used, and nothing sticks out."""
    page = open_map(width=358)
    assert colour_at(page, *middle(panel, 1500, "narrow")) == LIGHT["free"]
    assert page.evaluate("document.getElementById('root').scrollWidth") <= 358


def test_targets_and_labels(open_map: Any) -> None:
    """Buttons are large enough for a finger; the canvas has a name and a description."""
    page = open_map()
    for box in [button.bounding_box() for button in page.locator(".legend button").all()]:
        assert box["height"] >= 24
    canvas = page.locator("canvas.map")
    assert canvas.get_attribute("aria-label").startswith("alloc_pages(GFP_DMA, 4) = pfn 288")
    described = canvas.get_attribute("aria-describedby")
    assert "largest order 10 x3" in page.locator(f"#{described}").inner_text()
