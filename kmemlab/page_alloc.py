"""The page allocator's entrance: ``alloc_pages`` down the zonelist, to a page or to NULL.

Kernel: mm/page_alloc.c, the functions of the same names.

A request is decoded once into a ``Plan`` and remembered in ``m.plans``; as long as nobody listens to
events and the first zone's per-CPU list has what is asked, a call is a look-up and a ``pop``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kmemlab import events
from kmemlab.buddy import (
    __rmqueue_smallest,
    reserve_highatomic_pageblock,
    rmqueue_buddy,
)
from kmemlab.context import might_alloc
from kmemlab.gfp import gfp_migratetype, gfp_zone
from kmemlab.mmzone import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_NO_WATERMARKS,
    ALLOC_NOFRAGMENT,
    MAX_ORDER,
    MIGRATE_PCPTYPES,
    WMARK_LOW,
    WMARK_MIN,
    WMARK_NAMES,
    Page,
    Zone,
    mod_free_pages,
    reduced_mark,
    unusable_free,
)
from kmemlab.null import NULL, Null
from kmemlab.pcplist import refilled, rmqueue_bulk
from kmemlab.reclaim_events import LabContext
from kmemlab.wait import Stuck

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "Plan",
    "__alloc_pages",
    "alloc_pages",
    "alloc_pages_bulk",
    "began",
    "get_page_from_freelist",
    "plan_for",
    "rmqueue",
    "zone_watermark_fast",
]


class Plan:
    """A request decoded: which zones in which order, which list, which numbers to beat.

    ``need`` is what the first zone's free counter must exceed on the fast path, in pages; ``pages`` the
    per-CPU list that would serve it there, or ``()`` for an order that has none.
    Kernel: struct alloc_context, mm/internal.h.
    """

    __slots__ = (
        "alloc_flags", "area",
        "exact", "gfp", "highest_zoneidx", "migratetype", "need", "nr", "order", "pages", "pcp", "row",
        "zone", "zones",
    )  # fmt: skip

    def __init__(self, m: Machine, gfp: int, order: int) -> None:
        self.gfp = gfp = int(gfp)
        self.order = order
        self.nr = 1 << order
        self.migratetype = gfp_migratetype(gfp)
        self.highest_zoneidx = gfp_zone(gfp, highmem=m.kernel.highmem)
        self.zones = tuple(zone for zone in m.zonelist if zone.idx <= self.highest_zoneidx)
        self.zone = zone = self.zones[0]
        self.alloc_flags = WMARK_LOW | gfp & ALLOC_KSWAPD
        if zone.name == "Normal" and m.nofragment:
            self.alloc_flags |= ALLOC_NOFRAGMENT
        self.row = m.pindex[order]
        self.pcp = zone.pcp
        self.pages: Any = zone.pcp.lists[self.row[self.migratetype]] if self.row else ()
        mark = zone.wmark[WMARK_LOW] + zone.watermark_boost
        self.area: Any = None
        self.exact = zone.free_area[order][self.migratetype]
        self.need = mark + zone.lowmem_reserve[self.highest_zoneidx] + unusable_free(zone, order, 0)

    def find_area(self) -> bool:
        """Whether a free list of the zone holds a block large enough; remembers one that does."""
        for row in self.zone.free_area[: self.order - 1 if self.order else None : -1]:
            for area in row[:MIGRATE_PCPTYPES]:
                if area:
                    self.area = area
                    return True
        return False


def alloc_pages(m: Machine, gfp: int, order: int = 0) -> Page | Null:
    """A block of ``2**order`` physically contiguous pages, or NULL.

    Kernel: alloc_pages, mm/page_alloc.c. Errors: an order above 10 warns once and gives NULL.
    Left out: cpusets, memory cgroups, several nodes.

    >>> from kmemlab import Machine, GFP_KERNEL
    >>> m = Machine("linux-6.1", memory="64M")
    >>> page = m.alloc_pages(GFP_KERNEL, 3)
    >>> page.pfn % 8
    0
    """
    try:
        plan = m.plans[order][gfp]
    except (KeyError, IndexError, TypeError):
        return __alloc_pages(m, gfp, order)  # a new request, or no such order
    zone = plan.zone
    if zone.nr_free_pages > plan.need:
        pages = plan.pages
        if pages:
            if not order or plan.area or plan.find_area():
                page: Page = pages.pop()
                pcp = plan.pcp
                pcp.count -= plan.nr
                if pcp.free_factor:
                    pcp.free_factor >>= 1
                page.refcount = 1
                page.order = order
                page.gfp = gfp
                m.calls += 1
                m.last_plan = plan
                m.last_page = page
                return page
        elif (got := _from_buddy(m, plan, zone)) is not None:
            return got
    return __alloc_pages(m, gfp, order)


def began(plan: Plan, cpu: int, free: int) -> Iterator[events.Event]:
    """The events with which a request starts that the first zone could serve at once; ``free`` as it was then."""
    zone = plan.zone
    base = zone.wmark[WMARK_LOW] + zone.watermark_boost
    protection = zone.lowmem_reserve[plan.highest_zoneidx]
    yield events.LabRequest(plan.gfp, plan.order, cpu)
    yield events.LabAttempt("low", plan.alloc_flags)
    yield events.LabZone(zone.name, free, plan.need - base - protection, base, base, protection, True, True)


def _from_buddy(m: Machine, plan: Plan, zone: Zone) -> Page | None:
    """A request the first zone can serve from its own type's free lists: directly, or by a refill of the
    empty per-CPU list. None (and nothing changed) when it takes more than that."""
    order, migratetype = plan.order, plan.migratetype
    area = plan.exact
    if len(area) > 1:  # a block of just this order: __rmqueue_smallest, written out
        pfn, _ = area.popitem()
        del zone.buddy[pfn]
        zone.split_from = order
    else:
        pfn = __rmqueue_smallest(zone, order, migratetype)
        if pfn < 0:
            return None
    page = m.memmap.get(pfn)
    if page is None:
        page = m.memmap[pfn] = Page(pfn, zone, 0)
    page.mt = migratetype
    pcp = plan.pcp
    m.free_before = zone.nr_free_pages
    if plan.row:
        blocks = _refill(m, plan, zone, page)
    else:
        blocks = 1
        m.last_plan = plan
        m.last_page = page
    diff = pcp.vm_stat_diff - (blocks << order)  # mod_free_pages, written out
    if -diff > zone.stat_threshold:
        zone.nr_free_pages += diff
        diff = 0
    pcp.vm_stat_diff = diff
    page.refcount = 1
    page.order = order
    page.gfp = plan.gfp
    m.calls += 1
    return page


def _refill(m: Machine, plan: Plan, zone: Zone, page: Page) -> int:
    """Fill the empty per-CPU list behind ``page``, its first block; returns how many blocks came in all."""
    order, migratetype, pcp, trail = plan.order, plan.migratetype, plan.pcp, m.trail
    trail.clear()
    trail.append((began, plan, m._cpu, zone.nr_free_pages))
    trail.append((events.LabPcp, zone.name, pcp.cpu, order, migratetype, False, 0))
    if zone.split_from > order:
        trail.append((events.LabSplit, zone.name, page.pfn, zone.split_from, order, migratetype))
    pcp.free_factor >>= 1
    blocks, batch = 1, pcp.batch
    if batch > 1:
        if order and m.batch_scale:
            batch = max(batch >> order, 2)
        blocks += rmqueue_bulk(zone, order, batch - 1, plan.pages, migratetype, plan.alloc_flags, m.memmap)
        pcp.count += blocks - 1 << order
    trail.append((refilled, zone, order, migratetype, batch, [*plan.pages, page]))
    if zone.boosted:
        zone.boosted = False
        trail.append((events.MmVmscanWakeupKswapd, zone.name, 0, 0))
    m.last_plan = None
    trail.append((events.LabReturn, zone.name, page.pfn, order, migratetype))
    return blocks


def __alloc_pages(m: Machine, gfp: int, order: int) -> Page | Null:
    """The whole way of a request: checks, the first walk over the zones, the slow path, the events."""
    plan = plan_for(m, gfp, order)
    m.calls += 1
    m.last_plan = None
    trail = m.trail
    trail.clear()
    trail.append((events.LabRequest, gfp, order, m.cpu))
    if plan is not None and not m.context.plain:
        allowed = might_alloc(m, gfp)
        trail.append((LabContext, m.context.words, allowed))
        plan = plan_for(m, allowed, order) if allowed != gfp else plan
    page: Page | None = None
    if plan is None:
        if not gfp & 0x2000 and m.warn_once("order"):
            m.warn("mm/page_alloc.c:5634 __alloc_pages+0x2a9/0x330")
        trail.append((events.LabNull, f"order {order} is above the largest block, order {MAX_ORDER - 1}"))
    else:
        page = get_page_from_freelist(m, plan, plan.alloc_flags)
        if page is None:
            try:
                page = m.drive(m.slow_path(plan))
            except Stuck:
                trail.append((events.LabNull, "the request would loop for ever"))
                if m.events.subscribers:
                    m.emit()
                raise
    if page is not None:
        trail.append((events.LabReturn, page.zone.name, page.pfn, order, page.mt))
        clear_new_pages(m, gfp, page.pfn, order)
    if m.kswapd_woken and m.context.may_sleep:
        m.run_kswapd()
    if m.events.subscribers:
        m.emit()
    return NULL if page is None else page


def clear_new_pages(m: Machine, gfp: int, pfn: int, order: int) -> None:
    """Zero a block that is handed out, where mask or boot option say so. Kernel: post_alloc_hook."""
    if m.memory.pages and (m.init_on_alloc or gfp & 0x100):
        m.memory.clear_pages(pfn, 1 << order)


def plan_for(m: Machine, gfp: int, order: int) -> Plan | None:
    """The remembered Plan of a request, None for an order above the largest block.

    Errors: TypeError or ValueError for what C's compiler would have refused.
    """
    if not isinstance(gfp, int) or not 0 <= gfp < 1 << 32:
        raise ValueError(f"alloc_pages: gfp must be a mask such as GFP_KERNEL, not {gfp!r}")
    if not isinstance(order, int) or order < 0:
        raise ValueError(
            f"alloc_pages: order must be a whole number from 0 to {MAX_ORDER - 1}, not {order!r}; "
            "2**order pages are given, get_order(bytes) tells the order for a size"
        )
    if order >= MAX_ORDER:
        return None
    plan = m.plans[order].get(gfp)
    if plan is None:
        plan = Plan(m, gfp, order)
        m.remember(gfp, plan)
    return plan


def zone_watermark_fast(zone: Zone, plan: Plan, alloc_flags: int) -> bool:
    """Whether the zone may serve the request: free pages that count > mark + protection, and a block exists.

    Kernel: zone_watermark_fast and __zone_watermark_ok, mm/page_alloc.c.
    """
    order = plan.order
    free = zone.nr_free_pages
    unusable = unusable_free(zone, order, alloc_flags)
    wmark = alloc_flags & 3
    base = zone.wmark[wmark] + zone.watermark_boost
    protection = zone.lowmem_reserve[plan.highest_zoneidx]
    mark = reduced_mark(base, alloc_flags)
    enough = free - unusable > mark + protection
    if not enough and not order and wmark == WMARK_MIN and plan.gfp & 0x200 and zone.watermark_boost:
        # GFP_ATOMIC alone may look below the boost, which is there to wake kswapd, not to make it fail.
        base = zone.wmark[WMARK_MIN]
        mark = reduced_mark(base, alloc_flags)
        enough = free - unusable > mark + protection
    block = enough and (not order or zone.has_block(order, alloc_flags))
    zone.trail.append((events.LabZone, zone.name, free, unusable, base, mark, protection, enough, block))
    return block


def get_page_from_freelist(m: Machine, plan: Plan, alloc_flags: int) -> Page | None:
    """One walk over the zones, highest first; a second one without NOFRAGMENT when all would have to mix types."""
    trail = m.trail
    while True:
        wmark = "none" if alloc_flags & ALLOC_NO_WATERMARKS else WMARK_NAMES[alloc_flags & 3]
        trail.append((events.LabAttempt, wmark, alloc_flags))
        for zone in plan.zones:
            if zone_watermark_fast(zone, plan, alloc_flags) or alloc_flags & ALLOC_NO_WATERMARKS:
                page = rmqueue(m, zone, plan, alloc_flags)
                if page is not None:
                    page.refcount = 1
                    page.order = plan.order
                    page.gfp = plan.gfp
                    if alloc_flags & ALLOC_HIGHATOMIC and m.highatomic:
                        reserve_highatomic_pageblock(zone, page.pfn)
                    return page
                nofragment = bool(alloc_flags & ALLOC_NOFRAGMENT)
                trail.append((events.LabNoBlock, zone.name, plan.order, plan.migratetype, nofragment))
        if not alloc_flags & ALLOC_NOFRAGMENT:
            return None
        alloc_flags &= ~ALLOC_NOFRAGMENT


def rmqueue(m: Machine, zone: Zone, plan: Plan, alloc_flags: int) -> Page | None:
    """Take a block from a zone that may serve: this CPU's list (refilled if empty), else the buddy lists."""
    order, migratetype, page = plan.order, plan.migratetype, None
    trail = m.trail
    if plan.gfp & 0x8000 and order > 1 and m.warn_once("nofail order"):
        m.warn("mm/page_alloc.c:3891 get_page_from_freelist+0x1c2/0x11b0")
    if plan.row:
        pcp = zone.pcp
        pcp.free_factor >>= 1
        pages = pcp.lists[plan.row[migratetype]]
        trail.append((events.LabPcp, zone.name, pcp.cpu, order, migratetype, bool(pages), len(pages)))
        if not pages:
            batch = pcp.batch
            if batch > 1:
                batch = max(batch >> order, 2) if m.batch_scale else batch
            got = rmqueue_bulk(zone, order, batch, pages, migratetype, alloc_flags, m.memmap)
            pcp.count += got << order
            mod_free_pages(zone, -(got << order))
            trail.append((refilled, zone, order, migratetype, batch, list(pages)))
        if pages:
            page = pages.pop()
            pcp.count -= plan.nr
    if page is None:
        pfn, taken = rmqueue_buddy(zone, order, migratetype, alloc_flags)
        if pfn >= 0:
            page = m.memmap[pfn]
            page.mt = taken
            trail.append((events.MmPageAllocZoneLocked, pfn, order, taken, int(order == 0)))
    if zone.boosted:
        zone.boosted = False
        trail.append((events.MmVmscanWakeupKswapd, zone.name, 0, 0))
    return page


def alloc_pages_bulk(m: Machine, nr_pages: int, gfp: int = 0xCC0) -> list[Page]:
    """Up to ``nr_pages`` single pages at once, straight from this CPU's list of the first zone that has room.

    Kernel: __alloc_pages_bulk, mm/page_alloc.c. Masks with __GFP_ACCOUNT get one page, as there.
    """
    plan = plan_for(m, gfp, 0)
    assert plan is not None
    m.trail.clear()
    m.last_plan = None
    if nr_pages > 1 and not gfp & 0x400000:
        for zone in plan.zones:
            mark = zone.wmark[WMARK_LOW] + zone.watermark_boost + nr_pages
            protection = zone.lowmem_reserve[plan.zone.idx]
            if zone.nr_free_pages - unusable_free(zone, 0, 0) > mark + protection:
                pages = _take_from_pcp(m, zone, plan, nr_pages)
                if pages:
                    for page in pages:
                        clear_new_pages(m, gfp, page.pfn, 0)
                    return pages
                break
    single = __alloc_pages(m, gfp, 0)
    return [single] if isinstance(single, Page) else []


def _take_from_pcp(m: Machine, zone: Zone, plan: Plan, nr_pages: int) -> list[Page]:
    pcp = zone.pcp
    taken: list[Page] = []
    if plan.row is None:
        return taken
    pages = pcp.lists[plan.row[plan.migratetype]]
    while len(taken) < nr_pages:
        if not pages:
            batch = max(pcp.batch, 2) if pcp.batch > 1 else pcp.batch
            got = rmqueue_bulk(zone, 0, batch, pages, plan.migratetype, WMARK_LOW, m.memmap)
            pcp.count += got
            mod_free_pages(zone, -got)
            if not pages:
                break
        page = pages.pop()
        pcp.count -= 1
        page.refcount, page.order, page.gfp = 1, 0, plan.gfp
        taken.append(page)
    m.calls += len(taken)
    return taken
