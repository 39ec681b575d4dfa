"""Reading a report of the page allocator, of any kernel from 2.6.11 to 6.x: who asked for what, which test failed.

Reads "page allocation failure" and "invoked oom-killer" with their memory reports (warn_alloc and show_free_areas,
mm/page_alloc.c; dump_header, mm/oom_kill.c), with or without the log's time stamps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise

from kmemlab.gfp import FLAGS, show_gfp_flags

__all__ = ["FailureReport", "ZoneReport", "read_failure_reports", "version_of"]

_STAMP = re.compile(r"^(?:<\d>)?\[ *\d+\.\d+\] ?")
_NAMES = r"(?:\((?P<names>[^)]*)\))?"
_HEAD = re.compile(
    r"^(?P<comm>.+?): page allocation failure[:.] order:(?P<order>\d+), mode:0x(?P<mode>[0-9a-f]+)" + _NAMES
)
_OOM = re.compile(
    r"^(?P<comm>.*?)(?: invoked )?oom-killer: gfp_mask=0x(?P<mode>[0-9a-f]+)" + _NAMES + r"(?:, order=(?P<order>\d+))?"
)
_RELEASE = re.compile(r"\b([2-6]\.\d+(?:\.\d+)?)[-. ]")
_ZONE = re.compile(r"^(?:Node \d+ )?(?P<name>DMA32|DMA|Normal|HighMem|Movable) free:(?P<free>\d+)kB ")
_NUMBER = re.compile(r"\b(boost|min|low|high|reserved_highatomic|managed|present|free_pcp):(\d+)[kK]B")
_RESERVE = re.compile(r"^(?:lowmem_reserve|protections)\[\]:((?: \d+)+)")
_LIST = re.compile(
    r"^(?:Node \d+ )?(?P<name>DMA32|DMA|Normal|HighMem|Movable): (?P<blocks>\d+\*\d+kB .*)= (?P<total>\d+)kB"
)
_BLOCKS = re.compile(r"(\d+)\*(\d+)kB(?: \(([A-Z]+)\))?")
_KILLED = re.compile(r"^Out of [mM]emory: Killed? process (\d+) \((.*?)\)")
ORDER_OF_ZONES = ("DMA", "DMA32", "Normal", "HighMem", "Movable")
CANNOT = "cannot tell"


@dataclass(slots=True)
class ZoneReport:
    """One zone of a report, in pages; ``blocks`` holds (count, letters of the types that have some) for each order."""

    name: str
    free: int
    numbers: dict[str, int] = field(default_factory=dict)
    reserve: tuple[int, ...] = ()
    blocks: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class FailureReport:
    """What a report says. ``kernel`` names the flag table that was used, ``verdict`` the test that failed."""

    comm: str
    order: int
    mode: int
    kernel: str
    kind: str
    names: str = ""
    zones: dict[str, ZoneReport] = field(default_factory=dict)
    killed: str = ""
    verdict: str = CANNOT
    lines: list[tuple[str, str]] = field(default_factory=list)
    first: int = 0  # line of the log at which it begins, from 0

    @property
    def headline(self) -> str:
        """The finding in a sentence."""
        what = f"{self.comm} asked for order {self.order} with {self.names or f'{self.mode:#x}'}"
        return f"{what}: {self.verdict}"

    def __str__(self) -> str:
        told = (f"{text}\n    {words}" if words else text for text, words in self.lines)
        return "\n".join((self.headline, *told))


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
    lines = [_STAMP.sub("", line) for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if _HEAD.match(line) or _OOM.match(line)]
    reports = [_read(lines[first:end]) for first, end in pairwise([*starts, len(lines)])]
    for first, report in zip(starts, reports, strict=True):
        report.first = first
    return reports


def _read(lines: list[str]) -> FailureReport:
    head = _HEAD.match(lines[0]) or _OOM.match(lines[0])
    assert head is not None
    kind = "failure" if "page allocation failure" in lines[0] else "oom"
    mode = int(head["mode"], 16)
    kernel = _kernel(lines, mode, head["names"])
    report = FailureReport(head["comm"] or "somebody", int(head["order"] or 0), mode, kernel, kind)
    report.names = head["names"] or show_gfp_flags(mode, kernel)
    last: ZoneReport | None = None
    for line in lines:
        last = _line(report, line, last)
    report.verdict = _verdict(report)
    report.lines = [(line, _say(report, line)) for line in lines]
    return report


def _kernel(lines: list[str], mode: int, names: str | None) -> str:
    """The table of the release that the report names; without one, the first that knows all the bits."""
    for line in lines:
        if ("Comm:" in line or line.startswith("Pid:")) and (found := _RELEASE.search(line)):
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


def _line(report: FailureReport, line: str, last: ZoneReport | None) -> ZoneReport | None:
    """Take in what one line tells; returns the zone that a following lowmem_reserve belongs to."""
    if match := _ZONE.match(line):
        zone = report.zones.setdefault(match["name"], ZoneReport(match["name"], int(match["free"]) // 4))
        zone.numbers.update((name, int(kb) // 4) for name, kb in _NUMBER.findall(line))
        return zone
    if (match := _RESERVE.match(line)) and last is not None:
        last.reserve = tuple(map(int, match[1].split()))
    elif match := _LIST.match(line):
        zone = report.zones.setdefault(match["name"], ZoneReport(match["name"], int(match["total"]) // 4))
        zone.blocks = [(int(count), letters) for count, _, letters in _BLOCKS.findall(match["blocks"])]
    elif match := _KILLED.match(line):
        report.killed = f"{match[2]}/{match[1]}"
    return last


# --- the verdict -----------------------------------------------------------------------------------------


def _has(report: FailureReport, *names: str) -> bool:
    table = FLAGS[report.kernel]
    return any(report.mode & int(table.get(f"__GFP_{name}", 0)) for name in names)


def _mark(report: FailureReport, zone: ZoneReport) -> tuple[int, str]:
    """What the zone's free pages must exceed at the last attempt, without protection; and how it comes about."""
    mark, whole = zone.numbers["min"], "min"
    blocking = _has(report, "WAIT", "DIRECT_RECLAIM")
    if _has(report, "MEMALLOC") and not _has(report, "NOMEMALLOC"):
        return 0, "nothing (__GFP_MEMALLOC)"
    # A single page of theirs is tested once more without the boost, which the printed min contains.
    spared = "ATOMIC" if "__GFP_ATOMIC" in FLAGS[report.kernel] else "HIGH"
    if not report.order and zone.numbers.get("boost") and _has(report, spared):
        mark, whole = mark - zone.numbers["boost"], "min without its boost"
    words = whole
    if _has(report, "HIGH"):
        mark -= mark // 2
        words = f"half of {whole}"
    old = report.kernel in ("linux-2.6.11", "linux-3.10")
    new = report.kernel.startswith("linux-6") and _has(report, "HIGH")
    if not blocking and (old or new or _has(report, "ATOMIC")):
        mark -= mark // 4
        words = f"{'3/8' if 'half' in words else '3/4'} of {whole}"
    return mark, words


def _highest(report: FailureReport) -> int:
    """Index of the highest zone the mask allows, among the names of ``ORDER_OF_ZONES``."""
    if _has(report, "DMA"):
        return 0
    if _has(report, "DMA32"):
        return 1
    return 4 if _has(report, "HIGHMEM") else 2


def _zone_verdict(report: FailureReport, zone: ZoneReport, protection: int) -> tuple[bool | None, str]:
    if "min" not in zone.numbers:
        return None, f"{zone.name}: its watermarks are missing"
    mark, words = _mark(report, zone)
    need = mark + protection
    plus = f" + protection {protection:,}" if protection else ""
    rest = (1 << report.order) - 1  # the request's pages but one must be there on top of the mark
    less = f" less {rest:,}" if rest else ""
    if zone.free - rest <= need:
        return False, f"{zone.name}: {zone.free:,} pages free{less} is not above {words} {mark:,}{plus}"
    if report.order and zone.blocks:
        usable = [count for count, letters in zone.blocks[report.order :] if count and letters != "H"]
        if not usable:
            return False, f"{zone.name}: {zone.free:,} pages free, but no block of order {report.order}"
    if report.order and not zone.blocks:
        return None, f"{zone.name}: its free lists are missing"
    return True, f"{zone.name}: {zone.free:,} pages free would do"


def _verdicts(report: FailureReport) -> list[tuple[bool | None, str]]:
    """One for each zone the mask allows, highest first."""
    highest = _highest(report)
    allowed = [name for name in ORDER_OF_ZONES[: highest + 1] if name in report.zones]
    found = []
    for name in reversed(allowed):
        zone = report.zones[name]
        # lowmem_reserve[] has a column for each class of request; the zone's own and lower ones are 0.
        column = min(highest, len(zone.reserve) - 1) if name != (allowed or [""])[-1] else -1
        found.append(_zone_verdict(report, zone, zone.reserve[column] if column >= 0 else 0))
    return found


def _verdict(report: FailureReport) -> str:
    if report.kind == "oom":
        return f"reclaim found too little; {report.killed} was killed" if report.killed else f"{CANNOT} who was killed"
    found = _verdicts(report)
    if not found:
        return f"{CANNOT}: no zone of the memory report is there"
    if unknown := [text for ok, text in found if ok is None]:
        return f"{CANNOT}: {unknown[0]}"
    if any(ok for ok, _ in found):
        return f"{CANNOT}: when the report was printed memory was there again ({next(t for ok, t in found if ok)})"
    return "; ".join(text for _, text in found)


# --- what each line says ------------------------------------------------------------------------------------


def _say(report: FailureReport, line: str) -> str:
    if _HEAD.match(line) or _OOM.match(line):
        sleep = "may sleep" if _has(report, "WAIT", "DIRECT_RECLAIM") else "may not sleep"
        pages = f"{1 << report.order} pages in one piece" if report.order else "one page"
        return f"{pages}, {report.names} as {report.kernel.removeprefix('linux-')} writes it: the caller {sleep}"
    if match := _ZONE.match(line):
        name = match["name"]
        for _, text in _verdicts(report):
            if text.startswith(f"{name}:"):
                return text
        return f"{name}: this request may not use it"
    if _RESERVE.match(line):
        return "pages kept from requests that could use a higher zone, a column for each kind"
    if match := _LIST.match(line):
        zone = report.zones[match["name"]]
        largest = max((order for order, (count, _) in enumerate(zone.blocks) if count), default=-1)
        reserve = ", some of it reserved for atomic requests (H)" if any("H" in t for _, t in zone.blocks) else ""
        return f"free blocks by size; the largest is of order {largest}{reserve}" if largest >= 0 else "nothing is free"
    if _KILLED.match(line):
        return "who had to go: the largest, shifted by its oom_score_adj"
    if line.startswith("Mem-Info"):
        return "memory as it was when the report was printed, a little after the failure"
    return ""
