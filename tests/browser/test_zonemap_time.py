"""The map's ES module alone in Chromium: films, brackets, and what clicks ask of Python."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from kmemlab import GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine
from kmemlab_widgets.theme import LIGHT
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import block_rect
from tests.browser.map_page import Wire, colour_at, middle

pytestmark = pytest.mark.browser


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
