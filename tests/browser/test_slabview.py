"""SlabView in Chromium: hover, arrows, click frees, N allocates; the notebook does not see the keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import GFP_KERNEL, Machine
from kmemlab_widgets import SlabView

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def panel() -> SlabView:
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    c = m.kmem_cache_create("conn", 256, 0, 0, None)
    objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(40)]
    m.kmem_cache_free(c, objects[3])
    m.kmem_cache_free(c, objects[33])
    return SlabView(m, c, object=objects[34])


def opened(show: Callable[..., Any], panel: SlabView, **how: Any) -> Any:
    return show(SlabView._esm, SlabView._css, {"view_data": panel.view_data}, **how)


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_arrows_enter_and_n(show: Callable[..., Any], panel: SlabView, width: int, light: bool) -> None:
    page = opened(show, panel, width=width, light=light)
    picture = page.locator(".wide" if width == 868 else ".narrow")
    assert picture.is_visible()
    picture.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text().startswith("object 0 of slab ")
    page.keyboard.press("ArrowRight")
    assert "object 1 of slab" in page.locator(".tip").inner_text()
    assert "free, first on its list" in page.locator(".tip").inner_text()
    page.keyboard.press("Enter")
    assert page.evaluate("window.sent") == [], "a free object is not freed again"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    sent = page.evaluate("window.sent")
    assert [list(message) for message in sent] == [["free"], ["alloc"]]
    assert sent[0]["free"][1] == 0
    page.keyboard.press("ArrowDown")
    assert "partial list of CPU 0" in page.locator(".tip").inner_text()
    assert page.evaluate("window.outside") == [], "the notebook does not see the keys"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hover_and_click(show: Callable[..., Any], panel: SlabView) -> None:
    page = opened(show, panel)
    box = page.locator(".wide svg").bounding_box()
    at = page.evaluate("JSON.parse(model.get('view_data')).boxes['868'][0]")
    x, y = box["x"] + at["x"] + 2.5 * at["cell"], box["y"] + at["y"] + 0.5 * at["cell"]
    page.mouse.move(x, y)
    assert page.locator(".tip").inner_text().startswith(f"object 2 of slab {at['pfn']} (cpu slab of CPU 0)")
    assert page.locator(".wide .frame").get_attribute("visibility") == "visible"
    page.mouse.click(x, y)
    assert page.evaluate("window.sent") == [{"free": [at["pfn"], 2]}]


def test_bytes_and_errors(show: Callable[..., Any], panel: SlabView) -> None:
    page = opened(show, panel)
    assert page.locator(".bytes .line").count() == 16
    page.evaluate("model.set('view_data', JSON.stringify({error: 'SlabView\\npanel error: <i>x</i>'}))")
    assert "<i>x</i>" in page.locator(".failed").inner_text()
    assert not page.locator(".hands").is_visible()
