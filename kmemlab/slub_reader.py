"""Reading a slab report: which crime, which bytes, who is named, and what each line says.

Reads what mm/slub.c and mm/slab_common.c of 6.1 print (print_trailer, slab_err, object_err, check_bytes_and_report,
list_slab_objects, cache_from_obj), with or without the log's time stamps.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from kmemlab.report import Report, pieces

__all__ = ["CRIMES", "SlabReport", "read_slab_report", "read_slab_reports"]

# Words of the headline -> (the crime, where it was found, who is to be asked first, and why).
CRIMES = {
    "Right Redzone overwritten": ("overflow", "at the free", "allocated", "the owner wrote past its own object"),
    "Left Redzone overwritten": (
        "underflow", "at the free", "allocated",
        "the owner wrote before its own object: a neighbour would have hit its own right guard first",
    ),
    "Poison overwritten": (
        "use after free", "at the next allocation", "",
        "no line names the writer; whoever gave the object up may have kept a pointer: begin at Freed in",
    ),
    "allocated objects but": ("double free", "at the second free", "caller", "it frees what is free already"),
    "Object already free": ("double free", "at the second free", "caller", "it frees what is free already"),
    "Invalid object pointer": ("inner pointer", "at the free", "caller", "it frees an address that begins no object"),
    "Wrong slab cache": ("wrong cache", "at the free", "caller", "it gives the object to a cache it is not from"),
    "Objects remaining": ("live at destroy", "at the destroy", "allocated", "its objects were never freed"),
    "still has objects": ("live at destroy", "at the destroy", "caller", "without debugging nobody else is named"),
}  # fmt: skip

_HEAD = re.compile(r"^BUG (?P<cache>\S+) \((?P<taint>[^)]*)\): (?P<what>.*)")
_WRONG = re.compile(r"^cache_from_obj: (?P<what>Wrong slab cache\. (?P<asked>\S+) but object is from (?P<cache>\S+))")
_LEFT = re.compile(r"^kmem_cache_destroy (?P<cache>\S+): (?P<what>Slab cache still has objects) when called from (\S+)")
_BYTES = re.compile(r"^(0x[0-9a-f]+)-(0x[0-9a-f]+) @offset=(\d+)\. First byte (0x[0-9a-f]+) instead of (0x[0-9a-f]+)")
_TRACK = re.compile(r"^(Allocated|Freed) in (\S+)(?: \[\S+\])? age=(-?\d+) cpu=(\d+) pid=(\d+)")
_SLAB = re.compile(r"^Slab 0x\S+ objects=(\d+) used=(\d+) fp=(\S+)")
_OBJECT = re.compile(r"^Object (0x[0-9a-f]+) @offset=(\d+)(?: fp=(\S+))?")
_DUMP = re.compile(r"^(Bytes b4|Redzone|Object|Padding) +([0-9a-f]{8,16}): ((?:[0-9a-f]{2} ?){1,16})")
_FRAME = re.compile(r"^ (\? )?([\w.]+\+0x[0-9a-f]+)")
_FIX = re.compile(r"^FIX (\S+): (.*)")
_STARTS = re.compile(r"^(={20,}|-+\[ cut here \]-+)$")
# Functions of the allocator and of the report itself: not the caller who is looked for.
_OWN = re.compile(
    r"^(dump_stack|slab_err|slab_bug|object_err|check_|free_to_partial|free_debug|__slab_free|kmem_cache_|__kmem_cache_|"
    r"kfree|cache_from_obj|alloc_debug|alloc_single|get_partial|___?slab_alloc|__kmalloc|kmalloc|list_slab_objects|"
    r"slab_|__warn|report_bug|handle_bug|exc_|asm_exc|on_freelist|validate_slab|print_trailer|free_pagelist)"
)


@dataclass(slots=True)
class SlabReport(Report):
    """One report. ``offset`` and ``length`` of the damage in bytes, counted from the object's first byte.

    ``suspect`` is the call site to ask first ("" where no line names one).
    """

    cache: str
    what: str
    crime: str
    found: str
    why: str
    object: int | None = None
    size: int | None = None
    offset: int | None = None
    length: int | None = None
    allocated: str = ""
    freed: str = ""
    caller: str = ""
    suspect: str = ""

    @property
    def headline(self) -> str:
        """The finding in a sentence."""
        where = f" at byte {self.offset}, {self.length} long" if self.offset is not None else ""
        who = f"ask {self.suspect}" if self.suspect else "no line names who did it"
        return f"{self.crime} in {self.cache}{where}, found {self.found}: {who}"


def read_slab_report(text: str) -> SlabReport:
    """The first slab report of a log. Errors: ValueError if there is none."""
    reports = read_slab_reports(text)
    if not reports:
        raise ValueError(
            "no slab report: a line 'BUG cache (...): ...', 'cache_from_obj: Wrong slab cache' or 'kmem_cache_destroy "
            "...: Slab cache still has objects' must be in the text"
        )
    return reports[0]


def read_slab_reports(text: str) -> list[SlabReport]:
    """Every slab report of a log, oldest first."""
    reports: list[SlabReport] = []
    for first, lines in pieces(text, _STARTS.match):
        report = _read(lines)
        if report is None:
            continue
        report.first = first
        last = reports[-1] if reports else None
        ends = report.what.startswith("Slab cache still has objects")
        if ends and last and last.crime == report.crime and last.cache == report.cache and last.allocated:
            last.lines += report.lines  # a warning ends what the list of objects began
        else:
            reports.append(report)
    return reports


def _read(lines: list[str]) -> SlabReport | None:
    for line in lines:
        if head := _HEAD.match(line) or _WRONG.match(line) or _LEFT.match(line):
            break
    else:
        return None
    what = head["what"]
    known = next((each for words, each in CRIMES.items() if words in what), ("corruption", "", "", ""))
    report = SlabReport(head["cache"], what, known[0], known[1], known[3])
    _fields(report, lines)
    report.suspect = {"allocated": report.allocated, "caller": report.caller}.get(known[2], "")
    if report.crime == "live at destroy" and not report.suspect:
        report.suspect = report.caller
    report.lines = [(line, _say(report, line)) for line in lines]
    return report


def _fields(report: SlabReport, lines: list[str]) -> None:
    """Collect what the lines tell; the first of a kind counts (a report may list several objects)."""
    damage = None
    for line in lines:
        if match := _BYTES.match(line):
            damage = damage or (int(match[1], 16), int(match[2], 16))
        elif match := _TRACK.match(line):
            name = "allocated" if match[1] == "Allocated" else "freed"
            setattr(report, name, getattr(report, name) or match[2].split("/")[0])
        elif match := _OBJECT.match(line):
            report.object = report.object or int(match[1], 16)
        elif (match := _DUMP.match(line)) and match[1] == "Object" and report.object:
            report.size = int(match[2], 16) + len(match[3].split()) - report.object
        elif match := _LEFT.match(line):
            report.caller = report.caller or match[3].split("/")[0]
    report.caller = report.caller or _caller(lines)
    if damage and report.object:
        report.offset, report.length = damage[0] - report.object, damage[1] - damage[0] + 1


def _caller(lines: list[str]) -> str:
    """The first certain frame of the call trace that is not the allocator's own."""
    inside = False
    for line in lines:
        inside = inside or line.startswith("Call Trace:")
        match = _FRAME.match(line) if inside else None
        if match and not match[1] and not _OWN.match(match[2]):
            return match[2]
    return ""


# --- what each line says ------------------------------------------------------------------------------


def _say(report: SlabReport, line: str) -> str:
    for pattern, words in _SAYINGS:
        if match := pattern.match(line):
            return words(report, match)
    return ""


def _say_head(report: SlabReport, match: re.Match[str]) -> str:
    return f"the cache and the crime: {report.crime}, found {report.found or 'by chance'}; {report.why}"


def _say_bytes(report: SlabReport, match: re.Match[str]) -> str:
    if report.offset is None:
        return f"damaged from {match[1]} to {match[2]}: {match[4]} where {match[5]} should be"
    n = report.length or 1
    many = f"{n} byte{'s' if n > 1 else ''}"
    if report.offset < 0:
        place = f"{-report.offset} before the object"
    elif report.size is not None and report.offset >= report.size:
        gap = report.offset - report.size
        place = f"{gap} bytes behind" if gap else "the first"
        place += f" {'' if gap else 'behind '}an object of {report.size} bytes"
    else:
        place = f"byte {report.offset} of the object"
    return f"{many} damaged: {place} ({match[4]} where {match[5]} should be)"


def _say_track(report: SlabReport, match: re.Match[str]) -> str:
    site = match[2].split("/")[0]
    if match[1] == "Allocated":
        return f"who owns the object, or owned it last: {site}" + (": ask here first" if site == report.suspect else "")
    if report.crime == "use after free":
        return f"who gave it up: {site}. Look there for a pointer that was kept"
    return f"who gave it up before its present owner took it: {site}, innocent here"


def _say_slab(report: SlabReport, match: re.Match[str]) -> str:
    return f"the slab: room for {match[1]}, {match[2]} in use"


def _say_object(report: SlabReport, match: re.Match[str]) -> str:
    return f"the object begins {match[2]} bytes into its slab" + ("" if match[3] else ": it was never freed")


def _say_dump(report: SlabReport, match: re.Match[str]) -> str:
    kind, at, data = match[1], int(match[2], 16), bytes.fromhex(match[3].replace(" ", ""))
    if kind == "Padding":
        return "fill between objects, 5a where intact"
    if kind == "Bytes b4":
        return "what lies before"
    if kind == "Redzone":
        side = "left" if report.object is not None and at < report.object else "right"
        intact = len(set(data)) == 1 and data[0] in (0xCC, 0xBB)
        state = {0xCC: "intact, object in use", 0xBB: "intact, object free"}[data[0]] if intact else "not intact"
        return f"{side} guard, {state}"
    if set(data) <= {0x6B, 0xA5}:
        return "still poison: nobody wrote here"
    return "what the object holds"


def _say_frame(report: SlabReport, match: re.Match[str]) -> str:
    if match[1] or match[2] != report.caller:
        return ""
    if report.suspect == report.caller:
        return "who called the allocator, and the one to ask"
    return "who called the allocator when it was found: not the culprit"


_SAYINGS: tuple[tuple[re.Pattern[str], Callable[[SlabReport, re.Match[str]], str]], ...] = (
    (_HEAD, _say_head),
    (_WRONG, _say_head),
    (_LEFT, _say_head),
    (_BYTES, _say_bytes),
    (_TRACK, _say_track),
    (_SLAB, _say_slab),
    (_OBJECT, _say_object),
    (_DUMP, _say_dump),
    (re.compile(r"^CPU: "), lambda *_: "the task that ran when it was found"),
    (re.compile(r"^Call Trace:"), lambda report, _: f"how it was found, {report.found}; newest first"),
    (_FRAME, _say_frame),
    (_FIX, lambda *_: "what the kernel did to go on"),
    (re.compile(r"^Disabling lock debugging"), lambda *_: "from now on the kernel counts as tainted: letter B"),
)
