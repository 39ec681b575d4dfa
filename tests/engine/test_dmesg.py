"""The kernel log: the model's reports beside recorded ones (more of them: tests/kernel/test_misuse.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_NOWAIT, Machine
from kmemlab.dmesg import LETTERS, page_allocation_failure, show_free_areas, vm_bug_on_page

REPORTS = Path(__file__).resolve().parent.parent / "kernel" / "recordings" / "dmesg"
# Counters of subsystems the model does not hold.
NOT_OURS = (
    "active_anon inactive_anon active_file inactive_file unevictable writepending mlocked bounce"
).split()  # fmt: skip


def recorded(name: str) -> list[str]:
    lines = [re.sub(r"^\[ *[\d.]+\] ", "", line) for line in (REPORTS / name).read_text().splitlines()]
    return lines[next(i for i, line in enumerate(lines) if "page allocation failure" in line) :]


def machine_of(lines: list[str]) -> Machine:
    """A machine with the numbers of a recorded report."""
    m = Machine("linux-6.1", memory="128M")
    zones = {zone.name: zone for zone in m.zones}
    for line in lines:
        if found := re.match(r"Node 0 (\w+) free:", line):
            zone, kb = zones[found[1]], {k: int(v) // 4 for k, v in re.findall(r"(\w+):(\d+)k?K?B", line)}
            zone.watermark_boost, zone.nr_free_pages = kb["boost"], kb["free"]
            zone.wmark = [kb[name] - kb["boost"] for name in ("min", "low", "high")]
            zone.present, zone.managed = kb["present"], kb["managed"]
            zone.pcp.count, zone.nr_reserved_highatomic = kb["free_pcp"], kb["reserved_highatomic"]
        elif found := re.match(r"lowmem_reserve\[\]: (.*)", line):
            zone.lowmem_reserve = list(map(int, found[1].split()))
        elif found := re.match(r"Node 0 (\w+): (.*) = ", line):
            zone = zones[found[1]]
            for row in (*zone.free_area, *zone.free_tail):
                for area in row:
                    area.clear()
            for order, text in enumerate(re.findall(r"\d+\*\d+kB(?: \(\w+\))?", found[2])):
                count, letters = int(text.split("*")[0]), (re.findall(r"\((\w+)\)", text) or [""])[0]
                for i, letter in enumerate(letters):
                    blocks = count - len(letters) + 1 if i == 0 else 1
                    zone.free_area[order][LETTERS.index(letter)].update(dict.fromkeys(range(blocks)))
    return m


@pytest.mark.parametrize(("name", "order"), [("order0_atomic.txt", 0), ("order10_atomic.txt", 10)])
def test_the_report_of_a_failure_is_the_recorded_one(name: str, order: int) -> None:
    """Every line the model prints stands in the recorded report, in that order, but for what it does not hold."""
    real = recorded(name)
    ours = page_allocation_failure(machine_of(real), GFP_ATOMIC, order).splitlines()
    rest = iter(re.sub(rf" ({'|'.join(NOT_OURS)}):\d+kB", "", line) for line in real)
    for line in ours:
        if line.startswith("CPU:"):
            continue
        line = line.replace("python: page", "insmod: page")
        assert any(line == each for each in rest), line
    assert len(ours) > 9


def test_a_report_tells_only_zones_the_request_may_use() -> None:
    """A DMA request's report is about DMA."""
    m = Machine("linux-6.1", memory="5G")
    assert any("Node 0 Normal free:" in line for line in show_free_areas(m, 2))
    assert not any("Node 0 DMA32" in line or "Node 0 Normal" in line for line in show_free_areas(m, 0))


def test_counts_add_up() -> None:
    """The block line's sum is the zone's free memory."""
    m = Machine("linux-6.1", memory="64M")
    for order in (0, 3, 5):
        m.alloc_pages(GFP_ATOMIC, order)
    for zone, line in zip(m.zones, [x for x in show_free_areas(m, 3) if re.match(r"Node 0 \w+: ", x)], strict=True):
        assert line.endswith(f"= {zone.free_pages() * 4}kB")
        parts = [int(n) * int(kb) for n, kb in re.findall(r"(\d+)\*(\d+)kB", line)]
        assert sum(parts) == zone.free_pages() * 4


def test_the_log_grows_and_starts_empty() -> None:
    """dmesg is what was printed, in order; a silent machine has an empty one."""
    m = Machine("linux-6.1", memory="16M")
    assert m.dmesg() == ""
    m.printk("one")
    m.printk("two")
    assert m.dmesg() == "one\ntwo"
    while m.alloc_pages(GFP_NOWAIT | __GFP_NOWARN, 0):
        pass
    m.alloc_pages(GFP_NOWAIT, 0)
    assert m.dmesg().splitlines()[2].startswith("python: page allocation failure: order:0, mode:0x800(GFP_NOWAIT)")


def test_flags_of_a_dumped_page_carry_its_zone() -> None:
    """The word after flags: is the one the kernel printed for zone 1, and differs by zone."""
    m = Machine("linux-6.1", memory="64M")
    dumped = {zone.name: vm_bug_on_page(m, m.memmap[zone.start_pfn + 400], "x") for zone in m.zones}
    assert "flags: 0xfffffc0000000(node=0|zone=1|lastcpupid=0x1fffff)" in dumped["DMA32"]
    assert "flags: 0x7ffffc0000000(node=0|zone=0|lastcpupid=0x1fffff)" in dumped["DMA"]
