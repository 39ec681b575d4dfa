"""Exercises A, D and E of lesson 01: how deep a mask may drink, old masks in a new kernel, reports of failures.

A is in ``flags_levels``, E and the question for the best cure in ``flags_reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flags_levels
import flags_reports
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail

from kmemlab import GFP_KERNEL, gfp_zone, show_gfp_flags
from kmemlab.gfp import FLAGS, gfp_migratetype
from kmemlab.gfp_facts import mask_facts

OLD, NEW = "linux-2.6.11", "linux-6.1"
WORDS = FLAGS[OLD]
ZONES = ("DMA", "Normal", "HighMem", "Movable")  # of a 32-bit machine, where the old words come from
RETRY = ("NORETRY", "RETRY_MAYFAIL", "NOFAIL")


# --- what a mask means --------------------------------------------------------------------------


def _has(mask: int, kernel: str, name: str) -> bool:
    return bool(mask & FLAGS[kernel].get(f"__GFP_{name}", 0))


def _retry(mask: int, kernel: str) -> str:
    return "|".join(name for name in (*RETRY, "REPEAT") if _has(mask, kernel, name))


def meaning(mask: int, kernel: str) -> dict[str, Any]:
    """What a mask asks for, in words that hold in both kernels."""
    says = dict(mask_facts(mask, kernel).may)
    reserves = says["reserves are used"]
    return {
        "sleep": says["the caller sleeps"],
        "kswapd": says["kswapd is woken"],
        "IO": says["reclaim starts I/O"],
        "FS": says["reclaim calls a filesystem"],
        # 2.6.11 let everybody who cannot sleep go a little deeper; 6.1 has no bit for that.
        "reserves": "no" if "3/4" in reserves else reserves,
        "zone": ZONES[gfp_zone(mask & (3 if kernel == OLD else 0xF), highmem=True)],
        "type": 0 if kernel == OLD else gfp_migratetype(mask),
        "cleared": _has(mask, kernel, "ZERO"),
        "compound": _has(mask, kernel, "COMP"),
        "retry": _retry(mask, kernel),
        "silent": _has(mask, kernel, "NOWARN"),
    }


def _may_retry(word: int) -> tuple[str, ...]:
    """How hard the request may try in 6.1. Who cannot sleep never tries again, so there nothing is lost."""
    if not _has(word, OLD, "WAIT"):
        return ("", "NORETRY", "RETRY_MAYFAIL")
    said = _retry(word, OLD)
    return ("RETRY_MAYFAIL", "NOFAIL") if said == "REPEAT" else (said,)


# --- what is wrong with a translation -----------------------------------------------------------

# Bits of 6.1 that are no part of the meaning above, and what they do where nobody asked for them.
BESIDE = {
    "ATOMIC": "it lets a request look below the boost, and a mask with it that may sleep makes the kernel warn",
    "WRITE": "it says that the page will be written to soon, and nothing of trying",
    "THISNODE": "it forbids the other nodes", "ACCOUNT": "it charges the page to a group of processes",
    "MEMALLOC": "it opens the last reserve", "NOMEMALLOC": "it closes the reserves", "ZEROTAGS": "it is for arm64",
}  # fmt: skip


def _moved(word: int, got: int, *names: str) -> str:
    """Which of these old flags stands in ``got`` under its old number, and what the number means now."""
    for name in names:
        bit = int(WORDS[f"__GFP_{name}"])
        if word & bit and got & bit:
            now = next(now for now, bits in FLAGS[NEW].items() if bits == bit)
            return f"{bit:#x} was `__GFP_{name}` in 2.6.11; in 6.1 it is `{now}`"
    return ""


def _about_sleep(word: int, got: int) -> str:
    if not _has(word, OLD, "WAIT"):
        moved = _moved(word, got, "REPEAT")
        return f"{moved or '0x400 is `__GFP_DIRECT_RECLAIM`'}, the sleep bit: {word:#x} must not sleep."
    if got & FLAGS[NEW]["__GFP_KSWAPD_RECLAIM"]:
        return "Only one reclaim bit: 0x800 wakes kswapd. The caller itself may reclaim and sleep by 0x400."
    moved = _moved(word, got, "WAIT")
    return f"{got:#x} in 6.1 cannot sleep: it has no `__GFP_DIRECT_RECLAIM`.{f' {moved}.' if moved else ''}"


def _about_kswapd(word: int, got: int) -> str:
    only = "Only one reclaim bit: 0x400 lets the caller reclaim, but n" if _has(word, OLD, "WAIT") else "N"
    return f"{only}obody wakes kswapd. 2.6.11 did so for every request; in 6.1 a mask must ask for it: 0x800."


def _about_cleared(word: int, got: int) -> str:
    if _has(word, OLD, "ZERO"):
        return f"The pages are not cleared. {_moved(word, got, 'ZERO') or '`__GFP_ZERO` is 0x100 in 6.1'}."
    moved = _moved(word, got, "COLD")
    return f"{moved}: your pages are cleared for nothing." if moved else "Nobody asked for cleared pages (0x100)."


def _about_retry(word: int, got: int) -> str:
    want, moved = _may_retry(word), _moved(word, got, "NOFAIL", "NORETRY", "ZERO")
    if "RETRY_MAYFAIL" in want and _has(word, OLD, "WAIT"):
        moved = "0x400 is the sleep bit now: whoever may sleep has it anyway"
    if not _has(word, OLD, "WAIT"):
        return "A request that cannot sleep cannot keep a promise such as `__GFP_NOFAIL`: the kernel warns."
    said, got_said = (f"`__GFP_{text}`" if text else "nothing" for text in (_retry(word, OLD), _retry(got, NEW)))
    hint = f" {moved}." if moved else ""
    return f"How hard to try: {word:#x} says {said}, your mask says {got_said}.{hint}"


def _about_type(word: int, got: int) -> str:
    moved = _moved(word, got, "WAIT")
    if moved:
        return f"{moved}: the pages go among those that can be reclaimed. It is no leave to sleep."
    return "2.6.11 knew no mobility: `__GFP_MOVABLE` and `__GFP_RECLAIMABLE` promise what nobody promised."


def _about_silent(word: int, got: int) -> str:
    if not _has(word, OLD, "NOWARN"):
        return "`__GFP_NOWARN` (0x2000) hides failures that 2.6.11 reported."
    moved = _moved(word, got, "NOWARN")
    return f"The failure would be reported. {moved or '`__GFP_NOWARN` is lost: it is 0x2000 in 6.1'}."


SENTENCES: dict[str, Callable[[int, int], str]] = {
    "sleep": _about_sleep,
    "kswapd": _about_kswapd,
    "cleared": _about_cleared,
    "retry": _about_retry,
    "type": _about_type,
    "silent": _about_silent,
}


LABELS = {
    "IO": "Reclaim may start I/O", "FS": "Reclaim may call a filesystem", "reserves": "Reserves",
    "zone": "Highest zone (32 bits)", "compound": "A compound page",
}  # fmt: skip


def _beside(word: int, got: int) -> str:
    """A bit that is no part of the meaning and does harm."""
    atomic = _has(word, OLD, "HIGH") and not _has(word, OLD, "WAIT")
    for name, does in BESIDE.items():
        if _has(got, NEW, name) and not (name == "ATOMIC" and atomic):
            bit = int(FLAGS[NEW][f"__GFP_{name}"])
            was = next((old for old in ("NOWARN", "NORETRY") if word & bit & WORDS[f"__GFP_{old}"]), "")
            return f"{bit:#x} {f'was `__GFP_{was}` in 2.6.11; it ' if was else ''}is `__GFP_{name}` in 6.1: {does}."
    return ""


def fault(word: int, got: int) -> str:
    """The first thing in which ``got`` in 6.1 means something else than ``word`` in 2.6.11; nothing if it does not."""
    if not 0 <= got < 1 << 32:
        return f"{got} is no mask: a mask has 32 bits."
    wants, gets = meaning(word, OLD), meaning(got, NEW)
    for aspect, want in wants.items():
        right = gets[aspect] in _may_retry(word) if aspect == "retry" else gets[aspect] == want
        if right:
            continue
        if aspect in SENTENCES:
            why = SENTENCES[aspect](word, got)
        else:
            old, new = (_say(value) for value in (want, gets[aspect]))
            why = f"{LABELS[aspect]}: {old} by {word:#x} in 2.6.11, {new} by your {got:#x} in 6.1."
        return f"The same number is another word now. {why}" if got == word else why
    if why := _beside(word, got):
        return why
    named = sum({int(bits) for name, bits in FLAGS[NEW].items() if name.startswith("__") and bits.bit_count() == 1})
    return f"{got & ~named:#x} has no name in 6.1." if got & ~named else ""


def _say(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


# --- the exercise -------------------------------------------------------------------------------


def _words(sleepers: Sequence[str], others: Sequence[str], *bits: str) -> list[int]:
    return [int(WORDS[base] | WORDS[bit]) for base in (*sleepers, *others) for bit in bits]


SLEEPERS = ("GFP_KERNEL", "GFP_HIGHUSER", "GFP_NOFS", "GFP_NOIO")
ROWS: list[tuple[str, list[int]]] = [
    ("GFP_ATOMIC, 0x20", [0x20]),
    ("may sleep: 0xd0, 0xd2, 0x50, 0x10", [int(WORDS[name]) for name in SLEEPERS]),
    ("zone DMA: 0x1, and with others", [0x01, 0xD1, 0x21]),
    ("with __GFP_NOWARN, 0x200", _words(SLEEPERS, ("GFP_ATOMIC", "GFP_DMA"), "__GFP_NOWARN")),
    ("with __GFP_COLD, 0x100", _words(SLEEPERS, ("GFP_ATOMIC",), "__GFP_COLD")),
    ("with __GFP_REPEAT, 0x400", _words(SLEEPERS, ("GFP_ATOMIC",), "__GFP_REPEAT")),
    ("with __GFP_NORETRY 0x1000 or __GFP_NOFAIL 0x800", _words(SLEEPERS, (), "__GFP_NORETRY", "__GFP_NOFAIL")),
    ("with __GFP_ZERO 0x8000 or __GFP_COMP 0x4000", _words(SLEEPERS, ("GFP_ATOMIC",), "__GFP_ZERO", "__GFP_COMP")),
]  # fmt: skip


def _check(words: list[int]) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        stronger = ""
        for word in words:
            got = fn(word, OLD, NEW)
            if why := fault(word, got):
                shown = f"{word:#x} in 2.6.11: {show_gfp_flags(word, OLD)}; "
                return fail(why, shown + f"your {got:#x} in 6.1: {show_gfp_flags(got) if got >= 0 else '-'}")
            if _has(word, OLD, "REPEAT") and _has(got, NEW, "NOFAIL"):
                stronger = "REPEAT as `__GFP_NOFAIL`: for small orders 2.6.11 never gave up either. The kernel's own "
                stronger += "successor is `__GFP_RETRY_MAYFAIL`, which may fail."
        return CheckResult(True, stronger)

    return run


TRANSLATE = ExerciseSpec(
    letter="D",
    title="an old driver's masks",
    task='`word` is a mask of 2.6.11 (`old` is "linux-2.6.11"). Return the mask that asks for the same in 6.1 (`new` '
    'is "linux-6.1"): the same leave to sleep, the same help and reserves, the same zone, as hard and as loud.',
    signature="def translate(word, old, new) -> mask",
    starter="def translate(word, old, new):\n    return word\n",
    hints=[
        "`decode(word, old)` names the bits of the old word. Which of the names has 6.1 still, and under which number?",
        (
            "`__GFP_WAIT` became `__GFP_RECLAIM`, two bits: 0x400 for the caller, 0x800 for kswapd. 2.6.11 woke "
            "kswapd for every request, so every translation has 0x800."
        ),
        (
            "COLD is gone: drop it. REPEAT became `__GFP_RETRY_MAYFAIL`. NOWARN, NORETRY, NOFAIL, ZERO and COMP "
            "have new numbers; DMA, HIGHMEM, HIGH, IO and FS keep theirs."
        ),
    ],
    returns=(int, type(GFP_KERNEL)),
    checks=[Check(tried, _check(words), "2.6.11 to 6.1") for tried, words in ROWS],
)

STOPS_AT, WHY = flags_levels.STOPS_AT, flags_reports.WHY
PREDICTIONS = flags_reports.PREDICTIONS
EXERCISES = {"stops_at": STOPS_AT, "translate": TRANSLATE, "why": WHY}
