"""The curve of a machine under pressure: free memory, kswapd and direct reclaim while one task asks page after page.

The same rows from the model and from a recorded kernel, so that one can be drawn over the other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmemlab.fair import TICK, KswapdTurn
from kmemlab.null import Null
from kmemlab.recording import RecordingError, find_recording, read_json
from kmemlab.workload import File

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["FAILURES", "PressureRow", "pressure", "recorded_page_cache", "recorded_pressure"]

EVERY = 32  # requests from one row to the next
FAILURES = 50  # requests that fail before nobody asks any more
NOWARN = 0x2000
OLD = 32_000  # pages older than those of DMA: in the recordings they are reclaimed after so many of DMA32
STATS = ("pgsteal_kswapd", "pgsteal_direct", "allocstall")


@dataclass(frozen=True, slots=True)
class PressureRow:
    """How things stand after ``asked`` requests, of which ``got`` got their page. ``free`` has the pages free in each
    zone; the others count from the curve's start: pages kswapd freed, pages the callers freed themselves, and how often
    one had to (``allocstall``)."""

    asked: int
    got: int
    free: dict[str, int]
    pgsteal_kswapd: int
    pgsteal_direct: int
    allocstall: int


def pressure(m: Machine, gfp: int, pages: int, rest_every: int = 0) -> list[PressureRow]:
    """Ask for ``pages`` single pages and keep them; a row every 32 requests and where a request failed first.

    A new task asks, with ``gfp | __GFP_NOWARN``, and gives up after 50 failures; after every ``rest_every`` requests it
    sleeps a tick. The pages stay taken. Errors: ValueError for numbers below 0.

    Kernel: __alloc_pages_slowpath, mm/page_alloc.c; balance_pgdat, mm/vmscan.c.

    >>> from kmemlab import Machine, GFP_NOWAIT
    >>> m = Machine("linux-6.1", memory="64M")
    >>> _ = m.read_file("big", "64M")
    >>> rows = m.pressure(GFP_NOWAIT, 2000)
    >>> rows[-1].got < 2000, rows[-1].allocstall
    (True, 0)
    """
    for name, value in (("pages", pages), ("rest_every", rest_every)):
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"pressure: {name} must be a whole number from 0, not {value!r}")
    m.kswapd_turn = KswapdTurn()
    begin = [m.lru.stat[name] for name in STATS]
    asked = got = 0
    rows = [_row(m, asked, got, begin)]
    while asked < pages and asked - got < FAILURES:
        failed_before = asked > got
        got += not isinstance(m.alloc_pages(gfp | NOWARN, 0), Null)
        asked += 1
        if asked % EVERY == 0 or (asked > got and not failed_before):
            rows.append(_row(m, asked, got, begin))
        if rest_every and asked % rest_every == 0:
            m.msleep(TICK)
    if rows[-1].asked < asked:
        rows.append(_row(m, asked, got, begin))
    return rows


def _row(m: Machine, asked: int, got: int, begin: list[int]) -> PressureRow:
    free = {zone.name: zone.nr_free_pages for zone in m.zones}
    return PressureRow(asked, got, free, *(m.lru.stat[name] - old for name, old in zip(STATS, begin, strict=True)))


def recorded_pressure(name: str | Path) -> list[PressureRow]:
    """The rows of a recorded curve, given by path or by name ("reclaim-k-smp1-256M").

    Errors: RecordingError, one line, for a file that holds none.
    """
    path = find_recording(name)
    recording: Any = read_json(path)
    try:
        columns = list(recording["columns"])
        zones = [column for column in columns if column.startswith("free_")]
        table = [dict(zip(columns, row, strict=True)) for row in recording["rows"]]
        return [
            PressureRow(
                row["asked"],
                row["got"],
                {zone.removeprefix("free_"): row[zone] for zone in zones},
                *(row[stat] - table[0][stat] for stat in STATS),
            )
            for row in table
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{path}: is not a recorded curve of pressure ({error!r})") from None


def recorded_page_cache(m: Machine) -> File:
    """Give the page cache of a recorded machine an owner, so that it can be reclaimed: a block device's pages.

    Their frames and number are recorded, their age is not. What was gone at the recording's end is taken as older than
    what was left, in the order of frames; the pages of zone DMA come after 32,000 others, where the recorded kernel
    found them. Errors: ValueError for a machine that is not the first state of a recorded curve of pressure.
    """
    raw: Any = read_json(m.recording.path) if m.recording else {}
    found = re.search(r"Inactive\(file\): *(\d+)", str(raw.get("meminfo0", "")))
    if found is None or len(m.zones) != 2 or m.lru.inactive_file:
        raise ValueError(f"{m.label}: not a machine as Machine.from_recording makes it of a recorded curve of pressure")
    cached = int(found[1]) // 4
    runs = [run for zone in raw["state1"]["zones"] for run in zone.get("lru_or_movable", ())]
    left = {pfn for first, count in runs for pfn in range(first, first + count)}
    dma, others = (sorted(zone.lru, key=lambda pfn: (pfn in left, pfn)) for zone in m.zones)
    others = others[: cached - len(dma)]  # the rest, the youngest, is anonymous memory
    file = File(m, "/dev/ram0")
    m.files.append(file)
    for pfn in [*others[:OLD], *dma, *others[OLD:]]:
        m.memmap[pfn].refcount, m.memmap[pfn].order = 1, 0
        file.pages.add(pfn)
        m.lru.add("inactive_file", pfn, file)
    m.changes += 1
    return file
