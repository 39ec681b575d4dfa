"""The colours keep their promises, and words are made safe."""

from __future__ import annotations

import re

import pytest

from kmemlab_widgets.theme import DARK, LIGHT, STATE_NAMES, STATE_TOKENS, contrast, css, esc, pages, size

# token: contrast with paper and with free memory, light theme then dark; None where nothing is promised.
PROMISED = {
    "ink": (16.6, None, 15.6, None),
    "ink2": (7.7, None, 8.8, None),
    "line": (4.7, None, 5.8, None),
    "freeln": (5.2, 4.0, 4.1, 3.7),
    "pcpln": (6.2, 4.9, 7.3, None),
    "mov": (4.6, 3.6, 4.1, 3.7),
    "recl": (4.1, 3.2, 5.1, 3.0),
    "slab": (8.0, 6.2, 3.5, 4.3),
    "unmov": (8.4, 6.6, 3.2, 4.8),
    "resv": (3.9, 3.0, 4.1, 3.7),
    "high": (6.8, 5.3, 4.4, 3.5),
    "accent": (5.2, None, 8.7, None),
    "focus": (6.1, None, 9.6, None),
    "taken": (16.6, 12.9, None, 7.7),
}


@pytest.mark.parametrize("token", sorted(PROMISED))
def test_contrast(token: str) -> None:
    """Recomputed with the WCAG formula: a colour changed by hand must not keep a number it no longer has."""
    light_paper, light_free, dark_paper, dark_free = PROMISED[token]
    for theme, paper, free in ((LIGHT, light_paper, light_free), (DARK, dark_paper, dark_free)):
        for other, promised in (("paper", paper), ("free", free)):
            if promised is not None:
                assert promised >= 3  # what WCAG asks of graphics
                assert contrast(theme[token], theme[other]) == pytest.approx(promised, abs=0.051)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "fill"),
    [
        ("onfree", "free"),
        ("onfree", "pcp"),
        ("ontaken", "taken"),
        ("ink", "wash"),
        ("ink2", "wash"),
        ("ok", "wash"),
        ("bad", "wash"),
    ],
)
def test_text_on_fills_can_be_read(theme: dict[str, str], text: str, fill: str) -> None:
    """What a panel writes on an area is at least AA there."""
    assert contrast(theme[text], theme[fill]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("verdict", ["ok", "wait", "bad"])
def test_verdicts_can_be_read(theme: dict[str, str], verdict: str) -> None:
    """A verdict's text on its own tint is at least AA."""
    assert contrast(theme[verdict], theme[verdict + "bg"]) >= 4.5


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_light_is_free_dark_is_taken(theme: dict[str, str]) -> None:
    """The rule that survives greyscale: free memory is lighter than everything that is taken."""
    taken = [token for token in STATE_TOKENS if token in ("mov", "recl", "slab", "unmov")] + ["taken"]
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
