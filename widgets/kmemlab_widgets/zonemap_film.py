"""Moments of a map kept as a film: the first in full, of each later one the tiles that are different.

A moment is two byte strings over the pages that are shown, one after the other: ``cells`` (state of each page)
and ``orders`` (order + 1 at the first page of a free block, else 0), and ``info``, what the map says of it, under the
same names in every moment.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kmemlab.events import Event
from kmemlab.snapshot import ZoneSnapshot
from kmemlab_widgets.zonemap_layout import TILE

__all__ = ["LIVE", "RECORDED", "Film", "Shot", "orders_of", "pieces_of"]

LIVE = 240  # moments kept of a panel that follows its machine
RECORDED = 600  # at most so many while recording: then every second one goes
_SQUEEZE_FROM = 1 << 14


def pieces_of(zones: Sequence[ZoneSnapshot]) -> list[tuple[int, int]]:
    """(offset, pages) in ``cells`` of each tile that is shown, a tile over two spans in two pieces."""
    pieces, offset = [], 0
    for zone in zones:
        for first, pages in zone.spans if zone.pages else ():
            at = first
            while at < first + pages:
                end = min(at // TILE * TILE + TILE, first + pages)
                pieces.append((offset + at - first, end - at))
                at = end
            offset += pages
    return pieces


def orders_of(zone: ZoneSnapshot) -> bytes:
    """A byte a page over the zone's spans: order + 1 where a free block begins."""
    marks, start = bytearray(zone.spanned), zone.start_pfn
    for (order, _), pfns in zone.free.items():
        for pfn in pfns:
            marks[pfn - start] = order + 1
    return b"".join(bytes(marks[first - start : first - start + pages]) for first, pages in zone.spans)


@dataclass(slots=True)
class Shot:
    """One moment: what is different from the one before (``tiles``: piece -> its two byte strings), and its words.

    ``key`` tells whether the machine has changed since; ``trail`` are the events of its last call.
    """

    key: tuple[int, ...]
    info: dict[str, Any]
    trail: tuple[Event, ...]
    tiles: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)


class Film:
    """The moments kept. ``first`` and ``last`` are (cells, orders) of the film's two ends."""

    def __init__(self) -> None:
        self.limit = LIVE
        self.version = 0  # another number whenever the film is another
        self.shots: list[Shot] = []
        self.pieces: list[tuple[int, int]] = []
        self.first: tuple[bytes, bytes] = (b"", b"")
        self.last: tuple[bytes, bytes] = (b"", b"")

    def __len__(self) -> int:
        return len(self.shots)

    def add(self, shot: Shot, cells: bytes, orders: bytes, pieces: list[tuple[int, int]]) -> None:
        """Keep a moment; one of the same ``key`` as the last takes its place. The oldest goes if there are too many."""
        self.version += 1
        if self.shots and pieces != self.pieces:
            self.shots.clear()  # memory itself has changed: nothing to compare with
        if self.shots and self.shots[-1].key == shot.key:
            if len(self.shots) == 1:
                self.shots.clear()
            else:
                shot.tiles = dict.fromkeys(self.shots.pop().tiles, (b"", b""))
        if not self.shots:
            self.first, self.pieces, shot.tiles = (cells, orders), pieces, {}
        else:
            had, marks = self.last
            for i, (at, pages) in enumerate(pieces):
                ours, theirs = cells[at : at + pages], orders[at : at + pages]
                if i in shot.tiles or ours != had[at : at + pages] or theirs != marks[at : at + pages]:
                    shot.tiles[i] = (ours, theirs)
        self.last = (cells, orders)
        self.shots.append(shot)
        if len(self.shots) > self.limit:
            self.drop(0)

    def drop(self, index: int) -> None:
        """Let a moment go; the one behind it takes over what it had changed."""
        gone = self.shots.pop(index)
        if index:
            if index < len(self.shots):
                self.shots[index].tiles = gone.tiles | self.shots[index].tiles
            return
        cells, orders = map(bytearray, self.first)
        for i, (ours, theirs) in self.shots[0].tiles.items():
            at, pages = self.pieces[i]
            cells[at : at + pages], orders[at : at + pages] = ours, theirs
        self.first, self.shots[0].tiles = (bytes(cells), bytes(orders)), {}

    def thin(self, start: int) -> None:
        """Drop every second moment from ``start`` on, never the last."""
        for index in range(len(self.shots) - 2, start, -2):
            self.drop(index)

    def at(self, index: int) -> tuple[bytes, bytes]:
        """(cells, orders) of a moment."""
        cells, orders = map(bytearray, self.first)
        for shot in self.shots[1 : index % len(self.shots) + 1]:
            for i, (ours, theirs) in shot.tiles.items():
                at, pages = self.pieces[i]
                cells[at : at + pages], orders[at : at + pages] = ours, theirs
        return bytes(cells), bytes(orders)

    def message(self) -> tuple[dict[str, Any], bytes]:
        """The whole film for the browser: what is in it, and its bytes (squeezed if they are many).

        The bytes: cells and orders of the first moment, then of each later one the two strings of each of its tiles,
        then the words as JSON. What is as in the moment before is left out there; a layout is written once.
        """
        parts, frames, layouts = [*self.first], [], {}
        before: dict[str, Any] = {}
        for shot in self.shots:
            for pair in shot.tiles.values():
                parts += pair
            new = {name: value for name, value in shot.info.items() if name not in before or before[name] != value}
            if "layout" in new:
                new["layout"] = layouts.setdefault(new["layout"], len(layouts))
            frames.append({"tiles": [*shot.tiles], "info": new})
            before = shot.info
        pages = b"".join(parts)
        text = f'{{"frames":{json.dumps(frames, separators=(",", ":"))},"layouts":[{",".join(layouts)}]}}'
        data = pages + text.encode()
        squeezed = len(data) > _SQUEEZE_FROM
        about = {"kind": "film", "version": self.version, "pieces": self.pieces, "text": len(pages), "zlib": squeezed}
        return about, zlib.compress(data, 1) if squeezed else data
