"""ZoneMap: every page frame by zone and state. Where is free space, how broken up is it, what happened just now?"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from operator import itemgetter
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kmemlab import events
from kmemlab.snapshot import FREE, RESERVED, Snapshot, ZoneSnapshot
from kmemlab.story import Story
from kmemlab_widgets.panel import Panel, View
from kmemlab_widgets.svg import Svg, fit, text_width
from kmemlab_widgets.theme import LETTERS, LIGHT, STATE_NAMES, STATE_TOKENS, css, number, plural, size
from kmemlab_widgets.zonemap_layout import SIDE, TILE, Layout, block_rect, lay_out, morton, tile_bytes

__all__ = ["Marks", "ZoneMap", "describe", "draw", "marks_of", "png_indexed"]

STATIC = Path(__file__).parent / "static"
_IN_ROWS = itemgetter(*sorted(range(TILE), key=lambda i: morton(i)[::-1]))
_STATE = bytes(i & 15 for i in range(256))
_WASH = len(STATE_TOKENS)
_PALETTE = [*(LIGHT[token] for token in STATE_TOKENS), LIGHT["wash"]]

Marks = dict[str, Any]


class ZoneMap(Panel, anywidget.AnyWidget):  # type: ignore[misc]
    """The map of a machine's zones, or of one: ``ZoneMap(m, zone="DMA")``. A snapshot can be shown too."""

    title = "ZoneMap"
    _esm = STATIC / "zonemap.js"
    _css = css(".kml-zonemap") + (STATIC / "zonemap.css").read_text(encoding="utf-8")
    cells = traitlets.Bytes(b"").tag(sync=True)
    meta = traitlets.Unicode("{}").tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)

    def __init__(self, source: Any, zone: str | None = None, *, follow: bool = True) -> None:
        anywidget.AnyWidget.__init__(self)
        self.zone = zone
        self.start(source, follow=follow)

    def _zones(self, snapshot: Snapshot) -> tuple[ZoneSnapshot, ...]:
        return snapshot.zones if self.zone is None else (snapshot.zone(self.zone),)

    def view(self, snapshot: Snapshot) -> View:
        """Draw the map at both widths, as the saved notebook keeps it."""
        marks = marks_of(self.machine.last_events() if self.machine is not None else ())
        story = self.machine.explain() if self.machine is not None else Story("")
        headline, sub, twin = describe(snapshot, self._zones(snapshot), story, marks)
        self._marks = marks
        drawings = (draw(self._zones(snapshot), headline, sub, marks, width) for width in (868, 358))
        return View(headline, twin, *drawings)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send the page states and what is drawn over them; the browser redraws once, on ``frame``."""
        with self.hold_sync():
            if snapshot is None or not view.wide.startswith("<svg"):
                self.meta = json.dumps({"error": view.twin})
            else:
                zones = self._zones(snapshot)
                headline, sub, twin = view.headline, view.twin.split("\n")[1], view.twin
                self.cells = b"".join(zone.pages for zone in zones)
                self.meta = json.dumps(_meta(zones, headline, sub, twin, self._marks))
            self.frame += 1


def marks_of(trail: tuple[events.Event, ...]) -> Marks:
    """What the last call left to show: the block taken, the halves split off, the zones that said no."""
    marks: Marks = {"taken": None, "halves": [], "failed": {}}
    for event in trail:
        if isinstance(event, events.LabReturn):
            marks["taken"] = [event.pfn, event.order]
        elif isinstance(event, events.LabZone) and not event.passed:
            need = event.mark + event.protection
            marks["failed"][event.zone] = (
                f"{number(event.free - event.unusable)} is not above {number(need)}"
                if not event.enough
                else f"{number(event.free)} pages are free, but no block is large enough"
            )
    taken = marks["taken"]
    for event in trail:
        if isinstance(event, events.LabSplit) and taken and event.pfn == taken[0]:
            marks["halves"] = [[event.pfn + (1 << order), order] for order in range(event.low, event.high)]
            marks["split"] = [event.high, event.low]
    if taken:
        marks["failed"] = {}
    return marks


def _largest(zone: ZoneSnapshot) -> int:
    return max((order for order, count in enumerate(zone.nr_free) if count), default=-1)


def describe(snapshot: Snapshot, zones: tuple[ZoneSnapshot, ...], story: Story, marks: Marks) -> tuple[str, str, str]:
    """(headline, second line, text twin): the finding comes first in both."""
    if story.steps:
        headline = story.headline
    else:
        zone = max(zones, key=lambda each: each.managed)
        free, top = sum(n << k for k, n in enumerate(zone.nr_free)), _largest(zone)
        headline = f"{zone.name}: {number(free)} of {number(zone.managed)} pages are free"
        headline += f", the largest block is order {top} ({size(1 << top)})" if top >= 0 else ""
    where = snapshot.label + (", recorded from Linux 6.1" if snapshot.recorded else "")
    sub = f"{where} · after {plural(snapshot.calls, 'call')} · a page is 4 KiB, a tile 4 MiB"
    lines = [headline, sub]
    for zone in zones:
        free, top = sum(n << k for k, n in enumerate(zone.nr_free)), _largest(zone)
        line = f"{zone.name}: {number(free)} of {number(zone.managed)} pages free"
        line += f", largest order {top} x{zone.nr_free[top]}" if top >= 0 else ", no block free"
        if shelf := sum(pcp.count for pcp in zone.pcps):
            line += f", {number(shelf)} on per-CPU lists"
        if zone.boost:
            line += f", boost {zone.boost}"
        if zone.name in marks["failed"]:
            line += f"; said no: {marks['failed'][zone.name]}"
        lines.append(line + ".")
    return headline, sub, "\n".join(lines)


def _legend(zones: tuple[ZoneSnapshot, ...]) -> list[list[Any]]:
    counts = [0] * len(STATE_TOKENS)
    for zone in zones:
        states = zone.pages.translate(_STATE)
        for state in range(len(counts)):
            counts[state] += states.count(state)
    return [[state, STATE_NAMES[state], STATE_TOKENS[state], LETTERS[state], n] for state, n in enumerate(counts) if n]


def _meta(zones: tuple[ZoneSnapshot, ...], headline: str, sub: str, twin: str, marks: Marks) -> dict[str, Any]:
    spans, offset = [], 0
    for zone in zones:
        for first, pages in zone.spans if zone.pages else ():
            spans.append([first, pages, offset])
            offset += pages
    blocks = [
        [pfn, order, mt] for zone in zones if zone.pages
        for (order, mt), pfns in zone.free.items() for pfn in pfns
    ]  # fmt: skip
    types = [[pfn, mt] for zone in zones for pfn, mt in zone.pageblocks.items() if mt != 1]
    return {
        "headline": headline,
        "sub": sub,
        "twin": twin,
        "spans": spans,
        "blocks": blocks,
        "types": types,
        "marks": marks,
        "legend": _legend(zones),
        "states": [[STATE_NAMES[i], STATE_TOKENS[i]] for i in range(len(STATE_TOKENS))],
        "wide": lay_out(zones, 868, 0).plain(),
        "narrow": lay_out(zones, 358, 0).plain(),
    }


def png_indexed(rows: list[bytes], palette: list[str]) -> bytes:
    """A palette PNG of rows of equal length, one byte a pixel, colours as ``#RRGGBB``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colours = b"".join(bytes.fromhex(colour[1:]) for colour in palette)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 3, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"PLTE", colours) + chunk(b"IDAT", data) + chunk(b"IEND", b"")  # fmt: skip  # noqa: E501


def _pixels(zone: ZoneSnapshot, tiles: list[int]) -> list[bytes]:
    """The pixel rows of a row of tiles, two columns of paper between them; reserved memory is hatched."""
    lines: list[list[bytes]] = [[] for _ in range(SIDE)]
    for tile in tiles:
        flat = bytes(_IN_ROWS(tile_bytes(zone, tile).translate(_STATE)))
        for y in range(SIDE):
            line = flat[y * SIDE : (y + 1) * SIDE]
            if RESERVED in line:
                line = bytes(_WASH if s == RESERVED and (x + y) % 4 else s for x, s in enumerate(line))
            lines[y] += [line, b"\0\0"]
    return [b"".join(line) for line in lines]


def draw(zones: tuple[ZoneSnapshot, ...], headline: str, sub: str, marks: Marks, width: int) -> str:
    """The map as SVG, for 868 or 358 px: the pages as pictures of one pixel a page, everything else over them."""
    svg = Svg(width, headline)
    y = 20.0
    for line in fit(headline, 16, width - 28, bold=True):
        svg.text(0, y, line, px=16, bold=True)
        y += 20
    for line in fit(sub, 12, width - 28):
        svg.text(0, y, line, fill="ink2")
        y += 16
    layout = lay_out(zones, width, y)
    for zone, group in zip(zones, layout.groups, strict=True):
        svg.text(0, group.y, group.name, px=13, bold=True)
        svg.text(group.note_x, group.note_y, fit(group.note, 12, width - group.note_x)[0], fill="ink2")
        if zone.name in marks["failed"]:
            svg.rect(width - 4, group.y - 10, 4, 14, "bad")
        if group.share is not None:
            svg.rect(layout.left, group.y + 10, width - layout.left - 4, 18, "unmov")
            svg.rect(layout.left, group.y + 10, (width - layout.left - 4) * group.share, 18, "free", stroke="freeln")
        for row in group.rows:
            _draw_row(svg, layout, zone, row)
    for zone, group in zip(zones, layout.groups, strict=True):
        if group.rows:
            _draw_marks(svg, layout, zone, group, marks)
    svg.grow(layout.height)
    return str(_draw_legend(svg, zones, layout.height + 6, width))


def _draw_row(svg: Svg, layout: Layout, zone: ZoneSnapshot, row: Any) -> None:
    svg.text(layout.left - 8, row.y + 12, row.label, px=11, fill="ink2", anchor="end")
    if row.text:
        svg.text(layout.left + 4, row.y + 12, row.text, px=11, fill="ink2")
        return
    rows = _pixels(zone, row.tiles)
    picture = base64.b64encode(png_indexed(rows, _PALETTE)).decode()
    svg.raw(
        f'<image x="{layout.left}" y="{row.y:g}" width="{len(rows[0]) * layout.px}" height="{SIDE * layout.px}" '
        f'preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{picture}"/>'
    )
    for i, tile in enumerate(row.tiles):
        for half in (0, 512):
            mt = zone.pageblocks.get(tile + half, 1)
            if mt != 1:
                token, dash = {0: ("unmov", ""), 2: ("recl", "4 2"), 3: ("high", "1 2")}.get(mt, ("resv", ""))
                x, y = layout.left + i * layout.pitch - 2, row.y + half // 512 * 16 * layout.px
                svg.line(x, y + 1, x, y + 16 * layout.px - 1, token, sw=3, dash=dash)


def _places(layout: Layout, group: Any) -> dict[int, tuple[float, float]]:
    return {
        tile: (layout.left + i * layout.pitch, row.y) for row in group.rows for i, tile in enumerate(row.tiles)
    }  # fmt: skip


def _draw_marks(svg: Svg, layout: Layout, zone: ZoneSnapshot, group: Any, marks: Marks) -> None:
    """Outlines of free blocks, then the dashed halves, then the frame of the block just taken."""
    places = _places(layout, group)

    def rect(pfn: int, order: int) -> tuple[float, float, float, float] | None:
        place = places.get(pfn // TILE * TILE)
        if place is None:
            return None
        x, y, w, h = (n * layout.px for n in block_rect(pfn, order))
        return place[0] + x, place[1] + y, w, h

    # The saved picture outlines the larger blocks only: some hundred lines, not some thousand.
    counts = [sum(len(pfns) for (k, _), pfns in zone.free.items() if k >= order) for order in range(12)]
    smallest = next(order for order in range(2 if layout.px > 2 else 4, 12) if counts[order] <= 250)
    outline = []
    for (order, _), pfns in zone.free.items():
        for pfn in pfns if order >= smallest else ():
            if found := rect(pfn, order):
                x, y, w, h = found
                outline.append(f"M{x + 0.5:g} {y + 0.5:g}h{w - 1:g}v{h - 1:g}h{1 - w:g}z")
    svg.raw(f'<path d="{"".join(outline)}" fill="none" stroke="var(--kml-freeln)" stroke-width="1"/>')
    for pfn, order in marks["halves"]:
        if found := rect(pfn, order):
            svg.rect(*found, "none", stroke="ink", sw=2, dash="3 2")
    if marks["taken"] and (found := rect(*marks["taken"])):
        x, y, w, h = found
        svg.rect(x - 2.5, y - 2.5, w + 5, h + 5, "none", stroke="paper", sw=2)
        svg.rect(x - 1, y - 1, w + 2, h + 2, "none", stroke="ink", sw=2)


def _draw_legend(svg: Svg, zones: tuple[ZoneSnapshot, ...], y: float, width: int) -> Svg:
    """Only what is in the picture."""
    entries = _legend(zones)
    x, y = 0.0, y + 12
    for state, name, token, _, _ in entries:
        wide = text_width(name, 12) + 34
        if x + wide > width:
            x, y = 0.0, y + 20
        stroke = {FREE: "freeln", FREE + 1: "pcpln"}.get(state, "rule" if state < FREE else "")
        svg.rect(x, y - 11, 12, 12, token, stroke=stroke)
        svg.text(x + 18, y, name)
        x += wide
    return svg
