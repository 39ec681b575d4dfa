"""RequestPath: what one call did, floor by floor, and which number decided."""

from __future__ import annotations

from typing import Any

from kmemlab.snapshot import Snapshot
from kmemlab.story import Block, Scale, Step, Story
from kmemlab_widgets.panel import HtmlPanel, View
from kmemlab_widgets.svg import Svg, fit, text_width
from kmemlab_widgets.theme import number
from kmemlab_widgets.zonemap_layout import block_rect

__all__ = ["RequestPath", "draw"]

_BLOCK = {"taken": ("taken", "ink", "ontaken"), "pcp": ("pcp", "pcpln", "onfree"), "free": ("free", "freeln", "onfree")}
_FLOOR, _GLYPH = 80, 16  # room before what was tried in a round: its floor, its mark
_MARK = {True: "✓ ", False: "✕ ", None: ""}
_BEFORE = "no request yet: run the next cell"


class RequestPath(HtmlPanel):
    """The last request of a machine, or a Story: one row a floor, downwards; what each hands back at the right."""

    title = "RequestPath"

    def __init__(self, source: Any, *, story: Story | None = None, follow: bool = True) -> None:
        self._story = story
        super().__init__(source, follow=follow)

    def view(self, snapshot: Snapshot) -> View:
        """Draw the story at both widths."""
        story = self._story or (self.machine.explain() if self.machine is not None else Story(_BEFORE))
        where = f"{snapshot.label}" + (", recorded from Linux 6.1" if snapshot.recorded else "")
        sub = f"{where} · call {number(snapshot.calls)}"
        return View(story.headline, str(story), draw(story, sub, 868), draw(story, sub, 358))


def draw(story: Story, sub: str, width: int) -> str:
    """The drawing of a story as SVG, for 868 or 358 px."""
    svg = Svg(width, story.headline)
    y = svg.heading(story.headline, sub) + 4
    if not story.steps:
        svg.rect(14, y, width - 28, 40, "none", stroke="rule", dash="4 3")
        svg.text(24, y + 24, _BEFORE, fill="ink2")
    row = _wide_row if width > 560 else _narrow_row
    dots: list[tuple[float, float, Step]] = []
    for step in story.steps:
        y = row(svg, step, y, dots) + 6
    if dots and width > 560:
        _rail(svg, dots, width)
    _dots(svg, dots)
    for line in fit(story.note, 12, width - 28):
        svg.text(14, y + 12, line, fill="ink2")
        y += 16
    return str(svg)


def _row_box(svg: Svg, step: Step, y: float, height: float) -> None:
    edge = {True: "accent", False: "bad", None: "line"}[step.verdict]
    svg.rect(14, y, svg.width - 28, height, "wash")
    svg.rect(14, y, 4, height, edge)


def _name_lines(name: str) -> list[str]:
    """A function's name for the left column; the longest ones are broken behind an underscore."""
    if len(name) <= 23:
        return [name]
    cut = name.rfind("_", 0, 23) + 1 or 23
    return [name[:cut], *_name_lines(name[cut:])]


def _sentence(svg: Svg, x: float, y: float, say: list[str], why: list[str]) -> None:
    for line in say:
        svg.text(x, y, line, px=13, bold=True)
        y += 17
    for line in why:
        svg.text(x, y, line, fill="ink2")
        y += 15


def _part_lines(step: Step, room: float) -> list[tuple[Step, list[str]]]:
    """What was tried in a round, each broken into lines that fit."""
    return [(part, fit(part.say + (f" ({part.why})" if part.why else ""), 12, room)) for part in step.parts]


def _parts_height(parts: list[tuple[Step, list[str]]]) -> float:
    return sum(15 * len(words) + 4 for _, words in parts) + (4 if parts else 0)


def _draw_parts(svg: Svg, x: float, y: float, parts: list[tuple[Step, list[str]]], *, floors: bool) -> None:
    """What was tried, one under the other, each with its mark; its floor before it where there is room."""
    at = x + (_FLOOR if floors else 0)
    y += 4
    for part, words in parts:
        if floors:
            svg.text(x, y, part.floor, px=11, mono=True, fill="ink2")
        if part.verdict is not None:
            svg.text(at, y, _MARK[part.verdict].strip(), fill="ok" if part.verdict else "bad", bold=True)
        for line in words:
            svg.text(at + _GLYPH, y, line)
            y += 15
        y += 4


def _wide_row(svg: Svg, step: Step, y: float, dots: list[tuple[float, float, Step]]) -> float:
    """One floor: where in the kernel, number, sentence, picture; returns its lower edge."""
    picture = bool(step.scale or step.blocks)
    x, right = 212, 556
    room = (right - 16 if picture else svg.width - 110) - x
    say, why = fit(_MARK[step.verdict] + step.say, 13, room, bold=True), fit(step.why, 12, room)
    parts = _part_lines(step, svg.width - 50 - x - _FLOOR - _GLYPH)
    words = 17 * len(say) + 15 * len(why) + _parts_height(parts)
    where = [*_name_lines(step.function), step.file]
    height = max(words + 22, 30 + 14 * len(where), _picture_height(step) + 16)
    _row_box(svg, step, y, height)
    svg.text(28, y + 20, step.floor, px=13, mono=True, bold=True)
    for i, line in enumerate(where):
        svg.text(28, y + 35 + 14 * i, line, px=11, mono=True, fill="ink2")
    top = y + (height - words) / 2 + 12
    _sentence(svg, x, top, say, why)
    _draw_parts(svg, x, top + 17 * len(say) + 15 * len(why), parts, floors=True)
    dots.append((190, top - 4, step))
    _picture(svg, step, right, y + (height - _picture_height(step)) / 2, 190)
    return y + height


def _narrow_row(svg: Svg, step: Step, y: float, dots: list[tuple[float, float, Step]]) -> float:
    """The same for a phone: the picture and what is handed back stand under the sentence."""
    x, room = 50, svg.width - 72
    say, why = fit(_MARK[step.verdict] + step.say, 13, room, bold=True), fit(step.why, 12, room)
    parts = _part_lines(step, room - _GLYPH)
    words = 17 * len(say) + 15 * len(why) + _parts_height(parts)
    picture = _picture_height(step)
    height = 44 + words + (picture + 8 if picture else 0) + (16 if _gives(step) else 0)
    _row_box(svg, step, y, height)
    svg.text(x, y + 17, step.floor, px=12, mono=True, bold=True)
    svg.text(x + text_width(step.floor, 12, mono=True) + 10, y + 17, step.file, px=11, mono=True, fill="ink2")
    svg.text(x, y + 31, step.function, px=11, mono=True, fill="ink2")
    dots.append((33, y + 18, step))
    _sentence(svg, x, y + 50, say, why)
    _draw_parts(svg, x, y + 50 + 17 * len(say) + 15 * len(why), parts, floors=False)
    at = y + 44 + words
    _picture(svg, step, x, at, 200)
    if _gives(step):
        svg.text(x, y + height - 8, f"↑ {step.gives}", px=11, fill="ok", bold=True)
    return y + height


def _gives(step: Step) -> str:
    """What a floor hands back upstairs; one that said no hands back nothing."""
    return "" if step.verdict is False else step.gives


def _dots(svg: Svg, dots: list[tuple[float, float, Step]]) -> None:
    """The numbers of the steps, with the line that joins them."""
    if len(dots) > 1:
        svg.line(dots[0][0], dots[0][1], dots[-1][0], dots[-1][1], "ink", sw=2)
    for count, (x, y, step) in enumerate(dots, 1):
        svg.circle(x, y, 10, "bad" if step.verdict is False else "ink")
        svg.text(x, y + 4, count, px=11, fill="paper", bold=True, anchor="middle")


def _rail(svg: Svg, dots: list[tuple[float, float, Step]], width: int) -> None:
    """The way up: from the lowest floor that gave something to the first, with what was handed back."""
    giving = [(y, step) for _, y, step in dots if _gives(step)]
    if not giving or dots[-1][2].verdict is False:  # it ended with NULL: nothing came up
        return
    x, top = width - 28, dots[0][1] - 8
    svg.line(x, giving[-1][0] + 6, x, top + 6, "ok", sw=2)
    svg.path(f"M{x} {top:g}l-5 9h10z", fill="ok")
    for y, step in giving:
        svg.text(x - 10, y + 4, step.gives, px=11, fill="ok", bold=True, anchor="end", halo=True)


# --- the numbers as a picture -----------------------------------------------------------------------


def _parts(scale: Scale) -> list[str]:
    """What the sum is made of, when it is a sum."""
    if len(scale.parts) < 2:
        return []
    return fit("= " + " + ".join(f"{name} {number(pages)}" for name, pages in scale.parts), 11, 266)


def _picture_height(step: Step) -> float:
    if step.scale:
        return 38 + (8 + 13 * len(_parts(step.scale)) if len(step.scale.parts) > 1 else 0)
    return 62 if step.blocks else 0


def _picture(svg: Svg, step: Step, x: float, y: float, length: float) -> None:
    if step.scale:
        _scale(svg, step.scale, x, y, length)
    elif step.blocks:
        _blocks(svg, step.blocks, x, y, length)


def _scale(svg: Svg, scale: Scale, x: float, y: float, length: float) -> None:
    """A bar of what is free, a mark at what it must exceed, the parts of that sum bracketed underneath."""
    most = max(scale.have, scale.need, 1)
    have, need = (length * max(0, n) / most for n in (scale.have, scale.need))
    colour = "ok" if scale.passed else "bad"
    svg.rect(x, y + 18, max(1.0, have), 16, "free", stroke="freeln")
    label = f"{scale.what} {number(scale.have)}"
    wide = text_width(label, 11, bold=True)
    if have > wide + 16:  # in the bar, at the end that the mark leaves free
        if have - need < wide + 14 and need > wide + 14:
            svg.text(x + 6, y + 30, label, px=11, bold=True, fill="onfree")
        else:
            svg.text(x + have - 6, y + 30, label, px=11, bold=True, fill="onfree", anchor="end")
    else:
        svg.text(x + have + 8, y + 30, label, px=11, bold=True)
    svg.line(x + need, y + 18, x + need, y + 34, "wash", sw=6)  # the mark stands out from the bar in each theme
    svg.line(x + need, y + 13, x + need, y + 38, colour, sw=3)
    svg.path(f"M{x + need - 5:g} {y + 11:g}h10l-5 6z", fill=colour)
    words = f"must be above {number(scale.need)}"
    half = text_width(words, 11, bold=True) / 2
    middle = min(max(x + need, x + half - 4), x + length + 22 - half)
    svg.text(middle, y + 8, words, px=11, fill=colour, bold=True, anchor="middle")
    if len(scale.parts) > 1:
        at, ticks = 0.0, f"M{x:g} {y + 40:g}v4H{x + need:g}v-4"
        for _, pages in scale.parts[:-1]:
            at += length * pages / most
            ticks += f"M{x + at:g} {y + 40:g}v4"
        svg.path(ticks, stroke="line")
        for i, line in enumerate(_parts(scale)):
            svg.text(x, y + 56 + 13 * i, line, px=11, fill="ink2")
    svg.grow(y + _picture_height(Step("", "", "", "", scale=scale)))


def _pieces(blocks: tuple[Block, ...]) -> int | None:
    """The order of the block that these blocks are the pieces of, the first one lowest; None if of no block."""
    total = sum(1 << block.order for block in blocks)
    order = total.bit_length() - 1
    first = blocks[0].pfn
    whole = len(blocks) > 1 and total == 1 << order and first % total == 0
    return order if whole and all(first <= b.pfn < first + total for b in blocks) else None


def _blocks(svg: Svg, blocks: tuple[Block, ...], x: float, y: float, length: float) -> None:
    """Blocks in their true shapes; a block that was split as the pieces it fell into."""
    whole = _pieces(blocks)
    order = whole if whole is not None else max(block.order for block in blocks)
    _, _, _, tall = block_rect(0, order)
    unit = min(12.0, 40 / tall)
    at, shown = 0.0, 0
    for block in blocks:
        across, down, w, h = block_rect(block.pfn, block.order)
        left, top, _, _ = block_rect(blocks[0].pfn, 0)
        place = ((across - left) * unit, (down - top) * unit) if whole is not None else (at, 0.0)
        if place[0] + w * unit > length + 24:
            break
        fill, line, ink = _BLOCK[block.state]
        svg.rect(x + place[0], y + 4 + place[1], w * unit, h * unit, fill, stroke=line, sw=1 + (block.state == "taken"))
        if w * unit >= 18 and h * unit >= 14:
            svg.text(x + place[0] + w * unit / 2, y + 8 + place[1] + h * unit / 2, block.order, px=11, fill=ink,
                     anchor="middle")  # fmt: skip
        at += w * unit + 2
        shown += 1
    svg.text(x, y + 4 + tall * unit + 14, fit(_caption(blocks, whole, shown), 11, 250)[0], px=11, fill="ink2")


def _caption(blocks: tuple[Block, ...], whole: int | None, shown: int) -> str:
    """The frame numbers under the picture."""
    first = blocks[0]
    if whole is not None:
        return f"order {whole} at pfn {first.pfn}, ours is the dark part"
    if len(blocks) == 1:
        return f"pfn {first.pfn}, order {first.order}, " + {"pcp": "on a per-CPU list"}.get(first.state, first.state)
    words = f"pfn {first.pfn}, then {blocks[1].pfn}"
    if len(blocks) > 2:
        words += " …" if shown == len(blocks) else f" … {number(len(blocks) - shown)} more"
    return words
