"""Questions of lesson 01 on reclaim: who gets memory on a full machine, whose help a mask can bear, how hard it tries.

Verdicts come from the engine or, where real time decides, from curves recorded on a real kernel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flags_sleep import fill, full
from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, Question

from kmemlab import (
    __GFP_FS,
    __GFP_NOFAIL,
    __GFP_NORETRY,
    __GFP_NOWARN,
    __GFP_RETRY_MAYFAIL,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOIO,
    GFP_NOWAIT,
    SHRINK_STOP,
    HungTask,
    Machine,
    recorded_pressure,
)

FS = __GFP_FS  # inside a class Python would mangle the kernel's name


# --- who gets memory ------------------------------------------------------------------------------------------


@cache
def got(name: str) -> int:
    """Pages a recorded run got: k, a, n for GFP_KERNEL, ATOMIC, NOWAIT without rest, ky, ay, ny with a tick's rest."""
    return recorded_pressure(f"reclaim-{name}-smp1-256M")[-1].got


def predict_who(m: Any, seed: int) -> Question:
    """Which mask gets most on a machine full of page cache."""
    atomic, nowait, kernel = got("a"), got("n"), got("k")
    best = max((atomic, "atomic"), (nowait, "nowait"), (kernel, "kernel"))[1]
    return Question(
        ask="256 MiB, nearly all of it clean page cache, about 3 MiB free. Somebody wants 30,000 pages, one after the "
        "other, without a pause. Who gets most?",
        choices=[
            Choice(
                "atomic",
                "`GFP_ATOMIC`: it has the reserve",
                "The reserve is shallow.\nDMA32: 411 - 154 = 257 pages. What then?",
            ),
            Choice(
                "nowait",
                "`GFP_NOWAIT`: it loses no time",
                "It loses no time, and it makes no page either.\nIt stops at min, long before 30,000.",
            ),
            Choice("kernel", "`GFP_KERNEL`"),
            Choice(
                "same",
                "all the same: page cache is as good as free",
                "Page cache must be taken back by somebody who may wait.\nThat is the caller itself or kswapd.",
            ),
        ],
        answer=best,
        recorded=True,
        right=f"`GFP_KERNEL`: {kernel:,} of 30,000. `GFP_ATOMIC` got {atomic:,}, `GFP_NOWAIT` {nowait:,}. "
        "GFP_KERNEL does "
        "not wait for pages: it cleans up itself.",
    )


def predict_rest(m: Any, seed: int) -> Question:
    """Whom a tick of rest helps."""
    gain = {name: got(name + "y") / got(name) for name in "kan"}
    best = {"k": "kernel", "a": "atomic", "n": "nowait"}[max(gain, key=lambda name: gain[name])]
    return Question(
        ask="Again, but after every 256 pages the caller rests for one tick, 4 ms, and kswapd may run. Whom does that "
        "help most?",
        choices=[
            Choice(
                "kernel", "`GFP_KERNEL`", "It had all 30,000 before.\nIt only reclaims a little less by itself now."
            ),
            Choice("atomic", "`GFP_ATOMIC`"),
            Choice(
                "nowait",
                "`GFP_NOWAIT`",
                "It stops at min, and between two rests it reaches min.\nWho has less room under the line falls first.",
            ),
            Choice(
                "nobody",
                "nobody: the page cache is as large as before",
                "kswapd turns cache into free pages.\nIt needs the CPU for that, and now it gets it.",
            ),
        ],
        answer=best,
        recorded=True,
        right=f"`GFP_ATOMIC`: {got('ay'):,} pages instead of {got('a'):,}. It lives on what kswapd has "
        "cleaned; its reserve "
        f"carries it over the gaps. `GFP_NOWAIT` got {got('ny'):,}.",
    )


# --- whose help: NOFS, NOIO -----------------------------------------------------------------------------------------


class ToyFs:
    """The toy file system of the lesson: a lock, inodes in a cache, a shrinker that takes the lock."""

    def __init__(self, m: Machine, inodes: int = 10_000) -> None:
        self.m, self.lock = m, "fs.lock"
        self.cache = m.kmem_cache_create("toyfs_inode", 1024, 0, 0, None)
        self.inodes = [m.kmem_cache_alloc(self.cache, GFP_KERNEL) for _ in range(inodes)]
        m.register_shrinker(lambda sc: len(self.inodes), self.scan)

    def scan(self, sc: Any) -> int:
        """Give inodes back, under the lock."""
        if not sc.gfp_mask & FS:
            return SHRINK_STOP
        with self.m.mutex_lock(self.lock):
            for _ in range(nr := min(sc.nr_to_scan, len(self.inodes))):
                self.m.kmem_cache_free(self.cache, self.inodes.pop())
        return nr


def crowded() -> Machine:
    """Little page cache, many inodes, and no page above min."""
    m = Machine("linux-6.1", memory="64M")
    m.read_file("notes", "8M")
    return m


@cache
def written(mask: int) -> str:
    """What becomes of a write that allocates with this mask under the lock."""
    m = crowded()
    fs = ToyFs(m)
    fill(m)
    try:
        with m.mutex_lock(fs.lock):
            return "yes" if m.alloc_pages(mask, 0) else "null"
    except HungTask:
        return "hung"


def predict_recurse(m: Any, seed: int) -> Question:
    """A write that allocates under the lock its shrinker wants."""
    return Question(
        ask="There are pages to reclaim, and a process that holds a mutex may sleep. `fs.write()` takes "
        "`fs.lock` and asks "
        "with `GFP_KERNEL`. What happens?",
        choices=[
            Choice("yes", "it gets its page", "Reclaim asks your own shrinker too.\nYour shrinker wants your lock."),
            Choice("null", "it gets NULL", "It does not fail, it waits.\nFor whom?"),
            Choice("hung", "it waits for ever"),
            Choice(
                "kill",
                "a process is killed",
                "The OOM killer comes when reclaim found nothing.\nThis reclaim does not come back at all.",
            ),
        ],
        answer=written(int(GFP_KERNEL)),
        right="It waits for a lock that it holds itself: write, reclaim, its own shrinker, its own lock.",
    )


@cache
def reached(mask: int, *, noio: bool = False) -> int:
    """The mask that reaches the page allocator from inside a scope."""
    m = Machine("linux-6.1", memory="64M")
    _ = m.memalloc_noio_save() if noio else m.memalloc_nofs_save()
    m.alloc_pages(mask, 0)
    return int(next(event.gfp_flags for event in m.last_events() if event.name == "mm_page_alloc"))


def predict_scope(m: Any, seed: int) -> Question:
    """The mask inside a scope."""
    answer = reached(int(GFP_KERNEL))
    masks = {
        int(GFP_KERNEL): "GFP_KERNEL",
        int(GFP_NOFS): "GFP_NOFS",
        int(GFP_NOIO): "GFP_NOIO",
        int(GFP_NOWAIT): "GFP_NOWAIT",
    }
    why = {
        int(
            GFP_KERNEL
        ): "The mask in the source is that.\nThe scope is a flag of the task, and the allocator looks there.",
        int(GFP_NOIO): "That is what memalloc_noio_save does.\nThis scope takes away FS alone.",
        int(GFP_NOWAIT): "The scope does not forbid to sleep.\nIt forbids one kind of help.",
    }
    return Question(
        ask="Between `memalloc_nofs_save()` and `memalloc_nofs_restore()` a library calls `kmalloc(n, "
        "GFP_KERNEL)`. Which "
        "mask reaches the page allocator?",
        choices=[Choice(f"{mask:#x}", f"{mask:#x}, {name}", why.get(mask, "")) for mask, name in masks.items()],
        answer=f"{answer:#x}",
        right=f"{answer:#x}: the scope takes __GFP_FS away from every mask of this task, whoever wrote it.",
    )


# --- how hard --------------------------------------------------------------------------------------------------------

TRIES = {
    "GFP_KERNEL": 0,
    "GFP_KERNEL|__GFP_NORETRY": int(__GFP_NORETRY),
    "GFP_KERNEL|__GFP_RETRY_MAYFAIL": int(__GFP_RETRY_MAYFAIL),
    "GFP_KERNEL|__GFP_NOFAIL": int(__GFP_NOFAIL),
}
ORDERS = (0, 3, 4)


@cache
def fails(extra: int) -> tuple[int, ...]:
    """The orders, of 0, 3 and 4, for which GFP_KERNEL with these bits gets NULL where nothing can be reclaimed."""
    return tuple(order for order in ORDERS if not full().alloc_pages(GFP_KERNEL | extra | __GFP_NOWARN, order))


def predict_tries(m: Any, seed: int) -> BoxesQuestion:
    """Which requests get NULL."""
    words = {(): "never", (4,): "at order 4 only", (0, 3, 4): "at orders 0, 3 and 4"}
    wrong = [
        {
            "at orders 0, 3 and 4": "Small orders (up to 3) do not give up.\nSomebody is killed for them.",
            "never": "Above order 3 nobody is killed for neighbouring pages.",
        },
        {
            "at order 4 only": "NORETRY never calls the OOM killer, whatever the order.",
            "never": "NORETRY makes one round of reclaim.\nThere is nothing to reclaim here.",
        },
        {
            "at order 4 only": "It is not about the order.\nNobody is killed for this mask.",
            "never": "MAYFAIL is its second name.\nIt repeats while that makes progress, and does not kill.",
        },
        {
            "at order 4 only": "NOFAIL holds for every order.\nAbove order 1 the kernel only complains.",
            "at orders 0, 3 and 4": "NOFAIL never returns NULL.\nIt goes on until it has a block.",
        },
    ]
    return BoxesQuestion(
        ask="Nothing can be reclaimed, two processes could be killed. When does each mask get NULL?",
        boxes=[
            Box(label=f"`{name}`", answer=words[fails(bits)], options=tuple(words.values()), wrong=each)
            for (name, bits), each in zip(TRIES.items(), wrong, strict=True)
        ],
        recorded=True,
        right="The mask says how hard the kernel tries, and whom it may kill for you. Up to order 3 plain "
        "GFP_KERNEL kills "
        "rather than fails.",
    )


PREDICTIONS = {
    "who": predict_who,
    "rest": predict_rest,
    "recurse": predict_recurse,
    "scope": predict_scope,
    "tries": predict_tries,
}
