"""Would this request work now? Asked of a copy, so the machine does not change.

Nothing is decided here: the copy makes the call, and its events tell what happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kmemlab import events
from kmemlab.gfp import __GFP_NORETRY, __GFP_NOWARN, MIGRATE_NAMES
from kmemlab.mmzone import (
    ALLOC_HIGHATOMIC,
    ALLOC_OOM,
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_PCPTYPES,
    Zone,
)
from kmemlab.reclaim_events import MmCompactionTryToCompactPages

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["Verdict", "ZoneTest", "largest", "probe", "verdicts"]


_BRIEFLY = __GFP_NOWARN | __GFP_NORETRY  # no report, one round of reclaim: the answer is the same


@dataclass(frozen=True, slots=True)
class ZoneTest:
    """What one zone said when it was looked at last: ``free - unusable > mark + protection`` (``enough``), and
    whether a large enough block exists (``block``). Pages; ``largest`` is the order of the largest block the
    request may take there, -1 if there is none."""

    zone: str
    free: int
    unusable: int
    mark: int
    protection: int
    enough: bool
    block: bool
    largest: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one request. ``kind`` is "ok", "wait" (it would have to reclaim or sleep first, which promises
    nothing) or "null". ``zone``, ``pfn`` and ``via`` (where the block lies now) belong to "ok"; ``tests`` has a row
    for each zone looked at."""

    gfp: int
    order: int
    kind: str
    zone: str
    pfn: int
    via: str
    tests: tuple[ZoneTest, ...]


def probe(m: Machine, gfp: int, order: int) -> Verdict:
    """What ``alloc_pages(gfp, order)`` would do now.

    >>> from kmemlab import Machine, GFP_KERNEL
    >>> probe(Machine("linux-6.1", memory="64M"), GFP_KERNEL, 3).kind
    'ok'
    """
    return _ask(m.copy(lazy=True), gfp, order)


def verdicts(m: Machine, gfps: Iterable[int]) -> dict[int, tuple[Verdict, ...]]:
    """For each mask the verdicts of orders 0 to 10."""
    return {gfp: tuple(probe(m, gfp, order) for order in range(MAX_ORDER)) for gfp in gfps}


def largest(m: Machine, gfp: int) -> tuple[int, int] | None:
    """(pfn, order) of the largest block that a request with this mask would get now, or None."""
    for order in reversed(range(MAX_ORDER)):
        verdict = probe(m, gfp, order)
        if verdict.kind == "ok":
            return verdict.pfn, order
    return None


def _ask(copy: Machine, gfp: int, order: int) -> Verdict:
    """Make the call on a copy, and read its events."""
    limits = {zone.name: _largest(zone) for zone in copy.zones}
    page = copy.alloc_pages(gfp | _BRIEFLY, order)
    looked: dict[str, ZoneTest] = {}
    kind, zone, via, flags = "ok" if page else "null", "", "buddy lists", 0
    for event in copy.last_events():
        if isinstance(event, events.LabAttempt):
            flags = event.alloc_flags
        elif isinstance(event, events.LabZone):
            wide = flags & (ALLOC_HIGHATOMIC | ALLOC_OOM)
            looked[event.zone] = ZoneTest(
                event.zone, event.free, event.unusable, event.mark, event.protection, event.enough, event.block,
                limits[event.zone][1 if wide else 0],
            )  # fmt: skip
        elif isinstance(event, (events.LabReclaim, MmCompactionTryToCompactPages)):
            kind = "wait"
        elif isinstance(event, events.LabPcp) and event.hit:
            via = f"CPU {event.cpu}'s list"
        elif isinstance(event, events.LabRefill) and event.pfns:
            via = "a refill of the CPU's list"
        elif isinstance(event, events.MmPageAllocExtfrag):
            via = f"stolen from {MIGRATE_NAMES[event.fallback_migratetype]}"
        elif isinstance(event, events.LabReturn):
            zone = event.zone
            via = "the HighAtomic reserve" if event.migratetype == MIGRATE_HIGHATOMIC else via
    if kind != "ok":
        return Verdict(gfp, order, kind, "", -1, "", tuple(looked.values()))
    return Verdict(gfp, order, kind, zone, page.pfn, via, tuple(looked.values()))


def _largest(zone: Zone) -> tuple[int, int]:
    """Order of the zone's largest free block: (outside the HighAtomic reserve, with it); -1 if there is none."""
    plain = [o for o in range(MAX_ORDER) if any(zone.nr_free_of(o, mt) for mt in range(MIGRATE_PCPTYPES))]
    wide = [o for o in range(MAX_ORDER) if zone.nr_free_of(o, MIGRATE_HIGHATOMIC)]
    return max(plain, default=-1), max(plain + wide, default=-1)
