"""FreeLists in Chromium: bars are pointed at with pointer and arrows, their blocks light up on a linked map."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from kmemlab import GFP_DMA, Machine
from kmemlab_widgets import FreeLists, ZoneMap

pytestmark = pytest.mark.browser


@pytest.fixture
def m() -> Machine:
    return Machine.from_recording("256M-a-21")


def opened(show: Callable[..., Any], panel: FreeLists, **how: Any) -> Any:
    return show(FreeLists._esm, FreeLists._css, {"data": panel.data, "mask": panel.mask}, **how)


@pytest.mark.parametrize("width", [868, 358])
def test_arrows_walk_over_the_orders(show: Callable[..., Any], m: Machine, width: int) -> None:
    """Each order's lists are named, head first, also for ears; the notebook does not see the keys."""
    page = opened(show, FreeLists(m, zone="DMA"), width=width)
    page.locator(".stage").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text() == "order 0: 0 blocks"
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.locator(".tip").inner_text() == "order 10: 3 blocks · head first: Movable 1024, 2048, 3072"
    page.wait_for_function("document.querySelectorAll('.quiet')[1].textContent.startsWith('order 10')")
    assert page.evaluate("sent") == [{"do": "point", "order": order} for order in range(11)]
    page.keyboard.press("p")
    assert page.evaluate("sent.at(-1)") == {"do": "mark"}
    page.keyboard.press("Escape")
    assert page.locator(".tip").is_hidden()
    assert page.evaluate("outside") == []


def test_the_pointer(show: Callable[..., Any], m: Machine) -> None:
    page = opened(show, FreeLists(m, zone="DMA"))
    at = json.loads(FreeLists(m, zone="DMA").data)["at"]
    box = page.locator(".wide svg").bounding_box()
    page.mouse.move(box["x"] + at["left"] + 5.5 * at["step"], box["y"] + 150)
    assert page.locator(".tip").inner_text() == "order 5: 1 block · head first: Unmovable 288"
    here = page.locator(".here").bounding_box()
    assert here["x"] <= box["x"] + at["left"] + 5.5 * at["step"] <= here["x"] + here["width"]
    page.mouse.move(box["x"] + 5, box["y"] + 150)
    assert page.locator(".tip").is_hidden()


def test_the_flag_is_chosen_natively(show: Callable[..., Any], m: Machine) -> None:
    panel = FreeLists(m, zone="DMA")
    page = opened(show, panel)
    page.locator("select").select_option("GFP_DMA")
    assert page.evaluate("model.get('mask')") == "GFP_DMA"
    snapshot = opened(show, FreeLists(m.snapshot(), zone="DMA"))
    assert snapshot.locator("select").is_hidden(), "nobody can be asked"


def test_a_bars_blocks_light_up_on_the_map(show: Callable[..., Any], m: Machine) -> None:
    """Python hands the blocks of the bar on; the map frames them and forgets them again."""
    zm = ZoneMap(m, zone="DMA")
    panel = FreeLists(m, zone="DMA", link=zm)
    panel._hear(panel, {"do": "point", "order": 10}, [])
    assert zm.lit == [[1024, 10], [2048, 10], [3072, 10]]
    state = {name: base64.b64encode(getattr(zm, name)).decode() for name in ("cells", "orders")}
    page = show(ZoneMap._esm, ZoneMap._css, state | {"meta": zm.meta, "frame": 1}, binary=("cells", "orders"))
    drawn = """() => [...document.querySelectorAll('canvas')].reduce((sum, canvas) => sum +
      canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.filter(Boolean).length, 0)"""
    before = page.evaluate(drawn)
    page.evaluate("lit => model.set('lit', lit)", zm.lit)
    assert page.evaluate(drawn) > before + 1000
    panel._hear(panel, {"do": "point", "order": -1}, [])
    assert zm.lit == []
    page.evaluate("model.set('lit', [])")
    assert page.evaluate(drawn) == before


def test_the_last_row_says_what_the_machine_does(m: Machine) -> None:
    """The mask's row, in the drawing and in words, against the calls themselves."""
    panel = FreeLists(m, zone="DMA", mask="GFP_DMA")
    assert "GFP_DMA: up to order 10 at once." in repr(panel)
    while m.alloc_pages(GFP_DMA | 0x2000, 8):
        pass
    panel.refresh()
    works = [order for order in range(11) if m.copy().alloc_pages(GFP_DMA | 0x2000, order)]
    assert f"GFP_DMA: up to order {works[-1]} at once; above that NULL." in repr(panel)
    assert panel._last.wide.count("✕ NULL") == 10 - works[-1]
    with pytest.raises(ValueError, match="mask='GFP_X': FreeLists knows"):
        FreeLists(m, mask="GFP_X")
