"""What a click on the map asks: corner brackets, whose block this is, free it, its history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, Machine
from kmemlab.probe import largest
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import block_rect, lay_out


@pytest.fixture
def m() -> Machine:
    """A real machine's first moment."""
    return Machine.from_recording("256M-a-21")


class Asked:
    """A panel whose answers are kept."""

    def __init__(self, panel: ZoneMap) -> None:
        self.panel = panel
        self.said: list[Any] = []
        panel.send = lambda content, buffers=(): self.said.append((content, buffers))

    def __call__(self, **question: Any) -> Any:
        """Ask as the browser does; returns the last answer."""
        self.said.clear()
        self.panel._handle_custom_msg(question, [])
        return self.said[-1][0] if self.said else None


@pytest.mark.parametrize("name", ["GFP_KERNEL", "GFP_ATOMIC", "GFP_DMA", "GFP_HIGHUSER_MOVABLE"])
def test_brackets(m: Machine, name: str) -> None:
    """Where the largest request of the flag would land, in marks, key and twin; it follows the machine."""
    gfp = {"GFP_KERNEL": GFP_KERNEL, "GFP_ATOMIC": GFP_ATOMIC, "GFP_DMA": GFP_DMA}.get(name, GFP_HIGHUSER_MOVABLE)
    panel = ZoneMap(m)
    ask = Asked(panel)
    ask(ask="flag", flag=name)
    pfn, order = largest(m, gfp)
    meta = json.loads(panel.meta)
    assert meta["marks"]["largest"] == {"gfp": name, "block": [pfn, order]}
    words = f"where {name}'s largest would land: order {order} at {pfn}"
    assert ["largest", words] in meta["key"]
    assert repr(panel).endswith(f"\n{words}.")
    while (now := largest(m, gfp)) == (pfn, order):
        assert m.alloc_pages(gfp, order)
    refresh_all(m)
    assert json.loads(panel.meta)["marks"]["largest"]["block"] == (None if now is None else [*now])
    ask(ask="flag", flag="")
    assert "would land" not in repr(panel)


def test_asking_does_not_change_the_machine(m: Machine) -> None:
    """The question is put to a copy."""
    panel, before = ZoneMap(m), m.snapshot()
    Asked(panel)(ask="flag", flag="GFP_KERNEL")
    assert m.snapshot() == before


def test_brackets_in_the_saved_picture(m: Machine) -> None:
    """Four corners round the block; nothing when no flag is chosen."""
    panel = ZoneMap(m, zone="DMA")
    corner = 'stroke="var(--kml-ink)" stroke-width="3"'
    assert corner not in panel._last.wide
    Asked(panel)(ask="flag", flag="GFP_DMA")
    svg = panel._last.wide
    assert "where GFP_DMA&#x27;s largest would land: order 10 at 1024" in svg
    assert svg.count(corner) == 2  # on the map and in the key
    layout = lay_out(panel._shown[0], 868, 0)
    tile = next(tile for tile in layout.tiles if tile.pfn == 1024)
    x = tile.x + block_rect(1024, 10)[0] * layout.px - 2
    assert f"H{x}V" in svg


def test_no_page_at_all(m: Machine) -> None:
    """A flag that gets nothing has no corners, and the key says so."""
    while m.alloc_pages(GFP_DMA | 0x2000, 0):
        pass
    panel = ZoneMap(m)
    Asked(panel)(ask="flag", flag="GFP_DMA")
    assert json.loads(panel.meta)["marks"]["largest"]["block"] is None
    assert "GFP_DMA: not one page now" in repr(panel)


def test_a_block_elsewhere_is_said(m: Machine) -> None:
    """The map of one zone, the block in another."""
    panel = ZoneMap(m, zone="DMA")
    Asked(panel)(ask="flag", flag="GFP_KERNEL")
    assert json.loads(panel.meta)["key"][0][1].endswith(", not on this map")


def test_whose_block(m: Machine) -> None:
    """Ours, with the call it came from; else why not."""
    page = m.alloc_pages(GFP_DMA, 4)
    ask = Asked(ZoneMap(m))
    answer = ask(ask="pin", pfn=page.pfn + 5)
    assert answer["block"] == [page.pfn, 4]
    assert answer["words"] == f"block {page.pfn}–{page.pfn + 15}, from alloc_pages(GFP_DMA, 4)"
    for pfn, words in (
        (1024, "in the buddy lists: already free"),
        (200, "reserved at boot: the allocator never had it"),
        (256, "in use since boot: not ours to free"),
    ):
        assert ask(ask="pin", pfn=pfn) == {"kind": "pin", "pfn": pfn, "block": None, "words": words}
    m.__free_pages(page, 4)
    other = m.alloc_pages(GFP_KERNEL, 0)
    m.__free_pages(other, 0)
    refresh_all(m)
    assert ask(ask="pin", pfn=other.pfn)["words"] == "on a per-CPU list: already given back"


def test_free_by_click(m: Machine) -> None:
    """The block goes back whole, and all panels of the machine follow."""
    page = m.alloc_pages(GFP_DMA, 4)
    panel, other = ZoneMap(m), ZoneMap(m, zone="DMA")
    before = m.snapshot().zone("DMA").nr_free_pages
    frames = panel.frame, other.frame
    assert Asked(panel)(ask="free", pfn=page.pfn + 7) == {"kind": "report", "text": ""}
    assert page.refcount == 0
    assert m.snapshot().zone("DMA").nr_free_pages == before + 16
    assert (panel.frame, other.frame) == (frames[0] + 1, frames[1] + 1)
    assert repr(other).startswith(f"__free_pages(pfn {page.pfn}, 4)")
    m.check()


def test_a_kernel_that_stops_says_so() -> None:
    """A block that somebody freed meanwhile, on a kernel with DEBUG_VM: the report is in the panel."""
    m = Machine(memory="64M", config=["DEBUG_VM"])
    page = m.alloc_pages(GFP_KERNEL, 1)
    panel = ZoneMap(m)
    ask = Asked(panel)

    def stopped(*_: Any) -> None:
        page.refcount = 0
        Machine.__free_pages(m, page, 1)

    panel.machine = Spy(m, stopped)
    answer = ask(ask="free", pfn=page.pfn)
    assert "page dumped because: VM_BUG_ON_PAGE(page_ref_count(page) == 0)" in answer["text"]
    assert "kernel BUG" in answer["text"]


class Spy:
    """A machine whose __free_pages is another."""

    def __init__(self, m: Machine, instead: Any) -> None:
        self._m, self._instead = m, instead

    def __getattr__(self, name: str) -> Any:
        return self._instead if name == "__free_pages" else getattr(self._m, name)


def test_what_is_not_ours_stays(m: Machine) -> None:
    """A message that asks for it anyway is refused in words, and the machine is as it was."""
    before = m.snapshot()
    answer = Asked(ZoneMap(m))(ask="free", pfn=256)
    assert "nothing to free" in answer["text"]
    assert m.snapshot() == before


@pytest.mark.parametrize("question", [{}, {"ask": "format"}, {"ask": "free", "pfn": "x"}, {"ask": "flag", "flag": "X"}])
def test_nonsense_is_answered(m: Machine, question: dict[str, Any]) -> None:
    """Whatever comes, the panel says what was wrong."""
    answer = Asked(ZoneMap(m))(**question)
    assert answer["text"].startswith("panel error: ")


def test_a_panel_that_stays_has_no_hands(m: Machine) -> None:
    """Snapshots, fixed panels, replays: nothing can be changed through them."""
    page = m.alloc_pages(GFP_DMA, 4)
    for panel in (ZoneMap(m.snapshot()), ZoneMap(m, follow=False)):
        ask = Asked(panel)
        meta = json.loads(panel.meta)
        assert (meta["hands"], meta["flags"]) == (False, [])
        assert ask(ask="pin", pfn=page.pfn) is None
        assert "nothing to free" in ask(ask="free", pfn=page.pfn)["text"]
        assert "no flag" in ask(ask="flag", flag="GFP_DMA")["text"]
    assert page.refcount == 1
    assert json.loads(ZoneMap(m.snapshot()).meta)["badge"] == "recorded, Linux 6.1"
    assert json.loads(ZoneMap(m).meta)["badge"] == ""


def test_trace(m: Machine) -> None:
    """What the kept moments know of one frame, in order."""
    panel = ZoneMap(m)
    ask = Asked(panel)
    with panel.record():
        page = m.alloc_pages(GFP_DMA, 4)
        m.alloc_pages(GFP_KERNEL, 0)
        m.__free_pages(page, 4)
    answer = ask(ask="trace", pfn=page.pfn + 1)
    assert answer["lines"] == [
        f"call 1: the order-5 block at {page.pfn} was split down to order 4",
        "call 1: taken by alloc_pages(GFP_DMA, 4)",
        f"call 3: merged with its buddy at {page.pfn + 16} to order 5",
        "call 3: put on the order-5 list of Unmovable",
    ]
    assert ask(ask="trace", pfn=3000)["lines"] == []


def test_trace_keeps_the_last_eight(m: Machine) -> None:
    """A page that comes and goes: only what happened last."""
    panel = ZoneMap(m)
    with panel.record():
        for _ in range(12):
            page = m.alloc_pages(GFP_KERNEL, 0)
            m.__free_pages(page, 0)
    lines = Asked(panel)(ask="trace", pfn=page.pfn)["lines"]
    assert len(lines) == 8
    assert lines[-2:] == ["call 23: taken by alloc_pages(GFP_KERNEL, 0)", "call 24: freed to CPU 0's list"]


def test_a_tile_of_a_large_machine() -> None:
    """Its pages and free blocks, if they are listed."""
    m = Machine(memory="3G")
    m.alloc_pages(GFP_DMA, 2)
    panel = ZoneMap(m)
    ask = Asked(panel)
    assert ask(ask="tile", pfn=0) == {"kind": "tile", "pfn": 0}
    cells, orders = ask.said[0][1]
    zone = m.snapshot().zone("DMA")
    assert len(cells) == len(orders) == 1024
    heads = {pfn: order + 1 for (order, _), pfns in zone.free.items() for pfn in pfns if pfn < 1024}
    assert {i: order for i, order in enumerate(orders) if order} == heads
    huge = Asked(ZoneMap(Machine(memory="4T")))
    assert "its pages are not listed" in huge(ask="tile", pfn=1 << 28)["text"]
