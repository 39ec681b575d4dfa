"""``m.explain()`` for the slow path: throttling, kswapd, retries, compaction, the OOM killer, the context of a call."""

from __future__ import annotations

from kmemlab import reclaim_events as events
from kmemlab.events import Event
from kmemlab.gfp import show_gfp_flags
from kmemlab.story import Step

__all__ = ["explain_reclaim"]

COMPACT_PRIORITY = ("fully synchronous", "synchronous but light", "asynchronous: what would block is left out")
RESULTS = {
    "success": "a block large enough came together",
    "partial_skipped": "the two scanners met, and no block is large enough",
    "complete": "the whole zone was scanned, and no block is large enough",
    "deferred": "it failed lately, so this try is skipped",
}


def explain_reclaim(event: Event) -> list[Step]:
    """The steps that an event of the slow path is told as; none for those told elsewhere."""
    if isinstance(event, events.LabContext):
        words = f"called in {event.words}: the mask is {show_gfp_flags(event.gfp) or 'empty'} here"
        return [_step("context", "current_gfp_context", "include/linux/sched/mm.h", words, "", None, event)]
    if isinstance(event, events.LabThrottle):
        say = f"{event.free:,} pages free, less than half of the reserve: wait for kswapd"
        return [_step("vmscan", "throttle_direct_reclaim", "mm/vmscan.c", say, "here the caller sleeps", None, event)]
    if isinstance(event, events.MmVmscanKswapdSleep):
        why = "a zone is above its high watermark" if event.balanced else "no zone reached its high watermark"
        say = f"meanwhile kswapd has freed {event.nr_reclaimed:,} pages"
        return [_step("vmscan", "balance_pgdat", "mm/vmscan.c", say, why, event.nr_reclaimed > 0, event)]
    if isinstance(event, events.ReclaimRetryZone):
        return [_retry(event)]
    if isinstance(event, events.MmCompactionTryToCompactPages):
        say = f"move pages together for order {event.order}"
        why = COMPACT_PRIORITY[event.priority]
        return [_step("compaction", "try_to_compact_pages", "mm/compaction.c", say, why, None, event)]
    if isinstance(event, events.MmCompactionEnd):
        say = f"{event.zone}: {event.nr_migrated:,} pages moved, {RESULTS.get(event.status, event.status)}"
        return [_step("compaction", "compact_zone", "mm/compaction.c", say, "", event.status == "success", event)]
    if isinstance(event, events.CompactRetry):
        say = "compact once more" if event.ret else "compaction has done what it can"
        return [_step("page_alloc", "should_compact_retry", "mm/page_alloc.c", say, event.priority, event.ret, event)]
    if isinstance(event, events.MarkVictim):
        say = f"the OOM killer kills {event.comm}/{event.pid}: {event.rss:,} pages"
        return [_step("oom_kill", "out_of_memory", "mm/oom_kill.c", say, "the largest one", None, event)]
    return []


def _retry(event: events.ReclaimRetryZone) -> Step:
    hope = f"{event.zone}: {event.available:,} pages free or reclaimable, min is {event.min_wmark:,}"
    say = f"{hope}: another round is worth while" if event.wmark_check else f"{hope}: even all of them would not do"
    why = f"{event.no_progress_loops} fruitless so far, 16 are the most" if event.no_progress_loops else ""
    return _step("page_alloc", "should_reclaim_retry", "mm/page_alloc.c", say, why, event.wmark_check, event)


def _step(floor: str, function: str, file: str, say: str, why: str, verdict: bool | None, event: Event) -> Step:
    return Step(floor, function, file, say, why, verdict, events=(event,))
