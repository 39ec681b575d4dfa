"""What the map says in words: the finding, the text twin, the last request's story, legend and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kmemlab import events
from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.snapshot import FREE, PCP, RESERVED, UNMOVABLE, Snapshot, ZoneSnapshot
from kmemlab.story import Story, shortfall
from kmemlab_widgets.theme import LETTERS, STATE_NAMES, STATE_TOKENS, number, plural, size
from kmemlab_widgets.zonemap_large import Cells

__all__ = ["UNIT", "Marks", "describe", "free_of", "key_of", "legend_of", "marks_of", "told_of"]

UNIT = "1 page = 4 KiB, 1 tile = 4 MiB"
Marks = dict[str, Any]
_STATE = bytes(i & 15 for i in range(256))


def marks_of(trail: tuple[events.Event, ...]) -> Marks:
    """What the last call left to show: the block taken or given back, the halves split off, who said no and why."""
    marks: Marks = {"taken": None, "freed": None, "zone": "", "halves": [], "split": None, "failed": {}, "via": "",
                    "largest": None}  # fmt: skip
    order = 0
    for event in trail:
        if isinstance(event, events.LabRequest):
            order = event.order
        elif isinstance(event, events.LabReturn):
            marks["taken"], marks["zone"] = [event.pfn, event.order], event.zone
        elif isinstance(event, events.LabZone) and not event.passed:
            marks["failed"][event.zone] = _refusal(event, order)
        elif isinstance(event, events.LabNoBlock):
            kind = MIGRATE_NAMES[event.migratetype]
            marks["failed"][event.zone] = f"no list it may take from has a block of order {order} or more for {kind}"
        elif isinstance(event, events.LabPcp) and event.hit:
            marks["via"] = f", from CPU {event.cpu}'s list"
        elif isinstance(event, events.LabRefill):
            marks["via"] = ", after a refill of this CPU's list"
        elif isinstance(event, events.MmPageAllocExtfrag):
            marks["via"] = f", taken from {MIGRATE_NAMES[event.fallback_migratetype]}"
        elif isinstance(event, (events.LabFreeBlock, events.LabPcpFree)) and isinstance(trail[0], events.LabFree):
            marks["freed"], marks["zone"] = [event.pfn, event.order], event.zone
    if taken := marks["taken"]:
        marks["failed"] = {}
        for event in trail:
            if isinstance(event, events.LabSplit) and event.pfn == taken[0]:
                marks["halves"] = [[event.pfn + (1 << k), k] for k in range(event.low, event.high)]
                marks["split"] = [event.high, event.low]
    return marks


def _refusal(event: events.LabZone, order: int) -> str:
    """The comparison that failed, written out: ``>`` is strict."""
    if event.enough:
        return f"enough pages free, but no block of order {order} or more"
    parts = ((event.mark, ""), (event.protection, " protection"), (event.unusable, " unusable"))
    need = event.mark + event.protection + event.unusable
    numbers = " + ".join(number(n) + word for n, word in parts if n or not word)
    return f"{number(event.free)} > {numbers} ? {shortfall(event.free, need)}"


def free_of(zone: ZoneSnapshot) -> int:
    """Free pages of a zone, counted from its lists."""
    return sum(count << order for order, count in enumerate(zone.nr_free))


def _largest(zone: ZoneSnapshot) -> int:
    return max((order for order, count in enumerate(zone.nr_free) if count), default=-1)


def describe(
    snapshot: Snapshot, zones: Sequence[ZoneSnapshot], story: Story, marks: Marks, unit: str = UNIT, total: int = 0,
    note: str = "",
) -> tuple[str, str, str]:  # fmt: skip
    """(headline, second line, text twin): the headline is the twin's first line.

    ``unit`` says what the smallest things on the map are, ``total`` how many calls the recording has, if it is one;
    ``note`` is more for the twin.
    """
    headline = _finding(zones, story, marks) if story.steps else _state(zones)
    where = snapshot.label + (", recorded from Linux 6.1" if snapshot.recorded else "")
    when = f"call {number(snapshot.calls)} of {number(total)}" if total else f"after {plural(snapshot.calls, 'call')}"
    sub = f"{where} · {when} · {unit}"
    parts = []
    for zone in zones:
        top = _largest(zone)
        part = f"{zone.name} {free_of(zone)} of {zone.managed} pages free"
        part += f", largest order {top} x{zone.nr_free[top]}" if top >= 0 else ", no free block"
        if shelf := sum(pcp.count for pcp in zone.pcps):
            part += f", {shelf} on per-CPU lists"
        part += f", boost {zone.boost}" if zone.boost else ""
        part += f", said no: {marks['failed'][zone.name]}" if zone.name in marks["failed"] else ""
        parts.append(part)
    calls = "1 call" if snapshot.calls == 1 else f"{snapshot.calls} calls"
    twin = f"{headline}\nZoneMap {snapshot.label} after {calls}. {'; '.join(parts)}."
    twin += f"\n{note}." if note else ""
    if story.steps:
        halves = ", ".join(f"{pfn} order {order}" for pfn, order in marks["halves"])
        twin += f"\nLast: {headline}." + (f" Split off: {halves}." if halves else "")
    if marks["largest"]:
        twin += f"\n{_landing(marks['largest'])}."
    return headline, sub, twin


def _landing(largest: dict[str, Any]) -> str:
    """Where the largest request of a flag would land now."""
    if largest["block"] is None:
        return f"{largest['gfp']}: not one page now"
    pfn, order = largest["block"]
    return f"where {largest['gfp']}'s largest would land: order {order} at {pfn}"


def _state(zones: Sequence[ZoneSnapshot]) -> str:
    """The finding of a machine that nothing was asked of yet."""
    free, managed = sum(map(free_of, zones)), sum(zone.managed for zone in zones)
    top = max(map(_largest, zones))
    name = zones[0].name if len(zones) == 1 else f"{len(zones)} zones"
    words = f"{name}: {number(free)} of {number(managed)} pages free"
    if top < 0:
        return f"{words}, not one free block"
    words += f", largest block order {top} ({size(1 << top)})"
    holders = [zone.name for zone in zones if _largest(zone) == top]
    return words if len(zones) == 1 else f"{words} in {' and '.join(holders)}"


def _finding(zones: Sequence[ZoneSnapshot], story: Story, marks: Marks) -> str:
    """The finding after a call."""
    call = story.headline.split(" = ")[0]
    if marks["taken"]:
        split = f", split {marks['split'][0]} to {marks['split'][1]}" if marks["split"] else ""
        return f"{call} = pfn {marks['taken'][0]} in {marks['zone']}{split}{marks['via']}"
    for zone in zones:
        if "enough pages free" in marks["failed"].get(zone.name, "") and _largest(zone) >= 0:
            top = _largest(zone)
            return (
                f"{call} = NULL: {zone.name} has {number(free_of(zone))} pages free, "
                f"but the largest free block is order {top} ({size(1 << top)})"
            )
    return story.headline


def told_of(story: Story, marks: Marks, shown: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
    """A title and the tests and decisions of the last request, each with the token of its verdict.

    Zones on the map that refused say so themselves; here stand the others, and how it ended.
    """
    if marks["failed"]:
        lines = [("bad", f"✕ {zone} said no: {why}") for zone, why in marks["failed"].items() if zone not in shown]
        end = story.steps[-1]
        lines.append(("ink2", end.say + (f": {end.why}" if end.why else "")))
        return "Why NULL?", [*lines, ("ink2", f"m.explain() tells all {len(story.steps)} steps")]
    tests = [step for step in story.steps if step.verdict is not None or marks["freed"]]
    words = {True: ("ink", "✓ "), False: ("bad", "✕ "), None: ("ink2", "")}
    lines = [(words[step.verdict][0], words[step.verdict][1] + step.say) for step in tests]
    if len(lines) > 6:
        lines = [*lines[:5], ("ink2", f"… m.explain() tells all {len(story.steps)} steps")]
    return f"Why {marks['zone']}?" if marks["taken"] else "What happened", lines


def legend_of(zones: Sequence[ZoneSnapshot], cells: Sequence[Cells] = ()) -> list[list[Any]]:
    """State, name, token, letter and pages of every state in the picture; ``cells`` if it is a map by shares."""
    counts = [0] * len(STATE_TOKENS)
    for zone in zones:
        if zone.pages:
            states = zone.pages.translate(_STATE)
            for state in range(len(counts)):
                counts[state] += states.count(state)
        else:
            free, shelf = free_of(zone), sum(pcp.count for pcp in zone.pcps)
            counts[FREE] += free
            counts[PCP] += shelf
            counts[UNMOVABLE] += zone.managed - free - shelf
            counts[RESERVED] += zone.present - zone.managed
    shown = {FREE}.union(*(each.kind for each in cells)) if cells else range(len(counts))
    return [[s, STATE_NAMES[s], STATE_TOKENS[s], LETTERS[s], counts[s]] for s in sorted(shown) if counts[s] > 0]


def key_of(zones: Sequence[ZoneSnapshot], marks: Marks, cells: Sequence[Cells] = ()) -> list[tuple[str, str]]:
    """The marks in the picture, and what they mean; ``cells`` if it is a map by shares."""

    def here(pfn: int) -> bool:
        return any(zone.start_pfn <= pfn < zone.start_pfn + zone.spanned for zone in zones)

    key = []
    for kind, words in (("taken", "just allocated"), ("freed", "just given back")):
        if marks[kind] and here(marks[kind][0]):
            key.append((kind, words))
    if any(here(pfn) for pfn, _ in marks["halves"]) and not cells:
        key.append(("halves", "split off"))
    if marks["largest"]:
        block, words = marks["largest"]["block"], _landing(marks["largest"])
        key.append(("largest", words if block is None or here(block[0]) else f"{words}, not on this map"))
    if cells:
        key.append(("band", "light from below: share that is free"))
        if any(each.tiles == 1 and max(each.largest, default=-1) >= 0 for each in cells):
            key.append(("square", "square: largest free block of a tile"))
        return key
    kinds = {mt for zone in zones if zone.pages for mt in zone.pageblocks.values() if mt != 1}
    return key + [(f"bar{mt}", f"pageblock {MIGRATE_NAMES[mt]}") for mt in sorted(kinds)]
