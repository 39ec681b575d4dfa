"""``m.check()``: every invariant of the model, and what a caller's mistakes did to memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_MOVABLE,
    MIGRATE_TYPES,
    PAGEBLOCK_ORDER,
    Zone,
    pindex_to_order,
)

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["CheckResult", "check_machine"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found: runs ``(first pfn, pages)`` that nobody owns and no list holds, and frames that
    are handed out while a free list holds them too, or are listed twice. Empty after correct calls."""

    lost: tuple[tuple[int, int], ...]
    doubly_owned: tuple[int, ...]
    free: int

    def __bool__(self) -> bool:
        return not self.lost and not self.doubly_owned

    def __str__(self) -> str:
        if self:
            return f"check: all in order, {self.free} pages free"
        parts = [f"pages {first}..{first + pages - 1} are lost" for first, pages in self.lost]
        if self.doubly_owned:
            some = ", ".join(map(str, self.doubly_owned[:8])) + (" ..." if len(self.doubly_owned) > 8 else "")
            parts.append(f"pages {some} are owned twice: handed out and on a free list, or on two lists")
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
    return CheckResult(tuple(m.lost), tuple(sorted(doubly)), free)


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
