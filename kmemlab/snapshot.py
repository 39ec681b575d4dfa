"""What a machine looks like at one moment: frozen, shaped like /proc, and all that a panel gets.

A snapshot can also be made of a real kernel's dump, so the same panel draws both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "FREE",
    "HOLE",
    "LOST",
    "MOVABLE",
    "PCP",
    "RECLAIMABLE",
    "RESERVED",
    "SLAB",
    "UNMOVABLE",
    "CacheCpuSnapshot",
    "CacheSnapshot",
    "PcpSnapshot",
    "SlabSnapshot",
    "Snapshot",
    "ZoneSnapshot",
]

# Page states: the low four bits of a byte in ZoneSnapshot.pages.
# For FREE and PCP the high four bits are the migratetype of the list the page lies on.
HOLE, RESERVED, FREE, PCP, MOVABLE, RECLAIMABLE, SLAB, UNMOVABLE, LOST = range(9)


@dataclass(frozen=True, slots=True)
class PcpSnapshot:
    """One CPU's page lists of one zone: ``lists`` maps 3*order + migratetype (12, 13: order 9,
    not movable and movable) to ``(pfn, migratetype)`` pairs, head first."""

    cpu: int
    count: int
    high: int
    batch: int
    free_factor: int
    lists: Mapping[int, tuple[tuple[int, int], ...]]


class ZoneSnapshot(NamedTuple):
    """One populated zone. Pages unless said; ``min``, ``low``, ``high`` are without ``boost``.

    ``free`` maps (order, migratetype) to the first pfn of each free block, head first.
    ``pageblocks`` maps the first pfn of a pageblock to its migratetype.
    ``spans`` are the runs ``(first pfn, pages)`` where memory is, and ``pages`` has one state byte a
    page over these runs, one after the other; it is empty when the zone is too large to list.
    """

    name: str
    idx: int
    start_pfn: int
    spanned: int
    present: int
    managed: int
    nr_free_pages: int
    min: int
    low: int
    high: int
    boost: int
    protection: tuple[int, ...]
    nr_reserved_highatomic: int
    nr_free: tuple[int, ...]
    free: Mapping[tuple[int, int], tuple[int, ...]]
    pageblocks: Mapping[int, int]
    pcps: tuple[PcpSnapshot, ...]
    spans: tuple[tuple[int, int], ...]
    pages: bytes


class Snapshot(NamedTuple):
    """The whole machine after ``calls`` calls. ``label`` names it ("256M-a-21", "512M")."""

    kernel: str
    label: str
    calls: int
    cpu: int
    recorded: bool
    zones: tuple[ZoneSnapshot, ...]

    def zone(self, name: str) -> ZoneSnapshot:
        """The zone of that name; KeyError names the zones there are."""
        for zone in self.zones:
            if zone.name == name:
                return zone
        raise KeyError(f"no zone {name!r}; this machine has {', '.join(z.name for z in self.zones)}")


class SlabSnapshot(NamedTuple):
    """One slab: ``objects`` places in ``2**order`` pages from ``pfn`` on. ``freelist`` are the indexes of its
    own free list, next one first; ``inuse`` as the kernel counts it (all objects while a CPU holds the list)."""

    pfn: int
    order: int
    objects: int
    inuse: int
    frozen: bool
    freelist: tuple[int, ...]


class CacheCpuSnapshot(NamedTuple):
    """One CPU's part of a cache: the slab it allocates from, with the CPU's own free list (indexes, next one
    first; ``slab.freelist`` then holds what others freed), and its partial slabs, head first."""

    cpu: int
    slab: SlabSnapshot | None
    freelist: tuple[int, ...]
    partial: tuple[SlabSnapshot, ...]


class CacheSnapshot(NamedTuple):
    """A slab cache. ``names``: its own name first, then those of the caches merged into it. Sizes in bytes.

    ``node_partial`` is head first; ``full`` slabs are on no list. ``last`` is the (pfn, index) given out last.
    """

    names: tuple[str, ...]
    object_size: int
    size: int
    align: int
    inuse: int
    offset: int
    red_left_pad: int
    order: int
    objects: int
    min_partial: int
    cpu_partial_slabs: int
    flags: int
    ctor: bool
    cpu: int
    cpus: tuple[CacheCpuSnapshot, ...]
    node_partial: tuple[SlabSnapshot, ...]
    full: tuple[SlabSnapshot, ...]
    last: tuple[int, int] | None
