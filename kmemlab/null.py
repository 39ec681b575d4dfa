"""``NULL``: what a request gets when there is nothing to give.

It is falsy, so ``if not page`` works as in C, and it says what happened when it is used as if it were memory.
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["NULL", "KernelBug", "Null"]


class KernelBug(Exception):
    """The kernel would have stopped here (BUG or oops); the text is its report."""


class Null:
    """The type of ``NULL``, the one pointer to nothing."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NULL"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"NULL has no .{name}: the request failed and returned NULL. Test it: `if not page: ...`")


NULL = Null()
