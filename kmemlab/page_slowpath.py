"""What follows when no zone is above ``low``: wake kswapd, the reserves, reclaim, compaction, the OOM killer.

Kernel: mm/page_alloc.c (__alloc_pages_slowpath and what it calls). It is a generator: each ``yield`` is a place
where the kernel may sleep.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from kmemlab import events, reclaim_events
from kmemlab.buddy import unreserve_highatomic_pageblock
from kmemlab.compaction import COMPACT_PRIO_NAMES, compaction_withdrawn, try_to_compact_pages
from kmemlab.context import PF_MEMALLOC
from kmemlab.mmzone import (
    ALLOC_CPUSET,
    ALLOC_HIGHATOMIC,
    ALLOC_KSWAPD,
    ALLOC_MIN_RESERVE,
    ALLOC_NO_WATERMARKS,
    ALLOC_NON_BLOCK,
    PAGE_ALLOC_COSTLY_ORDER,
    WMARK_HIGH,
    WMARK_MIN,
    Page,
    reduced_mark,
    unusable_free,
)
from kmemlab.oom_kill import out_of_memory
from kmemlab.page_alloc import Plan, get_page_from_freelist, plan_for
from kmemlab.page_free import drain_all_pages
from kmemlab.sched import ROUND, Sleep, Wait
from kmemlab.vmscan import MAX_RECLAIM_RETRIES, try_to_free_pages, wakeup_kswapd, zone_reclaimable_pages

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["__alloc_pages_slowpath", "gfp_to_alloc_flags"]

PRIO_ASYNC, PRIO_SYNC_LIGHT, PRIO_SYNC_FULL = 2, 1, 0
MAX_COMPACT_RETRIES = 16
IO, FS, DIRECT, NOWARN, RETRY_MAYFAIL, NOFAIL, NORETRY = 0x40, 0x80, 0x400, 0x2000, 0x4000, 0x8000, 0x10000
MEMALLOC, NOMEMALLOC, THISNODE = 0x20000, 0x80000, 0x200000


def gfp_to_alloc_flags(gfp: int, order: int) -> int:
    """The rights of a request on the slow path. Kernel: gfp_to_alloc_flags."""
    flags = WMARK_MIN | ALLOC_CPUSET | gfp & (ALLOC_MIN_RESERVE | ALLOC_KSWAPD)
    if not gfp & DIRECT:
        if not gfp & NOMEMALLOC:
            flags |= ALLOC_NON_BLOCK
            if order > 0 and flags & ALLOC_MIN_RESERVE:
                flags |= ALLOC_HIGHATOMIC
        if flags & ALLOC_MIN_RESERVE:
            flags &= ~ALLOC_CPUSET
    return flags


def __gfp_pfmemalloc_flags(m: Machine, gfp: int) -> int:
    """Reserves that a mask or a task may use whatever the watermarks say. Kernel: __gfp_pfmemalloc_flags."""
    context = m.context
    if gfp & NOMEMALLOC:
        return 0
    if gfp & MEMALLOC or context.flags & PF_MEMALLOC:
        return ALLOC_NO_WATERMARKS
    return 0


class _Try:
    """One request on the slow path: its rights and its counters."""

    __slots__ = ("alloc_flags", "compact_priority", "compact_result", "compaction_retries", "gfp", "no_progress",
                 "order", "plan", "rounds")  # fmt: skip

    def __init__(self, plan: Plan) -> None:
        self.plan, self.gfp, self.order = plan, plan.gfp, plan.order
        self.compaction_retries = self.no_progress = self.rounds = 0
        self.compact_priority = PRIO_SYNC_LIGHT
        self.compact_result = "skipped"
        self.alloc_flags = gfp_to_alloc_flags(plan.gfp, plan.order)


def __alloc_pages_slowpath(m: Machine, plan: Plan) -> Generator[Any, None, Page | None]:
    """A block, or None with the report in the log."""
    gfp, order = plan.gfp, plan.order
    if gfp & 0x600 == 0x600:  # who may sleep has no right to what is kept for those who may not
        if m.warn_once("atomic reclaim"):
            m.warn("mm/page_alloc.c:5118 __alloc_pages_slowpath.constprop.0+0xccc/0xe70")
        gfp &= ~0x200
        plan = plan_for(m, gfp, order) or plan
    t = _Try(plan)
    _wake_all_kswapds(m, t)
    page = get_page_from_freelist(m, plan, t.alloc_flags)
    if page is not None:
        return page
    costly = order > PAGE_ALLOC_COSTLY_ORDER
    if (
        gfp & DIRECT
        and gfp & IO
        and (costly or (order and plan.migratetype != 1))
        and not __gfp_pfmemalloc_flags(m, gfp)
    ):
        page = yield from _direct_compact(m, t, PRIO_ASYNC)
        if page is not None:
            return page
        if costly and gfp & NORETRY:
            if t.compact_result in ("skipped", "deferred"):
                _nopage(m, t, "__GFP_NORETRY, and compaction was skipped: nothing more is tried")
                return None
            t.compact_priority = PRIO_ASYNC
    return (yield from _retry(m, t))


def _retry(m: Machine, t: _Try) -> Generator[Any, None, Page | None]:
    """Rounds of reclaim and compaction until a block is there or hope is gone."""
    gfp, order, plan = t.gfp, t.order, t.plan
    while True:
        if gfp & DIRECT:
            _begin_round(m, t)
        _wake_all_kswapds(m, t)
        if reserves := __gfp_pfmemalloc_flags(m, gfp):
            t.alloc_flags = reserves | t.alloc_flags & ALLOC_KSWAPD
        page = get_page_from_freelist(m, plan, t.alloc_flags)
        if page is not None:
            return page
        if not gfp & DIRECT:
            return (yield from _failed(m, t, "the mask has no __GFP_DIRECT_RECLAIM, so nothing more is tried"))
        if m.context.flags & PF_MEMALLOC:
            return (
                yield from _failed(m, t, "this task is freeing memory itself (PF_MEMALLOC): no reclaim inside reclaim")
            )
        progress = yield from try_to_free_pages(m, gfp, order, plan.highest_zoneidx)
        m.trail.append((events.LabReclaim, progress, t.no_progress))
        page = _after_reclaim(m, t) if progress else None
        if page is None:
            page = yield from _direct_compact(m, t, t.compact_priority)
        if page is not None:
            return page
        if gfp & NORETRY:
            return (yield from _failed(m, t, "__GFP_NORETRY: one round of reclaim, then NULL"))
        if order > PAGE_ALLOC_COSTLY_ORDER and not (gfp & RETRY_MAYFAIL and gfp & IO):
            reason = f"order {order} is costly (above {PAGE_ALLOC_COSTLY_ORDER}): one round, then NULL"
            return (yield from _failed(m, t, reason))
        if _should_reclaim_retry(m, t, progress):
            yield None
            continue
        if progress and gfp & IO and _should_compact_retry(m, t):
            continue
        page, again = yield from _may_oom(m, t, progress)
        if page is not None:
            return page
        if not again:
            return (yield from _failed(m, t, _no_hope(m, t)))
        t.no_progress = 0


def _begin_round(m: Machine, t: _Try) -> None:
    t.rounds += 1
    m.trail.append((reclaim_events.LabRound, t.rounds))


def _wake_all_kswapds(m: Machine, t: _Try) -> None:
    if t.alloc_flags & ALLOC_KSWAPD and wakeup_kswapd(m, t.order, t.plan.highest_zoneidx):
        m.trail.append((events.MmVmscanWakeupKswapd, t.plan.zone.name, t.order, t.gfp))


def _after_reclaim(m: Machine, t: _Try) -> Page | None:
    """Look again after reclaim; then once more with what was kept for others and on the CPUs' lists."""
    page = get_page_from_freelist(m, t.plan, t.alloc_flags)
    if page is None:
        unreserve_highatomic_pageblock(t.plan.zones, t.plan.migratetype, False)
        drain_all_pages(m)
        page = get_page_from_freelist(m, t.plan, t.alloc_flags)
    return page


def _direct_compact(m: Machine, t: _Try, priority: int) -> Generator[Any, None, Page | None]:
    """Move pages together, then look again. Kernel: __alloc_pages_direct_compact."""
    if not t.order or not t.gfp & IO:
        t.compact_result = "skipped"
        return None
    m.trail.append((reclaim_events.MmCompactionTryToCompactPages, t.order, t.gfp, priority))
    t.compact_result = try_to_compact_pages(m, t.plan, t.alloc_flags, priority)
    if t.compact_result == "skipped":
        return None
    yield None
    page = get_page_from_freelist(m, t.plan, t.alloc_flags)
    if page is not None:
        m.compact_defer_reset(page.zone, t.order)
    return page


def _should_reclaim_retry(m: Machine, t: _Try, progress: int) -> bool:
    """Is another round worth while: would some zone do if all that is reclaimable were free? Gives up after 16
    fruitless rounds. Kernel: should_reclaim_retry."""
    plan = t.plan
    t.no_progress = 0 if progress and t.order <= PAGE_ALLOC_COSTLY_ORDER else t.no_progress + 1
    if t.no_progress > MAX_RECLAIM_RETRIES:
        return unreserve_highatomic_pageblock(plan.zones, plan.migratetype, True)
    for zone in plan.zones:
        reclaimable = zone_reclaimable_pages(m, zone)
        available = reclaimable + zone.nr_free_pages
        mark = reduced_mark(zone.wmark[WMARK_MIN] + zone.watermark_boost, t.alloc_flags)
        free = available - unusable_free(zone, t.order, t.alloc_flags)
        enough = free > mark + zone.lowmem_reserve[plan.highest_zoneidx]
        ok = enough and (not t.order or zone.has_block(t.order, t.alloc_flags))
        fields = (zone.name, t.order, reclaimable, available, zone.wmark[WMARK_MIN], t.no_progress, ok)
        m.trail.append((reclaim_events.ReclaimRetryZone, *fields))
        if ok:
            return True
    return unreserve_highatomic_pageblock(plan.zones, plan.migratetype, True)


def _should_compact_retry(m: Machine, t: _Try) -> bool:
    """Is another round of compaction worth while, or a more thorough one? Kernel: should_compact_retry."""
    if not t.order:
        return False
    costly = t.order > PAGE_ALLOC_COSTLY_ORDER
    most = MAX_COMPACT_RETRIES
    least = PRIO_SYNC_LIGHT if costly else PRIO_SYNC_FULL
    result, before, retry = t.compact_result, t.compact_priority, False
    if result == "success":
        t.compaction_retries += 1
    if (compaction_withdrawn(result) and result != "skipped") or result == "complete":
        retry = t.compact_priority > least
    elif result == "skipped":
        retry = m.compaction_zonelist_suitable(t.plan, t.alloc_flags)
    else:
        most = MAX_COMPACT_RETRIES // 4 if costly else MAX_COMPACT_RETRIES
        retry = t.compaction_retries <= most
        if not retry:
            retry = t.compact_priority > least
    if retry and ((compaction_withdrawn(result) and result != "skipped") or result == "complete"):
        t.compact_priority -= 1
        t.compaction_retries = 0
    words = "failed" if result == "complete" else "withdrawn" if compaction_withdrawn(result) else "progress"
    fields = (t.order, COMPACT_PRIO_NAMES[before], words, t.compaction_retries, most, retry)
    m.trail.append((reclaim_events.CompactRetry, *fields))
    return retry


def _may_oom(m: Machine, t: _Try, progress: int) -> Generator[Any, None, tuple[Page | None, bool]]:
    """The last attempt, then the OOM killer: (a block, whether to go on). Kernel: __alloc_pages_may_oom."""
    gfp, plan = t.gfp, t.plan
    page = get_page_from_freelist(m, plan, WMARK_HIGH | ALLOC_CPUSET | t.alloc_flags & ALLOC_KSWAPD)
    if page is not None:
        return page, True
    if t.order > PAGE_ALLOC_COSTLY_ORDER or gfp & (RETRY_MAYFAIL | THISNODE) or _lowmem(m, plan):
        return None, False
    killed = m.lru.stat["oom_kill"]
    if out_of_memory(m, gfp, t.order):
        if not gfp & FS and not progress:
            yield Wait(
                f"asks for order {t.order} without __GFP_FS: reclaim finds nothing, and nobody may be killed for it"
            )
        elif killed != m.lru.stat["oom_kill"] and gfp & NOFAIL:
            page = get_page_from_freelist(m, plan, ALLOC_NO_WATERMARKS)
            if page is not None:
                return page, True
        yield Sleep(ROUND) if m.context.preempt_count else None  # the victim must get the CPU to go
        return None, True
    if gfp & NOFAIL:
        yield Wait(f"asks for order {t.order} with __GFP_NOFAIL, reclaim finds nothing, and nobody can be killed")
    return None, bool(gfp & NOFAIL)


def _lowmem(m: Machine, plan: Plan) -> bool:
    """The mask allows only zones below Normal: a kill would hardly bring any of those pages."""
    return plan.highest_zoneidx < m.kernel.zone_names.index("Normal")


def _no_hope(m: Machine, t: _Try) -> str:
    if t.gfp & RETRY_MAYFAIL:
        return "__GFP_RETRY_MAYFAIL: every round was tried, and nobody is killed for it"
    if _lowmem(m, t.plan):
        return f"nobody is killed for memory below zone Normal, and this mask allows {t.plan.zone.name} at most"
    return "16 fruitless rounds of reclaim, and no process on this machine that the OOM killer could choose"


def _failed(m: Machine, t: _Try, reason: str) -> Generator[Any, None, Page | None]:
    """The request fails, unless it may not. Kernel: the label nopage."""
    if t.gfp & NOFAIL:
        if not t.gfp & DIRECT:
            if m.warn_once("nofail atomic"):
                m.warn("mm/page_alloc.c:5203 __alloc_pages_slowpath.constprop.0+0xd66/0xe70")
            _nopage(m, t, reason)
            return None
        while True:
            _begin_round(m, t)
            page = get_page_from_freelist(m, t.plan, t.alloc_flags | ALLOC_MIN_RESERVE)
            if page is not None:
                return page
            yield Wait(f"asks for order {t.order} with __GFP_NOFAIL, and {reason}")
            page = yield from _retry_once(m, t)
            if page is not None:
                return page
    _nopage(m, t, reason)
    return None


def _retry_once(m: Machine, t: _Try) -> Generator[Any, None, Page | None]:
    """One more round for a request that may not fail."""
    progress = yield from try_to_free_pages(m, t.gfp, t.order, t.plan.highest_zoneidx)
    m.trail.append((events.LabReclaim, progress, t.no_progress))
    return _after_reclaim(m, t)


def _nopage(m: Machine, t: _Try, reason: str) -> None:
    """NULL: the log gets the kernel's report unless the mask says NOWARN."""
    m.trail.append((events.LabNull, reason))
    m.warn_alloc(t.gfp, t.order)
