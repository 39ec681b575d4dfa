"""A detective for the leak hunt, for the tests of the hunt and of lesson 03b's exercise."""

from __future__ import annotations

from typing import Any

__all__ = ["look"]


def _counts(text: str) -> dict[str, int]:
    """Name -> number, of slabinfo (name first) or of call sites (number first)."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {row[1] if row[0].isdigit() else row[0]: int(row[0] if row[0].isdigit() else row[1]) for row in rows}


def _most_grown(before: dict[str, int], after: dict[str, int]) -> str:
    return max(after, key=lambda name: after[name] - before.get(name, 0))


def look(hunt: Any, *, drop: bool = True, shared: bool = True) -> tuple[str, str]:
    """Which row grows and does not fall when caches are dropped; who shares it; tracking; which call site grows.

    ``drop`` and ``shared`` switch a step off, as a careless detective would leave it out.
    """
    first = _counts(hunt.slabinfo())
    hunt.wait(8)
    now = _counts(hunt.slabinfo())
    if drop:
        hunt.drop_caches()
        later = _counts(hunt.slabinfo())
        now = {name: n for name, n in later.items() if n > 0.7 * now.get(name, 0)}
    row = _most_grown(first, now)
    with_it = hunt.aliases(row) if shared else ""
    names = [row, *(name for name in hunt.drivers if name in with_it and name != row)]
    hunt.reboot("slub_debug=" + ";".join(f"U,{name}" for name in names))
    before = {name: _counts(hunt.traces(name)) for name in names}
    hunt.wait(4)
    found = []
    for name in names:
        after = _counts(hunt.traces(name))
        site = _most_grown(before[name], after)
        found.append((after[site] - before[name].get(site, 0), name, site))
    return max(found)[1:]
