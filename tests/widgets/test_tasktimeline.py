"""TaskTimeline: who ran, who slept on what, who woke whom; bars and marks stand where the moments are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kmemlab import GFP_NOIO, NULL, Completion, HungTask, KernelBug, Machine, Stuck
from kmemlab_widgets import TaskTimeline
from kmemlab_widgets.panel import refresh_all
from kmemlab_widgets.tasktimeline_draw import ACROSS, MOST_CLAUSES, does, draw


def sent(panel: TaskTimeline) -> dict[str, Any]:
    """What the browser gets."""
    data: dict[str, Any] = json.loads(panel.view_data)
    return data


def herd(waiters: int = 3) -> tuple[Machine, TaskTimeline]:
    """One holds the only element for 300 ms, the others want it."""
    m, elements = Machine("linux-6.1", memory="64M"), ["e0"]
    pool = m.mempool_create(1, lambda gfp, data: elements.pop() if elements else NULL, lambda element, data: None, None)
    panel = TaskTimeline(m)

    def task(ms: int) -> Any:
        def body(k: Any) -> Any:
            element = yield from k.mempool_alloc(pool, GFP_NOIO)
            yield from k.msleep(ms)
            k.mempool_free(element, pool)

        return body

    m.spawn(task(300), "giver")
    for n in range(waiters):
        m.spawn(task(10), f"W{n}")
    return m, panel


def test_nothing_yet() -> None:
    panel = TaskTimeline(Machine("linux-6.1", memory="64M"))
    assert repr(panel) == "No task has run yet: m.spawn(...), then m.run()"
    assert sent(panel)["says"] == {"0": ["now", "nothing has happened yet"]}
    assert "no task has run yet" in panel._last.wide


def test_a_herd_in_words() -> None:
    m, panel = herd()
    m.run(until=200)
    refresh_all(m)
    assert sent(panel)["head"] == "giver sleeps in msleep(300) and W0, W1 and W2 wait in mempool_alloc"
    assert repr(panel).splitlines()[2:] == [
        "giver: msleep(300) since 0 ms",
        *(f"W{n}: waits in mempool_alloc, 0 of 1 in reserve since 0 ms" for n in range(3)),
    ]
    m.run()
    refresh_all(m)
    data = sent(panel)
    assert data["head"] == "All 4 tasks have ended: the last at 330 ms"
    assert data["says"]["1"] == [
        "300 ms",
        "giver wakes by itself, runs, gives an element to reserve, wakes W2, W1 and W0 and ends; "
        "W2 runs, gets an element from reserve and sleeps in msleep(10); W1 runs and waits in mempool_alloc; "
        "W0 runs and waits in mempool_alloc.",
    ]
    assert data["what"] == "moment"
    assert not data["badge"]


def test_many_sleep_for_one_reason() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = TaskTimeline(m)

    def keeper(k: Any) -> Any:
        yield from k.msleep(1_000_000)

    for n in range(5):
        m.spawn(keeper, f"keeper-{n}")
    m.run(until=20)
    refresh_all(m)
    assert sent(panel)["head"] == "keeper-0, keeper-1 and 3 more sleep in msleep(1000000)"


def test_tries_in_vain() -> None:
    m = Machine("linux-6.1", memory="64M")
    works = [True]
    pool = m.mempool_create(1, lambda gfp, data: "e0" if works[0] else NULL, lambda element, data: None, None)
    works[0] = False
    panel = TaskTimeline(m)

    def taker(k: Any) -> Any:
        yield from k.mempool_alloc(pool, GFP_NOIO)
        yield from k.mempool_alloc(pool, GFP_NOIO)

    m.spawn(taker, "taker")
    m.run(until=97_500)
    refresh_all(m)
    data = sent(panel)
    assert data["head"] == "taker waits in mempool_alloc; 19 tries in vain"
    assert data["says"]["2"] == [
        "10,000 ms to 95,000 ms",
        "18 moments alike; taker wakes by itself, runs and waits in mempool_alloc.",
    ]
    assert ">18 alike<" in data["svg"]["868"]
    assert "in vain 19 times" in repr(panel)


def test_ends_that_are_errors() -> None:
    m, done = Machine("linux-6.1", memory="64M"), Completion()
    panel = TaskTimeline(m)

    def bad(k: Any) -> Any:
        yield from k.cond_resched()
        raise KernelBug("x")

    m.spawn(bad, "bad")
    with pytest.raises(KernelBug):
        m.run()
    refresh_all(m)
    assert sent(panel)["head"] == "bad ended with KernelBug"
    assert 'stroke="var(--kml-bad)"' in sent(panel)["svg"]["868"]

    def sync(k: Any) -> Any:
        yield from k.wait_for_completion(done)

    m.spawn(sync, "sync")
    with pytest.raises(HungTask):
        m.run()
    refresh_all(m)
    assert sent(panel)["head"] == "sync waits for a completion"


def test_a_slow_path_that_never_ends() -> None:
    """The writer of the opening puzzle: its lane says what it asks for."""
    m = Machine("linux-6.1", memory="64M")
    with m.preempt_disable():
        while m.alloc_pages(0x22000, 0):
            pass
    panel = TaskTimeline(m)

    def writer(k: Any) -> Any:
        yield from k.alloc_pages(GFP_NOIO, 0)

    m.spawn(writer, "kworker/u2:1")
    with pytest.raises(Stuck):
        m.run()
    refresh_all(m)
    assert sent(panel)["head"] == "kworker/u2:1 ended with Stuck"
    assert "asks for order 0 without __GFP_FS" in sent(panel)["says"]["1"][1]


def test_the_notebook_has_a_lane() -> None:
    m = Machine("linux-6.1", memory="64M")
    panel = TaskTimeline(m)
    m.msleep(20)
    refresh_all(m)
    assert sent(panel)["says"]["0"] == ["0 ms", "python sleeps in msleep(20)."]
    assert sent(panel)["head"] == "1 task, nobody sleeps: the last change came at 20 ms"


@pytest.mark.parametrize("width", [868, 358])
def test_the_drawing(width: int) -> None:
    """In every column there is a mark for each task that ran, and a bar for each that sleeps through it."""
    m, panel = herd(5)
    m.run()
    run = panel.snapshot()
    across = ACROSS[width]
    for first in (0, 2):
        svg, grid = draw(run, width, first)
        assert svg == draw(run, width, first)[0]
        marks = [float(x) for x in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="5.5"', svg)]
        bars = [
            (float(x), float(w))
            for x, w in re.findall(
                r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="30" fill="var\(--kml-waitbg\)"', svg
            )
        ]
        for i, moment in enumerate(run.moments[first : first + across]):
            inside = [x for x in marks if i <= (x - grid.x) / grid.step < i + 1]
            assert len(inside) == len({change.pid for change in moment.changes})
            right = grid.x + (i + 0.9) * grid.step
            if i + 1 < across:
                asleep = sum(lane.what == "sleeps" for lane in moment.after.values())
                assert sum(x < right < x + w for x, w in bars) == asleep
    woken = sum(change.what == "woken" and bool(change.by) for each in run.moments[:across] for change in each.changes)
    assert len(re.findall(r'<line [^>]*stroke="var\(--kml-accent\)"', draw(run, width, 0)[0])) == woken


def test_many_tasks_and_many_words() -> None:
    m, panel = herd(30)
    m.run(until=301)
    refresh_all(m)
    words = sent(panel)["says"]["1"][1]
    assert words.endswith("; and so on.")
    assert words.count(";") == MOST_CLAUSES
    assert sent(panel)["svg"]["868"].count('font-weight="600"') == 10, "ten lanes have names"


def test_reasons() -> None:
    assert does("waits for the mutex 'b', and ba/81 holds it") == "waits for the mutex 'b'"
    assert does("msleep(5)", many=True) == "sleep in msleep(5)"
    assert does("asks for order 0: reclaim finds nothing") == "asks for order 0"


def test_closing_and_wrong_arguments() -> None:
    m, panel = herd()
    panel.close()
    assert not m.events.subscribers
    with pytest.raises(TypeError, match="TaskTimeline wants a Machine or a TaskRun, not 7"):
        TaskTimeline(7)
    assert TaskTimeline(panel.snapshot()).snapshot() == panel.snapshot()
