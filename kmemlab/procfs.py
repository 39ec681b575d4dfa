"""The allocator's /proc files: rendered from a machine, and read from a real kernel by the same module.

Kernel: mm/vmstat.c (frag_show_print, pagetypeinfo_showfree_print, pagetypeinfo_showblockcount_print,
zoneinfo_show_print).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.mmzone import MAX_ORDER, MIGRATE_TYPES, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Zone

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "NODE_STATS",
    "ZONE_STATS",
    "ProcfsError",
    "ZoneText",
    "buddyinfo",
    "cat",
    "pagetypeinfo",
    "parse_buddyinfo",
    "parse_zoneinfo",
    "zoneinfo",
]

SECTION_SHIFT = 15  # memory comes in sections of 128 MiB, which exist or do not

# Rows of subsystems the model does not hold: printed as 0, or as they were read from a real machine.
NODE_STATS = (
    "nr_inactive_anon nr_active_anon nr_inactive_file nr_active_file nr_unevictable nr_slab_reclaimable "
    "nr_slab_unreclaimable nr_isolated_anon nr_isolated_file workingset_nodes workingset_refault_anon "
    "workingset_refault_file workingset_activate_anon workingset_activate_file workingset_restore_anon "
    "workingset_restore_file workingset_nodereclaim nr_anon_pages nr_mapped nr_file_pages nr_dirty nr_writeback "
    "nr_writeback_temp nr_shmem nr_shmem_hugepages nr_shmem_pmdmapped nr_file_hugepages nr_file_pmdmapped "
    "nr_anon_transparent_hugepages nr_vmscan_write nr_vmscan_immediate_reclaim nr_dirtied nr_written "
    "nr_throttled_written nr_kernel_misc_reclaimable nr_foll_pin_acquired nr_foll_pin_released nr_kernel_stack "
    "nr_page_table_pages nr_sec_page_table_pages nr_swapcached pgpromote_success pgpromote_candidate "
).split()
ZONE_STATS = (
    "nr_free_pages nr_zone_inactive_anon nr_zone_active_anon nr_zone_inactive_file nr_zone_active_file "
    "nr_zone_unevictable nr_zone_write_pending nr_mlock nr_bounce nr_zspages nr_free_cma numa_hit numa_miss "
    "numa_foreign numa_interleave numa_local numa_other "
).split()
_NUMA_ONLY = {"pgpromote_success", "pgpromote_candidate"} | {row for row in ZONE_STATS if row.startswith("numa_")}


class ProcfsError(ValueError):
    """A /proc file that cannot be read; the text names file and line."""


def cat(m: Machine, path: str) -> str:
    """The text of a file, as the kernel would print it now. Errors: ValueError lists the files there are."""
    files = {
        "/proc/buddyinfo": buddyinfo,
        "/proc/pagetypeinfo": pagetypeinfo,
        "/proc/zoneinfo": zoneinfo,
    }
    if path in files:
        return files[path](m)
    if path.startswith("/proc/sys/vm/"):
        value = m.sysctl(path.removeprefix("/proc/sys/vm/"))
        return "\t".join(map(str, value)) + "\n" if isinstance(value, list) else f"{value}\n"
    raise ValueError(
        f"cat {path!r}: the model has {', '.join(files)}, /proc/slabinfo, /proc/sys/vm/..., /sys/kernel/slab/NAME/... "
        "and /sys/kernel/debug/slab/NAME/{alloc,free}_traces"
    )


def buddyinfo(m: Machine) -> str:
    """Free blocks of each zone by order."""
    lines = []
    for zone in m.zones:
        counts = "".join(f"{zone.nr_free(order):6d} " for order in range(MAX_ORDER))
        lines.append(f"Node 0, zone {zone.name:>8s} {counts}\n")
    return "".join(lines)


def pagetypeinfo(m: Machine) -> str:
    """Free blocks of each zone by order and migratetype, then the types of its pageblocks."""
    out = [f"Page block order: {PAGEBLOCK_ORDER}\nPages per block:  {PAGEBLOCK_NR_PAGES}\n\n"]
    orders = "".join(f"{order:6d} " for order in range(MAX_ORDER))
    out.append(f"{'Free pages count per migrate type at order':<43s} {orders}\n")
    for zone in m.zones:
        for mt, name in enumerate(MIGRATE_NAMES):
            out.append(f"Node {0:4d}, zone {zone.name:>8s}, type {name:>12s} ")
            for order in range(MAX_ORDER):
                count = zone.nr_free_of(order, mt)
                out.append(f"{count:6d} " if count < 100000 else ">100000 ")
            out.append("\n")
    out.append(f"\n{'Number of blocks type ':<23s}" + "".join(f"{name:>12s} " for name in MIGRATE_NAMES) + "\n")
    for zone in m.zones:
        blocks = "".join(f"{count:12d} " for count in pageblock_counts(zone))
        out.append(f"Node {0}, zone {zone.name:>8s} {blocks}\n")
    return "".join(out)


def pageblock_counts(zone: Zone) -> list[int]:
    """Pageblocks of each migratetype; memory sections that do not exist are passed over."""
    counts = [0] * MIGRATE_TYPES
    sections: set[int] = set()
    for first, pages in zone.spans:
        sections.update(range(first >> SECTION_SHIFT, (first + pages - 1 >> SECTION_SHIFT) + 1))
    for section in sections:
        first = max(zone.start_pfn, section << SECTION_SHIFT)
        first = zone.start_pfn + -(-(first - zone.start_pfn) // PAGEBLOCK_NR_PAGES) * PAGEBLOCK_NR_PAGES
        end = min(zone.end_pfn, section + 1 << SECTION_SHIFT)
        blocks = len(range(first, end, PAGEBLOCK_NR_PAGES))
        types = zone.pageblock_mt[first >> PAGEBLOCK_ORDER : (first >> PAGEBLOCK_ORDER) + blocks]
        for mt in range(MIGRATE_TYPES):
            counts[mt] += types.count(mt)
    return counts


def zoneinfo(m: Machine) -> str:
    """Everything about each zone: counters, watermarks, protection, per-CPU lists."""
    out = []
    first = True
    for zone in sorted([*m.zones, *m.empty_zones], key=lambda zone: zone.idx):
        out.append(f"Node 0, zone {zone.name:>8s}")
        if zone.managed and first:
            first = False
            out.append("\n  per-node stats")
            out.extend(f"\n      {row:<12s} {m.carried.get(row, 0)}" for row in NODE_STATS if _has(m, row))
        out.append(_zone_text(m, zone))
    return "".join(out)


def _has(m: Machine, row: str) -> bool:
    return not (m.kernel.highmem and row in _NUMA_ONLY)


def _zone_text(m: Machine, zone: Zone) -> str:
    boost, free = zone.watermark_boost, max(0, zone.nr_free_pages)
    rows = [
        ("boost", boost), ("min", zone.wmark[0] + boost), ("low", zone.wmark[1] + boost),
        ("high", zone.wmark[2] + boost), ("spanned", zone.spanned), ("present", zone.present),
        ("managed", zone.managed), ("cma", 0),
    ]  # fmt: skip
    out = [f"\n  pages free     {free}"]
    out.extend(f"\n        {name:<8s} {value}" for name, value in rows)
    out.append(f"\n        protection: ({', '.join(map(str, zone.lowmem_reserve))})")
    if not zone.managed:
        return "".join(out) + "\n"
    for row in ZONE_STATS:
        if _has(m, row):
            value = free if row == "nr_free_pages" else m.carried.get(f"{zone.name}.{row}", 0)
            out.append(f"\n      {row:<12s} {value}")
    out.append("\n  pagesets")
    for pcp in zone.pcps:
        out.append(f"\n    cpu: {pcp.cpu}\n              count: {pcp.count}\n              high:  {pcp.high}")
        out.append(f"\n              batch: {pcp.batch}\n  vm stats threshold: {zone.stat_threshold}")
    hopeless = m.carried.get(f"{zone.name}.node_unreclaimable", 0)  # kswapd gave the node up
    out.append(f"\n  node_unreclaimable:  {hopeless}\n  start_pfn:           {zone.start_pfn}\n")
    return "".join(out)


# --- reading a real kernel's files ------------------------------------------------------------


@dataclass(slots=True)
class ZoneText:
    """One zone as /proc tells it. Pages; ``pcps`` has (count, high, batch) for each CPU."""

    name: str
    line: int
    values: dict[str, int] = field(default_factory=dict)
    protection: list[int] = field(default_factory=list)
    pcps: list[dict[str, int]] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)
    nr_free: list[int] = field(default_factory=list)


_BUDDY = r"^Node\s+(\d+), zone\s+(\w+)((?:\s+\d+)+)\s*$"
_ZONE = r"^Node\s+(\d+), zone\s+(\w+)\s*$"
_ROW = r"^\s+(?:pages )?(\w+):?\s+(-?\d+)\s*$"
_PROTECTION = r"^\s+protection: \(([\d, ]+)\)\s*$"


def _number(word: str, where: str) -> int:
    """A counter of a /proc file; ``where`` names file, line and row for the message."""
    if not word.strip().isascii() or len(word) > 20:
        raise ProcfsError(f"{where}: {word[:24]!r}... is out of range")
    try:
        value = int(word)
    except ValueError:
        raise ProcfsError(f"{where}: {word!r} is not a number") from None
    if not 0 <= value < 1 << 62:
        raise ProcfsError(f"{where}: {value} is out of range")
    return value


def parse_buddyinfo(text: str) -> dict[str, list[int]]:
    """Zone name -> free blocks of order 0, 1, 2 ... Errors: ProcfsError with the line."""
    zones: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = re.match(_BUDDY, line)
        if match is None:
            raise ProcfsError(
                f"buddyinfo: line {number}: expected 'Node 0, zone NAME' and counts: {line.strip()[:50]!r}"
            )
        if match[1] != "0":
            raise ProcfsError(f"buddyinfo: line {number}: node {match[1]}: the model has one node; give node 0's lines")
        counts = [_number(word, f"buddyinfo: line {number}") for word in match[3].split()]
        if len(counts) != MAX_ORDER:
            raise ProcfsError(f"buddyinfo: line {number}: {len(counts)} orders, this kernel model has {MAX_ORDER}")
        if max(counts) >= 1 << 34:
            raise ProcfsError(f"buddyinfo: line {number}: {max(counts)} blocks do not fit into any memory")
        zones[match[2]] = counts
    if not zones:
        raise ProcfsError("buddyinfo: line 1: no zone in it")
    return zones


def parse_zoneinfo(text: str) -> list[ZoneText]:
    """The zones of a zoneinfo file, in order. Errors: ProcfsError with the line."""
    zones: list[ZoneText] = []
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(_ZONE, line)
        if head:
            if head[1] != "0":
                raise ProcfsError(
                    f"zoneinfo: line {number}: node {head[1]}: the model has one node; give node 0's part"
                )
            zones.append(ZoneText(head[2], number))
        elif not zones:
            raise ProcfsError(f"zoneinfo: line {number}: expected 'Node 0, zone NAME': {line.strip()[:50]!r}")
        else:
            _zone_row(zones[-1], line, number)
    if not zones:
        raise ProcfsError("zoneinfo: line 1: no zone in it")
    for zone in zones:
        needed = {"free", "min", "low", "high", "spanned", "present", "managed"}
        if zone.values.get("managed"):
            needed.add("start_pfn")
        if missing := sorted(needed - zone.values.keys()):
            raise ProcfsError(f"zoneinfo: zone {zone.name} (line {zone.line}): has no row {missing[0]!r}")
        if not zone.protection:
            raise ProcfsError(f"zoneinfo: zone {zone.name} (line {zone.line}): has no protection row")
    return zones


def _zone_row(zone: ZoneText, line: str, number: int) -> None:
    protection = re.match(_PROTECTION, line)
    if protection:
        zone.protection = [_number(word, f"zoneinfo: line {number}: protection") for word in protection[1].split(",")]
        return
    row = re.match(_ROW, line)
    if row is None:
        if line.strip() in ("per-node stats", "pagesets", ""):
            return
        if re.match(r"^  vm stats threshold: \d+$", line):
            zone.values["threshold"] = _number(line.rsplit(maxsplit=1)[-1], f"zoneinfo: line {number}: threshold")
            return
        raise ProcfsError(f"zoneinfo: line {number}: cannot be read: {line.strip()[:50]!r}")
    name, value = row[1], _number(row[2], f"zoneinfo: line {number}: {row[1][:24]}")
    if name == "cpu":
        zone.pcps.append({})
    elif name in ("count", "high", "batch") and zone.pcps:
        zone.pcps[-1][name] = value
    elif line.startswith("      ") and not line.startswith("        "):
        zone.stats[name] = value
    else:
        zone.values[name] = value
