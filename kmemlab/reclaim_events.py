"""Events of the slow path: reclaim, compaction, the OOM killer. Names and fields as in ``events``.

Kernel: include/trace/events/vmscan.h, compaction.h, oom.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kmemlab.events import Event

__all__ = [
    "CompactRetry",
    "LabContext",
    "LabRound",
    "LabThrottle",
    "MarkVictim",
    "MmCompactionEnd",
    "MmCompactionTryToCompactPages",
    "MmVmscanDirectReclaimBegin",
    "MmVmscanDirectReclaimEnd",
    "MmVmscanKswapdSleep",
    "MmVmscanKswapdWake",
    "ReclaimRetryZone",
]


@dataclass(slots=True, eq=False, repr=False)
class MmVmscanDirectReclaimBegin(Event):
    """The caller begins to free pages itself."""

    name: ClassVar[str] = "mm_vmscan_direct_reclaim_begin"
    order: int
    gfp_flags: int


@dataclass(slots=True, eq=False, repr=False)
class MmVmscanDirectReclaimEnd(Event):
    """It has freed so many."""

    name: ClassVar[str] = "mm_vmscan_direct_reclaim_end"
    nr_reclaimed: int


@dataclass(slots=True, eq=False, repr=False)
class MmVmscanKswapdWake(Event):
    """kswapd begins to work for a request of this order."""

    name: ClassVar[str] = "mm_vmscan_kswapd_wake"
    order: int


@dataclass(slots=True, eq=False, repr=False)
class MmVmscanKswapdSleep(Event):
    """kswapd has freed ``nr_reclaimed`` pages and sleeps again; ``balanced``: a zone is above high."""

    name: ClassVar[str] = "mm_vmscan_kswapd_sleep"
    nr_reclaimed: int
    balanced: bool


@dataclass(slots=True, eq=False, repr=False)
class ReclaimRetryZone(Event):
    """Would this zone pass the min watermark if everything reclaimable were free? (should_reclaim_retry)"""

    name: ClassVar[str] = "reclaim_retry_zone"
    zone: str
    order: int
    reclaimable: int
    available: int
    min_wmark: int
    no_progress_loops: int
    wmark_check: bool


@dataclass(slots=True, eq=False, repr=False)
class MmCompactionTryToCompactPages(Event):
    """Compaction is tried; ``priority`` 2 asynchronous, 1 light, 0 full."""

    name: ClassVar[str] = "mm_compaction_try_to_compact_pages"
    order: int
    gfp_mask: int
    priority: int


@dataclass(slots=True, eq=False, repr=False)
class MmCompactionEnd(Event):
    """Compaction of a zone ended with ``status`` after moving ``nr_migrated`` pages."""

    name: ClassVar[str] = "mm_compaction_end"
    zone: str
    status: str
    nr_migrated: int


@dataclass(slots=True, eq=False, repr=False)
class CompactRetry(Event):
    """Is another round of compaction worth while? (should_compact_retry)"""

    name: ClassVar[str] = "compact_retry"
    order: int
    priority: str
    result: str
    retries: int
    max_retries: int
    ret: bool


@dataclass(slots=True, eq=False, repr=False)
class MarkVictim(Event):
    """The OOM killer has chosen a process."""

    name: ClassVar[str] = "mark_victim"
    pid: int
    comm: str
    rss: int


@dataclass(slots=True, eq=False, repr=False)
class LabRound(Event):
    """A round of the slow path begins: look, reclaim, compact, decide whether to go on."""

    name: ClassVar[str] = "lab_round"
    number: int


@dataclass(slots=True, eq=False, repr=False)
class LabThrottle(Event):
    """Less than half of the reserve is free: the caller waits for kswapd."""

    name: ClassVar[str] = "lab_throttle"
    free: int


@dataclass(slots=True, eq=False, repr=False)
class LabContext(Event):
    """Where the request was made, and what its mask became there."""

    name: ClassVar[str] = "lab_context"
    words: str
    gfp: int
