"""ZoneMap: every page frame by zone and state. Where is free space, how broken up is it, what happened just now?"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kmemlab import Machine
from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.recording import load_recording
from kmemlab.snapshot import Snapshot, ZoneSnapshot
from kmemlab.story import Story
from kmemlab_widgets import zonemap_hands as hands
from kmemlab_widgets.panel import STATIC, LazyView, Panel, View, module, refresh_all
from kmemlab_widgets.svg import Svg
from kmemlab_widgets.theme import LETTERS, STATE_NAMES, STATE_TOKENS, css
from kmemlab_widgets.zonemap_draw import PATTERN_FROM, draw
from kmemlab_widgets.zonemap_film import RECORDED, Film, Shot, orders_of, pieces_of
from kmemlab_widgets.zonemap_large import Cells, cells_of, is_large, per_cell, tops_of, unit
from kmemlab_widgets.zonemap_layout import BARS, INSET, TILE, lay_out, tile_bytes
from kmemlab_widgets.zonemap_plan import Plans
from kmemlab_widgets.zonemap_replay import Replayed, badge, calls_in, recording_of_calls, run
from kmemlab_widgets.zonemap_words import UNIT, Marks, describe, key_of, legend_of, marks_of, told_of

__all__ = ["Marks", "ZoneMap", "describe", "marks_of"]

log = logging.getLogger("kmemlab_widgets")
MODULE = ("base", "film", "side", "large", "time", "paint", "panel")  # of one ES module, in this order


class ZoneMap(Panel, anywidget.AnyWidget):
    """The map of a machine's zones, or of one: ``ZoneMap(m, zone="DMA")``. A snapshot can be shown too.

    With ``follow=False`` it stays at this moment. A map that follows keeps the moments it has shown as a film.
    """

    title = "ZoneMap"
    _esm = module(*(f"zonemap_{name}" for name in MODULE))
    _css = css(".kml-zonemap") + (STATIC / "zonemap.css").read_text(encoding="utf-8")
    cells = traitlets.Bytes(b"").tag(sync=True)  # one state byte a page, the spans of the zones shown in a row
    orders = traitlets.Bytes(b"").tag(sync=True)  # order + 1 where a free block begins, over the same pages
    meta = traitlets.Unicode("{}").tag(sync=True)  # the rest, as JSON
    frame = traitlets.Int(0).tag(sync=True)  # counts moments; the browser redraws when it changes
    lit = traitlets.List([]).tag(sync=True)  # [first frame, order] of blocks to frame: what a linked panel points at

    def __init__(self, source: Any, zone: str | None = None, follow: bool = True) -> None:
        anywidget.AnyWidget.__init__(self)
        self._begin(source, zone, follow)

    def _begin(self, source: Any, zone: str | None, follow: bool, replayed: Replayed | None = None) -> None:
        self.zone = zone
        self.film = Film()
        self._plans = Plans()
        self._flag = ""
        self._replayed = replayed
        self._hands = follow and not isinstance(source, Snapshot)  # a click may change the machine
        self.on_msg(self._asked)
        self.start(source, follow=follow)

    @classmethod
    def replay(
        cls, name: str | Path, frames: int = 240, zone: str | None = None, without: Iterable[str] = ()
    ) -> ZoneMap:
        """The film of a real kernel's workload: a recording's calls made again, with how many the model got right.

        ``name`` is a path or a bare name such as "128M-a-11"; about ``frames`` moments are kept; ``without`` switches
        kernel rules off. Errors: RecordingError, one line; ValueError for fewer than 2 frames.
        """
        if not isinstance(frames, int) or not 2 <= frames <= RECORDED:
            raise ValueError(f"frames={frames!r}: a film has 2 to {RECORDED} moments")
        recording = load_recording(name)
        machine = Machine.from_recording(recording.path, without=without)
        replayed = Replayed(calls_in(recording), badge(recording.meta))
        panel = cls.__new__(cls)
        anywidget.AnyWidget.__init__(panel)
        panel._begin(machine, zone, False, replayed)
        panel.film.limit = frames + 2  # the first miss and the end may come on top
        replayed.verdict = run(machine, recording, replayed.total, frames, panel._take)
        panel.refresh()
        return panel

    @contextmanager
    def record(self, every: int = 1) -> Iterator[ZoneMap]:
        """Keep a moment after each ``every`` calls inside the block, one at its start and one at its end.

        Of more than 600 every second one goes. Errors: ValueError for a panel that does not follow its machine.
        """
        if not self._hands:
            raise ValueError("this panel stays at its moment: record() needs one that follows its machine")
        with recording_of_calls(self.machine, self.film, self._take, every):
            yield self
        self.refresh()

    def _take(self) -> None:
        """Keep the machine's moment without showing it."""
        self._last = self.view(self.snapshot())
        self._keep()

    def _zones(self, snapshot: Snapshot) -> tuple[ZoneSnapshot, ...]:
        return snapshot.zones if self.zone is None else (snapshot.zone(self.zone),)

    def view(self, snapshot: Snapshot) -> View:
        """The finding, the text twin, and the pictures for the saved notebook."""
        zones = self._zones(snapshot)
        machine = self.machine
        trail = machine.last_events() if machine is not None else ()
        story = machine.explain() if machine is not None else Story("")
        marks = marks_of(trail)
        if self._flag:
            marks["largest"] = hands.landing(machine, self._flag)
        cells: list[Cells] = []
        words = UNIT
        if is_large(zones):
            groups, tops = per_cell(zones), tops_of(machine) if machine is not None else {}
            cells = [cells_of(zone, tiles, tops) for zone, tiles in zip(zones, groups, strict=True)]
            words = unit(groups, zones)
        total = self._replayed.total if self._replayed else 0
        note = "Where whole free tiles are is not known: spread evenly" if any(each.even for each in cells) else ""
        headline, sub, twin = describe(snapshot, zones, story, marks, words, total, note)
        told = told_of(story, marks, [zone.name for zone in zones])
        key = (snapshot.calls, getattr(machine, "changes", 0), snapshot.cpu)
        info = {"headline": headline, "sub": sub, "twin": twin, "calls": snapshot.calls, "call": _call(story)}
        self._shown = (zones, cells, trail, key, info | self._info(zones, cells, marks, told))
        if self._replayed and self._replayed.verdict[1]:
            twin += f"\n{self._replayed.verdict[1]}."

        block = marks["taken"] or marks["freed"]
        zoom = (
            not cells
            and block is not None
            and any(zone.start_pfn <= block[0] < zone.start_pfn + zone.spanned for zone in zones)
        )

        def picture(width: int) -> str:
            svg = Svg(width, headline)
            top = svg.heading(headline, sub, left=INSET) - 10
            layout = lay_out(zones, width, top, marks["failed"], told, cells, zoom)
            return draw(svg, zones, layout, marks, legend_of(zones, cells), key_of(zones, marks, cells), cells)

        return LazyView(headline, twin, picture)

    def _info(self, zones: Sequence[ZoneSnapshot], cells: Sequence[Cells], marks: Marks, told: Any) -> dict[str, Any]:
        """What is told of a moment besides its pages."""
        layout, notes = self._plans.of(zones, marks["failed"], cells)
        paged = [] if cells else [zone for zone in zones if zone.pages]
        return {
            "layout": layout,
            "notes": notes,
            "marks": marks,
            "story": [told[0], told[1]],
            "legend": legend_of(zones, cells),
            "key": key_of(zones, marks, cells),
            "types": [[pfn, mt] for zone in paged for pfn, mt in zone.pageblocks.items() if mt != 1],
            "heads": [pfns[0] for zone in paged for pfns in zone.free.values()],
            "shares": [each.plain() for each in cells],
        }

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send the page states and what is drawn over them; the browser redraws once, on ``frame``."""
        with self.hold_sync():
            if snapshot is not None:
                self._keep()
                self.cells, self.orders = self.film.last
                info = dict(self._shown[-1])
                layouts = info.pop("layout")
                rest = json.dumps(self._fixed() | info, separators=(",", ":"))
                self.meta = f'{rest[:-1]},"layouts":{layouts}}}'
            else:
                self.meta = json.dumps({"error": view.twin})
            self.frame += 1

    def _keep(self) -> None:
        """Put the moment at the end of the film."""
        zones, large, trail, key, info = self._shown
        paged = () if large else [zone for zone in zones if zone.pages]
        cells, orders = b"".join(zone.pages for zone in paged), b"".join(map(orders_of, paged))
        self.film.add(Shot(key, info, trail), cells, orders, pieces_of(paged))

    def _fixed(self) -> dict[str, Any]:
        """What is the same in all moments of the film."""
        zones, large, *_ = self._shown
        spans, offset = [], 0
        for index, zone in enumerate(zones):
            for first, pages in zone.spans if zone.pages and not large else ():
                spans.append([first, pages, offset, index])
                offset += pages
        told = self._replayed
        recorded = "recorded, Linux 6.1" if self.machine is None and self._snapshot.recorded else ""
        return {
            "zones": [zone.name for zone in zones],
            "spans": spans,
            "units": [[each.tiles, each.starts, bool(zone.pages)] for zone, each in zip(zones, large, strict=False)],
            "names": MIGRATE_NAMES,
            "states": [[STATE_NAMES[i], STATE_TOKENS[i], LETTERS[i]] for i in range(len(STATE_TOKENS))],
            "bars": {str(mt): bar for mt, bar in BARS.items()},
            "pattern_from": PATTERN_FROM,
            "film": [len(self.film), self.film.version],
            "hands": self._hands,
            "flags": [*hands.FLAGS] if self._hands else [],
            "flag": self._flag,
            "badge": told.badge if told else recorded,
            "total": told.total if told else 0,
            "verdict": told.verdict if told and told.verdict[1] else None,
        }

    # --- what the browser asks -----------------------------------------------------------------

    def _asked(self, _: Any, content: Any, _buffers: Any) -> None:
        """Answer a message of the browser; a question that cannot be answered gets its reason in the panel."""
        try:
            answer = getattr(self, f"_ask_{content['ask']}")
            answer(content)
        except Exception as error:
            log.exception("%s could not answer %r", type(self).__name__, content)
            self.send({"kind": "report", "text": f"panel error: {type(error).__name__}: {error}"})

    def _ask_film(self, _: Any) -> None:
        about, data = self.film.message()
        self.send(about, [data])

    def _ask_flag(self, content: Any) -> None:
        flag = str(content["flag"])
        if not self._hands or (flag and flag not in hands.FLAGS):
            raise ValueError(f"no flag {flag!r} to ask for")
        self._flag = flag
        self.refresh()

    def _ask_pin(self, content: Any) -> None:
        pfn = int(content["pfn"])
        if self._hands:
            block, words = hands.standing(self.machine, pfn, self._state_of(pfn))
            self.send({"kind": "pin", "pfn": pfn, "block": block, "words": words})

    def _ask_free(self, content: Any) -> None:
        if not self._hands:
            raise ValueError("this panel stays at its moment: nothing to free")
        report = hands.free(self.machine, int(content["pfn"]))
        refresh_all(self.machine)
        self.send({"kind": "report", "text": report})

    def _ask_trace(self, content: Any) -> None:
        pfn = int(content["pfn"])
        self.send({"kind": "trace", "pfn": pfn, "lines": hands.history(self.film.shots, pfn)})

    def _ask_tile(self, content: Any) -> None:
        """The pages of one tile of a machine that is shown by shares."""
        tile = int(content["pfn"]) // TILE * TILE
        zones = [zone for zone in self._shown[0] if zone.pages]
        for zone in zones:
            if any(first < tile + TILE and tile < first + pages for first, pages in zone.spans):
                blocks = [
                    [p, order] for (order, _), pfns in zone.free.items() for p in pfns if p // TILE * TILE == tile
                ]
                orders = bytearray(TILE)
                for pfn, order in blocks:
                    orders[pfn - tile] = order + 1
                self.send({"kind": "tile", "pfn": tile}, [tile_bytes(zone, tile), bytes(orders)])
                return
        raise ValueError(f"pfn {tile}: its pages are not listed")

    def _state_of(self, pfn: int) -> int:
        """The state of a frame as shown."""
        for zone in self._shown[0]:
            if zone.pages and any(first <= pfn < first + pages for first, pages in zone.spans):
                return tile_bytes(zone, pfn // TILE * TILE)[pfn % TILE] & 15
        return 0


def _call(story: Story) -> str:
    """The call in short: ``alloc_pages(GFP_KERNEL, 0) = pfn 512``."""
    return story.headline.split(": ")[0] if story.steps else ""
