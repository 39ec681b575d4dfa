"""A recording as a film: the machine makes the kernel's calls again, and moments of it are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from kmemlab import KernelBug, Machine, ftrace
from kmemlab.conform import Conformance, compare_states, replay
from kmemlab.recording import Recording
from kmemlab.task_events import LabTask
from kmemlab_widgets.theme import number
from kmemlab_widgets.zonemap_film import RECORDED, Film

__all__ = ["Replayed", "badge", "calls_in", "recording_of_calls", "run"]


@dataclass(slots=True)
class Replayed:
    """What a replay panel says beside its moments: how many calls there are, and whether the model was right."""

    total: int
    badge: str
    verdict: tuple[bool, str] = (True, "")


def badge(meta: Mapping[str, Any]) -> str:
    """``recorded, Linux 6.1.192``: the release as the recording's kernel told it (``meta``)."""
    found = re.search(r"Debian ([\d.]+)", str(meta.get("version", "")))
    return f"recorded, Linux {found[1] if found else str(meta.get('release', '6.1')).split('-')[0]}"


def calls_in(recording: Recording) -> int:
    """How many calls a recording makes: frees are calls too."""
    if recording.kind == "buddy":
        return len(recording.ops)
    return sum(line.event == "mm_page_alloc" for line in ftrace.parse_trace(ftrace.trace_beside(recording)))


def run(m: Machine, recording: Recording, total: int, frames: int, take: Callable[[], None]) -> tuple[bool, str]:
    """Make all calls; ``take`` a moment so often that about ``frames`` come. Returns whether all was as recorded,
    and the sentence that says so."""
    result = Conformance(recording.name)
    every = max(1, -(-total // max(1, frames - 1)))
    done = 0

    def step(missed: bool) -> None:
        nonlocal done
        done += 1
        if done % every == 0 or done == total or (missed and result.first_miss is not None):
            take()

    def count(machine: Machine, call: str, kernel: int, page: Any) -> None:
        fresh = result.first_miss is None
        result.count(machine, call, kernel, page)
        step(fresh)

    try:
        if recording.kind == "buddy":
            for index, op, page in replay(m, recording):
                if page is None:
                    step(False)
                else:
                    count(m, f"call {index + 1}: alloc_pages({op[1]:#x}, {op[2]})", op[3], page)
        else:
            ftrace.replay(m, recording, count)
    except KernelBug as bug:  # the calls are not those of a kernel that went on
        return False, f"the model's kernel stopped: {str(bug).splitlines()[0]}"
    end = Machine.from_recording(recording.path, state="state1")
    result.differences = list(compare_states(m, end, loose=recording.kind == "real"))
    return _verdict(result)


def _verdict(result: Conformance) -> tuple[bool, str]:
    words = f"{number(result.predicted)} of {number(result.total)} page frames as the kernel gave them"
    if result.miss:
        # The call's mask is in the story; what differs is what counts here.
        call, numbers = result.miss.split(": ")[0], result.miss.split(": ")[-1]
        words = f"{call}: {numbers} · {words}"
    elif result.differences:
        words += f"; end state differs: {result.differences[0]}"
    elif result.exact:
        words += ", end state equal"
    return result.exact, words


@contextmanager
def recording_of_calls(m: Machine, film: Film, take: Callable[[], None], every: int) -> Iterator[None]:
    """Take a moment now, after each ``every`` calls inside the block, and leave the last one to the caller."""
    if not isinstance(every, int) or every < 1:
        raise ValueError(f"every={every!r}: a moment after each so many calls, 1 or more")
    take()
    start, last = len(film) - 1, m.calls
    film.limit = start + RECORDED

    def look(event: object) -> None:
        nonlocal every, last
        if m.calls - last < every or isinstance(event, LabTask):  # a task that sleeps is in the middle of a call
            return
        last = m.calls
        take()
        if len(film) > film.limit - 2:
            film.thin(start)
            every *= 2

    stop = m.events.subscribe(look)
    try:
        yield
    finally:
        stop()
        film.limit = max(RECORDED, len(film))
