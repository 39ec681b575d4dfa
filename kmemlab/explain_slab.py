"""``m.explain()`` for the object floor: the last kmalloc, kmem_cache_alloc or free, step by step.

A call that the fast way answered left no notes; its one step is written down here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kmemlab.events import LabSlab, expand
from kmemlab.gfp import show_gfp_flags
from kmemlab.slub import slab_step
from kmemlab.slub_def import SLAB_KMALLOC, Slab
from kmemlab.story import Step, Story

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["explain_slab", "page_notes", "slab_events"]

FILE = "mm/slub.c"

# What happened -> the kernel's function, what to say, why.
WORDS = {
    "cpu_freelist": (
        "slab_alloc_node",
        "the head of this CPU's list is taken; {left} left of slab {pfn}",
        "no lock, no other list: the object freed last is the one given",
    ),
    "get_freelist": (
        "get_freelist",
        "this CPU's list is empty, but {count} of its slab {pfn} were freed by others: all are taken over",
        "",
    ),
    "full": (
        "___slab_alloc",
        "slab {pfn} has nothing left: it is on no list from now on",
        "the kernel keeps no list of full slabs",
    ),
    "cpu_partial": (
        "___slab_alloc",
        "slab {pfn} is taken from this CPU's partial list, where {slabs} wait behind it",
        "slabs that were full until somebody freed into them",
    ),
    "node_partial": (
        "get_partial_node",
        "slab {pfn} is taken from the node's partial list: {count} free",
        "its head comes first",
    ),
    "to_cpu_partial": (
        "get_partial_node",
        "slab {pfn} comes along to this CPU's partial list",
        "so that the lock is not needed so soon again",
    ),
    "new_slab": (
        "allocate_slab",
        "a new slab at pfn {pfn} is cut into {count}",
        "a constructor runs now, once for each of them",
    ),
    "free_fastpath": (
        "do_slab_free",
        "on top of this CPU's list: {count} there now",
        "the next request gets just this one",
    ),
    "free_slowpath": (
        "__slab_free",
        "on the list of its own slab {pfn}: {count} free there",
        "it is not the slab this CPU allocates from",
    ),
    "put_cpu_partial": (
        "put_cpu_partial",
        "slab {pfn} goes to this CPU's partial list as number {count}",
        "it was full and on no list",
    ),
    "to_node_partial": (
        "__unfreeze_partials",
        "slab {pfn} goes to the node's partial list: {slabs} there",
        "the CPU's list was full, or is being emptied",
    ),
    "discard_slab": (
        "discard_slab",
        "slab {pfn} is empty: its pages go back to the page allocator",
        "the node's list holds enough slabs already",
    ),
}


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def slab_events(m: Machine) -> tuple[LabSlab, ...]:
    """The steps of the last call on the object floor, as events."""
    return tuple(slab_step(*note[1:]) for note in _notes(m) if note[0] is slab_step)


def _notes(m: Machine) -> list[Any]:
    s, p, size, _, *steps = m.last_plan
    if steps and not isinstance(steps[0], Slab):
        return list(steps[0])
    slab = m.virt_to_slab(p)
    assert isinstance(slab, Slab)
    c = s.cpu_slab[m.cpu]
    if steps and size >= 0:  # slub.refill
        full = steps[0]
        return [(slab_step, "full", full, 0, full.objects), (slab_step, "cpu_partial", slab, 0, len(c.partial))]
    if steps:  # slub.free_fast
        count = len(slab.freelist)
        return [(slab_step, "free_slowpath", slab, p, count), (slab_step, "put_cpu_partial", slab, 0, len(c.partial))]
    if size >= 0:
        return [(slab_step, "cpu_freelist", slab, p, len(c.freelist) + 1)]
    fast = c.slab is slab
    count = len(c.freelist) if fast else len(slab.freelist)
    return [(slab_step, "free_fastpath" if fast else "free_slowpath", slab, p, count)]


def page_notes(m: Machine) -> list[tuple[Any, ...]]:
    """What the page floor did in the last call, as its notes; empty if it was not asked."""
    for note in _notes(m):
        if note and isinstance(note[0], tuple):
            return list(note)
    return []


def _step(event: LabSlab) -> Step:
    function, say, why = WORDS[event.what]
    count, slabs = _n(event.count, "object"), _n(event.count, "slab")
    text = say.format(pfn=event.pfn, count=count, left=_n(event.count - 1, "object"), slabs=slabs)
    if event.what == "put_cpu_partial":
        text = say.format(pfn=event.pfn, count=event.count)
    return Step("slub", function, FILE, text, why, None, gives="1 object" if event.what == "cpu_freelist" else "",
                events=(event,))  # fmt: skip


def explain_slab(m: Machine, narrate: Any) -> Story:
    """The story of the last call; ``narrate`` tells the page floor's part."""
    s, p, size, gfp, *_ = m.last_plan
    steps: list[Step] = []
    if size >= 0:
        ours = s.flags & SLAB_KMALLOC
        if ours:
            say = f"{size} bytes: the class above is {s.object_size}, cache {s.name}"
            why = f"{s.object_size - size} bytes will not be used" if size < s.object_size else "it fits exactly"
            steps.append(Step("kmalloc", "kmalloc_slab", "mm/slab_common.c", say, why, None))
        call = f"kmalloc({size}, " if ours else f"kmem_cache_alloc({s.name}, "
        head = f"{call}{show_gfp_flags(gfp) or '0'}) = {p or 'NULL'}"
    else:
        head = {-1: f"free of {p} to {s.name}", -2: f"kmem_cache_shrink({s.name})"}.get(
            size, f"kmem_cache_destroy({s.name})"
        )
    for note in _notes(m):
        if note and note[0] is slab_step:
            steps.append(_step(slab_step(*note[1:])))
        elif note and isinstance(note[0], tuple):
            steps.extend(narrate(expand(note)).steps)
    last = [step for step in steps if step.floor == "slub"]
    told = f": {last[-1].say}" if last else ": no memory for a new slab" if size >= 0 and not p else ""
    return Story(head + told, tuple(steps), m.note)
