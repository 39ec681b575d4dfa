"""The panels' base, and the two panels that are drawings: pure ``draw``, text twin, picture, errors, following."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest

from kmemlab import __GFP_MEMALLOC, GFP_DMA, GFP_KERNEL, Machine
from kmemlab_widgets import freelists, requestpath
from kmemlab_widgets.freelists import FreeLists
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.requestpath import RequestPath
from kmemlab_widgets.svg import fit, flat


@pytest.fixture
def m() -> Machine:
    """A real machine's first moment."""
    return Machine.from_recording("256M-a-21")


def texts(svg: str) -> str:
    """The words of a drawing."""
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


@pytest.mark.parametrize("width", [868, 358])
def test_requestpath_draws_every_step(m: Machine, width: int) -> None:
    """Each floor of the story is in the drawing, with the number that decided."""
    m.alloc_pages(GFP_DMA, 4)
    story = m.explain()
    svg = requestpath.draw(story, "sub", width)
    words = texts(svg)
    for step in story.steps:
        assert step.function in words
        if step.scale:
            assert f"must be above {step.scale.need:,}" in words
    assert f'viewBox="0 0 {width} ' in svg


def test_requestpath_before_the_first_request(m: Machine) -> None:
    """The empty state says what to do."""
    assert "no request yet: run the next cell" in repr(RequestPath(m))


def test_twin_and_headline_come_from_one_place(m: Machine) -> None:
    """What the picture says first is what the text says first."""
    m.alloc_pages(GFP_KERNEL, 0)
    panel = RequestPath(m)
    assert repr(panel) == str(m.explain())
    assert m.explain().headline.split(":")[0] in texts(panel._last.wide)


def test_a_failed_request_is_marked(m: Machine) -> None:
    """A floor that said no has the edge of that colour, and its words say why."""
    while m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pass
    svg = requestpath.draw(m.explain(), "", 868)
    assert "var(--kml-bad)" in svg
    assert "NULL" in texts(svg)


@pytest.mark.parametrize("width", [868, 358])
def test_freelists_counts(m: Machine, width: int) -> None:
    """The table under the bars is /proc/pagetypeinfo of the zone."""
    zone = m.snapshot().zone("DMA")
    words = texts(freelists.draw(zone, None, "", width))
    assert "Unmovable" in words
    assert "3,072" in words  # the pages of the three order-10 blocks
    assert freelists.twin(zone, None).splitlines()[-1] == "order 10: 3 blocks: M 3"


def test_freelists_shows_the_moment_before(m: Machine) -> None:
    """An order that ran empty says none, and the twin has both counts."""
    panel = FreeLists(m, zone="DMA")
    for _ in range(3):
        m.alloc_pages(GFP_DMA, 10)
    panel.refresh()
    assert "order 10: 0 blocks (before 3)" in repr(panel)
    assert "none" in texts(panel._last.wide)
    panel.mark()
    assert "before" not in repr(panel)


def test_follows_the_machine_once(m: Machine) -> None:
    """One redraw after a cell with many calls, none when nothing happened."""
    panel = RequestPath(m)
    drawn = []
    panel.show = lambda view, snapshot: drawn.append(view)
    for _ in range(10):
        m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    refresh_all()
    assert len(drawn) == 1
    panel.close_panel()
    m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    assert len(drawn) == 1


def test_a_snapshot_is_not_followed(m: Machine) -> None:
    """A frozen moment stays what it is."""
    panel = FreeLists(m.snapshot(), zone="DMA")
    before = repr(panel)
    m.alloc_pages(GFP_DMA, 10)
    refresh_all()
    assert repr(panel) == before


def test_a_failing_draw_stays_in_the_panel(m: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell goes on, the headline of the last good state is kept, the error is named and escaped."""
    panel = RequestPath(m)
    monkeypatch.setattr(requestpath, "draw", lambda *a: {}["<DMA32>"])
    panel.refresh()
    assert "panel error: KeyError" in repr(panel)
    assert "&lt;DMA32&gt;" in panel.value
    assert "<DMA32>" not in panel.value


def test_the_saved_picture_stands_alone(m: Machine) -> None:
    """An <img> with the light theme's colours and its own background; no variable is left unresolved."""
    m.alloc_pages(GFP_KERNEL, 0)
    data, _ = RequestPath(m)._repr_mimebundle_()
    assert data["text/plain"] == str(m.explain())
    svg = base64.b64decode(re.search(r"base64,([^\"]+)", data["text/html"])[1]).decode()
    assert "var(" not in svg
    assert "#FFFFFF" in svg
    assert len(data["text/html"]) < 30_000


def test_what_a_user_names_is_escaped(m: Machine) -> None:
    """A label with markup is shown, not obeyed."""
    snapshot = replace(m.snapshot(), label="<script>x</script>")
    panel = FreeLists(snapshot, zone="DMA")
    assert "<script>" not in panel.value
    assert "&lt;script&gt;" in panel.value


def test_a_wrong_source_is_named() -> None:
    """A panel of something that is no machine says so."""
    with pytest.raises(TypeError, match="Machine or a Snapshot"):
        RequestPath(42)


def test_only_tokens_are_painted(m: Machine) -> None:
    """No colour outside the theme: every fill and stroke is a token, a pattern or none."""
    m.alloc_pages(GFP_DMA, 4)
    for svg in (requestpath.draw(m.explain(), "", 868), freelists.draw(m.snapshot().zone("DMA"), None, "", 868)):
        for paint in re.findall(r'(?:fill|stroke)="([^"]+)"', svg):
            assert re.fullmatch(r"none|var\(--kml-\w+\)|url\(#kml-\w+\)", paint), paint
        assert "var(--kml" not in flat(svg)


def test_fit_breaks_behind_a_bar() -> None:
    """A long mask may be broken between its flags, and nothing is lost."""
    lines = fit("alloc_pages(GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY, 4)", 16, 200)
    assert len(lines) > 1
    assert "".join(lines).replace(" ", "") == "alloc_pages(GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY,4)"
