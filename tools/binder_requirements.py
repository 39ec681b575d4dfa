"""Write binder/requirements.txt: the kernel-side pins of requirements.lock, and nothing else.

Binder's base image brings JupyterLab, the server and the kernel. To pin them would replace them and make every image
slower to build and larger. Pinned are the panels' packages and matplotlib, with what they need beyond those.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["binder_requirements", "main"]

ROOT = Path(__file__).resolve().parent.parent
KERNEL_SIDE = ("ipywidgets", "anywidget", "matplotlib")
IN_THE_BASE_IMAGE = ("ipykernel",)
HEADER = "# Made from requirements.lock by tools/binder_requirements.py (make lock). Do not edit.\n"


def _read_lock(text: str) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Return name -> pinned lines (with their markers) and name -> names of what it needs."""
    pins: dict[str, list[str]] = {}
    needs: dict[str, set[str]] = {}
    name = ""
    for line in text.splitlines():
        if pin := re.match(r"([a-z0-9][a-z0-9._-]*)==\S+(?: ; [^\\]*[^\\ ])?(?= \\|$)", line):
            name = pin[1]
            pins.setdefault(name, []).append(pin[0])
        elif parent := re.match(r" +# (?:via|  ?) *([a-z0-9][a-z0-9._-]*)(?: |$)", line):
            needs.setdefault(parent[1], set()).add(name)
    return pins, needs


def _closure(roots: tuple[str, ...], needs: dict[str, set[str]]) -> set[str]:
    """Return ``roots`` and all they need."""
    found: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += needs.get(name, ())
    return found


def binder_requirements(lock: str) -> str:
    """Return the text of binder/requirements.txt for the text of a lock file."""
    pins, needs = _read_lock(lock)
    names = _closure(KERNEL_SIDE, needs) - _closure(IN_THE_BASE_IMAGE, needs)
    return HEADER + "".join(f"{line}\n" for name in sorted(names) for line in pins[name])


def main() -> int:
    """Write the file."""
    text = binder_requirements((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    (ROOT / "binder" / "requirements.txt").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
