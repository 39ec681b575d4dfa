"""The kernel log: the reports of the page allocator, in the kernel's words.

Kernel: mm/page_alloc.c (warn_alloc, bad_page), kernel/panic.c, mm/debug.c (dump_page); the memory report is in
``show_mem``. The model has no stack, no registers and no modules, so those lines are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kmemlab.gfp import gfp_zone, show_gfp_flags
from kmemlab.mmzone import Page
from kmemlab.show_mem import show_mem

if TYPE_CHECKING:
    from kmemlab.machine import Machine

__all__ = ["bad_page", "bug", "cpu_line", "page_allocation_failure", "vm_bug_on_page", "warning"]

CUT = "------------[ cut here ]------------"


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
        *show_mem(m, gfp_zone(gfp, highmem=m.kernel.highmem)),
    ]
    return "\n".join(lines)
