"""Zones, watermarks and /proc files against what a real kernel computed and printed, character for character."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from pathlib import Path

import pytest

from kmemlab import GFP_KERNEL, Machine, gfp
from kmemlab.mmzone import MAX_ORDER, MIGRATE_TYPES
from kmemlab.recording import Recording

RECORDINGS = Path(__file__).resolve().parent / "recordings"
SHAPES = json.loads(gzip.decompress((RECORDINGS / "watermarks.json.gz").read_bytes()))
# A plain PC: the other one has its memory moved above 4 GiB, which a memory size does not say.
PLAIN = [shape for shape in SHAPES if shape["machine"] == "pc"]
PROC = sorted(path.parent for path in RECORDINGS.glob("*/**/zoneinfo"))
I386 = sorted((RECORDINGS / "i386").iterdir())


def shape_name(shape) -> str:
    core = [word for word in shape["append"].split() if word.startswith("kernelcore")]
    return "-".join([shape["qemu_mem"], str(shape["cpus"]), shape["machine"][:2], *core])


def folder_name(path: Path) -> str:
    return path.relative_to(RECORDINGS).as_posix()


def populated(zones):
    return [zone for zone in zones if zone["managed"]]


def read(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("buddyinfo", "zoneinfo", "pagetypeinfo")}


def test_the_data_is_here() -> None:
    """Nine shapes, seven folders of /proc files: an empty list must not pass."""
    assert (len(SHAPES), len(PLAIN), len(PROC), len(I386)) == (9, 8, 7, 4)


@pytest.mark.parametrize("shape", SHAPES, ids=shape_name)
def test_recomputed_watermarks(shape) -> None:
    """A write to min_free_kbytes recomputes everything that follows, exactly as the kernel did."""
    m = Machine.from_procfs(buddyinfo=shape["buddyinfo"], zoneinfo=shape["zoneinfo"])
    m.sysctl("vm.min_free_kbytes", shape["meta"]["min_free_kbytes"])
    recorded = populated(shape["zones_recomputed"])
    assert [zone.name for zone in m.zones] == [zone["name"] for zone in recorded]
    for zone, real in zip(m.zones, recorded, strict=True):
        assert (zone.wmark, zone.watermark_boost) == (real["wmark"][:3], real["watermark_boost"])
        assert zone.stat_threshold == real["stat_threshold"]
        for pcp in zone.pcps:
            assert (pcp.high, pcp.batch) == (real["pcp"]["high"], real["pcp"]["batch"])
    assert m.check()


@pytest.mark.parametrize("shape", SHAPES, ids=shape_name)
def test_protection_is_recomputed_by_its_own_sysctl(shape) -> None:
    """The recorded protection is up to 12 pages off (it was computed in early boot); the formula is near it."""
    m = Machine.from_procfs(buddyinfo=shape["buddyinfo"], zoneinfo=shape["zoneinfo"])
    before = [list(zone.lowmem_reserve) for zone in m.zones]
    m.sysctl("vm.min_free_kbytes", 4096)
    assert [zone.lowmem_reserve for zone in m.zones] == before
    m.sysctl("vm.lowmem_reserve_ratio", shape["meta"]["lowmem_reserve_ratio"])
    for zone, old in zip(m.zones, before, strict=True):
        assert all(abs(a - b) <= 12 for a, b in zip(zone.lowmem_reserve, old, strict=True)), (zone.lowmem_reserve, old)


@pytest.mark.parametrize("shape", SHAPES, ids=shape_name)
def test_a_real_machines_files_come_back(shape) -> None:
    """from_procfs and cat are each other's inverse, to the last blank."""
    m = Machine.from_procfs(buddyinfo=shape["buddyinfo"], zoneinfo=shape["zoneinfo"])
    assert m.cat("/proc/buddyinfo") == shape["buddyinfo"]
    assert m.cat("/proc/zoneinfo") == shape["zoneinfo"]
    assert m.check()
    assert "page frame numbers are not" in m.note


@pytest.mark.parametrize("folder", PROC, ids=folder_name)
def test_proc_files_come_back(folder: Path) -> None:
    """The same for the verbatim files: under load, with four CPUs, and of 32-bit machines with HighMem."""
    files = read(folder)
    m = Machine.from_procfs(buddyinfo=files["buddyinfo"], zoneinfo=files["zoneinfo"])
    assert m.cat("/proc/buddyinfo") == files["buddyinfo"]
    assert m.cat("/proc/zoneinfo") == files["zoneinfo"]
    assert m.check()


@pytest.mark.parametrize("folder", PROC, ids=folder_name)
def test_pagetypeinfo_is_printed_as_the_kernel_prints_it(folder: Path) -> None:
    """The recorded counts put into a machine give the recorded text; each zone has as many pageblocks as there."""
    files = read(folder)
    text = files["pagetypeinfo"]
    m = Machine.from_procfs(buddyinfo=files["buddyinfo"], zoneinfo=files["zoneinfo"])
    zones = {zone.name: zone for zone in m.zones}
    for zone in m.zones:
        zone.run = range(0)
        zone.free_tail = [[{} for _ in range(MIGRATE_TYPES)] for _ in range(MAX_ORDER)]
    for name, kind, row in re.findall(r"^Node +0, zone +(\w+), type +(\w+) ([\d ]+)$", text, re.MULTILINE):
        for order, count in enumerate(map(int, row.split())):
            zones[name].free_area[order][gfp.MIGRATE_NAMES.index(kind)] = dict.fromkeys(range(count))
    real_blocks = re.findall(r"^Node 0, zone +(\w+) ([\d ]+)$", text, re.MULTILINE)
    for name, row in real_blocks:
        zone, types = zones[name], b"".join(bytes([mt]) * n for mt, n in enumerate(map(int, row.split())))
        if zone.present == zone.spanned or zone.name == "DMA":  # /proc does not tell where a hole lies
            zone.pageblock_mt = zone.pageblock_mt[: zone.start_pfn >> 9] + types + bytes(2)
            assert f"Node 0, zone {name:>8s} {row}\n" in m.cat("/proc/pagetypeinfo")
    shown = m.cat("/proc/pagetypeinfo").splitlines(keepends=True)
    real = text.splitlines(keepends=True)
    assert shown[: -len(m.zones)] == real[: -len(m.zones)]
    assert [re.sub(r" *\d+ ", "#", line) for line in shown] == [re.sub(r" *\d+ ", "#", line) for line in real]


@pytest.mark.parametrize("folder", I386, ids=folder_name)
def test_a_dump_and_the_files_read_after_it(folder: Path) -> None:
    """Zones that nobody touched between the dump and the reading of the files are printed the same from both."""
    data = json.loads(gzip.decompress((folder / "zones.json.gz").read_bytes()))
    recording = Recording(folder / "zones.json.gz", "real", data["meta"], data["state"], data["state"], [])
    m = Machine._of_recording(recording, "state0")
    files = read(folder)
    assert m.check()
    for name in ("buddyinfo", "pagetypeinfo"):
        ours, real = m.cat(f"/proc/{name}").splitlines(), files[name].splitlines()
        assert len(ours) == len(real)
        touched = "HighMem" if "HighMem" in files["buddyinfo"] else "Normal"
        assert [line for line in ours if touched not in line] == [line for line in real if touched not in line]
    protection = re.compile(r"protection: .*|managed .*|spanned .*|present .*")
    assert protection.findall(m.cat("/proc/zoneinfo")) == protection.findall(files["zoneinfo"])


@pytest.mark.parametrize("shape", PLAIN, ids=shape_name)
def test_a_memory_size_gives_the_recorded_zones(shape) -> None:
    """Machine(memory=...) lays zones out as the PC of that size has them, with its watermark settings."""
    core = " ".join(word for word in shape["append"].split() if word.startswith("kernelcore"))
    m = Machine("linux-6.1", memory=shape["qemu_mem"], cpus=shape["meta"]["online_cpus"], cmdline=core)
    real = populated(shape["zones"])
    assert [(z.name, z.idx, z.start_pfn, z.spanned, z.present) for z in m.zones] == [
        (z["name"], z["idx"], z["start_pfn"], z["spanned"], z["present"]) for z in real
    ]
    assert [zone.name for zone in m.zonelist] == shape["meta"]["zonelist"]
    assert m.zones[0].managed == real[0]["managed"]
    for zone, recorded in zip(m.zones, real, strict=True):
        assert zone.stat_threshold == recorded["stat_threshold"]
        assert len(zone.pcps) == shape["meta"]["online_cpus"]
    if shape["meta"]["min_free_kbytes"] > 40000:  # what khugepaged asks for does not depend on the kernel's size
        assert m.sysctl("vm.min_free_kbytes") == shape["meta"]["min_free_kbytes"]
    assert m.check()


@pytest.mark.parametrize("shape", PLAIN, ids=shape_name)
def test_a_booted_machine_prints_the_same_layout(shape) -> None:
    """A booted machine's files differ from the real ones in numbers only."""
    core = " ".join(word for word in shape["append"].split() if word.startswith("kernelcore"))
    m = Machine("linux-6.1", memory=shape["qemu_mem"], cpus=shape["meta"]["online_cpus"], cmdline=core)
    for name in ("buddyinfo", "zoneinfo"):
        layout = [re.sub(r" *-?\d+", " N", line) for line in shape[name].splitlines()]
        assert [re.sub(r" *-?\d+", " N", line) for line in m.cat(f"/proc/{name}").splitlines()] == layout


def test_every_flag_has_the_value_the_kernel_has() -> None:
    """gfp_flags.json and the 32-bit flags: values read out of the running kernels by a module."""
    recorded = json.loads((RECORDINGS / "gfp_flags.json").read_text())["gfp"]
    assert len(recorded) > 35
    for name, value in recorded.items():
        assert gfp.TABLE_6_1.get(name, {"__GFP_BITS_MASK": 0x7FFFFFF, "GFP_ZONEMASK": 15}.get(name)) == value, name
    for folder in I386:
        for name, value in json.loads(gzip.decompress((folder / "flags.json.gz").read_bytes()))["gfp"].items():
            assert gfp.TABLE_6_1.get(name, value) == value, name


def test_a_huge_machine_is_cheap() -> None:
    """4 TiB boot within 3 MiB, and work: nothing is stored page by page."""
    tracemalloc.start()
    m = Machine("linux-6.1", memory="4T")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20
    pages = [m.alloc_pages(GFP_KERNEL, order) for order in range(MAX_ORDER)]
    assert all(pages)
    assert m.check()
    for order, page in enumerate(pages):
        m.__free_pages(page, order)
    assert m.check()
    assert ">100000 " in m.cat("/proc/pagetypeinfo")
