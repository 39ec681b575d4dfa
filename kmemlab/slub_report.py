"""The reports of slub_debug, in the kernel's words. Kernel: mm/slub.c, the functions of the same names.

The model has no stack: a call trace is the one name that ``m.caller`` gave. "age" counts the machine's calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kmemlab.slub_bytes import get_freepointer
from kmemlab.slub_def import SLAB_KMALLOC, SLAB_RED_ZONE, SLAB_STORE_USER, TRACK, KmemCache, Slab

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = [
    "check_bytes_and_report",
    "hex_dump",
    "list_slab_objects",
    "object_err",
    "print_tracking",
    "slab_err",
    "slab_fix",
    "taint_bad_page",
]

RULE = 77


def taint_bad_page(m: Machine) -> None:
    """The kernel is marked as one that met bad memory. Kernel: add_taint(TAINT_BAD_PAGE)."""
    if "B" not in m.taints:
        m.taints.add("B")
        m.printk("Disabling lock debugging due to kernel taint")


def slab_fix(m: Machine, s: KmemCache, text: str) -> None:
    """What the kernel did about it."""
    m.slab_errors += 1
    m.printk(f"FIX {s.name}: {text}")


def hex_dump(label: str, addr: int, data: bytes) -> list[str]:
    """Bytes as ``print_hex_dump`` prints them, 16 a line with their characters."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        lines.append(f"{label:<9s}{addr + at:016x}: {' '.join(f'{b:02x}' for b in row):<47s}  {text}")
    return lines


def _section(m: Machine, label: str, addr: int, n: int) -> list[str]:
    return hex_dump(label, addr, m.memory.read(addr, n)) if n > 0 else []


def _slab_bug(m: Machine, s: KmemCache, text: str) -> list[str]:
    head = f"BUG {s.name} ({m.print_tainted()}): {text}".split("\n")
    return ["=" * RULE, *head, "-" * RULE, ""]


def _slab_info(m: Machine, slab: Slab) -> str:
    flags = 0x1FFFFF << 30 | slab.page.zone.idx << 51 | 0x200 | (0x10000 if slab.order else 0)
    names = f"slab|{'head|' if slab.order else ''}node=0|zone={slab.page.zone.idx}|lastcpupid=0x1fffff"
    fp = slab.fp or (slab.freelist[-1] if slab.freelist else 0)
    struct = 0xFFFFEA0000000000 + slab.pfn * 64
    return f"Slab {m.ptr(struct)} objects={slab.objects} used={slab.inuse} fp={m.ptr(fp)} flags={flags:#x}({names})"


def print_tracking(m: Machine, s: KmemCache, slab: Slab, p: int) -> list[str]:
    """Who took the object last, and who gave it back last, if slub_debug=U kept it."""
    lines = []
    for what, word in (("alloc", "Allocated"), ("free", "Freed")):
        track = slab.tracks.get((int(p), what))
        if s.flags & SLAB_STORE_USER and track:
            site, when, cpu = track
            lines += [f"{word} in {site} age={m.calls - when} cpu={cpu} pid=1", f" {site}"]
    return lines


def _trailer(m: Machine, s: KmemCache, slab: Slab, p: int) -> list[str]:
    lines = print_tracking(m, s, slab, p)
    fp = m.ptr(get_freepointer(m, s, p)) if s.debug else m.ptr(0)
    lines += [_slab_info(m, slab), f"Object {m.ptr(p)} @offset={p - slab.address} fp={fp}", ""]
    if s.flags & SLAB_RED_ZONE:
        lines += _section(m, "Redzone", p - s.red_left_pad, s.red_left_pad)
    elif p > slab.address + 16:
        lines += _section(m, "Bytes b4", p - 16, 16)
    lines += _section(m, "Object", p, min(s.object_size, 4096))
    if s.flags & SLAB_RED_ZONE:
        lines += _section(m, "Redzone", p + s.object_size, s.inuse - s.object_size)
    off = s.info_end
    if s.flags & SLAB_STORE_USER:
        off += 2 * TRACK + (4 if s.flags & SLAB_KMALLOC else 0)
    return lines + _section(m, "Padding", p + off, s.size - s.red_left_pad - off) + m.dump_stack()


def object_err(m: Machine, s: KmemCache, slab: Slab, p: int, reason: str) -> None:
    """A report about one object."""
    m.slab_errors += 1
    lines = _slab_bug(m, s, reason)
    if slab.index_of(p) < 0:
        lines += [_slab_info(m, slab), f"Invalid pointer {m.ptr(p)}"]
    else:
        lines += _trailer(m, s, slab, p)
    m.printk("\n".join(lines))
    taint_bad_page(m)


def slab_err(m: Machine, s: KmemCache, slab: Slab, text: str, sections: Sequence[tuple[str, int, int]] = ()) -> None:
    """A report about a slab."""
    m.slab_errors += 1
    lines = [*_slab_bug(m, s, text), _slab_info(m, slab), *m.dump_stack()]
    for section in sections:
        lines += _section(m, *section)
    m.printk("\n".join(lines))
    taint_bad_page(m)


def check_bytes_and_report(
    m: Machine, s: KmemCache, slab: Slab, p: int, what: str, start: int, value: int, n: int
) -> bool:
    """Whether ``n`` bytes all have ``value``; if not they are reported and restored."""
    found = m.memory.read(start, n)
    if found.count(value) == n:
        return True
    wrong = [i for i, byte in enumerate(found) if byte != value]
    first, last = start + wrong[0], start + wrong[-1]
    m.slab_errors += 1
    where = f"{m.ptr(first)}-{m.ptr(last)} @offset={first - slab.address}"
    lines = _slab_bug(m, s, f"{what} overwritten")
    lines.append(f"{where}. First byte {found[wrong[0]]:#x} instead of {value:#x}")
    m.printk("\n".join(lines + _trailer(m, s, slab, p)))
    taint_bad_page(m)
    slab_fix(m, s, f"Restoring {what} {m.ptr(first)}-{m.ptr(last)}={value:#x}")
    m.memory.fill(first, value, last - first + 1)
    return False


def list_slab_objects(m: Machine, s: KmemCache, slab: Slab, free: set[int]) -> None:
    """The objects still in use when a cache is destroyed. Kernel: list_slab_objects."""
    slab_err(m, s, slab, f"Objects remaining in {s.name} on __kmem_cache_shutdown()")
    for p in map(slab.object_at, range(slab.objects)):
        if p not in free:
            m.printk("\n".join([f"Object {m.ptr(p)} @offset={p - slab.address}", *print_tracking(m, s, slab, p)]))
