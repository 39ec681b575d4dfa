"""explain(): one story of a call, whichever way it went."""

from __future__ import annotations

import re

import pytest

from kmemlab import (
    __GFP_MEMALLOC,
    __GFP_NOWARN,
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER_MOVABLE,
    GFP_KERNEL,
    GFP_NOWAIT,
    Machine,
)
from kmemlab.events import LabReclaim, LabZone
from kmemlab.story import Scale, Step, Story
from tests.engine.calls import random_calls

SHAPES = {"64M": {"memory": "64M", "cpus": 2}, "5G": {"memory": "5G"}, "16M": {"memory": "16M", "cpus": 3}}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_the_same_story_with_and_without_an_observer(shape: str, seed: int) -> None:
    """Hits, refills, direct blocks, frees to a list, direct frees, drains, failures: word for word the same."""
    quiet, loud = Machine("linux-6.1", **SHAPES[shape]), Machine("linux-6.1", **SHAPES[shape])
    loud.events.subscribe(lambda event: None)
    kinds = set()
    for one, two in zip(random_calls(quiet, seed, 1200, []), random_calls(loud, seed, 1200, []), strict=True):
        assert one == two
        if one[0] in ("alloc", "free"):
            story = quiet.explain()
            assert str(story) == str(loud.explain())
            assert story == loud.explain()
            kinds |= {step.function for step in story.steps}
            check_story(story, one)
    expected = {
        "rmqueue_pcplist", "rmqueue_bulk", "__rmqueue", "rmqueue_buddy", "free_unref_page_commit",
        "free_pcppages_bulk", "__free_one_page", "zone_watermark_fast", "get_page_from_freelist",
    }  # fmt: skip
    assert kinds >= expected - ({"free_pcppages_bulk"} if shape == "5G" else set())  # lists too long to overflow


def check_story(story: Story, call) -> None:
    """A story names the call and its outcome; its verdicts are those of its scales."""
    if call[0] == "alloc":
        _, _, order, pfn = call
        assert story.headline.startswith("alloc_pages(")
        assert f", {order}) = {f'pfn {pfn}' if pfn >= 0 else 'NULL'}: " in story.headline
    else:
        assert story.headline.startswith(f"__free_pages(pfn {call[1]}, {call[2]}): ")
    assert story.steps
    for step in story.steps:
        assert step.floor in {"page_alloc", "pcplist", "buddy", "vmscan", "compaction"}
        assert "\n" not in step.say
        if step.scale and step.verdict:
            assert step.scale.passed
        if step.scale and not step.scale.passed:
            assert step.verdict is False
            assert f"{step.scale.have:,} free is not above" in step.say


def test_explaining_changes_nothing() -> None:
    """explain() may be asked any number of times: it is the same story, and the run goes on the same."""
    asked, silent = Machine("linux-6.1", memory="32M"), Machine("linux-6.1", memory="32M")
    for one, two in zip(random_calls(asked, 4, 800, []), random_calls(silent, 4, 800, []), strict=True):
        assert one == two
        assert str(asked.explain()) == str(asked.explain())


def test_before_the_first_call() -> None:
    """A machine that was asked nothing says so instead of failing."""
    assert str(Machine("linux-6.1", memory="32M").explain())


def test_a_hit_on_this_cpus_list() -> None:
    """The second request finds what the first one's refill left."""
    m = Machine("linux-6.1", memory="256M")
    m.alloc_pages(GFP_KERNEL, 0)
    page = m.alloc_pages(GFP_KERNEL, 0)
    text = str(m.explain())
    assert text.splitlines()[0] == f"alloc_pages(GFP_KERNEL, 0) = pfn {page.pfn}: the head of this CPU's list in DMA32"
    assert f"pfn {page.pfn} is at the head of CPU 0's list of DMA32, order 0 Unmovable" in text


def test_the_numbers_of_a_failure_are_those_of_the_zone() -> None:
    """At the end of memory each zone's free pages and marks stand in the story as in /proc/zoneinfo."""
    m = Machine("linux-6.1", memory="16M")
    while m.alloc_pages(GFP_NOWAIT, 0):
        pass
    text = str(m.explain())
    assert text.splitlines()[0].startswith("alloc_pages(GFP_NOWAIT, 0) = NULL: ")
    for zone in m.zones:
        assert f"{zone.name}: {zone.nr_free_pages:,} free is not above" in text
        assert f"min {zone.wmark[0] + zone.watermark_boost:,}" in text
    assert "the mask has no __GFP_DIRECT_RECLAIM" in text


def test_rights_to_the_reserves_are_named() -> None:
    """GFP_ATOMIC goes on where GFP_NOWAIT stopped, by half and a quarter; MEMALLOC ignores all marks."""
    m = Machine("linux-6.1", memory="16M")
    while m.alloc_pages(GFP_NOWAIT, 0):
        pass
    assert m.alloc_pages(GFP_ATOMIC, 0)
    while m.alloc_pages(GFP_ATOMIC, 0):
        pass
    assert "__GFP_HIGH: half of min, may not sleep: a quarter less" in str(m.explain())
    m.drain_all_pages()
    assert m.alloc_pages(GFP_ATOMIC | __GFP_MEMALLOC, 0)


def test_another_types_block_is_a_theft() -> None:
    """When a type's lists are empty the story names whose block was taken, and what became of the pageblock."""
    m = Machine("linux-6.1", memory="64M")
    m.alloc_pages(GFP_KERNEL, 4)
    text = str(m.explain())
    assert "Unmovable lists are empty: an order-10 block of Movable is taken" in text
    assert "its pageblock changes hands" in text


def test_zones_that_said_no_are_in_the_headline() -> None:
    """A request served by a lower zone says which zones were asked before."""
    m = Machine("linux-6.1", memory="32M")
    m.sysctl("vm.lowmem_reserve_ratio", [0, 0, 0, 0, 0])
    page = m.alloc_pages(GFP_KERNEL, 0)
    while page.zone.name != "DMA":
        page = m.alloc_pages(GFP_KERNEL, 0)
    assert ", after DMA32 said no" in str(m.explain()).splitlines()[0]


def test_a_long_slow_path_is_folded() -> None:
    """Seventeen rounds over unchanged zones are not told seventeen times in full, and each is counted."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    while m.alloc_pages(GFP_KERNEL, 0):
        pass
    story = m.explain()
    text = str(story)
    assert "OOM killer" in text
    assert "14 more rounds like this: rounds 3 to 16" in text
    assert len(text.splitlines()) < 36
    assert len(re.findall(r"direct reclaim freed", text)) <= 4
    tried = [e for step in story.steps for e in step.events if isinstance(e, LabReclaim)]
    assert len(tried) == sum(isinstance(e, LabReclaim) for e in m.last_events()) == 17


def test_a_round_tells_what_was_tried_and_found() -> None:
    """Look, reclaim, decision with its numbers; the look that served stands in full, with its scale."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    m.read_file("log", "30M")
    while m.alloc_pages(__GFP_NOWARN, 0):  # wakes nobody
        pass
    assert m.alloc_pages(GFP_KERNEL, 0)
    story, events = m.explain(), m.last_events()
    (step,) = [step for step in story.steps if step.parts]
    (reclaim,) = [e for e in events if isinstance(e, LabReclaim)]
    assert step.say == f"round 1: reclaim freed {reclaim.progress} pages"
    assert [part.function for part in step.parts if part.floor == "vmscan"][-1] == "try_to_free_pages"
    look = step.parts[0]
    refused = [e for e in events if isinstance(e, LabZone) and not e.passed]
    assert look.verdict is False
    assert all(f"{e.zone} {e.free:,} is not above {e.mark + e.protection:,}" in look.say for e in refused[-2:])
    after = story.steps[story.steps.index(step) + 1 :]
    assert after[0].function == "get_page_from_freelist"
    assert after[1].scale.passed
    assert story.headline.endswith("in round 1 of reclaim")
    assert str(step) in str(story)
    assert all(f"      {part}" in str(story).splitlines() for part in step.parts)


def test_the_kill_stands_between_the_rounds() -> None:
    """OOM: the last look at high is in its round, the victim has a step of its own, the headline names it."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    m.process("hog", "20M")
    while m.alloc_pages(GFP_NOWAIT | 0x2000, 0):
        pass
    page = m.alloc_pages(GFP_KERNEL, 0)
    story = m.explain()
    kill = next(i for i, step in enumerate(story.steps) if step.function == "out_of_memory")
    assert "before anybody is killed, down to high" in story.steps[kill - 1].parts[-1].say
    assert story.steps[kill + 1].say.startswith("round 18: ")
    assert story.headline.startswith(f"alloc_pages(GFP_KERNEL, 0) = pfn {page.pfn}: ")
    assert "after hog/" in story.headline


def test_null_is_explained_by_the_mark_that_decided() -> None:
    """Not by the high mark, at which is looked only before somebody is killed."""
    m = Machine("linux-6.1", memory="64M")
    m.sysctl("watermark_boost_factor", 0)
    while m.alloc_pages(GFP_KERNEL | 0x4000, 0):
        pass
    zones = {zone.name: zone for zone in m.zones}
    low = zones["DMA32"]
    assert f"DMA32 {low.nr_free_pages:,} is not above {low.wmark[0]:,}" in m.explain().headline


def test_a_free_tells_where_it_went() -> None:
    """Kept on the CPU's list, or merged and listed: with the count and the limit, or the block it became."""
    m = Machine("linux-6.1", memory="64M")
    small, large = m.alloc_pages(GFP_HIGHUSER_MOVABLE, 0), m.alloc_pages(GFP_KERNEL | GFP_DMA, 6)
    m.__free_pages(small, 0)
    assert f"__free_pages(pfn {small.pfn}, 0): kept at the head of CPU 0's list in DMA32" in str(m.explain())
    assert "is the limit" in str(m.explain())
    m.__free_pages(large, 6)
    assert "back on the free lists of DMA as a block of order" in str(m.explain())


def test_story_types() -> None:
    """Scale is strict (equal is not above); a story's text, repr and steps are the same data."""
    assert not Scale(5, (("min", 3), ("protection", 2))).passed
    assert Scale(6, (("min", 3), ("protection", 2))).passed
    story = Story("h", (Step("buddy", "f", "file", "said", "why", True), Step("buddy", "f", "file", "no", "", False)))
    assert str(story) == repr(story) == "h\n 1  buddy      ✓ said (why)\n 2  buddy      ✕ no"
