"""Watermarks: how low free memory may fall, who stops where, who cleans up.

The panel is one more observer of its machine: it has a sample of each call, also of those in the middle of a long
cell. The browser has all samples, so looking at a part of the curve makes no round trip.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kmemlab import __GFP_HIGH, __GFP_MEMALLOC, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT
from kmemlab.gfp import gfp_zone, show_gfp_flags
from kmemlab.recording import find_recording, read_json
from kmemlab.watermarks import Run, Watch, floor_of
from kmemlab_widgets.panel import STATIC, LazyView, Panel, View, module
from kmemlab_widgets.svg import Svg
from kmemlab_widgets.theme import css
from kmemlab_widgets.watermarks_draw import charts, draw, fixed, plain
from kmemlab_widgets.watermarks_rows import run_of_rows
from kmemlab_widgets.watermarks_words import Floor, Shown, comparison, headline, refused, second_line, title, twin

__all__ = ["Watermarks"]

# __GFP_HIGH alone reaches half of min only with a mask that may sleep: without it the floor is that of GFP_ATOMIC.
MASKS = tuple(map(int, (GFP_NOWAIT, GFP_KERNEL | __GFP_HIGH, GFP_ATOMIC, GFP_KERNEL | __GFP_MEMALLOC)))
MOST_MASKS = 8
OVER = {"requests": "asked", "ms": "ms"}


class Watermarks(Panel, anywidget.AnyWidget):
    """Free pages of a zone against min, low and high since the panel was made: ``Watermarks(m)``,
    ``Watermarks(m, zone="DMA32", masks=[GFP_NOWAIT, GFP_ATOMIC])``.

    ``beside`` is a second curve with the same y axis: a ``run`` of another panel, a recording (its name, or {"columns",
    "rows", "state0", ...}) or its bare rows. ``over="ms"`` draws over simulated time.

    Errors: ValueError, TypeError name the argument.
    """

    title = "Watermarks"
    shows = (Run,)
    _esm = module("watermarks")
    _css = css(".kml-watermarks") + (STATIC / "watermarks.css").read_text(encoding="utf-8")
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(
        self,
        source: Any,
        *,
        zone: str | None = None,
        masks: Mapping[str, int] | Iterable[int] = MASKS,
        beside: Any = None,
        over: str = "requests",
        follow: bool = True,
    ) -> None:
        if over not in OVER:
            raise ValueError(f"over={over!r}: Watermarks draws over 'requests' or 'ms'")
        self.masks, self._by = _named(masks), OVER[over]
        if hasattr(source, "zonelist"):
            name = zone or next(z.name for z in source.zonelist if z.idx <= _usual(source))
            self.watch = Watch(source, name)
            run = self.watch.run()
        else:
            run = source = _frozen(source, zone)
        self._beside = None if beside is None else _frozen(beside, run.marks.name, run)
        anywidget.AnyWidget.__init__(self)
        self.start(source, follow=follow)

    @property
    def run(self) -> Run:
        """The curve so far: to be shown ``beside`` another one, or by itself with ``Watermarks(run)``."""
        return self.snapshot()

    def snapshot(self) -> Run:
        """The curve that is shown."""
        return self.watch.run() if self.watch else self._snapshot

    def view(self, snapshot: Run) -> View:
        """Words, and the drawing to be saved; the browser draws the narrow one from what ``show`` sends."""
        self._shown = shown = self._all(snapshot)
        return LazyView(headline(shown), twin(shown), partial(draw, shown))

    def _all(self, run: Run) -> Shown:
        floors = tuple(
            Floor(name, floor_of(run.marks, gfp, highmem=run.marks.highmem)) for name, gfp in self.masks.items()
        )
        return Shown((run, self._beside) if self._beside else (run,), floors, self._by)

    def show(self, view: View, snapshot: Run | None) -> None:
        """Send the samples and what does not move."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        shown, base, places = self._shown, {}, {}
        for width in (868, 358):
            svg, at = Svg(width, ""), charts(shown, width, 12)
            fixed(svg, shown, at)
            base[width], places[width] = str(svg), [plain(each) for each in at]
        self.view_data = json.dumps({
            "head": view.headline, "sub": second_line(shown), "twin": view.twin, "by": self._by,
            "runs": [{"title": title(run), "ring": _ring(run)} | _packed(run, self._by) for run in shown.runs],
            "floors": [[floor.name, floor.pages] for floor in shown.floors], "base": base, "places": places,
        })  # fmt: skip


def _usual(m: Any) -> int:
    return gfp_zone(int(GFP_KERNEL), highmem=m.kernel.highmem)


def _frozen(source: Any, zone: str | None, beside: Run | None = None) -> Run:
    """A curve that does not change any more."""
    if isinstance(source, Run):
        return source
    if isinstance(source, (str, Path)):
        source = read_json(find_recording(source))
    if isinstance(source, Mapping) or (isinstance(source, (list, tuple)) and source):
        return run_of_rows(source, zone or "DMA32", beside.marks if beside else None)
    words = "beside wants" if beside else "Watermarks wants a Machine,"
    raise TypeError(f"{words} a Run, a recording or its rows, not {source!r:.60}")


def _named(masks: Any) -> dict[str, int]:
    """Masks by name. Errors: ValueError for what is no mask."""
    if not isinstance(masks, Mapping):
        masks = {show_gfp_flags(gfp) or "0" if isinstance(gfp, int) else repr(gfp): gfp for gfp in masks}
    for name, gfp in masks.items():
        if not isinstance(gfp, int) or not 0 <= gfp < 1 << 32:
            raise ValueError(f"masks: {name} must be a mask such as GFP_ATOMIC, not {gfp!r}")
    if len(masks) > MOST_MASKS:
        raise ValueError(f"masks: {len(masks)} are too many to tell apart, {MOST_MASKS} at most")
    return {str(name): int(gfp) for name, gfp in masks.items()}


def _packed(run: Run, by: str) -> dict[str, Any]:
    """The samples for the browser. Marks and counters change seldom: each change has a row with its sample's number."""
    rest, last = [], ()
    for i, sample in enumerate(run.samples):
        if sample[3:10] != last:
            last = sample[3:10]
            rest.append((i, *last))
    if by == "ms":
        return {"rows": [(*sample[:3], sample.ms) for sample in run.samples], "rest": rest}
    return {"rows": [sample[:3] for sample in run.samples], "rest": rest}


def _ring(run: Run) -> dict[str, Any] | None:
    """Where the first NULL is drawn, and its words."""
    if run.refusal is None:
        return None
    at = refused(run)
    free = run.refusal.free if run.refusal.tested else run.samples[at].free
    return {"at": at, "free": free, "words": [each for each in comparison(run.refusal) if each]}
