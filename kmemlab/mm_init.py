"""Making zones: where they lie, their watermarks, reserves, batch sizes and counter thresholds.

Kernel: mm/page_alloc.c (setup_per_zone_wmarks, setup_per_zone_lowmem_reserve, zone_batchsize,
zone_highsize, calculate_min_free_kbytes), mm/vmstat.c (calculate_normal_threshold),
mm/khugepaged.c (set_recommended_min_free_kbytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, NamedTuple

from kmemlab.kernels import KernelProfile
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_MOVABLE,
    PAGE_SHIFT,
    PAGEBLOCK_NR_PAGES,
    PAGEBLOCK_ORDER,
    PerCpuPages,
    Zone,
    mult_frac,
)

__all__ = [
    "Found",
    "boot_zones",
    "calculate_min_free_kbytes",
    "calculate_normal_threshold",
    "checked_sysctl",
    "default_sysctls",
    "free_boot_range",
    "is_highmem",
    "nr_free_buffer_pages",
    "pageblocks",
    "parse_cmdline",
    "parse_memory",
    "parse_size",
    "ram_ranges",
    "setup_per_zone_lowmem_reserve",
    "setup_per_zone_wmarks",
    "zone_batchsize",
    "zone_highsize",
]


class Found(NamedTuple):
    """What a recording, /proc or a report told of a machine: its zones, rows the model does not hold, and a remark."""

    kernel: KernelProfile
    zones: list[Zone]
    empty: list[Zone]
    carried: dict[str, int]
    note: str


_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def parse_size(text: str | int) -> int:
    """Pages of a size such as "512M", "4G" or a number of bytes, rounded down. Kernel: memparse, lib/cmdline.c.

    Errors: ValueError that names the text.
    """
    word = str(text).strip().upper().removesuffix("IB").removesuffix("B")
    shift = _UNITS.get(word[-1:], 0)
    try:
        size = int(word[:-1] if shift else word) << shift
    except ValueError:
        raise ValueError(f"{text!r} is not a size; write it as '200M' or '4G'") from None
    if size < 0:
        raise ValueError(f"{text!r}: a size is not negative")
    return size >> PAGE_SHIFT


def parse_memory(text: str | int) -> int:
    """Pages of a machine's memory such as "512M" or a number of bytes. Errors: ValueError that names the text."""
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
    """Where a PC has its RAM, as (first pfn, end pfn): a hole below 1 MiB, and from 3 to 4 GiB once needed.

    The firmware keeps the last 128 KiB below 4 GiB for its tables.
    """
    low = pages if pages <= 0xE0000 else 0xC0000
    ranges = [(1, 159), (256, low - 32)]
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

    With transparent huge pages khugepaged raises it to 11 pageblocks a zone, 5 % of memory at most; below
    512 MiB of managed memory they are off by default.
    """
    value = min(max(isqrt(16 * (nr_free_buffer_pages(zones) << PAGE_SHIFT - 10)), 128), 262144)
    if thp and sum(zone.managed for zone in zones) >= 512 << 20 - PAGE_SHIFT:
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


# What Debian's kernel keeps for itself before anybody asks: its image and early tables, in pages.
KERNEL_PAGES = 11440
_SYSCTL_RANGE = {
    "min_free_kbytes": (1, 1 << 40),
    "watermark_boost_factor": (0, 1 << 31),
    "watermark_scale_factor": (1, 3000),
    "percpu_pagelist_high_fraction": (0, 1 << 31),
}


def default_sysctls(profile: KernelProfile) -> dict[str, Any]:
    """The ``vm.`` settings the model has, as a kernel boots with them (min_free_kbytes is computed later)."""
    return {
        "min_free_kbytes": 0,
        "watermark_boost_factor": 15000,
        "watermark_scale_factor": 10,
        "percpu_pagelist_high_fraction": 0,
        "lowmem_reserve_ratio": list(profile.lowmem_reserve_ratio),
    }


def checked_sysctl(name: str, value: Any, nr_zones: int) -> Any:
    """``value`` if it may be written to ``vm.NAME``; ValueError says what may."""
    if name == "lowmem_reserve_ratio":
        if not isinstance(value, (list, tuple)) or len(value) != nr_zones:
            raise ValueError(f"vm.{name} takes {nr_zones} numbers, one a zone, not {value!r}")
        if not all(isinstance(each, int) and each >= 0 for each in value):
            raise ValueError(f"vm.{name} takes whole numbers from 0, not {value!r}")
        return list(value)
    low, high = _SYSCTL_RANGE[name]
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"vm.{name} takes a number from {low} to {high}, not {value!r}")
    if name == "percpu_pagelist_high_fraction" and 0 < value < 8:
        raise ValueError(f"vm.{name} takes 0 or a number from 8, not {value}")
    return value


OPTIONS = frozenset(
    "kernelcore movablecore transparent_hugepage init_on_alloc slub_debug slab_nomerge slub_max_order "
    "slub_min_objects".split()
)


def parse_cmdline(cmdline: str) -> dict[str, str]:
    """Boot options the allocators know: kernelcore=, movablecore=, transparent_hugepage=, init_on_alloc=,
    slub_debug=, slab_nomerge, slub_max_order=, slub_min_objects=, sysctl.vm.NAME=.
    Errors: ValueError names an option the model does not have."""
    options = {}
    for word in cmdline.split():
        name, _, value = word.partition("=")
        if name not in OPTIONS and not name.startswith("sysctl.vm."):
            raise ValueError(f"cmdline: {name!r} is not an option this model has")
        if name in ("slub_max_order", "slub_min_objects") and not (value.isdigit() and int(value) <= 1 << 16):
            raise ValueError(f"cmdline: {word!r}: {name} wants a number")
        options[name] = value
    return options


def _movable_start(ranges: Sequence[tuple[int, int]], options: dict[str, str]) -> int | None:
    """First pfn of zone Movable when kernelcore= or movablecore= ask for one."""
    total = sum(end - first for first, end in ranges)
    if "kernelcore" in options:
        core = parse_memory(options["kernelcore"])
    elif "movablecore" in options:
        core = max(0, total - parse_memory(options["movablecore"]))
    else:
        return None
    for first, end in ranges:
        if core < end - first:
            return -(-(first + core) // 1024) * 1024
        core -= end - first
    return None


def boot_zones(profile: KernelProfile, pages: int, options: dict[str, str], cpus: int) -> tuple[list[Zone], list[Zone]]:
    """(populated zones, empty zones) of a machine just booted, with all memory free but the kernel's own.

    The kernel image lies from 16 MiB on, the page descriptors (64 bytes a page) at the end of memory.
    """
    ranges = ram_ranges(pages)
    last = ranges[-1][1]
    movable = _movable_start(ranges, options)
    memmap_pages = pages // 64
    image = range(4096, 4096 + min(KERNEL_PAGES, pages // 4))
    kept = (1, 256), (image.start, image.stop), (last - memmap_pages, last)
    types = bytearray(b"\1") * (pageblocks(last) + 2)
    zones: list[Zone] = []
    empty: list[Zone] = []
    floor = 1
    for idx, (name, bound) in enumerate(zip(profile.zone_names, profile.zone_ends, strict=True)):
        end = min(last, bound if bound is not None else last)
        if movable is not None and name != "Movable":
            end = min(end, movable)
        if name == "Device" or (name == "Movable" and movable is None):
            end = floor
        zone = _boot_zone(name, idx, floor, end, ranges, kept)
        zone.pageblock_mt = types
        zone.stat_threshold = calculate_normal_threshold(zone, cpus)
        zone.lowmem_reserve = [0] * len(profile.zone_names)
        zone.pcps = [PerCpuPages(cpu) for cpu in range(cpus)]
        zone.pcp = zone.pcps[0]
        (zones if zone.managed else empty).append(zone)
        floor = max(floor, end)
    return zones, empty


def _cut(ranges: Sequence[tuple[int, int]], first: int, end: int) -> list[tuple[int, int]]:
    """The parts of ``ranges`` between ``first`` and ``end``."""
    return [(max(a, first), min(b, end)) for a, b in ranges if max(a, first) < min(b, end)]


def _boot_zone(
    name: str, idx: int, first: int, end: int, ranges: Sequence[tuple[int, int]], kept: Sequence[tuple[int, int]]
) -> Zone:
    ram = _cut(ranges, first, end)
    free = ram
    for low, high in kept:
        free = [part for a, b in free for part in _cut([(a, min(b, low)), (max(a, high), b)], a, b)]
    present = sum(b - a for a, b in ram)
    managed = sum(b - a for a, b in free)
    zone = Zone(name, idx, first if managed else 0, end - first if managed else 0, present, managed)
    zone.spans = [(a, b - a) for a, b in ram]
    zone.reserved = [(a, b - a) for low, high in kept for a, b in _cut(ram, low, high)]
    for a, b in free:
        free_boot_range(zone, a, b)
    zone.nr_free_pages = managed
    return zone


def free_boot_range(zone: Zone, first: int, end: int) -> None:
    """Hand memory to the buddy lists as the boot allocator does: ascending, the largest aligned blocks, at the tails.

    A long run of top-order blocks is not stored one by one. Kernel: __free_pages_memory, mm/memblock.c.
    """
    top = MAX_ORDER - 1
    while first < end:
        order = min(top, (first & -first).bit_length() - 1 if first else top, (end - first).bit_length() - 1)
        if order == top and end - first >= 256 << top and not zone.run:
            zone.run = zone.boot_run = range(first, end >> top << top, 1 << top)
            first = zone.run[-1] + (1 << top)
            if not zone.free_area[top][MIGRATE_MOVABLE]:
                zone.store_run(1)
            continue
        zone.add_to_free_list_tail(first, order, MIGRATE_MOVABLE)
        first += 1 << order


def pageblocks(pages: int) -> int:
    """Pageblocks that cover ``pages`` frames from 0."""
    return -(-pages >> PAGEBLOCK_ORDER)
