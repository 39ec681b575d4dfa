"""The free pointer inside a free object: written, read, and followed when somebody wrote over it.

Kernel: mm/slub.c (freelist_ptr, get_freepointer, set_freepointer), with CONFIG_SLAB_FREELIST_HARDENED as Debian
has it: the pointer is stored scrambled with the cache's secret and its own address.

The model keeps a cache's free lists as Python lists. Their image in the objects' bytes is made when somebody
looks at or writes to a slab; a pointer that was written over then cuts the list there, as it does in the kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.null import KernelBug
from kmemlab.slub_def import SLAB_POISON, SLAB_TYPESAFE_BY_RCU, KmemCache, Slab

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "Follow",
    "follow",
    "get_freepointer",
    "init_on_alloc",
    "leave_pointer",
    "must_exist",
    "set_freepointer",
    "show_freepointers",
    "written",
]

_MASK = (1 << 64) - 1


class Follow(Address):
    """A place in a free list of which only the bytes of the object before it can tell."""

    __slots__ = ()


def _scramble(s: KmemCache, value: int, where: int) -> int:
    return value ^ s.random ^ int.from_bytes((where & _MASK).to_bytes(8, "little"), "big")


def get_freepointer(m: Machine, s: KmemCache, p: int) -> int:
    """The address of the next free object, read from the bytes of ``p``."""
    where = p + s.offset
    return _scramble(s, int.from_bytes(m.memory.read(where, 8), "little"), where)


def set_freepointer(m: Machine, s: KmemCache, p: int, value: int) -> None:
    """Write the address of the next free object into ``p``."""
    where = p + s.offset
    m.memory.write(where, _scramble(s, value, where).to_bytes(8, "little"))


def leave_pointer(m: Machine, s: KmemCache, p: Address, value: int) -> None:
    """An object is handed out: what its free pointer said stays in its bytes, if anybody could see it."""
    if not m.init_on_alloc or p + s.offset in m.memory:
        set_freepointer(m, s, p, value)


def init_on_alloc(m: Machine, s: KmemCache, p: Address, gfp: int) -> None:
    """Zero a fresh object where mask, cache and boot options say so. Kernel: slab_want_init_on_alloc, mm/slab.h."""
    if m.memory.pages:
        wanted = bool(gfp & 0x100)
        if m.init_on_alloc:
            wanted = not s.ctor and (wanted or not s.flags & (SLAB_TYPESAFE_BY_RCU | SLAB_POISON))
        if wanted:
            m.memory.fill(p, 0, s.object_size)


def _lists(m: Machine, slab: Slab) -> list[list[Address]]:
    lists = [slab.freelist]
    lists += [c.freelist for c in slab.cache.cpu_slab if c.slab is slab]
    return [each for each in lists if each]


def show_freepointers(m: Machine, slab: Slab) -> None:
    """Write the free lists of a slab into its bytes, as they are in the kernel all the time."""
    s = slab.cache
    if s.debug:
        return
    for freelist in _lists(m, slab):
        behind = 0
        for p in freelist:
            if isinstance(p, Follow) or slab.index_of(p) < 0:
                behind = p
                continue
            if not isinstance(behind, Follow):
                set_freepointer(m, s, p, behind)
            behind = p


def written(m: Machine, slab: Slab) -> None:
    """Somebody wrote to a slab: cut its lists where a free pointer no longer says what it said."""
    s = slab.cache
    if s.debug:
        return
    for freelist in _lists(m, slab):
        for at in range(len(freelist) - 1, -1, -1):
            p = freelist[at]
            if isinstance(p, Follow) or slab.index_of(p) < 0:
                break
            behind = freelist[at - 1] if at else 0
            if not isinstance(behind, Follow) and get_freepointer(m, s, p) != behind:
                freelist[:at] = [Follow(p)]
                m.lists_broken()
                break


def follow(m: Machine, s: KmemCache, freelist: list[Address], p: Address) -> Address:
    """The object that a broken list really gives: the bytes decide. Errors: KernelBug where they point nowhere."""
    if isinstance(p, Follow):
        value = get_freepointer(m, s, p)
        if value == 0:
            raise KernelBug(m.oops("BUG: kernel NULL pointer dereference, address: 0000000000000000"))
        p = Address(value)
        freelist.append(Follow(value))
    must_exist(m, p)
    return p


def must_exist(m: Machine, p: int) -> None:
    """Read through a pointer as the processor does. Errors: KernelBug for one that leads nowhere."""
    pfn = p - m.kernel.page_offset >> 12
    if p >> 47 not in (0, 0x1FFFF):
        text = f"general protection fault, probably for non-canonical address {int(p):#x}: 0000 [#1] PREEMPT SMP NOPTI"
        raise KernelBug(m.oops(text))
    if pfn < 0 or m.zone_of(pfn) is None:
        raise KernelBug(m.oops(f"BUG: unable to handle page fault for address: {int(p):016x}"))
