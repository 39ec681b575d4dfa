"""Zones of which only numbers are known: their free blocks get frames, as they could have lain in its kernel.

Used where a real machine tells counts only: /proc, reports of failures, recorded thresholds. Two free buddies never
stand side by side (the kernel would have merged them). Small blocks lie as in recorded states: a pageblock holds
blocks of one type, and those of each order are dealt over the type's pageblocks in turn, like cards. How many free
pages share a pageblock decides how much a steal moves, and how often the watermark is raised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from kmemlab.kernels import KernelProfile
from kmemlab.mm_init import free_boot_range
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_TYPES,
    PAGEBLOCK_ORDER,
    MemMap,
    PerCpuPages,
    Zone,
)
from kmemlab.procfs import ZoneText

__all__ = ["DoesNotFit", "Spare", "fill_zone", "lay_out", "zone_of"]

TOP = MAX_ORDER - 1


class DoesNotFit(ValueError):
    """Numbers that contradict each other; the text says which, the caller knows which file and line they are from."""


def zone_of(text: ZoneText, profile: KernelProfile) -> Zone:
    """A zone with the numbers of ``text`` and nothing on its lists. Errors: DoesNotFit."""
    v = text.values
    idx = profile.zone_names.index(text.name)
    zone = Zone(text.name, idx, v.get("start_pfn", 0), v["spanned"], v["present"], v["managed"])
    boost = v.get("boost", 0)
    if min(v["min"], v["low"], v["high"]) < boost:
        raise DoesNotFit(f"a watermark is below its boost {boost}")
    zone.wmark = [v["min"] - boost, v["low"] - boost, v["high"] - boost]
    zone.watermark_boost = boost
    zone.lowmem_reserve = text.protection + [0] * (len(profile.zone_names) - len(text.protection))
    zone.nr_free_pages = v["free"]
    zone.nr_reserved_highatomic = v.get("reserved_highatomic", 0)
    zone.stat_threshold = min(v.get("threshold", 0), 125)
    zone.spans = [(zone.start_pfn, zone.spanned)] if zone.managed else []
    return zone


def fill_zone(
    zone: Zone, blocks: Mapping[int, Sequence[int]], pcps: Sequence[Mapping[str, int]], memmap: MemMap
) -> None:
    """Give each counted block a place (see ``lay_out``), then each page of the per-CPU lists. Errors: DoesNotFit."""
    need = sum(count << order for counts in blocks.values() for order, count in enumerate(counts))
    if need > zone.managed:
        raise DoesNotFit(f"{need} pages free, but only {zone.managed} managed")
    kept = zone.nr_reserved_highatomic >> PAGEBLOCK_ORDER
    _fill_pcps(zone, pcps, lay_out(zone, blocks, kept=kept), memmap)


def _fill_pcps(zone: Zone, pcps: Sequence[Mapping[str, int]], spare: Spare, memmap: MemMap) -> None:
    for cpu, numbers in enumerate(pcps or [{}]):
        pcp = PerCpuPages(cpu, numbers.get("high", 0), max(1, numbers.get("batch", 1)))
        for _ in range(min(numbers.get("count", 0), zone.managed)):
            pfn = spare.take(1, MIGRATE_MOVABLE)
            if pfn < 0:
                break
            page = memmap[pfn + 1]
            page.zone, page.mt = zone, MIGRATE_MOVABLE
            pcp.lists[MIGRATE_MOVABLE].append(page)
            pcp.count += 1
        zone.pcps.append(pcp)
    zone.pcp = zone.pcps[0]
    # The counter lags behind the lists, and what was printed first is older: the counter stays what was told, since
    # watermark tests read it, and the difference is remembered.
    listed = sum(zone.nr_free(order) << order for order in range(MAX_ORDER))
    zone.counter_gap = zone.nr_free_pages - listed


def _pool() -> list[list[int]]:
    return [[] for _ in range(MAX_ORDER)]


class Opened:
    """The pageblocks that hold a type's blocks, each as the areas left in it: asked in turn, by falling orders."""

    __slots__ = ("asked", "full", "pools")

    def __init__(self) -> None:
        self.pools: deque[list[list[int]]] = deque()
        self.full: list[list[list[int]]] = []  # no room for the order last asked for
        self.asked = MAX_ORDER

    def __len__(self) -> int:
        return len(self.pools) + len(self.full)

    def next(self, order: int) -> list[list[int]] | None:
        """The next pageblock with room for 2**order pages, None if none has."""
        if order != self.asked:
            self.pools.extend(self.full)
            self.full.clear()
            self.asked = order
        while self.pools:
            self.pools.rotate(-1)
            if _smallest(self.pools[-1], order) >= 0:
                return self.pools[-1]
            self.full.append(self.pools.pop())
        return None


class Spare:
    """The aligned areas of a zone in which nothing is free: lists of first pfns by order.

    ``whole``: pageblocks nobody has claimed; ``rest``: parts of pageblocks at a zone's border; ``opened``: by type.
    """

    __slots__ = ("opened", "rest", "whole", "zone")

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.whole, self.rest = _pool(), _pool()
        self.opened = [Opened() for _ in range(MIGRATE_TYPES)]

    def add(self, first: int, end: int) -> None:
        """Cut a range into aligned areas that belong to nobody."""
        while first < end:
            order = min(TOP, (first & -first).bit_length() - 1, (end - first).bit_length() - 1)
            (self.whole if order >= PAGEBLOCK_ORDER else self.rest)[order].append(first)
            first += 1 << order

    def take(self, order: int, migratetype: int) -> int:
        """The first pfn of 2**order pages in use, as near to this type's blocks as there are any; -1 if none are."""
        pool = self.room(order, migratetype)
        return -1 if pool is None else _cut(pool, order)

    def room(self, order: int, migratetype: int, width: int = 0) -> list[list[int]] | None:
        """The areas of a pageblock with room for 2**order pages: the next open one of this type once there are
        ``width`` of them, else a new one, else any; None if there is none."""
        ours = self.opened[migratetype]
        if len(ours) < width and (pool := self.open(order, migratetype)):
            return pool
        if pool := ours.next(order) or self.open(order, migratetype):
            return pool
        return next((pool for pool in self._lent(migratetype) if _smallest(pool, order) >= 0), None)

    def open(self, order: int, migratetype: int) -> list[list[int]] | None:
        """Give this type a pageblock, or what there is of one at the zone's border, with room for 2**order pages."""
        if _smallest(self.whole, order) >= 0:
            source, size = self.whole, max(order, PAGEBLOCK_ORDER)
        elif (size := _smallest(self.rest, order)) >= 0:
            source = self.rest
        else:
            return None
        pool = _pool()
        pool[size].append(_cut(source, size))
        self._claim(pool[size][0], size, migratetype)
        self.opened[migratetype].pools.append(pool)
        return pool

    def lone(self, order: int, migratetype: int) -> int:
        """An area of just this order whose buddy is no free block, such as one at a zone's border; -1 if none is."""
        for pool in (self.rest, *self._lent(migratetype), self.whole):
            for i, area in enumerate(pool[order]):
                if self.zone.buddy.get(area ^ 1 << order, -1) >> 3 != order:
                    self._claim(area, order, migratetype)
                    return pool[order].pop(i)
        return -1

    def _lent(self, migratetype: int) -> list[list[list[int]]]:
        """The open pageblocks of all types; in the HighAtomic reserve's lie its own blocks alone."""
        types = [mt for mt in range(MIGRATE_TYPES) if mt != MIGRATE_HIGHATOMIC or mt == migratetype]
        return [pool for mt in types for pool in (*self.opened[mt].pools, *self.opened[mt].full)]

    def _claim(self, pfn: int, order: int, migratetype: int) -> None:
        for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
            self.zone.pageblock_mt[block] = migratetype


def _smallest(pool: list[list[int]], order: int) -> int:
    """The order of the smallest area with room for 2**order pages, -1 if none has."""
    return next((high for high in range(order, MAX_ORDER) if pool[high]), -1)


def _cut(pool: list[list[int]], order: int) -> int:
    """Take the lowest 2**order pages of the smallest area with room for them."""
    high = _smallest(pool, order)
    area = pool[high].pop()
    for half in range(high - 1, order - 1, -1):
        pool[half].append(area + (1 << half))
    return area


def _width(counts: Sequence[int]) -> int:
    """Over how many pageblocks a type's small blocks are dealt. In the recorded states whose large blocks are not yet
    used up: the number of its most frequent order from 32 pages on, or more, up to 1.7 times; the third that is added
    is what the recorded thresholds agree with best."""
    return max(counts[5:PAGEBLOCK_ORDER]) * 4 // 3


def lay_out(zone: Zone, blocks: Mapping[int, Sequence[int]], *, kept: int = 0) -> Spare:
    """Give each counted block a place: the upper half of an area of which the lower half is in use.

    ``blocks`` maps a migratetype to its number of blocks of each order. ``kept`` pageblocks are the HighAtomic reserve.
    Returns what is left. Errors: DoesNotFit.
    """
    spare = Spare(zone)
    _lay_out_top(zone, {mt: counts[TOP] for mt, counts in blocks.items()}, spare)
    for _ in range(kept):
        spare.open(PAGEBLOCK_ORDER, MIGRATE_HIGHATOMIC)
    widths = {mt: kept if kept and mt == MIGRATE_HIGHATOMIC else _width(counts) for mt, counts in blocks.items()}
    for order in range(TOP - 1, -1, -1):
        for mt, counts in blocks.items():
            for _ in range(counts[order]):
                if pool := spare.room(order + 1, mt, widths[mt]):
                    area = _cut(pool, order + 1)
                    pool[order].append(area)
                    area += 1 << order
                elif (area := spare.lone(order, mt)) < 0:
                    raise DoesNotFit(f"the blocks of order {order} do not fit into it")
                zone.free_area[order][mt][area] = None
                zone.buddy[area] = order << 3 | mt
    return spare


def _lay_out_top(zone: Zone, tops: Mapping[int, int], spare: Spare) -> None:
    """The blocks of the highest order, at the zone's end; what lies below and beside them is spare."""
    first, end = max(zone.start_pfn, 256), zone.end_pfn
    chunks = range(-(-first >> TOP) << TOP, end >> TOP << TOP, 1 << TOP)
    most = sum(tops.values())
    if most > len(chunks):
        raise DoesNotFit(f"{most} blocks of order {TOP} do not fit into it")
    if not chunks:
        spare.add(first, end)
        return
    spare.add(first, chunks[0])
    spare.add(chunks[-1] + (1 << TOP), end)
    rest = len(chunks) - most
    spare.whole[TOP].extend(reversed(chunks[: min(rest, 1 << 16)]))
    if tops.get(MIGRATE_MOVABLE):
        free_boot_range(zone, chunks[-tops[MIGRATE_MOVABLE]], chunks[-1] + (1 << TOP))
    for mt, count in tops.items():
        if mt != MIGRATE_MOVABLE:
            for pfn in chunks[rest : rest + count]:
                spare._claim(pfn, TOP, mt)
                zone.add_to_free_list_tail(pfn, TOP, mt)
            rest += count
