"""Lesson 01: each wrong answer gets its own reason, right ones are accepted."""

from __future__ import annotations

from typing import Any

from tests.lessons.sheet import Questions

SIX = ["spinlock", "rcu", "bh off", "irqs off", "timer", "interrupt"]
FOUR = ["spinlock", "bh off", "timer", "interrupt"]
MATCH = {
    "preempt_count: 1;": "holds a spinlock", "depth: 1": "inside rcu_read_lock", "200": "with bottom halves off",
    "irqs_disabled(): 1; preempt_count: 0": "with interrupts off", ": 100;": "a timer's function",
    "10000": "an interrupt handler",
}  # fmt: skip
ALWAYS, FOURTH, NEVER = "at orders 0, 3 and 4", "at order 4 only", "never"
TRIES = [FOURTH, ALWAYS, ALWAYS, NEVER]


def turned(answers: list[str], at: int, to: str) -> list[str]:
    """The right boxes with another answer in one."""
    return [*answers[:at], to, *answers[at + 1 :]]


def matched(question: Any) -> list[str]:
    """The place that each report names, in the order they are shown."""
    return [next(place for mark, place in MATCH.items() if mark in f"{box.label};") for box in question.boxes]


RIGHT: dict[str, Any] = {
    "changed": "memory", "places": SIX, "match": matched, "debian": FOUR, "onebit": ["noio"], "atomic": "13",
    "bit200": "same", "who": "kernel", "rest": "atomic", "recurse": "hung", "scope": "0xc40", "lowmem": "much",
    "highmem": "some", "tries": TRIES, "d0": "depends", "which": "block", "shelf": "mark", "cure": "ahead",
    "share": "0.9",
}  # fmt: skip
WRONG: list[tuple[str, Any, str]] = [
    ("changed", "driver", "the same line of it"),
    ("changed", "kernel", "the same machine, never restarted"),
    ("changed", "size", "the same 256 bytes"),
    ("places", ["process", *SIX], "Nobody spins for it meanwhile."),
    ("places", ["mutex", *SIX], "Whoever wants it sleeps too."),
    ("match", ["an interrupt handler"] * 6, "preempt_count knows nothing of it"),
    ("debian", [*FOUR, "rcu"], "a reader does not raise it"),
    ("debian", [*FOUR, "irqs off"], "Interrupts off do not raise preempt_count."),
    ("onebit", ["noio", "io"], "Without 0x400 it never runs for you."),
    ("onebit", ["noio", "dma"], "writes `GFP_KERNEL|GFP_DMA`"),
    ("onebit", ["noio", "high"], "To drink deeper is not to wait."),
    ("atomic", "0", "for code that frees memory"),
    ("atomic", "17", "gets another quarter off"),
    ("atomic", "12", "rounds each step down"),
    ("atomic", "34", "That is where GFP_NOWAIT stops."),
    ("atomic", "8", "a quarter of min"),
    ("atomic", "25", "Two steps"),
    ("bit200", "deeper", "A bit less cannot be a right more."),
    ("bit200", "less", "0x200 is not asked for either."),
    ("bit200", "half", "masks with __GFP_HIGH that may sleep"),
    ("who", "atomic", "The reserve is shallow."),
    ("who", "nowait", "it makes no page either"),
    ("who", "same", "must be taken back by somebody who may wait"),
    ("rest", "kernel", "It had all 30,000 before."),
    ("rest", "nowait", "falls first"),
    ("rest", "nobody", "kswapd turns cache into free pages"),
    ("recurse", "yes", "Your shrinker wants your lock."),
    ("recurse", "null", "It does not fail, it waits."),
    ("recurse", "kill", "when reclaim found nothing"),
    ("scope", "0xcc0", "a flag of the task"),
    ("scope", "0xc00", "what memalloc_noio_save does"),
    ("scope", "0x800", "does not forbid to sleep"),
    ("lowmem", "nothing", "Only the first 896 MiB have one."),
    ("lowmem", "ten", "Which zone was never asked?"),
    ("highmem", "each", "Most calls never get there."),
    ("highmem", "never", "The shelf of objects runs out."),
    ("tries", turned(TRIES, 0, ALWAYS), "Somebody is killed for them."),
    ("tries", turned(TRIES, 0, NEVER), "nobody is killed for neighbouring pages"),
    ("tries", turned(TRIES, 1, FOURTH), "NORETRY never calls the OOM killer"),
    ("tries", turned(TRIES, 1, NEVER), "There is nothing to reclaim here."),
    ("tries", turned(TRIES, 2, FOURTH), "It is not about the order."),
    ("tries", turned(TRIES, 2, NEVER), "MAYFAIL is its second name."),
    ("tries", turned(TRIES, 3, FOURTH), "the kernel only complains"),
    ("tries", turned(TRIES, 3, ALWAYS), "It goes on until it has a block."),
    ("d0", "yes", "In 6.1 the bit that allows it is 0x400"),
    ("d0", "no", "the bit 0x10 was __GFP_WAIT"),
    ("which", "amount", "far above 78"),
    ("which", "both", "The amount is no trouble"),
    ("which", "none", "the last column"),
    ("shelf", "other", "They are on this one."),
    ("shelf", "sleep", "not callers"),
    ("shelf", "broken", "One page is what was asked for."),
    ("cure", "kernel", "`BUG: scheduling while atomic: python/1/"),
    ("cure", "nofail", "GFP_ATOMIC cannot sleep, so it cannot wait"),
    ("share", "10", "Drivers take their memory before."),
    ("share", "0.1", "Think of fewer."),
]


class TestQuestions(Questions):
    """Predictions."""

    LESSON, RIGHT, WRONG = "01_flags", RIGHT, WRONG
