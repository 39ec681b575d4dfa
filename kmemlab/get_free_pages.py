"""The page allocator by address and by size: ``__get_free_pages`` and its family.

Kernel: mm/page_alloc.c and include/linux/gfp.h, the functions of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.mmzone import PAGE_SHIFT, PAGE_SIZE, Page
from kmemlab.null import Null
from kmemlab.page_alloc import alloc_pages
from kmemlab.page_free import __free_pages, free_block

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "Address",
    "__get_free_page",
    "__get_free_pages",
    "alloc_page",
    "alloc_pages_exact",
    "free_page",
    "free_pages",
    "free_pages_exact",
    "get_order",
    "get_zeroed_page",
    "page_address",
    "page_to_pfn",
    "split_page",
    "virt_to_page",
]


def alloc_page(m: Machine, gfp: int) -> Page | Null:
    """One page, or NULL. Kernel: alloc_page, include/linux/gfp.h."""
    return alloc_pages(m, gfp, 0)


def __get_free_pages(m: Machine, gfp: int, order: int) -> Address:
    """The linear-map address of ``2**order`` pages, 0 on failure. HighMem has no address, so the bit is dropped.

    Kernel: __get_free_pages, mm/page_alloc.c.
    """
    page = alloc_pages(m, gfp & ~0x2, order)
    return page_address(m, page) if isinstance(page, Page) else Address(0)


def __get_free_page(m: Machine, gfp: int) -> Address:
    """The address of one page, 0 on failure. Kernel: __get_free_page, include/linux/gfp.h."""
    return __get_free_pages(m, gfp, 0)


def get_zeroed_page(m: Machine, gfp: int) -> Address:
    """The address of one page full of zeros, 0 on failure. Kernel: get_zeroed_page, mm/page_alloc.c."""
    return __get_free_pages(m, gfp | 0x100, 0)


def free_pages(m: Machine, addr: int, order: int) -> None:
    """Give back what ``__get_free_pages`` returned; address 0 is ignored. Kernel: free_pages, mm/page_alloc.c."""
    if addr:
        __free_pages(m, virt_to_page(m, addr), order)


def free_page(m: Machine, addr: int) -> None:
    """Give back one page by its address. Kernel: free_page, include/linux/gfp.h."""
    free_pages(m, addr, 0)


def alloc_pages_exact(m: Machine, size: int, gfp: int) -> Address:
    """The address of just enough contiguous pages for ``size`` bytes: what 2**order has too many goes back.

    The spare pages are freed one by one to the tails of their lists. Kernel: alloc_pages_exact.
    """
    if size <= 0:
        raise ValueError(f"alloc_pages_exact: size must be a number of bytes above 0, not {size!r}")
    order = get_order(size)
    addr = __get_free_pages(m, gfp & ~0x40002, order)
    if addr:
        page = virt_to_page(m, addr)
        split_page(m, page, order)
        first, used = page.pfn, -(-size // PAGE_SIZE)
        for pfn in range(first + used, first + (1 << order)):
            free_block(m, m.memmap[pfn], 0, to_tail=True)
    return addr


def free_pages_exact(m: Machine, addr: int, size: int) -> None:
    """Give back what ``alloc_pages_exact`` returned, page by page. Kernel: free_pages_exact."""
    for offset in range(0, size, PAGE_SIZE):
        free_page(m, addr + offset)


def split_page(m: Machine, page: Page, order: int) -> None:
    """Make ``2**order`` single pages of one block, each to be freed by itself. Kernel: split_page."""
    for pfn in range(page.pfn, page.pfn + (1 << order)):
        single = m.memmap[pfn]
        single.refcount, single.order, single.gfp, single.mt = 1, 0, page.gfp, page.mt


def get_order(size: int) -> int:
    """The smallest order whose block holds ``size`` bytes. Kernel: get_order, include/asm-generic/getorder.h.

    >>> get_order(4096), get_order(4097)
    (0, 1)
    """
    return max(0, (size - 1 >> PAGE_SHIFT).bit_length())


def page_to_pfn(m: Machine, page: Page) -> int:
    """The page frame number. Kernel: page_to_pfn, include/asm-generic/memory_model.h."""
    return page.pfn


def page_address(m: Machine, page: Page) -> Address:
    """Where the kernel sees the page: start of the linear map + pfn * 4096; 0 for HighMem. Kernel: page_address."""
    return Address(0 if page.zone.name == "HighMem" else m.kernel.page_offset + (page.pfn << PAGE_SHIFT))


def virt_to_page(m: Machine, addr: int) -> Page:
    """The page behind a linear-map address. Errors: ValueError for an address outside the machine's memory."""
    pfn = addr - m.kernel.page_offset >> PAGE_SHIFT
    if pfn < 0 or m.zone_of(pfn) is None:
        raise ValueError(f"virt_to_page: {addr:#x} is not an address of this machine's memory")
    return m.memmap[pfn]
