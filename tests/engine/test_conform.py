"""conform's own arithmetic (the replays themselves: tests/kernel/test_conform.py)."""

from __future__ import annotations

import sys

import pytest

from kmemlab import GFP_KERNEL, NULL, Machine
from kmemlab.conform import Conformance, compare_states, main


def counted(*pairs) -> Conformance:
    """A Conformance that was told (kernel's pfn, model's page) pairs."""
    result, m = Conformance("x"), Machine(memory="16M")
    m.alloc_pages(GFP_KERNEL, 0)
    for kernel, model in pairs:
        page = NULL if model < 0 else m.memmap[model]
        result.count(m, "call", kernel, page)
    return result


def test_exact_needs_everything() -> None:
    """Pages, failures and end state."""
    result = counted((5, 5), (6, 6), (-1, -1))
    assert (result.total, result.predicted, result.wrong_failures, result.first_miss) == (2, 2, 0, None)
    assert result.exact
    assert str(result) == "x: predicted 2 of 2, 0 wrong failures, end state equal"
    result.differences.append("DMA list")
    assert not result.exact
    assert str(result) == "x: predicted 2 of 2, 0 wrong failures, end state differs (DMA list)"


def test_misses_and_wrong_failures_are_counted_apart() -> None:
    """Another page; a page where the kernel had none; none where it had one."""
    result = counted((5, 5), (6, 7), (-1, 8), (9, -1), (10, 10))
    assert (result.total, result.predicted, result.wrong_failures) == (4, 2, 2)
    assert result.right_before_first_miss == 1
    assert result.miss == "call: model pfn 7, kernel pfn 6"
    assert result.story is not None
    assert not result.exact


def turn_a_list(zone) -> None:
    """Put the first block of a list at its end."""
    pfn = next(zone.free_blocks(10, 1))
    zone.del_from_free_list(pfn)
    zone.add_to_free_list_tail(pfn, 10, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda z: z.pageblock_mt.__setitem__(20, 2), "DMA32 pageblock types"),
        (lambda z: setattr(z, "watermark_boost", 9), "DMA32 watermark_boost: 9 is not 0"),
        (lambda z: setattr(z, "nr_free_pages", 9), "DMA32 nr_free_pages: 9 is not"),
        (lambda z: setattr(z, "nr_reserved_highatomic", 9), "DMA32 nr_reserved_highatomic"),
        (lambda z: setattr(z, "lowmem_reserve", [9] * 5), "DMA32 lowmem_reserve"),
        (lambda z: setattr(z.pcps[0], "free_factor", 3), "DMA32 cpu 0 free_factor: 3 is not 0"),
        (lambda z: setattr(z.pcps[0], "vm_stat_diff", 3), "DMA32 cpu 0 vm_stat_diff"),
        (lambda z: z.pcps[0].lists[0].reverse(), "DMA32 cpu 0 per-CPU list 0"),
        (turn_a_list, "DMA32 free list order 10 type 1"),
    ],
    ids=range(9),
)
def test_every_part_of_the_state_is_compared(change, said: str) -> None:
    """One thing changed, one difference, named."""
    one, two = (Machine(memory="256M") for _ in range(2))
    for m in (one, two):
        m.alloc_pages(GFP_KERNEL, 0)
    assert list(compare_states(one, two)) == []
    zone = one.zones[1]
    change(zone)
    differences = list(compare_states(one, two))
    assert len(differences) == 1
    assert said in differences[0]


def test_loose_comparison_forgives_counters_only() -> None:
    """Real workloads: a folded page in a counter may differ, a list may not."""
    one, two = (Machine(memory="256M") for _ in range(2))
    one.zones[1].nr_free_pages += 1
    one.zones[1].pcps[0].vm_stat_diff -= 1
    assert list(compare_states(one, two, loose=True)) == []
    assert len(list(compare_states(one, two))) == 2
    one.alloc_pages(GFP_KERNEL, 0)
    assert list(compare_states(one, two, loose=True))


def test_the_exit_status_is_the_worst(monkeypatch, capsys) -> None:
    """2 beats 1 beats 0, whatever the order of the files."""
    results = {"good": counted((5, 5)), "wrong": counted((5, 6))}

    def fake(name, without=()):
        if name == "bad":
            raise ValueError("bad: one line")
        return results[name]

    monkeypatch.setattr(sys.modules["kmemlab.conform"], "conform", fake)
    assert [main(files.split()) for files in ("good", "good wrong", "wrong good", "bad wrong", "wrong bad good")] == [
        0, 1, 1, 2, 2,
    ]  # fmt: skip
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["kmemlab conform: bad: one line"] * 2
    assert captured.out.splitlines()[-1] == "total: predicted 1 of 2, end states 2 of 3"
