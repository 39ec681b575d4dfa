"""Exercises B, C and F of lesson 01: each mistake gets its own sentence, every right way passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import kmemlab
from kmemlab import (
    __GFP_HIGH,
    __GFP_MEMALLOC,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_RETRY_MAYFAIL,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOIO,
    GFP_NOWAIT,
    NULL,
    Machine,
)
from kmemlab_widgets.checking import run_checks
from tests.lessons.machines import Containing, checks_module

flags_machines, flags_places, flags_recursion, flags_ring = map(
    checks_module, ("flags_machines", "flags_places", "flags_recursion", "flags_ring")
)

SPECS = flags_places.EXERCISES
Fn = Callable[..., Any]


def told(name: str, fn: Fn) -> list[str]:
    """Why the checks of an exercise do not pass; nothing when they do."""
    return [row.why for row in run_checks(SPECS[name], fn, name).rows if not row.passed]


def remarks(name: str, fn: Fn) -> str:
    """What is said to a function that passes."""
    rows = run_checks(SPECS[name], fn, name).rows
    assert all(row.passed for row in rows)
    return " ".join(row.kernel for row in rows)


# --- A: flags_for -----------------------------------------------------------------------------------------------


def atomic(ctx: Any) -> bool:
    return ctx.where != "process" or ctx.irqs_off or ctx.lock in ("spinlock", "rcu")


def masks(hard: int = GFP_ATOMIC, retry: int = GFP_NOWAIT, plain: int = GFP_KERNEL, fs: int = GFP_NOFS,
          io: int = GFP_NOIO, must: int = __GFP_NOFAIL, may: int = 0, zero: int = __GFP_ZERO) -> Fn:  # fmt: skip
    """The rule, any part of it replaced."""

    def flags_for(ctx: Any) -> Any:
        if atomic(ctx):
            gfp = retry if ctx.can_retry_later else hard
        else:
            gfp = io if ctx.in_io else fs if ctx.in_fs else plain
            gfp |= must if ctx.must_not_fail else may
        return gfp | zero if ctx.zeroed else gfp

    return flags_for


def by_bits(ctx: Any) -> int:
    """The same rule from single bits, a plain number."""
    gfp = 0x800
    if atomic(ctx):
        gfp |= 0 if ctx.can_retry_later else 0x220
    else:
        gfp |= 0x400 | (0 if ctx.in_io else 0x40) | (0 if ctx.in_io or ctx.in_fs else 0x80)
        gfp |= 0x8000 * ctx.must_not_fail
    return gfp | 0x100 * ctx.zeroed


def nofail_everywhere(ctx: Any) -> int:
    return masks()(ctx) | (__GFP_NOFAIL if ctx.must_not_fail else 0)


def both(ctx: Any) -> int:
    return GFP_KERNEL | GFP_ATOMIC | masks()(ctx)


# --- E: driver --------------------------------------------------------------------------------------------------


def ring(top_up: int = 0, fill: int = GFP_KERNEL, size: int = 64, take: Fn = list.pop, around: str = "") -> Fn:
    """A driver with a ring, any part of it replaced."""

    def driver(m: Machine) -> tuple[Fn, Fn]:
        pages: list[Any] = []

        def rx() -> Any:
            return take(pages) if pages else m.alloc_pages(top_up, 0) if top_up else NULL

        def refill() -> None:
            if around:
                getattr(m, around)()
            while len(pages) < size and (page := m.alloc_pages(fill, 0)):
                pages.append(page)

        return rx, refill

    return driver


def only(gfp: int) -> Fn:
    return lambda m: ((lambda: m.alloc_pages(gfp, 0)), (lambda: None))


def locked(m: Machine) -> tuple[Fn, Fn]:
    """The ring guarded by a spinlock, and allocated outside of it."""
    pages: list[Any] = []

    def rx() -> Any:
        with m.spin_lock("ring"):
            return pages.pop() if pages else m.alloc_pages(GFP_ATOMIC, 0)

    def refill() -> None:
        while len(pages) < 64:
            page = m.alloc_pages(GFP_KERNEL, 0)
            with m.spin_lock_irqsave("ring"):
                pages.append(page)

    return rx, refill


def wasteful(m: Machine) -> tuple[Fn, Fn]:
    """Two pages for each packet, and the good one given up."""

    def rx() -> Any:
        pages = [m.alloc_pages(GFP_ATOMIC, 0) for _ in range(3)]
        for page in pages[:2]:
            if page:
                m.put_page(page)
        return pages[2]

    return rx, lambda: None


def strangers_page(m: Machine) -> tuple[Fn, Fn]:
    taken = next(page for page in m.memmap.values() if page.refcount and not page.order)
    return lambda: taken, lambda: None


def freed_page(m: Machine) -> tuple[Fn, Fn]:
    def rx() -> Any:
        page = m.alloc_pages(GFP_ATOMIC, 0)
        if page:
            m.put_page(page)
        return page

    return rx, lambda: None


# --- F: write ---------------------------------------------------------------------------------------------------


def body(m: Machine, fs: Any, data: bytes, gfp: int = GFP_KERNEL) -> int:
    """The write of the task, with a mask of one's own."""
    with m.mutex_lock(fs.lock):
        at = fs.size
        page, packed = m.alloc_pages(gfp, 0), fs.pack(data)
        if not page or not packed:
            return -12
        fs.commit(at, page, packed)
    return 0


def scope(kind: str, gfp: int = GFP_KERNEL) -> Fn:
    def write(m: Machine, fs: Any, data: bytes) -> int:
        flags = getattr(m, f"memalloc_{kind}_save")()
        try:
            return body(m, fs, data, gfp)
        finally:
            getattr(m, f"memalloc_{kind}_restore")(flags)

    return write


def short_scope(m: Machine, fs: Any, data: bytes) -> int:
    with m.mutex_lock(fs.lock):
        flags = m.memalloc_nofs_save()
        page, packed = m.alloc_pages(GFP_KERNEL, 0), fs.pack(data)
        m.memalloc_nofs_restore(flags)
        fs.commit(fs.size, page, packed)
    return 0


def allocate_first(m: Machine, fs: Any, data: bytes) -> int:
    page, packed = m.alloc_pages(GFP_KERNEL, 0), fs.pack(data)
    with m.mutex_lock(fs.lock):
        fs.commit(fs.size, page, packed)
    return 0


def own_nofs(m: Machine, fs: Any, data: bytes) -> int:
    return body(m, fs, data, GFP_NOFS)


def own_atomic(m: Machine, fs: Any, data: bytes) -> int:
    return body(m, fs, data, GFP_ATOMIC)


def dropped(m: Machine, fs: Any, data: bytes) -> int:
    m.mutex_lock(fs.lock)
    at = fs.size
    m.mutex_unlock(fs.lock)
    page, packed = m.alloc_pages(GFP_KERNEL, 0), fs.pack(data)
    m.mutex_lock(fs.lock)
    fs.commit(at, page, packed)
    m.mutex_unlock(fs.lock)
    return 0


def left_open(m: Machine, fs: Any, data: bytes) -> int:
    m.memalloc_nofs_save()
    return body(m, fs, data)


def restored_to_zero(m: Machine, fs: Any, data: bytes) -> int:
    m.memalloc_nofs_save()
    result = body(m, fs, data)
    m.memalloc_nofs_restore(0)
    return result


def left_locked(m: Machine, fs: Any, data: bytes) -> int:
    m.mutex_lock(fs.lock)
    fs.commit(fs.size, m.alloc_pages(GFP_NOFS, 0), fs.pack(data))
    return 0


def irqs_left_off(m: Machine, fs: Any, data: bytes) -> int:
    result = allocate_first(m, fs, data)
    m.local_irq_save()
    return result


def without_lock(m: Machine, fs: Any, data: bytes) -> int:
    fs.commit(fs.size, m.alloc_pages(GFP_KERNEL, 0), fs.pack(data))
    return 0


def no_preemption(m: Machine, fs: Any, data: bytes) -> int:
    with m.preempt_disable():
        return body(m, fs, data)


def untested(m: Machine, fs: Any, data: bytes) -> int:
    page, packed = m.alloc_pages(GFP_NOWAIT, 0), fs.pack(data)
    with m.mutex_lock(fs.lock):
        fs.commit(fs.size, page, packed)
    return 0


def one_page_twice(m: Machine, fs: Any, data: bytes) -> int:
    packed = fs.pack(data)
    with m.mutex_lock(fs.lock):
        fs.commit(fs.size, packed, packed)
    return 0


GOOD: list[tuple[str, str, Fn]] = [
    ("flags_for", "the rule", masks()),
    ("flags_for", "by bits", by_bits),
    ("flags_for", "ATOMIC though it can be retried", masks(retry=GFP_ATOMIC)),
    ("flags_for", "NOIO inside a file system", masks(fs=GFP_NOIO)),
    ("flags_for", "HIGH and NOWAIT", masks(hard=GFP_NOWAIT | __GFP_HIGH)),
    ("flags_for", "NORETRY where NULL can be handled", masks(may=__GFP_NORETRY)),
    ("flags_for", "MAYFAIL where NULL can be handled", masks(may=__GFP_RETRY_MAYFAIL)),
    ("flags_for", "zeros for all", lambda ctx: masks()(ctx) | __GFP_ZERO),
    ("driver", "all ATOMIC", only(GFP_ATOMIC)),
    ("driver", "a ring", ring()),
    ("driver", "a ring, then NOWAIT", ring(int(GFP_NOWAIT))),
    ("driver", "a ring, then ATOMIC", ring(int(GFP_ATOMIC))),
    ("driver", "the oldest page first", ring(int(GFP_ATOMIC), take=lambda pages: pages.pop(0))),
    ("driver", "a smaller ring, then ATOMIC", ring(int(GFP_ATOMIC), size=16)),
    ("driver", "a lock", locked),
    ("write", "scope", scope("nofs")),
    ("write", "wider scope", scope("noio")),
    ("write", "short scope", short_scope),
    ("write", "scope and NOFS", scope("nofs", GFP_NOFS)),
    ("write", "allocate first", allocate_first),
]
BAD: list[tuple[str, str, Fn, str]] = [
    ("flags_for", "always KERNEL", masks(GFP_KERNEL, GFP_KERNEL, fs=GFP_KERNEL, io=GFP_KERNEL, must=0, zero=0),
     "Nobody may sleep here, and `GFP_KERNEL` has the sleep bit 0x400. The kernel complains, though memory is free"),
    ("flags_for", "always ATOMIC", masks(GFP_ATOMIC, GFP_ATOMIC, GFP_ATOMIC, GFP_ATOMIC, GFP_ATOMIC, 0),
     "You may sleep here, so reclaim. `GFP_ATOMIC` took emergency pages that an interrupt needed."),
    ("flags_for", "NOWAIT in a sleeper", masks(plain=GFP_NOWAIT, must=0),
     "of page cache: `GFP_NOWAIT` may not reclaim, and you may sleep."),
    ("flags_for", "KERNEL and ATOMIC in an interrupt", masks(GFP_KERNEL | GFP_ATOMIC, GFP_KERNEL | GFP_ATOMIC),
     "still has the sleep bit 0x400: it may sleep. The word ATOMIC takes nothing away"),
    ("flags_for", "KERNEL and ATOMIC in a sleeper", masks(plain=GFP_KERNEL | GFP_ATOMIC),
     "two things that exclude each other, to sleep and never to sleep"),
    ("flags_for", "NOFAIL in an interrupt", nofail_everywhere, "nobody may wait here: the kernel warns"),
    ("flags_for", "NOWAIT, and nobody asks again", masks(hard=GFP_NOWAIT), "nobody asks again later. The reserve"),
    ("flags_for", "MEMALLOC", masks(hard=GFP_ATOMIC | __GFP_MEMALLOC), "below GFP_ATOMIC's floor: they are for code"),
    ("flags_for", "HIGH in a sleeper", masks(plain=GFP_KERNEL | __GFP_HIGH),
     "`GFP_KERNEL|__GFP_HIGH` took emergency pages"),
    ("flags_for", "KERNEL inside a file system", masks(fs=GFP_KERNEL), "reclaim called your file system's shrinker"),
    ("flags_for", "NOFS inside the block layer", masks(io=GFP_NOFS),
     "has __GFP_IO: reclaim began I/O and wants queue.lock"),
    ("flags_for", "KERNEL inside the block layer", masks(io=GFP_KERNEL), "__GFP_FS, and a file system writes before"),
    ("flags_for", "may fail", masks(must=0), "gave up after some rounds. Only __GFP_NOFAIL promises."),
    ("flags_for", "not cleared", masks(zero=0), "it holds a stranger's bytes"),
    ("flags_for", "no mask", lambda ctx: "GFP_KERNEL", "Return a mask"),
    ("driver", "KERNEL in the interrupt", ring(int(GFP_KERNEL)), "rx, in a hard interrupt: nobody may sleep"),
    ("driver", "refill with interrupts off", ring(around="local_irq_save"), "refill, in process context: nobody may"),
    ("driver", "interrupts left off", ring(fill=GFP_ATOMIC, around="local_irq_save"), "lock or scope has not ended"),
    ("driver", "a scope left open", ring(around="memalloc_noreclaim_save"), "its lock or scope has not ended"),
    ("driver", "NOFAIL in the interrupt", only(GFP_ATOMIC | __GFP_NOFAIL), "__GFP_NOFAIL cannot be kept"),
    ("driver", "too large a ring", ring(size=65), "64 descriptors, and the driver holds 65 pages"),
    ("driver", "one page for all", ring(take=lambda pages: pages[0]), "Two packets were written into one page"),
    ("driver", "an address", lambda m: ((lambda: m.__get_free_pages(GFP_ATOMIC, 0)), (lambda: None)),
     "rx returns the page for one packet"),
    ("driver", "a page of somebody else", strangers_page, "a page that is not the driver's"),
    ("driver", "a page that was freed", freed_page, "a page that is not the driver's"),
    ("driver", "nothing arrives", lambda m: ((lambda: NULL), (lambda: None)), "More than half of the packets are lost"),
    ("driver", "one function", lambda m: (lambda: None, 3), "Return two functions: rx, refill."),
    ("driver", "three pages a packet", wasteful, "Worse than GFP_ATOMIC alone in all three"),
    ("write", "NOFS in one's own call", own_nofs, "The mask of your own call does not reach into the library."),
    ("write", "ATOMIC in one's own call", own_atomic, "The library's GFP_KERNEL reclaimed"),
    ("write", "ATOMIC", scope("nofs", GFP_ATOMIC), "5 of 100 writes are lost: the mask has no __GFP_DIRECT_RECLAIM"),
    ("write", "all reserves", scope("noreclaim"), "writes are lost: this task is freeing memory itself (PF_MEMALLOC)"),
    ("write", "lock dropped", dropped, "The inode changed meanwhile"),
    ("write", "scope left open", left_open, "its own scope is still open"),
    ("write", "caller's scope ended", restored_to_zero, "its caller's scope has ended"),
    ("write", "lock kept", left_locked, "fs.lock is still held"),
    ("write", "interrupts left off", irqs_left_off, "what it entered has not ended"),
    ("write", "no lock", without_lock, "commit changes the inode: hold fs.lock."),
    ("write", "preemption off", no_preemption, "you used them where nobody may"),
    ("write", "NULL not tested", untested, "commit wants two pages. NULL is to be tested before."),
    ("write", "one page twice", one_page_twice, "A block is made of two new pages"),
    ("write", "nothing done", lambda m, fs, data: 0, "write returned 0, and the file has no new block."),
    ("write", "given up", lambda m, fs, data: -12, "100 of 100 writes are lost: nothing was committed."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fn"), [(n, fn) for n, _, fn in GOOD], ids=[f"{n}: {way}" for n, way, _ in GOOD])
def test_right_ways_pass(name: str, fn: Fn) -> None:
    assert told(name, fn) == []


@pytest.mark.parametrize(
    ("name", "fn", "reason"), [(n, fn, why) for n, _, fn, why in BAD], ids=[f"{n}: {way}" for n, way, _, _ in BAD]
)
def test_mistakes_are_told_why(name: str, fn: Fn, reason: str) -> None:
    assert Containing(reason) in told(name, fn)


@pytest.mark.parametrize("name", SPECS)
def test_starters_do_not_pass(name: str) -> None:
    space: dict[str, Any] = {key: getattr(kmemlab, key) for key in kmemlab.__all__}
    exec(SPECS[name].starter, space)  # noqa: S102 - the lesson's own text
    assert told(name, space[name])


def test_the_starter_of_write_works_on_a_quiet_machine() -> None:
    assert [row.passed for row in run_checks(SPECS["write"], body).rows] == [True, False, False]


def test_letters() -> None:
    assert {name: spec.letter for name, spec in SPECS.items()} == {"flags_for": "B", "driver": "F", "write": "C"}


# --- what passes may still be remarked on -------------------------------------------------------------------------


def test_remarks() -> None:
    assert remarks("flags_for", masks()) == "  "
    assert "NOIO is wider than needed" in remarks("flags_for", masks(fs=GFP_NOIO))
    assert "__GFP_ZERO where nobody asked" in remarks("flags_for", lambda ctx: masks()(ctx) | __GFP_ZERO)
    assert "may wait for ever" in remarks("flags_for", masks(may=__GFP_NOFAIL))
    assert "GFP_KERNEL" in remarks("flags_for", masks(plain=GFP_NOIO))
    assert remarks("write", scope("nofs")) == "  "
    assert "NOIO is wider than needed" in remarks("write", scope("noio"))


# --- the places and the traffic are what they are said to be ------------------------------------------------------


def test_forty_different_places() -> None:
    places = flags_places.places()
    assert len(set(places)) == len(places) == 40
    m = flags_machines.idle().copy()
    for place in places:
        with flags_places.entered(m, place):
            assert m.context.may_sleep is not atomic(place)
        assert m.context.plain
        assert not m.mutexes
    assert not any(place.must_not_fail and place.can_retry_later for place in places)


def test_short_of_memory() -> None:
    full, (dry, spare) = flags_machines.full(), flags_machines.dry()
    for m in (full, dry):
        assert m.copy().alloc_pages(GFP_NOWAIT, 0) is NULL
    assert full.copy().alloc_pages(GFP_KERNEL, 0)
    assert dry.copy().alloc_pages(GFP_KERNEL, 0) is NULL
    assert 0 < flags_machines.reserve_of(dry.copy()) < flags_machines.reserve_of(full.copy())
    assert len(spare) == flags_machines.SPARE


def test_no_design_is_best_in_everything() -> None:
    for seed in flags_ring.SEEDS:
        scores = [flags_ring.reference(name, seed) for name in flags_ring.DESIGNS]
        scores.append(flags_ring.drive(ring(int(GFP_ATOMIC)), seed))
        costs = [(score.lost, score.reserve, score.looks) for score in scores]
        assert len({score.packets for score in scores}) == 1
        assert not any(all(mine <= least for mine, least in zip(cost, map(min, zip(*costs, strict=True)), strict=True))
                       for cost in costs)  # fmt: skip


def test_what_the_designs_cost() -> None:
    for seed in flags_ring.SEEDS:
        atomic_only, filled, nowait = (flags_ring.reference(name, seed) for name in flags_ring.DESIGNS)
        both_ways = flags_ring.drive(ring(int(GFP_ATOMIC)), seed)
        assert atomic_only.reserve > both_ways.reserve > 0
        assert filled.reserve == nowait.reserve == 0, "GFP_KERNEL and GFP_NOWAIT stop at min"
        assert filled.looks == 0, "a page from the ring needs no allocator"
        assert filled.lost > nowait.lost > both_ways.lost
        assert filled.packets == sum(packets for packets, _, _ in flags_ring.traffic(seed))


def test_the_row_shows_the_other_designs() -> None:
    for row in run_checks(SPECS["driver"], ring()).rows:
        assert all(name in row.kernel for name in ("yours", *flags_ring.DESIGNS))


def test_the_library_is_not_for_change() -> None:
    """A write that brings its own pack is told that the block is not the library's."""

    def write(m: Machine, fs: Any, data: bytes) -> int:
        fs.pack = lambda data: m.alloc_pages(GFP_NOFS, 0)
        return body(m, fs, data, GFP_NOFS)

    assert Containing("the one that fs.pack returned") in told("write", write)


def test_a_second_writer_needs_the_lock_to_be_free() -> None:
    m = flags_machines.full().copy()
    fs = flags_recursion.ToyFs(m, busy=True)
    with m.mutex_lock(fs.lock):
        m.alloc_pages(GFP_NOFS, 0)
        assert fs.size == 0
    m.alloc_pages(GFP_NOFS, 0)
    assert fs.size == 1
