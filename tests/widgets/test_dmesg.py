"""Dmesg: the finding, the lines and their meaning; the machine's log, a text, a pasted report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmemlab import GFP_KERNEL, Machine
from kmemlab_widgets import Dmesg
from kmemlab_widgets.dmesg import DRAWN, MOST, draw, read_log

TEXT = (
    Path(__file__).resolve().parents[2] / "lessons" / "recordings" / "slub_debug_write_past_object.txt"
).read_text(encoding="utf-8")  # fmt: skip


def overflowing() -> Machine:
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create("net_buf", 100, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.write(p + 100, b"AB")
    m.kmem_cache_free(c, p)
    return m


def test_the_finding_is_the_headline() -> None:
    panel = Dmesg(overflowing())
    data = json.loads(panel.view_data)
    assert data["head"] == "overflow in net_buf at byte 100, 2 long, found at the free: ask python"
    assert data["sub"].startswith("dmesg · ")
    assert data["lines"][data["start"]][1].startswith("the cache and the crime: overflow")
    assert repr(panel).startswith(data["head"])


def test_it_follows_the_log() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = Dmesg(m)
    assert json.loads(panel.view_data)["head"] == "no report in the log"
    c = m.kmem_cache_create("doomed", 64, 0, 0, None)
    m.kmem_cache_alloc(c, GFP_KERNEL)
    c.refcount = 1  # joined to others it would not be destroyed
    m.kmem_cache_destroy(c)
    panel.refresh()
    assert "live at destroy" in json.loads(panel.view_data)["head"]


def test_a_text_and_a_pasted_report() -> None:
    panel = Dmesg(TEXT)
    assert "ask o_init+0x162c" in json.loads(panel.view_data)["head"]
    panel._told(None, {"paste": "nothing here\nat all"}, None)
    data = json.loads(panel.view_data)
    assert (data["head"], data["pasted"], len(data["lines"])) == ("no report in the log", True, 2)
    panel._told(None, {"paste": ""}, None)
    assert json.loads(panel.view_data)["pasted"] is False
    panel._told(None, {"paste": 7}, None)
    assert "o_init" in json.loads(panel.view_data)["head"]


def test_what_it_does_not_show() -> None:
    with pytest.raises(TypeError, match="Dmesg wants a Machine or a str, not 7"):
        Dmesg(7)


def test_a_long_log_keeps_its_end() -> None:
    log = read_log("\n".join(f"line {i}" for i in range(1000)))
    assert len(log.lines) == MOST
    assert log.lines[-1] == ("line 999", "")


@pytest.mark.parametrize("width", [868, 358])
def test_the_drawing(width: int) -> None:
    svg = draw(read_log(TEXT), "sub", width)
    assert svg.startswith("<svg")
    assert "ask here first" in svg
    assert svg.count("<text") <= 4 * DRAWN
    assert "&lt;TASK&gt;" in svg
    assert "<TASK>" not in svg
