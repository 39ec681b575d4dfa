"""FlagPicker: bits, presets, kernels, pasted masks, the button that tries."""

from __future__ import annotations

import json

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, Machine
from kmemlab.gfp_facts import mask_facts
from kmemlab_widgets import FlagPicker
from kmemlab_widgets.flagpicker import draw


def data(panel: FlagPicker) -> dict:
    return json.loads(panel.view_data)


def test_what_is_sent() -> None:
    panel = FlagPicker(GFP_KERNEL)
    sent = data(panel)
    assert sent["head"] == "GFP_KERNEL = 0xcc0: may sleep, so not while a spinlock is held"
    assert sent["text"] == "mode:0xcc0(GFP_KERNEL)"
    assert ["GFP_ATOMIC", 0xA20] in sent["presets"]
    assert sent["try"] is False
    assert repr(panel).startswith(sent["head"])


def test_ticking_and_kernels() -> None:
    panel = FlagPicker(GFP_KERNEL)
    panel._told(None, {"mask": 0xDC0}, None)
    assert int(panel.gfp) == 0xDC0
    panel._told(None, {"kernel": "linux-2.6.11"}, None)
    assert (int(panel.gfp), data(panel)["kernel"]) == (0x80D0, "linux-2.6.11")
    panel._told(None, {"mask": 0x100}, None)
    panel._told(None, {"kernel": "linux-6.1"}, None)
    assert data(panel)["said"] == "not in this kernel: __GFP_COLD"


@pytest.mark.parametrize(
    "text", ["0x20", "mode:0x20", "page allocation failure. order:0, mode:0x20(GFP_X)", "gfp_mask=0x20"]
)
def test_paste(text: str) -> None:
    panel = FlagPicker(GFP_KERNEL, kernel="linux-2.6.11")
    panel._told(None, {"paste": text}, None)
    assert data(panel)["head"].startswith("GFP_ATOMIC = 0x20")


def test_paste_of_nothing() -> None:
    panel = FlagPicker(GFP_KERNEL)
    panel._told(None, {"paste": "hello"}, None)
    assert data(panel)["said"] == "no mask in 'hello': paste 0xcc0, or a line with mode:0xcc0"
    assert int(panel.gfp) == 0xCC0
    for nonsense in ({}, {"mask": -1}, {"mask": "x"}, {"kernel": "bsd"}, {"mask": 1 << 40}):
        panel._told(None, nonsense, None)
        assert int(panel.gfp) == 0xCC0


def test_try_it() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = FlagPicker(m, gfp=GFP_ATOMIC)
    assert data(panel)["try"] is True
    panel._told(None, {"try": True}, None)
    assert data(panel)["said"].startswith("alloc_pages(GFP_ATOMIC, 0) = pfn ")
    assert data(panel)["zones"] == ["DMA32", "DMA"]
    m.sysctl("watermark_boost_factor", 0)
    m.process("hog", "8M")
    with m.preempt_disable():
        while m.alloc_pages(0x2000, 0):
            pass
    panel._told(None, {"mask": 0xC40}, None)
    panel._told(None, {"try": True}, None)
    assert "nobody may be killed for it" in data(panel)["said"]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="FlagPicker: kernel must be one of"):
        FlagPicker(0, kernel="linux-9")
    with pytest.raises(ValueError, match="FlagPicker: gfp must be a mask"):
        FlagPicker(-1)
    with pytest.raises(TypeError, match="FlagPicker wants a Machine or a int"):
        FlagPicker("x")


@pytest.mark.parametrize("width", [868, 358])
@pytest.mark.parametrize("mask", [0, 0xCC0, 0xA20, 0x1F])
def test_the_drawing(mask: int, width: int) -> None:
    svg = draw(mask_facts(mask), width)
    assert svg.startswith("<svg")
    assert "Where it is allowed" in svg
    assert f"{mask:#x}" in svg
