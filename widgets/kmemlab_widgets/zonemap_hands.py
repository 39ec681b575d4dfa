"""What a click on the map asks of the machine: whose block is this, free it, what happened to it.

Functions, not methods: inside a class ``__free_pages`` would be another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kmemlab import events
from kmemlab.gfp import (
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    MIGRATE_NAMES,
    show_gfp_flags,
)
from kmemlab.mmzone import MAX_ORDER, Page
from kmemlab.null import KernelBug
from kmemlab.probe import largest
from kmemlab.snapshot import FREE, LOST, PCP, RESERVED
from kmemlab_widgets.zonemap_film import Shot

__all__ = ["FLAGS", "free", "history", "landing", "owned", "standing"]

FLAGS = {
    "GFP_KERNEL": GFP_KERNEL,
    "GFP_ATOMIC": GFP_ATOMIC,
    "GFP_DMA": GFP_DMA,
    "GFP_HIGHUSER_MOVABLE": GFP_HIGHUSER_MOVABLE,
}
_MOST = 8  # lines of a frame's history


def landing(machine: Any, flag: str) -> dict[str, Any]:
    """Where the largest request with this flag would land now: its block is None if not one page would come."""
    found = largest(machine, FLAGS[flag])
    return {"gfp": flag, "block": None if found is None else [*found]}


def owned(machine: Any, pfn: int) -> Page | None:
    """The first page of the block that this machine handed out and that holds the frame."""
    for order in range(MAX_ORDER):
        head = pfn >> order << order
        try:
            page: Page = machine.memmap[head]
        except ValueError:  # no memory there
            continue
        if page.refcount > 0 and page.order >= order and head + (1 << page.order) > pfn:
            return page
    return None


def standing(machine: Any, pfn: int, state: int) -> tuple[list[int] | None, str]:
    """(the block to free or None, a sentence on whose it is) of a frame that is in ``state``."""
    if page := owned(machine, pfn):
        order = page.order
        mask = show_gfp_flags(page.gfp)
        return [page.pfn, order], f"block {page.pfn}–{page.pfn + (1 << order) - 1}, from alloc_pages({mask}, {order})"
    if state == FREE:
        return None, "in the buddy lists: already free"
    if state == PCP:
        return None, "on a per-CPU list: already given back"
    if state == LOST:
        return None, "lost: nobody has the pointer any more"
    if state == RESERVED:
        return None, "reserved at boot: the allocator never had it"
    return None, "in use since boot: not ours to free"


def free(machine: Any, pfn: int) -> str:
    """Give back the block that holds a frame; returns the kernel's report if it stopped, else nothing.

    Errors: ValueError if the block is not this machine's to free.
    """
    page = owned(machine, pfn)
    if page is None:
        raise ValueError(f"pfn {pfn}: nothing to free")
    try:
        machine.__free_pages(page, page.order)
    except KernelBug as bug:
        return str(bug)
    return ""


def history(shots: Iterable[Shot], pfn: int) -> list[str]:
    """What the kept moments know of a frame: the last lines, "call 12: taken by alloc_pages(GFP_KERNEL, 0)"."""
    lines = []
    for shot in shots:
        lines += [f"call {shot.info['calls']:,}: {words}" for words in _named(shot.trail, pfn)]
    return lines[-_MOST:]


def _named(trail: Iterable[events.Event], pfn: int) -> Iterator[str]:
    """A sentence for each event of a call that names the frame."""
    call = ""
    for event in trail:
        if isinstance(event, events.LabRequest):
            call = f"alloc_pages({show_gfp_flags(event.gfp_flags)}, {event.order})"
        elif isinstance(event, events.LabRefill):
            if pfn in event.pfns:
                yield "moved to this CPU's list by a refill"
        elif words := _sentence(event, call, pfn):
            yield words


def _sentence(event: events.Event, call: str, pfn: int) -> str:
    first, order = getattr(event, "pfn", None), getattr(event, "order", 0)
    if isinstance(event, events.LabSplit):
        order = event.high
    if isinstance(event, events.LabMerge):
        first = min(event.pfn, event.buddy)
    if first is None or not first <= pfn < first + (1 << order):
        return ""
    if isinstance(event, events.LabReturn):
        return f"taken by {call}"
    if isinstance(event, events.LabSplit):
        return f"the order-{event.high} block at {event.pfn} was split down to order {event.low}"
    if isinstance(event, events.LabPcpFree):
        return f"freed to CPU {event.cpu}'s list"
    if isinstance(event, events.MmPagePcpuDrain):
        return "drained from a CPU's list to the buddy lists"
    if isinstance(event, events.LabMerge):
        return f"merged with its buddy at {event.buddy} to order {event.order}"
    if isinstance(event, events.LabFreeBlock):
        return f"put on the order-{event.order} list of {MIGRATE_NAMES[event.migratetype]}"
    if isinstance(event, events.LabMisuse):
        return event.text
    return ""
