"""SizeClasses in Chromium: slider, keys, switches, compare; the words are Python's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab.size_classes import LADDERS
from kmemlab_widgets import SizeClasses
from kmemlab_widgets.sizeclasses import headline, subline, twin

pytestmark = pytest.mark.browser
SIZES = [0, 1, 7, 8, 9, 65, 96, 97, 100, 520, 4096, 4097, 8192, 8193, 200_100, 131072, 131073, 4194304, 4194305]


@pytest.fixture(scope="module")
def panel() -> SizeClasses:
    return SizeClasses()


def opened(show: Callable[..., Any], panel: SizeClasses, **how: Any) -> Any:
    state = {"view_data": panel.view_data, "size": 100, "kernel": "linux-6.1", "family": "normal"}
    return show(SizeClasses._esm, SizeClasses._css, state, **how)


@pytest.mark.parametrize("kernel", list(LADDERS))
def test_the_words_are_the_same_in_both_languages(show: Callable[..., Any], panel: SizeClasses, kernel: str) -> None:
    page = opened(show, panel)
    ladder = LADDERS[kernel]
    page.evaluate(f"model.set('kernel', '{kernel}')")
    for family in ("normal", "dma", "cg"):
        page.evaluate(f"model.set('family', '{family}')")
        for size in SIZES:
            page.evaluate(f"model.set('size', {size})")
            assert page.locator(".head").inner_text() == headline(ladder, size)
            assert page.locator(".sub").inner_text() == subline(ladder, size, family)


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("light", [True, False])
def test_keys(show: Callable[..., Any], panel: SizeClasses, width: int, light: bool) -> None:
    page = opened(show, panel, width=width, light=light)
    assert page.locator(".wide svg" if width == 868 else ".narrow svg").is_visible()
    page.locator("input[type=range]").focus()
    for key, size in (("ArrowRight", 101), ("ArrowLeft", 100), ("Shift+ArrowRight", 116), ("PageUp", 128),
                      ("PageUp", 192), ("PageDown", 128), ("End", 8388608), ("Home", 1), ("ArrowLeft", 0)):  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate("model.get('size')") == size
    assert page.evaluate("window.outside") == [], "the notebook does not see the keys"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_slide_until_null(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    slider = page.locator("input[type=range]")
    slider.evaluate("node => { node.value = 2200; node.dispatchEvent(new Event('input')); }")
    assert "gets 4,194,304 bytes: it fits exactly" in page.locator(".head").inner_text()
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert "gets NULL" in page.locator(".head").inner_text()
    page.get_by_role("button", name="linux-2.6.11").click()
    page.locator("input.bytes").fill("131072")
    page.locator("input.bytes").press("Tab")
    assert "it fits exactly" in page.locator(".head").inner_text()
    assert page.get_by_role("button", name="cg").is_disabled()


def test_pointer_and_compare(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    page.locator("input[type=range]").focus()
    page.keyboard.press("c")
    box = page.locator(".wide svg").bounding_box()
    page.mouse.click(box["x"] + 76 + (868 - 90) * 9 / 23, box["y"] + 120)
    assert 490 < page.evaluate("model.get('size')") < 535
    assert page.locator(".compare").inner_text().startswith("kept: kmalloc(100) gets 128 bytes")
    kept = page.locator(".wide line[stroke-dasharray='4 3']")
    assert kept.evaluate("node => node.style.display") == ""
    assert float(kept.get_attribute("x1")) < float(page.locator(".wide g line").last.get_attribute("x1"))


def test_errors_are_shown(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    page.evaluate("model.set('view_data', JSON.stringify({error: 'SizeClasses\\npanel error: <i>x</i>'}))")
    assert page.locator(".sub").inner_text() == "panel error: <i>x</i>"
    assert not page.locator("input[type=range]").is_visible()


def test_typed_sizes_are_whole_and_stay_on_the_axis(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    for typed, size in (("8.6", 9), ("-5", 0), ("99999999", 8388608), ("", 0)):
        page.locator("input.bytes").fill(typed)
        page.locator("input.bytes").press("Tab")
        assert page.evaluate("model.get('size')") == size


def test_a_family_the_old_kernel_lacks_is_not_pressed(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    page.get_by_role("button", name="cg").click()
    assert page.locator(".sub").inner_text().startswith("kmalloc-cg-128 of")
    teeth = page.locator(".wide svg path").count()
    page.get_by_role("button", name="linux-2.6.11").click()
    assert page.locator(".wide svg path").count() != teeth, "another kernel, other teeth"
    pressed = page.locator(".choice button[aria-pressed=true]").all_inner_texts()
    assert pressed == ["linux-2.6.11", "normal"]
    page.get_by_role("button", name="linux-6.1").click()
    assert page.locator(".sub").inner_text().startswith("kmalloc-cg-128 of"), "the choice is kept"


def test_a_touch_that_becomes_a_scroll_lets_go(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    sizes = page.evaluate("""() => {
      const picture = document.querySelector(".wide"), box = picture.getBoundingClientRect(), sizes = [];
      const at = (target, name, x) => {
        target.dispatchEvent(new PointerEvent(name, { bubbles: true, clientX: box.left + x, clientY: box.top + 100 }));
        sizes.push(model.get("size"));
      };
      at(picture, "pointerdown", 300); at(window, "pointermove", 400);
      at(window, "pointercancel", 400); at(window, "pointermove", 700);
      return sizes;
    }""")
    assert sizes[0] < sizes[1] == sizes[2] == sizes[3]
    assert page.locator(".wide svg").evaluate("node => getComputedStyle(node).touchAction") == "pan-y"


@pytest.mark.parametrize("kernel", list(LADDERS))
def test_what_is_said_aloud_is_the_text_twin(show: Callable[..., Any], panel: SizeClasses, kernel: str) -> None:
    page = opened(show, panel)
    page.evaluate(f"model.set('kernel', '{kernel}')")
    for size in (0, 1, 33, 520, 8193, 4194305):
        page.evaluate(f"model.set('size', {size})")
        page.wait_for_timeout(350)
        assert page.locator("[aria-live]").text_content() == twin(LADDERS[kernel], size)


def test_the_second_handle_can_be_set_without_a_key(show: Callable[..., Any], panel: SizeClasses) -> None:
    page = opened(show, panel)
    knob = page.locator(".wide circle[r='5']")
    assert not knob.is_visible()
    page.get_by_role("button", name="keep to compare").click()
    page.evaluate("model.set('size', 5000)")
    assert page.locator(".compare").inner_text() == f"kept: {headline(LADDERS['linux-6.1'], 100)}"
    x = 76 + (868 - 90) * math.log2(100) / 23
    assert float(knob.get_attribute("cx")) == pytest.approx(x)
    before = float(knob.get_attribute("cy"))
    page.evaluate("model.set('size', 8)")
    page.get_by_role("button", name="linux-2.6.11").click()
    assert float(knob.get_attribute("cy")) == pytest.approx(before), "100 gets 128 on both"
