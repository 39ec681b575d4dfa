"""ZoneMap: every page frame by zone and state. Where is free space, how broken up is it, what happened just now?"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kmemlab import events
from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.snapshot import FREE, PCP, RESERVED, UNMOVABLE, Snapshot, ZoneSnapshot
from kmemlab.story import Story
from kmemlab_widgets.panel import Panel, View
from kmemlab_widgets.svg import Svg
from kmemlab_widgets.theme import LETTERS, STATE_NAMES, STATE_TOKENS, css, number, plural, size
from kmemlab_widgets.zonemap_draw import PATTERN_FROM, draw
from kmemlab_widgets.zonemap_layout import INSET, lay_out

__all__ = ["Marks", "Moment", "ZoneMap", "describe", "marks_of"]

log = logging.getLogger("kmemlab_widgets")
STATIC = Path(__file__).parent / "static"
WIDTHS = {"wide": 868, "broad": 730, "mid": 560, "narrow": 358}  # the browser takes the widest that fits
_STATE = bytes(i & 15 for i in range(256))

Marks = dict[str, Any]


class Moment(View):
    """A view that draws its pictures when they are asked for: a live map is drawn by the browser and needs none."""

    def __init__(self, headline: str, twin: str, picture: Callable[[int], str]) -> None:
        object.__setattr__(self, "headline", headline)
        object.__setattr__(self, "twin", twin)
        self.__dict__["picture"] = picture

    @cached_property
    def wide(self) -> str:
        """The picture at 868 px."""
        return str(self.__dict__["picture"](868))

    @cached_property
    def narrow(self) -> str:
        """The picture at 358 px."""
        return str(self.__dict__["picture"](358))


class ZoneMap(Panel, anywidget.AnyWidget):
    """The map of a machine's zones, or of one: ``ZoneMap(m, zone="DMA")``. A snapshot can be shown too.

    With ``follow=False`` it stays at this moment.
    """

    title = "ZoneMap"
    # One module of two files: a module that Python sends cannot import its neighbours.
    _esm = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("zonemap_base.js", "zonemap.js"))
    _css = css(".kml-zonemap") + (STATIC / "zonemap.css").read_text(encoding="utf-8")
    cells = traitlets.Bytes(b"").tag(sync=True)  # one state byte a page, the spans of the zones shown in a row
    meta = traitlets.Unicode("{}").tag(sync=True)  # the rest, as JSON
    frame = traitlets.Int(0).tag(sync=True)  # counts moments; the browser redraws when it changes

    def __init__(self, source: Any, zone: str | None = None, follow: bool = True) -> None:
        anywidget.AnyWidget.__init__(self)
        self.zone = zone
        self.start(source, follow=follow)

    def _zones(self, snapshot: Snapshot) -> tuple[ZoneSnapshot, ...]:
        return snapshot.zones if self.zone is None else (snapshot.zone(self.zone),)

    def view(self, snapshot: Snapshot) -> View:
        """The finding, the text twin, and the pictures for the saved notebook."""
        zones = self._zones(snapshot)
        trail = self.machine.last_events() if self.machine is not None else ()
        story = self.machine.explain() if self.machine is not None else Story("")
        marks = marks_of(trail)
        headline, sub, twin = describe(snapshot, zones, story, marks)
        told = _told(story, marks, [zone.name for zone in zones])
        self._shown = (zones, marks, told, sub)

        def picture(width: int) -> str:
            svg = Svg(width, headline)
            top = svg.heading(headline, sub, left=INSET) - 10
            layout = lay_out(zones, width, top, marks["failed"], told)
            return draw(svg, zones, layout, marks, _legend(zones), _key(zones, marks))

        return Moment(headline, twin, picture)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send the page states and what is drawn over them; the browser redraws once, on ``frame``."""
        with self.hold_sync():
            if isinstance(view, Moment):
                zones, marks, told, sub = self._shown
                self.cells = b"".join(zone.pages for zone in zones)
                words = {"headline": view.headline, "sub": sub, "twin": view.twin}
                self.meta = json.dumps(words | _meta(zones, marks, told), separators=(",", ":"))
            else:
                self.meta = json.dumps({"error": view.twin})
            self.frame += 1

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        try:
            return super()._repr_mimebundle_(**kwargs)
        except Exception as error:  # the picture could not be drawn: the words remain
            log.exception("%s could not draw", type(self).__name__)
            self._last = self._failed(error)
            return super()._repr_mimebundle_(**kwargs)


def marks_of(trail: tuple[events.Event, ...]) -> Marks:
    """What the last call left to show: the block taken or given back, the halves split off, who said no and why."""
    marks: Marks = {"taken": None, "freed": None, "zone": "", "halves": [], "split": None, "failed": {}, "via": ""}
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
    short = "equal is not above" if event.free == need else f"{plural(need - event.free, 'page')} short"
    return f"{number(event.free)} > {' + '.join(number(n) + word for n, word in parts if n or not word)} ? {short}"


def _free(zone: ZoneSnapshot) -> int:
    return sum(count << order for order, count in enumerate(zone.nr_free))


def _largest(zone: ZoneSnapshot) -> int:
    return max((order for order, count in enumerate(zone.nr_free) if count), default=-1)


def describe(
    snapshot: Snapshot, zones: Sequence[ZoneSnapshot], story: Story, marks: Marks
) -> tuple[str, str, str]:  # fmt: skip
    """(headline, second line, text twin): the headline is the twin's first line."""
    headline = _finding(zones, story, marks) if story.steps else _state(zones)
    where = snapshot.label + (", recorded from Linux 6.1" if snapshot.recorded else "")
    sub = f"{where} · after {plural(snapshot.calls, 'call')} · 1 page = 4 KiB, 1 tile = 4 MiB"
    parts = []
    for zone in zones:
        top = _largest(zone)
        part = f"{zone.name} {_free(zone)} of {zone.managed} pages free"
        part += f", largest order {top} x{zone.nr_free[top]}" if top >= 0 else ", no free block"
        if shelf := sum(pcp.count for pcp in zone.pcps):
            part += f", {shelf} on per-CPU lists"
        part += f", boost {zone.boost}" if zone.boost else ""
        part += f", said no: {marks['failed'][zone.name]}" if zone.name in marks["failed"] else ""
        parts.append(part)
    calls = "1 call" if snapshot.calls == 1 else f"{snapshot.calls} calls"
    twin = f"{headline}\nZoneMap {snapshot.label} after {calls}. {'; '.join(parts)}."
    if story.steps:
        halves = ", ".join(f"{pfn} order {order}" for pfn, order in marks["halves"])
        twin += f"\nLast: {headline}." + (f" Split off: {halves}." if halves else "")
    return headline, sub, twin


def _state(zones: Sequence[ZoneSnapshot]) -> str:
    """The finding of a machine that nothing was asked of yet."""
    free, managed = sum(map(_free, zones)), sum(zone.managed for zone in zones)
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
                f"{call} = NULL: {zone.name} has {number(_free(zone))} pages free, "
                f"but the largest free block is order {top} ({size(1 << top)})"
            )
    return story.headline


def _told(story: Story, marks: Marks, shown: Sequence[str]) -> tuple[str, list[tuple[str, str]]]:
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


def _legend(zones: Sequence[ZoneSnapshot]) -> list[list[Any]]:
    """State, name, token, letter and pages of every state in the picture."""
    counts = [0] * len(STATE_TOKENS)
    for zone in zones:
        if zone.pages:
            states = zone.pages.translate(_STATE)
            for state in range(len(counts)):
                counts[state] += states.count(state)
        else:
            free, shelf = _free(zone), sum(pcp.count for pcp in zone.pcps)
            counts[FREE] += free
            counts[PCP] += shelf
            counts[UNMOVABLE] += zone.managed - free - shelf
            counts[RESERVED] += zone.present - zone.managed
    return [[s, STATE_NAMES[s], STATE_TOKENS[s], LETTERS[s], n] for s, n in enumerate(counts) if n > 0]


def _key(zones: Sequence[ZoneSnapshot], marks: Marks) -> list[tuple[str, str]]:
    """The marks in the picture, and what they mean."""

    def here(pfn: int) -> bool:
        return any(zone.pages and zone.start_pfn <= pfn < zone.start_pfn + zone.spanned for zone in zones)

    key = []
    for kind, words in (("taken", "just allocated"), ("freed", "just given back")):
        if marks[kind] and here(marks[kind][0]):
            key.append((kind, words))
    if any(here(pfn) for pfn, _ in marks["halves"]):
        key.append(("halves", "split off"))
    kinds = {mt for zone in zones if zone.pages for mt in zone.pageblocks.values() if mt != 1}
    return key + [(f"bar{mt}", f"pageblock {MIGRATE_NAMES[mt]}") for mt in sorted(kinds)]


def _meta(
    zones: Sequence[ZoneSnapshot], marks: Marks, told: tuple[str, list[tuple[str, str]]]
) -> dict[str, Any]:  # fmt: skip
    spans, offset = [], 0
    for index, zone in enumerate(zones):
        for first, pages in zone.spans if zone.pages else ():
            spans.append([first, pages, offset, index])
            offset += pages
    blocks = [
        [pfn, order, mt] for zone in zones if zone.pages
        for (order, mt), pfns in zone.free.items() for pfn in pfns
    ]  # fmt: skip
    return {
        "zones": [zone.name for zone in zones],
        "spans": spans,
        "blocks": blocks,  # of an order and type, head of the list first
        "types": [[pfn, mt] for zone in zones if zone.pages for pfn, mt in zone.pageblocks.items() if mt != 1],
        "names": MIGRATE_NAMES,
        "marks": marks,
        "legend": _legend(zones),
        "key": _key(zones, marks),
        "states": [[STATE_NAMES[i], STATE_TOKENS[i], LETTERS[i]] for i in range(len(STATE_TOKENS))],
        "pattern_from": PATTERN_FROM,
        "layouts": {name: lay_out(zones, width, 0, marks["failed"], told).plain() for name, width in WIDTHS.items()},
    }
