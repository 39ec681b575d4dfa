"""Machines too large to show page by page: shares of a cell, which is a tile of 1024 pages or several of them.

Nothing here walks pages: free memory is counted block by block, and what nobody touched since boot as one run.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmemlab.snapshot import LOST, MOVABLE, RECLAIMABLE, RESERVED, SLAB, UNMOVABLE, ZoneSnapshot
from kmemlab_widgets.theme import plural, size

__all__ = [
    "CELL",
    "PITCH",
    "TOP",
    "Cells",
    "Tops",
    "across",
    "cells_of",
    "is_large",
    "per_cell",
    "square",
    "tops_of",
    "unit",
]

TILE = 1024
TOP = 10  # order of the largest block
CELL = 16  # px
PITCH = CELL + 1
MOST_TILES = 512  # 2 GiB: more are shown by shares
_ROWS = 26  # of cells at the widest: the map stays at about 500 px
_ACROSS = 40

# Zone -> (first frames of its free top-order blocks, the run of them that nobody touched since boot, and the runs
# (first frame, pages) that were reserved at boot).
Tops = Mapping[str, tuple[Sequence[int], range, Sequence[tuple[int, int]]]]
_TAKEN = (RESERVED, MOVABLE, RECLAIMABLE, SLAB, UNMOVABLE, LOST)


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a zone: the frame each begins at, ``tiles`` in each, and what is in it: pages that are there,
    free pages, order of the largest free block (-1: none), state of most of the others. ``even``: free memory whose
    place the snapshot does not tell is spread evenly."""

    tiles: int
    starts: tuple[int, ...]
    there: tuple[int, ...]
    free: tuple[int, ...]
    largest: tuple[int, ...]
    kind: tuple[int, ...]
    even: bool

    def plain(self) -> list[list[int]]:
        """[free pages in 16ths of what is there, order of the largest block, free pages, pages, state] of each cell."""
        return [
            [-(-CELL * free // there) if there else 0, largest, free, there, kind]
            for there, free, largest, kind in zip(self.there, self.free, self.largest, self.kind, strict=True)
        ]

    def of(self, pfn: int) -> int | None:
        """Number of the cell that holds a frame."""
        step = self.tiles * TILE
        i = bisect.bisect_right(self.starts, pfn) - 1
        return i if i >= 0 and self.starts[i] // step == pfn // step else None


def _tiles(zone: ZoneSnapshot) -> int:
    count, seen = 0, -1
    for first, pages in zone.spans:  # two spans may share a tile
        last = (first + pages - 1) // TILE
        count += last - max(first // TILE, seen + 1) + 1
        seen = last
    return count


def is_large(zones: Sequence[ZoneSnapshot]) -> bool:
    """Whether these zones are shown by shares."""
    return sum(map(_tiles, zones)) > MOST_TILES or any(zone.present and not zone.pages for zone in zones)


def per_cell(zones: Sequence[ZoneSnapshot]) -> list[int]:
    """Tiles in a cell, a power of two for each zone, so that all rows fit."""
    tiles, groups = [*map(_tiles, zones)], [1] * len(zones)

    def rows(i: int) -> int:
        return -(-tiles[i] // (groups[i] * _ACROSS))

    while sum(map(rows, range(len(zones)))) > _ROWS + len(zones):
        groups[max(range(len(zones)), key=rows)] *= 2
    return groups


def across(width: int, left: int) -> int:
    """Cells in a row of a drawing of that width."""
    return min(_ACROSS, (width - left + 1) // PITCH // 8 * 8)


def unit(groups: Sequence[int], zones: Sequence[ZoneSnapshot]) -> str:
    """What a cell is, in words."""
    most = max(groups)
    words = f"1 cell = {size(most * TILE)}" + (f" = {plural(most, 'tile')}" if most > 1 else "")
    other = [f"{zone.name} {size(n * TILE)}" for zone, n in zip(zones, groups, strict=True) if n != most]
    return words + (f" ({', '.join(other)})" if other else "")


def square(order: int, tiles: int) -> int:
    """Side in px of the square that stands for the largest free block: as large as the block is in its tile. A cell
    of several tiles has none."""
    return round(CELL * ((1 << order) / TILE) ** 0.5) if order >= 0 and tiles == 1 else 0


def tops_of(machine: Any) -> Tops:
    """Where a machine's free blocks of the top order are: those on the lists, and the untouched run behind them; and
    what was reserved at boot."""
    found = {}
    for zone in machine.zones:
        listed: list[int] = []
        for migratetype in range(5):
            for pfn in zone.free_blocks(TOP, migratetype):
                if zone.run and pfn == zone.run[0]:
                    break
                listed.append(pfn)
        found[zone.name] = (listed, zone.run, zone.reserved)
    return found


def cells_of(zone: ZoneSnapshot, tiles: int, tops: Tops) -> Cells:
    """Count a zone's free memory by cells of so many tiles."""
    step = tiles * TILE
    there = _by_cell(zone.spans, step)
    free, largest = dict.fromkeys(there, 0), dict.fromkeys(there, -1)
    known = 0
    for (order, _), pfns in sorted(zone.free.items()):
        for pfn in pfns if order < TOP or zone.name not in tops else ():
            free[pfn // step] += 1 << order
            largest[pfn // step] = order
        known += len(pfns) if order == TOP else 0
    if zone.name in tops:
        listed, run, _ = tops[zone.name]
        known = len(listed) + len(run)
        blocks = [(pfn, TILE) for pfn in listed] + ([(run[0], len(run) * TILE)] if run else [])
        for cell, pages in _by_cell(blocks, step).items():
            free[cell] += pages
            largest[cell] = TOP
    rest = (zone.nr_free[TOP] - known) * TILE
    if rest > 0:
        room = sum(there.values()) - sum(free.values())
        for cell, pages in there.items():
            free[cell] += rest * (pages - free[cell]) // room
            largest[cell] = TOP
    cells = sorted(there)
    kinds = _kinds(zone, step, cells, {cell: there[cell] - free[cell] for cell in cells}, tops)
    starts = tuple(max(cell * step, zone.spans[0][0] // TILE * TILE) for cell in cells)
    return Cells(
        tiles, starts, tuple(there[c] for c in cells), tuple(free[c] for c in cells),
        tuple(largest[c] for c in cells), kinds, rest > 0,
    )  # fmt: skip


def _by_cell(runs: Iterable[tuple[int, int]], step: int) -> dict[int, int]:
    """Pages of runs (first frame, pages) in each cell."""
    found: dict[int, int] = {}
    for first, pages in runs:
        for cell in range(first // step, (first + pages - 1) // step + 1):
            low, high = max(first, cell * step), min(first + pages, (cell + 1) * step)
            found[cell] = found.get(cell, 0) + high - low
    return found


def _kinds(
    zone: ZoneSnapshot, step: int, cells: Sequence[int], taken: Mapping[int, int], tops: Tops
) -> tuple[int, ...]:  # fmt: skip
    """What most pages of each cell are that are not free."""
    if not zone.pages:
        # By the place of reserved memory if it is known; else there is only the sum for the whole zone.
        reserved = _by_cell(tops[zone.name][2], step) if zone.name in tops else {}
        mostly = zone.present - zone.managed > zone.managed - zone.nr_free_pages if zone.name not in tops else False
        return tuple(RESERVED if mostly or 2 * reserved.get(c, 0) > taken[c] else UNMOVABLE for c in cells)
    counts: dict[int, list[int]] = {cell: [0] * len(_TAKEN) for cell in cells}
    offset = 0
    for first, pages in zone.spans:
        for cell in range(first // step, (first + pages - 1) // step + 1):
            low, high = max(first, cell * step), min(first + pages, (cell + 1) * step)
            for i, state in enumerate(_TAKEN):
                counts[cell][i] += zone.pages.count(state, offset + low - first, offset + high - first)
        offset += pages
    return tuple(_TAKEN[max(range(len(_TAKEN)), key=counts[cell].__getitem__)] for cell in cells)
