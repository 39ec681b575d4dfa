"""FlagPicker in Chromium: native boxes keep the focus, what is sent, both widths and themes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import Machine
from kmemlab_widgets import FlagPicker

pytestmark = pytest.mark.browser


def opened(show: Callable[..., Any], panel: FlagPicker, **how: Any) -> Any:
    return show(FlagPicker._esm, FlagPicker._css, {"view_data": panel.view_data}, **how)


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_by_keyboard(show: Callable[..., Any], width: int, light: bool) -> None:
    panel = FlagPicker(Machine("linux-6.1", memory="64M"))
    page = opened(show, panel, width=width, light=light)
    box = page.get_by_label("ZERO")
    assert not box.is_checked()
    assert page.get_by_label("DIRECT_RECLAIM").is_checked()
    box.focus()
    page.keyboard.press("Space")
    assert page.evaluate("window.sent") == [{"mask": 0xDC0}]
    panel._told(None, {"mask": 0xDC0}, None)
    page.evaluate("data => model.set('view_data', data)", panel.view_data)
    assert page.locator(".mode").inner_text() == "mode:0xdc0(GFP_KERNEL|__GFP_ZERO)"
    assert box.is_checked()
    assert page.evaluate("document.activeElement.parentElement.textContent") == "ZERO", "the focus stays"
    assert page.evaluate("window.outside") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_presets_kernel_paste_try(show: Callable[..., Any]) -> None:
    page = opened(show, FlagPicker(Machine("linux-6.1", memory="64M")))
    assert page.get_by_role("button", name="GFP_KERNEL", exact=True).get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="GFP_ATOMIC").click()
    page.get_by_role("button", name="2.6.11").click()
    page.get_by_label("paste a mask").fill("mode:0x820")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Try it").click()
    sent = page.evaluate("window.sent")
    assert sent == [{"mask": 0xA20}, {"kernel": "linux-2.6.11"}, {"paste": "mode:0x820"}, {"try": True}]
    assert page.locator(".answers li.bad").count() == 4


def test_without_a_machine_there_is_nothing_to_try(show: Callable[..., Any]) -> None:
    page = opened(show, FlagPicker(0x18))
    assert not page.get_by_role("button", name="Try it").is_visible()
    assert "no such migratetype" in page.locator(".notes").inner_text()
