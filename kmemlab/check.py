"""``m.check()``: every invariant of the model, and what a caller's mistakes did to memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kmemlab.address import Address
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_TYPES,
    PAGEBLOCK_ORDER,
    Zone,
    pindex_to_order,
)
from kmemlab.slub_def import KmemCache, Slab
from kmemlab.vmscan import LISTS

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["CheckResult", "check_machine"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found: runs ``(first pfn, pages)`` that nobody owns and no list holds, and frames that
    are handed out while a free list holds them too, or are listed twice; ``objects``: wrong frees of objects, in
    words. Empty after correct calls."""

    lost: tuple[tuple[int, int], ...]
    doubly_owned: tuple[int, ...]
    free: int
    objects: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.lost and not self.doubly_owned and not self.objects

    def __str__(self) -> str:
        if self:
            return f"check: all in order, {self.free} pages free"
        parts = [f"pages {first}..{first + pages - 1} are lost" for first, pages in self.lost]
        if self.doubly_owned:
            some = ", ".join(map(str, self.doubly_owned[:8])) + (" ..." if len(self.doubly_owned) > 8 else "")
            parts.append(f"pages {some} are owned twice: handed out and on a free list, or on two lists")
        parts += self.objects[:8]
        return "check: " + "; ".join(parts)

    __repr__ = __str__


def check_machine(m: Machine) -> CheckResult:
    """Check a machine. Errors: AssertionError if the model itself is wrong, never for a caller's mistake."""
    owned = {}
    for page in m.memmap.values():
        if page.refcount > 0 and page.order >= 0:
            owned.update(dict.fromkeys(range(page.pfn, page.pfn + (1 << page.order))))
    doubly: set[int] = set()
    free = 0
    for zone in m.zones:
        listed = _check_zone(m, zone)
        free += zone.free_pages() + sum(pcp.count for pcp in zone.pcps)
        overlap = {pfn for pfn in owned if pfn in listed}
        assert m.tainted or not overlap, f"{zone.name}: frames {sorted(overlap)[:4]} are free and handed out"
        doubly |= overlap | {pfn for pfn, times in listed.items() if times > 1}
    _check_slabs(m)
    _check_lru(m)
    return CheckResult(tuple(m.lost), tuple(sorted(doubly)), free, tuple(m.misused_objects))


def _check_lru(m: Machine) -> None:
    """Each reclaimable page is on one list, in use, and its owner knows it; owners have no other pages."""
    lists: Counter[int] = Counter()
    owners: dict[int, tuple[object, set[int]]] = {}
    for name in LISTS:
        for pfn, owner in getattr(m.lru, name).items():
            lists[pfn] += 1
            owners.setdefault(id(owner), (owner, set()))[1].add(pfn)
            assert m.memmap[pfn].refcount == 1, f"pfn {pfn} is on {name} and has no reference"
    assert all(count == 1 for count in lists.values()), "a page is on two lists"
    for owner, pfns in owners.values():
        assert pfns == owner.pages, f"{owner} has other pages than the lists say"  # type: ignore[attr-defined]
    assert m.lru.dirty <= lists.keys()
    assert 0 <= m.lru.swap_free <= m.lru.swap_total


def _check_slabs(m: Machine) -> None:
    """Every slab is on the list it belongs to, every object is free or owned, and the counts agree."""
    by_cache: dict[KmemCache, list[Slab]] = {}
    for pfn, slab in m.slabs.items():
        assert slab.pfn <= pfn < slab.pfn + (1 << slab.order), f"pfn {pfn} is no page of {slab}"
        assert (slab.page.refcount, slab.page.order) == (1, slab.order), f"{slab}: its pages are not its own"
        if pfn == slab.pfn and slab not in m.rcu_slabs:
            by_cache.setdefault(slab.cache, []).append(slab)
    owned: dict[Slab, list[Address]] = {}
    for p, slab in m.live.items():
        assert m.virt_to_slab(p) is slab, f"object {p} is not in {slab}"
        owned.setdefault(slab, []).append(Address(p))
    for s, slabs in by_cache.items():
        assert s.nr_slabs == len(slabs), f"{s.name}: {len(slabs)} slabs, counter {s.nr_slabs}"
        assert s.total_objects == sum(slab.objects for slab in slabs), f"{s.name}: total_objects is wrong"
        for slab in slabs:
            _check_slab(m, s, slab, owned.get(slab, []))
    assert all(slab in by_cache.get(slab.cache, ()) for slab in owned), "an object of a slab that is gone is owned"


def _check_slab(m: Machine, s: KmemCache, slab: Slab, owned: list[Address]) -> None:
    holders = [c for c in s.cpu_slab if c.slab is slab]
    places = len(holders) + sum(slab in c.partial for c in s.cpu_slab) + (slab in s.partial) + (slab in s.full)
    free, own = m.free_objects_of(slab), len(slab.freelist)
    if not m.misused_objects and not m.slab_errors and not m.broken_lists:
        both = sorted([*free, *owned])
        assert both == [slab.object_at(i) for i in range(slab.objects)], f"{slab}: objects lost or doubled"
    if s.debug:
        return
    assert places <= 1, f"{slab} is on {places} lists"
    assert slab.frozen == bool(places and slab not in s.partial), f"{slab}: frozen is {slab.frozen}"
    assert bool(places) == bool(holders or own), f"{slab} with {own} free objects is on no list"
    if not m.misused_objects and not m.broken_lists:
        assert slab.inuse == slab.objects - own, f"{slab}: {own} objects on its list"


def _check_zone(m: Machine, zone: Zone) -> Counter[int]:
    """Check lists, counts and counters of a zone; returns the frames on its lists."""
    name, frames, pages = zone.name, Counter[int](), 0
    for order in range(MAX_ORDER):
        for mt in range(MIGRATE_TYPES):
            for pfn in (*zone.free_area[order][mt], *zone.free_tail[order][mt]):
                assert m.tainted or zone.buddy.get(pfn) == order << 3 | mt, f"{name}: block {pfn} is indexed elsewhere"
                assert m.tainted or pfn & (1 << order) - 1 == 0, f"{name}: block {pfn} of order {order} is not aligned"
                pages += 1 << order
                frames.update(range(pfn, pfn + (1 << order)))
                assert m.tainted or not _mergeable(zone, pfn, order), f"{name}: {pfn} order {order} did not merge"
    lists = sum(len(area) for rows in (zone.free_area, zone.free_tail) for row in rows for area in row)
    for row, tails in zip(zone.free_area, zone.free_tail, strict=True):
        assert all(area or not tail for area, tail in zip(row, tails, strict=True)), f"{name}: a list without a head"
    assert m.tainted or lists == len(zone.buddy), f"{name}: {lists} blocks listed, {len(zone.buddy)} indexed"
    assert not zone.run or zone.free_area[MAX_ORDER - 1][MIGRATE_MOVABLE], f"{name}: the untouched run has no head"
    pages += len(zone.run) << MAX_ORDER - 1
    assert m.tainted or pages == zone.free_pages(), f"{name}: {pages} pages listed, counter {zone.free_pages()}"
    for pcp in zone.pcps:
        count = 0
        for pindex, listed in enumerate(pcp.lists):
            order = pindex_to_order(pindex)
            count += len(listed) << order
            for page in listed:
                assert page.zone is zone, f"{name}: page {page.pfn} of {page.zone.name} on a per-CPU list"
                frames.update(range(page.pfn, page.pfn + (1 << order)))
        assert count == pcp.count, f"{name} cpu {pcp.cpu}: {count} pages on the lists, count {pcp.count}"
        # A dump of a real kernel may show a counter from before its threshold was lowered.
        most = zone.stat_threshold if m.recording is None else 127
        assert abs(pcp.vm_stat_diff) <= most, f"{name} cpu {pcp.cpu}: counter not folded"
    if not m.tainted:
        twice = [pfn for pfn, times in frames.items() if times > 1]
        assert not twice, f"{name}: frames {twice[:4]} are on two lists"
        outside = [pfn for pfn in frames if not zone.spans_pfn(pfn)]
        assert not outside, f"{name}: frames {outside[:4]} are outside the zone"
    return frames


def _mergeable(zone: Zone, pfn: int, order: int) -> bool:
    """Whether a listed block stands beside its listed buddy, which the kernel would have merged.

    Whole pageblocks may stand side by side: HighAtomic ones do not merge with others, and one that is
    given back changes its type without merging.
    """
    buddy = pfn ^ 1 << order
    return order < PAGEBLOCK_ORDER and buddy > pfn and zone.buddy.get(buddy, -1) >> 3 == order
