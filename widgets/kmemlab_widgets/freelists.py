"""FreeLists: how the free memory of a zone is spread over orders and types, and what changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.probe import Verdict, verdicts
from kmemlab.snapshot import Snapshot, ZoneSnapshot
from kmemlab_widgets.orderslider import LOOK, MASKS
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.svg import Svg, fit, text_width
from kmemlab_widgets.theme import css, number, plural, size

__all__ = ["FreeLists", "draw", "headline", "second_line", "twin"]

_INK = ("unmov", "mov", "recl", "high", "resv")  # a type's colour: outline and pattern on the free tint
ORDERS = range(11)
TALL = 190  # px of the highest bar
Asked = tuple[str, Sequence[Verdict]] | None  # a mask's name, and what it would get of each order


class FreeLists(Panel, anywidget.AnyWidget):
    """Bars of free pages per order for one zone, stacked by migratetype, with the counts of /proc/pagetypeinfo.

    The outline over the bars is the moment before: when the panel was made, or ``mark()`` was called (key P).
    ``mask`` names the request of the last row; ``link`` is a ZoneMap on which a bar's blocks light up.
    """

    title = "FreeLists"
    _esm = module("freelists")
    _css = css(".kml-freelists") + (STATIC / "freelists.css").read_text(encoding="utf-8")
    data = traitlets.Unicode("{}").tag(sync=True)
    mask = traitlets.Unicode("GFP_KERNEL").tag(sync=True)

    def __init__(
        self, source: Any, *, zone: str = "DMA32", mask: str = "GFP_KERNEL", link: Any = None, follow: bool = True
    ) -> None:
        if mask not in MASKS:
            raise ValueError(f"mask={mask!r}: FreeLists knows {', '.join(MASKS)}")
        self.zone = zone
        self.link = link
        self._before: tuple[ZoneSnapshot, int] | None = None
        anywidget.AnyWidget.__init__(self, mask=mask)
        self.start(source, follow=follow)
        self.observe(lambda change: self.refresh(), "mask")
        self.on_msg(self._hear)

    def mark(self) -> None:
        """Let the moment before be now."""
        self._before = None
        self.refresh()

    def view(self, snapshot: Snapshot) -> View:
        """Draw the zone at both widths."""
        zone = snapshot.zone(self.zone)
        if self._before is None:
            self._before = zone, snapshot.calls
        before = self._before[0] if self._before[0].nr_free != zone.nr_free else None
        sub = second_line(snapshot, zone, before, self._before[1])
        asked: Asked = None
        if self.machine is not None and self.mask in MASKS:
            asked = self.mask, verdicts(self.machine, [MASKS[self.mask]])[MASKS[self.mask]]
        drawings = (draw(zone, before, sub, width, asked) for width in (868, 358))
        self._zone = zone
        return View(headline(zone), twin(zone, before, asked), *drawings)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send both drawings, and what each bar says when it is pointed at."""
        drawn = {"wide": view.wide, "narrow": view.narrow, "twin": view.twin, "headline": view.headline}
        if snapshot is not None:
            drawn |= {
                "bars": [_heads(self._zone, order) for order in ORDERS],
                "at": {"left": LEFT, "step": STEP},
                "masks": list(MASKS) if self.machine is not None else [],
            }
        self.data = json.dumps(drawn)

    def _hear(self, widget: Any, content: Any, buffers: Any) -> None:
        """The browser points at a bar (its order, or -1 for none), or wants the moment before to be now."""
        if content.get("do") == "mark":
            self.mark()
        elif content.get("do") == "point" and self.link is not None:
            order = content.get("order")
            free = self._zone.free if isinstance(order, int) and order in ORDERS else {}
            self.link.lit = [[pfn, order] for (k, _), pfns in free.items() if k == order for pfn in pfns]


def _pages(zone: ZoneSnapshot | None) -> list[int]:
    """Free pages per order."""
    return [count << order for order, count in enumerate(zone.nr_free)] if zone else [0] * len(ORDERS)


def _free(zone: ZoneSnapshot) -> int:
    return sum(_pages(zone))


def _largest(zone: ZoneSnapshot) -> int:
    return max((order for order, count in enumerate(zone.nr_free) if count), default=-1)


def _count(zone: ZoneSnapshot, order: int, mt: int) -> int:
    listed = len(zone.free.get((order, mt), ()))
    others = sum(len(zone.free.get((order, t), ())) for t in range(5) if t != mt)
    return listed or (zone.nr_free[order] - others if mt == 1 else 0)


def _types(zone: ZoneSnapshot) -> list[int]:
    return [mt for mt in range(len(_INK)) if any(_count(zone, order, mt) for order in ORDERS)]


def _smaller(zone: ZoneSnapshot, order: int) -> int:
    """Per cent of the free pages in blocks too small for this order (the unusable free space index)."""
    pages = _pages(zone)
    return round(100 * sum(pages[:order]) / max(1, sum(pages)))


def headline(zone: ZoneSnapshot) -> str:
    """The finding: how much is free, and how large the largest block is."""
    top = _largest(zone)
    if top < 0:
        return f"{zone.name}: no page is free"
    return f"{size(_free(zone))} are free in {zone.name}; the largest block is order {top} ({size(1 << top)})"


def second_line(snapshot: Snapshot, zone: ZoneSnapshot, before: ZoneSnapshot | None, calls: int) -> str:
    """Which machine, which moment, which unit; and what the outline is."""
    where = snapshot.label + (", recorded from Linux 6.1" if snapshot.recorded else "")
    sub = f"{where} · call {number(snapshot.calls)} · pages free, by block order and migratetype"
    if before is not None:
        pages = _pages(before)
        top = max(ORDERS, key=pages.__getitem__)
        share = round(100 * pages[top] / max(1, sum(pages)))
        sub += f" · outline: call {number(calls)}, order {top} held {share} %"
    return sub


def _heads(zone: ZoneSnapshot, order: int) -> str:
    """What a bar says: its lists, first blocks first."""
    parts = []
    for mt in range(len(_INK)):
        if pfns := zone.free.get((order, mt), ()):
            more = f" and {number(len(pfns) - 8)} more" if len(pfns) > 8 else ""
            parts.append(f"{MIGRATE_NAMES[mt]} {', '.join(map(str, pfns[:8]))}{more}")
    blocks = plural(zone.nr_free[order], "block")
    return f"order {order}: {blocks}" + (f" · head first: {'; '.join(parts)}" if parts else "")


def _up_to(asked: Asked) -> str:
    """In words, which orders the mask would get."""
    assert asked is not None
    name, row = asked
    works = [order for order in ORDERS if row[order].kind == "ok"]
    if not works:
        return f"{name}: no order at once."
    rest = {row[order].kind for order in ORDERS if order > works[-1]}
    beyond = {"wait": "above that it may wait", "null": "above that NULL"}
    words = ", ".join(beyond[kind] for kind in sorted(rest) if kind in beyond)
    gaps = "" if works == list(range(works[-1] + 1)) else f", but not {[o for o in range(works[-1]) if o not in works]}"
    return f"{name}: up to order {works[-1]} at once{gaps}{'; ' + words if words else ''}."


def twin(zone: ZoneSnapshot, before: ZoneSnapshot | None, asked: Asked = None) -> str:
    """The panel in words."""
    was = f" (before {number(_free(before))})" if before else ""
    lines = [headline(zone), f"FreeLists {zone.name}, {plural(_free(zone), 'page')} free{was}."]
    for order in ORDERS:
        if not zone.nr_free[order] and not (before and before.nr_free[order]):
            continue
        kinds = ", ".join(
            f"{MIGRATE_NAMES[mt][0]} {_count(zone, order, mt)}" for mt in range(5) if _count(zone, order, mt)
        )
        old = f" (before {before.nr_free[order]})" if before and before.nr_free[order] != zone.nr_free[order] else ""
        lines.append(f"order {order}: {plural(zone.nr_free[order], 'block')}{old}" + (f": {kinds}" if kinds else ""))
    return "\n".join([*lines, _up_to(asked)] if asked else lines)


def draw(zone: ZoneSnapshot, before: ZoneSnapshot | None, sub: str, width: int, asked: Asked = None) -> str:
    """The drawing as SVG, for 868 or 358 px."""
    svg = Svg(width, headline(zone))
    y = svg.heading(headline(zone), sub)
    if width > 560:
        y = _bars(svg, zone, before, y + 26)
        y = _table(svg, zone, y)
        y = _smaller_row(svg, zone, y + 10)
        y = _verdict_row(svg, asked, y + 8) if asked else y
    else:
        y = _rows(svg, zone, before, y + 12)
        if asked:
            for line in fit(_up_to(asked), 11, width - 28, bold=True):
                y += 16
                svg.text(14, y, line, px=11, bold=True)
    if before is not None:
        svg.rect(14, y + 8, 22, 12, "none", stroke="ink", sw=2)
        svg.text(44, y + 18, "outline: the moment before", px=11)
    return str(svg)


def _stack(svg: Svg, x: float, y: float, w: float, h: float, mt: int) -> None:
    """One type's part of a bar: the free tint, outlined and patterned in the type's colour."""
    svg.rect(x, y, w, h, "free", stroke=_INK[mt])
    svg.rect(x, y, w, h, svg.pattern(_INK[mt]))


def _ceiling(now: list[int], old: list[int]) -> int:
    """What the highest bar stands for. A moment before that would dwarf the present is broken off instead."""
    return max(*now, min(max(old), 3 * max(now) // 2)) if any(now) else max(*old, 1)


def _ticks(most: int) -> list[int]:
    """Round numbers to read the bars by, from 0 on."""
    step = next(s * 10**e for e in range(10) for s in (1, 2, 5) if most <= 4 * s * 10**e)
    return list(range(0, most + 1, step))


# --- 868 px: upright bars over a table ----------------------------------------------------------------

LEFT = 130
STEP = 66


def _bars(svg: Svg, zone: ZoneSnapshot, before: ZoneSnapshot | None, y: float) -> float:
    now, old = _pages(zone), _pages(before)
    most = _ceiling(now, old)
    base = y + TALL
    svg.text(LEFT - 14, y - 8, "pages free", px=11, fill="ink2", anchor="end")
    svg.text(LEFT - 14, y + 5, "in this order", px=11, fill="ink2", anchor="end")
    for tick in _ticks(most):
        at = base - TALL * tick / most
        if tick:
            svg.line(LEFT - 8, at, LEFT + STEP * 11, at, "grid")
        if at > y + 14:
            svg.text(LEFT - 14, at + 4, number(tick), px=11, fill="ink2", anchor="end")
    svg.line(LEFT - 8, base, LEFT + STEP * 11, base, "line")
    for order in ORDERS:
        _bar(svg, zone, order, base, TALL / most)
        if before is not None and old[order] != now[order]:
            _outline(svg, order, base, old[order], TALL / most, cut=old[order] > most)
    for order in ORDERS:
        x = LEFT + order * STEP + STEP / 2 - 2
        top = max(now[order], old[order] if now[order] and old[order] <= most else 0)
        if now[order]:
            svg.text(x, base - TALL * top / most - 6, number(now[order]), bold=True, anchor="middle", halo=True)
        elif old[order]:
            svg.rect(x - 26, base - 26, 52, 26, svg.pattern("bad"))
            svg.text(x, base - 32, "none", fill="bad", bold=True, anchor="middle", halo=True)
        else:
            svg.text(x, base - 6, "·", fill="ink2", anchor="middle")
    return base


def _bar(svg: Svg, zone: ZoneSnapshot, order: int, base: float, scale: float) -> None:
    at = base
    for mt in range(len(_INK)):
        if n := _count(zone, order, mt) << order:
            tall = max(1.0, n * scale)
            _stack(svg, LEFT + order * STEP + 4, at - tall, STEP - 12, tall, mt)
            at -= tall


def _outline(svg: Svg, order: int, base: float, pages: int, scale: float, *, cut: bool) -> None:
    """The moment before; broken off, with its number inside, when it would leave the drawing."""
    x, w = LEFT + order * STEP + 1, STEP - 6
    if not cut:
        tall = max(1.0, pages * scale)
        svg.path(f"M{x:g} {base:g}v{-tall:g}h{w:g}v{tall:g}", stroke="ink", sw=2)
        return
    top = base - TALL - 14
    zigzag = f"l{w / 4:g} -8l{w / 4:g} 12l{w / 4:g} -12l{w / 4:g} 8"
    svg.path(f"M{x:g} {base:g}V{top:g}{zigzag}V{base:g}", stroke="ink", sw=2)
    svg.text(x + w / 2, top + 26, number(pages), px=12, bold=True, anchor="middle", halo=True)
    svg.text(x + w / 2, top + 40, "before", px=11, fill="ink2", anchor="middle", halo=True)


def _centre(order: int) -> float:
    return LEFT + order * STEP + STEP / 2 - 2


def _table(svg: Svg, zone: ZoneSnapshot, y: float) -> float:
    """Under the bars: orders, block sizes, counts per type."""
    y += 18
    svg.text(LEFT - 14, y, "order", bold=True, anchor="end")
    svg.text(LEFT - 14, y + 16, "block size", px=11, fill="ink2", anchor="end")
    for order in ORDERS:
        svg.text(_centre(order), y, order, px=13, bold=True, anchor="middle")
        svg.text(_centre(order), y + 16, size(1 << order), px=11, fill="ink2", anchor="middle")
    y += 20
    for mt in _types(zone):
        y += 20
        _stack(svg, 14, y - 11, 13, 13, mt)
        svg.text(34, y, MIGRATE_NAMES[mt])
        for order in ORDERS:
            n = _count(zone, order, mt)
            svg.text(_centre(order), y, number(n) if n else "·", anchor="middle", fill="ink" if n else "ink2")
    return y


def _smaller_row(svg: Svg, zone: ZoneSnapshot, y: float) -> float:
    """How much of the free memory is of no use to a request of this order."""
    svg.line(14, y, LEFT + STEP * 11, y, "rule")
    svg.text(14, y + 19, "in smaller blocks", px=11, bold=True)
    svg.text(14, y + 34, "of free pages", px=11, fill="ink2")
    for order in ORDERS:
        share, x = _smaller(zone, order), LEFT + order * STEP + 4
        svg.rect(x, y + 10, STEP - 12, 12, "wash", stroke="rule")
        svg.rect(x, y + 10, (STEP - 12) * share / 100, 12, "line")
        svg.text(_centre(order), y + 36, f"{share} %", px=11, anchor="middle")
    return y + 40


def _verdict_row(svg: Svg, asked: tuple[str, Sequence[Verdict]], y: float) -> float:
    """Would the mask get this order now?"""
    name, row = asked
    svg.line(14, y, LEFT + STEP * 11, y, "rule")
    svg.text(14, y + 19, "at once for", px=11, bold=True)
    svg.text(14, y + 34, name, px=11 if text_width(name, 11, mono=True) < LEFT - 20 else 9, fill="ink2", mono=True)
    for order in ORDERS:
        glyph, ink, paper = LOOK[row[order].kind]
        words = {"ok": "yes", "wait": "wait", "null": "NULL"}[row[order].kind]
        x = LEFT + order * STEP + 4
        svg.rect(x, y + 8, STEP - 12, 22, paper)
        svg.rect(x, y + 8, 4, 22, ink)
        svg.text(_centre(order) + 2, y + 23, f"{glyph} {words}", px=11, fill=ink, bold=True, anchor="middle")
    return y + 36


# --- 358 px: a row an order ---------------------------------------------------------------------------


def _rows(svg: Svg, zone: ZoneSnapshot, before: ZoneSnapshot | None, y: float) -> float:
    now, old = _pages(zone), _pages(before)
    most, length, left = _ceiling(now, old), 150.0, 106
    svg.text(14, y + 8, "order", px=11, bold=True)
    svg.text(left, y + 8, "pages free", px=11, fill="ink2")
    y += 16
    top = y
    for order in ORDERS:
        at: float = left
        for mt in range(len(_INK)):
            if n := _count(zone, order, mt) << order:
                _stack(svg, at, y + 3, max(1.0, length * n / most), 14, mt)
                at += max(1.0, length * n / most)
        if before is not None and old[order] != now[order]:
            end = left + length * min(old[order], most) / most
            close = "l6 -4l-10 -5l8 -9" if old[order] > most else "v-18"
            svg.path(f"M{left} {y + 19:g}H{max(end, left + 1):g}{close}H{left}", stroke="ink", sw=2)
            at = max(at, end + (8 if old[order] > most else 0))
        svg.text(30, y + 14, order, bold=True, anchor="end")
        svg.text(40, y + 14, size(1 << order), px=11, fill="ink2")
        words = number(now[order]) if now[order] else "none" if old[order] else "·"
        svg.text(at + 6, y + 14, words, px=11, bold=bool(now[order] or old[order]), halo=True,
                 fill="ink" if now[order] else "bad" if old[order] else "ink2")  # fmt: skip
        if old[order] > most:
            y += 14
            svg.text(left + 6, y + 14, f"before: {number(old[order])}", px=11, fill="ink2")
        y += 24
    svg.line(left, top, left, y, "line")
    for mt in _types(zone):
        y += 18
        _stack(svg, 14, y - 6, 13, 13, mt)
        blocks = sum(_count(zone, order, mt) for order in ORDERS)
        svg.text(34, y + 5, f"{MIGRATE_NAMES[mt]}: {plural(blocks, 'block')}", px=11)
    return y + 4
