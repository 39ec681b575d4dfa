"""The map without a browser: layout, pictures, words, marks."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace

import pytest

from kmemlab import __GFP_MEMALLOC, __GFP_NOWARN, GFP_DMA, GFP_KERNEL, Machine
from kmemlab_widgets import zonemap
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.zonemap import ZoneMap, marks_of
from kmemlab_widgets.zonemap_layout import TILE, block_rect, lay_out, morton, tile_bytes


@pytest.fixture
def m() -> Machine:
    """A real machine's first moment."""
    return Machine.from_recording("256M-a-21")


def test_z_order_makes_blocks_rectangles() -> None:
    """Every aligned block is a square or a 2:1 rectangle, and covers just its frames."""
    for order in range(11):
        for pfn in range(0, TILE, 1 << order):
            x, y, w, h = block_rect(pfn, order)
            assert (w, h) in ((1 << order // 2, 1 << order // 2), (2 << order // 2, 1 << order // 2))
            frames = {morton(i) for i in range(pfn, pfn + (1 << order))}
            assert frames == {(a, b) for a in range(x, x + w) for b in range(y, y + h)}


def test_tiles_have_every_page_once(m: Machine) -> None:
    """What the tiles show is what the snapshot holds."""
    zone = m.snapshot().zone("DMA32")
    layout = lay_out((zone,), 868, 0)
    tiles = [tile for group in layout.groups for row in group.rows for tile in row.tiles]
    assert len(tiles) == len(set(tiles))
    shown = sum(len(tile_bytes(zone, tile).replace(b"\0", b"")) for tile in tiles)
    assert shown == len(zone.pages.replace(b"\0", b""))


@pytest.mark.parametrize("width", [868, 358])
def test_no_tile_sticks_out(m: Machine, width: int) -> None:
    """The last tile of a full row ends inside the drawing."""
    layout = lay_out(m.snapshot().zones, width, 0)
    most = max(len(row.tiles) for group in layout.groups for row in group.rows)
    assert layout.left + most * layout.pitch - 2 * layout.px <= width
    assert most == (12 if width == 868 else 4)


def test_marks_of_a_split(m: Machine) -> None:
    """The block taken, and the halves that went back."""
    m.alloc_pages(GFP_DMA, 2)
    page = m.alloc_pages(GFP_DMA, 4)
    marks = marks_of(m.last_events())
    assert marks["taken"] == [page.pfn, 4]
    m2 = Machine.from_recording("256M-a-21")
    m2.alloc_pages(GFP_DMA, 4)
    assert marks_of(m2.last_events())["halves"] == [[304, 4]]


def test_a_failed_request_marks_the_zone(m: Machine) -> None:
    """The zone that said no, with its numbers, in the twin too."""
    while m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pass
    assert not m.alloc_pages(GFP_DMA | __GFP_NOWARN, 0)
    panel = ZoneMap(m, zone="DMA")
    # The counter the kernel tests lags by a page: this CPU has not added it yet.
    assert "DMA: 0 of 3,840 pages free, no block free; said no: 1 is not above 34." in repr(panel)


def test_twin_is_headline_first(m: Machine) -> None:
    """One function writes both, and the words are the machine's."""
    panel = ZoneMap(m, zone="DMA")
    first, second, third = repr(panel).splitlines()
    assert first == "DMA: 3,808 of 3,840 pages are free, the largest block is order 10 (4 MiB)"
    assert second.startswith("256M-a-21, recorded from Linux 6.1 · after 0 calls")
    assert third == "DMA: 3,808 of 3,840 pages free, largest order 10 x3."
    assert json.loads(panel.meta)["headline"] == first


def test_follows_with_one_frame(m: Machine) -> None:
    """Many calls in a cell, one redraw."""
    panel = ZoneMap(m)
    before = panel.frame
    for _ in range(100):
        m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    assert panel.frame == before + 1
    assert "after 100 calls" in repr(panel)


def test_saved_picture(m: Machine) -> None:
    """The picture in the notebook is small, flat, and its pages are a readable PNG."""
    data, _ = ZoneMap(m)._repr_mimebundle_()
    assert len(data["text/html"]) < 60_000
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", data["text/html"])[1]).decode()
    assert "var(" not in svg
    png = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", svg)[1])
    assert png.startswith(b"\x89PNG")
    idat = png[png.index(b"IDAT") + 4 :]
    width = int.from_bytes(png[16:20], "big")
    assert len(zlib.decompressobj().decompress(idat)) == 32 * (width + 1)


def test_draw_is_pure(m: Machine) -> None:
    """The same snapshot gives the same drawing, whatever happened since."""
    zones = m.snapshot().zones
    marks = marks_of(())
    one = zonemap.draw(zones, "h", "s", marks, 868)
    m.alloc_pages(GFP_KERNEL, 10)
    assert zonemap.draw(zones, "h", "s", marks, 868) == one


def test_names_are_escaped(m: Machine) -> None:
    """A label with markup is shown, not obeyed."""
    panel = ZoneMap(replace(m.snapshot(), label="<b>x</b>"), zone="DMA")
    assert "<b>x" not in panel._last.wide
    assert "&lt;b&gt;x" in panel._last.wide


def test_a_machine_too_large_to_list() -> None:
    """Terabytes are shown by shares."""
    panel = ZoneMap(Machine(memory="4T"))
    assert "Normal" in repr(panel)
    assert json.loads(panel.meta)["wide"]["groups"][2]["share"] > 0.9


def test_an_unknown_zone_is_an_error_in_the_panel(m: Machine) -> None:
    """The panel says which zones there are; the cell goes on."""
    panel = ZoneMap(m, zone="Normal")
    assert "panel error: KeyError" in repr(panel)
    assert "DMA, DMA32" in repr(panel)
    assert "error" in json.loads(panel.meta)
