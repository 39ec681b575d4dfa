"""SizeClasses: what is given for what is asked, from one byte until NULL, on two kernels.

The classes are a table; the browser has it and answers slider, keys and switches by itself.
"""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import anywidget
import traitlets

from kmemlab.size_classes import LADDERS
from kmemlab.size_classes import SizeClasses as Ladder
from kmemlab.slub_def import SLAB_KMALLOC, KmemCache
from kmemlab.snapshot import Snapshot
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.svg import Svg, text_width
from kmemlab_widgets.theme import css, number

__all__ = ["SizeClasses", "draw", "headline", "subline", "twin"]

MOST = 23  # the axis ends at 2**23 bytes, 8 MiB
FAMILIES = ("normal", "cg", "rcl", "dma")
NOTHING = Snapshot("linux-6.1", "", 0, 0, False, ())


class SizeClasses(Panel, anywidget.AnyWidget):
    """Sizes of kmalloc: ``SizeClasses()``, or ``SizeClasses(m)``, which marks the machine's last kmalloc.

    ``size`` is where the handle stands, in bytes; ``kernel`` "linux-6.1" or "linux-2.6.11"; ``family`` normal, cg,
    rcl or dma. A cell may read and set all three. Errors: ValueError names the argument; setting a value that the
    panel does not have is a TraitError.
    """

    title = "SizeClasses"
    _esm = module("sizeclasses")
    _css = css(".kml-sizeclasses") + (STATIC / "orderslider.css").read_text(encoding="utf-8").replace(
        "kml-orderslider", "kml-sizeclasses"
    ) + (STATIC / "sizeclasses.css").read_text(encoding="utf-8")  # fmt: skip
    size = traitlets.Int(100, min=0, max=1 << MOST).tag(sync=True)
    kernel = traitlets.Enum(tuple(LADDERS), default_value="linux-6.1").tag(sync=True)
    family = traitlets.Enum(FAMILIES, default_value="normal").tag(sync=True)
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(
        self, source: Any = None, *, size: int = 100, kernel: str = "linux-6.1", family: str = "normal",
        follow: bool = True,
    ) -> None:  # fmt: skip
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= 1 << MOST:
            raise ValueError(f"size={size!r}: the panel shows 0 bytes to 8 MiB")
        if kernel not in LADDERS:
            raise ValueError(f"kernel={kernel!r}: the panel knows {', '.join(LADDERS)}")
        if family not in FAMILIES:
            raise ValueError(f"family={family!r}: the families are {', '.join(FAMILIES)}")
        anywidget.AnyWidget.__init__(self, size=size, kernel=kernel, family=family)
        self.start(NOTHING if source is None else source, follow=follow)

    def last_size(self) -> int | None:
        """Bytes asked in the machine's last kmalloc, None if its last call was another."""
        call = getattr(self.machine, "last_plan", None)
        kmalloc = isinstance(call, tuple) and isinstance(call[0], KmemCache) and call[0].flags & SLAB_KMALLOC
        return int(call[2]) if kmalloc and call[2] > 0 else None

    def view(self, snapshot: Snapshot) -> View:
        """The curve, with the handle where it stands."""
        self._mark = self.last_size()
        return self._drawn()

    def _drawn(self) -> View:
        ladder, self._stands = LADDERS[self.kernel], (self.size, self.kernel, self.family)
        wide, narrow = (draw(ladder, self.size, self.family, width, last=self._mark) for width in (868, 358))
        return View(headline(ladder, self.size), twin(ladder, self.size, self.family), wide, narrow)

    def _settle(self) -> None:
        """Draw again where the handle stands now. Late, when somebody looks: sliding costs the kernel nothing."""
        good = self._last is not None and self._last.wide.startswith("<svg")
        if good and self._stands != (self.size, self.kernel, self.family):
            self._last = self._drawn()

    def __repr__(self) -> str:
        self._settle()
        return super().__repr__()

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        self._settle()
        return super()._repr_mimebundle_(**kwargs)

    def show(self, view: View, snapshot: Snapshot | None) -> None:
        """Send the tables of both kernels and the parts of the drawing that do not move."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        self.view_data = json.dumps({
            "ladders": {name: _plain(ladder) for name, ladder in LADDERS.items()},
            "base": {
                name: {f"{w}": str(_base(Svg(w, ""), ladder, _Place(w), 0, self._mark)) for w in (868, 358)}
                for name, ladder in LADDERS.items()
            },
            "places": {f"{w}": _Place(w).plain() for w in (868, 358)},
            "most": MOST,
        })  # fmt: skip


# --- words (the module in the browser has the same; a test compares them) ------------------------------


def _plain(ladder: Ladder) -> dict[str, Any]:
    return {
        "classes": ladder.classes, "largest": ladder.largest, "zero": ladder.zero, "prefixes": dict(ladder.prefixes),
        "old": ladder.kernel == "linux-2.6.11",
    }  # fmt: skip


def source_of(ladder: Ladder, size: int, family: str) -> str:
    """Where the bytes come from: a cache's name, or pages."""
    family = family if family in dict(ladder.prefixes) else "normal"
    name = ladder.cache_name(size or (1 if ladder.zero else 0), family)
    if name:
        return name
    given = ladder.given(size)
    if given is None:
        return "NULL"
    return "ZERO_SIZE_PTR" if not given else f"pages of order {(given >> 12).bit_length() - 1}"


def headline(ladder: Ladder, size: int) -> str:
    """The finding for one size."""
    given = ladder.given(size)
    if given is None:
        return f"kmalloc({number(size)}) gets NULL: {number(ladder.largest)} bytes are the most"
    if not given:
        return "kmalloc(0) gets ZERO_SIZE_PTR (0x10): not NULL, and not to be touched"
    unused = given - size
    if not unused:
        return f"kmalloc({number(size)}) gets {number(given)} bytes: it fits exactly"
    share = f"{math.floor(100 * unused / given + 0.5)} %"
    return f"kmalloc({number(size)}) gets {number(given)} bytes: {number(unused)} of them, {share}, stay unused"


def subline(ladder: Ladder, size: int, family: str = "normal") -> str:
    """Where it comes from, on which kernel, and the least and the most this kernel gives."""
    source, version = source_of(ladder, size, family), ladder.kernel.removeprefix("linux-")
    return f"{source} of Linux {version} · gives {ladder.classes[0]} bytes at least, {number(ladder.largest)} at most"


def amounts(size: int, given: int) -> str:
    """The two parts of the bar."""
    return f"asked {number(size)}, unused {number(given - size)}"


def twin(ladder: Ladder, size: int, family: str = "normal") -> str:
    """The panel in words."""
    below = max((c for c in (*ladder.classes, *_page_sizes(ladder)) if c < size), default=0)
    edge = f" Next class edge below: {number(below)}." if below else ""
    return f"{headline(ladder, size)}\n{source_of(ladder, size, family)}, {ladder.kernel}.{edge}"


def _page_sizes(ladder: Ladder) -> list[int]:
    sizes, size = [], ladder.classes[-1] * 2
    while size <= ladder.largest:
        sizes.append(size)
        size *= 2
    return sizes


# --- the drawing ---------------------------------------------------------------------------------------


class _Place:
    """Where things stand, in pixels below the heading."""

    def __init__(self, width: int) -> None:
        self.narrow = width < 560
        self.left = 40 if self.narrow else 76
        self.right = width - 14
        self.bar, self.tall = 10, 26
        self.top, self.floor = 66, 66 + (110 if self.narrow else 160)

    def x(self, size: float) -> float:
        """Of a size on the log axis; 0 bytes stand with 1."""
        return self.left + (self.right - self.left) * math.log2(max(1, size)) / MOST

    def y(self, share: float) -> float:
        """Of an unused share."""
        return self.floor - (self.floor - self.top) * share

    def plain(self) -> dict[str, Any]:
        """For the browser."""
        names = ("narrow", "left", "right", "bar", "tall", "top", "floor")
        return {name: getattr(self, name) for name in names}


def tooth(at: _Place, low: int, high: int, top: float = 0) -> str:
    """The path of one class: sizes above ``low`` up to ``high``, which is what they are given."""
    sizes = [low + 1 + (high - low - 1) * i / 24 for i in range(25)]
    points = [f"{at.x(n):.1f} {top + at.y((high - n) / high):.1f}" for n in sizes]
    return f"M{at.x(low + 1):.1f} {top + at.floor:.1f}L{'L'.join(points)}Z"


def _short(size: int) -> str:
    return f"{size >> 20}M" if size >= 1 << 20 else f"{size >> 10}k" if size >= 1024 else str(size)


def size_words(n: int) -> str:
    """A size on the axis."""
    return f"{n >> 20} MiB" if n >= 1 << 20 else f"{n >> 10} KiB" if n >= 1024 else str(n)


def _base(svg: Svg, ladder: Ladder, at: _Place, top: float, last: int | None) -> Svg:
    """Axes, teeth, ladder, NULL: what does not move with the handle."""
    for share in (0, 25, 50, 75, 100):
        y = top + at.y(share / 100)
        svg.line(at.left, y, at.right, y, "grid")
        if share < 100:
            svg.text(at.left - 8, y + 4, f"{share} %", px=11, fill="ink2", anchor="end")
    edges = [0, *ladder.classes, *_page_sizes(ladder)]
    for low, high in itertools.pairwise(edges):
        svg.path(tooth(at, low, high, top), fill="var(--kml-wash)", stroke="line")
    null = at.x(ladder.largest + 1)
    svg.rect(null, top + at.top, at.right - null, at.floor - at.top, "badbg")
    svg.text(4 if at.narrow else at.left - 8, top + at.y(1) + 4, "unused", px=11, fill="ink2",
             anchor="start" if at.narrow else "end")  # fmt: skip
    svg.text(at.right - 2, top + at.top + 12, "NULL", px=11, fill="bad", bold=True, anchor="end", halo=True)
    _rungs(svg, ladder, at, edges, top + at.floor + 12)
    axis = top + at.floor + 74
    for power in range(0, MOST, 6 if at.narrow else 3):
        x = at.x(1 << power)
        svg.line(x, axis - 16, x, axis - 12, "line")
        words = "1 byte" if not power else size_words(1 << power)
        svg.text(x, axis, words, px=11, fill="ink2", anchor="start" if not power else "middle")
    if last:
        svg.circle(at.x(last), top + at.floor + 6, 4, "accent")
        svg.text(at.x(last) + 7, top + at.floor + 10, "last call", px=11, halo=True)
    return svg


def _rungs(svg: Svg, ladder: Ladder, at: _Place, edges: list[int], y: float) -> None:
    for low, high in itertools.pairwise(edges):
        x, w = at.x(low + 1), at.x(high) - at.x(low + 1)
        slab = high <= ladder.classes[-1]
        svg.rect(x + 1, y, w - 1, 22, "wash" if slab else "paper", stroke="line")
        if text_width(_short(high), 11) < w - 2:
            svg.text(x + w / 2, y + 15, _short(high), px=11, anchor="middle")
    border = at.x(ladder.classes[-1])
    pages = _page_sizes(ladder)
    svg.text((at.left + border) / 2, y + 38, "slab caches", px=11, fill="ink2", anchor="middle")
    if pages and not at.narrow:
        words = f"whole pages: order {(pages[0] >> 12).bit_length() - 1} to {(pages[-1] >> 12).bit_length() - 1}"
        svg.text((border + at.x(ladder.largest)) / 2, y + 38, words, px=11, fill="ink2", anchor="middle")
    if pages:
        svg.line(border, y - 6, border, y + 42, "ink", sw=1.5)


def draw(ladder: Ladder, size: int, family: str, width: int, *, last: int | None = None) -> str:
    """The drawing as SVG with the handle at ``size`` bytes."""
    svg = Svg(width, headline(ladder, size))
    at = _Place(width)
    top = svg.heading(headline(ladder, size), subline(ladder, size, family)) - 8
    given = ladder.given(size)
    if given:
        part = (at.right - at.left) * size / given
        svg.rect(at.left, top + at.bar, part, at.tall, "slab")
        svg.rect(at.left + part, top + at.bar, at.right - at.left - part, at.tall, "badbg", stroke="bad")
        svg.rect(at.left + part, top + at.bar, at.right - at.left - part, at.tall, svg.pattern("bad"))
        svg.text(at.left, top + at.bar + at.tall + 15, amounts(size, given), px=11)
        if not at.narrow:
            svg.text(at.left - 8, top + at.bar + 17, "bytes", px=11, fill="ink2", anchor="end")
    _base(svg, ladder, at, top, last)
    if given and given > 1:
        edges = [0, *ladder.classes, *_page_sizes(ladder)]
        low = max(edge for edge in edges if edge < max(1, size))
        svg.path(tooth(at, low, given, top), fill=svg.pattern("bad"), stroke="bad", sw=1.5)
        x, wide = at.x(low + 1), at.x(given) - at.x(low + 1)
        svg.rect(x + 1, top + at.floor + 12, wide - 1, 22, stroke="accent", sw=2.5)
    x, y = at.x(size), top + at.y((given - size) / given if given else 0)
    svg.line(x, top + at.top - 8, x, top + at.floor + 34, "accent", sw=2)
    svg.circle(x, y, 8, "focus")
    svg.circle(x, y, 6, "paper")
    svg.circle(x, y, 4, "accent")
    return str(svg)
