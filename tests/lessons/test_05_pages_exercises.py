"""Lesson 05's exercises: each typical wrong answer gets its own feedback, different right ones are accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import (
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RECLAIMABLE,
    __GFP_ZERO,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    get_order,
)
from kmemlab_widgets.checking import is_untouched, run_checks
from kmemlab_widgets.lesson import Lesson
from tests.lessons.machines import CHECKS

LESSON = Lesson("05_pages", checks=CHECKS)
SPECS = LESSON._exercises
QUIET = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN


def report(name: str, fn: Any) -> str:
    """All that the failed rows say."""
    return "\n".join(f"{row.kernel}\n{row.why}" for row in run_checks(SPECS[name], fn).rows if not row.passed)


# --- right answers --------------------------------------------------------------------------------


def blocks_by_bits(first: int, last: int) -> list[tuple[int, int]]:
    out = []
    while first < last:
        order = 10 if first == 0 else min(10, (first & -first).bit_length() - 1)
        order = min(order, (last - first).bit_length() - 1)
        out.append((first, order))
        first += 1 << order
    return out


def blocks_by_halving(first: int, last: int) -> list[tuple[int, int]]:
    def halve(start: int, order: int) -> list[tuple[int, int]]:
        end = start + (1 << order)
        if start >= last or end <= first:
            return []
        if first <= start and end <= last:
            return [(start, order)]
        return halve(start, order - 1) + halve(start + (1 << order - 1), order - 1)

    return [block for top in range(first & ~1023, last, 1024) for block in halve(top, 10)]


def merge_by_xor(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    out = dict(free)
    while order < 10 and out.get(pfn ^ 1 << order) == order:
        del out[pfn ^ 1 << order]
        pfn &= pfn ^ 1 << order
        order += 1
    out[pfn] = order
    return out


def merge_by_recursion(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    size = 2**order
    buddy = pfn - size if (pfn // size) % 2 else pfn + size
    if order < 10 and free.get(buddy) == order:
        rest = {k: v for k, v in free.items() if k != buddy}
        return merge_by_recursion(rest, min(pfn, buddy), order + 1)
    return {**free, pfn: order}


def verdict_step_by_step(zone: Any, order: int, gfp: int, slip: str = "") -> tuple[bool, str]:
    high, sleeps = gfp & 0x20, gfp & 0x400

    def enough(mark: int) -> bool:
        mark += zone.protection if slip == "protection" else 0
        if high and slip == "3/8":
            mark = int(mark * (0.5 if sleeps else 0.375))
        elif high:
            mark -= mark // 2
            mark -= 0 if sleeps else mark // 4
        elif slip == "nowait" and not sleeps:
            mark -= mark // 4
        free = zone.free - (0 if slip == "order" else 2**order - 1) + (zone.free_pcp if slip == "pcp" else 0)
        free -= 0 if high or not sleeps else zone.reserved_highatomic
        need = mark + (0 if slip == "protection" else zone.protection)
        return free >= need if slip == ">=" else free > need

    passes = enough(zone.min + (0 if slip == "boost" else zone.boost))
    if not passes and order == 0 and gfp & 0x200 and slip != "atomic":
        passes = enough(zone.min)
    if not passes:
        return False, "amount"
    return (True, "ok") if any(zone.nr_free[order:]) else (False, "block")


def verdict_by_rights(zone: Any, order: int, gfp: int) -> tuple[bool, str]:
    half, quarter = {(True, False): (2, 4), (True, True): (2, 0)}.get((bool(gfp & 0x20), bool(gfp & 0x400)), (0, 0))
    marks = [zone.min + zone.boost] + [zone.min] * (order == 0 and bool(gfp & 0x200))
    kept = zone.reserved_highatomic if gfp & 0x420 == 0x400 else 0
    for mark in marks:
        mark -= mark // half if half else 0
        mark -= mark // quarter if quarter else 0
        if zone.free - kept - ((1 << order) - 1) > mark + zone.protection:
            return (True, "ok") if sum(zone.nr_free[order:]) else (False, "block")
    return False, "amount"


def why_by_lines(text: str, slip: str = "") -> list[tuple[str, str, int, int]]:
    order, gfp = int(re.search(r"order:(\d+)", text)[1]), int(re.search(r"mode:(0x\w+)", text)[1], 16)
    lines, rows = text.splitlines(), []
    for i, row in enumerate(lines):
        found = re.match(r"Node 0 (\w+) free:(\d+)kB boost:(\d+)kB min:(\d+)kB", row)
        if not found or (gfp & 1 and found[1] != "DMA"):
            continue
        free, boost, mark = (int(found[k]) // (1 if slip == "kB" else 4) for k in (2, 3, 4))
        mark += boost if slip == "boost" else 0
        if gfp & 0x20:
            mark -= mark // 2
            mark -= 0 if gfp & 0x400 else mark // 4
        reserve = [int(word) for word in lines[i + 1].split(":")[1].split()]
        need = mark + reserve[0 if gfp & 1 or slip == "index" else 2]
        free -= 2**order - 1
        counts = next(other for other in lines if other.startswith(f"Node 0 {found[1]}: "))
        large = sum(int(n) for n in re.findall(r"(\d+)\*\d+kB", counts)[order:])
        if free <= need:
            rows.append((found[1], "amount", free, need))
        elif not large:
            rows.append((found[1], "block", free, need))
    return rows[::-1]


def why_by_regex(text: str) -> list[tuple[str, str, int, int]]:
    order, mode = re.search(r"order:(\d+), mode:(\w+)", text).groups()
    order, mode = int(order), int(mode, 16)
    pattern = r"Node 0 (\w+) free:(\d+)kB boost:\d+kB min:(\d+)kB.*\nlowmem_reserve\[\]: (.*)"
    rows = []
    for name, free, mark, reserve in reversed(re.findall(pattern, text)):
        if mode & 1 and name != "DMA":
            continue
        mark = int(mark) // 4
        if mode & 0x20:
            mark = mark - mark // 2
            mark = mark if mode & 0x400 else mark - mark // 4
        left, right = int(free) // 4 + 1 - (1 << order), mark + int(reserve.split()[0 if mode & 1 else 2])
        sizes = re.search(rf"Node 0 {name}: (.*) =", text)[1]
        big = [n for n, kb in re.findall(r"(\d+)\*(\d+)kB", sizes) if int(n) and int(kb) >= 4 << order]
        if left <= right or not big:
            rows.append((name, "amount" if left <= right else "block", left, right))
    return rows


def store(
    *, zeroed: bool = True, undo: bool = True, wrong_order: bool = False, exact: bool = False, null: bool = False
) -> Callable[..., Any]:
    """A scullp; each switch makes one of the typical mistakes, ``exact`` is another right way for order 0."""

    def scullp(m: Any, ram: Any, order: int) -> Any:
        quanta: list[int] = []
        stored, size = 0, 4096 << order

        def take() -> int:
            if exact and order == 0:
                return m.get_zeroed_page(QUIET)
            if exact:
                page = m.alloc_pages(QUIET | __GFP_ZERO, order)
                return m.page_address(page) if page else 0
            return m.__get_free_pages(QUIET | __GFP_ZERO if zeroed else QUIET, order)

        def write(data: bytes) -> int:
            nonlocal stored
            new = []
            while (len(quanta) + len(new)) * size < stored + len(data):
                address = take()
                if not address and not null:
                    for other in new if undo else ():
                        m.free_pages(other, order)
                    return -12
                new.append(address)
            quanta.extend(new)
            at = stored
            while at < stored + len(data):
                part = data[at - stored : at - stored + size - at % size]
                ram.write(quanta[at // size] + at % size, part)
                at += len(part)
            stored = at
            return len(data)

        def read(count: int) -> bytes:
            return b"".join(ram.read(address, size) for address in quanta)[:count]

        def trim() -> None:
            nonlocal stored
            for address in quanta:
                m.free_pages(address, 0 if wrong_order else order)
            quanta.clear()
            stored = 0

        return write, read, trim

    return scullp


def one_large(m: Any, ram: Any, order: int) -> Any:
    kept: list[tuple[int, int]] = []

    def write(data: bytes) -> int:
        address = m.__get_free_pages(QUIET | __GFP_ZERO, get_order(len(data))) if len(data) <= 4 << 20 else 0
        if not address:
            return -12
        ram.write(address, data)
        kept.append((address, len(data)))
        return len(data)

    def read(count: int) -> bytes:
        return b"".join(ram.read(address, size) for address, size in kept)[:count]

    def trim() -> None:
        for address, size in kept:
            m.free_pages(address, get_order(size))

    return write, read, trim


def movable(life: str) -> int:
    return GFP_HIGHUSER_MOVABLE if life == "short" else GFP_KERNEL


def reclaimable(life: str) -> int:
    return GFP_KERNEL if life == "long" else GFP_KERNEL | __GFP_RECLAIMABLE


def one_each(free: list[tuple[int, int]], order: int) -> list[int]:
    return [p for pfn, high in free if high >= order for p in range(pfn, pfn + (1 << high), 1 << order)]


def last_of_each(free: list[tuple[int, int]], order: int) -> list[int]:
    return [p + (1 << order) - 1 for p in one_each(free, order)]


RIGHT = [
    ("blocks", blocks_by_bits), ("blocks", blocks_by_halving), ("merge", merge_by_xor), ("merge", merge_by_recursion),
    ("verdict", verdict_step_by_step), ("verdict", verdict_by_rights), ("why", why_by_lines), ("why", why_by_regex),
    ("scullp", store()), ("scullp", store(exact=True)), ("keep_whole", movable), ("keep_whole", reclaimable),
    ("vandal", one_each), ("vandal", last_of_each),
]  # fmt: skip


@pytest.mark.parametrize(("name", "fn"), RIGHT, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RIGHT)])
def test_right_answers_are_accepted(name: str, fn: Any) -> None:
    assert report(name, fn) == ""


# --- wrong answers --------------------------------------------------------------------------------


def too_greedy(first: int, last: int) -> list[tuple[int, int]]:
    out = []
    while first < last:
        order = min(10, (last - first).bit_length() - 1)
        out.append((first, order))
        first += 1 << order
    return out


def aligned_only(first: int, last: int) -> list[tuple[int, int]]:
    out = []
    while first < last:
        order = 10 if first == 0 else min(10, (first & -first).bit_length() - 1)
        out.append((first, order))
        first += 1 << order
    return out


def no_cap(first: int, last: int) -> list[tuple[int, int]]:
    out = []
    while first < last:
        order = (last - first).bit_length() - 1
        while first % (1 << order):
            order -= 1
        out.append((first, order))
        first += 1 << order
    return out


def endless_at_zero(first: int, last: int) -> list[tuple[int, int]]:
    out = []
    while first < last:
        order = 0
        while first % (2 << order) == 0:
            order += 1
        out.append((first, min(order, 10)))
        first += 1 << min(order, 10)
    return out


def in_place(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    free[pfn] = order
    return free


def next_block(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    out = dict(free)
    while order < 10 and out.get(pfn + (1 << order)) == order:
        del out[pfn + (1 << order)]
        order += 1
    out[pfn] = order
    return out


def any_size(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    out = dict(free)
    while order < 10 and (pfn ^ 1 << order) in out:
        del out[pfn ^ 1 << order]
        pfn, order = min(pfn, pfn ^ 1 << order), order + 1
    out[pfn] = order
    return out


def only_once(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    buddy = pfn ^ 1 << order
    if order < 10 and free.get(buddy) == order:
        return {**{k: v for k, v in free.items() if k != buddy}, min(pfn, buddy): order + 1}
    return {**free, pfn: order}


def past_ten(free: dict[int, int], pfn: int, order: int) -> dict[int, int]:
    out = dict(free)
    while out.get(pfn ^ 1 << order) == order:
        del out[pfn ^ 1 << order]
        pfn, order = min(pfn, pfn ^ 1 << order), order + 1
    out[pfn] = order
    return out


def slipped(slip: str) -> Callable[..., Any]:
    return lambda zone, order, gfp: verdict_step_by_step(zone, order, gfp, slip)


def misread(slip: str) -> Callable[..., Any]:
    return lambda text: why_by_lines(text, slip)


WRONG = [
    ("blocks", too_greedy, "A block of order 10 cannot start at 288: 288 is not a multiple of 1,024."),
    ("blocks", aligned_only, "outside the run"),
    ("blocks", no_cap, "Order 11 and more do not exist"),
    ("blocks", endless_at_zero, "did not end within"),
    ("blocks", lambda a, b: [(p, 1 << o) for p, o in blocks_by_bits(a, b)], "You give pages, not orders"),
    ("blocks", lambda a, b: [(p, 0) for p in range(a, b)], "but not the largest"),
    ("blocks", lambda a, b: None, "is a `return` missing?"),
    ("merge", in_place, "Your function changed `free`"),
    ("merge", next_block, "that would be 320, XOR says 256"),
    ("merge", any_size, "it was cut, so it is not whole"),
    ("merge", only_once, "It merged once, and then stopped"),
    ("merge", past_ten, "You merged past order 10"),
    ("merge", lambda free, pfn, order: {**free, pfn: order}, "merged nothing"),
    ("verdict", slipped(">="), "Strictly greater"),
    ("verdict", slipped("order"), "You forget 2^order - 1"),
    ("verdict", slipped("protection"), "it is not the request's to halve"),
    ("verdict", slipped("3/8"), "34 gives 12.75"),
    ("verdict", slipped("boost"), "The boost is missing"),
    ("verdict", slipped("pcp"), "Pages on per-CPU lists do not count"),
    ("verdict", slipped("nowait"), "GFP_NOWAIT stops at the full mark"),
    ("verdict", slipped("atomic"), "tested once more without the boost"),
    ("why", misread("kB"), "You compare kB"),
    ("why", misread("index"), "lowmem_reserve[0] is for GFP_DMA"),
    ("why", misread("boost"), "The boost is counted twice"),
    ("why", lambda text: [], "Out of memory? Read on"),
    (
        "why",
        lambda text: [(z, "amount", a, b) for z, _, a, b in why_by_lines(text)],
        "Not every zone is short of pages",
    ),
    ("scullp", store(wrong_order=True), "3 of 4 pages of each quantum are lost"),
    ("scullp", store(undo=False), "of its quanta remain allocated"),
    ("scullp", one_large, "ask for quanta, not for one large block"),
    ("scullp", store(null=True), "no page is mapped there"),
    ("scullp", store(zeroed=False), "somebody's secr"),
    ("scullp", lambda m, ram, order: (1, 2), "Return three functions"),
    ("keep_whole", lambda life: GFP_KERNEL, "Both kinds land in the same pageblocks"),
    ("keep_whole", lambda life: -1, "is not an allocation mask"),
    ("vandal", lambda free, order: [pfn for pfn, _ in free], "One page breaks an aligned block"),
    ("vandal", lambda free, order: one_each(free, order)[1:], "Nobody holds a page of frames"),
    ("vandal", lambda free, order: [5], "Frame 5 is not free in the yard"),
]


@pytest.mark.parametrize(("name", "fn", "reason"), WRONG, ids=[f"{name}-{reason[:28]}" for name, _, reason in WRONG])
def test_wrong_answers_get_their_reason(name: str, fn: Any, reason: str) -> None:
    text = report(name, fn)
    assert reason in text
    others = {other for n, _, other in WRONG if n == name and other != reason}
    assert not [other for other in others if other in text and other != "outside the run"]


@pytest.mark.parametrize("name", SPECS)
def test_starters_and_nonsense(name: str) -> None:
    """The starter runs, is known as a starter, and is not right; nonsense gets a sentence, never an exception."""
    spec = SPECS[name]
    assert len(spec.starter.strip().splitlines()) <= 14
    space: dict[str, Any] = {"GFP_KERNEL": GFP_KERNEL}
    exec(spec.starter, space)  # noqa: S102 - our own text
    assert report(name, space[name])
    assert len(spec.hints) == 3
    for nonsense in (7, None, lambda *args: 1 / 0, lambda: None, lambda *args: object()):
        assert report(name, nonsense).strip()
    assert not is_untouched(spec, blocks_by_bits)


def test_letters_run_from_a() -> None:
    assert [spec.letter for spec in SPECS.values()] == list("ABCDEFG")
