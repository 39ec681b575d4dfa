"""Somebody who listens to a machine's events for a while: what panels build on that must see every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from kmemlab.events import Event
    from kmemlab.machine import Machine

__all__ = ["Observer"]


class Observer:
    """Listens to a machine between ``begin()`` and ``stop()``."""

    def __init__(self, m: Machine) -> None:
        self.m = m
        self.listens = False

    def begin(self) -> Self:
        """Listen, from now on or again."""
        if not self.listens:
            self.start()
            self._unsubscribe = self.m.events.subscribe(self.see)
            self.listens = True
        return self

    def stop(self) -> None:
        """Listen no more: the machine is as fast as before, what was seen stays."""
        if self.listens:
            self._unsubscribe()
            self.listens = False

    def start(self) -> None:
        """Note how things are before the first event; nothing unless an observer says otherwise."""

    def see(self, event: Event) -> None:
        """Note an event."""
        raise NotImplementedError
