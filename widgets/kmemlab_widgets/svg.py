"""Small helpers to write SVG as text. Colours are tokens, written as ``var(--kml-...)``."""

from __future__ import annotations

import functools
import html
import re
import zlib
from urllib.parse import quote

from kmemlab_widgets.theme import LIGHT, esc

__all__ = ["SANS", "Svg", "data_uri", "fit", "flat", "shortened", "text_width"]

_OTHER_QUOTES = str.maketrans({'"': "'", "'": '"'})
SANS = "var(--jp-ui-font-family, system-ui), system-ui, 'DejaVu Sans', sans-serif"
MONO = "var(--jp-code-font-family, ui-monospace), ui-monospace, 'DejaVu Sans Mono', monospace"

# A token's second cue, in a cell of 6 x 6: upright lines, dots, diagonals, level lines.
SHAPES = {
    "unmov": '<path d="M2 0V6"/>',
    "mov": '<circle cx="3" cy="3" r="1.1" stroke="none"/>',
    "recl": '<path d="M-1 1L1 -1M0 6L6 0M5 7L7 5"/>',
    "high": '<path d="M0 3H6"/>',
    "resv": '<path d="M-1 1L1 -1M0 6L6 0M5 7L7 5"/>',
    "bad": '<path d="M-1 1L1 -1M0 6L6 0M5 7L7 5"/>',
}


class Svg:
    """A drawing being written. Coordinates are pixels, colours are names of theme tokens."""

    def __init__(self, width: int, label: str) -> None:
        self.width = width
        self.height = 0.0
        self.label = label
        self.parts: list[str] = []
        self.patterns: dict[str, str] = {}

    def grow(self, bottom: float) -> None:
        """Make sure the drawing reaches down to ``bottom``."""
        self.height = max(self.height, bottom)

    def rect(self, x: float, y: float, w: float, h: float, fill: str = "none", *, stroke: str = "", sw: float = 1.0,
             dash: str = "", rx: float = 0) -> None:  # fmt: skip
        """A rectangle; ``fill`` and ``stroke`` are tokens."""
        paint = f'fill="{_paint(fill)}"'
        if stroke:
            paint += f' stroke="{_paint(stroke)}" stroke-width="{sw:g}"' + (
                f' stroke-dasharray="{dash}"' if dash else ""
            )
        corner = f' rx="{rx:g}"' if rx else ""
        self.parts.append(f'<rect x="{x:g}" y="{y:g}" width="{max(0, w):g}" height="{max(0, h):g}"{corner} {paint}/>')
        self.grow(y + h)

    def line(self, x1: float, y1: float, x2: float, y2: float, stroke: str = "line", *, sw: float = 1.0,
             dash: str = "") -> None:  # fmt: skip
        """A straight line."""
        extra = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{_paint(stroke)}" '
            f'stroke-width="{sw:g}"{extra}/>'
        )
        self.grow(max(y1, y2))

    def text(self, x: float, y: float, words: object, *, px: float = 12, fill: str = "ink", bold: bool = False,
             anchor: str = "start", mono: bool = False, halo: bool = False) -> None:  # fmt: skip
        """A line of text with its baseline at ``y``."""
        look = f' font-size="{px:g}"' + (f' font-family="{esc(MONO)}"' if mono else "")
        if bold:
            look += ' font-weight="600"'
        if halo:
            look += f' paint-order="stroke" stroke="{_paint("paper")}" stroke-width="3" stroke-linejoin="round"'
        place = "" if anchor == "start" else f' text-anchor="{anchor}"'
        self.parts.append(f'<text x="{x:g}" y="{y:g}"{place}{look} fill="{_paint(fill)}">{esc(words)}</text>')
        self.grow(y + px * 0.35)

    def heading(self, headline: str, sub: str, *, left: float = 14) -> float:
        """Write the two lines every drawing begins with; returns where the drawing goes on."""
        y = 20.0
        for line in fit(headline, 16, self.width - left - 14, bold=True):
            self.text(left, y, line, px=16, bold=True)
            y += 20
        for line in fit(sub, 12, self.width - left - 14):
            self.text(left, y, line, fill="ink2")
            y += 16
        return y

    def circle(self, x: float, y: float, r: float, fill: str) -> None:
        """A filled circle."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{_paint(fill)}"/>')
        self.grow(y + r)

    def path(self, d: str, *, fill: str = "none", stroke: str = "", sw: float = 1.0, dash: str = "") -> None:
        """A path; make room for it with ``grow``."""
        paint = f' stroke="{_paint(stroke)}" stroke-width="{sw:g}"' if stroke else ""
        paint += f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<path d="{d}" fill="{_paint(fill)}"{paint}/>')

    def pattern(self, token: str) -> str:
        """The second cue of a token, to be used as a fill: lines, dots or a hatch in its colour."""
        if token not in self.patterns:
            # Two drawings in one page may not share an id: a pattern inside a hidden drawing is not painted.
            self.patterns[token] = f"kml-{token}_{self.width}_{zlib.crc32(self.label.encode()):x}"
        return f"url(#{self.patterns[token]})"

    def _defs(self) -> str:
        if not self.patterns:
            return ""
        return "<defs>" + "".join(
            f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" stroke="{_paint(token)}" '
            f'fill="{_paint(token)}" stroke-width="1">{SHAPES[token]}</pattern>'
            for token, name in self.patterns.items()
        ) + "</defs>"  # fmt: skip

    def raw(self, markup: str) -> None:
        """Markup written elsewhere (already escaped)."""
        self.parts.append(markup)

    def __str__(self) -> str:
        height = round(self.height + 8)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {height}" width="{self.width}" '
            f'height="{height}" role="img" aria-label="{esc(self.label)}" '
            f'style="max-width:100%;display:block;font-family:{esc(SANS)};font-variant-numeric:tabular-nums">'
            f"{self._defs()}"
            f'<rect width="{self.width}" height="{height}" fill="{_paint("paper")}"/>{"".join(self.parts)}</svg>'
        )


def _paint(token: str) -> str:
    return token if token == "none" or token.startswith(("url(", "var(")) else f"var(--kml-{token})"


@functools.lru_cache(maxsize=4096)
def text_width(words: str, px: float, *, mono: bool = False, bold: bool = False) -> float:
    """About how wide a text is, in pixels, in DejaVu (the widest font a panel must fit)."""
    if mono:
        return len(words) * px * 0.602
    narrow = sum(c in "iljtf.,:;|'!() " for c in words)
    wide = sum(c in "mwMW@%—" for c in words)
    return (len(words) * 0.62 - narrow * 0.27 + wide * 0.3) * px * (1.1 if bold else 1.0)


def shortened(words: str, width: float, px: float = 11) -> str:
    """As much of a text as ``width`` holds, with ``…`` where it was cut."""
    while len(words) > 2 and text_width(words, px) > width:
        words = f"{words.removesuffix('…')[:-1]}…"
    return words


def fit(words: str, px: float, width: float, *, bold: bool = False, mono: bool = False) -> list[str]:
    """Break a text into lines that fit ``width``: between words, behind the ``|`` of a mask and the ``(`` of a call."""
    lines, line = [], ""
    for word in re.sub(r"(\||(?<=\w)\()", "\\1\u200b ", words).split():
        trial = (line.removesuffix("\u200b") if line.endswith("\u200b") else f"{line} ".lstrip()) + word
        if line and text_width(trial, px, bold=bold, mono=mono) > width:
            lines.append(line)
            line = word
        else:
            line = trial
    return [each.removesuffix("\u200b") for each in ([*lines, line] if line else lines)]


def flat(svg: str) -> str:
    """The drawing with the light theme's colours and plain fonts written in, to stand alone as a picture."""
    svg = re.sub(r"var\(--kml-(\w+)\)", lambda m: LIGHT[m[1]], svg)
    return re.sub(r"var\(--jp-[\w-]+, ([\w-]+)\)", r"\1", svg)


def _short(svg: str) -> str:
    """The same drawing with looks that many texts share written once, as classes: a third less to store."""
    looks: dict[str, str] = {}

    def named(match: re.Match[str]) -> str:
        look = match[2].strip()
        name = looks.setdefault(look, f"t{len(looks)}")
        return f'<text{match[1]} class="{name}">'

    svg = re.sub(r'<text((?: [xy]="[^"]*")+)((?: [a-z-]+="[^"]*")+)>', named, svg)
    rules = ""
    for look, name in looks.items():
        pairs = re.findall(r'([a-z-]+)="([^"]*)"', look)
        rules += f".{name}{{{';'.join(_css(*pair) for pair in pairs)}}}"
    return re.sub(r">", f"><style>{rules}</style>", svg, count=1)


def _css(name: str, value: str) -> str:
    return f"{name}:{value}px" if name == "font-size" else f"{name}:{html.unescape(value)}"


def data_uri(svg: str) -> str:
    """The drawing as a data URI for an ``<img>``: percent-encoded, a fifth less to store than in base64."""
    swapped = _short(flat(svg)).translate(_OTHER_QUOTES)  # an apostrophe needs no escape here; texts have none raw
    return "data:image/svg+xml," + quote(swapped, safe=" =:/'(),;-.+*!?@[]{}|~$")
