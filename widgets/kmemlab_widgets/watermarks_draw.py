"""The drawing of Watermarks: one or two charts with the same y axis, the floors of masks beside them.

``fixed`` draws what stays where it is; the curve and what hangs on x are drawn here for the saved picture and in
``static/watermarks.js`` for the panel, where a part can be looked at larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from kmemlab.watermarks import Run, Sample
from kmemlab_widgets.svg import Svg, fit, text_width
from kmemlab_widgets.theme import number
from kmemlab_widgets.watermarks_words import Shown, comparison, headline, never, refused, second_line, title, where

__all__ = ["Chart", "charts", "draw", "fixed", "plain", "spread", "ticks"]

TALL = 236  # px of a chart
DASHES = {"min": "", "low": "7 4", "high": "1.5 4"}
# What happened, in the rows below the axis: shape, colour, fill, width of the stroke.
SHAPES = {
    "kswapd": ("v14", "accent", "none", 4),
    "direct": ("l-5 11h10z", "wait", "wait", 1),
    "oom": ("m-4 2l8 8m0-8l-8 8", "bad", "none", 2),
}
ROWS = {"kswapd": ("kswapd ran", "kswapd"), "direct": ("direct reclaim", "direct"), "oom": ("OOM kill", "OOM kill")}


@dataclass(frozen=True, slots=True)
class Chart:
    """Where one curve stands: edges in px, the values at them, the y of each row below the axis (0: no such row)."""

    left: float
    right: float
    top: float
    bottom: float
    lo: float
    hi: float
    most: float
    kswapd: float
    direct: float
    oom: float
    labels: bool

    def x(self, value: float) -> float:
        """Px of a request number or a time."""
        return self.left + (value - self.lo) / (self.hi - self.lo) * (self.right - self.left)

    def y(self, pages: float) -> float:
        """Px of a level; what is beyond the axis stands at its end."""
        return self.bottom - max(0, min(pages, self.most)) / self.most * (self.bottom - self.top)

    @property
    def ticks(self) -> float:
        """Baseline of the numbers at the x axis."""
        return (self.oom or self.direct) + 30


def _most(shown: Shown) -> float:
    """The top of the y axis. Where the curve comes near the marks they must stay apart: higher levels are cut off."""
    high = max(max(sample[5] for sample in run.samples) for run in shown.runs)
    free = [sample[2] for run in shown.runs for sample in run.samples]
    floors = max((floor.pages or 0 for floor in shown.floors), default=0)
    top = 1.06 * max(free)
    return max(1.3 * high, 1.1 * floors, top if min(free) > 3 * high else min(top, 3 * high), 1)


def charts(shown: Shown, width: int, top: float) -> list[Chart]:
    """The place of each curve below ``top``: side by side, or one above the other where it is narrow."""
    runs, most, narrow = shown.runs, _most(shown), width < 560
    apart = len(runs) > 1 and runs[0].samples[0][3:6] != runs[1].samples[0][3:6]
    left, right = (82, width - 22) if narrow else (112, width - (190 if shown.floors else 22))
    gap = 92 if apart else 30
    step = 0 if narrow or len(runs) == 1 else (right - left + gap) / 2
    wide = right - left if not step else step - gap
    head = max(16 * len(_title(run, wide)) for run in runs) + 34
    out = []
    for number_, run in enumerate(runs):
        x = left + number_ * step
        chart_top = top + head
        bottom = chart_top + TALL
        oom = bottom + 62 if any(each.samples[-1].oom for each in runs) else 0
        values = [getattr(sample, shown.by) for sample in run.samples]
        lo, hi = values[0], max(values[-1], values[0] + 1)
        labels = narrow or not number_ or apart
        out.append(Chart(x, x + wide, chart_top, bottom, lo, hi, most, bottom + 14, bottom + 38, oom, labels))
        if narrow:
            top = out[-1].ticks + 34
    return out


def _title(run: Run, width: float) -> list[str]:
    return fit(title(run), 13, width, bold=True)


def ticks(lo: float, hi: float) -> list[float]:
    """Three to six round numbers from ``lo`` to ``hi``."""
    step = 1.0
    for power in range(12):
        for lead in (1, 2, 5):
            step = lead * 10**power
            if (hi - lo) / step <= 5:
                return [k * step for k in range(int(-(-lo // step)), int(hi // step) + 1)]
    return [lo, hi]


def spread(wanted: Sequence[tuple[float, float]], top: float, bottom: float) -> list[float]:
    """Tops for labels (wanted middle, height) given from above to below, so that none covers the next."""
    at, edge = [], top
    for middle, height in wanted:
        at.append(max(edge, middle - height / 2))
        edge = at[-1] + height
    edge = bottom
    for i in reversed(range(len(at))):
        at[i] = min(at[i], edge - wanted[i][1])
        edge = at[i]
    return at


# --- what stays ----------------------------------------------------------------------------------


def fixed(svg: Svg, shown: Shown, places: Sequence[Chart]) -> None:
    """Titles, axes, names of rows, floors."""
    narrow = svg.width < 560
    axis = "page requests so far" if shown.by == "asked" else "ms of simulated time"
    for run, at in zip(shown.runs, places, strict=True):
        y = at.top - 34 - 16 * (len(_title(run, at.right - at.left)) - 1)
        for line in _title(run, at.right - at.left):
            svg.text(at.left, y, line, px=13, bold=True)
            y += 16
        svg.text(at.left, y, where(run), px=11, fill="ink2")
        svg.line(at.left, at.bottom, at.right, at.bottom)
        if at.labels:
            svg.text(at.left - 8, at.bottom + 4, "0 free", px=11, anchor="end", fill="ink2")
            for row, names in ROWS.items():
                if y_row := getattr(at, row):
                    svg.text(at.left - 8, y_row + 11, names[narrow], px=11, anchor="end")
        last = run.samples[-1]
        for row, words in (("kswapd", "never"), ("direct", never(run)), ("oom", "never")):
            if getattr(at, row) and not getattr(last, row) and last.asked:
                short = words if text_width(words, 11) < at.right - at.left else "never"
                svg.text(at.left, getattr(at, row) + 11, short, px=11, fill="ink2")
        svg.text((at.left + at.right) / 2, at.ticks + 18, axis, px=11, fill="ink2", anchor="middle")
        _cut_off(svg, at, run)
        svg.grow(at.ticks + 24)
    _floors(svg, shown, places)


def _cut_off(svg: Svg, at: Chart, run: Run) -> None:
    most = max(sample.free for sample in run.samples)
    if most > at.most:
        svg.text(at.left + 8, at.top - 4, f"▲ cut off: up to {number(most)} free", px=11, fill="ink2", halo=True)


def _floors(svg: Svg, shown: Shown, places: Sequence[Chart]) -> None:
    """Each mask's floor as a fine line through the charts, with its name: beside them, or below where it is narrow."""
    narrow, at = svg.width < 560, places[-1]
    if not shown.floors:
        return
    x = 14 if narrow else at.right + 26
    room = svg.width - 28 if narrow else svg.width - 10 - x
    rows = []
    for i, floor in enumerate(shown.floors):
        words = f"{floor.name} {'not from here' if floor.pages is None else number(floor.pages)}"
        lines = fit(words, 12, room)
        middle = at.bottom + 60 if floor.pages is None else at.y(floor.pages)
        rows.append((middle, 15.0 * len(lines) + 3, i, floor, lines))
    rows.sort(key=lambda row: row[0])
    head = "a mask is served while free is above"
    if narrow:
        y = at.ticks + 42
        svg.text(x, y, head, fill="ink2")
        tops = [y + 6 + sum(row[1] for row in rows[:n]) for n in range(len(rows))]
    else:
        for n, line in enumerate(fit(head, 12, room)):
            svg.text(x, at.top - 34 + 15 * n, line, fill="ink2")
        tops = spread([row[:2] for row in rows], at.top, at.ticks + 24)
    for top, (_, _, i, floor, lines) in zip(tops, rows, strict=True):
        svg.raw(f'<g class="floor" data-floor="{i}">')
        if floor.pages is not None:
            for place in places:
                y = place.y(floor.pages)
                svg.line(place.left, y, place.right, y, "line", dash="1 5")
                svg.line(place.right, y, place.right + 8, y, "ink", sw=2)
            if not narrow:
                svg.line(at.right + 8, at.y(floor.pages), x - 4, top + 8, "rule")
        for n, line in enumerate(lines):
            svg.text(x, top + 12 + 15 * n, line)
        svg.raw("</g>")


# --- what moves with x (in the panel: static/watermarks.js) ----------------------------------------------


def _columns(xs: Sequence[float], free: Sequence[int], at: Chart) -> list[tuple[float, float]]:
    """The curve with at most two points in each px column, its highest and its lowest."""
    kept: list[int] = []
    column, low, high = -1, 0, 0
    for i, x in enumerate(xs):
        if int(x) != column:
            kept += [] if column < 0 else [low] if low == high else sorted((low, high))
            column, low, high = int(x), i, i
        elif free[i] > free[high]:
            high = i
        elif free[i] < free[low]:
            low = i
    kept += [low] if low == high else sorted((low, high))
    return [(xs[i], at.y(free[i])) for i in kept]


def _points(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.0f} {y:.1f}".removesuffix(".0") for x, y in points)


def _steps(at: Chart, xs: Sequence[float], levels: Sequence[int]) -> str:
    """A watermark over x: level, but for the moments at which it changes."""
    level = levels[0]
    path = f"M{at.left:g} {at.y(level):.1f}"
    for i, each in enumerate(levels) if max(levels) > min(levels) else ():
        if each != level:
            level = each
            path += f"H{xs[i]:.1f}V{at.y(level):.1f}"
    return f"{path}H{at.right:g}"


def _rises(xs: Sequence[float], counts: Sequence[int]) -> list[int]:
    """The px columns in which a counter rose."""
    return sorted({round(xs[i]) for i in range(1, len(xs)) if counts[i] > counts[i - 1]})


def _moving(svg: Svg, at: Chart, run: Run, by: str) -> None:
    fields = dict(zip(Sample._fields, zip(*run.samples, strict=True), strict=True))
    scale = (at.right - at.left) / (at.hi - at.lo)
    xs = [at.left + (value - at.lo) * scale for value in fields[by]]
    for mark, dash in DASHES.items():
        svg.path(_steps(at, xs, fields[mark]), stroke="ink", sw=1.5, dash=dash)
    line = _columns(xs, fields["free"], at)
    svg.path(_points(line if len(line) > 1 else [*line, (at.right, line[0][1])]), stroke="accent", sw=2)
    for row, (shape, token, fill, sw) in SHAPES.items():
        y = getattr(at, row)
        if y and fields[row][-1] and (rises := _rises(xs, fields[row])):
            svg.path("".join(f"M{x} {y:g}{shape}" for x in rises), fill=fill, stroke=token, sw=sw)
    _scale(svg, at)
    _level_labels(svg, at, run.samples[0])
    _boost(svg, at, run.samples, xs)
    _ring(svg, at, run, xs)


def _scale(svg: Svg, at: Chart) -> None:
    """The numbers at the x axis; one that would cover the number before it is left out."""
    edge = 0.0
    for tick in ticks(at.lo, at.hi):
        x, words = at.x(tick), number(int(tick))
        wide = text_width(words, 11)
        left = min(x - wide / 2, at.right + 8 - wide)
        svg.line(x, at.bottom, x, at.bottom + 4)
        if left > edge:
            svg.text(round(left + wide / 2, 1), at.ticks, words, px=11, anchor="middle")
            edge = left + wide + 6


def _level_labels(svg: Svg, at: Chart, first: Sample) -> None:
    """min, low and high as they were at the left edge."""
    if at.labels:
        rows = [(at.y(getattr(first, mark)), 14.0, mark) for mark in ("high", "low", "min")]
        for top, (_, _, mark) in zip(spread([row[:2] for row in rows], at.top, at.bottom - 6), rows, strict=True):
            svg.text(at.left - 8, top + 11, f"{mark} {number(getattr(first, mark))}", px=11, anchor="end")


def _boost(svg: Svg, at: Chart, samples: Sequence[Sample], xs: Sequence[float]) -> None:
    """The size of the highest boost, over the step that it makes."""
    boosts = [sample.boost for sample in samples]
    top = max(boosts)
    if top:
        i = boosts.index(top)
        x = min(xs[i] + 4, at.right - text_width(f"boost {number(top)}", 11) - 2)
        svg.text(round(x, 1), at.y(samples[i].high) - 6, f"boost {number(top)}", px=11, fill="ink2", halo=True)


def _ring(svg: Svg, at: Chart, run: Run, xs: Sequence[float]) -> None:
    """The first request that got NULL, with the comparison that it lost."""
    if run.refusal is None:
        return
    i = refused(run)
    x, y = xs[i], at.y(run.refusal.free if run.refusal.tested else run.samples[i].free)
    svg.raw(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="var(--kml-bad)" stroke-width="2.5"/>')
    words = [each for each in comparison(run.refusal) if each]
    if x > (at.left + at.right) / 2:  # below the falling curve, left of the ring
        x, y, anchor = x - 12, min(y + 6, at.bottom - 6 - 16 * (len(words) - 1)), "end"
    else:
        x, y, anchor = (
            x - 6,
            y + 21 if y + 24 + 16 * len(words) < at.bottom else y - 14 - 16 * (len(words) - 1),
            "start",
        )
    for line in words:
        svg.text(x, y, line, fill="bad", bold=True, anchor=anchor, halo=True)
        y += 16


def draw(shown: Shown, width: int) -> str:
    """The whole picture as SVG, 868 or 358 px wide."""
    svg = Svg(width, headline(shown))
    places = charts(shown, width, svg.heading(headline(shown), second_line(shown)) + 6)
    fixed(svg, shown, places)
    for run, at in zip(shown.runs, places, strict=True):
        _moving(svg, at, run, shown.by)
    svg.grow(0)
    return str(svg)


def plain(at: Chart) -> dict[str, float]:
    """A chart for the browser."""
    return asdict(at) | {"ticks": at.ticks}
