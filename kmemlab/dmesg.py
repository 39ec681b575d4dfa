"""The kernel log: the reports of the page allocator, in the kernel's words.

Kernel: mm/page_alloc.c (warn_alloc, bad_page, show_free_areas), kernel/panic.c, mm/debug.c (dump_page).
The model has no stack, no registers and no modules, so those lines are left out. Counters of subsystems it
does not hold (page cache, anonymous memory, slab) are left out of the memory report too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.gfp import gfp_zone, show_gfp_flags
from kmemlab.mmzone import MAX_ORDER, PAGE_SHIFT, Page, Zone

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["bad_page", "bug", "cpu_line", "page_allocation_failure", "show_free_areas", "vm_bug_on_page", "warning"]

CUT = "------------[ cut here ]------------"
LETTERS = "UMEHI"  # U M E(reclaimable) H(ighAtomic) I(solate)


def cpu_line(m: Machine) -> str:
    """Where it happened: CPU, task, taint, kernel. Kernel: dump_stack_print_info, lib/dump_stack.c."""
    return f"CPU: {m.cpu} PID: {m.context.pid} Comm: {m.context.comm} {m.print_tainted()} {m.kernel.release}"


def warning(m: Machine, place: str, *, cut: bool = True) -> str:
    """A WARN_ON_ONCE report for ``place`` ("file:line function+offset/length"); ``cut``: with its first line."""
    return "\n".join((
        *([CUT] if cut else []),
        f"WARNING: CPU: {m.cpu} PID: {m.context.pid} at {place}",
        cpu_line(m),
        "---[ end trace 0000000000000000 ]---",
    ))  # fmt: skip


def bug(m: Machine, text: str) -> str:
    """The report of a BUG that stops the kernel."""
    return "\n".join((CUT, text, "kernel BUG at lib/list_debug.c:30!", cpu_line(m)))


def _dump_page(page: Page, why: str) -> list[str]:
    zone = page.zone.idx
    return [
        f"page:(____ptrval____) refcount:{page.refcount} mapcount:0 mapping:{0:016x} index:0x0 pfn:{page.pfn:#x}",
        f"flags: {0x1FFFFF << 30 | zone << 51:#x}(node=0|zone={zone}|lastcpupid=0x1fffff)",
        f"page dumped because: {why}",
    ]


def vm_bug_on_page(m: Machine, page: Page, condition: str) -> str:
    """What a kernel built with DEBUG_VM says before it stops at ``condition``."""
    return "\n".join([
        *_dump_page(page, f"VM_BUG_ON_PAGE({condition})"), CUT, "kernel BUG at include/linux/mm.h:780!", cpu_line(m),
    ])  # fmt: skip


def bad_page(m: Machine, page: Page, why: str) -> str:
    """``BUG: Bad page state``: a page that is to be freed is not what a free page must be."""
    return "\n".join([
        f"BUG: Bad page state in process {m.context.comm}  pfn:{page.pfn:05x}", *_dump_page(page, why), cpu_line(m),
        "Disabling lock debugging due to kernel taint",
    ])  # fmt: skip


def page_allocation_failure(m: Machine, gfp: int, order: int) -> str:
    """The report of a request that failed, with the memory of the zones it could have used."""
    lines = [
        (
            f"{m.context.comm}: page allocation failure: order:{order}, mode:{gfp:#x}({show_gfp_flags(gfp)}), "
            "nodemask=(null),cpuset=/,mems_allowed=0"
        ),
        cpu_line(m),
        "Mem-Info:",
        *show_free_areas(m, gfp_zone(gfp, highmem=m.kernel.highmem)),
    ]
    return "\n".join(lines)


def _kb(pages: int) -> int:
    return pages << PAGE_SHIFT - 10


def show_free_areas(m: Machine, highest_zoneidx: int) -> list[str]:
    """The lines of a memory report the model can fill: each zone's numbers, then its free blocks by order."""
    zones = [zone for zone in m.zones if zone.idx <= highest_zoneidx]
    lines = []
    for zone in zones:
        boost = zone.watermark_boost
        marks = " ".join(f"{n}:{_kb(zone.wmark[i] + boost)}kB" for i, n in enumerate(("min", "low", "high")))
        lines.append(
            f"Node 0 {zone.name} free:{_kb(zone.nr_free_pages)}kB boost:{_kb(boost)}kB {marks} "
            f"reserved_highatomic:{_kb(zone.nr_reserved_highatomic)}KB present:{_kb(zone.present)}kB "
            f"managed:{_kb(zone.managed)}kB free_pcp:{_kb(sum(p.count for p in zone.pcps))}kB "
            f"local_pcp:{_kb(zone.pcp.count)}kB free_cma:0kB"
        )
        lines.append("lowmem_reserve[]: " + " ".join(map(str, zone.lowmem_reserve)))
    lines.extend(_blocks_line(zone) for zone in zones)
    lines.append(f"{sum(zone.present for zone in m.zones)} pages RAM")
    lines.append(f"{sum(z.present for z in m.zones if z.name in ('HighMem', 'Movable'))} pages HighMem/MovableOnly")
    lines.append(f"{sum(zone.present - zone.managed for zone in m.zones)} pages reserved")
    return lines


def _blocks_line(zone: Zone) -> str:
    parts, total = [], 0
    for order in range(MAX_ORDER):
        count = zone.nr_free(order)
        total += count << order
        kinds = "".join(
            letter
            for mt, letter in enumerate(LETTERS)
            if zone.free_area[order][mt] or (order == MAX_ORDER - 1 and mt == 1 and zone.run)
        )
        parts.append(f"{count}*{_kb(1 << order)}kB" + (f" ({kinds})" if count else ""))
    return f"Node 0 {zone.name}: {' '.join(parts)} = {_kb(total)}kB"
