"""MempoolGauge and TaskTimeline in Chromium: steps by key, pointer and handle; the box; the notebook sees no keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import GFP_KERNEL, Machine
from kmemlab_widgets import MempoolGauge, TaskTimeline

pytestmark = pytest.mark.browser


def opened(show: Callable[..., Any], panel: Any, **how: Any) -> Any:
    state = {"view_data": panel.view_data}
    if isinstance(panel, MempoolGauge):
        state |= {"alloc_fn_fails": panel.alloc_fn_fails, "breakable": panel.breakable}
    return show(panel._esm, panel._css, state, **how)


def live() -> MempoolGauge:
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_kmalloc_pool(2, 100)
    panel = MempoolGauge(m, pool)
    for _ in range(3):
        m.mempool_alloc(pool, GFP_KERNEL)
    panel.refresh()
    return panel


def timeline() -> TaskTimeline:
    m = Machine("linux-6.1", memory="64M")
    panel = TaskTimeline(m)

    def ticker(k: Any) -> Any:
        for _ in range(30):
            yield from k.msleep(5)

    m.spawn(ticker, "ticker")
    m.run()
    panel.refresh()
    return panel


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_steps_by_key(show: Callable[..., Any], width: int, light: bool) -> None:
    page = opened(show, MempoolGauge("mempool"), width=width, light=light)
    picture = page.locator(".wide" if width == 868 else ".narrow")
    assert picture.is_visible()
    assert page.locator(".badge").inner_text() == "recorded, Linux 6.1.192"
    assert page.locator(".fails").is_hidden(), "a recording cannot be changed"
    frame, handle = picture.locator(".frame"), page.locator("input[type=range]")
    handle.focus()
    before = float(frame.get_attribute("x"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".said").inner_text().startswith("step 2 mempool_alloc(pool, GFP_KERNEL): alloc_fn gave e5")
    assert handle.get_attribute("aria-valuetext").startswith("step 2: mempool_alloc")
    grid = page.evaluate(f"JSON.parse(model.get('view_data')).grid[{width}]")
    assert float(frame.get_attribute("x")) == pytest.approx(before + 2 * grid["step"])
    assert page.evaluate("window.sent") == [], "no round trip for what is seen"
    page.keyboard.press("End")
    assert page.evaluate("window.sent") == [{"at": 25}], "what is not seen is asked for"
    assert page.evaluate("window.outside") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hover_and_click(show: Callable[..., Any]) -> None:
    page = opened(show, MempoolGauge("mempool"))
    box = page.locator(".wide svg").bounding_box()
    grid = page.evaluate("JSON.parse(model.get('view_data')).grid[868]")
    x, y = box["x"] + grid["x"] + 10.5 * grid["step"], box["y"] + 60
    page.mouse.move(x, y)
    assert page.locator(".said b").inner_text() == "step 10"
    assert page.locator("input[type=range]").input_value() == "0"
    page.mouse.move(box["x"] + 20, y)
    assert page.locator(".said b").inner_text() == "step 0"
    page.mouse.move(x, y)
    assert page.locator(".said b").inner_text() == "step 10"
    page.mouse.move(x, box["y"] + box["height"] + 30)
    assert page.locator(".said b").inner_text() == "step 0", "the pointer has left the picture"
    page.mouse.click(x, y)
    page.mouse.move(box["x"] + 20, y)
    assert page.locator(".said b").inner_text() == "step 10"
    assert page.locator("input[type=range]").input_value() == "10"
    assert "slept on pool->wait, 332 ms" in page.locator(".said").inner_text()


def test_the_box(show: Callable[..., Any]) -> None:
    page = opened(show, live())
    assert page.locator(".fails").is_visible()
    assert page.locator(".badge").count() == 0
    page.locator(".fails input").check()
    assert page.evaluate("model.get('alloc_fn_fails')") is True
    page.evaluate("model.set('alloc_fn_fails', false)")
    assert not page.locator(".fails input").is_checked()
    assert page.locator(".said b").inner_text() == "step 3"
    page.wait_for_timeout(400)
    assert page.locator("[aria-live]").text_content() == page.locator(".head").inner_text()


def test_a_redraw_and_an_error(show: Callable[..., Any]) -> None:
    panel = live()
    page = opened(show, panel)
    panel.watch.pool.elements.pop()
    panel.watch.m.mempool_free("<i>mine</i>", panel.watch.pool)
    panel.refresh()
    page.evaluate("data => model.set('view_data', data)", panel.view_data)
    assert page.locator(".said").inner_text().startswith("step 4 mempool_free(<i>mine</i>, pool)")
    assert page.locator("i").count() == 0
    page.evaluate("model.set('view_data', JSON.stringify({error: 'MempoolGauge\\npanel error: <i>x</i>'}))")
    assert page.locator(".sub").inner_text() == "panel error: <i>x</i>"
    assert not page.locator(".hand").is_visible()


@pytest.mark.parametrize("width", [868, 358])
def test_the_timeline(show: Callable[..., Any], width: int) -> None:
    page = opened(show, timeline(), width=width)
    assert page.locator(".fails").is_hidden()
    handle = page.locator("input[type=range]")
    assert (handle.get_attribute("max"), handle.input_value()) == ("30", "30")
    assert handle.get_attribute("aria-label") == "moment"
    assert page.locator(".said").inner_text() == "150 ms ticker wakes by itself, runs and ends."
    handle.focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".said").inner_text() == "145 ms ticker wakes by itself, runs and sleeps in msleep(5)."
    page.keyboard.press("Home")
    assert page.evaluate("window.sent") == [{"at": 0}]


def test_nothing_yet(show: Callable[..., Any]) -> None:
    page = opened(show, TaskTimeline(Machine("linux-6.1", memory="64M")))
    assert page.locator("input[type=range]").is_disabled()
    assert page.locator(".said").inner_text() == "now nothing has happened yet"
