"""kmalloc and kfree, held against a pair of page calls in the same run; times are the best of several rounds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from kmemlab import GFP_KERNEL, Machine

CALLS = 200_000
LIVE = 20_000


def pair(take: Callable[[], object], give: Callable[[object], None]) -> float:
    """Microseconds of one call when what was taken is given back at once."""
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(CALLS):
            give(take())
        best = min(best, (time.perf_counter() - start) / CALLS / 2 * 1e6)
    return best


def mix(sizes: list[int]) -> float:
    """Microseconds of one call with about 20,000 objects in use, freed in random order (0.1 of it is the loop)."""
    rng, best = random.Random(1), 1e9
    coins = [rng.random() < 0.5 for _ in range(CALLS)]
    at = [rng.randrange(LIVE - 1000) for _ in range(CALLS)]
    for _ in range(3):
        m = Machine("linux-6.1", memory="256M")
        kmalloc, kfree = m.kmalloc, m.kfree
        live = [kmalloc(sizes[i % len(sizes)], GFP_KERNEL) for i in range(LIVE)]
        start = time.perf_counter()
        for i, (coin, place) in enumerate(zip(coins, at, strict=True)):
            if coin or len(live) < LIVE - 500:
                live.append(kmalloc(sizes[i % len(sizes)], GFP_KERNEL))
            else:
                p, live[place] = live[place], live[-1]
                live.pop()
                kfree(p)
        best = min(best, (time.perf_counter() - start) / CALLS * 1e6)
    return best


def main() -> None:
    """Measure and print."""
    m = Machine("linux-6.1", memory="256M")
    pages = 2 * pair(lambda: m.alloc_pages(GFP_KERNEL, 0), lambda page: m.__free_pages(page, 0))
    objects = pair(lambda: m.kmalloc(64, GFP_KERNEL), m.kfree)
    rng = random.Random(2)
    print(f"a pair of page calls {pages:.2f} us; kmalloc(64)/kfree {objects:.2f} us a call "
          f"({objects / pages:.2f} of the pair, bar 0.71)")  # fmt: skip
    for name, sizes in (("64 bytes", [64]), ("1 to 2,048 bytes", [rng.randrange(1, 2049) for _ in range(CALLS)])):
        took = mix(sizes)
        print(f"random mix, 20,000 live, {name}: {took:.2f} us a call ({took / pages:.2f} of the pair, bar 1.71)")


if __name__ == "__main__":
    main()
