"""FreeLists: how the free memory of a zone is spread over orders and types, and what changed."""

from __future__ import annotations

from typing import Any

from kmemlab.gfp import MIGRATE_NAMES
from kmemlab.snapshot import Snapshot, ZoneSnapshot
from kmemlab_widgets.panel import HtmlPanel, View
from kmemlab_widgets.svg import Svg, fit
from kmemlab_widgets.theme import number, plural, size

__all__ = ["FreeLists", "draw", "headline", "twin"]

_INK = ("unmov", "mov", "recl", "high", "resv")  # a type's colour: outline and pattern on the free tint
ORDERS = range(11)


class FreeLists(HtmlPanel):
    """Bars of free pages per order for one zone, stacked by migratetype, with the counts of /proc/pagetypeinfo.

    The outline over the bars is the moment before: when the panel was made, or ``mark()`` was called.
    """

    title = "FreeLists"

    def __init__(self, source: Any, *, zone: str = "DMA32", follow: bool = True) -> None:
        self.zone = zone
        self._before: ZoneSnapshot | None = None
        super().__init__(source, follow=follow)
        self.mark()

    def mark(self) -> None:
        """Let the moment before be now."""
        self._before = self.snapshot().zone(self.zone)
        self.refresh()

    def view(self, snapshot: Snapshot) -> View:
        """Draw the zone at both widths."""
        zone = snapshot.zone(self.zone)
        before = self._before if self._before and self._before.nr_free != zone.nr_free else None
        sub = f"{zone.name} of {snapshot.label}, call {number(snapshot.calls)} · pages free by order and migratetype"
        drawings = (draw(zone, before, sub, width) for width in (868, 358))
        return View(headline(zone), twin(zone, before), *drawings)


def _free(zone: ZoneSnapshot) -> int:
    return sum(count << order for order, count in enumerate(zone.nr_free))


def _largest(zone: ZoneSnapshot) -> int:
    return max((order for order, count in enumerate(zone.nr_free) if count), default=-1)


def _count(zone: ZoneSnapshot, order: int, mt: int) -> int:
    listed = len(zone.free.get((order, mt), ()))
    others = sum(len(zone.free.get((order, t), ())) for t in range(5) if t != mt)
    return listed or (zone.nr_free[order] - others if mt == 1 else 0)


def headline(zone: ZoneSnapshot) -> str:
    """The finding: how much is free, and how large the largest block is."""
    top = _largest(zone)
    if top < 0:
        return f"{zone.name}: no page is free"
    return f"{size(_free(zone))} are free in {zone.name}; the largest block is order {top} ({size(1 << top)})"


def twin(zone: ZoneSnapshot, before: ZoneSnapshot | None) -> str:
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
    return "\n".join(lines)


def draw(zone: ZoneSnapshot, before: ZoneSnapshot | None, sub: str, width: int) -> str:
    """The drawing as SVG, for 868 or 358 px."""
    svg = Svg(width, headline(zone))
    wide = width > 560
    y = 20.0
    for line in fit(headline(zone), 16, width - 28, bold=True):
        svg.text(14, y, line, px=16, bold=True)
        y += 20
    for line in fit(sub, 12, width - 28):
        svg.text(14, y, line, fill="ink2")
        y += 16
    svg.raw(_patterns())
    left = 126 if wide else 30
    step = (width - left - 14) / 11
    y = _bars(svg, zone, before, y + 22, left, step)
    return str(_table(svg, zone, y, left, step, wide=wide))


def _bars(svg: Svg, zone: ZoneSnapshot, before: ZoneSnapshot | None, y: float, left: float, step: float) -> float:
    pages = [count << order for order, count in enumerate(zone.nr_free)]
    old = [count << order for order, count in enumerate(before.nr_free)] if before else [0] * 11
    most, tall = max(*pages, *old, 1), 150.0
    base = y + tall
    for order in ORDERS:
        x, at = left + order * step + 2, base
        for mt in range(5):
            n = _count(zone, order, mt) << order
            if n:
                h = max(2.0, tall * n / most)
                svg.rect(x, at - h, step - 6, h, "free", stroke=_INK[mt])
                svg.rect(x, at - h, step - 6, h, f"url(#kml-{_INK[mt]})")
                at -= h
        if before and old[order] != pages[order]:
            h = max(1.0, tall * old[order] / most)
            svg.rect(x - 2, base - h, step - 2, h, "none", stroke="ink", sw=2)
            at = min(at, base - h)
        if pages[order] or old[order]:
            words = number(pages[order]) if pages[order] else "none"
            svg.text(x + step / 2 - 3, at - 5, words, px=11 if step > 40 else 9, bold=True, anchor="middle",
                     fill="ink" if pages[order] else "bad", halo=True)  # fmt: skip
    svg.line(left - 4, base, left + 11 * step, base, "line")
    return base


def _table(svg: Svg, zone: ZoneSnapshot, y: float, left: float, step: float, *, wide: bool) -> Svg:
    """Under the bars: orders, block sizes, counts per type, and the share in smaller blocks."""
    y += 18
    svg.text(left - 10, y, "order" if wide else "", bold=True, anchor="end")
    for order in ORDERS:
        svg.text(left + (order + 0.5) * step, y, order, px=13 if wide else 11, bold=True, anchor="middle")
        if wide:
            svg.text(left + (order + 0.5) * step, y + 16, size(1 << order), px=11, fill="ink2", anchor="middle")
    y += 22 if wide else 6
    for mt, name in enumerate(MIGRATE_NAMES):
        if not any(_count(zone, order, mt) for order in ORDERS):
            continue
        y += 20
        svg.rect(14, y - 11, 12, 12, "free", stroke=_INK[mt])
        svg.rect(14, y - 11, 12, 12, f"url(#kml-{_INK[mt]})")
        svg.text(32, y, name if wide else "", px=12)
        for order in ORDERS:
            n = _count(zone, order, mt)
            words = number(n) if n else "·"
            svg.text(left + (order + 0.5) * step, y, words, px=12 if wide else 11, anchor="middle",
                     fill="ink" if n else "ink2")  # fmt: skip
    if not wide:
        for mt, name in enumerate(MIGRATE_NAMES):
            if any(_count(zone, order, mt) for order in ORDERS):
                y += 18
                svg.rect(14, y - 10, 10, 10, "free", stroke=_INK[mt])
                svg.text(30, y, f"{name} blocks", px=11, fill="ink2")
    return svg


def _patterns() -> str:
    """Each type's second cue: upright lines, dots, diagonals, level lines."""
    shapes = {
        "unmov": '<path d="M2 0V6" />',
        "mov": '<circle cx="3" cy="3" r="1.1" />',
        "recl": '<path d="M0 6L6 0" />',
        "high": '<path d="M0 3H6" />',
        "resv": '<path d="M0 0L6 6" />',
    }
    return "<defs>" + "".join(
        f'<pattern id="kml-{name}" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'stroke="var(--kml-{name})" fill="var(--kml-{name})" stroke-width="1">{shape}</pattern>'
        for name, shape in shapes.items()
    ) + "</defs>"  # fmt: skip
