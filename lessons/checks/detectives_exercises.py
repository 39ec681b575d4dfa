"""Exercises of lesson 03b: read any report, commit each crime, win the hunt, plan a driver's cache."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import Any

from detectives_reports import NAMES, recorded
from kmemlab_widgets.leak_hunt import LeakHunt
from kmemlab_widgets.questions import PASS, Check, CheckResult, ExerciseSpec, fail

from kmemlab import GFP_KERNEL, NULL, KernelBug, Machine
from kmemlab.slub_reader import read_slab_reports

# --- A: read a report ---------------------------------------------------------------------------------------

CRIMES = ("overflow", "underflow", "use after free", "double free", "live at destroy")
Truth = dict[str, Any]


@cache
def made(seed: int) -> tuple[str, Truth]:
    """A report that the model makes, and the truth about it."""
    rng = random.Random(seed)
    crime, size = CRIMES[seed % len(CRIMES)], rng.choice((40, 72, 100, 136, 200, 260))
    m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
    c = m.kmem_cache_create(rng.choice(("net_buf", "io_req", "inode_ext")), size, 0, 0, None)
    owner, closer, other = (f"{name}+{rng.randrange(0x10, 0x400):#x}" for name in rng.sample(
        ("rx_start", "tx_done", "req_new", "req_end", "map_page", "probe", "remove"), 3))  # fmt: skip
    with m.caller(owner):
        objects = [m.kmem_cache_alloc(c, GFP_KERNEL) for _ in range(rng.randrange(1, 6))]
    p, length = rng.choice(objects), rng.choice((1, 2, 3))
    offset = None
    with m.caller(closer):
        if crime == "overflow":
            offset = size if size % 8 == 0 else size + rng.randrange(8 - size % 8 - length if size % 8 < 5 else 1)
            m.write(p + offset, b"!" * length)
            m.kmem_cache_free(c, p)
        elif crime == "underflow":
            offset = -rng.randrange(length, 8)
            m.write(p + offset, b"!" * length)
            m.kmem_cache_free(c, p)
        elif crime == "use after free":
            m.kmem_cache_free(c, p)
            offset = rng.randrange(size - length)
            m.write(p + offset, b"!" * length)
            with m.caller(other):
                m.kmem_cache_alloc(c, GFP_KERNEL)
        elif crime == "double free":
            m.kmem_cache_free(c, p)
            with m.caller(other):
                m.kmem_cache_free(c, p)
        else:
            for q in objects:
                if q != p:
                    m.kmem_cache_free(c, q)
            m.kmem_cache_destroy(c)
    suspect = {"use after free": None, "double free": other}.get(crime, owner)
    truth = {"crime": crime, "offset": offset, "length": length if offset is not None else None, "suspect": suspect}
    return m.dmesg(), truth | {"freed": closer, "found": other if crime == "use after free" else closer}


def _kernel_report(name: str) -> tuple[str, Truth]:
    r = recorded(name)
    truth = {"crime": r.crime, "offset": r.offset, "length": r.length, "suspect": r.suspect or None}
    return "\n".join(line for line, _ in r.lines), truth | {"freed": r.freed, "found": r.caller}


def _plain(site: Any) -> Any:
    return site.split("/")[0].split()[0] if isinstance(site, str) and site.strip() else None


def _wrong(answer: Any, truth: Truth, report: str) -> str:
    """What is wrong with the answer to one report, in a sentence; "" if nothing is."""
    if not isinstance(answer, dict) or set(answer) != {"crime", "offset", "length", "suspect"}:
        return "Return a dict with crime, offset, length and suspect."
    if answer["crime"] != truth["crime"]:
        return f"The headline tells the crime: here it is {truth['crime']!r}, you say {answer['crime']!r}."
    if answer["offset"] != truth["offset"]:
        if isinstance(answer["offset"], int) and f"@offset={answer['offset']}." in report:
            return "That offset is counted from the slab's beginning. Subtract where the object begins."
        return f"The first damaged byte is byte {truth['offset']} of the object, you say {answer['offset']}."
    if answer["length"] != truth["length"]:
        return f"The range holds both its ends: {truth['length']} bytes, you say {answer['length']}."
    suspect = _plain(answer["suspect"])
    if suspect == truth["suspect"] or (truth["suspect"] is None and suspect == truth["freed"]):
        return ""
    if truth["suspect"] is None:
        return f"No line names who wrote after the free; {suspect} only found it. None, or where it was freed."
    if suspect == truth["found"]:
        return f"{suspect} found it: it made the call in which the kernel looked. Who owned the object?"
    if suspect == truth["freed"]:
        return f"{suspect} gave the object up before its present owner took it."
    return f"The one to ask is {truth['suspect']}, you say {suspect}."


def _reads(cases: Callable[[], list[tuple[str, Truth]]]) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        for report, truth in cases():
            if why := _wrong(fn(report), truth, report):
                head = next((line for line in report.splitlines() if "BUG" in line or "Wrong slab" in line), "")
                return fail(why, head.strip())
        return PASS

    return run


def _recorded_cases() -> list[tuple[str, Truth]]:
    return [_kernel_report(name) for name in (*NAMES, "kmalloc_overflow")]


def _made_cases() -> list[tuple[str, Truth]]:
    return [made(seed) for seed in range(40)]


READ = ExerciseSpec(
    letter="A",
    title="Read the report",
    task="Return what a report says: `crime` (one of "
    + ", ".join(f"`{c}`" for c in (*CRIMES, "wrong cache", "inner pointer"))
    + "), `offset` of the first damaged byte in the object and `length` of the damage (`None` where no "
    "bytes are named), and "
    "the call site to ask first as `suspect`, such as `o_init+0x162c` (`None` where no line names one).",
    signature="read(report) -> dict(crime=, offset=, length=, suspect=)",
    starter='def read(report):\n    return {"crime": None, "offset": None, "length": None, "suspect": None}\n',
    hints=(
        (
            "Headlines: Right Redzone, Left Redzone, Poison, `allocated objects but` or `already free`, "
            "`Objects remaining`, "
            "`Wrong slab cache`, `Invalid object pointer`."
        ),
        "`re.search(r'(0x\\w+)-(0x\\w+) @offset', report)` and `re.search(r'Object (0x\\w+) @offset', report)`",
        "In the Call Trace: the first frame without `?` that is not one of the allocator's own functions.",
    ),
    returns=dict,
    checks=[
        Check("eight reports of a real kernel", _reads(_recorded_cases), "6.1, recorded", _recorded_cases),
        Check("40 reports of this one", _reads(_made_cases), "6.1, slub_debug=FZPU", _made_cases),
    ],
)


# --- B: commit it yourself -----------------------------------------------------------------------------------


def _committed(crime: str) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        m = Machine("linux-6.1", memory="64M", cmdline="slub_debug=FZPU")
        c = m.kmem_cache_create("scene", 100, 0, 0, None)
        try:
            fn(m, c, crime)
        except KernelBug as bug:
            return fail("The machine stopped. Each of these crimes ends with a report.", str(bug).splitlines()[0])
        reports = read_slab_reports(m.dmesg())
        if not reports:
            late = "The guards are looked at when the object is freed, the poison when it is allocated again."
            return fail(f"Nobody noticed. {late}", "nothing in the log")
        if reports[0].crime != crime:
            return fail(f"That was another crime: {reports[0].crime}.", reports[0].what)
        return CheckResult(True, reports[0].headline)

    return run


COMMIT = ExerciseSpec(
    letter="B",
    title="Commit it yourself",
    task="On a machine with `slub_debug=FZPU` and a cache `c` of 100-byte objects: commit the crime that "
    "is asked for, so "
    "that the kernel's first report is about it.",
    signature="commit(m, c, crime) -> None",
    starter="def commit(m, c, crime):\n    m.kmem_cache_alloc(c, GFP_KERNEL)\n",
    hints=(
        "`m.write(address, b'...')`, `m.kmem_cache_free(c, p)`, `m.kmem_cache_destroy(c)`",
        "When does the kernel look? Make the call that looks.",
    ),
    checks=[Check(crime, _committed(crime), "6.1, slub_debug=FZPU") for crime in CRIMES],
)


# --- C: win the hunt -------------------------------------------------------------------------------------------


def _wins(level: int, seeds: range) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        left = []
        for seed in seeds:
            hunt = LeakHunt(level, seed)
            said = fn(hunt)
            if not isinstance(said, tuple) or len(said) != 2:
                return fail("Return the cache and the call site: `(cache, call_site)`.", f"seed {seed}: {said!r}")
            verdict = hunt.accuse(*map(str, said))
            if not verdict.startswith("Right"):
                return fail(verdict.removesuffix(" One more try."), f"seed {seed}: {', '.join(hunt.path)}")
            left.append(hunt.left)
        return CheckResult(True, f"{len(left)} of {len(left)} nights, {min(left)} to {max(left)} minutes left")

    return run


SOLVE = ExerciseSpec(
    letter="C",
    title="Win the hunt",
    task="Write the detective: use the tools of `hunt` (`hunt.help()` lists them; they return texts) and "
    "return whom to "
    "accuse. It must win nights it has never seen.",
    signature="solve(hunt) -> (cache, call_site)",
    starter='def solve(hunt):\n    return hunt.drivers[0], "?"\n',
    hints=(
        "Two readings of `slabinfo()` with a `wait()` between: which number in the column `active` grew most?",
        "`drop_caches()`, then look again: what falls was no leak.",
        "`reboot('slub_debug=U,NAME')`, then `traces(NAME)` twice, with a wait between.",
        "Level 3: `aliases(row)` names all who share it; track them all with `U,a;U,b`.",
    ),
    returns=tuple,
    checks=[
        Check("level 1", _wins(1, range(100, 104)), "4 nights"),
        Check("level 2: noise", _wins(2, range(100, 104)), "4 nights"),
        Check("level 3: a shared row", _wins(3, range(100, 104)), "4 nights"),
    ],
    budget=12_000_000,
)


# --- D: a plan ---------------------------------------------------------------------------------------------------


@cache
def sizes(seed: int) -> tuple[int, ...]:
    """Records that arrive at a device: about 1 MiB."""
    rng, found = random.Random(seed), []
    while sum(found) < 1 << 20:
        found.append(rng.choice((rng.randrange(100, 400), rng.randrange(900, 1300), rng.randrange(2000, 2300))))
    return tuple(found)


def measure(plan: dict[str, Any], records: tuple[int, ...]) -> tuple[int, int, float]:
    """(pages, quanta, percent unused) of a plan; each record takes whole quanta."""
    m = Machine("linux-6.1", memory="64M", cmdline="slab_nomerge")
    quantum, own = plan["quantum"], plan["cache"]
    c = m.kmem_cache_create("plan", quantum, 0, plan.get("flags", 0), None) if own else None
    quanta = sum(-(-record // quantum) for record in records)
    for _ in range(quanta):
        p = m.kmem_cache_alloc(c, GFP_KERNEL) if own else m.kmalloc(quantum, GFP_KERNEL)
        if p is NULL:
            raise ValueError(f"no memory for quanta of {quantum} bytes")
    slab_pages = sum(s.nr_slabs << s.order for s in m.slab_caches)
    pages = slab_pages + sum(1 << page.order for page in m.large.values())
    return pages, quanta, 100 * (1 - sum(records) / (pages * 4096))


SCULLC = {"quantum": 4000, "cache": True, "flags": 0x2000}


def _planned(seed: int) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        records = sizes(seed)
        plan = fn(list(sizes(seed + 1)))
        if not isinstance(plan.get("quantum"), int) or not 8 <= plan["quantum"] <= 1 << 20 or "cache" not in plan:
            return fail("A plan has `quantum` (8 bytes to 1 MiB) and `cache` (True: an own one), and may have `flags`.")
        ours, theirs = measure(plan, records), measure(SCULLC, records)
        table = " | ".join(
            f"{name}: {pages} pages, {quanta} quanta, {unused:.0f} % unused"
            for name, (pages, quanta, unused) in (("yours", ours), ("scullc's 4,000", theirs))
        )
        if ours[0] >= theirs[0]:
            return fail("Records are small; whole quanta of yours take no fewer pages than scullc's 4,000.", table)
        return CheckResult(True, table)

    return run


PLAN = ExerciseSpec(
    letter="D",
    title="Your driver's cache",
    task="A device keeps records; each takes whole quanta. From a sample of record sizes choose the "
    "`quantum`, whether to "
    "have an own `cache`, and its `flags`. You are measured on other records of the same device. "
    "There is no single best: "
    "fewer pages stand against fewer quanta. Write down in three sentences why you chose yours.",
    signature="plan(sizes) -> dict(quantum=, cache=, flags=)",
    starter='def plan(sizes):\n    return {"quantum": 4000, "cache": True, "flags": SLAB_HWCACHE_ALIGN}\n',
    hints=(
        "`collections.Counter(size // 100 for size in sizes)`: where do the sizes lie?",
        "A quantum just above a rung of kmalloc's ladder wants an own cache (lesson 03, section 1).",
        "Small quanta waste little and are many: each costs a call and a pointer.",
    ),
    returns=dict,
    checks=[Check("about 1 MiB of records", _planned(seed), f"6.1, seed {seed}") for seed in (1, 3)],
)

EXERCISES = {"read": READ, "commit": COMMIT, "solve": SOLVE, "plan": PLAN}
