"""The map's ES module wired to its panel in Python, and ways to look at its canvas."""

from __future__ import annotations

import base64
import json
from typing import Any

from kmemlab_widgets.zonemap import ZoneMap
from kmemlab_widgets.zonemap_layout import block_rect

__all__ = ["HOOKED", "Wire", "colour_at", "corner", "in_text", "middle"]


def in_text(data: bytes) -> str:
    """Bytes as the page takes them."""
    return base64.b64encode(data).decode()


# The module with a way in for Python's messages, which the stand-in for the model does not have.
HOOKED = (
    ZoneMap._esm.replace("export default { render };", "")
    + """
const heard = [];
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.tell = (message, buffers) => heard.forEach((hear) => hear(message, buffers.map(bytes)));
window.renew = (meta, cells, orders, frame) => {
  for (const [name, value] of Object.entries({ meta, cells: bytes(cells), orders: bytes(orders), frame }))
    window.model.set(name, value);
};
export default {
  render({ model, el }) {
    const on = model.on;
    model.on = (name, f) => (name === "msg:custom" ? heard.push(f) : on(name, f));
    return render({ model, el, show: (map) => (window.map = map) });
  },
};
"""
)


class Wire:
    """Carries messages between a page and its panel in Python, as a notebook does."""

    def __init__(self, page: Any, panel: ZoneMap) -> None:
        self.page, self.panel, self.seen = page, panel, panel.frame
        panel.send = self.send

    def send(self, content: Any, buffers: Any = ()) -> None:
        """From Python to the page."""
        self.page.evaluate("([m, b]) => window.tell(m, b)", [content, [in_text(bytes(each)) for each in buffers]])

    def sync(self) -> None:
        """The traits, if there is a new moment."""
        if self.panel.frame != self.seen:
            self.seen = self.panel.frame
            data = [self.panel.meta, in_text(self.panel.cells), in_text(self.panel.orders), self.seen]
            self.page.evaluate("(data) => window.renew(...data)", data)

    def pump(self) -> list[Any]:
        """What the page has asked, answered."""
        asked = self.page.evaluate("window.sent.splice(0)")
        for message in asked:
            self.panel._handle_custom_msg(message, [])
            self.sync()
        self.page.wait_for_timeout(60)
        return asked


def middle(panel: ZoneMap, pfn: int, width: str = "wide") -> tuple[float, float]:
    """Where the middle of a frame is on the canvas."""
    lay = json.loads(panel.meta)["layouts"][width]
    x, y, _, _ = block_rect(pfn, 0)
    for tile, left, top, _ in lay["tiles"]:
        if pfn // 1024 * 1024 == tile:
            return left + (x + 0.5) * lay["px"], top + (y + 0.5) * lay["px"]
    raise AssertionError(f"{pfn} is not on the map")


def colour_at(page: Any, x: float, y: float, canvas: str = "canvas.map") -> str:
    """The colour of a canvas pixel as #RRGGBB."""
    data = page.evaluate(
        f"[...document.querySelector('{canvas}').getContext('2d').getImageData({int(x)}, {int(y)}, 1, 1).data]"
    )
    return "#" + "".join(f"{c:02X}" for c in data[:3])


def corner(panel: ZoneMap, pfn: int) -> tuple[float, float]:
    """Just outside the upper left corner of a frame, where the 2 px frame of its block is."""
    x, y = middle(panel, pfn)
    return x - 4, y - 4
