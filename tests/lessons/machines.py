"""Machines as the lessons' notebooks leave them."""

from __future__ import annotations

from pathlib import Path

from kmemlab import __GFP_MEMALLOC, GFP_DMA, Machine

__all__ = ["CHECKS", "broken_yard"]

CHECKS = Path(__file__).resolve().parents[2] / "lessons" / "checks"


def broken_yard() -> Machine:
    """Zone DMA after the opening of lesson 00: every page taken, all but one in sixteen given back."""
    m = Machine.from_recording("256M-a-21")
    pages = []
    while page := m.alloc_pages(GFP_DMA | __GFP_MEMALLOC, 0):
        pages.append(page)
    for page in pages:
        if page.pfn % 16 != 8:
            m.__free_pages(page, 0)
    return m
