"""alloc_pages: the zonelist walk, the watermark tests, the slow path, wrong arguments."""

from __future__ import annotations

import pytest

from kmemlab import (
    __GFP_HIGH,
    __GFP_MEMALLOC,
    __GFP_NOFAIL,
    __GFP_NOMEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RETRY_MAYFAIL,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_DMA32,
    GFP_KERNEL,
    GFP_NOWAIT,
    NULL,
    Machine,
    events,
)
from kmemlab.mmzone import ALLOC_HIGHATOMIC, ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK
from kmemlab.page_alloc import Plan, zone_watermark_fast
from kmemlab.page_slowpath import gfp_to_alloc_flags


def exhaust(m: Machine, gfp: int, order: int = 0) -> int:
    count = 0
    while m.alloc_pages(gfp, order):
        count += 1
    return count


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


@pytest.mark.parametrize("order", range(11))
def test_a_block_is_aligned_and_nobody_elses(m: Machine, order: int) -> None:
    """2**order pages at a multiple of 2**order, with one reference."""
    page = m.alloc_pages(GFP_KERNEL, order)
    assert page.pfn % (1 << order) == 0
    assert (page.refcount, page.order, page.gfp) == (1, order, GFP_KERNEL)
    other = m.alloc_pages(GFP_KERNEL, order)
    assert abs(other.pfn - page.pfn) >= 1 << order
    assert m.check()


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize(
    "args",
    [
        (GFP_KERNEL, -1), (GFP_KERNEL, "x"), (None, 0), (GFP_KERNEL, 1.5), ("GFP_KERNEL", 0), (-1, 0), (1 << 40, 0),
        (GFP_KERNEL, None), (GFP_KERNEL, [0]), ([], 0),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_arguments_are_named(m: Machine, listen: bool, args) -> None:
    """What C's compiler would refuse, or a size where an order belongs: one line, at once, nothing changed."""
    if listen:
        m.trace()
    m.alloc_pages(GFP_KERNEL, 0)
    with pytest.raises((TypeError, ValueError)) as caught:
        m.alloc_pages(*args)
    assert "\n" not in str(caught.value)
    assert "alloc_pages" in str(caught.value)
    assert m.check()
    assert m.alloc_pages(GFP_KERNEL, 0)


@pytest.mark.parametrize("order", [11, 12, 21, 22, 31, 64, 4096])
def test_an_order_that_does_not_exist_is_null(m: Machine, order: int) -> None:
    """As in the kernel: one WARNING for all of them, NULL for each, a size where an order belongs included."""
    for _ in range(2):
        assert m.alloc_pages(GFP_KERNEL, order) is NULL
    assert m.alloc_pages(GFP_KERNEL, 40) is NULL
    assert m.dmesg().count("WARNING") == 1
    assert "alloc_pages(GFP_KERNEL, 40) = NULL" in str(m.explain())
    assert m.check()


def test_out_of_memory_is_a_value(m: Machine) -> None:
    """NULL is falsy, prints as NULL, says what it is when used as memory; a bare request ends in it."""
    exhaust(m, GFP_NOWAIT | __GFP_NOWARN)
    page = m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0)
    assert page is NULL
    assert not page
    assert repr(page) == "NULL"
    with pytest.raises(AttributeError, match=r"NULL has no \.pfn: the request failed"):
        _ = page.pfn
    assert m.check()


def test_depth_by_flag() -> None:
    """Facts 2.5: NOWAIT stops at min, HIGH and ATOMIC at 3/8, ATOMIC|NOMEMALLOC at 1/2, MEMALLOC at the end."""
    left = {}
    for name, gfp in {
        "nowait": GFP_NOWAIT, "high": __GFP_HIGH, "atomic": GFP_ATOMIC, "half": GFP_ATOMIC | __GFP_NOMEMALLOC,
        "memalloc": GFP_ATOMIC | __GFP_MEMALLOC,
    }.items():  # fmt: skip
        m = Machine("linux-6.1", memory="256M", without={"boost", "pcp", "counter_lag"})
        exhaust(m, gfp | __GFP_NOWARN)
        left[name] = m.zones[1].nr_free_pages
        low = m.zones[1].wmark[0]
    assert left["nowait"] == low
    assert left["high"] == left["atomic"] == low - low // 2 - (low - low // 2) // 4
    assert left["half"] == low - low // 2
    assert left["memalloc"] == 0


def test_zones_are_asked_from_the_highest_down() -> None:
    """Normal, DMA32, DMA; a DMA request sees only DMA."""
    m = Machine("linux-6.1", memory="5G")
    assert [z.name for z in Plan(m, GFP_KERNEL, 0).zones] == ["Normal", "DMA32", "DMA"]
    assert [z.name for z in Plan(m, GFP_KERNEL | GFP_DMA32, 0).zones] == ["DMA32", "DMA"]
    assert [z.name for z in Plan(m, GFP_KERNEL | GFP_DMA, 0).zones] == ["DMA"]
    assert m.alloc_pages(GFP_KERNEL | GFP_DMA, 0).zone.name == "DMA"


def test_protection_keeps_low_memory() -> None:
    """Requests that could have used a higher zone leave lowmem_reserve pages in the lower one."""
    m = Machine("linux-6.1", memory="64M", without={"boost"})
    exhaust(m, GFP_NOWAIT | __GFP_NOWARN)
    dma = m.zones[0]
    assert dma.nr_free_pages <= dma.wmark[0] + dma.watermark_boost + dma.lowmem_reserve[2]
    assert dma.nr_free_pages > dma.wmark[0] + dma.watermark_boost
    assert m.alloc_pages(GFP_NOWAIT | GFP_DMA | __GFP_NOWARN, 0)


def test_nofragment_prefers_a_lower_zone() -> None:
    """A kernel page rather comes from DMA32's own kind than from a part of a movable pageblock in Normal."""
    zones = {}
    for without in ((), ("nofragment",)):
        m = Machine("linux-6.1", memory="5G", without=without)
        assert m.alloc_pages(GFP_KERNEL | GFP_DMA32, 0)  # now DMA32 has unmovable pages
        normal = m.zones[2]
        normal.run = range(0)
        for row in (*normal.free_area, *normal.free_tail):
            for area in row:
                area.clear()
        normal.buddy = dict.fromkeys(range(1 << 20, (1 << 20) + (1 << 17), 512), 8 << 3 | 1)
        normal.free_area[8][1].update(dict.fromkeys(normal.buddy))
        zones[without] = m.alloc_pages(GFP_KERNEL, 4).zone.name
    assert zones == {(): "DMA32", ("nofragment",): "Normal"}


@pytest.mark.parametrize(
    ("gfp", "order", "flags"),
    [
        (GFP_NOWAIT, 0, ALLOC_NON_BLOCK), (GFP_ATOMIC, 0, ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE), (GFP_KERNEL, 0, 0),
        (GFP_ATOMIC, 2, ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC),
        (GFP_ATOMIC | __GFP_NOMEMALLOC, 2, ALLOC_MIN_RESERVE), (GFP_KERNEL | __GFP_HIGH, 2, ALLOC_MIN_RESERVE),
    ],
)  # fmt: skip
def test_rights_of_a_mask(gfp: int, order: int, flags: int) -> None:
    """Facts 1.5: what the slow path lets a mask do."""
    rights = ALLOC_NON_BLOCK | ALLOC_MIN_RESERVE | ALLOC_HIGHATOMIC
    assert gfp_to_alloc_flags(gfp, order) & rights == flags


def test_equal_is_not_above(m: Machine) -> None:
    """The test is strict: free == mark + protection fails."""
    plan, zone = Plan(m, GFP_KERNEL, 0), m.zones[1]
    zone.nr_free_pages = zone.wmark[0]
    assert not zone_watermark_fast(zone, plan, 0)
    zone.nr_free_pages += 1
    assert zone_watermark_fast(zone, plan, 0)


def test_only_gfp_atomic_forgets_the_boost(m: Machine) -> None:
    """Facts 12.5: with a boost, __GFP_HIGH stops earlier than GFP_ATOMIC, for order 0 only."""
    zone = m.zones[1]
    zone.watermark_boost, zone.nr_free_pages = 512, zone.wmark[0]
    for gfp, order, passes in [(GFP_ATOMIC, 0, True), (__GFP_HIGH, 0, False), (GFP_ATOMIC, 1, False)]:
        plan = Plan(m, gfp, order)
        assert zone_watermark_fast(zone, plan, gfp_to_alloc_flags(gfp, order)) is passes


@pytest.mark.parametrize(
    ("extra", "rounds"), [(__GFP_NORETRY, 1), (0, 17), (__GFP_RETRY_MAYFAIL, 17)], ids=["noretry", "plain", "mayfail"]
)
def test_rounds_of_reclaim(m: Machine, extra: int, rounds: int) -> None:
    """Facts 12.5: with nothing to reclaim, one round for NORETRY, seventeen before the OOM killer."""
    m.sysctl("watermark_boost_factor", 0)
    exhaust(m, GFP_NOWAIT | __GFP_NOWARN)
    trace = m.trace()
    assert m.alloc_pages(GFP_KERNEL | extra | __GFP_NOWARN, 0) is NULL
    assert sum(isinstance(event, events.LabReclaim) for event in trace) == rounds
    assert isinstance(trace[-2], events.LabNull)
    trace.clear()
    assert m.alloc_pages(GFP_KERNEL | __GFP_NOWARN, 4) is NULL
    assert sum(isinstance(event, events.LabReclaim) for event in trace) == 1  # costly: one round


def test_a_failure_is_reported_unless_nowarn(m: Machine) -> None:
    """The kernel's report, once; NOWARN is silent."""
    exhaust(m, GFP_NOWAIT | __GFP_NOWARN)
    assert m.dmesg() == ""
    m.alloc_pages(GFP_NOWAIT, 0)
    assert "page allocation failure: order:0, mode:0x800(GFP_NOWAIT), nodemask=(null)" in m.dmesg()
    report = m.dmesg()
    m.alloc_pages(GFP_NOWAIT, 0)
    assert m.dmesg() == report


def test_nofail_above_order_1_warns_once(m: Machine) -> None:
    """Facts 1.7: it works, with one WARNING; ATOMIC together with DIRECT_RECLAIM warns on the slow path."""
    for _ in range(2):
        assert m.alloc_pages(GFP_KERNEL | __GFP_NOFAIL, 2)
    assert m.dmesg().count("WARNING") <= 1
    exhaust(m, GFP_NOWAIT | __GFP_NOWARN)
    m.alloc_pages(GFP_KERNEL | GFP_ATOMIC | __GFP_NORETRY | __GFP_NOWARN, 0)
    assert "__alloc_pages_slowpath" in m.dmesg()


def test_bulk_takes_from_the_list(m: Machine) -> None:
    """Many single pages at once: distinct, counted, given back one by one."""
    total = m.check().free
    pages = m.alloc_pages_bulk(40)
    assert len({page.pfn for page in pages}) == 40
    assert m.check().free == total - 40
    for page in pages:
        m.__free_pages(page, 0)
    assert m.check().free == total
    assert len(m.alloc_pages_bulk(1)) == 1


def test_plans_are_forgotten_when_marks_change(m: Machine) -> None:
    """A remembered decision must not outlive a sysctl: the next request sees the new marks."""
    m.alloc_pages(GFP_NOWAIT, 0)
    m.alloc_pages(GFP_NOWAIT, 0)
    m.sysctl("vm.min_free_kbytes", sum(zone.nr_free_pages for zone in m.zones) * 4)
    assert m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0) is NULL
    m.sysctl("vm.min_free_kbytes", 512)
    assert m.alloc_pages(GFP_NOWAIT, 0)
