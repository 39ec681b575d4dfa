"""Lesson 01, how deep a mask may drink: the exercise ``stops_at``, and the engine's zone test that judges it."""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from kmemlab_widgets.questions import ExerciseSpec, Mistake, comparisons

from kmemlab import (
    __GFP_ATOMIC,
    __GFP_COMP,
    __GFP_DIRECT_RECLAIM,
    __GFP_HIGH,
    __GFP_NOWARN,
    __GFP_ZERO,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOWAIT,
    Machine,
    gfp_zone,
    show_gfp_flags,
)
from kmemlab.events import LabZone
from kmemlab.mmzone import MAX_ORDER, Zone
from kmemlab.page_alloc import zone_watermark_fast
from kmemlab.page_slowpath import gfp_to_alloc_flags

Case = tuple[int, int, int, int, int]  # min, boost, protection, gfp, order
MASKS = tuple(map(int, (GFP_NOWAIT, GFP_ATOMIC, GFP_KERNEL, __GFP_HIGH | GFP_NOWAIT, __GFP_HIGH | GFP_KERNEL)))


# --- the engine's answer ------------------------------------------------------------------------


def zone_test(zone: Zone, gfp: int, order: int) -> LabZone:
    """What the engine's test of ``zone`` against ``min`` says to a request on the slow path."""
    plan: Any = SimpleNamespace(gfp=gfp, order=order, highest_zoneidx=gfp_zone(gfp))
    zone_watermark_fast(zone, plan, gfp_to_alloc_flags(gfp, order))
    return LabZone(*zone.trail.pop()[1:])


@cache
def true_level(min: int, boost: int, protection: int, gfp: int, order: int = 0) -> int:
    """The largest free count, in pages, at which the engine's zone test refuses; a block is always there."""
    zone = Zone("DMA32", 1, 0, 0, 0, 0)
    zone.wmark[0], zone.watermark_boost = min, boost
    zone.lowmem_reserve = [protection] * 4
    zone.free_area[MAX_ORDER - 1][0][0] = None

    def passes(free: int) -> bool:
        zone.nr_free_pages = free
        return zone_test(zone, gfp, order).passed

    return bisect_left(range(min + boost + protection + (2 << order)), True, key=passes) - 1


# --- the rule with one slip ---------------------------------------------------------------------


def level(min: int, boost: int, protection: int, gfp: int, order: int = 0, slip: str = "") -> int:
    """The level by the rule with one slip in it, to recognise who made it; without a slip it is the engine's."""
    if slip == "whole masks" and gfp not in MASKS:
        gfp = 0
    high, sleeps, atomic = (bool(gfp & bit) for bit in (__GFP_HIGH, __GFP_DIRECT_RECLAIM, __GFP_ATOMIC))
    unboosted = {"boost kept": False, "every order": atomic, "HIGH": high and not sleeps and not order,
                 "NOWAIT": not sleeps, "no boost": True}.get(slip, atomic and not order)  # fmt: skip
    mark = min + (0 if unboosted else boost) + (protection if slip == "halved" else 0)
    if slip == "3/8" and high and not sleeps:
        mark = mark * 3 // 8
    elif high:
        mark -= mark // 2
        mark -= mark // 4 if not sleeps or slip == "sleeper" else 0
    elif slip == "quarter" and not sleeps:
        mark -= mark // 4
    mark += 0 if slip in ("halved", "no protection") else protection
    return mark + {"no order": 0, "2^order": 1 << order}.get(slip, (1 << order) - 1) - (slip == "<")


SLIPS = {
    "3/8": "Not 3/8 in one step: 411 gives 155, not 154. Each step is rounded down separately: 411 - 205 = 206, then "
    "206 - 51 = 155.",
    "halved": "lowmem_reserve is never halved. The mark is lowered first, the protection is added afterwards.",
    "no protection": "The protection is missing: mark + lowmem_reserve is what free pages must exceed.",
    "no boost": "The boost is missing. Every use of a watermark adds it; only a single page with `__GFP_ATOMIC` gets "
    "a second test without it.",
    "NOWAIT": "The boost is no matter of sleeping: GFP_NOWAIT must stay above min + boost. The bit `__GFP_ATOMIC` "
    "(0x200) buys the second test, at order 0.",
    "HIGH": "`__GFP_HIGH` does not look below the boost. Only the bit `__GFP_ATOMIC` (0x200) does: 0x820 stops higher "
    "than 0xa20 in a boosted zone.",
    "boost kept": "GFP_ATOMIC at order 0 gets a second test without the boost: the boost is there to wake kswapd, not "
    "to make interrupts fail.",
    "every order": "The second test without the boost is for single pages. From order 1 on GFP_ATOMIC keeps the boost.",
    "sleeper": "Who may sleep gets half, not 3/8: 206 of 411. The second quarter is for `__GFP_HIGH` without "
    "`__GFP_DIRECT_RECLAIM`.",
    "quarter": "GFP_NOWAIT has no `__GFP_HIGH`: it stops at the full mark. The quarter is only taken off a half.",
    "whole masks": "You compare whole masks. `GFP_ATOMIC|__GFP_ZERO` has the same rights: ask for the bits 0x20, 0x400 "
    "and 0x200.",
    "no order": "2^order - 1 is missing: the pages of the request, but one, must be there on top of the mark.",
    "2^order": "One too many. Asked is the last count that is refused, not the first that is served; and the kernel "
    "takes 2^order - 1 off the free pages, not 2^order.",
    "<": "Equal is refused too: free pages must be more than the mark. You return the count below.",
}  # fmt: skip


def _slip(name: str) -> Callable[..., int]:
    return lambda *case: level(*case, slip=name)


def words(case: Any, got: Any, want: Any) -> tuple[str, str]:
    """The case in the kernel's words, and what both say."""
    low, boost, protection, gfp, order = case
    shown = f"min {low}, boost {boost}, protection {protection}, gfp {gfp:#x} ({show_gfp_flags(gfp)}), order {order}"
    return shown, f"The engine refuses at {want} free pages and serves at {want + 1}. You say {got}."


# --- the zones ----------------------------------------------------------------------------------


@cache
def _zones(name: str, state: str) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """(min, boost, lowmem_reserve) of each zone of a recorded machine."""
    m = Machine.from_recording(name, state=state)
    return tuple((zone.wmark[0], zone.watermark_boost, tuple(zone.lowmem_reserve)) for zone in m.zones)


def _recorded(orders: tuple[int, ...], *machines: tuple[str, str]) -> list[Case]:
    zones = [zone for machine in machines for zone in _zones(*machine)]
    return [
        (low, boost, reserve[gfp_zone(gfp)], gfp, order)
        for low, boost, reserve in zones
        for gfp in MASKS
        for order in orders
    ]


def _yard() -> list[Case]:
    """The first zone of the yard, for masks that say GFP_DMA: no protection, no boost."""
    low, boost, reserve = _zones("256M-a-21", "state0")[0]
    return [(low, boost, reserve[gfp_zone(GFP_DMA | gfp)], gfp, 0) for gfp in MASKS]


@cache
def random_cases() -> tuple[Case, ...]:
    """300 zones, for masks with other bits beside those that count."""
    rng = random.Random(1)
    beside = tuple(map(int, (0, 0, __GFP_ZERO, __GFP_NOWARN, __GFP_COMP | __GFP_ZERO)))
    masks = (*MASKS, int(GFP_NOFS), int(__GFP_HIGH | GFP_NOFS))
    return tuple(
        (
            rng.randrange(16, 1500), rng.choice((0, 512, 922, rng.randrange(300))),
            rng.choice((0, rng.randrange(200))), rng.choice(masks) | rng.choice(beside),
            rng.choice((0, 0, 0, rng.randint(1, MAX_ORDER - 1))),
        )
        for _ in range(300)
    )  # fmt: skip


_ROWS = [
    ("single pages of the yard, five masks", "256M-a-21", _yard),
    (
        "zones with a protection",
        "256M-a-21, 256M-normal-a-31",
        lambda: _recorded((0,), ("256M-a-21", "state0"), ("256M-normal-a-31", "state0")),
    ),
    (
        "zones with a boost",
        "128M-i-19 and 256M-normal-d-34 as they ended",
        lambda: _recorded((0,), ("128M-i-19", "state1"), ("256M-normal-d-34", "state1")),
    ),
    (
        "the same, orders 1, 3 and 10",
        "128M-i-19 and 256M-normal-d-34 as they ended",
        lambda: _recorded((1, 3, 10), ("128M-i-19", "state1"), ("256M-normal-d-34", "state1")),
    ),
    ("300 random zones", "seed 1", random_cases),
]

_MISTAKES = [
    Mistake(lambda low, boost, protection, gfp, order: low, "That is `min` for everybody. Who may go deeper? Look at "
            "the bits of the mask."),
    *(Mistake(_slip(name), why) for name, why in SLIPS.items()),
]  # fmt: skip

STOPS_AT = ExerciseSpec(
    letter="A",
    title="how deep?",
    task="A zone refuses a request for 2^order pages at `n` free pages or fewer. Return `n`. You get the zone's `min` "
    "(without its boost), its `boost`, its `protection` against this request (lowmem_reserve), and the mask. All "
    "counts are pages; a block large enough is there; no mask has `__GFP_MEMALLOC`.",
    signature="def stops_at(min, boost, protection, gfp, order) -> int",
    starter="def stops_at(min, boost, protection, gfp, order):\n    return min\n",
    hints=[
        "The test is free - (2^order - 1) > mark + protection. The mark begins as min + boost. Which bits lower it?",
        (
            "`__GFP_HIGH` (0x20): mark -= mark // 2. Without `__GFP_DIRECT_RECLAIM` (0x400) as well: then mark -= "
            "mark // 4. A mask without 0x20 gets neither."
        ),
        "A single page with `__GFP_ATOMIC` (0x200) is tested a second time, with a mark that begins as min alone.",
    ],
    returns=int,
    budget=30_000_000,  # a loop over the counts is an answer too
    # A row is judged by itself: whoever made two mistakes is told of each where it shows.
    checks=[check for row in _ROWS for check in comparisons([row], true_level, _MISTAKES, words)],
)
