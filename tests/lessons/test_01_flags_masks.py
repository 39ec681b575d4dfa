"""Lesson 01, exercises B, C, D: typical wrong functions are told why, right ones pass, and the engine is the judge."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from kmemlab import (
    __GFP_ATOMIC,
    __GFP_DIRECT_RECLAIM,
    __GFP_HIGH,
    __GFP_KSWAPD_RECLAIM,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOWAIT,
    Machine,
    decode,
)
from kmemlab.gfp import FLAGS
from kmemlab_widgets.lesson import Lesson
from tests.lessons.machines import CHECKS, Containing, answered, checks_module, starter, told


@pytest.fixture(scope="module")
def lesson() -> Lesson:
    return Lesson("flags_masks", checks=CHECKS)


@cache
# --- B: how deep -------------------------------------------------------------------------------------------


def by_steps(min: int, boost: int, protection: int, gfp: int, order: int = 0) -> int:  # noqa: A002
    """The rule, written down again."""
    mark = min if gfp & __GFP_ATOMIC and order == 0 else min + boost
    if gfp & __GFP_HIGH:
        mark -= mark // 2
        if not gfp & __GFP_DIRECT_RECLAIM:
            mark -= mark // 4
    return mark + protection + 2**order - 1


def by_trying(min: int, boost: int, protection: int, gfp: int, order: int = 0) -> int:  # noqa: A002
    """Both tests, on every count from the top down."""

    def served(free: int, mark: int) -> bool:
        if gfp & 0x20:
            mark = mark - mark // 2
            mark = mark if gfp & 0x400 else mark - mark // 4
        return free - (1 << order) + 1 > mark + protection

    free = min + boost + protection + (1 << order)
    while served(free, min + boost) or (gfp & 0x200 and not order and served(free, min)):
        free -= 1
    return free


def by_table(min: int, boost: int, protection: int, gfp: int, order: int = 0) -> int:  # noqa: A002
    halvings = {(0, 0): (), (0, 1): (), (1, 1): (2,), (1, 0): (2, 4)}
    mark = min + boost * (not (gfp & 0x200 and not order))
    for part in halvings[gfp >> 5 & 1, gfp >> 10 & 1]:
        mark -= mark // part
    return mark + protection + (1 << order) - 1


def in_one_step(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    if gfp & 0x420 != 0x20:
        return by_steps(low, boost, protection, gfp, order)
    return 3 * (low if gfp & 0x200 and not order else low + boost) // 8 + protection + (1 << order) - 1


def halved(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low + protection, boost, 0, gfp, order)


def never_boosted(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low, 0, protection, gfp, order)


def nowait_not_boosted(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low, boost if gfp & 0x400 else 0, protection, gfp, order)


def high_not_boosted(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low, 0 if gfp & 0x420 == 0x20 and not order else boost, protection, gfp, order)


def always_boosted(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low + boost, 0, protection, gfp, order)


def atomic_at_every_order(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low, 0 if gfp & 0x200 else boost, protection, gfp, order)


def sleeper_too(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    return by_steps(low, boost, protection, gfp & ~0x400, order)


def quarter_for_nowait(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    quarter = 0 if gfp & 0x420 else (low + boost) // 4
    return by_steps(low, boost, protection, gfp, order) - quarter


def whole_masks(low: int, boost: int, protection: int, gfp: int, order: int) -> int:
    known = gfp in (GFP_ATOMIC, __GFP_HIGH | GFP_NOWAIT, __GFP_HIGH | GFP_KERNEL)
    return by_steps(low, boost, protection, gfp if known else 0, order)


STOPS_AT_WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("stops_at", in_one_step, "411 gives 155, not 154"),
    ("stops_at", halved, "lowmem_reserve is never halved"),
    ("stops_at", lambda low, b, p, gfp, order: by_steps(low, b, 0, gfp, order), "The protection is missing"),
    ("stops_at", never_boosted, "Every use of a watermark adds it"),
    ("stops_at", nowait_not_boosted, "The boost is no matter of sleeping"),
    ("stops_at", high_not_boosted, "`__GFP_HIGH` does not look below the boost"),
    ("stops_at", always_boosted, "gets a second test without the boost"),
    ("stops_at", atomic_at_every_order, "From order 1 on GFP_ATOMIC keeps the boost"),
    ("stops_at", sleeper_too, "206 of 411"),
    ("stops_at", quarter_for_nowait, "it stops at the full mark"),
    ("stops_at", whole_masks, "You compare whole masks"),
    ("stops_at", lambda low, b, p, gfp, order: by_steps(low, b, p, gfp, order) + 1 - (1 << order),
     "the pages of the request, but one"),
    ("stops_at", lambda *case: by_steps(*case) - 1, "Equal is refused too"),
    ("stops_at", lambda *case: by_steps(*case) + 1, "takes 2^order - 1 off the free pages, not 2^order"),
    ("stops_at", lambda low, b, p, gfp, order: low, "That is `min` for everybody"),
    ("stops_at", lambda low, b, p, gfp, order: 7, "You say 7"),
    ("stops_at", lambda low, b, p, gfp, order: low / 2, "should return int"),
]  # fmt: skip


def test_the_levels_are_where_the_yard_stops() -> None:
    """The judge beside real requests: the yard drunk empty by one mask after another."""
    levels = checks_module("flags_levels")
    m = Machine.from_recording("256M-a-21")
    dma = m.zones[0]
    stops = []
    for gfp in (GFP_NOWAIT, __GFP_HIGH | GFP_NOWAIT, GFP_ATOMIC):
        while m.alloc_pages(GFP_DMA | gfp | __GFP_NOWARN, 0):
            pass
        stops.append(dma.nr_free_pages)
        assert levels.true_level(dma.wmark[0], 0, 0, int(gfp), 0) == stops[-1]
    assert stops == [34, 13, 13]


def test_the_levels_are_what_a_boosted_zone_is_tested_against() -> None:
    levels = checks_module("flags_levels")
    m = Machine.from_recording("256M-a-21")
    for gfp in (GFP_NOWAIT, __GFP_HIGH | GFP_NOWAIT, GFP_ATOMIC):
        while m.alloc_pages(gfp | __GFP_NOWARN, 0):
            pass
        last = {event.zone: event for event in m.last_events() if event.name == "lab_zone"}
        for zone in m.zones:
            event = last[zone.name]
            case = (zone.wmark[0], zone.watermark_boost, event.protection, int(gfp), 0)
            assert levels.true_level(*case) == event.mark + event.protection >= zone.nr_free_pages
    assert m.zones[1].watermark_boost == 922


def test_300_random_zones() -> None:
    levels = checks_module("flags_levels")
    cases = levels.random_cases()
    assert len(cases) == 300
    assert len(set(cases)) > 290
    assert {case[4] for case in cases} == set(range(11))
    assert any(case[1] for case in cases)
    for case in cases:
        assert levels.true_level(*case) == by_steps(*case)


# --- C: old masks ------------------------------------------------------------------------------------------

MOVED = {
    0x01: 0x01, 0x02: 0x02, 0x10: 0xC00, 0x20: 0x20, 0x40: 0x40, 0x80: 0x80, 0x100: 0, 0x200: 0x2000, 0x400: 0x4000,
    0x800: 0x8000, 0x1000: 0x10000, 0x4000: 0x40000, 0x8000: 0x100,
}  # fmt: skip


def by_bits(word: int, old: str, new: str) -> int:
    """Bit by bit; kswapd is always woken."""
    return 0x800 | sum(now for bit, now in MOVED.items() if word & bit)


def by_names(word: int, old: str, new: str) -> int:
    """Name by name, with the decoder."""
    same = {"__GFP_WAIT": "__GFP_RECLAIM", "__GFP_REPEAT": "__GFP_RETRY_MAYFAIL"}
    mask = __GFP_KSWAPD_RECLAIM
    for name in decode(word, old).names:
        mask |= FLAGS[new].get(same.get(name, name), 0)
    return mask


def reading(change: Callable[[int, int], int]) -> Callable[..., int]:
    """The right translation, changed."""
    return lambda word, old, new: int(change(word, by_bits(word, old, new)))


def kept(bit: int, right: int) -> Callable[..., int]:
    """A bit of the old word stays where it was, instead of moving to its right place."""
    return reading(lambda word, mask: mask & ~right | word & bit)


def sleeper_nofail(word: int, mask: int) -> int:
    """REPEAT as NOFAIL, where the request may wait."""
    return mask & ~0x4000 | 0x8000 if word & 0x410 == 0x410 else mask


TRANSLATE_RIGHT = [
    ("translate", by_bits), ("translate", by_names), ("translate", reading(sleeper_nofail)),
    ("translate", reading(lambda word, mask: mask | 0x200 if word & 0x30 == 0x20 else mask)),
    ("translate", reading(lambda word, mask: mask | 0x100000 if word & 0x10 else mask)),
    ("translate", reading(lambda word, mask: mask if word & 0x10 else mask & ~0x14000)),
]  # fmt: skip
TRANSLATE_WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("translate", lambda word, old, new: word, "The same number is another word now. 0xd0 in 6.1 cannot sleep"),
    ("translate", lambda word, old, new: word, "The same number is another word now. Nobody wakes kswapd"),
    ("translate", reading(lambda word, mask: mask & ~0x800), "Only one reclaim bit: 0x400 lets the caller reclaim"),
    ("translate", reading(lambda word, mask: mask & ~0x400), "Only one reclaim bit: 0x800 wakes kswapd"),
    ("translate", kept(0x100, 0), "in 6.1 it is `__GFP_ZERO`: your pages are cleared for nothing"),
    ("translate", kept(0x200, 0x2000), ("The failure would be reported. 0x200 was `__GFP_NOWARN` in 2.6.11; in 6.1 it "
     "is `__GFP_ATOMIC`")),
    ("translate", kept(0x200, 0), "0x200 was `__GFP_NOWARN` in 2.6.11; it is `__GFP_ATOMIC` in 6.1"),
    ("translate", kept(0x400, 0x4000), "0x400 is the sleep bit now"),
    ("translate", reading(lambda word, mask: mask | (word & 0x400 if word & 0x20 else 0)),
     "`__GFP_DIRECT_RECLAIM`, the sleep bit: 0x420 must not sleep"),
    ("translate", kept(0x800, 0x8000), "0x800 was `__GFP_NOFAIL` in 2.6.11; in 6.1 it is `__GFP_KSWAPD_RECLAIM`"),
    ("translate", kept(0x1000, 0x10000), "0x1000 was `__GFP_NORETRY` in 2.6.11; in 6.1 it is `__GFP_WRITE`"),
    ("translate", kept(0x1000, 0), "0x1000 was `__GFP_NORETRY` in 2.6.11; it is `__GFP_WRITE` in 6.1"),
    ("translate", kept(0x8000, 0x100), "0x8000 was `__GFP_ZERO` in 2.6.11; in 6.1 it is `__GFP_NOFAIL`"),
    ("translate", kept(0x4000, 0x40000), "A compound page: yes by 0x40d0 in 2.6.11, no by your 0x4cc0"),
    ("translate", kept(0x10, 0), "It is no leave to sleep"),
    ("translate", reading(lambda word, mask: mask | 0x8), "2.6.11 knew no mobility"),
    ("translate", reading(lambda word, mask: mask & ~0x2), "Highest zone (32 bits): HighMem by 0xd2 in 2.6.11, Normal"),
    ("translate", reading(lambda word, mask: mask & ~0x1), "Highest zone (32 bits): DMA by 0x1 in 2.6.11, Normal"),
    ("translate", reading(lambda word, mask: mask & ~0x40), "Reclaim may start I/O: yes by 0xd0"),
    ("translate", reading(lambda word, mask: mask | 0xC0), "Reclaim may call a filesystem: no by 0x50"),
    ("translate", reading(lambda word, mask: mask & ~0x20), "Reserves: down to 3/8 of min by 0x20"),
    ("translate", reading(lambda word, mask: mask | 0x20000), "Reserves: down to 3/8 of min by 0x20"),
    ("translate", reading(lambda word, mask: mask | 0x200), "a mask with it that may sleep makes the kernel warn"),
    ("translate", reading(lambda word, mask: mask | 0x2000), "hides failures that 2.6.11 reported"),
    ("translate", reading(lambda word, mask: mask | 0x100), "Nobody asked for cleared pages"),
    ("translate", reading(lambda word, mask: mask & ~0x4000 | (word & 0x400) << 5), "cannot keep a promise"),
    ("translate", lambda word, old, new: int(GFP_KERNEL), "the sleep bit: 0x20 must not sleep"),
    ("translate", lambda word, old, new: int(GFP_ATOMIC), "0xa20 in 6.1"),
    ("translate", reading(lambda word, mask: mask | 1 << 26), "0x4000000 has no name in 6.1"),
    ("translate", lambda word, old, new: -1, "-1 is no mask"),
    ("translate", lambda word, old, new: "GFP_KERNEL", "should return int or gfp_t"),
]  # fmt: skip


def test_every_word_of_the_exercise_is_judged_by_itself() -> None:
    """Each word refuses GFP_NOWAIT, and accepts a translation; no word is right for another's meaning."""
    masks = checks_module("flags_masks")
    words = [word for _, words in masks.ROWS for word in words]
    assert {0x20, 0xD0, 0xD2, 0x50, 0x10, 0x1} < set(words)
    for word in words:
        assert masks.fault(word, int(GFP_NOWAIT))
        assert masks.fault(word, by_bits(word, masks.OLD, masks.NEW)) == ""
    assert masks.fault(0xD0, by_bits(0x50, "", "")) != ""


def test_a_row_says_when_repeat_became_nofail(lesson: Lesson) -> None:
    checks = {check.tried: check for check in lesson._exercises["translate"].checks}
    row = checks["with __GFP_REPEAT, 0x400"].run(reading(sleeper_nofail))
    assert row.passed
    assert "RETRY_MAYFAIL" in row.kernel
    assert checks["with __GFP_REPEAT, 0x400"].run(by_bits).kernel == ""


# --- D: reports --------------------------------------------------------------------------------------------


def by_reading(text: str, slip: str = "") -> list[tuple[str, str, int, int]]:
    """Read a report, with one slip."""
    head = re.search(r"order:(\d+), mode:(0x[0-9a-f]+)", text)
    assert head
    order, gfp = int(head[1]), int(head[2], 16)
    top = 0 if gfp & 1 else 2
    rows = []
    for index, name in ((2, "Normal"), (1, "DMA32"), (0, "DMA")):
        line = re.search(rf"Node 0 {name} free:(\d+)kB boost:(\d+)kB min:(\d+)kB .*\nlowmem_reserve\[\]:(.*)", text)
        if index > top or not line:
            continue
        free, boost, mark = (int(number) // (1 if slip == "kB" else 4) for number in line.groups()[:3])
        reserve = list(map(int, line[4].split()))
        low = mark - boost + (boost if slip == "twice" and gfp == 0x820 else 0)
        protection = 0 if slip == "no reserve" else reserve[0 if slip == "column" else top]
        right = by_steps(low, boost, protection, gfp & ~0x200 if slip == "kept" else gfp, 0 if not order else 1)
        right -= 1 if order else 0
        if slip == "min":
            right = mark
        if slip == "3/8":
            right = in_one_step(low, boost, protection, gfp, 1 if order else 0) - (1 if order else 0)
        left = free - {"no order": 0, "2^order": 1 << order}.get(slip, (1 << order) - 1)
        lists = re.search(rf"Node 0 {name}: (.*) = ", text)
        assert lists
        counts = [int(word.partition("*")[0]) for word in re.findall(r"\d+\*\d+kB", lists[1])]
        if left <= right:
            rows.append((name, "amount", left, right))
        elif not any(counts[order:]):
            rows.append((name, "block", left, right))
    return rows


def changed(*, left: int = 0, right: int = 0, zone: str = "", head: str = "") -> Callable[[str], Any]:
    """The right answer with other numbers, for one zone or all, in one report or all."""

    def answer(text: str) -> list[tuple[str, str, int, int]]:
        return [
            (z, kind, a + left, b + right) if zone in ("", z) and head in text else (z, kind, a, b)
            for z, kind, a, b in by_reading(text)
        ]

    return answer


def swapped(kind: str) -> Callable[[str], Any]:
    return lambda text: [(zone, kind, left, right) for zone, _, left, right in by_reading(text)]


WHY_RIGHT: list[tuple[str, Callable[..., Any]]] = [
    ("why", by_reading), ("why", lambda text: by_reading(text)[::-1]),
    ("why", lambda text: [list(row) for row in by_reading(text)]),
]  # fmt: skip
WHY_WRONG: list[tuple[str, Callable[..., Any], str]] = [
    ("why", lambda text: by_reading(text, "kept"), ("270 is the mark with the boost. GFP_ATOMIC at order 0 gets a "
     "second test")),
    ("why", lambda text: by_reading(text, "min"), "719 is min, and this mask has `__GFP_HIGH`"),
    ("why", changed(right=-53, zone="DMA"), "22 is the mark alone: plus lowmem_reserve[2] = 53"),
    ("why", lambda text: by_reading(text, "column"), "is missing"),
    ("why", changed(right=-70, zone="DMA32", head="order:9"), "plus lowmem_reserve[2] = 70"),
    ("why", changed(right=-70, zone="DMA", head="order:9"), "class Normal: lowmem_reserve[2] = 114"),
    ("why", lambda text: by_reading(text, "twice"), "The boost is counted twice"),
    ("why", lambda text: by_reading(text, "kB"), "You count kB"),
    ("why", lambda text: [(z, k, left, 4 * right) for z, k, left, right in by_reading(text)], "You count kB"),
    ("why", lambda text: by_reading(text, "3/8"), "411 gives 155, not 154"),
    ("why", changed(left=1023, zone="DMA", head="order:10"),
     "2^order - 1 is missing on the left: 736 - 1023 = -287"),
    ("why", lambda text: by_reading(text, "2^order"), "5136 - 1023 = 4113"),
    ("why", changed(left=151), "227 is not that"),
    ("why", changed(right=1),
     "79 is not that: work the mark out from min"),
    ("why", swapped("leak"), "`leak` is no test"),
    ("why", swapped("amount"), "The amount passes: 4113 > 78. Then a block of order 10"),
    ("why", swapped("block"), "The amount fails first: 76 is not above 78"),
    ("why", lambda text: [], "Zone DMA32 is missing"),
    ("why", lambda text: by_reading(text)[:1], "Zone DMA is missing"),
    ("why", lambda text: [*by_reading(text), ("HighMem", "amount", 0, 1)], "may not use zone HighMem"),
    ("why", lambda text: by_reading(text) * 2, "One entry a zone"),
    ("why", lambda text: ["leak"], "Each entry is (zone, 'amount' or 'block', left, right), not 'leak'"),
    ("why", lambda text: None, "is a `return` missing?"),
]  # fmt: skip


def test_the_recorded_reports_say_what_the_lesson_says() -> None:
    """The judge is the engine's zone test on the numbers of the report; the storyboard worked them out by hand."""
    reports = checks_module("flags_reports")
    assert reports.true_why(reports.recorded("order0_atomic")) == [
        ("DMA32", "amount", 76, 78), ("DMA", "amount", 74, 75),
    ]  # fmt: skip
    assert reports.true_why(reports.recorded("order10_atomic")) == [
        ("DMA32", "block", 4113, 78), ("DMA", "amount", -287, 75),
    ]  # fmt: skip


def test_the_engines_reports_say_what_its_tests_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the judge finds in a report is what the zones said in the very call that failed."""
    reports = checks_module("flags_reports")
    said = []

    def note(self: Machine) -> str:
        walks: list[list[Any]] = []
        for event in self.last_events():
            if event.name == "lab_attempt":
                walks.append([])
            elif event.name == "lab_zone":
                walks[-1].append(event)
        said.append(
            [(e.zone, "block" if e.enough else "amount", e.free - e.unusable, e.mark + e.protection) for e in walks[-1]]
        )
        return str(dmesg(self))

    dmesg = Machine.dmesg
    monkeypatch.setattr(Machine, "dmesg", note)
    texts = reports.made.__wrapped__()
    assert [reports.true_why(text) for text in texts] == said
    assert len(said) >= 3
    assert {row[1] for rows in said for row in rows} == {"amount", "block"}
    assert {row[0] for rows in said for row in rows} == {"DMA", "DMA32", "Normal"}


def test_a_zone_that_would_do_is_not_to_be_named() -> None:
    reports = checks_module("flags_reports")
    text = reports.recorded("order0_atomic").replace("DMA32 free:304kB", "DMA32 free:3040kB")
    assert reports.true_why(text) == [("DMA", "amount", 74, 75)]
    assert "Zone DMA32 would do: 760 > 270" in reports._fault(text, [("DMA32", "amount", 760, 78)])


def test_a_block_counts_if_the_mask_may_take_it() -> None:
    reports = checks_module("flags_reports")
    small = reports.recorded("order10_atomic").replace("order:10", "order:3")
    assert reports.true_why(small) == []
    reserved = re.sub(r"\((?:U|M|UM|UME)\)", "(H)", small)
    assert reports.true_why(reserved) == []
    nowait = reserved.replace("mode:0xa20(GFP_ATOMIC)", "mode:0x800(GFP_NOWAIT)")
    assert reports.true_why(nowait) == [("DMA32", "block", 5129, 207), ("DMA", "block", 729, 110)]


# --- all -----------------------------------------------------------------------------------------------------

RIGHT = [("stops_at", by_steps), ("stops_at", by_trying), ("stops_at", by_table), *TRANSLATE_RIGHT, *WHY_RIGHT]
WRONG = [*STOPS_AT_WRONG, *TRANSLATE_WRONG, *WHY_WRONG]


@pytest.mark.parametrize(("name", "fn"), RIGHT, ids=[f"{i}-{name}" for i, (name, _) in enumerate(RIGHT)])
def test_right_functions_pass(lesson: Lesson, name: str, fn: Callable[..., Any]) -> None:
    assert told(lesson, name, fn) == []


@pytest.mark.parametrize(("name", "fn", "reason"), WRONG, ids=[f"{name}: {reason[:32]}" for name, _, reason in WRONG])
def test_wrong_functions_are_told_why(lesson: Lesson, name: str, fn: Callable[..., Any], reason: str) -> None:
    assert Containing(reason) in told(lesson, name, fn)


def test_starters_do_not_pass(lesson: Lesson) -> None:
    assert list(lesson._exercises) == ["stops_at", "translate", "why"]
    for name in lesson._exercises:
        assert told(lesson, name, starter(lesson, name)), name


@pytest.mark.parametrize(
    ("given", "right", "reason"),
    [
        ("reserve", True, "the operator's cure"),
        ("ahead", True, "the driver's cure"),
        ("kernel", False, "`BUG: scheduling while atomic: python/1/"),
        ("nofail", False, "GFP_ATOMIC cannot sleep, so it cannot wait"),
    ],
)
def test_the_best_cure(lesson: Lesson, given: str, right: bool, reason: str) -> None:
    assert answered(lesson, {}, "cure", given) == (right, Containing(reason))


def test_the_cures_are_tried_out() -> None:
    reports = checks_module("flags_reports")
    assert reports.cures() == ["reserve", "ahead"]
    assert 0 < reports.burst()[0] < reports.BURST
    assert reports.burst("nofail")[0] == reports.burst()[0]
