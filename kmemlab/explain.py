"""``m.explain()``: the last request told floor by floor, every number with what it was compared to.

The engine's notes of the call are turned into steps; a call that the fast way answered left no notes, so
they are written down here from what it left behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from kmemlab import events
from kmemlab.buddy import freed
from kmemlab.events import Event, expand
from kmemlab.explain_reclaim import explain_reclaim
from kmemlab.explain_rounds import LOOK, folded_rounds, grouped, round_steps
from kmemlab.explain_slab import explain_slab, page_notes
from kmemlab.gfp import MIGRATE_NAMES, show_gfp_flags
from kmemlab.mmzone import ALLOC_MIN_RESERVE, ALLOC_NON_BLOCK
from kmemlab.page_alloc import Plan, began
from kmemlab.page_free import MERGED
from kmemlab.reclaim_events import LabRound, MarkVictim
from kmemlab.slub_def import KmemCache
from kmemlab.story import Block, Scale, Step, Story, shortfall

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["explain", "narrate", "trail_of"]

FILE = "mm/page_alloc.c"


def last_was_slab(m: Machine) -> bool:
    """Whether the last call was one of the object floor's."""
    return isinstance(m.last_plan, tuple) and bool(m.last_plan) and isinstance(m.last_plan[0], KmemCache)


def trail_of(m: Machine) -> list[tuple[Any, ...]]:
    """The notes of the last call, written down afterwards if it went the fast way."""
    plan, page = m.last_plan, m.last_page
    if last_was_slab(m):
        return page_notes(m)
    if plan is None or page is None:
        return m.trail
    zone, pcp = page.zone, page.zone.pcp
    if plan is MERGED:
        return [(events.LabFree, page.pfn, page.order, m.cpu), (freed, zone, page.pfn, page.order)]
    if not isinstance(plan, Plan):  # a free that only put the block on this CPU's list
        note = (zone.name, pcp.cpu, page.pfn, page.order, page.mt, pcp.count, zone.pcp_limit)
        return [(events.LabFree, page.pfn, page.order, pcp.cpu), (events.LabPcpFree, *note)]
    notes: list[tuple[Any, ...]] = [(began, plan, m.cpu, zone.nr_free_pages if plan.row else m.free_before)]
    if plan.row:
        notes.append((events.LabPcp, zone.name, m.cpu, plan.order, plan.migratetype, True, len(plan.pages) + 1))
    else:
        if zone.split_from > plan.order:
            notes.append((events.LabSplit, zone.name, page.pfn, zone.split_from, plan.order, plan.migratetype))
        notes.append((events.MmPageAllocZoneLocked, page.pfn, plan.order, plan.migratetype, 0))
    notes.append((events.LabReturn, zone.name, page.pfn, plan.order, page.mt))
    return notes


def explain(m: Machine) -> Story:
    """The story of the last call of this machine."""
    if last_was_slab(m):
        return explain_slab(m, narrate)
    note = m.note
    result = m.check() if m.tainted else None
    if result is not None and not result:
        note = f"{note}\n{result}".strip()
    return narrate(expand(trail_of(m)), note)


def narrate(trail: Iterable[Event], note: str = "") -> Story:
    """Turn the events of one call into a Story."""
    trail = tuple(trail)
    first = trail[0] if trail else None
    if isinstance(first, events.LabRequest):
        return _request(first, trail, note)
    if isinstance(first, events.LabFree):
        return _free(first, trail, note)
    return Story("no request yet: run the next cell", (), note)


def _call(request: events.LabRequest) -> str:
    return f"alloc_pages({show_gfp_flags(request.gfp_flags) or '0'}, {request.order})"


def _mt(migratetype: int) -> str:
    return MIGRATE_NAMES[migratetype]


def _pages(n: int) -> str:
    return f"{n:,} page" + ("" if n == 1 else "s")


def _request(request: events.LabRequest, trail: tuple[Event, ...], note: str) -> Story:
    steps = _steps(trail)
    ends = [e for e in trail if isinstance(e, (events.LabReturn, events.LabNull))]
    last = ends[-1] if ends else trail[-1]
    if isinstance(last, events.LabReturn):
        headline = f"{_call(request)} = pfn {last.pfn}: {_how(trail, last)}"
    else:
        headline = f"{_call(request)} = NULL: {_why_null(trail)}"
    return Story(headline, tuple(steps), note)


def _steps(trail: tuple[Event, ...]) -> list[Step]:
    """The steps of a request; each round of the slow path is one."""
    starts = [i for i, event in enumerate(trail) if isinstance(event, LabRound)]
    steps = _folded(_request_steps(trail[: starts[0] if starts else None]))
    rounds = [
        round_steps(_request_steps(trail[first:end]), served=_served(trail[first:end]))
        for first, end in pairwise([*starts, len(trail)])
    ]
    return steps + folded_rounds(rounds)


def _served(trail: tuple[Event, ...]) -> bool:
    return any(isinstance(event, events.LabReturn) for event in trail)


def _how(trail: tuple[Event, ...], end: events.LabReturn) -> str:
    skipped = sorted({e.zone for e in trail if isinstance(e, events.LabZone) and e.zone != end.zone})
    after = f", after {' and '.join(skipped)} said no" if skipped else ""
    if rounds := sum(isinstance(e, LabRound) for e in trail):
        killed = " and ".join(f"{e.comm}/{e.pid}" for e in trail if isinstance(e, MarkVictim))
        after = f", in round {rounds} of reclaim" + (f", after {killed} was killed" if killed else "")
    if any(isinstance(e, events.LabPcp) and e.hit for e in trail):
        return f"the head of this CPU's list in {end.zone}{after}"
    if any(isinstance(e, events.MmPageAllocExtfrag) for e in trail):
        return f"taken from another migratetype in {end.zone}{after}"
    if any(isinstance(e, events.LabRefill) for e in trail):
        return f"this CPU's list in {end.zone} was empty and was refilled{after}"
    return f"straight from the buddy lists of {end.zone}{after}"


def _why_null(trail: tuple[Event, ...]) -> str:
    zones, high = [], False
    for event in trail:
        if isinstance(event, events.LabAttempt):
            high = event.wmark == "high"  # the look before somebody is killed: not what decides
        elif isinstance(event, events.LabZone) and not high:
            zones.append(event)
    if not zones:
        return trail[-1].reason if isinstance(trail[-1], events.LabNull) else "no zone was tried"
    last = {e.zone: e for e in zones}
    empty = [e for e in last.values() if e.enough]
    if empty:
        names = " and ".join(f"{e.zone} has {e.free:,} pages free" for e in empty)
        return f"{names}, but no free block that large"
    return "; ".join(f"{e.zone} {e.free - e.unusable:,} is not above {e.mark + e.protection:,}" for e in last.values())


def _request_steps(trail: tuple[Event, ...]) -> list[Step]:
    steps: list[Step] = []
    fast = bool(trail) and isinstance(trail[0], events.LabRequest)
    splits: list[events.LabSplit] = []
    attempt: events.LabAttempt | None = None
    for event in trail:
        if isinstance(event, events.LabAttempt):
            attempt = event
            steps.append(_attempt(event, first=fast))
            fast = False
        elif isinstance(event, events.LabZone):
            steps.append(_zone(event, attempt))
        elif isinstance(event, events.LabSplit):
            splits.append(event)
        elif isinstance(event, events.LabRefill):
            steps.extend(_refill(event, splits))
            splits = []
        elif isinstance(event, events.MmPageAllocZoneLocked):
            if not event.percpu_refill or event.order:
                steps.extend(_buddy(event, splits))
        elif isinstance(event, events.LabPcp) and event.hit:
            steps.append(_pcp_hit(event, trail))
        else:
            steps.extend(_other(event))
    return steps


def _folded(steps: list[Step]) -> list[Step]:
    """Tell a look that finds what the one before found in a single step."""
    out: list[Step] = []
    before: list[str] = []
    for look, *rest in grouped(steps):
        group = [look, *rest]
        if look.function != LOOK:
            out += group
            continue
        said = [step.say for step in group]
        if said == before:
            told = tuple(event for step in group for event in step.events)
            say = "look once more: the same numbers, the same answer"
            group = [look._replace(say=say, why="", verdict=False, events=told)]
        before = said
        out += group
    return out


def _attempt(event: events.LabAttempt, *, first: bool) -> Step:
    if event.wmark == "none":
        say, why = "look again, ignoring the watermarks", "__GFP_MEMALLOC is the master key"
    elif first:
        say, why = f"look for a zone above its {event.wmark} watermark", "the fast path"
    elif event.wmark == "high":
        say, why = "look once more before anybody is killed, down to high", ""
    else:
        rights = []
        if event.alloc_flags & ALLOC_MIN_RESERVE:
            rights.append("__GFP_HIGH: half of min")
        if event.alloc_flags & ALLOC_NON_BLOCK:
            rights.append("may not sleep: a quarter less" if rights else "may not sleep")
        say = f"look again, down to {event.wmark}"
        why = ", ".join(rights) or "the slow path, no right to the reserves"
    return Step("page_alloc", "get_page_from_freelist", FILE, say, why, None, events=(event,))


def _zone(event: events.LabZone, attempt: events.LabAttempt | None) -> Step:
    wmark = attempt.wmark if attempt else "low"
    label = wmark if event.mark == event.base else f"{wmark} {event.base:,} less the rights"
    parts = [(label, event.mark)]
    if event.protection:
        parts.append(("protection", event.protection))
    if event.unusable:
        parts.append(("unusable", event.unusable))
    scale = Scale(event.free, tuple(parts))
    total = " + ".join(f"{name} {pages:,}" for name, pages in parts)
    if not event.enough:
        say = f"{event.zone}: {event.free:,} free is not above {total}"
        why = shortfall(event.free, scale.need)
    elif not event.block:
        say = f"{event.zone}: {event.free:,} free > {total}, but no free block is large enough"
        why = "free pages must be neighbours: 2**order of them, aligned"
    else:
        say, why = f"{event.zone}: {event.free:,} free > {total}", ""
    return Step("page_alloc", "zone_watermark_fast", FILE, say, why, event.passed, scale, events=(event,))


def _pcp_hit(event: events.LabPcp, trail: tuple[Event, ...]) -> Step:
    pfn = next((e.pfn for e in trail if isinstance(e, events.LabReturn)), 0)
    where = f"CPU {event.cpu}'s list of {event.zone}, order {event.order} {_mt(event.migratetype)}"
    return Step(
        "pcplist", "rmqueue_pcplist", FILE, f"pfn {pfn} is at the head of {where}",
        f"{event.left - 1} left there; the block used last may still be in the CPU's cache", True,
        blocks=(Block(pfn, event.order, "taken"),), gives=_pages(1 << event.order), events=(event,),
    )  # fmt: skip


def _refill(event: events.LabRefill, splits: list[events.LabSplit]) -> list[Step]:
    got, got_any = _pages(len(event.pfns) << event.order), bool(event.pfns)
    cut = ", ".join(f"order {s.high} at {s.pfn}" for s in splits[:3]) + (" ..." if len(splits) > 3 else "")
    name = f"order {event.order} {_mt(event.migratetype)}"
    blocks = tuple(Block(pfn, event.order, "pcp") for pfn in event.pfns[1:16])
    head = (Block(event.pfns[0], event.order, "taken"),) if event.pfns else ()
    return [
        Step(
            "pcplist", "rmqueue_bulk", FILE, f"this CPU's list {name} of {event.zone} is empty: refill",
            f"a batch of {event.batch}, the first one is ours", bool(event.pfns), blocks=head + blocks,
            gives=_pages(1 << event.order) if event.pfns else "", events=(event,),
        ),
        Step(
            "buddy", "__rmqueue", FILE, f"{got} came from the free lists of {event.zone}",
            f"split: {cut}" if splits else "no block had to be split" if got_any else "", got_any,
            blocks=tuple(Block(s.pfn, s.high, "free") for s in splits[:4]), gives=got if got_any else "",
            events=tuple(splits),
        ),
    ]  # fmt: skip


def _buddy(event: events.MmPageAllocZoneLocked, splits: list[events.LabSplit]) -> list[Step]:
    if event.percpu_refill:
        return []
    split = next((s for s in reversed(splits) if s.pfn == event.pfn), None)
    blocks: tuple[Block, ...] = (Block(event.pfn, event.order, "taken"),)
    if split:
        halves = range(split.low, split.high)
        blocks += tuple(Block(event.pfn + (1 << order), order, "free") for order in halves)
        say = f"the order-{split.high} block at {split.pfn} was split down to order {split.low}"
        back = "1 upper half" if len(halves) == 1 else f"{len(halves)} upper halves"
        why = f"{back} went back to the lists; the lowest pages are ours"
    else:
        say, why = f"the head of list order {event.order} {_mt(event.migratetype)}: {event.pfn}", "no split needed"
    return [
        Step("buddy", "rmqueue_buddy", FILE, say, why, True, blocks=blocks, gives=_pages(1 << event.order),
             events=(event, *([split] if split else []))),
    ]  # fmt: skip


def _other(event: Event) -> list[Step]:
    if isinstance(event, events.LabNoBlock):
        why = "NOFRAGMENT: rather a lower zone than a mixed pageblock" if event.nofragment else ""
        say = f"{event.zone}: no list the request may use holds a block of order {event.order}"
        return [Step("buddy", "rmqueue_buddy", FILE, say, why, False, events=(event,))]
    if isinstance(event, events.MmPageAllocExtfrag):
        say = f"{_mt(event.alloc_migratetype)} lists are empty: an order-{event.fallback_order} block of "
        say += f"{_mt(event.fallback_migratetype)} is taken"
        why = "its pageblock changes hands" if event.change_ownership else "its pageblock keeps its type"
        return [Step("buddy", "__rmqueue_fallback", FILE, say, why, None, events=(event,))]
    if isinstance(event, events.LabBoost):
        say = f"{event.zone}: watermarks raised by {event.boost:,} pages (boost)"
        return [Step("buddy", "boost_watermark", FILE, say, "so that kswapd makes room before types mix", None,
                     events=(event,))]  # fmt: skip
    if isinstance(event, events.LabHighatomic):
        what = "set aside for" if event.reserved else "no longer kept for"
        say = f"pageblock {event.pfn} is {what} high-order atomic requests"
        name = "reserve_highatomic_pageblock" if event.reserved else "unreserve_highatomic_pageblock"
        return [Step("buddy", name, FILE, say, "", None, events=(event,))]
    if isinstance(event, events.MmVmscanWakeupKswapd):
        why = "the caller does not wait for it"
        return [Step("vmscan", "wakeup_kswapd", "mm/vmscan.c", "kswapd is woken", why, None, events=(event,))]
    if isinstance(event, events.LabReclaim):
        say = f"direct reclaim freed {_pages(event.progress)}"
        return [Step("vmscan", "try_to_free_pages", "mm/vmscan.c", say, "", event.progress > 0, events=(event,))]
    if isinstance(event, events.LabNull):
        return [Step("page_alloc", "__alloc_pages_slowpath", FILE, "NULL", event.reason, False, events=(event,))]
    if isinstance(event, events.LabMisuse):
        return [Step("page_alloc", "__free_pages", FILE, event.text, "", False, events=(event,))]
    return explain_reclaim(event)


def _free(first: events.LabFree, trail: tuple[Event, ...], note: str) -> Story:
    steps: list[Step] = []
    merges: list[events.LabMerge] = []
    where = "it went nowhere"
    draining = False
    for event in trail:
        if isinstance(event, events.LabPcpFree):
            where = f"kept at the head of CPU {event.cpu}'s list in {event.zone}"
            say = f"order {event.order} has a per-CPU list: the block goes to its head"
            why = f"{event.count} pages there now, {event.high} is the limit"
            steps.append(Step("pcplist", "free_unref_page_commit", FILE, say, why, None,
                              blocks=(Block(event.pfn, event.order, "pcp"),), events=(event,)))  # fmt: skip
        elif isinstance(event, events.LabDrain):
            draining = True
            say = f"the lists are full: {_pages(event.nr)} go back to the buddy lists, the oldest first"
            steps.append(Step("pcplist", "free_pcppages_bulk", FILE, say, "", None, events=(event,)))
        elif isinstance(event, events.LabMerge):
            merges.append(event)
        elif isinstance(event, events.LabFreeBlock):
            if not draining:
                where = f"back on the free lists of {event.zone} as a block of order {event.order}"
                steps.append(_merged(event, merges))
            merges = []
        elif isinstance(event, events.LabMisuse):
            where = event.text
            steps.extend(_other(event))
    return Story(f"__free_pages(pfn {first.pfn}, {first.order}): {where}", tuple(steps), note)


def _merged(event: events.LabFreeBlock, merges: list[events.LabMerge]) -> Step:
    say = f"listed as order {event.order} {_mt(event.migratetype)} at {event.pfn}"
    if merges:
        say += (
            f", merged {len(merges)} times with its free buddy" if len(merges) > 1 else ", merged with its free buddy"
        )
    why = "at the tail: the next merge is likely soon" if event.tail else "at the head"
    return Step("buddy", "__free_one_page", FILE, say, why, None, blocks=(Block(event.pfn, event.order, "free"),),
                events=(event, *merges))  # fmt: skip
