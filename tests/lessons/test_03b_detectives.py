"""Lesson 03b: each wrong answer gets its own reason, right ones are accepted; typical wrong functions are told why."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from kmemlab import GFP_KERNEL, SLAB_HWCACHE_ALIGN
from kmemlab.slub_reader import read_slab_report
from tests.hunting import look
from tests.lessons.sheet import Exercises, Questions

TRACE = ["no", "no", "no", "yes", "yes", "yes", "no"]
RIGHT: dict[str, Any] = {
    "growth": "sctp_chunk", "past": ["2", "100"], "owner": "owner", "before": "owner", "uaf": "next", "tenant": "owner",
    "inner": "8", "slot": "6", "trace": TRACE, "silent": "nothing", "after": "given up",
}  # fmt: skip


def turned(at: int) -> list[str]:
    """The right answers about the Call Trace with one turned round."""
    return [*TRACE[:at], {"yes": "no", "no": "yes"}[TRACE[at]], *TRACE[at + 1 :]]


WRONG: list[tuple[str, Any, str]] = [
    ("growth", "hid_report", "It is the largest, and it does not grow."),
    ("growth", "ovl_copy", "it gives everything back when it is asked"),
    ("growth", "nf_rule", "one tenant holds each of them"),
    ("growth", "usb_urb", "It takes and gives back"),
    ("past", ["1", "100"], "Both ends of the range count."),
    ("past", ["2", "1644"], "counted from the slab's beginning"),
    ("past", ["2", "108"], "counted from the left guard"),
    ("past", ["2", "99"], "the last of 100"),
    ("past", ["2", "101"], "is number 0"),
    ("past", ["2", "5"], "in decimal"),
    ("owner", "trace", "The Call Trace shows who *found* it"),
    ("owner", "check", "That is the detective."),
    ("owner", "nobody", "one line names whoever holds the pointer"),
    ("before", "left", "cross its own right guard first"),
    ("before", "free", "The free found it."),
    ("uaf", "write", "A write is one instruction"),
    ("uaf", "free", "The free was correct."),
    ("uaf", "never", "The poison is looked at once more."),
    ("tenant", "freed", "the *previous* tenant"),
    ("tenant", "trace", "Found is not done."),
    ("inner", "72", "You forgot the guard."),
    ("inner", "2120", "the place in the page"),
    ("inner", "2056", "Now divide by the stride."),
    ("inner", "0", "Then it would have been right"),
    ("slot", "11", "the stride without debugging"),
    ("slot", "7", "Counted from 1."),
    ("trace", turned(0), "who freed, and so who *found* it"),
    ("trace", turned(1), "The guard was broken long before."),
    ("trace", turned(2), "That caller only asked for memory."),
    ("trace", turned(3), "It is on the stack when it is found."),
    ("trace", turned(4), "The frame after `kmem_cache_free`."),
    ("trace", turned(5), "The frame after `kfree`."),
    ("trace", turned(6), "The trace shows who destroys."),
    ("silent", "report", "There is no guard that could be looked at."),
    ("silent", "stop", "Only a damaged *free pointer* can stop it."),
    ("after", "reused", "the object is not trusted"),
    ("after", "slab", "after a *poison* error"),
]


class TestQuestions(Questions):
    """Predictions."""

    LESSON, RIGHT, WRONG = "03b_slab_detectives", RIGHT, WRONG


# --- exercises ----------------------------------------------------------------------------------------------


HEADS = {
    "Right Redzone": "overflow", "Left Redzone": "underflow", "Poison": "use after free", "allocated objects but":
    "double free", "already free": "double free", "Objects remaining": "live at destroy", "Wrong slab": "wrong cache",
    "Invalid object": "inner pointer",
}  # fmt: skip
OWN = ("dump_stack", "slab_", "check_", "free_", "kmem_cache", "kfree", "object_err", "cache_from", "__slab", "___slab")


def by_hand(report: str, **wrong: bool) -> dict[str, Any]:
    """A learner's reader, with regular expressions; ``wrong`` switches a mistake on."""
    crime = next(crime for head, crime in HEADS.items() if head in report)
    span = re.search(r"(0x[0-9a-f]+)-(0x[0-9a-f]+) @offset=(\d+)", report)
    begins = re.search(r"Object (0x[0-9a-f]+) @offset", report)
    offset = length = None
    if span:
        offset = int(span[3]) if wrong.get("slab") else int(span[1], 16) - int(begins[1], 16)
        length = int(span[2], 16) - int(span[1], 16) + (0 if wrong.get("ends") else 1)
    trace = report.partition("Call Trace:")[2].splitlines()
    frames = [line.strip().split("/")[0] for line in trace if re.match(r"^ [\w.]+\+0x", line)]
    caller = next(frame for frame in frames if not frame.startswith(OWN))
    owner = re.search(r"Allocated in (\S+)", report)
    suspect: str | None = caller
    if crime in ("overflow", "underflow", "live at destroy") and not wrong.get("finder"):
        suspect = owner[1].split("/")[0]
    if wrong.get("tenant") and (freed := re.search(r"Freed in (\S+)", report)):
        suspect = freed[1]
    if crime == "use after free" and not wrong.get("finder"):
        suspect = None
    return {"crime": crime, "offset": offset, "length": length, "suspect": suspect}


def by_the_reader(report: str) -> dict[str, Any]:
    r = read_slab_report(report)
    suspect = r.freed if r.crime == "use after free" else r.suspect
    return {"crime": r.crime, "offset": r.offset, "length": r.length, "suspect": suspect}


def criminal(m: Any, c: Any, crime: str) -> None:
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    if crime == "live at destroy":
        return m.kmem_cache_destroy(c)
    if crime in ("overflow", "underflow"):
        m.write(p + 100 if crime == "overflow" else p - 1, b"!")
    m.kmem_cache_free(c, p)
    if crime == "double free":
        m.kmem_cache_free(c, p)
    if crime == "use after free":
        m.write(p, b"!")
        for _ in range(c.objects):
            m.kmem_cache_alloc(c, GFP_KERNEL)
    return None


def never_looked(m: Any, c: Any, crime: str) -> None:
    p = m.kmem_cache_alloc(c, GFP_KERNEL)
    m.write(p + 100, b"!")


def always_past(m: Any, c: Any, crime: str) -> None:
    never_looked(m, c, crime)
    m.kmem_cache_free(c, next(iter(m.live)))


def the_largest(hunt: Any) -> tuple[str, str]:
    rows = [line.split() for line in hunt.slabinfo().splitlines()[1:]]
    return max(rows, key=lambda row: int(row[1]))[0], "?"


GOOD: list[tuple[str, Callable[..., Any]]] = [
    ("read", by_hand), ("read", by_the_reader), ("commit", criminal), ("solve", look),
    ("plan", lambda sizes: {"quantum": 1100, "cache": True, "flags": 0}),
    ("plan", lambda sizes: {"quantum": 512, "cache": False}),
]  # fmt: skip
BAD: list[tuple[str, Callable[..., Any], str]] = [
    ("read", lambda report: by_hand(report, slab=True), "counted from the slab's beginning"),
    ("read", lambda report: by_hand(report, ends=True), "The range holds both its ends"),
    ("read", lambda report: by_hand(report, finder=True), "it made the call in which the kernel looked"),
    ("read", lambda report: by_hand(report, tenant=True), "before its present owner took it"),
    ("read", lambda report: {"crime": "overflow"}, "Return a dict with crime"),
    ("read", lambda report: by_hand(report) | {"crime": "theft"}, "The headline tells the crime"),
    ("read", lambda report: by_hand(report) | {"offset": -77}, "The first damaged byte is byte"),
    ("commit", never_looked, "Nobody noticed."),
    ("commit", always_past, "That was another crime: overflow."),
    ("solve", the_largest, "large is not growing"),
    ("solve", lambda hunt: look(hunt, drop=False), "SUnreclaim does not move"),
    ("solve", lambda hunt: look(hunt, shared=False), "Half right"),
    ("plan", lambda sizes: {"quantum": 8192, "cache": True}, "no fewer pages than scullc's"),
    ("plan", lambda sizes: {"cache": True}, "A plan has `quantum`"),
    ("plan", lambda sizes: {"quantum": 4000, "cache": True, "flags": SLAB_HWCACHE_ALIGN}, "Records are small"),
]


class TestExercises(Exercises):
    """Exercises."""

    LESSON, GOOD, BAD = "03b_slab_detectives", GOOD, BAD
