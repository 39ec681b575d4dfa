"""The buddy lists of a zone: split, merge, fall back to another migratetype, the HighAtomic reserve.

Kernel: mm/page_alloc.c, the functions of the same names. Blocks are named by their first pfn.
Each function leaves one compact note of what it did in ``zone.trail`` (see events.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kmemlab import events
from kmemlab.mmzone import (
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_PCPTYPES,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    Zone,
    mod_free_pages,
    mult_frac,
)

__all__ = [
    "FALLBACKS",
    "__free_one_page",
    "__rmqueue",
    "__rmqueue_fallback",
    "__rmqueue_smallest",
    "boost_watermark",
    "freed",
    "move_freepages_block",
    "reserve_highatomic_pageblock",
    "rmqueue_buddy",
    "steal_suitable_fallback",
    "unreserve_highatomic_pageblock",
]

TOP = MAX_ORDER - 1

# Whose blocks a type takes when its own lists are empty, first choice first.
FALLBACKS = {
    MIGRATE_UNMOVABLE: (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE),
    MIGRATE_MOVABLE: (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE),
    MIGRATE_RECLAIMABLE: (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE),
}


def _move_to_free_list(zone: Zone, pfn: int, migratetype: int) -> int:
    """Move a listed block to the tail of another type's list; returns its order. Kernel: move_to_free_list."""
    order = zone.del_from_free_list(pfn)
    zone.add_to_free_list_tail(pfn, order, migratetype)
    return order


def freed(zone: Zone, pfn: int, order: int) -> Iterator[events.Event]:
    """The events of a block that just went to the buddy lists: its merges, and where it ended."""
    block = zone.free_block_at(pfn)
    if block is None:
        return
    start, high, migratetype = block
    for k in range(order, high):
        yield events.LabMerge(zone.name, pfn >> k + 1 << k + 1, pfn >> k << k ^ 1 << k, k + 1)
    tail = start in zone.free_tail[high][migratetype]
    yield events.LabFreeBlock(zone.name, start, high, migratetype, tail)


def __free_one_page(zone: Zone, pfn: int, order: int, migratetype: int) -> None:
    """Give a block back to the buddy lists: merge while the buddy is free, then list what came of it.

    The result goes to the tail when the next merge is likely soon, so that it is handed out last.
    """
    pcp = zone.pcp  # mod_free_pages, written out
    diff = pcp.vm_stat_diff + (1 << order)
    if diff > zone.stat_threshold:
        zone.nr_free_pages += diff
        diff = 0
    pcp.vm_stat_diff = diff
    buddy, areas = zone.buddy, zone.free_area
    buddy_pfn = pfn
    while order < TOP:
        buddy_pfn = pfn ^ 1 << order
        entry = buddy.get(buddy_pfn)
        if entry is None or entry >> 3 != order:
            break
        if order >= PAGEBLOCK_ORDER:
            # Whole pageblocks merge across types, but never with a HighAtomic or isolated one.
            buddy_mt = zone.pageblock_mt[buddy_pfn >> PAGEBLOCK_ORDER]
            if migratetype != buddy_mt and (migratetype >= MIGRATE_PCPTYPES or buddy_mt >= MIGRATE_PCPTYPES):
                break
        del buddy[buddy_pfn]  # del_from_free_list, written out
        area = areas[order][entry & 7]
        if area.pop(buddy_pfn, 0) == 0:
            del zone.free_tail[order][entry & 7][buddy_pfn]
        elif not area and (zone.free_tail[order][entry & 7] or zone.run):
            zone.turn(order, entry & 7)
        pfn &= buddy_pfn
        order += 1
    buddy[pfn] = order << 3 | migratetype
    area = areas[order][migratetype]
    if area and order < zone.merge_likely_below:
        above = buddy.get((pfn & buddy_pfn) ^ 2 << order)
        if above is not None and above >> 3 == order + 1:
            zone.free_tail[order][migratetype][pfn] = None
            return
    area[pfn] = None


def __rmqueue_smallest(zone: Zone, order: int, migratetype: int) -> int:
    """Take the head of the first non-empty list of this type, split down to ``order``; -1 if there is none.

    The upper halves go to the heads of their lists (expand), the lowest pages to the caller;
    ``zone.split_from`` is left as the order of the block that was taken.
    """
    areas = zone.free_area
    for high in range(order, MAX_ORDER):
        area = areas[high][migratetype]
        if area:
            pfn, _ = area.popitem()
            buddy = zone.buddy
            del buddy[pfn]
            if not area and (zone.free_tail[high][migratetype] or zone.run):
                zone.turn(high, migratetype)
            zone.split_from = high
            while high > order:
                high -= 1
                half = pfn + (1 << high)
                areas[high][migratetype][half] = None
                buddy[half] = high << 3 | migratetype
            return pfn
    return -1


def _find_suitable_fallback(zone: Zone, order: int, migratetype: int) -> int:
    """The type whose list of this order would be raided, or -1. Kernel: find_suitable_fallback."""
    area = zone.free_area[order]
    for victim in FALLBACKS.get(migratetype, ()):
        if area[victim]:
            return victim
    return -1


def _can_steal_fallback(order: int, start_type: int) -> bool:
    """Whether the whole pageblock may be raided, not just one block. Kernel: can_steal_fallback."""
    return order >= PAGEBLOCK_ORDER // 2 or start_type != MIGRATE_MOVABLE


def __rmqueue_fallback(zone: Zone, order: int, start_type: int, alloc_flags: int) -> bool:
    """Move free memory of another type to ``start_type``'s lists; False if there is none to move.

    The largest block is raided, as its pageblock has most to give; a movable request that may not
    take the whole pageblock takes the smallest instead.
    """
    min_order = order
    if order < PAGEBLOCK_ORDER and alloc_flags & ALLOC_NOFRAGMENT:
        min_order = PAGEBLOCK_ORDER
    for current in range(TOP, min_order - 1, -1):
        victim = _find_suitable_fallback(zone, current, start_type)
        if victim < 0:
            continue
        can_steal = _can_steal_fallback(current, start_type)
        if not can_steal and start_type == MIGRATE_MOVABLE and current > order:
            current = order
            while (victim := _find_suitable_fallback(zone, current, start_type)) < 0:
                current += 1
            can_steal = _can_steal_fallback(current, start_type)
        pfn = next(reversed(zone.free_area[current][victim]))
        steal_suitable_fallback(zone, pfn, alloc_flags, start_type, can_steal and zone.whole_block)
        changed = zone.pageblock_mt[pfn >> PAGEBLOCK_ORDER] == start_type
        zone.trail.append((
            events.MmPageAllocExtfrag, pfn, order, current, PAGEBLOCK_ORDER, start_type, victim,
            int(current < PAGEBLOCK_ORDER), int(changed),
        ))  # fmt: skip
        return True
    return False


def boost_watermark(zone: Zone) -> bool:
    """Raise the zone's watermarks by a pageblock, so that kswapd frees memory before types mix further."""
    if not zone.watermark_boost_factor or zone.managed < PAGEBLOCK_NR_PAGES * 4:
        return False
    max_boost = mult_frac(zone.wmark[2], zone.watermark_boost_factor, 10000)
    if not max_boost:
        return False
    max_boost = max(PAGEBLOCK_NR_PAGES, max_boost)
    zone.watermark_boost = min(zone.watermark_boost + PAGEBLOCK_NR_PAGES, max_boost)
    zone.marks_changed()
    zone.trail.append((events.LabBoost, zone.name, zone.watermark_boost))
    return True


def steal_suitable_fallback(zone: Zone, pfn: int, alloc_flags: int, start_type: int, whole_block: bool) -> None:
    """Take the free block at ``pfn`` for ``start_type``, with all free pages of its pageblock if allowed.

    The pageblock changes its type when at least half of it is then free or of a compatible kind.
    """
    order = zone.buddy[pfn] >> 3
    block = pfn >> PAGEBLOCK_ORDER
    old_type = zone.pageblock_mt[block]
    if old_type == MIGRATE_HIGHATOMIC:
        _move_to_free_list(zone, pfn, start_type)
        return
    if order >= PAGEBLOCK_ORDER:
        for i in range(1 << order - PAGEBLOCK_ORDER):
            zone.pageblock_mt[block + i] = start_type
        _move_to_free_list(zone, pfn, start_type)
        return
    if boost_watermark(zone) and alloc_flags & ALLOC_KSWAPD:
        zone.boosted = True
    free = movable = 0
    if whole_block:
        free, movable = move_freepages_block(zone, pfn, start_type)
    if not free:
        _move_to_free_list(zone, pfn, start_type)
        return
    if start_type == MIGRATE_MOVABLE:
        alike = movable
    elif old_type == MIGRATE_MOVABLE:
        alike = PAGEBLOCK_NR_PAGES - (free + movable)
    else:
        alike = 0
    if free + alike >= PAGEBLOCK_NR_PAGES // 2:
        zone.pageblock_mt[block] = start_type


def move_freepages_block(zone: Zone, pfn: int, migratetype: int) -> tuple[int, int]:
    """Move every free block of ``pfn``'s pageblock to another type's lists.

    Returns (free pages moved, allocated pages that could be migrated); (0, 0) when the pageblock
    reaches over the zone's end.
    """
    start = pfn >> PAGEBLOCK_ORDER << PAGEBLOCK_ORDER
    end = start + PAGEBLOCK_NR_PAGES
    if not zone.spans_pfn(start):
        start = pfn
    if not zone.spans_pfn(end - 1):
        return 0, 0
    moved = movable = 0
    while start < end:
        if start in zone.buddy:
            pages = 1 << _move_to_free_list(zone, start, migratetype)
            moved += pages
            start += pages
        else:
            movable += start in zone.lru
            start += 1
    return moved, movable


def __rmqueue(zone: Zone, order: int, migratetype: int, alloc_flags: int) -> int:
    """Take a block of this type, raiding another type's lists when its own are empty; -1 if none is left."""
    pfn = __rmqueue_smallest(zone, order, migratetype)
    if pfn < 0 and __rmqueue_fallback(zone, order, migratetype, alloc_flags):
        pfn = __rmqueue_smallest(zone, order, migratetype)
    return pfn


def rmqueue_buddy(zone: Zone, order: int, migratetype: int, alloc_flags: int) -> tuple[int, int]:
    """Take a block straight from the buddy lists: (pfn, list it came from), or (-1, -1).

    High-order atomic requests look into the HighAtomic reserve first, other requests that may
    not block look there last.
    """
    pfn, taken = -1, MIGRATE_HIGHATOMIC
    if alloc_flags & ALLOC_HIGHATOMIC:
        pfn = __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC)
    if pfn < 0:
        pfn, taken = __rmqueue(zone, order, migratetype, alloc_flags), migratetype
        if pfn < 0 and alloc_flags & (ALLOC_OOM | ALLOC_NON_BLOCK):
            pfn, taken = __rmqueue_smallest(zone, order, MIGRATE_HIGHATOMIC), MIGRATE_HIGHATOMIC
        if pfn < 0:
            return -1, -1
    if zone.split_from > order:
        zone.trail.append((events.LabSplit, zone.name, pfn, zone.split_from, order, taken))
    mod_free_pages(zone, -(1 << order))
    return pfn, taken


def reserve_highatomic_pageblock(zone: Zone, pfn: int) -> None:
    """Set ``pfn``'s pageblock aside for high-order atomic requests, up to 1 % of the zone and one block."""
    if zone.nr_reserved_highatomic >= zone.max_reserved_highatomic:
        return
    block = pfn >> PAGEBLOCK_ORDER
    if zone.pageblock_mt[block] < MIGRATE_PCPTYPES:
        zone.nr_reserved_highatomic += PAGEBLOCK_NR_PAGES
        zone.pageblock_mt[block] = MIGRATE_HIGHATOMIC
        move_freepages_block(zone, pfn, MIGRATE_HIGHATOMIC)
        zone.marks_changed()
        zone.trail.append((events.LabHighatomic, zone.name, block << PAGEBLOCK_ORDER, True))


def unreserve_highatomic_pageblock(zones: Iterable[Zone], migratetype: int, force: bool) -> bool:
    """Give one HighAtomic pageblock back as ``migratetype``; a zone keeps its last one unless ``force``."""
    for zone in zones:
        if not force and zone.nr_reserved_highatomic <= PAGEBLOCK_NR_PAGES:
            continue
        for order in range(MAX_ORDER):
            area = zone.free_area[order][MIGRATE_HIGHATOMIC]
            if not area:
                continue
            pfn = next(reversed(area))
            block = pfn >> PAGEBLOCK_ORDER
            if zone.pageblock_mt[block] == MIGRATE_HIGHATOMIC:
                zone.nr_reserved_highatomic -= min(PAGEBLOCK_NR_PAGES, zone.nr_reserved_highatomic)
            zone.pageblock_mt[block] = migratetype
            moved, _ = move_freepages_block(zone, pfn, migratetype)
            zone.marks_changed()
            zone.trail.append((events.LabHighatomic, zone.name, block << PAGEBLOCK_ORDER, False))
            if moved:
                return True
    return False
