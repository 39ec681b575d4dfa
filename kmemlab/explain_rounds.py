"""``m.explain()`` for the rounds of the slow path: each is one step, and rounds that are alike are told once."""

from __future__ import annotations

from collections.abc import Iterable

from kmemlab import events, reclaim_events
from kmemlab.story import Step

__all__ = ["LOOK", "folded_rounds", "grouped", "round_steps"]

ANSWERS = (events.LabZone, events.LabNoBlock, reclaim_events.MmCompactionEnd)
LOOK = "get_page_from_freelist"
COMPACTED = {
    "success": "a block is large enough",
    "partial_skipped": "still no block large enough",
    "complete": "still no block large enough",
    "deferred": "skipped, because it failed lately",
}
RETRY = ("should_reclaim_retry", "should_compact_retry")


def round_steps(steps: list[Step], *, served: bool) -> list[Step]:
    """One step for a round, then in full what ended it: the kill, NULL, or the look that found a block (``served``)."""
    looks = [i for i, step in enumerate(steps) if step.function == LOOK]
    ends = [i for i, step in enumerate(steps) if step.function == "out_of_memory" or step.say == "NULL"]
    cut = looks[-1] if served and looks else ends[0] if ends else len(steps)
    if not cut:  # nothing was tried in it
        return steps
    told = tuple(event for step in steps[:cut] for event in step.events)
    parts = tuple(_parts(steps[:cut]))
    head = Step("page_alloc", "__alloc_pages_slowpath", "mm/page_alloc.c", _outcome(parts), events=told, parts=parts)
    return [head, *steps[cut:]]


def folded_rounds(rounds: Iterable[list[Step]]) -> list[Step]:
    """The steps of all rounds, numbered; a run of rounds in which the same was tried and found is told once."""
    out: list[Step] = []
    before: list[str] = []
    alike: list[Step] = []
    first = 0
    for number, steps in enumerate(rounds, 1):
        said = [part.say for part in steps[0].parts]
        if said and said == before and len(steps) == 1:
            alike.append(steps[0])
            first = first or number
            continue
        out += _more(alike, first)
        alike, first = [], 0
        before = said if len(steps) == 1 else []
        out += [steps[0]._replace(say=f"round {number}: {steps[0].say}"), *steps[1:]]
    return out + _more(alike, first)


def _more(alike: list[Step], first: int) -> list[Step]:
    if not alike:
        return []
    step, last = alike[0], first + len(alike) - 1
    many = "1 more round" if len(alike) == 1 else f"{len(alike)} more rounds"
    which = f"round {first}" if first == last else f"rounds {first} to {last}"
    told = tuple(event for each in alike for event in each.events)
    why = "the same was tried, the same was found"
    return [Step(step.floor, step.function, step.file, f"{many} like this: {which}", why, events=told)]


def _outcome(parts: tuple[Step, ...]) -> str:
    """A round in half a sentence: what came of it, and whether another follows."""
    say = []
    for part in parts:
        for event in part.events:
            if isinstance(event, events.LabReclaim):
                say.append(f"reclaim freed {event.progress:,} page{'' if event.progress == 1 else 's'}")
            elif isinstance(event, reclaim_events.MmCompactionEnd) and event.status == "success":
                say.append("compaction made a large enough block")
    decisions = [part.verdict for part in parts if part.function in RETRY]
    if decisions:
        say.append("another one is worth while" if any(decisions) else "another one is not worth while")
    return ", ".join(say) or "something has changed meanwhile"


def grouped(steps: Iterable[Step]) -> list[list[Step]]:
    """Each step with the answers of zones that follow it."""
    groups: list[list[Step]] = []
    for step in steps:
        if groups and step.events and isinstance(step.events[0], ANSWERS):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _parts(steps: list[Step]) -> list[Step]:
    """The steps of a round, shorter: what the zones answered stands in one line with what was asked of them."""
    out: list[Step] = []
    for step, *answers in grouped(steps):
        if not answers:
            out.append(step)
            continue
        told = tuple(event for each in (step, *answers) for event in each.events)
        say = f"{step.say}: {'; '.join(_answer(each) for each in answers)}"
        if any(part.say == say for part in out):
            say = f"{step.say}: the same answer"
        passed = any(each.verdict for each in answers)
        if out and out[-1].say == say:  # after the CPUs' lists were given back
            out[-1] = out[-1]._replace(events=(*out[-1].events, *told))
            continue
        why = "" if "slow path" in step.why else step.why  # told once, at the first look
        out.append(Step(step.floor, step.function, step.file, say, why, passed, events=told))
    return out


def _answer(step: Step) -> str:
    """What one zone answered, with the two numbers."""
    event = step.events[0]
    if isinstance(event, reclaim_events.MmCompactionEnd):
        return f"{event.zone} {event.nr_migrated:,} moved, {COMPACTED.get(event.status, event.status)}"
    if not isinstance(event, events.LabZone):
        return step.say
    left, right = event.free - event.unusable, event.mark + event.protection
    if not event.enough:
        return f"{event.zone} {left:,} is not above {right:,}"
    return f"{event.zone} {left:,} is above {right:,}" + ("" if event.block else ", but no block is large enough")
