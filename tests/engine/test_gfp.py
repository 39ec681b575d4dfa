"""gfp_t: bits, names, zone and mobility, per kernel."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kmemlab import __GFP_ZERO, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, GFP_USER, decode, gfp, gfp_t, gfp_zone
from kmemlab.gfp import FLAGS, gfp_migratetype, gfpflags_allow_blocking, parse_gfp_flags, show_gfp_flags

# kernel-facts 1.8, computed with the kernel's rule.
GOLDENS = {
    0xCC0: "GFP_KERNEL", 0xDC0: "GFP_KERNEL|__GFP_ZERO", 0xA20: "GFP_ATOMIC", 0x400: "__GFP_DIRECT_RECLAIM",
    0x40DC0: "GFP_KERNEL|__GFP_COMP|__GFP_ZERO", 0x2800: "GFP_NOWAIT|__GFP_NOWARN", 0xCC1: "GFP_KERNEL|GFP_DMA",
    0xCC2: "GFP_KERNEL|__GFP_HIGHMEM", 0x400DC0: "GFP_KERNEL_ACCOUNT|__GFP_ZERO", 0x20: "__GFP_HIGH", 0: "",
    0x52CC0: "GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP", 0x100CCA: "GFP_HIGHUSER_MOVABLE",
    0x92800: "GFP_NOWAIT|__GFP_NOWARN|__GFP_NORETRY|__GFP_NOMEMALLOC", 1 << 30: "0x40000000",
}  # fmt: skip
COMBINATIONS = {
    "linux-6.1": {
        "GFP_ATOMIC": 0xA20, "GFP_NOWAIT": 0x800, "GFP_NOIO": 0xC00, "GFP_NOFS": 0xC40, "GFP_KERNEL": 0xCC0,
        "GFP_KERNEL_ACCOUNT": 0x400CC0, "GFP_USER": 0x100CC0, "GFP_HIGHUSER": 0x100CC2, "GFP_DMA": 1, "GFP_DMA32": 4,
        "GFP_HIGHUSER_MOVABLE": 0x100CCA, "GFP_TRANSHUGE_LIGHT": 0x1C20CA, "GFP_TRANSHUGE": 0x1C24CA,
    },
    "linux-6.12": {"GFP_ATOMIC": 0x820, "GFP_NOWAIT": 0x2800, "GFP_KERNEL": 0xCC0},
    "linux-2.6.11": {"GFP_ATOMIC": 0x20, "GFP_NOIO": 0x10, "GFP_NOFS": 0x50, "GFP_KERNEL": 0xD0, "GFP_HIGHUSER": 0xD2},
}  # fmt: skip


@pytest.mark.parametrize(("mask", "text"), GOLDENS.items())
def test_masks_print_as_the_kernel_prints_them(mask: int, text: str) -> None:
    """%pGg: the longest combination first, in the kernel's order of names."""
    assert show_gfp_flags(mask) == text
    assert parse_gfp_flags(text) == mask


@pytest.mark.parametrize("kernel", COMBINATIONS)
def test_combinations_have_the_kernels_values(kernel: str) -> None:
    """The same name is another mask in another version: that is what the decoder is for."""
    for name, value in COMBINATIONS[kernel].items():
        assert FLAGS[kernel][name] == value, name


@given(st.integers(0, (1 << 32) - 1), st.sampled_from(list(FLAGS)))
def test_text_and_mask_are_inverse(mask: int, kernel: str) -> None:
    """No bit is lost or told twice, whatever the mask and kernel."""
    assert parse_gfp_flags(show_gfp_flags(mask, kernel) or "none", kernel) == mask


def test_zones_of_all_low_bits() -> None:
    """Facts 1.3 with 12.5: two zone bits at once are served from DMA; MOVABLE alone does not choose Movable."""
    assert [gfp_zone(low) for low in range(16)] == [2, 0, 2, 0, 1, 0, 0, 0, 2, 0, 3, 0, 1, 0, 0, 0]
    assert [gfp_zone(low, highmem=True) for low in range(16)] == [1, 0, 2, 0, 1, 0, 0, 0, 1, 0, 3, 0, 1, 0, 0, 0]
    assert gfp_zone(0x100CCA) == 3


def test_mobility_and_sleep() -> None:
    """The two bits that choose the free list, and the one that lets the caller sleep."""
    assert [gfp_migratetype(bits << 3) for bits in range(4)] == [0, 1, 2, 3]
    assert gfpflags_allow_blocking(GFP_KERNEL)
    assert not gfpflags_allow_blocking(GFP_ATOMIC | GFP_NOWAIT)


def test_a_mask_stays_a_mask() -> None:
    """| & ^ ~ keep the type that prints names, from both sides."""
    for mask in (GFP_KERNEL | __GFP_ZERO, 0x100 | GFP_KERNEL, GFP_USER & ~__GFP_ZERO, GFP_USER ^ 0x80, 3 & GFP_USER):
        assert isinstance(mask, gfp_t)
    assert repr(GFP_KERNEL | __GFP_ZERO) == "GFP_KERNEL|__GFP_ZERO (0xdc0)"
    assert str(gfp_t(0)) == "none (0x0)"
    assert ~~GFP_KERNEL == GFP_KERNEL
    assert {GFP_KERNEL: 1}[0xCC0] == 1


def test_the_decoder_knows_that_tables_differ() -> None:
    """The seed's mask of another kernel: bits that have no name there are told, not guessed."""
    read = decode(0x2080020, kernel="linux-6.1")
    assert read.unknown == 0x2000000
    assert "no name there" in str(read)
    assert decode(0xD0, kernel="linux-2.6.11").names == ("GFP_KERNEL",)
    assert "__GFP_ATOMIC" not in decode(0xA20, kernel="linux-6.12").names
    assert decode(0xA20, kernel="linux-6.12").unknown == 0x200
    with pytest.raises(ValueError, match=r"no flag table for kernel .linux-7.; known"):
        decode(1, kernel="linux-7")


def test_an_unknown_word_is_named() -> None:
    """A misspelt flag is an error that names it."""
    with pytest.raises(ValueError, match="'GFP_KERNAL' is not a gfp flag of "):
        parse_gfp_flags("GFP_KERNAL|__GFP_ZERO")


def test_module_names_are_the_tables() -> None:
    """What a lesson imports is what the table says."""
    for name, value in gfp.TABLE_6_1.items():
        assert getattr(gfp, name, value) == value
