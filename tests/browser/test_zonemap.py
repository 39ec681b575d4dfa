"""The map's ES module alone in Chromium: pixels, pointer, keys, themes, widths."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmemlab import __GFP_NOWARN, GFP_DMA, Machine
from kmemlab_widgets.theme import DARK, LIGHT
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import block_rect
from tests.browser.map_page import Wire, colour_at, corner, middle

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(("light", "theme"), [(True, LIGHT), (False, DARK)], ids=["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "broad", "mid", "narrow"])
def test_pages_have_their_states_colour(
    open_map: Any, panel: ZoneMap, light: bool, theme: dict[str, str], width: str
) -> None:
    """A free frame is light, a taken one dark, in both themes and at each width; nothing sticks out."""
    wide = {"wide": 868, "broad": 800, "mid": 700, "narrow": 358}[width]
    page = open_map(light=light, width=wide)
    assert colour_at(page, *middle(panel, 1500, width)) == theme["free"]
    assert colour_at(page, *middle(panel, 295, width)) == theme["unmov"]
    x, y = middle(panel, 1029, width)
    assert colour_at(page, x, y - json.loads(panel.meta)["layouts"][width]["px"] // 2) == theme["freeln"]
    assert page.evaluate("document.getElementById('root').scrollWidth") <= wide
    assert page.evaluate("document.documentElement.scrollWidth") <= wide + 40


def test_the_theme_may_change(open_map: Any, panel: ZoneMap) -> None:
    """Switched in JupyterLab's settings: the canvas is drawn again in the new colours."""
    page = open_map()
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_timeout(50)
    assert colour_at(page, *middle(panel, 1500)) == DARK["free"]


def test_the_width_may_change(open_map: Any, panel: ZoneMap) -> None:
    """A narrower notebook gets the narrow layout; narrower still, the map shrinks and the pointer still fits."""
    page = open_map()
    page.evaluate("document.getElementById('root').style.width = '358px'")
    page.wait_for_timeout(100)
    assert colour_at(page, *middle(panel, 1500, "narrow")) == LIGHT["free"]
    page.evaluate("document.getElementById('root').style.width = '300px'")
    page.wait_for_timeout(100)
    assert page.evaluate("document.getElementById('root').scrollWidth") <= 300
    x, y = middle(panel, 1500, "narrow")
    page.locator("canvas.map").hover(position={"x": x * 300 / 358, "y": y * 300 / 358})
    assert page.locator(".tip").inner_text().startswith("pfn 1500 ·")


def test_the_block_just_taken_is_framed(open_map: Any, panel: ZoneMap) -> None:
    """2 px of ink with paper outside it, round frames 288 to 303."""
    page = open_map()
    x, y = corner(panel, 288)
    assert colour_at(page, x, y, "canvas.marks") == LIGHT["ink"]
    assert colour_at(page, x - 2, y - 2, "canvas.marks") == LIGHT["paper"]
    assert page.locator(".legend .mark").all_inner_texts() == ["just allocated", "split off", "pageblock Unmovable"]


def test_hover_tells_the_block_and_its_buddy(open_map: Any, panel: ZoneMap) -> None:
    """What the pointer is on, in the kernel's words; block and buddy are framed."""
    page = open_map()
    x, y = middle(panel, 310)
    page.locator("canvas.map").hover(position={"x": x, "y": y})
    tip = page.locator(".tip")
    assert tip.inner_text() == (
        "pfn 310 · free · order 4 block 304–319 · head of list Unmovable · pageblock Unmovable · buddy 288 (in use)"
    )
    assert colour_at(page, *corner(panel, 304), "canvas.cursor") == LIGHT["focus"]
    box = tip.bounding_box()
    root = page.locator("#root").bounding_box()
    assert root["x"] <= box["x"]
    assert box["x"] + box["width"] <= root["x"] + root["width"]
    page.wait_for_timeout(400)
    assert page.locator(".live").inner_text() == tip.inner_text()
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    assert colour_at(page, *corner(panel, 304), "canvas.cursor") == "#000000"


@pytest.mark.parametrize(
    ("pfn", "words"),
    [
        (0, "pfn 0 · no memory here"),
        (200, "pfn 200 · reserved at boot"),
        (290, "pfn 290 · allocated, unmovable · just allocated, order 4 block 288–303 · pageblock Unmovable · buddy 304 (free)"),  # noqa: E501
        (520, "pfn 520 · free · order 9 block 512–1023 · head of list Movable · pageblock Movable · buddy 0 (no memory here)"),  # noqa: E501
        (1024, "pfn 1024 · free · order 10 block 1024–2047 · head of list Movable · pageblock Movable"),
    ],
)  # fmt: skip
def test_words(open_map: Any, panel: ZoneMap, pfn: int, words: str) -> None:
    """Every kind of page has its sentence."""
    page = open_map()
    x, y = middle(panel, pfn)
    page.locator("canvas.map").hover(position={"x": x, "y": y})
    assert page.locator(".tip").inner_text() == words


def test_keys_walk_and_stay_inside(open_map: Any) -> None:
    """Arrows go page by page, with Shift block by block, B to the buddy; the notebook does not hear them."""
    page = open_map()
    tip = page.locator(".tip")
    page.locator("canvas.map").focus()
    for keys, pfn in (
        ("ArrowRight", 288),  # the first key shows where we are: the block just taken
        ("ArrowRight", 289),
        ("ArrowDown", 291),
        ("ArrowLeft", 290),
        ("ArrowUp", 288),
        ("Shift+ArrowRight", 304),
        ("Shift+ArrowRight", 320),
        ("Shift+ArrowRight", 384),
        ("Shift+ArrowLeft", 320),
        ("Shift+ArrowDown", 384),
        ("b", 256),
        ("b", 256),  # taken, of an order nobody knows: no buddy
        ("End", 4095),
        ("ArrowRight", 4095),  # the last page stays the last
        ("Home", 1),
        ("Shift+ArrowLeft", 1),
    ):
        page.keyboard.press(keys)
        assert tip.inner_text().startswith(f"pfn {pfn} ·"), keys
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert page.evaluate("window.outside") == []
    page.keyboard.press("Control+s")  # the notebook's own
    assert "s" in page.evaluate("window.outside")


def test_arrows_cross_tiles(open_map: Any) -> None:
    """Left and right go on in the next tile, on the same level."""
    page = open_map()
    page.locator("canvas.map").focus()
    page.keyboard.press("End")
    page.keyboard.press("Home")
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text().startswith("pfn 1089 ·")  # 40 - 31 columns: 1024 + Z(9, 0)


def test_page_keys_go_by_rows(open_map: Any) -> None:
    """On a phone zone DMA32 has four tiles a row."""
    m = Machine.from_recording("256M-a-21")
    page = open_map(ZoneMap(m, zone="DMA32"), width=358)
    page.locator("canvas.map").focus()
    for keys, pfn in (
        ("ArrowRight", 4096),
        ("PageDown", 8192),
        ("PageDown", 12288),
        ("PageUp", 8192),
        ("ArrowUp", 4096 + 682),  # the lowest page row of the tile above: Z(0, 31)
        ("End", 65503),
    ):
        page.keyboard.press(keys)
        assert page.locator(".tip").inner_text().startswith(f"pfn {pfn} ·"), keys


def test_focus_is_seen(open_map: Any) -> None:
    """One Tab stop for the map and one for the legend, each with a frame; arrows go on inside the legend."""
    page = open_map()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "map"
    style = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(style) == "solid"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.state") == "1"
    assert page.evaluate(style) == "solid"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.state") == "2"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.keyboard.press("Tab")  # one moment: no Play, no scrubber
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    assert page.evaluate(style) == "solid"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_zoom(open_map: Any, panel: ZoneMap) -> None:
    """A click pins the pageblock with its pages' colours, Z lets it go, Escape too."""
    page = open_map()
    x, y = middle(panel, 300)
    page.locator("canvas.map").click(position={"x": x, "y": y})
    zoom = page.locator(".zoom")
    assert "Zoom: pageblock 0–511 (2 MiB)\n" in zoom.inner_text()
    assert "Unmovable · 208 of 512 pages free" in zoom.inner_text()
    assert page.evaluate("document.querySelector('.zoom canvas').width") == 32 * 16
    col, row, _, _ = block_rect(293, 0)
    assert colour_at(page, col * 16 + 8, row * 16 + 10, ".zoom canvas") == LIGHT["unmov"]
    page.locator("canvas.map").focus()
    page.keyboard.press("z")
    assert zoom.is_hidden()
    page.keyboard.press("End")
    page.keyboard.press("z")
    assert "pageblock 3584–4095" in zoom.inner_text()
    page.keyboard.press("Escape")
    assert zoom.is_hidden()


def test_zoom_of_small_pages(open_map: Any) -> None:
    """Where a page is 2 px on the map it is 8 in the zoom."""
    page = open_map(width=358)
    page.locator("canvas.map").focus()
    page.keyboard.press("z")
    assert page.evaluate("document.querySelector('.zoom canvas').width") == 32 * 8


def test_legend_shows_one_state(open_map: Any, panel: ZoneMap) -> None:
    """A pressed entry keeps its state's colour and fades the rest: the second cue for small pages."""
    page = open_map()
    button = page.locator(".legend button", has_text="unmovable")
    button.click()
    assert page.locator(".legend button[aria-pressed='true']").count() == 1
    assert colour_at(page, *middle(panel, 1500)) == LIGHT["wash"]
    assert colour_at(page, *middle(panel, 295)) == LIGHT["unmov"]
    button.click()
    assert page.locator(".legend button[aria-pressed='true']").count() == 0
    assert colour_at(page, *middle(panel, 1500)) == LIGHT["free"]


def test_new_cells_are_drawn_on_frame(open_map: Any, panel: ZoneMap) -> None:
    """The counter is the only trigger: one redraw for all traits."""
    page = open_map()
    x, y = middle(panel, 1500)
    page.evaluate("model.get('cells').buffer && new Uint8Array(model.get('cells').buffer).fill(7)")
    assert colour_at(page, x, y) == LIGHT["free"]
    page.evaluate("model.set('frame', 2)")
    assert colour_at(page, x, y) == LIGHT["unmov"]


def test_an_error_and_back(open_map: Any, panel: ZoneMap) -> None:
    """A drawing that failed in Python shows its words in place of the map; the next one is drawn again."""
    page = open_map()
    page.evaluate("model.set('meta', JSON.stringify({error: 'panel error: <b>KeyError</b>'})); model.set('frame', 2)")
    assert page.locator(".sub").inner_text() == "panel error: <b>KeyError</b>"
    assert page.locator("canvas.map").is_hidden()
    page.evaluate("meta => { model.set('meta', meta); model.set('frame', 3) }", panel.meta)
    assert page.locator("canvas.map").is_visible()
    assert colour_at(page, *middle(panel, 1500)) == LIGHT["free"]


def test_a_zone_that_refused(open_map: Any) -> None:
    """A `bad` edge at the zone, and no frame."""
    m = Machine.from_recording("256M-a-21")
    while m.alloc_pages(GFP_DMA | __GFP_NOWARN, 3):
        pass
    panel = ZoneMap(m, zone="DMA")
    page = open_map(panel)
    rects = [rect for rect in json.loads(panel.meta)["layouts"]["wide"]["rects"] if rect[4] == "bad"]
    assert len(rects) == 1
    assert colour_at(page, rects[0][0] + 1, rects[0][1] + 2) == LIGHT["bad"]
    assert page.locator(".head").inner_text().startswith("alloc_pages(GFP_DMA|__GFP_NOWARN, 3) = NULL")


def test_a_machine_too_large_to_list(open_map: Any) -> None:
    """Cells of shares: hover and keys tell what is in them; a tile opens where pages are listed."""
    m = Machine(memory="4T")
    m.alloc_pages(GFP_DMA, 0)
    panel = ZoneMap(m)
    page = open_map(panel)
    wire = Wire(page, panel)
    zone, x, y, _, count = json.loads(panel.meta)["layouts"]["wide"]["cells"][0]
    assert (zone, count) == (0, 4)
    assert colour_at(page, x + 8, y + 8) == LIGHT["free"]
    page.locator("canvas.map").hover(position={"x": x + 17 * 3 + 4, "y": y + 4})
    tip = page.locator(".tip")
    assert tip.inner_text().startswith("pfn 3072–4095 · zone DMA · 1,024 of 1,024 pages free · largest block order 10")
    page.locator("canvas.map").focus()
    for keys, start in (("ArrowRight", "pfn 0–1023 · zone DMA"), ("ArrowRight", "pfn 1024–"), ("End", "pfn 3072–")):
        page.keyboard.press(keys)
        assert tip.inner_text().startswith(start), keys
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert wire.pump()[0] == {"ask": "tile", "pfn": 0}
    assert page.locator(".zoom b").inner_text() == "Zoom: tile 0–1023 (4 MiB)"
    assert page.evaluate("document.querySelector('.zoom canvas').height") == 256
    free = sum(1 << order for (order, _), pfns in m.snapshot().zones[0].free.items() for p in pfns if p < 1024)
    assert f"{free} of 1024 pages free" in page.locator(".zoom").inner_text()
    page.keyboard.press("z")
    assert page.locator(".zoom").is_hidden()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    for keys in ("ArrowDown",) * 40:
        page.keyboard.press(keys)
    assert "zone Normal" in tip.inner_text()
    assert "opens" not in tip.inner_text()
    page.keyboard.press("Enter")
    assert wire.pump() == []


def test_targets_and_labels(open_map: Any) -> None:
    """Buttons are large enough for a finger; the canvas has a name and a description."""
    page = open_map()
    for box in [button.bounding_box() for button in page.locator(".legend button").all()]:
        assert min(box["height"], box["width"]) >= 24
    canvas = page.locator("canvas.map")
    assert canvas.get_attribute("aria-label").startswith("alloc_pages(GFP_DMA, 4) = pfn 288")
    described = [page.locator(f"#{name}").inner_text() for name in canvas.get_attribute("aria-describedby").split()]
    assert "largest order 10 x3" in described[0]
    assert "Arrows: page" in described[1]
