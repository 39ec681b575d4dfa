"""OrderSlider: what it says is what the machine then does; one table a state; the picture follows the words."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOWAIT, NULL, Machine
from kmemlab.probe import verdicts
from kmemlab_widgets import OrderSlider
from kmemlab_widgets.orderslider import MASKS, bands, headline, twin
from kmemlab_widgets.panel import refresh_all


@pytest.fixture
def m() -> Machine:
    """After 20,000 recorded calls: a block of order 9 is left only in the HighAtomic reserve."""
    return Machine.from_recording("256M-c-23", state="state1")


def table_of(m: Machine) -> Any:
    asked = verdicts(m, MASKS.values())
    return [(name, asked[gfp]) for name, gfp in MASKS.items()]


def test_headline_and_twin_say_what_the_machine_does(m: Machine) -> None:
    """For each order and mask: the word for it, and the call itself on a copy."""
    table = table_of(m)
    for order in range(11):
        words = twin(table, order)
        assert words.startswith(headline(table, order) + "\n")
        parts = words.splitlines()[1].partition("): ")[2].split("; ")
        for name, gfp in MASKS.items():
            page = m.copy().alloc_pages(gfp, order)
            said = next(part for part in parts if part.startswith(f"{name} "))
            if "may wait" in said:
                continue  # it may be served then, and it may not
            if page is not NULL:
                assert f" {page.zone.name}, frame {page.pfn}, " in said
            else:
                assert said.startswith((f"{name} may wait: ", f"{name} NULL: "))
    assert headline(table, 9).startswith(
        "Order 9 (2 MiB): only GFP_ATOMIC gets one at once from the HighAtomic reserve"
    )
    assert "GFP_NOWAIT NULL: DMA32 30619 > 1333 but largest order 8, DMA 2604 > 725 but largest order 7" in twin(
        table, 9
    )


def test_headline_when_all_agree() -> None:
    m = Machine("linux-6.1", memory="64M")
    assert headline(table_of(m), 0) == "Order 0 (4 KiB): every mask gets one at once"
    while m.alloc_pages(GFP_ATOMIC | 0x22000, 0):
        pass
    assert headline(table_of(m), 10).startswith("Order 10 (4 MiB): nobody gets one at once; ")


def test_bands_join_equal_verdicts(m: Machine) -> None:
    """The bands of a mask cover the eleven orders without a gap, and neighbours differ."""
    for _, row in table_of(m):
        found = bands(row)
        assert [o for band in found for o in range(band.first, band.last + 1)] == list(range(11))
        assert all(a.words != b.words for a, b in itertools.pairwise(found))


def test_the_panel_follows_and_leaves_the_machine_alone(m: Machine) -> None:
    before = m.cat("/proc/zoneinfo"), m.calls, m.dmesg()
    panel = OrderSlider(m, order=9)
    assert (m.cat("/proc/zoneinfo"), m.calls, m.dmesg()) == before
    assert (panel.order, panel.mask) == (9, "GFP_NOWAIT")
    first = panel.view_data
    refresh_all(m)
    assert panel.view_data == first
    m.alloc_pages(GFP_KERNEL, 8)
    refresh_all(m)
    assert panel.view_data != first
    data = json.loads(panel.view_data)
    assert len(data["heads"]) == len(data["why"][0]) == 11
    assert data["masks"] == list(MASKS)


def test_a_test_that_was_not_made_is_not_shown() -> None:
    """The block is looked for only where the amount was enough: 48 pages are left, a block of order 5 among them."""
    m = Machine.from_recording("256M-a-21")
    while m.alloc_pages(GFP_DMA | GFP_NOWAIT | 0x2000, 4):
        pass
    data = json.loads(OrderSlider(m, order=4, masks={"GFP_DMA": int(GFP_DMA)}).view_data)
    (test,) = data["why"][0][4]["tests"]
    assert test["amount"][0] is False
    assert test["block"] is None
    assert "short" in test["amount"][1] or "equal" in test["amount"][1]


def test_saved_picture_and_text(m: Machine) -> None:
    data, _ = OrderSlider(m, order=9)._repr_mimebundle_()
    assert data["text/plain"].startswith("Order 9 (2 MiB)")
    assert data["text/html"].startswith('<img alt="Order 9 (2 MiB)')
    assert len(data["text/html"]) < 20_000


def test_wrong_arguments(m: Machine) -> None:
    for bad in (11, -1, "4"):
        with pytest.raises(ValueError, match="order="):
            OrderSlider(m, order=bad)
    with pytest.raises(ValueError, match="at least one mask"):
        OrderSlider(m, masks={})
    with pytest.raises(TypeError, match="a Machine, not a Snapshot"):
        OrderSlider(m.snapshot())


def test_names_are_escaped(m: Machine) -> None:
    panel = OrderSlider(m, masks={"<b>&": int(GFP_KERNEL)})
    assert "<b>" not in json.loads(panel.view_data)["base"]["868"]
    assert "<b>" not in panel._repr_mimebundle_()[0]["text/html"]
