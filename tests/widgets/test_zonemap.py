"""The map without a browser: layout, pictures, words, marks."""

from __future__ import annotations

import base64
import json
import logging
import re
import zlib
from urllib.parse import unquote

import pytest

from kmemlab import (
    __GFP_MEMALLOC,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    Machine,
    Page,
)
from kmemlab.events import LabNoBlock, LabRequest
from kmemlab.snapshot import FREE, HOLE, MOVABLE, PCP, RESERVED, SLAB, UNMOVABLE, Snapshot
from kmemlab_widgets import zonemap
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.theme import LIGHT, STATE_TOKENS
from kmemlab_widgets.zonemap import ZoneMap, marks_of
from kmemlab_widgets.zonemap_draw import pixels, png_indexed
from kmemlab_widgets.zonemap_layout import LEFT, TILE, block_rect, lay_out, morton, tile_bytes


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


def grid(m: Machine) -> None:
    """Empty the yard, give back all pages but each sixteenth, and ask for sixteen in a row."""
    kept: list[Page] = []
    while page := m.alloc_pages(GFP_DMA | __GFP_MEMALLOC | __GFP_NOWARN, 0):
        kept.append(page)
    for page in kept:
        if page.pfn % 16:
            m.__free_pages(page, 0)
    m.drain_all_pages()
    assert not m.alloc_pages(GFP_DMA | __GFP_NOWARN, 4)


def picture(panel: ZoneMap) -> str:
    """The SVG that the saved notebook holds."""
    data, _ = panel._repr_mimebundle_()
    return unquote(re.search(r'src="data:image/svg\+xml,([^"]+)"', data["text/html"])[1]).replace("'", '"')


def decoded(svg: str) -> list[tuple[int, int, list[list[str]]]]:
    """x, y and pixel colours of each picture in an SVG, read back from the PNG."""
    found = []
    for x, y, text in re.findall(r'<image x="(\d+)" y="(\d+)"[^>]*base64,([^"]+)"', svg):
        png = base64.b64decode(text)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, at = {}, 8
        while at < len(png):
            length = int.from_bytes(png[at : at + 4], "big")
            kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
            assert int.from_bytes(png[at + 8 + length : at + 12 + length], "big") == zlib.crc32(kind + data)
            chunks[kind] = data
            at += 12 + length
        width, height = (int.from_bytes(chunks[b"IHDR"][i : i + 4], "big") for i in (0, 4))
        raw, palette = zlib.decompress(chunks[b"IDAT"]), chunks[b"PLTE"]
        assert chunks[b"IHDR"][8] == 4  # two pixels a byte
        stride = -(-width // 2) + 1
        assert len(raw) == height * stride
        colours = ["#" + palette[i : i + 3].hex().upper() for i in range(0, len(palette), 3)]
        pairs = [raw[i * stride + 1 : (i + 1) * stride] for i in range(height)]
        rows = [[half for pair in row for half in (pair >> 4, pair & 15)][:width] for row in pairs]
        found.append((int(x), int(y), [[colours[c] for c in row] for row in rows]))
    return found


def test_tiles_have_every_page_once(m: Machine) -> None:
    """What the tiles show is what the snapshot holds."""
    zone = m.snapshot().zone("DMA32")
    tiles = [tile.pfn for tile in lay_out((zone,), 868, 0).tiles]
    assert len(tiles) == len(set(tiles))
    shown = sum(len(tile_bytes(zone, tile).replace(b"\0", b"")) for tile in tiles)
    assert shown == len(zone.pages.replace(b"\0", b""))


@pytest.mark.parametrize(("width", "most"), [(868, 12), (730, 10), (560, 7), (358, 4)])
def test_no_tile_sticks_out(m: Machine, width: int, most: int) -> None:
    """A full row ends inside the drawing, at every width."""
    layout = lay_out(m.snapshot().zones, width, 0)
    rows = [tile.y for tile in layout.tiles]
    assert max(rows.count(y) for y in rows) == most
    assert max(tile.x for tile in layout.tiles) + 32 * layout.px <= width


@pytest.mark.parametrize(("width", "px"), [(868, 6), (730, 5), (560, 3), (358, 2)])
def test_the_yard_alone_is_drawn_large(m: Machine, width: int, px: int) -> None:
    """Zone DMA has four tiles: they fill the width, in one row."""
    layout = lay_out((m.snapshot().zone("DMA"),), width, 0)
    assert layout.px == px
    assert len({tile.y for tile in layout.tiles}) == 1


def test_rows_nobody_can_use_are_folded(m: Machine) -> None:
    """A row wholly reserved is a band with a sentence; a gap between zones is a sentence."""
    dma, dma32 = m.snapshot().zones
    pages = bytearray(dma32.pages)
    pages[12 * TILE : 24 * TILE] = bytes([RESERVED]) * 12 * TILE
    layout = lay_out((dma, dma32._replace(pages=bytes(pages))), 868, 0)
    words = [w.text for w in layout.words]
    assert "12 whole tiles reserved at boot (48 MiB)" in words
    assert [r.h for r in layout.rects if r.fill == "hatch"] == [16]
    assert not any(dma32.start_pfn + 12 * TILE <= tile.pfn < dma32.start_pfn + 24 * TILE for tile in layout.tiles)
    far = dma32._replace(name="Normal", start_pfn=1 << 20, spans=((1 << 20, TILE),), pages=bytes(pages[:TILE]))
    words = [w.text for w in lay_out((dma, dma32, far), 868, 0).words]
    assert "… no memory from 255.9 MiB to 4 GiB …" in words
    assert "4 GiB" in words


def test_pageblock_bars(m: Machine) -> None:
    """A bar for each pageblock that is not Movable, and none for the others."""
    zone = m.snapshot().zone("DMA")
    zone = zone._replace(pageblocks={0: 0, 512: 1, 1024: 2, 1536: 3, 2048: 1, 2560: 1, 3072: 1, 3584: 1})
    bars = [(bar.fill, bar.dash) for bar in lay_out((zone,), 868, 0).bars]
    assert bars == [("unmov", ""), ("recl", "4 2"), ("high", "1 2")]


def test_pixels_follow_the_z_order() -> None:
    """Frame 5 is in column 3, row 0; frame 2 in column 0, row 1; a pixel more for each pixel a page."""
    states = bytearray(bytes([FREE]) * TILE)
    states[5], states[2] = SLAB, UNMOVABLE
    rows = pixels(bytes(states), 1)
    assert (rows[0][3], rows[1][0]) == (SLAB, UNMOVABLE)
    assert sum(row.count(FREE) for row in rows) == TILE - 2
    rows = pixels(bytes(states), 2)
    assert [rows[y][x] for y, x in ((0, 6), (1, 7), (2, 0), (3, 1))] == [SLAB, SLAB, UNMOVABLE, UNMOVABLE]


def test_list_types_do_not_change_the_colour() -> None:
    """The high four bits of a state byte are the list, not the state."""
    assert pixels(bytes([FREE | 2 << 4]) * TILE, 1) == pixels(bytes([FREE]) * TILE, 1)


def test_kinds_have_a_pattern_when_a_page_is_large() -> None:
    """Dots for movable pages from 6 px on; free and unmovable pages stay plain."""
    assert len({c for row in pixels(bytes([MOVABLE]) * TILE, 6) for c in row}) == 2
    assert len({c for row in pixels(bytes([MOVABLE]) * TILE, 2) for c in row}) == 1
    assert len({c for row in pixels(bytes([UNMOVABLE]) * TILE, 6) for c in row}) == 1


@pytest.mark.parametrize("zone", ["DMA", "DMA32"])
def test_every_free_block_has_its_outline(m: Machine, zone: str) -> None:
    """The pixels of the outline in the picture are just those round the free blocks of order 2 and more."""
    for order in (0, 3, 0, 2, 1):
        m.alloc_pages(GFP_DMA if zone == "DMA" else GFP_HIGHUSER_MOVABLE, order)
    panel, shown = ZoneMap(m, zone=zone), m.snapshot().zone(zone)
    layout = lay_out((shown,), 868, 0)
    want = set()
    for (order, _), pfns in shown.free.items():
        for pfn in pfns if order >= 2 else ():
            x, y, w, h = (n * layout.px for n in block_rect(pfn, order))
            tile = next(tile for tile in layout.tiles if tile.pfn == pfn // TILE * TILE)
            for i in range(w):
                want |= {(tile.x + x + i, tile.y + y), (tile.x + x + i, tile.y + y + h - 1)}
            for i in range(h):
                want |= {(tile.x + x, tile.y + y + i), (tile.x + x + w - 1, tile.y + y + i)}
    pictures = decoded(panel._last.wide)
    shift = pictures[0][1] - layout.tiles[0].y
    got = {
        (x + i, y + j - shift)
        for x, y, rows in pictures
        for j, row in enumerate(rows)
        for i, colour in enumerate(row)
        if colour == LIGHT["freeln"]
    }
    assert want
    assert got == want


@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_pages_in_the_picture(m: Machine, width: str) -> None:
    """The middle of each page of the first tile has its state's colour."""
    panel, zone = ZoneMap(m, zone="DMA"), m.snapshot().zone("DMA")
    x, _, rows = decoded(getattr(panel._last, width))[0]
    px = 6 if width == "wide" else 2
    assert x == LEFT
    for pfn, state in enumerate(tile_bytes(zone, 0)):
        col, row, _, _ = block_rect(pfn, 0)
        colour = rows[row * px + px // 2][col * px + px // 2]
        assert colour in (LIGHT[STATE_TOKENS[state & 15]], LIGHT["freeln"])


def test_marks_of_a_split(m: Machine) -> None:
    """The block taken, and the halves that went back."""
    m.alloc_pages(GFP_DMA, 2)
    page = m.alloc_pages(GFP_DMA, 4)
    assert marks_of(m.last_events())["taken"] == [page.pfn, 4]
    m2 = Machine.from_recording("256M-a-21")
    m2.alloc_pages(GFP_DMA, 4)
    marks = marks_of(m2.last_events())
    assert marks["halves"] == [[304, 4]]
    assert marks["split"] == [5, 4]
    svg = ZoneMap(m2, zone="DMA")._last.wide
    for words in ("Why DMA?", "the order-5 block at 288 was split down to order 4", "just allocated", "split off"):
        assert words in svg


def test_marks_of_a_free(m: Machine) -> None:
    """What was given back is framed as the block it became."""
    page = m.alloc_pages(GFP_DMA, 4)
    m.__free_pages(page, 4)
    marks = marks_of(m.last_events())
    assert (marks["taken"], marks["freed"]) == (None, [288, 5])
    panel = ZoneMap(m, zone="DMA")
    assert "just given back" in panel._last.wide
    assert "just allocated" not in panel._last.wide


def test_a_failed_request_marks_the_zone(m: Machine) -> None:
    """The zone that said no, with its numbers, in picture and twin; no frame."""
    while m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pass
    assert not m.alloc_pages(GFP_DMA | __GFP_NOWARN, 0)
    panel = ZoneMap(m, zone="DMA")
    # The counter the kernel tests lags by a page: this CPU has not added it yet.
    assert "DMA 0 of 3840 pages free, no free block, said no: 1 > 34 ? 34 pages short." in repr(panel)
    assert "✕ DMA said no: 1 &gt; 34 ? 34 pages short" in panel._last.wide
    assert 'fill="var(--kml-bad)"' in panel._last.wide
    assert "just allocated" not in panel._last.wide


def test_a_broken_up_zone_is_the_finding(m: Machine) -> None:
    """Enough pages, no block: the headline says how much is free and how large the largest block is."""
    grid(m)
    panel = ZoneMap(m, zone="DMA")
    first = repr(panel).splitlines()[0]
    assert first == (
        "alloc_pages(GFP_DMA|__GFP_NOWARN, 4) = NULL: "
        "DMA has 3,570 pages free, but the largest free block is order 3 (32 KiB)"
    )
    assert "✕ DMA said no: enough pages free, but no block of order 4 or more" in panel._last.wide


def test_no_list_it_may_take_from() -> None:
    """The other way to say no: blocks there are, but not of a type this request may take."""
    trail = (LabRequest(0x20, 6, 0), LabNoBlock("Normal", 6, 0, True))
    assert marks_of(trail)["failed"] == {
        "Normal": "no list it may take from has a block of order 6 or more for Unmovable"
    }


def test_twin_is_headline_first(m: Machine) -> None:
    """One function writes both, and the words are the machine's."""
    panel = ZoneMap(m, zone="DMA")
    first, second = repr(panel).splitlines()
    assert first == "DMA: 3,808 of 3,840 pages free, largest block order 10 (4 MiB)"
    assert second == "ZoneMap 256M-a-21 after 0 calls. DMA 3808 of 3840 pages free, largest order 10 x3."
    meta = json.loads(panel.meta)
    assert meta["headline"] == first
    assert meta["sub"] == "256M-a-21, recorded from Linux 6.1 · after 0 calls · 1 page = 4 KiB, 1 tile = 4 MiB"
    m.alloc_pages(GFP_DMA, 4)
    refresh_all(m)
    assert repr(panel).splitlines() == [
        "alloc_pages(GFP_DMA, 4) = pfn 288 in DMA, split 5 to 4",
        "ZoneMap 256M-a-21 after 1 call. DMA 3792 of 3840 pages free, largest order 10 x3.",
        "Last: alloc_pages(GFP_DMA, 4) = pfn 288 in DMA, split 5 to 4. Split off: 304 order 4.",
    ]


def test_whole_machine_headline(m: Machine) -> None:
    """Several zones: the sum, and who has the largest block."""
    first = repr(ZoneMap(m)).splitlines()[0]
    assert first == "2 zones: 43,631 of 52,688 pages free, largest block order 10 (4 MiB) in DMA and DMA32"
    m.alloc_pages(GFP_KERNEL, 0)
    assert repr(ZoneMap(m)).splitlines()[0] == "alloc_pages(GFP_KERNEL, 0) = pfn 12727 in DMA32, from CPU 0's list"


def test_follows_with_one_frame(m: Machine) -> None:
    """Many calls in a cell, one redraw; a panel that does not follow stays."""
    panel, fixed = ZoneMap(m), ZoneMap(m, None, False)
    before, still, cells = panel.frame, fixed.frame, panel.cells
    for _ in range(100):
        m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    assert panel.frame == before + 1
    assert panel.cells != cells
    assert "after 100 calls" in repr(panel)
    assert fixed.frame == still
    assert "after 0 calls" in repr(fixed)


def test_cells_are_the_spans_one_after_the_other(m: Machine) -> None:
    """A byte a page, and where each run begins."""
    panel, snapshot = ZoneMap(m), m.snapshot()
    assert panel.cells == b"".join(zone.pages for zone in snapshot.zones)
    for first, pages, offset, index in json.loads(panel.meta)["spans"]:
        assert (first, pages) in snapshot.zones[index].spans
        assert panel.cells[offset] == snapshot.zones[index].pages[0]


def test_saved_picture(m: Machine) -> None:
    """The picture in the notebook is small, flat, and shows the headline."""
    m.alloc_pages(GFP_DMA, 4)
    for panel, most in ((ZoneMap(m, zone="DMA"), 25_000), (ZoneMap(m), 60_000)):
        data, _ = panel._repr_mimebundle_()
        assert data["text/plain"] == repr(panel)
        assert data["text/html"].startswith('<img alt="alloc_pages(GFP_DMA, 4) = pfn 288')
        assert len(data["text/html"]) < most
        svg = picture(panel)
        assert "var(" not in svg
        assert "alloc_pages(GFP_DMA, 4) = pfn 288 in DMA, split 5 to 4" in svg


def test_a_used_machine_stays_small(m: Machine) -> None:
    """Broken up as can be: still within what a notebook may hold."""
    grid(m)
    assert len(ZoneMap(m, zone="DMA")._repr_mimebundle_()[0]["text/html"]) < 10_000
    pages = [m.alloc_pages(GFP_HIGHUSER_MOVABLE, k % 4) for k in range(15_000)]
    for page in pages[::2]:
        if page:
            m.__free_pages(page, page.order)
    assert len(ZoneMap(m)._repr_mimebundle_()[0]["text/html"]) < 60_000


def test_png_is_what_was_asked() -> None:
    """Rows come back as they went in, with one entry transparent."""
    png = png_indexed([b"\0\1\2", b"\2\1\0"], ["#000000", "#010203", "#FFFFFF"], clear=1)
    assert b"tRNS\xff\0" in png
    svg = f'<image x="1" y="2" href="data:image/png;base64,{base64.b64encode(png).decode()}"/>'
    assert decoded(svg)[0][2] == [["#000000", "#010203", "#FFFFFF"], ["#FFFFFF", "#010203", "#000000"]]


def test_drawing_is_pure(m: Machine) -> None:
    """A panel that does not follow draws its moment, however late it is asked for the picture."""
    one, two = ZoneMap(m, follow=False), ZoneMap(m, follow=False)
    before = one._last.wide
    m.alloc_pages(GFP_KERNEL, 10)
    assert two._last.wide == before


def test_legend_lists_only_what_is_there(m: Machine) -> None:
    """No entry for a state that no page is in, and the counts are the pages'."""
    panel, zone = ZoneMap(m, zone="DMA"), m.snapshot().zone("DMA")
    legend = {state: pages for state, *_, pages in json.loads(panel.meta)["legend"]}
    assert PCP not in legend
    assert sum(legend.values()) == len(zone.pages)
    assert HOLE not in legend
    assert "per-CPU list" not in panel._last.wide


def test_names_are_escaped(m: Machine) -> None:
    """A label with markup is shown, not obeyed."""
    panel = ZoneMap(m.snapshot()._replace(label="<b>x</b>"), zone="DMA")
    assert "<b>x" not in panel._last.wide
    assert "&lt;b&gt;x" in panel._last.wide
    assert "<b>x" not in panel._repr_mimebundle_()[0]["text/html"]


def test_an_unknown_zone_is_an_error_in_the_panel(m: Machine) -> None:
    """The panel says which zones there are; the cell goes on."""
    panel = ZoneMap(m, zone="Normal")
    assert "panel error: KeyError" in repr(panel)
    assert "DMA, DMA32" in repr(panel)
    assert "error" in json.loads(panel.meta)
    assert "text/plain" in panel._repr_mimebundle_()[0]


def test_a_picture_that_fails_leaves_the_words(
    m: Machine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The picture is drawn when the cell ends: an error there must not break the output."""
    panel = ZoneMap(m, zone="DMA")
    monkeypatch.setattr(zonemap, "draw", lambda *_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        data, _ = panel._repr_mimebundle_()
    assert "text/html" not in data
    assert data["text/plain"].startswith("DMA: 3,808 of 3,840 pages free")
    assert "ZeroDivisionError" in data["text/plain"]


def test_an_update_does_not_draw_the_picture(m: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live map is drawn by the browser: a redraw costs Python some milliseconds."""
    panel = ZoneMap(m)
    monkeypatch.setattr(zonemap, "draw", lambda *_: pytest.fail("drawn"))
    m.alloc_pages(GFP_ATOMIC, 0)
    panel.refresh()
    assert "after 1 call." in repr(panel)


def test_a_snapshot_can_be_shown(m: Machine) -> None:
    """Without a machine: no request, the finding is the state."""
    snapshot = m.snapshot()
    assert isinstance(snapshot, Snapshot)
    m.alloc_pages(GFP_DMA, 4)
    assert repr(ZoneMap(snapshot, zone="DMA")).startswith("DMA: 3,808 of 3,840 pages free")
