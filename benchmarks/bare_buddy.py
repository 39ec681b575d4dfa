"""The baseline: a buddy allocator with a set of free blocks per order and nothing else.

No zones, no migratetypes, no watermarks, no per-CPU lists, no checks. It shows what the rules of a kernel cost.
"""

from __future__ import annotations

__all__ = ["BareBuddy"]


class BareBuddy:
    """``2**pages_log2`` pages; ``alloc`` returns the first page of a block or None."""

    def __init__(self, pages_log2: int, max_order: int = 11) -> None:
        self.top = max_order - 1
        self.free: list[set[int]] = [set() for _ in range(max_order)]
        self.free[self.top].update(range(0, 1 << pages_log2, 1 << self.top))

    def alloc(self, order: int) -> int | None:
        """Take a block, splitting a larger one if need be."""
        free = self.free
        for high in range(order, self.top + 1):
            if free[high]:
                page = free[high].pop()
                while high > order:
                    high -= 1
                    free[high].add(page + (1 << high))
                return page
        return None

    def release(self, page: int, order: int) -> None:
        """Give a block back and merge it with its free buddies."""
        free, top = self.free, self.top
        while order < top:
            buddy = page ^ 1 << order
            if buddy not in free[order]:
                break
            free[order].remove(buddy)
            page &= buddy
            order += 1
        free[order].add(page)
