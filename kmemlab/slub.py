"""SLUB: objects of one size out of slabs, handed out by each CPU for itself.

Kernel: mm/slub.c, the functions of the same names.

Every CPU allocates from one slab, its *cpu slab*, whose free objects it keeps on a list of its own; freed objects
go back on top of it, so the last one freed is the next one given. An object of another slab goes to that slab's
list. Slabs that got a hole that way wait on the CPU's partial list, and on the node's when that is full. Free
lists have the next object at their end, where Python takes it off cheaply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kmemlab import slub_debug
from kmemlab.address import Address
from kmemlab.context import SCHED_MM, might_sleep
from kmemlab.events import LabSlab
from kmemlab.gfp import show_gfp_flags
from kmemlab.null import NULL, KernelBug, Null
from kmemlab.slub_bytes import follow, init_on_alloc, leave_pointer
from kmemlab.slub_def import SLAB_STORE_USER, SLAB_TYPESAFE_BY_RCU, KmemCache, KmemCacheCpu, Slab

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "___slab_alloc",
    "__kmem_cache_do_shrink",
    "__slab_free",
    "deactivate_slab",
    "discard_slab",
    "flush_all",
    "kfree",
    "kmalloc_fix_flags",
    "put_cpu_partial",
    "rcu_barrier",
    "refill",
    "slab_alloc",
    "slab_free",
    "slab_step",
]

GFP_SLAB_BUG_MASK = 0x4 | 0x2 | ~0xFFFFFF  # DMA32, HIGHMEM and bits that do not exist
# What a slab's pages inherit of the caller's mask: how hard to try, never which zone.
GFP_RECLAIM_MASK = 0xC00 | 0xE0 | 0xE000 | 0x10000 | 0x20000 | 0x80000 | 0x200
GFP_CONSTRAINT_MASK = 0x300000
SHRINK_PROMOTE_MAX = 32


def slab_step(what: str, slab: Slab, p: int, count: int) -> LabSlab:
    """The event of a step; ``p`` is 0 where no object is meant."""
    return LabSlab(slab.cache.name, what, slab.pfn, slab.index_of(p) if p else -1, count)


def slab_alloc(m: Machine, s: KmemCache, gfp: int, orig_size: int) -> Address | Null:
    """One object, or NULL: this CPU's list first. Kernel: slab_alloc_node, slab_pre_alloc_hook."""
    if gfp & 0x400:
        might_sleep(m, SCHED_MM)
    c = s.cpu_slab[m._cpu]
    slab, p = c.slab, None
    if c.freelist and slab is not None:
        m.steps.append((slab_step, "cpu_freelist", slab, 0, len(c.freelist)))
    elif s.debug:
        slab, p = _alloc_debug(m, s, gfp, orig_size)
    else:
        slab = ___slab_alloc(m, s, gfp, c)
    if slab is None:
        return NULL
    if p is None:
        p = _take(m, s, c)
    m.live[p] = slab
    init_on_alloc(m, s, p, gfp)
    return p


def _take(m: Machine, s: KmemCache, c: KmemCacheCpu) -> Address:
    """The head of the CPU's list; its pointer to the next one stays behind in its bytes."""
    p = c.freelist.pop()
    if m.broken_lists:
        p = follow(m, s, c.freelist, p)
    leave_pointer(m, s, p, c.freelist[-1] if c.freelist else 0)
    return p


def ___slab_alloc(m: Machine, s: KmemCache, gfp: int, c: KmemCacheCpu) -> Slab | None:
    """Fill the CPU's empty list: from objects others freed, a partial slab, a new slab; None if there is no memory."""
    slab = c.slab
    if slab is not None:  # get_freelist
        slab.inuse = slab.objects
        if slab.freelist:
            m.steps.append((slab_step, "get_freelist", slab, 0, len(slab.freelist)))
            c.freelist, slab.freelist = slab.freelist, []
            return slab
        slab.frozen, c.slab = False, None  # full: on no list from now on
        m.steps.append((slab_step, "full", slab, 0, slab.objects))
    if c.partial:
        c.slab = slab = c.partial.pop()
        m.steps.append((slab_step, "cpu_partial", slab, 0, len(c.partial)))
        slab.inuse = slab.objects
        c.freelist, slab.freelist = slab.freelist, []
        return slab
    if s.partial:
        return get_partial_node(m, s, c)
    slab = new_slab(m, s, gfp)
    if slab is not None:
        c.freelist, slab.freelist = slab.freelist, []
        slab.inuse, slab.frozen, c.slab = slab.objects, True, slab
    return slab


def _alloc_debug(m: Machine, s: KmemCache, gfp: int, orig_size: int) -> tuple[Slab | None, Address | None]:
    """The slow path of a debug cache: one object at a time."""
    while True:
        got = slub_debug.alloc_from_partial(m, s, orig_size)
        if got is None:
            slab = new_slab(m, s, gfp)
            if slab is None:
                return None, None
            got = slub_debug.alloc_from_new_slab(m, s, slab, orig_size)
        if got is not None:
            return got


def get_partial_node(m: Machine, s: KmemCache, c: KmemCacheCpu) -> Slab:
    """Make the head of the node's partial list the cpu slab, and take further slabs to the CPU's partial list
    until more than half of what it may hold have come. Kernel: get_partial_node, acquire_slab."""
    node, steps, partial = s.partial, m.steps, c.partial
    first, _ = node.popitem(last=False)
    steps.append((slab_step, "node_partial", first, 0, len(first.freelist)))
    first.frozen, first.inuse = True, first.objects
    c.freelist, first.freelist, c.slab = first.freelist, [], first
    for _ in range(min(len(node), s.cpu_partial_slabs // 2 + 1)):
        slab, _ = node.popitem(last=False)
        slab.frozen = True
        partial.append(slab)
        steps.append((slab_step, "to_cpu_partial", slab, 0, len(slab.freelist)))
        steps.append((slab_step, "put_cpu_partial", slab, 0, len(partial)))
    return first


def refill(m: Machine, s: KmemCache, c: KmemCacheCpu, size: int, gfp: int) -> Address | Null:
    """slab_alloc for an empty CPU list while nobody listens and memory holds no bytes."""
    m.calls += 1
    full, partial = c.slab, c.partial
    p: Address | Null = NULL
    if partial and full is not None and not full.freelist:  # ___slab_alloc, its most frequent way written out
        full.frozen = False
        c.slab = slab = partial.pop()
        slab.inuse = slab.objects
        freelist = slab.freelist
        slab.freelist, c.freelist = c.freelist, freelist
        p = freelist.pop()
        m.live[p] = slab
        m.last_plan = (s, p, size, gfp, full)
        return p
    steps: list[Any] = []
    m.steps = steps
    some = ___slab_alloc(m, s, gfp, c)
    if some is not None:
        p = c.freelist.pop()
        m.live[p] = some
    m.last_plan = (s, p, size, gfp, steps)
    return p


# --- new slabs ---------------------------------------------------------------------------------


def kmalloc_fix_flags(m: Machine, gfp: int) -> int:
    """Take bits out of a mask that a slab's pages must not have, and say so. Kernel: mm/slab_common.c."""
    invalid = gfp & GFP_SLAB_BUG_MASK
    gfp &= ~GFP_SLAB_BUG_MASK
    m.printk(
        f"Unexpected gfp: {invalid:#x} ({show_gfp_flags(invalid)}). "
        f"Fixing up to gfp: {gfp:#x} ({show_gfp_flags(gfp)}). Fix your code!\n{m.cpu_line()}"
    )
    return gfp


def new_slab(m: Machine, s: KmemCache, gfp: int) -> Slab | None:
    """Pages for a slab, cut into objects, constructed; the smallest order when the wanted one is not there.

    Kernel: new_slab, allocate_slab.
    """
    if gfp & GFP_SLAB_BUG_MASK:
        gfp = kmalloc_fix_flags(m, gfp)
    if s.ctor and gfp & 0x100 and m.warn_once("ctor and zero"):
        m.warn("mm/slub.c:2001 ___slab_alloc+0x365/0x990")
    flags = gfp & (GFP_RECLAIM_MASK | GFP_CONSTRAINT_MASK) | s.allocflags
    first = (flags | 0x2000 | 0x10000) & ~0x8000
    if first & 0x400 and s.order > s.min_order:
        first = (first | 0x80000) & ~0xC00
    order, page = s.order, m.slab_pages.alloc(m, first, s.order)
    if not page:
        order, page = s.min_order, m.slab_pages.alloc(m, flags, s.min_order)
        if not page:
            _slab_out_of_memory(m, s, gfp)
            return None
    slab = Slab(s, page, order, m.kernel.page_offset + (page.pfn << 12))
    m.slabs.update(dict.fromkeys(range(page.pfn, page.pfn + (1 << order)), slab))
    m.steps.append((slab_step, "new_slab", slab, 0, slab.objects))
    slub_debug.setup_slab_debug(m, s, slab)
    objects = [slab.object_at(index) for index in _first_order(m, s, slab)]
    for p in objects:
        slub_debug.setup_object_debug(m, s, p)
        if s.ctor:
            s.ctor(p)
    if s.debug:
        slub_debug.link(m, s, slab, objects)
    else:
        slab.freelist = objects[::-1]
    s.nr_slabs += 1
    s.total_objects += slab.objects
    return slab


def _first_order(m: Machine, s: KmemCache, slab: Slab) -> list[int]:
    """Objects of a fresh slab in the order of its list: the ring, entered anywhere. Kernel: shuffle_freelist."""
    ring = s.random_seq
    if slab.objects < 2 or ring is None:
        return list(range(slab.objects))
    at = m.slab_pages.start(m, len(ring))
    return [index for index in ring[at:] + ring[:at] if index < slab.objects]


def _slab_out_of_memory(m: Machine, s: KmemCache, gfp: int) -> None:
    if gfp & 0x2000 or not m.warn_once("slub oom"):
        return
    free = sum(slab.objects - slab.inuse for slab in s.partial)
    m.printk(
        f"SLUB: Unable to allocate memory on node -1, gfp={gfp:#x}({show_gfp_flags(gfp)})\n"
        f"  cache: {s.name}, object size: {s.object_size}, buffer size: {s.size}, default order: {s.order}, "
        f"min order: {s.min_order}\n  node 0: slabs: {s.nr_slabs}, objs: {s.total_objects}, free: {free}"
    )


# --- free ----------------------------------------------------------------------------------------


def slab_free(m: Machine, s: KmemCache, slab: Slab, objects: Sequence[Address]) -> None:
    """Give objects of one slab back; the last of them is the next one given. Kernel: do_slab_free."""
    c = s.cpu_slab[m._cpu]
    if c.slab is not slab:
        return __slab_free(m, s, slab, objects)
    _no_double(m, c.freelist, objects)
    c.freelist.extend(objects)
    m.steps.append((slab_step, "free_fastpath", slab, objects[-1], len(c.freelist)))
    return None


def kfree(m: Machine, p: int) -> None:
    """Give memory from kmalloc back; NULL and ZERO_SIZE_PTR are ignored. Kernel: kfree, mm/slab_common.c.

    Errors: what the kernel does; mostly nothing, see ``m.check()``.
    """
    slab = m.live.pop(p, None) if m.slab_fast else None
    if slab is None:
        m.kfree_slowly(p)
        return
    # slab_free of one object that somebody owned, while nobody listens and memory holds no bytes.
    if p.__class__ is not Address:
        p = Address(p)
    m.calls += 1
    s = slab.cache
    c = s.cpu_slab[m._cpu]
    if c.slab is slab:
        c.freelist.append(p)
        m.last_plan = (s, p, -1, 0)
        return
    freelist = slab.freelist
    had_free = len(freelist)
    freelist.append(p)
    slab.inuse = inuse = slab.inuse - 1
    if slab.frozen or (had_free and inuse):
        m.last_plan = (s, p, -1, 0)
        return
    if not had_free:  # it was full and on no list
        slab.frozen = True
        partial = c.partial
        if len(partial) < s.cpu_partial_slabs:  # put_cpu_partial, its most frequent way written out
            partial.append(slab)
            m.last_plan = (s, p, -1, 0, slab)
            return
    m.steps = steps = [(slab_step, "free_slowpath", slab, p, slab.objects - inuse)]
    if not had_free:
        put_cpu_partial(m, s, c, slab)
    elif len(s.partial) >= s.min_partial:
        del s.partial[slab]
        discard_slab(m, s, slab)
    m.last_plan = (s, p, -1, 0, steps)


def _no_double(m: Machine, freelist: list[Address], objects: Sequence[Address]) -> None:
    """A hardened free list notices an object that would point to itself. Kernel: set_freepointer."""
    if freelist and freelist[-1] == objects[0]:
        raise KernelBug(m.oops("kernel BUG at mm/slub.c:419!\ninvalid opcode: 0000 [#1] PREEMPT SMP NOPTI", cut=True))


def __slab_free(m: Machine, s: KmemCache, slab: Slab, objects: Sequence[Address]) -> None:
    """Free to a slab that is not this CPU's cpu slab; it may then change its list, or go."""
    if s.debug:
        return slub_debug.free_to_partial_list(m, s, slab, objects, discard_slab)
    _no_double(m, slab.freelist, objects)
    had_free, was_frozen = bool(slab.freelist), slab.frozen
    slab.freelist.extend(objects)
    slab.inuse -= len(objects)
    m.steps.append((slab_step, "free_slowpath", slab, objects[-1], slab.objects - slab.inuse))
    if was_frozen:
        return None
    if not had_free:
        slab.frozen = True  # it was full and on no list
        put_cpu_partial(m, s, s.cpu_slab[m._cpu], slab)
    elif not slab.inuse and s.nr_partial >= s.min_partial:
        del s.partial[slab]
        discard_slab(m, s, slab)
    return None


def put_cpu_partial(m: Machine, s: KmemCache, c: KmemCacheCpu, slab: Slab) -> None:
    """Put a slab on the CPU's partial list; a full list goes to the node's as a whole first."""
    old = None
    if len(c.partial) >= s.cpu_partial_slabs:
        old, c.partial = c.partial, []
    c.partial.append(slab)
    m.steps.append((slab_step, "put_cpu_partial", slab, 0, len(c.partial)))
    if old is not None:
        __unfreeze_partials(m, s, old)


def __unfreeze_partials(m: Machine, s: KmemCache, slabs: list[Slab]) -> None:
    """Move slabs of a CPU's partial list to the tail of the node's; empty ones go when that has enough."""
    empty, node, steps = [], s.partial, m.steps
    for slab in reversed(slabs):
        slab.frozen = False
        if not slab.inuse and len(node) >= s.min_partial:
            empty.append(slab)
        else:
            node[slab] = None
            steps.append((slab_step, "to_node_partial", slab, 0, len(node)))
    for slab in reversed(empty):
        discard_slab(m, s, slab)


def deactivate_slab(m: Machine, s: KmemCache, slab: Slab, freelist: list[Address]) -> None:
    """Take a cpu slab out of use: its CPU's list goes in front of its own, it goes where it belongs now."""
    to_tail = bool(slab.freelist)
    slab.inuse -= len(freelist)
    slab.freelist = slab.freelist + freelist
    slab.frozen = False
    if not slab.inuse and s.nr_partial >= s.min_partial:
        discard_slab(m, s, slab)
    elif slab.freelist:
        s.partial[slab] = None
        if not to_tail:
            s.partial.move_to_end(slab, last=False)
        m.steps.append((slab_step, "to_node_partial", slab, 0, s.nr_partial))
    elif s.flags & SLAB_STORE_USER:
        s.full[slab] = None


def flush_all(m: Machine, s: KmemCache) -> None:
    """Empty every CPU's part of a cache to the node's list. Kernel: flush_all_cpus_locked, flush_cpu_slab."""
    for c in s.cpu_slab:
        slab, freelist = c.slab, c.freelist
        c.slab, c.freelist = None, []
        if slab is not None:
            deactivate_slab(m, s, slab, freelist)
        partial, c.partial = c.partial, []
        __unfreeze_partials(m, s, partial)


def discard_slab(m: Machine, s: KmemCache, slab: Slab) -> None:
    """Give a slab's pages back; with SLAB_TYPESAFE_BY_RCU after a grace period. Kernel: discard_slab, free_slab."""
    s.nr_slabs -= 1
    s.total_objects -= slab.objects
    m.steps.append((slab_step, "discard_slab", slab, 0, slab.objects))
    if s.flags & SLAB_TYPESAFE_BY_RCU:
        m.rcu_slabs.append(slab)
    else:
        _free_slab(m, slab)


def _free_slab(m: Machine, slab: Slab) -> None:
    slub_debug.check_slab_at_end(m, slab.cache, slab)
    for pfn in range(slab.pfn, slab.pfn + (1 << slab.order)):
        m.slabs.pop(pfn, None)
    m.slab_pages.free(m, slab.page, slab.order)
    m.lru.reclaimed_slab += 1 << slab.order


def rcu_barrier(m: Machine) -> None:
    """Wait for a grace period: slabs of SLAB_TYPESAFE_BY_RCU caches go now. Kernel: rcu_barrier, kernel/rcu/tree.c."""
    pending, m.rcu_slabs = m.rcu_slabs, []
    for slab in pending:
        _free_slab(m, slab)


def __kmem_cache_do_shrink(m: Machine, s: KmemCache) -> bool:
    """Free empty slabs and sort the others, fullest first; True if slabs are left."""
    flush_all(m, s)
    empty: list[Slab] = []
    promote: list[list[Slab]] = [[] for _ in range(SHRINK_PROMOTE_MAX)]
    rest: list[Slab] = []
    for slab in s.partial:
        free = slab.objects - slab.inuse
        (empty if not slab.inuse else promote[free - 1] if free <= SHRINK_PROMOTE_MAX else rest).append(slab)
    s.partial.clear()
    for group in promote:
        s.partial.update(dict.fromkeys(reversed(group)))
    s.partial.update(dict.fromkeys(rest))
    for slab in reversed(empty):
        discard_slab(m, s, slab)
    return s.nr_slabs > 0
