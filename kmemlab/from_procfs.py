"""A machine's zones from the text of a real machine's /proc/buddyinfo and /proc/zoneinfo.

/proc tells how many blocks of each order are free, not which; they are laid out so that no two free
buddies stand side by side, as the kernel would have merged them.
"""

from __future__ import annotations

from kmemlab.kernels import LINUX_6_1, LINUX_6_1_I386, KernelProfile
from kmemlab.mm_init import free_boot_range, pageblocks
from kmemlab.mmzone import MAX_ORDER, MIGRATE_MOVABLE, MemMap, PerCpuPages, Zone
from kmemlab.procfs import ProcfsError, ZoneText, parse_buddyinfo, parse_zoneinfo

__all__ = ["NOTE", "zones_from_procfs"]

NOTE = (
    "Made from /proc: which blocks are free, their order in the lists and their types are not told there. "
    "Counts, watermarks and verdicts are the real machine's; page frame numbers are not."
)
TOP = MAX_ORDER - 1


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
        _lay_out(zone, counts[zone.name], text, memmap)
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


def _lay_out(zone: Zone, counts: list[int], text: ZoneText, memmap: MemMap) -> None:
    """Give each counted block a place: the block in one half of a larger area, its buddy's half left in use."""
    need = sum(count << order for order, count in enumerate(counts))
    if need > zone.managed:
        raise ProcfsError(f"buddyinfo: zone {zone.name}: {need} pages free, but zoneinfo says {zone.managed} managed")
    first, end = max(zone.start_pfn, 256), zone.end_pfn
    chunks = range(-(-first >> TOP) << TOP, end >> TOP << TOP, 1 << TOP)
    if counts[TOP] > len(chunks):
        raise ProcfsError(f"buddyinfo: zone {zone.name}: {counts[TOP]} blocks of order {TOP} do not fit into it")
    rest = len(chunks) - counts[TOP]
    spare: list[list[int]] = [[] for _ in range(MAX_ORDER + 1)]
    if chunks:
        _spare_range(spare, first, chunks[0])
        _spare_range(spare, chunks[-1] + (1 << TOP), end)
        if counts[TOP]:
            free_boot_range(zone, chunks[rest], chunks[-1] + (1 << TOP))
        spare[TOP].extend(reversed(chunks[: min(rest, 1 << 16)]))
    else:
        _spare_range(spare, first, end)
    for order in range(TOP - 1, -1, -1):
        for _ in range(counts[order]):
            area = _area(spare, order + 1)
            if area >= 0:
                spare[order].append(area)
                _list(zone, area + (1 << order), order)
            elif (area := _lone_area(zone, spare, order)) >= 0:
                _list(zone, area, order)
            else:
                raise ProcfsError(f"buddyinfo: zone {zone.name}: the blocks of order {order} do not fit into it")
    _fill_pcps(zone, text, spare, memmap)


def _spare_range(spare: list[list[int]], first: int, end: int) -> None:
    """Cut a range into aligned areas."""
    while first < end:
        order = min(TOP, (first & -first).bit_length() - 1, (end - first).bit_length() - 1)
        spare[order].append(first)
        first += 1 << order


def _list(zone: Zone, pfn: int, order: int) -> None:
    zone.free_area[order][MIGRATE_MOVABLE][pfn] = None
    zone.buddy[pfn] = order << 3 | MIGRATE_MOVABLE


def _area(spare: list[list[int]], order: int) -> int:
    """An unused aligned area of 2**order pages, cut from a larger one if need be; -1 if there is none."""
    high = order
    while high < MAX_ORDER and not spare[high]:
        high += 1
    if high >= MAX_ORDER:
        return -1
    area = spare[high].pop()
    while high > order:
        high -= 1
        spare[high].append(area + (1 << high))
    return area


def _lone_area(zone: Zone, spare: list[list[int]], order: int) -> int:
    """An area of just this order whose buddy is no free block: such as one at a zone's border."""
    for i, area in enumerate(spare[order]):
        if zone.buddy.get(area ^ 1 << order, -1) >> 3 != order:
            return spare[order].pop(i)
    return -1


def _fill_pcps(zone: Zone, text: ZoneText, spare: list[list[int]], memmap: MemMap) -> None:
    for cpu, numbers in enumerate(text.pcps or [{}]):
        pcp = PerCpuPages(cpu, numbers.get("high", 0), max(1, numbers.get("batch", 1)))
        for _ in range(min(numbers.get("count", 0), zone.managed)):
            pfn = _area(spare, 1)
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
