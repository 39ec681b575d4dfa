"""Per-CPU lists: refill, overflow, drain."""

from __future__ import annotations

import pytest

from kmemlab import GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_TRANSHUGE, Machine, events
from kmemlab.mmzone import PerCpuPages
from kmemlab.pcplist import nr_pcp_free


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="256M", cpus=2)


def pcp_of(m: Machine) -> PerCpuPages:
    return m.zones[1].pcps[m.cpu]


def test_a_refill_is_a_batch_in_ascending_order(m: Machine) -> None:
    """The first request takes a batch of 15 from the buddy lists and keeps 14; the next ones follow on."""
    pfns = [m.alloc_pages(GFP_KERNEL, 0).pfn for _ in range(15)]
    assert pcp_of(m).batch == 15
    assert pcp_of(m).count == 0
    assert pfns == list(range(pfns[0], pfns[0] + 15))


@pytest.mark.parametrize(("order", "blocks"), [(0, 15), (1, 7), (2, 3), (3, 2)])
def test_larger_orders_take_smaller_batches(m: Machine, order: int, blocks: int) -> None:
    """batch >> order, at least two."""
    m.alloc_pages(GFP_KERNEL, order)
    assert pcp_of(m).count == (blocks - 1) << order


@pytest.mark.parametrize("order", [4, 5, 8, 10])
def test_orders_without_a_list_go_to_the_buddies(m: Machine, order: int) -> None:
    """Orders 4 to 8 and 10 leave the per-CPU lists alone, both ways."""
    page = m.alloc_pages(GFP_KERNEL, order)
    m.__free_pages(page, order)
    assert pcp_of(m).count == 0


def test_huge_pages_have_two_lists(m: Machine) -> None:
    """Order 9 is kept: list 13 for movable, 12 for the rest."""
    for gfp, index in [(GFP_TRANSHUGE, 13), (GFP_KERNEL, 12)]:
        page = m.alloc_pages(gfp, 9)
        m.__free_pages(page, 9)
        assert page in pcp_of(m).lists[index]
        m.drain_all_pages()


def test_last_freed_first_out(m: Machine) -> None:
    """A list is a stack: the page freed last is still warm and comes first, on that CPU only."""
    a, b = m.alloc_pages(GFP_KERNEL, 0), m.alloc_pages(GFP_KERNEL, 0)
    m.__free_pages(a, 0)
    m.__free_pages(b, 0)
    m.cpu = 1
    assert m.alloc_pages(GFP_KERNEL, 0) not in (a, b)
    m.cpu = 0
    assert m.alloc_pages(GFP_KERNEL, 0) is b
    assert m.alloc_pages(GFP_KERNEL, 0) is a


def test_an_overflow_gives_back_more_each_time() -> None:
    """batch << free_factor pages, the oldest first, while nobody allocates; an allocation halves the factor."""
    m = Machine("linux-6.1", memory="512M")
    pages = [m.alloc_pages(GFP_KERNEL, 0) for _ in range(3000)]
    m.drain_all_pages()
    trace = m.trace()
    for page in pages:
        m.__free_pages(page, 0)
    drains = [event.nr for event in trace if isinstance(event, events.LabDrain)]
    pcp = pcp_of(m)
    assert drains[:4] == [31, 62, 124, 248]
    assert max(drains) <= pcp.high - pcp.batch
    factor = pcp.free_factor
    assert factor > 0
    m.alloc_pages(GFP_KERNEL, 0)
    assert pcp.free_factor == factor >> 1


def test_how_many_pages_go_back() -> None:
    """nr_pcp_free by its cases: everything, one, a batch, the scaled batch, never more than high - batch."""
    m = Machine("linux-6.1", memory="256M")
    zone = m.zones[1]
    pcp = PerCpuPages(0, 513, 15)
    pcp.count = 77
    assert nr_pcp_free(zone, pcp, 0, True) == 77
    assert nr_pcp_free(zone, pcp, 14, False) == 1
    assert [nr_pcp_free(zone, pcp, 513, False) for _ in range(7)] == [15, 30, 60, 120, 240, 480, 480]
    assert pcp.free_factor == 5
    zone.pcp_batch_scale_max = 0
    pcp.free_factor = 0
    assert [nr_pcp_free(zone, pcp, 513, False) for _ in range(3)] == [15, 15, 15]


def test_a_run_of_larger_frees_empties_the_list(m: Machine) -> None:
    """After an overflow, blocks of order 1 to 3 are not kept: the whole list goes back."""
    singles = [m.alloc_pages(GFP_KERNEL, 0) for _ in range(600)]
    block = m.alloc_pages(GFP_KERNEL, 2)
    for page in singles:
        m.__free_pages(page, 0)
    assert pcp_of(m).free_factor > 0
    m.__free_pages(block, 2)
    assert pcp_of(m).count == 0
    assert m.check()


def test_kswapd_makes_the_lists_short(m: Machine) -> None:
    """While kswapd works on a zone a list holds four batches at most."""
    zone = m.zones[1]
    zone.reclaim_active = True
    m.cpu = 0
    assert zone.pcp_limit == 60
    zone.reclaim_active = False
    m.cpu = 0
    assert zone.pcp_limit == zone.pcp.high


def test_a_drain_empties_every_cpu(m: Machine) -> None:
    """All CPUs' lists of one zone, or of all; pages are neither lost nor doubled."""
    total = m.check().free
    for cpu in (0, 1):
        m.cpu = cpu
        m.__free_pages(m.alloc_pages(GFP_KERNEL, 0), 0)
        m.__free_pages(m.alloc_pages(GFP_HIGHUSER_MOVABLE | 1, 0), 0)
    assert m.free_pcp("DMA32") > 0
    assert m.free_pcp("DMA") > 0
    m.drain_all_pages(m.zones[0])
    assert m.free_pcp("DMA") == 0
    assert m.free_pcp("DMA32") > 0
    m.drain_all_pages()
    assert m.free_pcp() == 0
    assert m.check().free == total
    with pytest.raises(ValueError, match="no zone 'Normal'; this machine has DMA, DMA32"):
        m.free_pcp("Normal")


def test_highatomic_pages_wait_on_the_movable_list() -> None:
    """A freed page of a HighAtomic pageblock is kept with Movable's, and remembers its type."""
    m = Machine("linux-6.1", memory="256M")
    page = m.alloc_pages(GFP_KERNEL, 0)
    m.zones[1].pageblock_mt[page.pfn >> 9] = 3
    m.__free_pages(page, 0)
    assert m.zones[1].pcp.lists[1][-1] is page
    assert page.mt == 3
