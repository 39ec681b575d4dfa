"""``kmalloc``: memory by the byte, from the cache of the right size; large sizes from the page allocator.

Kernel: include/linux/slab.h, mm/slab_common.c, mm/util.c (kvmalloc), the functions of the same names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.events import Kfree, Kmalloc
from kmemlab.get_free_pages import get_order
from kmemlab.mmzone import MAX_ORDER, PAGE_SIZE, Page
from kmemlab.null import NULL, KernelBug, Null
from kmemlab.page_alloc import __alloc_pages
from kmemlab.page_free import __free_pages
from kmemlab.size_classes import LADDERS, kmalloc_type_of
from kmemlab.slab_common import free_objects
from kmemlab.slub import GFP_SLAB_BUG_MASK, kfree, kmalloc_fix_flags, refill, slab_alloc
from kmemlab.slub_def import KmemCache

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "ZERO_SIZE_PTR",
    "kcalloc",
    "kfree",
    "kfree_sensitive",
    "kmalloc",
    "kmalloc_array",
    "kmalloc_size_roundup",
    "kmalloc_slab",
    "krealloc",
    "ksize",
    "kvfree",
    "kvmalloc",
    "kzalloc",
]

ZERO_SIZE_PTR = Address(16)  # what 0 bytes are given: not NULL, and not to be touched
KMALLOC_MAX_CACHE_SIZE = 8192
KMALLOC_MAX_SIZE = 4 << 20
SIZE_MAX = (1 << 64) - 1
INT_MAX = (1 << 31) - 1
LADDER = LADDERS["linux-6.1"]


def kmalloc_slab(m: Machine, size: int, gfp: int) -> KmemCache:
    """The cache that serves 1 to 8192 bytes for this mask. Kernel: kmalloc_slab, mm/slab_common.c."""
    given = LADDER.given(size)
    assert given is not None
    if not m.kmalloc_caches:
        m.boot_slab()
    return m.kmalloc_caches[kmalloc_type_of(gfp), given]


def kmalloc(m: Machine, size: int, gfp: int) -> Address | Null:
    """The address of at least ``size`` bytes, or NULL; ``ksize`` tells how many they are.

    Kernel: kmalloc, include/linux/slab.h. Errors: ValueError for a size or mask that C would not take.

    >>> from kmemlab import Machine, GFP_KERNEL
    >>> m = Machine("linux-6.1", memory="64M")
    >>> m.ksize(m.kmalloc(100, GFP_KERNEL))
    128
    """
    if m.slab_fast:
        try:
            s = m.kmalloc_plans[gfp][size + 7 >> 3]
        except (KeyError, TypeError):
            return _kmalloc(m, size, gfp)  # a new mask, no cache for this size, no number
        c = s.cpu_slab[m._cpu]
        freelist = c.freelist
        if not freelist:
            return refill(m, s, c, size, gfp)
        p = freelist.pop()
        m.live[p] = c.slab  # type: ignore[assignment]  # a list that is not empty has its slab
        m.calls += 1
        m.last_plan = (s, p, size, gfp)
        return p
    return _kmalloc(m, size, gfp)


def _kmalloc(m: Machine, size: int, gfp: int) -> Address | Null:
    """The long way: checks, large sizes, events, the slab allocator's slow path. Kernel: __do_kmalloc_node."""
    if not isinstance(size, int):
        raise ValueError(f"kmalloc: size must be a number of bytes, not {size!r}")
    if not isinstance(gfp, int) or not 0 <= gfp < 1 << 32:
        raise ValueError(f"kmalloc: flags must be a mask such as GFP_KERNEL, not {gfp!r}")
    size &= SIZE_MAX  # size_t: a negative number is a very large one
    if size == 0:
        m.calls += 1
        return ZERO_SIZE_PTR
    if size > KMALLOC_MAX_CACHE_SIZE:
        return _kmalloc_large(m, size, gfp)
    s = kmalloc_slab(m, size, gfp)
    plans = m.kmalloc_plans.setdefault(gfp, {})
    plans[size + 7 >> 3] = s
    m.begin_slab_call()
    p = slab_alloc(m, s, gfp, size)
    m.end_slab_call((s, p, size, gfp))
    if m.events.subscribers:
        m.events.emit(Kmalloc(*m.alloc_fields(p, size, s.size, gfp, s)))
    return p


def _kmalloc_large(m: Machine, size: int, gfp: int) -> Address | Null:
    """Whole pages for what no cache holds. Kernel: __kmalloc_large_node."""
    if gfp & GFP_SLAB_BUG_MASK:
        gfp = kmalloc_fix_flags(m, gfp)
    page = __alloc_pages(m, gfp | 0x40000, get_order(size))
    p: Address | Null = NULL
    if isinstance(page, Page):
        m.large[page.pfn] = page
        p = Address(m.kernel.page_offset + page.pfn * PAGE_SIZE)
    if m.events.subscribers:
        m.events.emit(
            Kmalloc(m.call_site, p if isinstance(p, Address) else 0, size, PAGE_SIZE << get_order(size), gfp, -1, False)
        )
    return p


def kzalloc(m: Machine, size: int, gfp: int) -> Address | Null:
    """kmalloc, full of zeros. Kernel: kzalloc, include/linux/slab.h."""
    return kmalloc(m, size, gfp | 0x100)


def kmalloc_array(m: Machine, n: int, size: int, gfp: int) -> Address | Null:
    """Room for ``n`` elements; NULL where ``n * size`` would overflow. Kernel: kmalloc_array, include/linux/slab.h."""
    return NULL if n * size > SIZE_MAX else kmalloc(m, n * size, gfp)


def kcalloc(m: Machine, n: int, size: int, gfp: int) -> Address | Null:
    """kmalloc_array, full of zeros. Kernel: kcalloc, include/linux/slab.h."""
    return kmalloc_array(m, n, size, gfp | 0x100)


def ksize(m: Machine, p: int) -> int:
    """Bytes behind a pointer from kmalloc: its class or its pages; 0 for NULL and ZERO_SIZE_PTR.

    Kernel: ksize, mm/slab_common.c.
    """
    if not p or p == ZERO_SIZE_PTR:
        return 0
    slab = m.virt_to_slab(p)
    if slab is not None:
        s = slab.cache  # what lies behind the object belongs to the owner too, unless something stands there
        if s.flags & 0xC00:
            return s.object_size
        return s.inuse if s.flags & 0x90000 else s.size
    page = _large_page(m, p)
    if page is None:
        _no_folio(m, p)
        return PAGE_SIZE
    return PAGE_SIZE << page.order


def kmalloc_size_roundup(m: Machine, size: int) -> int:
    """The bytes that a request of ``size`` is given, without asking. Kernel: kmalloc_size_roundup."""
    if size > KMALLOC_MAX_CACHE_SIZE:
        return PAGE_SIZE << get_order(size)
    return LADDER.given(size) or 0


def kfree_slowly(m: Machine, p: int) -> None:
    """``kfree`` of what is no object in use, or while somebody listens."""
    if m.events.subscribers:
        m.events.emit(Kfree(m.call_site, p))
    if not p or p == ZERO_SIZE_PTR:
        return
    if not isinstance(p, int):
        raise TypeError(f"kfree wants a pointer from kmalloc, not {p!r}")
    slab = m.virt_to_slab(p)
    if slab is not None:
        free_objects(m, slab, (p,))
    else:
        _free_large(m, p)


def _large_page(m: Machine, p: int) -> Page | None:
    """The first page of the large block that an address lies in. Kernel: virt_to_folio, include/linux/mm.h."""
    pfn = p - m.kernel.page_offset >> 12
    for order in range(MAX_ORDER):
        page = m.large.get(pfn >> order << order)
        if page is not None and pfn < page.pfn + (1 << page.order):
            return page
    return None


def _no_folio(m: Machine, p: int) -> None:
    """A pointer outside of memory: the kernel reads a struct page that does not exist, and stops."""
    pfn = p - m.kernel.page_offset >> 12
    if pfn < 0 or m.zone_of(pfn) is None:
        raise KernelBug(m.oops(f"BUG: unable to handle page fault for address: {m.struct_page_of(p):016x}"))


def _free_large(m: Machine, p: int) -> None:
    """Kernel: free_large_kmalloc, mm/slab_common.c."""
    pfn = p - m.kernel.page_offset >> 12
    page = _large_page(m, p)
    if page is not None:
        del m.large[page.pfn]
    else:
        _no_folio(m, p)
        page = m.memmap[pfn]
        if page.order <= 0 and m.warn_once("free_large_kmalloc"):
            m.warn("mm/slab_common.c:904 free_large_kmalloc+0x3c/0x70")
            m.printk(f"object pointer: {m.ptr(p)}")
    __free_pages(m, page, max(0, page.order) if page.gfp & 0x40000 else 0)


def krealloc(m: Machine, p: int, new_size: int, gfp: int) -> Address | Null:
    """The same bytes in a block of at least ``new_size``; the block moves only when it is too small.

    Kernel: krealloc, mm/slab_common.c. On NULL the old block is as it was.
    """
    if not new_size:
        kfree(m, p)
        return ZERO_SIZE_PTR
    if p and p != ZERO_SIZE_PTR:
        have = ksize(m, p)
        if have >= new_size:
            if m.init_on_alloc or gfp & 0x100:
                m.memset(p + new_size, 0, have - new_size)
            return Address(p)
    else:
        have = 0
    new = kmalloc(m, new_size, gfp)
    if isinstance(new, Address) and have:
        if m.memory.pages:
            m.memory.write(new, m.memory.read(p, have))
        kfree(m, p)
    return new


def kfree_sensitive(m: Machine, p: int) -> None:
    """Zero every byte of the block, then free it. Kernel: kfree_sensitive, mm/slab_common.c."""
    if have := ksize(m, p):
        m.memset(p, 0, have)
    kfree(m, p)


def kvmalloc(m: Machine, size: int, gfp: int) -> Address | Null:
    """kmalloc if one piece is easily had, else single pages mapped in a row. Kernel: kvmalloc_node, mm/util.c.

    Left out: the second half. NotImplementedError says so where the kernel would go on to vmalloc.
    """
    mask = gfp
    if size > PAGE_SIZE:
        mask |= 0x2000
        if not mask & 0x4000:
            mask |= 0x10000
        mask &= ~0x8000
    p = kmalloc(m, size, mask)
    if p or size <= PAGE_SIZE:
        return p
    if size > INT_MAX or not gfp & 0x400:
        return NULL
    raise NotImplementedError(
        f"kvmalloc({size}): no block of order {get_order(size)} was free, so the kernel would now build the area "
        "from single pages with vmalloc, which this lab does not have yet. Use a smaller size or a fresher machine."
    )


def kvfree(m: Machine, p: int) -> None:
    """Give memory from kvmalloc back. Kernel: kvfree, mm/util.c."""
    kfree(m, p)
