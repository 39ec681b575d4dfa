"""Damage to a text, drawn by hypothesis: lines left out, doubled, cut or replaced."""

from __future__ import annotations

from hypothesis import strategies as st

__all__ = ["damaged"]


@st.composite
def damaged(draw: st.DrawFn, texts: list[str]) -> str:
    """One of the texts with up to six of its lines damaged."""
    lines = draw(st.sampled_from(texts)).splitlines()
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        what = draw(st.sampled_from(("drop", "double", "cut", "noise")))
        if what == "drop" and len(lines) > 1:
            del lines[at]
        elif what == "double":
            lines.insert(at, lines[at])
        elif what == "cut":
            lines[at] = lines[at][: draw(st.integers(0, 80))]
        else:
            lines[at] = draw(st.text(max_size=40).map(lambda text: text.replace("\n", " ")))
    return "\n".join(lines)
