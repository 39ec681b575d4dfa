"""The film of a map: what is kept, what goes to the browser, recording, and the replay of a real kernel's workload."""

from __future__ import annotations

import itertools
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from kmemlab import GFP_DMA, GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_NOIO, Machine, RecordingError
from kmemlab.conform import conform, replay
from kmemlab.recording import load_recording
from kmemlab.snapshot import Snapshot
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_film import LIVE, RECORDED, Film, Shot, orders_of, pieces_of


@pytest.fixture
def m() -> Machine:
    """A real machine's first moment."""
    return Machine.from_recording("256M-a-21")


def work(m: Machine, held: list[Any], rng: random.Random, calls: int) -> None:
    """So many calls that take and give."""
    for _ in range(calls):
        if held and rng.random() < 0.45:
            page = held.pop(rng.randrange(len(held)))
            m.__free_pages(page, page.order)
        else:
            page = m.alloc_pages(rng.choice((GFP_KERNEL, GFP_HIGHUSER_MOVABLE, GFP_DMA)), rng.randrange(7))
            if page:
                held.append(page)


def truth(snapshot: Snapshot) -> tuple[bytes, bytes]:
    """Cells and free blocks of a snapshot, the slow way."""
    orders = bytearray()
    for zone in snapshot.zones:
        heads = {pfn: order + 1 for (order, _), pfns in zone.free.items() for pfn in pfns}
        for first, pages in zone.spans:
            orders += bytes(heads.get(pfn, 0) for pfn in range(first, first + pages))
    return b"".join(zone.pages for zone in snapshot.zones), bytes(orders)


def unpacked(panel: ZoneMap) -> list[tuple[bytes, bytes, dict[str, Any]]]:
    """The moments as the browser makes them from the message."""
    about, data = panel.film.message()
    if about["zlib"]:
        data = zlib.decompress(data)
    told = json.loads(data[about["text"] :])
    total = sum(pages for _, pages in about["pieces"])
    cells, orders = bytearray(data[:total]), bytearray(data[total : 2 * total])
    at, info, out = 2 * total, {}, []
    for frame in told["frames"]:
        for k in frame["tiles"]:
            first, pages = about["pieces"][k]
            cells[first : first + pages] = data[at : at + pages]
            orders[first : first + pages] = data[at + pages : at + 2 * pages]
            at += 2 * pages
        info = info | frame["info"]
        out.append((bytes(cells), bytes(orders), info | {"layout": told["layouts"][info["layout"]]}))
    assert at == about["text"]
    return out


def test_every_moment_shown_is_kept(m: Machine) -> None:
    """One more each time the panel redraws; what was then is what the film holds, byte for byte."""
    panel, held, rng = ZoneMap(m), [], random.Random(1)
    want = [truth(m.snapshot())]
    for _ in range(12):
        work(m, held, rng, 40)
        refresh_all(m)
        want.append(truth(m.snapshot()))
    assert len(panel.film) == 13
    assert [panel.film.at(i) for i in range(13)] == want
    frames = unpacked(panel)
    assert [(cells, orders) for cells, orders, _ in frames] == want
    assert [info["calls"] for *_, info in frames] == [40 * i for i in range(13)]
    meta = json.loads(panel.meta)
    last = frames[-1][2]
    assert {name: meta[name] for name in last if name != "layout"} == {k: v for k, v in last.items() if k != "layout"}
    assert meta["layouts"] == last["layout"]
    assert (panel.cells, panel.orders) == want[-1]


def test_what_did_not_change_is_not_sent(m: Machine) -> None:
    """A call that touches one tile costs one tile."""
    panel = ZoneMap(m)
    m.alloc_pages(GFP_DMA, 4)
    refresh_all(m)
    assert list(panel.film.shots[1].tiles) == [0]  # frames 288 to 303
    assert json.loads(panel.meta)["film"][0] == 2


def test_a_redraw_of_the_same_moment_is_no_moment(m: Machine) -> None:
    """Shown again, with or without other marks: one frame, and the deltas still lead to it."""
    panel = ZoneMap(m)
    m.alloc_pages(GFP_KERNEL, 3)
    for _ in range(3):
        panel.refresh()
    panel._ask_flag({"flag": "GFP_DMA"})
    assert len(panel.film) == 2
    assert panel.film.at(1) == truth(m.snapshot())
    assert unpacked(panel)[1][2]["marks"]["largest"]["gfp"] == "GFP_DMA"


def test_the_oldest_goes(m: Machine) -> None:
    """240 moments are kept of a live panel."""
    panel, held, rng = ZoneMap(m), [], random.Random(2)
    want = []
    for _ in range(LIVE + 20):
        work(m, held, rng, 3)
        panel.refresh()
        want.append(truth(m.snapshot()))
    assert len(panel.film) == LIVE == 240
    assert panel.film.at(0) == want[-LIVE]
    assert panel.film.at(100) == want[-LIVE + 100]
    assert panel.film.at(-1) == want[-1]


def test_thinning_keeps_the_rest_right(m: Machine) -> None:
    """Every second moment goes; those left are as they were, and the last stays."""
    film, held, rng = Film(), [], random.Random(3)
    want = []
    for i in range(20):
        work(m, held, rng, 30)
        snapshot = m.snapshot()
        want.append(truth(snapshot))
        film.add(Shot((i,), {}, ()), want[-1][0], b"".join(map(orders_of, snapshot.zones)), pieces_of(snapshot.zones))
    film.thin(0)
    kept = [shot.key[0] for shot in film.shots]
    assert kept == [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    assert [film.at(i) for i in range(len(film))] == [want[k] for k in kept]


def test_record(m: Machine) -> None:
    """A frame after each call of the block, one before, and nothing costs when it is over."""
    panel = ZoneMap(m)
    m.alloc_pages(GFP_KERNEL, 0)
    with panel.record():
        pages = [m.alloc_pages(GFP_DMA, 2) for _ in range(5)]
        m.__free_pages(pages[0], 2)
    assert [shot.info["calls"] for shot in panel.film.shots] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert panel.film.shots[3].info["call"] == f"alloc_pages(GFP_DMA, 2) = pfn {pages[1].pfn}"
    assert panel.film.at(-1) == truth(m.snapshot())
    assert not m.events.subscribers
    m.alloc_pages(GFP_KERNEL, 0)
    assert len(panel.film) == 8


def test_record_every_so_many(m: Machine) -> None:
    """``every=4``: after the fourth, the eighth ... and at the end."""
    panel = ZoneMap(m)
    with panel.record(every=4):
        for _ in range(10):
            m.alloc_pages(GFP_KERNEL, 0)
    assert [shot.info["calls"] for shot in panel.film.shots] == [0, 4, 8, 10]
    assert panel.frame == 2  # the browser saw the start and the end


def test_a_long_recording_is_thinned(m: Machine) -> None:
    """1,500 calls: never more than 600 moments, evenly, the first and the last among them."""
    panel = ZoneMap(m, zone="DMA")
    with panel.record():
        for _ in range(1500):
            m.alloc_pages(GFP_HIGHUSER_MOVABLE, 0)
    calls = [shot.info["calls"] for shot in panel.film.shots]
    assert len(calls) <= RECORDED == 600
    assert (calls[0], calls[-1]) == (0, 1500)
    assert max(b - a for a, b in itertools.pairwise(calls)) <= 4
    assert panel.film.at(-1)[0] == m.snapshot().zone("DMA").pages


def test_record_ends_with_an_error(m: Machine) -> None:
    """What goes wrong in the block goes on, and nobody listens any more."""
    panel = ZoneMap(m)

    def cell() -> None:
        with panel.record():
            m.alloc_pages(GFP_KERNEL, 0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cell()
    assert not m.events.subscribers
    assert len(panel.film) == 2


def test_what_cannot_be_recorded(m: Machine) -> None:
    """A snapshot, a panel that stays, a strange step."""
    for panel in (ZoneMap(m.snapshot()), ZoneMap(m, follow=False)):
        with pytest.raises(ValueError, match="stays at its moment"), panel.record():
            pass
    with pytest.raises(ValueError, match="every=0"), ZoneMap(m).record(every=0):
        pass


def test_large_machines_have_a_film_too() -> None:
    """Shares of each moment; no page goes over the wire."""
    m = Machine(memory="4T")
    panel = ZoneMap(m)
    for _ in range(3):
        m.alloc_pages(GFP_KERNEL, 10)
        panel.refresh()
    frames = unpacked(panel)
    assert len(frames) == 4
    assert frames[0][:2] == (b"", b"")
    assert frames[0][2]["shares"] != frames[3][2]["shares"]


def test_replay_shows_the_kernel_s_work() -> None:
    """All calls of the recording, about as many frames as asked, and what the model got right."""
    panel = ZoneMap.replay("128M-a-11", frames=60)
    result = conform("128M-a-11")
    assert 50 <= len(panel.film) <= 62
    assert panel.film.shots[0].info["calls"] == 0
    words = f"{result.predicted:,} of {result.total:,} page frames as the kernel gave them, end state equal"
    meta = json.loads(panel.meta)
    assert meta["verdict"] == [True, words]
    assert repr(panel).endswith(f"{words}.")
    assert meta["badge"] == "recorded, Linux 6.1.192"
    assert (meta["hands"], meta["flags"], meta["total"]) == (False, [], 5000)
    assert "call 5,000 of 5,000" in meta["sub"]
    end = Machine.from_recording("128M-a-11", state="state1").snapshot()
    assert panel.film.at(-1)[1] == truth(end)[1]


def test_replay_of_a_model_that_differs() -> None:
    """Without one of the kernel's rules: the first call where model and kernel part."""
    panel = ZoneMap.replay("128M-a-11", frames=30, without="merge_likely")
    miss = conform("128M-a-11", without="merge_likely").miss
    numbers = miss.split(": ")[-1]
    right, words = json.loads(panel.meta)["verdict"]
    assert not right
    assert numbers in words
    assert words.startswith("call ")
    index = int(miss.split(":")[0].removeprefix("call "))
    assert index + 1 in [shot.info["calls"] for shot in panel.film.shots]  # the moment itself is in the film


def test_replay_of_a_real_workload() -> None:
    """A program traced on a real machine."""
    panel = ZoneMap.replay("real-gzip-256M", frames=20, zone="DMA32")
    right, words = json.loads(panel.meta)["verdict"]
    assert right
    result = conform("real-gzip-256M")
    assert words.startswith(f"{result.predicted:,} of {result.total:,} ")
    assert 15 <= len(panel.film) <= 22


def test_replay_of_what_is_not_there(tmp_path: Path) -> None:
    """One line that says what is wrong."""
    with pytest.raises(RecordingError, match="no such recording"):
        ZoneMap.replay("nothing")
    with pytest.raises(ValueError, match="frames=1"):
        ZoneMap.replay("128M-a-11", frames=1)


def test_conform_s_generator_tells_each_call() -> None:
    """One step a call, with what came of it."""
    recording = load_recording("128M-a-11")
    m = Machine.from_recording("128M-a-11")
    seen = 0
    for index, op, page in replay(m, recording):
        assert index == seen
        assert op is recording.ops[index]
        assert (page is None) == (op[0] == 0)
        assert page is None or page.pfn == op[3]
        seen += 1
        assert m.calls == seen
    assert seen == len(recording.ops)


def test_no_moment_in_the_middle_of_a_call() -> None:
    """A request that sleeps until pages come back: the moments kept are the frees', then its own."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    held = []
    with m.preempt_disable():
        while page := m.alloc_pages(0x22000, 0):
            held.append(page)
    panel = ZoneMap(m)
    m.after(300, lambda: [m.__free_pages(page, 0) for page in held[:600]])
    times, take = [], panel._take
    panel._take = lambda: (times.append(m.now), take())  # type: ignore[method-assign]
    with panel.record():
        assert m.alloc_pages(GFP_NOIO, 0)
    assert times[0] == 0
    assert times[1:]
    assert min(times[1:]) >= 300
