"""Reading slab reports: the recorded ones, the model's own, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings

from kmemlab import GFP_KERNEL, Machine
from kmemlab.slub_reader import read_slab_report, read_slab_reports
from tests.damage import damaged

RECORDED = Path(__file__).resolve().parents[2] / "lessons" / "recordings"
NAMES = sorted(path.stem for path in RECORDED.glob("slub_debug_*.txt"))
# crime, damage (offset, length), who is to be asked, who called when it was found
TRUE = {
    "slub_debug_destroy_with_live_objects": ("live at destroy", None, None, "o_init+0x1590", "o_init+0x15b0"),
    "slub_debug_double_free": ("double free", None, None, "o_init+0x165a", "o_init+0x165a"),
    "slub_debug_free_to_wrong_cache": ("wrong cache", None, None, "o_init+0x1692", "o_init+0x1692"),
    "slub_debug_kfree_inner_pointer": ("inner pointer", None, None, "o_init+0x16e6", "o_init+0x16e6"),
    "slub_debug_kmalloc_overflow": ("overflow", 64, 2, "o_init+0x16b2", "o_init+0x16c5"),
    "slub_debug_use_after_free": ("use after free", 10, 1, "", "o_init+0x1607"),
    "slub_debug_write_before_object": ("underflow", -1, 1, "o_init+0x16f5", "o_init+0x1704"),
    "slub_debug_write_past_object": ("overflow", 100, 2, "o_init+0x162c", "o_init+0x1642"),
}


def text_of(name: str) -> str:
    return (RECORDED / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_recorded_reports(name: str) -> None:
    r = read_slab_report(text_of(name))
    assert (r.crime, r.offset, r.length, r.suspect, r.caller) == TRUE[name]


def test_all_eight_are_here() -> None:
    assert set(NAMES) == set(TRUE)


def test_who_freed_it_before_is_told_apart() -> None:
    before = read_slab_report(text_of("slub_debug_kmalloc_overflow"))
    assert before.freed == "ftrace_set_hash+0x190"
    assert "ftrace_set_hash+0x190, innocent here" in str(before)
    after = read_slab_report(text_of("slub_debug_use_after_free"))
    assert "o_init+0x15f4. Look there for a pointer that was kept" in str(after)


def test_each_line_is_kept_and_those_that_matter_are_explained() -> None:
    text = text_of("slub_debug_write_past_object")
    r = read_slab_report(text)
    said = {line: words for line, words in r.lines if words}
    assert said["Redzone  ffff8d734334d600: cc cc cc cc cc cc cc cc                          ........"] == (
        "left guard, intact, object in use"
    )
    assert "not intact" in said["Redzone  ffff8d734334d66c: 41 42 cc cc                                      AB.."]
    assert said[" o_init+0x1642/0x2000 [oracle]"] == "who called the allocator when it was found: not the culprit"
    assert " o_init+0x162c/0x2000 [oracle]" not in said
    assert any(words.startswith("2 bytes damaged: the first behind an object of 100 bytes") for words in said.values())


def test_the_models_reports_are_read_like_the_kernels() -> None:
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create("net_buf", 100, 0, 0, None)
    with m.caller("net_open+0x40"):
        p, q = (m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(2))
    m.write(p + 103, b"x")
    m.write(q - 3, b"yz")
    with m.caller("net_close+0x12"):
        m.kmem_cache_free(c, p)
        m.kmem_cache_free(c, q)
        m.kmem_cache_free(c, q)
    over, under, *_ = reports = read_slab_reports(m.dmesg())
    assert (over.crime, over.offset, over.length, over.suspect) == ("overflow", 103, 1, "net_open+0x40")
    assert (under.crime, under.offset, under.length, under.caller) == ("underflow", -3, 2, "net_close+0x12")
    assert len(reports) >= 2


def test_a_destroy_is_one_report() -> None:
    """The list of objects and the warning after it belong together; a second destroy is another one."""
    text = text_of("slub_debug_destroy_with_live_objects")
    assert [r.suspect for r in read_slab_reports(text)] == ["o_init+0x1590"]
    assert len(read_slab_reports(text + text)) == 2


def test_no_report() -> None:
    with pytest.raises(ValueError, match="no slab report: a line 'BUG cache"):
        read_slab_report("all is well\n")
    assert read_slab_reports("") == []


@settings(max_examples=150, deadline=None)
@given(damaged([text_of(name) for name in NAMES]))
def test_damaged_reports_never_break_the_reader(text: str) -> None:
    """Every report that is left has its headline and its lines."""
    for r in read_slab_reports(text):
        assert r.cache in r.headline
        assert str(r).startswith(r.headline)
