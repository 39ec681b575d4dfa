"""slub_debug: guards around every object, poison in free ones, and who took and gave back what.

Kernel: mm/slub.c, the functions of the same names. A debug cache has no cpu slabs: objects are taken one at a
time from the node's partial list, and each is checked when it is taken and when it comes back. Its free list
lives in the objects' bytes, so that what a learner writes there is what the kernel finds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.null import KernelBug
from kmemlab.slub_bytes import get_freepointer, must_exist, set_freepointer
from kmemlab.slub_def import (
    OBJECT_POISON,
    SLAB_CONSISTENCY_CHECKS,
    SLAB_KMALLOC,
    SLAB_POISON,
    SLAB_RED_ZONE,
    SLAB_STORE_USER,
    TRACK,
    KmemCache,
    Slab,
)
from kmemlab.slub_report import check_bytes_and_report, object_err, slab_err, slab_fix

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "alloc_from_new_slab",
    "alloc_from_partial",
    "chain",
    "check_object",
    "check_slab_at_end",
    "free_to_partial_list",
    "link",
    "setup_object_debug",
    "setup_slab_debug",
    "validate_slab_cache",
]

RED_INACTIVE, RED_ACTIVE = 0xBB, 0xCC  # red zone of a free, of an allocated object
POISON_INUSE, POISON_FREE, POISON_END = 0x5A, 0x6B, 0xA5


def chain(m: Machine, slab: Slab) -> list[Address]:
    """The free objects of a debug cache's slab, next one first, as far as the pointers lead."""
    found: list[Address] = []
    fp = slab.fp
    while fp and slab.index_of(fp) >= 0 and len(found) < slab.objects:
        found.append(Address(fp))
        fp = get_freepointer(m, slab.cache, fp)
    return found


def link(m: Machine, s: KmemCache, slab: Slab, objects: Sequence[Address]) -> None:
    """Thread the objects of a new slab in this order."""
    for p, behind in zip(objects, [*objects[1:], 0], strict=True):
        set_freepointer(m, s, p, behind)
    slab.fp = objects[0]


def setup_slab_debug(m: Machine, s: KmemCache, slab: Slab) -> None:
    """Fill a new slab with padding bytes."""
    if s.flags & SLAB_POISON:
        m.memory.fill(slab.address, POISON_INUSE, 4096 << slab.order)


def setup_object_debug(m: Machine, s: KmemCache, p: Address) -> None:
    """Guards and poison of an object nobody owned yet."""
    if s.debug:
        init_object(m, s, p, RED_INACTIVE)
        if s.flags & SLAB_STORE_USER:
            m.memory.fill(p + s.info_end, 0, 2 * TRACK)


def init_object(m: Machine, s: KmemCache, p: int, red: int) -> None:
    """Write an object's guards, and its poison, which stays in an allocated one until its owner writes."""
    if s.flags & SLAB_RED_ZONE:
        m.memory.fill(p - s.red_left_pad, red, s.red_left_pad)
    if s.flags & OBJECT_POISON:
        m.memory.fill(p, POISON_FREE, s.object_size - 1)
        m.memory.fill(p + s.object_size - 1, POISON_END, 1)
    if s.flags & SLAB_RED_ZONE:
        m.memory.fill(p + s.object_size, red, s.inuse - s.object_size)


def set_track(m: Machine, s: KmemCache, slab: Slab, p: int, what: str) -> None:
    """Remember who takes ("alloc") or gives back ("free") an object, and when."""
    if s.flags & SLAB_STORE_USER:
        slab.tracks[int(p), what] = (m.call_site, m.calls, m.cpu)
        at = p + s.info_end + (TRACK if what == "free" else 0)
        m.memory.write(at, (hash(m.call_site) & (1 << 63) - 1).to_bytes(8, "little"))
        m.memory.write(at + 8, b"".join(n.to_bytes(4, "little") for n in (0, m.cpu, 1, 0)))
        m.memory.write(at + 24, m.calls.to_bytes(8, "little"))


# --- checks --------------------------------------------------------------------------------------


def check_object(m: Machine, s: KmemCache, slab: Slab, p: int, red: int) -> bool:
    """Whether guards, poison, padding and free pointer of an object are as they were left."""

    def intact(what: str, start: int, value: int, n: int) -> bool:
        return check_bytes_and_report(m, s, slab, p, what, start, value, n)

    end = p + s.object_size
    if s.flags & SLAB_RED_ZONE:
        if not intact("Left Redzone", p - s.red_left_pad, red, s.red_left_pad):
            return False
        if not intact("Right Redzone", end, red, s.inuse - s.object_size):
            return False
    elif s.flags & SLAB_POISON and s.object_size < s.inuse:
        intact("Alignment padding", end, POISON_INUSE, s.inuse - s.object_size)
    if s.flags & SLAB_POISON:
        if red != RED_ACTIVE and s.flags & OBJECT_POISON:
            if not intact("Poison", p, POISON_FREE, s.object_size - 1):
                return False
            if not intact("End Poison", end - 1, POISON_END, 1):
                return False
        off = pad_start(s)
        if s.size - s.red_left_pad > off:
            intact("Object padding", p + off, POISON_INUSE, s.size - s.red_left_pad - off)
    if s.offset < s.inuse and red == RED_ACTIVE:
        return True  # the pointer's place belongs to the owner now
    if not _valid(slab, get_freepointer(m, s, p)):
        object_err(m, s, slab, p, "Freepointer corrupt")
        set_freepointer(m, s, p, 0)
        return False
    return True


def pad_start(s: KmemCache) -> int:
    """Where an object's padding begins, behind its tracks."""
    off = s.info_end
    if s.flags & SLAB_STORE_USER:
        off += 2 * TRACK + (4 if s.flags & SLAB_KMALLOC else 0)
    return off


def _valid(slab: Slab, p: int) -> bool:
    return not p or slab.index_of(p) >= 0


def check_slab(m: Machine, s: KmemCache, slab: Slab) -> bool:
    """Whether a slab's counts can be right, and the bytes behind its last object are untouched."""
    if slab.inuse > slab.objects:
        slab_err(m, s, slab, f"inuse {slab.inuse} > max {slab.objects}")
        return False
    if slab.frozen:
        slab_err(m, s, slab, "Slab disabled since SLUB metadata consistency check failed")
        return False
    slab_pad_check(m, s, slab)
    return True


def slab_pad_check(m: Machine, s: KmemCache, slab: Slab) -> None:
    """Check the bytes behind a slab's last object."""
    length = 4096 << slab.order
    rest = length % s.size
    if not s.flags & SLAB_POISON or not rest:
        return
    start = slab.address + length - rest
    found = m.memory.read(start, rest)
    wrong = [i for i, byte in enumerate(found) if byte != POISON_INUSE]
    if wrong:
        first, last = start + wrong[0], start + wrong[-1]
        where = f"{m.ptr(first)}-{m.ptr(last)} @offset={first - slab.address}"
        slab_err(m, s, slab, f"Padding overwritten. {where}", (("Padding ", start, rest),))
        slab_fix(m, s, f"Restoring slab padding {m.ptr(first)}-{m.ptr(last)}=0x5a")
        m.memory.fill(first, POISON_INUSE, last - first + 1)


def on_freelist(m: Machine, s: KmemCache, slab: Slab, search: int) -> bool:
    """Whether an object is on its slab's free list; repairs list and counts on the way."""
    nr, before, fp = 0, 0, slab.fp
    while fp and nr <= slab.objects:
        if fp == search:
            return True
        if not _valid(slab, fp):
            if not before:
                slab_err(m, s, slab, "Freepointer corrupt")
                slab.fp, slab.inuse = 0, slab.objects
                slab_fix(m, s, "Freelist cleared")
                return False
            object_err(m, s, slab, before, "Freechain corrupt")
            set_freepointer(m, s, before, 0)
            break
        before, fp = fp, get_freepointer(m, s, fp)
        nr += 1
    if slab.inuse != slab.objects - nr:
        text = f"Wrong object count. Counter is {slab.inuse} but counted were {slab.objects - nr}"
        slab_err(m, s, slab, text)
        slab.inuse = slab.objects - nr
        slab_fix(m, s, "Object count adjusted")
    return search == 0


# --- taking an object ------------------------------------------------------------------------------


def alloc_debug_processing(m: Machine, s: KmemCache, slab: Slab, p: int, orig_size: int) -> bool:
    """Check a free object that is about to be handed out, and mark it allocated."""
    if s.flags & SLAB_CONSISTENCY_CHECKS:
        good = check_slab(m, s, slab)
        if good and not _valid(slab, p):
            object_err(m, s, slab, p, "Freelist Pointer check fails")
            good = False
        if not good or not check_object(m, s, slab, p, RED_INACTIVE):
            slab_fix(m, s, "Marking all objects used")
            slab.inuse, slab.fp, slab.frozen = slab.objects, 0, True
            return False
    if s.flags & SLAB_STORE_USER and s.flags & SLAB_KMALLOC:
        m.memory.write(p + s.info_end + 2 * TRACK, orig_size.to_bytes(4, "little"))
    init_object(m, s, p, RED_ACTIVE)
    return True


def _take(m: Machine, s: KmemCache, slab: Slab, orig_size: int) -> Address | None:
    p = Address(slab.fp)
    if not p:  # the list ends before the count says so: the kernel reads the pointer of no object
        raise KernelBug(m.oops(f"BUG: kernel NULL pointer dereference, address: {s.offset:016x}"))
    must_exist(m, p)
    slab.fp = get_freepointer(m, s, p)
    slab.inuse += 1
    if not alloc_debug_processing(m, s, slab, p, orig_size):
        return None
    set_track(m, s, slab, p, "alloc")
    return p


def alloc_from_partial(m: Machine, s: KmemCache, orig_size: int) -> tuple[Slab, Address] | None:
    """One object from the first slab of the node's list whose next object passes the checks.

    Kernel: get_partial_node, alloc_single_from_partial.
    """
    for slab in list(s.partial):
        p = _take(m, s, slab, orig_size)
        if p is None:
            del s.partial[slab]
            continue
        if slab.inuse == slab.objects:
            del s.partial[slab]
            _add_full(s, slab)
        return slab, p
    return None


def alloc_from_new_slab(m: Machine, s: KmemCache, slab: Slab, orig_size: int) -> tuple[Slab, Address] | None:
    """The first object of a fresh slab. Kernel: alloc_single_from_new_slab."""
    p = _take(m, s, slab, orig_size)
    if p is None:
        return None
    if slab.inuse == slab.objects:
        _add_full(s, slab)
    else:
        s.partial[slab] = None
        s.partial.move_to_end(slab, last=False)
    return slab, p


def _add_full(s: KmemCache, slab: Slab) -> None:
    if s.flags & SLAB_STORE_USER:
        s.full[slab] = None
        s.full.move_to_end(slab, last=False)


# --- giving it back ----------------------------------------------------------------------------------


def free_debug_processing(m: Machine, s: KmemCache, slab: Slab, objects: Sequence[Address]) -> bool:
    """Check objects that come back; False (and a report) for those that cannot be freed."""
    checks = s.flags & SLAB_CONSISTENCY_CHECKS
    good, p = True, objects[-1]
    if checks and not check_slab(m, s, slab):
        good = False
    elif slab.inuse < len(objects):
        slab_err(m, s, slab, f"Slab has {slab.inuse} allocated objects but {len(objects)} are to be freed\n")
        good = False
    else:
        for p in reversed(objects):  # head of the detached list first
            if checks and not _free_consistency_checks(m, s, slab, p):
                good = False
                break
            set_track(m, s, slab, p, "free")
            init_object(m, s, p, RED_INACTIVE)
    if not good:
        slab_fix(m, s, f"Object at {m.ptr(p)} not freed")
    return good


def _free_consistency_checks(m: Machine, s: KmemCache, slab: Slab, p: int) -> bool:
    if not _valid(slab, p):
        slab_err(m, s, slab, f"Invalid object pointer {m.ptr(p)}")
        return False
    if on_freelist(m, s, slab, p):
        object_err(m, s, slab, p, "Object already free")
        return False
    return check_object(m, s, slab, p, RED_ACTIVE)


def free_to_partial_list(
    m: Machine, s: KmemCache, slab: Slab, objects: Sequence[Address],
    discard: Callable[[Machine, KmemCache, Slab], None],
) -> None:  # fmt: skip
    """Free objects of a debug cache: after the checks they go in front of their slab's list.

    They are threaded among themselves first (slab_free_freelist_hook), before anybody has looked at them.
    """
    for p, behind in zip(objects, (0, *objects), strict=False):
        set_freepointer(m, s, p, behind)
    if not free_debug_processing(m, s, slab, objects):
        return
    prior = slab.fp
    slab.inuse -= len(objects)
    for p in objects:
        set_freepointer(m, s, p, slab.fp)
        slab.fp = p
    empty = slab.inuse == 0 and s.nr_partial >= s.min_partial
    if not prior:
        s.full.pop(slab, None)
        if not empty:
            s.partial[slab] = None
    elif empty:
        s.partial.pop(slab, None)
    if empty:
        discard(m, s, slab)


def check_slab_at_end(m: Machine, s: KmemCache, slab: Slab) -> None:
    """The last look at a slab whose pages go back. Kernel: __free_slab."""
    if s.flags & SLAB_CONSISTENCY_CHECKS:
        slab_pad_check(m, s, slab)
        for index in range(slab.objects):
            check_object(m, s, slab, slab.object_at(index), RED_INACTIVE)


def validate_slab_cache(m: Machine, s: KmemCache, flush: Callable[[Machine, KmemCache], None]) -> int:
    """Check every slab of a debug cache; returns the errors found and told in the log.

    Kernel: validate_slab_cache, behind /sys/kernel/slab/NAME/validate.
    """
    flush(m, s)
    before = m.slab_errors
    for slab in [*s.partial, *s.full]:
        if not check_slab(m, s, slab) or not on_freelist(m, s, slab, 0):
            continue
        free = set(chain(m, slab))
        for p in map(slab.object_at, range(slab.objects)):
            if not check_object(m, s, slab, p, RED_INACTIVE if p in free else RED_ACTIVE):
                break
    return m.slab_errors - before
