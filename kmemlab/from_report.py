"""A machine's zones from the text of a "page allocation failure" or OOM report.

The report tells each zone's numbers and its free blocks by order, not where they lie: ``layout`` finds them a place.
"""

from __future__ import annotations

from kmemlab.failure_reader import FailureReport, ZoneReport, columns, read_failure_reports
from kmemlab.kernels import LINUX_6_1, LINUX_6_1_I386, KernelProfile
from kmemlab.layout import DoesNotFit, fill_zone, zone_of
from kmemlab.mm_init import Found, calculate_normal_threshold, pageblocks, zone_batchsize, zone_highsize
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_HIGHATOMIC,
    MIGRATE_ISOLATE,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_UNMOVABLE,
    MemMap,
    Zone,
)
from kmemlab.procfs import ZoneText

__all__ = ["zones_from_report"]

TOP = MAX_ORDER - 1

NOTE = (
    "Made from a report: it tells how many blocks of each order are free, not which frames they are, how many of them "
    "are of which type, or their order in the lists. Page cache and processes are not laid out: reclaim finds nothing."
)
# R, before 4.4, was a reserve that every request could use in the end.
TYPES = {
    "M": MIGRATE_MOVABLE, "U": MIGRATE_UNMOVABLE, "E": MIGRATE_RECLAIMABLE, "H": MIGRATE_HIGHATOMIC,
    "I": MIGRATE_ISOLATE, "R": MIGRATE_MOVABLE,
}  # fmt: skip
FIRST_MIB = 97  # frames of a PC below 1 MiB at which there is no memory


def zones_from_report(text: str, memmap: MemMap) -> Found:
    """The zones of the first report of a log, in order. Errors: ValueError naming the line and what is missing."""
    reports = read_failure_reports(text)
    if not reports:
        raise ValueError(
            "no report: a line '...: page allocation failure: order:...' or '... invoked oom-killer: ...' must be in "
            "the text, with the memory report (Mem-Info) below it"
        )
    report = reports[0]
    if not report.zones:
        raise ValueError(f"line {report.first + 1}: no zone line such as 'Normal free:304kB min:...' follows")
    profile = LINUX_6_1 if "DMA32" in columns(report.zones) else LINUX_6_1_I386
    for zone in report.zones.values():
        _check(zone, profile)
    told = sorted(report.zones.values(), key=lambda zone: profile.zone_names.index(zone.kind))
    cpus = 1 + any(elsewhere for _, elsewhere in map(_free_pcp, told))
    zones: list[Zone] = []
    for zone in told:
        zones.append(_zone(zone, columns(report.zones), profile, zones[-1].end_pfn if zones else 0, cpus))
    types = bytearray(b"\1") * (pageblocks(zones[-1].end_pfn) + 2)
    for made, zone in zip(zones, told, strict=True):
        made.pageblock_mt = types
        try:
            fill_zone(made, _by_type(zone.blocks), _pcps(zone, made, cpus), memmap)
        except DoesNotFit as error:
            raise _wrong(zone, str(error)) from None
    return Found(profile, zones, [], {}, _note(report))


def _wrong(zone: ZoneReport, words: str) -> ValueError:
    return ValueError(f"line {zone.line}: zone {zone.name}: {words}")


def _check(zone: ZoneReport, profile: KernelProfile) -> None:
    """Whether the report tells all that a zone is made of. Errors: ValueError."""
    numbers = zone.numbers
    if zone.name != zone.kind:
        raise _wrong(zone, "the lab's machines have one node; leave out the lines of the others")
    if zone.kind not in profile.zone_names:
        raise _wrong(zone, f"no machine of the lab has such a zone beside the report's others: {profile.name}")
    if missing := [name for name in ("min", "low", "high", "present") if name not in numbers]:
        raise _wrong(zone, f"its line 'free:...kB min:...kB ... present:...kB' is missing or has no {missing[0]}:")
    if not zone.reserve:
        raise _wrong(zone, "the line 'lowmem_reserve[]: ...' (or 'protections[]: ...') below it is missing")
    if len(zone.blocks) != MAX_ORDER:
        raise _wrong(zone, f"its free lists, a line '{zone.name}: 3*4kB 0*8kB ... 1*4096kB = ...kB', are missing")
    if letters := set("".join(letters for _, letters in zone.blocks)) - TYPES.keys():
        raise _wrong(zone, f"blocks of type {'/'.join(sorted(letters))}: the lab has no such memory (C is CMA)")
    if not 0 < numbers.get("managed", numbers["present"]) <= numbers["present"] <= 1 << 34:
        raise _wrong(zone, "managed and present must be above 0, managed the smaller one, present at most 64 TiB")


def _zone(told: ZoneReport, named: tuple[str, ...], profile: KernelProfile, end: int, cpus: int) -> Zone:
    """A zone above frame ``end`` with nothing on its lists, where a PC has that zone if there is room."""
    numbers, idx = told.numbers, profile.zone_names.index(told.kind)
    border = profile.zone_ends[idx - 1] or 0 if idx else 0
    start = -(-max(end, border) >> TOP) << TOP or 1
    # A class of requests without a column of its own may use what the next lower one may.
    column = [max((i for i, each in enumerate(named) if profile.zone_names.index(each) <= j), default=0)
              for j in range(len(profile.zone_names))]  # fmt: skip
    values = {
        **numbers, "start_pfn": start, "spanned": numbers["present"] + (FIRST_MIB if start == 1 else 0),
        "managed": numbers.get("managed", numbers["present"]), "free": told.free,
    }  # fmt: skip
    protection = [told.reserve[min(i, len(told.reserve) - 1)] for i in column]
    try:
        zone = zone_of(ZoneText(told.kind, told.line, values, protection), profile)
    except DoesNotFit as error:
        raise _wrong(told, str(error)) from None
    zone.stat_threshold = calculate_normal_threshold(zone, cpus)
    return zone


def _free_pcp(told: ZoneReport) -> tuple[int, int]:
    """Pages on the lists of the CPU that printed the report, and on those of the others together."""
    everywhere = told.numbers.get("free_pcp", 0)
    here = min(told.numbers.get("local_pcp", everywhere), everywhere)
    return here, everywhere - here


def _pcps(told: ZoneReport, zone: Zone, cpus: int) -> list[dict[str, int]]:
    batch = zone_batchsize(zone.managed)
    high = zone_highsize(zone, batch, cpus)
    return [{"count": count, "high": high, "batch": batch} for count in _free_pcp(told)[:cpus]]


def _by_type(blocks: list[tuple[int, str]]) -> dict[int, list[int]]:
    """Blocks of each order by type: one of each that has some, all others of the first in the order of ``TYPES``."""
    found: dict[int, list[int]] = {}
    for order, (count, letters) in enumerate(blocks):
        types = [mt for letter, mt in TYPES.items() if letter in (letters or "M")][:count]
        for mt in types:
            found.setdefault(mt, [0] * MAX_ORDER)[order] += 1
        if types:
            found[types[0]][order] += count - len(types)
    return found


def _note(report: FailureReport) -> str:
    if report.kernel == LINUX_6_1.name:
        return NOTE
    return f"{NOTE} The report's masks are those of {report.kernel}; this machine has the masks and rules of 6.1."
