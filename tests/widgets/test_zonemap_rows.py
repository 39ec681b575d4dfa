"""The map's rows: what is folded, what is said about gaps, and labels that fit beside the tiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from kmemlab import GFP_DMA, GFP_KERNEL, Machine
from kmemlab.snapshot import Snapshot
from kmemlab_widgets.svg import text_width
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import LEFT, TILE, ZOOM, Layout, lay_out

RECORDING = Path(__file__).resolve().parent.parent / "kernel" / "recordings" / "buddy" / "256M-normal-c-33.json.gz"


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """A real machine with memory above 4 GiB and 48 MiB reserved at boot."""
    return Machine.from_recording(str(RECORDING)).snapshot()


def said(layout: Layout) -> list[str]:
    """The words of a layout."""
    return [words.text for words in layout.words]


@pytest.mark.parametrize("width", [868, 358])
def test_what_nobody_can_use_is_one_band(snapshot: Snapshot, width: int) -> None:
    """Rows reserved as a whole fold into one, however many rows they would be at this width."""
    layout = lay_out(snapshot.zones, width, 0)
    bands = [text for text in said(layout) if "reserved at boot" in text]
    assert bands[0] == "12 whole tiles reserved at boot (48 MiB)"
    assert sum(rect.fill == "hatch" for rect in layout.rects) == len(bands)


@pytest.mark.parametrize("width", [868, 358])
def test_folding_loses_no_tile(snapshot: Snapshot, width: int) -> None:
    """Every tile is drawn or counted in a band, once."""
    layout = lay_out(snapshot.zones, width, 0)
    folded = sum(int(text.split(": ")[-1].split()[0]) for text in said(layout) if "reserved at boot" in text)
    there = {
        pfn // TILE for zone in snapshot.zones for first, pages in zone.spans for pfn in range(first, first + pages)
    }
    assert len({tile.pfn for tile in layout.tiles}) == len(layout.tiles)
    assert len(layout.tiles) + folded == len(there)


def test_the_hole_between_zones_is_said(snapshot: Snapshot) -> None:
    """Zone DMA32 spans up to 4 GiB on paper; the memory ends before, and the map says where."""
    dma32 = snapshot.zone("DMA32")
    assert dma32.start_pfn + dma32.spanned == snapshot.zone("Normal").start_pfn
    gaps = [text for text in said(lay_out(snapshot.zones, 868, 0)) if "no memory" in text]
    assert gaps == ["… no memory from 127.9 MiB to 4 GiB …"]


@pytest.mark.parametrize("width", [868, 358])
def test_addresses_are_not_cut_off(snapshot: Snapshot, width: int) -> None:
    """ "+112 MiB" without its plus would be another address."""
    layout = lay_out(snapshot.zones, width, 0)
    labels = [words for words in layout.words if words.anchor == "end"]
    assert all(text_width(words.text, words.px) <= words.x for words in labels)
    assert all(words.x == LEFT - 8 for words in labels)
    texts = [words.text for words in labels]
    assert width == 868 or texts[texts.index("+112") + 1] == "MiB"


def test_zoom_in_the_saved_picture() -> None:
    """Right of zone DMA: the pageblock of the last request, with the block framed, and the story beside it."""
    m = Machine.from_recording("256M-a-21")
    assert "Zoom" not in ZoneMap(m)._last.wide  # nothing was asked yet
    page = m.alloc_pages(GFP_DMA, 6)
    panel = ZoneMap(m)
    svg = panel._last.wide
    first = page.pfn // 512 * 512
    assert f"Zoom: pageblock {first}–{first + 511}" in svg
    zone = m.snapshot().zone("DMA")
    free = sum(state & 15 == 2 for state in zone.pages[first - 1 + (first == 0) : first + 511])
    assert f"{free} of 512 pages free" in svg
    assert f'width="{ZOOM}" height="{ZOOM // 2}"' in svg
    assert "Zoom" not in panel._last.narrow
    assert len(panel._repr_mimebundle_()[0]["text/html"]) < 60_000


def test_room_and_what_stands_below(snapshot: Snapshot) -> None:
    """The room ends above the next zone, and the legend's place is left of it."""
    layout = lay_out(snapshot.zones, 868, 0)
    x, y, wide, end = layout.room
    first = [tile for tile in layout.tiles if tile.zone == 0]
    assert x + wide == 868
    assert x > max(tile.x for tile in first) + 64
    assert y <= min(tile.y for tile in first)
    assert end <= min(tile.y for tile in layout.tiles if tile.zone == 1)
    assert layout.below[0] >= max(tile.y for tile in first) + 64
    assert layout.below[1] < x
    assert lay_out(snapshot.zones, 358, 0).room is None
    assert lay_out(snapshot.zones[1:], 868, 0).room is None


def test_layouts_are_worked_out_once() -> None:
    """Moments of the same shape share their layout; a refusal makes another."""
    m = Machine.from_recording("256M-a-21")
    panel = ZoneMap(m)
    layouts = []
    for _ in range(5):
        m.alloc_pages(GFP_KERNEL, 4)
        panel.refresh()
        layouts.append(panel.film.shots[-1].info["layout"])
    assert all(layout is layouts[0] for layout in layouts)
    while m.alloc_pages(GFP_DMA | 0x2000, 6):
        pass
    panel.refresh()
    assert "said no" in panel.film.shots[-1].info["layout"]
