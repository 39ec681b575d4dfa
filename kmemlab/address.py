"""``Address``: a pointer of the simulated kernel."""

from __future__ import annotations

__all__ = ["Address"]


class Address(int):
    """A kernel virtual address; prints as the kernel prints a pointer, and stays one when a number is added."""

    __slots__ = ()

    def __add__(self, n: int) -> Address:
        return Address(int.__add__(self, n))

    __radd__ = __add__

    def __deepcopy__(self, memo: object) -> Address:
        return self  # a number does not change

    def __repr__(self) -> str:
        return f"{int(self):016x}" if self else "0"

    __str__ = __repr__
