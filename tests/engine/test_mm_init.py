"""Boot: where zones lie, and the formulas with the numbers of kernel-facts 2.3."""

from __future__ import annotations

import pytest

from kmemlab import Machine
from kmemlab.mm_init import (
    calculate_normal_threshold,
    parse_cmdline,
    parse_memory,
    ram_ranges,
    setup_per_zone_wmarks,
    zone_batchsize,
    zone_highsize,
)
from kmemlab.mmzone import Zone


def zones_of(**managed: int) -> list[Zone]:
    return [Zone(name, i, 0, pages, pages, pages) for i, (name, pages) in enumerate(managed.items())]


@pytest.mark.parametrize(
    ("min_free_kbytes", "managed", "marks"),
    [
        (3831, {"DMA": 4096, "Normal": 225280, "HighMem": 32768}, [(17, 21, 25), (939, 1173, 1407), (32, 66, 100)]),
        (1023, {"DMA": 4095, "DMA32": 12288}, [(63, 78, 93), (191, 238, 285)]),
        (2896, {"DMA": 4095, "DMA32": 126976}, [(22, 27, 32), (701, 876, 1051)]),
        (8191, {"DMA": 4095, "DMA32": 782336, "Normal": 262144}, [(7, 11, 15), (1527, 2309, 3091), (511, 773, 1035)]),
        (67584, {"DMA": 4095, "DMA32": 782336, "Normal": 262144},
         [(65, 81, 97), (12606, 15757, 18908), (4224, 5280, 6336)]),
        (725, {"Normal": 8716}, [(181, 226, 271)]),
        (4018, {"Normal": 257000}, [(1004, 1261, 1518)]),
    ],
)  # fmt: skip
def test_watermarks_by_the_formula(min_free_kbytes: int, managed: dict[str, int], marks: list) -> None:
    """The goldens of the facts, HighMem's clamp and the 0.1 % term included; the boost is dropped."""
    zones = zones_of(**managed)
    zones[0].watermark_boost = 512
    setup_per_zone_wmarks(zones, min_free_kbytes)
    assert [tuple(zone.wmark) for zone in zones] == marks
    assert zones[0].watermark_boost == 0


def test_batch_sizes() -> None:
    """Facts 3.6: 1 in DMA, 63 from a gigabyte on."""
    managed = (3840, 16384, 32768, 65536, 131072, 262144, 1 << 28)
    assert [zone_batchsize(pages) for pages in managed] == [1, 3, 7, 15, 31, 63, 63]


def test_pcp_high() -> None:
    """The low mark shared by the CPUs, at least four batches; or the sysctl's fraction of the zone."""
    (zone,) = zones_of(DMA32=48848)
    zone.wmark = [411, 513, 615]
    assert zone_highsize(zone, 15, 1) == 513
    assert zone_highsize(zone, 15, 4) == 128
    assert zone_highsize(zone, 15, 64) == 60
    assert zone_highsize(zone, 15, 1, 8) == 6106


def test_counter_thresholds() -> None:
    """min(125, 2 * fls(CPUs) * (1 + fls(memory in 128 MiB)))."""
    for managed, cpus, threshold in [(3840, 1, 2), (48848, 1, 4), (3840, 4, 6), (1 << 30, 256, 125)]:
        assert calculate_normal_threshold(zones_of(Z=managed)[0], cpus) == threshold


def test_memory_sizes() -> None:
    """The kernel's own units; what is no size or no machine is told by its text."""
    assert (
        parse_memory("512M") == parse_memory("512MiB") == parse_memory("524288K") == parse_memory(512 << 20) == 131072
    )
    assert parse_memory("4T") == 1 << 30
    for wrong in ("", "12 parsecs", "M", "1M", "65T", "-5M", None, 1.5, "5e9"):
        with pytest.raises(ValueError, match="memory="):
            parse_memory(wrong)


def test_ram_lies_where_a_pc_has_it() -> None:
    """A hole below 1 MiB, and from 3 to 4 GiB once there is more."""
    assert ram_ranges(1 << 16) == [(1, 159), (256, (1 << 16) - 32)]
    assert ram_ranges(1 << 20) == [(1, 159), (256, 0xC0000 - 32), (1 << 20, (1 << 20) + 0x40000)]


def test_boot_options() -> None:
    """Known options are kept, an unknown one is an error that names it."""
    assert parse_cmdline("kernelcore=256M sysctl.vm.min_free_kbytes=99") == {
        "kernelcore": "256M", "sysctl.vm.min_free_kbytes": "99",
    }  # fmt: skip
    with pytest.raises(ValueError, match="cmdline: 'kernelcor' is not an option"):
        Machine("linux-6.1", memory="64M", cmdline="kernelcor=5M")
    assert Machine("linux-6.1", memory="64M", cmdline="sysctl.vm.min_free_kbytes=999").sysctl("min_free_kbytes") == 999
    core = Machine("linux-6.1", memory="512M", cmdline="kernelcore=256M")
    mov = Machine("linux-6.1", memory="512M", cmdline="movablecore=256M")
    assert [z.name for z in core.zonelist] == [z.name for z in mov.zonelist] == ["Movable", "DMA32", "DMA"]


def test_huge_pages_raise_min_free_kbytes() -> None:
    """khugepaged asks for 11 pageblocks a zone from 512 MiB on; without it the square root rules."""
    assert Machine("linux-6.1", memory="1G").sysctl("vm.min_free_kbytes") == 45056
    never = Machine("linux-6.1", memory="1G", cmdline="transparent_hugepage=never").sysctl("vm.min_free_kbytes")
    assert 3900 < never < 4096


@pytest.mark.parametrize("memory", ["8M", "17M", "100M", "3G", "4G", "1T"])
def test_every_size_boots_in_order(memory: str) -> None:
    """All memory is listed once, ascending, in the largest aligned blocks, all Movable."""
    m = Machine("linux-6.1", memory=memory)
    assert m.check().free == sum(zone.managed for zone in m.zones)
    for zone in m.zones:
        assert zone.managed == zone.free_pages()
        for order in range(10):
            pfns = list(zone.free_blocks(order, 1))
            assert pfns == sorted(pfns)
            assert not zone.nr_free_of(order, 0)
        assert sum(pages for _, pages in zone.spans) == zone.present


def test_the_32_bit_kernel_boots() -> None:
    """Zones of i386: Normal ends at 896 MiB, the rest is HighMem, and it has no address."""
    m = Machine("linux-6.1-i386", memory="1G")
    assert [zone.name for zone in m.zones] == ["DMA", "Normal", "HighMem"]
    page = m.alloc_pages(0x100CC2, 0)
    assert page.zone.name == "HighMem"
    assert m.page_address(page) == 0
    assert m.check()
