"""The page allocator by address and size."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kmemlab import __GFP_COMP, __GFP_HIGHMEM, __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, Machine, get_order


@pytest.fixture
def m() -> Machine:
    return Machine("linux-6.1", memory="64M")


@given(st.integers(1, 1 << 40))
def test_get_order_is_the_smallest_that_fits(size: int) -> None:
    """4096 << order holds the size, one less would not."""
    order = get_order(size)
    assert 4096 << order >= size
    assert order == 0 or 4096 << order - 1 < size


def test_addresses_are_the_linear_map(m: Machine) -> None:
    """Start of the map + pfn * 4096, printed as the kernel prints a pointer; and back."""
    addr = m.__get_free_pages(GFP_KERNEL, 2)
    page = m.virt_to_page(addr)
    assert addr == 0xFFFF888000000000 + page.pfn * 4096
    assert repr(addr) == str(addr) == f"{addr:016x}"
    assert repr(addr).startswith("ffff8880")
    assert m.page_address(page) == addr
    assert m.page_to_pfn(page) == page.pfn
    assert m.virt_to_page(addr + 5) is page
    m.free_pages(addr, 2)
    assert m.check()
    for wrong in (0, 4096, 1 << 63, 0xFFFF888000000000 + (1 << 40)):
        with pytest.raises(ValueError, match="is not an address of this machine's memory"):
            m.virt_to_page(wrong)


def test_failure_is_address_0(m: Machine) -> None:
    """0 and not NULL's page: it is falsy, and freeing it does nothing."""
    while m.__get_free_pages(GFP_ATOMIC | __GFP_NOWARN, 0):
        pass
    addr = m.get_zeroed_page(GFP_ATOMIC | __GFP_NOWARN)
    assert addr == 0
    assert repr(addr) == "0"
    m.free_page(addr)
    assert m.alloc_pages_exact(9000, GFP_ATOMIC | __GFP_NOWARN) == 0


def test_the_family_is_one_allocator(m: Machine) -> None:
    """Each pair gives back what it took; HIGHMEM is dropped where an address is asked for."""
    free = m.check().free
    for addr in (m.__get_free_page(GFP_KERNEL), m.get_zeroed_page(GFP_KERNEL | __GFP_HIGHMEM)):
        assert addr
        m.free_page(addr)
    page = m.alloc_page(GFP_KERNEL)
    m.__free_page(page)
    assert m.check().free == free
    big = Machine("linux-6.1-i386", memory="1G")
    assert big.__get_free_page(GFP_KERNEL | __GFP_HIGHMEM)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4 << 20))
def test_exact_sizes_waste_less_than_a_page(size: int) -> None:
    """The pages 2**order has too many go back at once; the rest can be freed."""
    m = Machine("linux-6.1", memory="64M")
    free = m.check().free
    addr = m.alloc_pages_exact(size, GFP_KERNEL | __GFP_COMP)
    pages = -(-size // 4096)
    assert m.check().free == free - pages
    m.free_pages_exact(addr, size)
    result = m.check()
    assert result
    assert result.free == free
    assert not m.tainted


def test_split_page(m: Machine) -> None:
    """A block becomes single pages, each freed by itself, without loss."""
    free = m.check().free
    page = m.alloc_pages(GFP_KERNEL, 3)
    m.split_page(page, 3)
    for pfn in range(page.pfn, page.pfn + 8):
        assert m.memmap[pfn].refcount == 1
        m.__free_page(m.memmap[pfn])
    assert m.check().free == free
    assert not m.tainted


def test_exact_size_must_be_one(m: Machine) -> None:
    """Zero or less bytes: one line."""
    for size in (0, -1):
        with pytest.raises(ValueError, match="size must be a number of bytes above 0"):
            m.alloc_pages_exact(size, GFP_KERNEL)
