"""Zones known by numbers: every block gets a place a kernel could have had it in, or it is said that none is left."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kmemlab.layout import DoesNotFit, lay_out
from kmemlab.mmzone import MAX_ORDER, MIGRATE_HIGHATOMIC, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Zone

PAGEBLOCKS = 64


def empty_zone() -> Zone:
    """64 pageblocks that begin in the middle of one, as zone DMA does."""
    zone = Zone("DMA32", 1, PAGEBLOCK_NR_PAGES // 2, *[PAGEBLOCKS * PAGEBLOCK_NR_PAGES] * 3)
    zone.spans = [(zone.start_pfn, zone.spanned)]
    zone.pageblock_mt = bytearray([1]) * (PAGEBLOCKS + 1)
    return zone


def placed(zone: Zone) -> dict[int, tuple[int, int]]:
    """First pfn -> (order, migratetype) of every free block."""
    kinds = [(order, mt) for order in range(MAX_ORDER) for mt in range(4)]
    return {pfn: kind for kind in kinds for pfn in zone.free_blocks(*kind)}


def shared_by(zone: Zone, mt: int) -> list[int]:
    """How many small blocks of a type each of its pageblocks holds."""
    small = [pfn for pfn, (order, kind) in placed(zone).items() if kind == mt and order < PAGEBLOCK_ORDER]
    return sorted(Counter(pfn >> PAGEBLOCK_ORDER for pfn in small).values())


SMALL = st.lists(st.integers(0, 9), min_size=PAGEBLOCK_ORDER, max_size=PAGEBLOCK_ORDER)
COUNTS = st.builds(lambda small, nine, ten: [*small, nine, ten], SMALL, st.integers(0, 5), st.integers(0, 5))


def room_for(counts: list[int]) -> int:
    """Pageblocks that are enough for these blocks of one type."""
    return 2 * counts[9] + 2 * counts[10] + max(counts[:PAGEBLOCK_ORDER]) * 4 // 3 + 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(unmovable=COUNTS, movable=COUNTS, reserve=COUNTS, kept=st.integers(0, 5))
def test_any_counts(unmovable: list[int], movable: list[int], reserve: list[int], kept: int) -> None:
    """What is counted is there, inside the zone, nothing twice, no two free buddies; or it does not fit."""
    zone, blocks = empty_zone(), {0: unmovable, 1: movable, MIGRATE_HIGHATOMIC: reserve}
    try:
        lay_out(zone, blocks, kept=kept)
    except DoesNotFit:
        assert kept + sum(room_for(counts) for counts in blocks.values()) > PAGEBLOCKS - 4  # it was full
        return
    found = placed(zone)
    assert Counter(found.values()) == Counter(
        {(order, mt): count for mt, counts in blocks.items() for order, count in enumerate(counts) if count}
    )
    pages = [pfn + i for pfn, (order, _) in found.items() for i in range(1 << order)]
    assert len(pages) == len(set(pages))
    assert all(zone.start_pfn <= pfn < zone.end_pfn for pfn in pages)
    for pfn, (order, _) in found.items():
        assert pfn % (1 << order) == 0
        assert order == MAX_ORDER - 1 or found.get(pfn ^ 1 << order, (-1, 0))[0] != order


@pytest.mark.parametrize(
    ("each", "pageblocks"), [(1, [9]), (2, [9, 9]), (3, [6, 7, 7, 7]), (6, [6, 6, 7, 7, 7, 7, 7, 7])]
)
def test_small_blocks_are_dealt(each: int, pageblocks: list[int]) -> None:
    """So many blocks of each order below a pageblock lie in that many pageblocks, about equally many in each."""
    zone = empty_zone()
    lay_out(zone, {0: [each] * PAGEBLOCK_ORDER + [0, 0]})
    assert shared_by(zone, 0) == pageblocks


def test_types_keep_apart_while_there_is_room() -> None:
    """No pageblock has blocks of two types, and the pageblock says which type it is of."""
    zone = empty_zone()
    lay_out(zone, {mt: [4, 3, 2, 1, 1, 1, 1, 1, 2, 1, 3] for mt in (0, 1, 2)})
    assert {(pfn >> PAGEBLOCK_ORDER, mt) for pfn, (_, mt) in placed(zone).items()} == {
        (pfn >> PAGEBLOCK_ORDER, zone.pageblock_mt[pfn >> PAGEBLOCK_ORDER]) for pfn in placed(zone)
    }


def test_the_reserves_pageblocks_are_its_own() -> None:
    """Nobody else's block lies in a pageblock of the HighAtomic reserve, and its own lie nowhere else: it has as many
    as are kept, also where so many blocks would be dealt over more."""
    zone = empty_zone()
    reserve = [12, 9, 6, 5, 5, 4, 3, 1, 0, 0, 0]
    lay_out(zone, {1: [9] * PAGEBLOCK_ORDER + [2, 20], MIGRATE_HIGHATOMIC: reserve}, kept=2)
    for pfn, (_, mt) in placed(zone).items():
        assert (zone.pageblock_mt[pfn >> PAGEBLOCK_ORDER] == MIGRATE_HIGHATOMIC) == (mt == MIGRATE_HIGHATOMIC)
    assert zone.pageblock_mt.count(MIGRATE_HIGHATOMIC) == 2
