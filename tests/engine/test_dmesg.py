"""The kernel log: the model's reports beside recorded ones (more of them: tests/kernel/test_misuse.py)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_NOWAIT, SLAB_RECLAIM_ACCOUNT, Machine
from kmemlab.dmesg import page_allocation_failure, vm_bug_on_page
from kmemlab.failure_reader import read_failure_reports
from kmemlab.oom_kill import dump_header
from kmemlab.show_mem import LETTERS, show_free_areas, show_mem
from kmemlab.workload import Process

REPORTS = Path(__file__).resolve().parent.parent / "kernel" / "recordings" / "dmesg"
# Names in reports of rows that /proc/zoneinfo calls otherwise.
ROWS = {
    "pagetables": "page_table_pages", "sec_pagetables": "sec_page_table_pages", "writepending": "zone_write_pending",
    "mlocked": "mlock",
}  # fmt: skip


def recorded(name: str) -> list[str]:
    lines = [re.sub(r"^\[ *[\d.]+\] ", "", line) for line in (REPORTS / name).read_text().splitlines()]
    first = next(i for i, line in enumerate(lines) if re.search(r"page allocation failure|invoked oom-killer", line))
    end = "oom-kill:" if "oom-killer" in lines[first] else "0 pages hwpoisoned"
    last = next(i for i, line in enumerate(lines) if line.startswith(end))
    return lines[first : last + 1]


def take_counters(m: Machine, line: str, zone: str = "") -> None:
    """What the model does not hold, as if it had come from /proc."""
    for name, value in re.findall(r"(\w+):(\d+)", line):
        row = ROWS.get(name, f"zone_{name}" if zone and name not in ("bounce", "free_cma") else name)
        m.carried[f"{zone}.nr_{row}" if zone else f"nr_{row}"] = int(value) // (4 if zone else 1)


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
            take_counters(m, line, zone.name)
        elif found := re.match(r"lowmem_reserve\[\]: (.*)", line):
            zone.lowmem_reserve = list(map(int, found[1].split()))
        elif found := re.match(r"Node 0 (\w+): (.*) = ", line):
            zone = zones[found[1]]
            zone.buddy.clear()
            for row in (*zone.free_area, *zone.free_tail):
                for area in row:
                    area.clear()
            for order, text in enumerate(re.findall(r"\d+\*\d+kB(?: \(\w+\))?", found[2])):
                count, letters = int(text.split("*")[0]), (re.findall(r"\((\w+)\)", text) or [""])[0]
                for i, letter in enumerate(letters):
                    blocks = count - len(letters) + 1 if i == 0 else 1
                    zone.free_area[order][LETTERS.index(letter)].update(dict.fromkeys(range(blocks)))
        elif re.match(r" ?\w+:\d+ \w+:\d+|  ?kernel_misc", line):
            take_counters(m, line)
        elif found := re.match(r"Node 0 active_anon.*kernel_stack:(\d+)kB.*unreclaimable\? (\w+)", line):
            m.carried["nr_kernel_stack"] = int(found[1])
            m.lru.failures = 16 if found[2] == "yes" else 0
        elif found := re.match(r"(\d+) total pagecache", line):
            m.carried["nr_file_pages"] = int(found[1])
    return m


def ours(lines: list[str]) -> list[str]:
    """Without the lines the model cannot have, and with the recorder's name."""
    end = lines.index("Mem-Info:")
    return [lines[0].replace("python", "insmod"), *lines[end:]]


@pytest.mark.parametrize(("name", "order"), [("order0_atomic.txt", 0), ("order10_atomic.txt", 10)])
def test_the_report_of_a_failure_is_the_recorded_one(name: str, order: int) -> None:
    """Line by line, but for the processor's state and the stack."""
    real = recorded(name)
    report = page_allocation_failure(machine_of(real), GFP_ATOMIC, order).splitlines()
    assert ours(report) == ours(real)
    assert len(ours(report)) == 1 + 1 + 8 + 1 + 2 * 2 + 2 + 1 + 4 + 4


def test_the_oom_report_is_the_recorded_one() -> None:
    """The same; the task's own line has the recorded form, its numbers are the model's."""
    real = recorded("oom.txt")[:-1]
    m = machine_of(real)
    m.context.comm = "hog"
    process = Process(m, "hog", 107, 0)
    m.processes.append(process)
    m.carried["nr_page_table_pages"] -= process.pgtables
    report = dump_header(m, 0x140DCA, 0)
    assert ours(report)[:-1] == ours(real)[:-1]
    fields = r"\[ +\d+\] +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ +\d+ hog"
    assert re.fullmatch(fields, report[-1])
    assert re.fullmatch(fields, real[-1])
    assert len(report[-1]) == len(real[-1])


def number(line: str, name: str) -> int:
    return int(re.search(rf"(?<!\w){re.escape(name)}:(\d+)", line)[1])


def test_the_counters_are_the_models_own() -> None:
    """Page cache, processes, dirty pages, slabs of both kinds, page tables, swap, the CPU's lists."""
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    before = len(m.slabs)
    m.read_file("clean", "3M")
    m.write_file("dirty", "2M")
    m.process("p", "5M")
    m.swapon("8M")
    m.start_writeback(list(m.lru.dirty)[:100])
    cache = m.kmem_cache_create("inodes", 2048, 0, SLAB_RECLAIM_ACCOUNT, None)
    for _ in range(9):
        m.kmem_cache_alloc(cache, 0xCC0)
    lines = show_mem(m, 3)
    head = "".join(lines[1:9])
    told = {name: number(head, name) for name in re.findall(r"(\w+):", head)}
    assert told["inactive_file"] == 1280
    assert told["inactive_anon"] == 1280
    assert (told["dirty"], told["writeback"]) == (412, 100)
    assert told["slab_reclaimable"] == cache.nr_slabs << cache.order > 0
    assert told["slab_unreclaimable"] == len(m.slabs) - told["slab_reclaimable"] >= before
    assert told["pagetables"] == m.processes[0].pgtables
    assert told["free"] == sum(zone.nr_free_pages for zone in m.zones)
    assert told["free_pcp"] == m.free_pcp()
    assert {told[name] for name in ("active_anon", "active_file", "mapped", "shmem", "bounce", "free_cma")} == {0}
    assert number(lines[9], "inactive_file") == 4 * 1280
    assert number(lines[9], "pagetables") == 4 * told["pagetables"]
    zones = [line for line in lines if re.match(r"Node 0 \w+ free:", line)]
    assert sum(number(line, "inactive_anon") for line in zones) == 4 * 1280
    assert sum(number(line, "writepending") for line in zones) == 4 * 512
    assert {"1280 total pagecache pages", "Free swap  = 8192kB", "Total swap = 8192kB"} < set(lines)


def test_kswapd_that_gave_up_is_told() -> None:
    m = Machine("linux-6.1", memory="64M")
    assert show_mem(m, 3)[9].endswith("all_unreclaimable? no")
    m.lru.failures = 16
    assert show_mem(m, 3)[9].endswith("all_unreclaimable? yes")


def test_slab_pages_of_a_recording_are_told() -> None:
    m = Machine.from_recording("256M-a-21")
    pages = sum(count for zone in m.zones for _, count in zone.slab)
    assert number(show_mem(m, 3)[4], "slab_unreclaimable") == pages > 0


@pytest.mark.parametrize("order", [0, 4])
def test_the_reader_reads_what_the_model_writes(order: int) -> None:
    """Zones, marks, blocks, and the verdict: it was the pages that were too few."""
    m = Machine("linux-6.1", memory="64M")
    m.read_file("clean", "3M")
    m.preempt_disable()  # or kswapd would change what is compared
    while m.alloc_pages(GFP_NOWAIT, order):
        pass
    (report,) = read_failure_reports(m.dmesg())
    assert (report.order, report.mode, report.kernel) == (order, 0x800, "linux-6.1")
    for zone in m.zones:
        told = report.zones[zone.name]
        assert (told.free, told.numbers["managed"]) == (zone.nr_free_pages, zone.managed)
        assert told.numbers["min"] - told.numbers["boost"] == zone.wmark[0]
        assert [count for count, _ in told.blocks] == [zone.nr_free(o) for o in range(11)]
    assert "cannot tell" not in report.verdict


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
