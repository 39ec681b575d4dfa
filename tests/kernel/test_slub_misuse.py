"""The crimes that a real kernel was seen to commit with caches and kmalloc: silent, report or stop as recorded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kmemlab import GFP_KERNEL, KernelBug, Machine

RECORDINGS = Path(__file__).parent / "recordings"
HIGHMEM, DMA32, ZERO, RCU = 0x2, 0x4, 0x100, 0x80000


def recorded(name: str) -> str:
    text = (RECORDINGS / "misuse" / f"{name}.txt").read_text(encoding="utf-8")
    return "\n".join(re.sub(r"^\[\s*[\d.]+\] ?", "", line) for line in text.splitlines())


def machine(cmdline: str = "") -> Machine:
    return Machine("linux-6.1", memory="256M", cmdline=cmdline)


def silent(name: str) -> bool:
    """Whether the kernel itself said nothing (the recorder's own lines and the clock's are not the kernel's)."""
    lines = [line for line in recorded(name).splitlines() if line and not line.startswith(("crimes:", "tsc:", "clock"))]
    return not lines


def test_kfree_of_a_middle_pointer_is_silent_and_comes_back() -> None:
    assert silent("kfree_middle")
    assert "next kmalloc(256) number 1 is object +64" in recorded("kfree_middle")
    m = machine()
    p = m.kmalloc(256, GFP_KERNEL)
    m.kfree(p + 64)
    assert m.dmesg() == ""
    assert m.kmalloc(256, GFP_KERNEL) == p + 64
    assert "is not the beginning of an object" in str(m.check())


def test_kfree_inside_a_large_block_frees_the_block() -> None:
    assert "returned: refcount of the block 0" in recorded("kfree_middle_big")
    m = machine()
    p = m.kmalloc(20000, GFP_KERNEL)
    m.kfree(p + 4096)
    assert m.virt_to_page(p).refcount == 0
    assert m.dmesg() == ""
    assert m.check()


def test_a_b_a_is_silent_until_the_fourth_request() -> None:
    told = re.findall(r"number (\d) -> (\w)", recorded("kfree_aba"))
    assert told == [("1", "a"), ("2", "b"), ("3", "a")]
    m = machine()
    a, b = m.kmalloc(256, GFP_KERNEL), m.kmalloc(256, GFP_KERNEL)
    m.kfree(a)
    m.kfree(b)
    m.kfree(a)
    assert m.dmesg() == ""
    assert [m.kmalloc(256, GFP_KERNEL) for _ in range(3)] == [a, b, a]
    with pytest.raises(KernelBug, match="general protection fault, probably for non-canonical address"):
        m.kmalloc(256, GFP_KERNEL)
    assert "general protection fault, probably for non-canonical address" in recorded("kfree_aba")


def test_a_b_a_with_debugging_is_told_and_cuts_the_list() -> None:
    text = recorded("kfree_aba_debug")
    m = machine("slub_debug=FZPU")
    a, b, _other = (m.kmalloc(256, GFP_KERNEL) for _ in range(3))
    m.kfree(a)
    m.kfree(b)
    m.kfree(a)
    for line in ("Object already free", "not freed"):
        assert line in text
        assert line in m.dmesg()
    assert re.findall(r"number (\d) -> (\w)", text) == [("1", "b"), ("2", "a")]
    assert [m.kmalloc(256, GFP_KERNEL) for _ in range(2)] == [b, a]
    with pytest.raises(KernelBug) as stopped:
        m.kmalloc(256, GFP_KERNEL)
    assert str(stopped.value).splitlines()[0] in text  # NULL pointer dereference, address ...108


def test_kfree_of_a_page_warns_once_and_frees_it() -> None:
    m = machine()
    addr = m.__get_free_page(GFP_KERNEL)
    m.kfree(addr)
    line = next(line for line in recorded("kfree_page").splitlines() if line.startswith("WARNING"))
    assert re.sub(r"PID: \d+", "PID", line) in re.sub(r"PID: \d+", "PID", m.dmesg())
    assert "object pointer: 0x(____ptrval____)" in m.dmesg()
    assert m.virt_to_page(addr).refcount == 0


@pytest.mark.parametrize("name", ["kfree_stack", "kfree_vmalloc"])
def test_kfree_of_an_address_without_a_page_stops(name: str) -> None:
    m = machine()
    assert "BUG: unable to handle page fault for address" in recorded(name)
    with pytest.raises(KernelBug, match="BUG: unable to handle page fault for address"):
        m.kfree(0xFFFFC90000123000)


@pytest.mark.parametrize(("bit", "name"), [(HIGHMEM, "kmalloc_highmem"), (DMA32, "kmalloc_dma32")])
def test_a_zone_bit_is_told_only_when_a_slab_is_built(bit: int, name: str) -> None:
    """The recorded cache was warm: eight objects came without a word, the ninth needed a new slab."""
    line = next(line for line in recorded(name).splitlines() if line.startswith("Unexpected gfp"))
    m = machine()
    for _ in range(32 - 8):
        m.kmalloc(100, GFP_KERNEL)
    for number in range(1, 10):
        m.kmalloc(100, GFP_KERNEL | bit)
        assert (line in m.dmesg()) == (number == 9)


@pytest.mark.parametrize(("bit", "name"), [(HIGHMEM, "kmalloc_highmem_big"), (DMA32, "kmalloc_dma32_big")])
def test_a_zone_bit_is_told_every_time_for_large_sizes(bit: int, name: str) -> None:
    line = next(line for line in recorded(name).splitlines() if line.startswith("Unexpected gfp"))
    m = machine()
    assert m.kmalloc(10000, GFP_KERNEL | bit)
    assert m.kmalloc(10000, GFP_KERNEL | bit)
    assert m.dmesg().count(line) == 2


def test_overflow_is_silent_at_free_and_stops_a_later_request() -> None:
    assert "general protection fault" in recorded("overflow")
    m = machine()
    p = m.kmalloc(50, GFP_KERNEL)
    m.write(p, b"A" * 200)
    m.kfree(p)
    assert m.dmesg() == ""
    with pytest.raises(KernelBug, match="general protection fault"):
        [m.kmalloc(50, GFP_KERNEL) for _ in range(64)]


def test_creation_with_size_0() -> None:
    m = machine()
    assert m.kmem_cache_create("crimes-zero", 0, 0, RCU, None)
    with pytest.raises(KernelBug, match="divide error"):
        m.kmem_cache_create("crimes-zero2", 0, 0, 0, None)
    assert "divide error: 0000" in recorded("cache_size0")


def test_creation_without_a_name_stops() -> None:
    with pytest.raises(KernelBug) as stopped:
        machine().kmem_cache_create(None, 100, 0, 0, None)
    assert str(stopped.value).splitlines()[0] in recorded("cache_null_name")


def test_creation_with_strange_names_is_silent() -> None:
    assert silent("cache_space")
    assert silent("cache_dup")
    m = machine("slab_nomerge")
    first = m.kmem_cache_create("crimes space", 1100, 0, 0, None)
    assert first
    assert m.kmem_cache_create("crimes space", 1100, 0, 0, None) is not first
    assert m.dmesg() == ""


@pytest.mark.parametrize(("name", "size", "flags"), [("crimes-4m", (4 << 20) + 1, 0), ("crimes-flag", 100, 0x1)])
def test_refused_creation(name: str, size: int, flags: int) -> None:
    m = machine()
    assert not m.kmem_cache_create(name, size, 0, flags, None)
    line = f"kmem_cache_create_usercopy({name}) failed with error -22"
    assert line in m.dmesg()
    assert line in recorded("cache_huge" if size > 100 else "cache_flags")


def test_refused_creation_with_panic_stops() -> None:
    with pytest.raises(KernelBug) as stopped:
        machine().kmem_cache_create("crimes-panic", 100, 0, 0x40000 | 0x1, None)
    assert str(stopped.value).splitlines()[0] in recorded("cache_panic")


def test_zero_with_a_constructor_warns_and_does_not_zero() -> None:
    m = machine()
    s = m.kmem_cache_create("crimes-zctor", 100, 0, 0, lambda p: m.write(p, b"\xee" * 100))
    assert m.read(m.kmem_cache_alloc(s, GFP_KERNEL | ZERO), 100) == b"\xee" * 100
    assert "mm/slub.c:2001 ___slab_alloc" in m.dmesg()
    assert "mm/slub.c:2001 ___slab_alloc" in recorded("cache_zero_ctor")
    m.kmem_cache_alloc(s, GFP_KERNEL | ZERO)
    assert m.dmesg().count("WARNING") == 1


def test_destroy_twice_and_alloc_after_destroy_are_silent() -> None:
    m = machine()
    s = m.kmem_cache_create("crimes-twice", 136, 0, 0, lambda p: None)
    m.kmem_cache_destroy(s)
    m.kmem_cache_destroy(s)
    assert m.kmem_cache_alloc(s, GFP_KERNEL)
    assert m.dmesg() == ""
    assert "destroyed twice" in recorded("cache_destroy_twice")
    assert "returned a pointer" in recorded("cache_alloc_after_destroy")


def test_free_to_a_wrong_cache_is_told_and_goes_home() -> None:
    m = machine()
    a = m.kmem_cache_create("crimes-a", 1100, 0, 0, lambda p: None)
    b = m.kmem_cache_create("crimes-b", 1200, 0, 0, lambda p: None)
    p = m.kmem_cache_alloc(a, GFP_KERNEL)
    m.kmem_cache_free(b, p)
    line = "cache_from_obj: Wrong slab cache. crimes-b but object is from crimes-a"
    assert line in m.dmesg()
    assert line in recorded("cache_wrong_free")
    assert m.kmem_cache_alloc(a, GFP_KERNEL) == p


def test_free_of_null_stops() -> None:
    m = machine()
    s = m.kmem_cache_create("crimes-n", 1100, 0, 0, lambda p: None)
    assert "BUG: unable to handle page fault for address" in recorded("cache_free_null")
    with pytest.raises(KernelBug, match="BUG: unable to handle page fault for address"):
        m.kmem_cache_free(s, 0)


def test_kmalloc_0_is_a_pointer_not_to_touch() -> None:
    m = machine()
    p = m.kmalloc(0, GFP_KERNEL)
    assert (int(p), m.ksize(p)) == (16, 0)
    m.kfree(p)
    with pytest.raises(KernelBug, match="NULL pointer dereference, address: 0000000000000010"):
        m.read(p, 1)


def test_every_slab_crime_recorded_is_in_this_file() -> None:
    """All but kfree_static: the model has no kernel image to hold a static variable."""
    here = "\n".join(
        Path(__file__).with_name(name).read_text(encoding="utf-8") for name in (Path(__file__).name, "test_misuse.py")
    )
    names = [p.stem for p in (RECORDINGS / "misuse").glob("*.txt")]
    slab = [name for name in names if name.startswith(("cache_", "kfree_", "kmalloc_", "overflow"))]
    assert len(slab) >= 20
    assert not [name for name in slab if re.sub("_(debug|plain)$", "", name) not in here]
