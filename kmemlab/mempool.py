"""Memory pools: a few elements set aside, so that whoever can wait is served in the end.

Kernel: mm/mempool.c, the functions of the same names; include/linux/mempool.h.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from kmemlab.context import might_alloc, might_sleep
from kmemlab.kmalloc import kfree, kmalloc, ksize
from kmemlab.null import NULL, KernelBug
from kmemlab.page_alloc import alloc_pages
from kmemlab.page_free import __free_pages
from kmemlab.slab_common import kmem_cache_alloc, kmem_cache_free
from kmemlab.task_events import LabPool
from kmemlab.wait import WaitOn, WaitQueue

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "MemPool",
    "mempool_alloc",
    "mempool_alloc_pages",
    "mempool_alloc_slab",
    "mempool_create",
    "mempool_create_kmalloc_pool",
    "mempool_create_page_pool",
    "mempool_create_slab_pool",
    "mempool_destroy",
    "mempool_exit",
    "mempool_free",
    "mempool_free_pages",
    "mempool_free_slab",
    "mempool_init",
    "mempool_kfree",
    "mempool_kmalloc",
    "mempool_resize",
]

GFP_KERNEL, DIRECT_RECLAIM, IO, ZERO = 0xCC0, 0x400, 0x40, 0x100
SOFTLY = 0x92000  # NOMEMALLOC | NORETRY | NOWARN: do not dig, do not insist, do not shout
POOL_SIZE, POINTER = 72, 8  # bytes of struct mempool_s and of a pointer, x86-64
RETRY_MS = 5000  # io_schedule_timeout(5*HZ)
ENOMEM = 12


class MemPool:
    """A pool: ``elements`` are its reserve, the last one is given first; ``wait`` is where those sleep who got none.

    ``alloc(gfp_mask, pool_data)`` returns an element or NULL, ``free(element, pool_data)`` takes it back.
    Kernel: struct mempool_s (mempool_t), include/linux/mempool.h.
    """

    __slots__ = ("address", "alloc", "array", "elements", "free", "min_nr", "pool_data", "wait")

    def __init__(self) -> None:
        self.min_nr = 0
        self.elements: list[Any] | None = None
        self.alloc: Callable[[int, Any], Any] = lambda gfp_mask, pool_data: NULL
        self.free: Callable[[Any, Any], object] = lambda element, pool_data: None
        self.pool_data: Any = None
        self.address: Any = NULL  # of the struct, if it came from mempool_create
        self.array: Any = NULL  # of the pointers to the elements
        self.wait = WaitQueue()

    @property
    def curr_nr(self) -> int:
        """Elements in the reserve."""
        return len(self.elements or ())

    def __repr__(self) -> str:
        return f"<mempool: {self.curr_nr} of {self.min_nr} in reserve>"


# --- life -------------------------------------------------------------------------------------------------------


def mempool_init(
    m: Machine,
    pool: MemPool,
    min_nr: int,
    alloc_fn: Callable[[int, Any], Any],
    free_fn: Callable[[Any, Any], object],
    pool_data: Any = None,
) -> int:
    """Fill a pool with ``min_nr`` elements, asked for with GFP_KERNEL; 0, or -12 (ENOMEM). Kernel: mempool_init_node.

    Errors: TypeError for a wrong argument.
    """
    if not isinstance(min_nr, int) or min_nr < 0:
        raise TypeError(f"mempool: min_nr is a number of elements, not {min_nr!r}")
    for name, fn in (("alloc_fn", alloc_fn), ("free_fn", free_fn)):
        if not callable(fn):
            raise TypeError(f"mempool: {name} must be a function of two arguments, not {fn!r}")
    pool.min_nr, pool.alloc, pool.free, pool.pool_data = min_nr, alloc_fn, free_fn, pool_data
    pool.array = kmalloc(m, min_nr * POINTER, GFP_KERNEL)
    if not pool.array:
        return -ENOMEM
    pool.elements = []
    while pool.curr_nr < min_nr:
        element = alloc_fn(GFP_KERNEL, pool_data)
        if not element:
            mempool_exit(m, pool)
            return -ENOMEM
        _add_element(m, pool, element)
    return 0


def mempool_exit(m: Machine, pool: MemPool) -> None:
    """Give back what is in the reserve; elements that are out are not asked for. Kernel: mempool_exit."""
    while pool.elements:
        pool.free(_remove_element(m, pool), pool.pool_data)
    pool.elements = None
    kfree(m, pool.array)
    pool.array = NULL
    _tell(m, pool, "destroy")


def mempool_create(
    m: Machine,
    min_nr: int,
    alloc_fn: Callable[[int, Any], Any],
    free_fn: Callable[[Any, Any], object],
    pool_data: Any = None,
) -> Any:
    """A pool with ``min_nr`` elements in reserve, or NULL. Kernel: mempool_create."""
    pool = MemPool()
    pool.address = kmalloc(m, POOL_SIZE, GFP_KERNEL | ZERO)
    if not pool.address:
        return NULL
    if mempool_init(m, pool, min_nr, alloc_fn, free_fn, pool_data):
        kfree(m, pool.address)
        return NULL
    return pool


def mempool_destroy(m: Machine, pool: Any) -> None:
    """Free a pool and its reserve; NULL is ignored. Elements that are out are not counted: 2.6.11 stopped with a BUG.

    Kernel: mempool_destroy.
    """
    if not pool:
        return
    mempool_exit(m, pool)
    kfree(m, pool.address)


def mempool_resize(m: Machine, pool: MemPool, new_min_nr: int) -> int:
    """Change ``min_nr``; growing is best effort. 0, or -12 (ENOMEM) if there is no room for the pointers.

    Kernel: mempool_resize. Errors: KernelBug for a new size below 1.
    """
    if new_min_nr <= 0:
        raise KernelBug(m.oops("kernel BUG at mm/mempool.c:324!", cut=True))
    might_sleep(m, "mm/mempool.c:325")
    assert pool.elements is not None
    while pool.curr_nr > new_min_nr:
        pool.free(_remove_element(m, pool), pool.pool_data)
    if new_min_nr <= pool.min_nr:
        pool.min_nr = new_min_nr
        _tell(m, pool, "resize")
        return 0
    array = kmalloc(m, new_min_nr * POINTER, GFP_KERNEL)
    if not array:
        return -ENOMEM
    kfree(m, pool.array)
    pool.array, pool.min_nr = array, new_min_nr
    tries = 0
    while pool.curr_nr < pool.min_nr:
        tries += 1
        element = pool.alloc(GFP_KERNEL, pool.pool_data)
        if not element:
            break
        _add_element(m, pool, element)
    _tell(m, pool, "resize", tries=tries, mask=GFP_KERNEL)
    return 0


# --- an element ------------------------------------------------------------------------------------------------------


def alloc_from_pool(m: Machine, pool: MemPool, gfp_mask: int) -> Generator[Any, Any, Any]:
    """An element: the allocator softly, the reserve, the allocator in earnest, then sleep and begin again.

    NULL for a mask that may not sleep; any other is served in the end. Kernel: mempool_alloc.
    """
    if gfp_mask & ZERO and "DEBUG_VM" in m.config and m.warn_once("mempool zero"):
        m.warn("mm/mempool.c:401 mempool_alloc+0x29/0x141")
    might_alloc(m, gfp_mask)
    asked, tries, slept = gfp_mask, 0, 0.0
    gfp_mask |= SOFTLY
    mask = gfp_mask & ~(DIRECT_RECLAIM | IO)
    while True:
        tries += 1
        element, place = pool.alloc(mask, pool.pool_data), "alloc_fn"
        if not element and pool.elements:
            element, place = _remove_element(m, pool), "reserve"
        if not element and mask != gfp_mask:
            mask = gfp_mask
            continue
        if element or not gfp_mask & DIRECT_RECLAIM:
            place = place if element else ""
            _tell(m, pool, "alloc", element or NULL, place, gfp=asked, tries=tries, mask=mask, slept=slept)
            return element or NULL
        slept -= m.now
        yield WaitOn(pool.wait, RETRY_MS, f"waits in mempool_alloc, {pool.curr_nr} of {pool.min_nr} in reserve")
        slept += m.now


def mempool_alloc(m: Machine, pool: MemPool, gfp_mask: int) -> Any:
    """An element of a pool, or NULL if the mask may not sleep and there is none; see ``alloc_from_pool``.

    Kernel: mempool_alloc. Errors: Stuck if nobody will ever give one back.
    """
    return m.drive(alloc_from_pool(m, pool, gfp_mask))


def mempool_free(m: Machine, element: Any, pool: MemPool) -> None:
    """Give an element back: to the reserve while that is not full, which wakes all who wait; else to the allocator.

    Kernel: mempool_free. Errors: KernelBug for a pool that was destroyed.
    """
    if not element:
        _tell(m, pool, "free")
        return
    if pool.elements is None:
        raise KernelBug(m.oops("BUG: kernel NULL pointer dereference, address: 0000000000000000"))
    if pool.curr_nr < pool.min_nr:
        _add_element(m, pool, element)
        _tell(m, pool, "free", element, "reserve")
        m.wake_up(pool.wait)
        return
    pool.free(element, pool.pool_data)
    _tell(m, pool, "free", element, "free_fn")


def _tell(
    m: Machine, pool: MemPool, call: str, element: Any = NULL, place: str = "", *,
    gfp: int = 0, tries: int = 0, mask: int = 0, slept: float = 0.0,
) -> None:  # fmt: skip
    """A call on a pool has ended."""
    m.changes += 1
    if m.events.subscribers:
        who, count = m.context.who, (pool.curr_nr, pool.min_nr)
        m.events.emit(LabPool(pool, call, who, gfp, element, place, *count, tries, mask, slept, m.now))


def _add_element(m: Machine, pool: MemPool, element: Any) -> None:
    assert pool.elements is not None
    if size := _poisoned_size(m, pool, element):
        m.write(_address(m, element), b"\x6b" * (size - 1) + b"\xa5")
    pool.elements.append(element)


def _remove_element(m: Machine, pool: MemPool) -> Any:
    assert pool.elements is not None
    element = pool.elements.pop()
    if size := _poisoned_size(m, pool, element):
        address = _address(m, element)
        found = m.read(address, size)
        wrong = next((i for i, byte in enumerate(found) if byte != (0xA5 if i == size - 1 else 0x6B)), None)
        if wrong is not None:
            _poison_error(m, pool, address, size, found, wrong)
        m.write(address, b"\x5a" * size)
    return element


def _address(m: Machine, element: Any) -> int:
    return element if isinstance(element, int) else int(m.page_address(element))


def _poisoned_size(m: Machine, pool: MemPool, element: Any) -> int:
    """Bytes that rest poisoned in the reserve, in a kernel with SLUB_DEBUG_ON. Kernel: poison_element."""
    if "SLUB_DEBUG_ON" not in m.config:
        return 0
    kind = getattr(pool.alloc, "__func__", pool.alloc)
    if kind is mempool_alloc_pages:
        return 4096 << int(pool.pool_data)
    return ksize(m, element) if kind in (mempool_alloc_slab, mempool_kmalloc) else 0


def _poison_error(m: Machine, pool: MemPool, address: int, size: int, found: bytes, wrong: int) -> None:
    """Kernel: poison_error."""
    start, end = max(wrong - size // 8, 0), min(wrong + size // 8, size)
    window = " ".join(f"{byte:x}" for byte in found[start:end])
    shown = f"{'... ' if start else ''}{window}{' ...' if end < size else ''}"
    head = f"BUG: mempool element poison mismatch\nMempool {int(pool.address or 0):016x} size {size}"
    m.printk("\n".join([head, f" nr={pool.curr_nr} @ {address:016x}: {shown}", *m.dump_stack()]))


# --- what pools are made of -----------------------------------------------------------------------------------------


def mempool_alloc_slab(m: Machine, gfp_mask: int, pool_data: Any) -> Any:
    """``alloc_fn`` of a pool of objects; ``pool_data`` is their cache. Kernel: mempool_alloc_slab."""
    if pool_data.ctor and "DEBUG_VM" in m.config:
        raise KernelBug(m.oops("kernel BUG at mm/mempool.c:531!", cut=True))
    return kmem_cache_alloc(m, pool_data, gfp_mask)


def mempool_free_slab(m: Machine, element: Any, pool_data: Any) -> None:
    """``free_fn`` of a pool of objects. Kernel: mempool_free_slab."""
    kmem_cache_free(m, pool_data, element)


def mempool_kmalloc(m: Machine, gfp_mask: int, pool_data: Any) -> Any:
    """``alloc_fn`` of a pool of kmalloc memory; ``pool_data`` is the size in bytes. Kernel: mempool_kmalloc."""
    return kmalloc(m, pool_data, gfp_mask)


def mempool_kfree(m: Machine, element: Any, pool_data: Any) -> None:
    """``free_fn`` of a pool of kmalloc memory. Kernel: mempool_kfree."""
    kfree(m, element)


def mempool_alloc_pages(m: Machine, gfp_mask: int, pool_data: Any) -> Any:
    """``alloc_fn`` of a pool of blocks; ``pool_data`` is the order. Kernel: mempool_alloc_pages."""
    return alloc_pages(m, gfp_mask, pool_data)


def mempool_free_pages(m: Machine, element: Any, pool_data: Any) -> None:
    """``free_fn`` of a pool of blocks. Kernel: mempool_free_pages."""
    __free_pages(m, element, pool_data)


def mempool_create_slab_pool(m: Machine, min_nr: int, kc: Any) -> Any:
    """A pool of objects of a cache. Kernel: mempool_create_slab_pool."""
    return mempool_create(m, min_nr, m.mempool_alloc_slab, m.mempool_free_slab, kc)


def mempool_create_kmalloc_pool(m: Machine, min_nr: int, size: int) -> Any:
    """A pool of memory from kmalloc, ``size`` bytes each. Kernel: mempool_create_kmalloc_pool."""
    return mempool_create(m, min_nr, m.mempool_kmalloc, m.mempool_kfree, size)


def mempool_create_page_pool(m: Machine, min_nr: int, order: int) -> Any:
    """A pool of blocks of ``2**order`` pages. Kernel: mempool_create_page_pool."""
    return mempool_create(m, min_nr, m.mempool_alloc_pages, m.mempool_free_pages, order)
