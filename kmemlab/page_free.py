"""Giving pages back: ``__free_pages``, and what the kernel makes of a wrong call.

Kernel: mm/page_alloc.c, the functions of the same names. Debian's kernel checks little here: a page freed
twice is not noticed, a block freed with too small an order leaks, one with too large an order is reported
only when the neighbour is in use. The same happens here, and ``m.check()`` names what it did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab import events
from kmemlab.buddy import __free_one_page, freed
from kmemlab.mmzone import MAX_ORDER, Page, Zone
from kmemlab.null import KernelBug, Null
from kmemlab.pcplist import drain_pages, free_unref_page_commit

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["MERGED", "__free_page", "__free_pages", "drain_all_pages", "free_block", "get_page", "put_page"]

MERGED = "merged"  # what ``m.last_plan`` says after a free that went straight to the buddy lists


def __free_pages(m: Machine, page: Page, order: int = 0) -> None:
    """Give a block back. ``order`` must be the order it was asked with: the kernel does not check.

    Kernel: __free_pages, mm/page_alloc.c. Errors: see ``m.check()``, which names what a wrong call did.
    """
    try:
        unusual = page.order != order or page.refcount != 1 or m.careful
    except AttributeError:
        unusual = True  # no page at all
    if unusual:
        return _free_carefully(m, page, order)
    page.refcount = 0
    zone = page.zone
    row = m.pindex[order]
    m.calls += 1
    m.last_page = page
    mt = zone.pageblock_mt[page.pfn >> 9]
    if row:
        page.mt = mt
        pcp = zone.pcp
        pcp.lists[row[mt]].append(page)
        pcp.count = count = pcp.count + (1 << order)
        if count < zone.pcp_limit and not (order and pcp.free_factor):
            m.last_plan = row
            return None
        m.last_plan = None
        m.trail.clear()
        m.trail.append((events.LabFree, page.pfn, order, pcp.cpu))
        free_unref_page_commit(zone, pcp, page, row[mt], order)
        return None
    m.last_plan = MERGED
    __free_one_page(zone, page.pfn, order, mt)
    return None


def _free_carefully(m: Machine, page: Page, order: int) -> None:
    """``__free_pages`` with every check the kernel makes: somebody listens, or something is out of order."""
    if isinstance(page, Null):
        raise KernelBug("BUG: kernel NULL pointer dereference in __free_pages: a failed request returned NULL")
    if not isinstance(page, Page):
        raise TypeError(f"__free_pages wants a page from alloc_pages, not {page!r}; addresses go to free_pages")
    if not isinstance(order, int) or not 0 <= order < MAX_ORDER:
        raise ValueError(f"__free_pages: order must be from 0 to {MAX_ORDER - 1}, not {order!r}")
    m.calls += 1
    m.last_plan = None
    m.trail.clear()
    m.trail.append((events.LabFree, page.pfn, order, m.cpu))
    known = page.order
    if 0 <= known < order:
        m.misuse(page.pfn, order, f"handed out with order {known}, freed with order {order}: more than was given")
    elif page.pfn & (1 << order) - 1:
        m.misuse(page.pfn, order, f"no block of order {order} begins at pfn {page.pfn}")
    if page.refcount == 0 and "DEBUG_VM" in m.config:
        raise KernelBug(m.vm_bug_on_page(page, "page_ref_count(page) == 0"))
    page.refcount -= 1
    if page.refcount == 0:
        if 0 <= order < known:
            m.note_lost(page.pfn, known, order)
        free_block(m, page, order)
    else:
        text = "freed twice" if page.refcount < 0 else "somebody else still holds it"
        text += f": reference count {page.refcount + 1} -> {page.refcount}, so the first page stays where it is"
        m.misuse(page.pfn, order, text)
        while order > 0:  # the kernel frees the parts behind the first page, whoever owns them by now
            order -= 1
            free_block(m, m.memmap[page.pfn + (1 << order)], order)
    if m.events.subscribers:
        m.emit()


def free_block(m: Machine, page: Page, order: int, *, to_tail: bool = False) -> None:
    """Put a block on the lists: this CPU's if its order has one, else the buddy lists.

    A tail page that is in use stops it: ``BUG: Bad page state``, and nothing goes back.
    Kernel: free_the_page, free_pages_prepare.
    """
    zone, pfn = page.zone, page.pfn
    if order and (page.order != order or m.tainted) and _bad_tail(m, pfn, order):
        return
    if m.tainted and (pfn in zone.buddy or _on_pcp(zone, page)):
        raise KernelBug(m.bug(f"list_add double add: the block at pfn {pfn} is on a free list already"))
    page.refcount = min(page.refcount, 0)
    zone.lru.difference_update(range(pfn, pfn + (1 << order)))
    page.mt = mt = zone.pageblock_mt[pfn >> 9]
    row = m.pindex[order]
    if to_tail:
        _free_to_tail(zone, pfn, order, mt)
    elif row:
        pcp = zone.pcp
        pcp.lists[row[mt]].append(page)
        pcp.count += 1 << order
        free_unref_page_commit(zone, pcp, page, row[mt], order)
    else:
        m.trail.append((freed, zone, pfn, order))
        __free_one_page(zone, pfn, order, mt)


def _free_to_tail(zone: Zone, pfn: int, order: int, mt: int) -> None:
    __free_one_page(zone, pfn, order, mt)
    block = zone.free_block_at(pfn)
    assert block is not None
    zone.del_from_free_list(block[0])
    zone.add_to_free_list_tail(*block)


def _on_pcp(zone: Zone, page: Page) -> bool:
    return any(page in pages for pcp in zone.pcps for pages in pcp.lists)


def _bad_tail(m: Machine, pfn: int, order: int) -> bool:
    """Report every page behind the first that somebody holds. Kernel: free_pages_prepare, free_page_is_bad."""
    bad, ours = False, m.memmap[pfn].order >= 0
    for tail_pfn in range(pfn + 1, pfn + (1 << order)):
        if m.zone_of(tail_pfn) is None:
            continue
        tail = m.memmap[tail_pfn]
        if not ours and tail.order < 0:
            tail.refcount = 0  # a block from before our time: we do not know its order better than the caller
        if tail.refcount:
            bad = True
            m.bad_page(tail, "nonzero _refcount")
    if bad:
        m.misuse(pfn, order, "a page behind the first is in use: nothing goes back")
        m.note_lost_block(pfn)
    return bad


def __free_page(m: Machine, page: Page) -> None:
    """Give one page back. Kernel: __free_page, include/linux/gfp.h."""
    __free_pages(m, page, 0)


def get_page(m: Machine, page: Page) -> None:
    """Take another reference to a page. Kernel: get_page, include/linux/mm.h."""
    page.refcount += 1


def put_page(m: Machine, page: Page) -> None:
    """Drop a reference; the last one gives the page (or the compound block) back. Kernel: put_page."""
    if page.refcount == 1:
        __free_pages(m, page, page.order if page.gfp & 0x40000 else 0)
    else:
        page.refcount -= 1


def drain_all_pages(m: Machine, zone: Zone | None = None) -> None:
    """Empty the per-CPU lists of every CPU, of one zone or of all. Kernel: drain_all_pages, mm/page_alloc.c."""
    m.changes += 1
    for cpu in range(m.cpus):
        for each in m.zones if zone is None else (zone,):
            drain_pages(each, each.pcps[cpu])
