"""Colours, type and words every panel shares.

The tokens are Okabe-Ito hues, shifted until the contrasts hold: light is free, dark is taken, and hue says
who holds it. Every token has a second cue (a letter, a pattern, a glyph) for those who do not see the hue.
"""

from __future__ import annotations

from html import escape as _escape

__all__ = [
    "DARK",
    "LETTERS",
    "LIGHT",
    "STATE_NAMES",
    "STATE_TOKENS",
    "contrast",
    "css",
    "esc",
    "number",
    "pages",
    "plural",
    "size",
]

LIGHT = {
    "paper": "#FFFFFF",
    "wash": "#F4F6F8",
    "ink": "#1B1F24",
    "ink2": "#4B545E",
    "line": "#6B7580",
    "rule": "#C9D0D7",
    "grid": "#E6EAEE",
    "free": "#CDE7F8",
    "freeln": "#0072B2",
    "pcp": "#F0E442",
    "pcpln": "#6B6200",
    "mov": "#00855F",
    "recl": "#AD7200",
    "slab": "#7B3A66",
    "unmov": "#8A2F00",
    "resv": "#7A838C",
    "lost": "#1B1F24",
    "taken": "#1B1F24",
    "high": "#5B4BB0",
    "accent": "#0072B2",
    "ok": "#00704F",
    "okbg": "#E3F4EE",
    "wait": "#8A5A00",
    "waitbg": "#FBF3DC",
    "bad": "#B23A00",
    "badbg": "#FCEBE2",
    "focus": "#0060C0",
    "onfree": "#1B1F24",
    "ontaken": "#FFFFFF",
}
DARK = {
    "paper": "#14171A",
    "wash": "#1D2125",
    "ink": "#ECEFF2",
    "ink2": "#AEB6BF",
    "line": "#8A949E",
    "rule": "#414A53",
    "grid": "#2A3036",
    "free": "#DAF0FF",
    "freeln": "#2A7FBA",
    "pcp": "#F0E442",
    "pcpln": "#B3A800",
    "mov": "#008A66",
    "recl": "#A58500",
    "slab": "#A04FA0",
    "unmov": "#BE3612",
    "resv": "#707A84",
    "lost": "#D0386B",
    "taken": "#414A53",
    "high": "#8070D0",
    "accent": "#6BBDF0",
    "ok": "#3FC79A",
    "okbg": "#12332A",
    "wait": "#E9B44C",
    "waitbg": "#352A10",
    "bad": "#FF8A57",
    "badbg": "#3A2015",
    "focus": "#7CC4FF",
    "onfree": "#1B1F24",
    "ontaken": "#FFFFFF",
}

# By page state (kmemlab.snapshot): HOLE, RESERVED, FREE, PCP, MOVABLE, RECLAIMABLE, SLAB, UNMOVABLE, LOST.
STATE_TOKENS = ("paper", "resv", "free", "pcp", "mov", "recl", "slab", "unmov", "lost")
STATE_NAMES = (
    "no memory here",
    "reserved at boot",
    "free, in the buddy lists",
    "free, on a per-CPU list",
    "allocated, movable",
    "allocated, reclaimable",
    "allocated, slab",
    "allocated, unmovable",
    "lost: nobody owns it",
)
LETTERS = ("", "", "", "P", "M", "R", "S", "U", "?")


def css(scope: str = ".kml") -> str:
    """The tokens as ``--kml-*`` custom properties: light by default, dark with JupyterLab's dark themes."""

    def block(selector: str, tokens: dict[str, str]) -> str:
        return f"{selector}{{{';'.join(f'--kml-{name}:{value}' for name, value in tokens.items())}}}"

    return block(scope, LIGHT) + block(f'[data-jp-theme-light="false"] {scope}', DARK)


def _luminance(colour: str) -> float:
    total = 0.0
    for i, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        c = int(colour[i : i + 2], 16) / 255
        total += weight * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
    return total


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two ``#RRGGBB`` colours, from 1 to 21."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def esc(text: object) -> str:
    """Text made safe for HTML, SVG and attributes."""
    return _escape(str(text), quote=True)


def number(n: int) -> str:
    """A count with thousands separated."""
    return f"{n:,}"


def plural(n: int, word: str) -> str:
    """``1 page``, ``2 pages``."""
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def pages(n: int) -> str:
    """Pages first, bytes second: ``16 pages (64 KiB)``."""
    return f"{plural(n, 'page')} ({size(n)})"


def size(n: int) -> str:
    """Pages as KiB, MiB, GiB or TiB.

    >>> size(16), size(3840), size(1 << 20)
    ('64 KiB', '15 MiB', '4 GiB')
    """
    value = float(n * 4)
    for unit in ("KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + " TiB"
