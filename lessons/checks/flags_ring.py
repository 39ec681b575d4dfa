"""Exercise F of lesson 01: a network driver's receive ring, judged by the traffic it survives.

There is no single best driver: packets lost, reserve pages used and time spent in the interrupt are set beside those of
three other designs, on the same traffic.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from flags_machines import full
from kmemlab_widgets.questions import Check, CheckResult, ExerciseSpec, fail

from kmemlab import __GFP_NOWARN, GFP_ATOMIC, GFP_KERNEL, GFP_NOWAIT, NULL, KernelBug, Machine, Page, Stuck

DESCRIPTORS = 64  # pages that the card can keep ready
BURSTS = 12
SEEDS = (1, 2, 3)


class Illegal(Exception):
    """The driver did what it may not: (why, kernel)."""


@dataclass(slots=True)
class Score:
    """What a driver's run cost. ``looks`` is the longest interrupt, in zones that the allocator looked at."""

    packets: int = 0
    lost: int = 0
    reserve: int = 0
    looks: int = 0

    def __str__(self) -> str:
        return f"lost {self.lost} of {self.packets}, {self.reserve} reserve pages, {self.looks} zones looked at"


@cache
def traffic(seed: int) -> tuple[tuple[int, bool, int], ...]:
    """Bursts: (packets, whether the work item runs before the next one, pages that the backup reads meanwhile)."""
    rng = random.Random(seed)
    return tuple(
        (rng.choice((8, 16, 24, 32, 40, 48, 100, 150)) + rng.randrange(16), rng.random() < 0.85, rng.randrange(20, 300))
        for _ in range(BURSTS)
    )


@cache
def _stage() -> Machine:
    m = full().copy()
    m.lru.failures = 0  # here kswapd works
    m.read_file("backup", "1M")
    return m


@dataclass(slots=True)
class Network:
    """The machine with its card: calls the driver, keeps what it hands over, and counts."""

    m: Machine
    score: Score = field(default_factory=Score)
    inside: bool = False  # the driver runs: what is allocated now is its
    mine: dict[int, int] = field(default_factory=dict)  # the driver's blocks: first frame and order
    stack: list[Page] = field(default_factory=list)  # pages with a packet in them, until it is read
    looks: int = 0
    zone: Any = None

    def hear(self, event: Any) -> None:
        """Count what the allocator does for the driver."""
        if not self.inside:
            return
        if event.name == "lab_zone":
            self.looks, self.zone = self.looks + 1, event
        elif event.name == "lab_return":
            self.mine[event.pfn] = event.order
            low = next(zone.wmark[0] for zone in self.m.zones if zone.name == event.zone)
            self.score.reserve += self.zone.free - self.zone.unusable <= low + self.zone.protection

    def interrupt(self, rx: Callable[[], Any], packets: int) -> None:
        """A burst of packets in one hard interrupt."""
        self.looks, self.inside = 0, True
        self.m.irq(lambda: [self._packet(rx()) for _ in range(packets)])
        self.inside = False
        self.score.looks = max(self.score.looks, self.looks)
        self.lawful("rx, in a hard interrupt")

    def _packet(self, page: Any) -> None:
        self.score.packets += 1
        if not page:
            self.score.lost += 1
            return
        if not isinstance(page, Page) or page.order:
            raise Illegal("rx returns the page for one packet, of order 0, or NULL.", repr(page))
        if page in self.stack:
            raise Illegal("Two packets were written into one page: take it out of the ring.", f"pfn {page.pfn}")
        if self.mine.pop(page.pfn, None) is None or not page.refcount:
            raise Illegal("rx returned a page that is not the driver's.", f"pfn {page.pfn}")
        self.stack.append(page)

    def work(self, refill: Callable[[], Any]) -> None:
        """The stack has read its packets; the driver's work item runs."""
        for page in self.stack:
            self.m.put_page(page)
        self.stack.clear()
        self.inside = True
        refill()
        self.inside = False
        self.lawful("refill, in process context")

    def lawful(self, where: str) -> None:
        """Errors: Illegal if the kernel complained, or the driver keeps too much."""
        lines = self.m.dmesg().splitlines()
        if line := next((line for line in lines if "BUG:" in line), ""):
            may = "nobody may sleep in an interrupt, with interrupts off or under a spinlock"
            raise Illegal(f"{where}: {may}, and the mask has the sleep bit 0x400.", line)
        if line := next((line for line in lines if "WARNING:" in line), ""):
            raise Illegal(f"{where}: __GFP_NOFAIL cannot be kept where nobody may wait, so the kernel warns.", line)
        if not self.m.context.plain:
            raise Illegal(f"{where}: it has returned, and its lock or scope has not ended.", self.m.context.words)
        self.mine = {pfn: order for pfn, order in self.mine.items() if self.m.memmap[pfn].refcount}
        if (held := sum(1 << order for order in self.mine.values())) > DESCRIPTORS:
            raise Illegal(
                f"The card has {DESCRIPTORS} descriptors, and the driver holds {held} pages.",
                f"{held} pages neither handed over nor freed",
            )


def drive(driver: Callable[..., Any], seed: int) -> Score:
    """Let a driver run through one day's traffic. Errors: Illegal."""
    m = _stage().copy()
    net = Network(m)
    m.events.subscribe(net.hear)
    net.inside = True
    parts = driver(m)
    net.inside = False
    if not isinstance(parts, tuple) or len(parts) != 2 or not all(callable(part) for part in parts):
        raise Illegal("Return two functions: rx, refill.", repr(parts))
    rx, refill = parts
    net.work(refill)
    for number, (packets, works, pages) in enumerate(traffic(seed)):
        net.interrupt(rx, packets)
        if works:
            net.work(refill)
        m.read_file(f"backup {number}", f"{4 * pages}K")
        m.msleep(4)
    return net.score


# --- other designs ---------------------------------------------------------------------------------------------


def all_atomic(m: Machine) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Every packet asks the allocator."""
    return lambda: m.alloc_pages(GFP_ATOMIC | __GFP_NOWARN, 0), lambda: None


def ring_of(top_up: int) -> Callable[..., Any]:
    """A ring filled with GFP_KERNEL; when it is empty, ask with ``top_up``, or lose the packet if that is 0."""

    def driver(m: Machine) -> tuple[Callable[[], Any], Callable[[], Any]]:
        ring: list[Any] = []

        def rx() -> Any:
            return ring.pop() if ring else m.alloc_pages(top_up | __GFP_NOWARN, 0) if top_up else NULL

        def refill() -> None:
            while len(ring) < DESCRIPTORS and (page := m.alloc_pages(GFP_KERNEL, 0)):
                ring.append(page)

        return rx, refill

    return driver


DESIGNS: dict[str, Callable[..., Any]] = {
    "all GFP_ATOMIC": all_atomic,
    f"ring of {DESCRIPTORS}": ring_of(0),
    "ring, then GFP_NOWAIT": ring_of(int(GFP_NOWAIT)),
}


@cache
def reference(name: str, seed: int) -> Score:
    """The score of one of the other designs."""
    return drive(DESIGNS[name], seed)


def _others(seed: int) -> str:
    return "; ".join(f"{name}: {reference(name, seed)}" for name in DESIGNS)


def _judge(score: Score, seed: int) -> CheckResult:
    kernel = f"yours: {score}; {_others(seed)}"
    if 2 * score.lost > score.packets:
        return fail("More than half of the packets are lost: the cable could as well be pulled out.", kernel)
    atomic = reference("all GFP_ATOMIC", seed)
    if score.lost > atomic.lost and score.reserve > atomic.reserve and score.looks > atomic.looks:
        return fail("Worse than GFP_ATOMIC alone in all three: packets lost, reserve used, time in interrupt.", kernel)
    return CheckResult(True, kernel)


def _runs(seed: int) -> Callable[[Callable[..., Any]], CheckResult]:
    def run(fn: Callable[..., Any]) -> CheckResult:
        try:
            return _judge(drive(fn, seed), seed)
        except Illegal as error:
            return fail(*error.args)
        except (KernelBug, Stuck) as error:
            return fail("The machine stopped.", str(error).splitlines()[0])

    return run


DRIVER = ExerciseSpec(
    letter="F",
    title="The receive ring",
    task=(
        "A network card delivers bursts of packets, each burst in one hard interrupt; a backup fills memory meanwhile. "
        f"`rx()` runs there, once a packet: return the page to put it into, or NULL to lose it. `refill()` runs later, "
        f"in process context, once before the first burst. The driver may keep {DESCRIPTORS} pages. The rows count "
        "packets lost, reserve pages used, and the longest interrupt in zones looked at, beside other designs. There "
        "is no single best."
    ),
    signature="driver(m) -> (rx, refill)",
    starter=(
        "def driver(m):\n    ring = []\n\n    def rx():\n        return m.alloc_pages(GFP_KERNEL, 0)\n\n"
        "    def refill():\n        pass\n\n    return rx, refill\n"
    ),
    hints=(
        "Which of the two may sleep? Let that one do the work.",
        "`refill` puts pages into `ring` until it has 64; `rx` takes one out with `ring.pop()`.",
        "The ring is empty in the middle of a burst. Three answers: lose the packet, GFP_NOWAIT, GFP_ATOMIC.",
    ),
    returns=tuple,
    checks=[
        Check(f"{BURSTS} bursts, traffic {seed}", _runs(seed), f"6.1, 64 MiB, seed {seed}",
              lambda seed=seed: _others(seed))  # type: ignore[misc]
        for seed in SEEDS
    ],
    budget=5_000_000,
)  # fmt: skip
