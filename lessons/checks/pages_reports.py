"""Exercises of lesson 05 about verdicts: would it pass, what does a report say, and a driver's store.

The judge is the engine: its zone tests on real and random states, its reports, its books after ``trim``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kmemlab_widgets.questions import ExerciseSpec, Mistake, comparisons
from pages_lists import fresh

from kmemlab import (
    __GFP_HIGH,
    __GFP_MEMALLOC,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIM,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOWAIT,
    Machine,
)

RECORDED = Path(__file__).resolve().parent.parent / "recordings" / "order10_atomic.txt"
MASKS = (GFP_KERNEL | __GFP_NORETRY, GFP_NOWAIT, GFP_ATOMIC, __GFP_HIGH, __GFP_HIGH | __GFP_RECLAIM | __GFP_NORETRY)


# --- C: verdict ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ZoneNumbers:
    """What a zone has, in pages: ``nr_free`` are the blocks of each order that the request may take,
    ``protection`` is the zone's against this request, ``free_pcp`` lies on per-CPU lists."""

    free: int
    min: int
    boost: int
    protection: int
    nr_free: tuple[int, ...]
    reserved_highatomic: int
    free_pcp: int


def _near_the_floor(name: str, seed: int) -> Machine:
    """A machine that is filled until requests reach the slow path, then loosened a little."""
    rng = random.Random(seed)
    m = Machine.from_recording(name)
    pages = []
    mask = rng.choice((GFP_NOWAIT, GFP_ATOMIC, GFP_ATOMIC | __GFP_MEMALLOC)) | __GFP_NOWARN
    while page := m.alloc_pages(mask, rng.choice((0, 0, 0, 1)) if len(pages) % 3 else 0):
        pages.append(page)
    for page in rng.sample(pages, min(len(pages), rng.choice((0, 30, 250, 600)))):
        m.__free_pages(page, page.order)
    if seed % 3 == 0:  # a run of whole blocks comes back as well
        first = rng.randrange(1024, 3000) & ~63
        for page in pages:
            if first <= page.pfn < first + 64 and page.refcount > 0:
                m.__free_pages(page, page.order)
    if seed % 2:
        m.drain_all_pages()
    return m


Case = tuple[ZoneNumbers, int, int]


@cache
def _verdicts() -> dict[Case, tuple[bool, str]]:
    """What the engine's slow path said of each zone, in states of four machines."""
    table: dict[Case, tuple[bool, str]] = {}
    yard = fresh()
    for gfp in (GFP_NOWAIT, __GFP_HIGH, GFP_ATOMIC):  # each to its own floor, where equal is not above
        while yard.alloc_pages(GFP_DMA & 1 | gfp | __GFP_NOWARN, 0):
            pass
        table.update(_asked(yard, (0, 1), [GFP_DMA & 1 | mask for mask in MASKS]))
    for name, seeds in (("128M-a-11", 3), ("128M-c-13", 3), ("256M-normal-a-31", 1), ("256M-a-21", 1)):
        for seed in range(seeds):
            table.update(_asked(_near_the_floor(name, seed), (0, 1, 3, 4, 10), MASKS))
    return table


def _asked(m: Machine, orders: tuple[int, ...], masks: Any) -> dict[Case, tuple[bool, str]]:
    """The slow path's verdicts on this machine."""
    table: dict[Case, tuple[bool, str]] = {}
    zones = {zone.name: zone for zone in m.snapshot().zones}
    for order in orders:
        for gfp in masks:
            trial = m.copy(lazy=True)
            trial.alloc_pages(gfp | __GFP_NOWARN, order)
            table.update(_said(trial, zones, order, int(gfp)))
    return table


def _down_to_min(m: Machine) -> Iterator[Any]:
    """The zones' tests in the last request's first walk down to ``min``."""
    walk = ""
    for event in m.last_events():
        if event.name == "lab_attempt":
            if walk == "min":
                return
            walk = event.wmark
        elif event.name == "lab_zone" and walk == "min":
            yield event


def _said(m: Machine, zones: dict[str, Any], order: int, gfp: int) -> dict[Case, tuple[bool, str]]:
    """What these tests came to, by the numbers a learner is given."""
    said: dict[Case, tuple[bool, str]] = {}
    for event in _down_to_min(m):
        zone = zones[event.zone]
        types = (0, 1, 2, 3) if gfp & 0x420 == 0x20 and order else (0, 1, 2)
        counts = tuple(sum(len(zone.free.get((k, mt), ())) for mt in types) for k in range(11))
        pcp = sum(each.count for each in zone.pcps)
        numbers = ZoneNumbers(
            event.free, zone.min, zone.boost, event.protection, counts, zone.nr_reserved_highatomic, pcp
        )
        passed = event.enough and event.block
        said[numbers, order, gfp] = passed, "ok" if passed else "block" if event.enough else "amount"
    return said


def _judge(zone: ZoneNumbers, order: int, gfp: int, slip: str = "") -> tuple[bool, str]:
    """The test of the slow path with one slip in it, to recognise who made it."""
    high, blocks = bool(gfp & 0x20), bool(gfp & 0x400)

    def enough(mark: int) -> bool:
        mark += zone.protection if slip == "protection" else 0
        if slip == "3/8":
            mark = int(mark * {(True, False): 3 / 8, (True, True): 1 / 2}.get((high, blocks), 1))
        elif high:
            mark -= mark // 2
            mark -= 0 if blocks else mark // 4
        elif slip == "nowait" and not blocks:
            mark -= mark // 4
        free = zone.free - (0 if slip == "order" else (1 << order) - 1) + (zone.free_pcp if slip == "pcp" else 0)
        free -= zone.reserved_highatomic if blocks and not high else 0
        need = mark + (0 if slip == "protection" else zone.protection)
        return free >= need if slip == ">=" else free > need

    passes = enough(zone.min + (0 if slip == "boost" else zone.boost))
    if not passes and not order and gfp & 0x200 and slip != "atomic":
        passes = enough(zone.min)
    if not passes:
        return False, "amount"
    return (True, "ok") if any(zone.nr_free[order:]) else (False, "block")


def _slip(name: str) -> Callable[..., tuple[bool, str]]:
    return lambda zone, order, gfp: _judge(zone, order, gfp, name)


def _words_verdict(case: Any, got: Any, want: Any) -> tuple[str, str]:
    zone, order, gfp = case
    shown = f"free {zone.free}, min {zone.min}, boost {zone.boost}, protection {zone.protection}, "
    shown += f"reserved_highatomic {zone.reserved_highatomic}, order {order}, gfp {gfp:#x}"
    return shown, f"The engine says {want}, you say {got}."


VERDICT = ExerciseSpec(
    letter="C",
    title="will it pass?",
    task="The test of the slow path (`min`). `zone` has free, min, boost, protection, nr_free, reserved_highatomic. "
    "Return (True, 'ok'), (False, 'amount') or (False, 'block').",
    signature="def verdict(zone, order: int, gfp: int) -> tuple[bool, str]",
    starter='def verdict(zone, order: int, gfp: int) -> tuple[bool, str]:\n    return zone.free > zone.min, "amount"\n',
    hints=[
        (
            "free - (2^order - 1) > mark + protection. The mark begins as min + boost. Who may lower it? __GFP_HIGH is "
            "0x20, __GFP_DIRECT_RECLAIM 0x400."
        ),
        (
            "HIGH: mark -= mark // 2. HIGH that cannot sleep: then mark -= mark // 4. Who has no HIGH and may sleep "
            "must also leave reserved_highatomic alone."
        ),
        (
            "A failing order-0 request with __GFP_ATOMIC (0x200) is tested once more without the boost. Then the "
            "block: any(zone.nr_free[order:])."
        ),
    ],
    returns=tuple,
    checks=comparisons(
        [("zones near their floor, orders 0 to 10, five masks", "seeds 0-2, 4 machines", lambda: list(_verdicts()))],
        lambda zone, order, gfp: _verdicts()[zone, order, gfp],
        [
            Mistake(_slip(">="), "Strictly greater: 34 of 34 fails. Equal is not above."),
            Mistake(
                _slip("order"),
                "You forget 2^order - 1: after the request the zone must still be above its mark. 48 pages, order 4: "
                "48 - 15 = 33.",
            ),
            Mistake(
                _slip("protection"),
                "The protection is added after the mark was lowered: it is not the request's to halve.",
            ),
            Mistake(
                _slip("3/8"),
                "Not 3/8 in one multiplication: 34 gives 12.75. The kernel halves, then takes a quarter of the rest "
                "off, each rounded down: 34 - 17 = 17, 17 - 4 = 13.",
            ),
            Mistake(_slip("boost"), "The boost is missing: stealing raised this zone's marks."),
            Mistake(
                _slip("pcp"), "Pages on per-CPU lists do not count as free here: they are out of the lists already."
            ),
            Mistake(
                _slip("nowait"),
                "Only who has __GFP_HIGH gets the second quarter off. GFP_NOWAIT stops at the full mark.",
            ),
            Mistake(
                _slip("atomic"),
                "A single page with __GFP_ATOMIC is tested once more without the boost: that is there to wake kswapd, "
                "not to make interrupts fail.",
            ),
            Mistake(
                lambda zone, order, gfp: (True, "ok") if zone.free > zone.min else (False, "amount"),
                "You look at the amount alone. Which order is wanted, and is such a block there?",
            ),
        ],
        _words_verdict,
    ),
)


# --- D: why, from a report ----------------------------------------------------------------------

Rows = list[tuple[str, str, int, int]]


def _read(report: str, slip: str = "") -> Rows:
    """Read a report with one slip, to recognise who made it."""
    head = re.search(r"order:(\d+), mode:(0x[0-9a-f]+)", report)
    assert head
    order, gfp = int(head[1]), int(head[2], 16)
    top = 0 if gfp & 1 else 1 if gfp & 4 else 2
    unit = 1 if slip == "kB" else 4
    rows: Rows = []
    for index, name in ((2, "Normal"), (1, "DMA32"), (0, "DMA")):
        numbers = re.search(
            rf"Node 0 {name} free:(\d+)kB boost:(\d+)kB min:(\d+)kB "
            r".*?reserved_highatomic:(\d+)KB.*\nlowmem_reserve\[\]:(.*)",
            report,
        )
        lists = re.search(rf"Node 0 {name}: (.*) = ", report)
        if index > top or not numbers or not lists:
            continue
        free, boost, mark, reserved = (int(numbers[k]) // unit for k in (1, 2, 3, 4))
        mark += boost if slip == "boost" else 0
        mark -= mark // 2 if gfp & 0x20 else 0
        mark -= mark // 4 if gfp & 0x20 and not gfp & 0x400 else 0
        need = mark + int(numbers[5].split()[0 if slip == "index" else top])
        left = free - (1 << order) + 1 - (reserved if not gfp & 0x20 and gfp & 0x400 else 0)
        counts = [int(word.partition("*")[0]) for word in re.findall(r"\d+\*\d+kB", lists[1])]
        if left <= need:
            rows.append((name, "amount", left, need))
        elif not any(counts[order:]):
            rows.append((name, "block", left, need))
    return rows


@cache
def _reports() -> dict[str, Rows]:
    """Reports of the engine's failures, and what its zone tests said in the same call."""
    table: dict[str, Rows] = {}
    for name, seed in (("128M-a-11", 0), ("256M-normal-a-31", 1), ("128M-c-13", 2), ("256M-a-21", 4)):
        rng = random.Random(seed)
        for gfp in (GFP_ATOMIC, GFP_NOWAIT, GFP_DMA & 1 | GFP_ATOMIC):
            m = _near_the_floor(name, seed)
            order = rng.choice((3, 4, 5, 9))
            while m.alloc_pages(gfp | __GFP_NOWARN, order):
                pass
            if not gfp & __GFP_HIGH and any(zone.nr_reserved_highatomic for zone in m.snapshot().zones):
                continue  # the report does not tell which blocks of a list are the reserve's
            m.alloc_pages(gfp & ~__GFP_NOWARN, order)
            table[m.dmesg()] = [
                (
                    event.zone,
                    "block" if event.enough else "amount",
                    event.free - event.unusable,
                    event.mark + event.protection,
                )
                for event in _down_to_min(m)
            ]
    return table


@cache
def _recorded_report() -> str:
    return RECORDED.read_text(encoding="utf-8")


def _truth_of_report(report: str) -> Rows:
    return _read(report) if report == _recorded_report() else _reports()[report]


def _misread(slip: str) -> Callable[[str], Rows]:
    return lambda report: _read(report, slip)


WHY = ExerciseSpec(
    letter="D",
    title="debug this report",
    task="Read the memory part of a `page allocation failure`. For each zone the mask may use, highest first, return "
    "(zone, 'amount' or 'block', left, right): the test that failed, and both sides of left > right in pages.",
    signature="def why(report: str) -> list[tuple[str, str, int, int]]",
    starter="def why(report: str) -> list[tuple[str, str, int, int]]:\n    return []\n",
    hints=[
        (
            "`order:` and `mode:` stand in the first line. A zone's line has free and min in kB (4 kB are a page); "
            "`min` contains the boost already."
        ),
        (
            "left = free - (2^order - 1). right = mark + lowmem_reserve[i], where i is the mask's highest zone: 0 for "
            "GFP_DMA, 2 (Normal) for the others here. Exercise C tells the mark."
        ),
        "'block' when left > right and the zone's list has 0 blocks of this order and above (4kB is order 0).",
    ],
    returns=list,
    checks=comparisons(
        [
            (
                "a real kernel's report: order 10, GFP_ATOMIC, 20 MiB free",
                "recorded, 128M",
                lambda: [(_recorded_report(),)],
            ),
            ("fresh reports of the engine", "seeds 0-4, 4 machines", lambda: [(text,) for text in _reports()]),
        ],
        _truth_of_report,
        [
            Mistake(_misread("kB"), "You compare kB. A page has 4 kB; lowmem_reserve is in pages already."),
            Mistake(
                _misread("index"),
                "lowmem_reserve[0] is for GFP_DMA. This mask's class is Normal, index 2, also where no Normal zone "
                "exists.",
            ),
            Mistake(_misread("boost"), "The boost is counted twice: min in the report contains it."),
            Mistake(
                lambda report: [(name, "amount", left, right) for name, _, left, right in _read(report)],
                "Not every zone is short of pages: look whether left > right, then at the blocks.",
            ),
            Mistake(lambda report: [], "Out of memory? Read on: the report says how much is free in each zone."),
        ],
        lambda case, got, want: (f"the engine: {want}", f"You say {got}."),
    ),
)


EXERCISES = {"verdict": VERDICT, "why": WHY}
