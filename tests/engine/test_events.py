"""Events: what observers are told, and that being told changes nothing."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from pathlib import Path

import pytest

from kmemlab import GFP_ATOMIC, GFP_KERNEL, Machine, events
from kmemlab.ftrace import replay, trace_beside
from kmemlab.recording import load_recording
from kmemlab.task_events import LabTask
from tests.engine.calls import free_all, random_calls, state

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted(
    path
    for folder in ("tests/kernel/recordings/real", "lessons/recordings")
    for path in (ROOT / folder).glob("real-*.snap.json.gz")
)
SHAPES = {"64M": {"memory": "64M", "cpus": 2}, "5G": {"memory": "5G"}, "16M": {"memory": "16M", "cpus": 3}}
CLASSES = [c for c in vars(events).values() if inspect.isclass(c) and issubclass(c, events.Event)]


def test_events_are_named_after_tracepoints() -> None:
    """Dataclasses with slots, names mm_... as ftrace prints them, or lab_...; no two share a name."""
    names = [cls.name for cls in CLASSES]
    assert len(set(names)) == len(names) > 20
    for cls in CLASSES[1:]:
        assert dataclasses.is_dataclass(cls)
        assert "__slots__" in vars(cls)
        assert re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower() == cls.name
        assert cls.name.startswith(("mm_", "lab_", "kmalloc", "kfree", "kmem_cache_"))
        assert cls.__name__ in events.__all__


def test_events_of_different_types_never_compare_equal() -> None:
    """Two named tuples would; a panel that looks one up must not find the other."""
    assert events.MmPageFree(5, 0) != events.MmPageFreeBatched(5)
    assert events.MmPageFree(5, 0) == events.MmPageFree(5, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_an_observer_changes_nothing(shape: str, seed: int) -> None:
    """The fast way and the way that tells all are two code paths: same pages, same state, same events."""
    quiet, loud = Machine("linux-6.1", **SHAPES[shape]), Machine("linux-6.1", **SHAPES[shape])
    seen: list = []
    loud.events.subscribe(seen.append)
    held: tuple[list, list] = [], []
    calls = zip(random_calls(quiet, seed, 1500, held[0]), random_calls(loud, seed, 1500, held[1]), strict=True)
    for index, (one, two) in enumerate(calls):
        assert one == two, index
        if one[0] in ("alloc", "free"):
            afterwards = list(quiet.last_events())  # written down afterwards from what the call left behind
            # That a task sleeps is no step of the call: it is told at once, so before the call's own events.
            begin = len(seen) - len(afterwards)
            slept, told = seen[:begin], seen[begin:]
            assert afterwards == told, one
            assert {type(event) for event in slept} <= {LabTask}
        seen.clear()
    assert state(quiet) == state(loud)
    free_all(quiet, held[0])
    free_all(loud, held[1])
    assert state(quiet) == state(loud)
    assert quiet.check()
    assert loud.check()


def test_coming_and_going_of_observers_changes_nothing() -> None:
    """Somebody who listens now and then (a panel that is opened) sees a run that goes on as it would have."""
    one, two = (Machine("linux-6.1", memory="32M", cpus=2) for _ in range(2))
    stop = None
    for index, (a, b) in enumerate(zip(random_calls(one, 9, 2500, []), random_calls(two, 9, 2500, []), strict=True)):
        assert a == b
        if index % 37 == 0:
            if stop:
                stop = stop()
            else:
                stop = two.events.subscribe(lambda event: None)
    assert state(one) == state(two)


def test_allocation_and_free_are_told() -> None:
    """mm_page_alloc and mm_page_free carry the tracepoints' fields; a NULL is pfn None."""
    m = Machine("linux-6.1", memory="32M")
    seen: list = []
    stop = m.events.subscribe(seen.append)
    page = m.alloc_pages(GFP_KERNEL, 2)
    assert events.MmPageAlloc(page.pfn, 2, 0, GFP_KERNEL) in seen
    m.__free_pages(page, 2)
    assert events.MmPageFree(page.pfn, 2) in seen
    while m.alloc_pages(GFP_ATOMIC, 10):
        pass
    assert seen[-1] == events.MmPageAlloc(None, 10, 0, GFP_ATOMIC)
    stop()
    count = len(seen)
    m.alloc_pages(GFP_KERNEL, 0)
    assert len(seen) == count
    stop()


def test_a_failing_observer_is_detached_and_logged(caplog) -> None:
    """An observer never changes a run: its error is logged, the others and the call go on."""
    m, twin = Machine("linux-6.1", memory="32M"), Machine("linux-6.1", memory="32M")
    seen: list = []

    def broken(event) -> None:
        raise RuntimeError("a panel's mistake")

    m.events.subscribe(broken)
    m.events.subscribe(seen.append)
    with caplog.at_level(logging.ERROR, "kmemlab.events"):
        page = m.alloc_pages(GFP_KERNEL, 0)
    assert page.pfn == twin.alloc_pages(GFP_KERNEL, 0).pfn
    assert len(caplog.records) == 1
    assert "was detached" in caplog.text
    assert "a panel's mistake" in caplog.text
    assert isinstance(seen[0], events.LabRequest)
    assert m.events.subscribers == [seen.append]
    assert list(random_calls(m, 1, 300, [])) == list(random_calls(twin, 1, 300, []))
    assert state(m) == state(twin)


def test_a_strict_trace_raises_again() -> None:
    """Under test an observer's error must not hide."""
    m = Machine("linux-6.1", memory="32M")
    m.events.strict = True
    m.events.subscribe(lambda event: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        m.alloc_pages(GFP_KERNEL, 0)
    assert not m.events
    m.check()


def test_an_observer_may_unsubscribe_itself() -> None:
    """Detaching while events are being told loses no event for the others."""
    m = Machine("linux-6.1", memory="32M")
    first: list = []
    rest: list = []

    def once(event) -> None:
        first.append(event)
        stop()

    stop = m.events.subscribe(once)
    m.events.subscribe(rest.append)
    m.alloc_pages(GFP_KERNEL, 0)
    assert len(first) == 1
    assert rest[0] == first[0]
    assert len(rest) > 3


def test_trace_keeps_what_happened() -> None:
    """m.trace() records from its first call on, and the same list grows."""
    m = Machine("linux-6.1", memory="32M")
    m.alloc_pages(GFP_KERNEL, 0)
    trace = m.trace()
    assert trace == []
    m.alloc_pages(GFP_KERNEL, 0)
    assert trace is m.trace()
    assert {event.name for event in trace} >= {"lab_request", "mm_page_alloc"}


# --- against the kernel's own trace ---------------------------------------------------------------

FIELDS = {
    "mm_page_alloc_zone_locked": ("pfn", "order", "migratetype", "percpu_refill"),
    "mm_page_pcpu_drain": ("pfn", "order", "migratetype"),
    "mm_page_alloc_extfrag": (
        "pfn", "alloc_order", "fallback_order", "pageblock_order", "alloc_migratetype", "fallback_migratetype",
        "fragmenting", "change_ownership",
    ),
}  # fmt: skip


def told_and_traced(path: Path) -> tuple[list, list]:
    """The buddy lists' events of a replay, and the same tracepoints' lines in the kernel's trace."""
    import gzip

    recording = load_recording(path)
    m = Machine.from_recording(path)
    told: list = []

    def note(event) -> None:
        if event.name in FIELDS:
            told.append((event.name, *(getattr(event, name) for name in FIELDS[event.name])))

    m.events.subscribe(note)
    replay(m, recording, lambda *call: None)
    traced = []
    for line in gzip.decompress(trace_beside(recording).read_bytes()).decode().splitlines():
        if found := re.search(r": (\w+): (page=.*)$", line):
            fields = dict(re.findall(r"(\w+)=(\S+)", found[2]))
            if found[1] in FIELDS:
                traced.append((found[1], *(int(fields[name], 0) for name in FIELDS[found[1]])))
    return told, traced


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name.split(".")[0])
def test_the_same_events_as_the_kernel_in_the_same_order(path: Path) -> None:
    """While real programs ran, the kernel traced each block that left or reached the buddy lists: so do we."""
    told, traced = told_and_traced(path)
    assert len(traced) > 100
    stolen = "mm_page_alloc_extfrag"
    assert [e for e in told if e[0] != stolen] == [e for e in traced if e[0] != stolen]
    assert [e for e in told if e[0] == stolen] == [e for e in traced if e[0] == stolen]
    # A refill notes its blocks at its end, so that a theft in the middle of a batch is told a little early.
    for ours, theirs in zip(*([i for i, e in enumerate(x) if e[0] == stolen] for x in (told, traced)), strict=True):
        assert 0 <= theirs - ours < 63
