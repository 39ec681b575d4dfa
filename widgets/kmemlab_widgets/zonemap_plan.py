"""The layouts that the browser gets: at four widths, worked out again only when they would be different."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kmemlab.snapshot import ZoneSnapshot
from kmemlab_widgets.zonemap_large import Cells
from kmemlab_widgets.zonemap_layout import lay_out, note_lines, note_widths

__all__ = ["WIDTHS", "Plans"]

WIDTHS = {"wide": 868, "broad": 730, "mid": 560, "narrow": 358}  # the browser takes the widest that fits
_MOST = 64


class Plans:
    """Layouts as JSON, by what they depend on: the zones' memory, refusals, and how many lines the notes take."""

    def __init__(self) -> None:
        self._widths: dict[Any, dict[str, list[int]]] = {}
        self._known: dict[Any, str] = {}

    def of(
        self, zones: Sequence[ZoneSnapshot], said: Mapping[str, str], cells: Sequence[Cells]
    ) -> tuple[str, dict[str, list[list[str]]]]:
        """The layouts of a moment by name of their width, and for each the lines of the zones' notes."""
        memory = tuple((zone.name, zone.spans, bool(zone.pages)) for zone in zones)
        if memory not in self._widths:
            self._widths = {memory: {name: note_widths(zones, width, cells) for name, width in WIDTHS.items()}}
        notes = {
            name: [note_lines(zone, width)[2] for zone, width in zip(zones, widths, strict=True)]
            for name, widths in self._widths[memory].items()
        }
        lines = tuple(len(each) for by_zone in notes.values() for each in by_zone)
        key = (memory, tuple(said.items()), lines)
        if key not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            plans = {name: lay_out(zones, width, 0, said, cells=cells).plain() for name, width in WIDTHS.items()}
            self._known[key] = json.dumps(plans, separators=(",", ":"))
        return self._known[key], notes
