"""Snapshots of a machine: what panels draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.mmzone import MAX_ORDER, MIGRATE_TYPES, PAGEBLOCK_ORDER, Zone, pindex_to_order
from kmemlab.slub_bytes import Follow
from kmemlab.slub_def import KmemCache, Slab
from kmemlab.snapshot import (
    FREE,
    LOST,
    MOVABLE,
    PCP,
    RECLAIMABLE,
    RESERVED,
    SLAB,
    UNMOVABLE,
    CacheCpuSnapshot,
    CacheSnapshot,
    PcpSnapshot,
    SlabSnapshot,
    Snapshot,
    ZoneSnapshot,
)

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["take_cache_snapshot", "take_snapshot"]

PAGES_LISTED = 1 << 20  # a zone with more present pages is shown by shares, not page by page
_OWNED = (UNMOVABLE, MOVABLE, RECLAIMABLE, UNMOVABLE, UNMOVABLE)


def take_snapshot(m: Machine) -> Snapshot:
    """The whole machine, frozen."""
    zones = tuple(_zone(m, zone) for zone in m.zones)
    return Snapshot(m.kernel.name, m.label, m.calls, m.cpu, m.recording is not None, zones)


def _zone(m: Machine, zone: Zone) -> ZoneSnapshot:
    free = {
        (order, mt): tuple(zone.free_blocks(order, mt))
        for order in range(MAX_ORDER)
        for mt in range(MIGRATE_TYPES)
        if zone.free_area[order][mt] and not (order == MAX_ORDER - 1 and len(zone.run) > PAGES_LISTED >> 10)
    }
    first = zone.start_pfn >> PAGEBLOCK_ORDER
    blocks = zone.pageblock_mt[first : -(-zone.end_pfn >> PAGEBLOCK_ORDER)] if zone.present <= PAGES_LISTED else b""
    return ZoneSnapshot(
        name=zone.name,
        idx=zone.idx,
        start_pfn=zone.start_pfn,
        spanned=zone.spanned,
        present=zone.present,
        managed=zone.managed,
        nr_free_pages=zone.free_pages(),
        min=zone.wmark[0],
        low=zone.wmark[1],
        high=zone.wmark[2],
        boost=zone.watermark_boost,
        protection=tuple(zone.lowmem_reserve),
        nr_reserved_highatomic=zone.nr_reserved_highatomic,
        nr_free=tuple(zone.nr_free(order) for order in range(MAX_ORDER)),
        free=free,
        pageblocks={first + i << PAGEBLOCK_ORDER: mt for i, mt in enumerate(blocks)},
        pcps=tuple(
            PcpSnapshot(
                pcp.cpu,
                pcp.count,
                pcp.high,
                pcp.batch,
                pcp.free_factor,
                {i: tuple((p.pfn, p.mt) for p in reversed(pages)) for i, pages in enumerate(pcp.lists) if pages},
            )
            for pcp in zone.pcps
        ),
        spans=tuple(zone.spans),
        pages=_page_states(m, zone) if zone.present <= PAGES_LISTED else b"",
    )


def _paint_free(zone: Zone, states: bytearray) -> None:
    start = zone.start_pfn
    for mt in range(MIGRATE_TYPES):
        state = FREE | mt << 4
        for pfn in zone.free_blocks(0, mt):
            states[pfn - start] = state
        for order in range(1, MAX_ORDER):
            run = bytes([state]) * (1 << order)
            for pfn in zone.free_blocks(order, mt):
                states[pfn - start : pfn - start + len(run)] = run


def _page_states(m: Machine, zone: Zone) -> bytes:
    """One byte a page over the zone's spans: its state, and for free pages the list's type above it."""
    states = bytearray(bytes([UNMOVABLE])) * zone.spanned
    start, end = zone.start_pfn, zone.end_pfn

    def paint(first: int, pages: int, state: int) -> None:
        low, high = max(first, start), min(first + pages, end)
        states[low - start : high - start] = bytes([state]) * (high - low)

    for pfn in zone.lru:
        states[pfn - start] = MOVABLE
    for first, pages in zone.slab:
        paint(first, pages, SLAB)
    for first, pages in zone.reserved:
        paint(first, pages, RESERVED)
    for page in m.memmap.values():
        if page.refcount > 0 and page.order >= 0 and page.zone is zone:
            if page.order:
                paint(page.pfn, 1 << page.order, _OWNED[page.gfp >> 3 & 3])
            else:
                states[page.pfn - start] = _OWNED[page.gfp >> 3 & 3]
    for slab in {slab.pfn: slab for slab in m.slabs.values()}.values():
        if slab.page.zone is zone:
            paint(slab.pfn, 1 << slab.order, SLAB)
    _paint_free(zone, states)
    for pcp in zone.pcps:
        for pindex, listed in enumerate(pcp.lists):
            for page in listed:
                paint(page.pfn, 1 << pindex_to_order(pindex), PCP | page.mt << 4)
    for first, pages in m.lost:
        if zone.spans_pfn(first):
            paint(first, pages, LOST)
    return b"".join(bytes(states[first - start : first - start + pages]) for first, pages in zone.spans)


def take_cache_snapshot(m: Machine, s: KmemCache) -> CacheSnapshot:
    """One slab cache, frozen."""

    def slab_of(slab: Slab) -> SlabSnapshot:
        free = m.free_objects_of(slab) if s.debug else slab.freelist[::-1]
        return SlabSnapshot(slab.pfn, slab.order, slab.objects, slab.inuse, slab.frozen, indexes(slab, free))

    def indexes(slab: Slab, free: list[Address]) -> tuple[int, ...]:
        return tuple(slab.index_of(p) for p in free if not isinstance(p, Follow) and slab.index_of(p) >= 0)

    cpus, listed = [], set(s.partial)
    for cpu, c in enumerate(s.cpu_slab):
        own = indexes(c.slab, c.freelist[::-1]) if c.slab else ()
        partial = tuple(map(slab_of, reversed(c.partial)))
        cpus.append(CacheCpuSnapshot(cpu, slab_of(c.slab) if c.slab else None, own, partial))
        listed.update(c.partial, [c.slab] if c.slab else [])
    mine = {slab.pfn: slab for slab in m.slabs.values() if slab.cache is s}
    full = tuple(slab_of(slab) for _, slab in sorted(mine.items()) if slab not in listed)
    call = m.last_plan
    last = None
    if isinstance(call, tuple) and call and call[0] is s and call[2] >= 0 and call[1]:
        slab = m.virt_to_slab(call[1])
        last = (slab.pfn, slab.index_of(call[1])) if slab else None
    return CacheSnapshot(
        (s.name, *s.aliases), s.object_size, s.size, s.align, s.inuse, s.offset, s.red_left_pad, s.order, s.objects,
        s.min_partial, s.cpu_partial_slabs, s.flags, s.ctor is not None, m.cpu, tuple(cpus),
        tuple(map(slab_of, s.partial)), full, last,
    )  # fmt: skip
