"""Dmesg in Chromium: keys choose lines and say them, a pasted report is sent; the notebook does not see the keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmemlab_widgets import Dmesg

pytestmark = pytest.mark.browser

REPORT = Path(__file__).resolve().parents[2] / "lessons" / "recordings" / "slub_debug_write_past_object.txt"


def opened(show: Callable[..., Any], **how: Any) -> Any:
    panel = Dmesg(REPORT.read_text(encoding="utf-8"))
    return show(Dmesg._esm, Dmesg._css, {"view_data": panel.view_data}, **how)


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_lines_by_key(show: Callable[..., Any], width: int, light: bool) -> None:
    page = opened(show, width=width, light=light)
    words = page.locator(".words")
    assert "the cache and the crime: overflow" in words.inner_text()
    page.locator(".log").focus()
    page.keyboard.press("j")
    assert "2 bytes damaged: the first behind an object of 100 bytes" in words.inner_text()
    page.keyboard.press("j")
    assert "o_init+0x162c: ask here first" in words.inner_text()
    page.keyboard.press("ArrowDown")
    assert "adds nothing" in words.inner_text()
    page.keyboard.press("k")
    assert "ask here first" in words.inner_text()
    chosen = page.locator('[aria-selected="true"]')
    assert chosen.count() == 1
    assert page.locator(".log").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.keyboard.press("End")
    assert page.evaluate("document.querySelector('.log').scrollTop > 0")
    assert page.evaluate("window.outside") == [], "the notebook does not see the keys"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_click_and_button(show: Callable[..., Any]) -> None:
    page = opened(show)
    page.locator(".row", has_text="Slab 0x").click()
    assert "room for 21, 1 in use" in page.locator(".words").inner_text()
    page.get_by_role("button", name="Next line").click()
    assert "1544 bytes into its slab" in page.locator(".words").inner_text()


def test_paste(show: Callable[..., Any]) -> None:
    page = opened(show)
    assert not page.locator("textarea").is_visible()
    page.get_by_role("button", name="Paste a report").click()
    page.keyboard.type("BUG x (Not tainted): Poison overwritten")
    page.get_by_role("button", name="Explain").click()
    assert page.evaluate("window.sent") == [{"paste": "BUG x (Not tainted): Poison overwritten"}]
    assert page.evaluate("window.outside") == []


def test_text_of_a_log_is_no_markup(show: Callable[..., Any]) -> None:
    page = opened(show)
    assert page.locator(".row", has_text="<TASK>").count() == 1
    page.evaluate("model.set('view_data', JSON.stringify({error: 'Dmesg\\npanel error: <i>x</i>'}))")
    assert "<i>x</i>" in page.locator(".failed").inner_text()
