"""Questions of lesson 04, rounds 4 to 6: two tasks and one pool, the fire again, resize and destroy, old tenants."""

from __future__ import annotations

from functools import cache
from typing import Any

from kmemlab_widgets.questions import Box, BoxesQuestion, Choice, NumberQuestion, Question
from pools_questions import Numbered, drained, fire, fresh

from kmemlab import __GFP_FS, __GFP_IO, __GFP_ZERO, GFP_KERNEL, GFP_NOIO, Completion, Machine, Stuck

# --- 4: two tasks, two elements each ------------------------------------------------------------------------------


@cache
def two_copies(min_nr: int, tasks: int = 2) -> tuple[str, str, int]:
    """Tasks that each need two elements: (how it ends, what the log says after ten minutes, fruitless tries)."""
    parts = fresh(min_nr)
    parts.works = False
    parts.masks.clear()
    m, done = parts.m, Completion()

    def copy(k: Any) -> Any:
        src = yield from k.mempool_alloc(parts.pool, GFP_NOIO)
        yield from k.msleep(1)
        dst = yield from k.mempool_alloc(parts.pool, GFP_NOIO)
        yield from k.msleep(10)
        k.mempool_free(src, parts.pool)
        k.mempool_free(dst, parts.pool)

    def sync(k: Any) -> Any:
        yield from k.wait_for_completion(done)

    for n in range(tasks):
        m.spawn(copy, f"copy-{n}")
    m.run(until=600_000)
    alone = m.dmesg()
    if not m.tasks:
        return "end", alone, len(parts.masks)
    m.spawn(sync, "sync")
    m.run(until=1_000_000)
    return "stop", m.dmesg() if not alone else f"both\n{alone}", len(parts.masks)


def predict_two(m: Any, seed: int) -> Question:
    """Two copies from a pool of two."""
    return Question(
        ask="A copy needs two elements, one after the other; the pool has two, `alloc_fn` fails. One task alone works. "
        "Two tasks?",
        choices=[
            Choice("turns", "one after the other", "Both have begun before either is done.\nEach holds one."),
            Choice("end", "both, a little slower", "Each holds one and waits for a second.\nWho gives one back?"),
            Choice("stop", "both stop for ever"),
            Choice("null", "one of them gets NULL", "GFP_NOIO may sleep.\nSuch a caller is never told NULL."),
        ],
        answer=two_copies(2)[0],
        right="Each holds what the other needs. One more element would let one of them finish.",
    )


def predict_report(m: Any, seed: int) -> Question:
    """Who the hung-task detector names."""
    _, log, tries = two_copies(2)
    named = [name for name in ("copy-0", "copy-1", "sync") if f"task {name}:" in log]
    answer = "sync" if named == ["sync"] else "copies" if "copy-0" in named else "nothing"
    return Question(
        ask="They have been standing there for ten minutes, and a third task, `sync`, waits until both are "
        "done. Whom does "
        "the kernel's log name?",
        choices=[
            Choice(
                "copies",
                "the two copies",
                "Each wakes every 5 seconds, tries, sleeps again.\nThe detector asks: did "
                f"it run at all in 120 seconds? It did, 24 times ({tries} tries in ten minutes and more).",
            ),
            Choice("one", "one of the copies, which began it", "Neither began it.\nAnd both run every 5 seconds."),
            Choice("sync", "`sync`"),
            Choice("nothing", "nobody", "Nobody of the two.\nBut one task has not run for two minutes."),
        ],
        answer=answer,
        right="The report names the one who waits for the guilty. Ask what it waits for, and follow.",
    )


@cache
def smallest(tasks: int, each: int) -> int:
    """The smallest min_nr with which so many tasks that need so many elements each come to an end."""
    for min_nr in range(each, tasks * each + 1):
        parts = fresh(min_nr)
        parts.works = False

        def task(k: Any, parts: Numbered = parts) -> Any:
            held = []
            for _ in range(each):
                held.append((yield from k.mempool_alloc(parts.pool, GFP_NOIO)))
                yield from k.msleep(1)
            for element in held:
                k.mempool_free(element, parts.pool)

        for n in range(tasks):
            parts.m.spawn(task, f"task-{n}")
        try:
            parts.m.run()
        except Stuck:
            continue
        return min_nr
    return tasks * each


def predict_smallest(m: Any, seed: int) -> NumberQuestion:
    """The smallest safe pool for four tasks that need three each."""
    tasks, each = [(4, 3), (3, 3), (5, 3)][seed % 3]
    answer = smallest(tasks, each)
    return NumberQuestion(
        ask=f"{tasks} tasks, each needs {each} elements of one pool at the same time. What is the smallest "
        "`min_nr` with "
        "which they always come to an end?",
        answer=answer,
        unit="elements",
        wrong={
            each: f"One task could finish with {each}.\nBut all {tasks} begin, and each holds some.",
            tasks: "Each holds one then, and all wait.",
            tasks * each: f"Safe, and {tasks * each - answer} elements more than needed are locked away.",
            tasks + each - 1: "Right for two tasks, by luck.\nLet all of them hold all but one.",
            tasks * (each - 1): "Exactly one too few.\nEverybody holds all but one, and nobody can go on.",
        },
        otherwise="The worst moment: everybody holds all but one. How many more are needed then?",
        right=f"{tasks} x ({each} - 1) + 1 = {answer}: if everybody holds all but one, one more lets somebody finish.",
    )


# --- 5: the fire again ---------------------------------------------------------------------------------------------


def predict_one(m: Any, seed: int) -> Question:
    """What a pool of one does for two hundred dirty pages."""
    how, ms, _ = fire(1)
    return Question(
        ask="The fire again, with a pool of **one** request structure, filled before memory was full. 200 "
        "dirty pages, a disk "
        "of 5 ms. What happens?",
        choices=[
            Choice(
                "stop",
                "it stops after the first page",
                "The first page is written, its request comes back.\nWhere does it go?",
            ),
            Choice("written", "all are written, one at a time"),
            Choice(
                "200",
                "it stops: 200 pages need 200 requests",
                "Not at the same time.\nEach request is given back before the next is needed.",
            ),
        ],
        answer="written" if how == "written" else "stop",
        right=f"All, in {ms:,.0f} ms. One element buys progress; more of them buy speed.",
    )


def predict_speed(m: Any, seed: int) -> BoxesQuestion:
    """How long writers need, for three sizes of the reserve."""
    times = {reserve: round(fire(reserve, 4)[1]) for reserve in (1, 4, 16)}
    one = times[1]
    return BoxesQuestion(
        ask="Four writers, 200 pages, 5 ms each on the disk, while memory stays gone until they have "
        "written. How long does "
        "it take?",
        boxes=[
            Box(
                label="min_nr 1",
                answer=times[1],
                tolerance=one * 0.15,
                unit="ms",
                wrong={
                    one // 4: "Four writers, but one request: they take turns.",
                },
                otherwise="One request at a time, 200 of them.",
            ),
            Box(
                label="min_nr 4",
                answer=times[4],
                tolerance=one * 0.08,
                unit="ms",
                wrong={
                    one: "Four requests are on their way at once.",
                },
                otherwise="Four at a time: a quarter.",
            ),
            Box(
                label="min_nr 16",
                answer=times[16],
                tolerance=one * 0.08,
                unit="ms",
                wrong={
                    one // 16: "There are four writers.\nTwelve elements lie there unused.",
                },
                otherwise="How many can be used at once by four writers?",
            ),
        ],
        right=(
            f"{times[1]:,}, {times[4]:,} and {times[16]:,} ms. A reserve larger than the number of writers "
            "is locked away."
        ),
    )


@cache
def hard_mask(mask: int) -> int:
    """The mask of the try in earnest."""
    parts = drained()
    parts.m.after(100, lambda: parts.m.mempool_free("0", parts.pool))
    parts.take(mask)
    return parts.masks[1]


def predict_gfp(m: Any, seed: int) -> Question:
    """May the writer use GFP_KERNEL with a pool."""
    kernel, noio = hard_mask(int(GFP_KERNEL)), hard_mask(int(GFP_NOIO))
    calls = bool(kernel & (__GFP_IO | __GFP_FS)) and not noio & (__GFP_IO | __GFP_FS)
    return Question(
        ask="With a pool behind it, may the writer ask with `GFP_KERNEL` instead of `GFP_NOIO`?",
        choices=[
            Choice(
                "yes",
                "yes: the pool protects it",
                f"When the reserve is empty the second try has your full mask, "
                f"{kernel:#x}.\nIt may start I/O and wait for the writer: for you.",
            ),
            Choice("no", "no"),
            Choice(
                "atomic",
                "no, it must be GFP_ATOMIC",
                "Then it gets NULL when the reserve is empty.\nA writer may wait, just not for itself.",
            ),
        ],
        answer="no" if calls else "yes",
        recorded=True,
        right=f"`alloc_fn` would see {kernel:#x}, with IO and FS in it; with GFP_NOIO it sees {noio:#x}. The "
        "pool is the "
        "last resort, not the first.",
    )


@cache
def under_a_lock() -> str:
    """What a checking kernel says of mempool_alloc(GFP_KERNEL) under a spinlock while memory is plenty."""
    m = Machine("linux-6.1", memory="64M", config=("DEBUG_ATOMIC_SLEEP",))
    pool = m.mempool_create_kmalloc_pool(4, 256)
    with m.spin_lock("lock"):
        m.mempool_alloc(pool, GFP_KERNEL)
    return m.dmesg().partition("\n")[0]


def predict_lock(m: Any, seed: int) -> Question:
    """mempool_alloc(GFP_KERNEL) under a spinlock."""
    said = under_a_lock()
    return Question(
        ask="`mempool_alloc(pool, GFP_KERNEL)` with a spinlock held; the pool is full, memory is plenty, "
        "the kernel is built "
        "with `DEBUG_ATOMIC_SLEEP`.",
        choices=[
            Choice("fine", "fine: it will not have to sleep", "The check looks at the mask, not at your luck."),
            Choice("null", "it gets NULL", "The mask may sleep, so it is not told NULL."),
            Choice("bug", "the element, and a complaint in the log"),
        ],
        answer="bug" if said else "fine",
        recorded=True,
        right=f"`{said}`. A pool does not make GFP_KERNEL safe there. `mempool_free` is legal anywhere.",
    )


# --- 6: resize, destroy, old tenants -----------------------------------------------------------------------


@cache
def resized() -> list[tuple[int, int, int]]:
    """(return value, curr_nr, min_nr) after growing to 6, shrinking to 2, growing to 5 with a broken allocator."""
    parts, seen = fresh(), []
    for nr, works in ((6, True), (2, True), (5, False)):
        parts.works = works
        seen.append((parts.m.mempool_resize(parts.pool, nr), parts.pool.curr_nr, parts.pool.min_nr))
    return seen


def predict_resize(m: Any, seed: int) -> BoxesQuestion:
    """What resize returns and leaves."""
    (_, six, _), (_, two, _), (last, left, wanted) = resized()
    return BoxesQuestion(
        ask="A pool of 4. Resize it to 6, then to 2, then, with a failing `alloc_fn`, to 5.",
        boxes=[
            Box(label="curr_nr after 6", answer=six, otherwise="Growing fills the reserve at once, with GFP_KERNEL."),
            Box(label="curr_nr after 2", answer=two, otherwise="What is too much goes to free_fn."),
            Box(
                label="return value for 5",
                answer=last,
                wrong={-12: "-ENOMEM is only for the array of pointers.\nFilling it is best effort."},
                otherwise="Growing is best effort.",
            ),
            Box(
                label="curr_nr then",
                answer=left,
                wrong={5: "alloc_fn fails.\nFrom where would they come?"},
                otherwise="Nothing came, nothing went.",
            ),
        ],
        recorded=True,
        right=f"{six}, {two}, {last}, {left}; min_nr is {wanted} now, and the next frees fill it up.",
    )


def predict_destroy(m: Any, seed: int) -> Question:
    """Destroying a pool while an element is out."""
    parts = fresh()
    parts.works = False
    parts.take()
    before = parts.m.dmesg()
    parts.m.mempool_destroy(parts.pool)
    silent = parts.m.dmesg() == before
    return Question(
        ask="`mempool_destroy(pool)` while one element is out. What does 6.1 do?",
        choices=[
            Choice("bug", "it stops with a BUG", "2.6.11 did: BUG if curr_nr is not min_nr.\nThe check went in 3.3."),
            Choice("wait", "it waits for the element", "It does not know that one is out.\nNobody counts."),
            Choice("silent", "it frees the reserve and says nothing"),
            Choice("warn", "a warning in the log", "Caches warn about objects that are out.\nPools do not."),
        ],
        answer="silent" if silent else "warn",
        recorded=True,
        right="Not a word. The late `mempool_free` goes into a pool that is gone. The old BUG was a favour.",
    )


@cache
def old_tenant() -> bool:
    """Whether an element from the reserve, asked for with __GFP_ZERO, has the last owner's bytes."""
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_kmalloc_pool(1, 128)
    (element,) = pool.elements
    m.write(element, b"password")
    while m.kmalloc(128, 0xA20 | 0x2000):
        pass
    got = m.mempool_alloc(pool, 0xA20 | __GFP_ZERO)
    return m.read(got, 8) == b"password"


def predict_tenant(m: Any, seed: int) -> Question:
    """Is an element zeroed with __GFP_ZERO."""
    return Question(
        ask="`mempool_alloc(pool, GFP_ATOMIC|__GFP_ZERO)`. Is the element zeroed?",
        choices=[
            Choice("yes", "yes, always", "The allocator would zero it.\nBut who clears what rests in the reserve?"),
            Choice("never", "no, never", "When memory is there the mask reaches the allocator, and it zeroes."),
            Choice("luck", "only while memory is there"),
        ],
        answer="luck" if old_tenant() else "yes",
        recorded=True,
        right="From the allocator: zeros. From the reserve: the last owner's bytes. The mask works on "
        "allocators; the pool "
        "only passes it on.",
    )


# --- scull with a pool ---------------------------------------------------------------------------------------------


@cache
def scull(min_nr: int) -> tuple[int, int]:
    """A device that keeps its quanta of 4,000 bytes: (quanta it still gets when memory is gone, in reserve after)."""
    m = Machine("linux-6.1", memory="64M")
    pool = m.mempool_create_slab_pool(min_nr, m.kmem_cache_create("scull_quantum", 4000, 0, 0, None))
    while m.alloc_page(0xA20 | 0x2000):
        pass
    while m.kmem_cache_alloc(pool.pool_data, 0xA20 | 0x2000):
        pass
    quanta = 0
    while m.mempool_alloc(pool, 0x800):
        quanta += 1
    return quanta, pool.curr_nr


def predict_scull(m: Any, seed: int) -> NumberQuestion:
    """How much scull can still store from a pool of four."""
    quanta, left = scull(4)
    return NumberQuestion(
        ask=(
            "`scull` stores what is written to it in quanta of 4,000 bytes. Give it a pool of 4. Memory is gone; how "
            "many bytes can still be written (with GFP_NOWAIT), until nothing is read or trimmed?"
        ),
        answer=quanta * 4000,
        unit="bytes",
        wrong={
            0: "The soft try fails.\nThen the reserve is asked.",
            4000: "The first one leaves three in reserve.",
            16384: "A quantum has 4,000 bytes; the rest of its slot is not scull's.",
        },
        otherwise="Every element of the reserve is one quantum, and scull keeps it.",
        right=(
            f"{quanta} quanta, {quanta * 4000:,} bytes, and then {left} are in reserve. A device that *keeps* its "
            "elements drains a pool and nobody refills it. Pools are for what comes back soon."
        ),
    )


PREDICTIONS = {
    "two": predict_two,
    "report": predict_report,
    "smallest": predict_smallest,
    "one": predict_one,
    "speed": predict_speed,
    "gfp": predict_gfp,
    "lock": predict_lock,
    "resize": predict_resize,
    "destroy": predict_destroy,
    "tenant": predict_tenant,
    "scull": predict_scull,
}
