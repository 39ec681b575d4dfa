"""OrderSlider in Chromium: slider, keys, clicks, both widths and themes, without a round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import Machine
from kmemlab_widgets import OrderSlider

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def panel() -> OrderSlider:
    return OrderSlider(Machine.from_recording("256M-c-23", state="state1"), order=9)


def opened(show: Callable[..., Any], panel: OrderSlider, **how: Any) -> Any:
    state = {"view_data": panel.view_data, "order": 9, "mask": "GFP_NOWAIT"}
    return show(OrderSlider._esm, OrderSlider._css, state, **how)


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_keyboard_moves_the_slider(show: Callable[..., Any], panel: OrderSlider, width: int, light: bool) -> None:
    page = opened(show, panel, width=width, light=light)
    heads = json.loads(panel.view_data)["heads"]
    shown = page.locator(".wide svg" if width == 868 else ".narrow svg")
    assert shown.is_visible()
    page.locator("input[type=range]").focus()
    for order in (8, 7, 6):
        page.keyboard.press("ArrowLeft")
        assert page.locator(".head").inner_text() == heads[order]
        assert page.locator("input[type=range]").get_attribute("aria-valuetext").startswith(f"order {order}, ")
        box = shown.locator(".pick .block").bounding_box()
        stop = shown.locator(".pick circle").first.bounding_box()
        assert abs(box["x"] + box["width"] / 2 - stop["x"] - stop["width"] / 2) < 1
    assert page.evaluate("model.get('order')") == 6
    assert page.evaluate("window.outside") == [], "the notebook does not see the keys"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_click_chooses_order_and_mask(show: Callable[..., Any], panel: OrderSlider) -> None:
    page = opened(show, panel)
    at = json.loads(panel.view_data)["geometry"]["868"]
    box = page.locator(".wide svg").bounding_box()
    page.mouse.click(box["x"] + at["left"] + 3.5 * at["cell"], box["y"] + at["rows"][3] + 8)
    assert page.evaluate("[model.get('order'), model.get('mask')]") == [3, "GFP_ATOMIC"]
    title = page.locator(".why .title").inner_text()
    assert title == json.loads(panel.view_data)["why"][3][3]["title"]
    assert page.locator(".choice button[aria-pressed=true]").inner_text() == "GFP_ATOMIC"


def test_reasons_and_words_for_ears(show: Callable[..., Any], panel: OrderSlider) -> None:
    """Both tests of each zone are shown, and the live line says the order's twin."""
    page = opened(show, panel)
    assert page.locator(".why b.bad").all_inner_texts() == [
        "✕ largest it may take: order 8",
        "✕ largest it may take: order 7",
    ]
    page.locator("input[type=range]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelector('.quiet').textContent.startsWith('Order 8')")


def test_python_moves_it_too_and_errors_are_shown(show: Callable[..., Any], panel: OrderSlider) -> None:
    page = opened(show, panel)
    page.evaluate("model.set('order', 2)")
    assert page.locator(".head").inner_text().startswith("Order 2 ")
    page.evaluate("model.set('view_data', JSON.stringify({error: 'OrderSlider\\npanel error: <i>x</i>'}))")
    assert page.locator(".sub").inner_text() == "panel error: <i>x</i>"
    assert not page.locator("input[type=range]").is_visible()
