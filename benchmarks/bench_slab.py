"""kmalloc and kfree, held against a pair of page calls measured just before."""

from __future__ import annotations

import random
import statistics
import time
from array import array
from collections.abc import Callable, Iterable

from kmemlab import GFP_KERNEL, Machine

CALLS = 200_000
ROUNDS = 15
LIVE = 20_000


def pair(take: Callable[[], object], give: Callable[[object], None]) -> float:
    """Microseconds of one call when what was taken is given back at once."""
    start = time.perf_counter()
    for _ in range(CALLS):
        give(take())
    return (time.perf_counter() - start) / CALLS / 2 * 1e6


class Mix:
    """Calls with about 20,000 objects in use, freed in random order; the script is kept small, so that it does not
    push the machine's own data out of the cache."""

    def __init__(self, sizes: Iterable[int]) -> None:
        rng = random.Random(1)
        self.sizes = array("H", sizes)
        self.coins = bytes(rng.random() < 0.5 for _ in range(CALLS))
        self.places = array("H", (rng.randrange(LIVE - 1000) for _ in range(CALLS)))

    def __call__(self) -> float:
        """Microseconds of one call on a new machine (0.1 of it is the loop)."""
        m = Machine("linux-6.1", memory="256M")
        kmalloc, kfree = m.kmalloc, m.kfree
        live = [kmalloc(size, GFP_KERNEL) for size in self.sizes[:LIVE]]
        start = time.perf_counter()
        for coin, place, size in zip(self.coins, self.places, self.sizes, strict=True):
            if coin or len(live) < LIVE - 500:
                live.append(kmalloc(size, GFP_KERNEL))
            else:
                p, live[place] = live[place], live[-1]
                live.pop()
                kfree(p)
        return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    """Measure by turns and print: a shared machine's pace changes every few seconds, so each ratio is of neighbours."""
    m, rng = Machine("linux-6.1", memory="256M"), random.Random(2)
    calls: dict[str, tuple[Callable[[], float], float]] = {
        "kmalloc(64) and kfree": (lambda: pair(lambda: m.kmalloc(64, GFP_KERNEL), m.kfree), 0.71),
        "random mix, 20,000 live, 64 bytes": (Mix([64] * CALLS), 1.71),
        "random mix, 20,000 live, 1 to 2,048 bytes": (Mix(rng.randrange(1, 2049) for _ in range(CALLS)), 1.71),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    pages = []
    for _ in range(ROUNDS):
        for name, (measure, _) in calls.items():
            pages.append(2 * pair(lambda: m.alloc_pages(GFP_KERNEL, 0), lambda page: m.__free_pages(page, 0)))
            took[name].append(measure())
            ratios[name].append(took[name][-1] / pages[-1])
    print(f"a pair of page calls: {statistics.median(pages):.2f} us, the best {min(pages):.2f}")
    for name, (_, bar) in calls.items():
        low, ratio, high = statistics.quantiles(ratios[name], n=4)
        print(f"{name}: {statistics.median(took[name]):.2f} us a call, the best {min(took[name]):.2f}; "
              f"{ratio:.2f} of the pair ({low:.2f} to {high:.2f}; of the best {min(took[name]) / min(pages):.2f}), "
              f"bar {bar}")  # fmt: skip


if __name__ == "__main__":
    main()
