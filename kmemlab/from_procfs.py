"""A machine's zones from the text of a real machine's /proc/buddyinfo and /proc/zoneinfo.

/proc tells how many blocks of each order are free, not which: see ``layout`` for where they are put.
"""

from __future__ import annotations

from kmemlab.kernels import LINUX_6_1, LINUX_6_1_I386, KernelProfile
from kmemlab.layout import Spare, lay_out
from kmemlab.mm_init import pageblocks
from kmemlab.mmzone import MAX_ORDER, MIGRATE_MOVABLE, MemMap, PerCpuPages, Zone
from kmemlab.procfs import ProcfsError, ZoneText, parse_buddyinfo, parse_zoneinfo

__all__ = ["NOTE", "zones_from_procfs"]

NOTE = (
    "Made from /proc: which blocks are free, their order in the lists and their types are not told there. "
    "Counts, watermarks and verdicts are the real machine's; page frame numbers are not."
)


def zones_from_procfs(
    buddyinfo: str, zoneinfo: str, memmap: MemMap
) -> tuple[KernelProfile, list[Zone], list[Zone], dict[str, int]]:
    """(kernel, populated zones, empty zones, rows the model does not hold). Errors: ProcfsError."""
    counts = parse_buddyinfo(buddyinfo)
    texts = parse_zoneinfo(zoneinfo)
    profile = LINUX_6_1_I386 if any(text.name == "HighMem" for text in texts) else LINUX_6_1
    for text in texts:
        if text.name not in profile.zone_names:
            raise ProcfsError(f"zoneinfo: line {text.line}: zone {text.name} is not one of {profile.name}")
    populated = [text for text in texts if text.values["managed"]]
    if set(counts) != {text.name for text in populated}:
        raise ProcfsError(f"buddyinfo has zones {', '.join(counts)}, zoneinfo {', '.join(t.name for t in populated)}")
    top = max(text.values["start_pfn"] + text.values["spanned"] for text in populated)
    if top > 1 << 34:
        raise ProcfsError(f"zoneinfo: memory up to frame {top}: more than 64 TiB")
    types = bytearray(b"\1") * (pageblocks(top) + 2)
    zones: list[Zone] = []
    empty: list[Zone] = []
    carried: dict[str, int] = {}
    for text in texts:
        zone = _zone(text, profile)
        carried.update(text.stats)
        carried.update({f"{zone.name}.{name}": value for name, value in text.stats.items()})
        carried[f"{zone.name}.node_unreclaimable"] = text.values.get("node_unreclaimable", 0)
        if not zone.managed:
            empty.append(zone)
            continue
        zone.pageblock_mt = types
        _fill_pcps(zone, text, _lay_out(zone, counts[zone.name]), memmap)
        zones.append(zone)
    return profile, sorted(zones, key=lambda zone: zone.idx), empty, carried


def _zone(text: ZoneText, profile: KernelProfile) -> Zone:
    v = text.values
    idx = profile.zone_names.index(text.name)
    zone = Zone(text.name, idx, v.get("start_pfn", 0), v["spanned"], v["present"], v["managed"])
    boost = v.get("boost", 0)
    if min(v["min"], v["low"], v["high"]) < boost:
        raise ProcfsError(f"zoneinfo: zone {text.name} (line {text.line}): a watermark is below its boost {boost}")
    zone.wmark = [v["min"] - boost, v["low"] - boost, v["high"] - boost]
    zone.watermark_boost = boost
    zone.lowmem_reserve = text.protection + [0] * (len(profile.zone_names) - len(text.protection))
    zone.nr_free_pages = v["free"]
    zone.stat_threshold = min(v.get("threshold", 0), 125)
    zone.spans = [(zone.start_pfn, zone.spanned)] if zone.managed else []
    return zone


def _lay_out(zone: Zone, counts: list[int]) -> Spare:
    need = sum(count << order for order, count in enumerate(counts))
    if need > zone.managed:
        raise ProcfsError(f"buddyinfo: zone {zone.name}: {need} pages free, but zoneinfo says {zone.managed} managed")
    try:
        return lay_out(zone, {MIGRATE_MOVABLE: counts})
    except ValueError as error:
        raise ProcfsError(f"buddyinfo: {error}") from None


def _fill_pcps(zone: Zone, text: ZoneText, spare: Spare, memmap: MemMap) -> None:
    for cpu, numbers in enumerate(text.pcps or [{}]):
        pcp = PerCpuPages(cpu, numbers.get("high", 0), max(1, numbers.get("batch", 1)))
        for _ in range(min(numbers.get("count", 0), zone.managed)):
            pfn = spare.take(1, MIGRATE_MOVABLE)
            if pfn < 0:
                break
            page = memmap[pfn + 1]
            page.zone, page.mt = zone, MIGRATE_MOVABLE
            pcp.lists[MIGRATE_MOVABLE].append(page)
            pcp.count += 1
        zone.pcps.append(pcp)
    zone.pcp = zone.pcps[0]
    # zoneinfo's counter lags behind the lists, and the two files were read one after the other: the counter
    # stays what zoneinfo says, since watermark tests read it, and the difference is remembered.
    listed = sum(zone.nr_free(order) << order for order in range(MAX_ORDER))
    zone.counter_gap = zone.nr_free_pages - listed
