"""The colours keep their promises, and words are made safe."""

from __future__ import annotations

import re

import pytest

from kmemlab_widgets.theme import DARK, LIGHT, STATE_NAMES, STATE_TOKENS, contrast, css, esc, pages, size

# token: lowest contrast with paper, lowest contrast with free memory (None: no promise).
PROMISED = {
    "ink": (15.0, None),
    "ink2": (7.0, None),
    "line": (4.5, None),
    "freeln": (4.0, 3.6),
    "mov": (4.0, 3.5),
    "recl": (4.0, 3.0),
    "slab": (3.5, 4.2),
    "unmov": (3.0, 4.7),
    "high": (4.3, 3.4),
    "accent": (5.0, None),
    "focus": (6.0, None),
}


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("token", sorted(PROMISED))
def test_contrast(theme: dict[str, str], token: str) -> None:
    """Recomputed with the WCAG formula: a colour changed by hand must not get too weak."""
    paper, free = PROMISED[token]
    assert contrast(theme[token], theme["paper"]) >= paper
    if free is not None:
        assert contrast(theme[token], theme["free"]) >= free


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("verdict", ["ok", "wait", "bad"])
def test_verdicts_can_be_read(theme: dict[str, str], verdict: str) -> None:
    """A verdict's text on its own tint is at least AA."""
    assert contrast(theme[verdict], theme[verdict + "bg"]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_light_is_free_dark_is_taken(theme: dict[str, str]) -> None:
    """The rule that survives greyscale: free memory is lighter than everything that is taken."""
    taken = [token for token in STATE_TOKENS if token in ("mov", "recl", "slab", "unmov")]
    for token in taken:
        assert contrast("#FFFFFF", theme["free"]) < contrast("#FFFFFF", theme[token])


def test_both_themes_have_the_same_tokens() -> None:
    """A token missing in one theme would be an invisible mark there."""
    assert LIGHT.keys() == DARK.keys()
    assert len(STATE_NAMES) == len(STATE_TOKENS)


def test_css_has_every_token_twice() -> None:
    """Light by default, dark under JupyterLab's own switch."""
    text = css()
    for name in LIGHT:
        assert len(re.findall(rf"--kml-{name}:", text)) == 2
    assert 'data-jp-theme-light="false"' in text


def test_words() -> None:
    """Units and escaping."""
    assert size(1) == "4 KiB"
    assert size(48848) == "190.8 MiB"
    assert size(1 << 30) == "4 TiB"
    assert pages(1) == "1 page (4 KiB)"
    assert esc('<b "x">') == "&lt;b &quot;x&quot;&gt;"
