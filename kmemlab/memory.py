"""The bytes of the simulated RAM: only pages that somebody wrote exist, the others are all zero.

Kernel: the linear map (arch/x86/include/asm/page_64.h): an address is ``page_offset + pfn * 4096 + offset``.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Memory"]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT


class Memory:
    """Bytes by linear-map address; ``first_write`` is called when the first page has come to life."""

    __slots__ = ("first_write", "page_offset", "pages")

    def __init__(self, page_offset: int, first_write: Callable[[], None] = lambda: None) -> None:
        self.page_offset = page_offset
        self.first_write = first_write
        self.pages: dict[int, bytearray] = {}

    def __contains__(self, addr: int) -> bool:
        """Whether the page at ``addr`` holds anything but zeros."""
        return addr - self.page_offset >> PAGE_SHIFT in self.pages

    def read(self, addr: int, n: int) -> bytes:
        """``n`` bytes from ``addr`` on."""
        pfn, start = divmod(addr - self.page_offset, PAGE_SIZE)
        page = self.pages.get(pfn)
        if start + n <= PAGE_SIZE:
            return bytes(n) if page is None else bytes(page[start : start + n])
        part = PAGE_SIZE - start
        return self.read(addr, part) + self.read(addr + part, n - part)

    def write(self, addr: int, data: bytes) -> None:
        """Put ``data`` at ``addr``."""
        done = 0
        while done < len(data):
            pfn, start = divmod(addr + done - self.page_offset, PAGE_SIZE)
            part = data[done : done + PAGE_SIZE - start]
            page = self.pages.get(pfn)
            if page is None:
                page = self.pages[pfn] = bytearray(PAGE_SIZE)
                if len(self.pages) == 1:
                    self.first_write()
            page[start : start + len(part)] = part
            done += len(part)

    def fill(self, addr: int, byte: int, n: int) -> None:
        """Set ``n`` bytes from ``addr`` on to ``byte``; zeros bring no page to life."""
        if byte:
            self.write(addr, bytes([byte]) * n)
            return
        while n > 0:
            pfn, start = divmod(addr - self.page_offset, PAGE_SIZE)
            part = min(n, PAGE_SIZE - start)
            page = self.pages.get(pfn)
            if page is not None:
                if part == PAGE_SIZE:
                    del self.pages[pfn]
                else:
                    page[start : start + part] = bytes(part)
            addr, n = addr + part, n - part

    def clear_pages(self, pfn: int, pages: int) -> None:
        """Make whole pages zero."""
        if len(self.pages) < pages:
            for each in [p for p in self.pages if pfn <= p < pfn + pages]:
                del self.pages[each]
        else:
            for each in range(pfn, pfn + pages):
                self.pages.pop(each, None)
