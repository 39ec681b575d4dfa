"""__free_pages: what goes back where, and what the model makes of a wrong call (the recorded crimes: tests/kernel)."""

from __future__ import annotations

import pytest

from kmemlab import __GFP_COMP, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, NULL, KernelBug, Machine, events


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


def test_what_is_no_page_is_named(m: Machine) -> None:
    """NULL is told as NULL, an address belongs to free_pages, an order must exist."""
    with pytest.raises((KernelBug, AttributeError), match="returned NULL"):
        m.__free_pages(NULL, 0)
    addr = m.__get_free_pages(GFP_KERNEL, 0)
    for wrong in (addr, 5, None, "page"):
        with pytest.raises((TypeError, AttributeError)):
            m.__free_pages(wrong, 0)
    page = m.alloc_pages(GFP_KERNEL, 0)
    for order in (-1, 11, 4096, "x", None, 1.5):
        with pytest.raises(ValueError, match="__free_pages: order must be from 0 to 10"):
            m.__free_pages(page, order)
    m.__free_pages(page, 0)
    m.free_pages(addr, 0)
    assert m.check()


@pytest.mark.parametrize("order", range(11))
def test_everything_comes_back(m: Machine, order: int) -> None:
    """After free and drain the zone's blocks are those of the boot."""
    before = m.cat("/proc/buddyinfo")
    held = [page for page in (m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, order) for _ in range(6)) if page]
    for page in held:
        m.__free_pages(page, order)
    m.drain_all_pages()
    assert m.cat("/proc/buddyinfo") == before
    assert m.check()


def test_references(m: Machine) -> None:
    """get_page and put_page: the last reference gives the page back."""
    page = m.alloc_pages(GFP_KERNEL, 0)
    m.get_page(page)
    m.put_page(page)
    assert page.refcount == 1
    m.put_page(page)
    assert page.refcount == 0
    assert m.alloc_pages(GFP_KERNEL, 0) is page
    m.__free_pages(page, 0)
    block = m.alloc_pages(GFP_KERNEL | __GFP_COMP, 3)
    free = m.check().free
    m.put_page(block)
    assert m.check().free == free + 8


def test_misuse_is_noted_once_and_the_books_go_on(m: Machine) -> None:
    """After a double free the machine is tainted; later legal calls work and the books stay readable."""
    page = m.alloc_pages(GFP_KERNEL, 0)
    trace = m.trace()
    m.__free_pages(page, 0)
    m.__free_pages(page, 0)
    assert m.tainted
    assert any(isinstance(event, events.LabMisuse) for event in trace)
    held = [m.alloc_pages(GFP_KERNEL, order) for order in (0, 1, 2, 0, 4)]
    for each in held:
        m.__free_pages(each, each.order)
    assert m.check()


def test_several_wrong_orders_are_all_named(m: Machine) -> None:
    """Each lost run is listed, none twice, and the pages are never handed out again."""
    lost = set()
    for order in (2, 3, 5):
        block = m.alloc_pages(GFP_KERNEL, order)
        m.__free_pages(block, order - 1)
        lost.update(range(block.pfn + (1 << order - 1), block.pfn + (1 << order)))
    named = [pfn for first, pages in m.check().lost for pfn in range(first, first + pages)]
    assert sorted(named) == sorted(lost)
    got = {page.pfn for page in iter(lambda: m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0), NULL)}
    assert not got & lost
    assert "lost" in str(m.explain())


def test_the_freeing_cpu_keeps_the_page() -> None:
    """A page goes to the list of the CPU that frees it, wherever it came from."""
    m = Machine("linux-6.1", memory="64M", cpus=2)
    page = m.alloc_pages(GFP_KERNEL, 0)
    m.cpu = 1
    m.__free_pages(page, 0)
    assert page in page.zone.pcps[1].lists[0]
    assert m.check()


def test_the_last_reference_is_told() -> None:
    """ftrace sees mm_page_free, whoever drops the page."""
    m = Machine("linux-6.1", memory="64M")
    page = m.alloc_pages(GFP_KERNEL, 0)
    m.get_page(page)
    seen = m.trace()
    m.put_page(page)
    assert not seen
    m.put_page(page)
    assert [event.name for event in seen if event.name == "mm_page_free"] == ["mm_page_free"]
