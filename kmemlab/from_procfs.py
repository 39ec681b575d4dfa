"""A machine's zones from the text of a real machine's /proc/buddyinfo and /proc/zoneinfo.

/proc tells how many blocks of each order are free, not which: ``layout`` finds them a place.
"""

from __future__ import annotations

from kmemlab.kernels import LINUX_6_1, LINUX_6_1_I386, KernelProfile
from kmemlab.layout import DoesNotFit, fill_zone, zone_of
from kmemlab.mm_init import Found, pageblocks
from kmemlab.mmzone import MIGRATE_MOVABLE, MemMap, Zone
from kmemlab.procfs import ProcfsError, ZoneText, parse_buddyinfo, parse_zoneinfo

__all__ = ["zones_from_procfs"]

NOTE = (
    "Made from /proc: which blocks are free, their order in the lists and their types are not told there. "
    "Counts, watermarks and verdicts are the real machine's; page frame numbers are not."
)


def zones_from_procfs(buddyinfo: str, zoneinfo: str, memmap: MemMap) -> Found:
    """The zones of a real machine, in their order. Errors: ProcfsError."""
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
        try:
            fill_zone(zone, {MIGRATE_MOVABLE: counts[zone.name]}, text.pcps, memmap)
        except DoesNotFit as error:
            raise ProcfsError(f"buddyinfo: zone {zone.name}: {error}") from None
        zones.append(zone)
    return Found(profile, sorted(zones, key=lambda zone: zone.idx), empty, carried, NOTE)


def _zone(text: ZoneText, profile: KernelProfile) -> Zone:
    try:
        return zone_of(text, profile)
    except DoesNotFit as error:
        raise ProcfsError(f"zoneinfo: zone {text.name} (line {text.line}): {error}") from None
