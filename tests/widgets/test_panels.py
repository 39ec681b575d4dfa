"""The panels' base, and the two panels that are drawings: pure ``draw``, text twin, picture, errors, following."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import unquote

import pytest

from kmemlab import __GFP_MEMALLOC, __GFP_MOVABLE, __GFP_RETRY_MAYFAIL, GFP_DMA, GFP_KERNEL, Machine
from kmemlab.story import Block, Scale, Step, Story
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
        assert step.function in words.replace("_ ", "_")
        if step.scale:
            assert f"must be above {step.scale.need:,}" in words
    assert f'viewBox="0 0 {width} ' in svg


@pytest.mark.parametrize("width", [868, 358])
def test_requestpath_draws_the_rounds(width: int) -> None:
    """What was tried in each round stands under it, with its mark; rounds that are alike are one line; so does the
    twin."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    while m.alloc_pages(GFP_KERNEL | __GFP_RETRY_MAYFAIL, 0):
        pass
    story = m.explain()
    svg = requestpath.draw(story, "", width)
    words = texts(svg)
    rounds = [step for step in story.steps if step.parts]
    assert [step.say.split(":")[0] for step in rounds] == ["round 1", "round 2", "round 17"]
    for step in rounds:
        for part in step.parts:
            assert part.say in words
            assert part.floor in words
    assert "14 more rounds like this: rounds 3 to 16" in words
    marks = [part.verdict for step in rounds for part in step.parts if part.verdict is not None]
    glyphs = re.findall(r'fill="var\(--kml-(ok|bad)\)">([✓✕])<', svg)
    assert glyphs == [("ok", "✓") if mark else ("bad", "✕") for mark in marks]
    assert repr(RequestPath(m)) == str(story)


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


def test_is_up_to_date_when_displayed(m: Machine) -> None:
    """A panel that the cell made before its calls shows what came of them."""
    panel = FreeLists(m, zone="DMA")
    m.alloc_pages(GFP_DMA, 10)
    data, _ = panel._repr_mimebundle_()
    assert "2,784 pages free (before 3,808)" in data["text/plain"]


def test_follows_what_is_no_call(m: Machine) -> None:
    """A setting written and lists drained are shown as well."""
    panel = FreeLists(m, zone="DMA32")
    drawn = []
    panel.show = lambda view, snapshot: drawn.append(view)
    m.sysctl("vm.min_free_kbytes", 4096)
    refresh_all()
    m.drain_all_pages()
    refresh_all()
    refresh_all()
    assert len(drawn) == 2


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
    svg = unquote(re.search(r'src="data:image/svg\+xml,([^"]+)"', data["text/html"])[1])
    assert "var(" not in svg
    assert "#FFFFFF" in svg
    assert len(data["text/html"]) < 30_000


def drawings(panel: FreeLists) -> str:
    """Both drawings as they are sent."""
    data = json.loads(panel.data)
    return data["wide"] + data["narrow"]


def test_what_a_user_names_is_escaped(m: Machine) -> None:
    """A label with markup is shown, not obeyed."""
    snapshot = m.snapshot()._replace(label="<script>x</script>")
    panel = FreeLists(snapshot, zone="DMA")
    assert "<script>" not in drawings(panel)
    assert "&lt;script&gt;" in drawings(panel)


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


def test_a_zone_that_is_not_there_is_named_in_the_panel(m: Machine) -> None:
    """The cell goes on; mark() and refresh() do not raise either."""
    panel = FreeLists(m, zone="Normal")
    panel.mark()
    assert "panel error: KeyError" in repr(panel)
    assert "DMA, DMA32" in repr(panel)


def test_a_failing_display_stays_in_the_panel(m: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error on the way to the browser is caught like one in the drawing, and the next refresh recovers."""
    panel = RequestPath(m)
    show, calls = panel.show, []

    def once(view: object, snapshot: object) -> None:
        calls.append(snapshot)
        if len(calls) == 1:
            raise OSError("gone")
        show(view, snapshot)

    monkeypatch.setattr(panel, "show", once)
    panel.refresh()
    assert "panel error: OSError: gone" in repr(panel)
    panel.refresh()
    assert "panel error" not in repr(panel)


def test_the_twin_describes_the_drawing(m: Machine) -> None:
    """A screen reader finds headline and twin: both drawings point to the hidden text."""
    m.alloc_pages(GFP_KERNEL, 0)
    panel = RequestPath(m)
    twin = re.search(r'class="twin" id="([^"]+)">([^<]*)<', panel.value)
    assert html.unescape(twin[2]).splitlines()[0] == m.explain().headline
    assert panel.value.count(f'role="img" aria-describedby="{twin[1]}"') == 2
    assert RequestPath(m).value.count(twin[1]) == 0  # ids are a panel's own


def test_patterns_are_a_drawings_own(m: Machine) -> None:
    """A pattern inside the hidden one of the two drawings is not painted, so each drawing brings its own."""
    value = drawings(FreeLists(m, zone="DMA32"))
    ids = re.findall(r'<pattern id="([^"]+)"', value)
    assert len(ids) == len(set(ids)) > 4
    assert set(re.findall(r"url\(#([^)]+)\)", value)) == set(ids)


def test_a_panel_no_longer_displayed_rests(m: Machine) -> None:
    """A cell that is run again leaves its old panel behind: it is not redrawn until somebody displays it again."""
    panel = RequestPath(m)
    panel._view_count = 1
    panel._view_count = 0
    m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    assert "no request yet" in repr(panel)
    panel._view_count = 1
    assert repr(panel) == str(m.explain())


def test_a_closed_panel_lets_go(m: Machine) -> None:
    """close() ends the following too."""
    panel = RequestPath(m)
    panel.close()
    m.alloc_pages(GFP_KERNEL, 0)
    refresh_all()
    assert "no request yet" in repr(panel)


def test_a_tall_moment_before_is_broken_off() -> None:
    """What was there before does not press the present flat: it is cut, with its number beside the cut."""
    m = Machine.from_recording("256M-a-21")
    panel = FreeLists(m, zone="DMA32")
    was = sum(n << k for k, n in enumerate(m.snapshot().zone("DMA32").nr_free) if k == 10)
    while m.snapshot().zone("DMA32").nr_free[10] > 4:
        m.alloc_pages(GFP_KERNEL | __GFP_MOVABLE, 10)
    panel.refresh()
    assert f"{was:,} before" in texts(panel._last.wide)
    assert f"before: {was:,}" in texts(panel._last.narrow)
    assert "outline: call 0, order 10 held 87 %" in drawings(panel)


def test_share_in_smaller_blocks(m: Machine) -> None:
    """The unusable free space index of each order, from the counts."""
    m.alloc_pages(GFP_DMA, 9)
    zone = m.snapshot().zone("DMA")
    free = [n << k for k, n in enumerate(zone.nr_free)]
    words = texts(freelists.draw(zone, None, "", 868))
    shares = [int(n) for n in re.findall(r"(\d+) %", words)]
    assert shares == [round(100 * sum(free[:k]) / sum(free)) for k in range(11)]
    assert shares[0] == 0
    assert shares[10] > 20


@pytest.mark.parametrize("width", [868, 358])
def test_requestpath_names_where_and_what_comes_back(m: Machine, width: int) -> None:
    """Each floor has the kernel's file; what a floor hands back is there at both widths."""
    m.alloc_pages(GFP_DMA, 4)
    words = texts(requestpath.draw(m.explain(), "", width))
    assert words.count("mm/page_alloc.c") == len(m.explain().steps)
    assert "16 pages" in words
    assert "= low 42 + unusable 15" in words


def test_a_refusal_has_the_edge_of_its_colour(m: Machine) -> None:
    """As many bad edges as floors that said no, and no rail upwards."""
    while m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pass
    story = m.explain()
    svg = requestpath.draw(story, "", 868)
    edges = re.findall(r'<rect x="14" y="[^"]+" width="4" height="[^"]+" fill="var\(--kml-(\w+)\)"', svg)
    assert edges == [{True: "accent", False: "bad", None: "line"}[step.verdict] for step in story.steps]
    assert "bad" in edges
    assert "l-5 9h10z" not in svg


def test_the_rail_leads_up_from_what_was_given() -> None:
    """A request that ends with NULL hands nothing up, whatever a lower floor came up with."""
    gave = Step("vmscan", "try_to_free_pages", "mm/vmscan.c", "32 pages", verdict=True, gives="32 pages")
    took = Step("page_alloc", "f", "g", "taken", verdict=True)
    null = Step("page_alloc", "f", "g", "NULL", verdict=False)
    assert "l-5 9h10z" in requestpath.draw(Story("s", (gave, took)), "", 868)
    assert "l-5 9h10z" not in requestpath.draw(Story("s", (gave, null)), "", 868)
    assert "l-5 9h10z" not in requestpath.draw(Story("s", (took,)), "", 868)


def test_a_split_is_drawn_as_the_block_it_was() -> None:
    """Pieces in Z-order: their rectangles tile the block, whichever order it had."""
    pieces = (Block(512, 6, "taken"), Block(576, 6, "free"), Block(640, 7, "free"), Block(768, 8, "free"))
    assert requestpath._pieces(pieces) == 9
    assert requestpath._pieces(pieces[:3]) == 8
    assert requestpath._pieces((Block(512, 0, "pcp"), Block(9000, 0, "pcp"))) is None
    assert requestpath._pieces(pieces[:1]) is None
    story = Story("s", (Step("buddy", "f", "g", "say", blocks=pieces),))
    areas = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)" fill="[^"]+" stroke',
                       requestpath.draw(story, "", 868))  # fmt: skip
    boxes = [tuple(map(float, area)) for area in areas]
    assert len(boxes) == 4
    left, top = min(b[0] for b in boxes), min(b[1] for b in boxes)
    right, low = max(b[0] + b[2] for b in boxes), max(b[1] + b[3] for b in boxes)
    assert (right - left) * (low - top) == pytest.approx(sum(b[2] * b[3] for b in boxes), rel=0.01)


def test_long_names_are_broken_behind_an_underscore() -> None:
    """Nothing is lost, and no part is wider than the column."""
    for name in ("rmqueue", "get_page_from_freelist", "unreserve_highatomic_pageblock", "x" * 60):
        lines = requestpath._name_lines(name)
        assert "".join(lines) == name
        assert max(map(len, lines)) <= 23
    assert requestpath._name_lines("unreserve_highatomic_pageblock") == ["unreserve_highatomic_", "pageblock"]


def test_equal_is_not_above() -> None:
    """The mark of a test that failed by nothing stands at the end of the bar, in the colour of no."""
    scale = Scale(192, (("min 34 less the rights", 13), ("protection", 179)))
    svg = requestpath.draw(Story("s", (Step("page_alloc", "f", "g", "say", "", False, scale),)), "", 868)
    words = texts(svg)
    assert "must be above 192" in words
    assert "= min 34 less the rights 13 + protection 179" in words
    assert 'stroke="var(--kml-bad)" stroke-width="3"' in svg
