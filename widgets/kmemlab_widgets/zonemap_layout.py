"""Where things stand on the map: tiles of one top-order block in address order, Z-order inside.

A tile is 1024 page frames, 32 x 32. Inside, bit 0 of the frame number goes right, bit 1 down, bit 2 right ...: a
buddy block is then always a square or a 2:1 rectangle, and buddies are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kmemlab.snapshot import RESERVED, ZoneSnapshot
from kmemlab_widgets.theme import number, plural, size

__all__ = ["TILE", "Group", "Layout", "Row", "block_rect", "lay_out", "morton", "tile_bytes"]

TILE = 1024
SIDE = 32


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


def block_rect(pfn: int, order: int) -> tuple[int, int, int, int]:
    """Column, row, width and height, in pages, of an aligned block inside its tile."""
    x, y = morton(pfn % TILE)
    return x, y, 1 << (order + 1) // 2, 1 << order // 2


@dataclass(slots=True)
class Row:
    """A row of tiles: their first frames; or, when ``text`` is set, a band that says what is left out."""

    y: float
    label: str
    tiles: list[int] = field(default_factory=list)
    text: str = ""


@dataclass(slots=True)
class Group:
    """A zone: its name and the note beside it (below it on a phone), then rows; ``share`` of free pages when it
    is too large to list."""

    name: str
    note: str
    y: float
    note_x: float
    note_y: float
    rows: list[Row] = field(default_factory=list)
    share: float | None = None


@dataclass(slots=True)
class Layout:
    """The whole map at one width: ``px`` pixels a page, tiles from ``left`` on, ``pitch`` apart."""

    width: int
    px: int
    left: int
    pitch: int
    top: float
    height: float = 0.0
    groups: list[Group] = field(default_factory=list)

    def plain(self) -> dict[str, object]:
        """The layout as plain data for the browser."""
        groups = [
            {
                "name": g.name,
                "note": g.note,
                "y": g.y,
                "note_x": g.note_x,
                "note_y": g.note_y,
                "share": g.share,
                "rows": [{"y": r.y, "label": r.label, "tiles": r.tiles, "text": r.text} for r in g.rows],
            }
            for g in self.groups
        ]
        return {
            "width": self.width, "px": self.px, "left": self.left, "pitch": self.pitch, "height": self.height,
            "groups": groups,
        }  # fmt: skip


def tile_bytes(zone: ZoneSnapshot, tile: int) -> bytes:
    """The 1024 state bytes of a tile; 0 (hole) where the zone has no memory."""
    out, offset = bytearray(TILE), 0
    for first, pages in zone.spans:
        low, high = max(first, tile), min(first + pages, tile + TILE)
        if low < high:
            out[low - tile : high - tile] = zone.pages[offset + low - first : offset + high - first]
        offset += pages
    return bytes(out)


def _note(zone: ZoneSnapshot) -> str:
    free = sum(count << order for order, count in enumerate(zone.nr_free))
    note = f"{number(free)} of {number(zone.managed)} pages free ({100 * free // max(1, zone.managed)} %)"
    if shelf := sum(pcp.count for pcp in zone.pcps):
        note += f", {number(shelf)} on per-CPU lists"
    if zone.boost:
        note += f", boost {number(zone.boost)}"
    return note


def _reserved(zone: ZoneSnapshot, tile: int) -> bool:
    return set(tile_bytes(zone, tile)) <= {0, RESERVED}


def lay_out(zones: tuple[ZoneSnapshot, ...], width: int, top: float) -> Layout:
    """Place every zone for a drawing of ``width`` px, below ``top``."""
    wide = width > 560
    tiles = sum(-(-pages // TILE) + 1 for zone in zones for _, pages in zone.spans if zone.pages)
    px = 5 if wide and len(zones) == 1 and tiles <= 8 else 2
    left = 52 if wide else 54
    pitch = (SIDE + 2) * px
    layout = Layout(width, px, left, pitch, top)
    across = max(1, (width - left + 2 * px) // pitch)
    y = top
    for zone in zones:
        group = Group(zone.name, _note(zone), y + 14, left, y + 14)
        if not wide:
            group.note_x, group.note_y = 0, y + 30
            y += 16
        y += 24
        if not zone.pages:
            free = sum(count << order for order, count in enumerate(zone.nr_free))
            group.share = free / max(1, zone.managed)
            y += 30
        else:
            y = _rows(group, zone, across, y, SIDE * px, px)
        layout.groups.append(group)
        y += 14
    layout.height = y
    return layout


def _rows(group: Group, zone: ZoneSnapshot, across: int, y: float, tall: int, px: int) -> float:
    """Rows of tiles; rows that nobody can use are folded, gaps without memory become a sentence."""
    starts = [t for first, pages in zone.spans for t in range(first // TILE * TILE, first + pages, TILE)]
    starts = sorted(set(starts))
    base = zone.start_pfn // TILE * TILE
    i = 0
    while i < len(starts):
        chunk = [starts[i]]
        while len(chunk) < across and i + len(chunk) < len(starts) and starts[i + len(chunk)] == chunk[-1] + TILE:
            chunk.append(starts[i + len(chunk)])
        if i and chunk[0] != starts[i - 1] + TILE:
            gap = chunk[0] - starts[i - 1] - TILE
            group.rows.append(Row(y, "", [], f"… no memory for {size(gap)} …"))
            y += 20
        # Addresses up to 4 GiB; beyond, how far into the zone: "+48 MiB" says more than "4144 MiB".
        label = size(chunk[0]) if chunk[0] == base or base < 1 << 20 else f"+{size(chunk[0] - base)}"
        if len(chunk) == across and all(_reserved(zone, tile) for tile in chunk):
            text = f"{plural(len(chunk), 'whole tile')} reserved at boot ({size(len(chunk) * TILE)})"
            group.rows.append(Row(y, label if chunk[0] else "0 MiB", [], text))
            y += 20
        else:
            group.rows.append(Row(y, label if chunk[0] else "0 MiB", chunk))
            y += tall + 2 * px
        i += len(chunk)
    return y
