"""The ladder of ``kmalloc``'s sizes, kernel by kernel: what is given for what is asked.

Kernel: include/linux/slab.h (kmalloc_index), mm/slab_common.c (kmalloc_info, kmalloc_size_roundup);
in 2.6.11 include/linux/kmalloc_sizes.h and mm/slab.c.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ["LADDERS", "SizeClasses", "kmalloc_type_of"]

PAGE_SIZE = 4096


@dataclass(frozen=True, slots=True)
class SizeClasses:
    """One kernel's sizes, in bytes: ``classes`` come from slab caches, above them whole pages up to ``largest``.

    ``zero`` is what a request of 0 bytes is given (0: ZERO_SIZE_PTR, which may not be touched).
    """

    kernel: str
    classes: tuple[int, ...]
    largest: int
    zero: int
    prefixes: tuple[tuple[str, str], ...]  # family -> the front of its caches' names

    def given(self, size: int) -> int | None:
        """Bytes given for ``size`` bytes asked, None for NULL.

        >>> [LADDERS["linux-6.1"].given(n) for n in (1, 65, 100, 4160, 8193, 4194305)]
        [8, 96, 128, 8192, 16384, None]
        """
        if size <= 0:
            return self.zero if size == 0 else None
        if size > self.largest:
            return None
        if size <= self.classes[-1]:
            return self.classes[bisect_left(self.classes, size)]
        return PAGE_SIZE << (size - 1 >> 12).bit_length()

    def cache_name(self, size: int, family: str = "normal") -> str | None:
        """The slab cache that serves ``size`` bytes, None where pages or nothing do."""
        given = self.given(size)
        if not given or given > self.classes[-1]:
            return None
        front = dict(self.prefixes)[family]
        if self.kernel == "linux-2.6.11":
            return f"size-{given}{front}"
        return f"{front}{given >> 10}k" if given >= 1024 else f"{front}{given}"


LADDERS = {
    "linux-6.1": SizeClasses(
        "linux-6.1",
        (8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192),
        4 << 20,
        0,
        (("normal", "kmalloc-"), ("cg", "kmalloc-cg-"), ("rcl", "kmalloc-rcl-"), ("dma", "dma-kmalloc-")),
    ),
    # A machine with 64-byte cache lines: size-96 exists only where they are shorter.
    "linux-2.6.11": SizeClasses(
        "linux-2.6.11",
        (32, 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
        131072,
        32,
        (("normal", ""), ("dma", "(DMA)")),
    ),
}


def kmalloc_type_of(gfp: int) -> str:
    """The family a mask asks for: DMA before RECLAIMABLE before ACCOUNT. Kernel: kmalloc_type, include/linux/slab.h.

    >>> kmalloc_type_of(0x400cc0), kmalloc_type_of(0xcc1)
    ('cg', 'dma')
    """
    if not gfp & 0x400011:
        return "normal"
    return "dma" if gfp & 0x1 else "rcl" if gfp & 0x10 else "cg"
