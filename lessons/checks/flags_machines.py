"""Machines for the exercises of lesson 01, whose learners' code runs where it may not sleep, or where memory is short.

All have 64 MiB, complain of sleeping in the wrong place, and hand pages out as their last owner left them. Where memory
is short, modules hold most of it, so that a copy is quickly made.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import Any

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_NOWAIT, SHRINK_STOP, Machine

ROOM = 3_500  # pages that the modules leave on a full machine
SPARE = 400  # pages that somebody gives back to a dry machine after a while
STRANGER = b"somebody's secret"
OBJECTS = 40_000  # so many that reclaim asks for some at once
KSWAPD_GAVE_UP = 16  # fruitless runs: MAX_RECLAIM_RETRIES


def _booted() -> Machine:
    m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",), cmdline="init_on_alloc=0")
    m.sysctl("vm.watermark_boost_factor", 0)  # min is min, so that the reserve is the same in every run
    return m


def free_pages(m: Machine) -> int:
    """Free pages of all zones, as the watermark test sees them."""
    return sum(zone.nr_free_pages for zone in m.zones)


def mib(pages: int) -> str:
    """Pages as MiB."""
    return f"{pages / 256:.1f} MiB"


def _modules_load(m: Machine) -> None:
    while free_pages(m) > ROOM:
        m.alloc_pages(GFP_NOWAIT, 9)


def _down_to_min(m: Machine) -> list[int]:
    """Take what GFP_NOWAIT can get; the frames."""
    pfns = []
    with m.preempt_disable():
        while page := m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0):
            pfns.append(page.pfn)
    return pfns


@cache
def idle() -> Machine:
    """Nearly all memory is free. A stranger's bytes are in the pages that are handed out next."""
    m = _booted()
    for page in [m.alloc_pages(GFP_ATOMIC, 0) for _ in range(8)]:
        m.write(m.page_address(page), STRANGER)
        m.__free_pages(page, 0)
    return m


@cache
def full() -> Machine:
    """Clean page cache down to the min watermark; kswapd has given up, so a caller gets what it reclaims itself."""
    m = _booted()
    _modules_load(m)
    m.read_file("backup", "16M")
    m.lru.failures = KSWAPD_GAVE_UP
    _down_to_min(m)
    return m


@cache
def dry() -> tuple[Machine, tuple[int, ...]]:
    """Half of GFP_ATOMIC's reserve is left and nothing can be reclaimed; the frames that are given back later."""
    m = _booted()
    _modules_load(m)
    m.lru.failures = KSWAPD_GAVE_UP
    spare = _down_to_min(m)[-SPARE:]
    for _ in range(reserve_of(m.copy()) // 2):
        m.alloc_pages(GFP_ATOMIC, 0)
    return m, tuple(spare)


def reserve_of(m: Machine, most: int = 1_000) -> int:
    """How many single pages GFP_ATOMIC gets now, in an interrupt."""
    with m.hardirq():
        return next((n for n in range(most) if not m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0)), most)


def cache_behind(m: Machine, bit: int, *locks: str) -> None:
    """A cache of objects that reclaim may ask for when its mask has ``bit``; to let one go takes these mutexes. All
    objects are in use, as their owner sees when it has the locks."""

    def scan_objects(sc: Any) -> int:
        if not sc.gfp_mask & bit:
            return SHRINK_STOP
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(m.mutex_lock(lock))
            return SHRINK_STOP

    m.register_shrinker(lambda sc: OBJECTS, scan_objects)
