"""What a mask allows and forbids: in plain words, for two kernels.

Kernel: include/linux/gfp_types.h and mm/page_alloc.c of 6.1; include/linux/gfp.h and mm/page_alloc.c of 2.6.11.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kmemlab.gfp import FLAGS, gfp_zone, show_gfp_flags

__all__ = ["GROUPS", "MaskFacts", "mask_facts", "translate"]

# Bits by purpose. Kernel: the comments of include/linux/gfp_types.h follow the same order.
GROUPS = {
    "linux-6.1": {
        "may wait and reclaim": ("DIRECT_RECLAIM", "KSWAPD_RECLAIM", "IO", "FS"),
        "reserves": ("HIGH", "ATOMIC", "MEMALLOC", "NOMEMALLOC"),
        "how hard to try": ("NORETRY", "RETRY_MAYFAIL", "NOFAIL", "NOWARN"),
        "zone and mobility": ("DMA", "HIGHMEM", "DMA32", "MOVABLE", "RECLAIMABLE"),
        "the memory": ("ZERO", "COMP", "ACCOUNT", "HARDWALL", "THISNODE", "WRITE"),
    },
    "linux-2.6.11": {
        "may wait and reclaim": ("WAIT", "IO", "FS"),
        "reserves": ("HIGH",),
        "how hard to try": ("NORETRY", "REPEAT", "NOFAIL", "NOWARN"),
        "zone": ("DMA", "HIGHMEM"),
        "the memory": ("ZERO", "COMP", "COLD", "NO_GROW"),
    },
}
# What was called otherwise. KSWAPD_RECLAIM has no counterpart: 2.6.11 woke kswapd for every request.
RENAMED = {"WAIT": "DIRECT_RECLAIM", "REPEAT": "RETRY_MAYFAIL"}
ZONES = {"linux-6.1": ("DMA", "DMA32", "Normal", "Movable"), "linux-2.6.11": ("DMA", "Normal", "HighMem")}


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """The answers to what a learner asks of a mask."""

    mask: int
    kernel: str
    text: str
    headline: str
    may: tuple[tuple[str, str], ...]
    where: tuple[tuple[str, bool], ...]
    complaint: str
    zones: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def twin(self) -> str:
        """All of it as text."""
        may = ", ".join(f"{what}: {answer}" for what, answer in self.may)
        yes = ", ".join(name for name, allowed in self.where if allowed)
        no = ", ".join(name for name, allowed in self.where if not allowed) or "nowhere"
        lines = [self.headline, f"{may}.", f"Allowed: {yes}. Forbidden: {no}. Zones: {', '.join(self.zones)}."]
        return "\n".join([*lines, *self.notes])


def _has(mask: int, kernel: str, *names: str) -> bool:
    return all(mask & FLAGS[kernel][f"__GFP_{name}"] for name in names)


def mask_facts(mask: int, kernel: str = "linux-6.1", zones: Iterable[str] | None = None) -> MaskFacts:
    """What a mask means in a kernel; ``zones`` are those the machine has.

    Errors: ValueError for a kernel without a table.

    >>> mask_facts(0xdc0).headline
    'GFP_KERNEL|__GFP_ZERO = 0xdc0: may sleep, so not while a spinlock is held'
    """
    text = show_gfp_flags(mask, kernel)
    old = kernel == "linux-2.6.11"
    sleeps = _has(mask, kernel, "WAIT" if old else "DIRECT_RECLAIM")
    where = tuple(
        (name, sleeps <= may)
        for name, may in (
            ("process, nothing held", True), ("process, a mutex held", True), ("a spinlock held", False),
            ("softirq, timer, tasklet", False), ("hard interrupt", False),
        )
    )  # fmt: skip
    complaint = ""
    if sleeps:
        complaint = (
            "BUG: scheduling while atomic, once it really has to sleep; with DEBUG_ATOMIC_SLEEP at once: "
            "BUG: sleeping function called from invalid context"
        )
    verdict = "may sleep, so not while a spinlock is held" if sleeps else "never sleeps, so it may fail at any time"
    return MaskFacts(
        mask, kernel, text, f"{text or 'no bits'} = {mask:#x}: {verdict}", _may(mask, kernel, sleeps), where, complaint,
        _zones(mask, kernel, zones), tuple(_notes(mask, kernel, sleeps)),
    )  # fmt: skip


def _may(mask: int, kernel: str, sleeps: bool) -> tuple[tuple[str, str], ...]:
    old = kernel == "linux-2.6.11"
    io, fs = sleeps and _has(mask, kernel, "IO"), sleeps and _has(mask, kernel, "FS")
    kswapd = old or _has(mask, kernel, "KSWAPD_RECLAIM")
    mayfail = _has(mask, kernel, "REPEAT" if old else "RETRY_MAYFAIL")
    noretry, nofail = _has(mask, kernel, "NORETRY"), _has(mask, kernel, "NOFAIL")
    spared = not old and (mayfail or bool(mask & FLAGS[kernel]["__GFP_THISNODE"]) or mask & 0x1)  # zone DMA: in vain
    kills = fs and not noretry and not spared
    if not sleeps:
        null = "at any time"
    elif nofail:
        null = "never"
    elif noretry:
        null = "after one round"
    elif spared:
        null = "after all rounds"
    else:
        null = "almost never" if fs else "never: it loops"
    rows = (
        ("the caller sleeps", sleeps), ("reclaim starts I/O", io), ("reclaim calls a filesystem", fs),
        ("kswapd is woken", kswapd), ("reserves are used", _reserves(mask, kernel, sleeps)),
        ("the OOM killer kills", kills), ("NULL for one page", null),
    )  # fmt: skip
    return tuple((what, ("yes" if a else "no") if isinstance(a, bool) else a) for what, a in rows)


def _reserves(mask: int, kernel: str, sleeps: bool) -> bool | str:
    if kernel == "linux-6.1":
        if _has(mask, kernel, "NOMEMALLOC"):
            return "down to 1/2 of min" if _has(mask, kernel, "HIGH") else False
        if _has(mask, kernel, "MEMALLOC"):
            return "all of them"
    if not _has(mask, kernel, "HIGH"):
        return "down to 3/4 of min" if not sleeps and kernel == "linux-2.6.11" else False
    return "down to 1/2 of min" if sleeps else "down to 3/8 of min"


def _zones(mask: int, kernel: str, have: Iterable[str] | None) -> tuple[str, ...]:
    """Zones the request may use, the first choice first; without a machine, those every PC has."""
    names = ZONES[kernel]
    highest = (0 if mask & 1 else 2 if mask & 2 else 1) if kernel == "linux-2.6.11" else gfp_zone(mask)
    present = set(names[:3] if have is None else have)
    return tuple(name for name in reversed(names[: highest + 1]) if name in present)


def _notes(mask: int, kernel: str, sleeps: bool) -> list[str]:
    """What is odd about a mask, and what the kernel does about it."""
    notes: list[str] = []
    if kernel == "linux-2.6.11":
        return notes
    zone_bits = [name for name in ("DMA", "HIGHMEM", "DMA32") if _has(mask, kernel, name)]
    if len(zone_bits) > 1:
        notes.append(f"{' + '.join(zone_bits)}: no such zone; Debian's kernel serves it from DMA, DEBUG_VM stops")
    if _has(mask, kernel, "MOVABLE", "RECLAIMABLE"):
        notes.append("MOVABLE + RECLAIMABLE: no such migratetype; order 0 works, order 3 oopses")
    notes.extend(
        f"{name} given to kmalloc: `Unexpected gfp`, and the bit is taken out"
        for name in ("HIGHMEM", "DMA32")
        if _has(mask, kernel, name)
    )
    if sleeps and _has(mask, kernel, "ATOMIC"):
        notes.append("ATOMIC + DIRECT_RECLAIM: a WARNING on the slow path, ATOMIC is dropped")
    if _has(mask, kernel, "NOFAIL") and not sleeps:
        notes.append("NOFAIL without DIRECT_RECLAIM: a WARNING, and it may fail all the same")
    if not sleeps and mask & 0xC0:
        notes.append("IO and FS mean nothing here: nobody reclaims")
    return notes


def translate(mask: int, kernel: str, to: str) -> tuple[int, tuple[str, ...]]:
    """The mask with the same names in another kernel, and the names that it does not have. A combination such as
    GFP_ATOMIC stays that combination, whatever bits it is made of there; 2.6.11 woke kswapd for every request."""
    got, lost = 0, []
    whole = show_gfp_flags(mask, kernel).split("|")[0]
    if whole.startswith("GFP_") and whole in FLAGS[to]:
        got, mask = int(FLAGS[to][whole]), mask & ~int(FLAGS[kernel][whole])
    renamed = RENAMED if to == "linux-6.1" else {new: old for old, new in RENAMED.items()}
    for name in (name for group in GROUPS[kernel].values() for name in group):
        if name == "KSWAPD_RECLAIM" or not mask & FLAGS[kernel][f"__GFP_{name}"]:
            continue
        bit = FLAGS[to].get(f"__GFP_{renamed.get(name, name)}")
        if bit is None:
            lost.append(f"__GFP_{name}")
        else:
            got |= int(bit)
    if to == "linux-6.1":
        got |= int(FLAGS[to]["__GFP_KSWAPD_RECLAIM"])
    return got, tuple(lost)
