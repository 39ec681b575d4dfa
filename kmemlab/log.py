"""The kernel log of a machine: what it says, and the marks that wrong calls leave."""

from __future__ import annotations

from typing import Any

from kmemlab import dmesg
from kmemlab.events import LabMisuse
from kmemlab.mmzone import Page
from kmemlab.show_mem import show_mem

__all__ = ["KernelLog"]

TAINT_LETTERS = "FSRMBUDAWCIOELKXTN"  # after the first, G or P; Kernel: taint_flags, kernel/panic.c


class KernelLog:
    """The part of a ``Machine`` that talks. Kernel: kernel/printk, kernel/panic.c."""

    __slots__ = ("_log", "_warned", "taints")

    _log: list[str]
    _warned: set[str]
    taints: set[str]  # letters: B after a report of bad memory

    def printk(self, text: str) -> None:
        """Add to the kernel log."""
        self._log.append(text)

    def dmesg(self) -> str:
        """The kernel log so far."""
        return "\n".join(self._log)

    def warn_once(self, what: str) -> bool:
        """True the first time: WARN_ON_ONCE."""
        first = what not in self._warned
        self._warned.add(what)
        return first

    def warn(self: Any, place: str, *, cut: bool = True) -> None:
        """A WARNING in the log, at ``place`` (file:line function); ``cut``: with the line that begins it."""
        self.printk(dmesg.warning(self, place, cut=cut))
        self.taints.add("W")

    def warn_alloc(self: Any, gfp: int, order: int) -> None:
        """The report of a failed request, once in ten seconds. Kernel: warn_alloc, mm/page_alloc.c."""
        if not gfp & 0x2000 and self.once_in(10_000, "page allocation failure"):
            self.printk(dmesg.page_allocation_failure(self, gfp, order))

    def mem_info(self: Any, highest_zoneidx: int) -> list[str]:
        """The lines of a memory report. Kernel: show_mem, lib/show_mem.c."""
        return show_mem(self, highest_zoneidx)

    def bad_page(self: Any, page: Page, why: str) -> None:
        """``BUG: Bad page state``. Kernel: bad_page, mm/page_alloc.c."""
        self.printk(dmesg.bad_page(self, page, why))

    def bug(self: Any, text: str) -> str:
        """Log the report of a BUG and return it."""
        report = dmesg.bug(self, text)
        self.printk(report)
        return report

    def oops(self: Any, text: str, *, cut: bool = False) -> str:
        """Log the report with which the kernel stops, and return it."""
        report = "\n".join([*([dmesg.CUT] if cut else []), text, self.cpu_line()])
        self.printk(report)
        return report

    def cpu_line(self: Any) -> str:
        """The line that says on which CPU, in which task and kernel it happened."""
        return dmesg.cpu_line(self)

    def dump_stack(self: Any) -> list[str]:
        """CPU line and call trace, of which the model knows the caller. Kernel: dump_stack, lib/dump_stack.c."""
        return [self.cpu_line(), "Call Trace:", " <TASK>", f" {self.call_site}", " </TASK>"]

    def print_tainted(self) -> str:
        """Kernel: print_tainted, kernel/panic.c."""
        if not self.taints:
            return "Not tainted"
        return "Tainted: G" + "".join(letter if letter in self.taints else " " for letter in TAINT_LETTERS)

    def vm_bug_on_page(self: Any, page: Page, condition: str) -> str:
        """Log what a kernel with DEBUG_VM says before it stops, and return it."""
        report = dmesg.vm_bug_on_page(self, page, condition)
        self.printk(report)
        return report

    def misuse(self: Any, pfn: int, order: int, text: str) -> None:
        """Note that the caller broke a rule; from now on every free is looked at closely."""
        self.trail.append((LabMisuse, pfn, order, text))
        self.tainted = self.careful = True
        for zone in self.zones:
            zone.tainted = True

    def note_lost(self: Any, pfn: int, known: int, order: int) -> None:
        """A block of order ``known`` was freed as ``order``: the rest has no owner and is on no list."""
        self.misuse(pfn, order, f"handed out with order {known}, freed with order {order}: the rest is lost")
        self.lost.append((pfn + (1 << order), (1 << known) - (1 << order)))

    def note_lost_block(self: Any, pfn: int) -> None:
        """A block whose free was refused: its first page has no owner any more."""
        self.lost.append((pfn, 1 << max(0, self.memmap[pfn].order)))
