"""The bytes of memory: sparse, and as C leaves them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmemlab import GFP_KERNEL, KernelBug, Machine
from kmemlab.memory import Memory

BASE = 0xFFFF888000000000


@given(st.lists(st.tuples(st.integers(0, 20_000), st.binary(max_size=9000), st.booleans()), max_size=20))
def test_like_one_long_bytearray(writes: list[tuple[int, bytes, bool]]) -> None:
    memory, plain = Memory(BASE), bytearray(40_000)
    for at, data, zero in writes:
        if zero:
            memory.fill(BASE + at, 0, len(data))
            plain[at : at + len(data)] = bytes(len(data))
        else:
            memory.write(BASE + at, data)
            plain[at : at + len(data)] = data
    assert memory.read(BASE, 40_000) == plain


def test_only_written_pages_exist() -> None:
    memory = Memory(BASE)
    memory.fill(BASE, 0, 1 << 20)
    assert not memory.pages
    memory.write(BASE + 4095, b"ab")
    assert sorted(memory.pages) == [0, 1]
    memory.clear_pages(0, 1 << 20)
    assert not memory.pages


def test_debian_clears_what_it_hands_out() -> None:
    m = Machine("linux-6.1", memory="64M")
    page = m.__get_free_page(GFP_KERNEL)
    m.write(page, b"secret")
    m.free_page(page)
    assert m.read(page, 6) == b"secret"  # freeing clears nothing
    assert m.__get_free_page(GFP_KERNEL) == page
    assert m.read(page, 6) == bytes(6)


def test_an_object_is_cleared_too_whoever_wrote_first() -> None:
    """The first write of all may go to a page: objects are looked at from then on."""
    m = Machine("linux-6.1", memory="64M")
    m.write(m.__get_free_page(GFP_KERNEL), b"somewhere else")
    p = m.kmalloc(4096, GFP_KERNEL)
    m.write(p, b"secret")
    m.kfree(p)
    assert m.kmalloc(4096, GFP_KERNEL) == p
    assert m.read(p, 6) == bytes(6)


def test_pages_in_bulk_are_cleared_too() -> None:
    m = Machine("linux-6.1", memory="64M")
    page = m.alloc_pages(GFP_KERNEL, 0)
    m.write(m.page_address(page), b"secret")
    m.__free_pages(page, 0)
    assert page.pfn in [each.pfn for each in m.alloc_pages_bulk(4)]
    assert m.read(m.page_address(page), 6) == bytes(6)


def test_with_init_on_alloc_off_the_old_bytes_stay() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="init_on_alloc=0")
    page = m.__get_free_page(GFP_KERNEL)
    m.write(page, b"secret")
    m.free_page(page)
    assert m.__get_free_page(GFP_KERNEL) == page
    assert m.read(page, 6) == b"secret"
    m.free_page(page)
    assert m.read(m.get_zeroed_page(GFP_KERNEL), 6) == bytes(6)


def test_56_of_64_bytes_survive_in_a_freed_object() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="init_on_alloc=0")
    old = b"correct horse battery staple/" + b"7" * 35
    p = m.kmalloc(64, GFP_KERNEL)
    m.write(p, old)
    m.kfree(p)
    assert m.kmalloc(40, GFP_KERNEL) == p
    got = m.read(p, 64)
    assert (got[:32], got[40:]) == (old[:32], old[40:])
    assert got[32:40] != old[32:40]
    m.kfree(p)
    assert m.read(m.kzalloc(40, GFP_KERNEL), 64) == bytes(64)


def test_kfree_sensitive_leaves_nothing() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="init_on_alloc=0")
    p = m.kmalloc(64, GFP_KERNEL)
    m.write(p, b"x" * 64)
    m.kfree_sensitive(p)
    got = m.read(m.kmalloc(40, GFP_KERNEL), 64)
    assert (got[:32], got[40:]) == (bytes(32), bytes(24))


def test_a_write_behind_an_object_reaches_the_neighbour() -> None:
    m = Machine("linux-6.1", memory="64M")
    a, b = m.kmalloc(64, GFP_KERNEL), m.kmalloc(64, GFP_KERNEL)
    assert b == a + 64
    m.write(a + 60, b"overflow")
    assert m.read(b, 4) == b"flow"


@pytest.mark.parametrize(("addr", "words"), [(0, "NULL pointer dereference"), (16, "address: 0000000000000010"),
                                             (0xFFFFC90000000000, "unable to handle page fault")])  # fmt: skip
def test_touching_nothing_stops_the_kernel(addr: int, words: str) -> None:
    m = Machine("linux-6.1", memory="64M")
    with pytest.raises(KernelBug, match=words):
        m.read(addr, 1)
    with pytest.raises(KernelBug, match=words):
        m.write(addr, b"x")


def test_a_broken_pointer_is_followed_by_the_second_request() -> None:
    m = Machine("linux-6.1", memory="64M")
    c = m.kmem_cache_create("uaf", 1100, 0, 0, None)
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.kmem_cache_free(c, p)
    m.write(p, b"A" * 1100)
    assert m.dmesg() == ""
    assert m.kmem_cache_alloc(c, GFP_KERNEL) == p
    with pytest.raises(KernelBug, match="non-canonical"):
        m.kmem_cache_alloc(c, GFP_KERNEL)
