"""Zones and their lists: order, counts, the lagging counter, watermark sums."""

from __future__ import annotations

import random

import pytest

from kmemlab.mmzone import (
    ALLOC_HIGHATOMIC,
    ALLOC_MIN_RESERVE,
    ALLOC_NON_BLOCK,
    ALLOC_OOM,
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_MOVABLE,
    MIGRATE_UNMOVABLE,
    MemMap,
    Page,
    PerCpuPages,
    Zone,
    mod_free_pages,
    mult_frac,
    order_to_pindex,
    pindex_to_order,
    reduced_mark,
    unusable_free,
)


@pytest.fixture
def zone() -> Zone:
    each = Zone("DMA32", 1, 4096, 1 << 16, 1 << 16, 1 << 16)
    each.pageblock_mt = bytearray(1 << 8)
    each.pcps = [PerCpuPages(0)]
    each.pcp = each.pcps[0]
    return each


def to_head(zone: Zone, pfn: int, order: int, mt: int) -> None:
    zone.free_area[order][mt][pfn] = None
    zone.buddy[pfn] = order << 3 | mt


def test_a_list_keeps_its_order_whatever_is_done(zone: Zone) -> None:
    """Against a plain list: heads, tails and removal from anywhere, 3,000 times."""
    r, model = random.Random(1), []
    pfns = iter(range(4096, 4096 + 6000, 2))
    for _ in range(3000):
        x = r.random()
        if x < 0.3:
            model.insert(0, next(pfns))
            to_head(zone, model[0], 1, 0)
        elif x < 0.55:
            model.append(next(pfns))
            zone.add_to_free_list_tail(model[-1], 1, 0)
        elif model:
            pfn = model.pop(r.choice((0, -1, r.randrange(len(model)))))
            assert zone.del_from_free_list(pfn) == 1
        assert zone.nr_free_of(1, 0) == zone.nr_free(1) == len(model)
    assert list(zone.free_blocks(1, 0)) == model
    assert len(model) > 50


def test_the_untouched_run_stands_behind_the_list(zone: Zone) -> None:
    """Blocks nobody touched since boot are counted and listed, and come one by one when needed."""
    top = MAX_ORDER - 1
    to_head(zone, 4096, top, MIGRATE_MOVABLE)
    zone.run = range(5120, 5120 + 1024 * 200, 1024)
    assert zone.nr_free(top) == 201
    assert list(zone.free_blocks(top, MIGRATE_MOVABLE)) == [4096, *zone.run]
    expected = list(zone.run)
    zone.del_from_free_list(4096)
    assert list(zone.free_blocks(top, MIGRATE_MOVABLE)) == expected
    zone.add_to_free_list_tail(4096, top, MIGRATE_MOVABLE)
    assert list(zone.free_blocks(top, MIGRATE_MOVABLE)) == [*expected, 4096]


def test_the_block_that_holds_a_frame(zone: Zone) -> None:
    """Found from any frame inside it, None outside all blocks."""
    to_head(zone, 4096, 3, 0)
    assert zone.free_block_at(4096) == zone.free_block_at(4103) == (4096, 3, 0)
    assert zone.free_block_at(4104) is None
    zone.run = range(8192, 8192 + 2048, 1024)
    assert zone.free_block_at(9300) == (9216, 10, MIGRATE_MOVABLE)


def test_has_block_sees_the_lists_a_request_may_use(zone: Zone) -> None:
    """HighAtomic blocks count for those with the right to them only."""
    to_head(zone, 4096, 4, MIGRATE_HIGHATOMIC)
    assert not zone.has_block(2, 0)
    assert not zone.has_block(2, ALLOC_NON_BLOCK)
    assert zone.has_block(2, ALLOC_HIGHATOMIC)
    assert zone.has_block(4, ALLOC_OOM)
    assert not zone.has_block(5, ALLOC_OOM)
    to_head(zone, 8192, 2, MIGRATE_UNMOVABLE)
    assert zone.has_block(2, 0)
    assert not zone.has_block(3, 0)


def test_the_counter_lags_behind_the_lists(zone: Zone) -> None:
    """A CPU's part is added only when it outgrows the threshold, and then all of it: __mod_zone_page_state."""
    zone.stat_threshold, zone.nr_free_pages = 4, 100
    for delta, counter, diff in [(-3, 100, -3), (-1, 100, -4), (-1, 95, 0), (4, 95, 4), (1, 100, 0), (-64, 36, 0)]:
        mod_free_pages(zone, delta)
        assert (zone.nr_free_pages, zone.pcp.vm_stat_diff) == (counter, diff)
        assert zone.free_pages() == counter + diff


def test_pcp_index_of_every_order_and_type() -> None:
    """12 lists for orders 0-3, two for order 9; types without lists share Movable's."""
    assert [order_to_pindex(mt, order) for order in range(4) for mt in range(3)] == list(range(12))
    assert [order_to_pindex(mt, 9) for mt in range(5)] == [12, 13, 12, 12, 12]
    assert order_to_pindex(MIGRATE_HIGHATOMIC, 0) == 1
    assert [pindex_to_order(i) for i in range(14)] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [9, 9]


def test_watermark_sums() -> None:
    """Facts 2.5: of 100, GFP_ATOMIC needs 38, __GFP_HIGH alone 50, an OOM victim 50."""
    assert reduced_mark(100, 0) == reduced_mark(100, ALLOC_NON_BLOCK) == 100
    assert reduced_mark(100, ALLOC_MIN_RESERVE) == reduced_mark(100, ALLOC_OOM) == 50
    assert reduced_mark(100, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK) == 38
    assert reduced_mark(411, ALLOC_MIN_RESERVE | ALLOC_NON_BLOCK) == 155
    assert mult_frac(1000003, 10, 10000) == 1000
    assert mult_frac(615, 15000, 10000) == 922


def test_unusable_pages(zone: Zone) -> None:
    """2**order - 1, and the HighAtomic reserve for requests without any right to reserves."""
    zone.nr_reserved_highatomic = 512
    assert unusable_free(zone, 0, 0) == 512
    assert unusable_free(zone, 3, 0) == 519
    assert unusable_free(zone, 3, ALLOC_NON_BLOCK) == 7


def test_a_frame_is_always_the_same_page(zone: Zone) -> None:
    """mem_map is made lazily, once a frame."""
    made = []
    memmap = MemMap(lambda pfn: made.append(pfn) or Page(pfn, zone, 0))
    assert memmap[7] is memmap[7]
    assert made == [7]
    assert repr(memmap[7]) == "<page pfn 7>"
    assert "DMA32" in repr(zone)
