"""SlabView's words and drawing: the slabs of one cache on their shelves, object by object. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kmemlab.snapshot import CacheCpuSnapshot, CacheSnapshot, SlabSnapshot
from kmemlab_widgets.svg import Svg, fit
from kmemlab_widgets.theme import number, plural

__all__ = ["Box", "all_slabs", "draw", "free_of", "headline", "next_object", "subline", "twin"]

MOST_SLABS = 40  # of a list that are drawn
BAR_FROM = 33  # objects a slab from which small slabs are bars


@dataclass(frozen=True, slots=True)
class Box:
    """Where a slab stands: objects of ``cell`` px, ``cols`` a row, from (x, y) on; what the browser hits."""

    pfn: int
    x: float
    y: float
    cols: int
    cell: float
    objects: int
    free: tuple[int, ...]  # next one first
    where: str

    def sent(self) -> dict[str, object]:
        """The fields as they go to the browser; dataclasses.asdict would copy each of them first."""
        return {name: getattr(self, name) for name in self.__slots__}


# --- words ------------------------------------------------------------------------------------------


def all_slabs(cache: CacheSnapshot) -> Iterator[SlabSnapshot]:
    """Every slab once."""
    for c in cache.cpus:
        yield from ([c.slab] if c.slab else ())
        yield from c.partial
    yield from cache.node_partial
    yield from cache.full


def free_of(cache: CacheSnapshot, slab: SlabSnapshot) -> tuple[int, ...]:
    """Free objects of a slab, a CPU's own first."""
    own = [c.freelist for c in cache.cpus if c.slab is slab]
    return (*(own[0] if own else ()), *slab.freelist)


def _counts(cache: CacheSnapshot) -> tuple[int, int, int, int]:
    """(slabs, objects in use, free objects, pages that a shrink would give back)."""
    slabs = live = free = back = 0
    for slab in all_slabs(cache):
        idle = len(free_of(cache, slab))
        slabs, live, free = slabs + 1, live + slab.objects - idle, free + idle
        back += (1 << slab.order) if idle == slab.objects else 0
    return slabs, live, free, back


def next_object(cache: CacheSnapshot) -> tuple[int, int, str] | None:
    """(pfn, index, which list) of the object that the running CPU is given next; None: a new slab is built."""
    c = cache.cpus[cache.cpu]
    if c.slab and c.freelist:
        return c.slab.pfn, c.freelist[0], f"CPU {cache.cpu}'s list"
    if c.slab and c.slab.freelist:
        return c.slab.pfn, c.slab.freelist[0], "what others freed into the cpu slab"
    lists = ((c.partial, f"CPU {cache.cpu}'s partial list"), (cache.node_partial, "the node's partial list"))
    for slabs, words in lists:
        if slabs and slabs[0].freelist:
            return slabs[0].pfn, slabs[0].freelist[0], words
    return None


def headline(cache: CacheSnapshot) -> str:
    """The finding: which object comes next."""
    name = cache.names[0]
    if not any(True for _ in all_slabs(cache)):
        return f"{name}: no slabs yet, the first allocation builds one"
    coming = next_object(cache)
    if coming is None:
        return f"{name}: nothing is free, the next allocation on CPU {cache.cpu} builds a slab"
    pfn, index, where = coming
    return f"{name}: next on CPU {cache.cpu} is object {index} of slab {pfn}, from {where}"


def subline(cache: CacheSnapshot) -> str:
    """Sizes and sums."""
    slabs, live, free, back = _counts(cache)
    pages = plural(1 << cache.order, "page")
    shape = f"{number(cache.object_size)} bytes every {number(cache.size)}, {cache.objects} in a slab of {pages}"
    return (
        f"{shape} · {plural(slabs, 'slab')}, {number(live)} in use, {number(free)} free · "
        f"{plural(back, 'page')} could go back"
    )


def twin(cache: CacheSnapshot) -> str:
    """The panel in words."""
    slabs, live, free, back = _counts(cache)
    shelves = "; ".join(
        f"CPU {c.cpu}: cpu slab {c.slab.pfn if c.slab else 'none'}, {len(c.freelist)} on its list, "
        f"cpu partial {len(c.partial)}"
        for c in cache.cpus
    )
    text = (
        f"{headline(cache)}\n{plural(slabs, 'slab')} of {plural(1 << cache.order, 'page')}, {live} objects in use, "
        f"{free} free. {shelves}; node partial {len(cache.node_partial)}, full {len(cache.full)}; "
        f"{plural(back, 'page')} could go back."
    )
    if len(cache.names) > 1:
        text += f" Shared by {', '.join(cache.names)}."
    return text


# --- the drawing --------------------------------------------------------------------------------------


def draw(cache: CacheSnapshot, width: int) -> tuple[str, list[Box]]:
    """(SVG, where the slabs stand)."""
    svg, boxes = Svg(width, headline(cache)), []
    y = svg.heading(headline(cache), subline(cache)) + 4
    if len(cache.names) > 1:
        y = _names(svg, cache, y)
    narrow = width < 560
    if not any(True for _ in all_slabs(cache)):
        svg.rect(14, y, width - 28, 40, stroke="rule", dash="4 3")
        svg.text(26, y + 24, "no slabs yet", fill="ink2")
        svg.grow(y + 48)
        return str(svg), boxes
    across = 1 if narrow else min(len(cache.cpus), 4) if len(cache.cpus) > 1 else 2
    column = (width - 28) / across
    bottom = y
    for i, c in enumerate(cache.cpus):
        if i and i % across == 0:
            y = bottom + 12
        x = 14 + (i % across) * column
        bottom = max(bottom, _cpu(svg, cache, c, x, y, column - 24, boxes, beside=len(cache.cpus) == 1 and not narrow))
    y = bottom + 12
    svg.line(14, y, width - 14, y, "rule")
    svg.text(14, y + 20, f"node partial list: {plural(len(cache.node_partial), 'slab')}", bold=True)
    full = "1 full slab is on no list" if len(cache.full) == 1 else f"{len(cache.full)} full slabs are on no list"
    if narrow:
        svg.text(14, y + 36, full, px=11, fill="ink2")
    else:
        svg.text(width - 14, y + 20, full, px=11, fill="ink2", anchor="end")
    y = _shelf(
        svg, cache, cache.node_partial, 14, y + (44 if narrow else 30), width - 28, "the node's partial list", boxes
    )
    _legend(svg, width, y + 12)
    return str(svg), boxes


def _names(svg: Svg, cache: CacheSnapshot, y: float) -> float:
    """The merge group: its first name is the row in slabinfo."""
    svg.text(14, y + 10, "one cache for:", px=11, fill="ink2")
    svg.text(100, y + 10, cache.names[0], px=11, bold=True, mono=True)
    for line in fit(", ".join(cache.names[1:]), 11, svg.width - 128, mono=True)[:3]:
        y += 15
        svg.text(100, y + 10, line, px=11, mono=True)
    return y + 22


def _cpu(
    svg: Svg, cache: CacheSnapshot, c: CacheCpuSnapshot, x: float, y: float, width: float, boxes: list[Box], *,
    beside: bool,
) -> float:  # fmt: skip
    """One CPU: its slab large, its partial list small below it (or beside it)."""
    svg.text(
        x, y + 12, f"CPU {c.cpu}" + (" (running)" if c.cpu == cache.cpu and len(cache.cpus) > 1 else ""), bold=True
    )
    top = y + 20
    bottom = top
    if c.slab is None:
        svg.rect(x, top, width, 30, stroke="rule", dash="4 3")
        svg.text(x + 10, top + 19, "no cpu slab", px=11, fill="ink2")
        bottom = top + 34
    else:
        cols = 8 if c.slab.objects <= 16 else 16 if c.slab.objects <= 64 else 32
        cell = min(34.0, width / cols)
        rows = -(-c.slab.objects // cols)
        own = set(c.freelist)
        box = Box(
            c.slab.pfn, x + 2, top + 2, cols, cell, c.slab.objects, free_of(cache, c.slab), f"cpu slab of CPU {c.cpu}"
        )
        _slab(svg, cache, box, own)
        svg.rect(x, top, cols * cell + 4, rows * cell + 4, stroke="ink", sw=2)
        boxes.append(box)
        bottom = top + rows * cell + 22
        words = f"cpu slab {c.slab.pfn}: {len(c.freelist)} on its list"
        words += f", {len(c.slab.freelist)} freed by others" if c.slab.freelist else ""
        svg.text(x, bottom, words, px=11)
    if beside:
        _partial(svg, cache, c, x + width + 24, y, width, boxes)
        return max(bottom, svg.height) + 4
    return _partial(svg, cache, c, x, bottom + 6, width, boxes)


def _partial(
    svg: Svg, cache: CacheSnapshot, c: CacheCpuSnapshot, x: float, y: float, width: float, boxes: list[Box]
) -> float:
    svg.text(x, y + 12, f"cpu partial list: {plural(len(c.partial), 'slab')}", px=12, bold=True)
    return _shelf(svg, cache, c.partial, x, y + 20, width, f"partial list of CPU {c.cpu}", boxes)


def _shelf(
    svg: Svg, cache: CacheSnapshot, slabs: Sequence[SlabSnapshot], x: float, y: float, width: float, where: str,
    boxes: list[Box],
) -> float:  # fmt: skip
    """Small slabs side by side, head of the list first; returns the bottom."""
    if not slabs:
        svg.text(x, y + 12, "no partial slabs", px=11, fill="ink2")
        return y + 18
    objects = cache.objects
    cell = 10 if objects <= 16 else 7
    wide = objects * cell if objects < BAR_FROM else 120
    across = max(1, int((width + 12) // (wide + 40)))
    for i, slab in enumerate(slabs[:MOST_SLABS]):
        sx, sy = x + (i % across) * (wide + 40), y + i // across * 18
        free = len(slab.freelist)
        if objects < BAR_FROM:
            box = Box(slab.pfn, sx, sy, slab.objects, cell, slab.objects, slab.freelist, where)
            _slab(svg, cache, box, set())
            boxes.append(box)
        else:
            share = wide * (slab.objects - free) / slab.objects
            svg.rect(sx, sy, share, 10, "slab")
            svg.rect(sx + share, sy, wide - share, 10, "free", stroke="freeln")
        svg.text(sx + wide + 6, sy + 9, free, px=11, fill="ink2")
    bottom = y + -(-min(len(slabs), MOST_SLABS) // across) * 18
    if len(slabs) > MOST_SLABS:
        svg.text(x, bottom + 12, f"and {len(slabs) - MOST_SLABS} more", px=11, fill="ink2")
        bottom += 16
    return bottom


def _slab(svg: Svg, cache: CacheSnapshot, box: Box, own: set[int]) -> None:
    """Objects in address order: dark taken, light free with its place on the list, the next one filled."""
    coming = next_object(cache)
    rows = -(-box.objects // box.cols)
    last = box.objects - (rows - 1) * box.cols
    for row in range(rows):
        svg.rect(box.x, box.y + row * box.cell, (box.cols if row < rows - 1 else last) * box.cell, box.cell, "slab")
    grid = [f"M{box.x + i * box.cell:g} {box.y:g}v{rows * box.cell:g}" for i in range(1, box.cols)]
    grid += [f"M{box.x:g} {box.y + i * box.cell:g}h{box.cols * box.cell:g}" for i in range(1, rows)]
    svg.path("".join(grid), stroke="paper", sw=1)
    if box.cell < 18:
        _small_free(svg, box, own, coming)
    else:
        _numbered_free(svg, box, own, coming)
    if cache.last and cache.last[0] == box.pfn and cache.last[1] not in box.free and cache.last[1] >= 0:
        x = box.x + cache.last[1] % box.cols * box.cell
        y = box.y + cache.last[1] // box.cols * box.cell
        svg.rect(x + 1, y + 1, box.cell - 2, box.cell - 2, stroke="paper", sw=3)
        svg.rect(x + 1, y + 1, box.cell - 2, box.cell - 2, stroke="ink", sw=1.5)


def _at(box: Box, index: int) -> tuple[float, float]:
    """Where object ``index`` of a slab stands."""
    return box.x + index % box.cols * box.cell, box.y + index // box.cols * box.cell


def _numbered_free(svg: Svg, box: Box, own: set[int], coming: tuple[int, int, str] | None) -> None:
    for place, index in enumerate(box.free, 1):
        x, y = _at(box, index)
        first = coming is not None and (box.pfn, index) == coming[:2]
        dash = "2 2" if own and index not in own else ""
        fill = "accent" if first else "free"
        svg.rect(x + 0.5, y + 0.5, box.cell - 1, box.cell - 1, fill, stroke="freeln", dash=dash)
        words = "paper" if first else "onfree"
        svg.text(x + box.cell / 2, y + box.cell / 2 + 4, place, px=11, fill=words, anchor="middle")


def _small_free(svg: Svg, box: Box, own: set[int], coming: tuple[int, int, str] | None) -> None:
    """Free objects too small for a number: one path for all of a kind, a cache may have hundreds."""
    first = {coming[1]} if coming is not None and coming[0] == box.pfn else set()
    others = {index for index in box.free if own and index not in own}
    kinds = ((first, "accent", ""), (others - first, "free", "2 2"), ({*box.free} - others - first, "free", ""))
    side = box.cell - 1
    for indices, fill, dash in kinds:
        places = (_at(box, index) for index in box.free if index in indices)
        if d := "".join(f"M{x + 0.5:g} {y + 0.5:g}h{side:g}v{side:g}h-{side:g}z" for x, y in places):
            svg.path(d, fill=fill, stroke="freeln", dash=dash)


def _legend(svg: Svg, width: int, y: float) -> None:
    entries = [("slab", "", "in use"), ("accent", "", "next"), ("free", "", "free: its place on the list"),
               ("free", "2 2", "freed by others")]  # fmt: skip
    x = 14.0
    for token, dash, words in entries:
        if x + 150 > width:
            x, y = 14.0, y + 18
        svg.rect(x, y, 11, 11, token, stroke="freeln" if token == "free" else "", dash=dash)
        svg.text(x + 17, y + 10, words, px=11)
        x += 34 + len(words) * 6.6
    svg.grow(y + 14)
