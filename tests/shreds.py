"""Memory in shreds: what is free are single pages."""

from __future__ import annotations

from kmemlab import Machine

__all__ = ["shred"]


def shred(m: Machine, *, keep: int = 0) -> Machine:
    """Take every page of ``m`` and give every second one back, but for the last ``keep`` taken; returns ``m``."""
    pages = []
    while page := m.alloc_pages(0x22000, 0):  # MEMALLOC: to the last page
        pages.append(page)
    for page in pages[: len(pages) - keep]:
        if page.pfn % 2:
            m.__free_pages(page, 0)
    m.drain_all_pages()
    return m
