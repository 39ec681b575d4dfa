"""Hold the model against a real kernel: replay a recording, compare every page frame number (or object of a slab
cache) and the end state.

``kmemlab conform FILE...`` prints a line a file and a total; exit 0 if all is exact, 1 if not, 2 for a
file that cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kmemlab import ftrace
from kmemlab.machine import Machine
from kmemlab.mmzone import MAX_ORDER, MIGRATE_TYPES, Page
from kmemlab.null import KernelBug, Null
from kmemlab.recording import Recording, RecordingError, load_recording
from kmemlab.slub_conform import replay_slub
from kmemlab.story import Story

__all__ = ["Conformance", "compare_states", "conform", "main", "replay"]


@dataclass(slots=True)
class Conformance:
    """What came of one recording. ``first_miss`` is the index of the first differing allocation, or None."""

    name: str
    total: int = 0
    predicted: int = 0
    wrong_failures: int = 0
    first_miss: int | None = None
    right_before_first_miss: int = 0
    differences: list[str] = field(default_factory=list)
    miss: str = ""
    story: Story | None = None

    @property
    def exact(self) -> bool:
        """Every page predicted, no wrong failure, end state equal."""
        return self.predicted == self.total and not self.wrong_failures and not self.differences

    def __str__(self) -> str:
        end = "equal" if not self.differences else f"differs ({self.differences[0]})"
        return (
            f"{self.name}: predicted {self.predicted} of {self.total}, "
            f"{self.wrong_failures} wrong failures, end state {end}"
        )

    __repr__ = __str__

    def count(self, m: Machine, call: str, kernel: int, page: Page | object) -> None:
        """Count one allocation: what the kernel returned (-1: NULL) against what the model did."""
        model = page.pfn if isinstance(page, Page) else -1
        if kernel >= 0:
            self.total += 1
        if model < 0 or kernel < 0:
            self.wrong_failures += model != kernel
        self._compare(m, call, f"pfn {model}", f"pfn {kernel}", counts=kernel >= 0)

    def count_object(self, m: Machine, call: str, kernel: tuple[int, int], model: tuple[int, int] | None) -> None:
        """Count one object, as (pfn of its slab, index): what the kernel returned against what the model did."""
        self.total += 1
        self.wrong_failures += model is None
        ours = f"object {model[1]} of slab {model[0]}" if model else "NULL"
        self._compare(m, call, ours, f"object {kernel[1]} of slab {kernel[0]}")

    def _compare(self, m: Machine, call: str, ours: str, theirs: str, *, counts: bool = True) -> None:
        if ours == theirs:
            self.predicted += counts
            if self.first_miss is None:
                self.right_before_first_miss += counts
        elif self.first_miss is None:
            self.first_miss = self.total
            self.miss = f"{call}: model {ours}, kernel {theirs}"
            self.story = m.explain()


def conform(name: str | Path, without: Iterable[str] = ()) -> Conformance:
    """Replay a recording (path or bare name) and compare. ``without`` switches kernel rules off.

    Errors: RecordingError, one line, for a file that cannot be used.
    """
    recording = load_recording(name)
    result = Conformance(str(name))
    if recording.kind == "slub":
        result.differences = replay_slub(recording, result.count_object)[1]
        return result
    m = Machine._of_recording(recording, "state0", without)
    end = Machine._of_recording(recording, "state1")
    if [(zone.name, len(zone.pcps)) for zone in m.zones] != [(zone.name, len(zone.pcps)) for zone in end.zones]:
        raise RecordingError(f"{recording.path}: state1: has other zones or CPUs than state0")
    try:
        if recording.kind == "buddy":
            for index, op, page in replay(m, recording):
                if page is not None:
                    result.count(m, f"call {index}: alloc_pages({op[1]:#x}, {op[2]})", op[3], page)
        else:
            ftrace.replay(m, recording, result.count)
    except KernelBug as bug:  # the calls are not those of a kernel that went on
        result.differences.append(f"the model's kernel stopped: {str(bug).splitlines()[1]}")
        return result
    result.differences = list(compare_states(m, end, loose=recording.kind == "real"))
    return result


def _check_calls(m: Machine, recording: Recording) -> None:
    """Whether the machine has the CPUs and the frames that the calls name. Errors: RecordingError."""
    spans = [range(zone.start_pfn, zone.end_pfn) for zone in m.zones]
    for index, op in enumerate(recording.ops):
        cpu = op[3 + op[0]] if len(op) > 3 + op[0] else 0
        if not 0 <= cpu < m.cpus:
            raise RecordingError(f"{recording.path}: ops[{index}]: CPU {cpu}: the machine has {m.cpus}")
        if not op[0] and not any(op[1] in span for span in spans):
            raise RecordingError(f"{recording.path}: ops[{index}]: frame {op[1]} is not in the machine's memory")


def replay(m: Machine, recording: Recording) -> Iterator[tuple[int, list[int], Page | Null | None]]:
    """Make a recording's calls on ``m``, its machine, one after the other: yields (index, call, page) after each.

    A call is ``[1, gfp, order, pfn that the kernel returned or -1, ...]`` or ``[0, pfn, order, ...]``, a free; its
    page is None. A free names the page the kernel had returned; where the model returned another one for that call,
    that one is freed, so that a miss does not become a free of somebody else's page.
    Errors: RecordingError for calls that the machine has no CPU or frame for.
    """
    _check_calls(m, recording)
    alloc, free, page_at = m.alloc_pages, m.__free_pages, m.memmap.__getitem__
    instead: dict[int, Page | Null] = {}
    several = m.cpus > 1
    for index, op in enumerate(recording.ops):
        if op[0] == 1:
            if several and len(op) > 4 and op[4] != m.cpu:
                m.cpu = op[4]
            page = alloc(op[1], op[2])
            yield index, op, page
            if (page.pfn if page else -1) != op[3]:
                if op[3] >= 0:
                    instead[op[3]] = page
                else:
                    free(page, op[2])  # nobody will: the kernel's call had failed
        else:
            if several and len(op) > 3 and op[3] != m.cpu:
                m.cpu = op[3]
            page = instead.pop(op[1], None) if instead else None
            if page is None:
                page = page_at(op[1])
            if page:
                free(page, op[2])
            yield index, op, None


def compare_states(m: Machine, end: Machine, *, loose: bool = False) -> Iterator[str]:
    """What differs between two machines, zone by zone, in words. ``loose`` allows a folded page in the counters."""
    for zone, other in zip(m.zones, end.zones, strict=True):
        for order in range(MAX_ORDER):
            for mt in range(MIGRATE_TYPES):
                ours, theirs = list(zone.free_blocks(order, mt)), list(other.free_blocks(order, mt))
                if ours != theirs:
                    yield f"{zone.name} free list order {order} type {mt}: {ours[:4]}... is not {theirs[:4]}..."
        if (
            zone.pageblock_mt[zone.start_pfn >> 9 : zone.end_pfn >> 9]
            != (other.pageblock_mt[zone.start_pfn >> 9 : zone.end_pfn >> 9])
        ):
            yield f"{zone.name} pageblock types"
        names = ["wmark", "watermark_boost", "nr_reserved_highatomic", "lowmem_reserve"]
        if not loose:
            names.append("nr_free_pages")
        for name in names:
            if getattr(zone, name) != getattr(other, name):
                yield f"{zone.name} {name}: {getattr(zone, name)} is not {getattr(other, name)}"
        for pcp, end_pcp in zip(zone.pcps, other.pcps, strict=True):
            what = f"{zone.name} cpu {pcp.cpu}"
            for pindex, (listed, recorded) in enumerate(zip(pcp.lists, end_pcp.lists, strict=True)):
                if [(p.pfn, p.mt) for p in listed] != [(p.pfn, p.mt) for p in recorded]:
                    yield f"{what} per-CPU list {pindex}"
            for name in ("count", "high", "batch", "free_factor", *(() if loose else ("vm_stat_diff",))):
                if getattr(pcp, name) != getattr(end_pcp, name):
                    yield f"{what} {name}: {getattr(pcp, name)} is not {getattr(end_pcp, name)}"


def main(files: Sequence[str], without: Sequence[str] = ()) -> int:
    """Check files, print a line each and the total; returns the exit status (0 exact, 1 not, 2 unreadable)."""
    status = predicted = total = equal = 0
    for name in files:
        try:
            result = conform(name, without)
        except (RecordingError, ValueError) as error:
            print(f"kmemlab conform: {error}", file=sys.stderr)
            status = 2
            continue
        print(result)
        predicted += result.predicted
        total += result.total
        equal += not result.differences
        if not result.exact:
            status = max(status, 1)
            if result.miss:
                print(f"  first difference: {result.miss}\n  the model's way:")
                print("  " + str(result.story).replace("\n", "\n  "))
            for difference in result.differences[:5]:
                print(f"  end state: {difference}")
    print(f"total: predicted {predicted} of {total}, end states {equal} of {len(files)}")
    return status
