"""Reading what the kernel says of code that sleeps where it must not, or for ever: the place, and each line.

Reads "BUG: sleeping function called from invalid context" (__might_resched), "BUG: scheduling while atomic"
(__schedule_bug), kernel/sched/core.c, and "INFO: task ... blocked for more than" (check_hung_task, kernel/hung_task.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kmemlab.report import Report, pieces

__all__ = ["SleepReport", "place_of", "read_sleep_reports"]

_SLEEPING = re.compile(r"^BUG: sleeping function called from invalid context at (?P<where>\S+)")
_ATOMIC = re.compile(r"^BUG: scheduling while atomic: (?P<comm>.*)/(?P<pid>\d+)/0x(?P<count>[0-9a-f]{8})$")
_HUNG = re.compile(r"^INFO: task (?P<comm>.*):(?P<pid>\d+) blocked for more than (?P<seconds>\d+) seconds\.")
_FLAGS = re.compile(r"^in_atomic\(\): (\d), irqs_disabled\(\): (\d), .*pid: (\d+), name: (.*)")
_COUNT = re.compile(r"^preempt_count: ([0-9a-f]+), expected: ([0-9a-f]+)")
_DEPTH = re.compile(r"^RCU nest depth: (\d+), expected: (\d+)")
_FRAME = re.compile(r"^ ([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+")
# Functions of the report itself, of the scheduler and of the allocators: not the caller who is looked for.
_OWN = re.compile(
    r"^(dump_stack|show_stack|__?_?might|__schedule|schedule|__cond_resched|io_schedule|__mutex|mutex_lock|down_|"
    r"percpu_down|throttle_direct|try_to_free|(prepare_|_*)alloc_pages|_*get_free_page|get_zeroed|allocate_slab|_*slab_alloc|"
    r"_*kmem_cache|_*kmalloc|_*kvmalloc|_*vmalloc|mempool_alloc|pcpu_alloc|_*alloc_percpu)"
)


@dataclass(slots=True)
class SleepReport(Report):
    """One report. ``place`` says where the code ran ("" where that is no question), ``caller`` the first function of
    the trace that is not the scheduler's own."""

    kind: str
    comm: str = ""
    where: str = ""
    place: str = ""
    caller: str = ""

    @property
    def headline(self) -> str:
        """The finding in a sentence."""
        asked = f"; begin at {self.caller}" if self.caller else ""
        if self.kind == "hung":
            return f"{self.comm} has slept for more than {self.where} seconds: it waits for somebody{asked}"
        does = "slept" if self.kind == "atomic" else "called what may sleep"
        return f"{self.comm or 'somebody'} {does} in {self.place or 'a place where nobody may'}{asked}"


def place_of(count: int, *, irqs_off: bool = False, rcu: int = 0) -> str:
    """Where code runs, from preempt_count, the state of interrupts and the depth of rcu_read_lock, in words.

    Kernel: include/linux/preempt.h.

    >>> place_of(0x10000, irqs_off=True)
    'a hard interrupt'
    """
    if count & 0xF00000:
        return "a non-maskable interrupt"
    if count & 0xF0000:
        return "a hard interrupt"
    if count & 0x100:
        return "a softirq (a timer, a tasklet)"
    if count & 0xFE00:
        return "process context with bottom halves off"
    if count & 0xFF:
        return "process context with a spinlock held or preemption off"
    if irqs_off:
        return "process context with interrupts off"
    return "process context under rcu_read_lock" if rcu else ""


def read_sleep_reports(text: str) -> list[SleepReport]:
    """Every report of a log, oldest first."""
    found = pieces(text, lambda line: _SLEEPING.match(line) or _ATOMIC.match(line) or _HUNG.match(line))
    return [report for first, lines in found if (report := _read(first, lines)) is not None]


def _read(first: int, lines: list[str]) -> SleepReport | None:
    if not lines:
        return None
    if head := _SLEEPING.match(lines[0]):
        report = SleepReport("sleeping", where=head["where"])
    elif head := _ATOMIC.match(lines[0]):
        report = SleepReport("atomic", comm=head["comm"])
        report.place = place_of(int(head["count"], 16) - 1)
    elif head := _HUNG.match(lines[0]):
        report = SleepReport("hung", comm=head["comm"], where=head["seconds"])
    else:
        return None
    report.first = first
    if report.kind == "sleeping":
        _fill(report, lines)
    frames = (_FRAME.match(line) for line in lines)
    report.caller = next((frame[1] for frame in frames if frame and not _OWN.match(frame[1])), "")
    report.lines = [(line, _say(report, line)) for line in lines]
    return report


def _fill(report: SleepReport, lines: list[str]) -> None:
    flags, count, depth = (next(filter(None, map(each.match, lines)), None) for each in (_FLAGS, _COUNT, _DEPTH))
    report.comm = flags[4] if flags else ""
    irqs_off = bool(flags) and flags is not None and flags[2] != "0"
    report.place = place_of(int(count[1], 16) if count else 0, irqs_off=irqs_off, rcu=int(depth[1]) if depth else 0)


def _say(report: SleepReport, line: str) -> str:
    """What a line says; "" for one that says nothing here."""
    if head := _SLEEPING.match(line):
        return f"a call that may sleep was made where nobody may; the check stands in {head['where']}"
    if head := _ATOMIC.match(line):
        return f"0x{head['count']} is preempt_count and the scheduler's own 1: {report.place}"
    if head := _HUNG.match(line):
        return "it did not run once in that time; the task named here waits, the guilty one is who it waits for"
    if flags := _FLAGS.match(line):
        off = "interrupts are off" if flags[2] != "0" else "interrupts are on"
        atomic = "" if flags[1] != "0" else "; preempt_count does not say so"
        return f"who it was: {flags[4]}, {off}{atomic}"
    if count := _COUNT.match(line):
        return f"preempt_count {count[1]}: {place_of(int(count[1], 16)) or 'nothing that forbids to sleep'}"
    if (depth := _DEPTH.match(line)) and depth[1] != depth[2]:
        return "inside rcu_read_lock: whoever frees what it reads waits for it"
    if line.startswith('"echo 0 >'):
        return "how to switch the detector off: it finds the disease, it is not the disease"
    frame = _FRAME.match(line)
    return "the first function that is not the scheduler's: begin here" if frame and frame[1] == report.caller else ""
