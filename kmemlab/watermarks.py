"""How free memory moves against a zone's watermarks: a curve kept while requests are made, and each mask's floor.

Kernel: __zone_watermark_ok, __alloc_pages_slowpath, mm/page_alloc.c; what kswapd and direct reclaim did is read from
the counters of /proc/vmstat (pageoutrun, allocstall, oom_kill).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from kmemlab import events
from kmemlab.gfp import gfp_zone
from kmemlab.mmzone import WMARK_MIN, reduced_mark, unusable_free
from kmemlab.observer import Observer
from kmemlab.page_slowpath import MEMALLOC, NOMEMALLOC, gfp_to_alloc_flags

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["MOST", "Marks", "Refusal", "Run", "Sample", "Watch", "floor_of", "thinned"]

MOST = 2000  # samples of a curve


class Sample(NamedTuple):
    """One moment. Pages; ``asked``, ``got``, ``kswapd`` (its runs), ``direct`` (direct reclaims) and ``oom`` (kills)
    count from the curve's beginning; ``min``, ``low`` and ``high`` include ``boost``; ``ms`` is simulated time."""

    asked: int
    got: int
    free: int
    min: int
    low: int
    high: int
    boost: int
    kswapd: int
    direct: int
    oom: int
    ms: float


@dataclass(frozen=True, slots=True)
class Marks:
    """What decides how far a mask may drink from a zone, in pages; the names are those of struct zone."""

    name: str
    idx: int
    wmark: tuple[int, ...]
    watermark_boost: int = 0
    lowmem_reserve: tuple[int, ...] = (0, 0, 0, 0, 0)
    nr_reserved_highatomic: int = 0
    highmem: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that got NULL: the number ``asked`` of it, and what the zone's last test compared, in pages:
    ``free - unusable > need`` (mark + protection). ``tested`` is False where the zone was not asked or nobody noted
    it."""

    asked: int
    gfp: int
    order: int
    free: int
    unusable: int = 0
    need: int = 0
    tested: bool = False

    @property
    def left(self) -> int:
        """Free pages that counted."""
        return self.free - self.unusable

    @property
    def enough(self) -> bool:
        """There were pages enough, but no block large enough."""
        return self.left > self.need


@dataclass(frozen=True, slots=True)
class Run:
    """A curve: ``requests`` has a row (gfp, order, asked, got) for each kind, ``refusal`` is the first NULL.
    ``recorded`` names the kernel that it was recorded on, "" for a simulated machine."""

    label: str
    marks: Marks
    requests: tuple[tuple[int, int, int, int], ...]
    samples: tuple[Sample, ...]
    refusal: Refusal | None = None
    recorded: str = ""


def floor_of(zone: Any, gfp: int, order: int = 0, *, highmem: bool = False) -> int | None:
    """The free pages that a zone must exceed for a request that has woken kswapd and finds nobody to wait for.

    ``zone`` is a Zone or Marks. 0 for a mask that ignores watermarks, None for one that may not use the zone. A mask
    that may reclaim does so from here on, the others get NULL. Kernel: gfp_to_alloc_flags, __zone_watermark_ok.

    >>> from kmemlab import GFP_ATOMIC, GFP_KERNEL, __GFP_HIGH
    >>> zone = Marks("DMA32", 1, (411, 513, 615))
    >>> [floor_of(zone, gfp) for gfp in (GFP_KERNEL, GFP_KERNEL | __GFP_HIGH, GFP_ATOMIC)]
    [411, 206, 155]
    """
    highest = gfp_zone(gfp, highmem=highmem)
    if zone.idx > highest:
        return None
    if gfp & MEMALLOC and not gfp & NOMEMALLOC:
        return 0
    flags = gfp_to_alloc_flags(gfp, order)
    base = zone.wmark[WMARK_MIN]
    if order or not gfp & 0x200:  # GFP_ATOMIC gets a second test without the boost
        base += zone.watermark_boost
    return int(reduced_mark(base, flags) + zone.lowmem_reserve[highest] + unusable_free(zone, order, flags))


def thinned(samples: Sequence[Sample], width: float, *, by: str = "asked") -> list[Sample]:
    """The lowest and the highest of each group of ``width`` requests (or milliseconds, ``by="ms"``), in their order;
    the first sample stays. Counters are sums, so what happened in between is not lost."""
    kept = list(samples[:1])
    for _, group in groupby(samples[1:], key=lambda sample: getattr(sample, by) // width):
        kept += _ends(list(group))
    return kept


def _ends(group: list[Sample]) -> list[Sample]:
    if len(group) < 3:
        return group
    free = [sample.free for sample in group]
    return [group[i] for i in sorted({free.index(min(free)), free.index(max(free))})]


class Watch(Observer):
    """Keeps the curve of one zone of a machine from ``begin()`` on: a sample after each call, at most 2,000 of them.

    It is an observer like any other: a machine that nobody watches pays nothing, a request on a watched one
    takes some ten times as long.
    Errors: ValueError for a zone the machine does not have.
    """

    def __init__(self, m: Machine, zone: str) -> None:
        found = [each for each in m.zones if each.name == zone]
        if not found:
            raise ValueError(f"zone={zone!r}: this machine has {', '.join(each.name for each in m.zones)}")
        super().__init__(m)
        self.zone = found[0]
        self.width = 1  # requests of which the lowest and the highest sample are kept
        self.asked = self.got = 0
        self.counts: dict[tuple[int, int], list[int]] = {}
        self.refusal: Refusal | None = None
        self._call: tuple[int, int] = (0, 0)
        self._test: events.LabZone | None = None
        self._base = {name: m.lru.stat[name] for name in ("pageoutrun", "allocstall", "oom_kill")}
        self._kept: list[Sample] = [self._sample()]
        self._group: list[Sample] = []

    def see(self, event: events.Event) -> None:
        """A call's events come when it has ended, all at once: the zone is as the call left it."""
        kind = type(event)
        if isinstance(event, events.LabZone):
            if event.zone == self.zone.name:
                self._test = event
        elif isinstance(event, events.LabRequest):
            self._call, self._test = (event.gfp_flags, event.order), None
        elif kind is events.LabReturn or kind is events.LabNull:
            self._ended(got=kind is events.LabReturn)
        elif kind is events.LabFree:
            self._keep(self._sample())

    def _ended(self, *, got: bool) -> None:
        self.asked += 1
        self.got += got
        count = self.counts.setdefault(self._call, [0, 0])
        count[0] += 1
        count[1] += got
        if not got and self.refusal is None:
            test = self._test
            if test is None:
                self.refusal = Refusal(self.asked, *self._call, self.zone.nr_free_pages)
            else:
                need = test.mark + test.protection
                self.refusal = Refusal(self.asked, *self._call, test.free, test.unusable, need, True)
        self._keep(self._sample())

    def _sample(self) -> Sample:
        zone, stat, base = self.zone, self.m.lru.stat, self._base
        boost, (low, mid, high) = zone.watermark_boost, zone.wmark[:3]
        return Sample(
            self.asked, self.got, zone.nr_free_pages, low + boost, mid + boost, high + boost, boost,
            stat["pageoutrun"] - base["pageoutrun"], stat["allocstall"] - base["allocstall"],
            stat["oom_kill"] - base["oom_kill"], self.m.now,
        )  # fmt: skip

    def _keep(self, sample: Sample) -> None:
        group = self._group
        if group and (group[0].asked // self.width != sample.asked // self.width or len(group) == 8):
            self._kept += _ends(group)
            self._group = group = []
            while len(self._kept) > MOST - 16:
                self.width *= 2
                self._kept = thinned(self._kept, self.width)
        group.append(sample)

    def run(self) -> Run:
        """The curve so far, up to this moment."""
        zone, now = self.zone, self._sample()
        last = self._group[-1] if self._group else self._kept[-1]
        samples = [*self._kept, *self._group, *([now] if now != last else [])]
        marks = Marks(
            zone.name, zone.idx, tuple(zone.wmark[:3]), zone.watermark_boost, tuple(zone.lowmem_reserve),
            zone.nr_reserved_highatomic, self.m.kernel.highmem,
        )  # fmt: skip
        requests = tuple((gfp, order, asked, got) for (gfp, order), (asked, got) in self.counts.items())
        return Run(self.m.label, marks, requests, tuple(samples), self.refusal)
