"""Reading a report of the page allocator, of any kernel from 2.6.11 to 6.x: who asked for what, which test failed.

Reads "page allocation failure" and "invoked oom-killer" with their memory reports (warn_alloc and show_free_areas,
mm/page_alloc.c; dump_header, mm/oom_kill.c), with or without the log's time stamps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kmemlab.gfp import FLAGS, show_gfp_flags
from kmemlab.report import Report, pieces

__all__ = ["FailureReport", "ZoneReport", "ZoneTest", "columns", "read_failure_reports", "version_of"]

# Digits are counted so that no nonsense becomes a number of a thousand digits.
_NAMES = r"(?:\((?P<names>[^)]*)\))?"
# Patterns as text: compiled when first used, since this file is imported with the engine.
_HEAD = (
    r"^(?P<comm>.+?): page allocation failure[:.] order:(?P<order>\d{1,3}), mode:0x(?P<mode>[0-9a-f]{1,16})" + _NAMES
)
_OOM = (
    r"^(?P<comm>.*?)(?: invoked )?oom-killer: gfp_mask=0x(?P<mode>[0-9a-f]{1,16})"
    + _NAMES
    + r"(?:, order=(?P<order>\d{1,3}))?"
)
_RELEASE = r"\b([2-6]\.\d+(?:\.\d+)?)[-. ]"
_WHERE = r"^(?:Node (?P<node>\d+) )?(?P<name>DMA32|DMA|Normal|HighMem|Movable)"
_ZONE = _WHERE + r" free:(?P<free>\d{1,15})kB "
_NUMBER = r"\b(boost|min|low|high|reserved_highatomic|managed|present|free_pcp|local_pcp):(\d{1,15})[kK]B"
_RESERVE = r"^(?:lowmem_reserve|protections)\[\]:((?: \d{1,15})+)"
_LIST = _WHERE + r": (?P<blocks>\d+\*\d+kB .*)= (?P<total>\d{1,15})kB"
_BLOCKS = r"(\d{1,15})\*(\d{1,15})kB(?: \(([A-Z]+)\))?"
_KILLED = r"^Out of [mM]emory: Killed? process (\d+) \((.*?)\)"
ORDER_OF_ZONES = ("DMA", "DMA32", "Normal", "HighMem", "Movable")
CANNOT = "cannot tell"
BEFORE_4_4 = ("linux-2.6.11", "linux-3.10")  # flag tables of kernels that judged blocks by a halving watermark


@dataclass(slots=True)
class ZoneReport:
    """One zone of a report, in pages; ``blocks`` holds (count, letters of the types that have some) for each order.

    ``line`` is its line of the log, from 1. A zone of another node than the first has the node in its ``name``.
    """

    name: str
    free: int
    line: int
    kind: str
    numbers: dict[str, int] = field(default_factory=dict)
    reserve: tuple[int, ...] = ()
    blocks: list[tuple[int, str]] = field(default_factory=list)


class ZoneTest(NamedTuple):
    """How one zone answered: ``failed`` is "amount" (``left`` pages that count are not above ``right``), "block"
    (enough pages, but no block that large), "" (it would have served) or "?" (the report lacks a number)."""

    zone: str
    failed: str
    left: int
    right: int
    text: str


@dataclass(slots=True)
class FailureReport(Report):
    """What a report says. ``kernel`` names the flag table that was used, ``verdict`` the test that failed, ``tests``
    that test of each zone the mask allows, highest zone first."""

    comm: str
    order: int
    mode: int
    kernel: str
    kind: str
    names: str = ""
    zones: dict[str, ZoneReport] = field(default_factory=dict)
    killed: str = ""
    verdict: str = CANNOT
    tests: list[ZoneTest] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The finding in a sentence."""
        what = f"{self.comm} asked for order {self.order} with {self.names or f'{self.mode:#x}'}"
        return f"{what}: {self.verdict}"


def version_of(release: str) -> str:
    """The flag table that fits a release such as "4.14.90"."""
    numbers = tuple(int(part) for part in release.split(".")[:2])
    for least, kernel in (
        ((6, 3), "linux-6.12"), ((5, 0), "linux-6.1"), ((4, 15), "linux-4.19"), ((4, 13), "linux-4.14"),
        ((4, 4), "linux-4.9"), ((2, 7), "linux-3.10"),
    ):  # fmt: skip
        if numbers >= least:
            return kernel
    return "linux-2.6.11"


def read_failure_reports(text: str) -> list[FailureReport]:
    """Every report of a log, oldest first."""
    found = (_read(first, lines) for first, lines in pieces(text, _begins))
    return [report for report in found if report is not None]


def _begins(line: str) -> re.Match[str] | None:
    return re.match(_HEAD, line) or re.match(_OOM, line)


def _read(first: int, lines: list[str]) -> FailureReport | None:
    head = _begins(lines[0]) if lines else None
    if head is None:
        return None
    kind = "failure" if "page allocation failure" in lines[0] else "oom"
    mode = int(head["mode"], 16)
    kernel = _kernel(lines, mode, head["names"])
    report = FailureReport(head["comm"] or "somebody", int(head["order"] or 0), mode, kernel, kind, first=first)
    report.names = head["names"] or show_gfp_flags(mode, kernel)
    last: ZoneReport | None = None
    for number, line in enumerate(lines, first + 1):
        last = _line(report, line, number, last)
    report.tests = _tests(report)
    report.verdict = _verdict(report)
    report.lines = [(line, _say(report, line)) for line in lines]
    return report


def _kernel(lines: list[str], mode: int, names: str | None) -> str:
    """The table of the release that the report names; without one, the first that knows all the bits."""
    for line in lines:
        if ("Comm:" in line or line.startswith("Pid:")) and (found := re.search(_RELEASE, line)):
            return version_of(found[1])
    if names:
        for kernel in ("linux-6.1", "linux-6.12", "linux-4.19", "linux-4.14", "linux-4.9"):
            if show_gfp_flags(mode, kernel) == names:
                return kernel
    dotted = any("failure. order" in line for line in lines)
    for kernel in ("linux-2.6.11", "linux-3.10") if dotted or not names else FLAGS:
        if "0x" not in show_gfp_flags(mode, kernel):
            return kernel
    return "linux-4.9" if mode & 0x2000000 else "linux-4.14" if mode & 0x1000000 else "linux-6.1"


def _zone_of(report: FailureReport, match: re.Match[str], pages: str, number: int) -> ZoneReport:
    """The zone a line is about; ``pages`` is the group that holds its free memory in kB."""
    name = _name(match)
    return report.zones.setdefault(name, ZoneReport(name, int(match[pages]) // 4, number, match["name"]))


def _name(match: re.Match[str]) -> str:
    return match["name"] if match["node"] in (None, "0") else f"Node {match['node']} {match['name']}"


def _line(report: FailureReport, line: str, number: int, last: ZoneReport | None) -> ZoneReport | None:
    """Take in what one line tells; returns the zone that a following lowmem_reserve belongs to."""
    if match := re.match(_ZONE, line):
        zone = _zone_of(report, match, "free", number)
        zone.numbers.update((name, int(kb) // 4) for name, kb in re.findall(_NUMBER, line))
        return zone
    if (match := re.match(_RESERVE, line)) and last is not None:
        last.reserve = tuple(map(int, match[1].split()))
    elif match := re.match(_LIST, line):
        zone = _zone_of(report, match, "total", number)
        zone.blocks = [(int(count), letters) for count, _, letters in re.findall(_BLOCKS, match["blocks"])]
    elif match := re.match(_KILLED, line):
        report.killed = f"{match[2]}/{match[1]}"
    return last


# --- the verdict -----------------------------------------------------------------------------------------


def _has(report: FailureReport, *names: str) -> bool:
    table = FLAGS[report.kernel]
    return any(report.mode & int(table.get(f"__GFP_{name}", 0)) for name in names)


class _Rights(NamedTuple):
    """What the mask may do at the last attempt, as its kernel saw it. Kernel: gfp_to_alloc_flags, mm/page_alloc.c."""

    half: bool  # down to half of a watermark
    quarter: bool  # a quarter less
    highatomic: bool  # the pages kept for atomic requests count as free
    highatomic_block: bool  # and may be taken
    no_boost: bool  # a single page: once more without the boost
    all: bool  # no watermark at all


def _rights(report: FailureReport) -> _Rights:
    high, atomic = _has(report, "HIGH"), _has(report, "ATOMIC")
    waits = _has(report, "WAIT", "DIRECT_RECLAIM") or _has(report, "NOMEMALLOC")
    if report.kernel.startswith("linux-6"):
        harder, reserve = high and not waits, high or not waits
    else:
        harder = reserve = not waits and (atomic or report.kernel in BEFORE_4_4)
    single = not report.order and (high if report.kernel == "linux-6.12" else atomic)
    everything = _has(report, "MEMALLOC") and not _has(report, "NOMEMALLOC")
    return _Rights(high, harder, reserve, harder and report.order > 0, single, everything)


def _mark(zone: ZoneReport, rights: _Rights) -> tuple[int, str]:
    """What the zone's free pages must exceed at the last attempt, without protection; and how it comes about."""
    mark, words, boost = zone.numbers["min"], "min", zone.numbers.get("boost", 0)
    if boost and rights.no_boost:
        mark, words = mark - boost, "min without boost"
    if rights.half:
        mark -= mark // 2
    if rights.quarter:
        mark -= mark // 4
    part = {(True, True): "3/8 of ", (True, False): "half of ", (False, True): "3/4 of "}
    return mark, part.get((rights.half, rights.quarter), "") + words


def columns(zones: Mapping[str, ZoneReport]) -> tuple[str, ...]:
    """The kind of request each column of lowmem_reserve[] is for; the report does not say, its zones do.

    A 32-bit kernel has DMA, Normal, HighMem; a 64-bit one DMA, DMA32, Normal, even where one of them is empty.
    """
    if "DMA" not in zones and "DMA32" not in zones:
        return "Normal", "HighMem", "Movable"
    reserve = zones["DMA"].reserve if "DMA" in zones else ()
    if "DMA32" in zones or len(reserve) > 4 or (any(reserve) and not any(reserve[:2])):
        return "DMA", "DMA32", "Normal", "Movable"
    return "DMA", "Normal", "HighMem", "Movable"


def _highest(report: FailureReport) -> str:
    """The highest zone the mask allows. Kernel: gfp_zone, include/linux/gfp.h."""
    if _has(report, "DMA"):
        return "DMA"
    if _has(report, "DMA32"):
        return "DMA32"
    if _has(report, "HIGHMEM"):
        return "Movable" if _has(report, "MOVABLE") else "HighMem"
    return "Normal"


def _no_block(
    report: FailureReport, zone: ZoneReport, rights: _Rights, mark: int, right: int
) -> tuple[int, int, str] | None:
    """Why no block is large enough: (left, right, words); None if one is. Kernel: __zone_watermark_ok."""
    order, left = report.order, zone.free - (1 << report.order) + 1
    closed = set("HIC") - ({"H"} if rights.highatomic_block else set())
    if not any(count and (not letters or set(letters) - closed) for count, letters in zone.blocks[order:]):
        return left, right, f"{zone.free:,} pages free, but no block of order {order}"
    if report.kernel in BEFORE_4_4 and not rights.all:
        for lower, (count, _) in enumerate(zone.blocks[:order]):
            left -= count << lower
            mark >>= 1
            if left <= mark:
                words = f"{left:,} of {zone.free:,} pages free count in blocks of order {lower + 1} or more"
                return left, mark, f"{words}, which is not above {mark:,}"
    return None


def _test(report: FailureReport, zone: ZoneReport, protection: int) -> ZoneTest:
    if "min" not in zone.numbers:
        return ZoneTest(zone.name, "?", 0, 0, f"{zone.name}: its watermarks are missing")
    rights = _rights(report)
    mark, words = _mark(zone, rights)
    unusable = (1 << report.order) - 1
    if not rights.highatomic:
        unusable += zone.numbers.get("reserved_highatomic", 0)
    if rights.all:
        mark, words, protection, unusable = 0, "nothing (__GFP_MEMALLOC)", 0, 0
    left, right = zone.free - unusable, mark + protection
    if left <= right:
        plus = f" + protection {protection:,}" if protection else ""
        plus += f" + unusable {unusable:,}" if unusable else ""
        text = f"{zone.name}: {zone.free:,} pages free is not above {words} {mark:,}{plus}"
        return ZoneTest(zone.name, "amount", left, right, text)
    if report.order and not zone.blocks:
        return ZoneTest(zone.name, "?", left, right, f"{zone.name}: its free lists are missing")
    if report.order and (found := _no_block(report, zone, rights, mark, right)):
        return ZoneTest(zone.name, "block", *found[:2], f"{zone.name}: {found[2]}")
    return ZoneTest(zone.name, "", left, right, f"{zone.name}: {zone.free:,} pages free would do")


def _tests(report: FailureReport) -> list[ZoneTest]:
    highest = ORDER_OF_ZONES.index(_highest(report))
    named = columns(report.zones)
    column = max((i for i, name in enumerate(named) if ORDER_OF_ZONES.index(name) <= highest), default=0)
    allowed = [zone for zone in report.zones.values() if ORDER_OF_ZONES.index(zone.kind) <= highest]
    allowed.sort(key=lambda zone: -ORDER_OF_ZONES.index(zone.kind))
    return [_test(report, zone, zone.reserve[column] if column < len(zone.reserve) else 0) for zone in allowed]


def _verdict(report: FailureReport) -> str:
    if report.kind == "oom":
        return f"reclaim found too little; {report.killed} was killed" if report.killed else f"{CANNOT} who was killed"
    if not report.tests:
        return f"{CANNOT}: no zone of the memory report is there"
    if unknown := [test.text for test in report.tests if test.failed == "?"]:
        return f"{CANNOT}: {unknown[0]}"
    if served := [test.text for test in report.tests if not test.failed]:
        return f"{CANNOT}: when the report was printed memory was there again ({served[0]})"
    return "; ".join(test.text for test in report.tests)


# --- what each line says ------------------------------------------------------------------------------------


def _say(report: FailureReport, line: str) -> str:
    if _begins(line):
        sleep = "may sleep" if _has(report, "WAIT", "DIRECT_RECLAIM") else "may not sleep"
        pages = f"{1 << report.order} pages in one piece" if report.order else "one page"
        return f"{pages}, {report.names} as {report.kernel.removeprefix('linux-')} writes it: the caller {sleep}"
    if match := re.match(_ZONE, line):
        name = _name(match)
        said = next((test.text for test in report.tests if test.zone == name), "")
        return said or f"{name}: this request may not use it"
    if re.match(_RESERVE, line):
        return "pages kept from requests that could use a higher zone, a column for each kind"
    if match := re.match(_LIST, line):
        zone = report.zones[_name(match)]
        largest = max((order for order, (count, _) in enumerate(zone.blocks) if count), default=-1)
        reserve = ", some of it reserved for atomic requests (H)" if any("H" in t for _, t in zone.blocks) else ""
        return f"free blocks by size; the largest is of order {largest}{reserve}" if largest >= 0 else "nothing is free"
    if re.match(_KILLED, line):
        return "who had to go: the largest, shifted by its oom_score_adj"
    if line.startswith("Mem-Info"):
        return "memory as it was when the report was printed, a little after the failure"
    return ""
