"""Lesson 01, reports of failed requests: the exercise ``why``, and the question for the driver's best cure."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from flags_levels import SLIPS, level, zone_test
from kmemlab_widgets.questions import PASS, Check, CheckResult, Choice, ExerciseSpec, Question, fail

from kmemlab import (
    __GFP_HIGH,
    __GFP_NOFAIL,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOWAIT,
    Machine,
    gfp_zone,
)
from kmemlab.show_mem import LETTERS
from kmemlab.events import LabZone
from kmemlab.failure_reader import FailureReport, ZoneReport, read_failure_reports
from kmemlab.mmzone import Zone

RECORDINGS = Path(__file__).resolve().parent.parent / "recordings"
ZONES = ("DMA", "DMA32", "Normal", "Movable")
Rows = list[tuple[str, str, int, int]]


# --- the engine's answer ------------------------------------------------------------------------


def zone_of(report: ZoneReport) -> Zone:
    """A zone with the numbers of a report: counter, marks, boost, protection, and one block a kind and order."""
    zone = Zone(report.name, ZONES.index(report.name), 0, 0, 0, 0)
    zone.nr_free_pages, zone.watermark_boost = report.free, report.numbers["boost"]
    zone.wmark = [report.numbers[name] - zone.watermark_boost for name in ("min", "low", "high")]
    zone.lowmem_reserve = list(report.reserve)
    zone.nr_reserved_highatomic = report.numbers["reserved_highatomic"]
    for order, (_, letters) in enumerate(report.blocks):
        for letter in letters:
            zone.free_area[order][LETTERS.index(letter)][0] = None
    return zone


@cache
def zone_tests(text: str) -> tuple[FailureReport, tuple[tuple[Zone, LabZone], ...]]:
    """The report, and what the engine's test says of each zone that the mask may use, highest first."""
    (report,) = read_failure_reports(text)
    names = reversed(ZONES[: gfp_zone(report.mode) + 1])
    zones = [zone_of(report.zones[name]) for name in names if name in report.zones]
    return report, tuple((zone, zone_test(zone, report.mode, report.order)) for zone in zones)


def true_why(text: str) -> Rows:
    """The zones that refused, the test that failed, and both sides of ``left > right`` in pages."""
    return [
        (zone.name, "block" if test.enough else "amount", test.free - test.unusable, test.mark + test.protection)
        for zone, test in zone_tests(text)[1]
        if not test.passed
    ]


# --- what is wrong with an answer ---------------------------------------------------------------

KB = "You count kB. A page has 4 kB; lowmem_reserve is in pages already."


def _about_left(test: LabZone, order: int, left: int) -> str:
    want, free = test.free - test.unusable, test.free
    known = [
        *((number, KB) for number in (4 * free, 4 * want, 4 * free - test.unusable)),
        (free, f"2^order - 1 is missing on the left: {free} - {test.unusable} = {want}."),
        (
            free - (1 << order),
            f"The kernel takes 2^order - 1 off the free pages, not 2^order: {free} - {test.unusable} = {want}.",
        ),
    ]
    return next(
        (why for number, why in known if number == left),
        f"On the left stand the zone's free pages less 2^order - 1. {left} is not that.",
    )


def _about_right(zone: Zone, test: LabZone, gfp: int, order: int, right: int) -> str:
    low, boost, protection, index = zone.wmark[0], zone.watermark_boost, test.protection, gfp_zone(gfp)

    def by(slip: str, low: int = low) -> int:
        return level(low, boost, protection, gfp, order, slip) - (1 << order) + 1

    bare = (low, low + boost, low + protection, low + boost + protection) if gfp & __GFP_HIGH else ()
    want, class_ = test.mark + protection, f"lowmem_reserve[{index}] = {protection}"
    known = [
        (by("boost kept"), f"{right} is the mark with the boost. {SLIPS['boost kept']}"),
        (test.mark, f"{right} is the mark alone: plus {class_}, which is never lowered."),
        *((number, f"{right} is min, and this mask has `__GFP_HIGH`: it may go deeper.") for number in bare),
        *(
            (test.mark + column, (f"lowmem_reserve has a column for each class of masks; `{gfp:#x}` is of class "
             f"{ZONES[index]}: {class_}, also where no such zone exists."))
            for column in zone.lowmem_reserve
        ),
        (by("", low + boost), "The boost is counted twice: min in a report contains it."),
        *((number, KB) for number in (4 * want, 4 * test.mark, 4 * test.mark + protection)),
        *((by(slip), why) for slip, why in SLIPS.items() if slip not in ("no order", "2^order", "<")),
    ]  # fmt: skip
    return next(
        (why for number, why in known if number == right),
        f"On the right stand mark + lowmem_reserve[{index}]. {right} is not that: work the mark out from min, step by "
        "step, as in exercise B.",
    )


def _about_kind(test: LabZone, order: int) -> str:
    left, right = test.free - test.unusable, test.mark + test.protection
    if test.enough:
        return (
            f"The amount passes: {left} > {right}. Then a block of order {order} is looked for: read the zone's list "
            f"from {4 << order}kB on."
        )
    return f"The amount fails first: {left} is not above {right}. No block is looked for after that."


def _about_zone(zone: Zone, test: LabZone, report: FailureReport, row: tuple[Any, ...]) -> str:
    """What is wrong with the learner's row of a zone that refused; nothing when it is right."""
    _, kind, left, right = row
    if kind not in ("amount", "block"):
        return (
            f"`{kind}` is no test. The kernel asks a zone for the amount, then for a block. Who holds the memory, and "
            "whether it ever comes back, no test asks and no line of this report says."
        )
    if left != test.free - test.unusable:
        return _about_left(test, report.order, left)
    if right != test.mark + test.protection:
        return _about_right(zone, test, report.mode, report.order, right)
    return "" if (kind == "block") == test.enough else _about_kind(test, report.order)


def _fault(text: str, got: list[Any]) -> str:
    """The first thing that is wrong with an answer; nothing when it is right."""
    if strange := [row for row in got if not isinstance(row, (tuple, list)) or len(row) != 4]:
        return f"Each entry is (zone, 'amount' or 'block', left, right), not {strange[0]!r:.60}."
    rows = {row[0]: tuple(row) for row in got}
    if len(rows) < len(got):
        return "One entry a zone: the test that failed first."
    report, tests = zone_tests(text)
    for zone, test in tests:
        row = rows.pop(zone.name, None)
        if test.passed and row:
            return f"Zone {zone.name} would do: {test.free - test.unusable} > {test.mark + test.protection}."
        if not test.passed and not row:
            return f"Zone {zone.name} is missing. The mask may use it, so it was asked, and it refused as well."
        if row and (why := _about_zone(zone, test, report, row)):
            return why
    return f"`{report.mode:#x}` may not use zone {next(iter(rows))}: it was not asked." if rows else ""


# --- the reports --------------------------------------------------------------------------------


@cache
def recorded(name: str) -> str:
    """A report of a real kernel."""
    return (RECORDINGS / f"{name}.txt").read_text(encoding="utf-8")


def _filled(name: str, gfp: int, back: int, seed: int) -> Machine:
    """A recorded machine from which a mask took all it could get; ``back`` single pages came back since."""
    m = Machine.from_recording(name)
    pages = []
    while page := m.alloc_pages(gfp | __GFP_NOWARN, 0):
        pages.append(page)
    for page in random.Random(seed).sample(pages, back):
        m.__free_pages(page, 0)
    return m


@cache
def made() -> tuple[str, ...]:
    """Fresh reports of the engine: boosted zones, one zone alone, three zones, blocks that are too small."""
    deep = int(__GFP_HIGH | GFP_NOWAIT)
    texts = []
    for name, fill, back, gfp, order in (
        ("256M-a-21", int(GFP_ATOMIC), 0, int(GFP_ATOMIC), 0),
        ("128M-a-11", deep, 0, deep, 0),
        ("256M-a-21", int(GFP_DMA | GFP_ATOMIC), 0, int(GFP_DMA | GFP_ATOMIC), 0),
        ("256M-normal-a-31", int(GFP_NOWAIT), 4000, int(GFP_NOWAIT), 9),
        ("128M-a-11", int(GFP_ATOMIC), 900, int(GFP_ATOMIC), 3),
    ):
        m = _filled(name, fill, back, len(texts))
        while m.alloc_pages(gfp | __GFP_NOWARN, order):
            pass
        m.alloc_pages(gfp, order)
        texts.append(m.dmesg())
    return tuple(texts)


def _check(texts: Callable[[], tuple[str, ...]]) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        for text in texts():
            if why := _fault(text, fn(text)):
                return fail(why, text.partition(", nodemask")[0])
        return PASS

    return run


_ROWS: list[tuple[str, str, Callable[[], tuple[str, ...]]]] = [
    ("a real kernel's report: one page, GFP_ATOMIC", "recorded, 128M", lambda: (recorded("order0_atomic"),)),
    ("a real kernel's report: order 10, 20 MiB free", "recorded, 128M", lambda: (recorded("order10_atomic"),)),
    ("five fresh reports of the engine", "3 machines, seeds 0-4", made),
]

WHY = ExerciseSpec(
    letter="E",
    title="debug this report",
    task="`text` is a report of a page allocation failure. For each zone that the mask may use and that refused, "
    'return `(zone, "amount" or "block", left, right)`: the test that failed first, and both sides of left > right in '
    "pages.",
    signature="def why(text) -> list of (zone, kind, left, right)",
    starter="def why(text):\n    return []\n",
    hints=[
        (
            "`order:` and `mode:` stand in the first line. `Node 0 DMA32 free:..kB boost:..kB min:..kB` has the "
            "numbers in kB, the next line `lowmem_reserve[]` in pages, `Node 0 DMA32: 2*4kB ...` the blocks. The "
            "module `re` reads them."
        ),
        (
            "left = free - (2^order - 1). right = mark + lowmem_reserve[i]; i is the class of the mask: 0 for "
            "GFP_DMA, 2 for the others here. `min` in a report contains the boost. The mark is that of exercise B."
        ),
        (
            'left <= right: "amount". If not, and no block of this order or a larger one is in the list: "block". 4kB '
            "is order 0."
        ),
    ],
    returns=list,
    checks=[Check(tried, _check(texts), where, texts) for tried, where, texts in _ROWS],
)


# --- the best cure ------------------------------------------------------------------------------

BURST = 500  # packets of one page each, in a hard interrupt
CURES = ("reserve", "ahead", "kernel", "nofail")


@cache
def burst(cure: str = "") -> tuple[int, tuple[str, ...]]:
    """How many packets of a burst got a page while a backup fills memory, and the headlines of the log."""
    m = Machine.from_recording("128M-a-11")
    if cure == "reserve":
        m.sysctl("min_free_kbytes", 4 * m.sysctl("min_free_kbytes"))
    ring = [m.alloc_pages(GFP_KERNEL) for _ in range(BURST)] if cure == "ahead" else []
    m.process("backup", "4M")
    m.read_file("archive", "12M")
    while m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN):
        pass
    mask = {"kernel": GFP_KERNEL, "nofail": GFP_ATOMIC | __GFP_NOFAIL}.get(cure, GFP_ATOMIC) | __GFP_NOWARN
    with m.hardirq():
        served = sum(bool(ring.pop() if ring else m.alloc_pages(mask)) for _ in range(BURST))
    heads = tuple(line for line in m.dmesg().splitlines() if line.startswith(("BUG", "WARNING", "Out of memory")))
    return served, heads


def cures(m: Any = None) -> list[str]:
    """The cures with which every packet got its page, and the log stayed empty."""
    return [cure for cure in CURES if burst(cure) == (BURST, ())]


def _reserve(m: Any) -> str:
    served, cured = burst()[0], burst("reserve")[0]
    return (
        f"Yes: the same burst got {served} of {BURST} pages before, and {cured} with four times the reserve.\n"
        "It is the operator's cure: no line of code changes, but every machine keeps more memory idle, and a longer "
        "burst fails again."
    )


def _ahead(m: Any) -> str:
    return (
        f"Yes: {burst('ahead')[0]} of {BURST}, whatever the others do.\nIt is the driver's cure: GFP_KERNEL fills the "
        "ring where sleeping is allowed, the interrupt only takes from it. The price is the memory that waits in the "
        "ring."
    )


def _kernel(m: Any) -> str:
    killed, bug = sorted(burst("kernel")[1], reverse=True)[:2]
    return (
        "An interrupt may not sleep, and GFP_KERNEL does as soon as memory is short.\nOn this machine: "
        f"`{bug}`, and `{killed.partition(' total')[0]}`, out of an interrupt."
    )


def _nofail(m: Any) -> str:
    served, heads = burst("nofail")
    return (
        "`__GFP_NOFAIL` means: wait until there is memory. GFP_ATOMIC cannot sleep, so it cannot wait.\n"
        f"The kernel warns (`{heads[0].partition(' __alloc')[0]}`) and returns NULL all the same: {served} of "
        f"{BURST}, as without it."
    )


def predict_cure(m: Any, seed: int) -> Question:
    """What helps a driver that gets NULL in its interrupt?"""
    return Question(
        ask=f"A driver takes {BURST} packets in a hard interrupt, a page each with GFP_ATOMIC, while a backup fills "
        f"memory: {BURST - burst()[0]} are lost. What is the best cure?",
        choices=[
            Choice("reserve", "a bigger `vm.min_free_kbytes`"),
            Choice("ahead", "take the pages beforehand, in process context"),
            Choice("kernel", "GFP_KERNEL instead of GFP_ATOMIC", _kernel),
            Choice("nofail", "add `__GFP_NOFAIL`", _nofail),
        ],
        answer=cures,
        right={"reserve": _reserve, "ahead": _ahead},
    )


PREDICTIONS = {"cure": predict_cure}
