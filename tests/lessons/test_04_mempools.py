"""Lesson 04: each wrong answer gets its own reason, right ones are accepted."""

from __future__ import annotations

from typing import Any

from tests.lessons.sheet import Questions

RESERVE, ALLOCATOR = "the reserve", "the allocator"
EMPTY, DRAIN, RESIZE = ["NULL", "NULL", "sleeps"], ["3", "2", "1", "0", "1"], ["6", "2", "0", "2"]
SPEED = ["1000", "250", "250"]


def turned(answers: list[str], at: int, to: str) -> list[str]:
    """The right boxes with another answer in one."""
    return [*answers[:at], to, *answers[at + 1 :]]


RIGHT: dict[str, Any] = {
    "fire": "stuck", "first": "4", "mask": "0x92880", "drain": DRAIN, "empty": EMPTY, "where": [RESERVE, ALLOCATOR],
    "herd": "3", "two": "stop", "report": "sync", "smallest": lambda question: str(question.answer), "one": "written",
    "speed": SPEED, "gfp": "no", "lock": "bug", "resize": RESIZE, "destroy": "silent", "tenant": "luck",
    "scull": "16000",
}  # fmt: skip
WRONG: list[tuple[str, Any, str]] = [
    ("fire", "null", "does not fail"),
    ("fire", "written", "kswapd too would have to wait for the writer."),
    ("fire", "killed", "nobody is killed"),
    ("first", "1", "The reserve is for the day it says no."),
    ("first", "7", "An allocation takes."),
    ("first", "0", "none of them came from there"),
    ("first", "3", "One was not enough either."),
    ("first", "2", "Who is asked first, the allocator or the reserve?"),
    ("mask", "0xcc0", "It drops two bits and adds three."),
    ("mask", "0x800", "do not dig, do not insist, do not shout"),
    ("mask", "0xa20", "digs in the emergency reserve"),
    ("drain", turned(DRAIN, 0, "0"), "The reserve is a stack."),
    ("drain", turned(DRAIN, 4, "2"), "One soft try, then the reserve."),
    ("empty", turned(EMPTY, 0, "sleeps"), "This mask has no __GFP_DIRECT_RECLAIM."),
    ("empty", turned(EMPTY, 0, "an element"), "ATOMIC digs in the page allocator"),
    ("empty", turned(EMPTY, 1, "sleeps"), "NOWAIT is its name."),
    ("empty", turned(EMPTY, 1, "an element"), "nobody is waited for"),
    ("empty", turned(EMPTY, 2, "NULL"), "It tries in earnest, then sleeps."),
    ("empty", turned(EMPTY, 2, "an element"), "It waits until somebody gives one back."),
    ("where", [ALLOCATOR, ALLOCATOR], "A pool first fills its pantry."),
    ("where", ["a waiter", ALLOCATOR], "Nobody is handed an element."),
    ("where", [RESERVE, RESERVE], "the most it keeps"),
    ("where", [RESERVE, "a waiter"], "Nobody waits where the reserve is full."),
    ("herd", "1", "The queue wakes everybody; one wins."),
    ("herd", "0", "A free wakes them at once."),
    ("two", "turns", "Both have begun before either is done."),
    ("two", "end", "Who gives one back?"),
    ("two", "null", "Such a caller is never told NULL."),
    ("report", "copies", "It did, 24 times"),
    ("report", "one", "Neither began it."),
    ("report", "nothing", "one task has not run for two minutes"),
    ("one", "stop", "Where does it go?"),
    ("one", "200", "Not at the same time."),
    ("speed", turned(SPEED, 0, "250"), "they take turns"),
    ("speed", turned(SPEED, 0, "5"), "One request at a time"),
    ("speed", turned(SPEED, 1, "1000"), "Four requests are on their way at once."),
    ("speed", turned(SPEED, 1, "10"), "Four at a time: a quarter."),
    ("speed", turned(SPEED, 2, "62"), "Twelve elements lie there unused."),
    ("speed", turned(SPEED, 2, "900"), "used at once by four writers"),
    ("gfp", "yes", "wait for the writer: for you"),
    ("gfp", "atomic", "it gets NULL when the reserve is empty"),
    ("lock", "fine", "not at your luck"),
    ("lock", "null", "it is not told NULL"),
    ("resize", turned(RESIZE, 0, "4"), "fills the reserve at once"),
    ("resize", turned(RESIZE, 1, "6"), "What is too much goes to free_fn."),
    ("resize", turned(RESIZE, 2, "-12"), "the array of pointers"),
    ("resize", turned(RESIZE, 2, "-1"), "Growing is best effort."),
    ("resize", turned(RESIZE, 3, "5"), "From where would they come?"),
    ("resize", turned(RESIZE, 3, "3"), "Nothing came, nothing went."),
    ("destroy", "bug", "The check went in 3.3."),
    ("destroy", "wait", "It does not know that one is out."),
    ("destroy", "warn", "Pools do not."),
    ("tenant", "yes", "who clears what rests in the reserve?"),
    ("tenant", "never", "the mask reaches the allocator"),
    ("scull", "0", "Then the reserve is asked."),
    ("scull", "4000", "leaves three in reserve"),
    ("scull", "16384", "the rest of its slot is not scull's"),
    ("scull", "1", "Every element of the reserve is one quantum"),
    ("smallest", "3", "But all 4 begin"),
    ("smallest", "4", "Each holds one then, and all wait."),
    ("smallest", "12", "3 elements more than needed are locked away"),
    ("smallest", "6", "Right for two tasks, by luck."),
    ("smallest", "8", "Exactly one too few."),
    ("smallest", "20", "The worst moment: everybody holds all but one."),
]


class TestQuestions(Questions):
    """Predictions."""

    LESSON, RIGHT, WRONG = "04_mempools", RIGHT, WRONG
