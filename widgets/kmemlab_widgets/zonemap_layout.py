"""Where things stand on the map: tiles of one top-order block in address order, Z-order inside.

A tile is 1024 page frames, 32 x 32. Inside, bit 0 of the frame number goes right, bit 1 down, bit 2 right ...: a
buddy block is then always a square or a 2:1 rectangle, and buddies are neighbours.

The layout is plain data (tiles, bars, bands, words) that the saved picture and the browser draw alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kmemlab.snapshot import RESERVED, ZoneSnapshot
from kmemlab_widgets.svg import fit, text_width
from kmemlab_widgets.theme import number, plural, size
from kmemlab_widgets.zonemap_large import CELL, PITCH, Cells, across

__all__ = [
    "INSET",
    "LEFT",
    "SIDE",
    "TILE",
    "ZOOM",
    "Bar",
    "CellRow",
    "Layout",
    "Rect",
    "Tile",
    "Words",
    "block_rect",
    "lay_out",
    "morton",
    "note_lines",
    "note_of",
    "note_widths",
    "tile_bytes",
]

TILE = 1024
SIDE = 32
INSET = 4  # where words begin: the focus frame is drawn inside the map, a notebook's output clips what is outside
LEFT = 54  # room for "+48 MiB" left of the tiles
ZOOM = 256  # width of a pageblock at 8 px a page
BAND = 16  # height of a folded row
BARS = {0: ("unmov", ""), 2: ("recl", "4 2"), 3: ("high", "1 2"), 4: ("resv", "")}  # by pageblock type
_UNUSABLE = bytes((0, RESERVED))


def morton(i: int) -> tuple[int, int]:
    """Column and row of frame ``i`` of a tile.

    >>> morton(1), morton(2), morton(512)
    ((1, 0), (0, 1), (0, 16))
    """
    x = y = 0
    for bit in range(5):
        x |= (i >> 2 * bit & 1) << bit
        y |= (i >> 2 * bit + 1 & 1) << bit
    return x, y


_MORTON = [morton(i) for i in range(TILE)]


def block_rect(pfn: int, order: int) -> tuple[int, int, int, int]:
    """Column, row, width and height, in pages, of an aligned block inside its tile."""
    x, y = _MORTON[pfn % TILE]
    return x, y, 1 << (order + 1) // 2, 1 << order // 2


@dataclass(slots=True)
class Tile:
    """1024 frames from ``pfn`` on, of the zone with that index among those shown."""

    pfn: int
    x: int
    y: int
    zone: int


@dataclass(slots=True)
class Words:
    """A line of text: baseline at ``y``, ``fill`` is a token; ``note``: of the note of the zone with that index."""

    x: float
    y: float
    text: str
    px: int = 12
    fill: str = "ink2"
    bold: bool = False
    anchor: str = "start"
    note: int = -1


@dataclass(slots=True)
class CellRow:
    """A row of ``count`` cells of a zone shown by shares, from its cell number ``first`` on."""

    zone: int
    x: int
    y: int
    first: int
    count: int


@dataclass(slots=True)
class Rect:
    """An area of one token; "hatch" is reserved memory."""

    x: float
    y: float
    w: float
    h: float
    fill: str


@dataclass(slots=True)
class Bar:
    """The upright bar left of a pageblock that is not Movable."""

    x: float
    y: float
    h: float
    fill: str
    dash: str


@dataclass(slots=True)
class Layout:
    """The whole map at one width: ``px`` pixels a page, tiles ``pitch`` apart."""

    width: int
    px: int
    height: float = 0.0
    tiles: list[Tile] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    rects: list[Rect] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    cells: list[CellRow] = field(default_factory=list)
    room: tuple[int, int, int, int] | None = None  # right of the first zone: x, y, width; and where it must end
    zoom: bool = False  # whether a pageblock is shown large in that room
    below: tuple[int, int] | None = None  # under the first zone's tiles, left of the room: y and width

    @property
    def pitch(self) -> int:
        """From one tile to the next: two pages of room, for the pageblock bar."""
        return (SIDE + 2) * self.px

    def plain(self) -> dict[str, object]:
        """The layout as plain data for the browser: what is the same as long as memory is.

        Notes and pageblock bars are not in it, only where the lines of notes stand.
        """
        return {
            "width": self.width,
            "px": self.px,
            "height": round(self.height),
            "tiles": [[t.pfn, t.x, t.y, t.zone] for t in self.tiles],
            "words": [[w.x, w.y, w.text, w.px, w.fill, w.bold, w.anchor] for w in self.words if w.note < 0],
            "notes": [[w.note, w.x, w.y] for w in self.words if w.note >= 0],
            "rects": [[r.x, r.y, r.w, r.h, r.fill] for r in self.rects],
            "cells": [[c.zone, c.x, c.y, c.first, c.count] for c in self.cells],
            "room": self.room,
            "below": self.below,
        }


def tile_bytes(zone: ZoneSnapshot, tile: int) -> bytes:
    """The 1024 state bytes of a tile; 0 (hole) where the zone has no memory."""
    offset = 0
    for first, pages in zone.spans:
        if first <= tile and tile + TILE <= first + pages:
            return zone.pages[offset + tile - first : offset + tile - first + TILE]
        offset += pages
    out, offset = bytearray(TILE), 0
    for first, pages in zone.spans:
        low, high = max(first, tile), min(first + pages, tile + TILE)
        if low < high:
            out[low - tile : high - tile] = zone.pages[offset + low - first : offset + high - first]
        offset += pages
    return bytes(out)


def note_of(zone: ZoneSnapshot) -> str:
    """What is said of a zone beside its name."""
    free = sum(count << order for order, count in enumerate(zone.nr_free))
    note = f"{number(free)} of {number(zone.managed)} pages free ({100 * free // max(1, zone.managed)} %)"
    if shelf := sum(pcp.count for pcp in zone.pcps):
        note += f" · {number(shelf)} on per-CPU lists"
    if zone.boost:
        note += f" · watermarks raised by {number(zone.boost)} (boost)"
    return note


def _tiles_of(zone: ZoneSnapshot) -> list[int]:
    if not zone.pages:
        return []
    return sorted({t for first, pages in zone.spans for t in range(first // TILE * TILE, first + pages, TILE)})


def _scale(width: int, tiles: int) -> int:
    """Pixels a page: large for the four tiles of zone DMA alone, small from 1 GiB on."""
    if tiles <= 4:
        return next(px for px in (6, 5, 4, 3, 2) if px == 2 or LEFT + (4 * (SIDE + 2) - 2) * px <= width)
    return 2 if tiles < 256 else 1


def lay_out(
    zones: Sequence[ZoneSnapshot], width: int, top: float,
    said: Mapping[str, str] | None = None, story: tuple[str, Sequence[tuple[str, str]]] = ("", ()),
    cells: Sequence[Cells] = (), zoom: bool = False,
) -> Layout:  # fmt: skip
    """Place every zone for a drawing of ``width`` px, below ``top``.

    ``said`` has the words of the zones that refused the last request; ``story`` is a title and the steps of that
    request, each a token and a sentence. With ``cells`` (one a zone) shares are shown, not pages. ``zoom`` keeps
    room for a pageblock beside the first zone, if there is any.
    """
    numbers = [_tiles_of(zone) for zone in zones]
    layout = Layout(width, _scale(width, sum(map(len, numbers))))
    widths = note_widths(zones, width, cells)
    side, beside = widths[0] < width, int(widths[0]) + 24
    y = top
    for i, zone in enumerate(zones):
        start = y
        y = _head(layout, i, zone, y, (said or {}).get(zone.name, ""), widths[i])
        y = _cells(layout, i, cells[i], y) if cells else _rows(layout, i, zone, numbers[i], y)
        if i == 0 and side:
            layout.below = (round(y), beside - 24)
            layout.zoom = zoom and beside + ZOOM + 16 + 200 <= width
            y = max(y, _story(layout, story, beside + (ZOOM + 16 if layout.zoom else 0), start))
            y = max(y, start + ZOOM // 2 + 44) if layout.zoom else y
            layout.room = (beside, round(start), width - beside, round(y))
        if i + 1 < len(zones):
            y = _gap(layout, zone, zones[i + 1], y)
        y += 10
    if not side:
        y = _story(layout, story, INSET, y)
    layout.height = y - 4
    return layout


def note_widths(zones: Sequence[ZoneSnapshot], width: int, cells: Sequence[Cells] = ()) -> list[int]:
    """How far each zone's head may go: that of the first only to the room right of it, if there is one."""
    if cells:
        tiles = max(160, across(width, LEFT) * PITCH // 4)
        small = len(cells[0].starts) * PITCH <= tiles
    else:
        numbers = [len(_tiles_of(zone)) for zone in zones]
        tiles = 4 * Layout(width, _scale(width, sum(numbers))).pitch
        small = 0 < numbers[0] <= 4  # zone DMA on a PC
    beside = LEFT + tiles
    side = len(zones) > 1 and small and beside + 24 + 300 <= width
    return [beside if side and i == 0 else width for i in range(len(zones))]


def _head(layout: Layout, index: int, zone: ZoneSnapshot, y: float, said: str, width: float) -> float:
    """The zone's name and free pages, beside it where there is room; and why it refused, if it did."""
    layout.words.append(Words(INSET, y + 14, zone.name, 13, "ink", True))
    x, lower, lines = note_lines(zone, width)
    y += lower
    for line in lines:
        layout.words.append(Words(x, y + 14, line, note=index))
        y += 16
    if said:
        lines = fit(f"✕ {zone.name} said no: {said}", 12, width - 28, bold=True)
        layout.rects.append(Rect(INSET, y + 5, width - INSET - 2, 16 * len(lines) + 6, "badbg"))
        layout.rects.append(Rect(INSET, y + 5, 4, 16 * len(lines) + 6, "bad"))
        for line in lines:
            layout.words.append(Words(INSET + 12, y + 19, line, 12, "bad", True))
            y += 16
        y += 8
    return y + 6


def note_lines(zone: ZoneSnapshot, width: float) -> tuple[int, int, list[str]]:
    """Where the zone's note begins, how much lower than its name, and its lines."""
    note, x = note_of(zone), max(LEFT, INSET + round(text_width(zone.name, 13, bold=True)) + 10)
    if x + text_width(note, 12) <= width:
        return x, 0, [note]
    return INSET, 16, fit(note, 12, width - INSET)


def _cells(layout: Layout, index: int, cells: Cells, y: float) -> float:
    """Rows of cells, each with its address; a stretch without memory begins another row."""
    most, step, starts = across(layout.width, LEFT), cells.tiles * TILE, cells.starts
    numbers = [start // step for start in starts]
    i = 0
    while i < len(starts):
        count = 1
        while count < most and i + count < len(starts) and numbers[i + count] == numbers[i] + count:
            count += 1
        if i and numbers[i] != numbers[i - 1] + 1:
            y = _sentence(layout, f"… no memory for {size((numbers[i] - numbers[i - 1] - 1) * step)} …", y)
        layout.words.append(Words(LEFT - 8, y + 12, size(starts[i]) if starts[i] else "0 MiB", 11, anchor="end"))
        layout.cells.append(CellRow(index, LEFT, round(y), i, count))
        y += PITCH
        i += count
    return y + CELL / 2


def _rows(layout: Layout, index: int, zone: ZoneSnapshot, starts: list[int], y: float) -> float:
    """Rows of tiles; rows that nobody can use are folded, stretches without memory become a sentence."""
    px, base = layout.px, zone.start_pfn // TILE * TILE
    most = max(1, (layout.width - LEFT + 2 * px) // layout.pitch)
    i = 0
    while i < len(starts):
        row = [starts[i]]
        while len(row) < most and i + len(row) < len(starts) and starts[i + len(row)] == row[-1] + TILE:
            row.append(starts[i + len(row)])
        if i and row[0] != starts[i - 1] + TILE:
            y = _sentence(layout, f"… no memory for {size(row[0] - starts[i - 1] - TILE)} …", y)
        # Addresses up to 4 GiB; beyond, how far into the zone: "+48 MiB" says more than "4144 MiB".
        label = size(row[0]) if row[0] == base or base < 1 << 20 else f"+{size(row[0] - base)}"
        label = label if row[0] else "0 MiB"
        if folded := _fold(zone, starts[i:], most):
            row, wide = folded, most * layout.pitch - 2 * px
            text = f"{plural(len(row), 'whole tile')} reserved at boot ({size(len(row) * TILE)})"
            if not _label(layout, label, y, 14):
                text = f"at {label}: {text}"
            layout.rects.append(Rect(LEFT, y, wide, BAND, "hatch"))
            layout.words.append(Words(LEFT + wide / 2, y + 12, text, 11, anchor="middle"))
            y += BAND + 6
        else:
            _label(layout, label, y, SIDE * px)
            _tiles(layout, index, zone, row, round(y))
            y += max(SIDE * px, 14) + (8 if px > 2 else 6)
        i += len(row)
    return y


def _fold(zone: ZoneSnapshot, tiles: list[int], most: int) -> list[int]:
    """The whole rows that these tiles begin with and nobody can use."""
    out: list[int] = []
    while len(row := tiles[len(out) : len(out) + most]) == most:
        first = out[-1] + TILE if out else row[0]
        if row != list(range(first, first + most * TILE, TILE)):
            break
        if any(tile_bytes(zone, tile).translate(None, _UNUSABLE) for tile in row):
            break
        out += row
    return out


def _label(layout: Layout, label: str, y: float, tall: int) -> bool:
    """An address left of its row: in two lines if it is long; False if there is no room for them."""
    lines = [label] if text_width(label, 11) <= LEFT - 8 else label.split(" ")
    if 14 * len(lines) > tall:
        return False
    for k, line in enumerate(lines):
        layout.words.append(Words(LEFT - 8, y + 12 + 13 * k, line, 11, anchor="end"))
    return True


def _tiles(layout: Layout, index: int, zone: ZoneSnapshot, row: list[int], y: int) -> None:
    half = SIDE // 2 * layout.px
    for k, tile in enumerate(row):
        x = LEFT + k * layout.pitch
        layout.tiles.append(Tile(tile, x, y, index))
        for first in (tile, tile + 512):
            bar = BARS.get(zone.pageblocks.get(first, 1))
            if bar and layout.px > 1:
                layout.bars.append(Bar(x - 2, y + (0 if first == tile else half) + 1, half - 2, *bar))


def _sentence(layout: Layout, text: str, y: float) -> float:
    layout.words.append(Words(LEFT, y + 12, text, 11))
    return y + 20


def _gap(layout: Layout, zone: ZoneSnapshot, above: ZoneSnapshot, y: float) -> float:
    """Zones that do not touch: say what lies between."""
    # Not start + spanned: on a PC zone DMA32 spans up to 4 GiB, however little memory there is.
    end = max((first + pages for first, pages in zone.spans), default=zone.start_pfn + zone.spanned)
    if above.start_pfn - end < TILE:
        return y
    return _sentence(layout, f"… no memory from {size(end)} to {size(above.start_pfn)} …", y)


def _story(layout: Layout, story: tuple[str, Sequence[tuple[str, str]]], x: float, y: float) -> float:
    """The last request in a few lines: every test with its numbers."""
    title, steps = story
    if not steps:
        return y
    layout.words.append(Words(x, y + 14, title, 13, "ink", True))
    y += 20
    for token, say in steps:
        for k, line in enumerate(fit(say, 12, layout.width - x - 14)):
            layout.words.append(Words(x + (14 if k else 0), y + 14, line, 12, token))
            y += 16
    return y + 6
