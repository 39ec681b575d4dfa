"""What a slab cache is: its fields, how large an object becomes, how many fit into a slab.

Kernel: include/linux/slab.h, include/linux/slub_def.h, mm/slab.h, mm/slub.c (calculate_sizes,
calculate_order, set_cpu_partial), mm/slab_common.c (calculate_alignment).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from kmemlab.address import Address

__all__ = [
    "CMPXCHG_DOUBLE",
    "OBJECT_POISON",
    "SLAB_ACCOUNT",
    "SLAB_CACHE_DMA",
    "SLAB_CACHE_DMA32",
    "SLAB_CONSISTENCY_CHECKS",
    "SLAB_DEBUG_FLAGS",
    "SLAB_FLAGS",
    "SLAB_FLAGS_PERMITTED",
    "SLAB_HWCACHE_ALIGN",
    "SLAB_KMALLOC",
    "SLAB_MERGE_SAME",
    "SLAB_NEVER_MERGE",
    "SLAB_PANIC",
    "SLAB_POISON",
    "SLAB_RECLAIM_ACCOUNT",
    "SLAB_RED_ZONE",
    "SLAB_STORE_USER",
    "SLAB_TRACE",
    "SLAB_TYPESAFE_BY_RCU",
    "KmemCache",
    "KmemCacheCpu",
    "Slab",
    "calculate_alignment",
    "calculate_order",
]

SLAB_FLAGS = {
    "SLAB_CONSISTENCY_CHECKS": 0x100,
    "SLAB_RED_ZONE": 0x400,
    "SLAB_POISON": 0x800,
    "SLAB_KMALLOC": 0x1000,
    "SLAB_HWCACHE_ALIGN": 0x2000,
    "SLAB_CACHE_DMA": 0x4000,
    "SLAB_CACHE_DMA32": 0x8000,
    "SLAB_STORE_USER": 0x10000,
    "SLAB_RECLAIM_ACCOUNT": 0x20000,
    "SLAB_PANIC": 0x40000,
    "SLAB_TYPESAFE_BY_RCU": 0x80000,
    "SLAB_MEM_SPREAD": 0x100000,
    "SLAB_TRACE": 0x200000,
    "SLAB_NOLEAKTRACE": 0x800000,
    "SLAB_ACCOUNT": 0x4000000,
    "SLAB_NO_USER_FLAGS": 0x10000000,
}
SLAB_CONSISTENCY_CHECKS = SLAB_FLAGS["SLAB_CONSISTENCY_CHECKS"]
SLAB_RED_ZONE = SLAB_FLAGS["SLAB_RED_ZONE"]
SLAB_POISON = SLAB_FLAGS["SLAB_POISON"]
SLAB_KMALLOC = SLAB_FLAGS["SLAB_KMALLOC"]
SLAB_HWCACHE_ALIGN = SLAB_FLAGS["SLAB_HWCACHE_ALIGN"]
SLAB_CACHE_DMA = SLAB_FLAGS["SLAB_CACHE_DMA"]
SLAB_CACHE_DMA32 = SLAB_FLAGS["SLAB_CACHE_DMA32"]
SLAB_STORE_USER = SLAB_FLAGS["SLAB_STORE_USER"]
SLAB_RECLAIM_ACCOUNT = SLAB_FLAGS["SLAB_RECLAIM_ACCOUNT"]
SLAB_PANIC = SLAB_FLAGS["SLAB_PANIC"]
SLAB_TYPESAFE_BY_RCU = SLAB_FLAGS["SLAB_TYPESAFE_BY_RCU"]
SLAB_TRACE = SLAB_FLAGS["SLAB_TRACE"]
SLAB_ACCOUNT = SLAB_FLAGS["SLAB_ACCOUNT"]
CMPXCHG_DOUBLE = 0x40000000  # the allocator's own bits: the lockless fast path,
OBJECT_POISON = 0x80000000  # and poison inside the object

SLAB_DEBUG_FLAGS = SLAB_CONSISTENCY_CHECKS | SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE
SLAB_FLAGS_PERMITTED = sum(SLAB_FLAGS.values()) & ~SLAB_KMALLOC
SLAB_NEVER_MERGE = (
    SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER | SLAB_TRACE | SLAB_TYPESAFE_BY_RCU | SLAB_FLAGS["SLAB_NOLEAKTRACE"]
)
SLAB_MERGE_SAME = SLAB_RECLAIM_ACCOUNT | SLAB_CACHE_DMA | SLAB_CACHE_DMA32 | SLAB_ACCOUNT
METADATA_FLAGS = SLAB_RED_ZONE | SLAB_POISON | SLAB_STORE_USER

WORD = 8
CACHE_LINE = 64
PAGE_SIZE = 4096
MAX_OBJS_PER_PAGE = 32767
TRACK = 32  # bytes of struct track
KMALLOC_MAX_SIZE = 4 << 20


def align_up(n: int, align: int) -> int:
    """``n`` rounded up to a multiple of ``align``."""
    return -(-n // align) * align


def _get_order(size: int) -> int:
    return max(0, (size - 1 >> 12).bit_length())


def calculate_alignment(flags: int, align: int, size: int) -> int:
    """The alignment of a cache's objects, in bytes. Kernel: calculate_alignment, mm/slab_common.c.

    >>> calculate_alignment(SLAB_HWCACHE_ALIGN, 0, 20), calculate_alignment(SLAB_HWCACHE_ALIGN, 0, 72)
    (32, 64)
    """
    if flags & SLAB_HWCACHE_ALIGN:
        line = CACHE_LINE
        while size <= line // 2:
            line //= 2
        align = max(align, line)
    return align_up(max(align, WORD), WORD)


def _slab_order(size: int, min_objects: int, max_order: int, fraction: int) -> int:
    if PAGE_SIZE // size > MAX_OBJS_PER_PAGE:
        return _get_order(size * MAX_OBJS_PER_PAGE) - 1
    order = _get_order(min_objects * size)
    while order <= max_order and (PAGE_SIZE << order) % size > (PAGE_SIZE << order) // fraction:
        order += 1
    return order


def calculate_order(size: int, cpus: int, max_order: int = 3, min_objects: int = 0) -> int:
    """The order of a cache's slabs for a stride of ``size`` bytes; -1 where none is large enough.

    Kernel: calculate_order, mm/slub.c. Waste of a sixteenth is sought first, then an eighth, then a quarter,
    then with fewer objects.

    >>> [calculate_order(size, 1) for size in (64, 512, 1024, 4096)], calculate_order(512, 4)
    ([0, 0, 1, 3], 1)
    """
    wanted = min_objects or 4 * (cpus.bit_length() + 1)
    wanted = min(wanted, (PAGE_SIZE << max_order) // size)
    while wanted > 1:
        for fraction in (16, 8, 4):
            order = _slab_order(size, wanted, max_order, fraction)
            if order <= max_order:
                return order
        wanted -= 1
    for most in (max_order, 10):
        order = _slab_order(size, 1, most, 1)
        if order <= most:
            return order
    return -1


class Slab:
    """One slab: ``2**order`` pages cut into objects. ``freelist`` has the next object at its end.

    A debug cache keeps its free list where the kernel does, in the objects' own bytes; ``fp`` is then its
    first object, 0 for none. Kernel: struct slab, mm/slab.h.
    """

    __slots__ = ("address", "cache", "fp", "freelist", "frozen", "inuse", "objects", "order", "page", "pfn",
                 "tracks")  # fmt: skip

    def __init__(self, cache: KmemCache, page: Any, order: int, address: int) -> None:
        self.cache = cache
        self.page = page
        self.pfn: int = page.pfn
        self.order = order
        self.address = address  # of its first byte
        self.objects = (PAGE_SIZE << order) // cache.size
        self.inuse = 0
        self.frozen = False
        self.freelist: list[Address] = []
        self.fp = 0
        self.tracks: dict[tuple[int, str], tuple[str, int, int]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Slab:
        """The same slab of another machine; its page is for that machine to set."""
        twin = memo[id(self)] = Slab.__new__(Slab)
        for name in Slab.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.page = None
        twin.cache = copy.deepcopy(self.cache, memo)
        twin.freelist, twin.tracks = self.freelist.copy(), self.tracks.copy()
        return twin

    def object_at(self, index: int) -> Address:
        """The address of object ``index``."""
        return Address(self.address + self.cache.red_left_pad + index * self.cache.size)

    def index_of(self, addr: int) -> int:
        """The index of the object at ``addr``, -1 if no object begins there."""
        index, rest = divmod(addr - self.address - self.cache.red_left_pad, self.cache.size)
        return index if not rest and 0 <= index < self.objects else -1

    def __repr__(self) -> str:
        return f"<Slab pfn {self.pfn} of {self.cache.name}: {self.inuse} of {self.objects} in use>"


class KmemCacheCpu:
    """One CPU's part of a cache. ``freelist`` and ``partial`` have the next one at their end.

    Kernel: struct kmem_cache_cpu, include/linux/slub_def.h.
    """

    __slots__ = ("freelist", "partial", "slab")

    def __init__(self) -> None:
        self.freelist: list[Address] = []
        self.slab: Slab | None = None
        self.partial: list[Slab] = []


class KmemCache:
    """A slab cache, with the kernel's fields; sizes in bytes. Kernel: struct kmem_cache, include/linux/slub_def.h."""

    __slots__ = (
        "aliases", "align", "allocflags", "alone", "cpu_partial", "cpu_partial_slabs", "cpu_slab", "ctor", "debug",
        "flags", "full", "inuse", "min_objects", "min_order", "min_partial", "name", "nr_slabs", "object_size",
        "objects", "offset", "order", "partial", "random", "random_seq", "red_left_pad", "refcount", "size",
        "total_objects",
    )  # fmt: skip

    def __init__(
        self, name: str, object_size: int, align: int, flags: int, ctor: Callable[[Address], object] | None
    ) -> None:
        self.name = name
        self.object_size = object_size
        self.align = align
        self.flags = flags
        self.ctor = ctor
        self.refcount = 1
        self.alone = False  # a usercopy region or the like: nobody joins
        self.aliases: list[str] = []
        self.random = 0
        self.random_seq: list[int] | None = None
        self.cpu_slab: list[KmemCacheCpu] = []
        self.partial: OrderedDict[Slab, None] = OrderedDict()  # head first
        self.full: OrderedDict[Slab, None] = OrderedDict()  # kept only with SLAB_STORE_USER
        self.nr_slabs = self.total_objects = 0

    def open(self, cpus: int, *, max_order: int = 3, min_objects: int = 0, lean: bool = False) -> bool:
        """Work out all sizes; False where the kernel gives -EINVAL. Kernel: kmem_cache_open, calculate_sizes.

        ``lean``: leave the debug data out where it would make the smallest slab larger (slub_debug=O).
        """
        if not self._calculate_sizes(cpus, max_order, min_objects):
            return False
        if lean and _get_order(self.size) > _get_order(self.object_size):
            self.flags &= ~METADATA_FLAGS
            if not self._calculate_sizes(cpus, max_order, min_objects):
                return False
        if not self.flags & (SLAB_CONSISTENCY_CHECKS | SLAB_STORE_USER | SLAB_TRACE):
            self.flags |= CMPXCHG_DOUBLE
        self.debug = bool(self.flags & SLAB_DEBUG_FLAGS)
        self.min_partial = max(5, min(10, (self.size.bit_length() - 1) // 2))
        size = self.size
        self.cpu_partial = 0 if self.debug else 6 if size >= PAGE_SIZE else 24 if size >= 1024 else 52
        if not self.debug and size < 256:
            self.cpu_partial = 120
        self.cpu_partial_slabs = -(-self.cpu_partial * 2 // self.objects)
        self.cpu_slab = [KmemCacheCpu() for _ in range(cpus)]
        return True

    def _calculate_sizes(self, cpus: int, max_order: int, min_objects: int) -> bool:
        flags, size = self.flags, align_up(self.object_size, WORD)
        poison_inside = flags & SLAB_POISON and not flags & SLAB_TYPESAFE_BY_RCU and not self.ctor
        self.flags = flags | OBJECT_POISON if poison_inside else flags & ~OBJECT_POISON
        if flags & SLAB_RED_ZONE and size == self.object_size:
            size += WORD
        self.inuse = size
        small = flags & SLAB_RED_ZONE and self.object_size < WORD
        if flags & (SLAB_TYPESAFE_BY_RCU | SLAB_POISON) or small or self.ctor:
            self.offset = size  # the free pointer may not lie inside the object
            size += WORD
        else:
            self.offset = self.object_size // 2 // WORD * WORD
        if flags & SLAB_STORE_USER:
            size += 2 * TRACK + (4 if flags & SLAB_KMALLOC else 0)
        self.red_left_pad = 0
        if flags & SLAB_RED_ZONE:
            self.red_left_pad = align_up(WORD, self.align)
            size += WORD + self.red_left_pad
        self.size = align_up(size, self.align)
        self.order = calculate_order(self.size, cpus, max_order, min_objects)
        if self.order < 0:
            return False
        self.allocflags = 0x40000 if self.order else 0
        for flag, gfp in ((SLAB_CACHE_DMA, 0x1), (SLAB_CACHE_DMA32, 0x4), (SLAB_RECLAIM_ACCOUNT, 0x10)):
            if flags & flag:
                self.allocflags |= gfp
        self.objects = (PAGE_SIZE << self.order) // self.size
        self.min_order = _get_order(self.size)
        self.min_objects = (PAGE_SIZE << self.min_order) // self.size
        return self.objects > 0

    @property
    def nr_partial(self) -> int:
        """Slabs on the node's partial list."""
        return len(self.partial)

    @property
    def info_end(self) -> int:
        """Where an object's debug data begins: behind the free pointer if that lies outside the object."""
        return self.inuse + WORD if self.offset >= self.inuse else self.inuse

    def __repr__(self) -> str:
        return f"<KmemCache {self.name}: {self.object_size} bytes, {self.objects} a slab of order {self.order}>"
