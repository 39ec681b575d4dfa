"""Every panel and card against axe-core: no violation in either theme and either width."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from axe_playwright_python.sync_playwright import Axe

import kmemlab_widgets
from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_KERNEL, NULL, Machine
from kmemlab_widgets import (
    Dmesg,
    FlagPicker,
    FreeLists,
    Lesson,
    MempoolGauge,
    OrderSlider,
    RequestPath,
    SizeClasses,
    SlabView,
    TaskTimeline,
    Watermarks,
    ZoneMap,
)

pytestmark = pytest.mark.browser

LESSONS = Path(__file__).resolve().parents[2] / "lessons"
CHECKS, REPORT = LESSONS / "checks", LESSONS / "recordings" / "slub_debug_use_after_free.txt"
# Rules about whole pages: a panel stands in a notebook, which brings landmarks, a title and headings.
PAGE_RULES = ("bypass", "landmark-one-main", "page-has-heading-one", "region", "document-title", "html-has-lang")
OPTIONS = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
    "rules": {rule: {"enabled": False} for rule in PAGE_RULES},
    "resultTypes": ["violations"],
}


def machine() -> Machine:
    """Some pages of each kind, and a last request that failed."""
    m = Machine.from_recording("256M-normal-c-33")
    for order in range(6):
        m.alloc_pages(GFP_KERNEL, order)
    while m.alloc_pages(GFP_DMA & 1 | GFP_ATOMIC | 0x2000, 4):
        pass
    return m


def slabs(cmdline: str) -> Any:
    m = Machine("linux-6.1", memory="64M", cmdline=cmdline)
    c = m.kmem_cache_create("conn", 200, 0, 0, None)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(50)]
    for p in objects[::3]:
        m.kmem_cache_free(c, p)
    return SlabView(m, c, object=objects[1])


def predict(*, answered: bool) -> Any:
    m = Machine.from_recording("256M-a-21")
    card = Lesson("05_pages", checks=CHECKS).predict("R2", m)
    if answered:
        card.choose("3072")
        card.check()
    return card


def exercise(*, tried: bool) -> Any:
    def blocks(first: int, last: int) -> list[tuple[int, int]]:
        return [(first, 0)] if not tried else [(first, 1)]

    return Lesson("05_pages", checks=CHECKS).exercise("blocks", blocks)


def watermarks(*, beside: bool) -> Any:
    """A curve that ends with a NULL; beside it recorded rows."""
    m = Machine("linux-6.1", memory="64M")
    rows = [(0, 900, 0, 0), (32, 200, 0, 0), (64, 180, 157, 0), (96, 150, 157, 32)]
    panel = Watermarks(m, beside=rows if beside else None)
    while beside and m.alloc_pages(GFP_ATOMIC | 0x2000, 0):
        pass
    panel.refresh()
    return panel


def pool(kind: type[Any]) -> Any:
    """Two tasks that wait for each other: a panel of their pool, or of them."""
    m = Machine("linux-6.1", memory="64M")
    mine = m.mempool_create_kmalloc_pool(2, 100)
    mine.alloc = lambda gfp, data: NULL
    panel = kind(m, mine) if kind is MempoolGauge else kind(m)

    def copy(k: Any) -> Any:
        for _ in range(2):
            yield from k.mempool_alloc(mine, GFP_KERNEL)
            yield from k.msleep(1)

    m.spawn(copy, "copy-1")
    m.spawn(copy, "copy-2")
    m.run(until=60_000)
    panel.refresh()
    return panel


CASES: dict[str, list[Callable[[], Any]]] = {
    "Dmesg": [lambda: Dmesg(machine()), lambda: Dmesg(REPORT.read_text(encoding="utf-8"))],
    "ZoneMap": [lambda: ZoneMap(machine()), lambda: ZoneMap(Machine("linux-6.1", memory="4T"))],
    "FlagPicker": [
        lambda: FlagPicker(machine()),
        lambda: FlagPicker(0x61F, kernel="linux-2.6.11"),
        lambda: FlagPicker(0x603),
    ],
    "FreeLists": [lambda: FreeLists(machine())],
    "OrderSlider": [lambda: OrderSlider(machine(), order=4)],
    "RequestPath": [lambda: RequestPath(machine())],
    "SizeClasses": [lambda: SizeClasses(size=520), lambda: SizeClasses(size=5 << 20, kernel="linux-2.6.11")],
    "SlabView": [lambda: slabs(""), lambda: slabs("slub_debug=FZPU")],
    "MempoolGauge": [lambda: MempoolGauge("mempool"), lambda: pool(MempoolGauge)],
    "TaskTimeline": [lambda: pool(TaskTimeline), lambda: TaskTimeline(machine())],
    "Watermarks": [lambda: watermarks(beside=False), lambda: watermarks(beside=True)],
    "Predict": [lambda: predict(answered=False), lambda: predict(answered=True)],
    "Exercise": [lambda: exercise(tried=True)],
    "Lesson": [lambda: Lesson("05_pages", checks=CHECKS).progress()],
}


def test_every_panel_has_a_case() -> None:
    """A new panel comes with its line above."""
    assert set(CASES) == set(kmemlab_widgets.__all__)


def shown(show: Callable[..., Any], widget: Any, **how: Any) -> Any:
    """A page with the widget as the browser gets it."""
    if isinstance(widget, ipywidgets.HTML):
        module = "export default { render({ model, el }) { el.innerHTML = model.get('value'); } };"
        return show(module, "", {"value": widget.value}, **how)
    own = [name for name in widget.traits(sync=True) if name not in anywidget_traits()]
    state = {name: getattr(widget, name) for name in own}
    binary = tuple(name for name, value in state.items() if isinstance(value, bytes))
    state |= {name: base64.b64encode(state[name]).decode() for name in binary}
    return show(str(widget._esm), str(widget._css), state, binary=binary, **how)


def anywidget_traits() -> set[str]:
    """What every widget has."""
    return set(ipywidgets.DOMWidget().traits(sync=True)) | {"_esm", "_css", "_anywidget_id"}


def violations(page: Any) -> list[str]:
    return [
        f"{found['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for found in Axe().run(page, "#root", OPTIONS).response["violations"]
        for node in found["nodes"][:3]
    ]


@pytest.mark.parametrize("light", [True, False], ids=["light", "dark"])
@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize(("name", "nth"), [(name, i) for name, cases in CASES.items() for i in range(len(cases))])
def test_no_violations(show: Callable[..., Any], name: str, nth: int, width: int, light: bool) -> None:
    page = shown(show, CASES[name][nth](), width=width, light=light)
    assert page.locator("#root *").count() > 3, "the panel is there"
    assert violations(page) == []


def test_a_violation_would_be_found(show: Callable[..., Any]) -> None:
    """The check can fail: an unlabelled slider, and grey on grey."""
    module = """export default { render({ el }) {
      el.innerHTML = "<input type=range><p style='color:#999;background:#aaa'>hard to read</p><b></b><i></i>"; } };"""
    found = " ".join(violations(show(module, "", {})))
    assert "label: " in found
    assert "color-contrast: " in found
