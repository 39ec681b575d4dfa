"""SlabView: the slabs of one cache, which object comes next, and what lies around an object byte by byte."""

from __future__ import annotations

import json
from typing import Any

import anywidget
import traitlets

from kmemlab import GFP_KERNEL, KernelBug
from kmemlab.snapshot import CacheSnapshot
from kmemlab_widgets.panel import STATIC, Panel, View, module
from kmemlab_widgets.slabview_bytes import byte_rows, bytes_twin
from kmemlab_widgets.slabview_draw import draw, headline, subline, twin
from kmemlab_widgets.theme import css

__all__ = ["SlabView"]


class SlabView(Panel, anywidget.AnyWidget):
    """The slabs of a cache: ``SlabView(m, cache)``, itself or its name; ``object`` (an address) shows its bytes.

    A click on an object in use frees it, N allocates one on the running CPU; both are calls of the machine.
    Errors: ValueError names a cache that is not there.
    """

    title = "SlabView"
    _esm = module("slabview")
    _css = css(".kml-slabview") + (STATIC / "slabview.css").read_text(encoding="utf-8")
    view_data = traitlets.Unicode("{}").tag(sync=True)

    def __init__(self, machine: Any, cache: Any, *, object: int | None = None, follow: bool = True) -> None:  # noqa: A002
        if not hasattr(machine, "slab_snapshot"):
            raise TypeError(f"SlabView wants a Machine, not {machine!r}")
        self.cache = machine.find_cache(cache)
        self.object = object
        self.said = ""
        anywidget.AnyWidget.__init__(self)
        self.on_msg(self._told)
        self.start(machine, follow=follow)

    def snapshot(self) -> Any:
        """The cache as it is now."""
        return self.machine.slab_snapshot(self.cache)

    def view(self, snapshot: CacheSnapshot) -> View:  # type: ignore[override]
        """Words and both drawings."""
        (wide, self._wide), (narrow, self._narrow) = draw(snapshot, 868), draw(snapshot, 358)
        words = twin(snapshot)
        if self.object is not None:
            words += "\n" + bytes_twin(self.machine, self.object)
        return View(headline(snapshot), words, wide, narrow)

    def show(self, view: View, snapshot: Any) -> None:
        """Send drawings, the places of the slabs, and the bytes of the chosen object."""
        if snapshot is None:
            self.view_data = json.dumps({"error": view.twin})
            return
        rows = byte_rows(self.machine, self.object) if self.object is not None else None
        self.view_data = json.dumps({
            "head": view.headline, "sub": subline(snapshot), "twin": view.twin, "said": self.said, "bytes": rows,
            "svg": {"868": view.wide, "358": view.narrow},
            "boxes": {"868": [b.sent() for b in self._wide], "358": [b.sent() for b in self._narrow]},
            "pad": self.cache.red_left_pad, "size": self.cache.size, "base": str(self.machine.kernel.page_offset),
        })  # fmt: skip

    def address(self, pfn: int, index: int) -> int:
        """Where object ``index`` of the slab at ``pfn`` begins."""
        return int(self.machine.kernel.page_offset) + pfn * 4096 + self.cache.red_left_pad + index * self.cache.size

    def _told(self, _: Any, message: dict[str, Any], __: Any) -> None:
        """A click or a key in the browser. What the kernel makes of it is shown, not raised."""
        self.said = ""
        try:
            if "free" in message:
                pfn, index = message["free"]
                self.machine.kmem_cache_free(self.cache, self.address(int(pfn), int(index)))
            elif "look" in message:
                pfn, index = message["look"]
                self.object = self.address(int(pfn), int(index))
            elif "alloc" in message:
                p = self.machine.kmem_cache_alloc(self.cache, GFP_KERNEL)
                self.said = "" if p else "kmem_cache_alloc returned NULL"
        except KernelBug as bug:
            self.said = f"the kernel stopped: {str(bug).splitlines()[0]}"
        self.refresh()
