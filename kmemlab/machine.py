"""``Machine``: one simulated computer. It boots, it has the kernel's functions as methods, it tells what happened.

All state hangs on it; two machines never share anything. The functions are those of the floors below
(``m.alloc_pages`` is ``page_alloc.alloc_pages`` with the machine first).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from kmemlab import explain, explain_slab, kmalloc, mm_init, observe, page_slowpath, slabinfo
from kmemlab.check import CheckResult, check_machine
from kmemlab.context import Context, ContextMachine
from kmemlab.events import Event, Trace, expand
from kmemlab.facade import CALLS
from kmemlab.from_procfs import zones_from_procfs
from kmemlab.from_report import zones_from_report
from kmemlab.get_free_pages import get_order
from kmemlab.kernels import KERNELS, KernelProfile
from kmemlab.kthread import KthreadMachine
from kmemlab.mmzone import (
    MAX_ORDER,
    MIGRATE_TYPES,
    PAGEBLOCK_ORDER,
    MemMap,
    Page,
    Zone,
    order_to_pindex,
)
from kmemlab.mutex import MutexMachine
from kmemlab.pcplist import update_limit
from kmemlab.recording import Recording, load_recording, zones_from_state
from kmemlab.sched import SchedMachine
from kmemlab.shrinker import ShrinkerMachine
from kmemlab.slab_machine import SlabMachine
from kmemlab.slub_def import KmemCache
from kmemlab.snapshot import CacheSnapshot, Snapshot
from kmemlab.story import Story
from kmemlab.twin import twin_of
from kmemlab.workload import WorkloadMachine

__all__ = ["CONFIGS", "RULES", "Machine"]

# Rules of the kernel that can be switched off, to see what each is worth.
RULES = frozenset({
    "pcp", "merge_likely", "free_factor", "batch_scale", "steal_block", "boost", "highatomic", "nofragment",
    "lowmem_reserve", "counter_lag",
})  # fmt: skip

# Build options that change what the allocators do. Debian's kernel has SLAB_FREELIST_RANDOM: here it is off unless
# asked for, so that lessons can predict which object comes next.
CONFIGS = frozenset({"DEBUG_VM", "DEBUG_ATOMIC_SLEEP", "SLAB_FREELIST_RANDOM", "SLUB_DEBUG_ON"})


class Machine(
    SlabMachine, WorkloadMachine, ShrinkerMachine, KthreadMachine, MutexMachine, SchedMachine, ContextMachine
):
    """A computer with Linux's page allocator.

    ``Machine("linux-6.1", memory="512M", cpus=1, without=())`` boots an empty one; see ``from_recording``,
    ``from_procfs`` and ``from_report`` for real ones. ``without`` names kernel rules to leave out (see ``RULES``),
    ``config`` build options to add to Debian's ("DEBUG_VM": a page freed twice stops the kernel).
    Errors: ValueError that names the argument.

    >>> m = Machine("linux-6.1", memory="64M")
    >>> print(m.cat("/proc/buddyinfo").splitlines()[0])
    Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3
    """

    __slots__ = (
        "__weakref__",
        "_cpu",
        "_held_irqs",
        "_plans",
        "_recorded",
        "_said_at",
        "_sysctls",
        "_timer_count",
        "_timers",
        "batch_scale",
        "calls",
        "careful",
        "carried",
        "changes",
        "compact_states",
        "config",
        "context",
        "cpus",
        "empty_zones",
        "events",
        "files",
        "free_before",
        "highatomic",
        "kernel",
        "kswapd_turn",
        "kswapd_woken",
        "label",
        "last_page",
        "last_plan",
        "lost",
        "lru",
        "memmap",
        "mutexes",
        "next_pid",
        "nofragment",
        "note",
        "now",
        "pindex",
        "plans",
        "processes",
        "recording",
        "run_queue",
        "running",
        "seed",
        "tainted",
        "tasks",
        "trail",
        "without",
        "zonelist",
        "zones",
    )

    def __init__(
        self,
        kernel: str = "linux-6.1",
        memory: str | int = "512M",
        cpus: int = 1,
        *,
        seed: int = 0,
        cmdline: str = "",
        config: Iterable[str] = (),
        without: Iterable[str] = (),
    ) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"kernel={kernel!r}: this lab boots {', '.join(KERNELS)}")
        if not isinstance(cpus, int) or not 1 <= cpus <= 256:
            raise ValueError(f"cpus={cpus!r}: a machine has 1 to 256 CPUs")
        profile = KERNELS[kernel]
        pages = mm_init.parse_memory(memory)
        options = mm_init.parse_cmdline(cmdline)
        zones, empty = mm_init.boot_zones(profile, pages, options, cpus)
        self._start(profile, zones, empty, str(memory), cpus, without, config, options, seed)
        thp = options.get("transparent_hugepage") != "never"
        self._sysctls["min_free_kbytes"] = mm_init.calculate_min_free_kbytes(zones, thp=thp)
        self._recompute()
        mm_init.setup_per_zone_lowmem_reserve(zones, profile.lowmem_reserve_ratio, len(profile.zone_names))
        self._settle()
        for name, value in options.items():
            if name.startswith("sysctl.vm."):
                self.sysctl(name.removeprefix("sysctl."), int(value))

    def _start(
        self,
        profile: KernelProfile,
        zones: list[Zone],
        empty: list[Zone],
        label: str,
        cpus: int,
        without: Iterable[str],
        config: Iterable[str] = (),
        options: Mapping[str, str] = MappingProxyType({}),
        seed: int = 0,
    ) -> None:
        """The state every machine has, however it was made."""
        self.without = _known("without", without, RULES)
        self.config = _known("config", config, CONFIGS)
        self.kernel = profile
        self.label = label
        self.note = ""
        self.zones = zones
        self.empty_zones = list(empty)
        self.carried: dict[str, int] = {}  # rows of /proc files that came with the machine, not held by the model
        self.zonelist = tuple(sorted(zones, key=lambda zone: -zone.idx))
        self.cpus = cpus
        self.calls = self.changes = 0  # changes: what else happened, as settings written and lists drained
        self.trail: list[tuple[Any, ...]] = []
        self.last_plan: Any = None
        self.last_page: Page | None = None
        self.free_before = 0
        self.events = Trace(self._listen)
        self.recording: Recording | None = None
        self._recorded: list[Event] | None = None
        self.tainted = False
        self.careful = False
        self.lost: list[tuple[int, int]] = []
        self.memmap = MemMap(self._make_page)
        # A CPU's plans by order; as many empty places behind catch orders that do not exist.
        self._plans: list[list[dict[int, Any]]] = [[{} for _ in range(2 * MAX_ORDER)] for _ in range(cpus)]
        self._cpu = 0
        self._warned, self._log, self.taints = set(), [], set()
        self.context, self.mutexes = Context(), []
        self._sysctls = mm_init.default_sysctls(profile)
        self.seed = seed
        self._start_sched()
        self._start_workload()
        self._start_slab(options, seed)

    def _settle(self) -> None:
        """Set what follows from zones, settings and switched-off rules."""
        self.changes += 1
        off = self.without
        self.batch_scale = "batch_scale" not in off
        self.highatomic = "highatomic" not in off
        self.nofragment = self.kernel.nofragment and "nofragment" not in off
        orders = () if "pcp" in off else (0, 1, 2, 3, PAGEBLOCK_ORDER)
        self.pindex = [
            tuple(order_to_pindex(mt, order) for mt in range(MIGRATE_TYPES)) if order in orders else None
            for order in range(MAX_ORDER)
        ]
        for zone in self.zones:
            zone.trail = self.trail
            zone.marks_changed = self.forget_plans
            zone.watermark_boost_factor = 0 if "boost" in off else self._sysctls["watermark_boost_factor"]
            zone.whole_block = "steal_block" not in off
            zone.merge_likely_below = 0 if "merge_likely" in off else MAX_ORDER - 2
            zone.pcp_batch_scale_max = 0 if "free_factor" in off else 5
            if "free_factor" in off:
                for pcp in zone.pcps:
                    pcp.free_factor = 0
            if "lowmem_reserve" in off:
                zone.lowmem_reserve = [0] * len(zone.lowmem_reserve)
            if "counter_lag" in off:
                zone.stat_threshold = 0
                zone.nr_free_pages = zone.free_pages() + zone.counter_gap
                for pcp in zone.pcps:
                    pcp.vm_stat_diff = 0
            zone.boot_free = {pfn: entry >> 3 for pfn, entry in zone.buddy.items()}
        self.cpu = self._cpu
        self.forget_plans()

    @classmethod
    def from_recording(cls, name: str | Path, *, state: str = "state0", without: Iterable[str] = ()) -> Machine:
        """The machine of a recording, at its first moment (``state="state1"``: its last).

        ``name`` is a path or a bare name such as "256M-a-21". Errors: RecordingError, one line.
        """
        return cls._of_recording(load_recording(name), state, without)

    @classmethod
    def _of_recording(cls, recording: Recording, state: str, without: Iterable[str] = ()) -> Machine:
        zones_from = partial(zones_from_state, recording, state)
        m = cls._of_zones(zones_from, recording.name, without, recording.sysctls)
        m.recording = recording
        return m

    @classmethod
    def from_procfs(cls, *, buddyinfo: str, zoneinfo: str, without: Iterable[str] = ()) -> Machine:
        """A machine with the numbers of a real one's /proc files, given as text.

        /proc does not tell which blocks are free, in what order, or of which type: blocks are laid out from
        each zone's start, largest first, all Movable. So totals, watermarks and verdicts are the real
        machine's, page frame numbers are not; ``m.note`` says so. Errors: ValueError naming file and line.
        """
        return cls._of_zones(partial(zones_from_procfs, buddyinfo, zoneinfo), "from /proc", without)

    @classmethod
    def from_report(cls, text: str, *, without: Iterable[str] = ()) -> Machine:
        """The machine of the first "page allocation failure" or OOM report of a log (2.6.11 to 6.x), to try masks on.

        Zones, watermarks, free blocks by order are the report's, frames are not (``m.note``); the rules are 6.1's.
        Errors: ValueError naming the line and what is missing. Kernel: show_free_areas, mm/page_alloc.c.
        """
        return cls._of_zones(partial(zones_from_report, text), "from a report", without)

    @classmethod
    def _of_zones(
        cls, zones_from: Callable[[MemMap], mm_init.Found], label: str, without: Iterable[str],
        sysctls: Mapping[str, Any] = MappingProxyType({}),
    ) -> Machine:  # fmt: skip
        m = cls.__new__(cls)
        memmap = MemMap(lambda pfn: Page(pfn, _NOWHERE, 0))
        found = zones_from(memmap)
        m._start(found.kernel, found.zones, found.empty, label, len(found.zones[0].pcps), without)
        memmap.make = m._make_page
        m.memmap, m.carried, m.note = memmap, found.carried, found.note
        m._sysctls.update(sysctls)
        m._settle()
        return m

    if TYPE_CHECKING:  # the kernel's functions, made methods at the end of this file

        def __getattr__(self, name: str) -> Any: ...

    # --- the running CPU, settings -----------------------------------------------------------

    @property
    def cpu(self) -> int:
        """The CPU that runs. Set it to go on as another one."""
        return self._cpu

    @cpu.setter
    def cpu(self, cpu: int) -> None:
        if not isinstance(cpu, int) or not 0 <= cpu < self.cpus:
            raise ValueError(f"m.cpu = {cpu!r}: this machine has CPUs 0 to {self.cpus - 1}")
        self._cpu = cpu
        self.plans = self._plans[cpu]
        for zone in self.zones:
            zone.pcp = zone.pcps[cpu]
            update_limit(zone)

    def sysctl(self, name: str, value: Any = None) -> Any:
        """Read ``vm.NAME``, or write it and recompute what follows from it, as the kernel does.

        Errors: ValueError for a name the model does not have.
        """
        key = name.removeprefix("vm.").removeprefix("/proc/sys/vm/")
        if key not in self._sysctls:
            raise ValueError(f"sysctl {name!r}: the model has vm.{', vm.'.join(self._sysctls)}")
        if value is None:
            return self._sysctls[key]
        self._sysctls[key] = mm_init.checked_sysctl(key, value, len(self._sysctls["lowmem_reserve_ratio"]))
        if key == "lowmem_reserve_ratio":
            mm_init.setup_per_zone_lowmem_reserve(self.zones, value, len(self.kernel.zone_names))
        elif key in ("min_free_kbytes", "watermark_scale_factor"):
            self._recompute()
        elif key == "percpu_pagelist_high_fraction":
            self._recompute_pcp()
        self._settle()
        return None

    def _recompute(self) -> None:
        mm_init.setup_per_zone_wmarks(
            self.zones, self._sysctls["min_free_kbytes"], self._sysctls["watermark_scale_factor"]
        )
        self._recompute_pcp()

    def _recompute_pcp(self) -> None:
        for zone in self.zones:
            batch = mm_init.zone_batchsize(zone.managed)
            high = mm_init.zone_highsize(zone, batch, self.cpus, self._sysctls["percpu_pagelist_high_fraction"])
            for pcp in zone.pcps:
                pcp.batch, pcp.high = batch, high

    # --- plans, pages, events ------------------------------------------------------------------

    def forget_plans(self) -> None:
        """A watermark changed: every remembered decision is void."""
        for by_order in self._plans:
            for plans in by_order:
                if plans:
                    plans.clear()

    def remember(self, gfp: int, plan: Any) -> None:
        """Keep a decoded request, unless somebody listens or memory has contents: then every call goes the long
        way, which tells all and clears pages."""
        if not self.events.subscribers and not self.memory.pages and self.context.plain:
            self.plans[plan.order][gfp] = plan

    def _listen(self) -> None:
        listened = bool(self.events.subscribers)
        self.careful = self.tainted or listened
        unusual = listened or self.memory.pages or self.broken_lists or self.debug_caches
        self.slab_fast = self.init_on_alloc and self.context.plain and not unusual
        self.forget_plans()

    def zone_of(self, pfn: int) -> Zone | None:
        """The zone a frame belongs to, None where there is no memory. Kernel: page_zone."""
        for zone in self.zones:
            if zone.start_pfn <= pfn < zone.end_pfn:
                return zone
        return None

    def _make_page(self, pfn: int) -> Page:
        zone = self.zone_of(pfn)
        if zone is None:
            raise ValueError(f"pfn {pfn}: this machine has no memory there")
        owned = 1
        for order in range(MAX_ORDER):
            if zone.boot_free.get(pfn >> order << order, -1) >= order:
                owned = 0
        if zone.boot_run and zone.boot_run[0] <= pfn < zone.boot_run[-1] + (1 << MAX_ORDER - 1):
            owned = 0
        return Page(pfn, zone, owned)

    def emit(self) -> None:
        """Tell the observers of the call that just ended."""
        for event in expand(self.trail):
            self.events.emit(event)

    def last_events(self) -> tuple[Event, ...]:
        """What the last call did, as events."""
        events = tuple(expand(explain.trail_of(self)))
        return (*events, *explain_slab.slab_events(self)) if explain.last_was_slab(self) else events

    def trace(self) -> list[Event]:
        """The events recorded since this was first called; the list grows with every call of the kernel's."""
        if self._recorded is None:
            self._recorded = []
            self.events.subscribe(self._recorded.append)
        return self._recorded

    # --- looking at it ------------------------------------------------------------------------

    def cat(self, path: str) -> str:
        """The text of a file in /proc or /sys as the kernel would print it now. Errors: ValueError lists the files."""
        return slabinfo.cat(self, path)

    def explain(self) -> Story:
        """The last request, step by step, with its numbers."""
        return explain.explain(self)

    def snapshot(self) -> Snapshot:
        """What panels draw: frozen, shaped like /proc."""
        return observe.take_snapshot(self)

    def slab_snapshot(self, cache: KmemCache | str) -> CacheSnapshot:
        """What panels draw of one cache, given itself or by name."""
        return observe.take_cache_snapshot(self, self.find_cache(cache))

    def check(self) -> CheckResult:
        """Check every invariant of the model (AssertionError if one is broken), and name what the caller
        lost or owns twice."""
        return check_machine(self)

    def free_pcp(self, zone: str | None = None) -> int:
        """Pages on all CPUs' lists, of one zone or of all."""
        zones = self.zones if zone is None else [z for z in self.zones if z.name == zone]
        if not zones:
            raise ValueError(f"no zone {zone!r}; this machine has {', '.join(z.name for z in self.zones)}")
        return sum(pcp.count for z in zones for pcp in z.pcps)

    def copy(self, *, lazy: bool = False) -> Machine:
        """An independent machine in the same state, without observers.

        A ``lazy`` copy is made in a fraction of the time, knows nothing of the last call and of objects, and holds
        until this machine's next one.
        """
        return twin_of(self, lazy=lazy)

    def __repr__(self) -> str:
        free = ", ".join(f"{z.name} {z.free_pages()} of {z.managed}" for z in self.zones)
        return f"<Machine {self.label} {self.kernel.name}: pages free: {free}>"


def _known(argument: str, names: Iterable[str], known: frozenset[str]) -> frozenset[str]:
    """The names as a set. Errors: ValueError for one the model does not know."""
    given = frozenset([names] if isinstance(names, str) else names)
    if unknown := given - known:
        what = "no such rule; the rules are" if argument == "without" else "the model knows the build options"
        raise ValueError(f"{argument}={sorted(unknown)}: {what} {', '.join(sorted(known))}")
    return given


_NOWHERE = Zone("", -1, 0, 0, 0, 0)

# The kernel's names become methods here: inside the class body Python would mangle those with two underscores.
for _function in CALLS:
    setattr(Machine, _function.__name__, _function)
Machine.slow_path = page_slowpath.__alloc_pages_slowpath  # type: ignore[attr-defined]
Machine.kfree_slowly = kmalloc.kfree_slowly  # type: ignore[attr-defined]
Machine.get_order = staticmethod(get_order)  # type: ignore[attr-defined]
