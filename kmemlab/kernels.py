"""The kernels the lab knows, as data: word size, zones, where the linear map starts, what /proc prints.

Kernel: arch/x86/include/asm/page_64_types.h, arch/x86/include/asm/page_32_types.h, include/linux/mmzone.h.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KERNELS", "LINUX_6_1", "LINUX_6_1_I386", "KernelProfile"]


class KernelProfile(NamedTuple):
    """One kernel build. ``zone_ends`` are the pfns at which its zones end (None: no bound)."""

    name: str
    release: str
    zone_names: tuple[str, ...]
    zone_ends: tuple[int | None, ...]
    highmem: bool
    nofragment: bool  # ALLOC_NOFRAGMENT exists only where a DMA32 zone does
    page_offset: int
    lowmem_reserve_ratio: tuple[int, ...]


LINUX_6_1 = KernelProfile(
    name="linux-6.1",
    release="6.1.0-56-amd64 #1  Debian 6.1.192-2",
    zone_names=("DMA", "DMA32", "Normal", "Movable", "Device"),
    zone_ends=(1 << 12, 1 << 20, None, None, None),
    highmem=False,
    nofragment=True,
    page_offset=0xFFFF888000000000,
    lowmem_reserve_ratio=(256, 256, 32, 0, 0),
)
LINUX_6_1_I386 = KernelProfile(
    name="linux-6.1-i386",
    release="6.1.0-50-686-pae #1  Debian 6.1.176-1",
    zone_names=("DMA", "Normal", "HighMem", "Movable"),
    zone_ends=(1 << 12, 0x38000, None, None),
    highmem=True,
    nofragment=False,
    page_offset=0xC0000000,
    lowmem_reserve_ratio=(256, 32, 0, 0),
)
KERNELS = {profile.name: profile for profile in (LINUX_6_1, LINUX_6_1_I386)}
