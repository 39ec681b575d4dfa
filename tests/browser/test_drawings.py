"""Every drawing, as a browser sets it in DejaVu Sans: no text sticks out, no two labels overlap, free is lighter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kmemlab import (
    __GFP_MEMALLOC,
    __GFP_MOVABLE,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_KERNEL,
    GFP_NOIO,
    NULL,
    Completion,
    KernelBug,
    Machine,
)
from kmemlab_widgets import (
    FreeLists,
    MempoolGauge,
    RequestPath,
    TaskTimeline,
    Watermarks,
    ZoneMap,
    mempoolgauge_draw,
    tasktimeline_draw,
)
from kmemlab_widgets.panel import View
from kmemlab_widgets.svg import flat
from kmemlab_widgets.watermarks_draw import draw

pytestmark = pytest.mark.browser

MEASURE = """() => {
  const svg = document.querySelector('svg'), box = svg.viewBox.baseVal;
  const texts = [...svg.querySelectorAll('text')].filter(t => t.textContent.trim());
  const places = texts.map(t => { const b = t.getBBox(); return [t.textContent, b.x, b.y + b.height * 0.2,
    b.width, b.height * 0.6]; });
  const out = places.filter(([, x, y, w, h]) => x < -1 || y < -1 || x + w > box.width + 1 || y + h > box.height + 1);
  const over = [];
  places.forEach((a, i) => places.slice(i + 1).forEach(b => {
    if (a[1] < b[1] + b[3] - 1 && b[1] < a[1] + a[3] - 1 && a[2] < b[2] + b[4] && b[2] < a[2] + a[4])
      over.push([a[0], b[0]]);
  }));
  return [out.map(p => p[0]), over];
}"""


def _views() -> Iterator[tuple[str, View]]:
    """A panel of each kind at moments that differ: fresh, served in several ways, refused, after heavy use."""
    m = Machine.from_recording("256M-a-21")
    lists, path, dma, whole = FreeLists(m, zone="DMA32"), RequestPath(m), ZoneMap(m, zone="DMA"), ZoneMap(m)
    kinds = [("empty", lambda: None), ("hit", lambda: m.alloc_pages(GFP_KERNEL, 0))]
    kinds.append(("refill", lambda: [m.alloc_pages(GFP_KERNEL, 0) for _ in range(3)]))
    kinds.append(("split", lambda: m.alloc_pages(GFP_DMA, 4)))
    kinds.append(("steal", lambda: m.alloc_pages(GFP_DMA | __GFP_MOVABLE, 0)))
    kinds.append(("movable", lambda: [m.alloc_pages(GFP_KERNEL | __GFP_MOVABLE, 6) for _ in range(300)]))
    kinds.append(("null", lambda: _empty_the_yard(m)))
    kinds.append(("atomic", lambda: m.alloc_pages(GFP_ATOMIC, 10)))
    for name, act in kinds:
        act()
        for panel in (lists, path, dma, whole):
            panel.refresh()
            yield f"{type(panel).__name__}-{name}", panel._last

    yield from _curves()
    yield from _columns()


def _curves() -> Iterator[tuple[str, View]]:
    """Watermarks: empty, far above the marks, with boosts, with kills, refused early and late, recorded rows beside."""
    for name, act in CURVES.items():
        m = Machine("linux-6.1", memory="64M")
        rows = [(0, 900, 0, 0), (3200, 1200, 0, 0), (6400, 180, 157, 0), (30_000, 150, 157, 32)]
        if name != "far":
            m.read_file("backup.tar", "64M" if name in ("boost", "beside") else "20M")
        masks = {
            "GFP_DMA": GFP_DMA,
            "GFP_HIGHUSER_MOVABLE|__GFP_NOWARN|__GFP_NORETRY": GFP_KERNEL,
            "a": 0,
            "b": GFP_ATOMIC,
        }
        how: dict[str, Any] = {"beside": rows} if name in ("beside", "early") else {}
        plain, many = Watermarks(m, **how), Watermarks(m, masks=masks, over="ms", **how)
        act(m)
        for kind, panel in (("plain", plain), ("many", many)):
            panel.refresh()
            shown = panel._shown
            yield f"Watermarks-{name}-{kind}", View("", "", draw(shown, 868), draw(shown, 358))


def _columns() -> Iterator[tuple[str, View]]:
    """MempoolGauge and TaskTimeline, every column chosen once: recorded, waiting, long names, long sentences."""
    recorded = MempoolGauge("mempool")
    busy, tasks = _busy_pool()
    quiet = TaskTimeline(Machine("linux-6.1", memory="64M"))
    for name, panel, draws in (
        ("recorded", recorded, mempoolgauge_draw),
        ("busy", busy, mempoolgauge_draw),
        ("tasks", tasks, tasktimeline_draw),
        ("no tasks", quiet, tasktimeline_draw),
    ):
        run = panel.snapshot()
        for at in range(panel.count(run)):
            wide, narrow = (
                draws.draw(run, width, max(0, at - across // 2), at)[0] for width, across in draws.ACROSS.items()
            )
            yield f"{name}-{at}", View("", "", wide, narrow)


def _busy_pool() -> tuple[MempoolGauge, TaskTimeline]:
    """Many tasks with long names at one pool; some stop, some hold, some wait, one for another."""
    m, works, made = Machine("linux-6.1", memory="64M"), [True], []

    def alloc(gfp: int, data: Any) -> Any:
        made.append(f"request-{len(made)}")
        return made[-1] if works[0] else NULL

    pool = m.mempool_create(12, alloc, lambda element, data: None, None)
    gauge, timeline, done = MempoolGauge(m, pool), TaskTimeline(m), Completion()

    def writer(k: Any, n: int) -> Any:
        for i in range(4):
            element = yield from k.mempool_alloc(pool, GFP_NOIO | __GFP_NOWARN if n % 2 else GFP_KERNEL)
            yield from k.msleep(997 * (n + 1) + i)
            if n % 3:
                k.mempool_free(element, pool)
        if n == 5:
            raise KernelBug("broken")
        yield from k.wait_for_completion(done)

    for n in range(14):
        m.spawn(lambda k, n=n: writer(k, n), f"kworker/u200:{n}")
    m.run(until=1)
    works[0] = False
    while m.tasks and m.now < 100_000:
        try:
            m.run(until=100_000)
        except KernelBug:
            m.mempool_resize(pool, 3)
    works[0] = True
    m.mempool_resize(pool, 20)
    m.mempool_alloc(pool, GFP_ATOMIC)
    return gauge, timeline


def _boosted(m: Machine) -> None:
    for gfp in (GFP_KERNEL, GFP_KERNEL | __GFP_MOVABLE, GFP_ATOMIC) * 200:
        m.alloc_pages(gfp, 0)
        m.alloc_pages(gfp | __GFP_NOWARN | 0x10000, 3)
        m.msleep(1)


def _killed(m: Machine) -> None:
    m.process("hog", "12M")
    while m.lru.stat["oom_kill"] < 1:
        m.alloc_pages(GFP_KERNEL, 0)


def _refused(m: Machine) -> None:
    while m.alloc_pages(GFP_ATOMIC, 0):
        pass


def _refused_early(m: Machine) -> None:
    m.alloc_pages(GFP_ATOMIC, 10)
    while m.alloc_pages(GFP_ATOMIC, 10):
        pass
    for _ in range(300):
        m.alloc_pages(GFP_ATOMIC, 0)


CURVES: dict[str, Callable[[Machine], object]] = {
    "empty": lambda m: None,
    "far": lambda m: [m.alloc_pages(GFP_KERNEL, 0) for _ in range(50)],
    "boost": _boosted,
    "kill": _killed,
    "late": _refused,
    "early": _refused_early,
    "beside": lambda m: [m.alloc_pages(GFP_KERNEL, 0) for _ in range(900)],
}


def _empty_the_yard(m: Machine) -> None:
    while m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pass
    m.alloc_pages(GFP_DMA | __GFP_NOWARN, 4)


@pytest.mark.parametrize("width", [868, 358])
def test_labels(browser: Any, width: int) -> None:
    """A browser measures every label of every drawing."""
    page = browser.new_page(viewport={"width": width + 20, "height": 900})
    wrong = []
    for name, view in _views():
        drawing = view.wide if width == 868 else view.narrow
        page.set_content(f"<style>svg {{ font-family: 'DejaVu Sans' !important }}</style>{flat(drawing)}")
        outside, overlapping = page.evaluate(MEASURE)
        wrong += [(name, "outside", text) for text in outside]
        wrong += [(name, "overlap", pair) for pair in overlapping]
    page.close()
    assert not wrong
