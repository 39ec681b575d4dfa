"""The buddy lists: split, merge, theft between types, the HighAtomic reserve."""

from __future__ import annotations

import pytest

from kmemlab import __GFP_RECLAIMABLE, GFP_ATOMIC, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine, events
from kmemlab import buddy as buddy_lists
from kmemlab.buddy import (
    FALLBACKS,
    boost_watermark,
    reserve_highatomic_pageblock,
    rmqueue_buddy,
    unreserve_highatomic_pageblock,
)
from kmemlab.mmzone import (
    ALLOC_HIGHATOMIC,
    ALLOC_NOFRAGMENT,
    ALLOC_NON_BLOCK,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    PAGEBLOCK_NR_PAGES,
)

smallest = getattr(buddy_lists, "__rmqueue_smallest")
free_one = getattr(buddy_lists, "__free_one_page")
fallback = getattr(buddy_lists, "__rmqueue_fallback")


@pytest.fixture
def m() -> Machine:
    """One CPU, no counter lag: a zone's numbers are those of its lists at once."""
    return Machine("linux-6.1", memory="64M", without={"counter_lag"})


@pytest.fixture
def zone(m: Machine):
    return m.zones[1]


def only(zone, pfn: int, order: int, mt: int) -> None:
    """Leave a single block on the zone's lists."""
    for row in (*zone.free_area, *zone.free_tail):
        for area in row:
            area.clear()
    zone.buddy.clear()
    zone.run = range(0)
    zone.free_area[order][mt][pfn] = None
    zone.buddy[pfn] = order << 3 | mt
    zone.pageblock_mt[pfn >> 9] = mt
    zone.nr_free_pages = 1 << order


def test_a_split_keeps_the_lowest_pages(zone) -> None:
    """The upper halves go to the heads of their lists; the caller gets the block's first pages."""
    only(zone, 8192, 5, 0)
    assert smallest(zone, 2, 0) == 8192
    assert {order: list(zone.free_blocks(order, 0)) for order in range(6)} == {
        0: [], 1: [], 2: [8196], 3: [8200], 4: [8208], 5: [],
    }  # fmt: skip
    assert zone.split_from == 5
    assert smallest(zone, 2, 0) == 8196
    assert smallest(zone, 6, 0) == -1
    assert smallest(zone, 2, 1) == -1


def test_frees_merge_back(zone) -> None:
    """Any order of frees ends in the block that was there."""
    only(zone, 8192, 5, 0)
    pfns = [smallest(zone, 0, 0) for _ in range(32)]
    assert sorted(pfns) == list(range(8192, 8224))
    for pfn in [*pfns[::2], *reversed(pfns[1::2])]:
        free_one(zone, pfn, 0, 0)
    assert list(zone.buddy) == [8192]
    assert list(zone.free_blocks(5, 0)) == [8192]


def test_a_likely_merge_goes_to_the_tail(zone) -> None:
    """A block whose buddy's merge would go on is handed out last; others come back first."""
    only(zone, 8192, 2, 0)
    smallest(zone, 2, 0)
    for pfn, order in [(8448, 0), (8194, 1), (8192, 0)]:
        free_one(zone, pfn, order, 0)
    assert list(zone.free_blocks(0, 0)) == [8448, 8192]  # 8193's free would merge on with 8194: the tail
    free_one(zone, 8320, 0, 0)
    assert list(zone.free_blocks(0, 0)) == [8320, 8448, 8192]
    zone.merge_likely_below = 0
    smallest(zone, 0, 0)


def test_whole_pageblocks_merge_across_types_but_not_with_highatomic(zone) -> None:
    """Order 9 and up look at the pageblocks' types."""
    for other, order in [(MIGRATE_UNMOVABLE, 10), (MIGRATE_RECLAIMABLE, 10), (MIGRATE_HIGHATOMIC, 9)]:
        only(zone, 8192, 9, MIGRATE_MOVABLE)
        zone.pageblock_mt[8704 >> 9] = other
        free_one(zone, 8704, 9, other)
        assert {entry >> 3 for entry in zone.buddy.values()} == {order}


def test_who_takes_from_whom() -> None:
    """The victims' order; HighAtomic is nobody's victim."""
    assert FALLBACKS[MIGRATE_UNMOVABLE] == (MIGRATE_RECLAIMABLE, MIGRATE_MOVABLE)
    assert FALLBACKS[MIGRATE_MOVABLE] == (MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE)
    assert FALLBACKS[MIGRATE_RECLAIMABLE] == (MIGRATE_UNMOVABLE, MIGRATE_MOVABLE)


def test_the_largest_block_is_raided(zone) -> None:
    """An unmovable request takes the largest block, and with it the whole pageblock."""
    only(zone, 8192, 9, MIGRATE_MOVABLE)
    assert fallback(zone, 0, MIGRATE_UNMOVABLE, 0)
    assert list(zone.free_blocks(9, MIGRATE_UNMOVABLE)) == [8192]
    assert zone.pageblock_mt[8192 >> 9] == MIGRATE_UNMOVABLE
    assert zone.watermark_boost == 0


def test_half_a_pageblock_changes_its_type_less_does_not(zone) -> None:
    """Free pages and pages of a like kind are counted: from half of the pageblock on it changes hands."""
    for order, moved in [(8, MIGRATE_RECLAIMABLE), (7, MIGRATE_UNMOVABLE)]:
        only(zone, 8192, order, MIGRATE_UNMOVABLE)
        zone.watermark_boost = 0
        assert fallback(zone, 0, MIGRATE_RECLAIMABLE, 0)
        assert list(zone.free_blocks(order, MIGRATE_RECLAIMABLE)) == [8192]
        assert zone.pageblock_mt[8192 >> 9] == moved
        assert zone.watermark_boost == PAGEBLOCK_NR_PAGES


def test_movable_pages_in_use_count_against_an_unmovable_thief(zone) -> None:
    """A pageblock full of movable pages is not taken over by kernel pages; one of kernel pages is."""
    for lru, after in [(range(8320, 8704), MIGRATE_MOVABLE), (range(0), MIGRATE_UNMOVABLE)]:
        only(zone, 8192, 7, MIGRATE_MOVABLE)
        zone.lru = set(lru)
        assert fallback(zone, 0, MIGRATE_UNMOVABLE, 0)
        assert zone.pageblock_mt[8192 >> 9] == after


def test_a_small_movable_theft_takes_one_block(zone) -> None:
    """Below order 4 a movable request takes the smallest block that will do, and only that."""
    only(zone, 8192, 3, MIGRATE_UNMOVABLE)
    zone.free_area[1][MIGRATE_UNMOVABLE][8208] = None
    zone.buddy[8208] = 1 << 3
    assert fallback(zone, 0, MIGRATE_MOVABLE, 0)
    assert list(zone.free_blocks(1, MIGRATE_MOVABLE)) == [8208]
    assert list(zone.free_blocks(3, MIGRATE_UNMOVABLE)) == [8192]


def test_nofragment_takes_whole_pageblocks_only(zone) -> None:
    """ALLOC_NOFRAGMENT: nothing below order 9 is stolen."""
    only(zone, 8192, 8, MIGRATE_MOVABLE)
    assert not fallback(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NOFRAGMENT)
    only(zone, 8192, 9, MIGRATE_MOVABLE)
    assert fallback(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NOFRAGMENT)


def test_boost_grows_by_pageblocks_to_a_limit(zone) -> None:
    """512 a theft, at most 150 % of the high watermark, at least a pageblock; never in a tiny zone."""
    zone.wmark, seen = [411, 513, 615], []
    for _ in range(3):
        assert boost_watermark(zone)
        seen.append(zone.watermark_boost)
    assert seen == [512, 922, 922]
    zone.managed = 2047
    assert not boost_watermark(zone)
    zone.managed, zone.watermark_boost_factor = 48848, 0
    assert not boost_watermark(zone)


def test_the_highatomic_reserve(m: Machine, zone) -> None:
    """One pageblock a success, up to 1 % and one; only those with the right find its pages."""
    only(zone, 8192, 9, MIGRATE_UNMOVABLE)
    reserve_highatomic_pageblock(zone, 8200)
    assert zone.nr_reserved_highatomic == 512
    assert zone.pageblock_mt[8192 >> 9] == MIGRATE_HIGHATOMIC
    assert rmqueue_buddy(zone, 0, MIGRATE_UNMOVABLE, 0) == (-1, -1)
    assert rmqueue_buddy(zone, 0, MIGRATE_UNMOVABLE, ALLOC_NON_BLOCK) == (8192, MIGRATE_HIGHATOMIC)
    assert rmqueue_buddy(zone, 1, MIGRATE_UNMOVABLE, ALLOC_HIGHATOMIC) == (8194, MIGRATE_HIGHATOMIC)
    assert not unreserve_highatomic_pageblock([zone], MIGRATE_MOVABLE, False)  # a zone keeps its last one
    assert unreserve_highatomic_pageblock([zone], MIGRATE_MOVABLE, True)
    assert zone.nr_reserved_highatomic == 0
    assert not zone.nr_free_of(3, MIGRATE_HIGHATOMIC)
    assert zone.nr_free_of(3, MIGRATE_MOVABLE) == 1
    zone.nr_reserved_highatomic = zone.max_reserved_highatomic
    reserve_highatomic_pageblock(zone, 8200)
    assert zone.pageblock_mt[8192 >> 9] == MIGRATE_MOVABLE


def test_atomic_blocks_reserve_through_the_front_door() -> None:
    """GFP_ATOMIC of order 3 below the low mark sets a pageblock aside; the event says which."""
    m = Machine("linux-6.1", memory="256M", without={"boost"})
    trace = m.trace()
    while m.alloc_pages(GFP_ATOMIC, 3):
        pass
    reserved = [event for event in trace if isinstance(event, events.LabHighatomic)]
    assert reserved
    assert sum(zone.nr_reserved_highatomic for zone in m.zones) == 512 * len(reserved)
    assert m.check()


def test_types_stay_apart_while_there_is_room() -> None:
    """Three kinds of pages never share a pageblock while whole pageblocks are free."""
    m = Machine("linux-6.1", memory="64M")
    kinds: dict[int, set[int]] = {}
    for i in range(300):
        gfp = (GFP_KERNEL, GFP_HIGHUSER_MOVABLE, GFP_KERNEL | __GFP_RECLAIMABLE)[i % 3]
        kinds.setdefault(m.alloc_pages(gfp, 0).pfn >> 9, set()).add(i % 3)
    assert all(len(each) == 1 for each in kinds.values())
