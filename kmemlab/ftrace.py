"""The text of ftrace's kmem events: parsed from a real kernel, and replayed on a machine.

Kernel: include/trace/events/kmem.h (the fields), mm/page_alloc.c (when they fire).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kmemlab.gfp import parse_gfp_flags
from kmemlab.mmzone import MAX_ORDER, Page
from kmemlab.null import Null
from kmemlab.recording import Recording, RecordingError, read_unpacked

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["TraceLine", "parse_trace", "replay", "trace_beside"]

_LINE = re.compile(r"^(?P<task>.+)-\d+\s+\[(?P<cpu>\d+)\]\s+\S+\s+[\d.]+:\s+(?P<event>\w+):\s*(?P<text>.*)$")
_FIELD = re.compile(r"(\w+)=(\S+)")
_BULK = re.compile(r"=(0x[0-9a-fA-F]+|\d+)\s*$")


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One event of a page: ``pfn`` is -1 when a request failed; ``count`` pages came from a bulk allocation."""

    number: int
    event: str
    cpu: int
    pfn: int = -1
    order: int = 0
    gfp: int = 0
    count: int = 0


def trace_beside(recording: Recording) -> Path:
    """The trace that belongs to a recording of a real workload: ``X.trace.txt.gz`` beside ``X.snap.json.gz``."""
    path = recording.path.with_name(f"{recording.name}.trace.txt.gz")
    if not path.is_file():
        raise RecordingError(f"{recording.path}: the trace {path.name} is not beside it")
    return path


def _lines(path: Path) -> list[str]:
    try:
        return read_unpacked(path).decode().splitlines()
    except UnicodeDecodeError:
        raise RecordingError(f"{path}: is not the text of a trace") from None


def parse_trace(path: Path) -> Iterator[TraceLine]:
    """The page events of a trace file, in order. Errors: RecordingError naming file and line."""
    for number, text in enumerate(_lines(path), 1):
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.match(text)
        if match is None:
            raise RecordingError(f"{path}: line {number}: is not an ftrace line: {text[:60]!r}")
        event = match["event"]
        try:
            cpu = int(match["cpu"])
            if event == "bulkret":
                found = _BULK.search(match["text"])
                if found is None:
                    raise ValueError("has no count")
                yield TraceLine(number, event, cpu, count=int(found[1], 0))
            elif event in ("mm_page_alloc", "mm_page_free", "mm_page_free_batched"):
                yield _page_event(number, event, cpu, dict(_FIELD.findall(match["text"])))
        except KeyError as error:
            raise RecordingError(f"{path}: line {number}: {event} without {error}") from None
        except ValueError as error:
            raise RecordingError(f"{path}: line {number}: {event}: {error}") from None


def _page_event(number: int, event: str, cpu: int, fields: dict[str, str]) -> TraceLine:
    pfn = int(fields["pfn"], 16)
    order = int(fields.get("order", "0"))
    if not 0 <= order < MAX_ORDER:
        raise ValueError(f"order {order} does not exist")
    if event != "mm_page_alloc":
        return TraceLine(number, event, cpu, pfn, order)
    return TraceLine(number, event, cpu, pfn or -1, order, int(parse_gfp_flags(fields["gfp_flags"])))


def _deferred(lines: list[TraceLine]) -> set[int]:
    """Which mm_page_free lines are followed by a batched one for the same frame: the page moves only there."""
    later: dict[int, str] = {}
    deferred = set()
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if line.event == "mm_page_free" and later.get(line.pfn) == "mm_page_free_batched":
            deferred.add(index)
        later[line.pfn] = line.event
    return deferred


def replay(m: Machine, recording: Recording, count: Callable[[Machine, str, int, object], None]) -> None:
    """Let the machine live through the trace of ``recording``; ``count`` is told each allocation.

    A movable page of a real program goes to the LRU lists, where a raid on its pageblock sees it.
    """
    path = trace_beside(recording)
    lines = list(parse_trace(path))
    deferred = _deferred(lines)
    instead: dict[int, Page | Null] = {}  # what the model returned where the kernel returned another frame
    missed = False
    for index, line in enumerate(lines):
        if line.cpu != m.cpu:
            if line.cpu >= m.cpus:
                raise RecordingError(f"{path}: line {line.number}: CPU {line.cpu}: the machine has {m.cpus}")
            m.cpu = line.cpu
        if line.event == "mm_page_alloc":
            page = m.alloc_pages(line.gfp, line.order)
            count(m, f"line {line.number}: alloc_pages({line.gfp:#x}, {line.order})", line.pfn, page)
            if page and line.gfp & 0x8:
                page.zone.lru.add(page.pfn)
            if (page.pfn if page else -1) != line.pfn:
                missed = True
                if line.pfn >= 0:
                    instead[line.pfn] = page
                else:
                    m.__free_pages(page, line.order)  # nobody will: the kernel's call had failed
        elif line.event == "bulkret":
            m.alloc_pages_bulk(line.count)
        elif index not in deferred:
            zone = m.zone_of(line.pfn)
            if zone is None:
                raise RecordingError(f"{path}: line {line.number}: frame {line.pfn} is not in the machine's memory")
            page = instead.pop(line.pfn, m.memmap[line.pfn])
            if page and (page.refcount > 0 or not missed):
                page.zone.lru.discard(page.pfn)
                m.__free_pages(page, line.order)
