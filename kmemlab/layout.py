"""Zones of which only numbers are known: their free blocks get frames, as they could have lain in its kernel.

Used where a real machine tells counts only: /proc, reports of failures, recorded thresholds. Two free buddies never
stand side by side (the kernel would have merged them). Small blocks lie as in recorded states: a pageblock holds
blocks of one type, each at most half as large as the one before, as at the edge between used and free memory.
"""

from __future__ import annotations

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


class Spare:
    """The aligned areas of a zone in which nothing is free: lists of first pfns by order.

    ``whole`` nobody has claimed; ``edges`` by type: what is left below the last block of a pageblock; ``rest``: other
    parts of claimed pageblocks.
    """

    __slots__ = ("edges", "rest", "whole", "zone")

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.whole, self.rest = _pool(), _pool()
        self.edges = [_pool() for _ in range(MIGRATE_TYPES)]

    def add(self, first: int, end: int) -> None:
        """Cut a range into aligned areas that belong to nobody."""
        while first < end:
            order = min(TOP, (first & -first).bit_length() - 1, (end - first).bit_length() - 1)
            (self.whole if order >= PAGEBLOCK_ORDER else self.rest)[order].append(first)
            first += 1 << order

    def take(self, order: int, migratetype: int, *, apart: bool = False) -> int:
        """The first pfn of an area of 2**order pages, -1 if none is left: at an edge of this type (not if ``apart``),
        else in a new pageblock, else wherever there is room."""
        places = [self.whole] if apart else [self.edges[migratetype], self.whole]
        for pool in (*places, self.rest, *self._open_to(migratetype)):
            for high in range(order, MAX_ORDER):
                if pool[high]:
                    area = pool[high].pop()
                    self._claim(area, high if pool is not self.whole else max(order, PAGEBLOCK_ORDER), migratetype)
                    parts = self.edges[migratetype] if migratetype == MIGRATE_HIGHATOMIC else self.rest
                    for half in range(high - 1, order - 1, -1):
                        (self.whole if half >= PAGEBLOCK_ORDER else parts)[half].append(area + (1 << half))
                    return area
        return -1

    def lone(self, order: int, migratetype: int) -> int:
        """An area of just this order whose buddy is no free block, such as one at a zone's border; -1 if none is."""
        for pool in (self.rest, *self._open_to(migratetype), self.whole):
            for i, area in enumerate(pool[order]):
                if self.zone.buddy.get(area ^ 1 << order, -1) >> 3 != order:
                    self._claim(area, order, migratetype)
                    return pool[order].pop(i)
        return -1

    def _open_to(self, migratetype: int) -> list[list[list[int]]]:
        """The edges of all types, the HighAtomic reserve's for its own blocks alone."""
        return [pool for mt, pool in enumerate(self.edges) if mt != MIGRATE_HIGHATOMIC or mt == migratetype]

    def _claim(self, pfn: int, order: int, migratetype: int) -> None:
        for block in range(pfn >> PAGEBLOCK_ORDER, (pfn + (1 << order) - 1 >> PAGEBLOCK_ORDER) + 1):
            self.zone.pageblock_mt[block] = migratetype


def lay_out(zone: Zone, blocks: Mapping[int, Sequence[int]], *, apart: bool = False, kept: int = 0) -> Spare:
    """Give each counted block a place: the upper half of an area of which the lower half is in use.

    ``blocks`` maps a migratetype to its number of blocks of each order. ``apart``: each small block in a pageblock of
    its own while there are any. ``kept`` pageblocks are the HighAtomic reserve. Returns what is left.

    Errors: DoesNotFit.
    """
    spare = Spare(zone)
    _lay_out_top(zone, {mt: counts[TOP] for mt, counts in blocks.items()}, spare)
    for _ in range(kept):
        if (area := spare.take(PAGEBLOCK_ORDER, MIGRATE_HIGHATOMIC, apart=True)) >= 0:
            spare.edges[MIGRATE_HIGHATOMIC][PAGEBLOCK_ORDER].append(area)
    for order in range(TOP - 1, -1, -1):
        for mt, counts in blocks.items():
            for _ in range(counts[order]):
                area = spare.take(order + 1, mt, apart=apart)
                if area >= 0:
                    spare.edges[mt][order].append(area)
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
