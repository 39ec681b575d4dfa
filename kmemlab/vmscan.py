"""Reclaim: the lists of pages that can be taken back, direct reclaim, kswapd.

Kernel: mm/vmscan.c, the functions of the same names; struct lruvec, include/linux/mmzone.h. Left out: memory groups,
workingset refaults, the referenced bits (a page that was read once goes from the inactive list's end).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kmemlab import reclaim_events as events
from kmemlab.mmzone import PAGE_ALLOC_COSTLY_ORDER, Zone
from kmemlab.page_free import free_block
from kmemlab.pcplist import update_limit
from kmemlab.shrinker import Shrinker, shrink_slab
from kmemlab.wait import Sleep

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "DEF_PRIORITY",
    "LISTS",
    "MAX_RECLAIM_RETRIES",
    "SWAP_CLUSTER_MAX",
    "Lru",
    "allow_direct_reclaim",
    "balance_pgdat",
    "pgdat_balanced",
    "throttle_direct_reclaim",
    "try_to_free_pages",
    "wakeup_kswapd",
    "zone_reclaimable_pages",
]

DEF_PRIORITY = 12
SWAP_CLUSTER_MAX = 32
MAX_RECLAIM_RETRIES = 16
WRITE_MS = 8  # until a page that is written out is on the disk
LISTS = ("inactive_anon", "inactive_file")


class Lru:
    """The node's lists of pages, pfn -> owner, the oldest first; what is dirty; swap.

    ``reclaimed_slab`` counts the pages that slabs gave back. Kernel: struct lruvec; struct reclaim_state.
    """

    __slots__ = (*LISTS, "dirty", "failures", "reclaimed_slab", "shrinkers", "stat", "swap_free", "swap_total",
                 "writeback")  # fmt: skip

    def __init__(self) -> None:
        self.inactive_anon: OrderedDict[int, Any] = OrderedDict()
        self.inactive_file: OrderedDict[int, Any] = OrderedDict()
        self.dirty: set[int] = set()
        self.writeback: set[int] = set()
        self.swap_total = self.swap_free = 0
        self.failures = 0  # kswapd_failures
        self.reclaimed_slab = 0
        self.shrinkers: list[Shrinker] = []
        self.stat: dict[str, int] = dict.fromkeys(
            ("pgscan_kswapd", "pgsteal_kswapd", "pgscan_direct", "pgsteal_direct", "allocstall", "pageoutrun",
             "oom_kill", "pswpout"), 0,
        )  # fmt: skip

    def add(self, kind: str, pfn: int, owner: Any) -> None:
        """Put a page at the young end of a list."""
        getattr(self, kind)[pfn] = owner

    def remove(self, pfn: int) -> Any:
        """Take a page off whatever list it is on; its owner, None if it was on none."""
        self.dirty.discard(pfn)
        self.writeback.discard(pfn)
        for name in LISTS:
            owner = getattr(self, name).pop(pfn, None)
            if owner is not None:
                return owner
        return None

    @property
    def empty(self) -> bool:
        """Nothing that could be reclaimed at all."""
        return not (self.inactive_file or self.shrinkers or self.swap_free)


def zone_reclaimable_pages(m: Machine, zone: Zone) -> int:
    """Pages of a zone that reclaim may hope for; its free ones where there is nothing else, so that it is not
    passed over. Kernel: zone_reclaimable_pages."""
    lists = [m.lru.inactive_file, *([m.lru.inactive_anon] if m.lru.swap_free else [])]
    return sum(zone.start_pfn <= pfn < zone.end_pfn for lru in lists for pfn in lru) or zone.nr_free_pages


# --- one page after another ------------------------------------------------------------------------------------


class _Scan:
    """What a run of reclaim may do and what it has done. Kernel: struct scan_control."""

    __slots__ = ("gfp", "highest", "kswapd", "order", "priority", "reclaimed", "scanned", "target")

    def __init__(self, gfp: int, order: int, highest: int, target: int, *, kswapd: bool = False) -> None:
        self.gfp, self.order, self.highest, self.target, self.kswapd = gfp, order, highest, target, kswapd
        self.priority = DEF_PRIORITY
        self.scanned = self.reclaimed = 0


def _eligible(m: Machine, sc: _Scan, lru: OrderedDict[int, Any]) -> int:
    """Pages of a list in zones the request may use."""
    if sc.highest >= max(zone.idx for zone in m.zones):
        return len(lru)
    limit = max((zone.end_pfn for zone in m.zones if zone.idx <= sc.highest), default=0)
    return sum(pfn < limit for pfn in lru)


def shrink_list(m: Machine, sc: _Scan, name: str, nr: int) -> int:
    """Look at the ``nr`` oldest pages of a list; free what is clean. Kernel: shrink_inactive_list."""
    lru: OrderedDict[int, Any] = getattr(m.lru, name)
    limit = max((zone.end_pfn for zone in m.zones if zone.idx <= sc.highest), default=0)
    taken: list[int] = []
    for pfn in lru:
        if len(taken) == nr:
            break
        if pfn < limit:
            taken.append(pfn)
    freed = 0
    for pfn in taken:
        if _pageout(m, sc, name, pfn):
            freed += 1
        elif pfn in lru:
            lru.move_to_end(pfn)  # not now: back to the young end
    sc.scanned += len(taken)
    sc.reclaimed += freed
    who = "kswapd" if sc.kswapd else "direct"
    m.lru.stat[f"pgscan_{who}"] += len(taken)
    m.lru.stat[f"pgsteal_{who}"] += freed
    return freed


def _pageout(m: Machine, sc: _Scan, name: str, pfn: int) -> bool:
    """Free one page; a dirty one is left to the flusher, which kswapd and callers with __GFP_FS wake."""
    lru = m.lru
    if pfn in lru.writeback:
        return False
    if name.endswith("anon"):
        if not lru.swap_free or not sc.gfp & 0x40:
            return False
        lru.swap_free -= 1
        lru.stat["pswpout"] += 1
        owner = lru.remove(pfn)
        owner.swapped(pfn)
    elif pfn in lru.dirty:
        if sc.kswapd or sc.gfp & 0x80:
            m.start_writeback([pfn])
        return False
    else:
        lru.remove(pfn).dropped(pfn)
    page = m.memmap[pfn]
    page.refcount = 0
    free_block(m, page, 0)
    return True


def shrink_node(m: Machine, sc: _Scan) -> None:
    """One pass at one priority: a part of each list, in batches of 32. Kernel: shrink_node, shrink_lruvec."""
    names = ["inactive_file", *(["inactive_anon"] if m.lru.swap_free else [])]
    left = {name: _eligible(m, sc, getattr(m.lru, name)) >> sc.priority for name in names}
    got, proportional = 0, not sc.kswapd and sc.priority == DEF_PRIORITY
    while any(left.values()):
        for name in names:
            nr = min(left[name], SWAP_CLUSTER_MAX)
            left[name] -= nr
            got += shrink_list(m, sc, name, nr) if nr else 0
        if got >= sc.target and not proportional:
            break
    sc.reclaimed += shrink_slab(m, sc.gfp, sc.priority)


# --- direct reclaim ------------------------------------------------------------------------------------------------


def allow_direct_reclaim(m: Machine) -> bool:
    """Whether enough of the reserve is left that a task need not wait for kswapd. Kernel: allow_direct_reclaim."""
    if m.lru.failures >= MAX_RECLAIM_RETRIES:
        return True
    zones = [zone for zone in m.zones if zone.name in ("DMA", "DMA32", "Normal")]
    # The list is long: a zone that has free pages counts as reclaimable anyway.
    zones = [zone for zone in zones if zone.nr_free_pages or zone_reclaimable_pages(m, zone)]
    reserve = sum(zone.wmark[0] + zone.watermark_boost for zone in zones)
    return not reserve or sum(zone.nr_free_pages for zone in zones) > reserve // 2


def throttle_direct_reclaim(m: Machine, gfp: int, order: int, highest: int) -> Generator[Any, None, None]:
    """Wait while half of the reserve is gone, until kswapd has brought something or given up.

    Kernel: throttle_direct_reclaim.
    """
    if allow_direct_reclaim(m):
        return
    m.trail.append((events.LabThrottle, sum(zone.nr_free_pages for zone in m.zones)))
    while not allow_direct_reclaim(m):
        m.kswapd_woken = m.kswapd_woken or (order, highest)
        yield Sleep(1000 if not gfp & 0x80 else 1)
        if not gfp & 0x80:
            return


def try_to_free_pages(m: Machine, gfp: int, order: int, highest: int) -> Generator[Any, None, int]:
    """Direct reclaim: the caller frees pages itself, at least 32; returns how many. Kernel: try_to_free_pages."""
    yield from throttle_direct_reclaim(m, gfp, order, highest)
    m.trail.append((events.MmVmscanDirectReclaimBegin, order, gfp))
    m.lru.stat["allocstall"] += 1
    sc = _Scan(gfp, order, highest, SWAP_CLUSTER_MAX)
    ready = False
    if m.lru.empty:
        ready = order > PAGE_ALLOC_COSTLY_ORDER and m.compaction_ready(order, highest)
    else:
        while sc.priority >= 0:
            if order > PAGE_ALLOC_COSTLY_ORDER and m.compaction_ready(order, highest):
                ready = True
                break
            shrink_node(m, sc)
            yield None
            if sc.reclaimed >= sc.target:
                break
            sc.priority -= 1
    if sc.reclaimed:
        m.lru.failures = 0  # kswapd may hope again
    got = sc.reclaimed or int(ready)  # compaction can go on: that counts as progress
    m.trail.append((events.MmVmscanDirectReclaimEnd, got))
    return got


# --- kswapd ----------------------------------------------------------------------------------------------


def wakeup_kswapd(m: Machine, order: int, highest: int) -> bool:
    """kswapd is to run when its turn comes (fair.KswapdTurn); True if it slept until now. Not woken if it has given
    up, or if a zone is balanced and none is boosted. Kernel: wakeup_kswapd."""
    asleep = m.kswapd_woken is None
    boosted = any(zone.watermark_boost for zone in m.zones if zone.idx <= highest)
    if asleep and (m.lru.failures >= MAX_RECLAIM_RETRIES or (pgdat_balanced(m, order, highest) and not boosted)):
        return False
    old = m.kswapd_woken or (0, 0)
    m.kswapd_woken = max(old[0], order), max(old[1], highest)
    if asleep:
        short = (zone.wmark[2] + zone.watermark_boost - zone.nr_free_pages for zone in m.zones if zone.idx <= highest)
        m.kswapd_turn.woken(m, sum(pages for pages in short if pages > 0))
    return asleep


def pgdat_balanced(m: Machine, order: int, highest: int) -> bool:
    """Whether some zone the waker may use is above its high watermark. Kernel: pgdat_balanced."""
    for zone in m.zones:
        if zone.idx <= highest:
            high = zone.wmark[2] + zone.watermark_boost
            if zone.nr_free_pages > high + zone.lowmem_reserve[highest] and (not order or zone.has_block(order, 0)):
                return True
    return False


def balance_pgdat(m: Machine, order: int, highest: int) -> None:
    """kswapd's work: pass after pass, each twice as deep, until a zone is balanced. Kernel: balance_pgdat."""
    m.lru.stat["pageoutrun"] += 1
    boosted = {zone: zone.watermark_boost for zone in m.zones if zone.idx <= highest and zone.watermark_boost}
    for zone in m.zones:
        zone.reclaim_active = zone.idx <= highest
        update_limit(zone)
    target = sum(max(zone.wmark[2], SWAP_CLUSTER_MAX) for zone in m.zones if zone.idx <= highest)
    sc = _Scan(0xCC0, order, highest, target, kswapd=True)
    while sc.priority >= 1 and not pgdat_balanced(m, sc.order, highest):
        before = sc.reclaimed
        shrink_node(m, sc)
        if sc.order and sc.reclaimed - before >= 2 << sc.order:
            sc.order = 0
        sc.priority -= 1
    for zone, boost in boosted.items():
        zone.watermark_boost = max(0, zone.watermark_boost - boost)
    for zone in m.zones:
        zone.reclaim_active = False
        update_limit(zone)
    if sc.reclaimed:
        m.lru.failures = 0
    elif sc.priority < 1:  # to the end without a page: when a zone was balanced before, that is no failure
        m.lru.failures += 1
    m.forget_plans()
