"""Compaction: movable pages are moved up, so that the free ones below grow together.

Kernel: mm/compaction.c, the functions of the same names. Left out: the scanners' remembered positions and skip bits
(every run covers the whole zone, and still ends as "partial_skipped", as nearly every run of the kernel does).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kmemlab import reclaim_events as events
from kmemlab.buddy import __free_one_page
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_MOVABLE,
    PAGE_ALLOC_COSTLY_ORDER,
    PAGEBLOCK_NR_PAGES,
    Zone,
    mod_free_pages,
)
from kmemlab.vmscan import LISTS

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "COMPACT_PRIO_NAMES",
    "CompactState",
    "compact_zone",
    "compaction_ready",
    "compaction_suitable",
    "compaction_withdrawn",
    "compaction_zonelist_suitable",
    "extfrag_index",
    "try_to_compact_pages",
]

COMPACT_PRIO_NAMES = ("COMPACT_PRIO_SYNC_FULL", "COMPACT_PRIO_SYNC_LIGHT", "COMPACT_PRIO_ASYNC")
RESULTS = ("not_suitable_zone", "skipped", "deferred", "no_suitable_page", "continue", "complete", "partial_skipped",
           "contended", "success")  # fmt: skip
EXTFRAG_THRESHOLD = 500
MAX_DEFER_SHIFT = 6
CLUSTER = 32


class CompactState:
    """What a zone remembers of failed runs. Kernel: compact_considered and the like in struct zone."""

    __slots__ = ("considered", "order_failed", "shift")

    def __init__(self) -> None:
        self.considered = self.shift = 0
        self.order_failed = MAX_ORDER

    def deferred(self, order: int) -> bool:
        """Whether this try is to be skipped. Kernel: compaction_deferred."""
        limit = 1 << self.shift
        if order < self.order_failed:
            return False
        self.considered += 1
        if self.considered >= limit:
            self.considered = limit
            return False
        return True

    def defer(self, order: int) -> None:
        """A thorough run failed: skip twice as many tries. Kernel: defer_compaction."""
        self.considered = 0
        self.shift = min(self.shift + 1, MAX_DEFER_SHIFT)
        self.order_failed = min(self.order_failed, order)

    def reset(self, order: int, *, allocated: bool) -> None:
        """It worked. Kernel: compaction_defer_reset."""
        if allocated:
            self.considered = self.shift = 0
        if order >= self.order_failed:
            self.order_failed = order + 1


def compaction_withdrawn(result: str) -> bool:
    """Whether compaction gave up early, so that a more thorough run may do better. Kernel: compaction_withdrawn."""
    return result in ("skipped", "deferred", "contended", "partial_skipped")


def extfrag_index(zone: Zone, order: int) -> int:
    """Why a request would fail: near 0 for want of memory, near 1000 for fragmentation, -1000 if it would not.

    Kernel: __fragmentation_index, mm/vmstat.c.
    """
    blocks = [zone.nr_free(n) for n in range(MAX_ORDER)]
    free, total = sum(count << n for n, count in enumerate(blocks)), sum(blocks)
    if any(blocks[order:]):
        return -1000
    return 1000 - (1000 + free * 1000 // (1 << order)) // total if total else 0


def _gap(order: int) -> int:
    return 2 << order


def compaction_suitable(zone: Zone, order: int, alloc_flags: int, highest: int) -> str:
    """Whether a zone needs compaction ("success": it does not) and has the room for it ("continue").

    Kernel: compaction_suitable.
    """
    protection = zone.lowmem_reserve[highest]
    mark = zone.wmark[alloc_flags & 3] + zone.watermark_boost
    if zone.nr_free_pages - (1 << order) + 1 > mark + protection and zone.has_block(order, alloc_flags):
        return "success"
    base = zone.wmark[1 if order > PAGE_ALLOC_COSTLY_ORDER else 0] + zone.watermark_boost
    if zone.nr_free_pages <= base + _gap(order) + protection:
        return "skipped"
    if order > PAGE_ALLOC_COSTLY_ORDER and 0 <= extfrag_index(zone, order) <= EXTFRAG_THRESHOLD:
        return "skipped"
    return "continue"


def compaction_ready(m: Machine, order: int, highest: int) -> bool:
    """Whether reclaim may stop because compaction can go on. Kernel: compaction_ready, mm/vmscan.c."""
    for zone in m.zonelist:
        if zone.idx > highest:
            continue
        suitable = compaction_suitable(zone, order, 0, highest)
        if suitable == "success":
            return True
        mark = zone.wmark[2] + zone.watermark_boost + _gap(order) + zone.lowmem_reserve[highest]
        if suitable == "continue" and zone.nr_free_pages > mark:
            return True
    return False


def compaction_zonelist_suitable(m: Machine, plan: Any, alloc_flags: int) -> bool:
    """Whether some zone could be compacted if everything reclaimable were free. Kernel: the function of that name."""
    for zone in plan.zones:
        available = m.reclaimable_pages(zone) // plan.nr + zone.nr_free_pages
        base = zone.wmark[1 if plan.order > PAGE_ALLOC_COSTLY_ORDER else 0]
        if available > base + _gap(plan.order) + zone.lowmem_reserve[plan.highest_zoneidx]:
            return True
    return False


def try_to_compact_pages(m: Machine, plan: Any, alloc_flags: int, priority: int) -> str:
    """Compact the zones of a request, the best one first, until a block is there. Kernel: try_to_compact_pages."""
    best = "skipped"
    for zone in plan.zones:
        state = m.compact_state(zone)
        if priority > 0 and state.deferred(plan.order):
            best = max(best, "deferred", key=RESULTS.index)
            m.trail.append((events.MmCompactionEnd, zone.name, "deferred", 0))
            continue
        status = compaction_suitable(zone, plan.order, alloc_flags, plan.highest_zoneidx)
        if status == "continue":
            status, moved = compact_zone(m, zone, plan.order, plan.migratetype, priority)
            m.trail.append((events.MmCompactionEnd, zone.name, status, moved))
        best = max(best, status, key=RESULTS.index)
        if status == "success":
            state.reset(plan.order, allocated=False)
            break
        if priority != 2 and status in ("complete", "partial_skipped"):
            state.defer(plan.order)
    return best


def compact_zone(m: Machine, zone: Zone, order: int, migratetype: int, priority: int) -> tuple[str, int]:
    """Move pages from the zone's start to free places at its end: (result, pages moved). Kernel: compact_zone."""
    movable = sorted(pfn for name in LISTS for pfn in getattr(m.lru, name) if zone.start_pfn <= pfn < zone.end_pfn)
    places = _isolate_freepages(m, zone)
    spare: list[int] = []
    moved, at = 0, 0
    try:
        while at < len(movable):
            block = movable[at] // PAGEBLOCK_NR_PAGES
            batch: list[int] = []
            while at < len(movable) and movable[at] // PAGEBLOCK_NR_PAGES == block and len(batch) < CLUSTER:
                batch.append(movable[at])
                at += 1
            if priority == 2 and zone.pageblock_mt[block] != MIGRATE_MOVABLE:
                continue
            for pfn in batch:
                if not spare:
                    spare = next(places, [])
                if not spare or spare[-1] <= pfn:
                    return "partial_skipped", moved
                _migrate(m, zone, pfn, spare.pop())
                moved += 1
            if _finished(zone, order, migratetype):
                return "success", moved
        return "partial_skipped", moved
    finally:
        for pfn in spare:
            __free_one_page(zone, pfn, 0, zone.pageblock_mt[pfn >> 9])
        m.forget_plans()


def _isolate_freepages(m: Machine, zone: Zone) -> Iterator[list[int]]:
    """Free pages from the zone's end downwards, a pageblock at a time, taken off their lists, highest last."""
    for block in range((zone.end_pfn - 1) // PAGEBLOCK_NR_PAGES, zone.start_pfn // PAGEBLOCK_NR_PAGES - 1, -1):
        if zone.pageblock_mt[block] != MIGRATE_MOVABLE:
            continue
        first = block * PAGEBLOCK_NR_PAGES
        found: list[int] = []
        for pfn in range(first, first + PAGEBLOCK_NR_PAGES):
            entry = zone.buddy.get(pfn)
            if entry is None or entry >> 3 >= MAX_ORDER - 2:
                continue
            found += range(pfn, pfn + (1 << (entry >> 3)))
            zone.del_from_free_list(pfn)
            mod_free_pages(zone, -(1 << (entry >> 3)))
        if found:
            yield found


def _migrate(m: Machine, zone: Zone, old: int, new: int) -> None:
    """A page's contents move; whoever owns it does not notice. Kernel: migrate_pages."""
    lru = m.lru
    dirty = old in lru.dirty
    name = next(each for each in LISTS if old in getattr(lru, each))
    owner = lru.remove(old)
    lru.add(name, new, owner)
    if dirty:
        lru.dirty.add(new)
    owner.pages.remove(old)
    owner.pages.add(new)
    source, target = m.memmap[old], m.memmap[new]
    target.refcount, target.order, target.gfp, target.mt = 1, 0, source.gfp, zone.pageblock_mt[new >> 9]
    source.refcount = 0
    zone.lru.discard(old)
    zone.lru.add(new)
    __free_one_page(zone, old, 0, zone.pageblock_mt[old >> 9])


def _finished(zone: Zone, order: int, migratetype: int) -> bool:
    """Whether a block of the order can be had now: of the type, or movable ones to be stolen."""
    return any(zone.nr_free_of(n, mt) for n in range(order, MAX_ORDER) for mt in {migratetype, MIGRATE_MOVABLE})
