"""Watermarks: what it says is what the machine did; the drawing stands where the numbers say; recorded rows."""

from __future__ import annotations

import json
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from kmemlab import (
    __GFP_HIGH,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOWAIT,
    Machine,
    RecordingError,
)
from kmemlab.watermarks import MOST, Run
from kmemlab_widgets import Watermarks
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.svg import Svg
from kmemlab_widgets.watermarks_draw import _columns, charts, draw, spread, ticks
from kmemlab_widgets.watermarks_rows import run_of_rows
from kmemlab_widgets.watermarks_words import Floor, Shown, comparison, headline, second_line, twin

ATOMIC = int(GFP_ATOMIC | __GFP_NOWARN)
ZONE = {
    "name": "DMA32", "idx": 1, "wmark": [411, 513, 615, 717], "watermark_boost": 0,
    "lowmem_reserve": [0, 0, 0, 0, 0], "nr_reserved_highatomic": 0,
}  # fmt: skip
COLUMNS = ["asked", "got", "free_DMA", "free_DMA32", "pgsteal_kswapd", "pgsteal_direct", "allocstall", "pageoutrun"]


def recording() -> dict[str, Any]:
    """Six rows in the form of the recordings of reclaim: two runs of kswapd, then the end of GFP_ATOMIC."""
    rows = [(0, 0, 545), (32, 32, 515), (64, 64, 702), (1600, 1600, 650), (2195, 2194, 148), (2244, 2194, 148)]
    counts = [(500, 7, 1, 40), (500, 7, 1, 40), (690, 7, 1, 41), (800, 7, 1, 42), (800, 7, 1, 42), (800, 7, 1, 42)]
    return {
        "gfp": int(GFP_ATOMIC), "columns": COLUMNS, "state0": {"zones": [ZONE]},
        "meta": {"version": "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)"},
        "rows": [[asked, got, 192, free, *count] for (asked, got, free), count in zip(rows, counts, strict=True)],
    }  # fmt: skip


def full() -> Machine:
    """A machine whose memory is full of clean page cache."""
    m = Machine("linux-6.1", memory="64M")
    m.read_file("backup.tar", "64M")
    return m


def drained(gfp: int = ATOMIC) -> tuple[Machine, Watermarks]:
    """A machine without anything to reclaim, asked until nothing is left but the reserve."""
    m = Machine("linux-6.1", memory="64M")
    panel = Watermarks(m)
    while m.alloc_pages(gfp, 0):
        pass
    panel.refresh()
    return m, panel


def numbers(svg: str, colour: str) -> list[float]:
    """The y coordinates of the thickest path in that colour."""
    path = re.search(rf'<path d="([^"]+)" fill="none" stroke="var\(--kml-{colour}\)" stroke-width="2"', svg)
    return [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path[1])]


def test_what_it_says_is_what_the_machine_did() -> None:
    m, panel = drained()
    zone, last = m.zones[1], panel.run.samples[-1]
    words = panel._last.twin
    assert words.startswith(panel._last.headline + "\n")
    assert f"min {zone.wmark[0]} low {zone.wmark[1]} high {zone.wmark[2]}" in words
    assert f"free {last.free} " in words
    assert last.asked == m.calls
    assert f"GFP_ATOMIC|__GFP_NOWARN got {last.got:,} of {last.asked:,}: refused when " in panel._last.headline
    assert last.got == last.asked - 1
    assert f"first NULL at request {last.asked}: " in words
    assert "kswapd ran" in words
    floors = dict(re.findall(r"([A-Z_|]+) (\d+)[,.]", words.partition("Floors: ")[2]))
    left, need = panel.run.refusal.left, panel.run.refusal.need
    assert left <= need == int(floors["GFP_ATOMIC"])


def test_in_the_middle_of_a_cell() -> None:
    """The highest level lies in the middle of a cell: what was displayed before and after it does not show it."""
    m = full()
    ran = m.lru.stat["pageoutrun"]
    panel = Watermarks(m)
    free = [m.zones[1].nr_free_pages]
    for _ in range(900):
        m.alloc_pages(GFP_KERNEL, 0)
        free.append(m.zones[1].nr_free_pages)
    assert len(panel.run.samples) > 800
    refresh_all(m)
    rows = json.loads(panel.view_data)["runs"][0]["rows"]
    assert [row[2] for row in rows] == [free[row[0]] for row in rows]
    assert max(row[2] for row in rows) == max(free) > max(free[0], free[-1])
    assert min(row[2] for row in rows) == min(free)
    last = panel.run.samples[-1]
    assert last.kswapd == m.lru.stat["pageoutrun"] - ran > 0
    assert json.loads(panel.view_data)["runs"][0]["rest"][-1][1:] == list(last[3:10])
    assert f"kswapd ran {last.kswapd} times" in panel._last.headline


def test_the_drawing_stands_where_the_numbers_say() -> None:
    """Curve, ring and floors of the drawing against the level of each sample."""
    _, panel = drained()
    for width in (868, 358):
        shown = panel._shown
        svg = draw(shown, width)
        at = charts(shown, width, Svg(width, "").heading(headline(shown), second_line(shown)) + 6)[0]
        assert numbers(svg, "accent")[-1] == pytest.approx(at.y(panel.run.samples[-1].free), abs=0.06)
        assert min(numbers(svg, "accent")) == pytest.approx(at.y(max(s.free for s in panel.run.samples)), abs=0.06)
        ring = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="6"', svg)
        assert float(ring[2]) == pytest.approx(at.y(panel.run.refusal.free), abs=0.06)
        assert float(ring[1]) == pytest.approx(at.right, abs=0.06)
        for floor in shown.floors:
            assert f'y1="{at.y(floor.pages):g}"' in svg


def test_a_boost_is_a_step_of_all_three() -> None:
    m = full()
    panel = Watermarks(m)
    m.alloc_pages(GFP_KERNEL, 0)
    m.zones[1].watermark_boost = 512
    m.alloc_pages(GFP_NOWAIT, 0)
    m.zones[1].watermark_boost = 0
    m.alloc_pages(GFP_NOWAIT, 0)
    panel.refresh()
    levels = [sample[3:7] for sample in panel.run.samples]
    assert (145 + 512, 181 + 512, 217 + 512, 512) in levels
    assert levels[-1] == (145, 181, 217, 0)
    assert ">boost 512</text>" in panel._last.wide
    steps = re.findall(r'<path d="(M[^"]+)" fill="none" stroke="var\(--kml-ink\)"', panel._last.wide)
    assert [path.count("V") for path in steps] == [2, 2, 2]


@pytest.mark.parametrize("order", [0, 4])
def test_comparison(order: int) -> None:
    """The words of the test that was lost, from the machine's own last test."""
    m = Machine.from_recording("256M-a-21")
    panel = Watermarks(m, zone="DMA", masks=[GFP_DMA | GFP_NOWAIT])
    while m.alloc_pages(GFP_DMA | GFP_NOWAIT | __GFP_NOWARN, order):
        pass
    tests = [event for event in m.last_events() if event.name == "lab_zone"]
    left, need = tests[-1].free - tests[-1].unusable, tests[-1].mark + tests[-1].protection
    numbers = f"{tests[-1].free} − {tests[-1].unusable} > {need}" if order else f"{left} > {need}"
    said = comparison(panel.run.refusal)
    if left > need:
        assert said == (f"NULL: {numbers}", f"✕ no free block of order {order}")
    elif left == need:
        assert said == (f"NULL: {numbers} ?", "✕ equal is not above")
    else:
        assert said == (f"NULL: {numbers} ?", f"✕ {need + 1 - left} pages short")


def test_recorded_rows() -> None:
    """Sums count from the first row; the NULL is explained by the mask's floor; the badge names the kernel."""
    run = run_of_rows(recording(), "DMA32")
    last = run.samples[-1]
    assert (last.asked, last.got, last.kswapd, last.direct) == (2244, 2194, 2, 0)
    assert run.recorded == "recorded, Linux 6.1.192"
    assert comparison(run.refusal) == ("NULL: 148 > 155 ?", "✕ 8 pages short")
    panel = Watermarks(recording())
    assert panel._last.headline == "GFP_ATOMIC got 2,194 of 2,244: refused when 148 free is not above 155"
    assert "recorded, Linux 6.1.192" in panel._last.wide
    assert "never: GFP_ATOMIC may not wait" in draw(panel._shown, 358)


def test_a_null_that_the_row_does_not_explain() -> None:
    """kswapd had been at work before the row was written: nothing is compared."""
    late = recording()
    late["rows"][4][3] = 702
    run = run_of_rows(late, "DMA32")
    assert comparison(run.refusal) == ("NULL at request 2,195", "")
    assert headline(Shown((run,), ())) == "GFP_ATOMIC got 2,194 of 2,244: first NULL at request 2,195"


def test_bare_rows_beside_a_machine() -> None:
    """Rows without names: asked, free, pages taken back by kswapd, by callers; the marks are the machine's."""
    m = full()
    panel = Watermarks(m, beside=[(0, 900, 0, 0), (32, 200, 0, 0), (64, 180, 157, 0), (96, 150, 157, 32)])
    for _ in range(40):
        m.alloc_pages(GFP_KERNEL, 0)
    panel.refresh()
    data = json.loads(panel.view_data)
    assert [run["title"] for run in data["runs"]] == ["alloc_pages(GFP_KERNEL, 0): 40 of 40", "requests: 96 of 96"]
    assert list(panel._shown.runs[1].samples[-1][:10]) == [96, 96, 150, 145, 181, 217, 0, 1, 1, 0]
    first, second = data["places"]["868"]
    assert (first["most"], first["top"], first["bottom"]) == (second["most"], second["top"], second["bottom"])
    assert second["left"] > first["right"]
    first, second = data["places"]["358"]
    assert first["left"] == second["left"]
    assert second["top"] > first["bottom"]


def test_two_runs_of_one_mask_are_compared() -> None:
    _, panel = drained(int(GFP_ATOMIC))
    both = Watermarks(panel.run, beside=recording())
    last = panel.run.samples[-1]
    assert both._last.headline == (
        f"GFP_ATOMIC: this machine gave {last.got:,} of {last.asked:,}, the real kernel gave 2,194 of 2,244"
    )
    assert both.run == panel.run
    assert len(both._last.twin.splitlines()) == 4


def test_over_simulated_time() -> None:
    m = full()
    panel = Watermarks(m, over="ms")
    for _ in range(30):
        m.alloc_pages(GFP_KERNEL, 0)
        m.msleep(10)
    panel.refresh()
    data = json.loads(panel.view_data)
    assert data["by"] == "ms"
    assert data["places"]["868"][0]["hi"] == m.now >= 300
    assert ">ms of simulated time</text>" in panel._last.wide


def test_time_need_not_begin_at_zero() -> None:
    """The curve begins at the left edge whenever the panel was made, and ends at the right one."""
    m = full()
    m.msleep(5000)
    began = m.now
    panel = Watermarks(m, over="ms")
    for _ in range(30):
        m.alloc_pages(GFP_KERNEL, 0)
        m.msleep(10)
    panel.refresh()
    at = charts(panel._shown, 868, 0)[0]
    assert (at.lo, at.hi) == (began, m.now)
    assert began >= 5000
    path = re.search(r'<path d="M([^"]+)" fill="none" stroke="var\(--kml-accent\)" stroke-width="2"', panel._last.wide)
    points = [float(point.split()[0]) for point in path[1].split("L")]
    assert points[0] == round(at.left)
    assert points[-1] == round(at.right)
    assert points == sorted(points)


def test_a_px_column_keeps_its_lowest_and_its_highest() -> None:
    rng = random.Random(5)
    at = charts(Watermarks(recording())._shown, 868, 0)[0]
    xs = sorted(rng.uniform(at.left, at.right) for _ in range(3000))
    free = [rng.randrange(700) for _ in xs]
    drawn = _columns(xs, free, at)
    assert len(drawn) <= 2 * (at.right - at.left + 1)
    assert drawn == sorted(drawn, key=lambda point: point[0])
    for column in {int(x) for x in xs}:
        levels = [at.y(level) for x, level in zip(xs, free, strict=True) if int(x) == column]
        kept = [y for x, y in drawn if int(x) == column]
        assert (min(kept), max(kept)) == (min(levels), max(levels))


def test_an_oom_kill_is_marked() -> None:
    m = Machine("linux-6.1", memory="64M")
    m.process("hog", "20M")
    panel = Watermarks(m)
    assert "OOM kill" not in panel._last.wide
    while not m.lru.stat["oom_kill"]:
        m.alloc_pages(GFP_KERNEL, 0)
    panel.refresh()
    assert panel.run.samples[-1].oom == 1
    assert ">OOM kill</text>" in panel._last.wide
    assert panel._last.wide.count("m-4 2l8 8m0-8l-8 8") == 1
    assert "the OOM killer killed 1 time" in panel._last.headline


def test_floors_of_masks() -> None:
    """__GFP_HIGH reaches half of min only if the mask may sleep; a mask of another zone has none."""
    run = run_of_rows(recording(), "DMA32")
    masks = {"sleeps": GFP_KERNEL | __GFP_HIGH, "does not": GFP_NOWAIT | __GFP_HIGH, "<b>": GFP_DMA}
    panel = Watermarks(run, masks=masks)
    assert json.loads(panel.view_data)["floors"] == [["sleeps", 206], ["does not", 155], ["<b>", None]]
    assert "&lt;b&gt; not from here" in panel._last.wide
    assert "<b>" not in panel._last.wide
    assert "Floors: sleeps 206, does not 155, <b> may not use this zone." in panel._last.twin


def test_it_follows_and_stops() -> None:
    m = full()
    before = m.cat("/proc/zoneinfo"), m.calls, m.dmesg()
    panel = Watermarks(m)
    assert (m.cat("/proc/zoneinfo"), m.calls, m.dmesg()) == before
    assert panel._last.headline.startswith("no request yet: DMA32 has ")
    first = panel.view_data
    refresh_all(m)
    assert panel.view_data == first
    m.alloc_pages(GFP_KERNEL, 0)
    refresh_all(m)
    assert panel.view_data != first
    panel._viewed(SimpleNamespace(new=0))
    assert not m.events, "a panel that nobody sees does not slow the machine"
    panel._viewed(SimpleNamespace(new=1))
    assert m.events
    panel.close_panel()
    assert not m.events
    Watermarks(m, follow=False)
    assert not m.events


def test_a_long_run_stays_small() -> None:
    m = full()
    panel = Watermarks(m)
    for _ in range(6000):
        m.alloc_pages(GFP_KERNEL, 0)
    panel.refresh()
    assert len(json.loads(panel.view_data)["runs"][0]["rows"]) <= MOST
    assert len(panel._repr_mimebundle_()[0]["text/html"]) < 25_000
    assert len(run_of_rows([(i, 900 - i % 700, 0, 0) for i in range(9000)], "DMA32", panel.run.marks).samples) <= MOST


def test_saved_picture_and_text() -> None:
    data, _ = Watermarks(recording())._repr_mimebundle_()
    assert data["text/plain"].startswith("GFP_ATOMIC got 2,194 of 2,244: ")
    assert data["text/html"].startswith('<img alt="GFP_ATOMIC got 2,194')


def test_wrong_arguments() -> None:
    m = full()
    for words, kind, source, how in (
        ("zone='Normal': this machine has DMA, DMA32", ValueError, m, {"zone": "Normal"}),
        ("over='s': Watermarks draws over 'requests' or 'ms'", ValueError, m, {"over": "s"}),
        ("Watermarks wants a Machine, a Run, a recording or its rows, not 7", TypeError, 7, {}),
        ("x: no such recording", RecordingError, m, {"beside": "x"}),
        ("beside wants a Run, a recording or its rows, not 7", TypeError, m, {"beside": 7}),
        ("masks: 'GFP' must be a mask such as GFP_ATOMIC", ValueError, m, {"masks": ["GFP"]}),
        ("masks: 9 are too many to tell apart, 8 at most", ValueError, m, {"masks": [1 << i for i in range(4, 13)]}),
        ("recorded rows: row 1 is [1, 2], not 4 numbers", ValueError, m, {"beside": [(0, 1, 2, 3), [1, 2]]}),
        ("recorded rows: there are none", ValueError, {"columns": COLUMNS}, {}),
        (
            "need the columns asked and free_Normal (or free), not asked, got",
            ValueError,
            recording(),
            {"zone": "Normal"},
        ),
        ("no marks of zone DMA; give state0, or marks=[min, low, high]", ValueError, recording(), {"zone": "DMA"}),
    ):
        with pytest.raises(kind, match=re.escape(words)):
            Watermarks(source, **how)
    assert not m.events, "a panel that could not be made does not listen"


def test_ticks_and_labels_apart() -> None:
    for lo, hi in ((0, 1), (0, 7), (0, 2244), (4400, 6800), (0, 30000), (100, 123456)):
        found = ticks(lo, hi)
        assert 2 <= len(found) <= 6
        assert all(lo <= each <= hi for each in found)
    tops = spread([(50, 14), (52, 30), (300, 14), (301, 14)], 40, 310)
    assert tops[0] >= 40
    assert tops[1] >= tops[0] + 14
    assert tops[2] >= tops[1] + 30
    assert tops[3] == 296


def test_the_twin_of_nothing() -> None:
    panel = Watermarks(Machine("linux-6.1", memory="64M"), masks=[])
    assert isinstance(panel.run, Run)
    assert "no request yet" in twin(Shown((panel.run,), (Floor("x", 3),)))
    assert "Floors" not in panel._last.twin
    assert "run the next cell" in panel._last.wide
