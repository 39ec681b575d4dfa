"""check(): our own mistakes are found, a caller's are named."""

from __future__ import annotations

import pytest

from kmemlab import GFP_KERNEL, Machine
from kmemlab.check import CheckResult
from tests.engine.calls import random_calls


@pytest.fixture
def m() -> Machine:
    each = Machine(memory="64M", cpus=2)
    list(random_calls(each, 1, 600, []))
    assert each.check()
    return each


def some_block(m: Machine, *, order: int | None = None):
    zone = m.zones[1]
    pfn = next(pfn for pfn, entry in zone.buddy.items() if order is None or entry >> 3 == order)
    return zone, pfn, zone.buddy[pfn] >> 3, zone.buddy[pfn] & 7


def lose_index(m: Machine) -> None:
    zone, pfn, *_ = some_block(m)
    del zone.buddy[pfn]


def lose_listing(m: Machine) -> None:
    zone, pfn, order, mt = some_block(m)
    zone.free_area[order][mt].pop(pfn, None)
    zone.free_tail[order][mt].pop(pfn, None)


def wrong_index(m: Machine) -> None:
    zone, pfn, *_ = some_block(m)
    zone.buddy[pfn] ^= 1


def wrong_counter(m: Machine) -> None:
    m.zones[1].nr_free_pages += 1


def wrong_pcp_count(m: Machine) -> None:
    m.zones[1].pcps[0].count += 1


def unfolded(m: Machine) -> None:
    m.zones[1].pcps[1].vm_stat_diff += 100
    m.zones[1].nr_free_pages -= 100


def page_twice(m: Machine) -> None:
    zone, pfn, *_ = some_block(m)
    pcp = zone.pcps[0]
    pcp.lists[0].append(m.memmap[pfn])
    pcp.count += 1


def foreign_page(m: Machine) -> None:
    page = m.alloc_pages(GFP_KERNEL | 1, 0)
    page.refcount = 0
    m.zones[1].pcps[0].lists[0].append(page)
    m.zones[1].pcps[0].count += 1


def unmerged(m: Machine) -> None:
    zone, pfn, order, mt = some_block(m, order=5)
    zone.del_from_free_list(pfn)
    for half in (pfn, pfn + (1 << order - 1)):
        zone.add_to_free_list_tail(half, order - 1, mt)


def used_and_free(m: Machine) -> None:
    page = m.memmap[some_block(m)[1]]
    page.refcount, page.order = 1, 0


def headless(m: Machine) -> None:
    zone, _, order, mt = some_block(m)
    area, tail = zone.free_area[order][mt], zone.free_tail[order][mt]
    tail.update(area)
    area.clear()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_index, "indexed elsewhere"), (lose_listing, "listed"), (wrong_index, "indexed elsewhere"),
        (wrong_counter, "counter"), (wrong_pcp_count, "pages on the lists, count"), (unfolded, "not folded"),
        (page_twice, "on two lists"), (foreign_page, "on a per-CPU list"), (unmerged, "did not merge"),
        (used_and_free, "free and handed out"), (headless, "without a head"),
    ],
)  # fmt: skip
def test_damaged_books_are_found(m: Machine, damage, said: str) -> None:
    """Each invariant, broken by hand: an AssertionError that names zone and number."""
    damage(m)
    with pytest.raises(AssertionError, match=said) as caught:
        m.check()
    assert "DMA" in str(caught.value)


def test_the_result_in_words() -> None:
    """Truth, text and numbers of a result agree."""
    assert str(CheckResult((), (), 5)) == repr(CheckResult((), (), 5)) == "check: all in order, 5 pages free"
    bad = CheckResult(((8, 2), (20, 1)), tuple(range(9)), 5)
    assert not bad
    assert str(bad) == (
        "check: pages 8..9 are lost; pages 20..20 are lost; "
        "pages 0, 1, 2, 3, 4, 5, 6, 7 ... are owned twice: handed out and on a free list, or on two lists"
    )


def test_free_counts_everything_that_could_be_given() -> None:
    """Lists, per-CPU lists and the pending parts of the counter."""
    m = Machine(memory="64M", cpus=2)
    free = m.check().free
    page = m.alloc_pages(GFP_KERNEL, 0)
    assert m.check().free == free - 1
    m.cpu = 1
    m.__free_pages(page, 0)
    assert m.check().free == free
