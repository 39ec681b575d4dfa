"""Slab caches by name: create, merge, allocate, free, shrink, destroy.

Kernel: mm/slab_common.c and mm/slub.c, the functions of the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kmemlab import slub_debug, slub_report
from kmemlab.address import Address
from kmemlab.boot_caches import BOOT_CACHES
from kmemlab.context import might_sleep
from kmemlab.events import KmemCacheAlloc, KmemCacheFree
from kmemlab.null import NULL, KernelBug, Null
from kmemlab.size_classes import LADDERS
from kmemlab.slub import (
    __kmem_cache_do_shrink,
    discard_slab,
    flush_all,
    kfree,
    rcu_barrier,
    refill,
    slab_alloc,
    slab_free,
)
from kmemlab.slub_def import (
    KMALLOC_MAX_SIZE,
    SLAB_ACCOUNT,
    SLAB_CACHE_DMA,
    SLAB_FLAGS_PERMITTED,
    SLAB_KMALLOC,
    SLAB_MERGE_SAME,
    SLAB_NEVER_MERGE,
    SLAB_PANIC,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_TYPESAFE_BY_RCU,
    KmemCache,
    Slab,
    align_up,
    calculate_alignment,
)

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "KMEM_CACHE",
    "boot_slab_caches",
    "find_mergeable",
    "free_objects",
    "kmem_cache_alloc",
    "kmem_cache_alloc_bulk",
    "kmem_cache_create",
    "kmem_cache_destroy",
    "kmem_cache_flags",
    "kmem_cache_free",
    "kmem_cache_free_bulk",
    "kmem_cache_shrink",
    "kmem_cache_size",
    "kmem_cache_zalloc",
    "validate_slab_cache",
]

FAMILY_FLAGS = {"normal": 0, "rcl": SLAB_RECLAIM_ACCOUNT, "cg": SLAB_ACCOUNT, "dma": SLAB_CACHE_DMA}


# --- creation ------------------------------------------------------------------------------------


def kmem_cache_flags(m: Machine, flags: int, name: str) -> int:
    """The flags of a new cache with what slub_debug= adds for its name. Kernel: mm/slub.c."""
    for letters, names in m.slub_debug:
        for each in names:
            if name.startswith(each[:-1]) if each.endswith("*") else name == each:
                return flags | letters
    return flags | m.slub_debug_all


def find_mergeable(
    m: Machine, size: int, align: int, flags: int, name: str, ctor: Callable[[Address], object] | None
) -> KmemCache | None:
    """The oldest cache that a new one can share, None if there is none. Kernel: find_mergeable, mm/slab_common.c."""
    if m.slab_nomerge or ctor:
        return None
    size = align_up(size, 8)
    align = calculate_alignment(flags, align, size)
    size = align_up(size, align)
    flags = kmem_cache_flags(m, flags, name)
    if flags & SLAB_NEVER_MERGE:
        return None
    for s in m.slab_caches:
        if s.alone or s.ctor or s.flags & SLAB_NEVER_MERGE:
            continue
        if size > s.size or s.size - size >= 8 or s.size & align - 1:
            continue
        if not (flags ^ s.flags) & SLAB_MERGE_SAME:
            return s
    return None


def _create_cache(
    m: Machine,
    caches: list[KmemCache],
    name: str,
    size: int,
    align: int,
    flags: int,
    ctor: Callable[[Address], object] | None = None,
) -> KmemCache | None:
    s = KmemCache(name, size, align, kmem_cache_flags(m, flags, name), ctor)
    if not s.open(m.cpus, max_order=m.slub_max_order, min_objects=m.slub_min_objects, lean=m.slub_debug_lean):
        return None
    s.random = m.prandom()
    if s.debug and not m.debug_caches:
        m.debug_caches = True
        m._listen()  # objects are looked at one by one from now on
    if m.freelist_random:
        ring = list(range(s.objects))
        for i in range(len(ring) - 1, 0, -1):  # Kernel: freelist_randomize, mm/slab_common.c
            at = m.prandom() % (i + 1)
            ring[i], ring[at] = ring[at], ring[i]
        s.random_seq = ring
    caches.append(s)
    return s


def boot_slab_caches(m: Machine, caches: list[KmemCache]) -> None:
    """Create the caches every Debian 6.1 has, the kmalloc caches among them. Kernel: kmem_cache_init and many more."""
    for row in BOOT_CACHES.split("\n"):
        if row == "KMALLOC":
            _create_kmalloc_caches(m, caches)
        elif row:
            name, size, grown, align, flags, joined = row.split()
            s = _create_cache(m, caches, name, int(size), int(align) or 8, int(flags, 16))
            assert s is not None
            s.alone = joined == "-"
            s.refcount = 1 if s.alone else int(joined)
            s.object_size, s.inuse = int(grown), align_up(int(grown), 8)


def _create_kmalloc_caches(m: Machine, caches: list[KmemCache]) -> None:
    """Kernel: create_kmalloc_caches. Powers of two are aligned to their size."""
    ladder = LADDERS["linux-6.1"]
    for family, _ in ladder.prefixes:
        for size in ladder.classes:
            name = ladder.cache_name(size, family)
            assert name is not None
            align = size if size & size - 1 == 0 else 8
            s = _create_cache(m, caches, name, size, align, FAMILY_FLAGS[family] | SLAB_KMALLOC)
            assert s is not None
            s.alone = True  # their whole object may be copied to user space
            if family == "normal":
                s.refcount = -1
            m.kmalloc_caches[family, size] = s


def kmem_cache_create(
    m: Machine,
    name: str,
    size: int,
    align: int = 0,
    flags: int = 0,
    ctor: Callable[[Address], object] | None = None,
) -> KmemCache | Null:
    """A cache for objects of ``size`` bytes, or one that looks alike and exists already; NULL on error.

    ``ctor(address)`` runs for every object of a slab when the slab is built.
    Kernel: kmem_cache_create, mm/slab_common.c. Errors: what the kernel does, a report and NULL; KernelBug for
    size 0 and with SLAB_PANIC.

    >>> from kmemlab import Machine
    >>> m = Machine("linux-6.1", memory="64M")
    >>> m.kmem_cache_create("scullc", 4000, 0, 0x2000, None).size
    4032
    """
    _check_create(m, name, size, align, flags, ctor)
    might_sleep(m, "kernel/locking/mutex.c:283")
    wrong = bool(flags & ~SLAB_FLAGS_PERMITTED)
    if m.context.in_interrupt and "DEBUG_VM" in m.config:  # kmem_cache_sanity_check
        m.printk(f"kmem_cache_create({name}) integrity check failed")
        wrong = True
    if not wrong:
        s = find_mergeable(m, size, align, flags, name, ctor)
        if s is not None:
            s.refcount += 1
            s.object_size = max(s.object_size, size)
            s.inuse = max(s.inuse, align_up(size, 8))
            s.aliases.append(name)
            m.changes += 1
            return s
        if size <= KMALLOC_MAX_SIZE:
            s = _create_cache(m, m.slab_caches, name, size, calculate_alignment(flags, align, size), flags, ctor)
            if s is not None:
                m.changes += 1
                return s
    what = "kmem_cache_create_usercopy"
    if flags & SLAB_PANIC:
        text = f"Kernel panic - not syncing: {what}: Failed to create slab '{name}'. Error -22"
        raise KernelBug(m.oops(text))
    m.printk(f"{what}({name}) failed with error -22\n{m.cpu_line()}")
    return NULL


def _check_create(m: Machine, name: object, size: object, align: object, flags: object, ctor: object) -> None:
    """What a compiler would not let pass, and what makes the kernel stop."""
    if isinstance(name, Null) or name is None:
        raise KernelBug(m.oops("BUG: kernel NULL pointer dereference, address: 0000000000000000"))
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError(f"kmem_cache_create: name must be a printable text, not {name!r}")
    for what, value in (("size", size), ("align", align), ("flags", flags)):
        if not isinstance(value, int) or not 0 <= value < 1 << 32:
            raise ValueError(f"kmem_cache_create: {what} must be a number from 0 to 2**32-1, not {value!r}")
    if isinstance(align, int) and align & align - 1:
        raise ValueError(f"kmem_cache_create: align={align}: the model knows powers of two only")
    if ctor is not None and not callable(ctor):
        raise ValueError(f"kmem_cache_create: ctor must be a function of an address or None, not {ctor!r}")
    if size == 0 and not (isinstance(flags, int) and flags & SLAB_TYPESAFE_BY_RCU):
        raise KernelBug(m.oops("divide error: 0000 [#1] PREEMPT SMP NOPTI"))


def KMEM_CACHE(m: Machine, struct: str, size: int, flags: int = 0) -> KmemCache | Null:  # noqa: N802 - the kernel's name
    """A cache named after a struct of ``size`` bytes. Kernel: KMEM_CACHE, include/linux/slab.h."""
    return kmem_cache_create(m, struct, size, 8, flags)


# --- allocation ------------------------------------------------------------------------------------


def kmem_cache_alloc(m: Machine, s: KmemCache, gfp: int) -> Address | Null:
    """One object of the cache, or NULL. Kernel: kmem_cache_alloc, mm/slub.c."""
    if m.slab_fast and s.__class__ is KmemCache:
        c = s.cpu_slab[m._cpu]
        freelist = c.freelist
        if not freelist:
            return refill(m, s, c, s.object_size, gfp)
        p = freelist.pop()
        m.live[p] = c.slab  # type: ignore[assignment]  # a list that is not empty has its slab
        m.calls += 1
        m.last_plan = (s, p, s.object_size, gfp)
        return p
    _check_cache("kmem_cache_alloc", s)
    m.begin_slab_call()
    p_or_null = slab_alloc(m, s, gfp, s.object_size)
    m.end_slab_call((s, p_or_null, s.object_size, gfp))
    if m.events.subscribers:
        m.events.emit(KmemCacheAlloc(*m.alloc_fields(p_or_null, s.object_size, s.size, gfp, s)))
    return p_or_null


def _check_cache(what: str, s: object) -> None:
    if isinstance(s, Null):
        raise KernelBug(f"BUG: kernel NULL pointer dereference in {what}: kmem_cache_create had returned NULL")
    if not isinstance(s, KmemCache):
        raise TypeError(f"{what} wants a cache from kmem_cache_create, not {s!r}")


def kmem_cache_zalloc(m: Machine, s: KmemCache, gfp: int) -> Address | Null:
    """One object full of zeros, or NULL. Kernel: kmem_cache_zalloc, include/linux/slab.h."""
    return kmem_cache_alloc(m, s, gfp | 0x100)


def kmem_cache_alloc_bulk(m: Machine, s: KmemCache, gfp: int, size: int) -> list[Address]:
    """``size`` objects at once, or none at all (an empty list). Kernel: kmem_cache_alloc_bulk, mm/slub.c."""
    _check_cache("kmem_cache_alloc_bulk", s)
    objects: list[Address] = []
    m.begin_slab_call()
    for _ in range(size):
        p = slab_alloc(m, s, gfp, s.object_size)
        if isinstance(p, Null):
            kmem_cache_free_bulk(m, s, objects)
            return []
        objects.append(p)
    m.end_slab_call((s, objects[-1] if objects else NULL, s.object_size, gfp))
    return objects


def kmem_cache_free(m: Machine, s: KmemCache, p: Address) -> None:
    """Give an object back to its cache. Kernel: kmem_cache_free, mm/slub.c.

    Errors: an object of another cache is reported and goes to its own; what is no object stops the kernel.
    """
    if m.slab_fast:
        slab = m.live.get(p)
        if slab is not None and slab.cache is s:
            kfree(m, p)
            return
    _check_cache("kmem_cache_free", s)
    slab = m.virt_to_slab(p)
    if slab is None:
        raise KernelBug(m.oops(f"BUG: unable to handle page fault for address: {m.struct_page_of(p):016x}"))
    if slab.cache is not s:
        text = f"cache_from_obj: Wrong slab cache. {s.name} but object is from {slab.cache.name}"
        m.printk(f"------------[ cut here ]------------\n{text}")
        m.warn("mm/slab.h:665 cache_from_obj+0xa1/0x120", cut=False)
        if tracks := slub_report.print_tracking(m, slab.cache, slab, p):
            m.printk("\n".join(tracks))
    if m.events.subscribers:
        m.events.emit(KmemCacheFree(m.call_site, p, slab.cache.name))
    free_objects(m, slab, [p])


def free_objects(m: Machine, slab: Slab, objects: Sequence[int]) -> None:
    """Free objects of one slab; the last one is the next one given."""
    m.begin_slab_call()
    s, given = slab.cache, [p if p.__class__ is Address else Address(p) for p in objects]
    wrong = [p for p in given if m.live.pop(p, None) is None] if not s.debug else []
    if wrong:
        m.note_bad_free(slab, wrong)
    before = m.slab_errors
    slab_free(m, s, slab, given)
    if s.debug and m.slab_errors == before:
        for p in given:
            m.live.pop(p, None)
    m.end_slab_call((s, given[-1], -1, 0))


def kmem_cache_free_bulk(m: Machine, s: KmemCache, objects: Sequence[Address]) -> None:
    """Give objects back in groups of one slab, last first. Kernel: kmem_cache_free_bulk, build_detached_freelist."""
    _check_cache("kmem_cache_free_bulk", s)
    rest = list(objects)
    while rest:
        slab = m.virt_to_slab(rest[-1])
        if slab is None:
            raise KernelBug(m.oops(f"BUG: unable to handle page fault for address: {m.struct_page_of(rest[-1]):016x}"))
        group, size, same, lookahead = [rest[-1]], len(rest) - 1, len(rest) - 1, 3
        while size:
            size -= 1
            if m.virt_to_slab(rest[size]) is slab:
                group.append(rest[size])
                same -= 1
                rest[size], rest[same] = rest[same], rest[size]
            else:
                lookahead -= 1
                if not lookahead:
                    break
        free_objects(m, slab, group)
        del rest[same:]


def kmem_cache_size(m: Machine, s: KmemCache) -> int:
    """The object size of a cache, in bytes. Kernel: kmem_cache_size, mm/slab_common.c."""
    return s.object_size


# --- giving memory back ------------------------------------------------------------------------------


def kmem_cache_shrink(m: Machine, s: KmemCache) -> int:
    """Give empty slabs back now; 0 if no slab is left, else 1. Kernel: kmem_cache_shrink, mm/slab_common.c."""
    _check_cache("kmem_cache_shrink", s)
    m.begin_slab_call()
    left = int(__kmem_cache_do_shrink(m, s))
    m.end_slab_call((s, NULL, -2, 0))
    return left


def kmem_cache_destroy(m: Machine, s: KmemCache) -> None:
    """Destroy a cache, unless others share it; objects still in use are reported and the cache stays.

    Kernel: kmem_cache_destroy, mm/slab_common.c. NULL is ignored.
    """
    if isinstance(s, Null) or s is None:
        return
    _check_cache("kmem_cache_destroy", s)
    might_sleep(m, "include/linux/percpu-rwsem.h:49")
    if m.irqs_disabled():
        raise KernelBug(m.oops("kernel BUG at mm/slub.c:4425!\ninvalid opcode: 0000 [#1] PREEMPT SMP NOPTI", cut=True))
    m.begin_slab_call()
    m.changes += 1
    s.refcount -= 1
    if s.refcount > 0:
        if s.aliases:
            s.aliases.pop()
        return
    flush_all(m, s)
    for slab in list(s.partial):
        if slab.inuse:
            slub_report.list_slab_objects(m, s, slab, set(m.free_objects_of(slab)))
        else:
            del s.partial[slab]
            discard_slab(m, s, slab)
    if s.nr_slabs:
        text = f"kmem_cache_destroy {s.name}: Slab cache still has objects when called from {m.call_site}"
        m.printk(f"------------[ cut here ]------------\n{text}")
        m.warn("mm/slab_common.c:493 kmem_cache_destroy+0x141/0x150", cut=False)
    elif s in m.slab_caches:
        m.slab_caches.remove(s)
        if s.flags & SLAB_TYPESAFE_BY_RCU:
            rcu_barrier(m)
    m.end_slab_call((s, NULL, -3, 0))


def validate_slab_cache(m: Machine, s: KmemCache) -> int:
    """Check every object of a debug cache; the number of errors found. Kernel: validate_slab_cache, mm/slub.c."""
    _check_cache("validate_slab_cache", s)
    return slub_debug.validate_slab_cache(m, s, flush_all)
