"""Zones made from numbers: how many blocks of each order are free is told, where they lie is not.

They are laid out so that no two free buddies stand side by side, as the kernel would have merged them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kmemlab.kernels import KernelProfile
from kmemlab.mm_init import free_boot_range
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    MemMap,
    PerCpuPages,
    Zone,
)
from kmemlab.procfs import ZoneText

__all__ = ["DoesNotFit", "lay_out", "zone_of"]

TOP = MAX_ORDER - 1
Spare = list[list[int]]  # for each order the unused aligned areas of that size


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


def lay_out(zone: Zone, blocks: Sequence[Mapping[int, int]], pcps: Sequence[Mapping[str, int]], memmap: MemMap) -> None:
    """Give each free block a place, ``blocks[order][migratetype]`` of them, then each page of the per-CPU lists.

    A block lies in one half of a larger area, its buddy's half is left in use. Errors: DoesNotFit.
    """
    need = sum(sum(by_type.values()) << order for order, by_type in enumerate(blocks))
    if need > zone.managed:
        raise DoesNotFit(f"{need} pages free, but only {zone.managed} managed")
    spare = _unused(zone, blocks[TOP].get(MIGRATE_MOVABLE, 0))
    apart = _set_apart(zone, spare)
    for order in range(TOP, -1, -1):
        for mt, count in blocks[order].items():
            if order == TOP and mt == MIGRATE_MOVABLE:
                continue
            for _ in range(count):
                if not (mt == MIGRATE_HIGHATOMIC and _place(zone, apart, order, mt)) and not _place(
                    zone, spare, order, mt
                ):
                    raise DoesNotFit(f"the blocks of order {order} do not fit into it")
    _fill_pcps(zone, pcps, spare, memmap)


def _unused(zone: Zone, top_blocks: int) -> Spare:
    """The zone cut into aligned areas, less the last ones of the top order, which become its free Movable blocks."""
    first, end = max(zone.start_pfn, 256), zone.end_pfn
    chunks = range(-(-first >> TOP) << TOP, end >> TOP << TOP, 1 << TOP)
    if top_blocks > len(chunks):
        raise DoesNotFit(f"{top_blocks} blocks of order {TOP} do not fit into it")
    rest = len(chunks) - top_blocks
    spare: Spare = [[] for _ in range(MAX_ORDER + 1)]
    if chunks:
        _spare_range(spare, first, chunks[0])
        _spare_range(spare, chunks[-1] + (1 << TOP), end)
        if top_blocks:
            free_boot_range(zone, chunks[rest], chunks[-1] + (1 << TOP))
        spare[TOP].extend(reversed(chunks[: min(rest, 1 << 16)]))
    else:
        _spare_range(spare, first, end)
    return spare


def _set_apart(zone: Zone, spare: Spare) -> Spare:
    """The pageblocks that are kept for high-order atomic requests; others may not lie between them."""
    apart: Spare = [[] for _ in range(MAX_ORDER + 1)]
    for _ in range(zone.nr_reserved_highatomic // PAGEBLOCK_NR_PAGES):
        area = _area(spare, PAGEBLOCK_ORDER)
        if area < 0:
            break
        zone.pageblock_mt[area >> PAGEBLOCK_ORDER] = MIGRATE_HIGHATOMIC
        apart[PAGEBLOCK_ORDER].append(area)
    return apart


def _spare_range(spare: Spare, first: int, end: int) -> None:
    """Cut a range into aligned areas."""
    while first < end:
        order = min(TOP, (first & -first).bit_length() - 1, (end - first).bit_length() - 1)
        spare[order].append(first)
        first += 1 << order


def _place(zone: Zone, spare: Spare, order: int, mt: int) -> bool:
    """List a block in the upper half of an unused area, or where its buddy cannot be free."""
    area = _area(spare, order + 1)
    if area >= 0:
        spare[order].append(area)
        area += 1 << order
    elif (area := _lone_area(zone, spare, order)) < 0:
        return False
    zone.free_area[order][mt][area] = None
    zone.buddy[area] = order << 3 | mt
    return True


def _area(spare: Spare, order: int) -> int:
    """An unused aligned area of 2**order pages, cut from a larger one if need be; -1 if there is none."""
    high = order
    while high < MAX_ORDER and not spare[high]:
        high += 1
    if high >= MAX_ORDER:
        return -1
    area = spare[high].pop()
    while high > order:
        high -= 1
        spare[high].append(area + (1 << high))
    return area


def _lone_area(zone: Zone, spare: Spare, order: int) -> int:
    """An area of just this order that cannot merge: such as one at a zone's border, or of the top order."""
    for i, area in enumerate(spare[order]):
        if order == TOP or zone.buddy.get(area ^ 1 << order, -1) >> 3 != order:
            return spare[order].pop(i)
    return -1


def _fill_pcps(zone: Zone, pcps: Sequence[Mapping[str, int]], spare: Spare, memmap: MemMap) -> None:
    for cpu, numbers in enumerate(pcps or [{}]):
        pcp = PerCpuPages(cpu, numbers.get("high", 0), max(1, numbers.get("batch", 1)))
        for _ in range(min(numbers.get("count", 0), zone.managed)):
            pfn = _area(spare, 1)
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
