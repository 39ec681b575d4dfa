"""What the machine tells its observers: the kernel's tracepoints, and the lab's own steps.

An event class named after a tracepoint carries that tracepoint's fields
(Kernel: include/trace/events/kmem.h, include/trace/events/vmscan.h); ftrace would show it.
Steps the kernel takes without telling anybody are called ``lab_*``: a watermark test, a refill, a split.
From the two together come the narrated path of a request, the panels and the replays.

An event costs about half a microsecond to build, so the engine notes a step as a plain tuple
``(EventClass, field, ...)`` and builds the object only when somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "Event",
    "Kfree",
    "Kmalloc",
    "KmemCacheAlloc",
    "KmemCacheFree",
    "LabAttempt",
    "LabBoost",
    "LabDrain",
    "LabFree",
    "LabFreeBlock",
    "LabHighatomic",
    "LabMerge",
    "LabMisuse",
    "LabNoBlock",
    "LabNull",
    "LabPcp",
    "LabPcpFree",
    "LabReclaim",
    "LabRefill",
    "LabRequest",
    "LabReturn",
    "LabSlab",
    "LabSplit",
    "LabZone",
    "MmPageAlloc",
    "MmPageAllocExtfrag",
    "MmPageAllocZoneLocked",
    "MmPageFree",
    "MmPageFreeBatched",
    "MmPagePcpuDrain",
    "MmVmscanWakeupKswapd",
    "Trace",
    "expand",
]


@dataclass(slots=True, eq=False, repr=False)
class Event:
    """What every event has: the name ftrace would print, or ``lab_...``.

    Comparing and printing are written here once: made anew for each class they would be a third of
    the time it takes to import the engine.
    """

    name: ClassVar[str] = "event"

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field) for field in self.__dataclass_fields__ if field != "name")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        fields = [field for field in self.__dataclass_fields__ if field != "name"]
        values = zip(fields, self._values(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{field}={value!r}' for field, value in values)})"


# --- tracepoints -----------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class MmPageAlloc(Event):
    """A request was answered; ``pfn`` is None when the answer was NULL."""

    name: ClassVar[str] = "mm_page_alloc"
    pfn: int | None
    order: int
    migratetype: int
    gfp_flags: int


@dataclass(slots=True, eq=False, repr=False)
class MmPageFree(Event):
    """A block was given back by its owner."""

    name: ClassVar[str] = "mm_page_free"
    pfn: int
    order: int


@dataclass(slots=True, eq=False, repr=False)
class MmPageFreeBatched(Event):
    """A single page was given back as part of a batch."""

    name: ClassVar[str] = "mm_page_free_batched"
    pfn: int


@dataclass(slots=True, eq=False, repr=False)
class MmPageAllocZoneLocked(Event):
    """The buddy lists gave a block (``percpu_refill``: towards a per-CPU list)."""

    name: ClassVar[str] = "mm_page_alloc_zone_locked"
    pfn: int
    order: int
    migratetype: int
    percpu_refill: int


@dataclass(slots=True, eq=False, repr=False)
class MmPagePcpuDrain(Event):
    """A block left a per-CPU list for the buddy lists."""

    name: ClassVar[str] = "mm_page_pcpu_drain"
    pfn: int
    order: int
    migratetype: int


@dataclass(slots=True, eq=False, repr=False)
class MmPageAllocExtfrag(Event):
    """A block of another migratetype was taken, perhaps with its whole pageblock."""

    name: ClassVar[str] = "mm_page_alloc_extfrag"
    pfn: int
    alloc_order: int
    fallback_order: int
    pageblock_order: int
    alloc_migratetype: int
    fallback_migratetype: int
    fragmenting: int
    change_ownership: int


@dataclass(slots=True, eq=False, repr=False)
class MmVmscanWakeupKswapd(Event):
    """kswapd was asked to make room (``zone``: the highest zone the request may use)."""

    name: ClassVar[str] = "mm_vmscan_wakeup_kswapd"
    zone: str
    order: int
    gfp_flags: int


@dataclass(slots=True, eq=False, repr=False)
class Kmalloc(Event):
    """kmalloc was answered; ``ptr`` is 0 for NULL, ``node`` -1 for any."""

    name: ClassVar[str] = "kmalloc"
    call_site: str
    ptr: int
    bytes_req: int
    bytes_alloc: int
    gfp_flags: int
    node: int
    accounted: bool


@dataclass(slots=True, eq=False, repr=False)
class KmemCacheAlloc(Kmalloc):
    """kmem_cache_alloc was answered."""

    name: ClassVar[str] = "kmem_cache_alloc"


@dataclass(slots=True, eq=False, repr=False)
class Kfree(Event):
    """kfree was called."""

    name: ClassVar[str] = "kfree"
    call_site: str
    ptr: int


@dataclass(slots=True, eq=False, repr=False)
class KmemCacheFree(Event):
    """kmem_cache_free was called, for an object of ``cache`` (ftrace prints it as ``name=``)."""

    name: ClassVar[str] = "kmem_cache_free"
    call_site: str
    ptr: int
    cache: str


# --- the lab's own steps ---------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class LabRequest(Event):
    """A request for pages begins: ``alloc_pages(gfp_flags, order)`` on ``cpu``."""

    name: ClassVar[str] = "lab_request"
    gfp_flags: int
    order: int
    cpu: int


@dataclass(slots=True, eq=False, repr=False)
class LabAttempt(Event):
    """One walk over the zones begins, against the mark ``wmark`` (low, min, high, none)."""

    name: ClassVar[str] = "lab_attempt"
    wmark: str
    alloc_flags: int


@dataclass(slots=True, eq=False, repr=False)
class LabZone(Event):
    """The watermark test of one zone: is ``free - unusable > mark + protection``, all in pages?

    ``base`` is the watermark with its boost, ``mark`` what is left of it after the reserve rights
    of this request; ``block`` says whether a free block large enough exists (True for order 0).
    """

    name: ClassVar[str] = "lab_zone"
    zone: str
    free: int
    unusable: int
    base: int
    mark: int
    protection: int
    enough: bool
    block: bool

    @property
    def passed(self) -> bool:
        """Whether this zone may serve the request."""
        return self.enough and self.block


@dataclass(slots=True, eq=False, repr=False)
class LabPcp(Event):
    """This CPU's list for (order, migratetype) was looked at; ``left`` blocks remain after a hit."""

    name: ClassVar[str] = "lab_pcp"
    zone: str
    cpu: int
    order: int
    migratetype: int
    hit: bool
    left: int


@dataclass(slots=True, eq=False, repr=False)
class LabRefill(Event):
    """``batch`` blocks were asked of the buddy lists for this CPU's list, ``pfns`` came, head first."""

    name: ClassVar[str] = "lab_refill"
    zone: str
    order: int
    migratetype: int
    batch: int
    pfns: tuple[int, ...]


@dataclass(slots=True, eq=False, repr=False)
class LabSplit(Event):
    """A free block of order ``high`` at ``pfn`` was split down to ``low``; the lower end was kept."""

    name: ClassVar[str] = "lab_split"
    zone: str
    pfn: int
    high: int
    low: int
    migratetype: int


@dataclass(slots=True, eq=False, repr=False)
class LabNoBlock(Event):
    """The zone's test was passed, but no list of a usable type held a block of ``order``."""

    name: ClassVar[str] = "lab_no_block"
    zone: str
    order: int
    migratetype: int
    nofragment: bool


@dataclass(slots=True, eq=False, repr=False)
class LabBoost(Event):
    """Stealing raised the zone's watermarks by ``boost`` pages in all."""

    name: ClassVar[str] = "lab_boost"
    zone: str
    boost: int


@dataclass(slots=True, eq=False, repr=False)
class LabHighatomic(Event):
    """A pageblock was set aside for high-order atomic requests (or given back: ``reserved`` False)."""

    name: ClassVar[str] = "lab_highatomic"
    zone: str
    pfn: int
    reserved: bool


@dataclass(slots=True, eq=False, repr=False)
class LabReclaim(Event):
    """One round of direct reclaim ended with ``progress`` pages; ``retries`` fruitless ones so far."""

    name: ClassVar[str] = "lab_reclaim"
    progress: int
    retries: int


@dataclass(slots=True, eq=False, repr=False)
class LabReturn(Event):
    """The request ends with a block."""

    name: ClassVar[str] = "lab_return"
    zone: str
    pfn: int
    order: int
    migratetype: int


@dataclass(slots=True, eq=False, repr=False)
class LabNull(Event):
    """The request ends with NULL, for this ``reason``."""

    name: ClassVar[str] = "lab_null"
    reason: str


@dataclass(slots=True, eq=False, repr=False)
class LabFree(Event):
    """``__free_pages`` of a block begins."""

    name: ClassVar[str] = "lab_free"
    pfn: int
    order: int
    cpu: int


@dataclass(slots=True, eq=False, repr=False)
class LabPcpFree(Event):
    """The block was put at the head of this CPU's list; ``count`` pages lie there, ``high`` may."""

    name: ClassVar[str] = "lab_pcp_free"
    zone: str
    cpu: int
    pfn: int
    order: int
    migratetype: int
    count: int
    high: int


@dataclass(slots=True, eq=False, repr=False)
class LabDrain(Event):
    """This CPU's lists overflowed: ``nr`` pages go back to the buddy lists."""

    name: ClassVar[str] = "lab_drain"
    zone: str
    cpu: int
    nr: int


@dataclass(slots=True, eq=False, repr=False)
class LabMerge(Event):
    """A freed block at ``pfn`` met its free buddy; together they are one block of ``order``."""

    name: ClassVar[str] = "lab_merge"
    zone: str
    pfn: int
    buddy: int
    order: int


@dataclass(slots=True, eq=False, repr=False)
class LabFreeBlock(Event):
    """A block was put on a buddy list, at its head or (a merge is likely soon) at its tail."""

    name: ClassVar[str] = "lab_free_block"
    zone: str
    pfn: int
    order: int
    migratetype: int
    tail: bool


@dataclass(slots=True, eq=False, repr=False)
class LabSlab(Event):
    """One step of the slab allocator in ``cache``: what happened to the slab at ``pfn``, to its object ``index``
    (-1: none in particular); ``count`` objects or slabs are there after it.

    Steps: cpu_freelist, get_freelist, full, cpu_partial, node_partial, to_cpu_partial, new_slab, free_fastpath,
    free_slowpath, put_cpu_partial, to_node_partial, discard_slab.
    """

    name: ClassVar[str] = "lab_slab"
    cache: str
    what: str
    pfn: int
    index: int
    count: int


@dataclass(slots=True, eq=False, repr=False)
class LabMisuse(Event):
    """The caller broke a rule; ``text`` says what the kernel made of it."""

    name: ClassVar[str] = "lab_misuse"
    pfn: int
    order: int
    text: str


# --- from notes to events ----------------------------------------------------------------------


def expand(trail: Iterable[tuple[Any, ...]]) -> Iterator[Event]:
    """Build the events of a call from the engine's notes, in order; add the tracepoints that follow from them.

    A note is ``(make, field, ...)``; ``make(field, ...)`` is an event, or the events of a step noted as one.
    """
    request: LabRequest | None = None
    mask = 0  # as the task's scopes leave it
    for make, *fields in trail:
        made = make(*fields)
        for event in (made,) if isinstance(made, Event) else made:
            yield event
            if isinstance(event, LabRequest):
                request, mask = event, event.gfp_flags
            elif event.name == "lab_context":
                mask = getattr(event, "gfp", mask)
            elif isinstance(event, LabFree):
                yield MmPageFree(event.pfn, event.order)
            elif request and isinstance(event, LabReturn):
                yield MmPageAlloc(event.pfn, event.order, mask >> 3 & 3, mask)
            elif request and isinstance(event, LabNull):
                yield MmPageAlloc(None, request.order, mask >> 3 & 3, mask)


class Trace:
    """Subscribers to a machine's events.

    An observer never changes a run: one that raises is detached and logged.
    With ``strict`` set (the tests do) its error is raised again.
    """

    def __init__(self, changed: Callable[[], None] = lambda: None, *, strict: bool = False) -> None:
        self.changed = changed  # told when somebody comes or goes
        self.strict = strict
        self.subscribers: list[Callable[[Event], Any]] = []

    def __bool__(self) -> bool:
        return bool(self.subscribers)

    def subscribe(self, observer: Callable[[Event], Any]) -> Callable[[], None]:
        """Call ``observer(event)`` for every event from now on; returns the way to stop it."""
        self.subscribers.append(observer)
        self.changed()

        def unsubscribe() -> None:
            if observer in self.subscribers:
                self.subscribers.remove(observer)
                self.changed()

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell every subscriber; detach and log one that fails."""
        for observer in tuple(self.subscribers):
            try:
                observer(event)
            except Exception:
                import logging  # noqa: PLC0415 - a tenth of what the engine's import takes, for a rare case

                self.subscribers.remove(observer)
                self.changed()
                logging.getLogger("kmemlab.events").exception(
                    "observer %r failed on %s and was detached", observer, event.name
                )
                if self.strict:
                    raise
