"""What FlagPicker says of a mask is what the machine does with it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmemlab import GFP_ATOMIC, GFP_DMA, GFP_KERNEL, GFP_NOFS, GFP_NOIO, GFP_NOWAIT, GFP_USER, NULL, Machine, Stuck
from kmemlab.gfp import FLAGS
from kmemlab.gfp_facts import GROUPS, mask_facts, translate
from kmemlab.page_alloc import Plan

NORETRY, MAYFAIL, NOFAIL, HIGH, THISNODE, MEMALLOC, NOMEMALLOC = (
    0x10000, 0x4000, 0x8000, 0x20, 0x200000, 0x20000, 0x80000
)  # fmt: skip
MASKS = [
    GFP_KERNEL, GFP_ATOMIC, GFP_NOWAIT, GFP_NOFS, GFP_NOIO, GFP_USER, 0, GFP_KERNEL | NORETRY, GFP_KERNEL | MAYFAIL,
    GFP_KERNEL | NOFAIL, GFP_KERNEL | HIGH, GFP_KERNEL | THISNODE, GFP_KERNEL | GFP_DMA, GFP_KERNEL | MEMALLOC,
    GFP_ATOMIC | NOMEMALLOC, GFP_DMA | GFP_ATOMIC,
]  # fmt: skip


def told(mask: int) -> dict[str, str]:
    return dict(mask_facts(mask).may)


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_where_it_is_allowed(mask: int) -> None:
    """A kernel with DEBUG_ATOMIC_SLEEP complains exactly where the table says forbidden."""
    sections = {"a spinlock held": "spin_lock", "softirq, timer, tasklet": "softirq", "hard interrupt": "hardirq"}
    allowed = dict(mask_facts(mask).where)
    assert allowed["process, nothing held"]
    for name, section in sections.items():
        m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
        with getattr(m, section)(*(["lock"] if section == "spin_lock" else [])):
            m.alloc_pages(mask, 0)
        assert ("sleeping function" not in m.dmesg()) == allowed[name]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_who_is_killed_and_who_gets_null(mask: int) -> None:
    """With only a process's memory to take, the words for OOM and NULL come true."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    m.process("hog", "20M")
    with m.preempt_disable():
        while m.alloc_pages(0x2000, 0) or m.alloc_pages(0x2001, 0):
            pass
    may, killed, page = told(mask), False, NULL
    for _ in range(600):  # until the reserves are gone, if the mask may use them
        try:
            page = m.alloc_pages(mask | 0x2000, 0)
        except Stuck:
            assert may["NULL for one page"] == "never: it loops"
            return
        killed = killed or not m.processes
        if page is NULL or killed:
            break
    assert killed == (may["the OOM killer kills"] == "yes")
    words = may["NULL for one page"]
    if page is NULL:
        assert words in ("at any time", "after one round", "after all rounds")
    else:
        assert words in ("almost never", "never")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, (1 << 24) - 1))
def test_any_mask_has_facts(mask: int) -> None:
    """Whatever is ticked: zones are those of the zonelist, the text tells the mask, translating back loses no name."""
    facts = mask_facts(mask)
    assert f"{mask:#x}" in facts.headline
    assert facts.twin.startswith(facts.headline)
    m = Machine("linux-6.1", memory="64M")
    names = [zone.name for zone in Plan(m, mask, 0).zones]
    assert list(mask_facts(mask, zones=[zone.name for zone in m.zones]).zones) == names
    for kernel in FLAGS:
        if kernel in GROUPS:
            assert mask_facts(mask & 0xFFFF, kernel).kernel == kernel


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (0x3, "DMA + HIGHMEM: no such zone"),
        (0x18, "MOVABLE + RECLAIMABLE"),
        (0xCC2, "HIGHMEM given to kmalloc"),
        (0xEE0, "ATOMIC + DIRECT_RECLAIM"),
        (0x8800, "NOFAIL without DIRECT_RECLAIM"),
        (0x8C0, "IO and FS mean nothing here"),
    ],
)
def test_odd_masks_have_a_note(mask: int, says: str) -> None:
    assert any(says in note for note in mask_facts(mask).notes)
    assert not mask_facts(0xCC0).notes


OLD, NEW = "linux-2.6.11", "linux-6.1"
WORDS = [  # 2.6.11, 6.1, what 2.6.11 has that 6.1 has not
    (0x20, 0xA20, ()), (0xD0, 0xCC0, ()), (0x10, 0xC00, ()), (0x50, 0xC40, ()), (0xD2, 0x100CC2, ()), (0, 0x800, ()),
    (0x220, 0x2A20, ()), (0x4D0, 0x4CC0, ()), (0x80D0, 0xDC0, ()), (0x1, 0x801, ()), (0x1D0, 0xCC0, ("__GFP_COLD",)),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lost"), WORDS)
def test_a_mask_keeps_its_meaning_in_the_other_kernel(old: int, new: int, lost: tuple[str, ...]) -> None:
    """Combinations by name, other bits by theirs, kswapd woken as it was; and back again."""
    assert translate(old, OLD, NEW) == (new, lost)
    assert translate(new, NEW, OLD) == (old & ~0x100, ())


def test_what_only_the_new_kernel_has_is_named() -> None:
    assert translate(0x400CC0, NEW, OLD) == (0xD0, ("__GFP_ACCOUNT",))
    assert translate(0x100CCA, NEW, OLD) == (0xD2, ("__GFP_MOVABLE", "__GFP_HARDWALL"))
    assert translate(0x820, NEW, OLD) == (0x20, ())  # HIGH without ATOMIC: the nearest word there is
