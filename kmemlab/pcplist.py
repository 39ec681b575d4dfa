"""Per-CPU page lists: the shelf between a CPU and the buddy lists.

Kernel: mm/page_alloc.c, the functions of the same names. A list's head is the end of a Python list.
"""

from __future__ import annotations

from collections.abc import Iterator

from kmemlab import events
from kmemlab.buddy import __free_one_page, __rmqueue
from kmemlab.mmzone import (
    NR_PCP_LISTS,
    PAGE_ALLOC_COSTLY_ORDER,
    MemMap,
    Page,
    PerCpuPages,
    Zone,
    pindex_to_order,
)

__all__ = [
    "PCP_BATCH_SCALE_MAX",
    "drain_pages",
    "drained",
    "free_pcppages_bulk",
    "free_unref_page_commit",
    "nr_pcp_free",
    "refilled",
    "rmqueue_bulk",
    "update_limit",
]

PCP_BATCH_SCALE_MAX = 5
LabSplit = events.LabSplit


def update_limit(zone: Zone) -> None:
    """Recompute how many pages the running CPU's lists may hold before they give some back.

    While kswapd works on the zone, four batches at most. Kernel: nr_pcp_high.
    """
    pcp = zone.pcp
    zone.pcp_limit = min(pcp.batch << 2, pcp.high) if zone.reclaim_active else pcp.high


def refilled(zone: Zone, order: int, migratetype: int, batch: int, pages: list[Page]) -> Iterator[events.Event]:
    """The events of a refill: ``pages``, tail first, came from the buddy lists."""
    pfns = tuple(page.pfn for page in reversed(pages))
    for pfn in pfns:
        yield events.MmPageAllocZoneLocked(pfn, order, migratetype, 1)
    yield events.LabRefill(zone.name, order, migratetype, batch, pfns)


def drained(zone: Zone, pcp: PerCpuPages, nr: int, blocks: list[tuple[Page, int]]) -> Iterator[events.Event]:
    """The events of a per-CPU list giving pages back: ``blocks`` as (page, order)."""
    yield events.LabDrain(zone.name, pcp.cpu, nr)
    for page, order in blocks:
        yield events.MmPagePcpuDrain(page.pfn, order, page.mt)


def rmqueue_bulk(
    zone: Zone, order: int, count: int, pages: list[Page], migratetype: int, alloc_flags: int, memmap: MemMap
) -> int:
    """Fill the empty list ``pages`` with up to ``count`` blocks; returns how many came, for the caller to count.

    They lie in the order in which the buddy lists gave them, the first at the head.
    """
    taken = []
    trail = zone.trail
    for _ in range(count):
        pfn = __rmqueue(zone, order, migratetype, alloc_flags)
        if pfn < 0:
            break
        if zone.split_from > order:
            trail.append((LabSplit, zone.name, pfn, zone.split_from, order, migratetype))
        page = memmap.get(pfn)
        if page is None:
            page = memmap[pfn] = Page(pfn, zone, 0)
        page.mt = migratetype
        taken.append(page)
    taken.reverse()
    pages[:] = taken
    return len(taken)


def nr_pcp_free(zone: Zone, pcp: PerCpuPages, high: int, free_high: bool) -> int:
    """How many pages an overflowing list gives back: twice as many each time nobody allocated in between."""
    if free_high:
        return pcp.count
    batch = pcp.batch
    if high < batch:
        return 1
    most = high - batch
    scaled = batch << pcp.free_factor
    if scaled < most and pcp.free_factor < zone.pcp_batch_scale_max:
        pcp.free_factor += 1
    return max(batch, min(scaled, most))


def free_pcppages_bulk(zone: Zone, count: int, pcp: PerCpuPages, pindex: int) -> None:
    """Give ``count`` pages back to the buddy lists: from the tail of list ``pindex``, then of the next ones."""
    count = min(pcp.count, count)
    lists = pcp.lists
    blocks_given: list[tuple[Page, int]] = []
    zone.trail.append((drained, zone, pcp, count, blocks_given))
    while count > 0:
        pages = lists[pindex]
        if pages:
            order = pindex_to_order(pindex)
            blocks = min(len(pages), -(-count >> order))
            count -= blocks << order
            pcp.count -= blocks << order
            oldest = pages[:blocks]
            del pages[:blocks]
            for page in oldest:
                blocks_given.append((page, order))
                __free_one_page(zone, page.pfn, order, page.mt)
        pindex = (pindex + 1) % NR_PCP_LISTS


def free_unref_page_commit(zone: Zone, pcp: PerCpuPages, page: Page, pindex: int, order: int) -> None:
    """A freed block was put at the head of its list: give pages back when the lists hold too many."""
    # After a run of frees without allocations, larger blocks are not kept at all.
    free_high = bool(pcp.free_factor and order and order <= PAGE_ALLOC_COSTLY_ORDER)
    high = 0 if free_high else zone.pcp_limit
    zone.trail.append((events.LabPcpFree, zone.name, pcp.cpu, page.pfn, order, page.mt, pcp.count, high))
    if pcp.count >= high:
        free_pcppages_bulk(zone, nr_pcp_free(zone, pcp, high, free_high), pcp, pindex)


def drain_pages(zone: Zone, pcp: PerCpuPages) -> None:
    """Empty one CPU's lists of a zone, in chunks of 32 batches.

    The CPU that drains counts the pages. Kernel: drain_pages_zone.
    """
    while pcp.count:
        free_pcppages_bulk(zone, min(pcp.count, pcp.batch << PCP_BATCH_SCALE_MAX), pcp, 0)
