"""Machines too large to show page by page: shares of tiles, and of several tiles a cell."""

from __future__ import annotations

import json

import pytest

from kmemlab import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine
from kmemlab.snapshot import FREE
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_large import cells_of, is_large, per_cell, square, tops_of
from kmemlab_widgets.zonemap_layout import TILE, tile_bytes


@pytest.fixture(scope="module")
def used() -> Machine:
    """3 GiB, shown tile by tile, with memory taken from the upper end and holes in it."""
    m = Machine(memory="3G")
    pages = [m.alloc_pages(GFP_HIGHUSER_MOVABLE, k % 7) for k in range(3000)]
    for page in pages[::3]:
        m.__free_pages(page, page.order)
    return m


def test_which_maps_are_large() -> None:
    """Up to 2 GiB page by page; one small zone of a large machine too."""
    assert not is_large(Machine(memory="2047M").snapshot().zones)
    assert is_large(Machine(memory="3G").snapshot().zones)
    huge = Machine(memory="4T").snapshot()
    assert is_large(huge.zones)
    assert not is_large((huge.zone("DMA"),))
    assert is_large((huge.zone("Normal"),))


def test_shares_are_the_pages(used: Machine) -> None:
    """Counted block by block, a cell has just the free pages that its tile has."""
    tops = tops_of(used)
    for zone in used.snapshot().zones:
        cells = cells_of(zone, 1, tops)
        assert not cells.even
        assert len(cells.starts) > 3
        for start, there, free in zip(cells.starts, cells.there, cells.free, strict=True):
            states = tile_bytes(zone, start)
            assert free == sum(state & 15 == FREE for state in states)
            assert there >= free
        assert sum(cells.there) == sum(pages for _, pages in zone.spans)


def test_the_largest_block_of_a_cell(used: Machine) -> None:
    """The order of the largest free block that begins in the tile, -1 where there is none."""
    zone = used.snapshot().zone("DMA32")
    cells = cells_of(zone, 1, tops_of(used))
    want: dict[int, int] = {}
    for (order, _), pfns in zone.free.items():
        for pfn in pfns:
            want[pfn // TILE] = max(order, want.get(pfn // TILE, -1))
    assert dict(zip((s // TILE for s in cells.starts), cells.largest, strict=True)) == {
        start // TILE: want.get(start // TILE, -1) for start in cells.starts
    }
    assert set(cells.largest) > {10, -1}


@pytest.mark.parametrize("memory", ["3G", "4G", "8G", "64G", "1T", "4T"])
def test_any_size_fits(memory: str) -> None:
    """A few hundred px high, whatever the size, and the second line says what a cell is."""
    m = Machine(memory=memory)
    meta = json.loads(ZoneMap(m).meta)
    layout = meta["layouts"]["wide"]
    assert layout["height"] < 640
    zones = m.snapshot().zones
    cells = sum(row[4] for row in layout["cells"])
    assert cells == sum(map(len, meta["shares"]))
    assert all(0 <= row[0] <= 16 for shares in meta["shares"] for row in shares)
    groups = per_cell(zones)
    assert all(group & (group - 1) == 0 for group in groups)
    assert "1 cell = " in meta["sub"]
    assert max(x + 17 * count for _, x, _, _, count in layout["cells"]) <= 868
    narrow = meta["layouts"]["narrow"]["cells"]
    assert max(x + 17 * count for _, x, _, _, count in narrow) <= 359


def test_what_a_cell_is() -> None:
    """In the words of the second line; tile by tile up to 4 GiB."""
    assert "1 cell = 4 MiB" in json.loads(ZoneMap(Machine(memory="4G")).meta)["sub"]
    sub = json.loads(ZoneMap(Machine(memory="4T")).meta)["sub"]
    assert sub.endswith("1 cell = 8 GiB = 2,048 tiles (DMA 4 MiB, DMA32 8 MiB)")


def test_no_page_of_terabytes_is_walked() -> None:
    """The map of 4 TiB and its picture are made of shares."""
    m = Machine(memory="4T")
    taken = [m.alloc_pages(GFP_KERNEL, k % 11) for k in range(200)]
    assert all(taken)
    panel = ZoneMap(m)
    picture = panel._last.wide
    assert all(not zone.pages for zone in panel.snapshot().zones if zone.name == "Normal")
    assert panel.cells == panel.orders == b""
    assert len(picture) < 60_000
    assert len(panel.meta) < 60_000


def test_the_untouched_run_is_where_it_is() -> None:
    """What was taken lies in the cells that are not full, and all free pages are in some cell."""
    m = Machine(memory="4T")
    zone = m.zones[-1]
    before = cells_of(m.snapshot().zone("Normal"), 64, tops_of(m))
    page = m.alloc_pages(GFP_KERNEL, 10)
    after = cells_of(m.snapshot().zone("Normal"), 64, tops_of(m))
    assert page.zone is zone
    changed = [start for start, a, b in zip(before.starts, before.free, after.free, strict=True) if a != b]
    assert changed == [page.pfn // (64 * TILE) * 64 * TILE]
    assert sum(before.free) - sum(after.free) == 1024
    assert sum(after.free) == m.snapshot().zone("Normal").nr_free_pages


def test_a_snapshot_spreads_what_it_cannot_place() -> None:
    """A frozen 4 TiB zone does not tell where its untouched blocks are."""
    zone = Machine(memory="4T").snapshot().zone("Normal")
    cells = cells_of(zone, 64, {})
    assert cells.even
    free = sum(count << order for order, count in enumerate(zone.nr_free))
    assert free - len(cells.free) <= sum(cells.free) <= free
    panel = ZoneMap(Machine(memory="4T").snapshot())
    assert "spread evenly" in repr(panel)


def test_the_square_has_the_blocks_area() -> None:
    """A block of order 8 is a quarter of a tile: half its side."""
    assert square(10, 1) == 16
    assert square(8, 1) == 8
    assert square(-1, 1) == 0
    assert square(10, 4) == 0  # a cell of several tiles has none


def test_the_saved_picture(used: Machine) -> None:
    """Light is free: the cells' pictures have both tones."""
    svg = ZoneMap(used)._last.wide
    assert svg.count("<image") == len(json.loads(ZoneMap(used).meta)["layouts"]["wide"]["cells"])
    assert "1 cell = 4 MiB" in svg
