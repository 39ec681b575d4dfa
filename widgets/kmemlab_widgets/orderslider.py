"""OrderSlider: would this size work now, for which flag, from which zone, and if not, why?

Python asks a copy of the machine once for each state: eleven orders times a few masks. The browser has that
table, so sliding makes no round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anywidget
import traitlets

from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOWAIT
from kmemlab.probe import Verdict, ZoneTest, verdicts
from kmemlab.snapshot import Snapshot
from kmemlab.story import shortfall
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.svg import Svg, text_width
from kmemlab_widgets.theme import css, number, plural, size

__all__ = ["Band", "OrderSlider", "bands", "draw", "headline", "twin"]

ORDERS = range(11)
MASKS: Mapping[str, int] = {
    "GFP_HIGHUSER_MOVABLE": int(GFP_HIGHUSER_MOVABLE),
    "GFP_KERNEL": int(GFP_KERNEL),
    "GFP_NOWAIT": int(GFP_NOWAIT),
    "GFP_ATOMIC": int(GFP_ATOMIC),
    "GFP_DMA": int(GFP_DMA),
}
Table = Sequence[tuple[str, Sequence[Verdict]]]
LOOK = {"ok": ("✓", "ok", "okbg"), "wait": ("◷", "wait", "waitbg"), "null": ("✕", "bad", "badbg")}


@dataclass(frozen=True, slots=True)
class Band:
    """Orders ``first`` to ``last`` with the same verdict for one mask: a long and a short word for it."""

    first: int
    last: int
    kind: str
    words: str
    short: str


class OrderSlider(Panel, anywidget.AnyWidget):
    """Orders 0 to 10 against some masks: ``OrderSlider(m)``, ``OrderSlider(m, order=4, masks={"mine": 0x8c0})``.

    ``order`` is what the slider stands at, ``mask`` the name of the mask explained below it; a cell may read both.
    Errors: ValueError names the argument.
    """

    title = "OrderSlider"
    _esm = module("orderslider")
    _css = css(".kml-orderslider") + (STATIC / "orderslider.css").read_text(encoding="utf-8")
    order = traitlets.Int(4, min=0, max=10).tag(sync=True)
    mask = traitlets.Unicode("").tag(sync=True)
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(
        self,
        source: Any,
        *,
        order: int = 4,
        mask: str = "GFP_NOWAIT",
        masks: Mapping[str, int] | None = None,
        follow: bool = True,
    ) -> None:
        self.masks = dict(MASKS if masks is None else masks)
        if not self.masks:
            raise ValueError("masks={}: OrderSlider needs at least one mask, as {name: value}")
        if not isinstance(order, int) or order not in ORDERS:
            raise ValueError(f"order={order!r}: a block has an order from 0 to 10")
        if isinstance(source, Snapshot):
            raise TypeError("OrderSlider asks a machine what it would do: give it a Machine, not a Snapshot")
        anywidget.AnyWidget.__init__(self, order=order, mask=mask if mask in self.masks else next(iter(self.masks)))
        self.start(source, follow=follow)

    def view(self, snapshot: Snapshot) -> View:
        """The table of verdicts, and its drawing at the order the slider stands at."""
        asked = verdicts(self.machine, self.masks.values())
        table = [(name, asked[gfp]) for name, gfp in self.masks.items()]
        sub = f"{snapshot.label} after {plural(snapshot.calls, 'call')} · drag, click, or ← → to try another order"
        self._table, self._sub = table, sub
        row = list(self.masks).index(self.mask)
        wide, narrow = (draw(table, self.order, row, sub, width) for width in (868, 358))
        return View(headline(table, self.order), twin(table, self.order), wide, narrow)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send the table; the browser redraws, and answers the slider by itself."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        table = self._table
        base = {f"{width}": str(_bands(Svg(width, ""), table, _Geometry(width), 0)[0]) for width in (868, 358)}
        self.view_data = json.dumps({
            "sub": self._sub,
            "heads": [headline(table, order) for order in ORDERS],
            "twins": [twin(table, order) for order in ORDERS],
            "sizes": [f"order {order}, {plural(1 << order, 'page')}, {size(1 << order)}" for order in ORDERS],
            "masks": [name for name, _ in table],
            "why": [[_why(name, verdict) for verdict in row] for name, row in table],
            "base": base,
            "geometry": {f"{w}": _Geometry(w).plain(len(table)) for w in (868, 358)},
        })  # fmt: skip


# --- words --------------------------------------------------------------------------------------


def bands(row: Sequence[Verdict]) -> list[Band]:
    """The verdicts of one mask, equal neighbours together."""
    out: list[Band] = []
    for order, verdict in enumerate(row):
        reserve = "HighAtomic" in verdict.via
        words, short = {
            "ok": (
                f"at once, from {'the HighAtomic reserve' if reserve else verdict.zone}",
                "reserve" if reserve else "ok",
            ),
            "wait": ("may wait", "wait"),
            "null": ("NULL", "NULL"),
        }[verdict.kind]
        if out and (out[-1].kind, out[-1].words) == (verdict.kind, words):
            out[-1] = Band(out[-1].first, order, verdict.kind, words, short)
        else:
            out.append(Band(order, order, verdict.kind, words, short))
    return out


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def headline(table: Table, order: int) -> str:
    """The finding for one order: who gets a block at once, who may wait, who gets NULL."""
    by = {kind: [name for name, row in table if row[order].kind == kind] for kind in LOOK}
    start = f"Order {order} ({size(1 << order)}): "
    rest = []
    if by["wait"]:
        rest.append(f"{_and(by['wait'])} may wait")
    if by["null"]:
        rest.append(f"{_and(by['null'])} {'gets' if len(by['null']) == 1 else 'get'} NULL")
    if not rest:
        return f"{start}every mask gets one at once"
    if not by["ok"]:
        return f"{start}nobody gets one at once; {', '.join(rest)}"
    if len(by["ok"]) > len(table) // 2:
        return f"{start}{', '.join(rest)}; the others get one at once"
    only = "only " if len(by["ok"]) == 1 else ""
    verb = "gets" if len(by["ok"]) == 1 else "get"
    via = (
        " from the HighAtomic reserve"
        if all("HighAtomic" in r[order].via for _, r in table if r[order].kind == "ok")
        else ""
    )
    return f"{start}{only}{_and(by['ok'])} {verb} one at once{via}; {', '.join(rest)}"


def _refusal(test: ZoneTest, order: int) -> str:
    left, need = test.free - test.unusable, test.mark + test.protection
    if not test.enough:
        return f"{test.zone} {left} is not above {need}"
    if not test.block:
        return f"{test.zone} {left} > {need} but largest order {test.largest}"
    return f"{test.zone} passes both tests"


def twin(table: Table, order: int) -> str:
    """The panel in words."""
    parts = []
    for name, row in table:
        verdict = row[order]
        if verdict.kind == "ok":
            parts.append(f"{name} {verdict.zone}, frame {verdict.pfn}, {verdict.via}")
        else:
            why = ", ".join(_refusal(test, order) for test in verdict.tests)
            parts.append(f"{name} {'may wait' if verdict.kind == 'wait' else 'NULL'}: {why}")
    pages = plural(1 << order, "page")
    return f"{headline(table, order)}\nOrder {order} ({pages}, {size(1 << order)}): {'; '.join(parts)}."


def _why(name: str, verdict: Verdict) -> dict[str, Any]:
    """What is said below the bands for one mask and order."""
    if verdict.kind == "ok":
        title = f"{name}, order {verdict.order}: frame {verdict.pfn} in {verdict.zone}, {verdict.via}"
    else:
        glyph = "may have to wait" if verdict.kind == "wait" else "gets NULL"
        title = f"{name}, order {verdict.order}: {glyph}. Why not at once?"
    return {"kind": verdict.kind, "title": title, "tests": [_test(test, verdict.order) for test in verdict.tests]}


def _test(test: ZoneTest, order: int) -> dict[str, Any]:
    left, need = test.free - test.unusable, test.mark + test.protection
    minus = f"{number(test.free)} − {number(test.unusable)} = " if test.unusable else ""
    mark = f"mark {number(test.mark)}" + (f" + protection {number(test.protection)}" if test.protection else "")
    block = f"a block of order {order}" if test.block else f"largest it may take: order {test.largest}"
    if not test.block and test.largest < 0:
        block = "not one block it may take"
    most = max(test.free, need, 1) * 1.08
    return {
        "zone": test.zone,
        "sum": f"{minus}{number(left)} > {number(need)}",
        "mark": f"{mark} = {number(need)}" if test.protection else mark,
        "amount": [test.enough, "enough pages" if test.enough else shortfall(left, need)],
        "block": [test.block, block] if test.enough else None,  # the second test is only made after the first
        "bar": [max(0, left) / most, test.free / most, need / most],
    }


# --- the drawing --------------------------------------------------------------------------------


class _Geometry:
    """Where things stand: x of each order's cell, y of the parts below ``top``."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.narrow = width < 560
        self.left = 14 if self.narrow else 196
        self.cell = (width - self.left - 14) / len(ORDERS)
        self.unit = self.cell * 0.9 / 32  # px a page side: order 10 is 32 x 32 pages
        self.rail = 16 + 32 * self.unit + 14
        self.first = self.rail + (44 if self.narrow else 62)
        self.step = 42 if self.narrow else 28
        self.tall = 16 if self.narrow else 22

    def x(self, order: int) -> float:
        """Left edge of an order's cell."""
        return self.left + order * self.cell

    def row(self, index: int) -> float:
        """Top of a mask's band."""
        return self.first + index * self.step + (16 if self.narrow else 0)

    def plain(self, rows: int) -> dict[str, Any]:
        """For the browser."""
        return {
            "left": self.left,
            "cell": self.cell,
            "rail": self.rail,
            "rows": [self.row(index) for index in range(rows)],
            "tall": self.tall,
            "unit": self.unit,
            "top": 16 + 32 * self.unit,
        }


def _bands(svg: Svg, table: Table, at: _Geometry, top: float) -> tuple[Svg, float]:
    """Everything that does not move with the slider: shapes, rail, sizes, bands."""
    floor = top + 16 + 32 * at.unit
    svg.line(at.x(0) + at.cell / 2, top + at.rail, at.x(10) + at.cell / 2, top + at.rail, "line", sw=3)
    for order in ORDERS:
        x = at.x(order) + at.cell / 2
        w, h = (1 << (order + 1) // 2) * at.unit, (1 << order // 2) * at.unit
        svg.rect(x - w / 2, floor - h, w, h, "free", stroke="freeln")
        svg.circle(x, top + at.rail, 5, "line")
        svg.circle(x, top + at.rail, 3, "paper")
        svg.text(x, top + at.rail + 24, order, px=13, anchor="middle")
        if not at.narrow:
            svg.text(x, top + at.rail + 40, number(1 << order), px=11, fill="ink2", anchor="middle")
            svg.text(x, top + at.rail + 54, size(1 << order), px=11, fill="ink2", anchor="middle")
    if not at.narrow:
        for dy, words in ((24, "order"), (40, "pages"), (54, "bytes")):
            svg.text(at.left - 12, top + at.rail + dy, words, fill="ink" if dy == 24 else "ink2", anchor="end")
    for index, (name, row) in enumerate(table):
        y = top + at.row(index)
        if at.narrow:
            svg.text(14, y - 4, name, mono=True)
        else:
            svg.text(at.left - 12, y + 15, name, mono=True, anchor="end")
        for band in bands(row):
            _band(svg, at, band, y)
    return svg, top + at.row(len(table) - 1) + at.tall


def _band(svg: Svg, at: _Geometry, band: Band, y: float) -> None:
    glyph, ink, paper = LOOK[band.kind]
    x, w = at.x(band.first), (band.last - band.first + 1) * at.cell - 2
    svg.rect(x, y, w, at.tall, paper)
    svg.rect(x, y, 4, at.tall, ink)
    for words in (f"{glyph} {band.words}", f"{glyph} {band.short}", glyph):
        if text_width(words, 11, bold=True) < w - 8 or words == glyph:
            svg.text(x + 2 + w / 2, y + at.tall / 2 + 4, words, px=11, fill=ink, bold=True, anchor="middle")
            break


def draw(table: Table, order: int, row: int, sub: str, width: int) -> str:
    """The drawing as SVG at one order, with the reasons of one mask (an index) below."""
    svg = Svg(width, headline(table, order))
    at = _Geometry(width)
    top = svg.heading(headline(table, order), sub) - 8
    _, bottom = _bands(svg, table, at, top)
    x = at.x(order) + at.cell / 2
    w, h = (1 << (order + 1) // 2) * at.unit, (1 << order // 2) * at.unit
    svg.rect(x - w / 2, top + 16 + 32 * at.unit - h, w, h, "accent")
    svg.circle(x, top + at.rail, 9, "focus")
    svg.circle(x, top + at.rail, 7, "paper")
    svg.circle(x, top + at.rail, 5, "accent")
    for index in range(len(table)):
        svg.rect(at.x(order), top + at.row(index) - 2, at.cell - 2, at.tall + 4, stroke="focus", sw=2)
    why = _why(table[row][0], table[row][1][order])
    y = bottom + 26
    svg.text(14, y, why["title"], px=13, bold=True)
    for test in why["tests"]:
        y = _draw_test(svg, test, y + 12, at.narrow)
    svg.grow(y + 10)
    return str(svg)


def _draw_test(svg: Svg, test: Mapping[str, Any], y: float, narrow: bool) -> float:
    left, free, need = test["bar"]
    x, wide = (14, 330) if narrow else (92, 330)
    svg.text(14, y + 14, test["zone"], bold=True)
    bar = y + 22 if narrow else y + 4
    svg.rect(x, bar, wide * left, 12, "free", stroke="freeln")
    svg.rect(x + wide * left, bar, wide * (free - left), 12, stroke="freeln", dash="2 2")
    svg.line(x + wide * need, bar - 4, x + wide * need, bar + 16, "bad", sw=2)
    svg.text(x, bar + 26, test["mark"], px=11, fill="ink2")
    text_x, line = (14, bar + 44) if narrow else (x + wide + 24, y + 14)
    svg.text(text_x, line, test["sum"], mono=True)
    verdicts_at = text_x + 232
    for dy, verdict in ((0, test["amount"]), (18, test["block"])):
        if verdict:
            glyph, ink = ("✓", "ok") if verdict[0] else ("✕", "bad")
            where = (verdicts_at if dy == 0 and not narrow else text_x), line + dy + (18 if narrow and dy == 0 else 0)
            svg.text(
                *(where if not (narrow and dy) else (text_x, line + 36)), f"{glyph} {verdict[1]}", fill=ink, bold=True
            )
    return bar + 84 if narrow else bar + 38
