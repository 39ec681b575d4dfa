"""Making zones: where they lie, their watermarks, reserves, batch sizes and counter thresholds.

Kernel: mm/page_alloc.c (setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, zone_batchsize,
zone_highsize, calculate_min_free_kbytes), mm/vmstat.c (calculate_normal_threshold),
mm/khugepaged.c (set_recommended_min_free_kbytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from kmemlab.mmzone import PAGE_SHIFT, PAGEBLOCK_NR_PAGES, PAGEBLOCK_ORDER, Zone, mult_frac

__all__ = [
    "calculate_min_free_kbytes",
    "calculate_normal_threshold",
    "is_highmem",
    "pageblocks",
    "nr_free_buffer_pages",
    "parse_memory",
    "ram_ranges",
    "setup_per_zone_lowmem_reserve",
    "setup_per_zone_wmarks",
    "zone_batchsize",
    "zone_highsize",
]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def parse_memory(text: str | int) -> int:
    """Pages of a size such as "512M", "4G" or a number of bytes (the kernel's own ``memparse`` units).

    Errors: ValueError that names the text.
    """
    word = str(text).strip().upper().removesuffix("IB").removesuffix("B")
    shift = _UNITS.get(word[-1:], 0)
    try:
        size = int(word[:-1] if shift else word) << shift
    except ValueError:
        raise ValueError(f"memory={text!r} is not a size; write it as '512M' or '4G'") from None
    if not 8 << 20 <= size <= 64 << 40:
        raise ValueError(f"memory={text!r}: a machine has between 8M and 64T")
    return size >> PAGE_SHIFT


def ram_ranges(pages: int) -> list[tuple[int, int]]:
    """Where a PC has its RAM, as (first pfn, end pfn): a hole below 1 MiB, and from 3 to 4 GiB once needed."""
    low = pages if pages <= 0xE0000 else 0xC0000
    ranges = [(1, 159), (256, low)]
    if pages > low:
        ranges.append((1 << 20, (1 << 20) + pages - low))
    return ranges


def is_highmem(zone: Zone, zones: Sequence[Zone]) -> bool:
    """Whether the kernel has no permanent address for the zone: HighMem, or a Movable zone cut from it."""
    return zone.name == "HighMem" or (zone.name == "Movable" and any(z.name == "HighMem" for z in zones))


def nr_free_buffer_pages(zones: Sequence[Zone]) -> int:
    """Pages above the high watermark in the zones GFP_USER may use. Kernel: nr_free_buffer_pages."""
    user = [zone for zone in zones if zone.name not in ("HighMem", "Movable")]
    return sum(max(0, zone.managed - zone.wmark[2] - zone.watermark_boost) for zone in user)


def calculate_min_free_kbytes(zones: Sequence[Zone], *, thp: bool) -> int:
    """``vm.min_free_kbytes`` of a machine: the square root of 16 x lowmem, in kB.

    With transparent huge pages khugepaged raises it to 11 pageblocks a zone, if that is below 5 % of memory.
    """
    value = min(max(isqrt(16 * (nr_free_buffer_pages(zones) << PAGE_SHIFT - 10)), 128), 262144)
    if thp:
        setup_per_zone_wmarks(zones, value)
        populated = sum(zone.name not in ("HighMem", "Movable") for zone in zones)
        recommended = min(PAGEBLOCK_NR_PAGES * populated * 11, nr_free_buffer_pages(zones) // 20)
        value = max(value, recommended << PAGE_SHIFT - 10)
    return value


def setup_per_zone_wmarks(zones: Sequence[Zone], min_free_kbytes: int, scale_factor: int = 10) -> None:
    """Set min, low and high of each zone from ``vm.min_free_kbytes``; the boost is dropped."""
    pages_min = min_free_kbytes >> PAGE_SHIFT - 10
    lowmem = sum(zone.managed for zone in zones if not is_highmem(zone, zones))
    for zone in zones:
        share = pages_min * zone.managed // lowmem if lowmem else 0
        low = share
        if is_highmem(zone, zones):
            low = min(max(zone.managed // 1024, 32), 128)
        step = max(share >> 2, mult_frac(zone.managed, scale_factor, 10000))
        zone.wmark = [low, low + step, low + 2 * step]
        zone.watermark_boost = 0


def setup_per_zone_lowmem_reserve(zones: Sequence[Zone], ratio: Sequence[int], nr_zones: int) -> None:
    """Set what each zone keeps back from requests that could have used a higher zone."""
    managed = [0] * nr_zones
    for zone in zones:
        managed[zone.idx] = zone.managed
    for zone in zones:
        reserve = [0] * nr_zones
        for j in range(zone.idx + 1, nr_zones):
            above = sum(managed[zone.idx + 1 : j + 1])
            reserve[j] = above // ratio[zone.idx] if ratio[zone.idx] else 0
        zone.lowmem_reserve = reserve


def zone_batchsize(managed: int) -> int:
    """How many pages a per-CPU list takes or gives at a time: 1 to 63, by the zone's size."""
    batch = max(min(managed >> 10, 256) // 4, 1)
    batch = (1 << (batch + batch // 2).bit_length() - 1) - 1
    return max(1, batch)


def zone_highsize(zone: Zone, batch: int, cpus: int, high_fraction: int = 0) -> int:
    """How many pages one CPU's lists of a zone may hold: the low watermark shared by the CPUs, or
    ``managed / vm.percpu_pagelist_high_fraction``."""
    total = zone.managed // high_fraction if high_fraction else zone.wmark[1] + zone.watermark_boost
    return max(total // cpus, batch << 2)


def calculate_normal_threshold(zone: Zone, cpus: int) -> int:
    """How far one CPU's part of a counter may be off before it is added to the total."""
    mem = zone.managed >> 27 - PAGE_SHIFT
    return min(125, 2 * cpus.bit_length() * (1 + mem.bit_length()))


def pageblocks(pages: int) -> int:
    """Pageblocks that cover ``pages`` frames from 0."""
    return -(-pages >> PAGEBLOCK_ORDER)
def boot_zones(*a): pass
def parse_cmdline(*a): pass
def checked_sysctl(*a): pass
