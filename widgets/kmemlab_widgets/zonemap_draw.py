"""The saved picture of the map: an SVG whose pages are palette PNGs, so that a machine's map weighs some kilobytes."""

from __future__ import annotations

import base64
import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.snapshot import FREE, MOVABLE, PCP, RECLAIMABLE, RESERVED, SLAB, ZoneSnapshot
from kmemlab_widgets.svg import Svg, text_width
from kmemlab_widgets.theme import LIGHT, STATE_TOKENS
from kmemlab_widgets.zonemap_large import CELL, PITCH, TOP, Cells, square
from kmemlab_widgets.zonemap_layout import (
    INSET,
    SIDE,
    TILE,
    ZOOM,
    CellRow,
    Layout,
    Tile,
    block_rect,
    morton,
    tile_bytes,
)

__all__ = ["PATTERN_FROM", "draw", "least_order", "pixels", "png_indexed"]

PATTERN_FROM = 6  # px a page from which the kinds of allocated memory have a pattern as well
_IN_ROWS = itemgetter(*sorted(range(TILE), key=lambda i: morton(i)[::-1]))
_STATE = bytes(i & 15 for i in range(256))
_HIGH = bytes((i & 15) << 4 for i in range(256))
_LINE = len(STATE_TOKENS)  # palette entry of the outlines
_PATTERNED = {MOVABLE: _LINE + 1, RECLAIMABLE: _LINE + 2, SLAB: _LINE + 3}


def _mixed(colour: str) -> str:
    """The colour of a pattern: the state's own, half way to paper."""
    return "#" + "".join(f"{(int(colour[i : i + 2], 16) + 255) // 2:02X}" for i in (1, 3, 5))


_PALETTE = [LIGHT[token] for token in STATE_TOKENS] + [LIGHT["freeln"]]
_PALETTE += [_mixed(LIGHT[STATE_TOKENS[state]]) for state in _PATTERNED]


def least_order(px: int) -> int:
    """The smallest free block with an outline of its own: below, the outline would hide the block."""
    return 2 if px > 1 else 4


def _dotted(px: int) -> list[list[bytes]]:
    """For row and column inside a page: which states show their pattern there (dots M, diagonals R, uprights S)."""
    tables = []
    for y in range(px):
        row = []
        for x in range(px):
            table = bytearray(range(256))
            shown = {MOVABLE: x in (2, 3) and y in (2, 3), RECLAIMABLE: (x + y) % 6 == 5, SLAB: x == 2}
            for state, here in shown.items():
                table[state] = _PATTERNED[state] if here else state
            row.append(bytes(table))
        tables.append(row)
    return tables


_TABLES: dict[int, list[list[bytes]]] = {}


def pixels(states: bytes, px: int, blocks: Sequence[tuple[int, int]] = ()) -> list[bytearray]:
    """A tile's pixel rows, one palette entry a pixel: ``states`` in frame order, outlines for ``blocks``."""
    flat = bytes(_IN_ROWS(states.translate(_STATE)))
    patterned = px >= PATTERN_FROM and any(state in flat for state in _PATTERNED)
    tables = _TABLES.setdefault(px, _dotted(px)) if patterned else []
    rows = []
    for y in range(SIDE):
        line = flat[y * SIDE : (y + 1) * SIDE]
        plain = bytearray(SIDE * px)
        for x in range(px):
            plain[x::px] = line
        for sub in range(px):
            row = bytearray(plain)
            for x in range(px if patterned else 0):
                row[x::px] = line.translate(tables[sub][x])
            rows.append(row)
    for pfn, order in blocks:
        x, y, w, h = (n * px for n in block_rect(pfn, order))
        rows[y][x : x + w] = rows[y + h - 1][x : x + w] = bytes((_LINE,)) * w
        for row in rows[y : y + h]:
            row[x] = row[x + w - 1] = _LINE
    return rows


def _packed(row: bytes) -> bytes:
    """Two pixels a byte: half the bytes to squeeze, and a third less when squeezed."""
    high, low = bytes(row[::2]).translate(_HIGH), bytes(row[1::2])
    low += b"\0" * (len(high) - len(low))
    return (int.from_bytes(high, "big") | int.from_bytes(low, "big")).to_bytes(len(high), "big")


def png_indexed(rows: Sequence[bytes], palette: Sequence[str], clear: int | None = None) -> bytes:
    """A PNG of rows of equal length, a byte a pixel that names one of at most 16 colours; ``clear`` is transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 4, 3, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", b"".join(bytes.fromhex(colour[1:]) for colour in palette))]
    if clear is not None:
        parts.append(chunk(b"tRNS", b"\xff" * clear + b"\0"))
    parts.append(chunk(b"IDAT", zlib.compress(b"".join(b"\0" + _packed(row) for row in rows), 9)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def draw(
    svg: Svg, zones: Sequence[ZoneSnapshot], layout: Layout, marks: Mapping[str, Any],
    legend: Sequence[Sequence[Any]], key: Sequence[tuple[str, str]], cells: Sequence[Cells] = (),
) -> str:  # fmt: skip
    """Write the map into ``svg``: the pages as pictures, everything else over them."""
    svg.raw(
        '<pattern id="h" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect width="6" height="6" fill="var(--kml-wash)"/><path d="M0 0V6" stroke="var(--kml-resv)"/></pattern>'
    )
    for rect in layout.rects:
        svg.rect(rect.x, rect.y, rect.w, rect.h, "url(#h)" if rect.fill == "hatch" else rect.fill)
    blocks = _blocks_by_tile(zones, layout.px)
    for _, row in itertools.groupby(layout.tiles, key=lambda tile: (tile.zone, tile.y)):
        _draw_row(svg, zones, layout, list(row), blocks)
    for row in layout.cells:
        _draw_cells(svg, row, cells[row.zone])
    for bar in layout.bars:
        svg.line(bar.x, bar.y, bar.x, bar.y + bar.h, bar.fill, sw=3, dash=bar.dash)
    _draw_marks(svg, layout, marks, cells)
    if layout.zoom and layout.room:
        _draw_zoom(svg, zones, layout.room[0], layout.room[1], marks)
    for w in layout.words:
        svg.text(w.x, w.y, w.text, px=w.px, fill=w.fill, bold=w.bold, anchor=w.anchor, halo=w.anchor == "middle")
    svg.grow(layout.height)
    _draw_legend(svg, legend, key, layout.height + 6)
    return str(svg)


def _blocks_by_tile(zones: Sequence[ZoneSnapshot], px: int) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for zone in zones:
        for (order, _), pfns in zone.free.items() if zone.pages else ():
            if order >= least_order(px):
                for pfn in pfns:
                    found.setdefault(pfn // TILE * TILE, []).append((pfn, order))
    return found


def _draw_row(
    svg: Svg, zones: Sequence[ZoneSnapshot], layout: Layout, row: list[Tile], blocks: dict[int, list[tuple[int, int]]]
) -> None:
    """One picture for a row of tiles, two pages of paper between them; reserved memory lets the hatch through."""
    px = layout.px
    states = [tile_bytes(zones[tile.zone], tile.pfn) for tile in row]
    parts = [pixels(each, px, blocks.get(tile.pfn, ())) for tile, each in zip(row, states, strict=True)]
    lines = [bytes(2 * px).join(pieces) for pieces in zip(*parts, strict=True)]
    x, y, wide, tall = row[0].x, row[0].y, len(lines[0]), SIDE * px
    if any(RESERVED in each for each in states):
        svg.rect(x, y, wide, tall, "url(#h)")
    picture = base64.b64encode(png_indexed(lines, _PALETTE, RESERVED)).decode()
    svg.raw(
        f'<image x="{x}" y="{y}" width="{wide}" height="{tall}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{picture}"/>'
    )


def _draw_cells(svg: Svg, row: CellRow, cells: Cells) -> None:
    """A row of shares: taken is dark, free a light band from below, the largest free block a light square."""
    part = slice(row.first, row.first + row.count)
    lines = [bytearray() for _ in range(CELL)]
    reserved = False
    for share, largest, _, _, kind in cells.plain()[part]:
        rows = [bytearray([FREE if y >= CELL - share else kind]) * CELL for y in range(CELL)]
        reserved = reserved or kind == RESERVED
        if side := square(largest, cells.tiles):
            for y in range(CELL - side, CELL):
                rows[y][:side] = bytes([FREE]) * side
                rows[y][0] = rows[y][side - 1] = _LINE
            rows[CELL - side][:side] = rows[-1][:side] = bytes([_LINE]) * side
        for line, piece in zip(lines, rows, strict=True):
            line += piece + bytes(1)
    wide = len(lines[0])
    if reserved:
        svg.rect(row.x, row.y, wide, CELL, "url(#h)")
    picture = base64.b64encode(png_indexed(lines, _PALETTE, RESERVED)).decode()
    svg.raw(
        f'<image x="{row.x}" y="{row.y}" width="{wide}" height="{CELL}" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{picture}"/>'
    )
    svg.grow(row.y + CELL)


def _placed(layout: Layout, cells: Sequence[Cells], pfn: int, order: int) -> tuple[float, float, float, float] | None:
    """Where a block is in the picture, or the cell it lies in: x, y, width, height."""
    for row in layout.cells:
        number = cells[row.zone].of(pfn)
        if number is not None and row.first <= number < row.first + row.count:
            return row.x + (number - row.first) * PITCH, row.y, CELL, CELL
    for tile in layout.tiles:
        if tile.pfn == pfn // TILE * TILE:
            x, y, w, h = (n * layout.px for n in block_rect(pfn, order))
            return tile.x + x, tile.y + y, w, h
    return None


def _draw_marks(svg: Svg, layout: Layout, marks: Mapping[str, Any], cells: Sequence[Cells]) -> None:
    """Dashed frames round the halves split off, then the frame round the block taken or given back."""
    for block in marks["halves"] if not cells else ():
        if place := _placed(layout, cells, *block):
            x, y, w, h = place
            svg.rect(x + 1, y + 1, w - 2, h - 2, stroke="paper", sw=2)
            svg.rect(x + 1, y + 1, w - 2, h - 2, stroke="ink", sw=2, dash="3 2")
    for block in (marks["taken"], marks["freed"]):
        if block and (place := _placed(layout, cells, *block)):
            x, y, w, h = place
            svg.rect(x - 2, y - 2, w + 4, h + 4, stroke="paper", sw=4)
            svg.rect(x - 1, y - 1, w + 2, h + 2, stroke="ink", sw=2)
    landing = (marks["largest"] or {}).get("block")
    if landing and (place := _placed(layout, cells, *landing)):
        _brackets(svg, *place)


def _draw_zoom(svg: Svg, zones: Sequence[ZoneSnapshot], x: int, y: int, marks: Mapping[str, Any]) -> None:
    """The pageblock of the block just taken or given back, 8 px a page."""
    pfn, order = marks["taken"] or marks["freed"]
    start, px = pfn // 512 * 512, ZOOM // SIDE
    tile, top = start // TILE * TILE, 16 * px if start % TILE else 0
    zone = next(zone for zone in zones if any(first <= pfn < first + pages for first, pages in zone.spans))
    states = tile_bytes(zone, tile)
    blocks = _blocks_by_tile([zone], px).get(tile, [])
    rows = pixels(states, px, blocks)[top : top + ZOOM // 2]
    free = sum(state & 15 == FREE for state in states[start - tile : start - tile + 512])
    svg.text(x, y + 14, f"Zoom: pageblock {start}–{start + 511}", px=13, bold=True)
    svg.text(x, y + 30, f"{MIGRATE_NAMES[zone.pageblocks.get(start, 1)]} · {free} of 512 pages free", fill="ink2")
    y += 36
    svg.rect(x, y, ZOOM, ZOOM // 2, "url(#h)")
    picture = base64.b64encode(png_indexed(rows, _PALETTE, RESERVED)).decode()
    svg.raw(f'<image x="{x}" y="{y}" width="{ZOOM}" height="{ZOOM // 2}" href="data:image/png;base64,{picture}"/>')
    if order < TOP:
        col, row, w, h = (n * px for n in block_rect(pfn, order))
        svg.rect(x + col + 3, y + row - top + 3, w - 6, h - 6, stroke="paper", sw=2)
        svg.rect(x + col + 1, y + row - top + 1, w - 2, h - 2, stroke="ink", sw=2)


def _brackets(svg: Svg, x: float, y: float, w: float, h: float) -> None:
    """Where a request would land: four corners, outside the block."""
    arm = max(3, min(9, w // 3, h // 3))
    x, y, w, h = x - 2, y - 2, w + 4, h + 4
    path = "".join(
        f"M{cx + dx * arm:g} {cy:g}H{cx:g}V{cy + dy * arm:g}"
        for cx, dx in ((x, 1), (x + w, -1))
        for cy, dy in ((y, 1), (y + h, -1))
    )
    svg.path(path, stroke="paper", sw=6)
    svg.path(path, stroke="ink", sw=3)


def _draw_legend(svg: Svg, legend: Sequence[Sequence[Any]], key: Sequence[tuple[str, str]], y: float) -> None:
    """Only what is in the picture."""
    x, y = float(INSET), y + 14
    for kind, words in [*((state, name) for state, name, *_ in legend), *key]:
        wide = text_width(words, 12) + 34
        if x > INSET and x + wide > svg.width:
            x, y = float(INSET), y + 20
        _swatch(svg, kind, x, y - 10)
        svg.text(x + 18, y, words)
        x += wide


def _swatch(svg: Svg, kind: int | str, x: float, y: float) -> None:
    if isinstance(kind, int):
        stroke = {0: "rule", RESERVED: "rule", FREE: "freeln", PCP: "pcpln"}.get(kind, "")
        fill = "url(#h)" if kind == RESERVED else STATE_TOKENS[kind]
        svg.rect(x + 0.5, y + 0.5, 11, 11, fill, stroke=stroke, dash="2 2" if kind == 0 else "")
    elif kind.startswith("bar"):
        token, dash = {"0": ("unmov", ""), "2": ("recl", "4 2"), "3": ("high", "1 2")}.get(kind[3:], ("resv", ""))
        svg.line(x + 6, y, x + 6, y + 12, token, sw=3, dash=dash)
    elif kind == "band":
        svg.rect(x + 0.5, y + 0.5, 11, 5, "unmov")
        svg.rect(x + 0.5, y + 5.5, 11, 6, "free")
    elif kind == "square":
        svg.rect(x + 2.5, y + 2.5, 7, 7, "free", stroke="freeln")
    elif kind == "largest":
        _brackets(svg, x + 3, y + 3, 6, 6)
    else:
        svg.rect(x + 1, y + 1, 10, 10, stroke="ink", sw=2, dash="3 2" if kind == "halves" else "")
