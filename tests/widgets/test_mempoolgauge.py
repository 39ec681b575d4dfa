"""MempoolGauge: what it shows is what the pool did, and what a real kernel's pool did; its box breaks alloc_fn."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, GFP_NOIO, NULL, Machine, RecordingError
from kmemlab.task_watch import PoolWatch
from kmemlab_widgets import MempoolGauge
from kmemlab_widgets.mempoolgauge_draw import ACROSS, draw
from kmemlab_widgets.mempoolgauge_words import headline, run_of_steps, sentence, short_names, twin
from kmemlab_widgets.panel import refresh_all
from tests.kernel import test_mempool

ROOT = Path(__file__).resolve().parents[2]
RECORDING = ROOT / "lessons" / "recordings" / "mempool.json"


def sent(panel: MempoolGauge) -> dict[str, Any]:
    """What the browser gets."""
    data: dict[str, Any] = json.loads(panel.view_data)
    return data


def yard(min_nr: int = 4) -> tuple[Machine, Any, MempoolGauge]:
    """A pool of numbered elements, and its gauge."""
    m, made = Machine("linux-6.1", memory="64M"), []

    def alloc(gfp: int, data: Any) -> str:
        made.append(gfp)
        return f"e{len(made) - 1}"

    pool = m.mempool_create(min_nr, alloc, lambda element, data: None, None)
    return m, pool, MempoolGauge(m, pool)


def test_the_recording_is_the_tests_one() -> None:
    assert RECORDING.read_bytes() == (ROOT / "tests/kernel/recordings/mempool.json").read_bytes()


def test_the_engine_takes_the_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded calls made on the engine: each step of the gauge is the recording's."""
    monkeypatch.setattr(test_mempool, "Element", functools.cache(test_mempool.Element))
    r, watch = test_mempool.Recorder(), None
    for words, wanted in test_mempool.DATA["steps"]:
        if "elem" in wanted:
            test_mempool.do(r, words, wanted)
            watch = watch or PoolWatch(r.m, r.pool).begin()
    assert watch
    recorded = run_of_steps(json.loads(RECORDING.read_text(encoding="utf-8")))
    live = [step for step in watch.run().steps if step.task != "a softirq"]  # the other thread's calls are no rows
    assert len(live) == len(recorded.steps) == 26
    for mine, kernels in zip(live[1:], recorded.steps[1:], strict=True):
        assert mine[3:4] + mine[4:10] == kernels[3:4] + kernels[4:10], (mine, kernels)
        assert mine.call == kernels.call
        assert abs(mine.slept - kernels.slept) < 40
    assert live[0].reserve == recorded.steps[0].reserve


def test_recorded() -> None:
    panel = MempoolGauge("mempool")
    data = sent(panel)
    assert data["head"] == "When alloc_fn fails, the reserve serves 5 requests, 2 get NULL and 2 wait up to 332 ms"
    assert data["sub"] == "min_nr 4 · steps 0 to 15 of 25 · recorded, Linux 6.1.192"
    assert (data["badge"], data["at"], data["count"]) == ("recorded, Linux 6.1.192", 0, 26)
    assert not panel.breakable
    assert repr(panel).splitlines()[:2] == [data["head"], "mempool min 4, reserve 4 [e0, e1, e2, e3]."]
    run = panel.snapshot()
    said = [sentence(run.steps, i) for i in range(26)]
    assert said[7] == (
        "mempool_alloc(pool, GFP_KERNEL): alloc_fn said no (mask 0x92880), so the top of the reserve goes: e0. "
        "Left: 0 of 4."
    )
    assert said[8].endswith("the reserve is empty, and this mask may not sleep: NULL.")
    assert "slept on pool->wait, 332 ms; then it took e3. In all alloc_fn was asked 3 times" in said[10]
    assert (
        said[17]
        == "mempool_free(e0, pool): the reserve is full (4 of 4), so e0 goes to free_fn, back to the allocator."
    )
    assert "It returns 0 all the same" in said[20]
    assert said[25] == "mempool_free(NULL, pool): nothing happens."
    assert twin(run, 10).splitlines()[1:] == ["mempool min 4, reserve 0 [].", f"Step 10: {said[10]}"]


def test_the_saved_picture() -> None:
    """It stands alone: headline, badge, frame and sentence are in it."""
    panel = MempoolGauge(json.loads(RECORDING.read_text(encoding="utf-8")))
    wide = panel._last.wide
    assert headline(panel.snapshot()) in re.sub(r"</text><text[^>]*>", " ", wide)
    assert "recorded, Linux 6.1.192" in wide
    assert "mempool_create(min_nr = 4): alloc_fn was asked 4 times with 0xcc0." in wide
    assert wide.count('stroke="var(--kml-focus)"') == 1
    assert "focus" not in sent(panel)["svg"]["868"], "the browser has its own frame"
    assert '<img alt="When alloc_fn fails' in panel._repr_mimebundle_()[0]["text/html"]


def test_live() -> None:
    m, pool, panel = yard()
    assert repr(panel).splitlines()[0] == "min_nr 4: 4 elements set aside before the first request"
    got = [m.mempool_alloc(pool, GFP_KERNEL) for _ in range(3)]
    refresh_all(m)
    assert sent(panel)["head"] == "alloc_fn served all 3 requests: the reserve still has 4 of 4 elements"
    panel.alloc_fn_fails = True
    assert [m.mempool_alloc(pool, GFP_KERNEL) for _ in range(4)] == ["e3", "e2", "e1", "e0"]
    assert m.mempool_alloc(pool, GFP_ATOMIC) is NULL
    refresh_all(m)
    assert sent(panel)["head"] == "When alloc_fn fails, the reserve serves 4 requests and 1 gets NULL"
    assert sent(panel)["at"] == 8
    m.after(300, lambda: m.mempool_free(got[0], pool))
    assert m.mempool_alloc(pool, GFP_NOIO) == "e4"
    panel.alloc_fn_fails = False
    assert m.mempool_alloc(pool, GFP_ATOMIC) == "e7"
    refresh_all(m)
    assert sent(panel)["head"].endswith("the reserve serves 4 requests, 1 gets NULL and 1 waits up to 300 ms")
    assert "python holds e5, e6, e3, e2, e1 and 3 more" in repr(panel)
    m.mempool_destroy(pool)
    refresh_all(m)
    assert repr(panel).splitlines()[-1] == "the pool was destroyed"
    assert panel.say(panel.snapshot(), 12)[1].startswith("mempool_destroy(pool): 0 elements of the reserve")


def test_it_follows_pools_that_never_call_the_machine() -> None:
    """alloc_fn is the learner's own: no call of the machine is counted, and the panel is still redrawn."""
    m, pool, panel = yard()
    calls = m.calls
    m.mempool_free("mine", pool)
    refresh_all(m)
    assert m.calls == calls
    assert sent(panel)["count"] == 2


def test_who_waits_and_who_holds() -> None:
    m, pool, panel = yard(2)
    panel.alloc_fn_fails = True

    def copy(k: Any) -> Any:
        first = yield from k.mempool_alloc(pool, GFP_NOIO)
        yield from k.msleep(1)
        second = yield from k.mempool_alloc(pool, GFP_NOIO)
        k.mempool_free(first, pool)
        k.mempool_free(second, pool)

    m.spawn(copy, "copy-1")
    m.spawn(copy, "copy-2")
    m.run(until=200_000)
    refresh_all(m)
    assert repr(panel).splitlines()[0] == "copy-1 and copy-2 wait in mempool_alloc: 0 of 2 elements in reserve"
    assert repr(panel).splitlines()[-2:] == [
        "copy-1 holds e1; waits in mempool_alloc since 1 ms, tries again at 200,001 ms",
        "copy-2 holds e0; waits in mempool_alloc since 1 ms, tries again at 200,001 ms",
    ]
    panel.alloc_fn_fails = False
    m.run()
    refresh_all(m)
    assert not m.tasks, "whoever gave up hope tries again"
    assert repr(panel).splitlines()[-1] == "Nobody holds an element or waits."


def test_closing_mends_alloc_fn() -> None:
    m, pool, panel = yard(1)
    other = MempoolGauge(m, pool)
    panel.alloc_fn_fails = other.alloc_fn_fails = True
    panel.close()
    assert m.mempool_alloc(pool, GFP_ATOMIC) == "e0", "the other one still breaks it"
    other.close()
    assert m.mempool_alloc(pool, GFP_ATOMIC) == "e1"
    assert not m.events.subscribers


def test_a_broken_pool_keeps_its_kind() -> None:
    """Elements in reserve are poisoned and checked by the pool's kind, also while its alloc_fn fails."""
    m = Machine("linux-6.1", memory="64M", config=("SLUB_DEBUG_ON",))
    pool = m.mempool_create_kmalloc_pool(1, 64)
    panel = MempoolGauge(m, pool)
    panel.alloc_fn_fails = True
    m.write(pool.elements[0], b"x")
    m.mempool_alloc(pool, GFP_ATOMIC)
    assert "BUG: mempool element poison mismatch" in m.dmesg()


def test_a_recording_stays_where_one_looks() -> None:
    panel = MempoolGauge("mempool")
    panel._told(panel, {"at": 20}, [])
    panel.refresh()
    assert sent(panel)["at"] == 20
    assert sent(panel)["sub"].startswith("min_nr 5 · steps 5 to 20 of 25")


def test_windows() -> None:
    """A column that the browser lacks is asked for; a new step is shown at once."""
    m, pool, panel = yard(1)
    for _ in range(40):
        m.mempool_free(m.mempool_alloc(pool, GFP_KERNEL), pool)
    refresh_all(m)
    data = sent(panel)
    assert (data["count"], data["at"]) == (81, 80)
    assert {width: grid["first"] for width, grid in data["grid"].items()} == {"868": 65, "358": 75}
    assert sorted(map(int, data["says"])) == list(range(65, 81))
    panel._told(panel, {"at": 70}, [])
    data = sent(panel)
    assert {width: grid["first"] for width, grid in data["grid"].items()} == {"868": 65, "358": 70}
    panel._told(panel, {"at": 3}, [])
    data = sent(panel)
    assert {width: grid["first"] for width, grid in data["grid"].items()} == {"868": 3, "358": 3}
    assert data["at"] == 3
    panel._told(panel, {"at": 19}, [])
    assert sent(panel)["grid"]["868"]["first"] == 4
    panel._told(panel, {"at": 10_000}, [])
    assert sent(panel)["at"] == 80
    panel._told(panel, {"at": "x"}, [])
    panel._told(panel, {"at": 3}, [])
    m.mempool_alloc(pool, GFP_KERNEL)
    refresh_all(m)
    assert sent(panel)["at"] == 81


@pytest.mark.parametrize("width", [868, 358])
def test_the_drawing(width: int) -> None:
    """Each column has the reserve as it was, the top above; empty places are dashed up to min_nr."""
    run = MempoolGauge("mempool").snapshot()
    across = ACROSS[width]
    for first in (0, 8, 20):
        svg, grid = draw(run, width, first)
        assert svg == draw(run, width, first)[0]
        places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*fill="var\(--kml-onfree\)">(e\d+)<', svg)
        for i, step in enumerate(run.steps[first : first + across]):
            inside = [(float(y), name) for x, y, name in places if i <= (float(x) - grid.x) / grid.step < i + 1]
            assert [name for _, name in sorted(inside, reverse=True)] == list(step.reserve)
        dashed = svg.count('stroke-dasharray="2 2"')
        assert dashed == sum(step.min_nr - len(step.reserve) for step in run.steps[first : first + across])


def test_a_large_pool_and_long_names() -> None:
    """The end of a name tells elements apart; the text twin does not list them all."""
    m, made = Machine("linux-6.1", memory="64M"), []

    def alloc(gfp: int, data: Any) -> str:
        made.append(gfp)
        return f"<b>request-{len(made)}"

    pool = m.mempool_create(50, alloc, lambda element, data: None, None)
    panel = MempoolGauge(m, pool)
    wide = sent(panel)["svg"]["868"]
    assert ">+43<" in wide
    assert "st-50<" in wide
    assert "<b>" not in panel._last.wide
    assert "reserve 50 [..., <b>request-39, " in repr(panel)


def test_names_of_tasks() -> None:
    assert short_names(["a/1", "a/2", "kworker/u2:1/80", "a softirq"]) == {
        "a/1": "a/1", "a/2": "a/2", "kworker/u2:1/80": "kworker/u2:1", "a softirq": "a softirq",
    }  # fmt: skip


def test_nobody_looks() -> None:
    """A panel that is not displayed does not listen; displayed again it begins anew."""
    m, pool, panel = yard()
    panel._viewed(SimpleNamespace(new=0))
    assert not m.events.subscribers
    m.mempool_alloc(pool, GFP_KERNEL)
    panel._viewed(SimpleNamespace(new=1))
    assert [step.call for step in panel.snapshot().steps] == ["begin", "begin"]


def test_frozen() -> None:
    m, pool, _ = yard()
    still = MempoolGauge(m, pool, follow=False)
    m.mempool_alloc(pool, GFP_KERNEL)
    assert len(still.snapshot().steps) == 1
    assert MempoolGauge(still.snapshot()).snapshot() == still.snapshot()


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        (7, TypeError, "MempoolGauge wants a Machine and its pool, or a recording, not 7"),
        ("nothing-here", RecordingError, "no such recording"),
        ({}, ValueError, "a recorded pool has 'steps'"),
        ({"steps": [["alloc GFP_X", {"elem": 1}]]}, ValueError, "recorded pool, step 0: .*GFP_X"),
        ({"steps": [["slept_ms", {"ms": 3}]]}, ValueError, "recorded pool, step 0"),
        ({"steps": [["free", {"elem": 1}]]}, ValueError, "recorded pool, step 0"),
        ({"steps": [["ret", {"r": 0}]]}, ValueError, "none of its steps has a state"),
        ({"steps": [7]}, ValueError, "recorded pool, step 0: 7"),
    ],
)
def test_wrong_sources(source: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        MempoolGauge(source)


def test_no_pool() -> None:
    m = Machine("linux-6.1", memory="64M")
    with pytest.raises(TypeError, match=r"pool must come from m\.mempool_create"):
        MempoolGauge(m, NULL)
