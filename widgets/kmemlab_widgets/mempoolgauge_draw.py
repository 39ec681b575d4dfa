"""The drawing of MempoolGauge: a column for each call, the reserve as a stack whose top is taken first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter

from kmemlab.gfp import show_gfp_flags
from kmemlab.task_watch import PoolRun, PoolStep
from kmemlab_widgets.mempoolgauge_words import headline, names_of, now_lines, phase, second_line, sentence
from kmemlab_widgets.steps import Grid
from kmemlab_widgets.svg import Svg, fit, shortened, text_width
from kmemlab_widgets.theme import number

__all__ = ["ACROSS", "draw"]

ACROSS = {868: 16, 358: 6}  # steps side by side
MOST_SLOTS, MOST_LINES = 8, 6
SLOT = 22  # px
PHASES = {"works": ("✓ works", "works", "ok", "okbg"), "fails": ("✕ fails", "fails", "bad", "badbg")}


def draw(run: PoolRun, width: int, first: int, at: int | None = None) -> tuple[str, Grid]:
    """The steps from ``first`` on as SVG; with ``at`` the whole picture."""
    steps = run.steps[first : first + ACROSS[width]]
    svg = Svg(width, headline(run))
    y = 4.0
    if at is not None:
        y = svg.heading(headline(run), second_line(run, first, first + len(steps) - 1))
    x = 82 if width < 560 else 118
    top = y + 4
    columns = _Columns(svg, x, (width - 14 - x) / ACROSS[width], steps)
    y = columns.phases(top)
    y = columns.stacks(y + 8)
    svg.line(x, y + 6, width - 14, y + 6, "rule")
    bottom = columns.rows(y + 24, names_of(run))
    y = _now(svg, run, bottom + 12)
    if at is not None:
        frame = x + (at - first) * columns.step
        svg.rect(frame, top - 2, columns.step, bottom - top + 2, stroke="focus", sw=2)
        svg.text(14, y + 14, f"step {run.steps[at].n}", px=13, bold=True)
        for line in fit(sentence(run.steps, at), 12, width - 28):
            y += 16
            svg.text(14, y + 14, line)
    return str(svg), Grid(x, columns.step, top - 2, bottom)


class _Columns:
    """The steps that are drawn, ``step`` px each from ``x`` on."""

    def __init__(self, svg: Svg, x: float, step: float, steps: Sequence[PoolStep]) -> None:
        self.svg, self.x, self.step, self.steps = svg, x, step, steps

    def label(self, y: float, words: str, *, side: bool = False) -> None:
        """What a row shows."""
        self.svg.text(self.x - 8, y, words, px=11, anchor="end", fill="ink2" if side else "ink", bold=not side)

    def runs(self, values: Sequence[str]) -> Iterator[tuple[str, float, float]]:
        """Neighbours with the same value: (value, left, width)."""
        for value, group in groupby(enumerate(values), key=itemgetter(1)):
            places = [i for i, _ in group]
            yield value, self.x + places[0] * self.step, len(places) * self.step

    def phases(self, y: float) -> float:
        """What alloc_fn did, as bands; returns the bottom."""
        self.label(y + 15, "alloc_fn")
        for what, x, width in self.runs([phase(step) for step in self.steps]):
            if not what:
                continue
            full, short, token, ground = PHASES[what]
            self.svg.rect(x + 1, y, width - 2, 22, ground)
            self.svg.rect(x + 1, y, 4, 22, token)
            words = full if text_width(full, 11) < width - 8 else short
            self.svg.text(x + 2 + width / 2, y + 15, words, px=11, fill=token, anchor="middle")
        return y + 22

    def stacks(self, y: float) -> float:
        """The reserve after each step; returns the bottom."""
        rows = min(max(max(step.min_nr, len(step.reserve), 1) for step in self.steps), MOST_SLOTS)
        bottom = y + rows * SLOT
        self.label(bottom - 22, "reserve")
        self.label(bottom - 8, "top goes first", side=True)
        for i, step in enumerate(self.steps):
            x = self.x + i * self.step + 2
            names = list(step.reserve)
            if len(names) > rows:
                names = [f"+{len(names) - rows + 1}", *names[1 - rows :]]
            for row in range(min(max(step.min_nr, len(names)), rows)):
                at = bottom - (row + 1) * SLOT
                if row < len(names):
                    self.svg.rect(x, at, self.step - 4, SLOT - 2, "free", stroke="freeln")
                    middle = x + self.step / 2 - 2
                    self.svg.text(
                        middle, at + 14, shortened(names[row], self.step - 2), px=11, fill="onfree", anchor="middle"
                    )
                else:
                    self.svg.rect(x, at, self.step - 4, SLOT - 2, stroke="line", dash="2 2")
        return bottom

    def rows(self, y: float, names: dict[str, str]) -> float:
        """Numbers and words below the stacks; returns the bottom."""
        self._merged(y, "in reserve", [f"{len(step.reserve)} of {step.min_nr}" for step in self.steps], rule=False)
        self._merged(y + 24, "call", [self._call(step) for step in self.steps])
        self.label(y + 48, "element")
        for i, step in enumerate(self.steps):
            middle = self.x + (i + 0.5) * self.step
            if step.call == "alloc":
                words, token = (f"✓ {step.element}", "ok") if step.element else ("✕ NULL", "bad")
                self.svg.text(middle, y + 48, shortened(words, self.step - 2), px=11, fill=token, anchor="middle")
            elif step.element:
                self.svg.text(middle, y + 48, shortened(step.element, self.step - 2), px=11, anchor="middle")
        self._merged(y + 72, "from / to", [_place(step) for step in self.steps])
        self.label(y + 96, "asleep, ms")
        for i, step in enumerate(self.steps):
            if step.slept:
                x = self.x + i * self.step + 2
                self.svg.rect(x, y + 82, self.step - 4, 20, "waitbg")
                self.svg.rect(x, y + 82, 4, 20, "wait")
                words = shortened(number(round(step.slept)), self.step - 2)
                self.svg.text(x + self.step / 2, y + 96, words, px=11, fill="wait", anchor="middle")
        if len(set(names)) < 2:
            return y + 108
        self._merged(y + 120, "task", [names[step.task] for step in self.steps])
        return y + 132

    def _merged(self, y: float, label: str, values: Sequence[str], *, rule: bool = True) -> None:
        self.label(y, label)
        for value, x, width in self.runs(values):
            self.svg.text(x + width / 2, y, shortened(value, width - 2), px=11, anchor="middle")
            if value and width > self.step and rule:
                self.svg.line(x + 4, y + 6, x + width - 4, y + 6, "rule")

    def _call(self, step: PoolStep) -> str:
        if step.call != "alloc":
            return step.call
        words = show_gfp_flags(step.gfp).removeprefix("GFP_")
        return words if text_width(words, 11) < self.step + 2 else f"{step.gfp:#x}"


def _place(step: PoolStep) -> str:
    if step.call == "alloc" and step.place == "reserve":
        return "a free" if step.slept else "reserve"
    return "→ reserve" if step.place == "reserve" else step.place


def _now(svg: Svg, run: PoolRun, y: float) -> float:
    """Who holds and who waits; returns where the drawing goes on."""
    lines = now_lines(run)
    if len(lines) > MOST_LINES:
        lines = [*lines[: MOST_LINES - 1], f"and {len(lines) - MOST_LINES + 1} more tasks"]
    for n, line in enumerate(lines):
        if not n:
            svg.text(14, y + 14, "now", px=11, bold=True)
        for part in fit(line, 11, svg.width - 68):
            svg.text(54, y + 14, part, px=11)
            y += 16
    svg.grow(y + 4)
    return y + 8
