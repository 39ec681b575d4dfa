"""The map's ES module alone in Chromium: pixels, pointer, keys, themes, widths, time, and what clicks ask for."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import __GFP_NOWARN, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine
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
    """``open_map(panel=this one, width=868, light=True)``: the map in a page."""

    def open_page(shown: ZoneMap = panel, **kwargs: Any) -> Any:
        state = {"cells": in_text(shown.cells), "orders": in_text(shown.orders), "meta": shown.meta, "frame": 1}
        return show(HOOKED, ZoneMap._css, state, binary=("cells", "orders"), **kwargs)

    return open_page


def in_text(data: bytes) -> str:
    """Bytes as the page takes them."""
    return base64.b64encode(data).decode()


# The module with a way in for Python's messages, which the stand-in for the model does not have.
HOOKED = (
    ZoneMap._esm.replace("export default { render };", "")
    + """
const heard = [];
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.tell = (message, buffers) => heard.forEach((hear) => hear(message, buffers.map(bytes)));
window.renew = (meta, cells, orders, frame) => {
  for (const [name, value] of Object.entries({ meta, cells: bytes(cells), orders: bytes(orders), frame }))
    window.model.set(name, value);
};
export default {
  render({ model, el }) {
    const on = model.on;
    model.on = (name, f) => (name === "msg:custom" ? heard.push(f) : on(name, f));
    return render({ model, el, show: (map) => (window.map = map) });
  },
};
"""
)


class Wire:
    """Carries messages between a page and its panel in Python, as a notebook does."""

    def __init__(self, page: Any, panel: ZoneMap) -> None:
        self.page, self.panel, self.seen = page, panel, panel.frame
        panel.send = self.send

    def send(self, content: Any, buffers: Any = ()) -> None:
        """From Python to the page."""
        self.page.evaluate("([m, b]) => window.tell(m, b)", [content, [in_text(bytes(each)) for each in buffers]])

    def sync(self) -> None:
        """The traits, if there is a new moment."""
        if self.panel.frame != self.seen:
            self.seen = self.panel.frame
            data = [self.panel.meta, in_text(self.panel.cells), in_text(self.panel.orders), self.seen]
            self.page.evaluate("(data) => window.renew(...data)", data)

    def pump(self) -> list[Any]:
        """What the page has asked, answered."""
        asked = self.page.evaluate("window.sent.splice(0)")
        for message in asked:
            self.panel._handle_custom_msg(message, [])
            self.sync()
        self.page.wait_for_timeout(60)
        return asked


def middle(panel: ZoneMap, pfn: int, width: str = "wide") -> tuple[float, float]:
    """Where the middle of a frame is on the canvas."""
    lay = json.loads(panel.meta)["layouts"][width]
    x, y, _, _ = block_rect(pfn, 0)
    for tile, left, top, _ in lay["tiles"]:
        if pfn // 1024 * 1024 == tile:
            return left + (x + 0.5) * lay["px"], top + (y + 0.5) * lay["px"]
    raise AssertionError(f"{pfn} is not on the map")


def colour_at(page: Any, x: float, y: float, canvas: str = "canvas.map") -> str:
    """The colour of a canvas pixel as #RRGGBB."""
    data = page.evaluate(
        f"[...document.querySelector('{canvas}').getContext('2d').getImageData({int(x)}, {int(y)}, 1, 1).data]"
    )
    return "#" + "".join(f"{c:02X}" for c in data[:3])


def corner(panel: ZoneMap, pfn: int) -> tuple[float, float]:
    """Just outside the upper left corner of a frame, where the 2 px frame of its block is."""
    x, y = middle(panel, pfn)
    return x - 4, y - 4


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


# --- time, brackets, hands ---------------------------------------------------------------------------


@pytest.fixture
def film() -> ZoneMap:
    """Seven moments of a whole machine: the first, and after each of six calls."""
    m = Machine.from_recording("256M-a-21")
    panel = ZoneMap(m)
    with panel.record():
        taken = [m.alloc_pages(GFP_DMA, order) for order in (4, 2, 0, 6)]
        m.__free_pages(taken[0], 4)
        m.alloc_pages(GFP_KERNEL, 9)
    return panel


HELD = """() => { const map = window.map; return [map.cells, map.orders].map((b) => btoa(
  Array.from(b, (c) => String.fromCharCode(c)).join(""))); }"""


def held(page: Any) -> tuple[bytes, bytes]:
    """Cells and orders that the page holds."""
    cells, orders = (base64.b64decode(text) for text in page.evaluate(HELD))
    return cells, orders


def test_one_moment_has_no_controls(open_map: Any) -> None:
    """Nothing to play yet: neither button nor scrubber."""
    page = open_map()
    assert page.locator(".time").is_hidden()


def test_play_draws_every_moment_to_the_last(open_map: Any, film: ZoneMap) -> None:
    """From the first to the last, none left out; the last is the machine, byte for byte."""
    page = open_map(film)
    wire = Wire(page, film)
    assert page.evaluate("window.sent") == []  # the film is not sent before it is wanted
    page.evaluate(
        """() => { window.drawn = []; const go = map.goTo.bind(map);
        map.goTo = (i) => { go(i); window.drawn.push(map.moment); }; }"""
    )
    page.locator(".play").click()
    assert page.locator(".play").inner_text() == "▶ Play"
    assert wire.pump() == [{"ask": "film"}]
    page.wait_for_function("document.querySelector('.play').textContent.includes('Play') && window.drawn.length > 6")
    assert page.evaluate("window.drawn") == [0, 1, 2, 3, 4, 5, 6]
    cells, orders = held(page)
    assert (cells, orders) == (film.cells, film.orders)
    assert cells == b"".join(zone.pages for zone in film.machine.snapshot().zones)
    assert page.locator(".head").inner_text() == json.loads(film.meta)["headline"]


def test_the_film_drawn_piecewise_is_the_map_drawn_whole(open_map: Any, film: ZoneMap) -> None:
    """After all those changed tiles the canvas is the one of a fresh map, pixel for pixel."""
    page = open_map(film)
    wire = Wire(page, film)
    page.locator("canvas.map").focus()
    page.keyboard.press(",")
    wire.pump()
    for keys in (",", ",", ",", ",", ",", ".", ".", ".", ".", ".", ".", "."):
        page.keyboard.press(keys)
    fresh = open_map(film)
    data = "[...document.querySelectorAll('canvas.map, canvas.marks')].map((c) => c.toDataURL())"
    assert page.evaluate(data) == fresh.evaluate(data)
    page.keyboard.press(",")
    assert page.evaluate(data) != fresh.evaluate(data)


def test_scrub(open_map: Any, film: ZoneMap) -> None:
    """A real slider: its value is a moment, its words are the call."""
    page = open_map(film)
    wire = Wire(page, film)
    slider = page.locator("input[type=range]")
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["0", "6"]
    slider.focus()
    page.keyboard.press("Home")
    wire.pump()
    assert slider.get_attribute("aria-valuetext") == "call 0 of 6: nothing asked yet"
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext").startswith("call 2 of 6: alloc_pages(GFP_DMA, 2) = pfn ")
    assert held(page) == film.film.at(2)
    assert page.locator(".sub").inner_text() == film.film.shots[2].info["sub"]
    taken = film.film.shots[2].info["marks"]["taken"][0]
    x, y = middle(film, taken)
    assert colour_at(page, x, y) == LIGHT["unmov"]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert colour_at(page, x, y) == LIGHT["free"]
    assert page.evaluate("window.outside") == []


def test_keys_of_time(open_map: Any, film: ZoneMap) -> None:
    """Comma and full stop step, Space plays and pauses; Pause stays where it is."""
    page = open_map(film)
    wire = Wire(page, film)
    page.locator("canvas.map").focus()
    page.keyboard.press(",")
    wire.pump()
    assert page.evaluate("map.moment") == 5
    page.keyboard.press(".")
    page.keyboard.press(".")
    assert page.evaluate("map.moment") == 6
    page.evaluate("map.still = 0; window.matchMedia = () => ({ matches: true })")
    page.keyboard.press(" ")  # reduced motion: a moment a second
    assert page.locator(".play").inner_text() == "❚❚ Pause"
    page.wait_for_timeout(300)
    assert page.evaluate("map.moment") == 0
    page.wait_for_timeout(1000)
    assert page.evaluate("map.moment") == 1
    page.keyboard.press(" ")
    assert page.locator(".play").inner_text() == "▶ Play"
    page.wait_for_timeout(1100)
    assert page.evaluate("map.moment") == 1


def test_a_new_moment_is_shown_at_once(open_map: Any, film: ZoneMap) -> None:
    """Whatever was looked at: what the machine does now comes first, and the film is asked for again."""
    page = open_map(film)
    wire = Wire(page, film)
    page.locator("canvas.map").focus()
    page.keyboard.press(",")
    wire.pump()
    film.machine.alloc_pages(GFP_KERNEL, 3)
    film.refresh()
    wire.sync()
    assert page.evaluate("map.moment") is None
    assert held(page) == (film.cells, film.orders)
    assert page.locator("input[type=range]").get_attribute("max") == "7"
    page.keyboard.press(",")
    assert wire.pump() == [{"ask": "film"}]
    assert page.evaluate("map.moment") == 6


def test_thirty_a_second(open_map: Any) -> None:
    """A film of 240 moments in which many tiles change keeps its pace, and no moment is left out."""
    m, rng = Machine.from_recording("256M-a-21"), random.Random(3)
    panel, taken = ZoneMap(m), []
    for _ in range(119):
        for _ in range(60):
            if taken and rng.random() < 0.45:
                block = taken.pop(rng.randrange(len(taken)))
                m.__free_pages(block, block.order)
            elif block := m.alloc_pages(
                rng.choice((GFP_KERNEL, GFP_DMA, GFP_HIGHUSER_MOVABLE)), rng.choice((0, 0, 1, 3, 5))
            ):
                taken.append(block)
        panel.refresh()
    assert sum(len(shot.tiles) for shot in panel.film.shots) / len(panel.film) > 5
    page = open_map(panel)
    wire = Wire(page, panel)
    page.evaluate(
        """() => { window.drawn = []; const go = map.goTo.bind(map);
        map.goTo = (i) => { go(i); window.drawn.push([map.moment, performance.now()]); }; }"""
    )
    page.locator(".play").click()
    wire.pump()
    page.wait_for_function("window.drawn.length >= 120", timeout=20_000)
    drawn = page.evaluate("window.drawn")
    assert [moment for moment, _ in drawn] == list(range(120))
    pace = 119_000 / (drawn[-1][1] - drawn[0][1])
    assert 20 < pace < 32  # 30 on a machine that is not busy with other tests
    assert held(page) == (panel.cells, panel.orders)


def test_corner_brackets(open_map: Any, film: ZoneMap) -> None:
    """F goes through the flags, and so does the select; four corners round the block, and words in the key."""
    page = open_map(film)
    wire = Wire(page, film)
    page.locator("canvas.map").focus()
    page.keyboard.press("f")
    assert wire.pump() == [{"ask": "flag", "flag": "GFP_KERNEL"}]
    page.locator("select").select_option("GFP_DMA")
    assert wire.pump() == [{"ask": "flag", "flag": "GFP_DMA"}]
    pfn, order = json.loads(film.meta)["marks"]["largest"]["block"]
    assert f"where GFP_DMA's largest would land: order {order} at {pfn}" in page.locator(".keys").inner_text()
    x, y = middle(film, pfn)
    assert colour_at(page, x - 3, y - 3, "canvas.marks") == LIGHT["ink"]
    _, _, wide, _ = block_rect(pfn, order)
    edge = page.evaluate(
        "([x, y]) => document.querySelector('canvas.marks').getContext('2d').getImageData(x, y, 1, 1).data[3]",
        [x + wide, y - 3],
    )
    assert edge == 0  # only corners: the middle of the side is free
    page.locator("canvas.map").focus()
    for _ in range(2):
        page.keyboard.press("F")
        wire.pump()
    assert page.locator("select").input_value() == ""
    assert "would land" not in page.locator(".keys").inner_text()


def test_free_and_trace_by_click(open_map: Any, panel: ZoneMap) -> None:
    """A frame of ours, pinned: Trace it tells its story, Free it gives the block back and the map follows."""
    page = open_map()
    wire = Wire(page, panel)
    x, y = middle(panel, 290)
    page.locator("canvas.map").click(position={"x": x, "y": y})
    assert wire.pump() == [{"ask": "pin", "pfn": 290}]
    assert page.locator(".hands p").inner_text() == "pfn 290: block 288–303, from alloc_pages(GFP_DMA, 4)"
    page.get_by_text("Trace it").click()
    assert wire.pump() == [{"ask": "trace", "pfn": 290}]
    assert "Frame 290 in the moments kept" in page.locator(".story").inner_text()
    assert "call 1: taken by alloc_pages(GFP_DMA, 4)" in page.locator(".story").inner_text()
    page.get_by_text("Free it").click()
    assert {"ask": "free", "pfn": 290} in wire.pump()
    wire.pump()
    assert panel.machine.memmap[288].refcount == 0
    assert page.locator(".head").inner_text().startswith("__free_pages(pfn 288, 4)")
    assert colour_at(page, x, y) == LIGHT["free"]
    assert page.locator(".hands p").inner_text() == "pfn 290: in the buddy lists: already free"
    assert page.get_by_text("Free it").is_hidden()
    assert "call 2: merged with its buddy" in page.locator(".story").inner_text()


def test_not_ours_to_free(open_map: Any, panel: ZoneMap) -> None:
    """In use since boot: a sentence and no button; by keys as by pointer."""
    page = open_map()
    wire = Wire(page, panel)
    page.locator("canvas.map").focus()
    for keys in ("ArrowRight", "b", "b", "Shift+ArrowLeft", "Enter"):
        page.keyboard.press(keys)
    wire.pump()
    assert "in use since boot: not ours to free" in page.locator(".hands").inner_text()
    assert page.get_by_text("Free it").is_hidden()
    assert page.get_by_text("Trace it").is_visible()


def test_the_kernels_report(open_map: Any, panel: ZoneMap) -> None:
    """What the kernel said to a click stands in the panel, as text."""
    page = open_map()
    page.evaluate("window.tell({ kind: 'report', text: 'kernel BUG <b>at</b> mm/page_alloc.c' }, [])")
    assert page.locator(".report").inner_text() == "kernel BUG <b>at</b> mm/page_alloc.c"
    page.evaluate("window.tell({ kind: 'report', text: '' }, [])")
    assert page.locator(".report").count() == 0


def test_an_older_moment_has_nothing_to_free(open_map: Any, film: ZoneMap) -> None:
    """The block may be another's by now: Free it belongs to the present."""
    page = open_map(film)
    wire = Wire(page, film)
    pfn = film.film.shots[4].info["marks"]["taken"][0]
    x, y = middle(film, pfn)
    page.locator("canvas.map").click(position={"x": x, "y": y})
    wire.pump()
    assert page.get_by_text("Free it").is_visible()
    page.locator("canvas.map").focus()
    page.keyboard.press(",")
    wire.pump()
    assert page.get_by_text("Free it").is_hidden()
    page.keyboard.press(".")
    assert page.get_by_text("Free it").is_visible()


def test_a_replay(open_map: Any) -> None:
    """Badge and verdict, a scrubber, and nothing that would change the machine."""
    panel = ZoneMap.replay("128M-a-11", frames=12)
    page = open_map(panel)
    wire = Wire(page, panel)
    assert page.locator(".badge").inner_text() == "recorded, Linux 6.1.192"
    assert (
        page.locator(".verdict").inner_text() == "✓ 2,500 of 2,500 page frames as the kernel gave them, end state equal"
    )
    assert page.locator(".flags").is_hidden()
    page.locator("canvas.map").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.keyboard.press("f")
    assert wire.pump() == []
    assert page.locator(".hands").is_hidden()
    page.keyboard.press(",")
    wire.pump()
    words = page.locator("input[type=range]").get_attribute("aria-valuetext")
    assert words.startswith(f"call {film_calls(panel, -2):,} of 5,000: ")
    odd = ZoneMap.replay("128M-a-11", frames=12, without="merge_likely")
    page = open_map(odd)
    assert page.locator(".verdict.bad").inner_text().startswith("✕ call 4383: model pfn 10639, kernel pfn 10699")


def film_calls(panel: ZoneMap, index: int) -> int:
    """Calls at a moment of a film."""
    return panel.film.shots[index].info["calls"]


@pytest.mark.parametrize("width", [868, 730, 358])
def test_zoom_and_story_have_their_place(open_map: Any, film: ZoneMap, width: int) -> None:
    """Right of zone DMA where there is room, else below the map; nothing stands over tiles or over each other."""
    page = open_map(film, width=width)
    boxes = {name: page.locator(name).bounding_box() for name in (".side", ".legend:not(.keys)", "canvas.map")}
    side, legend, canvas = boxes.values()
    name = {868: "wide", 730: "broad", 358: "narrow"}[width]
    tiles = json.loads(film.meta)["layouts"][name]["tiles"]
    if width == 358:
        assert side["y"] >= canvas["y"] + canvas["height"]
    else:
        assert page.locator(".zoom b").inner_text().startswith("Zoom: pageblock ")
        first = [tile for tile in tiles if tile[3] == 0]
        assert side["x"] >= canvas["x"] + max(tile[1] for tile in first) + 64
        below = page.evaluate("Math.min(...[...map.places.values()].filter((p) => p[2] === 1).map((p) => p[1]))")
        for box in (side, legend):
            assert box["y"] + box["height"] <= canvas["y"] + below
        assert legend["x"] + legend["width"] <= side["x"]
        assert legend["y"] >= canvas["y"] + max(tile[2] for tile in first) + 64
    assert page.evaluate("document.documentElement.scrollWidth") <= width + 40
