"""RequestPath: what one call did, floor by floor, and which number decided."""

from __future__ import annotations

from typing import Any

from kmemlab.snapshot import Snapshot
from kmemlab.story import Block, Scale, Step, Story
from kmemlab_widgets.panel import HtmlPanel, View
from kmemlab_widgets.svg import Svg, fit
from kmemlab_widgets.theme import number, plural

__all__ = ["RequestPath", "draw"]

_BLOCK = {"taken": ("ink", "ink", "ontaken"), "pcp": ("pcp", "pcpln", "onfree"), "free": ("free", "freeln", "onfree")}


class RequestPath(HtmlPanel):
    """The last request of a machine, or a Story: one row a floor, downwards; what each hands back at the right."""

    title = "RequestPath"

    def __init__(self, source: Any, *, story: Story | None = None, follow: bool = True) -> None:
        self._story = story
        super().__init__(source, follow=follow)

    def view(self, snapshot: Snapshot) -> View:
        """Draw the story at both widths."""
        story = self._story or (self.machine.explain() if self.machine is not None else Story("no request yet"))
        where = f"{snapshot.label}" + (", recorded from Linux 6.1" if snapshot.recorded else "")
        sub = f"{where} · call {number(snapshot.calls)}"
        return View(story.headline, str(story), draw(story, sub, 868), draw(story, sub, 358))


def draw(story: Story, sub: str, width: int) -> str:
    """The drawing of a story as SVG, for 868 or 358 px."""
    svg = Svg(width, story.headline)
    y = 20.0
    for line in fit(story.headline, 16, width - 28, bold=True):
        svg.text(14, y, line, px=16, bold=True)
        y += 20
    for line in fit(sub, 12, width - 28):
        svg.text(14, y, line, fill="ink2")
        y += 16
    y += 4
    if not story.steps:
        svg.rect(14, y, width - 28, 40, "none", stroke="rule", dash="4 3")
        svg.text(24, y + 24, "no request yet: run the next cell", fill="ink2")
    tops = []
    for count, step in enumerate(story.steps, 1):
        tops.append(y)
        y = _row(svg, step, count, y, width) + 6
    _rail(svg, story.steps, tops, width)
    for line in fit(story.note, 12, width - 28):
        svg.text(14, y + 12, line, fill="ink2")
        y += 16
    return str(svg)


def _row(svg: Svg, step: Step, count: int, y: float, width: int) -> float:
    """One floor; returns its lower edge."""
    wide = width > 560
    left, sentence = (182, 208) if wide else (24, 48)
    right = 540 if wide else sentence
    room = (right - sentence - 16) if wide else width - sentence - 24
    mark = {True: "✓ ", False: "✕ ", None: ""}[step.verdict]
    words = fit(mark + step.say, 13, room, bold=True)
    reason = fit(step.why, 12, room)
    picture = bool(step.scale or step.blocks)
    head = 0 if wide else 18
    text_height = head + 17 * len(words) + 15 * len(reason) + 14
    beside = max(text_height, 58 if picture else 0, 42) if wide else text_height + (56 if picture else 0)
    edge = "bad" if step.verdict is False else "accent" if step.verdict else "line"
    svg.rect(14, y, width - 28, beside, "wash")
    svg.rect(14, y, 4, beside, edge)
    if wide:
        svg.text(28, y + 20, step.floor, mono=True, bold=True)
        svg.text(28, y + 36, step.function, px=11, mono=True, fill="ink2")
    else:
        svg.text(sentence, y + 17, f"{step.floor} · {step.function}", px=11, mono=True, fill="ink2")
    svg.circle(left + 8 if wide else 32, y + head + 16, 9, "bad" if step.verdict is False else "ink")
    svg.text(left + 8 if wide else 32, y + head + 20, count, px=11, fill="paper", bold=True, anchor="middle")
    at = y + head + 20
    for line in words:
        svg.text(sentence, at, line, px=13, bold=True)
        at += 17
    for line in reason:
        svg.text(sentence, at, line, fill="ink2")
        at += 15
    top = y + 8 if wide else at
    if step.scale:
        _scale(svg, step.scale, right, top, 210 if wide else width - sentence - 40)
    elif step.blocks:
        _blocks(svg, step.blocks, right, top, 220 if wide else width - sentence - 40)
    return y + beside


def _scale(svg: Svg, scale: Scale, x: float, y: float, length: float) -> None:
    """A bar of what is free, a mark at what it must exceed, the parts of that sum underneath."""
    most = max(scale.have, scale.need, 1)
    have, need = (max(2.0, length * max(0, n) / most) for n in (scale.have, scale.need))
    colour = "ok" if scale.passed else "bad"
    svg.rect(x, y + 12, have, 14, "free", stroke="freeln")
    svg.line(x + need, y + 6, x + need, y + 30, colour, sw=3)
    below = f"must be above {number(scale.need)}"
    if len(scale.parts) > 1:
        below += " = " + " + ".join(number(pages) for _, pages in scale.parts)
    svg.text(x, y + 4, f"{scale.what} {number(scale.have)}", px=11, bold=True)
    svg.text(x, y + 44, below, px=11, fill=colour)


def _blocks(svg: Svg, blocks: tuple[Block, ...], x: float, y: float, length: float) -> None:
    """Blocks as squares whose area grows with the order; the first pfn under the first ones."""
    at, shown = x, 0
    for block in blocks:
        side = 14 + 3 * block.order
        if at + side > x + length:
            break
        fill, line, ink = _BLOCK[block.state]
        svg.rect(at, y + 2, side, min(side, 26), fill, stroke=line)
        if side >= 20:
            svg.text(at + side / 2, y + 19, block.order, px=11, fill=ink, anchor="middle")
        at += side + 3
        shown += 1
    first = blocks[0]
    words = f"pfn {first.pfn}, order {first.order} {first.state}" if len(blocks) == 1 else f"pfn {first.pfn}"
    if shown < len(blocks):
        words += f", {plural(len(blocks) - shown, 'block')} more"
    svg.text(x, y + 44, words, px=11, fill="ink2", mono=len(blocks) > 1 and shown == len(blocks))


def _rail(svg: Svg, steps: tuple[Step, ...], tops: list[float], width: int) -> None:
    """The way up: from the lowest floor that gave something to the first, with what was handed back."""
    giving = [i for i, step in enumerate(steps) if step.gives]
    if not giving or width <= 560:
        return
    x = width - 24
    bottom = tops[giving[-1]] + 30
    svg.line(x, bottom, x, tops[0] + 8, "ok", sw=2)
    svg.line(x, tops[0] + 8, x - 5, tops[0] + 16, "ok", sw=2)
    svg.line(x, tops[0] + 8, x + 5, tops[0] + 16, "ok", sw=2)
    for i in giving:
        svg.text(x - 8, tops[i] + 20, steps[i].gives, px=11, fill="ok", bold=True, anchor="end", halo=True)
