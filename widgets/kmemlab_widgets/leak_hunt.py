"""The leak hunt of lesson 03b: six drivers, one forgets; every tool costs minutes, and the pager rings at sixty.

Each driver allocates and frees on a simulated machine, minute by minute; the same level and seed play the same night.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kmemlab import GFP_KERNEL, SLAB_RECLAIM_ACCOUNT, Machine

__all__ = ["Driver", "LeakHunt", "Text"]

NIGHT = 60  # minutes
COSTS = {
    "meminfo": 1, "aliases": 1, "slabinfo": 2, "traces": 2, "shrink": 3, "drop_caches": 3, "source": 8, "reboot": 15,
}  # fmt: skip
TOOLS = {
    "meminfo": "", "aliases": "cache", "slabinfo": "", "traces": "cache", "shrink": "cache", "drop_caches": "",
    "wait": "n", "source": "driver", "reboot": "cmdline",
}  # fmt: skip
WRONG = {
    "constant": "It is large, and large is not growing: compare two readings.",
    "reclaimable": "You did not try drop_caches: it gives all of it back, and SUnreclaim does not move.",
    "ratchet": "Its slabs are many, its live objects are not: one in each slab. Their number does not grow.",
    "twin": "Half right: the row is shared, and its name is the first one's. Look at aliases, or take them apart.",
}
EVERYWHERE = 10  # minutes more when every object of the machine is tracked
NAMES = (
    "tls_rec", "nf_rule", "usb_urb", "dm_bio", "sctp_chunk", "hid_report", "snd_buf", "rpc_task", "ovl_copy",
    "can_frame",
)  # fmt: skip
VERBS = ("open", "probe", "queue", "submit", "clone", "attach", "parse", "start")
# Strides that no cache of a booted kernel has: drivers meet each other only where the level wants it.
SIZES = (424, 520, 600, 744, 872, 1000, 1160, 1320, 1480, 1640)
LEVELS = {
    1: ("steady", "steady", "constant", "steady", "steady"),
    2: ("steady", "ratchet", "reclaimable", "constant", "steady"),
    3: ("twin", "ratchet", "reclaimable", "constant", "steady"),
    4: ("steady", "ratchet", "reclaimable", "constant", "steady"),
    5: ("kmalloc", "kmalloc", "ratchet", "kmalloc", "steady"),
}
FORGETS = {1: (40, 4), 2: (40, 8), 3: (40, 8), 4: (400, 100), 5: (40, 8)}  # level -> objects a minute, one in so many


class Text(str):
    """A text that a notebook shows as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(slots=True)
class Driver:
    """One driver: its cache, its two call sites, what it does each minute. ``guilty``: the site that forgets, or ""."""

    name: str
    kind: str
    size: int
    sites: tuple[str, str]
    rate: int
    guilty: str = ""
    forgets: int = 0
    cache: Any = None
    held: deque[Any] = field(default_factory=deque)
    count: int = 0

    @property
    def cache_name(self) -> str:
        """What it calls its cache."""
        return f"kmalloc-{1 << (self.size - 1).bit_length() - 10}k" if self.kind == "kmalloc" else self.name

    def start(self, m: Machine) -> None:
        """After boot: no objects yet."""
        self.held, self.count = deque(), 0
        if self.kind == "kmalloc":
            self.cache = m.find_cache(self.cache_name)
        else:
            flags = SLAB_RECLAIM_ACCOUNT if self.kind == "reclaimable" else 0
            self.cache = m.kmem_cache_create(self.name, self.size, 0, flags, None)
        if self.kind == "constant":
            with m.caller(self.sites[0]):
                for _ in range(3000):
                    self.alloc(m)

    def alloc(self, m: Machine) -> Any:
        """One object, kept."""
        p = m.kmalloc(self.size, GFP_KERNEL) if self.kind == "kmalloc" else m.kmem_cache_alloc(self.cache, GFP_KERNEL)
        self.held.append(p)
        return p

    def free(self, m: Machine, p: Any) -> None:
        """Give one back."""
        m.kmem_cache_free(self.cache, p)

    def minute(self, m: Machine, rng: random.Random) -> None:
        """One minute's work."""
        if self.kind == "ratchet":
            self._ratchet(m)
        elif self.kind == "reclaimable":
            with m.caller(self.sites[0]):
                for _ in range(self.rate):
                    self.alloc(m)
        else:
            self._work(m, rng)

    def _work(self, m: Machine, rng: random.Random) -> None:
        """Take and give back, in the order of a queue; the guilty site forgets one in ``forgets``."""
        for i in range(self.rate):
            site = self.sites[i % 2]
            with m.caller(site):
                p = self.alloc(m)
            self.count += site == self.guilty
            if site == self.guilty and self.count % self.forgets == 0:
                self.held.remove(p)
        while len(self.held) > (3000 if self.kind == "constant" else 100 + rng.randrange(8)):
            self.free(m, self.held.popleft())

    def _ratchet(self, m: Machine) -> None:
        """A burst every fifth minute; of each slab one object stays until the next burst is over."""
        self.count += 1
        if self.count % 5 != 1:
            return
        before = list(self.held)
        self.held.clear()
        with m.caller(self.sites[0]):
            burst = [self.alloc(m) for _ in range(40 * self.cache.objects)]
        for p in before:
            self.free(m, p)
        keep = {m.virt_to_slab(p).pfn: p for p in burst}
        for p in burst:
            if keep[m.virt_to_slab(p).pfn] != p:
                self.free(m, p)
        self.held = deque(keep.values())

    def drop(self, m: Machine) -> None:
        """What a shrinker of the driver does when it is asked."""
        if self.kind == "reclaimable":
            while self.held:
                self.free(m, self.held.popleft())
            m.kmem_cache_shrink(self.cache)

    def source(self) -> str:
        """The driver in C, the mistake included."""
        take = (f"kmalloc({self.size}, GFP_KERNEL)" if self.kind == "kmalloc"
                else f"kmem_cache_alloc({self.name}_cache, GFP_KERNEL)")  # fmt: skip
        give = "kfree(p)" if self.kind == "kmalloc" else f"kmem_cache_free({self.name}_cache, p)"
        parts = []
        for site in self.sites:
            function = site.split("+")[0]
            bad = site == self.guilty
            undo = "" if bad else f"\n\t\t{give};"
            parts.append(
                f"static int {function}(struct {self.name} *d)\t/* allocates at {site} */\n{{\n"
                f"\tvoid *p = {take};\n\n\tif (!p)\n\t\treturn -ENOMEM;\n\tif (d->busy) "
                f"{{{undo}\n\t\treturn -EBUSY;\n\t}}\n"
                "\tlist_add_tail(to_list(p), &d->queue);\n\treturn 0;\n}\n"
            )
        return "\n".join(parts)


def _drivers(level: int, rng: random.Random) -> list[Driver]:
    """Six drivers; the last made is the one that forgets, then they are shuffled."""
    names, sizes = rng.sample(NAMES, 6), rng.sample(SIZES, 6)
    rate, forgets = FORGETS[level]
    kinds = (*LEVELS[level], "kmalloc" if level == 5 else "steady")
    drivers = []
    for name, size, kind in zip(names, sizes, kinds, strict=True):
        verbs = rng.sample(VERBS, 2)
        sites = tuple(f"{name}_{verb}+{rng.randrange(0x20, 0x200):#x}" for verb in verbs)
        size = rng.randrange(1100, 2000) if kind == "kmalloc" else size
        drivers.append(Driver(name, kind, size, (sites[0], sites[1]), 40 if kind == "reclaimable" else rate))
    leaker = drivers[-1]
    leaker.guilty, leaker.forgets = rng.choice(leaker.sites), max(1, forgets // 2)
    if level == 3:
        leaker.size = drivers[0].size - rng.randrange(1, 7)  # joins the first one's cache, under its name
        rest = drivers[1:]
        rng.shuffle(rest)
        return [drivers[0], *rest]
    rng.shuffle(drivers)
    return drivers


class LeakHunt:
    """One night: ``LeakHunt(level, seed)``, level 1 to 5. ``help()`` lists the tools and what they cost.

    Tools return texts. ``accuse(cache, call_site)`` ends the night; the first wrong accusation may be followed by
    one more. Errors: ValueError for a level, cache or driver that is not there.
    """

    def __init__(self, level: int = 1, seed: int = 0) -> None:
        if level not in LEVELS:
            raise ValueError(f"LeakHunt: level must be 1 to {len(LEVELS)}, not {level!r}")
        self.level, self.seed = level, seed
        self._rng = random.Random(f"hunt {level} {seed}")
        self._drivers = _drivers(level, self._rng)
        self.left = NIGHT
        self.path: list[str] = []
        self.tries = 0
        self.score: int | None = None
        self._boot("")
        self._run(20)  # it has been up for a while when the pager calls

    def __repr__(self) -> str:
        state = f"{self.left} minutes left" if self.score is None else f"over, score {self.score}"
        return f"LeakHunt(level={self.level}, seed={self.seed}): {', '.join(self.drivers)}; {state}. hunt.help()"

    @property
    def drivers(self) -> list[str]:
        """The names of the six."""
        return [driver.name for driver in self._drivers]

    def help(self) -> Text:
        """The tools and their price."""
        lines = [f"{COSTS.get(name, 'n'):>3} min  hunt.{name}({what})" for name, what in TOOLS.items()]
        return Text("\n".join([*lines, "         hunt.accuse(cache, call_site)    two tries"]))

    # --- the tools ---------------------------------------------------------------------------------

    def meminfo(self) -> Text:
        """Slab memory by kind, in KiB."""
        self._pay("meminfo")
        pages = {True: 0, False: 0}
        for s in self.m.slab_caches:
            pages[bool(s.flags & SLAB_RECLAIM_ACCOUNT)] += s.nr_slabs << s.order
        rows = (("Slab:", sum(pages.values())), ("SReclaimable:", pages[True]), ("SUnreclaim:", pages[False]))
        return Text("\n".join(f"{name:15s} {4 * n:8d} kB" for name, n in rows))

    def slabinfo(self) -> Text:
        """The rows of /proc/slabinfo that hold objects."""
        self._pay("slabinfo")
        rows = self.m.cat("/proc/slabinfo").splitlines()
        head = f"{'# name':<17s} active  total   size objs pages"
        return Text("\n".join([head, *(r.split(" : ")[0] for r in rows[2:] if int(r.split()[2]))]))

    def aliases(self, cache: str) -> Text:
        """Which names share a row: the links in /sys/kernel/slab."""
        s = self._find(cache)
        self._pay("aliases")
        return Text(f"{s.name}: " + (", ".join(s.aliases) or "shared with nobody"))

    def traces(self, cache: str) -> Text:
        """alloc_traces: live objects by call site; only after a boot with ``slub_debug=U,cache``."""
        s = self._find(cache)
        self._pay("traces")
        try:
            return Text(self.m.cat(f"/sys/kernel/debug/slab/{s.name}/alloc_traces").rstrip())
        except ValueError as error:
            return Text(f"No such file: {error}")

    def shrink(self, cache: str) -> Text:
        """kmem_cache_shrink: empty slabs go back."""
        s = self._find(cache)
        self._pay("shrink")
        before = s.nr_slabs
        self.m.kmem_cache_shrink(s)
        return Text(f"{s.name}: {before} slabs before, {s.nr_slabs} after")

    def drop_caches(self) -> Text:
        """Ask every shrinker to give up what it can."""
        self._pay("drop_caches")
        for driver in self._drivers:
            driver.drop(self.m)
        return Text("done; look at meminfo or slabinfo")

    def source(self, driver: str) -> Text:
        """Read a driver's source."""
        for each in self._drivers:
            if each.name == driver:
                self._pay("source")
                return Text(each.source())
        raise ValueError(f"no driver {driver!r}; there are {', '.join(self.drivers)}")

    def wait(self, minutes: int = 10) -> Text:
        """Let the machine run."""
        if not isinstance(minutes, int) or minutes < 1:
            raise ValueError(f"wait: minutes must be a whole number from 1 on, not {minutes!r}")
        self._spend(f"wait({minutes})", minutes)
        return Text(f"{self.left} minutes left")

    def reboot(self, cmdline: str) -> Text:
        """Start again with other boot options; the drivers begin anew. Tracking every cache takes longer."""
        m = Machine("linux-6.1", memory="512M", cmdline=cmdline)
        cost = COSTS["reboot"] + (EVERYWHERE if m.slub_debug_all else 0)
        self._spend(f"reboot({cmdline})", cost, run=False)
        self._boot(cmdline, m)
        self._run(5)
        return Text(f"up for 5 minutes with {cmdline!r}; {self.left} minutes left")

    def accuse(self, cache: str, call_site: str) -> Text:
        """Name the cache that leaks and the call site that forgets."""
        if self.score is not None:
            return Text("The night is over.")
        self.tries += 1
        self.path.append(f"accuse({cache}, {call_site})")
        right, why = self._judge(cache, call_site)
        if right:
            self.score = max(1, self.left)
            return Text(f"Right. {why} {self.left} minutes left; your way: {', '.join(self.path)}.")
        if self.tries == 2:
            self.score = 0
            culprit = self._culprit
            return Text(f"No. {why} It was {culprit.guilty}, cache {culprit.cache_name}.")
        return Text(f"No. {why} One more try.")

    # --- the night itself ---------------------------------------------------------------------------

    @property
    def _culprit(self) -> Driver:
        return next(driver for driver in self._drivers if driver.guilty)

    def _judge(self, cache: str, site: str) -> tuple[bool, str]:
        culprit = self._culprit
        if site == culprit.guilty and cache == culprit.cache_name:
            return True, f"{site} forgets one of its objects in {culprit.forgets}."
        named = [driver for driver in self._drivers if cache in (driver.name, driver.cache_name)]
        accused = next((driver for driver in named if site in driver.sites), named[0] if named else None)
        if accused is None:
            return False, f"No driver has a cache {cache!r}."
        if accused is culprit or accused.cache_name == culprit.cache_name:
            return False, "The right cache, another site: its count is constant, the leak's count grows."
        return False, WRONG.get(accused.kind, "Its number of objects does not grow. Compare two readings.")

    def _find(self, cache: str) -> Any:
        return self.m.find_cache(cache)

    def _pay(self, tool: str) -> None:
        self._spend(tool, COSTS[tool])

    def _spend(self, what: str, minutes: int, *, run: bool = True) -> None:
        if self.score is not None:
            raise ValueError("the night is over; LeakHunt(level, seed) begins another")
        if minutes > self.left:
            raise ValueError(f"{what} takes {minutes} minutes, the pager rings in {self.left}: accuse somebody")
        self.left -= minutes
        self.path.append(what)
        if run:
            self._run(minutes)

    def _boot(self, cmdline: str, m: Machine | None = None) -> None:
        self.m = m or Machine("linux-6.1", memory="512M", cmdline=cmdline)
        for driver in self._drivers:
            driver.start(self.m)

    def _run(self, minutes: int) -> None:
        for _ in range(minutes):
            for driver in self._drivers:
                driver.minute(self.m, self._rng)
