"""Shrinkers: the caches of others that reclaim asks to give something back.

Kernel: struct shrinker and struct shrink_control, include/linux/shrinker.h; shrink_slab and do_shrink_slab,
mm/vmscan.c.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kmemlab.sched import WouldWait

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["SHRINK_BATCH", "SHRINK_STOP", "ShrinkControl", "Shrinker", "ShrinkerMachine", "shrink_slab"]

SHRINK_STOP = -1  # what scan_objects returns when it cannot work now: its lock is taken, the mask forbids it
SHRINK_BATCH = 128
DEFAULT_SEEKS = 2


@dataclass(slots=True)
class ShrinkControl:
    """What a shrinker is told: for which mask memory is wanted, and how many objects to look at."""

    gfp_mask: int
    nr_to_scan: int = 0


class Shrinker:
    """``count_objects(sc)`` says how many objects could go; ``scan_objects(sc)`` frees some and says how many.

    ``nr_deferred`` is the part that was too small to ask for yet.
    """

    __slots__ = ("count_objects", "nr_deferred", "scan_objects")

    def __init__(
        self, count_objects: Callable[[ShrinkControl], int], scan_objects: Callable[[ShrinkControl], int]
    ) -> None:
        self.count_objects, self.scan_objects, self.nr_deferred = count_objects, scan_objects, 0


def shrink_slab(m: Machine, gfp: int, priority: int) -> int:
    """Ask every shrinker for its part at this priority; the slab pages that went back. Kernel: shrink_slab."""
    before = m.lru.reclaimed_slab
    for shrinker in list(m.lru.shrinkers):
        # Left out: kswapd does not wait here for a lock that somebody holds, it passes the shrinker over.
        with m.aside(), suppress(WouldWait):
            do_shrink_slab(shrinker, ShrinkControl(gfp), priority)
    return int(m.lru.reclaimed_slab - before)


def do_shrink_slab(shrinker: Shrinker, sc: ShrinkControl, priority: int) -> None:
    """A share of a cache as large as the share of the page lists, in batches; what makes no batch waits.

    Kernel: do_shrink_slab.
    """
    freeable = shrinker.count_objects(sc)
    if freeable <= 0:
        return
    delta = 4 * (freeable >> priority) // DEFAULT_SEEKS
    wanted, scanned = min((shrinker.nr_deferred >> priority) + delta, 2 * freeable), 0
    while wanted >= SHRINK_BATCH or wanted >= freeable:
        sc.nr_to_scan = min(SHRINK_BATCH, wanted)
        if shrinker.scan_objects(sc) == SHRINK_STOP:
            break
        wanted -= sc.nr_to_scan
        scanned += sc.nr_to_scan
    shrinker.nr_deferred = min(max(shrinker.nr_deferred + delta - scanned, 0), 2 * freeable)


class ShrinkerMachine:
    """The part of a ``Machine`` that owners of caches use."""

    __slots__ = ()  # its fields are slots of Machine

    def register_shrinker(
        self: Any, count_objects: Callable[[ShrinkControl], int], scan_objects: Callable[[ShrinkControl], int]
    ) -> Shrinker:
        """Let reclaim ask a cache to give objects back.

        ``count_objects(sc)`` returns how many could go; ``scan_objects(sc)`` frees up to ``sc.nr_to_scan`` and returns
        how many went, or SHRINK_STOP. ``sc.gfp_mask`` is the mask of whoever wants memory: a file system looks there
        for __GFP_FS before it takes a lock. Both run in the context of the one who reclaims.
        Kernel: register_shrinker, mm/vmscan.c. Errors: TypeError for what is no function.
        """
        for name, fn in (("count_objects", count_objects), ("scan_objects", scan_objects)):
            if not callable(fn):
                raise TypeError(f"register_shrinker: {name} must be a function of one argument, sc, not {fn!r}")
        shrinker = Shrinker(count_objects, scan_objects)
        self.lru.shrinkers.append(shrinker)
        return shrinker

    def unregister_shrinker(self: Any, shrinker: Shrinker) -> None:
        """Kernel: unregister_shrinker. Errors: ValueError for one that is not registered."""
        if shrinker not in self.lru.shrinkers:
            raise ValueError("unregister_shrinker: this machine has no such shrinker")
        self.lru.shrinkers.remove(shrinker)
