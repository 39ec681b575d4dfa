"""Questions of lesson 05, part 2: types and stealing, zones, reserves, wrong orders, and what each rule is worth.

Every number and every verdict is computed by the engine; what takes longer than a blink is computed once.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question
from pages_lists import free_blocks, fresh, line, pages_of

from kmemlab import (
    __GFP_DIRECT_RECLAIM,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOWAIT,
    RULES,
    Machine,
    conform,
)

THREE_ZONES = "256M-normal-a-31"
THREE = ("128M-a-11", "128M-b-12", "128M-c-13")  # enough to tell the rules apart, in a second
QUIET = GFP_DMA | __GFP_NOWARN
PROC = Path(__file__).resolve().parent.parent / "recordings"


def _left(m: Machine, zone: str = "DMA") -> int:
    return pages_of(line(m, zone))


# --- R7: types ----------------------------------------------------------------------------------


@cache
def mixed(user: int) -> tuple[int, int, int]:
    """(kept pages, pageblocks they sit in, blocks of order 9 left): 32,000 pages, every sixteenth kept."""
    m, kept, users = fresh(), [], []
    for i in range(32_000):
        if i % 16:
            users.append(m.alloc_pages(user, 0))
        else:
            kept.append(m.alloc_pages(GFP_KERNEL, 0))
    for page in users:
        m.__free_pages(page, 0)
    counts = [(order, n) for zone in ("DMA", "DMA32") for order, n in enumerate(line(m, zone))]
    return len(kept), len({page.pfn >> 9 for page in kept}), sum(n << order - 9 for order, n in counts if order >= 9)


def predict_r7(m: Any, seed: int) -> BoxesQuestion:
    """In how many pageblocks do the kept pages sit, with and without types?"""
    with_types, without = mixed(int(GFP_HIGHUSER_MOVABLE)), mixed(int(GFP_HIGHUSER))
    least = -(-with_types[0] // 512)
    same = "Watch the two machines side by side.\nWith types, kernel pages fill the pageblocks of their own type first."

    def box(label: str, got: tuple[int, int, int], others: dict[int, str]) -> Box:
        far = f"It is {got[1]}. Every sixteenth page of 32,000 stays: where does the next kernel page come from?"
        return Box(label=label, answer=got[1], wrong=others, otherwise=far, tolerance=got[1] / 4, unit="pageblocks")

    return BoxesQuestion(
        ask=f"{with_types[0]:,} kept pages need at least {least} pageblocks of 512 pages. In how many do they sit?",
        boxes=[
            box("with types", with_types, {without[1]: same}),
            box("all one type", without, {with_types[1]: same, least: same}),
        ],
        right=f"With types {with_types[1]}, and {with_types[2]} blocks of order 9 are left; as one type {without[1]}, "
        f"and {without[2]} are left. The pages are as many; the places are not.",
    )


# --- R7b: stealing ------------------------------------------------------------------------------


def predict_r7b(m: Machine, seed: int) -> Question:
    """Which block does a thief take?"""
    blocks = free_blocks(m)
    fit = min(blocks, key=lambda block: block[1])
    big = [pfn for pfn, order in blocks if order == 10]

    def stolen(m: Machine) -> Any:
        return m.alloc_pages(QUIET, 5)

    def told(m: Machine) -> str:
        page = stolen(m)
        theft = next(event for event in m.last_events() if event.name == "mm_page_alloc_extfrag")
        changed = range(page.pfn, page.pfn + (1 << theft.fallback_order), 512)
        return (
            f"Frame {page.pfn}, out of a block of order {theft.fallback_order}; its pageblocks "
            f"{' and '.join(map(str, changed))} now belong to Unmovable."
        )

    head = "Of equal blocks the head of the list goes first.\n"
    return Question(
        ask=f"Only movable blocks remain: {', '.join(f'order {order} at {pfn}' for pfn, order in blocks)}. Order 5 is "
        "wanted, unmovable. From which block does it come?",
        code="m.alloc_pages(GFP_DMA, 5)",
        choices=[
            Choice(
                f"{fit[0]}",
                f"order {fit[1]} at {fit[0]}: the smallest that fits",
                "That is best fit, right inside one's own type (round 2).\nA thief takes the largest: one big theft "
                "now, instead of a small one in many places later.",
            ),
            Choice(f"{big[0]}", f"order 10 at {big[0]}: the lowest", lambda m: f"{head}Here that is {stolen(m).pfn}."),
            Choice(f"{big[-1]}", f"order 10 at {big[-1]}: the last", lambda m: f"{head}Here that is {stolen(m).pfn}."),
            Choice(
                "null",
                "none: they belong to another type",
                "Types are a preference, not a wall.\nBefore it fails, the kernel takes from another type.",
            ),
        ],
        answer=lambda m: f"{page.pfn}" if (page := stolen(m)) else "null",
        right=told,
    )


# --- R8: zones ----------------------------------------------------------------------------------


@cache
def three_zones() -> Machine:
    """The recorded machine with DMA, DMA32 and Normal."""
    return Machine.from_recording(THREE_ZONES)


@cache
def emptied(gfp: int, *without: str) -> tuple[Machine, tuple[tuple[str, int], ...]]:
    """Single pages of one mask until NULL: the machine then, and the runs of zones they came from."""
    m = Machine.from_recording(THREE_ZONES, without=without)
    runs: list[list[Any]] = []
    while page := m.alloc_pages(gfp | __GFP_NOWARN, 0):
        if not runs or runs[-1][0] != page.zone.name:
            runs.append([page.zone.name, 0])
        runs[-1][1] += 1
    return m, tuple((name, count) for name, count in runs)


NO_SLEEP = int(GFP_KERNEL) & ~int(__GFP_DIRECT_RECLAIM)


def predict_r8(m: Any, seed: int) -> Question:
    """In which order are the zones emptied?"""
    runs = emptied(int(GFP_HIGHUSER_MOVABLE) & ~int(__GFP_DIRECT_RECLAIM))[1]
    first = [name for name, _ in runs[:3]]
    orders = {
        "down": "Normal, then DMA32, then DMA, each down to its low watermark; then round again",
        "up": "DMA first: it is the lowest",
        "all": "a little from each in turn",
        "one": "Normal to its last page, then DMA32, then DMA",
    }
    key = "down" if first == ["Normal", "DMA32", "DMA"] and len(runs) > 3 else "one"
    return Question(
        ask="Movable single pages, one after the other, until NULL. In which order are the zones emptied?",
        code="zones_of(0x1008CA)",
        choices=[
            Choice("up", orders["up"], "The other way round.\nThe list starts at the highest zone that is allowed."),
            Choice("all", orders["all"], "One zone until its watermark, then the next.\nThere is no taking turns."),
            Choice(
                "one",
                orders["one"],
                "Not to the last page.\nThe first pass stops at the *low* watermark in every zone; "
                "only the second goes on to `min`.",
            ),
            Choice("down", orders["down"], ""),
        ],
        answer=key,
        right=", then ".join(f"{name} {count:,}" for name, count in runs[:3])
        + f" pages; and then {len(runs) - 3} more visits, for {sum(count for _, count in runs[3:])} pages.",
    )


def predict_r8b(m: Any, seed: int) -> NumberQuestion:
    """With how many free pages does GFP_KERNEL leave DMA?"""
    zone = three_zones().snapshot().zone("DMA")
    protection = zone.protection[2]
    floor = zone.min + protection
    return NumberQuestion(
        ask=f"Zone DMA: min {zone.min}, protection against Normal requests {protection}. With how many free pages does "
        "GFP_KERNEL leave it alone?",
        answer=lambda m: _left(emptied(NO_SLEEP)[0]),
        tolerance=3,
        wrong={
            zone.min: f"That is `min`, where GFP_DMA stops.\nAgainst requests that could use Normal, DMA keeps "
            f"{protection} pages more.",
            zone.low: "That is `low`, for the first pass.\nThe second goes on to `min`, plus the protection.",
            zone.low + protection: "That is where the first pass stops.\nThe second goes on to `min`.",
            protection: f"The protection comes on top.\nThe test is free > min {zone.min} + protection {protection}.",
            0: "The lower zones keep some for those who have no other.\nThe test adds the protection to the mark.",
        },
        otherwise=f"The test is free > min + protection. Here {zone.min} + {protection}.",
        unit="pages",
        right=lambda m: (
            f"{zone.min} + {protection} = {floor}; it is {_left(emptied(NO_SLEEP)[0])}, because the counter that is "
            "compared moves in steps."
        ),
    )


@cache
def four_gib() -> Machine:
    """A real machine with 4 GiB, from its /proc files."""
    texts = {name: (PROC / f"4G-smp4-{name}.txt").read_text(encoding="utf-8") for name in ("buddyinfo", "zoneinfo")}
    return Machine.from_procfs(**texts)


def predict_r8c(m: Any, seed: int) -> Question:
    """Does GFP_KERNEL ever get a DMA page on a machine with 4 GiB?"""
    zone = four_gib().snapshot().zone("DMA")
    protection = zone.protection[2]
    passes = zone.nr_free_pages > zone.min + protection
    test = f"{zone.nr_free_pages:,} > {zone.min} + {protection:,} = {zone.min + protection:,}"
    return Question(
        ask=f"A real machine with 4 GiB: its DMA zone has {zone.nr_free_pages:,} free pages, min {zone.min}, "
        f"protection against Normal requests {protection:,}. All other zones are empty. Does GFP_KERNEL get a page "
        "from DMA?",
        choices=[
            Choice("yes", "yes, until min is reached", f"Not one.\nThe test is {test} ? It fails with the first page."),
            Choice("no", "no, not one", f"It does.\nThe test is {test} ? It passes."),
        ],
        answer="yes" if passes else "no",
        right=f"{test} ? No. On a large machine the 16 MiB of DMA are for those who have no other.",
        note="then read on",
    )


# --- R9: reserves -------------------------------------------------------------------------------


def _floor(m: Machine, gfp: int) -> int:
    """Free pages when this mask gets NULL."""
    while m.alloc_pages(gfp | __GFP_NOWARN, 0):
        pass
    return m.snapshot().zone("DMA").nr_free_pages


def predict_r9(m: Machine, seed: int) -> NumberQuestion:
    """Where does GFP_ATOMIC stop?"""
    least = m.snapshot().zone("DMA").min
    half = least - least // 2
    answer = half - half // 4
    return NumberQuestion(
        ask=f"`min` of the yard is {least}. GFP_ATOMIC may halve it, and take a quarter of the rest off because it "
        "cannot sleep. Where does it stop?",
        code="while m.alloc_pages(1 | GFP_ATOMIC, 0):\n    pass",
        answer=lambda m: _floor(m, 1 | GFP_ATOMIC),
        wrong={
            least * 3 // 8: f"3/8 of {least} is {least * 3 / 8:g}.\nThe kernel halves, then takes a quarter of the "
            f"rest off, and rounds each down: {least} - {least // 2} = {half}, {half} - {half // 4} = {answer}.",
            half: "HIGH halves.\nNot being able to sleep takes another quarter off.",
            least: "That is where GFP_NOWAIT stops.\nATOMIC may go below `min`.",
            0: "Only MEMALLOC goes to 0.\nIt is for those who are freeing memory.",
        },
        otherwise=f"{least} minus half of it is {half}; and a quarter of that, rounded down, is {half // 4}.",
        unit="pages",
        right=f"{least} - {least // 2} = {half}, {half} - {half // 4} = {answer}: the last request that passes "
        "finds one page more.",
    )


def predict_r9b(m: Machine, seed: int) -> Question:
    """NULL with blocks at hand: which test failed?"""
    counts = line(m)
    left, low = pages_of(counts), m.snapshot().zone("DMA").min
    fit = [order for order, n in enumerate(counts) if n and order >= 4]
    usable = left - 15

    def failed(m: Machine) -> str:
        m.alloc_pages(QUIET, 4)
        last = [event for event in m.last_events() if event.name == "lab_zone"][-1]
        return "amount" if not last.enough else "block"

    ready = ", ".join(f"one of order {order}" for order in fit)
    return Question(
        ask=f"{left} pages are left in the yard, and order 4 got NULL. Why?",
        code="m.alloc_pages(GFP_DMA, 4)     # NULL",
        choices=[
            Choice("block", "no block of 16 pages is left", f"Read the line.\nThere is {ready}."),
            Choice("amount", "too few pages are left", "The amount was enough here; look at the blocks."),
            Choice(
                "both",
                "both",
                "Only the first test failed.\nThe second, for the block, was never made.",
            ),
        ],
        answer=failed,
        right=f"{left} - 15 = {usable}, and {usable} > {low} is false. The 15 pages are taken off because the request "
        "needs 16: after it the zone must still be above its mark.",
    )


# --- R10: the wrong order -----------------------------------------------------------------------


def _two_blocks(m: Machine) -> tuple[Any, Any]:
    a, b = sorted((p for p in m.memmap.values() if p.refcount > 0 and p.order == 4), key=lambda p: p.pfn)[:2]
    return a, b


def predict_r10(m: Machine, seed: int) -> Question:
    """What does a block of order 4, freed as order 5, do?"""
    a, b = _two_blocks(m)

    def outcome(m: Machine) -> str:
        a, _ = _two_blocks(m)
        m.__free_pages(a, 5)
        if "Bad page state" not in m.dmesg():
            return "silent"
        return "report" if f"{a.pfn}..{a.pfn + 15} are lost" in str(m.check()) else "merge"

    return Question(
        ask=f"Block a is frames {a.pfn}-{a.pfn + 15}, block b is {b.pfn}-{b.pfn + 15}, both in use. Block a is given "
        "back as order 5. What happens?",
        code="m.__free_pages(a, 5)",
        choices=[
            Choice(
                "silent",
                "silent corruption: b is free and in use at once",
                "So in older texts.\nHere every page of the block is checked, and b's first page has an owner. (It "
                "cannot save you when the neighbour lies on a shelf: no owner, no mark.)",
            ),
            Choice("report", "a report in the log, nothing is given back, and a is lost", ""),
            Choice(
                "merge",
                "a merges with b, as it should",
                "With what?\nHalf of that block is somebody else's.",
            ),
        ],
        answer=outcome,
        right=f"`BUG: Bad page state ... pfn:{b.pfn:05x}`: the first page of b has a reference. Block a is lost, b is "
        "safe.",
    )


# --- R11: scullp --------------------------------------------------------------------------------


def _quanta(m: Machine, order: int) -> int:
    got = 0
    while m.alloc_pages(GFP_DMA | GFP_NOWAIT | __GFP_NOWARN, order):
        got += 1
    return got


def predict_r11(m: Machine, seed: int) -> Question:
    """Which order stores most on a fragmented yard?"""
    counts = {order: _quanta(m.copy(), order) for order in range(5)}
    kib = {order: n * 4 << order for order, n in counts.items()}
    best = max(kib, key=kib.__getitem__)
    assert best == 0
    return Question(
        ask="A driver fills the yard with quanta of one order, one page of sixteen being held. Which order stores most "
        "KiB?",
        choices=[
            Choice("0", "order 0", ""),
            Choice(
                "3",
                "order 3: fewer calls, the same memory",
                f"Fewer calls, but each needs 8 neighbours.\nOnly {counts[3]:,} such places exist.",
            ),
            Choice(
                "4",
                "order 4",
                f"One quantum for each unbroken run of 16: there are {counts[4]}.",
            ),
            Choice(
                "same",
                "all the same: the free memory does not change",
                "The amount is the same.\nThe neighbours are not: count the places for each order.",
            ),
        ],
        answer=lambda m: f"{best}",
        right="; ".join(f"order {order}: {counts[order]:,} quanta = {kib[order]:,} KiB" for order in counts) + ".",
    )


# --- the evidence: what is each rule worth? ---------------------------------------------------------


@cache
def share(rule: str) -> float:
    """The part of three recordings' pages that is right before the first miss, with one rule off."""
    results = [conform(name, without=(rule,)) for name in THREE]
    return sum(r.right_before_first_miss for r in results) / sum(r.total for r in results)


_RULE_WORDS = {
    "pcp": "the per-CPU shelf",
    "merge_likely": "head or tail (round 5)",
    "steal_block": "stealing whole pageblocks",
    "lowmem_reserve": "the protection of lower zones",
    "nofragment": "avoiding mixed types in Normal",
}


def predict_rules(m: Any, seed: int) -> Question:
    """Which rule, taken away, hurts most?"""
    assert set(_RULE_WORDS) <= RULES

    def why(rule: str) -> Any:
        return lambda m: (
            f"Without it {share(rule):.1%} are right before the first miss.\nOne rule hurts far more: which one "
            "does nearly every request meet?"
        )

    def worst(m: Any) -> str:
        return min(_RULE_WORDS, key=share)

    return Question(
        ask="Take one rule away and replay three of the recordings: how many frames are right before the first wrong "
        "one? Which rule hurts most?",
        code="conform(name, without=(rule,))",
        choices=[Choice(rule, words, why(rule)) for rule, words in _RULE_WORDS.items()],
        answer=worst,
        right=lambda m: (
            f"Without {_RULE_WORDS[worst(m)]} only {share(worst(m)):.2%} are right before the first miss: nearly every "
            "request passes there. The next cell takes all ten away, one at a time, in all nine recordings."
        ),
        recorded=True,
    )


PREDICTIONS = {
    "R7": predict_r7,
    "R7b": predict_r7b,
    "R8": predict_r8,
    "R8b": predict_r8b,
    "R8c": predict_r8c,
    "R9": predict_r9,
    "R9b": predict_r9b,
    "R10": predict_r10,
    "R11": predict_r11,
    "RULES": predict_rules,
}
