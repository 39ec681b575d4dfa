"""FlagPicker: what a mask allows and forbids; tick bits, or paste a mode:0x... of a report."""

from __future__ import annotations

import json
import re
from typing import Any

import anywidget
import traitlets

from kmemlab import KernelBug, Stuck
from kmemlab.gfp import FLAGS, gfp_t
from kmemlab.gfp_facts import GROUPS, MaskFacts, mask_facts, translate
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.svg import Svg, fit
from kmemlab_widgets.theme import css

__all__ = ["FlagPicker", "draw"]

KERNELS = ("linux-2.6.11", "linux-6.1")
PRESETS = ("GFP_KERNEL", "GFP_ATOMIC", "GFP_NOWAIT", "GFP_NOFS", "GFP_NOIO", "GFP_USER", "GFP_HIGHUSER_MOVABLE")
MOST = (1 << 32) - 1


class FlagPicker(Panel, anywidget.AnyWidget):
    """``FlagPicker(GFP_KERNEL)``, ``FlagPicker(m)`` or ``FlagPicker(m, gfp=GFP_ATOMIC)``: what the mask means.

    With a machine there is a button that tries the mask on it. ``.gfp`` is the mask chosen, for the next cell.
    Errors: ValueError for a mask or a kernel that is none.
    """

    title = "FlagPicker"
    shows = (int,)
    _esm = module("flagpicker")
    _css = css(".kml-flagpicker") + (STATIC / "flagpicker.css").read_text(encoding="utf-8")
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, source: Any, *, gfp: int | None = None, kernel: str = "linux-6.1", follow: bool = True) -> None:
        if kernel not in KERNELS:
            raise ValueError(f"FlagPicker: kernel must be one of {', '.join(KERNELS)}, not {kernel!r}")
        chosen = (source if isinstance(source, int) else 0xCC0) if gfp is None else gfp
        if not isinstance(chosen, int) or not 0 <= chosen <= MOST:
            raise ValueError(f"FlagPicker: gfp must be a mask such as GFP_KERNEL, not {gfp!r}")
        self.kernel, self._mask, self._said = kernel, int(chosen), ""
        anywidget.AnyWidget.__init__(self)
        self.on_msg(self._told)
        self.start(source, follow=follow)

    @property
    def gfp(self) -> gfp_t:
        """The mask that is chosen."""
        return gfp_t(self._mask)

    def snapshot(self) -> MaskFacts:
        """What the mask means."""
        zones = None if self.machine is None else [zone.name for zone in self.machine.zones]
        return mask_facts(self._mask, self.kernel, zones if self.kernel == "linux-6.1" else None)

    def view(self, snapshot: MaskFacts) -> View:
        """Words and drawing."""
        twin = "\n".join(filter(None, (snapshot.twin, self._said)))
        return View(snapshot.headline, twin, draw(snapshot, 868), draw(snapshot, 358))

    def show(self, view: View, snapshot: Any) -> None:
        """Send what the browser lists: presets, bits, answers."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        table = FLAGS[self.kernel]
        self.view_data = json.dumps({
            "head": snapshot.headline, "mask": self._mask, "kernel": self.kernel, "kernels": KERNELS,
            "text": f"mode:{self._mask:#x}({snapshot.text})", "said": self._said, "notes": snapshot.notes,
            "presets": [(name, int(table[name])) for name in PRESETS if name in table],
            "groups": [(what, [(name, int(table[f"__GFP_{name}"])) for name in names])
                       for what, names in GROUPS[self.kernel].items()],
            "may": snapshot.may, "where": snapshot.where, "complaint": snapshot.complaint, "zones": snapshot.zones,
            "try": self.machine is not None and self.kernel == "linux-6.1",
        })  # fmt: skip

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """A bit was ticked, a preset or a kernel chosen, a mask pasted, the mask is to be tried."""
        self._said = ""
        if isinstance(mask := message.get("mask"), int) and 0 <= mask <= MOST:
            self._mask = mask
        elif isinstance(text := message.get("paste"), str):
            self._paste(text)
        elif message.get("kernel") in KERNELS and message["kernel"] != self.kernel:
            self._mask, lost = translate(self._mask, self.kernel, message["kernel"])
            self.kernel = message["kernel"]
            self._said = f"not in this kernel: {', '.join(lost)}" if lost else ""
        elif message.get("try") and self.machine is not None:
            self._try()
        self.refresh()

    def _paste(self, text: str) -> None:
        found = re.search(r"(?:mode:|gfp_mask=)?\s*(0x[0-9a-fA-F]{1,8})\b", text)
        if found is None:
            self._said = f"no mask in {text[:40]!r}: paste 0xcc0, or a line with mode:0xcc0"
        else:
            self._mask = int(found[1], 16)

    def _try(self) -> None:
        """Ask the machine for one page with this mask. What the kernel makes of it is shown, not raised."""
        try:
            self.machine.alloc_pages(self._mask, 0)
            self._said = self.machine.explain().headline
        except Stuck as stuck:
            self._said = str(stuck)
        except KernelBug as bug:
            self._said = f"the kernel stopped: {str(bug).splitlines()[0]}"


def draw(facts: MaskFacts, width: int) -> str:
    """The mask's answers as SVG, for what outlives the kernel."""
    svg = Svg(width, facts.headline)
    y = svg.heading(facts.headline, f"mode:{facts.mask:#x}({facts.text}) in {facts.kernel}") + 6
    columns = 3 if width > 560 else 1
    step, top, bottom = (width - 28) / columns, y, y
    for i, (title, rows) in enumerate(_columns(facts)):
        x = 14 + (i % columns) * step
        y = top if columns > 1 else bottom
        svg.text(x, y + 14, title, px=13, bold=True)
        y += 22
        for mark, colour, words in rows:
            for n, line in enumerate(fit(words, 12, step - 30)):
                svg.text(x, y + 12, mark if not n else "", fill=colour, bold=True)
                svg.text(x + 16, y + 12, line)
                y += 17
        bottom = max(bottom, y) + (10 if columns == 1 else 0)
    for note in facts.notes:
        for line in fit(note, 12, width - 40):
            svg.text(14, bottom + 16, line, fill="bad", bold=True)
            bottom += 16
    svg.grow(bottom + 10)
    return str(svg)


def _columns(facts: MaskFacts) -> list[tuple[str, list[tuple[str, str, str]]]]:
    may = [("○" if answer == "no" else "●", "ink", f"{what}: {answer}") for what, answer in facts.may]
    where = [("✓" if ok else "✕", "ok" if ok else "bad", name) for name, ok in facts.where]
    where += [("", "ink", facts.complaint)] if facts.complaint else []
    zones = [(str(i), "ink", zone) for i, zone in enumerate(facts.zones, 1)]
    return [("What may happen", may), ("Where it is allowed", where), ("Where the page may come from", zones)]
